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

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_PIECE = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<symbol>//|[-+*/()%$]))")
_PLAIN = str.maketrans({"−": "-", "–": "-", "×": "*", "÷": "/", "x": "*", "X": "*"})
_DEEPEST = 50


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

        A decimal result may be the exact one rounded or cut to the digits written (`100/3=33.33`, `2/3=0.66`);
        a whole result must be exact. An expression that does not parse, or divides by zero, is not right.
        """
        try:
            exact, written = evaluate(self.expression), self.value
        except (Unreadable, ZeroDivisionError):
            return False
        if "." not in self.result:
            return exact == written
        n_decimals = len(re.sub(r"\D", "", self.result.rpartition(".")[2]))
        return abs(exact - written) < Fraction(1, 10**n_decimals)


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


def write_chain(steps: Iterable[Step], style: ChainStyle = "marked") -> str:
    """Write a chain: `<<6*9=54>> <<54+1=55>>`, or without the brackets, `6*9=54 54+1=55`."""
    form = "<<%s=%s>>" if style == "marked" else "%s=%s"
    return " ".join([form % (step.expression, step.result) for step in steps])


def evaluate(expression: str) -> Fraction:
    """Compute the exact value of + - * / and parentheses over decimals.

    As GSM8K writes them, a leading `$` is skipped, `50%` is 1/2, `1,234` is one number, `2(3+4)` multiplies, `//` floors.

    Raises:
        Unreadable: The expression does not parse.
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
    """Cut an expression into numbers and symbols, as written but for spaces and the `$`, which are dropped.

    Raises:
        Unreadable: Something in it is neither.

    Example:
        >>> pieces_of("(1/2) * $1,230.50")
        ['(', '1', '/', '2', ')', '*', '1,230.50']
    """
    plain = expression.translate(_PLAIN)
    pieces, at, end = [], 0, len(plain.rstrip())
    while at < end:
        match = _PIECE.match(plain, at)
        if match is None:
            raise Unreadable(f"{plain!r} has {plain[at:].strip()[:1]!r} at character {at + 1}")
        at = match.end()
        if match["symbol"] != "$":
            pieces.append(match[0].strip())
    return pieces


class _Reader:
    """Recursive descent over the pieces of one expression: sum → product → signed → atom."""

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
        while (operator := self.next) in ("*", "/", "//", "("):
            self.at += operator != "("
            factor = self.signed()
            value = value * factor if operator in "*(" else value / factor
            if operator == "//":
                value = Fraction(floor(value))
        return value

    def signed(self) -> Fraction:
        sign = 1
        while self.next in ("+", "-"):
            sign = -sign if self.next == "-" else sign
            self.at += 1
        return sign * self.atom()

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
        if not piece or not (piece[0].isdigit() or piece[0] == ".") or len(piece) > LONGEST_NUMBER:
            raise self.unreadable()
        self.at += 1
        return Fraction(piece)
