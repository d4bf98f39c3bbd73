"""`<<6*9=54>> <<54+1=55>>` ⇄ steps, and the exact value of an expression as GSM8K writes one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Literal

ChainStyle = Literal["marked", "stripped"]

MARKED = re.compile(r"<<([^<>]*)>>")
LONGEST_NUMBER = 4000
"""Digits. Python refuses to read an integer of more than 4,300; whoever writes one has stopped calculating."""

_NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\w))?"
_PIECE = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<symbol>//|[-+*/()%$^]))")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
RAISED = re.compile("⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_PLAIN = str.maketrans(
    dict.fromkeys("−–—‒―‐‑﹣－", "-")
    | dict.fromkeys("×xX·⋅∙•∗＊✕✖⨯", "*")
    | dict.fromkeys("÷∕⁄／", "/")
    | dict.fromkeys("[{（", "(")
    | dict.fromkeys("]}）", ")")
    | {"＋": "+", "＾": "^", "％": "%", "，": ",", "€": "$", "£": "$", "¥": "$"}
)
_LATEX = (
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:left|right|[,;:! ])"), ""),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?=[$%])"), ""),
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_SENTENCE_END = re.compile(r"(?<=\.)\s+|\n")
_DEEPEST = 50
_FLOAT_DIGITS, _FLOAT_NOISE = 15, Fraction(1, 10**14)
"""A result of so many significant digits was printed by a computer: floating point is right but for this share of it."""


class Unreadable(ValueError):
    """A step or an expression does not parse; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain, both sides as written: `Step("6*9", "54")`."""

    expression: str
    result: str

    @property
    def value(self) -> Fraction:
        """The value of the result as written; raises Unreadable where it has none."""
        return evaluate(self.result)

    def is_right(self) -> bool:
        """True if the expression equals the result, computed exactly and independently of the writer.

        A decimal result may be the exact one rounded or cut to the digits written (`100/3=33.33`, `2/3=0.66`), or what
        floating point makes of it (`220.00000000000003`); a whole result must be exact. In `13*2=20+6=26` every side must
        be equal. An expression that does not parse, or divides by zero, is not right.

        Example:
            >>> Step("2·3", "6").is_right(), Step("22/10*100", "220.00000000000003").is_right(), Step("2/3", "1").is_right()
            (True, True, False)
        """
        try:
            written, sides = self.value, [evaluate(side) for side in self.expression.split("=")]
        except (Unreadable, ZeroDivisionError):
            return False
        tolerance = _last_place(self.result)
        n_digits = len(re.sub(r"^[\D0]+|[eE].*|\D", "", self.result))
        noise = abs(written) * _FLOAT_NOISE if tolerance and n_digits >= _FLOAT_DIGITS else 0
        return all(side == written or abs(side - written) < tolerance or abs(side - written) <= noise for side in sides)


def _last_place(number: str) -> Fraction:
    """What one more in the last digit of a written decimal would add: 1/100 for `0.66`, 1/1000 for `33.3%`; 0 without decimals."""
    found = re.search(r"\.(\d+)(?:[eE]([-+]?\d+))?", number)
    if found is None:
        return Fraction(0)
    return Fraction(10) ** (int(found[2] or 0) - len(found[1])) / (100 if "%" in number else 1)


def read_chain(text: str) -> tuple[Step, ...]:
    """Read every `<<expression=result>>` in a text, in order; the last `=` divides.

    Raises:
        Unreadable: A step has no `=`, or a `<<` is never closed: a chain must not lose a step in silence.

    Example:
        >>> read_chain("<<6*9=54>> then <<54+1=55>>")
        (Step(expression='6*9', result='54'), Step(expression='54+1', result='55'))
    """
    inside = MARKED.findall(text)
    if text.count("<<") != len(inside):
        raise Unreadable("a '<<' has no '>>' of its own")
    steps = []
    for step in inside:
        expression, _, result = map(str.strip, step.rpartition("="))
        if not (expression and result):
            raise Unreadable(f"the step <<{step}>> is not 'expression=result'")
        steps.append(Step(expression, result))
    return tuple(steps)


def sentences_in(text: str) -> tuple[str, ...]:
    """The sentences of a chain in words: a full stop or a line ends one.

    Example:
        >>> sentences_in("Six boxes hold 6 * 9 = 54 eggs. With 1.5 more,\\nthat is 55.5.")
        ('Six boxes hold 6 * 9 = 54 eggs.', 'With 1.5 more,', 'that is 55.5.')
    """
    return tuple(sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip())


def write_chain(steps: Iterable[Step], style: ChainStyle = "marked") -> str:
    """Write a chain: `<<6*9=54>> <<54+1=55>>`, or without the brackets, `6*9=54 54+1=55`."""
    form = "<<%s=%s>>" if style == "marked" else "%s=%s"
    return " ".join([form % (step.expression, step.result) for step in steps])


def evaluate(expression: str) -> Fraction:
    """Compute the exact value of + - * / ^ and parentheses over decimals, in any of their usual characters or in LaTeX.

    As GSM8K writes them, a leading `$` is skipped, `50%` is 1/2, `1,234` is one number, `2(3+4)` and `(3+4)2` multiply, `//`
    floors; `2**3` and `2³` are `2^3`, whose exponent must be whole.

    Raises:
        Unreadable: The expression does not parse, or a power has more than 4,000 digits.
        ZeroDivisionError: It divides by zero.

    Example:
        >>> evaluate("(1/2)*30")
        Fraction(15, 1)
    """
    pieces = pieces_of(expression)
    if not pieces:
        raise Unreadable(f"{expression!r} holds no number")
    reader = _Reader(pieces, expression)
    value = reader.sum()
    if reader.at < len(pieces):
        raise reader.unreadable()
    return value


def pieces_of(expression: str) -> list[str]:
    """Cut an expression into numbers, as written, and the symbols + - * / // ^ ( ) %; spaces and the `$` are dropped.

    Raises:
        Unreadable: Something in it is neither.

    Example:
        >>> pieces_of("[1/2] × $1,230.50")
        ['(', '1', '/', '2', ')', '*', '1,230.50']
    """
    plain = _in_plain_characters(expression)
    pieces, at, end = [], 0, len(plain.rstrip())
    while at < end:
        match = _PIECE.match(plain, at)
        if match is None:
            raise Unreadable(f"{plain!r} has {plain[at:].strip()[:1]!r} at character {at + 1}")
        at = match.end()
        if match["symbol"] != "$":
            pieces.append(match[0].strip())
    return pieces


def _in_plain_characters(expression: str) -> str:
    if "\\" in expression or "{" in expression:
        for pattern, plain in _LATEX:
            expression = pattern.sub(plain, expression)
        n_found = 1
        while n_found:  # a fraction may stand in another
            expression, n_found = _FRACTION.subn(lambda m: f"(({m[1] or m[2]})/({m[3] or m[4]}))", expression)
    raised = RAISED.sub(lambda m: "^" + m[0].translate(SUPERSCRIPTS), expression)
    return raised.translate(_PLAIN).replace("**", "^")


class _Reader:
    """Recursive descent over the pieces of one expression: sum → product → signed → power → atom."""

    def __init__(self, pieces: list[str], expression: str) -> None:
        self.pieces, self.expression, self.at, self.depth = pieces, expression, 0, 0

    @property
    def next(self) -> str:
        """The piece to read next, "" after the last."""
        return self.pieces[self.at] if self.at < len(self.pieces) else ""

    def unreadable(self) -> Unreadable:
        return Unreadable(f"{self.expression!r} does not go on after {''.join(self.pieces[: self.at])!r}")

    def sum(self) -> Fraction:
        value = self.product()
        while (operator := self.next) in ("+", "-"):
            self.at += 1
            value += self.product() if operator == "+" else -self.product()
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while (operator := self.next) in ("*", "/", "//") or self.multiplies_by_standing_beside():
            self.at += operator in ("*", "/", "//")
            factor = self.signed()
            value = value / factor if operator in ("/", "//") else value * factor
            if operator == "//":
                value = Fraction(floor(value))
        return value

    def multiplies_by_standing_beside(self) -> bool:
        """True at `(` and after `)`: `2(3+4)`, `(3+4)2`. Two numbers side by side are no product."""
        return self.next == "(" or (self.at > 0 and self.pieces[self.at - 1] == ")" and self.is_at_number())

    def signed(self) -> Fraction:
        sign = 1
        while self.next in ("+", "-"):
            sign = -sign if self.next == "-" else sign
            self.at += 1
        return sign * self.power()

    def power(self) -> Fraction:
        """`2^3^2` is 2^9, and `-2^2` is -4."""
        base = self.atom()
        if self.next != "^":
            return base
        self.at, self.depth = self.at + 1, self.depth + 1
        if self.depth > _DEEPEST:
            raise Unreadable(f"{self.expression[:40]!r}… nests more than {_DEEPEST} powers")
        exponent = self.signed()
        self.depth -= 1
        n_bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) * n_bits > 3.3 * LONGEST_NUMBER:
            raise Unreadable(f"{self.expression[:40]!r} has a power that is not computed here")
        return base**exponent.numerator

    def atom(self) -> Fraction:
        value = self.parenthesis() if self.next == "(" else self.number()
        while self.next == "%":
            self.at += 1
            value /= 100
        return value

    def parenthesis(self) -> Fraction:
        self.at, self.depth = self.at + 1, self.depth + 1
        if self.depth > _DEEPEST:
            raise Unreadable(f"{self.expression[:40]!r}… nests more than {_DEEPEST} parentheses")
        value = self.sum()
        if self.next != ")":
            raise self.unreadable()
        self.at, self.depth = self.at + 1, self.depth - 1
        return value

    def number(self) -> Fraction:
        piece = self.next.replace(",", "")
        if not self.is_at_number() or len(piece) > LONGEST_NUMBER:
            raise self.unreadable()
        self.at += 1
        return Fraction(piece)

    def is_at_number(self) -> bool:
        return self.next[:1].isdigit() or self.next[:1] == "."
