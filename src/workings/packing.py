"""The ending of a file name (`.gz`, `.bz2`, `.xz`, `.zst`) → its content as a stream of unpacked bytes; bytes → a packed file.

What an archive that was cut short or damaged raises is in `DAMAGE`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

PACKINGS = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
_CHUNK = 1 << 16


def unpacked_name(name: str) -> str:
    """A file's name in small letters, without the ending of its packing.

    Example:
        >>> unpacked_name("Train.JSONL.gz"), unpacked_name("train.txt")
        ('train.jsonl', 'train.txt')
    """
    return name.lower().removesuffix(_packing(name))


def _packing(name: str) -> str:
    return next((ending for ending in PACKINGS if name.lower().endswith(ending)), "")


@contextmanager
def unpacked(raw: io.BufferedReader, name: str) -> Generator[io.BufferedReader]:
    """The content of an open file, as the ending of `name` says it is packed; parts that were joined are read on.

    Raises:
        Exception: One of `DAMAGE`, here or while it is read, where the archive is damaged.
    """
    ending = _packing(name)
    if not ending:
        yield raw
        return
    if not raw.peek(1):
        raise EOFError("the archive is empty")  # the libraries read nothing from nothing, and find it right
    if ending == ".zst":
        import pyarrow as pa  # 0.1 s: not for every --help

        with pa.CompressedInputStream(raw, "zstd") as stream:
            yield io.BufferedReader(cast(io.RawIOBase, stream), _CHUNK)
        return
    opening: Callable[..., Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[ending]
    with opening(
        raw
    ) as content:  # has a buffer itself; before a break, a larger one would lose as much of what is good
        yield cast(io.BufferedReader, content)


def packed(content: bytes, name: str) -> bytes:
    """Bytes as they go into a file of that name; the same bytes give the same file."""
    ending = _packing(name)
    if ending == ".zst":
        import pyarrow as pa

        return pa.Codec("zstd").compress(content, asbytes=True)
    pack = {".gz": lambda raw: gzip.compress(raw, mtime=0), ".bz2": bz2.compress, ".xz": lzma.compress}.get(ending)
    return pack(content) if pack else content
