"""Numbers, tokens and other strings → text that can be shown: rounded, signed, and with nothing invisible in it."""

from __future__ import annotations

import math
import re
import unicodedata
from itertools import groupby

from workings.report.sections import (
    Axis,
    Badge,
    BadgeKind,
    Block,
    Cell,
    Column,
    ConclusionKind,
    Curves,
    Estimate,
    Fold,
    HeatCell,
    HeatMap,
    Intervals,
    Report,
    Table,
    Unit,
)

DASH = "–"
LONGEST_TOKEN = 18  # characters of a token shown in a grid; the whole of it (to LONGEST_TITLE) is in its title
LONGEST_TITLE = 200

SIGNS: dict[BadgeKind | ConclusionKind, str] = {
    "yes": "●",
    "read": "●",
    "holds": "●",
    "in part": "◐",
    "read in part": "◐",
    "explained by a control": "◐",
    "no": "○",
    "not read": "○",
    "fails": "○",
    "undecided": "?",
    "not asked": "–",
    "not judged": "–",
}
"""The sign before an answer: colour alone would tell some readers nothing."""

_DIGITS: dict[Unit, int] = {"share": 1, "points": 1, "bits": 2, "nats": 3, "count": 0, "p": 3, "number": 3, "text": 3}
_SUFFIX: dict[Unit, str] = {"share": "%", "points": "points", "bits": "bits", "nats": "nats"}
_MEANINGS: dict[Unit, str] = {
    "points": "Points are percentage points.",
    "nats": "A nat is 1.44 bits.",
    "p": "A p marked Holm is corrected for the number of tests in its table.",
}
_WRITTEN = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}  # the pictures ␊ ␍ ␉ are missing from many fonts
# Direction overrides would let a token rearrange the page around it.
_DIRECTION = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def number(value: float | None, unit: Unit = "number", digits: int | None = None, signed: bool = False) -> str:
    """Write a value in its unit: 0.937 as a share → `93.7`; −0.0 → `0.0`; None and NaN → a dash.

    Args:
        value: Shares and points are fractions.
        unit: How it is written; its name is not part of the text: see `suffix`.
        digits: Digits after the point; None means the usual number for the unit.
        signed: Write the plus sign too, as points always do.
    """
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit == "p" and 0 <= value < 0.001:
        return "<0.001"
    shown = value * 100 if unit in ("share", "points") else value
    places = _DIGITS[unit] if digits is None else digits
    body = f"{abs(shown):,.{places}f}"
    if not body.strip("0.,"):
        return body
    return ("−" if shown < 0 else "+" if signed or unit == "points" else "") + body


def interval(
    low: float | None, high: float | None, unit: Unit = "number", digits: int | None = None, signed: bool = False
) -> str:
    """Write an interval: `[91.8, 95.2]`, or `[–]` when there is none. The arguments are those of `number`."""
    if not (is_known(low) or is_known(high)):
        return f"[{DASH}]"
    return f"[{number(low, unit, digits, signed)}, {number(high, unit, digits, signed)}]"


def quantity(value: Estimate, unit: Unit) -> str:
    """Write an estimate outside a table, with its unit: `+30.4 points [+27.9, +32.9]`."""
    words = f"{number(value.value, unit)} {suffix(unit)}".rstrip()
    return f"{words} {interval(value.low, value.high, unit)}"


def estimate(value: Estimate | HeatCell, unit: Unit, digits: int | None = None, signed: bool = False) -> str:
    """Write a value and its interval: `93.7 [91.8, 95.2]`."""
    return f"{number(value.value, unit, digits, signed)} {interval(value.low, value.high, unit, digits, signed)}"


def cell(value: Cell, column: Column) -> str:
    """Write a table cell in its column's unit."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Badge):
        return printable(f"{SIGNS[value.kind]} {value.text}" + f" ({value.note})" * bool(value.note))
    if isinstance(value, Estimate):
        return estimate(value, column.unit, column.digits, column.signed)
    return number(value, column.unit, column.digits, column.signed)


def suffix(unit: Unit) -> str:
    """The name of a unit behind a number or in a header: `%`, `points`, `nats`, or nothing."""
    return _SUFFIX.get(unit, "")


def axis_name(axis: Axis) -> str:
    """The axis with its unit: `validation loss (nats)`."""
    return printable(f"{axis.name} ({axis.unit})" if axis.unit else axis.name)


def is_known(value: float | None) -> bool:
    """True unless the value is None or NaN."""
    return value is not None and not math.isnan(value)


def probability(value: float) -> str:
    """Write a probability with the two figures that a cell has room for: `.93`, `1.0`, `<.01`."""
    if math.isnan(value):
        return DASH
    if value < 0.005:
        return "<.01"
    return "1.0" if value >= 0.995 else f"{value:.2f}"[1:]


def cell_in_full(cell: HeatCell, heat_map: HeatMap) -> str:
    """Describe a cell on one line: `block3, t3: 93.7 % [91.8, 95.2], n = 1,000, differs from the control`."""
    unit, digits = heat_map.unit, heat_map.digits
    text = f"{cell.row}, {cell.column}: {number(cell.value, unit, digits)} {suffix(unit)}".rstrip()
    if is_known(cell.value):
        text += f" {interval(cell.low, cell.high, unit, digits)}"
    if cell.n is not None:
        text += f", n = {cell.n:,}"
    return f"{text}, differs from the control" if cell.differs else text


def notes(report: Report) -> str:
    """A guide to the numbers: brackets, n, dashes, and the units that this report uses."""
    units: set[Unit] = {stat.unit for stat in report.headline}
    for section in report.sections:
        for one in section.sections if isinstance(section, Fold) else [section]:
            units |= _units(one)
    sentences = [
        "Brackets hold a 95 % interval unless the caption says otherwise.",
        f"n is the number of items: problems, probes or documents. {DASH} means not known.",
        *(meaning for unit, meaning in _MEANINGS.items() if unit in units),
    ]
    return " ".join(sentences)


def _units(section: Block) -> set[Unit]:
    if isinstance(section, Table):
        return {column.unit for column in section.columns}
    if isinstance(section, Intervals):
        return {panel.unit for panel in section.panels}
    return {section.unit} if isinstance(section, HeatMap) else set()


def n_of_map(heat_map: HeatMap) -> str:
    """The problems behind a heat map: `n = 1,000 problems`, or `n = 412 to 1,000 problems` where its cells differ."""
    counts = [cell.n or 0 for row in heat_map.all_rows() if not row.is_control for cell in row.cells]
    fewest, most = min(counts), max(counts)
    return f"n = {most:,} problems" if fewest == most else f"n = {fewest:,} to {most:,} problems"


def interval_lines(section: Intervals) -> list[list[str]]:
    """The numbers of dots and whiskers as a table, its header first: a line for each row and series."""
    lines = [[section.rows_are, "series", *(f"{panel.name} {suffix(panel.unit)}".rstrip() for panel in section.panels)]]
    for at, row in enumerate(section.rows):
        for index, series in enumerate(section.series):
            lines.append(
                [row, series, *(estimate(panel.values[at][index], panel.unit, signed=True) for panel in section.panels)]
            )
    return lines


def curve_summary(curves: Curves) -> list[list[str]]:
    """A small table of the curves, its header first: first, lowest, highest and last value of each series."""
    lines = [[f"{axis_name(curves.y)} by {axis_name(curves.x)}", "first", "lowest", "highest", "last", "points"]]
    for series in curves.series:
        points = [(y, x) for x, y in zip(series.x, series.y, strict=True) if y is not None and math.isfinite(y)]
        if not points:
            lines.append([series.name, DASH, DASH, DASH, DASH, "0"])
            continue
        lowest, highest = (f"{y:.4g} at {x:g}" for y, x in (min(points), max(points)))
        lines.append([series.name, f"{points[0][0]:.4g}", lowest, highest, f"{points[-1][0]:.4g}", f"{len(points):,}"])
    return lines


def printable(text: str) -> str:
    """The text with control characters, lone surrogates and direction overrides spelt out; line breaks stay."""
    return "".join(_escape(char) if _is_hidden(char) else char for char in text)


def visible(token: str, longest: int = LONGEST_TOKEN) -> str:
    """The token as a grid shows it: spaces as ·, invisible characters as \\n or \\x00, clipped."""
    return "".join(text for text, _ in pieces(token, longest))


def pieces(token: str, longest: int = LONGEST_TOKEN) -> list[tuple[str, bool]]:
    """The token as parts (text, is a symbol): `·` for a space and `\\n` for a line break are symbols, not the token's own text."""
    if not token:
        return [("(empty)", True)]
    clipped = token if len(token) <= longest else token[: longest - 1]
    parts = [
        ("".join(map(_symbol, run)), is_symbol)
        for is_symbol, run in groupby(clipped, lambda char: _symbol(char) != char)
    ]
    return parts if clipped == token else [*parts, ("…", True)]


def clipped(text: str, longest: int) -> str:
    """The text on one line of at most `longest` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def title_of(token: str) -> str:
    """The whole token (up to LONGEST_TITLE characters), for the tooltip."""
    whole = "".join(_symbol(char) for char in token[:LONGEST_TITLE])
    return whole if len(token) <= LONGEST_TITLE else f"{whole}… ({len(token):,} characters)"


def slug(text: str) -> str:
    """Make a file name and anchor: `Top-1 by layer × position` → `top-1-by-layer-position`."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:60] or "section"


def _symbol(char: str) -> str:
    if char == " ":
        return "·"
    if char in _WRITTEN:
        return _WRITTEN[char]
    return _escape(char) if unicodedata.category(char) in ("Cc", "Cs", "Cf", "Zl", "Zp", "Zs", "Co", "Cn") else char


def _is_hidden(char: str) -> bool:
    not_a_character = ord(char) & 0xFFFE == 0xFFFE  # may stand neither in HTML nor in SVG
    is_control = unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"
    return is_control or not_a_character or ord(char) in _DIRECTION


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
