"""Problems → what declared readers of the question say about a result: the ladder that a state has to climb.

* surface: the majority, the number of steps, numbers copied out of the question, its words, pairs of words, and words by sentence;
  linear.
* first order: the numbers of the question in order with the words around them; operators and operands of the chain by place; both
  as kinds and as magnitudes; linear, so that no number meets another.
* computing: small perceptrons on operators and operands, and neighbouring operations looked up in training.

A step result is a function of the question, so a reader that is strong enough always names it. Which readers are asked is therefore
declared, and a verdict names the strongest rung that a state goes beyond. No reader sees a result: of a chain they see what
`question_features.given_steps` leaves. All are fitted on training problems, and their penalties and smoothing chosen on validation.
Boosted trees were tried and left out: added to the stack, they moved what it names by at most .1 points (first four steps of the
bundled problems, four splits).
Shapes: n problems, C candidate values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch

from workings.arithmetic.problems import Problem
from workings.judging.controls import Backoff, ControlInputs, Copying, copy_from_question, majority, structure_only
from workings.judging.perceptron import fit_perceptron
from workings.judging.question_features import (
    Features,
    GivenStep,
    Magnitudes,
    Sentences,
    bag_of_words,
    columns,
    given_steps,
    numbers_by_place,
    numbers_in_order,
    sentences_of,
    terms_of,
    word_pairs,
    words_by_sentence,
)
from workings.judging.readers import Floats, Ints, best_beside, discriminants, fit_linear, normalised, pool
from workings.judging.verdict import RUNGS
from workings.reading.targets import Targets

_MOST_FEATURES = 1024  # of a logistic regression, the commonest: with twice as many, GSM8K is named no better
_MOST_INPUTS = 768  # of a perceptron, and of a discriminant, which hold them densely
_FARTHEST = 3  # operations back that are looked up together


@dataclass(frozen=True)
class QuestionReader:
    """What one reader of the question says about all problems.

    Attributes:
        name: As it stands in tables.
        rung: One of RUNGS.
        log_p: Log-probabilities of the candidate values, natural logarithm, Float [n, C].
    """

    name: str
    rung: str
    log_p: Floats


def question_readers(
    problems: Sequence[Problem],
    rule: str,
    classes: Sequence[str],
    y: Ints,
    train: Ints,
    val: Ints,
    rungs: Sequence[str] = RUNGS,
    seed: int = 0,
) -> list[QuestionReader]:
    """Fit the question readers of some rungs to one target, and let them read all problems.

    Args:
        problems: All n problems that have the target.
        rule: `stepK` for the result of step K, or `answer`: which steps lead to the value.
        classes: The C candidate values as text, for example "54" or "1/2".
        y: The class of each problem [n]; −1 where its value is not among the candidates.
        train, val: Problems to fit on, and to choose penalties and smoothing on.
        rungs: Rungs whose readers are wanted.
        seed: Random seed of the perceptrons.

    Example:
        >>> from workings.arithmetic.generator import PRESETS, generate
        >>> problems = [p for p in generate(300, PRESETS["small"], seed=1) if p.n_steps > 1]
        >>> classes = sorted({p.steps[0].result for p in problems}, key=int)
        >>> y = np.array([classes.index(p.steps[0].result) for p in problems])
        >>> rows = np.arange(len(problems))
        >>> readers = question_readers(problems, "step1", classes, y, rows[:100], rows[100:150], rungs=["surface"])
        >>> [reader.name for reader in readers]
        ['majority', 'number of steps', 'copy', 'bag of words', 'word pairs', 'words by sentence']
    """
    asked = _Asked(problems, rule, tuple(classes), y, train, val, seed)
    of_rung = {"surface": _surface, "first order": _first_order, "computing": _computing}
    return [QuestionReader(name, rung, log_p) for rung in rungs for name, log_p in of_rung[rung](asked)]


Named = Iterator[tuple[str, Floats]]


@dataclass(frozen=True)
class _Asked:
    """What is asked of which problems, and what the questions give in each of their forms."""

    problems: Sequence[Problem]
    rule: str
    classes: tuple[str, ...]
    y: Ints
    train: Ints
    val: Ints
    seed: int

    @property
    def step(self) -> int | None:
        """The step whose result is asked for, from 1; None for the answer, which the last step gives."""
        return None if self.rule == "answer" else int(self.rule.removeprefix("step"))

    @cached_property
    def sentences(self) -> list[Sentences]:
        return [sentences_of(problem.question) for problem in self.problems]

    @cached_property
    def numbers(self) -> list[list[tuple[float, str, str]]]:
        """The numbers of each question, with the words around them."""
        return [numbers_in_order(sentences) for sentences in self.sentences]

    @cached_property
    def steps(self) -> list[tuple[GivenStep, ...]]:
        return [given_steps(problem) for problem in self.problems]

    @cached_property
    def reaches(self) -> dict[str, int]:
        """How many steps readers of a chain are given: fewer inputs are learned better, but later steps bound the value too."""
        longest = max(map(len, self.steps))
        if self.step is None:
            return {"all steps": longest}
        upto = {"steps so far": self.step, "up to the next step": self.step + 1, "all steps": longest}
        return {name: n for name, n in upto.items() if n < longest or name == "all steps"}

    @cached_property
    def places(self) -> list[Features]:
        """The numbers of each question by place."""
        magnitudes = Magnitudes.of(value for i in self.train for value, _, _ in self.numbers[i])
        return [numbers_by_place(numbers, magnitudes) for numbers in self.numbers]

    @cached_property
    def magnitudes(self) -> Magnitudes:
        """Of the operands in the training problems' chains."""
        terms = (term for i in self.train for step in self.steps[i] for term in step.terms)
        return Magnitudes.of(value for _, value in terms if value is not None)

    def terms(self, n_steps: int) -> list[Features]:
        """The operators and operands of the first steps; of an answer also of the last ones, counted from the end."""
        features = [terms_of(steps, self.magnitudes, n_steps) for steps in self.steps]
        if self.step is None:
            backwards = [terms_of(steps[::-1], self.magnitudes, n_steps) for steps in self.steps]
            features = [
                a | {("from the end", name): x for name, x in b.items()}
                for a, b in zip(features, backwards, strict=True)
            ]
        return features

    def linear(self, features: Sequence[Features]) -> Floats:
        """Logistic regression and a linear discriminant in one pool, linear too: the second sees more with few problems."""
        n_classes = len(self.classes)
        x = columns(features, self.train, _MOST_FEATURES)
        logistic = fit_linear(x, self.y, n_classes, self.train, self.val)
        x = columns(features, self.train, _MOST_INPUTS).toarray()
        others = list(discriminants(x, self.y, n_classes, self.train))
        _, best = best_beside(logistic, others, self.y, self.val)
        return pool([logistic, best], self.y, self.val).log_p

    def perceptron(self, features: Sequence[Features]) -> Floats:
        x = columns(features, self.train, _MOST_INPUTS).toarray()
        return fit_perceptron(x, self.y, len(self.classes), self.train, self.val, self.seed)

    def counted(self, reader: Backoff | Copying) -> Floats:
        """log p of every candidate [n, C], as smoothed counts have it."""
        return normalised(reader.log_probabilities(range(len(self.classes))))

    @cached_property
    def slots(self) -> ControlInputs:
        """The problems as the lens's data controls see them: one position, values for tokens, and the question's numbers."""
        splits = np.full(len(self.y), "test", dtype=object)
        splits[self.train], splits[self.val] = "train", "val"
        splits[self.y < 0] = "test"  # neither fitted nor smoothed on
        class_of = {float(Fraction(value)): i for i, value in enumerate(self.classes)}
        one_slot = (len(self.y), 1)
        targets = Targets(
            rule="value",
            positions=("value",),
            ids=torch.from_numpy(np.maximum(self.y, 0)).reshape(*one_slot, 1),
            new_value=torch.zeros(*one_slot, 1, dtype=torch.bool),
            n_members=torch.ones(one_slot, dtype=torch.long),
            problems=tuple(map(str, range(len(self.y)))),
            splits=tuple(splits),
            chain_lengths=torch.tensor([problem.n_steps for problem in self.problems]),
        )
        return ControlInputs(
            targets,
            questions=[[class_of.get(value, -1) for value, _, _ in numbers] for numbers in self.numbers],
            is_number=lambda token: True,
            n_tokens=len(self.classes),
        )


# ---- surface -----------------------------------------------------------------------------------------------------


def _surface(asked: _Asked) -> Named:
    """What the words and the form of a question tell, and its numbers as they are."""
    by_value = majority(asked.slots)
    yield "majority", asked.counted(by_value)
    yield "number of steps", asked.counted(structure_only(asked.slots, by_value))
    yield "copy", asked.counted(copy_from_question(asked.slots, by_value))
    yield "bag of words", asked.linear([bag_of_words(each) for each in asked.sentences])
    yield "word pairs", asked.linear([word_pairs(each) for each in asked.sentences])
    yield "words by sentence", asked.linear([words_by_sentence(each) for each in asked.sentences])


# ---- first order -------------------------------------------------------------------------------------------------


def _first_order(asked: _Asked) -> Named:
    """Numbers and operations one by one. What comes after the asked step tells too: it bounds the values that can go on."""
    yield "numbers in order", asked.linear(asked.places)
    if any(asked.steps):
        yield from (
            (f"operands, {name}", asked.linear(asked.terms(n))) for name, n in asked.reaches.items() if n != asked.step
        )


# ---- computing ---------------------------------------------------------------------------------------------------


def _computing(asked: _Asked) -> Named:
    """Numbers with numbers."""
    if not any(asked.steps):
        yield "perceptron, numbers in order", asked.perceptron(asked.places)
        return
    yield from ((f"perceptron, {name}", asked.perceptron(asked.terms(n))) for name, n in asked.reaches.items())
    yield from _looked_up(asked)


def _looked_up(asked: _Asked) -> Named:
    """What training showed after the same operations: those that lead to the value, and neighbouring pairs before and after.

    Counts back off to those of fewer operations. A first step is the start and one operation: a pair of them fixes its result.
    """
    links = [_links(steps) for steps in asked.steps]
    last = [len(of) - 1 if asked.step is None else asked.step for of in links]
    at = lambda i, offset: links[i][last[i] + offset] if 0 <= last[i] + offset < len(links[i]) else None
    rows, by_value = range(len(links)), majority(asked.slots)
    leading = by_value
    for reach in range(min(max(last), _FARTHEST) + 1):
        leading = leading.finer(_labels([tuple(at(i, -j) for j in range(reach + 1)) for i in rows]))
    yield "operations looked up", asked.counted(leading)
    for offset in range(1 if asked.step is not None else -1, -min(max(last), _FARTHEST), -1):
        if offset:  # the pair at 0 is the second level of the operations above
            pairs = [(at(i, offset - 1), at(i, offset)) for i in rows]
            found = by_value.finer(_labels([right for _, right in pairs])).finer(_labels(pairs))
            yield f"pair looked up, {offset:+d}", asked.counted(found)


def _links(steps: Sequence[GivenStep]) -> list[object]:
    """A chain as the start and what is done to it in each step."""
    if not steps:
        return []
    first = steps[0].terms
    return [first[:1], first[1:], *(step.terms for step in steps[1:])]


def _labels(contexts: Sequence[object]) -> Ints:
    """The same number for the same context [n]."""
    number: dict[object, int] = {}
    return np.array([number.setdefault(context, len(number)) for context in contexts])
