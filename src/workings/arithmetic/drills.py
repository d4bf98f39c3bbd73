"""Spec × seed × split → an endless stream of arithmetic drills in plain digits, every statement true.

The chain of thought is written in equations (`10*7=70, 2*7=14, 70+14=84`), so that each arm's rewriting makes of the
same text what it should. In split "train" nothing rests on a held-out fact: not even 60*9=540, where 6*9 is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import Literal, TypeVar

from workings import seeds
from workings.arithmetic.drill_spec import KINDS, DrillSpec, Weights
from workings.arithmetic.facts import Fact
from workings.arithmetic.generator import ProblemSpec, generate
from workings.arithmetic.questions import LAYOUTS, RECITALS, STYLES, Layout, Style
from workings.arithmetic.worked import TABLE, Step, rests_on, stated
from workings.errors import BadInput

__all__ = ["Drill", "DrillSpec", "Split", "Weights", "drill_documents", "drill_items"]

Split = Literal["train", "validation"]
T = TypeVar("T")
Operands = tuple[int, int]
Draw = Callable[[], float]
Ladder = list[tuple[float, str]]
"""Kinds, each with the sum of the weights up to it."""

_PATIENCE = 2000
"""Attempts in a row that bring nothing new before a spec counts as exhausted."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One problem. `template` names its wording; `facts` are those of the times tables that its steps write out.

    `held_out` says what of it training never shows: "", "fact", "template" or "fact, template".
    `identity` is equal for two wordings of one problem, and for `6*9` and `9*6`.
    """

    kind: str
    template: str
    question: str
    steps: tuple[Step, ...]
    answer: int
    facts: tuple[Fact, ...]
    held_out: str
    identity: tuple[str | int, ...]

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
    maker = _Maker(spec, seed, split, "documents")
    seen: set[bytes] = set()
    debt, fruitless = 0.0, 0
    while fruitless <= _PATIENCE:
        layout = _pick(maker.draw, LAYOUTS)
        drills, missing = maker.page(debt, shows_work=layout.shows_work)
        text = maker.written(drills, layout)
        fruitless = 0 if _is_new(text, seen) else fruitless + 1
        if not fruitless:
            debt = missing
            yield text
    raise _exhausted(spec, len(seen), "documents")


def drill_items(spec: DrillSpec, seed: int, split: Split = "train") -> Iterator[Drill]:
    """Single problems, no two with the same question; when a kind is used up the others go on alone.

    In split "validation" of every item something is held out, if the spec holds out anything.
    """
    maker = _Maker(spec, seed, split, "items")
    seen: set[bytes] = set()
    fruitless = 0
    while fruitless <= _PATIENCE:
        drill = maker.drill(maker.any_kind, held_out=maker.holds_out)
        fruitless = 0 if _is_new(drill.question, seen) else fruitless + 1
        if not fruitless:
            yield drill
    raise _exhausted(spec, len(seen), "items")


def _is_new(text: str, seen: set[bytes]) -> bool:
    """Whether `text` was not seen before; now it is."""
    before = len(seen)
    seen.add(blake2b(text.encode(), digest_size=8).digest())
    return len(seen) > before


def _exhausted(spec: DrillSpec, made: int, what: str) -> BadInput:
    return BadInput(f"after {made:,} {what} nothing new came in {_PATIENCE} attempts; widen {spec}")


class _Maker:
    """One spec, seed and split made ready: what may be drawn, sorted into what is trained on and what is held out."""

    def __init__(self, spec: DrillSpec, seed: int, split: Split, of: str) -> None:
        self.spec, self.seed, self.stream = spec, seed, f"drills {split} {of}"
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

    def page(self, debt: float, shows_work: bool = True) -> tuple[list[Drill], float]:
        """The problems of a document, and how many facts they fall short of its share, which `debt` is part of.

        Answers that do not show their work state no fact; a list of products makes up for it.
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

    def written(self, drills: Sequence[Drill], layout: Layout) -> str:
        """A document: one style and one layout throughout."""
        style = _pick(self.draw, STYLES)
        return "\n\n".join(
            f"{drill.question}\n{drill.chain(style)}"
            if drill.kind == "recital"
            else layout.written(drill.question, drill.chain(style, layout.between), drill.answer)
            for drill in drills
        )

    def drill(self, kinds: Ladder, held_out: bool = False) -> Drill:
        """Any problem of these kinds, or one of which something is held out. Validation draws both by halves."""
        for _ in range(_PATIENCE):
            at = self.draw() * kinds[-1][0]
            kind = next(kind for upto, kind in kinds if at < upto)
            fact, template = (self.holds_out and self.draw() < 0.5 for _ in range(2))
            drill = self._told(kind, fact, template) if KINDS[kind].stories else self._asked(kind, fact, template)
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

    def _asked(self, name: str, held_fact: bool, held_template: bool) -> Drill:
        kind = KINDS[name]
        a, b = self._part(self.operands[name], held_fact)
        if kind.swaps and self.draw() < 0.5:
            a, b = b, a
        template, wording = self._part(self.templates[name], held_template)
        steps = tuple(kind.work(a, b, self.draw() < 0.5))
        identity = (kind.mark, min(a, b), max(a, b)) if kind.mark in "+*" else (kind.mark, a, b)
        return self._made(name, template, wording.format(a, b), steps, identity)

    def _told(self, kind: str, held_fact: bool, held_template: bool) -> Drill:
        family, _ = self._part(self.templates[kind], held_template)
        if (kind, family) not in self.stories:
            self.stories[kind, family] = self._stories(kind, family)
        for _ in range(_PATIENCE):
            drill = next(self.stories[kind, family])
            if held_fact or "fact" not in drill.held_out:
                return drill
        raise BadInput(f"every story of '{family}' rests on a held-out fact; lower fact_holdout of {self.spec}")

    def _stories(self, kind: str, family: str) -> Iterator[Drill]:
        """Without end, in blocks, so that the list of those told before stays short."""
        products = KINDS[kind].mark == "*"
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
                steps = tuple(_step(step.expression, step.result) for step in problem.steps)
                yield self._made(kind, family, problem.question, steps, (problem.question,))

    def _recital(self, n: int) -> Drill:
        """A list of `n` different products."""
        left, steps = list(self.products), []
        for _ in range(n):
            at = int(self.draw() * len(left))
            left[at], left[-1] = left[-1], left[at]
            a, b = left.pop()
            steps.append((a, "*", b, a * b))
        return self._made("recital", "recital", _pick(self.draw, RECITALS), tuple(steps), ())

    def _made(self, kind: str, template: str, question: str, steps: tuple[Step, ...], identity: tuple) -> Drill:
        held = ["fact"] if self.spec.rests_on_held_out(steps) else []
        held += ["template"] if template in self.spec.held_out_templates else []
        return Drill(kind, template, question, steps, steps[-1][-1], stated(steps), ", ".join(held), identity)

    def _part(self, parts: tuple[list[T], list[T]], held_out: bool) -> T:
        """One of the trained on, or of the held out where there are any."""
        trained, held = parts
        return _pick(self.draw, held if held and held_out else trained)


@lru_cache(maxsize=64)
def _operands(name: str, held_out: frozenset[Fact]) -> tuple[list[Operands], list[Operands]]:
    """The operands of a kind that rest on no held-out fact, and those that do."""
    kind = KINDS[name]
    if kind.is_factless or not held_out:
        return list(kind.operands), []
    return _parted(kind.operands, lambda both: not held_out.isdisjoint(rests_on(kind.work(*both, False))))


def _parted(among: Sequence[T], is_held_out: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Those trained on, those held out."""
    parts: tuple[list[T], list[T]] = [], []
    for one in among:
        parts[is_held_out(one)].append(one)
    return parts


def _step(expression: str, result: str) -> Step:
    mark = next(mark for mark in "*+-" if mark in expression)
    a, _, b = expression.partition(mark)
    return int(a), mark, int(b), int(result)


def _ladder(weights: dict[str, float]) -> Ladder:
    total, upto = 0.0, []
    for kind, weight in weights.items():
        total += weight
        upto.append((total, kind))
    return upto


def _pick(draw: Draw, among: Sequence[T]) -> T:
    return among[int(draw() * len(among))]
