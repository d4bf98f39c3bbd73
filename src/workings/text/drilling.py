"""Facts and tokens so far → how many drill documents come next, and between which documents they go.

The decision rests on the counts of the facts arm alone, so every arm gets the same drills at the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from workings import seeds
from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.errors import BadInput
from workings.text.documents import Document
from workings.text.encoding import ENTRY, Encoders
from workings.text.manifest import DRILLS

TOGETHER = 200
"""Drill documents encoded at once."""

Drill = tuple[np.ndarray, np.ndarray]
"""The entry (ENTRY, a scalar) and the ids of one document."""


class Drilling:
    """The drills of one build: `after` says which of them follow what has been written."""

    def __init__(self, spec: DrillSpec, rate: float, seed: int, used: int, encoders: Encoders) -> None:
        self.rate, self.seed = rate, seed
        self._check_reachable(spec, encoders)
        self._drills = encoded_drills(drill_documents(spec, seed), used, encoders)
        self._next = next(self._drills)

    def after(self, tokens: int, facts: int) -> list[Drill]:
        """The drills that bring facts/tokens (both counted in the facts arm) as near to the rate as documents allow."""
        taken = []
        while self.rate * tokens - facts > max(self._gain, 0) / 2:
            taken.append(self._next)
            tokens += int(self._next[0]["facts_arm_tokens"])
            facts += int(self._next[0]["facts_arm_facts"])
            self._next = next(self._drills)
        return taken

    def places(self, n_drills: int, n_documents: int, block: int) -> np.ndarray:
        """Before which of the block's documents each drill goes: uniform, ascending; `n_documents` is behind the last."""
        draw = seeds.numpy(f"drill places {block}", self.seed)
        return np.sort(draw.integers(0, n_documents + 1, n_drills))

    @property
    def _gain(self) -> float:
        return self._next[0]["facts_arm_facts"] - self.rate * self._next[0]["facts_arm_tokens"]

    def _check_reachable(self, spec: DrillSpec, encoders: Encoders) -> None:
        """BadInput where drills are too thin for the rate; told before anything is written."""
        sample = encoders.here(list(islice(drill_documents(spec, self.seed), TOGETHER))).entries
        density = sample["facts_arm_facts"].sum() / sample["facts_arm_tokens"].sum()
        if density < 1.25 * self.rate:
            raise BadInput(
                f"a fact rate of {self.rate:.2%} is out of reach: of the drills' own tokens {density:.2%} are facts, and the "
                f"corpus would be drills. Ask for at most {density / 2:.1%}, or for denser drills (facts_per_document)"
            )


def encoded_drills(texts: Iterator[str], start: int, encoders: Encoders) -> Iterator[Drill]:
    """Drill documents from number `start` on, encoded ahead in the encoding processes."""
    for _, encoded in encoders.in_order(_groups(islice(texts, start, None)), ahead=2):
        yield from zip(encoded.entries, encoded.pieces(), strict=True)


def _groups(texts: Iterator[str]) -> Iterator[tuple[None, list[Document]]]:
    while group := [Document(text, DRILLS) for text in islice(texts, TOGETHER)]:
        yield None, group


def validation_drills(spec: DrillSpec, seed: int, n: int, encoders: Encoders) -> tuple[np.ndarray, list[np.ndarray]]:
    """The entries and ids of `n` drill documents that rest on facts and wordings never trained on."""
    encoded = encoders.here(list(islice(drill_documents(spec, seed, split="validation"), n)))
    return encoded.entries, encoded.pieces() if n else []


def with_drills(
    documents: tuple[np.ndarray, np.ndarray, Sequence[np.ndarray]],
    drills: Sequence[Drill],
    places: np.ndarray,
    drill_source: int,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Sources, entries and ids of a block's training documents, with drills before the documents that `places` names."""
    sources, entries, pieces = documents
    if not drills:
        return sources, entries, list(pieces)
    pieces = [*pieces, *(piece for _, piece in drills)]
    order = np.insert(np.arange(len(entries)), places, np.arange(len(entries), len(pieces)))
    all_entries = np.concatenate([entries, np.array([entry for entry, _ in drills], ENTRY)])
    all_sources = np.append(sources, np.full(len(drills), drill_source, sources.dtype))
    return all_sources[order], all_entries[order], [pieces[i] for i in order]
