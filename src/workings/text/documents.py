"""A reference (path, hub id, generated, drills, docstrings) → a stream of documents, the same every time it is read.

Files are JSON lines, packed or not, Parquet (by row group) or plain text; none is ever held whole, but a .txt file that is
one document. A row that is no document is not passed over: it comes out as a `BadDocument` with its place, and the reader of
the stream decides.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import re
import sysconfig
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any, NamedTuple

from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.arithmetic.generator import ProblemSpec, generate
from workings.errors import BadInput, Failed, first_line
from workings.hub import HubReference
from workings.text.datasets import generator_preset, hub_data_set, open_hub

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt")
_CHUNK = 1 << 20
_MANY = 10**12
_SHORTEST_DOCSTRING = 80
_NO_PROSE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


class Place(NamedTuple):
    """Where in a source a row stands, from 1; made into words only when somebody asks."""

    file: str
    """"" where the source is no file."""
    number: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}" if self.file else f"row {self.number}"


Record = object
"""The text of one row; a ValueError with the reason where it has none; or whatever else stands in its place."""


class Document(NamedTuple):
    """A raw text: before any rewriting, so the same in every arm."""

    text: str
    source: str
    place: Place = Place("", 0)
    n_bytes: int = 0
    """Length of the text in UTF-8."""


class BadDocument(NamedTuple):
    """A row that is no document."""

    source: str
    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, {self.place}: {self.reason}"


SourceRow = Document | BadDocument


@dataclass
class ReadingPosition:
    """How far a reader has come through its files."""

    finished: int = 0
    open_file: IO[bytes] | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes read, as they lie on the disk (packed or not)."""
        return self.finished + (self.open_file.tell() if self.open_file and not self.open_file.closed else 0)


@dataclass(frozen=True)
class Source:
    """Where documents come from. Iterating starts at the beginning again and gives the same rows."""

    name: str
    """In file names and tables: letters, digits, - and _."""
    reference: str
    records: Callable[[], Iterator[tuple[Place, Record]]]
    is_endless: bool = False
    bytes_on_disk: int | None = None
    """Total size of its files as they lie there (packed or not); None where it has none."""
    position: ReadingPosition = dataclass_field(default_factory=ReadingPosition, compare=False)
    warning: str = ""

    def __iter__(self) -> Iterator[SourceRow]:
        """Rows in order. Failed where the stream breaks off: a half-read source is not a short one."""
        number = 0
        try:
            for place, record in self.records():
                number += 1
                yield _row(self.name, place, record)
        except (BadInput, Failed):
            raise
        except Exception as error:  # whatever the library of the format, the network or a generator raises
            raise Failed(
                f"{self.reference}: the stream of documents broke off after row {number:,}: {first_line(error)}. "
                "Nothing is lost: the same command goes on from there"
            ) from error


def open_documents(
    reference: str | Path,
    *,
    field: str = "text",
    separator: str | None = None,
    seed: int = 0,
    name: str = "",
) -> Source:
    """Open a source of documents.

    Args:
        reference: A .jsonl[.gz|.zst], .parquet or .txt file or a folder of those (read by name order); a hub data set
            `owner/name[:config][@revision]`, streamed (the studies' English is
            `HuggingFaceFW/fineweb-edu:sample-10BT@<revision>`); `generated[:PRESET]`, problems without end; `drills`,
            those of `arithmetic/drills.py` without end; `docstrings`, those of Python's standard library here.
        field: The column of the text; `question+answer` joins two by a newline.
        separator: What divides a .txt file into documents; by default the file is one.
        seed: Seed of problems and drills.
        name: In file names and tables; by default the end of the reference.

    Raises:
        BadInput: The reference is none of these.

    Example:
        >>> document = next(iter(open_documents("generated", seed=3)))
        >>> document.source, document.n_bytes == len(document.text.encode())
        ('generated', True)
    """
    text = str(reference)
    name, spec = name or _name_of(text), generator_preset(text)
    if spec is not None:
        return Source(name, text, partial(_generated, spec, seed), is_endless=True)
    if text == "drills":
        return Source(name, text, partial(_drills, seed), is_endless=True)
    if text == "docstrings":
        return Source(name, text, docstrings)
    path = Path(reference).expanduser()
    if path.exists():
        files = _files_of(path)
        size = sum(file.stat().st_size for file in files)
        position = ReadingPosition()
        records = partial(_records_in, files, field, separator, position)
        return Source(name, text, records, bytes_on_disk=size, position=position)
    return _from_hub(text, name, field)


def _row(source: str, place: Place, record: Record) -> SourceRow:
    if isinstance(record, ValueError):
        return BadDocument(source, place, str(record))
    if not isinstance(record, str):
        return BadDocument(source, place, f"the text is {type(record).__name__}, not text")
    if not record.strip():
        return BadDocument(source, place, "the text is empty")
    try:
        n_bytes = len(record) if record.isascii() else len(record.encode())
    except UnicodeEncodeError as error:
        reason = f"character {error.start + 1} is half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        return BadDocument(source, place, reason)
    return Document(record, source, place, n_bytes)


def _name_of(reference: str) -> str:
    """A short name that is safe in a file name: the last part of a path or id, without ending or revision."""
    last = reference.partition("@")[0].rstrip("/").rpartition("/")[2]
    stem = re.sub(r"\.(jsonl|parquet|txt|json)?(\.gz|\.zst)?$", "", last)
    return re.sub(r"[^A-Za-z0-9-]+", "-", stem).strip("-").lower()[:40] or "documents"


# ── from files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _files_of(path: Path) -> list[Path]:
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


def _records_in(
    files: Sequence[Path], field: str, separator: str | None, position: ReadingPosition
) -> Iterator[tuple[Place, Record]]:
    """The records of files, one after the other; `position` shows how far."""
    position.finished = 0
    for file in files:
        with _opened(file, position) as content:
            if file.name.endswith(".parquet"):
                yield from _parquet(content, file, field)
            elif file.name.endswith(".txt"):
                yield from _text(content, file, separator)
            else:
                yield from _json_lines(content, file, field)
        position.finished += file.stat().st_size


@contextmanager
def _opened(file: Path, position: ReadingPosition) -> Generator[IO[bytes]]:
    """The bytes of a file, unpacked. BadInput where it cannot be opened."""
    try:
        raw = file.open("rb")
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    with raw:
        position.open_file = raw
        if file.name.endswith(".gz"):
            with gzip.open(raw) as content:
                yield content  # type: ignore
        elif file.name.endswith(".zst"):
            import pyarrow as pa

            with pa.CompressedInputStream(raw, "zstd") as content:
                yield io.BufferedReader(content, _CHUNK)
        else:
            yield raw


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
        yield Place(file.name, number), _choose(row, field, str(file), first)
        first = False


def _parquet(content: IO[bytes], file: Path, field: str) -> Iterator[tuple[Place, Record]]:
    import pyarrow.parquet as pq  # 0.1 s: not for every --help

    table = pq.ParquetFile(content)
    names = field.split("+")
    if not set(names) <= set(table.schema_arrow.names):
        raise _missing_field(str(file), field, table.schema_arrow.names)
    number = 0
    for group in range(table.num_row_groups):
        for batch in table.iter_batches(batch_size=1000, row_groups=[group], columns=names):
            for row in batch.to_pylist():
                number += 1
                yield Place(file.name, number), _choose(row, field, str(file), first=False)


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
    """The pieces between separators, a chunk of the file in memory at a time."""
    left = b""
    while chunk := content.read(_CHUNK):
        *whole, left = (left + chunk).split(separator)
        yield from whole
    yield left


def _choose(row: Any, field: str, source: str, first: bool) -> Record:
    """The text of a row: one field, or several (`question+answer`) joined by newlines.

    BadInput where the first row has no such field (the user named the wrong one); later it is the row's fault.
    """
    if not isinstance(row, dict):
        return ValueError(f"the row is a {type(row).__name__}, not an object with fields")
    if field in row:
        return row[field]
    names = field.split("+")
    if not all(name in row for name in names):
        error = _missing_field(source, field, list(row))
        if first:
            raise error
        return ValueError(str(error))
    texts = [row[name] for name in names]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    return "\n".join(texts) if wrong is None else ValueError(f"a field is {type(wrong).__name__}, not text")


def _missing_field(source: str, field: str, columns: Iterable[str]) -> BadInput:
    return BadInput(f"{source} has no field '{field}'; it has {', '.join(columns) or 'none'}: choose with --field")


# ── made here ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _generated(spec: ProblemSpec, seed: int) -> Iterator[tuple[Place, Record]]:
    """Problems as texts: the question, one equation a line, the answer as GSM8K marks it."""
    for number, problem in enumerate(generate(_MANY, spec, seed), start=1):
        steps = [f"{step.expression}={step.result}" for step in problem.steps]
        yield Place("", number), "\n".join([problem.question, *steps, f"#### {problem.answer}"])


def _drills(seed: int) -> Iterator[tuple[Place, Record]]:
    for number, text in zip(count(1), drill_documents(DrillSpec(), seed), strict=False):
        yield Place("", number), text


def docstrings() -> Iterator[tuple[Place, Record]]:
    """The longer docstrings of Python's standard library, one a document: English on a machine with no data at all.

    About 4,500 documents, 1.6 MB; the same for one version of Python.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if _NO_PROSE.isdisjoint(name.parts):
            yield from _docstrings_in(file, name.as_posix())


def _docstrings_in(file: Path, name: str) -> Iterator[tuple[Place, Record]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the library ships files that are broken on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= _SHORTEST_DOCSTRING:
                yield Place(name, getattr(node, "lineno", 1)), text


# ── from the hub ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_hub(reference: str, name: str, field: str) -> Source:
    if "/" not in reference:  # a misspelt path should not be looked for on the hub hours later, when its turn comes
        raise BadInput(
            f"no documents at {reference}: there is no such file. Name a file, a folder, a hub data set "
            "(owner/name:config@revision), 'generated', 'drills' or 'docstrings'."
        )
    data_set = hub_data_set(reference, "documents")
    warning = "" if data_set.revision else f"{reference} names no revision: pin one with @, or the data may change"
    return Source(name, reference, partial(_hub_records, data_set, field), warning=warning)


def _hub_records(data_set: HubReference, field: str) -> Iterator[tuple[Place, Record]]:
    rows = open_hub(data_set, "train")
    columns = rows.column_names
    if columns is not None:
        wanted = field.split("+")
        if not set(wanted) <= set(columns):
            raise _missing_field(f"the data set {data_set.name}", field, columns)
        rows = rows.select_columns(wanted)
    for number, row in enumerate(rows, start=1):
        yield Place("", number), _choose(row, field, f"the data set {data_set.name}", first=number == 1)
