"""What drills a stream may hold: kinds of problems and their weights, how dense in facts, and what is held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeVar

from workings import seeds
from workings.arithmetic.facts import GPT2_MUL, Fact
from workings.arithmetic.questions import QUESTIONS
from workings.arithmetic.stories import RUNNING, STRUCTURED
from workings.arithmetic.worked import Step, added, multiplied, rests_on, subtracted
from workings.config import fixed
from workings.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """A kind of problem: a bare one on `operands` of a fact family, or one told by families of `stories`.

    `work` gives the steps; its last argument says whether to go down to single digits.
    """

    mark: str
    family: str = ""
    operands: tuple[tuple[int, int], ...] = ()
    work: Callable[[int, int, bool], list[Step]] = multiplied
    swaps: bool = False
    stories: tuple[str, ...] = ()

    @property
    def is_factless(self) -> bool:
        """Whether no problem of the kind rests on a product."""
        return self.mark in "+-"

    @property
    def templates(self) -> dict[str, str]:
        """{id: wording}; the id of a family of stories is its name."""
        if self.stories:
            return {name: name for name in self.stories}
        return {f"{self.family} {i}": text for i, text in enumerate(QUESTIONS[self.family])}


def _grid(firsts: Sequence[int], seconds: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a in firsts for b in seconds)


def _falling(firsts: Sequence[int], seconds: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a, b in _grid(firsts, seconds) if a >= b)


def _divided(a: int, b: int, deep: bool) -> list[Step]:
    return [(a, "/", b, a // b)]


def _squared(a: int, two: int, deep: bool) -> list[Step]:
    return [(a, "^", two, a * a)]


_ONES, _TENS, _HUNDRED = range(1, 10), range(10, 100), range(1, 100)
_PRODUCTS = tuple((a * b, b) for a, b in _grid(_ONES, _ONES))
KINDS: dict[str, Kind] = {
    "single_add": Kind("+", "ADD", _grid(range(10), range(10)), added),
    "single_sub": Kind("-", "SUB", _falling(range(10), range(10)), subtracted),
    "single_mul": Kind("*", "MUL", _grid(_ONES, _ONES)),
    "single_div": Kind("/", "DIV", _PRODUCTS, _divided),
    "squares": Kind("^", "SQUARE", _grid(_ONES, [2]), _squared),
    "double_add": Kind("+", "ADD", _grid(_TENS, _HUNDRED), added, swaps=True),
    "double_sub": Kind("-", "SUB", _falling(_TENS, _HUNDRED), subtracted),
    "double_by_single": Kind("*", "MUL", _grid(_TENS, range(2, 10)), swaps=True),
    "double_by_double": Kind("*", "MUL", _grid(_TENS, _TENS)),
    "story_sums": Kind("+", stories=(*RUNNING, "together")),
    "story_products": Kind("*", stories=(*RUNNING, *STRUCTURED)),
}


@dataclass(frozen=True)
class Weights:
    """How often each of KINDS is drawn, relative to the others. `single`: both operands have one digit."""

    single_add: float = fixed(0.5)
    single_sub: float = fixed(0.5)
    single_mul: float = fixed(3.0)
    single_div: float = fixed(0.0)
    squares: float = fixed(0.0)
    double_add: float = fixed(0.5)
    double_sub: float = fixed(0.5)
    double_by_single: float = fixed(2.0)
    double_by_double: float = fixed(1.0)
    story_sums: float = fixed(0.5)
    story_products: float = fixed(1.0)


@dataclass(frozen=True)
class DrillSpec:
    """What drills to make. What is held out of training follows from the spec alone: the same for every seed.

    facts_per_document: the mean number of facts of the times tables that a document writes out. Where its problems
        state fewer, a list of products follows; where they have stated enough, what follows is sums.
    problems: the least and the largest number of problems in a document, the list of products not counted.
    fact_holdout: the share of the 45 facts never trained on; those with a factor 1 are never held out.
    template_holdout: the share of the wordings of each operation, and of the families of stories, never trained on.
    holdout_seed: which they are.
    """

    weights: Weights = fixed(Weights())
    facts_per_document: float = fixed(12.0)
    problems: tuple[int, int] = fixed((4, 12))
    fact_holdout: float = fixed(0.1)
    template_holdout: float = fixed(0.2)
    holdout_seed: int = fixed(0)

    def __post_init__(self) -> None:
        complaint = next(_complaints(self), None)
        if complaint:
            raise BadInput(f"DrillSpec: {complaint}")

    @cached_property
    def held_out_facts(self) -> frozenset[Fact]:
        among = [fact for fact in GPT2_MUL if 1 not in fact.operands]
        return frozenset(_drawn(among, round(self.fact_holdout * len(GPT2_MUL)), f"facts {self.holdout_seed}"))

    @cached_property
    def held_out_templates(self) -> frozenset[str]:
        """Ids such as "MUL 3" (a wording in `QUESTIONS`) and "bus" (a family of stories); the first never is."""
        groups = [list(kind.templates) for kind in KINDS.values() if kind.family] + [[*RUNNING, *STRUCTURED]]
        return frozenset(
            name
            for group in groups
            for name in _drawn(group[1:], round(self.template_holdout * len(group)), f"{group} {self.holdout_seed}")
        )

    @property
    def kinds(self) -> dict[str, float]:
        """{kind: weight} of the kinds that are drawn at all."""
        return {name: weight for name, weight in _weights(self) if weight > 0}

    def rests_on_held_out(self, steps: Sequence[Step]) -> bool:
        """Whether a held-out fact is among the single-digit products behind these steps."""
        return bool(self.held_out_facts) and not self.held_out_facts.isdisjoint(rests_on(steps))


def _weights(spec: DrillSpec) -> list[tuple[str, float]]:
    return [(field.name, getattr(spec.weights, field.name)) for field in fields(spec.weights)]


def _complaints(spec: DrillSpec) -> Iterator[str]:
    if not spec.kinds or min(weight for _, weight in _weights(spec)) < 0:
        yield "the weights must not be negative, nor all zero"
    if not 1 <= spec.problems[0] <= spec.problems[1]:
        yield f"problems are {spec.problems}; give 1 <= least <= largest"
    if not 0 <= spec.facts_per_document <= 32:
        yield f"facts_per_document is {spec.facts_per_document}; give 0 to 32"
    if spec.facts_per_document < 4 and not any(KINDS[kind].is_factless for kind in spec.kinds):
        yield "with fewer than 4 facts per document there must be kinds that state none; weight sums, say double_add"
    for name in ("fact_holdout", "template_holdout"):
        if not 0 <= getattr(spec, name) <= 0.3:
            yield f"{name} is {getattr(spec, name)}; give a share from 0 to 0.3"


def _drawn(among: Sequence[T], n: int, name: str) -> list[T]:
    draw = seeds.python(f"held out {name}", 0).random
    return sorted(among, key=lambda _: draw())[:n]
