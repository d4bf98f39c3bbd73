"""What a generated problem may look like: ranges, operations, rings, distractors, families of stories; and presets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from workings.arithmetic.stories import FAMILIES, RINGS, RUNNING, STRUCTURED
from workings.errors import BadInput

Operation = Literal["+", "-", "*", "/"]

MOST_STEPS = 8


@dataclass(frozen=True, slots=True)
class ProblemSpec:
    """What problems to make. Every operand, intermediate value and answer is an integer in `low..high`.

    n_steps: the chain lengths, drawn uniformly; repeat one to weight it.
    operations: as many as wanted of + - * /; `*` and `/` take operands from multipliers and divisors.
    addends: the least and largest operand of + and -; None leaves it to the range.
    mix: a chain of two or more steps has a `*` or `/` after its first step, so that a running sum does not solve it.
    modulus: m makes stories on a ring of m places, values 0..m-1 (low and high are not used); each step shows its wrap
        as true integer arithmetic, `18+5-20=3`. A ring has no division.
    distractor_rate: the probability of one sentence with a number that no step uses.
    style: "story", or "plain" for bare commands ("Start with 5. Add 3.").
    templates: names of story families; empty takes every running-value family of the style (rings with a modulus).
        STRUCTURED families have openings whose steps are not all on a running value ("3 boxes of 6 and 4 loose").
    """

    n_steps: tuple[int, ...] = (1, 2, 3, 4)
    low: int = 0
    high: int = 99
    operations: tuple[Operation, ...] = ("+", "-", "*", "/")
    multipliers: tuple[int, ...] = (2, 3, 4)
    divisors: tuple[int, ...] = (2, 3, 4, 5)
    addends: tuple[int, int] | None = None
    mix: bool = True
    modulus: int | None = None
    distractor_rate: float = 0.0
    style: Literal["story", "plain"] = "story"
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        complaint = next(_complaints(self), None)
        if complaint:
            raise BadInput(f"ProblemSpec: {complaint}")

    @property
    def range(self) -> tuple[int, int]:
        """The least and the largest value a problem may hold."""
        return (self.low, self.high) if self.modulus is None else (0, self.modulus - 1)

    def factors(self, operation: str) -> tuple[int, ...]:
        """The multipliers or divisors that lie in the range; none for + and -."""
        low, high = self.range
        among = {"*": self.multipliers, "/": self.divisors}.get(operation, ())
        return tuple(f for f in among if low <= f <= high)

    @property
    def least_and_largest_addend(self) -> tuple[int, int]:
        """From 2 where `addends` is None: "1 people get on" would be the only sentence with a singular."""
        low, high = self.range
        return self.addends or (min(max(2, low), high), high)

    @property
    def family_names(self) -> tuple[str, ...]:
        if self.templates:
            return self.templates
        if self.style == "plain":
            return ("plain",) if self.modulus is None else ("ring plain",)
        return RUNNING if self.modulus is None else RINGS


def _complaints(spec: ProblemSpec) -> Iterator[str]:
    if not spec.n_steps or not all(1 <= n <= MOST_STEPS for n in spec.n_steps):
        yield f"n_steps is {spec.n_steps}; give chain lengths from 1 to {MOST_STEPS}"
    if spec.modulus is None and not 0 <= spec.low < spec.high - 2:
        yield f"the range is {spec.low}..{spec.high}; give 0 <= low and at least four values"
    if spec.modulus is not None and spec.modulus < 3:
        yield f"modulus is {spec.modulus}; a ring has at least 3 places"
    if not spec.operations or not set(spec.operations) <= set("+-*/"):
        yield f"operations are {spec.operations}; give some of + - * /"
    if spec.modulus is not None and "/" in spec.operations:
        yield "a ring has no division; give operations=('+', '-', '*') with a modulus"
    for name, factors in (("multipliers", spec.multipliers), ("divisors", spec.divisors)):
        if not all(factor >= 2 for factor in factors):
            yield f"{name} are {factors}; each must be at least 2"
    for mark, factors in (("*", spec.multipliers), ("/", spec.divisors)):
        if mark in spec.operations and not spec.factors(mark):
            yield f"none of {factors} lies in {spec.range[0]}..{spec.range[1]} for the operation {mark}"
    if spec.addends is not None and not max(1, spec.range[0]) <= spec.addends[0] <= spec.addends[1] <= spec.range[1]:
        yield f"addends are {spec.addends}; give {max(1, spec.range[0])} <= least <= largest <= {spec.range[1]}"
    if spec.style not in ("story", "plain"):
        yield f"style is {spec.style!r}; give 'story' or 'plain'"
    if not 0 <= spec.distractor_rate <= 1:
        yield f"distractor_rate is {spec.distractor_rate}; give a probability"
    for name in spec.family_names:
        if name not in FAMILIES:
            yield f"no family {name!r}; there are {', '.join(FAMILIES)}"
        elif FAMILIES[name].ring != (spec.modulus is not None):
            yield f"the family {name!r} {'needs' if FAMILIES[name].ring else 'does not go with'} a modulus"


_HUNDRED = ProblemSpec()
PRESETS: dict[str, ProblemSpec] = {
    "bundled": replace(
        _HUNDRED, n_steps=(1, 2, 3, 4, 4, 5, 5), high=20, addends=(1, 9), multipliers=(2, 3), divisors=(2,)
    ),
    "small": replace(_HUNDRED, high=20),
    "hundred": _HUNDRED,
    "sums": replace(_HUNDRED, operations=("+", "-"), mix=False),
    "thousand": replace(_HUNDRED, high=999),
    "varied": replace(_HUNDRED, templates=RUNNING + STRUCTURED, distractor_rate=0.3),
    "ring11": replace(_HUNDRED, operations=("+", "-", "*"), modulus=11, multipliers=(2, 3, 4, 5)),
    "ring20": replace(_HUNDRED, operations=("+", "-", "*"), modulus=20, multipliers=(3, 7, 9)),
}
"""Named specs. The multipliers of a ring share no factor with its size, so that a step forgets nothing."""
