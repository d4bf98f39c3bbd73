"""Exercises in arithmetic: how a question is worded, how an equation is written and laid out, how a result is worked out.

Questions are keyed by fact family and are plain digits. The first wording of each list is the one that probes use; it is never
held out of training. `12*7` is worked out as 10*7=70, 2*7=14, 70+14=84. A deep chain goes down to the times tables: for 43*7 it
has 4*7=28, 28*10=280 where a shallow one has 40*7=280.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from workings.arithmetic.facts import FAMILIES, Fact

# ── wordings ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FAMILY_OF = {"*": "MUL", "+": "ADD", "-": "SUB", "/": "DIV", "^": "SQUARE"}
"""Operator → the name of its fact family."""

_MORE: dict[str, tuple[str, ...]] = {
    "MUL": (
        "What is {0} × {1}?",
        "Multiply {0} by {1}.",
        "What is the product of {0} and {1}?",
        "How much is {0} times {1}?",
        "Work out {0} multiplied by {1}.",
        "Find the product of {0} and {1}.",
        "Which number is {0} times {1}?",
    ),
    "ADD": (
        "Add {0} and {1}.",
        "What is the sum of {0} and {1}?",
        "How much is {0} plus {1}?",
        "What do {0} and {1} make together?",
        "Find the sum of {0} and {1}.",
    ),
    "SUB": (
        "Subtract {1} from {0}.",
        "What is the difference between {0} and {1}?",
        "How much is {0} minus {1}?",
        "Take {1} away from {0}. What is left?",
        "How much more is {0} than {1}?",
    ),
    "DIV": ("Divide {0} by {1}.", "How often does {1} go into {0}?", "How much is {0} divided by {1}?"),
    "SQUARE": ("What is the square of {0}?", "Square the number {0}."),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    name: (*family.questions, *_MORE.get(name, ())) for name, family in FAMILIES.items()
}
"""Fact family → wordings of a question about it, with {0} and {1} for the operands."""

EquationStyle = dict[str, str]
"""Operator → %-template for left operand, right operand and result. Only spellings that rewriting recognises as an equation."""

STYLES: tuple[EquationStyle, ...] = (
    {"*": "%d*%d=%d", "+": "%d+%d=%d", "-": "%d-%d=%d", "/": "%d/%d=%d", "^": "%d^%d=%d"},
    {"*": "%d * %d = %d", "+": "%d + %d = %d", "-": "%d - %d = %d", "/": "%d / %d = %d", "^": "%d^%d = %d"},
    {"*": "%d×%d=%d", "+": "%d+%d=%d", "-": "%d-%d=%d", "/": "%d÷%d=%d", "^": "%d^%d=%d"},
    {"*": "%d × %d = %d", "+": "%d + %d = %d", "-": "%d - %d = %d", "/": "%d ÷ %d = %d", "^": "%d^%d = %d"},
    {
        "*": "%d times %d equals %d",
        "+": "%d plus %d equals %d",
        "-": "%d minus %d equals %d",
        "/": "%d divided by %d equals %d",
        "^": "%d^%d equals %d",
    },
)


@dataclass(frozen=True)
class PageLayout:
    """A page template with {question}, {chain} and {answer}; `between` separates the equations of the chain."""

    page: str
    between: str = ", "

    @property
    def shows_work(self) -> bool:
        """True if the chain is on the page."""
        return "{chain}" in self.page

    def written(self, question: str, chain: str, answer: int) -> str:
        """The text of one problem."""
        return self.page.format(question=question, chain=chain, answer=answer)


LAYOUTS = (
    PageLayout("{question}\n{chain}\n#### {answer}", "\n"),
    PageLayout("Question: {question}\nAnswer: {chain}. The answer is {answer}."),
    PageLayout("Q: {question}\nA: {chain}\n#### {answer}"),
    PageLayout("{question} {chain}. The answer is {answer}."),
    PageLayout("{question} The answer is {answer}."),  # the one without its work; an assistant always shows it
    PageLayout("User: {question}\nAssistant: {chain}. The answer is {answer}."),
)

RECITALS = ("Some products:", "Times tables:", "Products to know by heart:", "Multiplication practice.")
"""Headings for a list of products."""


# ── worked steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

Equation = tuple[int, str, int, int]
"""Left operand, operator, right operand, result."""
TABLE: dict[tuple[int, int], Fact] = {(a, b): Fact.of(a, b) for a, b in product(range(1, 10), repeat=2)}
"""Two digits, in either order → their fact of the times tables."""


def canonical(operator: str, a: int, b: int) -> tuple[str, int, int]:
    """A key that is equal for `6*9` and `9*6`, and for `6+9` and `9+6`."""
    return (operator, b, a) if operator in "+*" and a > b else (operator, a, b)


def rests_on(steps: Iterable[Equation]) -> set[Fact]:
    """The single-digit products that some steps rest on: whoever has read 60*9=540 has seen 6*9.

    A division rests on the product that it undoes.
    """
    needed: set[Fact] = set()
    for a, operator, b, result in steps:
        if operator in "*/^":
            left, right = (a, b) if operator == "*" else (b, result) if operator == "/" else (a, a)
            needed |= {TABLE[both] for both in product(_digits(left), _digits(right))}
    return needed


def stated(steps: Iterable[Equation]) -> tuple[Fact, ...]:
    """The facts of the times tables that the steps write out, repetitions included."""
    return tuple(TABLE[a, b] for a, operator, b, _ in steps if operator == "*" and (a, b) in TABLE)


def multiplied(a: int, b: int, deep: bool = False) -> list[Equation]:
    """Steps of a product of one- or two-digit numbers, neither 0, tens first; `deep` goes down to the times tables."""
    if a < 10 and b < 10:
        return [(a, "*", b, a * b)]
    if not deep:
        split_b = len(_places(b)) > 1
        factors = [(a, part) for part in _places(b)] if split_b else [(part, b) for part in _places(a)]
        parts = [(left, "*", right, left * right) for left, right in factors]
        return [*parts, *summed([result for *_, result in parts])]
    steps: list[Equation] = []
    partial = []
    for left, right in product(_places(a), _places(b)):
        # Each is a digit times a power of ten: the digits are multiplied, then the zeros put back.
        (digit, power), (other, other_power) = _digit_and_power(left), _digit_and_power(right)
        steps.append((digit, "*", other, digit * other))
        if power * other_power > 1:
            steps.append((digit * other, "*", power * other_power, left * right))
        partial.append(left * right)
    return [*steps, *summed(partial)]


def added(a: int, b: int, deep: bool = False) -> list[Equation]:
    """Steps of a sum of numbers of up to two digits; `deep` adds tens and ones apart."""
    if deep and min(a, b) > 10 and a % 10 and b % 10:
        tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
        parts = [(a // 10 * 10, "+", b // 10 * 10, tens), (a % 10, "+", b % 10, ones)]
        return [*parts, (tens, "+", ones, a + b)]
    return [(a, "+", b, a + b)]


def subtracted(a: int, b: int, deep: bool = False) -> list[Equation]:
    """Steps of a difference of numbers of up to two digits; `deep` takes away the tens of `b`, then its ones."""
    if deep and b > 10 and b % 10:
        between = a - b // 10 * 10
        return [(a, "-", b // 10 * 10, between), (between, "-", b % 10, a - b)]
    return [(a, "-", b, a - b)]


def summed(parts: Sequence[int]) -> list[Equation]:
    """Steps of a running sum; none for a single part."""
    steps: list[Equation] = []
    total = parts[0]
    for part in parts[1:]:
        steps.append((total, "+", part, total + part))
        total += part
    return steps


def _digit_and_power(number: int) -> tuple[int, int]:
    return (number // 10, 10) if number >= 10 else (number, 1)


def _places(number: int) -> list[int]:
    """43 → 40, 3."""
    return [part for part in (number // 10 * 10, number % 10) if part]


def _digits(number: int) -> list[int]:
    return [int(digit) for digit in str(number) if digit != "0"]


WORK: dict[str, Callable[[int, int, bool], list[Equation]]] = {
    "*": multiplied,
    "+": added,
    "-": subtracted,
    "/": lambda a, b, deep: [(a, "/", b, a // b)],
    "^": lambda a, b, deep: [(a, "^", b, a**b)],
}
"""Operator → the steps of a result; the last argument says whether to go down to single digits."""
