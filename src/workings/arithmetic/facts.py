"""Facts such as 6 × 9 = 54 as values, the families they come from, and the ordered vocabulary that gives them token ids.

A `Family` is data: how its facts are computed, listed, written, asked for and recognised in text. A new kind of fact (formulas,
another language's way of writing) is one more Family in FAMILIES; no other module knows a family by name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from workings.errors import BadInput

# ── families ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Bare = Literal["free", "cued", "never"]
Operands = tuple[int, ...]

EQUALS = ("=", "equals", "is equal to")


@dataclass(frozen=True)
class Form:
    """One way of writing an operation: `before` a `between` b `after`, with optional spaces around the numbers.

    Args:
        between: Regular expression without groups, between two operands.
        after: Regular expression without groups, after the last operand; the only one for a single operand.
        before: Literal text before the first operand, such as "gcd(".
        bare: Whether weak rewriting may take the form without a stated result. "cued": only where the words before it
            ask for a calculation (`6 x 9` is a product after "What is" and a size before "lumber").
    """

    between: str = ""
    after: str = ""
    before: str = ""
    bare: Bare = "free"


@dataclass(frozen=True)
class Family:
    """A kind of fact.

    Args:
        name: As it stands in a token: "MUL".
        compute: Operands → the exact result; None where there is none (1/0, 7/2) or it is not a whole number ≥ 0.
        table: (low, high) → the canonical operands of that range, in the order of their ids.
        forms: The ways of writing it that rewriting recognises.
        equation: What a token expands to, with {0}, {1} and {result}; must itself be one of `forms`.
        questions: Templates for drills, with {0} and {1}.
        arity: Number of operands.
        commutative: Whether operands may be swapped; their canonical order is then ascending.
        equals: Literal words that may stand between an expression and its result.
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
        """The operands in the order in which a token names them."""
        return tuple(sorted(operands)) if self.commutative else operands


def _pairs(low: int, high: int) -> Iterator[Operands]:
    """Each unordered pair of a range once, the smaller operand first."""
    return ((a, b) for a in range(low, high + 1) for b in range(a, high + 1))


MUL = Family(
    "MUL",
    operator.mul,
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
    operator.add,
    _pairs,
    (Form(r"\+", bare="free"), Form(r"plus\b", bare="cued")),
    "{0}+{1}={result}",
    ("What is {0} plus {1}?", "What is {0}+{1}?", "Calculate {0} + {1}."),
    commutative=True,
)
SUB = Family(
    "SUB",
    lambda a, b: a - b if a >= b else None,
    lambda low, high: ((b + c, b) for b in range(low, high + 1) for c in range(low, high + 1)),
    # A bare `9-5` is a range, a score or a date.
    (Form(r"[-−–]", bare="never"), Form(r"minus\b", bare="cued")),
    "{0}-{1}={result}",
    ("What is {0} minus {1}?", "What is {0}-{1}?", "Calculate {0} - {1}."),
)
DIV = Family(
    "DIV",
    lambda a, b: a // b if b and a % b == 0 else None,
    lambda low, high: ((b * c, b) for b in range(max(low, 1), high + 1) for c in range(low, high + 1)),
    # A bare `6/3` is a fraction or a date.
    (Form(r"/", bare="never"), Form(r"÷|\\div(?![A-Za-z])", bare="free"), Form(r"divided by\b", bare="cued")),
    "{0}/{1}={result}",
    ("What is {0} divided by {1}?", "What is {0}/{1}?", "Calculate {0} ÷ {1}."),
)
SQUARE = Family(
    "SQUARE",
    lambda a: a * a,
    lambda low, high: ((a,) for a in range(low, high + 1)),
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


# ── facts and their vocabulary ──────────────────────────────────────────────────────────────────────────────────────────

GPT2_SIZE = 50257
MATRIX_MULTIPLE = 128
"""Tensor cores work in multiples of so many rows: facts begin at such a multiple, and embeddings end at one."""

MOST_FACTS = 100_000

TOKEN = re.compile(r"<([A-Z][A-Z_]*)_([0-9]{1,9}(?:_[0-9]{1,9})*)>")
"""The spelling of a fact's token. `Fact.parse` decides whether a match is the token of a true fact."""

_RANGE = re.compile(r"\s*([A-Z][A-Z_]*)\s*:\s*([0-9]{1,9})\s*-\s*([0-9]{1,9})\s*")


@dataclass(frozen=True, order=True)
class Fact:
    """One true equation of whole numbers, with its operands in canonical order.

    Example:
        >>> fact = Fact.of(9, 6)
        >>> fact == Fact.of(6, 9), fact.token, fact.equation
        (True, '<MUL_6_9_54>', '6*9=54')
    """

    family: str
    operands: tuple[int, ...]
    result: int

    def __post_init__(self) -> None:
        if _result(family_called(self.family), self.operands) != self.result:
            raise BadInput(f"{self.token} is not a fact: the result is wrong, or the operands are not in order")

    @classmethod
    def of(cls, *operands: int, family: str = "MUL") -> Fact:
        """The fact about these operands; for a commutative family, in any order.

        Raises:
            BadInput: The family does not exist, or the operands have no result that is a whole number from 0.
        """
        kind = family_called(family)
        canonical = kind.canonical(operands)
        result = _result(kind, canonical)
        if result is None:
            raise BadInput(f"{family} of {', '.join(map(str, operands))} has no result that is a whole number from 0")
        return cls(family, canonical, result)

    @classmethod
    def parse(cls, token: str) -> Fact | None:
        """The fact that a token names; None for a wrong result, operands out of order, or any other text."""
        found = TOKEN.fullmatch(token)
        if found is None or found[1] not in FAMILIES:
            return None
        *operands, result = map(int, found[2].split("_"))
        if _result(FAMILIES[found[1]], tuple(operands)) != result:
            return None
        fact = cls(found[1], tuple(operands), result)
        return fact if fact.token == token else None  # <MUL_06_9_54> reads the same and is not the token

    @property
    def token(self) -> str:
        """Its token: `<MUL_6_9_54>`."""
        return f"<{self.family}_{'_'.join(map(str, self.operands))}_{self.result}>"

    @property
    def equation(self) -> str:
        """The equation in plain digits: `6*9=54`."""
        return FAMILIES[self.family].equation.format(*self.operands, result=self.result)


def family_called(name: str) -> Family:
    """The family of that name; BadInput, listing the families there are, for an unknown one."""
    if name not in FAMILIES:
        raise BadInput(f"there is no family of facts '{name}'; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _result(family: Family, operands: tuple[int, ...]) -> int | None:
    """The family's result; None for operands that are not canonical, are too many or too few, or have no result."""
    if len(operands) != family.arity or min(operands) < 0 or family.canonical(operands) != operands:
        return None
    return family.compute(*operands)


def embedding_width(width: int) -> int:
    """Rows of an embedding for `width` ids: the next multiple of 128. The extra rows are never generated."""
    return -(-width // MATRIX_MULTIPLE) * MATRIX_MULTIPLE


@dataclass(frozen=True, eq=False)
class FactVocabulary:
    """Facts in the order of their token ids, the first of which is `first_id`. Hashable, and cheap to send to other processes.

    Example:
        >>> vocabulary = FactVocabulary.build("MUL:1-9", base_size=50257)
        >>> len(vocabulary), vocabulary.first_id, vocabulary.id_of(Fact.of(6, 9)), vocabulary.width
        (45, 50304, 50342, 50349)
    """

    facts: tuple[Fact, ...]
    first_id: int

    def __post_init__(self) -> None:
        if len(set(self.facts)) != len(self.facts):
            raise BadInput("a vocabulary cannot hold the same fact twice")

    @classmethod
    def build(cls, ranges: str = "MUL:1-9", base_size: int = GPT2_SIZE) -> FactVocabulary:
        """The facts of some ranges, family by family, behind a base vocabulary.

        Args:
            ranges: Families with the range of their operands: "MUL:1-9,ADD:0-9". For SUB and DIV the range is that of the
                second operand and of the result, so that `SUB:0-9` undoes `ADD:0-9`.
            base_size: Ids of the base vocabulary. Facts begin at the next multiple of 128 (50257 → 50304).

        Raises:
            BadInput: `ranges` is not such a list, or holds too many facts.
        """
        facts: list[Fact] = []
        for part in ranges.split(","):
            found = _RANGE.fullmatch(part)
            if found is None:
                raise BadInput(f"'{part}' is not a range of facts; write MUL:1-9, or several with commas between")
            family, low, high = family_called(found[1]), int(found[2]), int(found[3])
            if low > high or high - low > MOST_FACTS:
                raise BadInput(f"'{part}': the range must go upwards, and not over more than {MOST_FACTS:,} numbers")
            operands = list(islice(family.table(low, high), MOST_FACTS + 1))
            if len(operands) > MOST_FACTS:
                raise BadInput(f"'{part}' holds more than {MOST_FACTS:,} facts, too many for one vocabulary")
            facts += [Fact.of(*some, family=family.name) for some in operands]
        return cls(tuple(facts), embedding_width(base_size))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {fact.token: self.first_id + place for place, fact in enumerate(self.facts)}

    @cached_property
    def _name(self) -> str:
        """The whole vocabulary in one string: the cache of grammars compares it once a document."""
        return f"{self.first_id} {' '.join(self._ids)}"

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, FactVocabulary) and self._name == other._name)

    def __hash__(self) -> int:
        return hash(self._name)

    def __reduce__(self) -> tuple[Any, ...]:
        return FactVocabulary, (self.facts, self.first_id)

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    def __contains__(self, fact: object) -> bool:
        return isinstance(fact, Fact | str) and self.id_of(fact) is not None

    @property
    def width(self) -> int:
        """The number of ids up to and including the last fact, the same in every arm: 50349."""
        return self.first_id + len(self)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Names of the families, in the order in which their facts come."""
        return tuple(dict.fromkeys(fact.family for fact in self.facts))

    def id_of(self, fact: Fact | str) -> int | None:
        """The id of a fact, or of a token as written; None for one that is not in the vocabulary."""
        return self._ids.get(fact.token if isinstance(fact, Fact) else fact)

    def fact_at(self, id: int) -> Fact | None:
        """The fact of a token id; None for the id of no fact."""
        place = id - self.first_id
        return self.facts[place] if 0 <= place < len(self) else None

    def fact_called(self, token: str) -> Fact | None:
        """The fact of a token as written; None for one that is not in the vocabulary."""
        return self.facts[self._ids[token] - self.first_id] if token in self._ids else None

    def of_ids(self, ids: Iterable[int]) -> list[Fact]:
        """The facts among these ids, in their order."""
        return [fact for fact in map(self.fact_at, ids) if fact is not None]

    def with_first_id(self, first_id: int) -> FactVocabulary:
        """The same facts, with ids from `first_id` on."""
        return FactVocabulary(self.facts, first_id)

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON, which `from_dict` reads."""
        return {"first_id": self.first_id, "facts": [fact.token for fact in self.facts]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FactVocabulary:
        """The vocabulary that `to_dict` wrote; BadInput for a token that names no fact."""
        facts = []
        for token in fields["facts"]:
            fact = Fact.parse(token)
            if fact is None:
                raise BadInput(f"{token!r} is not the token of a fact")
            facts.append(fact)
        return cls(tuple(facts), int(fields["first_id"]))


GPT2_MUL = FactVocabulary.build("MUL:1-9")
"""The 45 products of the times tables behind GPT-2's BPE: ids 50304 to 50348."""
