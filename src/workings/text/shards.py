"""Encoded documents → `.bin` files of ids and `.docs.npy` files of where each document begins; and back.

A shard holds whole documents. It is open while documents are appended, and closed, hashed and never touched again once
it has reached its size. `state` is all that is needed to go on after a kill: files are cut to the lengths it names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from workings.errors import BadInput, Failed, first_line
from workings.files import changes, sha256_of, unchanged, write_with

DOCUMENT = np.dtype(
    [
        ("offset", "<u8"),  # in ids, from the beginning of the shard, of the end of text before the document
        ("bytes", "<u8"),  # of the raw text in UTF-8
        ("hash", "<u8"),  # of the raw text: the first 64 bits of its sha256
        ("source", "<u2"),  # by its place in the manifest
    ]
)
RAW = np.dtype([("source", "<u2"), ("bytes", "<u8"), ("hash", "<u8")])


@dataclass(frozen=True)
class Shard:
    """A closed shard, as the manifest has it."""

    file: str
    n_tokens: int
    n_documents: int
    sha256: str
    documents_sha256: str

    def to_json(self) -> dict[str, Any]:
        """The entry of the manifest: counts without `n_`."""
        return {name.removeprefix("n_"): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Shard:
        """Read an entry of the manifest."""
        return cls(entry["file"], entry["tokens"], entry["documents"], entry["sha256"], entry["documents_sha256"])

    @property
    def documents_file(self) -> str:
        return self.file.removesuffix(".bin") + ".docs.npy"


class ShardWriter:
    """The shards of one stream: `<stem>_000000.bin`, `<stem>_000001.bin`, …; `target` is their size in ids."""

    def __init__(self, folder: Path, stem: str, dtype: np.dtype[Any], target: int) -> None:
        self.folder, self.stem, self.dtype, self.target = folder, stem, dtype, target
        self.closed: list[Shard] = []
        self.tokens = self.documents = 0  # in the open shard
        self._files: tuple[IO[bytes], IO[bytes]] | None = None

    def append(self, pieces: Sequence[np.ndarray], documents: np.ndarray) -> None:
        """Add documents: the ids of each, and their rows (DOCUMENT, offsets as yet unset)."""
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        at = 0
        while at < len(pieces):
            ends = self.tokens + np.cumsum(lengths[at:])
            stop = at + 1 + int(np.searchsorted(ends, self.target))
            taken = documents[at:stop].copy()
            taken["offset"] = ends[: stop - at] - lengths[at:stop]
            self._write(np.concatenate(pieces[at:stop]), taken)
            at = stop

    def rows(self) -> Iterator[np.ndarray]:
        """The rows (DOCUMENT) of all documents so far, shard by shard."""
        yield from (open_index(self.folder, shard) for shard in self.closed)
        if self.documents:
            self.flush()
            yield np.fromfile(self._part, DOCUMENT)

    def finish(self) -> None:
        """Close the open shard."""
        if self.documents:
            self._close()

    def release(self) -> None:
        """Let go of the files as they are."""
        for file in self._files or ():
            file.close()
        self._files = None

    def state(self) -> dict[str, Any]:
        """Everything that a new writer needs; what it speaks of is on the disk when this returns."""
        self.flush()
        return {
            "closed": [shard.to_json() for shard in self.closed],
            "tokens": self.tokens,
            "documents": self.documents,
        }

    def flush(self) -> None:
        """Make what was appended safe from a power cut."""
        for file in self._files or ():
            file.flush()
            os.fsync(file.fileno())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become the writer whose `state` this was. Failed if files have lost what it speaks of."""
        self.closed = [Shard.from_json(shard) for shard in state["closed"]]
        self.tokens, self.documents = state["tokens"], state["documents"]
        known = {name for shard in self.closed for name in (shard.file, shard.documents_file)}
        open_shard = {self._bin: self.tokens * self.dtype.itemsize, self._part: self.documents * DOCUMENT.itemsize}
        for path in self._own_files():
            if path.name not in known and path not in open_shard:
                path.unlink()
        for path, length in open_shard.items() if self.documents else ():
            _truncate(path, length)
        if not self.documents:
            self._bin.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)

    def forget_parts(self) -> None:
        """Remove what only a writer restored to an earlier state would have needed."""
        for path in self._own_files():
            if path.suffix == ".part" and path != self._part:
                path.unlink()

    def _write(self, ids: np.ndarray, documents: np.ndarray) -> None:
        if ids.dtype != self.dtype:
            raise Failed(f"ids came as {ids.dtype}, and the shards of {self.folder} hold {self.dtype}")
        if self._files is None:
            self._files = (self._bin.open("ab"), self._part.open("ab"))
        for file, array in zip(self._files, (ids, documents), strict=True):
            file.write(array.tobytes())
        self.tokens += len(ids)
        self.documents += len(documents)
        if self.tokens >= self.target:
            self._close()

    def _close(self) -> None:
        self.flush()
        self.release()
        rows = np.fromfile(self._part, DOCUMENT)
        index = self._bin.with_suffix(".docs.npy")
        write_with(index, lambda path: _save(path, rows))
        shard = Shard(self._bin.name, self.tokens, self.documents, sha256_of(self._bin), sha256_of(index))
        self.closed.append(shard)
        self.tokens = self.documents = 0

    @property
    def _bin(self) -> Path:
        return self.folder / f"{self.stem}_{len(self.closed):06d}.bin"

    @property
    def _part(self) -> Path:
        return self.folder / f".{self.stem}_{len(self.closed):06d}.part"

    def _own_files(self) -> list[Path]:
        return shard_files(self.folder, self.stem)


def shard_files(folder: Path, stem: str) -> list[Path]:
    """The files of a stream, or of all with the stem `*`: closed and open shards, and their indexes."""
    patterns = (f"{stem}_??????.bin", f"{stem}_??????.docs.npy", f".{stem}_??????.part")
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _save(path: Path, rows: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, rows)


def _truncate(path: Path, length: int) -> None:
    there = path.stat().st_size if path.exists() else 0
    if there < length:
        raise Failed(f"{path} has {there:,} bytes where {length:,} were written: delete the folder and build it again")
    os.truncate(path, length)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


_REMEDY = "copy the corpus again, or build it again"


def open_ids(folder: Path, shard: Shard, dtype: np.dtype[Any]) -> np.ndarray:
    """The ids of a shard, mapped into memory. BadInput where the file is missing or not the one that was written."""
    refuse_other_length(folder, shard, dtype)
    unchanged(folder / shard.file, shard.sha256, "manifest.json", _REMEDY)
    return _mapped_ids(folder, shard, dtype)


def open_index(folder: Path, shard: Shard) -> np.ndarray:
    """The rows (DOCUMENT) of a shard, mapped into memory. BadInput as `open_ids`."""
    unchanged(folder / shard.documents_file, shard.documents_sha256, "manifest.json", _REMEDY)
    return _mapped_index(folder, shard)


def refuse_other_length(folder: Path, shard: Shard, dtype: np.dtype[Any]) -> None:
    """BadInput where the file of ids has not the length that the manifest says: seen at once, without reading it."""
    path = folder / shard.file
    size = path.stat().st_size if path.exists() else -1
    if size != shard.n_tokens * dtype.itemsize:
        what = "is missing" if size < 0 else f"has {size:,} bytes, not {shard.n_tokens * dtype.itemsize:,}"
        raise BadInput(f"{path} {what} (manifest.json): {_REMEDY}")


def _mapped_ids(folder: Path, shard: Shard, dtype: np.dtype[Any]) -> np.ndarray:
    return np.memmap(folder / shard.file, dtype, "r") if shard.n_tokens else np.empty(0, dtype)


def _mapped_index(folder: Path, shard: Shard) -> np.ndarray:
    path = folder / shard.documents_file
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:  # numpy reads the header as Python
        raise BadInput(f"{path} cannot be read ({first_line(error)}): {_REMEDY}") from None
    if rows.dtype != DOCUMENT or rows.ndim != 1:
        raise BadInput(f"{path} does not hold rows about documents: {_REMEDY}")
    if len(rows) != shard.n_documents:
        raise BadInput(f"{path} has {len(rows):,} documents, the manifest {shard.n_documents:,}: {_REMEDY}")
    return rows


def raw_digest(folder: Path, shards: Sequence[Shard]) -> str:
    """A sha256 over source, length and content hash of every document in order: equal where the raw documents are."""
    sha256 = hashlib.sha256()
    for shard in shards:
        rows = open_index(folder, shard)
        raw: Any = np.empty(len(rows), RAW)  # without the offsets, which differ from arm to arm
        for name in RAW.names or ():
            raw[name] = rows[name]
        sha256.update(raw.tobytes())
    return sha256.hexdigest()


def differences(folder: Path, shard: Shard, dtype: np.dtype[Any], width: int, eot: int) -> Iterator[str]:
    """Differences of a shard from what was written, one line each."""
    yield from changes(folder, {shard.file: shard.sha256, shard.documents_file: shard.documents_sha256})
    try:
        refuse_other_length(folder, shard, dtype)
        ids, rows = _mapped_ids(folder, shard, dtype), _mapped_index(folder, shard)
    except BadInput as error:
        yield str(error)
        return
    largest, starts = _scan(ids, eot)
    if largest >= width:
        yield f"{shard.file} holds the id {largest}; the vocabulary ends before {width}"
    if not np.array_equal(starts, rows["offset"]):
        yield f"{shard.file} has ends of text elsewhere than {shard.documents_file} says"


def _scan(ids: np.ndarray, eot: int, step: int = 1 << 24) -> tuple[int, np.ndarray]:
    """The largest id, and where the ends of text are; a piece in memory at a time."""
    largest, found = -1, []
    for at in range(0, len(ids), step):
        piece = np.asarray(ids[at : at + step])
        largest = max(largest, int(piece.max()))
        found.append(np.flatnonzero(piece == eot).astype(np.uint64) + np.uint64(at))
    return largest, np.concatenate(found) if found else np.empty(0, np.uint64)
