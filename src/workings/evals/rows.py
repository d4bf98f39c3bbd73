"""A reference to judged material (a local JSON-lines file, a folder of them, a hub id) → its rows, each with its place.

A row that is no row is an error with its line: a benchmark with a hole in it is another benchmark.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workings.errors import BadInput

Row = Mapping[str, Any]
_ENDINGS = (".jsonl", ".jsonl.gz")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?(@[\w./-]+)?")


def rows_of(reference: str | Path, split: str) -> Iterator[tuple[str, Row]]:
    """(place, row) in order. `split` names the hub data set's split, or the file in a folder (`test` finds `test.jsonl`).

    BadInput for a reference that is not there, a file that cannot be read, and a line that is no JSON object.
    """
    path = local_file(reference, split)
    if path is not None:
        yield from _lines(path)
        return
    text = str(reference)
    if not _HUB_ID.fullmatch(text) or text.endswith((".gz", ".json", ".jsonl", ".txt")):
        raise BadInput(f"no data at {reference}: there is no such file. Name a JSON-lines file, a folder, or a hub id.")
    for number, row in enumerate(_hub(text, split), start=1):
        yield f"{text} ({split}), row {number}", row


def local_file(reference: str | Path, split: str) -> Path | None:
    """The file that a local reference means; None where nothing of that name is here."""
    path = Path(reference).expanduser()
    if not path.is_dir():
        return path if path.exists() else None
    files = sorted(file for file in path.iterdir() if file.name.endswith(_ENDINGS))
    named = [file for file in files if split[:3] in re.split(r"[._-]", file.name) or split in file.name]
    found = named if named or len(files) != 1 else files
    if len(found) != 1:
        raise BadInput(
            f"{path} holds {len(found)} JSON-lines files for the split '{split}' "
            f"(there are {', '.join(file.name for file in files) or 'none'}): name the file"
        )
    return found[0]


def content_ids(contents: Iterable[Any]) -> list[str]:
    """16 hex digits of each content, the same wherever it stands; a repetition gets `#2`, `#3` …, so that all differ."""
    seen: Counter[str] = Counter()
    ids = []
    for content in contents:
        digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:16]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}#{seen[digest]}")
    return ids


def text_field(row: Row, name: str, place: str) -> str:
    """A field that must be text with something in it."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        has = "no such field" if name not in row else f"{value!r:.40}"
        raise BadInput(f"{place}: the field '{name}' must be text, but there is {has}; mend or delete the row")
    return value


def _lines(path: Path) -> Iterator[tuple[str, Row]]:
    n_rows = 0
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place}: not JSON: {error}; mend or delete the line") from None
        if not isinstance(row, dict):
            raise BadInput(f"{place}: a {type(row).__name__}, not an object with fields; mend or delete the line")
        n_rows += 1
        yield place, row
    if not n_rows:
        raise BadInput(f"{path} is empty; give a file with at least one row")


def _text(path: Path) -> str:
    if not path.name.endswith(_ENDINGS):
        raise BadInput(f"{path}: a file of rows ends in {' or '.join(_ENDINGS)}; rename or convert it")
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start + 1}); convert it first") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _hub(reference: str, split: str) -> Iterable[Row]:
    from workings.text.datasets import hub_rows

    name, _, revision = reference.partition("@")
    name, _, config = name.partition(":")
    return hub_rows(name, config or None, revision or None, split)
