"""The kinds of facts there are, as data: how each is worked out, listed, written, asked for and recognised.

A new kind (formulas, code, another language's way of writing) is one more Family in FAMILIES; nothing else knows their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Bare = Literal["free", "cued", "never"]
Operands = tuple[int, ...]

EQUALS = ("=", "equals", "is equal to")


@dataclass(frozen=True)
class Form:
    """One way of writing an operation: `before` a `between` b `after`, where spaces may stand around the numbers.

    `between` and `after` are regular expressions without groups (for one operand, only `after`); `before` is literal.
    `bare`: whether weak rewriting may take it without a stated result. "cued": only where the words before it ask for a
    calculation (`6 x 9` after "What is" is a product, before "lumber" it is a size).
    """

    between: str = ""
    after: str = ""
    before: str = ""
    bare: Bare = "free"


@dataclass(frozen=True)
class Family:
    """A kind of fact.

    `compute(*operands)` is the exact result, None where there is none (1/0, 7/2) or where it is not a whole number ≥ 0.
    `table(low, high)` lists the canonical operands of a range in the order of their ids.
    `equation` is what a token expands to, with {0}, {1} and {result}; it must itself be one of `forms`.
    `questions` are templates for drills: {0}, {1}. `equals` are the words between an expression and its result, literal.
    """

    name: str
    compute: Callable[..., int | None]
    table: Callable[[int, int], Iterator[Operands]]
    forms: tuple[Form, ...]
    equation: str
    questions: tuple[str, ...]
    arity: int = 2
    commutative: bool = False
    equals: tuple[str, ...] = EQUALS

    def canonical(self, operands: Operands) -> Operands:
        """The operands in the one order in which a token names them."""
        return tuple(sorted(operands)) if self.commutative else operands


def _pairs(low: int, high: int) -> Iterator[Operands]:
    return ((a, b) for a in range(low, high + 1) for b in range(a, high + 1))


def _undone_sums(low: int, high: int) -> Iterator[Operands]:
    return ((b + c, b) for b in range(low, high + 1) for c in range(low, high + 1))


def _undone_products(low: int, high: int) -> Iterator[Operands]:
    return ((b * c, b) for b in range(max(low, 1), high + 1) for c in range(low, high + 1))


def _each(low: int, high: int) -> Iterator[Operands]:
    return ((a,) for a in range(low, high + 1))


def _product(a: int, b: int) -> int:
    return a * b


def _sum(a: int, b: int) -> int:
    return a + b


def _difference(a: int, b: int) -> int | None:
    return a - b if a >= b else None


def _quotient(a: int, b: int) -> int | None:
    return a // b if b and a % b == 0 else None


def _square(a: int) -> int:
    return a * a


MUL = Family(
    "MUL",
    _product,
    _pairs,
    (
        Form(r"[*×∗]|\\(?:times|cdot)(?![A-Za-z])", bare="free"),
        # `·` is also a decimal point, `x` a size or an unknown, "times" a count of occasions.
        Form(r"[xX·⋅]|times\b|multiplied by\b", bare="cued"),
    ),
    "{0}*{1}={result}",
    ("What is {0} times {1}?", "What is {0}*{1}?", "Calculate {0} × {1}."),
    commutative=True,
)
ADD = Family(
    "ADD",
    _sum,
    _pairs,
    (Form(r"\+", bare="free"), Form(r"plus\b", bare="cued")),
    "{0}+{1}={result}",
    ("What is {0} plus {1}?", "What is {0}+{1}?", "Calculate {0} + {1}."),
    commutative=True,
)
SUB = Family(
    "SUB",
    _difference,
    _undone_sums,
    # A bare `9-5` is a range, a score or a date.
    (Form(r"[-−–]", bare="never"), Form(r"minus\b", bare="cued")),
    "{0}-{1}={result}",
    ("What is {0} minus {1}?", "What is {0}-{1}?", "Calculate {0} - {1}."),
)
DIV = Family(
    "DIV",
    _quotient,
    _undone_products,
    # A bare `6/3` is a fraction or a date.
    (Form(r"/", bare="never"), Form(r"÷|\\div(?![A-Za-z])", bare="free"), Form(r"divided by\b", bare="cued")),
    "{0}/{1}={result}",
    ("What is {0} divided by {1}?", "What is {0}/{1}?", "Calculate {0} ÷ {1}."),
)
SQUARE = Family(
    "SQUARE",
    _square,
    _each,
    # A bare `6²` may carry a footnote.
    (
        Form(after=r"\^2|\^\{2\}|\*\*2", bare="free"),
        Form(after="²", bare="never"),
        Form(after=r"squared\b", bare="cued"),
    ),
    "{0}^2={result}",
    ("What is {0} squared?", "What is {0}^2?", "Calculate the square of {0}."),
    arity=1,
)

FAMILIES: dict[str, Family] = {family.name: family for family in (MUL, ADD, SUB, DIV, SQUARE)}
