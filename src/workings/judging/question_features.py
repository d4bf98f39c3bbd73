"""A problem → what its question tells, as features: words, numbers by place, operators and operands of its chain. Never a result.

A chain that is written beside a question is a way of reading it: which numbers meet in which order, by which operations. What comes
out of a step is left out wherever it is written. Features are named by tuples, and become columns in `columns`.
Shapes: n problems, f features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, pairwise
from math import log1p

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from workings.arithmetic.chain import Unreadable, evaluate, pieces_of
from workings.arithmetic.problems import Problem

Ints = NDArray[np.int64]
Feature = Hashable
Features = dict[Feature, float]
"""The features that a problem has, with their values."""
Sentences = list[list[str]]
Term = tuple[str, float | None]
"""An operand with the symbols before it, `("+", 5.0)`; its value is None where it is the result of an earlier step."""

N_NUMBERS = 12  # numbers of a question that are looked at, in order
N_TERMS = 4  # operands of one step that are looked at, in order
N_THRESHOLDS = 20
_LEAST = 2  # training problems that must show a feature

_WORD = re.compile(r"\d+(?:,\d{3})*(?!\d)(?:\.\d+)?|\.?\d+|[^\W\d_]+|[$%]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_IN_WORDS: dict[str, tuple[float, ...]] = {
    word: values
    for words, values in (
        ("one", (1.0,)),
        ("two double doubles doubled twice both couple pair", (2.0,)),
        ("three triple triples tripled thrice", (3.0,)),
        ("four quadruple quadruples quadrupled", (4.0,)),
        *((word, (float(n),)) for n, word in enumerate(("five", "six", "seven", "eight", "nine", "ten", "eleven"), 5)),
        ("twelve dozen dozens", (12.0,)),
        *(
            (f"{word}teen", (float(n),))
            for n, word in enumerate(("thir", "four", "fif", "six", "seven", "eigh", "nine"), 13)
        ),
        *(
            (f"{word}ty", (10.0 * n,))
            for n, word in enumerate(("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"), 2)
        ),
        ("hundred", (100.0,)),
        ("thousand", (1000.0,)),
        ("half halves halved", (0.5, 2.0)),
        ("third thirds", (1 / 3, 3.0)),
        ("quarter quarters fourth fourths", (0.25, 4.0)),
        ("fifth fifths", (0.2, 5.0)),
    )
    for word in words.split()
}
"""What a word may stand for as an operand: half of something is `*.5` or `/2`."""
_KNOWN_TO_ALL = frozenset((1.0, 2.0, 7.0, 10.0, 12.0, 24.0, 30.0, 52.0, 60.0, 100.0, 365.0, 1000.0))
"""Operands that no question needs to name: days of a week, per cent, minutes of an hour."""


# ---- what a question says ----------------------------------------------------------------------------------------


def sentences_of(question: str) -> Sentences:
    """The words and numbers of a question, in lower case, sentence by sentence.

    >>> sentences_of("Ann has $1,234.50. How much is that?")
    [['ann', 'has', '$', '1,234.50'], ['how', 'much', 'is', 'that']]
    """
    sentences = [_WORD.findall(sentence.lower()) for sentence in _SENTENCE.split(question)]
    return [sentence for sentence in sentences if sentence]


def numbers_in_order(sentences: Sentences) -> list[tuple[float, str, str]]:
    """The numbers of a question in order, in digits or words, each with the word before and the word after it.

    >>> numbers_in_order([["ann", "has", "5", "pens", "and", "loses", "half"]])
    [(5.0, 'has', 'pens'), (0.5, 'loses', '')]
    """
    words = ["", *(word for sentence in sentences for word in sentence), ""]
    return [(values[0], words[i - 1], words[i + 1]) for i, word in enumerate(words) if (values := _values_of(word))]


@lru_cache(maxsize=65536)
def _values_of(word: str) -> tuple[float, ...]:
    """The numbers that a word may stand for; none for most words."""
    if word[-1:].isdecimal():
        return (float(word.replace(",", "")),)
    return _IN_WORDS.get(word, ())


# ---- what its chain says, without its results --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GivenStep:
    """What a step says before anything is worked out: `54+1`, where 54 is an earlier result, is `("", None), ("+", 1)`."""

    terms: tuple[Term, ...]

    @property
    def operators(self) -> str:
        """Everything in the expression but its numbers."""
        return "".join(before for before, _ in self.terms)


def given_steps(problem: Problem) -> tuple[GivenStep, ...]:
    """The steps of a problem's chain without anything that was worked out: neither results nor operands that are results.

    An operand is given if the question names it, in digits or words, or if everybody knows it (60 minutes), and it is not taken up
    from an earlier step. Where a number of the question is an earlier result too, its first use is the result's. Earlier results
    are worked out from their expressions, so the results as written decide nothing.

    >>> from workings.arithmetic.chain import read_chain
    >>> chain = read_chain("<<6*9=54>><<54+1=55>>")
    >>> [step.terms for step in given_steps(Problem("Six boxes of 9, and one. How many?", chain, "55"))]
    [(('', 6.0), ('*', 9.0)), (('', None), ('+', 1.0))]
    """
    named = {value for words in sentences_of(problem.question) for word in words for value in _values_of(word)}
    named |= {value / 100 for value in named}  # 25 % is written as .25 too
    earlier: list[Fraction] = []
    not_taken_up: list[float] = []
    steps = []
    for step in problem.steps:
        terms: list[Term] = []
        before = ""
        for piece in _pieces(step.expression):
            if not piece[-1].isdecimal():
                before += piece
                continue
            value = _values_of(piece)[0]
            if value in not_taken_up:
                not_taken_up.remove(value)
                given = False
            else:
                given = value in named or (value in _KNOWN_TO_ALL and not any(_is_near(value, r) for r in earlier))
            terms.append((before, value if given else None))
            before = ""
        steps.append(GivenStep((*terms, (before, None)) if before else tuple(terms)))
        if (result := _worked_out(step.expression)) is not None:
            earlier.append(result)
            not_taken_up.append(float(result))
    return tuple(steps)


@lru_cache(maxsize=65536)
def _pieces(expression: str) -> tuple[str, ...]:
    try:
        return tuple(piece.rstrip(".") for piece in pieces_of(expression))
    except Unreadable:
        return ()


@lru_cache(maxsize=65536)
def _worked_out(expression: str) -> Fraction | None:
    try:
        return evaluate(expression)
    except (Unreadable, ZeroDivisionError):
        return None


def _is_near(value: float, result: Fraction) -> bool:
    """True if a result may have been written as this value: rounded to it, up, down or to the nearest."""
    return value == result or (result.denominator > 1 and abs(value - result) < 1)


# ---- features ----------------------------------------------------------------------------------------------------


def bag_of_words(sentences: Sentences) -> Features:
    """The words of a question, wherever they stand."""
    return {("word", word): 1.0 for sentence in sentences for word in sentence}


def word_pairs(sentences: Sentences) -> Features:
    """The words of a question, and its pairs of neighbours within a sentence."""
    return bag_of_words(sentences) | {pair: 1.0 for sentence in sentences for pair in pairwise(sentence)}


def words_by_sentence(sentences: Sentences) -> Features:
    """The words of a question, each with the number of its sentence."""
    return {(i, word): 1.0 for i, sentence in enumerate(sentences) for word in sentence}


def numbers_by_place(numbers: Sequence[tuple[float, str, str]], magnitudes: Magnitudes) -> Features:
    """The first numbers of a question by place, as they are, as magnitudes, and with the words around them."""
    found: Features = {("numbers", len(numbers)): 1.0}
    for i, (value, before, after) in enumerate(numbers[:N_NUMBERS]):
        found |= {("number", i, value): 1.0, ("before", i, before): 1.0, ("after", i, after): 1.0}
        found |= magnitudes.features(("number", i), value)
    return found


def terms_of(steps: Sequence[GivenStep], magnitudes: Magnitudes, n_steps: int) -> Features:
    """The operators and given operands of a chain's first steps by place, as they are and as magnitudes, and how many steps it has.

    An operator and its operand are one feature as well: no number meets another.
    """
    found: Features = {("steps", len(steps)): 1.0}
    for i, step in enumerate(steps[:n_steps]):
        found[("operators", i, step.operators)] = 1.0
        for j, (before, value) in enumerate(step.terms[:N_TERMS]):
            found[("term", i, j, before, value)] = 1.0
            if value is not None:
                found[("operand", i, j, value)] = 1.0
                found |= magnitudes.features(("term", i, j, before), value)
    return found


@dataclass(frozen=True)
class Magnitudes:
    """What makes a number small or large: thresholds at the quantiles of the training problems' numbers, and a unit.

    Attributes:
        thresholds: Increasing; a number reaches those that are not above it.
        unit: The number that counts as one.
    """

    thresholds: tuple[float, ...]
    unit: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Magnitudes:
        found = np.array([*values] or [1.0])
        thresholds = np.unique(np.quantile(found, np.linspace(0, 1, N_THRESHOLDS + 1)[1:], method="nearest"))
        return cls(tuple(thresholds.tolist()), float(np.quantile(found, 0.9, method="nearest")) or 1.0)

    def features(self, place: Feature, value: float) -> Features:
        """The number at a place: the thresholds that it reaches, itself, and its logarithm."""
        reached: Features = {(place, threshold): 1.0 for threshold in self.thresholds if value >= threshold}
        reached[place, "value"] = min(value / self.unit, 3.0)
        reached[place, "log"] = log1p(value) / log1p(self.unit)
        return reached


def columns(features: Sequence[Features], train: Ints, most: int = 4096) -> sparse.csr_array:
    """Features by name → a matrix [n, f], of those that at least two training problems show, the `most` commonest of them.

    >>> columns([{"a": 1.0}, {"a": 1.0, "b": 2.0}, {"b": 3.0}], np.array([0, 1])).toarray()
    array([[1.],
           [1.],
           [0.]], dtype=float32)
    """
    shown = Counter(name for i in train for name in features[i])
    place = {name: at for at, (name, n) in enumerate(shown.most_common(most)) if n >= _LEAST}
    rows = [{at: weight for name, weight in of.items() if (at := place.get(name)) is not None} for of in features]
    ends = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter(chain.from_iterable(rows), np.int32, ends[-1])
    weights = np.fromiter(chain.from_iterable(row.values() for row in rows), np.float32, ends[-1])
    return sparse.csr_array((weights, indices, ends), shape=(len(features), len(place)))
