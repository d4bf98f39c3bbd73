"""Specification × seed × split → an endless stream of arithmetic drills in plain digits, every statement true.

The chain of thought is written in equations (`10*7=70, 2*7=14, 70+14=84`), so that each arm's rewriting turns the same text into
what that arm reads. In split "train" nothing rests on a held-out fact: not even 60*9=540, where 6*9 is held out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import accumulate, count
from typing import Literal, TypeVar

from workings import seeds
from workings.arithmetic.exercises import (
    FAMILY_OF,
    LAYOUTS,
    QUESTIONS,
    RECITALS,
    STYLES,
    TABLE,
    WORK,
    Equation,
    EquationStyle,
    PageLayout,
    canonical,
    rests_on,
    stated,
)
from workings.arithmetic.facts import GPT2_MUL, Fact
from workings.arithmetic.generator import ProblemSpec, generate
from workings.arithmetic.stories import RUNNING, STRUCTURED
from workings.arithmetic.walk import pick
from workings.config import check_ranges, fixed
from workings.errors import BadInput

# ── what drills to make ─────────────────────────────────────────────────────────────────────────────────────────────────

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """A kind of problem: a bare one on `operands`, which `swaps` puts in either order, or a word problem with a story theme."""

    operator: str
    operands: tuple[tuple[int, int], ...] = ()
    swaps: bool = False
    stories: tuple[str, ...] = ()

    @property
    def is_factless(self) -> bool:
        """True if no problem of the kind rests on a product."""
        return self.operator in "+-"

    @property
    def templates(self) -> dict[str, str]:
        """{id: wording}; the id of a story theme is its name."""
        if self.stories:
            return {name: name for name in self.stories}
        family = FAMILY_OF[self.operator]
        return {f"{family} {i}": text for i, text in enumerate(QUESTIONS[family])}


def _grid(firsts: Sequence[int], seconds: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a in firsts for b in seconds)


def _falling(firsts: Sequence[int], seconds: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a, b in _grid(firsts, seconds) if a >= b)


_ONES, _TENS, _HUNDRED = range(1, 10), range(10, 100), range(1, 100)
KINDS: dict[str, Kind] = {
    "single_add": Kind("+", _grid(range(10), range(10))),
    "single_sub": Kind("-", _falling(range(10), range(10))),
    "single_mul": Kind("*", _grid(_ONES, _ONES)),
    "single_div": Kind("/", tuple((a * b, b) for a, b in _grid(_ONES, _ONES))),
    "squares": Kind("^", _grid(_ONES, [2])),
    "double_add": Kind("+", _grid(_TENS, _HUNDRED), swaps=True),
    "double_sub": Kind("-", _falling(_TENS, _HUNDRED)),
    "double_by_single": Kind("*", _grid(_TENS, range(2, 10)), swaps=True),
    "double_by_double": Kind("*", _grid(_TENS, _TENS)),
    "story_sums": Kind("+", stories=(*RUNNING, "together")),
    "story_products": Kind("*", stories=(*RUNNING, *STRUCTURED)),
}


@dataclass(frozen=True)
class Weights:
    """Relative frequencies with which KINDS are drawn. In `single_*` both operands have one digit."""

    single_add: float = fixed(0.5, "relative frequency of sums of two one-digit numbers", at_least=0)
    single_sub: float = fixed(0.5, "relative frequency of differences of two one-digit numbers", at_least=0)
    single_mul: float = fixed(3.0, "relative frequency of products of two one-digit numbers", at_least=0)
    single_div: float = fixed(0.0, "relative frequency of quotients of two one-digit numbers", at_least=0)
    squares: float = fixed(0.0, "relative frequency of squares of one-digit numbers", at_least=0)
    double_add: float = fixed(0.5, "relative frequency of sums with a two-digit number", at_least=0)
    double_sub: float = fixed(0.5, "relative frequency of differences with a two-digit number", at_least=0)
    double_by_single: float = fixed(
        2.0, "relative frequency of products of a two-digit and a one-digit number", at_least=0
    )
    double_by_double: float = fixed(1.0, "relative frequency of products of two two-digit numbers", at_least=0)
    story_sums: float = fixed(0.5, "relative frequency of word problems with sums", at_least=0)
    story_products: float = fixed(1.0, "relative frequency of word problems with products", at_least=0)

    __post_init__ = check_ranges


@dataclass(frozen=True)
class DrillSpec:
    """The drills to make. What is held out of training follows from the specification alone: it is the same for every seed.

    Where the problems of a document state fewer facts than it should, a list of products follows; once they have stated
    enough, only sums follow.
    """

    weights: Weights = fixed(Weights(), "relative frequencies of the kinds of problems")
    facts_per_document: float = fixed(
        12.0, "mean number of times-table facts that a document writes out", at_least=0, at_most=32
    )
    problems: tuple[int, int] = fixed(
        (4, 12), "smallest and largest number of problems per document, not counting the list of products", at_least=1
    )
    fact_holdout: float = fixed(
        0.1,
        "share of the 45 facts that are never trained on; facts with a factor 1 are never held out",
        at_least=0,
        at_most=0.3,
    )
    template_holdout: float = fixed(
        0.2,
        "share of the wordings of each operation, and of the story themes, that are never trained on",
        at_least=0,
        at_most=0.3,
    )
    holdout_seed: int = fixed(0, "random seed that selects the held-out facts and wordings")

    def __post_init__(self) -> None:
        check_ranges(self)
        complaint = next(_complaints(self), None)
        if complaint:
            raise BadInput(f"DrillSpec: {complaint}")

    @cached_property
    def held_out_facts(self) -> frozenset[Fact]:
        """The facts that are never trained on."""
        among = [fact for fact in GPT2_MUL if 1 not in fact.operands]
        return frozenset(_drawn(among, round(self.fact_holdout * len(GPT2_MUL)), f"facts {self.holdout_seed}"))

    @cached_property
    def held_out_templates(self) -> frozenset[str]:
        """Ids of wordings ("MUL 3") and of story themes ("bus") that are never trained on; the first of a kind never is one."""
        groups = [list(kind.templates) for kind in KINDS.values() if not kind.stories] + [[*RUNNING, *STRUCTURED]]
        return frozenset(
            name
            for group in groups
            for name in _drawn(group[1:], round(self.template_holdout * len(group)), f"{group} {self.holdout_seed}")
        )

    @property
    def kinds(self) -> dict[str, float]:
        """{kind: weight} of the kinds whose weight is above 0."""
        return {name: weight for name, weight in vars(self.weights).items() if weight > 0}

    def rests_on_held_out(self, steps: Sequence[Equation]) -> bool:
        """True if a held-out fact is among the single-digit products behind these steps."""
        return bool(self.held_out_facts) and not self.held_out_facts.isdisjoint(rests_on(steps))


def _complaints(spec: DrillSpec) -> Iterator[str]:
    if not spec.kinds:
        yield "the weights must not all be zero"
    if spec.problems[0] > spec.problems[1]:
        yield f"problems are {spec.problems}; give least <= largest"
    if spec.facts_per_document < 4 and not any(KINDS[kind].is_factless for kind in spec.kinds):
        yield "with fewer than 4 facts per document there must be kinds that state none; weight sums, say double_add"


def _drawn(among: Sequence[T], n: int, name: str) -> list[T]:
    draw = seeds.python(f"held out {name}", 0).random
    return sorted(among, key=lambda _: draw())[:n]


# ── the stream ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Split = Literal["train", "validation"]
Operands = tuple[int, int]
Ladder = list[tuple[float, str]]
"""(sum of the weights up to and including a kind, kind), for drawing kinds by weight."""

_SUM = re.compile(r"([-+*])")
_PATIENCE = 2000
"""Attempts in a row that bring nothing new before a spec counts as exhausted."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One problem.

    Args:
        kind: One of KINDS, or "recital" for a list of products.
        template: Id of its wording.
        question: The question in words.
        steps: The worked steps.
        answer: The final result.
        facts: Facts of the times tables that the steps write out.
        held_out: The parts that training never shows: "", "fact", "template" or "fact, template".
        identity: Equal for two wordings of one problem, and for `6*9` and `9*6`.
    """

    kind: str
    template: str
    question: str
    steps: tuple[Equation, ...]
    answer: int
    facts: tuple[Fact, ...]
    held_out: str
    identity: tuple[str | int, ...]

    def chain(self, style: EquationStyle = STYLES[0], between: str = "\n") -> str:
        """The equations of the steps, in a style of writing them."""
        return between.join([style[operator] % (a, b, result) for a, operator, b, result in self.steps])

    @property
    def response(self) -> str:
        """The answer a model should give: the chain, then `#### 84`."""
        return f"{self.chain()}\n#### {self.answer}"


def drill_documents(spec: DrillSpec, seed: int, split: Split = "train") -> Iterator[str]:
    """Generate documents without end, all different; the same spec, seed and split always give the same ones.

    A validation document holds at least one problem with a held-out part, so it is no training document. Each document
    costs about 70 bytes of memory for as long as the stream is read.

    Raises:
        BadInput: `spec` has no further document to give.
    """
    maker = _Maker(spec, seed, split, "documents")
    debt = 0.0
    while True:
        layout = pick(maker.draw, LAYOUTS)
        drills, missing = maker.page(debt, shows_work=layout.shows_work)
        text = maker.written(drills, layout)
        if maker.is_new(text):
            debt = missing
            yield text


def drill_items(spec: DrillSpec, seed: int, split: Split = "train") -> Iterator[Drill]:
    """Generate single problems, no two with the same question; when a kind is used up the others go on alone.

    In split "validation" every item has a held-out part, if the spec holds out anything.
    """
    maker = _Maker(spec, seed, split, "items")
    while True:
        drill = maker.drill(maker.any_kind, held_out=maker.holds_out)
        if maker.is_new(drill.question):
            yield drill


class _Maker:
    """A specification, seed and split prepared for drawing: everything sorted into trained on and held out."""

    def __init__(self, spec: DrillSpec, seed: int, split: Split, made: Literal["documents", "items"]) -> None:
        self.spec, self.seed, self.made, self.stream = spec, seed, made, f"drills {split} {made}"
        self.draw = seeds.python(self.stream, seed).random
        self.holds_out = split == "validation" and bool(spec.held_out_facts or spec.held_out_templates)
        self.any_kind = _ladder(spec.kinds)
        self.factless = _ladder({kind: weight for kind, weight in spec.kinds.items() if KINDS[kind].is_factless})
        self.products = [both for both, fact in TABLE.items() if self.holds_out or fact not in spec.held_out_facts]
        self.operands = {kind: _operands(kind, spec.held_out_facts) for kind in spec.kinds}
        self.templates = {
            kind: _parted(list(KINDS[kind].templates.items()), lambda item: item[0] in spec.held_out_templates)
            for kind in spec.kinds
        }
        self.stories: dict[tuple[str, str], Iterator[Drill]] = {}
        self.seen: set[bytes] = set()
        self.n_fruitless = 0

    def is_new(self, text: str) -> bool:
        """True if `text` is new; from now on it counts as seen. BadInput if too many in a row were not."""
        digest = blake2b(text.encode(), digest_size=8).digest()
        self.n_fruitless = self.n_fruitless + 1 if digest in self.seen else 0
        if self.n_fruitless > _PATIENCE:
            already = f"after {len(self.seen):,} {self.made} nothing new came in {_PATIENCE} attempts"
            raise BadInput(f"{already}; widen {self.spec}")
        self.seen.add(digest)
        return not self.n_fruitless

    def page(self, debt: float, shows_work: bool = True) -> tuple[list[Drill], float]:
        """(the problems of a document, the number of facts they fall short of its share, to which `debt` is added).

        A layout that does not show its work states no fact; a list of products makes up for it.
        """
        draw, (low, high) = self.draw, self.spec.problems
        share = debt + self.spec.facts_per_document * (0.5 + draw())
        drills: list[Drill] = []
        known: set[tuple[str | int, ...]] = set()
        n_stated = 0
        for at in range(low + int(draw() * (high - low + 1))):
            kinds = self.any_kind if n_stated < share else self.factless
            if not kinds and drills:
                break
            drill = self._unlike(known, kinds or self.any_kind, held_out=self.holds_out and at == 0)
            n_stated += len(drill.facts) * shows_work
            drills.insert(int(draw() * (len(drills) + 1)), drill)
        if share - n_stated >= 1:
            drills.append(self._recital(int(share - n_stated)))
            n_stated += len(drills[-1].facts)
        return drills, share - n_stated

    def written(self, drills: Sequence[Drill], layout: PageLayout) -> str:
        """A document: one style and one layout throughout."""
        style = pick(self.draw, STYLES)
        return "\n\n".join(
            f"{drill.question}\n{drill.chain(style)}"
            if drill.kind == "recital"
            else layout.written(drill.question, drill.chain(style, layout.between), drill.answer)
            for drill in drills
        )

    def drill(self, kinds: Ladder, held_out: bool = False) -> Drill:
        """A problem of these kinds; with `held_out`, one that has a held-out part. Validation draws both, half and half."""
        for _ in range(_PATIENCE):
            at = self.draw() * kinds[-1][0]
            kind = next(kind for upto, kind in kinds if at < upto)
            fact, template = (self.holds_out and self.draw() < 0.5 for _ in range(2))
            drill = (
                self._story_drill(kind, fact, template)
                if KINDS[kind].stories
                else self._bare_drill(kind, fact, template)
            )
            if drill.held_out or not held_out:
                return drill
        raise BadInput(f"nothing is held out of the kinds drawn: no validation drills can be made of {self.spec}")

    def _unlike(self, known: set[tuple[str | int, ...]], kinds: Ladder, held_out: bool) -> Drill:
        for _ in range(_PATIENCE):
            drill = self.drill(kinds, held_out)
            if drill.identity not in known:
                known.add(drill.identity)
                return drill
        raise BadInput(f"no document holds {len(known) + 1} different problems; lower 'problems' or widen {self.spec}")

    def _bare_drill(self, name: str, held_fact: bool, held_template: bool) -> Drill:
        kind = KINDS[name]
        a, b = self._part(self.operands[name], held_fact)
        if kind.swaps and self.draw() < 0.5:
            a, b = b, a
        template, wording = self._part(self.templates[name], held_template)
        steps = tuple(WORK[kind.operator](a, b, self.draw() < 0.5))
        return self._made(name, template, wording.format(a, b), steps, canonical(kind.operator, a, b))

    def _story_drill(self, kind: str, held_fact: bool, held_template: bool) -> Drill:
        family, _ = self._part(self.templates[kind], held_template)
        if (kind, family) not in self.stories:
            self.stories[kind, family] = self._stories(kind, family)
        for _ in range(_PATIENCE):
            drill = next(self.stories[kind, family])
            if held_fact or "fact" not in drill.held_out:
                return drill
        raise BadInput(f"every story of '{family}' rests on a held-out fact; lower fact_holdout of {self.spec}")

    def _stories(self, kind: str, family: str) -> Iterator[Drill]:
        """Stories without end, in blocks of 32, so that the set of ids to avoid stays short."""
        products = KINDS[kind].operator == "*"
        spec = ProblemSpec(
            n_steps=(1, 2, 3),
            low=1,
            operations=("+", "-", "*") if products else ("+", "-"),
            multipliers=tuple(range(2, 10)),
            mix=products,
            templates=(family,),
        )
        for block in count():
            for problem in generate(32, spec, seeds.derive(f"{self.stream} {kind} {family} {block}", self.seed)):
                parts = [(*_SUM.split(step.expression), step.result) for step in problem.steps]
                steps = tuple((int(a), operator, int(b), int(result)) for a, operator, b, result in parts)
                yield self._made(kind, family, problem.question, steps, (problem.question,))

    def _recital(self, n: int) -> Drill:
        """A list of `n` different products."""
        left, steps = list(self.products), []
        for _ in range(n):
            at = int(self.draw() * len(left))
            left[at], left[-1] = left[-1], left[at]
            a, b = left.pop()
            steps.append((a, "*", b, a * b))
        return self._made("recital", "recital", pick(self.draw, RECITALS), tuple(steps), ())

    def _made(self, kind: str, template: str, question: str, steps: tuple[Equation, ...], identity: tuple) -> Drill:
        parts = ["fact"] if self.spec.rests_on_held_out(steps) else []
        parts += ["template"] if template in self.spec.held_out_templates else []
        return Drill(kind, template, question, steps, steps[-1][-1], stated(steps), ", ".join(parts), identity)

    def _part(self, parts: tuple[list[T], list[T]], held_out: bool) -> T:
        """One of the first part, which is trained on; with `held_out`, one of the second unless it is empty."""
        return pick(self.draw, parts[1] if held_out and parts[1] else parts[0])


@lru_cache(maxsize=64)
def _operands(name: str, held_out: frozenset[Fact]) -> tuple[list[Operands], list[Operands]]:
    """(operands of a kind that rest on no held-out fact, operands that rest on one)."""
    kind = KINDS[name]
    if kind.is_factless or not held_out:
        return list(kind.operands), []
    return _parted(kind.operands, lambda both: not held_out.isdisjoint(rests_on(WORK[kind.operator](*both, False))))


def _parted(among: Sequence[T], is_held_out: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """(trained on, held out)."""
    parts: tuple[list[T], list[T]] = [], []
    for one in among:
        parts[is_held_out(one)].append(one)
    return parts


def _ladder(weights: dict[str, float]) -> Ladder:
    return list(zip(accumulate(weights.values()), weights, strict=True))
