"""Report → Markdown that reads well in a terminal too: padded tables, and reading grids in monospaced blocks."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text as Plain

from workings.report.figures import Part
from workings.report.sections import (
    Block,
    Curves,
    HeatCell,
    HeatMap,
    Intervals,
    Reading,
    ReadingGrid,
    Report,
    Samples,
    Table,
)
from workings.report.wording import (
    DASH,
    cell,
    curve_summary,
    estimate,
    interval_lines,
    is_known,
    n_of_map,
    notes,
    number,
    printable,
    probability,
    quantity,
    suffix,
    visible,
)

LONGEST_TOKEN = 12  # seven positions must fit a terminal

# Words in which Markdown, or GitHub's, could find markup. They become code: an escape would be a stray backslash in a terminal.
# A star between spaces is none. Some signs are one only at the start of a line: heading, list, quote, rule, table, link target.
_SPECIAL = r"(?:[\\`<$]|\*(?=\S)|(?<=\S)\*|~~|\](?=[(\[])|(?<!\w)_|_(?!\w)|&(?=#?\w+;))"
_WORD = rf"(?:(?!{_SPECIAL})\S)*{_SPECIAL}\S*"
_FIRST = r"#+(?=\s|$)|[-+*](?=\s|$)|=+(?=\s*$)|[-=~]{2,}\S*|[-:|][-:| ]*(?=$)|>\S*|\d+[.)](?=\s|$)|\[[^\]\n]*\]:\S*"
_MARKUP = re.compile(rf"(?m)^(?:{_FIRST})|{_WORD}(?: +{_WORD})*")


def markdown_of(report: Report, parts: Sequence[Part]) -> str:
    """The whole report as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else escaped(str(value)),
    )
    filters = {"body": body, "pairs": pairs, "fenced": fenced, "line": line, "quantity": quantity, "as_is": str}
    # Markup tells `finalize` that a filter has already escaped what it was given.
    environment.filters.update({name: lambda *given, make=make: Markup(make(*given)) for name, make in filters.items()})
    chapters = [
        (level, each) for part in parts for level, each in (("##", part), *(("###", one) for one in part.parts))
    ]
    text = environment.get_template("report.md.j2").render(report=report, chapters=chapters, notes=notes(report))
    return re.sub(r"\n{3,}", "\n\n", text)


def body(section: Block) -> str:
    """The section as Markdown, with every number that the page shows."""
    if isinstance(section, Table):
        return _table(section)
    if isinstance(section, HeatMap):
        return _heat_map(section)
    if isinstance(section, Intervals):
        return aligned(interval_lines(section), words=(1,))
    if isinstance(section, Curves):
        return aligned(curve_summary(section))
    if isinstance(section, Samples):
        note = "`>` marks the target; `>#38`: it is the 38th guess, below the ones shown. `·` is a space."
        return "\n\n".join([note, *(_sample(index, grid) for index, grid in enumerate(section.grids, 1))])
    return escaped(section.body)


def escaped(text: str) -> str:
    """Text in which Markdown finds no markup: words that hold any become code.

    >>> print(escaped("Is <<6*9=54>> in final_norm [58.2, 64.2] (or <b>)?"))
    Is `<<6*9=54>>` in final_norm [58.2, 64.2] (or `<b>`)?
    """
    lines = "\n".join(one.strip() for one in printable(text).split("\n"))
    return _MARKUP.sub(_as_code, lines)


def line(text: str) -> str:
    """Text as a part of one line: a heading, a list item, a table cell."""
    return escaped(" ".join(text.split())) or DASH


def pairs(items: Mapping[str, str]) -> str:
    """Name → value as a list."""
    return "\n".join(f"- {line(name)}: {line(str(value))}" for name, value in items.items())


def fenced(text: str) -> str:
    """A code block that nothing in the text can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}\n{printable(text)}\n{fence}"


def code(text: str) -> str:
    """A code span on one line: `<<6*9=54>>` as it is."""
    one_line = " ".join(printable(text).split())
    if not one_line:
        return DASH
    fence, pad = ("`" * (_longest_run(one_line) + 1), " ") if "`" in one_line else ("`", "")
    return f"{fence}{pad}{one_line}{pad}{fence}"


def aligned(lines: Sequence[Sequence[str]], words: Collection[int] = ()) -> str:
    """A Markdown table with padded columns, its header first: names and the columns of words to the left, numbers to the right."""
    rows = [
        [line(text).replace("|", "\\|") for text in texts] for texts in lines
    ]  # a bar would end the cell, even in code
    widths = [max(3, *(len(row[at]) for row in rows)) for at in range(len(rows[0]))]
    to_left = [at in (0, *words) for at in range(len(widths))]
    rows.insert(1, ["-" * (width - 1) + ("-" if left else ":") for width, left in zip(widths, to_left, strict=True)])
    padded = [
        [
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(row, widths, to_left, strict=True)
        ]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def _as_code(words: re.Match[str]) -> str:
    """The words as a code span, without the full stop behind them or the bracket that closes what began before."""
    inside = words[0].rstrip(".,:!?")
    if inside.count(")") > inside.count("("):
        inside = inside.removesuffix(")")
    if not re.search(_SPECIAL, inside):
        inside = words[0]
    return code(inside) + words[0][len(inside) :]


def _longest_run(text: str) -> int:
    """The length of the longest run of backticks."""
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def _table(table: Table) -> str:
    n = ["n"] if table.has_counts else []
    lines = [[table.rows_are, *(f"{column.name} {suffix(column.unit)}" for column in table.columns), *n]]
    for row in table.rows:
        note = f" ({row.note})" if row.note else ""
        cells = [cell(value, column) for value, column in zip(row.cells, table.columns, strict=True)]
        lines.append([row.name + note, *cells, *(number(row.n, "count") for _ in n)])
    return aligned(lines, words=[at for at, column in enumerate(table.columns, 1) if column.unit == "text"])


def _heat_map(heat_map: HeatMap) -> str:
    def words(one: HeatCell) -> str:
        if not is_known(one.value):
            return DASH
        return estimate(one, heat_map.unit, heat_map.digits) + (" ✱" if one.differs else "")

    lines = [[f"{heat_map.rows_are} × {heat_map.columns_are}", *heat_map.columns]]
    for row in heat_map.all_rows():
        lines.append([f"{row.name} (control)" if row.is_control else row.name, *map(words, row.cells)])
    unit = suffix(heat_map.unit)
    notes = [f"In {unit}."] * bool(unit) + [f"{n_of_map(heat_map)}."]
    if heat_map.differs is not None:
        notes.append(f"✱ differs from {heat_map.control or 'the control'}.")
    return f"{aligned(lines)}\n\n{escaped(' '.join(notes))}"


def _sample(index: int, grid: ReadingGrid) -> str:
    name = f" (problem {line(grid.problem)})" if grid.problem else ""
    return (
        f"**{index}.**{name} {line(grid.question)}\n\n"
        f"- written chain: {code(grid.chain)}\n"
        f"- right answer: {code(grid.gold)}\n"
        f"- the model says: {code(grid.answer)} ({'right' if grid.correct else 'wrong'})\n\n"
        f"{fenced(_monospaced(grid))}"
    )


def _monospaced(grid: ReadingGrid) -> str:
    """Layers downwards, positions across, the guesses of a cell under each other; a column of probabilities each."""
    rows = [["", *(text for position in grid.positions for text in (f" {printable(position)}", ""))]]
    if grid.targets:
        targets = [DASH if target is None else visible(target, LONGEST_TOKEN) for target in grid.targets]
        rows.append(["target", *(text for target in targets for text in (f" {target}", ""))])
    for layer, readings in zip(grid.layers, grid.cells, strict=True):
        stacks = [_stack(reading) for reading in readings]
        rows.append(
            [printable(layer), *("\n".join(pair[at] + " " * at for pair in stack) for stack in stacks for at in (0, 1))]
        )
    table = Grid.grid(padding=(0, 1))
    for at in range(len(rows[0])):
        table.add_column(justify="right" if at and at % 2 == 0 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Plain, row))
    out = io.StringIO()
    Console(file=out, width=10_000, color_system=None).print(table)
    return "\n".join(text.rstrip() for text in out.getvalue().splitlines())


def _stack(reading: Reading) -> list[tuple[str, str]]:
    """A cell's (token, probability), best first, and the target's place when it is not among them."""
    stack = [
        ((">" if guess.is_target else " ") + visible(guess.token, LONGEST_TOKEN), probability(guess.probability))
        for guess in reading.guesses
    ]
    if reading.target_is_elsewhere():
        share = "" if reading.target_probability is None else probability(reading.target_probability)
        stack.append((f">#{(reading.target_rank or 0) + 1:,}", share))
    return stack
