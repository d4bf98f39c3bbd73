"""The settings of a corpus (CorpusConfig) and the manifest in its folder, which says what came of them.

Both are read by `workings corpus build --help` and by experiments, so nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from workings.arithmetic.drills import DrillSpec
from workings.config import check_ranges, fixed, scientific
from workings.errors import BadInput
from workings.files import read_sealed
from workings.text.documents import Source, open_documents
from workings.text.shards import Shard
from workings.text.tokenizer import Mode, Tokenizer, Vocabulary

FORMAT = "workings corpus 1"
DRILLS = "drills"
SplitName = Literal["train", "validation"]
C = TypeVar("C")


@dataclass(frozen=True)
class SourceConfig:
    """One source of documents; see `open_documents` for references, fields and separators."""

    reference: str = fixed(
        help="file, folder, pattern, hub id (HuggingFaceFW/fineweb-edu:sample-10BT@revision), generated, drills or docstrings"
    )
    weight: float = fixed(
        1.0, "share of the bytes of the corpus, relative to the weights of the other sources", above=0
    )
    field: str = fixed("text", "column that holds the text; question+answer joins two columns")
    separator: str | None = fixed(None, "string that divides a .txt or .md file into documents")
    name: str = fixed("", "name in tables and file names; by default the end of the reference")

    __post_init__ = check_ranges


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
    fact_rate: float = scientific(
        0.0, "share of facts among the training tokens of the facts arm, reached with drills", at_least=0, at_most=0.5
    )
    drills: DrillSpec = fixed(DrillSpec(), "specification of the drills")
    documents_limit: int | None = fixed(
        None, "maximum number of documents to read, validation included, drills not counted", at_least=1
    )
    bytes_limit: int | None = fixed(None, "maximum number of raw bytes to read, drills not counted", at_least=1)
    seed: int = fixed(0, "random seed for shuffling and drills")
    shuffle_documents: int = fixed(10_000, "number of documents held in memory to draw the next one from", at_least=1)
    shuffle_bytes: int = fixed(
        64 << 20, "maximum number of bytes held in memory to draw the next document from", at_least=1
    )
    validation_fraction: float = fixed(
        0.005, "share of documents held out for validation, chosen by content", at_least=0, at_most=0.5
    )
    validation_documents: int = fixed(1000, "maximum number of validation documents per source", at_least=0)
    shard_tokens: int = fixed(100_000_000, "number of tokens per shard", at_least=1)

    def __post_init__(self) -> None:
        check_ranges(self)
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
            "weights need --bytes or --documents-limit: without, everything is read": len(weights) > 1 and not limits,
            "drills come by fact_rate, or as a source; not both": bool(self.fact_rate) and DRILLS in references,
        }

    @property
    def has_limit(self) -> bool:
        return self.documents_limit is not None or self.bytes_limit is not None

    def build_tokenizer(self) -> Tokenizer:
        return Tokenizer.build(self.base, self.vocabulary, self.facts, self.mode)

    def open_sources(self, skip_bad: bool = False) -> list[Source]:
        """The sources, with names of their own; `skip_bad` as in `open_documents`. BadInput for an endless one without a limit."""
        taken: set[str] = {DRILLS} if self.fact_rate else set()
        sources = []
        for one in self.documents:
            source = open_documents(
                one.reference,
                field=one.field,
                separator=one.separator,
                seed=self.seed,
                name=one.name,
                skip_bad=skip_bad,
            )
            if source.is_endless and not self.has_limit:
                raise BadInput(f"{one.reference} never ends: say how much of it with --bytes or --documents-limit")
            names = (source.name if n == 1 else f"{source.name}-{n}" for n in range(1, len(taken) + 3))
            sources.append(replace(source, name=next(name for name in names if name not in taken)))
            taken.add(sources[-1].name)
        return sources


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Counts:
    """Counts over the documents of a split or of one of its sources."""

    n_documents: int = 0
    n_bytes: int = 0
    """Raw text in UTF-8: the same in every arm."""
    n_tokens: int = 0
    """The end of text before each document included."""
    n_facts: int = 0
    """Fact tokens among them."""
    n_facts_arm_tokens: int = 0
    """Tokens of the same documents in the vocabulary "facts"."""
    n_facts_arm_facts: int = 0

    def to_json(self) -> dict[str, int]:
        """The counts as the manifest has them: without `n_`."""
        return {field.name.removeprefix("n_"): getattr(self, field.name) for field in fields(Counts)}


COUNTS = tuple(Counts().to_json())


@dataclass(frozen=True)
class Split(Counts):
    """A split of a complete corpus: its counts, the counts of each source that gave any document, its shards."""

    raw_sha256: str = ""
    """Over sources, lengths and contents of the raw documents in order: equal in arms that hold the same text."""
    sources: Mapping[str, Counts] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The entry of the manifest."""
        sources = {name: counts.to_json() for name, counts in self.sources.items()}
        shards = [shard.to_json() for shard in self.shards]
        return super().to_json() | {"raw_sha256": self.raw_sha256, "sources": sources, "shards": shards}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Split:
        """Read an entry of the manifest."""
        sources = {name: Counts(*(counts[count] for count in COUNTS)) for name, counts in entry["sources"].items()}
        shards = tuple(map(Shard.from_json, entry["shards"]))
        return cls(*(entry[count] for count in COUNTS), entry["raw_sha256"], sources, shards)


@dataclass(frozen=True)
class TokenizerIdentity:
    """The manifest's entry on the tokenizer, to recognize it."""

    vocabulary: Vocabulary
    mode: Mode
    digest: str
    width: int
    eot: int
    embedding_width: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenizerIdentity:
        """The identity of a tokenizer."""
        return cls(*(getattr(tokenizer, field.name) for field in fields(cls)))


@dataclass(frozen=True)
class SourceName:
    """A source of documents by its name in tables and file names, and the reference it was opened by."""

    name: str
    reference: str


@dataclass(frozen=True)
class FactRate:
    """Facts over tokens of the training documents in the facts arm."""

    asked: float
    reached: float


@dataclass(frozen=True)
class BadRows:
    """Rows that were no documents: how many, and source, place and reason of the first of them."""

    rows: int = 0
    listed: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class LeftOutFiles:
    """Files below a folder, or matched by a pattern, that were not read: how many, and the names of the first."""

    files: int
    listed: tuple[str, ...]


@dataclass(frozen=True)
class BuildOutcome:
    """Results of a complete build."""

    splits: Mapping[SplitName, Split]
    fact_rate: FactRate
    left_out: Mapping[str, int]
    """Held-out documents that were left out, by reason."""
    unreadable: BadRows
    versions: Mapping[str, str]
    files_left_out: Mapping[str, LeftOutFiles] = field(default_factory=dict)
    """By the names of those sources that left any out."""


@dataclass(frozen=True)
class CorpusManifest:
    """The content of manifest.json. While the corpus is being built it says what it will be, and has no outcome."""

    config: Mapping[str, Any]
    """The CorpusConfig, as the version that wrote it has it."""
    dtype: str
    """Type of the ids in the shards."""
    tokenizer: TokenizerIdentity
    sources: tuple[SourceName, ...]
    outcome: BuildOutcome | None = None

    @property
    def status(self) -> Literal["building", "complete"]:
        """`complete` once the build has ended."""
        return "complete" if self.outcome else "building"

    def to_json(self) -> dict[str, Any]:
        """The content of the file; the order of its keys never changes, because runs record its digest."""
        content: dict[str, Any] = {"format": FORMAT} | {
            name: value for name, value in asdict(replace(self, outcome=None)).items() if name != "outcome"
        }
        content |= {"status": self.status}
        if self.outcome:
            splits = {name: split.to_json() for name, split in self.outcome.splits.items()}
            content |= asdict(replace(self.outcome, splits={})) | {"splits": splits}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CorpusManifest:
        """Read the content of the file. KeyError or TypeError where something is missing."""
        outcome = None
        if content["status"] == "complete":
            outcome = BuildOutcome(
                {name: Split.from_json(entry) for name, entry in content["splits"].items()},
                FactRate(**content["fact_rate"]),
                content["left_out"],
                BadRows(content["unreadable"]["rows"], tuple(content["unreadable"]["listed"])),
                content["versions"],
                {
                    name: LeftOutFiles(entry["files"], tuple(entry["listed"]))
                    for name, entry in content.get("files_left_out", {}).items()  # younger than the format
                },
            )
        sources = tuple(SourceName(**source) for source in content["sources"])
        return cls(content["config"], content["dtype"], TokenizerIdentity(**content["tokenizer"]), sources, outcome)

    @classmethod
    def read(cls, folder: Path) -> CorpusManifest:
        """The manifest of a corpus, complete or not. BadInput where there is none, or one of another version."""
        path = folder / "manifest.json"
        if not path.exists():
            raise BadInput(f"{folder} is no corpus (it has no manifest.json); make one with: workings corpus build")
        content = read_sealed(path, "copy the corpus again, or build it again")
        if content.get("format") != FORMAT:
            raise BadInput(f"{path} is not the manifest of a corpus of this version ({FORMAT})")
        try:
            return cls.from_json(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadInput(f"{path} cannot be read: {type(error).__name__}: {error}; build the corpus again") from None
