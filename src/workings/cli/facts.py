"""Facts as tokens in text: list them, rewrite files of text with them, expand them again."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workings.arithmetic.facts import FactVocabulary, embedding_width
from workings.arithmetic.rewrite import Candidate, Mode, expand, rewrite
from workings.cli.options import Command, Printing, option, positional
from workings.errors import BadInput, explained
from workings.files import overwrite, refuse_protected
from workings.packing import DAMAGE, PACKINGS, packed, unpacked, unpacked_name
from workings.progress import is_quiet, say
from workings.text.formats import other_encoding
from workings.text.selection import Found, select_files

Change = Callable[[str, str], str]
"""(text, its place) → the changed text."""
_LINES = (".jsonl", ".ndjson")
_KINDS = (".txt", ".md", *_LINES)
_STANDARD_INPUT = Found(Path("-"), "standard-input.txt")
_MARK = "\ufeff"


@dataclass(frozen=True, kw_only=True)
class WithFacts(Command):
    """The facts that have tokens."""

    facts: str = option("MUL:1-9", "fact families and ranges of operands: MUL:1-9, or several: MUL:1-12,ADD:0-9")


@dataclass(frozen=True, kw_only=True)
class FactsTable(WithFacts, Printing):
    """List the facts of a vocabulary with their token ids."""

    base_size: int = option(50257, "number of ids in the vocabulary that the facts are added to", at_least=0)

    def __call__(self) -> None:
        vocabulary = FactVocabulary.build(self.facts, self.base_size)
        padded = embedding_width(vocabulary.width)
        if self.json:
            rows = [{"id": vocabulary.id_of(f), "token": f.token, "equation": f.equation} for f in vocabulary]
            print(json.dumps({"width": vocabulary.width, "embedding_width": padded, "facts": rows}, indent=1))
            return
        for fact in vocabulary:
            print(f"{vocabulary.id_of(fact)}  {fact.token:20} {fact.equation}")
        total = sum(fact.result for fact in vocabulary)
        print(
            f"{len(vocabulary)} facts, ids {vocabulary.first_id} to {vocabulary.width - 1}; "
            f"width {vocabulary.width}, padded to {padded}; results add up to {total}"
        )


# ── files of text ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class WithFiles(WithFacts):
    """The files to change, and where the changed ones go."""

    paths: tuple[str, ...] = positional(
        ("-",),
        f"files ({', '.join(_KINDS)}, each also {', '.join(PACKINGS)}), folders or patterns of such files, or - for standard input",
    )
    field: tuple[str, ...] = option(
        (), "fields that hold text in JSON lines, by default text; with it, - is read as JSON lines too"
    )
    out: str | None = option(
        None, "file or, for several files, folder to write; by default one file goes to standard output"
    )
    in_place: bool = option(False, "write every file over itself; mode, owner and links stay")

    def change_files(self, change: Change) -> None:
        """Change every file, each written when it is whole."""
        if self.in_place and (self.out or "-" in self.paths):
            raise BadInput("--in-place writes files over themselves: leave out --out, and - for standard input")
        sources = [source for path in self.paths for source in _files_at(path)]
        several = len(sources) > 1 or any(Path(path).is_dir() for path in self.paths)
        if self.in_place:
            self._change_in_place([source.path for source in sources], change)
        elif self.out is not None:
            folder = several or Path(self.out).is_dir()
            goals = [Path(self.out) / source.name if folder else Path(self.out) for source in sources]
            _refuse_collisions([source.path for source in sources], goals)
            for source, goal in zip(sources, goals, strict=True):
                _write(goal, self._changed(source.path, _read(source.path), change))
        elif several:
            raise BadInput(f"{len(sources)} files: say --out FOLDER, or --in-place to write them over themselves")
        else:
            _print(self._changed(sources[0].path, _read(sources[0].path), change))

    def _change_in_place(self, paths: Sequence[Path], change: Change) -> None:
        """Change each file once, however many names it has; one in which nothing changes is left alone."""
        once = {(path.stat().st_dev, path.stat().st_ino): path for path in reversed(paths)}
        files = list(reversed(once.values()))
        for path in files:  # all, before the first is written
            refuse_protected(path)
        for path in files:
            content = _read(path)
            changed = self._changed(path, content, change)
            if changed != content:
                _write(path, changed)

    def _changed(self, path: Path, content: str, change: Change) -> str:
        if not self.field and not unpacked_name(path.name).endswith(_LINES):
            return change(content, str(path))
        fields = self.field or ("text",)
        lines = enumerate(content.split("\n"), 1)  # no other line break ends a JSON line
        return "\n".join(
            _changed_line(line, fields, change, f"{path}, line {number}") if line.strip() else line
            for number, line in lines
        )


def _files_at(path: str) -> list[Found]:
    """The files that a path or a pattern stands for."""
    if path == "-":
        return [_STANDARD_INPUT]
    place = Path(path).expanduser()
    if place.is_file():  # named as it is, whatever its ending
        return [Found(place, place.name)]
    selection = select_files(path, _can_change, f"{', '.join(_KINDS)} (and {', '.join(PACKINGS)} behind that)")
    if selection is None:
        raise BadInput(f"{path}: no such file or folder")
    if selection.note:
        say(f"note: {path}: {selection.note}")
    return list(selection.files)


def _can_change(name: str) -> bool:
    return unpacked_name(name).endswith(_KINDS)


def _refuse_collisions(paths: Sequence[Path], goals: Sequence[Path]) -> None:
    places = [goal.resolve() for goal in goals]
    twice = [str(place) for place, n in Counter(places).items() if n > 1]
    if twice:
        raise BadInput(f"two files would both be written to {twice[0]}: rewrite their folders one at a time")
    over = {path.resolve() for path in paths if path != _STANDARD_INPUT.path} & set(places)
    if over:
        raise BadInput(f"{over.pop()} would be written over: say --in-place if that is meant")


def _changed_line(line: str, fields: Sequence[str], change: Change, place: str) -> str:
    """A JSON line with the text in `fields` changed; the line as it is where nothing in it changes."""
    line = line.removeprefix(_MARK)  # where files were joined
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{place}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadInput(f"{place}: not a JSON object")
    for field in fields:
        if not isinstance(row.get(field), str):
            has = ", ".join(map(repr, row)) or "no field"
            raise BadInput(f"{place}: no text in field '{field}'; it has {has} (--field)")
    changed = {field: change(row[field], f"{place}, {field}") for field in fields}
    if all(row[field] == changed[field] for field in changed):
        return line
    written = json.dumps(row | changed, ensure_ascii=False)
    if any("\ud800" <= char <= "\udfff" for char in written):  # half a character, which UTF-8 cannot hold
        written = json.dumps(row | changed)
    return written + "\r" * line.endswith("\r")


def _read(path: Path) -> str:
    """The text of a file or of standard input, without a byte-order mark."""
    try:
        if path == _STANDARD_INPUT.path:
            raw = sys.stdin.buffer.read()
        else:
            with path.open("rb") as file, unpacked(file, path.name) as content:
                raw = content.read()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = other_encoding(error.object) or f"byte {error.start + 1} is {error.object[error.start]:#04x}"
        raise BadInput(f"{path} is not UTF-8: {wrong}") from None
    except DAMAGE as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _write(path: Path, content: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        overwrite(path, packed(content.encode(), path.name))
    except OSError as error:
        raise explained(error, path) from None


def _print(content: str) -> None:
    """Write to standard output, in UTF-8 whatever the locale says, with line ends as they are."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a notebook's
        sys.stdout.write(content)
        return
    sys.stdout.flush()
    binary.write(content.encode())
    binary.flush()


@dataclass(frozen=True, kw_only=True)
class FactsRewrite(WithFiles):
    """Write equations as fact tokens.

    In the modes strict and weak, no number changes its value.
    """

    mode: Mode = option(
        "strict", "rewriting mode: strict, right equations; weak, also lone products; legacy, as in the seeds' code"
    )
    report: str | None = option(None, ".jsonl file of every candidate, whether it was rewritten or kept, and why")

    def __call__(self) -> None:
        vocabulary = FactVocabulary.build(self.facts)
        lines: list[str] = []
        counts: Counter[str] = Counter()

        def change(content: str, place: str) -> str:
            if is_quiet() and not self.report:  # nobody sees the counts: rewriting alone is faster
                return rewrite(content, vocabulary, self.mode)
            written, candidates = rewrite(content, vocabulary, self.mode, report=True)
            counts.update(candidate.reason or candidate.action for candidate in candidates)
            if self.report:
                lines.extend(_report_line(candidate, place) for candidate in candidates)
            return written

        self.change_files(change)
        if self.report:
            _write(Path(self.report), "".join(lines))
        kept = ", ".join(f"{reason} {n}" for reason, n in counts.most_common() if reason != "rewritten")
        n_kept = sum(counts.values()) - counts["rewritten"]
        say(f"rewritten {counts['rewritten']}; kept {n_kept}" + (f" ({kept})" if kept else ""))


def _report_line(candidate: Candidate, place: str) -> str:
    row = {
        "from": place,
        "span": candidate.span,
        "text": candidate.text,
        "action": candidate.action,
        "reason": candidate.reason,
        "token": candidate.fact.token if candidate.fact else None,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


@dataclass(frozen=True, kw_only=True)
class FactsExpand(WithFiles):
    """Write fact tokens as equations: `$<MUL_6_9_54>` is `6*9=$54`."""

    def __call__(self) -> None:
        vocabulary = FactVocabulary.build(self.facts)
        self.change_files(lambda content, place: expand(content, vocabulary))
