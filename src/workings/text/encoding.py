"""Blocks of raw documents → ids, counts and content hashes, in several processes, in the order they were given.

Beside the ids of its own vocabulary a document gets the numbers of tokens and facts that the vocabulary "facts" would
give it, so that every arm can decide alike how many drills it needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from workings.arithmetic.rewrite import rewrite_counted
from workings.errors import BadInput
from workings.text.bulk import BulkEncoder, parts
from workings.text.documents import Document
from workings.text.tokenizer import Tokenizer
from workings.text.workers import Workers

ENTRY = np.dtype(
    [
        ("tokens", "<i8"),  # with the end-of-text before the document
        ("facts", "<i8"),
        ("facts_arm_tokens", "<i8"),  # of the same document in the vocabulary "facts"
        ("facts_arm_facts", "<i8"),
        ("bytes", "<i8"),  # of the raw text in UTF-8
        ("hash", "<u8"),  # of the raw text
    ]
)

T = TypeVar("T")
R = TypeVar("R")


class Encoded(NamedTuple):
    """A block: `ids` of all its documents, each behind an end of text; one entry (ENTRY) a document.

    A document that cannot be encoded has no ids, 0 tokens, and its reason in `failures` by its number.
    """

    ids: np.ndarray
    entries: np.ndarray
    failures: dict[int, str]

    def pieces(self) -> list[np.ndarray]:
        """The ids of each document, the end of text included."""
        return parts(self.ids, np.cumsum(self.entries["tokens"]))


def content_hash(raw: bytes) -> int:
    """64 bits of the sha256 of a raw text."""
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")


class _Prepared(NamedTuple):
    text: str
    n_facts: int
    there: str | None
    """As the facts arm has it, where that is another text."""
    n_facts_there: int


@dataclass(frozen=True)
class Encoder:
    """Raw texts → `Encoded`, in this process."""

    tokenizer: Tokenizer
    ids: BulkEncoder = field(init=False)
    ids_there: BulkEncoder = field(init=False)
    """Those of the facts arm."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", BulkEncoder(self.tokenizer))
        object.__setattr__(self, "ids_there", BulkEncoder(replace(self.tokenizer, vocabulary="facts")))

    def __call__(self, texts: Sequence[str]) -> Encoded:
        failures: dict[int, str] = {}
        prepared = _each(self._prepared, dict(enumerate(texts)), failures)
        ids = _all(self.ids, {i: one.text for i, one in prepared.items()}, failures)
        there = _all(self.ids_there, {i: one.there for i, one in prepared.items() if one.there is not None}, failures)
        entries, pieces = np.zeros(len(texts), ENTRY), []
        eot = np.array([self.tokenizer.eot], self.tokenizer.dtype)
        for i in sorted(ids.keys() - failures.keys()):
            raw = texts[i].encode()
            n_tokens, n_tokens_there = len(ids[i]) + 1, len(there.get(i, ids[i])) + 1
            counts = n_tokens, prepared[i].n_facts, n_tokens_there, prepared[i].n_facts_there
            entries[i] = (*counts, len(raw), content_hash(raw))
            pieces += [eot, ids[i]]
        return Encoded(np.concatenate(pieces) if pieces else eot[:0], entries, failures)

    def _prepared(self, text: str) -> _Prepared:
        prepared, n_facts = self.tokenizer.prepare_counted(text)
        if self.tokenizer.has_facts:  # a shuffled fact is a fact: as many tokens
            return _Prepared(prepared, n_facts, None, n_facts)
        there, n_there = rewrite_counted(text, self.tokenizer.facts, self.tokenizer.mode)
        return _Prepared(prepared, n_facts, there if n_there else None, n_there)


def _each(make: Callable[[T], R], texts: Mapping[int, T], failures: dict[int, str]) -> dict[int, R]:
    """What is made of each text, by its number; what cannot be goes to `failures` with the reason."""
    made = {}
    for i, text in texts.items():
        try:
            made[i] = make(text)
        except (BadInput, ValueError, TypeError, RecursionError) as error:
            failures[i] = f"cannot be encoded: {error}"
    return made


def _all(encode: BulkEncoder, texts: Mapping[int, str], failures: dict[int, str]) -> dict[int, np.ndarray]:
    """The same by one call for all texts; one by one only where that fails."""
    try:
        return dict(zip(texts, encode([*texts.values()]), strict=True))
    except (BadInput, ValueError, TypeError, RecursionError):
        return _each(lambda text: encode([text])[0], texts, failures)


Encoders = Workers[Encoder]


def encode_documents(documents: Sequence[Document]) -> Callable[[Encoder], Encoded]:
    """The work of encoding documents; only their texts travel to another process."""
    return partial(_encode, [document.text for document in documents])


def _encode(texts: list[str], encoder: Encoder) -> Encoded:
    return encoder(texts)
