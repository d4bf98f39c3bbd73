"""Sources with weights → one shuffled stream of documents → blocks, the same for one seed on every machine.

Nothing here knows of tokens or of arms: all that is decided is decided on raw text.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from workings import seeds
from workings.text.documents import Document, Row, Source, Unreadable

BLOCK_DOCUMENTS, BLOCK_BYTES = 1000, 4 << 20
"""What goes to an encoding process at once; the last document may go over."""


class Block(NamedTuple):
    """Neighbours in the shuffled stream, and the rows met on the way that are no documents."""

    documents: list[Document]
    unreadable: list[Unreadable]

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
        """Whether a limit is reached."""
        return (self.documents_limit is not None and self.n_documents >= self.documents_limit) or (
            self.bytes_limit is not None and sum(self.taken) >= self.bytes_limit
        )

    def __iter__(self) -> Iterator[Row]:
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


def shuffled(rows: Iterable[Row], n_documents: int, n_bytes: int, seed: int) -> Iterator[Row]:
    """Rows through a pool of at most so many documents and bytes (and one more), leaving it in random order.

    What fits into the pool whole comes out in a uniformly random order. Unreadable rows do not wait.
    """
    draw = seeds.python("document order", seed).random
    pool: list[Document] = []
    held = 0
    for row in rows:
        if isinstance(row, Unreadable):
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


def blocks(rows: Iterable[Row]) -> Iterator[Block]:
    """Rows in blocks, none of them empty."""
    block, held = Block([], []), 0
    for row in rows:
        if isinstance(row, Unreadable):
            block.unreadable.append(row)
            continue
        block.documents.append(row)
        held += row.n_bytes
        if len(block.documents) == BLOCK_DOCUMENTS or held >= BLOCK_BYTES:
            yield block
            block, held = Block([], []), 0
    if block.documents or block.unreadable:
        yield block
