"""A problem and one of its steps → the same problem with another number there; or the value that a changed result leads to.

Both are counterfactuals of one chain: results before the step stay as they are, those from it on are others. `variants` asks
another question, in the same words; `carried` keeps the question and puts another result into the chain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from workings.arithmetic.chain import Step, Unreadable, evaluate
from workings.arithmetic.problems import Problem
from workings.arithmetic.stories import NUMBER_WORDS
from workings.arithmetic.walk import OPERATORS

SAID_OTHERWISE = {
    "double": {3: "triple"}, "doubles": {3: "triples"}, "doubled": {3: "tripled"}, "twice": {3: "3 times"},
    "triple": {2: "double"}, "triples": {2: "doubles"}, "tripled": {2: "doubled"},
}  # fmt: skip
"""How a word for a number says another one. A half has no other."""
_STATED = re.compile(rf"\d+|\b(?:{'|'.join(NUMBER_WORDS)})\b")
_STEP = re.compile(r"(\d+)\s*([-+*/])\s*(\d+)")
_WORD = re.compile(r"\d+(?:\.\d+)?|[a-z]+")
_COUNTED = "one two three four five six seven eight nine ten eleven twelve"
_NUMBERS_IN_WORDS = NUMBER_WORDS | {word: at for at, word in enumerate(_COUNTED.split(), start=1)} | {"dozen": 12}
_NUMBER = re.compile(r"(?<![\d.,])\d+(?:\.\d+)?(?![\d,]*\d)")


@dataclass(frozen=True)
class Bounds:
    """The numbers that a variant may hold, so that it is one of the problems it stands among.

    Attributes:
        least, most: Of its results.
        starts: First operands of first steps.
        operands: Second operands, by operator.
    """

    least: int
    most: int
    starts: frozenset[int]
    operands: dict[str, frozenset[int]]

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Bounds | None:
        """What these problems hold; None where none of them is a chain on a running value."""
        chains = [chain for chain in map(_running, problems) if chain is not None]
        if not chains:
            return None
        results = [result for chain in chains for result in chain.results()]
        operands = {
            operator: frozenset(operand for chain in chains for which, operand in chain.acts if which == operator)
            for operator in OPERATORS
        }
        return cls(min(results), max(results), frozenset(chain.start for chain in chains), operands)


def variants(problem: Problem, step: int, bounds: Bounds) -> list[Problem]:
    """The problem with another operand in one step, told in the same words: every one that stays within the bounds.

    Operators and all other operands stay. So the results before the step are equal, and each from it on differs. Of a first
    step either operand may be the one that changes.

    Args:
        problem: One whose chain works on a running value, and whose question states the operands in the order of the steps, each
            once and nothing else: in digits, or in a word that SAID_OTHERWISE knows.
        step: From 1.
        bounds: Those of the problems it stands among.

    Returns:
        An empty list for any other problem, and where no operand fits.

    Example:
        >>> text = "Start with 5. Add 3. The pile is doubled."
        >>> problem = Problem(text, (Step("5+3", "8"), Step("8*2", "16")), "16")
        >>> among = Bounds(0, 30, frozenset({5, 6}), {"+": frozenset({3, 4}), "*": frozenset({2, 3})})
        >>> [(one.question, one.answer) for one in variants(problem, 2, among)]
        [('Start with 5. Add 3. The pile is tripled.', '24')]
        >>> [one.structure for one in variants(problem, 1, among)]
        ['6+3;9*2', '5+4;9*2']
    """
    chain, stated = _running(problem), list(_STATED.finditer(problem.question))
    if chain is None or not 1 <= step <= problem.n_steps or chain.numbers != [_meaning(one) for one in stated]:
        return []
    found = []
    for place in (0, 1) if step == 1 else (step,):
        among = bounds.starts if place == 0 else bounds.operands[chain.acts[place - 1][0]]
        for number in sorted(among - {chain.numbers[place]}):
            told = str(number) if stated[place][0].isdigit() else SAID_OTHERWISE.get(stated[place][0], {}).get(number)
            other = chain.having(place, number)
            if told is not None and other.is_within(bounds) and other.differs_from(chain, step):
                start, end = stated[place].span()
                question = f"{problem.question[:start]}{told}{problem.question[end:]}"
                found.append(Problem(question, other.steps(), str(other.results()[-1]), problem.source))
    return found


def carried(problem: Problem, step: int, result: Fraction) -> Fraction | None:
    """The last result of a problem's chain if one step had another result, carried through the steps after it.

    A number in a later step is taken for an earlier result if it equals one. Where it might as well be another (a number of the
    question, a result that did not change), nothing is said.

    Args:
        problem: Any with a chain, whose steps need not be on a running value.
        step: From 1.
        result: What this step is to result in.

    Returns:
        None where it cannot be told, or a later step divides by zero.

    Example:
        >>> steps = (Step("6*9", "54"), Step("54+1", "55"), Step("55*2", "110"))
        >>> carried(Problem("Six boxes of nine, and one; twice that.", steps, "110"), 1, Fraction(10))
        Fraction(22, 1)
    """
    own = [one.value for one in problem.steps]
    changed = {own[step - 1]: result}
    stated = [_NUMBERS_IN_WORDS.get(word, word) for word in _WORD.findall(problem.question.lower().replace(",", ""))]
    unchanged = {*own[: step - 1], *(Fraction(each) for each in stated if not str(each).isalpha())}
    for one, value in zip(problem.steps[step:], own[step:], strict=True):
        read = {Fraction(number) for number in _NUMBER.findall(one.expression)}
        if read & changed.keys() & unchanged:
            return None
        if not read & changed.keys():
            unchanged.add(value)
            continue
        try:
            expression = _NUMBER.sub(lambda found: _written(found[0], changed), one.expression)
            new = evaluate(expression)
        except (Unreadable, ZeroDivisionError):
            return None
        if changed.setdefault(value, new) != new:
            return None  # two results that were equal and no longer are
    return changed.get(own[-1])


# ── chains on a running value ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Chain:
    """A start, and what is done to the running value: (operator, operand) of each step."""

    start: int
    acts: tuple[tuple[str, int], ...]

    @property
    def numbers(self) -> list[int]:
        """The start and the operands, in the order of the steps."""
        return [self.start, *(operand for _, operand in self.acts)]

    def having(self, place: int, number: int) -> _Chain:
        """The chain with another of its `numbers`."""
        if place == 0:
            return replace(self, start=number)
        acts = [(act[0], number) if at == place else act for at, act in enumerate(self.acts, start=1)]
        return replace(self, acts=tuple(acts))

    def results(self) -> list[int]:
        """The running values after each step, as whole numbers; what does not divide evenly is cut."""
        value, found = self.start, []
        for operator, operand in self.acts:
            value = OPERATORS[operator](value, operand) if operand or operator != "/" else 0
            found.append(value)
        return found

    def steps(self) -> tuple[Step, ...]:
        values = [self.start, *self.results()]
        acts = zip(values, self.acts, values[1:], strict=False)
        return tuple(Step(f"{before}{operator}{operand}", str(after)) for before, (operator, operand), after in acts)

    def is_within(self, bounds: Bounds) -> bool:
        """True if all results are whole and lie in the bounds."""
        return all(step.is_right() for step in self.steps()) and all(
            bounds.least <= result <= bounds.most for result in self.results()
        )

    def differs_from(self, other: _Chain, step: int) -> bool:
        """True if every result from that step on is another."""
        later = zip(self.results()[step - 1 :], other.results()[step - 1 :], strict=True)
        return all(mine != theirs for mine, theirs in later)


def _running(problem: Problem) -> _Chain | None:
    """The problem's chain; None unless each step takes up the result of the one before it, all in whole numbers."""
    read = [_STEP.fullmatch(step.expression.strip()) for step in problem.steps]
    steps = [one for one in read if one is not None]
    if not steps or len(steps) < len(read):
        return None
    chain = _Chain(int(steps[0][1]), tuple((one[2], int(one[3])) for one in steps))
    is_one = all(
        step.expression.replace(" ", "") == made.expression
        for step, made in zip(problem.steps, chain.steps(), strict=True)
    )
    return chain if is_one and [step.result for step in problem.steps] == list(map(str, chain.results())) else None


def _meaning(stated: re.Match[str]) -> int:
    return int(stated[0]) if stated[0].isdigit() else NUMBER_WORDS[stated[0]]


def _written(number: str, changed: dict[Fraction, Fraction]) -> str:
    new = changed.get(Fraction(number))
    return number if new is None else f"({new.numerator}/{new.denominator})"
