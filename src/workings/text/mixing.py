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


def mixed(
    sources: Sequence[Source], weights: Sequence[float], ended: Callable[[Source, int], None] = lambda *_: None
) -> Iterator[Row]:
    """Rows of all sources, each source's share of the bytes so far as near to its weight as documents allow.

    A source that ends leaves the others to go on; `ended` is told, with the bytes it gave, and may raise.
    """
    streams = {i: iter(source) for i, source in enumerate(sources)}
    taken = [0] * len(sources)
    while streams:
        i = min(streams, key=lambda i: taken[i] / weights[i])
        row = next(streams[i], None)
        if row is None:
            del streams[i]
            ended(sources[i], taken[i])
        else:
            taken[i] += row.n_bytes if isinstance(row, Document) else 0
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
