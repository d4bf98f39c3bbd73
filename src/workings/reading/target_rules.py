"""Names → the two rules behind probe targets: which tokens of a solution belong to a position, and which of those are asked.

A name is MEMBERSHIP, MEMBERSHIP@FORM, or either with :SELECTION.

    uniform                          equal slices of the written chain
    weighted(0.5,1,2,2,1,0.5)        slices in these proportions: the cumulative floor, in exact arithmetic
    weighted-remainder(…)            the same, by largest remainder
    weighted-min1(…)                 the same, every position at least one token
    step2, step2.operator,           the result of step 2, its first operator, its operands, the whole step as it is written;
    step2.operands, step2.whole      at every position
    answer                           the final answer, at every position
    response                         what the model itself says after the closing token, at every position

Forms of the chain: `seen` (the default: what the teacher saw), `stripped` (6*9=54) and `marked` (<<6*9=54>>), each with all steps;
`words`, the sentences of a chain in words; and `own`, what the model writes as a chain itself. Selections: `first` (the default),
`middle` (of two the first), `last`, `tfidf` (the token whose frequency here stands out most from its frequency in the chains of
training), `every`.
Shapes: P positions, N tokens of a chain.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, cached_property
from itertools import accumulate, pairwise
from math import floor, log
from typing import NamedTuple

from workings.arithmetic.chain import LONGEST_NUMBER, Step, Unreadable, evaluate, pieces_of, write_chain
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, suggestion
from workings.models.anatomy import is_thought

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(_DIGITS)
_WRITTEN = re.compile(rf"-?\$?{_DIGITS}%?")
_RULE = re.compile(
    r"(?P<membership>[a-z][\w.-]*)(?:\((?P<weights>[^)]*)\))?(?:@(?P<form>\w+))?(?::(?P<selection>\w+))?"
)
_STEP = re.compile(r"step([0-9]{1,4})(?:\.(\w+))?")
OPERATORS = ("+", "-", "*", "/", "//")


class Token(NamedTuple):
    """A token of a written solution, and the number that it says, or begins to say, if any."""

    id: int
    value: Fraction | None


Ids = Callable[[Problem], Sequence[int]]


@dataclass(frozen=True)
class Spelling:
    """How a model writes, which is all that a rule needs of it.

    Attributes:
        encode, decode: Text → token ids, and back.
        chain_ids: A problem → the ids of its chain as the teacher saw it.
        own_chain: A problem → the ids of the chain that the model writes itself; None where nobody asked it.
        response: A problem → the ids that the model says after the closing token; None where nobody asked it.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    chain_ids: Ids
    own_chain: Ids | None = None
    response: Ids | None = None

    @cached_property
    def value_of(self) -> Callable[[int], Fraction | None]:
        """The number that a token is by itself, or None."""
        return cache(lambda i: value_in(self.decode([i])))

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a number written out; each has the value of the whole."""
        return [Token(i, value_in(text)) for i in self.encode(text)] if text else []

    def each(self, ids: Iterable[int]) -> list[Token]:
        """Tokens, each with the number that it is by itself."""
        return [Token(i, self.value_of(i)) for i in ids]

    def chain(self, problem: Problem, form: str) -> list[Token]:
        """The tokens of a problem's chain in one of `FORMS`."""
        return self.each(FORMS[form](self, problem))


def _own(spelling: Spelling, problem: Problem) -> Sequence[int]:
    if spelling.own_chain is None:
        raise BadInput("what the model writes as a chain is not known here; use another form than '@own'")
    return spelling.own_chain(problem)


FORMS: dict[str, Callable[[Spelling, Problem], Sequence[int]]] = {
    "seen": lambda spelling, problem: spelling.chain_ids(problem),
    "stripped": lambda spelling, problem: spelling.encode(write_chain(problem.steps, "stripped")),
    "marked": lambda spelling, problem: spelling.encode(write_chain(problem.steps, "marked")),
    "words": lambda spelling, problem: spelling.encode("\n".join(problem.words)),
    "own": _own,
}

# ---- which tokens belong to a position -----------------------------------------------------------------------------

# The tokens of each position; [] where there are none. The names of the positions are those at which something is asked.
Membership = Callable[[Problem, Spelling, Sequence[str]], Sequence[Sequence[Token]]]
Divide = Callable[[int, Sequence[str]], Sequence[tuple[int, int]]]


def slices(n_tokens: int, n_positions: int) -> list[tuple[int, int]]:
    """(start, end) of each position's slice: all tokens, in order; sizes differ by at most one, larger ones late."""
    return weighted_slices(n_tokens, [Fraction(1)] * n_positions)


def weighted_slices(n_tokens: int, weights: Sequence[Fraction], rounding: str = "floor") -> list[tuple[int, int]]:
    """(start, end) of each position's slice of N tokens: all tokens, in order, in the proportions of the weights.

    Args:
        n_tokens: N.
        weights: One for each position, none negative, not all zero.
        rounding: `floor`: a slice ends at ⌊N · the weights so far / all weights⌋, which for equal weights is the uniform split.
            `remainder`: the largest remainders are rounded up, of equal ones the later. `min1`: one token for each position, and
            the rest by `floor`; with fewer tokens than positions, `floor`.

    >>> [end - start for start, end in weighted_slices(14, [Fraction(w) for w in ("0.5", "1", "2", "2", "1", "0.5")])]
    [1, 2, 4, 4, 2, 1]
    """
    total = sum(weights)
    if rounding == "min1" and n_tokens >= len(weights):
        rest = weighted_slices(n_tokens - len(weights), weights)
        sizes = [1 + end - start for start, end in rest]
    elif rounding == "remainder":
        exact = [n_tokens * weight / total for weight in weights]
        sizes = [floor(share) for share in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: (exact[i] - sizes[i], i), reverse=True)
        for i in by_remainder[: n_tokens - sum(sizes)]:
            sizes[i] += 1
    else:
        ends = [0, *(floor(n_tokens * so_far / total) for so_far in accumulate(weights))]
        return list(pairwise(ends))
    return list(pairwise(accumulate(sizes, initial=0)))


def _uniform(n_tokens: int, positions: Sequence[str]) -> Sequence[tuple[int, int]]:
    return slices(n_tokens, len(positions))


def _weighted(weights: tuple[Fraction, ...], rounding: str) -> Divide:
    """Weights for all positions, or for the thoughts alone: then nothing is asked before them."""

    def divide(n_tokens: int, positions: Sequence[str]) -> Sequence[tuple[int, int]]:
        thoughts = [is_thought(position) for position in positions]
        if len(weights) == len(positions):
            return weighted_slices(n_tokens, weights, rounding)
        if len(weights) != sum(thoughts):
            raise BadInput(
                f"there are {len(weights)} weights; give one for each of {', '.join(positions)}, or for the thoughts among them"
            )
        of_thoughts = iter(weighted_slices(n_tokens, weights, rounding))
        return [next(of_thoughts) if is_one else (0, 0) for is_one in thoughts]

    return divide


def slices_of_chain(divide: Divide, form: str) -> Membership:
    """Each position's slice of the chain. A chain of fewer tokens than positions leaves slots empty."""

    def members(problem: Problem, spelling: Spelling, positions: Sequence[str]) -> list[list[Token]]:
        chain = spelling.chain(problem, form)
        return [chain[start:end] for start, end in divide(len(chain), positions)]

    return members


def part_of_step(k: int, part: str) -> Membership:
    """At every position, a part of step k (1 is the first): one of `PARTS`. None where a problem has fewer steps."""
    if k < 1:
        raise BadInput(f"there is no step {k}: the first is step 1")
    if part not in PARTS:
        raise BadInput(f"a step has no part '{part}'; there are {', '.join(PARTS)}")

    def members(problem: Problem, spelling: Spelling, positions: Sequence[str]) -> list[list[Token]]:
        tokens = PARTS[part](problem, k, spelling) if problem.n_steps >= k else []
        return [tokens] * len(positions)

    return members


def _operator(problem: Problem, k: int, spelling: Spelling) -> list[Token]:
    """The first operator that stands between two operands: a sign is none."""
    pieces = _pieces(problem.steps[k - 1])
    found = next(
        (right for left, right in pairwise(pieces) if right in OPERATORS and left not in (*OPERATORS, "(")), ""
    )
    return spelling.each(spelling.encode(found)) if found else []


def _operands(problem: Problem, k: int, spelling: Spelling) -> list[Token]:
    numbers = [piece.replace(",", "") for piece in _pieces(problem.steps[k - 1]) if piece[0] in ".0123456789"]
    return [token for number in numbers for token in spelling.tokens(number)]


def _pieces(step: Step) -> list[str]:
    """Numbers and symbols of the expression; none where it cannot be read."""
    try:
        return pieces_of(step.expression)
    except Unreadable:
        return []


PARTS: dict[str, Callable[[Problem, int, Spelling], list[Token]]] = {
    "result": lambda problem, k, spelling: spelling.tokens(problem.steps[k - 1].result),
    "operator": _operator,
    "operands": _operands,
    "whole": lambda problem, k, spelling: spelling.each(
        spelling.encode(write_chain([problem.steps[k - 1]], "stripped"))
    ),
}


def final_answer(problem: Problem, spelling: Spelling, positions: Sequence[str]) -> list[list[Token]]:
    """At every position, the final answer, written as a result is: without separators of thousands."""
    return [spelling.tokens(problem.answer.strip().replace(",", ""))] * len(positions)


def response(problem: Problem, spelling: Spelling, positions: Sequence[str]) -> list[list[Token]]:
    """At every position, what the model says after the closing token."""
    if spelling.response is None:
        raise BadInput(
            "the model's own answers are not known here; collect thoughts with answers, or use another target"
        )
    return [spelling.each(spelling.response(problem))] * len(positions)


# ---- which of them are asked ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Documents:
    """In how many of n solutions a token stands: of training problems alone, so that no test problem decides what is asked."""

    n: int
    counts: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, solutions: Iterable[Sequence[Sequence[Token]]]) -> Documents:
        """Count the solutions, each given as the members of its positions."""
        every_one = [{token.id for slot in slots for token in slot} for slots in solutions]
        return cls(len(every_one), Counter(i for found in every_one for i in found))

    def idf(self, token: int) -> float:
        """Smoothed inverse document frequency, ln((1 + n) / (1 + df)) + 1."""
        return log((1 + self.n) / (1 + self.counts[token])) + 1


Selection = Callable[[Sequence[Token], Documents], list[Token]]


def first(members: Sequence[Token], documents: Documents) -> list[Token]:
    """The first token: what a reader that says one token can say."""
    return list(members[:1])


def middle(members: Sequence[Token], documents: Documents) -> list[Token]:
    """The middle token, of two the earlier."""
    return [members[(len(members) - 1) // 2]] if members else []


def last(members: Sequence[Token], documents: Documents) -> list[Token]:
    """The last token."""
    return list(members[-1:])


def tfidf(members: Sequence[Token], documents: Documents) -> list[Token]:
    """The token with the highest frequency in the slot times `Documents.idf`; of equal ones the first."""
    counts = Counter(token.id for token in members)
    best = max(members, key=lambda token: counts[token.id] * documents.idf(token.id), default=None)
    return [] if best is None else [best]


def every(members: Sequence[Token], documents: Documents) -> list[Token]:
    """Every token, each once however often it is written: a reader gives one score to a token."""
    return list({token.id: token for token in members}.values())


SELECTIONS: dict[str, Selection] = {each.__name__: each for each in (first, middle, last, tfidf, every)}

# ---- names ---------------------------------------------------------------------------------------------------------

_ROUNDINGS = {"weighted": "floor", "weighted-remainder": "remainder", "weighted-min1": "min1"}
_PLAIN: dict[str, tuple[str, Membership]] = {
    "answer": ("final answer", final_answer),
    "response": ("own response", response),
}
NAMES = ("uniform", *_ROUNDINGS, *_PLAIN, "step1, step2, …")


@dataclass(frozen=True)
class TargetRule:
    """The two rules of a name, and what they are called in words.

    Attributes:
        in_words: What is asked, for tables and reports.
        members: Which tokens belong to each position.
        select: Which of them are asked.
        form: The form of the chain that is divided; "" where none is.
    """

    in_words: str
    members: Membership
    select: Selection
    form: str = ""

    @classmethod
    def of(cls, name: str) -> TargetRule:
        """The rule of a name. BadInput says what is wrong with another.

        >>> TargetRule.of("weighted(0.5,1,2,2,1,0.5)@marked:every").in_words
        'weighted split (0.5, 1, 2, 2, 1, 0.5) of the chain (marked), every token'
        """
        found = _RULE.fullmatch(name.replace(" ", ""))
        if not found:
            raise BadInput(f"'{name}' names no target: give MEMBERSHIP@FORM:SELECTION, such as step2 or uniform:last")
        membership, weights, form, selection = found.group("membership", "weights", "form", "selection")
        if form is not None and form not in FORMS:
            raise BadInput(f"no form of the chain '{form}'; there are {', '.join(FORMS)}")
        if (selection or "first") not in SELECTIONS:
            raise BadInput(f"no selection rule '{selection}'; there are {', '.join(SELECTIONS)}")
        in_words, members, divides = _membership(membership, weights, form or "seen")
        if form is not None and not divides:
            raise BadInput(f"the target '{membership}' is no part of a chain, so it has no form '@{form}'")
        if selection not in (None, "first"):
            in_words = f"{in_words}, {selection} token"
        return cls(in_words, members, SELECTIONS[selection or "first"], (form or "seen") if divides else "")


def _membership(name: str, weights: str | None, form: str) -> tuple[str, Membership, bool]:
    """(in words, the rule, whether it divides a chain)."""
    of_form = "" if form == "seen" else f" of the chain ({form})"
    if (weights is None) == (name in _ROUNDINGS):
        example = "'weighted(1,2,2,1)'"
        raise BadInput(f"the target '{name}' takes {'no ' * (weights is not None)}weights, as in {example}")
    if weights is not None:
        given = _read_weights(weights)
        shown = ", ".join(f"{float(weight):g}" for weight in given)
        in_words = f"{name.replace('-', ' split by ') if '-' in name else 'weighted split'} ({shown}){of_form}"
        return in_words, slices_of_chain(_weighted(given, _ROUNDINGS[name]), form), True
    if name == "uniform":
        return f"uniform split{of_form}", slices_of_chain(_uniform, form), True
    if step := _STEP.fullmatch(name):
        k, part = int(step[1]), step[2] or "result"
        return f"{'whole' if part == 'whole' else part} of step {k}", part_of_step(k, part), False
    if name not in _PLAIN:
        hint = suggestion(name, ["uniform", *_ROUNDINGS, *_PLAIN]) or f"; there are {', '.join(NAMES)}"
        raise BadInput(f"no target rule '{name}'{hint}")
    return *_PLAIN[name], False


def _read_weights(text: str) -> tuple[Fraction, ...]:
    try:
        weights = tuple(Fraction(weight) for weight in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"weights are numbers divided by commas, such as 0.5,1,2; not '{text}'") from None
    if min(weights) < 0 or not any(weights):
        raise BadInput(f"weights may not be negative, nor all zero: '{text}'")
    return weights


# ---- numbers in texts ----------------------------------------------------------------------------------------------


def numbers_in(text: str) -> set[Fraction]:
    """Every number written in digits in a text; `1,234` is one number, a sign is not part of it."""
    written = (number.replace(",", "") for number in _NUMBER.findall(text))
    return {Fraction(number) for number in written if len(number) <= LONGEST_NUMBER}


def value_in(text: str) -> Fraction | None:
    """The number that a text is, or None: `" 54"` and `"-1,234.5"` are one, `"="` and `"5 pens"` are not."""
    try:
        return evaluate(text) if _WRITTEN.fullmatch(text.strip()) else None
    except ValueError:
        return None
