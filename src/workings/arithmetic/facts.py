"""6 × 9 = 54 as a value, and the ordered facts that a vocabulary knows, with their token ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workings.arithmetic.families import FAMILIES, Family
from workings.errors import BadInput

GPT2_SIZE = 50257
MATRIX_MULTIPLE = 128
"""Matrix units work in multiples of this many rows; facts begin at one, and embeddings end at one."""

MOST_FACTS = 100_000

TOKEN = re.compile(r"<([A-Z][A-Z_]*)_([0-9]{1,9}(?:_[0-9]{1,9})*)>")
"""What a fact's token looks like; whether it is one is for `Fact.parse` to say."""

_RANGE = re.compile(r"\s*([A-Z][A-Z_]*)\s*:\s*([0-9]{1,9})\s*-\s*([0-9]{1,9})\s*")


@dataclass(frozen=True, order=True)
class Fact:
    """One true equation of whole numbers, its operands in canonical order: `Fact.of(9, 6) == Fact.of(6, 9)`."""

    family: str
    operands: tuple[int, ...]
    result: int

    def __post_init__(self) -> None:
        if _result(family_called(self.family), self.operands) != self.result:
            raise BadInput(f"{self.token} is not a fact: the result is wrong, or the operands are not in order")

    @classmethod
    def of(cls, *operands: int, family: str = "MUL") -> Fact:
        """The fact about these operands, in any order where the order does not matter; BadInput where there is none."""
        kind = family_called(family)
        canonical = kind.canonical(operands)
        result = _result(kind, canonical)
        if result is None:
            raise BadInput(f"{family} of {', '.join(map(str, operands))} has no result that is a whole number from 0")
        return cls(family, canonical, result)

    @classmethod
    def parse(cls, token: str) -> Fact | None:
        """The fact that `<MUL_6_9_54>` names; None for a wrong result, another order, or anything else."""
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
        return f"<{self.family}_{'_'.join(map(str, self.operands))}_{self.result}>"

    @property
    def equation(self) -> str:
        """As it is written in plain digits: `6*9=54`."""
        return FAMILIES[self.family].equation.format(*self.operands, result=self.result)

    @property
    def value(self) -> int:
        """What its expression is worth; the same as the result."""
        return self.result


def family_called(name: str) -> Family:
    """BadInput, naming the families there are, for any other."""
    if name not in FAMILIES:
        raise BadInput(f"there is no family of facts '{name}'; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _result(family: Family, operands: tuple[int, ...]) -> int | None:
    """None for operands that are not canonical, or too many, or have no result."""
    if len(operands) != family.arity or min(operands) < 0 or family.canonical(operands) != operands:
        return None
    return family.compute(*operands)


def embedding_width(width: int) -> int:
    """Rows of an embedding that holds `width` ids: the next multiple of 128; the rows beyond are never generated."""
    return -(-width // MATRIX_MULTIPLE) * MATRIX_MULTIPLE


@dataclass(frozen=True, eq=False)
class FactVocabulary:
    """Facts in the order of their ids, of which the first is `first_id`. Hashable; sent to other processes as its fields."""

    facts: tuple[Fact, ...]
    first_id: int

    def __post_init__(self) -> None:
        if len(set(self.facts)) != len(self.facts):
            raise BadInput("a vocabulary cannot hold the same fact twice")

    @classmethod
    def build(cls, ranges: str = "MUL:1-9", base_size: int = GPT2_SIZE) -> FactVocabulary:
        """The facts of `MUL:1-9,ADD:0-9`, family by family, after a base vocabulary of `base_size` ids.

        They begin at the next multiple of 128 (50257 → 50304). For SUB and DIV the range is that of the second operand
        and of the result: `SUB:0-9` undoes `ADD:0-9`. Raises BadInput for anything that is not such a list.
        """
        facts: list[Fact] = []
        for part in ranges.split(","):
            facts += _facts_of(part)
        return cls(tuple(facts), embedding_width(base_size))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {fact.token: self.first_id + place for place, fact in enumerate(self.facts)}

    @cached_property
    def _name(self) -> str:
        """All that it is, in one string: compared once a document, by the cache of grammars."""
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
        """Ids up to and with the last fact, the same in every arm: 50349."""
        return self.first_id + len(self)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """In the order in which their facts come."""
        return tuple(dict.fromkeys(fact.family for fact in self.facts))

    def id_of(self, fact: Fact | str) -> int | None:
        """The id of a fact or of a token as written; None for what is not in the vocabulary."""
        return self._ids.get(fact.token if isinstance(fact, Fact) else fact)

    def fact_at(self, id: int) -> Fact | None:
        place = id - self.first_id
        return self.facts[place] if 0 <= place < len(self) else None

    def fact_called(self, token: str) -> Fact | None:
        """The fact of a token as written; None for what is not in the vocabulary."""
        id = self._ids.get(token)
        return None if id is None else self.facts[id - self.first_id]

    def of_ids(self, ids: Iterable[int]) -> list[Fact]:
        """The facts among these ids, in their order."""
        return [fact for fact in map(self.fact_at, ids) if fact is not None]

    def with_first_id(self, first_id: int) -> FactVocabulary:
        return FactVocabulary(self.facts, first_id)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        return {"first_id": self.first_id, "facts": [fact.token for fact in self.facts]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FactVocabulary:
        """Raises BadInput for a token that is no fact."""
        facts = []
        for token in fields["facts"]:
            fact = Fact.parse(token)
            if fact is None:
                raise BadInput(f"{token!r} is not the token of a fact")
            facts.append(fact)
        return cls(tuple(facts), int(fields["first_id"]))


def _facts_of(part: str) -> list[Fact]:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise BadInput(f"'{part}' is not a range of facts; write MUL:1-9, or several with commas between")
    family, low, high = family_called(found[1]), int(found[2]), int(found[3])
    if low > high or high - low > MOST_FACTS:
        raise BadInput(f"'{part}': the range must go upwards, and not over more than {MOST_FACTS:,} numbers")
    facts: list[Fact] = []
    for operands in family.table(low, high):
        facts.append(Fact.of(*operands, family=family.name))
        if len(facts) > MOST_FACTS:
            raise BadInput(f"'{part}' holds more than {MOST_FACTS:,} facts, too many for one vocabulary")
    return facts


GPT2_MUL = FactVocabulary.build("MUL:1-9")
"""The 45 products of the times tables behind GPT-2's BPE: ids 50304 to 50348."""
