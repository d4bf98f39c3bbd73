"""Report → Markdown that reads well in a terminal too: padded tables, and reading grids in monospaced blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workings.report.cells import heat_rows, n_of_map
from workings.report.grids import Guess, Reading, ReadingGrid
from workings.report.scales import curve_header, curve_lines
from workings.report.sections import Curves, HeatMap, Report, Samples, Section, Table
from workings.report.wording import (
    DASH,
    cell,
    estimate,
    is_known,
    number,
    printable,
    probability,
    quantity,
    suffix,
    visible,
)

LONGEST_TOKEN = 12  # seven positions must fit a terminal

_SPECIAL = re.compile(r"([\\`*<|$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|&(?=#?\w+;))")
_FIRST_IN_LINE = re.compile(r"(?m)^([ \t]*[#+=~>-]|[ \t]*\d+[.)](?=\s))")


def markdown_of(report: Report, sections: Sequence[tuple[str, Section]], downloads: Mapping[str, Sequence[str]]) -> str:
    """The whole report as Markdown. `sections` come with their anchors; `downloads` go by these."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else escaped(str(value)),
    )
    words = {"plain": plain, "pairs": pairs, "fenced": fenced, "line": line, "quantity": quantity, "as_is": str}
    # Markup tells `finalize` that a filter has already escaped what it was given.
    environment.filters.update({name: lambda *given, make=make: Markup(make(*given)) for name, make in words.items()})
    text = environment.get_template("report.md.j2").render(
        report=report, sections=sections, downloads=downloads, dash=DASH
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def plain(section: Section) -> str:
    """The section's body as Markdown, with every number that the page shows."""
    if isinstance(section, Table):
        return _table(section)
    if isinstance(section, HeatMap):
        return _heat_map(section)
    if isinstance(section, Curves):
        return aligned(curve_header(section), curve_lines(section))
    if isinstance(section, Samples):
        note = "`>` marks the target; `>#38`: it is the 38th guess, below the ones shown. `·` is a space."
        return "\n\n".join([note, *(_grid(index, grid) for index, grid in enumerate(section.grids, 1))])
    return escaped(section.body)


def escaped(text: str) -> str:
    """Text in which Markdown finds no markup: `<b>` stays `<b>`, `$5` starts no formula, `#` no heading."""
    return _FIRST_IN_LINE.sub(lambda start: f"{start[0][:-1]}\\{start[0][-1]}", _inline(text))


def line(text: str) -> str:
    """Text as a part of one line: a heading, a list item, a table cell."""
    return " ".join(_inline(text).split()) or DASH


def pairs(items: Mapping[str, str]) -> str:
    """Name → value as a list."""
    return "\n".join(f"- {line(name)}: {line(str(value))}" for name, value in items.items())


def fenced(text: str) -> str:
    """A code block that nothing in the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{printable(text)}\n{fence}"


def code(text: str) -> str:
    """A code span on one line: `<<6*9=54>>` as it is."""
    one_line = " ".join(printable(text).split())
    if not one_line:
        return DASH
    longest = max((len(run) for run in re.findall(r"`+", one_line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {one_line} {fence}" if longest else f"`{one_line}`"


def aligned(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns: the first to the left, the others to the right."""
    rows = [[line(text) for text in texts] for texts in (header, *lines)]
    widths = [max(3, *(len(row[at]) for row in rows)) for at in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_padded(row, widths) for row in (rows[0], rule, *rows[1:]))


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    first = row[0].ljust(widths[0])
    rest = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *rest])} |"


def _inline(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", printable(text))


def _table(table: Table) -> str:
    counted = any(row.n is not None for row in table.rows)
    header = [table.rows_are, *(f"{column.name} {suffix(column.unit)}" for column in table.columns)]
    lines = []
    for row in table.rows:
        role = " (best control)" if row.name == table.reference else ""
        note = f" ({row.note})" if row.note else ""
        cells = [cell(value, column) for value, column in zip(row.cells, table.columns, strict=True)]
        lines.append([row.name + role + note, *cells, *([number(row.n, "count")] if counted else [])])
    return aligned([*header, *(["n"] if counted else [])], lines)


def _heat_map(heat_map: HeatMap) -> str:
    lines = []
    for row in heat_rows(heat_map):
        words = [_heat_words(one, heat_map) for one in row.cells]
        lines.append([f"{row.name} (control)" if row.is_control else row.name, *words])
    unit = suffix(heat_map.unit)
    notes = [f"In {unit}." if unit else "", f"n = {n_of_map(heat_map)}."]
    if heat_map.differs is not None:
        notes.append(f"✱ differs from {heat_map.control or 'the control'}.")
    table = aligned([f"{heat_map.rows_are} × {heat_map.columns_are}", *heat_map.columns], lines)
    return f"{table}\n\n{escaped(' '.join(note for note in notes if note))}"


def _heat_words(one, heat_map: HeatMap) -> str:
    if not is_known(one.value):
        return DASH
    words = estimate(one, heat_map.unit, heat_map.digits)
    return f"{words} ✱" if one.differs else words


def _grid(index: int, grid: ReadingGrid) -> str:
    match = "right" if grid.correct else "wrong"
    name = f" (problem {line(grid.problem)})" if grid.problem else ""
    facts = [
        f"**{index}.**{name} {line(grid.question)}",
        f"- written chain: {code(grid.chain)}",
        f"- right answer: {code(grid.gold)}",
        f"- the model says: {code(grid.answer)} ({match})",
    ]
    return "\n".join([facts[0], "", *facts[1:]]) + f"\n\n{fenced(_block(grid))}"


def _block(grid: ReadingGrid) -> str:
    """Layers downwards, positions across, the guesses of a cell under each other."""
    columns = [_column(grid, at) for at in range(len(grid.positions))]
    names = ["", *(["target"] if grid.targets else [])]
    for at, layer in enumerate(grid.layers):
        names += [layer, *[""] * (_height(grid, at) - 1)]
    lines = zip(_justified([printable(name) for name in names]), *columns, strict=True)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _column(grid: ReadingGrid, at: int) -> list[str]:
    """One position's lines, all equally wide: tokens to the left, probabilities under each other."""
    pairs_down = [(f" {printable(grid.positions[at])}", "")]
    if grid.targets:
        target = grid.targets[at]
        pairs_down.append((f" {DASH if target is None else visible(target, LONGEST_TOKEN)}", ""))
    for index, row in enumerate(grid.cells):
        stack = _stack(row[at])
        pairs_down += stack + [("", "")] * (_height(grid, index) - len(stack))
    tokens = _justified([token for token, _ in pairs_down])
    return _justified([f"{token} {share:>4}" for token, (_, share) in zip(tokens, pairs_down, strict=True)])


def _justified(texts: Sequence[str]) -> list[str]:
    width = max(map(len, texts), default=0)
    return [text.ljust(width) for text in texts]


def _height(grid: ReadingGrid, layer: int) -> int:
    return max(1, *(len(_stack(reading)) for reading in grid.cells[layer]))


def _stack(reading: Reading) -> list[tuple[str, str]]:
    """A cell's (token, probability), best first, and the target's place when it is not among them."""
    stack = [(_marked(guess), probability(guess.probability)) for guess in reading.guesses]
    if reading.target_is_elsewhere():
        share = "" if reading.target_probability is None else probability(reading.target_probability)
        stack.append((f">#{(reading.target_rank or 0) + 1:,}", share))
    return stack


def _marked(guess: Guess) -> str:
    return (">" if guess.is_target else " ") + visible(guess.token, LONGEST_TOKEN)
