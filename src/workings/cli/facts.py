"""Facts as tokens: list them, write them into text, and write them out again."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from workings.cli.options import AsJson, Quiet
from workings.errors import BadInput

if TYPE_CHECKING:
    from workings.arithmetic.rewrite import Candidate

Facts = Annotated[str, "which facts: MUL:1-9, or several families: MUL:1-9,ADD:0-9"]
Paths = Annotated[list[str], "files (.txt, .md, .jsonl, each also .gz), folders of such files, or - for standard input"]
Fields = Annotated[list[str] | None, "of JSON lines, the fields that hold text, instead of text; reads - as JSON lines"]
Out = Annotated[
    str | None, "where to write: a file, or for several files a folder; without it one file goes to standard output"
]
InPlace = Annotated[bool, "write every file over itself"]

_KINDS = (".txt", ".md", ".jsonl")
STDIN = ["-"]
Change = Callable[[str, str], str]
"""Text and where it is from → text."""


def table(
    *,
    facts: Facts = "MUL:1-9",
    base_size: Annotated[int, "ids of the vocabulary that the facts come behind"] = 50257,
    json_: AsJson = False,
) -> None:
    """List the facts of a vocabulary with their token ids."""
    from workings.arithmetic.facts import FactVocabulary, embedding_width

    vocabulary = FactVocabulary.build(facts, base_size)
    padded = embedding_width(vocabulary.width)
    if json_:
        rows = [{"id": vocabulary.id_of(f), "token": f.token, "equation": f.equation} for f in vocabulary]
        print(json.dumps({"width": vocabulary.width, "embedding_width": padded, "facts": rows}, indent=1))
        return
    for fact in vocabulary:
        print(f"{vocabulary.id_of(fact)}  {fact.token:20} {fact.equation}")
    ids = f"ids {vocabulary.first_id} to {vocabulary.width - 1}"
    total = sum(fact.result for fact in vocabulary)
    print(f"{len(vocabulary)} facts, {ids}; width {vocabulary.width}, padded to {padded}; results add up to {total}")


def rewrite(
    paths: Paths = STDIN,
    /,
    *,
    mode: Annotated[
        Literal["strict", "weak", "legacy-strict", "legacy-weak"],
        "strict: right equations; weak: also products that stand alone; legacy: what the seeds' code did",
    ] = "strict",
    facts: Facts = "MUL:1-9",
    field: Fields = None,
    out: Out = None,
    in_place: InPlace = False,
    report: Annotated[str | None, "a .jsonl file for every candidate, rewritten or kept, and why"] = None,
    quiet: Quiet = False,
) -> None:
    """Write equations as facts' tokens; the value of no number changes in the modes strict and weak."""
    from workings.arithmetic.facts import FactVocabulary
    from workings.arithmetic.rewrite import rewrite as rewritten

    vocabulary = FactVocabulary.build(facts)
    lines: list[str] = []
    counts: Counter[str] = Counter()

    def change(text: str, place: str) -> str:
        written, candidates = rewritten(text, vocabulary, mode, report=True)
        counts.update(each.reason or each.action for each in candidates)
        if report:
            lines.extend(_line(each, place) for each in candidates)
        return written

    def quick(text: str, place: str) -> str:
        return rewritten(text, vocabulary, mode)

    _each_file(paths, field, out, in_place, quick if quiet and not report else change)
    if report:
        _write(Path(report), "".join(lines))
    if not quiet:
        print(_summary(counts), file=sys.stderr)


def expand(
    paths: Paths = STDIN,
    /,
    *,
    facts: Facts = "MUL:1-9",
    field: Fields = None,
    out: Out = None,
    in_place: InPlace = False,
) -> None:
    """Write facts' tokens as equations again: `$<MUL_6_9_54>` becomes `6*9=$54`."""
    from workings.arithmetic.facts import FactVocabulary
    from workings.arithmetic.rewrite import expand as expanded

    vocabulary = FactVocabulary.build(facts)
    _each_file(paths, field, out, in_place, lambda text, place: expanded(text, vocabulary))


def _line(candidate: Candidate, place: str) -> str:
    row = {
        "from": place,
        "span": candidate.span,
        "text": candidate.text,
        "action": candidate.action,
        "reason": candidate.reason,
        "token": candidate.fact.token if candidate.fact else None,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _summary(counts: Counter[str]) -> str:
    kept = [f"{reason} {n}" for reason, n in counts.most_common() if reason != "rewritten"]
    return f"rewritten {counts['rewritten']}; kept {sum(counts.values()) - counts['rewritten']}" + (
        f" ({', '.join(kept)})" if kept else ""
    )


def _each_file(paths: list[str], fields: list[str] | None, out: str | None, in_place: bool, change: Change) -> None:
    """Every file changed, each written when it is whole; standard input and a single file may go to standard output."""
    if in_place and (out or "-" in paths):
        raise BadInput("--in-place writes files over themselves: leave out --out, and - for standard input")
    sources = [source for path in paths for source in _sources(path)]
    several = len(sources) > 1 or any(Path(path).is_dir() for path in paths)
    if several and not out and not in_place:
        raise BadInput(f"{len(sources)} files: say --out FOLDER, or --in-place to write them over themselves")
    goals = [_goal(path, name, out, in_place, several) for path, name in sources]
    _refuse_collisions([path for path, _ in sources], goals, in_place)
    for (path, _), goal in zip(sources, goals, strict=True):
        written = "".join(_changed(path, fields, change))
        if goal is None:
            sys.stdout.write(written)
        else:
            _write(goal, written)


def _sources(path: str) -> list[tuple[str, str]]:
    """The files that a path stands for, each with its name below that path."""
    if path == "-":
        return [("-", "standard-input.txt")]
    folder = Path(path)
    if folder.is_file():
        return [(path, folder.name)]
    if not folder.is_dir():
        raise BadInput(f"{path}: no such file or folder")
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name.removesuffix(".gz").endswith(_KINDS))
    if not files:
        raise BadInput(f"{path} holds no text: no file that ends in {', '.join(_KINDS)}, nor one with .gz behind that")
    return [(str(file), str(file.relative_to(folder))) for file in files]


def _goal(path: str, name: str, out: str | None, in_place: bool, several: bool) -> Path | None:
    """Where the changed file goes; None for standard output."""
    if in_place:
        return Path(path)
    if out is None:
        return None
    return Path(out) / name if several or Path(out).is_dir() else Path(out)


def _refuse_collisions(paths: list[str], goals: list[Path | None], in_place: bool) -> None:
    places = [goal.resolve() for goal in goals if goal is not None]
    twice = [str(place) for place, n in Counter(places).items() if n > 1]
    if twice:
        raise BadInput(f"two files would both be written to {twice[0]}: rewrite their folders one at a time")
    over = {Path(path).resolve() for path in paths if path != "-"} & set(places)
    if over and not in_place:
        raise BadInput(f"{over.pop()} would be written over: say --in-place if that is meant")


def _changed(path: str, fields: list[str] | None, change: Change) -> Iterator[str]:
    text = _read(path)
    if not fields and not path.removesuffix(".gz").endswith(".jsonl"):
        yield change(text, path)
        return
    for number, line in enumerate(text.split("\n"), 1):  # no other line break ends a JSON line
        newline = "\n" if number > 1 else ""
        place = f"{path}, line {number}"
        yield newline + (_changed_line(line, fields or ["text"], change, place) if line.strip() else line)


def _changed_line(line: str, fields: Iterable[str], change: Change, place: str) -> str:
    """A JSON line with the text in `fields` changed; the line as it is where nothing in it changes."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{place}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{place}: not a JSON object")
    changed = {}
    for field in fields:
        if not isinstance(row.get(field), str):
            raise BadInput(
                f"{place}: no text in field '{field}'; it has {', '.join(map(repr, row)) or 'no field'} (--field)"
            )
        changed[field] = change(row[field], f"{place}, {field}")
    if all(row[field] == changed[field] for field in changed):
        return line
    written = json.dumps(row | changed, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in written):  # half a character, which UTF-8 cannot hold
        written = json.dumps(row | changed)
    return written + "\r" * line.endswith("\r")


def _read(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return (gzip.decompress(raw) if path.endswith(".gz") else raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}") from None
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _write(path: Path, text: str) -> None:
    from workings.files import explained, write_atomic

    raw = text.encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, gzip.compress(raw, mtime=0) if path.name.endswith(".gz") else raw)
    except OSError as error:
        raise explained(error, path) from None
