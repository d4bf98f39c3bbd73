"""Numbers and strings from anywhere → text that can be shown: rounded, signed, and with nothing invisible in it."""

from __future__ import annotations

import math
import re
import unicodedata

from workings.report.sections import Axis, Cell, Column, Estimate, Unit

DASH = "–"
LONGEST_TOKEN = 18  # characters of a token shown in a grid; the whole of it (to LONGEST_TITLE) is in its title
LONGEST_TITLE = 200

_DIGITS: dict[Unit, int] = {"share": 1, "points": 1, "bits": 2, "nats": 3, "count": 0, "p": 3, "number": 3, "text": 3}
_SUFFIX: dict[Unit, str] = {"share": "%", "points": "points", "bits": "bits", "nats": "nats"}
_WRITTEN = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}  # the pictures ␊ ␍ ␉ are missing from many fonts
# Direction overrides would let a token rearrange the page around it.
_DIRECTION = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def number(value: float | None, unit: Unit = "number", digits: int | None = None, signed: bool = False) -> str:
    """0.937 as a share → `93.7`; −0.0 → `0.0`; None and NaN → a dash. The unit is not repeated: see `suffix`."""
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
    """`[91.8, 95.2]`, or `[–]` when there is none."""
    if not (is_known(low) or is_known(high)):
        return f"[{DASH}]"
    return f"[{number(low, unit, digits, signed)}, {number(high, unit, digits, signed)}]"


def quantity(value: Estimate, unit: Unit) -> str:
    """`+30.4 points [+27.9, +32.9]`: a number on its own, outside a table."""
    words = f"{number(value.value, unit)} {suffix(unit)}".rstrip()
    return f"{words} {interval(value.low, value.high, unit)}"


def estimate(value: Estimate, unit: Unit, digits: int | None = None, signed: bool = False) -> str:
    return f"{number(value.value, unit, digits, signed)} {interval(value.low, value.high, unit, digits, signed)}"


def cell(value: Cell, column: Column) -> str:
    """A table cell as text, in its column's unit."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Estimate):
        return estimate(value, column.unit, column.digits, column.signed)
    return number(value, column.unit, column.digits, column.signed)


def suffix(unit: Unit) -> str:
    return _SUFFIX.get(unit, "")


def axis_name(axis: Axis) -> str:
    return printable(f"{axis.name} ({axis.unit})" if axis.unit else axis.name)


def is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def probability(value: float) -> str:
    """`.93`, `1.0`, `<.01`: two figures are what a cell has room for."""
    if math.isnan(value):
        return DASH
    if value < 0.005:
        return "<.01"
    return "1.0" if value >= 0.995 else f"{value:.2f}"[1:]


def printable(text: str) -> str:
    """Any text, with control characters, lone surrogates and direction overrides spelt out; line breaks stay."""
    return "".join(char if char in "\n\t" else _spelt(char) for char in text)


def visible(token: str, longest: int = LONGEST_TOKEN) -> str:
    """A token as a grid shows it: spaces as ·, invisible characters as \\n or \\x00, clipped."""
    return "".join(text for text, _ in pieces(token, longest))


def pieces(token: str, longest: int = LONGEST_TOKEN) -> list[tuple[str, bool]]:
    """A token cut into (text, is it our mark?): `·` for a space is one, `\\n` for a line break too."""
    if not token:
        return [("(empty)", True)]
    clipped = token if len(token) <= longest else token[: longest - 1]
    parts: list[tuple[str, bool]] = []
    for char in clipped:
        text = _mark(char)
        is_mark = text != char
        if parts and parts[-1][1] == is_mark:
            parts[-1] = (parts[-1][0] + text, is_mark)
        else:
            parts.append((text, is_mark))
    return parts if clipped == token else [*parts, ("…", True)]


def clipped(text: str, longest: int) -> str:
    """One line of at most `longest` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def title_of(token: str) -> str:
    """The whole token (to LONGEST_TITLE characters), for the tooltip."""
    whole = "".join(_mark(char) for char in token[:LONGEST_TITLE])
    return whole if len(token) <= LONGEST_TITLE else f"{whole}… ({len(token):,} characters)"


def slug(text: str) -> str:
    """`Top-1 by layer × position` → `top-1-by-layer-position`: safe as a file name and as an anchor."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:60] or "section"


def _mark(char: str) -> str:
    if char == " ":
        return "·"
    if char in _WRITTEN:
        return _WRITTEN[char]
    return _escape(char) if unicodedata.category(char) in ("Cc", "Cs", "Cf", "Zl", "Zp", "Zs", "Co", "Cn") else char


def _spelt(char: str) -> str:
    not_a_character = ord(char) & 0xFFFE == 0xFFFE  # may stand neither in HTML nor in SVG
    hidden = unicodedata.category(char) in ("Cc", "Cs") or ord(char) in _DIRECTION
    return _escape(char) if hidden or not_a_character else char


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
