"""Facts as tokens, tokenizers and corpora: rewrite text, build tokenizers, turn documents into shards of token ids."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from workings import text
from workings.arithmetic.facts import FactVocabulary, embedding_width
from workings.arithmetic.rewrite import Candidate, Mode, expand, rewrite
from workings.cli.options import Command, Given, Printing, config_fields, option, positional
from workings.config import from_dict, override, read_mapping
from workings.errors import BadInput, explained
from workings.files import to_json, write_atomic
from workings.progress import is_quiet, say

Change = Callable[[str, str], str]
"""(text, its place) → the changed text."""
_KINDS = (".txt", ".md", ".jsonl")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


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


# ── rewriting files ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class WithFiles(WithFacts):
    """The files to change, and where the changed ones go."""

    paths: tuple[str, ...] = positional(
        ("-",), "files (.txt, .md, .jsonl, each also .gz), folders of such files, or - for standard input"
    )
    field: tuple[str, ...] = option(
        (), "fields that hold text in JSON lines, by default text; with it, - is read as JSON lines too"
    )
    out: str | None = option(
        None, "file or, for several files, folder to write; by default one file goes to standard output"
    )
    in_place: bool = option(False, "write every file over itself")

    def change_files(self, change: Change) -> None:
        """Change every file, each written when it is whole."""
        if self.in_place and (self.out or "-" in self.paths):
            raise BadInput("--in-place writes files over themselves: leave out --out, and - for standard input")
        sources = [source for path in self.paths for source in _files_at(path)]
        several = len(sources) > 1 or any(Path(path).is_dir() for path in self.paths)
        if self.in_place:
            goals = [Path(path) for path, _ in sources]
        elif self.out is not None:
            folder = several or Path(self.out).is_dir()
            goals = [Path(self.out) / name if folder else Path(self.out) for _, name in sources]
        elif several:
            raise BadInput(f"{len(sources)} files: say --out FOLDER, or --in-place to write them over themselves")
        else:
            sys.stdout.write(self._changed(sources[0][0], change))
            return
        self._refuse_collisions([path for path, _ in sources], goals)
        for (path, _), goal in zip(sources, goals, strict=True):
            _write(goal, self._changed(path, change))

    def _refuse_collisions(self, paths: Sequence[str], goals: Sequence[Path]) -> None:
        places = [goal.resolve() for goal in goals]
        twice = [str(place) for place, n in Counter(places).items() if n > 1]
        if twice:
            raise BadInput(f"two files would both be written to {twice[0]}: rewrite their folders one at a time")
        over = {Path(path).resolve() for path in paths if path != "-"} & set(places)
        if over and not self.in_place:
            raise BadInput(f"{over.pop()} would be written over: say --in-place if that is meant")

    def _changed(self, path: str, change: Change) -> str:
        content = _read(path)
        if not self.field and not path.removesuffix(".gz").endswith(".jsonl"):
            return change(content, path)
        fields = self.field or ("text",)
        lines = enumerate(content.split("\n"), 1)  # no other line break ends a JSON line
        return "\n".join(
            _changed_line(line, fields, change, f"{path}, line {number}") if line.strip() else line
            for number, line in lines
        )


def _files_at(path: str) -> list[tuple[str, str]]:
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


def _changed_line(line: str, fields: Sequence[str], change: Change, place: str) -> str:
    """A JSON line with the text in `fields` changed; the line as it is where nothing in it changes."""
    try:
        row = json.loads(line)
    except ValueError as error:
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


def _read(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return (gzip.decompress(raw) if path.endswith(".gz") else raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: byte {error.start + 1} is {error.object[error.start]:#04x}") from None
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _write(path: Path, content: str) -> None:
    raw = content.encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, gzip.compress(raw, mtime=0) if path.name.endswith(".gz") else raw)
    except OSError as error:
        raise explained(error, path) from None


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


# ── tokenizers ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class WithVocabulary(WithFacts):
    """The parts that a tokenizer is built from."""

    base: str = option("gpt2", "byte-level BPE: gpt2 or another hub id, a tokenizer.json or its folder, or embedded")
    vocabulary: Literal["digits", "facts", "shuffled", "reserved"] = option(
        "facts",
        "what becomes of arithmetic: digits, fact tokens, fact tokens permuted in each document, or unused tokens",
    )
    mode: Mode = option("strict", "rewriting mode, as in workings facts rewrite")

    def tokenizer_built(self) -> text.Tokenizer:
        """The tokenizer of these parts."""
        return text.Tokenizer.build(self.base, self.vocabulary, self.facts, self.mode)


@dataclass(frozen=True, kw_only=True)
class TokenizerBuild(WithVocabulary, Printing):
    """Build a tokenizer with fact tokens.

    Its ids are the same here and in Hugging Face's library. Prints the path of its folder.
    """

    out: str = option(help="folder to write, which AutoTokenizer.from_pretrained opens too")

    def __call__(self) -> None:
        tokenizer = self.tokenizer_built()
        path = tokenizer.save(self.out)
        if self.json:
            about = {n: getattr(tokenizer, n) for n in ("vocabulary", "mode", "eot", "width", "embedding_width")}
            live = [[ids.start, ids.stop] for ids in tokenizer.live]
            about |= {"facts": len(tokenizer.facts), "live": live, "digest": tokenizer.digest}
            print(json.dumps({"path": str(path), **about}))
            return
        say(f"{tokenizer.summary()}; encodes with {tokenizer.library}")
        print(path)


@dataclass(frozen=True, kw_only=True)
class TokenizerShow(WithVocabulary, Printing):
    """Rewrite a text as a vocabulary would, and print its tokens.

    Each line holds one id and its token.
    """

    text: tuple[str, ...] = positional(
        help="text in quotation marks (several are joined by spaces), or - for standard input"
    )
    tokenizer: str | None = option(None, "tokenizer folder to use, instead of --base, --vocabulary, --facts and --mode")
    base: str = option(
        "embedded", "byte-level BPE: gpt2 or another hub id, a tokenizer.json or its folder, or embedded"
    )
    raw: bool = option(False, "encode the text without rewriting it first")

    def __call__(self) -> None:
        tokenizer = text.Tokenizer.load(self.tokenizer) if self.tokenizer else self.tokenizer_built()
        given = sys.stdin.read() if self.text == ("-",) else " ".join(self.text)
        prepared, n_facts = (given, 0) if self.raw else tokenizer.prepare_counted(given)
        pieces = list(tokenizer.pieces(prepared))
        if self.json:
            print(json.dumps({"text": prepared, "facts": n_facts, "pieces": pieces}, ensure_ascii=False))
            return
        for i, piece in pieces:
            print(f"{i:>6}  {piece!r}")
        say(f"{len(pieces)} tokens for {len(given.encode(errors='replace'))} bytes: {prepared!r}")


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(Command):
    """Train a byte-level BPE on documents.

    Prints the path of its tokenizer.json.
    """

    documents: tuple[str, ...] = option(
        ("docstrings", "generated:bundled", "generated:varied"), "sources of documents to learn from"
    )
    limit: int = option(5000, "maximum number of documents per source", at_least=1)
    size: int = option(
        2000, "number of ids, including the 256 bytes and the end of text", at_least=257, at_most=10_000_000
    )
    out: str = option(help="folder for tokenizer.json, which workings tokenizer build takes as --base")

    def __call__(self) -> None:
        rows = (row for source in self.documents for row in islice(text.open_documents(source), self.limit))
        content = text.train_bpe((row.text for row in rows if isinstance(row, text.Document)), self.size)
        Path(self.out).mkdir(parents=True, exist_ok=True)
        print(write_atomic(Path(self.out) / "tokenizer.json", content))


# ── corpora ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class CorpusBuild(Printing):
    """Turn documents into shards of token ids.

    The documents are mixed, shuffled, rewritten and encoded. Prints the path of the corpus.
    """

    documents: tuple[str, ...] = option(
        (),
        "sources: files, folders, hub ids (HuggingFaceFW/fineweb-edu:sample-10BT@revision), generated, drills or docstrings",
    )
    weights: tuple[float, ...] = option((), "relative shares of the bytes, one per source", above=0)
    field: tuple[str, ...] = option((), "columns that hold the text, one for all sources or one each; a+b joins two")
    separator: str | None = option(None, "string that divides a .txt file into documents")
    bytes: str | None = option(None, "maximum number of raw bytes to read, drills not counted: 500M, 45GB")
    given: Given = config_fields(
        lambda words: text.CorpusConfig,
        *("vocabulary", "base", "facts", "mode", "fact_rate", "documents_limit", "seed"),
        *("validation_fraction", "validation_documents", "shard_tokens"),
        shuffle_buffer="shuffle_documents",
    )
    set: tuple[str, ...] = option((), "config fields as field=value, dotted in groups: drills.facts_per_document=16")
    config: str | None = option(None, "YAML file of config fields, such as the config in a manifest; flags win over it")
    out: str = option("corpus", "folder to write; the same command resumes an interrupted build")
    processes: int | None = option(
        None, "number of encoding processes, by default one per core; the corpus is the same", at_least=1
    )
    skip_bad: bool = option(False, "leave out malformed rows, which the manifest counts and lists")
    allow_short: bool = option(False, "accept sources that end before the limit")
    dry_run: bool = option(False, "estimate bytes, tokens, facts and time from the first documents; write nothing")

    def __call__(self) -> None:
        config = self._resolved()
        for source in config.open_sources():
            if source.warning:
                say(f"note: {source.warning}")
        if self.dry_run:
            self._print_estimate(config)
            return
        corpus = text.build_corpus(
            config, self.out, processes=self.processes, skip_bad=self.skip_bad, allow_short=self.allow_short
        )
        for note in corpus.notes():
            say(f"note: {note}")
        print(to_json(corpus.manifest.to_json()).rstrip() if self.json else corpus.folder)

    def _print_estimate(self, config: text.CorpusConfig) -> None:
        found = asdict(text.estimate_corpus(config, self.processes or text.n_processors()))
        if self.json:
            print(json.dumps(found, indent=1))
            return
        for name, value in found.items():
            shown = "unknown" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
            print(f"{name.replace('_', ' '):18} {shown}")

    def _resolved(self) -> text.CorpusConfig:
        """The config of a file or the defaults, with the flags that were given."""
        mapping = (read_mapping(self.config) if self.config else {}) | self.given
        if self.bytes is not None:
            mapping["bytes_limit"] = _n_bytes(self.bytes)
        sources = self._sources()
        if sources:
            mapping["documents"] = sources
        if "documents" not in mapping:
            raise BadInput("name the sources with --documents (a file, a folder, a hub id, generated, docstrings)")
        return override(from_dict(text.CorpusConfig, mapping), self.set)

    def _sources(self) -> list[dict[str, object]]:
        n = len(self.documents)
        for flag, values, allowed in (("--weights", self.weights, (n,)), ("--field", self.field, (n, 1))):
            if values and len(values) not in allowed:
                raise BadInput(f"{flag} has {len(values)} values for {n} sources of --documents")
        fields, weights = self.field or ("text",), self.weights or (1.0,) * n
        return [
            {"reference": source, "weight": weights[i], "field": fields[i % len(fields)], "separator": self.separator}
            for i, source in enumerate(self.documents)
        ]


def _n_bytes(written: str) -> int:
    """The number of bytes in 500M, 45GB or 1e9, in decimal units."""
    found = re.fullmatch(r"(\d+\.?\d*(?:e\d+)?|\.\d+) ?([kKMGT]?)B?", written.replace("_", "").replace(",", ""))
    if not found:
        raise BadInput(f"--bytes must be a number of bytes such as 500M or 45GB, not '{written}'")
    return round(float(found[1]) * _UNITS[found[2]])


@dataclass(frozen=True, kw_only=True)
class CorpusShow(Printing):
    """Show what a corpus is made of, by split and source."""

    corpus: str = positional(help="folder of a corpus")

    def __call__(self) -> None:
        corpus = text.Corpus.open(self.corpus)
        if self.json:
            print(to_json(corpus.manifest.to_json()).rstrip())
            return
        titles = ("documents", "bytes", "tokens", "facts", "facts/tokens")
        print(f"{corpus.folder}\n{'split':12}{'source':24}" + "".join(f"{title:>18}" for title in titles))
        for split, about in corpus.outcome.splits.items():
            for source, counts in [*about.sources.items(), ("all", about)]:
                numbers = [f"{n:,}" for n in (counts.n_documents, counts.n_bytes, counts.n_tokens, counts.n_facts)]
                numbers.append(f"{counts.n_facts / max(counts.n_tokens, 1):.4%}")
                print(f"{split:12}{source:24}" + "".join(f"{number:>18}" for number in numbers))
        rate = corpus.outcome.fact_rate
        print(f"vocabulary {corpus.manifest.tokenizer.vocabulary}, {len(corpus.train.shards)} training shards")
        print(f"fact rate (in the facts arm): asked {rate.asked:.4%}, reached {rate.reached:.4%}")
        print(f"training documents (raw_sha256): {corpus.train.raw_sha256}")
        for note in corpus.notes():
            print(f"note: {note}")
