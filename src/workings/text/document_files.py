"""Files of documents → (place, text) one at a time: JSON lines, packed or not, Parquet by row group, plain text.

No file is ever held whole, but a .txt file that is one document.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from workings.errors import BadInput

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt")
_CHUNK = 1 << 20


class Place(NamedTuple):
    """Where in a source a row stands, from 1; made into words only when somebody asks."""

    file: str
    """"" where the source is no file."""
    number: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}" if self.file else f"row {self.number}"


Record = Any
"""The text of one row; a ValueError with the reason where it has none; or whatever else stands in its place."""


@dataclass
class Meter:
    """How far a reader has come through its files, in bytes as they lie on the disk (packed or not)."""

    finished: int = 0
    open_file: IO[bytes] | None = None

    @property
    def position(self) -> int:
        return self.finished + (self.open_file.tell() if self.open_file and not self.open_file.closed else 0)


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of documents in a folder and below, by name. BadInput where there is none."""
    if not path.is_dir():
        if not path.name.endswith(ENDINGS):
            raise BadInput(f"{path}: files of documents end in {', '.join(ENDINGS)}; rename or convert it")
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.name.endswith(ENDINGS) and not file.name.startswith(".")
    )
    if not files:
        raise BadInput(f"the folder {path} holds no file that ends in {', '.join(ENDINGS)}")
    return files


def records_in(
    files: Sequence[Path], field: str, separator: str | None, meter: Meter
) -> Iterator[tuple[Place, Record]]:
    """The records of files, one after the other; `meter` shows how far."""
    meter.finished = 0
    for file in files:
        with _opened(file, meter) as content:
            if file.name.endswith(".parquet"):
                yield from _parquet(content, file, field)
            elif file.name.endswith(".txt"):
                yield from _text(content, file, separator)
            else:
                yield from _json_lines(content, file, field)
        meter.finished += file.stat().st_size


def choose(row: Any, field: str, where: str, first: bool) -> Record:
    """The text of a row: one field, or several (`question+answer`) joined by newlines.

    BadInput where the first row has no such field (the user named the wrong one); later it is the row's fault.
    """
    if not isinstance(row, dict):
        return ValueError(f"the row is a {type(row).__name__}, not an object with fields")
    if field in row:
        return row[field]
    names = field.split("+")
    if not all(name in row for name in names):
        error = missing_field(where, field, list(row))
        if first:
            raise error
        return ValueError(str(error))
    return _joined([row[name] for name in names])


def missing_field(where: str, field: str, columns: Iterable[str]) -> BadInput:
    return BadInput(f"{where} has no field '{field}'; it has {', '.join(columns) or 'none'}: choose with --field")


def _joined(texts: Sequence[Any]) -> Record:
    wrong = [text for text in texts if not isinstance(text, str)]
    return ValueError(f"a field is {type(wrong[0]).__name__}, not text") if wrong else "\n".join(texts)


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json_lines(lines: IO[bytes], file: Path, field: str) -> Iterator[tuple[Place, Record]]:
    first = True
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            row = json.loads(line.decode())  # told that it is UTF-8, json need not find out
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
            yield Place(file.name, number), ValueError(f"not JSON: {error}")
            continue
        yield Place(file.name, number), choose(row, field, str(file), first)
        first = False


def _parquet(content: IO[bytes], file: Path, field: str) -> Iterator[tuple[Place, Record]]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(content)
    names = field.split("+")
    if not set(names) <= set(table.schema_arrow.names):
        raise missing_field(str(file), field, table.schema_arrow.names)
    number = 0
    for group in range(table.num_row_groups):
        for batch in table.iter_batches(batch_size=1000, row_groups=[group], columns=names):
            for row in batch.to_pylist():
                number += 1
                yield Place(file.name, number), choose(row, field, str(file), first=False)


def _text(content: IO[bytes], file: Path, separator: str | None) -> Iterator[tuple[Place, Record]]:
    pieces = [content.read()] if separator is None else _pieces(content, separator.encode())
    for number, piece in enumerate(pieces, start=1):
        if separator is not None and not piece.strip():
            continue  # what follows the last separator is no document
        try:
            yield Place(file.name, number), piece.decode()
        except UnicodeDecodeError as error:
            yield Place(file.name, number), ValueError(f"not UTF-8: byte {error.start + 1} of the document")


def _pieces(content: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """What lies between separators, a chunk of the file in memory at a time."""
    left = b""
    while chunk := content.read(_CHUNK):
        *whole, left = (left + chunk).split(separator)
        yield from whole
    yield left


@contextmanager
def _opened(file: Path, meter: Meter) -> Generator[IO[bytes]]:
    """The bytes of a file, unpacked. BadInput where it cannot be opened."""
    try:
        raw = file.open("rb")
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    with raw:
        meter.open_file = raw
        if file.name.endswith(".gz"):
            with gzip.open(raw) as content:
                yield content  # type: ignore
        elif file.name.endswith(".zst"):
            import pyarrow as pa

            with pa.CompressedInputStream(raw, "zstd") as content:
                yield io.BufferedReader(content, _CHUNK)
        else:
            yield raw
