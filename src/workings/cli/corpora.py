"""Tokenizers and corpora: build and train tokenizers, turn documents into shards of token ids."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from workings import text
from workings.arithmetic.rewrite import Mode
from workings.cli.facts import WithFacts
from workings.cli.options import Command, Given, Printing, config_fields, option, positional
from workings.config import from_dict, override, read_mapping, to_dict
from workings.errors import BadInput, listed
from workings.files import to_json, write_atomic
from workings.progress import say

_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


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
        is_ours = (Path(self.out) / tokenizer.FILES[-1]).is_file()  # and not somebody's tokenizer.json
        _refuse_full(Path(self.out), tokenizer.FILES if is_ours else ())
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
        given = sys.stdin.buffer.read().decode("utf-8-sig") if self.text == ("-",) else " ".join(self.text)
        prepared, n_facts = (given, 0) if self.raw else tokenizer.prepare_counted(given)
        pieces = list(tokenizer.pieces(prepared))
        if self.json:
            print(json.dumps({"text": prepared, "facts": n_facts, "pieces": pieces}, ensure_ascii=False))
            return
        for i, piece in pieces:
            print(f"{i:>6}  {piece!r}")
        say(f"{len(pieces)} tokens for {len(given.encode(errors='replace'))} bytes: {prepared!r}")


def _refuse_full(folder: Path, ours: Collection[str]) -> None:
    """BadInput where a folder to write holds anything but what is about to be written over."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file: give a folder to write")
    others = (
        [path.name for path in folder.iterdir() if path.name[0] != "." and path.name not in ours]
        if folder.exists()
        else []
    )
    if others:
        raise BadInput(f"{folder} holds other files ({listed(others)}): give a new folder")


@dataclass(frozen=True, kw_only=True)
class WithDocuments(Command):
    """How documents are read."""

    field: tuple[str, ...] = option((), "columns that hold the text, one for all sources or one each; a+b joins two")
    separator: str | None = option(
        None,
        r"string that divides a .txt or .md file into documents; \n (each kind of line end), \t, \x1e, \\ are understood",
    )
    skip_bad: bool = option(
        False, "leave out malformed rows and the rest of damaged files, counted (and listed in a corpus's manifest)"
    )

    def sources_of(self, documents: Sequence[str]) -> list[text.SourceConfig]:
        """The sources that were named, with their fields and the separator."""
        n = len(documents)
        if self.field and len(self.field) not in (n, 1):
            raise BadInput(f"--field has {len(self.field)} values for {n} sources of --documents")
        fields, separator = self.field or ("text",), self.separator and _unescaped(self.separator)
        return [
            text.SourceConfig(source, field=fields[i % len(fields)], separator=separator)
            for i, source in enumerate(documents)
        ]


def _unescaped(written: str) -> str:
    r"""What is meant by `\n\n`, as a shell hands it on. BadInput for an escape that is none.

    Example:
        >>> _unescaped(r"\n--\x1e\\\n"), _unescaped("—")
        ('\n--\x1e\\\n', '—')
    """
    wrong = re.search(r"\\(?![\\nrtfv0]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})", re.sub(r"\\\\", "", written))
    if wrong:
        raise BadInput(
            rf"--separator {written!r} holds an escape that is none; \\ stands for a backslash, \n for a line end"
        )
    return written.encode("latin-1", "backslashreplace").decode("unicode_escape")


@dataclass(frozen=True, kw_only=True)
class TokenizerTrain(WithDocuments):
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
        _refuse_full(Path(self.out), ("tokenizer.json",))
        content = text.train_bpe(self._texts(), self.size)
        Path(self.out).mkdir(parents=True, exist_ok=True)
        print(write_atomic(Path(self.out) / "tokenizer.json", content))

    def _texts(self) -> Iterator[str]:
        """The texts to learn from. BadInput at the first row that is no document, unless such rows are left out."""
        for about in self.sources_of(self.documents):
            source = text.open_documents(
                about.reference, field=about.field, separator=about.separator, skip_bad=self.skip_bad
            )
            for note in source.notes:
                say(f"note: {note}")
            bad: list[text.BadDocument] = []
            for row in islice(source, self.limit):
                if isinstance(row, text.Document):
                    yield row.text
                elif self.skip_bad:
                    bad.append(row)
                else:
                    raise row.refused()
            if bad:
                say(f"note: {len(bad):,} rows were no documents and were left out; the first, {bad[0]}")


# ── corpora ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class CorpusBuild(WithDocuments, Printing):
    """Turn documents into shards of token ids.

    The documents are mixed, shuffled, rewritten and encoded. Prints the path of the corpus.
    """

    documents: tuple[str, ...] = option(
        (),
        "sources: files, folders, patterns ('data/*.jsonl'), hub ids (openai/gsm8k:main:split=test@revision), generated, drills "
        "or docstrings",
    )
    weights: tuple[float, ...] = option((), "relative shares of the bytes, one per source", above=0)
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
    allow_short: bool = option(False, "accept sources that end before the limit")
    allow_rate: bool = option(False, "accept another fact rate than --fact-rate, as when the documents hold more facts")
    dry_run: bool = option(False, "estimate bytes, tokens, facts and time from the first documents; write nothing")

    def __call__(self) -> None:
        config = self._resolved()
        for source in config.open_sources():
            for note in source.notes:
                say(f"note: {note}")
        if self.dry_run:
            self._print_estimate(config)
            return
        corpus = text.build_corpus(
            config,
            self.out,
            processes=self.processes,
            skip_bad=self.skip_bad,
            allow_short=self.allow_short,
            allow_rate=self.allow_rate,
        )
        for note in corpus.notes():
            say(f"note: {note}")
        print(to_json(corpus.manifest.to_json()).rstrip() if self.json else corpus.folder)

    def _print_estimate(self, config: text.CorpusConfig) -> None:
        found = asdict(text.estimate_corpus(config, text.n_processes(self.processes), self.skip_bad))
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
        if self.documents:
            mapping["documents"] = self._sources()
        if "documents" not in mapping:
            raise BadInput("name the sources with --documents (a file, a folder, a hub id, generated, docstrings)")
        return override(from_dict(text.CorpusConfig, mapping), self.set)

    def _sources(self) -> list[dict[str, object]]:
        sources = [to_dict(source) for source in self.sources_of(self.documents)]
        if self.weights and len(self.weights) != len(sources):
            raise BadInput(f"--weights has {len(self.weights)} values for {len(sources)} sources of --documents")
        weights = self.weights or (1.0,) * len(sources)
        return [source | {"weight": weight} for source, weight in zip(sources, weights, strict=True)]


def _n_bytes(written: str) -> int:
    """The number of bytes in 500M, 45GB or 1e9, in decimal units."""
    found = re.fullmatch(r"(\d+\.?\d*(?:e\d+)?|\.\d+) ?([kKMGT]?)B?", written.replace("_", "").replace(",", ""))
    if not found or float(found[1]) > sys.maxsize:
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
        for name, about in corpus.outcome.files_left_out.items():
            print(f"note: {about.files:,} files of {name} were left out: {listed(about.listed)}")
        for note in corpus.notes():
            print(f"note: {note}")
