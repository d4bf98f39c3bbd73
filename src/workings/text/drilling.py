"""Facts and tokens so far → how many drill documents come next, and between which documents they go.

The decision rests on the counts of the facts arm alone, so every arm gets the same drills at the same places. Drills are
made in strands of a seed of their own each, in the encoding processes: making them takes longer than encoding them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice

import numpy as np

from workings import seeds
from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.errors import BadInput
from workings.text.encoding import ENTRY, Encoded, Encoder, Encoders

STRAND = 200
"""Drill documents of one seed."""

Drill = tuple[np.ndarray, np.ndarray]
"""The entry (ENTRY, a scalar) and the ids of one document."""


def strand(spec: DrillSpec, seed: int, number: int, encoder: Encoder) -> Encoded:
    """Training drills of one strand, made and encoded."""
    return encoder(list(islice(drill_documents(spec, seeds.derive(f"drill strand {number}", seed)), STRAND)))


class Drilling:
    """The drills of one build: `after` says which of them follow what has been written.

    `position` counts the drills gone through, those left out as repeats too; `seen` are the hashes of those written.
    """

    def __init__(
        self,
        spec: DrillSpec,
        rate: float,
        seed: int,
        encoders: Encoders,
        position: int = 0,
        seen: Iterable[np.ndarray] = (),
    ) -> None:
        self.spec, self.rate, self.seed, self.position = spec, rate, seed, position
        self._seen = _Hashes(seen)
        self._check_reachable(encoders.here)
        self._drills = self._unseen(encoders)
        self._next = next(self._drills)

    def after(self, tokens: int, facts: int) -> list[Drill]:
        """The drills that bring facts/tokens (both counted in the facts arm) as near to the rate as documents allow."""
        taken = []
        while self.rate * tokens - facts > max(self._gain, 0) / 2:
            at, entry, ids = self._next
            taken.append((entry, ids))
            tokens += int(entry["facts_arm_tokens"])
            facts += int(entry["facts_arm_facts"])
            self.position = at + 1
            self._next = next(self._drills)
        return taken

    def places(self, n_drills: int, n_documents: int, block: int) -> np.ndarray:
        """Before which of the block's documents each drill goes: uniform, ascending; `n_documents` is behind the last."""
        draw = seeds.numpy(f"drill places {block}", self.seed)
        return np.sort(draw.integers(0, n_documents + 1, n_drills))

    @property
    def _gain(self) -> float:
        _, entry, _ = self._next
        return entry["facts_arm_facts"] - self.rate * entry["facts_arm_tokens"]

    def _unseen(self, encoders: Encoders) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Position, entry and ids of each drill from `position` on whose text did not come before."""
        first, start = divmod(self.position, STRAND)
        works = ((number, partial(strand, self.spec, self.seed, number)) for number in count(first))
        for number, encoded in encoders.in_order(works, ahead=encoders.n + 1):
            new = self._seen.add(encoded.entries["hash"][start:])
            if not new.any() and start == 0:
                raise BadInput(f"the drills repeat themselves after {number * STRAND:,} documents; widen {self.spec}")
            rows = zip(
                count(number * STRAND + start), encoded.entries[start:], encoded.pieces()[start:], new, strict=False
            )
            yield from ((at, entry, ids) for at, entry, ids, is_new in rows if is_new)
            start = 0

    def _check_reachable(self, encoder: Encoder) -> None:
        """BadInput where drills are too thin for the rate; told before anything is written."""
        sample = strand(self.spec, self.seed, 0, encoder).entries
        density = sample["facts_arm_facts"].sum() / sample["facts_arm_tokens"].sum()
        if density < 1.25 * self.rate:
            raise BadInput(
                f"a fact rate of {self.rate:.2%} is out of reach: of the drills' own tokens {density:.2%} are facts, and the "
                f"corpus would be drills. Ask for at most {density / 2:.1%}, or for denser drills (facts_per_document)"
            )


class _Hashes:
    """A set of content hashes, 8 bytes each: most lie sorted, the latest in a small set."""

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        self._sorted = np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
        self._latest: set[int] = set()

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Which of them (in order, bool) are new; now they are not."""
        at = np.minimum(np.searchsorted(self._sorted, hashes), max(len(self._sorted) - 1, 0))
        new = self._sorted[at] != hashes if len(self._sorted) else np.ones(len(hashes), bool)
        for i in np.flatnonzero(new):
            new[i] = int(hashes[i]) not in self._latest
            self._latest.add(int(hashes[i]))
        if len(self._latest) > 1 << 17:
            self._sorted = np.union1d(self._sorted, np.fromiter(self._latest, np.uint64))
            self._latest.clear()
        return new


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
