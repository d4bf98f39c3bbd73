"""A reference to data → its rows, or its problems. What a reference means is said here and nowhere else:

    generated[:PRESET]               problems drawn from our own generator; the split train has other structures than the rest
    a path                           a file, or a folder with one JSON-lines or Parquet file for each split
    owner/name[:config][:split=SPLIT][@revision]
                                     a data set on the hub, streamed; none of its code is run

`read_rows` stops at a row that cannot be read: a benchmark with a hole in it is another benchmark. `load_problems` lists it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workings.arithmetic.generator import PRESETS, ProblemSpec, generate
from workings.arithmetic.problems import (
    ChainCounts,
    Malformed,
    ProblemFile,
    is_parquet,
    numbered_lines,
    parquet_rows,
    problem_of_row,
    read_problems,
    text_in,
)
from workings.errors import BadInput
from workings.hub import HubReference, hub_errors
from workings.progress import is_quiet, say

if TYPE_CHECKING:
    from datasets import IterableDataset

Row = Mapping[str, Any]
_JSON_LINES = (".jsonl", ".jsonl.gz")
_ROWS = (*_JSON_LINES, ".parquet")
_MOST_LISTED = 10


# ── what a reference means ───────────────────────────────────────────────────────────────────────────────────────────


def generator_preset(reference: str) -> ProblemSpec | None:
    """The specification that `generated[:PRESET]` names; None for other references. BadInput for an unknown preset."""
    kind, _, preset = reference.partition(":")
    if kind != "generated":
        return None
    preset = preset or "bundled"
    if preset not in PRESETS:
        raise BadInput(f"no preset '{preset}' of generated problems; there are {', '.join(PRESETS)}")
    return PRESETS[preset]


def local_file(reference: str | Path, split: str) -> Path | None:
    """The file that a local reference names; None where no file or folder of that name exists.

    In a folder it is the JSON-lines or Parquet file of the split (`test` finds `test.jsonl`), or the only one. BadInput where
    that leaves none or several.
    """
    path = Path(reference).expanduser()
    if not path.is_dir():
        return path if path.exists() else None
    files = sorted(file for file in path.iterdir() if file.name.endswith(_ROWS) and not file.name.startswith("."))
    named = [file for file in files if split[:3] in re.split(r"[._-]", file.name) or split in file.name]
    found = named if named or len(files) != 1 else files
    if len(found) != 1:
        raise BadInput(
            f"{path} holds {len(found)} JSON-lines or Parquet files for the split '{split}' "
            f"(there are {', '.join(file.name for file in files) or 'none'}): name the file"
        )
    return found[0]


def hub_data_set(reference: str, contents: str) -> HubReference:
    """The hub data set that a reference names. BadInput where it cannot be one, so that it was a path of nothing."""
    found = HubReference.parse(reference)
    if found is None:
        raise BadInput(
            f"no {contents} at {reference}: there is no such file. Name a file, a folder, a hub data set "
            "(owner/name:config:split=train@revision) or 'generated'."
        )
    return found


def open_hub(data_set: HubReference, split: str) -> IterableDataset:
    """The rows of a hub data set, streamed: of `split`, or of the one that the reference names itself.

    BadInput or Failed where the hub does not give it (`hub_errors`).
    """
    from datasets import load_dataset  # 1.4 s: here, for those who ask the hub

    with hub_errors(str(data_set), unusable=(Exception,)):
        return load_dataset(
            data_set.name,
            data_set.config,
            revision=data_set.revision,
            split=data_set.split or split,
            streaming=True,
        )


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_rows(reference: str | Path, split: str) -> Iterator[tuple[str, Row]]:
    """The rows of a JSON-lines or Parquet file, of a folder of those, or of a hub data set, each with its place for messages.

    Args:
        reference: A path or a hub reference.
        split: The split of the hub data set, or the file in the folder.

    Yields:
        (place, row) in order.

    Raises:
        BadInput: Nothing is there, a file cannot be read, or a line is not a JSON object.
    """
    path = local_file(reference, split)
    if path is not None:
        yield from _parquet(path) if is_parquet(path) else _json_lines(path)
        return
    data_set = hub_data_set(str(reference), "data")
    for number, row in enumerate(open_hub(data_set, split), start=1):
        yield f"{data_set} ({split}), row {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    for number, row in enumerate(parquet_rows(path), start=1):
        yield f"{path}, row {number}", row


def _json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    if not path.name.endswith(_JSON_LINES):
        raise BadInput(
            f"{path}: a file of rows is Parquet, or ends in {' or '.join(_JSON_LINES)}; rename or convert it"
        )
    for number, line in numbered_lines(text_in(path)):
        place = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place}: not JSON: {error}; mend or delete the line") from None
        if not isinstance(row, dict):
            raise BadInput(f"{place}: a {type(row).__name__}, not an object with fields; mend or delete the line")
        yield place, row


def text_field(row: Row, name: str, place: str) -> str:
    """A field of a row that must hold text. BadInput, with the row's place, where it is absent, blank or no text."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        has = "no such field" if name not in row else f"{value!r:.40}"
        raise BadInput(f"{place}: the field '{name}' must be text, but there is {has}; mend or delete the row")
    return value


def content_ids(contents: Iterable[Any]) -> list[str]:
    """Ids of rows that depend on their contents alone, 16 hex digits each; the n-th repetition of a row ends in `#n`.

    Example:
        >>> [id[16:] for id in content_ids([["same"], ["same"], ["other"]])]
        ['', '#2', '']
    """
    seen: Counter[str] = Counter()
    ids = []
    for content in contents:
        digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:16]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}#{seen[digest]}")
    return ids


# ── problems ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def load_problems(
    reference: str | Path,
    *,
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    strict: bool = False,
    fields: Sequence[str] = (),
) -> ProblemFile:
    """Problems, and what was no problem.

    Args:
        reference: `generated[:PRESET]`, a file in any format of `read_problems`, a folder with a file for each split, or a hub
            data set.
        split: The split of the folder or of the hub data set. Of generated problems, `train` gives the structures that models
            learn from, any other the held-out ones (`ProblemSpec.structures`), which the bundled models have not seen.
        limit: At most so many problems (generated) or rows (hub); by default 1,000 generated ones, or all.
        seed: Seed of the generator.
        strict: Raise at the first malformed row instead of listing it.
        fields: The fields of a row by name, `part=field` each, where no known data set has them; see `arithmetic.fields`.

    Raises:
        BadInput: Nothing of that name exists or can be read, or no row is a problem.

    Example:
        >>> [len(problem.steps) for problem in load_problems("generated", limit=3).problems]
        [2, 5, 2]
    """
    spec = generator_preset(str(reference))
    if spec is not None:
        if split not in ("train", "validation", "test"):
            raise BadInput(f"generated problems have no split '{split}': give train, validation or test")
        if fields:
            raise BadInput(f"generated problems have no fields to name ({' '.join(fields)}): leave fields out")
        spec = replace(spec, structures="training" if split == "train" else "held out")
        return ProblemFile(list(generate(1000 if limit is None else limit, spec, seed)))
    path = local_file(reference, split)
    if path is not None:
        return read_problems(path, strict=strict, limit=limit, fields=fields)
    return _problems_on_hub(hub_data_set(str(reference), "problems"), split, limit, strict, fields)


def announce(read: ProblemFile, chains: bool = True) -> ChainCounts:
    """Say what was read: rows that are no problems, each with its reason, and counts that the user should know.

    That no problem has steps is said even where notes are not wanted: all that is learned or read of steps hangs on them.

    Args:
        read: Problems, and what was none.
        chains: Whether the chains matter for what follows.
    """
    for row in read.malformed[:_MOST_LISTED]:
        print(f"left out: {row}", file=sys.stderr)
    if len(read.malformed) > _MOST_LISTED:
        print(f"left out: {len(read.malformed):,} of {read.n_rows:,} rows in all are no problems", file=sys.stderr)
    counts = ChainCounts.of(read.problems)
    for sentence in counts.sentences if chains else ():
        say(sentence)
    if chains and is_quiet() and not counts.n_with_steps:
        print(counts.sentences[0], file=sys.stderr)
    return counts


def _problems_on_hub(
    data_set: HubReference, split: str, limit: int | None, strict: bool, fields: Sequence[str]
) -> ProblemFile:
    found = ProblemFile()
    for number, row in enumerate(islice(open_hub(data_set, split), limit), start=1):
        try:
            found.problems.append(problem_of_row(row, fields=fields))
        except ValueError as error:
            found.malformed.append(Malformed(str(data_set), number, str(error)))
            if strict:
                raise BadInput(f"{data_set}, row {number}: {error}") from error
    if not found.problems:
        raise BadInput(
            f"{data_set} ({split}) gave no problem in {found.n_rows} rows; a row needs a question and an answer"
        )
    return found
