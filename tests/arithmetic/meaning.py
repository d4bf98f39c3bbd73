"""What a text says in numbers, read by other means than the package's: the judge of whether rewriting changed anything.

A text becomes statements: each a chain of sides with their exact values, the numbers it names, and whether money is meant. A fact's
token is read as the equation it stands for: alone it says what the equation says, inside an expression it is worth its result.
What this reader does not understand (a quantity such as `3y`, a date, a dangling operator) it keeps as written, so that any change
there counts as a change of meaning. It reads greedily: line breaks do not end an expression, only blank lines, words and points do.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

WORTH = {
    "MUL": lambda a, b: a * b if a <= b else None,
    "ADD": lambda a, b: a + b if a <= b else None,
    "SUB": lambda a, b: a - b,
    "DIV": lambda a, b: Fraction(a, b) if b else None,
    "SQUARE": lambda a: a * a,
    "CUBE": lambda a: a**3,
}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "eighth": 8, "tenth": 10}

OPERATORS = {
    **dict.fromkeys("*×∗⋅·", "*"),
    **dict.fromkeys("/÷", "/"),
    **dict.fromkeys("-−–", "-"),
    "+": "+",
    "^": "^",
    "**": "^",
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    "times": "*",
    "multiplied by": "*",
    "divided by": "/",
    "over": "/",
    "plus": "+",
    "minus": "-",
}
RELATIONS = {"equals": "=", "is equal to": "=", **{sign: sign for sign in "=<>≤≥≠≈≡~"}}
POWERS = {"squared": "2", "²": "2", "cubed": "3", "³": "3"}
VARIABLES = set("xXyzn")

_CODE = re.compile(
    r"^[ \t>]*(?P<fence>`{3,}(?![^\n]*`)|~{3,})[^\n]*(?:\n(?:(?!^[ \t>]*(?P=fence))[^\n]*(?:\n|\Z))*(?:[^\n]*)|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n)[\s\S])*?(?<!`)(?P=ticks)(?!`)"
    r"|(?<!`)`+(?!`)[^\n]*",
    re.M,
)
_ITEM = re.compile(
    r"(?P<fact><[A-Z]+(?:_\d+)+>)"
    r"|<<(?P<note>(?:[^<>\n]|<[A-Z]+(?:_\d+)+>)*)>>"
    r"|(?P<hex>0[xX][0-9a-fA-F]+\b)"
    r"|(?P<power>\*\*|[²³])"
    r"|(?P<cross>(?<=[\d\s)])[xX](?=[^\S\n]*\n?[^\S\n]*(?:\\?[$€£¥₹(])*\d))"
    r"|(?P<phrase>(?:multiplied by|divided by|is equal to|per cent|to the power of)\b)"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<number>(?:\d{1,3}(?:,\d{3})+(?![\d]|,\d)|\d+(?:,\d+)*)(?:\.\d+)*|\.\d+)"
    r"|(?P<blank>[^\S\n]*\n[^\S\n]*\n\s*)"
    r"|(?P<space>\s+)"
    r"|(?P<display>\\[()\[\]\\])"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<money>\\?[$€£¥₹])"
    r"|(?P<sign>.)",
    re.S,
)

_TAKES_A_PART = re.compile(r"(?:[\d>%％½]|\b(?:half|third|quarter|fourth|fifth|eighth|tenth|percent|cent|out)s?)\s*$")


class Item(NamedTuple):
    kind: str  # number, fact, operator, relation, open, close, opaque, end
    text: str
    value: Fraction | None = None
    names: frozenset[Fraction] = frozenset()


class Statement(NamedTuple):
    says: tuple
    names: frozenset
    money: bool
    notes: tuple[str, ...] = ()


def meaning(text: str) -> list[Statement | str]:
    """The statements of a text in order; code, in which nothing may change, as it is written."""
    said: list[Statement | str] = []
    at = 0
    for code in _CODE.finditer(text):
        said += _statements(text[at : code.start()])
        said.append(code[0])
        at = code.end()
    return said + _statements(text[at:])


def values(text: str) -> list:
    """Only what the statements of a text say, those in annotations included, and nothing twice in a row."""
    said: list = []
    for statement in meaning(text):
        if isinstance(statement, str):
            said.append(statement)
            continue
        for each in (statement, *(inner for note in statement.notes for inner in meaning(note))):
            says = each.says if isinstance(each, Statement) else each
            if not said or said[-1] != says:
                said.append(says)
    return said


def same(before: str, after: str) -> bool:
    """Whether two texts mean the same: values, numbers named, money, code; annotations may have gone."""
    return [_without_notes(each) for each in meaning(before)] == [_without_notes(each) for each in meaning(after)]


def _without_notes(statement: Statement | str) -> Statement | str:
    return statement if isinstance(statement, str) else statement._replace(notes=())


def _statements(text: str) -> list[Statement | str]:
    said, run, money = [], [], False
    for item in [*_items(text), Item("end", "")]:
        if item.kind == "money":
            money = True
        elif item.kind != "end":
            run.append(item)
        elif run:
            for part in _parted(run):
                said += _read(part, money)
            run, money = [], False
    return said


def _items(text: str) -> list[Item]:
    items: list[Item] = []
    glued = False  # whether the last item touches this one
    broken = False  # whether a line break lies between them
    for match in _ITEM.finditer(text):
        kind, written = match.lastgroup, match[0]
        if kind == "space":
            broken, glued = broken or "\n" in written, False
            continue
        before = next((item.kind for item in reversed(items) if item.kind != "money"), "end")
        item = (
            _item(kind, match, before, glued, text) if not _is_price(items) else _item(kind, match, "end", False, text)
        )
        beside = {"number", "fact", "opaque"}
        if before == "quantity" and not glued and item.kind in beside | {"open", "money", "note"}:
            items.append(Item("end", " "))
        if broken and before in beside | {"close"} and item.kind in beside | {"open", "money", "note"}:
            items.append(Item("end", "\n"))
        if item.kind == "power":
            items += [Item("operator", "^"), Item("number", POWERS[item.text], Fraction(POWERS[item.text]))]
        elif item.kind == "operator" and item.text == "^" and before == "number":
            items.append(item)
        elif item.kind == "number" and before == "operator" and items[-1].text == "^":
            items.append(item._replace(names=frozenset()))
        elif item.kind == "opaque" and glued and items[-1].kind in ("number", "fact"):
            items[-1] = Item("quantity", items[-1].text + written)
        else:
            items.append(item)
        broken, glued = False, True
    return items


def _is_price(items: list[Item]) -> bool:
    """Whether the sign of a currency is the last thing read: what follows belongs to it, and not to what stands before."""
    return bool(items) and items[-1].kind == "money"


def _item(kind: str, match: re.Match, before: str, glued: bool, text: str) -> Item:
    written = match[0]
    if kind == "fact":
        return _fact(written)
    if kind == "note":
        names = [statement.names for statement in meaning(match["note"]) if isinstance(statement, Statement)]
        return Item("note", match["note"], None, frozenset().union(*names))
    if kind == "hex":
        return Item("opaque", written)
    if kind == "number":
        if glued and before == "opaque":
            return Item("opaque", written)
        return _number(written)
    if kind in ("word", "phrase"):
        return _word(
            written,
            before,
            glued,
            text[max(0, match.start() - 20) : match.start()],
            text[match.end() : match.end() + 20],
        )
    if kind == "cross":
        return Item("operator", "*") if before in ("number", "fact", "close") else Item("opaque", written)
    if kind in ("blank", "display"):
        return Item("end", written)
    if kind == "command":
        return Item("operator", OPERATORS[written]) if written in OPERATORS else Item("opaque", written)
    if kind == "money":
        return Item("money", written)
    if kind == "power":
        return Item("operator", "^") if written == "**" else Item("power", written)
    return _sign(written, before, glued, text[match.end() : match.end() + 20])


def _fact(written: str) -> Item:
    name, *numbers = written.strip("<>").split("_")
    *operands, result = map(int, numbers)
    try:
        right = name in WORTH and WORTH[name](*operands) == result
    except TypeError:
        right = False
    if not right or written != f"<{'_'.join([name, *map(str, operands), str(result)])}>":
        return Item("opaque", written)
    return Item("fact", written, Fraction(result), frozenset(map(Fraction, [*operands, result])))


def _number(written: str) -> Item:
    plain = "".join(str(unicodedata.digit(c)) if c.isdigit() and not c.isascii() else c for c in written)
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    if not re.fullmatch(r"\d*\.?\d+", plain):
        return Item("opaque", written)
    value = Fraction(plain)
    return Item("number", plain, value, frozenset([value]))


def _word(written: str, before: str, glued: bool, past: str, rest: str) -> Item:
    after_number = before in ("number", "fact", "close", "opaque", "quantity")
    lower = written.lower()
    if lower == "of" and not _TAKES_A_PART.search(past):
        return Item("end", written)
    if (
        lower in ("of", "over")
        and before in ("number", "fact", "close")
        and not re.match(r"\s+[-(]?\\?[$€£¥₹]?[\d<]", rest)
    ):
        return Item("end", written)
    if lower in POWERS and after_number:
        return Item("power", lower)
    if lower in OPERATORS and after_number:
        return Item("operator", OPERATORS[lower])
    if lower in RELATIONS:
        return Item("relation", "=")
    if after_number and lower in (*SCALES, "percent", "per cent", "of", "mod"):
        return Item("opaque", lower)
    if lower == "negative":
        return Item("opaque" if re.match(r"\s+\\?[$€£¥₹]?[\d<]", rest) else "end", written)
    if (glued and before in ("number", "fact")) or written in VARIABLES:
        return Item("opaque", written)
    if lower in PARTS or lower in SCALES:
        return Item("opaque", lower)
    if lower == "of" and before == "opaque":
        return Item("opaque", lower)
    return Item("end", written)


def _sign(written: str, before: str, glued: bool, rest: str) -> Item:
    if written in "([":
        return Item("open", written) if written == "(" else Item("end", written)
    if written in ")]":
        return Item("close", written) if written == ")" else Item("end", written)
    if written in OPERATORS:
        return Item("operator", OPERATORS[written])
    if written in RELATIONS:
        return Item("relation", written)
    if written in "%‰％":
        return Item("opaque", "%")
    if (
        written == ":"
        and before in ("number", "fact")
        and re.match(r"\\?[$€£¥₹]?[\d<]" if glued else r"\s*[\d<$]", rest)
    ):
        return Item("opaque", written)
    if written in "!°&{}\\@":
        return Item("opaque", written)
    goes_on = rest[:1].isalnum() if written == "." else rest[:1].isdigit()
    if written in ".," and glued and goes_on and before in ("number", "fact"):
        return Item("opaque", written)
    if unicodedata.category(written).startswith(("N", "L", "M", "C")):
        return Item("opaque", written)
    return Item("end", written)


def _read(run: list[Item], money: bool) -> list[Statement | str]:
    names = frozenset().union(*(item.names for item in run))
    notes = tuple(item.text for item in run if item.kind == "note")
    items = _within_brackets([item for item in run if item.kind != "note"])
    if not items:
        return [Statement((), names, money, notes)] if notes else []
    as_written = (" ".join(item.text for item in items),)
    sides: list[list[Item]] = [[]]
    signs: list[str] = []
    for item in items:
        if item.kind == "relation":
            signs.append(item.text)
            sides.append([])
        else:
            sides[-1].append(item)
    try:
        values = [_Sum(side).value() if side or n else None for n, side in enumerate(sides)]
    except (ValueError, ZeroDivisionError, IndexError, OverflowError):
        return [Statement(as_written, names, money, notes)]
    says: list = [values[0]]
    for sign, value in zip(signs, values[1:], strict=True):
        if not (sign == "=" and value == says[-1]):
            says += [sign, value]
    if len(values) == 1 and len(items) > 1 and values[0] is not None:
        names |= {values[0]}
    return [Statement(tuple(says), names, money, notes)]


def _parted(run: list[Item]) -> list[list[Item]]:
    """Parted at brackets that have no partner, as those round words have none; not where one is an operand: `8 * (6`."""
    partner: set[int] = set()
    opened: list[int] = []
    for place, item in enumerate(run):
        if item.kind == "open":
            opened.append(place)
        elif item.kind == "close" and opened and opened[-1] < place - 1:
            partner |= {place, opened.pop()}
    parts: list[list[Item]] = [[]]
    for place, item in enumerate(run):
        stray = item.kind in ("open", "close") and place not in partner
        is_operand = item.kind == "open" and place > 0 and run[place - 1].kind == "operator"
        is_operand |= item.kind == "close" and place + 1 < len(run) and run[place + 1].kind == "operator"
        if stray and not is_operand:
            parts.append([])
        else:
            parts[-1].append(item)
    return [part for part in parts if part]


def _within_brackets(items: list[Item]) -> list[Item]:
    """Without brackets round the whole."""
    while len(items) > 2 and items[0].kind == "open" and items[-1].kind == "close" and _balanced(items[1:-1]):
        items = items[1:-1]
    return items


def _balanced(items: list[Item]) -> bool:
    depth = 0
    for item in items:
        depth += {"open": 1, "close": -1}.get(item.kind, 0)
        if depth < 0:
            return False
    return depth == 0


class _Sum:
    """Sums of products of powers; ValueError for anything else."""

    def __init__(self, items: list[Item]) -> None:
        self.items, self.at = items, 0

    def value(self) -> Fraction:
        value = self.sum()
        if self.at < len(self.items):
            raise ValueError("something is left over")
        return value

    def ahead(self) -> str:
        item = self.items[self.at] if self.at < len(self.items) else Item("end", "")
        return item.text if item.kind == "operator" else item.kind

    def sum(self) -> Fraction:
        value = self.product()
        while self.ahead() in ("+", "-"):
            sign = self.ahead()
            self.at += 1
            value = value + self.product() if sign == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while self.ahead() in ("*", "/", "open"):
            sign = self.ahead()
            self.at += sign != "open"
            value = value / self.signed() if sign == "/" else value * self.signed()
        return value

    def signed(self) -> Fraction:
        if self.ahead() in ("-", "+"):
            sign = self.ahead()
            self.at += 1
            return -self.signed() if sign == "-" else self.signed()
        value = self.atom()
        if self.ahead() == "^":
            self.at += 1
            power = self.signed()
            if power.denominator != 1 or abs(power) > 64:
                raise ValueError("a power that is not worked out here")
            value = value**power
        return value

    def atom(self) -> Fraction:
        item = self.items[self.at]
        self.at += 1
        if item.kind in ("number", "fact") and item.value is not None:
            return item.value
        if item.kind == "open":
            value = self.sum()
            if self.ahead() != "close":
                raise ValueError("a bracket is not closed")
            self.at += 1
            return value
        raise ValueError(f"{item.text} is not a number")
