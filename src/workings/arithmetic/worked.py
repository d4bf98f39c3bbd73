"""Operands → the true steps that work a result out, and the single-digit products it rests on.

`12*7`: 10*7=70, 2*7=14, 70+14=84. A deep chain goes down to the table: for 43*7 it says 4*7=28, 28*10=280 where a
shallow one says 40*7=280.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from workings.arithmetic.facts import Fact

Step = tuple[int, str, int, int]
"""Left operand, mark, right operand, result."""
TABLE: dict[tuple[int, int], Fact] = {(a, b): Fact.of(a, b) for a, b in product(range(1, 10), repeat=2)}
"""Both orders of two digits → the one fact of the times tables."""


def digit_facts(a: int, b: int) -> set[Fact]:
    """Every product of a digit of `a` and a digit of `b`: who knows 60*9=540 has been told 6*9."""
    return {TABLE[both] for both in product(_digits(a), _digits(b))}


def rests_on(steps: Iterable[Step]) -> set[Fact]:
    """The single-digit products behind the steps; a division rests on the product it undoes."""
    needed: set[Fact] = set()
    for a, mark, b, result in steps:
        if mark == "*":
            needed |= digit_facts(a, b)
        elif mark == "/":
            needed |= digit_facts(b, result)
        elif mark == "^":
            needed |= digit_facts(a, a)
    return needed


def stated(steps: Iterable[Step]) -> tuple[Fact, ...]:
    """The facts of the times tables that the steps write out, as often as they do."""
    return tuple(TABLE[a, b] for a, mark, b, _ in steps if mark == "*" and (a, b) in TABLE)


def multiplied(a: int, b: int, deep: bool = False) -> list[Step]:
    """`a` of one or two digits by `b` of one or two digits, neither 0; the tens first."""
    if a < 10 and b < 10:
        return [(a, "*", b, a * b)]
    if not deep:
        split_b = len(_places(b)) > 1
        factors = [(a, part) for part in _places(b)] if split_b else [(part, b) for part in _places(a)]
        parts = [(left, "*", right, left * right) for left, right in factors]
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
