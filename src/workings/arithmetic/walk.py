"""Operations → running values that stay in range: a pass backwards finds what each may be, a pass forwards draws it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple

from workings.arithmetic.chain import Step
from workings.arithmetic.spec import ProblemSpec

Draw = Callable[[], float]
"""A uniform float in [0, 1): one cheap call, where `random.choice` costs ten times as much."""


class Need(NamedTuple):
    """The running values that leave the steps to come possible: multiples of `multiple` in least..most."""

    least: int
    most: int
    multiple: int = 1

    def tight(self) -> Need:
        """The same values, with ends that are themselves multiples."""
        m = self.multiple
        return Need(-(-self.least // m) * m, self.most // m * m, m)

    def clipped(self, least: int, most: int) -> Need:
        return Need(max(self.least, least), min(self.most, most), self.multiple)

    def drawn(self, draw: Draw) -> int | None:
        least, most, multiple = self.tight()
        return least + multiple * int(draw() * ((most - least) // multiple + 1)) if least <= most else None

    def holds(self, value: int) -> bool:
        return self.least <= value <= self.most and value % self.multiple == 0


Act = tuple[str, int]
"""An operation and its factor; the factor of + and - is 0, for their operand is drawn last."""


class Line:
    """Chains on the integers low..high."""

    def __init__(self, spec: ProblemSpec) -> None:
        self.low, self.high = spec.range
        self.least_addend, self.most_addend = spec.least_and_largest_addend

    def needs(self, acts: Sequence[Act]) -> list[Need]:
        """What the value before each act, and the last one's result, must be."""
        needs = [Need(self.low, self.high)]
        for operation, factor in reversed(acts):
            needs.append(self._before(operation, factor, needs[-1].tight()).clipped(self.low, self.high))
        return needs[::-1]

    def _before(self, operation: str, factor: int, after: Need) -> Need:
        least, most, multiple = after
        if operation == "*":
            return Need(max(1, -(-least // factor)), most // factor, multiple // gcd(multiple, factor))
        if operation == "/":
            return Need(max(1, least) * factor, most * factor, multiple * factor)
        if operation == "+":
            return Need(least - self.most_addend, most - self.least_addend)
        return Need(least + self.least_addend, most + self.most_addend)

    def start(self, draw: Draw, need: Need) -> int | None:
        return need.clipped(2, self.high).drawn(draw)

    def step(self, draw: Draw, value: int, act: Act, need: Need) -> tuple[int, int] | None:
        """The operand and the result of one step, or None where this value leads nowhere."""
        operation, factor = act
        if operation in "*/":
            result = value * factor if operation == "*" else value // factor
            return (factor, result) if need.holds(result) else None
        sign = 1 if operation == "+" else -1
        ends = value + sign * self.least_addend, value + sign * self.most_addend
        result = need.clipped(min(ends), max(ends)).drawn(draw)
        return None if result is None else (abs(result - value), result)

    def written(self, value: int, operation: str, operand: int, result: int) -> Step:
        return Step(f"{value}{operation}{operand}", str(result))


class Ring:
    """Chains on the places 0..m-1 of a ring: every value leaves every step possible."""

    def __init__(self, spec: ProblemSpec) -> None:
        self.places = spec.range[1] + 1
        self.least_addend, self.most_addend = spec.least_and_largest_addend

    def needs(self, acts: Sequence[Act]) -> list[Need]:
        return [Need(0, self.places - 1)] * (len(acts) + 1)

    def start(self, draw: Draw, need: Need) -> int | None:
        return need.drawn(draw)

    def step(self, draw: Draw, value: int, act: Act, need: Need) -> tuple[int, int] | None:
        operation, factor = act
        operand = factor or self.least_addend + int(draw() * (self.most_addend - self.least_addend + 1))
        return operand, apply(value, operation, operand) % self.places

    def written(self, value: int, operation: str, operand: int, result: int) -> Step:
        """`18+5-20=3`: the wrap is part of the sum, so that the step is true of integers."""
        wrap = apply(value, operation, operand) - result
        shown = f"-{wrap}" if wrap > 0 else f"+{-wrap}" if wrap < 0 else ""
        return Step(f"{value}{operation}{operand}{shown}", str(result))


def apply(value: int, operation: str, operand: int) -> int:
    if operation == "+":
        return value + operand
    if operation == "-":
        return value - operand
    return value * operand if operation == "*" else value // operand
