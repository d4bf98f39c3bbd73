"""Files → the rows in them, each with its place, streamed: one table says which endings are read, and how.

A row without a text comes out as a ValueError with the reason, and the reader of the stream decides. A file that cannot be read
to its end is an error that names it, or, where bad rows are skipped, one more such row.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from workings.errors import BadInput, first_line
from workings.hub import refuse_pointers
from workings.packing import DAMAGE, PACKINGS, unpacked, unpacked_name
from workings.text.selection import Found

_CHUNK = 1 << 20
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BLANK = re.compile(r"[ \t\r\n]*")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class Place(NamedTuple):
    """Where in a source a row stands, from 1; made into words only when somebody asks."""

    file: str
    """"" where the source is no file."""
    number: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.number}" if self.file else f"row {self.number}"


Record = object
"""The text of one row; a ValueError with the reason where it has none; or whatever else stands in its place."""
Numbered = Iterator[tuple[int, Record]]


class MissingField(ValueError):
    """A row, or a whole table, has not the fields that were asked for."""

    def __init__(self, field: str, there: Iterable[str]) -> None:
        super().__init__(f"no field '{field}'; it has {', '.join(there) or 'none'}")


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    field: str = "text"
    """The field of the text; `question+answer` joins two by a newline."""
    separator: str | None = None
    """What divides a file of text into documents; a line end in it stands for those of Windows too."""
    skip_bad: bool = False
    """What cannot be read of a file comes out as a bad row, instead of ending the stream."""


@dataclass
class ReadingPosition:
    """How far a reader has come through its files."""

    finished: int = 0
    open_file: IO[bytes] | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes read, as they lie on the disk (packed or not)."""
        return self.finished + (self.open_file.tell() if self.open_file and not self.open_file.closed else 0)


def can_read(name: str) -> bool:
    """Whether a file of this name is read.

    Example:
        >>> can_read("train.csv.gz"), can_read("train.zip")
        (True, False)
    """
    return _reader(name) is not None


def rows_of_files(files: Sequence[Found], how: Reading, position: ReadingPosition) -> Iterator[tuple[Place, Record]]:
    """The rows of files, one file after the other; `position` shows how far.

    Raises:
        BadInput: A file cannot be read or its rows have other fields, unless such are skipped; or the separator is in no file.
    """
    position.finished = 0
    if how.separator is not None:
        _check_separator(files, how.separator)
    for file in files:
        yield from _rows_of_file(file, how, position)
        position.finished += file.path.stat().st_size


def _rows_of_file(file: Found, how: Reading, position: ReadingPosition) -> Iterator[tuple[Place, Record]]:
    read, last = _reader(file.path.name), 0
    assert read is not None, "files are selected by can_read"
    try:
        refuse_pointers(file.path)
        with _opened(file.path, position) as content:
            for number, record in read(content, how):
                if not last and isinstance(record, MissingField) and not how.skip_bad:
                    raise record  # the user named the wrong field; later it is the row's fault
                last = number
                yield Place(file.name, number), record
    except BadInput as error:
        if not how.skip_bad:
            raise
        yield Place(file.name, 1), ValueError(str(error))
    except MissingField as error:
        if not how.skip_bad:
            raise BadInput(f"{file.path} has {error}: choose with --field, or leave out the file") from None
        yield Place(file.name, last + 1), ValueError(f"{error}; the file is left out")
    except (*DAMAGE, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        if not how.skip_bad:
            where = f" beyond row {last:,}" if last else ""
            raise BadInput(
                f"{file.path} cannot be read{where} ({reason}): copy it again, or leave that out, counted, with --skip-bad"
            ) from error
        yield Place(file.name, last + 1), ValueError(f"the rest of the file cannot be read: {reason}")


@contextmanager
def _opened(path: Path, position: ReadingPosition) -> Generator[io.BufferedReader]:
    """The unpacked content of a file."""
    with path.open("rb") as raw:
        position.open_file = raw
        with unpacked(raw, path.name) as content:
            yield content


def record_of(row: Any, field: str) -> Record:
    """The text of a row: one field, or several (`question+answer`) joined by newlines."""
    if not isinstance(row, dict):
        return ValueError(f"the row is a {type(row).__name__}, not an object with fields")
    if field in row:
        return row[field]
    names = field.split("+")
    if not all(name in row for name in names):
        return MissingField(field, row)
    return _joined([row[name] for name in names])


def _joined(values: Sequence[Any]) -> Record:
    wrong = [type(value).__name__ for value in values if not isinstance(value, str)]
    if len(values) == 1:
        return values[0]
    return ValueError(f"a field is {wrong[0]}, not text") if wrong else "\n".join(values)


def columns_of(field: str, there: Sequence[str]) -> list[str]:
    """The columns of a table that `field` names. MissingField where one is not there."""
    names = [field] if field in there else field.split("+")
    if not set(names) <= set(there):
        raise MissingField(field, there)
    return names


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json_lines(lines: Iterable[bytes], how: Reading) -> Numbered:
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            row = json.loads(line.decode())  # told that it is UTF-8, json need not find out
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
            if line.startswith(codecs.BOM_UTF8):  # the first line, or that of a file joined on
                yield from ((number, record) for _, record in _json_lines([line.removeprefix(codecs.BOM_UTF8)], how))
            else:
                yield number, ValueError(f"not JSON: {other_encoding(line) or error}")
            continue
        yield number, record_of(row, how.field)


def _json(content: io.BufferedReader, how: Reading) -> Numbered:
    """A list of rows, one row written over several lines, or a row in each line: all are called .json."""
    start = 1
    while (byte := content.peek(1)[:1]) and byte in codecs.BOM_UTF8 + b" \t\r\n":
        start += content.read(1) == b"\n"
    if byte == b"[":
        for number, row in enumerate(_elements(content), start=1):
            yield number, record_of(row, how.field)
        return
    first = content.readline()
    whole = first.rstrip().endswith(b"}")
    lines = chain([first], content) if whole else [first + content.read()] if first else []
    yield from ((start - 1 + number, record) for number, record in _json_lines(lines, how))


def _elements(content: IO[bytes]) -> Iterator[Any]:
    """The elements of a JSON list, a chunk of it in memory at a time. ValueError where it breaks: nothing behind can be read."""
    decode, decode_row = codecs.getincrementaldecoder("utf-8")().decode, json.JSONDecoder().raw_decode
    text, at, mark, more = "", 0, "[", True
    while True:
        try:
            start = _skip_blank(text, at)
            if text[start] != mark:
                break
            start = _skip_blank(text, start + 1)
            if mark == "[" and text[start] == "]":
                break
            row, end = decode_row(text, start)
            _ = text[_skip_blank(text, end)]  # at the end of the text a number might go on
        except (IndexError, json.JSONDecodeError) as error:
            if not more or _is_wrong(error, text):
                raise ValueError(f"the JSON list breaks: {getattr(error, 'msg', 'it has no end')}") from None
            chunk = content.read(max(_CHUNK, len(text) - at))
            text, at, more = text[at:] + decode(chunk, final=not chunk), 0, bool(chunk)
            continue
        except RecursionError:
            raise ValueError("the JSON list breaks: a row nests too deeply") from None
        yield row
        at, mark = end, ","
    if text[start] != "]":
        raise ValueError("the JSON list breaks: neither ',' nor ']' after a row")
    if text[start + 1 :].strip() or content.read().strip():
        raise ValueError("something follows the closing ']' of the JSON list; delete it")


def _skip_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _is_wrong(error: Exception, text: str) -> bool:
    """Whether no further text could mend a row: the fault is not where the text ends, nor a string that does not."""
    if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated string"):
        return False
    return error.pos < len(text) - 16  # longer than every word and escape of JSON


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _separated(delimiter: str, content: io.BufferedReader, how: Reading) -> Numbered:
    """Rows of a CSV file below its header; as in a spreadsheet, the header is row 1."""
    if wrong := other_encoding(content.peek(2)):
        raise ValueError(wrong)
    csv.field_size_limit(sys.maxsize)  # of the whole process; its default would refuse documents of 128 kB
    lines = io.TextIOWrapper(content, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header = next(rows, None)
    if header is None:
        return
    at = [header.index(name) for name in columns_of(how.field, header)]
    for number in count(2):
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield number, ValueError(f"not CSV: {error}")
            continue
        if row is None:
            return
        if len(row) == len(header):
            record = _joined([row[i] for i in at])
            is_text = isinstance(record, str) and (record.isascii() or not _ESCAPED_BYTE.search(record))
            yield number, record if is_text else ValueError("not UTF-8")
        elif row:
            yield number, ValueError(f"{len(row)} fields, where the header has {len(header)}")


def _parquet(content: io.BufferedReader, how: Reading) -> Numbered:
    import pyarrow.parquet as pq  # 0.1 s: not for every --help

    with _arrow_errors():
        table = pq.ParquetFile(content)
        names = columns_of(how.field, table.schema_arrow.names)
        groups = range(table.num_row_groups)
        batches = (b for i in groups for b in table.iter_batches(batch_size=1000, row_groups=[i], columns=names))
        yield from _rows_of_batches(batches, names)


def _arrow(content: io.BufferedReader, how: Reading) -> Numbered:
    """Batches as `datasets` saves them (a stream), or as other programs do (a file)."""
    import pyarrow as pa

    with _arrow_errors():
        is_file = content.peek(6)[:6] == b"ARROW1"
        table = pa.ipc.open_file(content) if is_file else pa.ipc.open_stream(content)
        names = columns_of(how.field, table.schema.names)
        batches = (table.get_batch(i) for i in range(table.num_record_batches)) if is_file else table
        yield from _rows_of_batches((batch.select(names) for batch in batches), names)


def _rows_of_batches(batches: Iterable[Any], names: Sequence[str]) -> Numbered:
    rows = (row for batch in batches for row in batch.to_pylist())
    yield from ((number, _joined([row[name] for name in names])) for number, row in enumerate(rows, start=1))


@contextmanager
def _arrow_errors() -> Generator[None]:
    """Inside, what Arrow says of a file that it cannot read is a ValueError."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        raise ValueError(first_line(error)) from error


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text(content: io.BufferedReader, how: Reading) -> Numbered:
    pieces = [content.read()] if how.separator is None else _pieces(content, how.separator)
    for number, piece in enumerate(pieces, start=1):
        if how.separator is not None and not piece.strip():
            continue  # what follows the last separator is no document
        try:
            yield number, piece.decode()
        except UnicodeDecodeError as error:
            yield number, ValueError(other_encoding(piece) or f"not UTF-8: byte {error.start + 1} of the document")


def _pieces(content: IO[bytes], separator: str) -> Iterator[bytes]:
    """The pieces between separators; in memory are one and a chunk of the file."""
    plain = separator.replace("\r\n", "\n").encode()
    windows = re.compile(re.escape(plain).replace(b"\\\n", b"\r?\n"))
    left = b""
    while chunk := content.read(max(_CHUNK, len(left))):  # as much again: a long piece is not split over and over
        text = left + chunk
        *whole, left = windows.split(text) if b"\r" in text else text.split(plain)
        yield from whole
    yield left


def _check_separator(files: Sequence[Found], separator: str) -> None:
    """BadInput where no file of text holds the separator: each would silently be one document."""
    texts = [file for file in files if _reader(file.path.name) is _text]
    if texts and not any(_is_divided(file.path, separator) for file in texts):
        where = texts[0].path if len(texts) == 1 else f"any of {len(texts)} files of text ({texts[0].path}, …)"
        raise BadInput(f"the separator {separator!r} does not occur in {where}: give another, or none")


def _is_divided(path: Path, separator: str) -> bool:
    """Whether the separator occurs; true of what cannot be read, which its reader will say better."""
    try:
        with _opened(path, ReadingPosition()) as content:
            return len(list(islice(_pieces(content, separator), 2))) > 1
    except DAMAGE:
        return True


def other_encoding(start: bytes) -> str:
    """What is wrong with a file that begins so, if the byte-order mark of another encoding says it; "" otherwise."""
    return "it is UTF-16 or UTF-32: convert it to UTF-8" if start.startswith(_OTHER_MARKS) else ""


# ── which ending is read how ─────────────────────────────────────────────────────────────────────────────────────────

_READERS: dict[str, Callable[[io.BufferedReader, Reading], Numbered]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_separated, ","),
    ".tsv": partial(_separated, "\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".txt": _text,
    ".md": _text,
}
_NEVER_PACKED = (".parquet", ".arrow")  # their libraries seek, and pack by themselves
ENDINGS = f"{', '.join(_READERS)} (and, but for {' and '.join(_NEVER_PACKED)}, {', '.join(PACKINGS)} behind that)"


def _reader(name: str) -> Callable[[io.BufferedReader, Reading], Numbered] | None:
    """The function that reads a file of this name; None where there is none."""
    plain = unpacked_name(name)
    ending = Path(plain).suffix
    return None if ending in _NEVER_PACKED and plain != name.lower() else _READERS.get(ending)
