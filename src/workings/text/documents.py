"""A reference (path, hub id, generated, drills, docstrings) → a stream of documents, the same every time it is read.

Files of many kinds (`formats.py`) are streamed; none is ever held whole, but a file of text that is one document. A row that is no
document is not passed over: it comes out as a `BadDocument` with its place, and the reader of the stream decides. A byte-order
mark is dropped wherever it stands before a document: no text begins with it.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.arithmetic.generator import ProblemSpec, generate
from workings.errors import BadInput, Failed, first_line
from workings.hub import HubReference
from workings.packing import unpacked_name
from workings.text.datasets import generator_preset, hub_data_set, open_hub
from workings.text.formats import (
    ENDINGS,
    MissingField,
    Place,
    Reading,
    ReadingPosition,
    Record,
    can_read,
    columns_of,
    record_of,
    rows_of_files,
)
from workings.text.selection import Selection, is_pattern, select_files

_MANY = 10**12
_SHORTEST_DOCSTRING = 80
_ABOUT = {"readme.md", "readme.txt", "license.md", "license.txt"} | {"dataset_info.json", "dataset_infos.json"}
_ABOUT |= {"dataset_dict.json", "state.json"}
"""Files at the top of a folder that are about its documents, as the hub and `datasets` write them."""
_MARK = "\ufeff"
_NO_PROSE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


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

    def refused(self) -> BadInput:
        """What to raise where such rows are not to be skipped."""
        return BadInput(f"{self}. Mend it, or leave such documents out, counted, with --skip-bad")


SourceRow = Document | BadDocument


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
    left_out: tuple[str, ...] = ()
    """Names of files below its folder that are not read."""

    @property
    def notes(self) -> list[str]:
        """Facts that its user should know before it is read, one line each."""
        left_out = Selection((), self.left_out).note
        return [note for note in (self.warning, left_out and f"{self.reference}: {left_out}") if note]

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
    skip_bad: bool = False,
) -> Source:
    """Open a source of documents.

    Args:
        reference: A file that ends as `formats.ENDINGS` says; a folder of those or a pattern (`data/*.jsonl`, `**` for any
            folders), read by name order; a hub data set `owner/name[:config][:split=validation][@revision]`, streamed (the
            studies' English is `HuggingFaceFW/fineweb-edu:sample-10BT@<revision>`); `generated[:PRESET]`, problems without end;
            `drills`, those of `arithmetic/drills.py` without end; `docstrings`, those of Python's standard library here.
        field: The column of the text; `question+answer` joins two by a newline.
        separator: What divides a .txt or .md file into documents; by default the file is one. A line end in it stands for
            `\\n` and `\\r\\n` alike.
        seed: Seed of problems and drills.
        name: In file names and tables; by default the end of the reference.
        skip_bad: A file that breaks off or has no such field gives one `BadDocument`, and reading goes on; by default it is an
            error.

    Raises:
        BadInput: The reference is none of these, or the separator is empty.

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
    if separator == "":
        raise BadInput("the separator of documents is empty: give a string such as '\\n\\n', or none")
    selection = select_files(reference, can_read, ENDINGS)
    if selection is None:
        return _from_hub(text, name, field)
    if Path(reference).expanduser().is_dir():
        selection = _without_files_about_it(selection)
    position = ReadingPosition()
    rows = partial(rows_of_files, selection.files, Reading(field, separator, skip_bad), position)
    size = sum(file.path.stat().st_size for file in selection.files)
    return Source(name, text, rows, bytes_on_disk=size, position=position, left_out=selection.left_out)


def _without_files_about_it(selection: Selection) -> Selection:
    """The selection of a folder without its README and the like, unless it holds nothing else."""
    about = [file for file in selection.files if file.name.lower() in _ABOUT]
    kept = tuple(file for file in selection.files if file not in about)
    return Selection(kept, tuple(sorted((*selection.left_out, *(file.name for file in about))))) if kept else selection


def _row(source: str, place: Place, record: Record) -> SourceRow:
    if isinstance(record, ValueError):
        return BadDocument(source, place, str(record))
    if not isinstance(record, str):
        return BadDocument(source, place, f"the text is {type(record).__name__}, not text")
    if record.startswith(_MARK):
        record = record.removeprefix(_MARK)
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
    parts = reference.partition("@")[0].rstrip("/").split("/")
    last = next((part for part in reversed(parts) if not is_pattern(part)), "")
    stem = Path(unpacked_name(last)).stem if can_read(last) else last.lower()
    return re.sub(r"[^a-z0-9-]+", "-", stem).strip("-")[:40] or "documents"


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
    if rows.column_names is not None:
        try:
            rows = rows.select_columns(columns_of(field, rows.column_names))
        except MissingField as error:
            raise BadInput(f"the data set {data_set} has {error}: choose with --field") from None
    for number, row in enumerate(rows, start=1):
        record = record_of(row, field)
        if number == 1 and isinstance(record, MissingField):
            raise BadInput(f"the data set {data_set} has {record}: choose with --field")
        yield Place("", number), record
