"""A plan of operations → running values that stay in range.

A pass backwards over the plan finds which values leave the rest of it possible, a pass forwards draws one of them. Drawing first
and rejecting what leaves the range would give easy problems: long chains survive only with small operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple, TypeVar

from workings.arithmetic.chain import Step

T = TypeVar("T")
Draw = Callable[[], float]
"""A uniform float in [0, 1): one cheap call, where `random.choice` costs ten times as much."""


def pick(draw: Draw, among: Sequence[T]) -> T:
    """One of `among`, uniformly, for a single draw."""
    return among[int(draw() * len(among))]


class ValueRange(NamedTuple):
    """Running values from which the remaining steps are possible: the multiples of `multiple` in least..most."""

    least: int
    most: int
    multiple: int = 1

    def tight(self) -> ValueRange:
        """The same values, with both ends moved inwards to multiples."""
        m = self.multiple
        return ValueRange(-(-self.least // m) * m, self.most // m * m, m)

    def clipped(self, least: int, most: int) -> ValueRange:
        """Those of the values that lie in least..most."""
        return ValueRange(max(self.least, least), min(self.most, most), self.multiple)

    def drawn(self, draw: Draw) -> int | None:
        """One of the values, uniformly; None where there is none."""
        least, most, multiple = self.tight()
        return least + multiple * int(draw() * ((most - least) // multiple + 1)) if least <= most else None

    def holds(self, value: int) -> bool:
        """Whether `value` is one of them."""
        return self.least <= value <= self.most and value % self.multiple == 0


PlannedStep = tuple[str, int]
"""An operation and its factor; 0 for + and -, whose operand is drawn last, when the running value is known."""


class IntegerLine:
    """Chains on the integers of `values` (least, largest), with operands of + and - in `addends` (least, largest)."""

    def __init__(self, values: tuple[int, int], addends: tuple[int, int]) -> None:
        self.low, self.high = values
        self.least_addend, self.most_addend = addends

    def admissible(self, planned: Sequence[PlannedStep]) -> list[ValueRange]:
        """The values allowed before each planned step, and for the last result [steps + 1]."""
        admissible = [ValueRange(self.low, self.high)]
        for operation, factor in reversed(planned):
            admissible.append(self._before(operation, factor, admissible[-1].tight()).clipped(self.low, self.high))
        return admissible[::-1]

    def _before(self, operation: str, factor: int, after: ValueRange) -> ValueRange:
        least, most, multiple = after
        if operation == "*":
            return ValueRange(max(1, -(-least // factor)), most // factor, multiple // gcd(multiple, factor))
        if operation == "/":
            return ValueRange(max(1, least) * factor, most * factor, multiple * factor)
        if operation == "+":
            return ValueRange(least - self.most_addend, most - self.least_addend)
        return ValueRange(least + self.least_addend, most + self.most_addend)

    def start(self, draw: Draw, allowed: ValueRange) -> int | None:
        return allowed.clipped(2, self.high).drawn(draw)

    def step(self, draw: Draw, value: int, one: PlannedStep, allowed: ValueRange) -> tuple[int, int] | None:
        """The operand and the result of one step from `value`; None where no allowed result can be reached."""
        operation, factor = one
        if operation in "*/":
            result = value * factor if operation == "*" else value // factor
            return (factor, result) if allowed.holds(result) else None
        sign = 1 if operation == "+" else -1
        ends = value + sign * self.least_addend, value + sign * self.most_addend
        result = allowed.clipped(min(ends), max(ends)).drawn(draw)
        return None if result is None else (abs(result - value), result)

    def written(self, value: int, operation: str, operand: int, result: int) -> Step:
        return Step(f"{value}{operation}{operand}", str(result))


class ModularRing:
    """Chains on the places 0..m-1 of a ring, on which every step is possible from every value."""

    def __init__(self, values: tuple[int, int], addends: tuple[int, int]) -> None:
        self.places = values[1] + 1
        self.least_addend, self.most_addend = addends

    def admissible(self, planned: Sequence[PlannedStep]) -> list[ValueRange]:
        return [ValueRange(0, self.places - 1)] * (len(planned) + 1)

    def start(self, draw: Draw, allowed: ValueRange) -> int | None:
        return allowed.drawn(draw)

    def step(self, draw: Draw, value: int, one: PlannedStep, allowed: ValueRange) -> tuple[int, int] | None:
        operation, factor = one
        operand = factor or self.least_addend + int(draw() * (self.most_addend - self.least_addend + 1))
        return operand, apply(value, operation, operand) % self.places

    def written(self, value: int, operation: str, operand: int, result: int) -> Step:
        """`18+5-20=3`: the wrap is part of the sum, so that the step is true of integers."""
        wrap = apply(value, operation, operand) - result
        shown = f"-{wrap}" if wrap > 0 else f"+{-wrap}" if wrap < 0 else ""
        return Step(f"{value}{operation}{operand}{shown}", str(result))


def apply(value: int, operation: str, operand: int) -> int:
    """The result of one operation on whole numbers; a division must come out even."""
    if operation == "+":
        return value + operand
    if operation == "-":
        return value - operand
    return value * operand if operation == "*" else value // operand
