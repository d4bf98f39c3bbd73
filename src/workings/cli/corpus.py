"""Corpora: build them, show them, check them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from workings.cli.options import AsJson, Quiet
from workings.errors import BadInput
from workings.files import to_json

if TYPE_CHECKING:
    from workings.text.build import Build
    from workings.text.corpus import Corpus
    from workings.text.manifest import CorpusConfig

_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def corpus_build(
    *,
    documents: Annotated[
        list[str] | None,
        "files, folders, hub ids (HuggingFaceFW/fineweb-edu:sample-10BT@revision), generated, drills or docstrings",
    ] = None,
    out: Annotated[str, "the folder of the corpus; the same command goes on where it was stopped"] = "corpus",
    weights: Annotated[list[float] | None, "shares of the bytes, one a source"] = None,
    field: Annotated[list[str] | None, "the column of the text, one for all sources or one each; a+b joins two"] = None,
    separator: Annotated[str | None, "what divides a .txt file into documents"] = None,
    vocabulary: Annotated[
        Literal["digits", "facts", "shuffled", "reserved"] | None, "what becomes of arithmetic; facts by default"
    ] = None,
    base: Annotated[str | None, "the byte-level BPE: gpt2, another hub id, a path; embedded by default"] = None,
    facts: Annotated[str | None, "the fact families: MUL:1-9 by default"] = None,
    mode: Annotated[
        Literal["strict", "weak", "legacy-strict", "legacy-weak"] | None, "of rewriting; strict by default"
    ] = None,
    fact_rate: Annotated[float | None, "facts over training tokens in the facts arm, reached with drills"] = None,
    documents_limit: Annotated[int | None, "documents to read, drills not counted"] = None,
    bytes_: Annotated[str | None, "raw bytes to read, drills not counted: 500M, 45GB"] = None,
    seed: Annotated[int | None, "of order and drills"] = None,
    shuffle_buffer: Annotated[int | None, "documents held in memory to draw the next one from"] = None,
    validation_fraction: Annotated[float | None, "of documents, by content"] = None,
    validation_documents: Annotated[int | None, "at most, of each source"] = None,
    shard_tokens: Annotated[int | None, "the size of a shard"] = None,
    set_: Annotated[list[str] | None, "field=value: drills.facts_per_document=16"] = None,
    config: Annotated[str | None, "a YAML file of fields, such as the config in a manifest; options change it"] = None,
    processes: Annotated[int | None, "that encode; decides no byte. By default one a core"] = None,
    skip_bad: Annotated[bool, "leave out what is no document, counted and listed in the manifest"] = False,
    allow_short: Annotated[bool, "sources may end before the limit"] = False,
    dry_run: Annotated[bool, "estimate bytes, tokens, facts and time from the first documents; write nothing"] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Turn documents into shards of token ids: mixed, shuffled, rewritten, encoded; prints the folder."""
    given = {
        "vocabulary": vocabulary,
        "base": base,
        "facts": facts,
        "mode": mode,
        "fact_rate": fact_rate,
        "documents_limit": documents_limit,
        "bytes_limit": None if bytes_ is None else _n_bytes(bytes_),
        "seed": seed,
        "shuffle_documents": shuffle_buffer,
        "validation_fraction": validation_fraction,
        "validation_documents": validation_documents,
        "shard_tokens": shard_tokens,
    }
    asked = _config(config, _sources(documents, weights, field, separator), given, set_ or [])
    for source in asked.open_sources():
        if source.warning and not quiet:
            print(f"note: {source.warning}", file=sys.stderr)
    if dry_run:
        _print_estimate(asked, processes, json_)
        return
    from workings.text.corpus import build_corpus

    with _bar(not quiet) as progress:
        corpus = build_corpus(
            asked, out, processes=processes, skip_bad=skip_bad, allow_short=allow_short, progress=progress
        )
    for note in corpus.notes() if not quiet else ():
        print(f"note: {note}", file=sys.stderr)
    print(to_json(corpus.manifest.to_json()).rstrip() if json_ else corpus.folder)


def corpus_show(corpus: Annotated[str, "the folder of a corpus"], /, *, json_: AsJson = False) -> None:
    """Show what a corpus is made of, by split and source."""
    from workings.text.corpus import Corpus

    opened = Corpus.open(corpus)
    if json_:
        print(to_json(opened.manifest.to_json()).rstrip())
        return
    _print_corpus(opened)


def is_corpus(folder: Path) -> bool:
    """Whether the folder says that it is a corpus, complete or not, of whichever version."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and str(manifest.get("format", "")).startswith("workings corpus")


def verify_corpus(path: str) -> int:
    """Check that a corpus is as it was written: every file, count, id and document bound; exit code 1 if it is not."""
    from workings.text.corpus import verify

    differences = verify(path)
    for line in differences:
        print(line)
    if not differences:
        print(f"{path}: every shard is as it was written, and holds what the manifest says")
    return 1 if differences else 0


# ── what was asked for ───────────────────────────────────────────────────────────────────────────────────────────────


def _config(
    file: str | None, sources: list[dict[str, Any]], given: dict[str, Any], settings: list[str]
) -> CorpusConfig:
    """The config of a file or the defaults, with the options that were given."""
    from workings.config import from_dict, override, read_mapping
    from workings.text.manifest import CorpusConfig

    mapping = read_mapping(file) if file else {}
    mapping |= {name: value for name, value in given.items() if value is not None}
    mapping |= {"documents": sources} if sources else {}
    if "documents" not in mapping:
        raise BadInput("name the sources with --documents (a file, a folder, a hub id, generated, docstrings)")
    return override(from_dict(CorpusConfig, mapping), settings)


def _sources(
    references: list[str] | None, weights: list[float] | None, fields: list[str] | None, separator: str | None
) -> list[dict[str, Any]]:
    references = references or []
    for name, values in (("--weights", weights), ("--field", fields)):
        if values and len(values) not in (len(references), 1 if name == "--field" else -1):
            raise BadInput(f"{name} has {len(values)} values for {len(references)} sources of --documents")
    fields, weights = fields or ["text"], weights or [1.0] * len(references)
    return [
        {"reference": reference, "weight": weights[i], "field": fields[i % len(fields)], "separator": separator}
        for i, reference in enumerate(references)
    ]


def _n_bytes(text: str) -> int:
    """500M, 45GB, 1e9: decimal units."""
    found = re.fullmatch(r"([\d.]+(?:e\d+)?) ?([kKMGT]?)B?", text.replace("_", "").replace(",", ""))
    try:
        return round(float(found[1]) * _UNITS[found[2]]) if found else int(text)
    except ValueError:
        raise BadInput(f"--bytes must be a number of bytes such as 500M or 45GB, not '{text}'") from None


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _bar(shown: bool) -> Generator[Callable[[Build], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("reading", total=None)

        def show(build: Build) -> None:
            totals = build.totals
            text = f"{_short(totals.sum('train', 'bytes'))}B, {_short(totals.sum('train', 'tokens'))} tokens"
            done = build.fraction
            bar.update(task, description=text, total=None if done is None else 1.0, completed=done or 0.0)

        yield show


def _short(n: float) -> str:
    """1234567 → 1.23 M."""
    for unit in ("", "k", "M", "G"):
        if n < 1000:
            break
        n, unit = n / 1000, {"": "k", "k": "M", "M": "G", "G": "T"}[unit]
    else:
        unit = "T"
    return f"{n:.3g} {unit}".strip() + ("" if unit else " ")


def _print_estimate(config: CorpusConfig, processes: int | None, as_json: bool) -> None:
    from dataclasses import asdict

    from workings.text.build import n_processors
    from workings.text.estimate import estimate

    found = asdict(estimate(config, processes or n_processors()))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        shown = "unknown" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        print(f"{name.replace('_', ' '):18} {shown}")


def _print_corpus(corpus: Corpus) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "source", title=str(corpus.folder), title_justify="left")
    for name in ("documents", "bytes", "tokens", "facts", "facts/tokens"):
        table.add_column(name, justify="right")
    for split, about in corpus.outcome.splits.items():
        for source, counts in [*about.sources.items(), ("all", about)]:
            numbers = [f"{n:,}" for n in (counts.n_documents, counts.n_bytes, counts.n_tokens, counts.n_facts)]
            table.add_row(split, source, *numbers, f"{counts.n_facts / max(counts.n_tokens, 1):.4%}")
    Console().print(table)
    rate = corpus.outcome.fact_rate
    print(f"vocabulary {corpus.manifest.tokenizer.vocabulary}, {len(corpus.train.shards)} training shards")
    print(f"fact rate (in the facts arm): asked {rate.asked:.4%}, reached {rate.reached:.4%}")
    print(f"training documents (raw_sha256): {corpus.train.raw_sha256}")
    for note in corpus.notes():
        print(f"note: {note}")
