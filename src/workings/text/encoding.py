"""Blocks of raw documents → ids, counts and content hashes, in several processes, in the order they were given.

Beside the ids of its own vocabulary a document gets the numbers of tokens and facts that the vocabulary "facts" would
give it, so that every arm can decide alike how many drills it needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from workings.arithmetic.rewrite import rewrite_counted
from workings.errors import BadInput
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


class Encoded(NamedTuple):
    """A block: `ids` of all its documents, each behind an end of text; one entry (ENTRY) a document.

    A document that cannot be encoded has no ids, 0 tokens, and its reason in `failures` by its number.
    """

    ids: np.ndarray
    entries: np.ndarray
    failures: dict[int, str]

    def pieces(self) -> list[np.ndarray]:
        """The ids of each document, the end of text included."""
        return np.split(self.ids, np.cumsum(self.entries["tokens"])[:-1])


def content_hash(raw: bytes) -> int:
    """64 bits of the sha256 of a raw text."""
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")


@dataclass(frozen=True)
class Encoder:
    """Raw texts → `Encoded`, in this process."""

    tokenizer: Tokenizer
    facts_arm: Tokenizer = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts_arm", replace(self.tokenizer, vocabulary="facts"))

    def __call__(self, texts: Sequence[str]) -> Encoded:
        entries = np.zeros(len(texts), ENTRY)
        failures: dict[int, str] = {}
        pieces: list[np.ndarray] = []
        eot = np.array([self.tokenizer.eot], self.tokenizer.dtype)
        for i, text in enumerate(texts):
            try:
                ids, counts = self._encoded(text)
            except (BadInput, ValueError, TypeError, RecursionError) as error:
                failures[i] = f"cannot be encoded: {error}"
                continue
            raw = text.encode()
            pieces += [eot, ids]
            entries[i] = (*counts, len(raw), content_hash(raw))
        return Encoded(np.concatenate(pieces) if pieces else eot[:0], entries, failures)

    def _encoded(self, text: str) -> tuple[np.ndarray, tuple[int, int, int, int]]:
        """Ids, and tokens, facts, tokens and facts in the facts arm."""
        prepared, n_facts = self.tokenizer.prepare_counted(text)
        (ids,) = self.tokenizer.encode_batch([prepared])
        n_tokens = len(ids) + 1
        if self.tokenizer.has_facts:  # a shuffled fact is a fact: as many tokens
            return ids, (n_tokens, n_facts, n_tokens, n_facts)
        rewritten, n_there = rewrite_counted(text, self.tokenizer.facts, self.tokenizer.mode)
        n_tokens_there = len(self.facts_arm.encode_batch([rewritten])[0]) + 1 if n_there else n_tokens
        return ids, (n_tokens, n_facts, n_tokens_there, n_there)


Encoders = Workers[Encoder]


def encode_documents(documents: Sequence[Document]) -> Callable[[Encoder], Encoded]:
    """The work of encoding documents; only their texts travel to another process."""
    return partial(_encode, [document.text for document in documents])


def _encode(texts: list[str], encoder: Encoder) -> Encoded:
    return encoder(texts)
