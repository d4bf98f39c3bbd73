"""A reference (path, hub id, generated, drills, docstrings) → a stream of documents, the same every time it is read.

What is no text is not passed over: it comes out as an `Unreadable` with its place, and who reads decides.
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

from workings.arithmetic.generator import ProblemSpec, generate
from workings.arithmetic.problems import Problem
from workings.errors import BadInput, Failed
from workings.hub import HubReference
from workings.text.datasets import generator_preset, hub_data_set, open_hub
from workings.text.document_files import Meter, Place, Record, choose, files_of, missing_field, records_in

_MANY = 10**12
_SHORTEST_DOCSTRING = 80
_NO_PROSE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


class Document(NamedTuple):
    """A raw text: before any rewriting, so the same in every arm."""

    text: str
    source: str
    place: Place = Place("", 0)
    n_bytes: int = 0
    """Of the text in UTF-8."""


class Unreadable(NamedTuple):
    """A row that is no document."""

    source: str
    place: Place
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, {self.place}: {self.reason}"


Row = Document | Unreadable


@dataclass(frozen=True)
class Source:
    """Where documents come from. Iterating starts at the beginning again and gives the same rows."""

    name: str
    """In file names and tables: letters, digits, - and _."""
    reference: str
    records: Callable[[], Iterator[tuple[Place, Record]]]
    is_endless: bool = False
    bytes_on_disk: int | None = None
    """Of its files as they lie there (packed or not); None where it has none."""
    meter: Meter = dataclass_field(default_factory=Meter, compare=False)
    warning: str = ""

    def __iter__(self) -> Iterator[Row]:
        """Rows in order. Failed where the stream breaks off: a half-read source is not a short one."""
        number = 0
        try:
            for place, record in self.records():
                number += 1
                yield _row(self.name, place, record)
        except (BadInput, Failed):
            raise
        except Exception as error:  # whatever the library of the format, the network or a generator raises
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            message = f"{self.reference}: the stream of documents broke off after row {number:,}: {reason}"
            raise Failed(f"{message}. Nothing is lost: the same command goes on from there") from error


def open_documents(
    reference: str | Path,
    *,
    field: str = "text",
    separator: str | None = None,
    seed: int = 0,
    name: str = "",
) -> Source:
    """The source of a reference.

    A path is a .jsonl[.gz|.zst], .parquet or .txt file or a folder of those (by name order); `owner/name[:config][@revision]`
    a hub data set, streamed (the studies' English: `HuggingFaceFW/fineweb-edu:sample-10BT@<revision>`; mathematics:
    `open-web-math/open-web-math`); `generated[:preset]` problems of our generator; `drills` those of `drills.py`, endless;
    `docstrings` those of Python's standard library here. `field` is the column of the text (`question+answer` joins two
    by a newline), `separator` divides a .txt file into documents. BadInput where the reference is none of these.
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
        files = files_of(path)
        size = sum(file.stat().st_size for file in files)
        meter = Meter()
        return Source(name, text, partial(records_in, files, field, separator, meter), bytes_on_disk=size, meter=meter)
    return _from_hub(text, name, field)


def _row(source: str, place: Place, record: Record) -> Row:
    if isinstance(record, ValueError):
        return Unreadable(source, place, str(record))
    if not isinstance(record, str):
        return Unreadable(source, place, f"the text is {type(record).__name__}, not text")
    if not record.strip():
        return Unreadable(source, place, "the text is empty")
    try:
        n_bytes = len(record) if record.isascii() else len(record.encode())
    except UnicodeEncodeError as error:
        reason = f"character {error.start + 1} is half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        return Unreadable(source, place, reason)
    return Document(record, source, place, n_bytes)


def _name_of(reference: str) -> str:
    """A short name that is safe in a file name: the last part of a path or id, without ending or revision."""
    last = reference.partition("@")[0].rstrip("/").rpartition("/")[2]
    stem = re.sub(r"\.(jsonl|parquet|txt|json)?(\.gz|\.zst)?$", "", last)
    return re.sub(r"[^A-Za-z0-9-]+", "-", stem).strip("-").lower()[:40] or "documents"


# ── made here ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _generated(spec: ProblemSpec, seed: int) -> Iterator[tuple[Place, Record]]:
    for number, problem in enumerate(generate(_MANY, spec, seed), start=1):
        yield Place("", number), _text_of(problem)


def _text_of(problem: Problem) -> str:
    """A problem as a text: its question, one equation a line, its answer as GSM8K marks it."""
    steps = [f"{step.expression}={step.result}" for step in problem.steps]
    return "\n".join([problem.question, *steps, f"#### {problem.answer}"])


def _drills(seed: int) -> Iterator[tuple[Place, Record]]:
    from workings.arithmetic.drills import DrillSpec, drill_documents

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
            raise missing_field(f"the data set {data_set.name}", field, columns)
        rows = rows.select_columns(wanted)
    for number, row in enumerate(rows, start=1):
        yield Place("", number), choose(row, field, f"the data set {data_set.name}", first=number == 1)
