"""Files of problems in four formats → `Problem`s: question, written steps, answer, and an id made of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from workings.arithmetic.answers import answer_in
from workings.arithmetic.chain import Step, Unreadable, read_chain
from workings.errors import BadInput
from workings.packing import DAMAGE, unpacked

ANSWER_MARK = "####"
Parts = tuple[str, str, str]
"""Question, text of the chain, answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its chain (possibly empty) and its answer, all as written; `source` names the file and line."""

    question: str
    steps: tuple[Step, ...]
    answer: str
    source: str = ""

    @property
    def id(self) -> str:
        """16 hex digits of the content, equal for equal question, steps and answer, whatever the file or format."""
        content = [self.question, [[step.expression, step.result] for step in self.steps], self.answer]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def asked(self) -> str:
        """The question, case and spaces aside: problems with the same ask the same."""
        return " ".join(self.question.lower().split())

    @property
    def structure(self) -> str:
        """The numbers and operations of the chain, without its results and the words around it: `6*9;54+1`.

        Many stories tell one structure, so where structures are few they are what a test counts. A problem without a chain
        shares its structure with no other: it is the id.

        Example:
            >>> Problem("Six boxes of nine, and one. How many?", (Step("6 * 9", "54"), Step("54+1", "55")), "55").structure
            '6*9;54+1'
        """
        return ";".join("".join(step.expression.split()) for step in self.steps) or self.id

    @property
    def value(self) -> Fraction:
        """The answer as an exact number; raises ValueError where the answer holds none."""
        value = answer_in(self.answer)
        if value is None:
            raise ValueError(f"the answer {self.answer!r} of problem {self.id} holds no number")
        return value

    @property
    def n_steps(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that is not a problem, with the reason."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ProblemFile:
    """The content of a file of problems: each of its `n_rows` rows is a problem or malformed. Repeated rows are kept."""

    problems: list[Problem] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return len(self.problems) + len(self.malformed)

    @property
    def duplicates(self) -> dict[str, int]:
        """{id: number of occurrences} of the ids that occur more than once."""
        return {key: n for key, n in Counter(problem.id for problem in self.problems).items() if n > 1}


def read_problems(path: str | Path, strict: bool = False, limit: int | None = None) -> ProblemFile:
    """Read the problems of a local file, in order. The content decides the format, never the name.

    Formats: one JSON object a line, or one JSON list, with the fields that `problem_of_row` knows (GSM8K, GSM8k-Aug,
    Coconut); lines `question||<<6*9=54>> #### 54` (iCoT). Blank lines are not rows.

    Args:
        path: The file.
        strict: Raise at the first malformed row instead of listing it.
        limit: Stop after so many problems.

    Raises:
        BadInput: The file cannot be read, or holds no problem; with `strict`, a malformed row.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "icot.txt"
        >>> _ = path.write_text("Six boxes of nine. How many?||<<6*9=54>> #### 54\\n")
        >>> read_problems(path).problems[0].steps
        (Step(expression='6*9', result='54'),)
    """
    path = Path(path)
    text = text_in(path)
    read = ProblemFile()
    for line, row in _rows(text, path):
        if limit is not None and len(read.problems) >= limit:
            break
        try:
            read.problems.append(_problem(*row(), source=f"{path.name}:{line}"))
        except ValueError as reason:
            read.malformed.append(Malformed(str(path), line, str(reason)))
            if strict:
                raise BadInput(f"{read.malformed[-1]}; mend or delete the row, or read without strict") from reason
    if read.malformed and not read.problems:
        raise BadInput(f"{path}: none of {read.n_rows} rows is a problem; the first, {read.malformed[0]}")
    if not read.n_rows and limit != 0:
        raise BadInput(f"{path} holds an empty list; give a file with at least one problem")
    return read


def problem_of_row(row: Mapping[str, Any], source: str = "") -> Problem:
    """Read one row: a question, an answer, and a chain in `steps`, `cot`, `full_solution` or the answer itself.

    A GSM8K answer holds `<<…>>` and ends in `#### 18`.

    Raises:
        ValueError: The row is not a problem; the message says why.
    """
    return _problem(*_parts_of_row(row), source=source)


def _problem(question: str, chain: str, answer: str, source: str) -> Problem:
    question, answer = question.strip(), answer.strip()
    if not question:
        raise ValueError("the question is empty")
    if answer_in(answer) is None:
        raise ValueError(f"the answer {answer[:60]!r} holds no number")
    try:
        (question + chain + answer).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "the row holds half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        ) from error
    steps = read_chain(chain)
    for step in steps:
        try:
            _ = step.value
        except (Unreadable, ZeroDivisionError) as reason:
            raise ValueError(f"the step <<{step.expression}={step.result}>> has no number as its result") from reason
    return Problem(question, steps, answer, source)


def _parts_of_row(row: Any) -> Parts:
    if not isinstance(row, Mapping):
        raise ValueError(f"the row is a {type(row).__name__}, not an object with 'question' and 'answer'")
    question, answer = _text_field(row, "question"), _text_field(row, "answer")
    body, hashes, after = answer.rpartition(ANSWER_MARK)
    chain = next((_chain_text(row[name], name) for name in ("steps", "cot", "full_solution") if row.get(name)), body)
    if not hashes and "<<" in answer:
        raise ValueError(f"the answer has steps and no {ANSWER_MARK} before its number")
    return question, chain, after


def _text_field(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f"no field {name!r}; the row has {', '.join(map(repr, row)) or 'none'}")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the field {name!r} is {type(value).__name__}, not text")
    return str(value)


def _chain_text(value: Any, name: str) -> str:
    """The text of a chain; a step of a list may come without its brackets, as `6*9=54`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise ValueError(f"the field {name!r} is neither text nor a list of texts")
    return " ".join(step if "<<" in step else f"<<{step.strip()}>>" for step in value)


def _rows(text: str, path: Path) -> Iterator[tuple[int, Callable[[], Parts]]]:
    """The rows of a file, each as its line and a function that reads it, which raises ValueError for a malformed row."""
    start = text.lstrip()
    if start.startswith("["):
        for number, row in _json_list(text, path):
            yield number, partial(_parts_of_row, row)
        return
    if start.startswith("{"):
        parts_of = _parts_of_json
    elif any("||" in line for _, line in numbered_lines(text)):
        parts_of = _parts_of_line
    else:
        raise BadInput(
            f"{path}: not a format of problems; it starts with {start[:40]!r}. Give JSON lines or a JSON list with "
            "'question' and 'answer' (GSM8K, GSM8k-Aug, Coconut), or lines 'question||<<6*9=54>> #### 54' (iCoT)"
        )
    for number, line in numbered_lines(text):
        yield number, partial(parts_of, line)


def _parts_of_json(line: str) -> Parts:
    try:
        return _parts_of_row(json.loads(line))
    except json.JSONDecodeError as broken:
        raise ValueError(f"not JSON: {broken.msg} at character {broken.pos + 1}") from broken
    except RecursionError as broken:
        raise ValueError("not a row: its JSON nests too deeply") from broken


def _json_list(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a list with the lines they start on. Broken JSON has no next row to go on from, so it is fatal."""
    decoder = json.JSONDecoder()
    at, line = _skip(text, text.index("[") + 1), 1
    counted = 0
    while not text.startswith("]", at):
        line, counted = line + text.count("\n", counted, at), at
        try:
            row, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as broken:
            raise BadInput(f"{path}:{line}: the JSON list breaks in the row that starts here: {broken}") from broken
        yield line, row
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            raise BadInput(f"{path}:{line}: the JSON list has neither ',' nor ']' after the row that starts here")
    if text[at + 1 :].strip():
        raise BadInput(f"{path}: something follows the closing ']' of the JSON list; delete it")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _parts_of_line(line: str) -> Parts:
    question, bars, rest = line.rpartition("||")
    if not bars:
        raise ValueError("no '||' between question and chain")
    chain, hashes, answer = rest.rpartition(ANSWER_MARK)
    if not hashes:
        raise ValueError(f"no '{ANSWER_MARK}' before the answer")
    return question, chain, answer


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1; only `\\n` ends one, for a question may hold other separators.

    A byte-order mark is dropped where a line begins with it, as where files were joined.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removeprefix("\ufeff")


def text_in(path: Path) -> str:
    """The whole of a UTF-8 file, unpacked as the ending of its name says; BadInput where there is no text to read."""
    if path.is_dir():
        raise BadInput(f"{path} is a directory; name a file in it")
    try:
        with path.open("rb") as file, unpacked(file, path.name) as content:
            text = content.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BadInput(f"no file {path}; check the path (it is read from {Path.cwd()})") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start + 1}); unpack or convert it first") from error
    except DAMAGE as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if "\0" in text:
        raise BadInput(f"{path} is binary (a zero byte at {text.index(chr(0)) + 1}); give a text file")
    if not text.strip():
        raise BadInput(f"{path} is empty; give a file with at least one row")
    return text
