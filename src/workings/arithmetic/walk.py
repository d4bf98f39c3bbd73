"""A plan of operations → running values that stay in range.

A pass backwards over the plan finds which values leave the rest of it possible, a pass forwards draws one of them. Drawing first
and rejecting what leaves the range would give easy problems: long chains survive only with small operands.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple, TypeVar

from workings.arithmetic.chain import Step

T = TypeVar("T")
OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,  # only where the division comes out even
}
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
        """True if `value` is one of them."""
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
            least, most, multiple = admissible[-1].tight()
            if operation == "*":
                before = ValueRange(max(1, -(-least // factor)), most // factor, multiple // gcd(multiple, factor))
            elif operation == "/":
                before = ValueRange(max(1, least) * factor, most * factor, multiple * factor)
            elif operation == "+":
                before = ValueRange(least - self.most_addend, most - self.least_addend)
            else:
                before = ValueRange(least + self.least_addend, most + self.most_addend)
            admissible.append(before.clipped(self.low, self.high))
        return admissible[::-1]

    def start(self, draw: Draw, allowed: ValueRange) -> int | None:
        return allowed.clipped(2, self.high).drawn(draw)

    def step(self, draw: Draw, value: int, one: PlannedStep, allowed: ValueRange) -> tuple[int, int] | None:
        """The operand and the result of one step from `value`; None where no allowed result can be reached."""
        operation, factor = one
        if operation in "*/":
            result = OPERATORS[operation](value, factor)
            return (factor, result) if allowed.holds(result) else None
        ends = [OPERATORS[operation](value, addend) for addend in (self.least_addend, self.most_addend)]
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
        return operand, OPERATORS[operation](value, operand) % self.places

    def written(self, value: int, operation: str, operand: int, result: int) -> Step:
        """`18+5-20=3`: the wrap is part of the sum, so that the step is true of integers."""
        wrap = OPERATORS[operation](value, operand) - result
        shown = f"{-wrap:+}" if wrap else ""
        return Step(f"{value}{operation}{operand}{shown}", str(result))
