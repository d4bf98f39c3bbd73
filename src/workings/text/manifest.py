"""What a corpus is asked to be (CorpusConfig), what it has come to (Totals), and the manifest that says both."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from workings.arithmetic.drills import DrillSpec
from workings.config import fixed, scientific
from workings.errors import BadInput
from workings.text.documents import Source, open_documents
from workings.text.shards import Shard
from workings.text.tokenizer import Mode, Tokenizer, Vocabulary

FORMAT = "workings corpus 1"
DRILLS = "drills"
COUNTS = ("documents", "bytes", "tokens", "facts", "facts_arm_tokens", "facts_arm_facts")


@dataclass(frozen=True)
class SourceConfig:
    """One source of documents; see `open_documents` for references, fields and separators."""

    reference: str = fixed(
        help="file, folder, hub id (HuggingFaceFW/fineweb-edu:sample-10BT@revision), generated, drills or docstrings"
    )
    weight: float = fixed(1.0, "share of the bytes of the corpus, relative to the weights of the other sources")
    field: str = fixed("text", "column that holds the text; question+answer joins two columns")
    separator: str | None = fixed(None, "string that divides a .txt file into documents")
    name: str = fixed("", "name in tables and file names; by default the end of the reference")

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"the weight of {self.reference} is {self.weight}; give a number above 0")


@dataclass(frozen=True)
class CorpusConfig:
    """Everything that decides the bytes of a corpus. Arms differ in `vocabulary` (or in `fact_rate`), in nothing else."""

    documents: tuple[SourceConfig, ...] = fixed(help="sources of the documents")
    vocabulary: Vocabulary = scientific(
        "facts",
        "what becomes of arithmetic: digits, fact tokens, fact tokens permuted in each document, or unused tokens",
    )
    base: str = fixed("embedded", "byte-level BPE: a hub id such as gpt2, a path, or embedded")
    facts: str = fixed("MUL:1-9", "fact families and ranges of operands: MUL:1-9, or several: MUL:1-12,ADD:0-9")
    mode: Mode = fixed("strict", "rewriting mode: which equations become fact tokens")
    fact_rate: float = scientific(0.0, "share of facts among the training tokens of the facts arm, reached with drills")
    drills: DrillSpec = fixed(DrillSpec(), "specification of the drills")
    documents_limit: int | None = fixed(
        None, "maximum number of documents to read, validation included, drills not counted"
    )
    bytes_limit: int | None = fixed(None, "maximum number of raw bytes to read, drills not counted")
    seed: int = fixed(0, "random seed for shuffling and drills")
    shuffle_documents: int = fixed(10_000, "number of documents held in memory to draw the next one from")
    shuffle_bytes: int = fixed(64 << 20, "maximum number of bytes held in memory to draw the next document from")
    validation_fraction: float = fixed(0.005, "share of documents held out for validation, chosen by content")
    validation_documents: int = fixed(1000, "maximum number of validation documents per source")
    shard_tokens: int = fixed(100_000_000, "number of tokens per shard")

    def __post_init__(self) -> None:
        complaint = next((what for what, holds in self._complaints().items() if holds), None)
        if complaint:
            raise ValueError(complaint)

    def _complaints(self) -> dict[str, bool]:
        limits = [n for n in (self.documents_limit, self.bytes_limit) if n is not None]
        weights = {source.weight for source in self.documents}
        references = [source.reference for source in self.documents]
        return {
            "name at least one source of documents": not self.documents,
            "a corpus is at most 65535 sources": len(self.documents) > 65535,
            "limits of documents and bytes must be above 0": any(n < 1 for n in limits),
            "weights need --bytes or --documents-limit: without, everything is read": len(weights) > 1 and not limits,
            f"fact_rate is {self.fact_rate}; give a share from 0 to 0.5": not 0 <= self.fact_rate <= 0.5,
            "drills come by fact_rate, or as a source; not both": bool(self.fact_rate) and DRILLS in references,
            f"validation_fraction is {self.validation_fraction}; give 0 to 0.5": not 0
            <= self.validation_fraction
            <= 0.5,
            "the shuffle holds at least one document": min(self.shuffle_documents, self.shuffle_bytes) < 1,
            "shard_tokens must be above 0": self.shard_tokens < 1,
            "validation_documents must not be negative": self.validation_documents < 0,
        }

    @property
    def has_limit(self) -> bool:
        return self.documents_limit is not None or self.bytes_limit is not None

    def build_tokenizer(self) -> Tokenizer:
        return Tokenizer.build(self.base, self.vocabulary, self.facts, self.mode)

    def open_sources(self) -> list[Source]:
        """The sources, with names of their own. BadInput for an endless one without a limit."""
        taken: set[str] = {DRILLS} if self.fact_rate else set()
        sources = []
        for one in self.documents:
            source = open_documents(
                one.reference, field=one.field, separator=one.separator, seed=self.seed, name=one.name
            )
            if source.is_endless and not self.has_limit:
                raise BadInput(f"{one.reference} never ends: say how much of it with --bytes or --documents-limit")
            sources.append(_renamed(source, taken))
            taken.add(sources[-1].name)
        return sources


def _renamed(source: Source, taken: set[str]) -> Source:
    names = (source.name if n == 1 else f"{source.name}-{n}" for n in range(1, len(taken) + 3))
    return replace(source, name=next(name for name in names if name not in taken))


@dataclass
class Totals:
    """Counts (COUNTS) by split and source: `of["train"]` is an int64 array [sources, COUNTS]."""

    names: list[str]
    of: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in ("train", "validation"):
            self.of.setdefault(split, np.zeros((len(self.names), len(COUNTS)), np.int64))

    def add(self, split: str, source: np.ndarray, entries: np.ndarray) -> None:
        """Count documents: the numbers of their sources, and their entries (`encoding.ENTRY`)."""
        columns = [np.ones(len(entries), np.int64), *(entries[name] for name in COUNTS[1:])]
        np.add.at(self.of[split], source, np.stack(columns, 1))

    def sum(self, split: str, count: str, *sources: int) -> int:
        """A count over all sources, or over the given ones."""
        column = self.of[split][:, COUNTS.index(count)]
        return int(column[list(sources)].sum() if sources else column.sum())

    def counts(self, split: str) -> dict[str, int]:
        """{count: n} over all sources."""
        return {count: self.sum(split, count) for count in COUNTS}

    def table(self, split: str) -> dict[str, dict[str, int]]:
        """{source: {count: n}} of the sources that gave any document to the split."""
        rows = zip(self.names, self.of[split].tolist(), strict=True)
        return {name: dict(zip(COUNTS, row, strict=True)) for name, row in rows if row[0]}

    @property
    def rate(self) -> float:
        """Facts over tokens of the training documents, in the facts arm."""
        return self.sum("train", "facts_arm_facts") / max(self.sum("train", "facts_arm_tokens"), 1)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus, complete or not. BadInput where there is none."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{folder} is no corpus (it has no manifest.json); make one with: workings corpus build"
        ) from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BadInput(f"{path} is not the manifest of a corpus of this version ({FORMAT})")
    return manifest


def shards_of(manifest: dict[str, Any], split: str) -> list[Shard]:
    return [Shard(**shard) for shard in manifest["splits"][split]["shards"]]
