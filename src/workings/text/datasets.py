"""A reference to problems (`generated`, a file, a hub id) → problems, with what could not be read counted.

`generated[:PRESET]` draws from our own generator; a path is read by its content; anything else is a hub data set, read by
`datasets` (streamed, no remote code), whose rows have one of the forms `problem_of_row` knows.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import Any

from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Malformed, ProblemFile, problem_of_row, read_problems
from workings.errors import BadInput


def load_problems(
    reference: str | Path, *, split: str = "test", limit: int | None = None, seed: int = 0, strict: bool = False
) -> ProblemFile:
    """Problems of a reference, at most `limit`. `split` names the hub data set's split, `seed` the generator's stream.

    Raises BadInput for a path or id that is not there, and with `strict` for the first malformed row.
    """
    text = str(reference)
    if text.partition(":")[0] == "generated":
        return _generated(text, limit, seed)
    path = Path(reference).expanduser()
    if path.exists():
        return read_problems(path, strict=strict, limit=limit)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?(@[\w.-]+)?", text) or path.suffix in (
        ".jsonl",
        ".json",
        ".txt",
    ):
        raise BadInput(
            f"no problems at {reference}: there is no such file. Name a file, a hub data set or 'generated'."
        )
    return _from_hub(text, split, limit, strict)


def _generated(text: str, limit: int | None, seed: int) -> ProblemFile:
    preset = text.partition(":")[2] or "bundled"
    if preset not in PRESETS:
        raise BadInput(f"no preset '{preset}' of generated problems; there are {', '.join(PRESETS)}")
    problems = list(generate(1000 if limit is None else limit, PRESETS[preset], seed))
    return ProblemFile(problems)


def _from_hub(text: str, split: str, limit: int | None, strict: bool) -> ProblemFile:
    """`owner/name[:config][@revision]`."""
    name, _, revision = text.partition("@")
    name, _, config = name.partition(":")
    rows = hub_rows(name, config or None, revision or None, split)
    found = ProblemFile()
    for number, row in enumerate(islice(rows, limit), start=1):
        try:
            found.problems.append(problem_of_row(row))
        except ValueError as error:
            found.malformed.append(Malformed(text, number, str(error)))
            if strict:
                raise BadInput(f"{text}, row {number}: {error}") from error
    if not found.problems:
        raise BadInput(f"{text} ({split}) gave no problem in {found.n_rows} rows; a row needs a question and an answer")
    return found


def hub_rows(name: str, config: str | None, revision: str | None, split: str) -> Any:
    """The rows of a hub data set, streamed. BadInput for what is no data set, or cannot be reached."""
    from datasets import load_dataset

    try:
        return load_dataset(name, config, revision=revision, split=split, streaming=True)
    except (
        Exception
    ) as error:  # datasets raises errors of many libraries for an id, config, split or network it cannot use
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInput(
            f"'{name}' is neither a local file nor a data set that the hub gives us now: {reason}. "
            "Check the spelling; offline, give a local file."
        ) from error
