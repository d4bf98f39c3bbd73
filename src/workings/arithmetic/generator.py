"""Spec × seed → a stream of word problems, no two alike, whose every number is known and in range.

A problem is an opening, one sentence a step, perhaps a distractor, and a question. Draws are single uniform floats, in
an order that never changes, so that a seed means the same problems for ever.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache
from typing import TypeVar

from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.arithmetic.spec import PRESETS, ProblemSpec
from workings.arithmetic.stories import DISTRACTORS, FAMILIES, FORMS, OTHERS, PEOPLE, Family, Opening
from workings.arithmetic.walk import Act, Draw, Line, Need, Ring, apply
from workings.errors import BadInput

__all__ = ["PRESETS", "ProblemSpec", "generate", "split_pieces", "vocabulary"]

T = TypeVar("T")

_PATIENCE = 2000
"""Attempts in a row that bring nothing new before a spec counts as exhausted."""
_HOLE = re.compile(r"%\(\w+\)s")
_PIECE = re.compile(r"<<|>>|\d+|[A-Za-z]+|[^\sA-Za-z\d]")


def generate(n: int, spec: ProblemSpec, seed: int, without: Collection[str] = ()) -> Iterator[Problem]:
    """`n` problems with ids that differ from one another and from those in `without` (say, the training set's).

    The same spec, seed and `without` give the same problems, and a longer stream begins with the shorter one.
    Raises BadInput where the spec has no more problems to give.
    """
    draw = random.Random(f"problems {seed}").random
    maker = _maker(spec)
    seen = set(without)
    for made in range(n):
        for _ in range(_PATIENCE):
            problem = maker.problem(draw)
            if problem is not None and (key := problem.id) not in seen:
                break
        else:
            raise BadInput(f"made {made} of {n} problems and found nothing new in {_PATIENCE} attempts; widen {spec}")
        seen.add(key)
        yield problem


def vocabulary(spec: ProblemSpec) -> list[str]:
    """Every piece that a question or chain of this spec can hold, by `split_pieces`: marks, words, numbers in order.

    It depends on the range and the families alone (on a ring, on the multipliers too), so that a tokenizer made
    from it also reads the same stories with other chain lengths, operations or distractors.
    """
    low, high = spec.range
    numbers = set(range(low, high + 1))
    if spec.modulus is not None:
        most = max([2, *spec.factors("*")]) * high
        numbers |= set(range(0, most + 1, spec.modulus)) | {spec.modulus}
    families = [FAMILIES[name] for name in spec.family_names]
    numbers |= {int(number) for f in families for o in f.openings for number in re.findall(r"\d+", " ".join(o.steps))}
    pieces = split_pieces(" ".join(_every_text(families)))
    words = sorted({piece for piece in pieces if piece.isalpha()})
    return [*".,?$%+-*/=", "<<", ">>", *words, *map(str, sorted(numbers))]


def split_pieces(text: str) -> list[str]:
    """Words, whole numbers, `<<`, `>>` and single marks: `"$30, <<6*9=54>>"` → `$ 30 , << 6 * 9 = 54 >>`."""
    return _PIECE.findall(text)


def _every_text(families: Sequence[Family]) -> Iterator[str]:
    texts = list(DISTRACTORS)
    for family in families:
        texts += [opening.text for opening in family.openings]
        for sentences in (*family.acts.values(), *family.words.values(), family.questions, family.things):
            texts += sentences
    yield from (_HOLE.sub(" ", text) for text in texts)
    yield from (name for name, _ in PEOPLE)
    yield from (word for form in FORMS.values() for word in form.values())
    yield from OTHERS


class _Maker:
    """One spec made ready: what can be drawn, looked up once."""

    def __init__(self, spec: ProblemSpec) -> None:
        self.spec = spec
        self.walk = Line(spec) if spec.modulus is None else Ring(spec)
        self.factors = {operation: spec.factors(operation) for operation in spec.operations}
        self.steep = tuple(operation for operation in spec.operations if operation in "*/")
        self.families = {n: _with_openings(spec, n) for n in set(spec.n_steps)}
        for n, families in self.families.items():
            if not families:
                raise BadInput(f"no family of {spec.family_names} tells {n} steps with {spec.operations}; name another")

    def problem(self, draw: Draw) -> Problem | None:
        """A problem, or None where the numbers drawn led nowhere."""
        n_steps = _pick(draw, self.spec.n_steps)
        family, openings = _pick(draw, self.families[n_steps])
        opening = _pick(draw, openings)
        acts = self._acts(draw, opening, n_steps - len(opening.steps))
        needs = self.walk.needs(acts)
        words = self._words(draw, family)
        opened = self._opened(draw, opening, needs[0])
        if opened is None:
            return None
        values, steps, value = opened
        words.update(values)
        sentences = [opening.text % words]
        for act, need in zip(acts, needs[1:], strict=True):
            taken = self.walk.step(draw, value, act, need)
            if taken is None:
                return None
            operand, result = taken
            steps.append(self.walk.written(value, act[0], operand, result))
            words["n"] = operand
            sentences.append(_pick(draw, _sentences(family, act)) % words)
            value = result
        if draw() < self.spec.distractor_rate:
            sentences.insert(1 + int(draw() * len(sentences)), self._distractor(draw, words))
        sentences.append(_pick(draw, family.questions) % words)
        return Problem(" ".join(sentences), tuple(steps), str(value), "generated")

    def _acts(self, draw: Draw, opening: Opening, n: int) -> list[Act]:
        """The operations of the sentences to come, with their factors; mixed where the spec asks and there is room."""
        operations = [_pick(draw, self.spec.operations) for _ in range(n)]
        later = 0 if opening.steps else 1
        mixed = any(o in "*/" for o in (*_marks(opening)[1:], *operations[later:]))
        if self.spec.mix and self.steep and n > later and not mixed:
            operations[later + int(draw() * (n - later))] = _pick(draw, self.steep)
        return [(o, _pick(draw, self.factors[o]) if o in "*/" else 0) for o in operations]

    def _words(self, draw: Draw, family: Family) -> dict[str, str | int]:
        first = int(draw() * len(PEOPLE))
        name, form = PEOPLE[first]
        # Three different people: both steps are at least 1 and together less than all the way round.
        half = len(PEOPLE) // 2
        second = first + 1 + int(draw() * (half - 1))
        third = first + half + int(draw() * half)
        return {
            **FORMS[form],
            "name": name,
            "stranger": PEOPLE[second % len(PEOPLE)][0],
            "passer": PEOPLE[third % len(PEOPLE)][0],
            "things": _pick(draw, family.things),
            "m": self.spec.modulus or 0,
        }

    def _opened(self, draw: Draw, opening: Opening, need: Need) -> tuple[dict[str, int], list[Step], int] | None:
        """The numbers of an opening, the steps it asks for and the running value it leaves."""
        if not opening.steps:
            start = self.walk.start(draw, need)
            return None if start is None else ({"a": start}, [], start)
        low, high = self.spec.range
        values = {hole: self._free(draw, hole in opening.factors) for hole in _free_holes(opening)}
        steps, result = [], 0
        for left, mark, right, named in _parsed(opening):
            a, b = values[left], int(right) if right.isdigit() else values[right]
            if mark == "/" and a % b:
                return None
            result = values[named] = apply(a, mark, b)
            if not max(low, 1) <= result <= high:
                return None
            steps.append(Step(f"{a}{mark}{b}", str(result)))
        return (values, steps, result) if need.holds(result) else None

    def _free(self, draw: Draw, is_factor: bool) -> int:
        low, high = self.spec.range
        if is_factor:
            return _pick(draw, self.factors["*"])
        return max(low, 2) + int(draw() * (high - max(low, 2)) / 2)

    def _distractor(self, draw: Draw, words: dict[str, str | int]) -> str:
        low, high = self.spec.range
        words["n"] = max(low, 2) + int(draw() * (high - max(low, 2) + 1))
        words["others"] = _pick(draw, OTHERS)
        return _pick(draw, DISTRACTORS) % words


@lru_cache(maxsize=32)
def _maker(spec: ProblemSpec) -> _Maker:
    return _Maker(spec)


def _pick(draw: Draw, among: Sequence[T]) -> T:
    return among[int(draw() * len(among))]


def _with_openings(spec: ProblemSpec, n_steps: int) -> list[tuple[Family, list[Opening]]]:
    """The families that can tell a story of `n_steps`, with the openings that do and use no other operation."""
    allowed = set(spec.operations)
    families = [FAMILIES[name] for name in spec.family_names]
    fitting = [[o for o in f.openings if len(o.steps) <= n_steps and allowed.issuperset(_marks(o))] for f in families]
    return [(family, openings) for family, openings in zip(families, fitting, strict=True) if openings]


@cache
def _parsed(opening: Opening) -> tuple[tuple[str, str, str, str], ...]:
    """`"a*b=d"` → left, mark, right, name of the result."""
    return tuple((left, mark, right, named) for left, mark, right, _, named in opening.steps)


@cache
def _marks(opening: Opening) -> str:
    return "".join(mark for _, mark, _, _ in _parsed(opening))


@cache
def _free_holes(opening: Opening) -> tuple[str, ...]:
    """The letters an opening's numbers are drawn for: those no step of it works out."""
    worked_out = {named for *_, named in _parsed(opening)}
    used = dict.fromkeys(hole for left, _, right, _ in _parsed(opening) for hole in (left, right))
    return tuple(hole for hole in used if hole.isalpha() and hole not in worked_out)


def _sentences(family: Family, act: Act) -> tuple[str, ...]:
    """Every sentence that says this act; a factor with a word of its own has more of them."""
    operation, factor = act
    return family.acts[operation] + family.words.get(f"{operation}{factor}", ())
