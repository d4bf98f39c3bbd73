"""Spec × seed × split → an endless stream of arithmetic drills in plain digits, every statement true.

The chain of thought is written in equations (`10*7=70, 2*7=14, 70+14=84`), so that each arm's rewriting makes of the
same text what it should. What is held out is decided by the spec alone and is the same for every training seed: a few
facts of the 1-9 table and a few wordings. In split "train" nothing rests on a held-out fact, not even 60*9=540 on 6*9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from itertools import combinations_with_replacement, count
from typing import Literal, TypeVar

from workings import seeds
from workings.arithmetic.generator import ProblemSpec, generate
from workings.arithmetic.questions import LAYOUTS, QUESTIONS, RECITALS, STYLES, Style
from workings.arithmetic.stories import RUNNING
from workings.arithmetic.worked import (
    Pair,
    Step,
    added,
    digit_pairs,
    multiplied,
    pair,
    rests_on,
    stated,
    subtracted,
)
from workings.config import fixed
from workings.errors import BadInput

Split = Literal["train", "validation"]
T = TypeVar("T")
Draw = Callable[[], float]

_PATIENCE = 2000
"""Attempts in a row that bring nothing new before a spec counts as exhausted."""
_DIGITS = range(1, 10)
_TELLERS = {"story_products": (*RUNNING, "boxes", "together", "shopping"), "story_sums": (*RUNNING, "together")}
"""The families of stories that can be told with a product, and without one."""


@dataclass(frozen=True)
class Weights:
    """How often each kind of problem is drawn, relative to the others. `single`: both operands have one digit."""

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
    """What drills to make.

    facts_per_document: the mean number of facts of the 1-9 table that a document writes out. Where its problems state
        fewer, a list of products follows; where they have stated enough, what follows is sums.
    problems: the least and the largest number of problems in a document, lists of products not counted.
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
    def held_out_facts(self) -> frozenset[Pair]:
        """Factors, the smaller first."""
        among = [(a, b) for a, b in combinations_with_replacement(_DIGITS, 2) if a > 1]
        return frozenset(_drawn(among, round(self.fact_holdout * 45), f"held-out facts {self.holdout_seed}"))

    @cached_property
    def held_out_templates(self) -> frozenset[str]:
        """Such as "MUL 3" (a wording in `QUESTIONS`) and "bus" (a family of stories)."""
        groups = [[f"{family} {i}" for i in range(1, len(texts))] for family, texts in QUESTIONS.items()]
        groups.append(list(_TELLERS["story_products"][1:]))
        return frozenset(
            name
            for group in groups
            for name in _drawn(group, round(self.template_holdout * (len(group) + 1)), f"{group} {self.holdout_seed}")
        )

    @property
    def kinds(self) -> dict[str, float]:
        """{kind: weight} of the kinds that are drawn at all."""
        weights = {field.name: getattr(self.weights, field.name) for field in fields(self.weights)}
        return {kind: weight for kind, weight in weights.items() if weight > 0}


def _complaints(spec: DrillSpec) -> Iterator[str]:
    if not spec.kinds or min(vars(spec.weights).values()) < 0:
        yield "the weights must not be negative, nor all zero"
    if not 1 <= spec.problems[0] <= spec.problems[1]:
        yield f"problems are {spec.problems}; give 1 <= least <= largest"
    if not 0 <= spec.facts_per_document <= 32:
        yield f"facts_per_document is {spec.facts_per_document}; give 0 to 32"
    if spec.facts_per_document < 4 and not any(_KINDS[kind].is_factless for kind in spec.kinds):
        yield "with fewer than 4 facts per document there must be kinds that state none; weight sums, say double_add"
    for name in ("fact_holdout", "template_holdout"):
        if not 0 <= getattr(spec, name) <= 0.3:
            yield f"{name} is {getattr(spec, name)}; give a share from 0 to 0.3"


def _drawn(among: Sequence[T], n: int, name: str) -> list[T]:
    draw = seeds.python(name, 0).random
    return sorted(among, key=lambda _: draw())[:n]


@dataclass(frozen=True, slots=True)
class Drill:
    """One problem. `template` names its wording; `steps` are its equations, `facts` those of the 1-9 table among them.

    `held_out`: "", "fact", "template" or "fact, template": what of it training never shows.
    """

    kind: str
    template: str
    question: str
    steps: tuple[Step, ...]
    answer: int
    facts: tuple[Pair, ...]
    held_out: str
    identity: tuple
    """Equal for two wordings of one problem, and for `6*9` and `9*6`."""

    def chain(self, style: Style = STYLES[0], between: str = "\n") -> str:
        """The equations, as this style writes them."""
        return between.join([style[mark] % (a, b, result) for a, mark, b, result in self.steps])

    @property
    def response(self) -> str:
        """What a model is to answer: the chain, then `#### 84`."""
        return f"{self.chain()}\n#### {self.answer}"


def drill_documents(spec: DrillSpec, seed: int, split: Split = "train") -> Iterator[str]:
    """Documents without end, all different; the same spec, seed and split give the same ones for ever.

    A validation document holds at least one problem of which something is held out, so it is none of the training's.
    Each document given costs about 70 bytes for as long as the stream is read. BadInput where the spec has no more.
    """
    maker = _Maker(spec, seed, f"documents {split}", split)
    seen: set[bytes] = set()
    debt, fruitless = 0.0, 0
    while True:
        drills, missing = maker.page(debt)
        text = maker.written(drills)
        digest = blake2b(text.encode(), digest_size=8).digest()
        fruitless = fruitless + 1 if digest in seen else 0
        if fruitless > _PATIENCE:
            raise _exhausted(spec, len(seen), "documents")
        if not fruitless:
            debt = missing
            seen.add(digest)
            yield text


def drill_items(spec: DrillSpec, seed: int, split: Split = "train") -> Iterator[Drill]:
    """Single problems, no two with the same question; when a kind is used up the others go on alone.

    In split "validation" of every item something is held out, if the spec holds out anything.
    """
    maker = _Maker(spec, seed, f"items {split}", split)
    seen: set[bytes] = set()
    fruitless = 0
    while fruitless <= _PATIENCE:
        drill = maker.drill(maker.any_kind, first=True)
        digest = blake2b(drill.question.encode(), digest_size=8).digest()
        fruitless = fruitless + 1 if digest in seen else 0
        if not fruitless:
            seen.add(digest)
            yield drill
    raise _exhausted(spec, len(seen), "items")


def _exhausted(spec: DrillSpec, made: int, what: str) -> BadInput:
    return BadInput(f"after {made:,} {what} nothing new came in {_PATIENCE} attempts; widen {spec}")


# ---- kinds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """`operands` are drawn from `pairs`; `work` gives the steps (its last argument: whether down to the table)."""

    family: str
    mark: str
    pairs: tuple[tuple[int, int], ...] = ()
    work: Callable[[int, int, bool], list[Step]] = multiplied
    swaps: bool = False

    @property
    def is_factless(self) -> bool:
        """Whether problems of the kind rest on no product at all."""
        return self.mark in "+-"


def _pairs(firsts: Sequence[int], seconds: Sequence[int], keep: Callable[[int, int], bool] = lambda a, b: True):
    return tuple((a, b) for a in firsts for b in seconds if keep(a, b))


_TENS = range(10, 100)
_KINDS: dict[str, _Kind] = {
    "single_add": _Kind("ADD", "+", _pairs(range(10), range(10)), added),
    "single_sub": _Kind("SUB", "-", _pairs(range(10), range(10), lambda a, b: a >= b), subtracted),
    "single_mul": _Kind("MUL", "*", _pairs(_DIGITS, _DIGITS)),
    "single_div": _Kind("DIV", "/", tuple((a * b, b) for a, b in _pairs(_DIGITS, _DIGITS)),
                        lambda a, b, deep: [(a, "/", b, a // b)]),
    "squares": _Kind("SQUARE", "^", tuple((a, 2) for a in _DIGITS), lambda a, b, deep: [(a, "^", 2, a * a)]),
    "double_add": _Kind("ADD", "+", _pairs(_TENS, range(1, 100)), added, swaps=True),
    "double_sub": _Kind("SUB", "-", _pairs(_TENS, range(1, 100), lambda a, b: a >= b), subtracted),
    "double_by_single": _Kind("MUL", "*", _pairs(_TENS, range(2, 10)), swaps=True),
    "double_by_double": _Kind("MUL", "*", _pairs(_TENS, _TENS)),
    "story_sums": _Kind("", "+"),
    "story_products": _Kind("", "*"),
}  # fmt: skip


class _Maker:
    """One spec, seed and split made ready: what may be drawn, sorted into clean and held out."""

    def __init__(self, spec: DrillSpec, seed: int, stream: str, split: Split) -> None:
        self.spec, self.split, self.seed = spec, split, seed
        self.stream = f"drills {stream}"
        self.draw = seeds.python(self.stream, seed).random
        self.holds_out = split == "validation" and bool(spec.held_out_facts or spec.held_out_templates)
        self.any_kind = _cumulated(spec.kinds)
        self.factless = _cumulated({kind: w for kind, w in spec.kinds.items() if _KINDS[kind].is_factless})
        self.recitable = [p for p in _pairs(_DIGITS, _DIGITS) if split == "validation" or not self._held(*p)]
        self.operands = {kind: self._halves(_KINDS[kind]) for kind in spec.kinds}
        self.templates = {kind: self._wordings(kind) for kind in spec.kinds}
        self.stories: dict[tuple[str, str], Iterator[Drill]] = {}

    def page(self, debt: float) -> tuple[list[Drill], float]:
        """The problems of a document, and how many facts it falls short of its share (`debt` included)."""
        draw = self.draw
        share = debt + self.spec.facts_per_document * (0.5 + draw())
        low, high = self.spec.problems
        drills: list[Drill] = []
        known: set[tuple] = set()
        stated_so_far = 0
        for at in range(low + int(draw() * (high - low + 1))):
            kinds = self.any_kind if stated_so_far < share else self.factless
            if not kinds and drills:
                break
            drill = self._new(kinds or self.any_kind, known, first=at == 0)
            stated_so_far += len(drill.facts)
            drills.insert(int(draw() * (len(drills) + 1)), drill)
        if share - stated_so_far >= 1:
            recital = self._recital(int(share - stated_so_far))
            stated_so_far += len(recital.facts)
            drills.append(recital)
        return drills, share - stated_so_far

    def written(self, drills: Sequence[Drill]) -> str:
        """A document: one style and one layout throughout."""
        style, (layout, between) = _pick(self.draw, STYLES), _pick(self.draw, LAYOUTS)
        return "\n\n".join(
            drill.question % drill.chain(style)
            if drill.kind == "recital"
            else layout.format(question=drill.question, chain=drill.chain(style, between), answer=drill.answer)
            for drill in drills
        )

    def drill(self, kinds: Sequence[tuple[float, str]], first: bool = False) -> Drill:
        """Any problem of these kinds; of the `first` of a validation document something is held out."""
        for _ in range(_PATIENCE):
            at = self.draw() * kinds[-1][0]
            kind = next(kind for upto, kind in kinds if at < upto)
            held_fact, held_template = (self.holds_out and self.draw() < 0.5 for _ in range(2))
            made = self._told if kind in _TELLERS else self._asked
            drill = made(kind, held_fact, held_template)
            if drill.held_out or not (first and self.holds_out):
                return drill
        raise BadInput(f"nothing is held out of the kinds drawn: no validation drills to be made of {self.spec}")

    def _new(self, kinds: Sequence[tuple[float, str]], known: set[tuple], first: bool) -> Drill:
        for _ in range(_PATIENCE):
            drill = self.drill(kinds, first)
            if drill.identity not in known:
                known.add(drill.identity)
                return drill
        raise BadInput(f"no document holds {len(known) + 1} different problems; lower 'problems' or widen {self.spec}")

    def _asked(self, kind: str, held_fact: bool, held_template: bool) -> Drill:
        draw, what = self.draw, _KINDS[kind]
        clean, held = self.operands[kind]
        a, b = _pick(draw, held if held and (held_fact or not clean) else clean)
        if what.swaps and draw() < 0.5:
            a, b = b, a
        clean_wordings, held_wordings = self.templates[kind]
        template, wording = _pick(draw, held_wordings if held_wordings and held_template else clean_wordings)
        steps = tuple(what.work(a, b, draw() < 0.5))
        identity = (what.mark, *(pair(a, b) if what.mark in "+*" else (a, b)))
        return self._made(kind, template, wording.format(a=a, b=b), steps, identity)

    def _told(self, kind: str, held_fact: bool, held_template: bool) -> Drill:
        clean, held = self.templates[kind]
        family, _ = _pick(self.draw, held if held and held_template else clean)
        if (kind, family) not in self.stories:
            self.stories[kind, family] = self._story_stream(kind, family)
        for _ in range(_PATIENCE):
            drill = next(self.stories[kind, family])
            if held_fact or "fact" not in drill.held_out:
                return drill
        raise BadInput(f"every story of '{family}' rests on a held-out fact; lower fact_holdout of {self.spec}")

    def _story_stream(self, kind: str, family: str) -> Iterator[Drill]:
        """In blocks, so that no list of those told grows for ever."""
        operations = ("+", "-", "*") if kind == "story_products" else ("+", "-")
        spec = ProblemSpec((1, 2, 3), 1, 99, operations, multipliers=tuple(range(2, 10)), mix=kind == "story_products",
                           templates=(family,))  # fmt: skip
        for block in count():
            for problem in generate(128, spec, seeds.derive(f"{self.stream} {kind} {family} {block}", self.seed)):
                steps = tuple(_step(step.expression, step.result) for step in problem.steps)
                yield self._made(kind, family, problem.question, steps, (problem.question,))

    def _recital(self, n: int) -> Drill:
        """A list of `n` different products, or of all there are."""
        left = list(self.recitable)
        draw = self.draw
        steps = []
        while left and len(steps) < n:
            at = int(draw() * len(left))
            left[at], left[-1] = left[-1], left[at]
            a, b = left.pop()
            steps.append((a, "*", b, a * b))
        heading = int(draw() * len(RECITALS))
        return self._made("recital", f"recital {heading}", RECITALS[heading], tuple(steps), ())

    def _made(self, kind: str, template: str, question: str, steps: tuple[Step, ...], identity: tuple) -> Drill:
        held = []
        if self.spec.held_out_facts and not self.spec.held_out_facts.isdisjoint(rests_on(steps)):
            held.append("fact")
        if template in self.spec.held_out_templates:
            held.append("template")
        return Drill(kind, template, question, steps, steps[-1][-1], stated(steps), ", ".join(held), identity)

    def _held(self, a: int, b: int) -> bool:
        return not self.spec.held_out_facts.isdisjoint(digit_pairs(a, b))

    def _halves(self, kind: _Kind) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Operands that rest on no held-out fact, and the others."""
        rests = {operands: not self.spec.held_out_facts.isdisjoint(rests_on(kind.work(*operands, False)))
                 for operands in kind.pairs}  # fmt: skip
        return [o for o, held in rests.items() if not held], [o for o, held in rests.items() if held]

    def _wordings(self, kind: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """(id, text) of the wordings trained on, and of those held out."""
        family = _KINDS[kind].family
        texts = {f"{family} {i}": text for i, text in enumerate(QUESTIONS[family])} if family else {}
        texts = texts or {name: name for name in _TELLERS[kind]}
        held = self.spec.held_out_templates
        return [item for item in texts.items() if item[0] not in held], [i for i in texts.items() if i[0] in held]


def _step(expression: str, result: str) -> Step:
    mark = next(mark for mark in "*+-" if mark in expression)
    a, _, b = expression.partition(mark)
    return int(a), mark, int(b), int(result)


def _cumulated(weights: dict[str, float]) -> list[tuple[float, str]]:
    total, upto = 0.0, []
    for kind, weight in weights.items():
        total += weight
        upto.append((total, kind))
    return upto


def _pick(draw: Draw, among: Sequence[T]) -> T:
    return among[int(draw() * len(among))]
