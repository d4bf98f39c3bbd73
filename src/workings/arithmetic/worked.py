"""Operands → the true steps that work a result out, and the single-digit products it rests on.

`12*7`: 10*7=70, 2*7=14, 70+14=84. A deep chain goes down to the table: for 43*7 it says 4*7=28, 28*10=280 where a
shallow one says 40*7=280.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

Step = tuple[int, str, int, int]
"""Left operand, mark, right operand, result."""
Pair = tuple[int, int]
"""The smaller factor and the larger one, both 1 to 9."""


def pair(a: int, b: int) -> Pair:
    return (a, b) if a <= b else (b, a)


def digit_pairs(a: int, b: int) -> set[Pair]:
    """Every product of a digit of `a` and a digit of `b`: who knows 60*9=540 has been told 6*9."""
    return {pair(i, j) for i, j in product(_digits(a), _digits(b))}


def rests_on(steps: Iterable[Step]) -> set[Pair]:
    """The single-digit products behind the steps; a division rests on the product it undoes."""
    needed: set[Pair] = set()
    for a, mark, b, result in steps:
        if mark == "*":
            needed |= digit_pairs(a, b)
        elif mark == "/":
            needed |= digit_pairs(b, result)
        elif mark == "^":
            needed |= digit_pairs(a, a)
    return needed


def stated(steps: Iterable[Step]) -> tuple[Pair, ...]:
    """The facts of the 1-9 table that the steps write out, as often as they do."""
    return tuple(pair(a, b) for a, mark, b, _ in steps if mark == "*" and 1 <= a <= 9 and 1 <= b <= 9)


def multiplied(a: int, b: int, deep: bool = False) -> list[Step]:
    """`a` of one or two digits by `b` of one or two digits, neither 0; the tens first."""
    if a < 10 and b < 10:
        return [(a, "*", b, a * b)]
    if not deep:
        whole, split = (a, b) if b >= 10 else (b, a)
        parts = [(whole, "*", part, whole * part) if b >= 10 else (part, "*", whole, part * whole)
                 for part in _places(split)]  # fmt: skip
        return [*parts, *summed([result for *_, result in parts])]
    steps: list[Step] = []
    partial = []
    for left, right in product(_places(a), _places(b)):
        steps += _from_the_table(left, right)
        partial.append(left * right)
    return [*steps, *summed(partial)]


def added(a: int, b: int, deep: bool = False) -> list[Step]:
    """Up to two digits each; deep: tens and ones apart."""
    if deep and min(a, b) > 10 and a % 10 and b % 10:
        tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
        parts = [(a // 10 * 10, "+", b // 10 * 10, tens), (a % 10, "+", b % 10, ones)]
        return [*parts, (tens, "+", ones, a + b)]
    return [(a, "+", b, a + b)]


def subtracted(a: int, b: int, deep: bool = False) -> list[Step]:
    """Up to two digits each; deep: the tens of `b` first, then its ones."""
    if deep and b > 10 and b % 10:
        between = a - b // 10 * 10
        return [(a, "-", b // 10 * 10, between), (between, "-", b % 10, a - b)]
    return [(a, "-", b, a - b)]


def summed(parts: Sequence[int]) -> list[Step]:
    """A running sum; of a single part nothing is to be added."""
    steps: list[Step] = []
    total = parts[0]
    for part in parts[1:]:
        steps.append((total, "+", part, total + part))
        total += part
    return steps


def _from_the_table(left: int, right: int) -> list[Step]:
    """`left` and `right` are a digit times a power of ten: their digits multiplied, then the zeros put back."""
    (a, tens), (b, more_tens) = _digit_and_power(left), _digit_and_power(right)
    power = tens * more_tens
    return [(a, "*", b, a * b), *([(a * b, "*", power, left * right)] if power > 1 else [])]


def _digit_and_power(number: int) -> tuple[int, int]:
    return (number // 10, 10) if number >= 10 else (number, 1)


def _places(number: int) -> list[int]:
    """43 → 40, 3."""
    return [part for part in (number // 10 * 10, number % 10) if part]


def _digits(number: int) -> list[int]:
    return [int(digit) for digit in str(number) if digit != "0"]
