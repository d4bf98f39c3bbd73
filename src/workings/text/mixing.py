"""Sources with weights → one shuffled stream of documents → blocks; and the drills that go among them.

The same for one seed on every machine. Mixing and shuffling know nothing of tokens or of arms: what they decide rests on raw
text. How many drills come, and where, rests on the counts of the facts arm alone, so every arm gets the same drills at the
same places. Drills are made in the encoding processes, so many of each seed, because making them takes longer than
encoding them.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from workings import seeds
from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.errors import BadInput
from workings.text.documents import BadDocument, Document, Source, SourceRow
from workings.text.encoding import ENTRY, Encoded, Encoder, Encoders

BLOCK_DOCUMENTS, BLOCK_BYTES = 1000, 4 << 20
"""Limits of a block, which goes to an encoding process at once; the last document may go over."""


class DocumentBlock(NamedTuple):
    """Neighbours in the shuffled stream, and the rows met on the way that are no documents."""

    documents: list[Document]
    bad: list[BadDocument]

    def mark(self, before: int) -> int:
        """A check sum (crc32) over the lengths of this block's documents and of all before it."""
        return zlib.crc32(array("q", [document.n_bytes for document in self.documents]).tobytes(), before)


class Mixture:
    """Rows of all sources, each source's share of the bytes so far as near to its weight as documents allow.

    It ends with the document that reaches a limit, so that a limit cuts the mixture and not what a shuffle makes of it.
    A source that ends before leaves the others to go on. Iterate it once.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        documents_limit: int | None = None,
        bytes_limit: int | None = None,
    ) -> None:
        self.sources, self.weights = sources, weights
        self.documents_limit, self.bytes_limit = documents_limit, bytes_limit
        self.n_documents = 0
        self.taken = [0] * len(sources)
        """Bytes of each source."""
        self.ended: list[int] = []
        """Numbers of the sources that had no more to give."""

    @property
    def is_full(self) -> bool:
        """True once a limit is reached."""
        return (self.documents_limit is not None and self.n_documents >= self.documents_limit) or (
            self.bytes_limit is not None and sum(self.taken) >= self.bytes_limit
        )

    def __iter__(self) -> Iterator[SourceRow]:
        streams = {i: iter(source) for i, source in enumerate(self.sources)}
        while streams and not self.is_full:
            i = min(streams, key=lambda i: self.taken[i] / self.weights[i])
            row = next(streams[i], None)
            if row is None:
                del streams[i]
                self.ended.append(i)
                continue
            if isinstance(row, Document):
                self.taken[i] += row.n_bytes
                self.n_documents += 1
            yield row


def shuffle(rows: Iterable[SourceRow], n_documents: int, n_bytes: int, seed: int) -> Iterator[SourceRow]:
    """Rows through a pool of at most so many documents and bytes (and one more), leaving it in random order.

    What fits into the pool whole comes out in a uniformly random order. Bad rows do not wait.
    """
    draw = seeds.python("document order", seed).random
    pool: list[Document] = []
    held = 0
    for row in rows:
        if isinstance(row, BadDocument):
            yield row
            continue
        pool.append(row)
        held += row.n_bytes
        while len(pool) > max(n_documents, 1) or held > max(n_bytes, row.n_bytes):
            document = _take(pool, draw)
            held -= document.n_bytes
            yield document
    while pool:
        yield _take(pool, draw)


def _take(pool: list[Document], draw: Callable[[], float]) -> Document:
    at = int(draw() * len(pool))
    pool[at], pool[-1] = pool[-1], pool[at]
    return pool.pop()


def blocks(rows: Iterable[SourceRow]) -> Iterator[DocumentBlock]:
    """Rows in blocks, none of them empty."""
    block, held = DocumentBlock([], []), 0
    for row in rows:
        if isinstance(row, BadDocument):
            block.bad.append(row)
            continue
        block.documents.append(row)
        held += row.n_bytes
        if len(block.documents) == BLOCK_DOCUMENTS or held >= BLOCK_BYTES:
            yield block
            block, held = DocumentBlock([], []), 0
    if block.documents or block.bad:
        yield block


# ── drills ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

DRILLS_PER_SEED = 200

Drill = tuple[np.ndarray, np.ndarray]
"""The entry (ENTRY, a scalar) and the ids of one document."""


def encode_drills(spec: DrillSpec, seed: int, number: int, encoder: Encoder) -> Encoded:
    """Make and encode the training drills of the seed with this number."""
    return encoder(list(islice(drill_documents(spec, seeds.derive(f"drill strand {number}", seed)), DRILLS_PER_SEED)))


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
        first, start = divmod(self.position, DRILLS_PER_SEED)
        works = ((number, partial(encode_drills, self.spec, self.seed, number)) for number in count(first))
        for number, encoded in encoders.in_order(works, ahead=encoders.n + 1):
            new = self._seen.add(encoded.entries["hash"][start:])
            if not new.any() and start == 0:
                raise BadInput(
                    f"the drills repeat themselves after {number * DRILLS_PER_SEED:,} documents; widen {self.spec}"
                )
            rows = zip(
                count(number * DRILLS_PER_SEED + start),
                encoded.entries[start:],
                encoded.pieces()[start:],
                new,
                strict=False,
            )
            yield from ((at, entry, ids) for at, entry, ids, is_new in rows if is_new)
            start = 0

    def _check_reachable(self, encoder: Encoder) -> None:
        """BadInput where drills are too thin for the rate; told before anything is written."""
        sample = encode_drills(self.spec, self.seed, 0, encoder).entries
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
