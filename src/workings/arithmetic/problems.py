"""Files of problems in any known format → `Problem`s: question, written chain, answer, and an id made of nothing but these."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from workings.arithmetic.answers import answer_in, n_numbers_in
from workings.arithmetic.chain import Step, Unreadable, read_chain, sentences_in, write_chain
from workings.arithmetic.fields import ANSWER_MARK, Fields, Parts, fields_named, parts_of_row
from workings.errors import BadInput, first_line
from workings.packing import DAMAGE, unpacked


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its chain (possibly empty) and its answer, all as written; `source` names the file and line.

    A chain is steps or, where it has none, sentences: `words`.
    """

    question: str
    steps: tuple[Step, ...]
    answer: str
    source: str = ""
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, question: str, chain: str, answer: str, source: str = "") -> Problem:
        """The problem with a chain given as text; raises Unreadable where a step is broken.

        Example:
            >>> Problem.of("Six boxes of nine. How many?", "That is 6 * 9 = 54. So 54.", "54").words
            ('That is 6 * 9 = 54.', 'So 54.')
        """
        steps = read_chain(chain)
        return cls(question, steps, answer, source, () if steps else sentences_in(chain))

    @property
    def chain(self) -> str:
        """The whole chain as text, which `of` reads back: `<<6*9=54>> <<54+1=55>>`, or a sentence a line."""
        return write_chain(self.steps) if self.steps else "\n".join(self.words)

    @property
    def id(self) -> str:
        """16 hex digits of the content, equal for equal question, steps and answer, whatever the file, format or words."""
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
        """The answer as an exact number, read as what stands behind a `####`; raises ValueError where it holds none."""
        value = answer_in(f"{ANSWER_MARK} {self.answer}")
        if value is None:
            raise ValueError(f"the answer {self.answer!r} of problem {self.id} holds no number")
        return value

    @property
    def n_steps(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class ChainCounts:
    """How many of some problems have a chain, of which kind, and what in it or in the answers is not as it should be.

    Attributes:
        n_problems, n_with_steps, n_in_words: Problems; those whose chain is steps; those whose chain is sentences.
        n_ending_elsewhere: Problems whose last step does not result in the answer, though a CODI learns without that step.
        n_steps, n_wrong_steps: Steps, and those whose expression does not come to their result or does not parse.
        n_several_numbers: Problems whose answer holds several numbers, of which one is read.
    """

    n_problems: int = 0
    n_with_steps: int = 0
    n_in_words: int = 0
    n_ending_elsewhere: int = 0
    n_steps: int = 0
    n_wrong_steps: int = 0
    n_several_numbers: int = 0

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> ChainCounts:
        """Count; every different step is computed once."""
        steps = Counter(step for problem in problems for step in problem.steps)
        return cls(
            n_problems=len(problems),
            n_with_steps=sum(bool(problem.steps) for problem in problems),
            n_in_words=sum(bool(problem.words) for problem in problems),
            n_ending_elsewhere=sum(
                bool(problem.steps) and problem.steps[-1].value != problem.value for problem in problems
            ),
            n_steps=steps.total(),
            n_wrong_steps=sum(n for step, n in steps.items() if not step.is_right()),
            n_several_numbers=sum(n_numbers_in(problem.answer) > 1 for problem in problems),
        )

    @property
    def sentences(self) -> tuple[str, ...]:
        """The counts in words, those of nothing left out, except that the number of problems with steps is always told."""
        more = (
            (self.n_in_words, f"{self.n_in_words:,} of {self.n_problems:,} problems have a chain in words"),
            (
                self.n_ending_elsewhere,
                f"in {self.n_ending_elsewhere:,} of {self.n_with_steps:,} problems the last step is not the answer",
            ),
            (self.n_wrong_steps, f"{self.n_wrong_steps:,} of {self.n_steps:,} steps are wrong or cannot be computed"),
            (
                self.n_several_numbers,
                f"{self.n_several_numbers:,} of {self.n_problems:,} answers hold several numbers, of which one is read",
            ),
        )
        with_steps = f"{self.n_with_steps:,} of {self.n_problems:,} problems have steps"
        return (with_steps, *(sentence for n, sentence in more if n))


def steps_among(problems: Collection[Problem]) -> str:
    """A clause for messages about what needs steps: `0 of 500 problems have steps`."""
    return ChainCounts(len(problems), sum(bool(problem.steps) for problem in problems)).sentences[0]


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


def read_problems(
    path: str | Path, strict: bool = False, limit: int | None = None, fields: Sequence[str] = ()
) -> ProblemFile:
    """Read the problems of a local file, in order. The content decides the format, never the name.

    Formats: one JSON object a line, one JSON list, a Parquet file, or XML (ASDiv), with the fields of a data set that
    `arithmetic.fields` knows; lines `question||<<6*9=54>> #### 54` (iCoT). Blank lines are not rows.

    Args:
        path: The file.
        strict: Raise at the first malformed row instead of listing it.
        limit: Stop after so many problems.
        fields: The fields of a row by name, `part=field` each; see `arithmetic.fields`.

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
    read = ProblemFile()
    for line, row in _rows(path, fields_named(fields)):
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


def problem_of_row(row: Mapping[str, Any], source: str = "", fields: Sequence[str] = ()) -> Problem:
    """Read one row, by the fields of a data set that `arithmetic.fields` knows, or by those named as `part=field`.

    A GSM8K answer holds `<<…>>` and ends in `#### 18`.

    Raises:
        ValueError: The row is not a problem; the message says why.
    """
    return _problem(*parts_of_row(row, fields_named(fields)), source=source)


def _problem(question: str, chain: str, answer: str, source: str) -> Problem:
    question, answer = question.strip(), answer.strip()
    if not question:
        raise ValueError("the question is empty")
    if answer_in(f"{ANSWER_MARK} {answer}") is None:
        raise ValueError(f"the answer {answer[:60]!r} holds no number")
    try:
        (question + chain + answer).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "the row holds half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        ) from error
    problem = Problem.of(question, chain, answer, source)
    for step in problem.steps:
        try:
            _ = step.value
        except (Unreadable, ZeroDivisionError) as reason:
            raise ValueError(f"the step <<{step.expression}={step.result}>> has no number as its result") from reason
    return problem


Rows = Iterator[tuple[int, Callable[[], Parts]]]
"""The rows of a file, each as its line and a function that reads it, which raises ValueError for a malformed row."""


def _rows(path: Path, fields: Fields | None) -> Rows:
    if is_parquet(path):
        for number, row in enumerate(parquet_rows(path), start=1):
            yield number, partial(parts_of_row, row, fields)
        return
    text = text_in(path)
    start = text.lstrip()
    if start.startswith("["):
        for number, row in _json_list(text, path):
            yield number, partial(parts_of_row, row, fields)
    elif re.match(r"<[?!A-Za-z]", start):
        for number, row in enumerate(_xml_rows(text, path), start=1):
            yield number, partial(parts_of_row, row, fields)
    elif start.startswith("{"):
        for number, line in numbered_lines(text):
            yield number, partial(_parts_of_json, line, fields)
    elif any("||" in line for _, line in numbered_lines(text)):
        for number, line in numbered_lines(text):
            yield number, partial(_parts_of_line, line)
    else:
        raise BadInput(
            f"{path}: not a format of problems; it starts with {start[:40]!r}. Give JSON lines, a JSON list, Parquet or XML "
            "with a question and an answer, or lines 'question||<<6*9=54>> #### 54' (iCoT)"
        )


def _parts_of_json(line: str, fields: Fields | None) -> Parts:
    try:
        return parts_of_row(json.loads(line), fields)
    except json.JSONDecodeError as broken:
        raise ValueError(f"not JSON: {broken.msg} at character {broken.pos + 1}") from broken
    except RecursionError as broken:
        raise ValueError("not a row: its JSON nests too deeply") from broken


def _xml_rows(text: str, path: Path) -> Iterator[dict[str, str]]:
    """The elements that hold others with text only, each as a row: `<Problem><Body>…</Body><Answer>…</Answer></Problem>`."""
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as broken:
        raise BadInput(f"{path}: not XML: {broken}; mend the file, or give another format") from broken
    for element in root.iter():
        if len(element) and not any(len(child) for child in element):
            yield {child.tag: child.text or "" for child in element}


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False  # whoever reads it as text says what is wrong


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a part of it in memory at a time; BadInput where it is damaged."""
    import pyarrow as pa  # 0.1 s: not for every --help
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is a damaged Parquet file: {first_line(error)}; copy it again") from error


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
