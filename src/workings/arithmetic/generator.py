"""Specification × seed → a stream of word problems, no two alike, whose every number is known and in range.

A problem is an opening, one sentence for each step, perhaps a distractor, and a question. What is learned from and what is asked
are told apart by structure. Draws are single uniform floats in an
order that never changes, so that a seed gives the same problems in every version.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.arithmetic.stories import (
    DISTRACTORS,
    FORMS,
    OTHERS,
    PEOPLE,
    RINGS,
    RUNNING,
    STRUCTURED,
    THEMES,
    Opening,
    Theme,
)
from workings.arithmetic.walk import OPERATORS, Draw, IntegerLine, ModularRing, PlannedStep, ValueRange, pick
from workings.config import check_ranges, fixed
from workings.errors import BadInput

# ── what problems to make ───────────────────────────────────────────────────────────────────────────────────────────────

Operation = Literal["+", "-", "*", "/"]
Part = Literal["training", "validation", "test"]

MOST_STEPS = 8


def part_of(structure: str) -> Part:
    """The part that a structure (`Problem.structure`) belongs to, by a hash of its text: 75 % training, 5 % validation, 20 % test.

    So streams of different parts share neither a question nor a structure, whatever their seeds, lengths and specifications,
    and nobody keeps a list of what was used. Short chains decide the shares: with small numbers there are a few hundred of one
    or two steps, of which three quarters still show a model every number and operation, and a fifth is enough to count on.

    Example:
        >>> [part_of(structure) for structure in ("6*9", "6*9;54+1", "6*9;54-4")]
        ['training', 'training', 'test']
    """
    twentieth = int.from_bytes(hashlib.sha256(structure.encode()).digest()[:8]) % 20
    return "training" if twentieth < 15 else "validation" if twentieth < 16 else "test"


@dataclass(frozen=True, slots=True)
class ProblemSpec:
    """The problems to make. Every operand, intermediate value and answer is an integer in `low..high`.
    STRUCTURED themes have openings whose steps are not all on a running value ("3 boxes of 6 and 4 loose"). Each step on a
    ring shows its wrap as true integer arithmetic, `18+5-20=3`.
    """

    n_steps: tuple[int, ...] = fixed(
        (1, 2, 3, 4),
        "chain lengths, drawn uniformly; a length named twice is drawn twice as often",
        at_least=1,
        at_most=MOST_STEPS,
    )
    low: int = fixed(0, "smallest operand, intermediate value and answer", at_least=0)
    high: int = fixed(99, "largest operand, intermediate value and answer", at_least=1)
    operations: tuple[Operation, ...] = fixed(("+", "-", "*", "/"), "operations: any of + - * /")
    multipliers: tuple[int, ...] = fixed((2, 3, 4), "operands of *", at_least=2)
    divisors: tuple[int, ...] = fixed((2, 3, 4, 5), "operands of /", at_least=2)
    addends: tuple[int, int] | None = fixed(
        None, "smallest and largest operand of + and -; by default those of the range", at_least=1
    )
    mix: bool = fixed(
        True,
        "give every chain of two or more steps a * or / after its first step, so that a running sum does not solve it",
    )
    modulus: int | None = fixed(
        None,
        "number of places of a ring on which the stories are told, with values 0..modulus-1 and no division",
        at_least=3,
    )
    distractor_rate: float = fixed(
        0.0, "probability of one sentence with a number that no step uses", at_least=0, at_most=1
    )
    style: Literal["story", "plain"] = fixed("story", 'word problems, or bare commands such as "Start with 5. Add 3."')
    templates: tuple[str, ...] = fixed((), "names of story themes; by default every running-value theme of the style")
    structures: Literal["all", "training", "held out", "validation", "test"] = fixed(
        "all",
        "structures (numbers and operations of a chain): all, those of one part, or all but training's (held out)",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
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

    def admits(self, structure: str) -> bool:
        """True if a chain of this structure is of the part that `structures` names."""
        if self.structures == "all":
            return True
        part = part_of(structure)
        return part != "training" if self.structures == "held out" else part == self.structures

    @property
    def least_and_largest_addend(self) -> tuple[int, int]:
        """From 2 where `addends` is None: "1 people get on" would be the only sentence with a singular."""
        low, high = self.range
        return self.addends or (min(max(2, low), high), high)

    @property
    def theme_names(self) -> tuple[str, ...]:
        """The themes that are drawn from."""
        if self.templates:
            return self.templates
        if self.style == "plain":
            return ("plain",) if self.modulus is None else ("ring plain",)
        return RUNNING if self.modulus is None else RINGS


def _complaints(spec: ProblemSpec) -> Iterator[str]:
    if not spec.n_steps:
        yield f"n_steps is {spec.n_steps}; give chain lengths from 1 to {MOST_STEPS}"
    if spec.modulus is None and not spec.low < spec.high - 2:
        yield f"the range is {spec.low}..{spec.high}; give at least four values"
    if not spec.operations or not set(spec.operations) <= set("+-*/"):
        yield f"operations are {spec.operations}; give some of + - * /"
    if spec.modulus is not None and "/" in spec.operations:
        yield "a ring has no division; give operations=('+', '-', '*') with a modulus"
    for operation, factors in (("*", spec.multipliers), ("/", spec.divisors)):
        if operation in spec.operations and not spec.factors(operation):
            yield f"none of {factors} lies in {spec.range[0]}..{spec.range[1]} for the operation {operation}"
    if spec.addends is not None and not max(1, spec.range[0]) <= spec.addends[0] <= spec.addends[1] <= spec.range[1]:
        yield f"addends are {spec.addends}; give {max(1, spec.range[0])} <= least <= largest <= {spec.range[1]}"
    if spec.style not in ("story", "plain"):
        yield f"style is {spec.style!r}; give 'story' or 'plain'"
    if spec.structures not in ("all", "training", "held out", "validation", "test"):
        yield f"structures are {spec.structures!r}; give 'all', 'training', 'held out', 'validation' or 'test'"
    for name in spec.theme_names:
        if name not in THEMES:
            yield f"no theme {name!r}; there are {', '.join(THEMES)}"
        elif THEMES[name].ring != (spec.modulus is not None):
            yield f"the theme {name!r} {'needs' if THEMES[name].ring else 'does not go with'} a modulus"


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


# ── the stream ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_PATIENCE = 2000
"""Attempts in a row that bring nothing new before a spec counts as exhausted."""
_HOLE = re.compile(r"%\(\w+\)s")
_PIECE = re.compile(r"<<|>>|\d+|[A-Za-z]+|[^\sA-Za-z\d]")


def generate(n: int, spec: ProblemSpec, seed: int, without: Collection[str] = ()) -> Iterator[Problem]:
    """Generate word problems whose ids differ from one another and from those in `without`.

    The same spec, seed and `without` give the same problems, and a longer stream begins with the shorter one. What a model is to
    be asked differs from what it learned by structure too, where one spec has `structures="training"` and the other "held out".

    Args:
        n: How many problems.
        spec: What they look like; see PRESETS.
        seed: Selects the stream.
        without: Ids of problems to leave out, for example the training set's.

    Raises:
        BadInput: `spec` has no further problem to give.

    Example:
        >>> [problem] = generate(1, ProblemSpec(n_steps=(2,), high=20), seed=1)
        >>> problem.question.partition(". Then")[0], problem.steps[-1].result == problem.answer
        ('There are 10 people on a bus', True)
    """
    draw = random.Random(f"problems {seed}").random
    maker = _maker_of(spec)
    seen = set(without)
    for made in range(n):
        for _ in range(_PATIENCE):
            problem = maker.problem(draw)
            if problem is not None and spec.admits(problem.structure) and (key := problem.id) not in seen:
                break
        else:
            raise BadInput(f"made {made} of {n} problems and found nothing new in {_PATIENCE} attempts; widen {spec}")
        seen.add(key)
        yield problem


def vocabulary(spec: ProblemSpec) -> list[str]:
    """List every piece, as `split_pieces` cuts them, that a question or chain of `spec` can hold: symbols, words, numbers.

    The list depends on the range and the themes alone (on a ring, on the multipliers too), so that a tokenizer made
    from it also reads the same stories with other chain lengths, operations or distractors.
    """
    low, high = spec.range
    numbers = set(range(low, high + 1))
    if spec.modulus is not None:
        most = max([2, *spec.factors("*")]) * high
        numbers |= set(range(0, most + 1, spec.modulus)) | {spec.modulus}
    themes = [THEMES[name] for name in spec.theme_names]
    numbers |= {int(number) for t in themes for o in t.openings for number in re.findall(r"\d+", " ".join(o.steps))}
    texts = [
        *DISTRACTORS,
        *OTHERS,
        *(name for name, _ in PEOPLE),
        *(word for form in FORMS.values() for word in form.values()),
    ]
    for theme in themes:
        texts += [opening.text for opening in theme.openings]
        for sentences in (*theme.acts.values(), *theme.words.values(), theme.questions, theme.things):
            texts += sentences
    words = sorted({piece for text in texts for piece in split_pieces(_HOLE.sub(" ", text)) if piece.isalpha()})
    return [*".,?$%+-*/=", "<<", ">>", *words, *map(str, sorted(numbers))]


def split_pieces(text: str) -> list[str]:
    """Cut a text into words, whole numbers, `<<`, `>>` and single symbols.

    Example:
        >>> split_pieces("$30, <<6*9=54>>")
        ['$', '30', ',', '<<', '6', '*', '9', '=', '54', '>>']
    """
    return _PIECE.findall(text)


class _Maker:
    """A specification prepared for drawing: what may be drawn is looked up once."""

    def __init__(self, spec: ProblemSpec) -> None:
        self.spec = spec
        walk = IntegerLine if spec.modulus is None else ModularRing
        self.walk = walk(spec.range, spec.least_and_largest_addend)
        self.factors = {operation: spec.factors(operation) for operation in spec.operations}
        self.steep = tuple(operation for operation in spec.operations if operation in "*/")
        allowed, themes = set(spec.operations), [THEMES[name] for name in spec.theme_names]
        self.themes: dict[int, list[tuple[Theme, list[Opening]]]] = {}
        """By number of steps: the themes that can tell so many, each with the openings that fit and use only allowed operations."""
        for n in set(spec.n_steps):
            fitting = [
                [o for o in t.openings if len(o.steps) <= n and allowed.issuperset(_operations(o))] for t in themes
            ]
            self.themes[n] = [(theme, openings) for theme, openings in zip(themes, fitting, strict=True) if openings]
            if not self.themes[n]:
                raise BadInput(f"no theme of {spec.theme_names} tells {n} steps with {spec.operations}; name another")

    def problem(self, draw: Draw) -> Problem | None:
        """One problem; None where the numbers drawn leave no possible next step."""
        n_steps = pick(draw, self.spec.n_steps)
        theme, openings = pick(draw, self.themes[n_steps])
        opening = pick(draw, openings)
        planned = self._planned(draw, opening, n_steps - len(opening.steps))
        admissible = self.walk.admissible(planned)
        words = self._words(draw, theme)
        opened = self._opened(draw, opening, admissible[0])
        if opened is None:
            return None
        values, steps, value = opened
        words.update(values)
        sentences = [opening.text % words]
        for step, allowed in zip(planned, admissible[1:], strict=True):
            taken = self.walk.step(draw, value, step, allowed)
            if taken is None:
                return None
            operand, result = taken
            steps.append(self.walk.written(value, step[0], operand, result))
            words["n"] = operand
            # a factor with a word of its own ("twice") has more sentences than its operation
            said = theme.acts[step[0]] + theme.words.get(f"{step[0]}{step[1]}", ())
            sentences.append(pick(draw, said) % words)
            value = result
        if draw() < self.spec.distractor_rate:
            sentences.insert(1 + int(draw() * len(sentences)), self._distractor(draw, words))
        sentences.append(pick(draw, theme.questions) % words)
        return Problem(" ".join(sentences), tuple(steps), str(value), "generated")

    def _planned(self, draw: Draw, opening: Opening, n: int) -> list[PlannedStep]:
        """Operations and factors of the sentences after the opening, mixed where the specification asks and there is room."""
        operations = [pick(draw, self.spec.operations) for _ in range(n)]
        later = 0 if opening.steps else 1
        mixed = any(o in "*/" for o in (*_operations(opening)[1:], *operations[later:]))
        if self.spec.mix and self.steep and n > later and not mixed:
            operations[later + int(draw() * (n - later))] = pick(draw, self.steep)
        return [(o, pick(draw, self.factors[o]) if o in "*/" else 0) for o in operations]

    def _words(self, draw: Draw, theme: Theme) -> dict[str, str | int]:
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
            "things": pick(draw, theme.things),
            "m": self.spec.modulus or 0,
        }

    def _opened(
        self, draw: Draw, opening: Opening, allowed: ValueRange
    ) -> tuple[dict[str, int], list[Step], int] | None:
        """The numbers of an opening, the steps it asks for, and the running value after them."""
        if not opening.steps:
            start = self.walk.start(draw, allowed)
            return None if start is None else ({"a": start}, [], start)
        low, high = self.spec.range
        least = max(low, 2)
        values = {
            hole: pick(draw, self.factors["*"]) if hole in opening.factors else least + int(draw() * (high - least) / 2)
            for hole in _free_holes(opening)
        }
        steps, result = [], 0
        for left, operation, right, named in _parsed(opening):
            a, b = values[left], int(right) if right.isdigit() else values[right]
            if operation == "/" and a % b:
                return None
            result = values[named] = OPERATORS[operation](a, b)
            if not max(low, 1) <= result <= high:
                return None
            steps.append(Step(f"{a}{operation}{b}", str(result)))
        return (values, steps, result) if allowed.holds(result) else None

    def _distractor(self, draw: Draw, words: dict[str, str | int]) -> str:
        low, high = self.spec.range
        words["n"] = max(low, 2) + int(draw() * (high - max(low, 2) + 1))
        words["others"] = pick(draw, OTHERS)
        return pick(draw, DISTRACTORS) % words


_maker_of = lru_cache(maxsize=32)(_Maker)


@cache
def _parsed(opening: Opening) -> tuple[tuple[str, str, str, str], ...]:
    """`"a*b=d"` → left operand, operation, right operand, name of the result."""
    return tuple((left, operation, right, named) for left, operation, right, _, named in opening.steps)


@cache
def _operations(opening: Opening) -> str:
    return "".join(operation for _, operation, _, _ in _parsed(opening))


@cache
def _free_holes(opening: Opening) -> tuple[str, ...]:
    """The letters of an opening whose numbers are drawn; its steps compute the others."""
    worked_out = {named for *_, named in _parsed(opening)}
    used = dict.fromkeys(hole for left, _, right, _ in _parsed(opening) for hole in (left, right))
    return tuple(hole for hole in used if hole.isalpha() and hole not in worked_out)
