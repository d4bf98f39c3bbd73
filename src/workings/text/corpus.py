"""A folder of shards → batches to train on, and validation documents; the same for one seed on every machine.

The training stream is all training documents one behind the other, each after an end of text. A window is T tokens and
the T that follow them by one; window w begins at token w*T, so windows neither overlap nor leave anything out but the
last (n_tokens - 1) % T tokens of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path

import numpy as np

from workings import seeds
from workings.arithmetic.drills import DrillSpec
from workings.config import changed
from workings.errors import BadInput
from workings.text.manifest import DRILLS, CorpusManifest, Split, SplitName
from workings.text.shards import differences, open_ids, open_index, raw_digest, refuse_other_length
from workings.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenBatch:
    """Rows of one rank. `documents` numbers the documents within a row from 0; `index + 1` is where to go on."""

    inputs: np.ndarray
    """int64 [rows, T]"""
    targets: np.ndarray
    """int64 [rows, T]: the inputs, one later."""
    documents: np.ndarray
    """int32 [rows, T]"""
    index: int


@dataclass(frozen=True)
class ValidationDocument:
    """A document never trained on. Bits per byte: its nats (the end of text as first input) over `n_bytes` of raw text."""

    source: str
    ids: np.ndarray
    """Without the end of text before it."""
    n_bytes: int


class Corpus:
    """A complete corpus on disk, mapped into memory as it is read. A shard is hashed when it is first read.

    Attributes:
        folder: Where it lies.
        manifest: What it was asked to be.
        outcome: What came of the build; `train` and `held_out` are its splits, with counts of documents, bytes and tokens.
        dtype: The type of the ids on disk.

    Example:
        >>> from tempfile import mkdtemp
        >>> from workings.text import CorpusConfig, SourceConfig, build_corpus
        >>> config = CorpusConfig((SourceConfig("generated"),), documents_limit=20, validation_fraction=0.2)
        >>> folder = build_corpus(config, Path(mkdtemp()) / "corpus", processes=1).folder
        >>> corpus = Corpus.open(folder)
        >>> batch = next(corpus.batches(seed=0, rows=2, length=16))
        >>> bool((batch.inputs[:, 1:] == batch.targets[:, :-1]).all())
        True
        >>> corpus.verify()
        []
    """

    def __init__(self, folder: Path, manifest: CorpusManifest) -> None:
        if manifest.outcome is None:
            raise BadInput(f"the corpus {folder} is unfinished: build it again with the same settings, and it goes on")
        self.folder, self.manifest, self.outcome = folder, manifest, manifest.outcome
        self.dtype = np.dtype(manifest.dtype)
        self._ids: dict[int, np.ndarray] = {}  # of the training shards that were read, which were hashed first
        for shard in self.train.shards:
            refuse_other_length(folder, shard, self.dtype)
        self._starts = np.cumsum([0, *(shard.n_tokens for shard in self.train.shards)])

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """BadInput where there is no corpus, an unfinished one, or a shard of another length than was written."""
        return cls(Path(folder), CorpusManifest.read(Path(folder)))

    @property
    def train(self) -> Split:
        """Counts, sources and shards of the training documents."""
        return self.outcome.splits["train"]

    @property
    def held_out(self) -> Split:
        """Counts, sources and shards of the validation documents."""
        return self.outcome.splits["validation"]

    @property
    def drills(self) -> DrillSpec:
        """The specification of the drills among the documents."""
        return changed(DrillSpec(), self.manifest.config["drills"] or {})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was encoded with. BadInput if the one in the folder is another."""
        tokenizer = Tokenizer.load(self.folder / "tokenizer")
        if tokenizer.digest != self.manifest.tokenizer.digest:
            raise BadInput(f"{self.folder / 'tokenizer'} is not the tokenizer that the corpus was encoded with")
        return tokenizer

    @property
    def sources(self) -> list[str]:
        """Names by number; drills are the last, where there are any."""
        drills = [DRILLS] if self.manifest.config["fact_rate"] else []
        return [source.name for source in self.manifest.sources] + drills

    @property
    def n_tokens(self) -> int:
        """The length of the training stream in tokens."""
        return int(self._starts[-1])

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def n_windows(self, length: int) -> int:
        """Windows of `length` tokens in one epoch."""
        return max((self.n_tokens - 1) // length, 0)

    def window(self, number: int, length: int) -> np.ndarray:
        """Window `number` with the token after it: int64 [length + 1]."""
        return self._stream(number * length, (number + 1) * length + 1)

    def batches(
        self, seed: int, rows: int, length: int, rank: int = 0, world: int = 1, start: int = 0
    ) -> Iterator[TokenBatch]:
        """Batches without end: a pure function of the arguments and of a batch's number.

        Global batch i is rows*world windows, of which rank r has rows [r*rows, (r+1)*rows). Every epoch is a permutation
        of all windows of its own; a batch may lie in two epochs.

        Args:
            seed: Seed of the permutations.
            rows: Windows in a batch of one rank.
            length: Tokens in a window.
            rank: Whose batches, of the ranks 0 to world - 1.
            world: The number of ranks.
            start: The number of the first batch: `index + 1` of the last one read, to go on.

        Raises:
            BadInput: The arguments make no batches, or the corpus has not one window.
        """
        if not 0 <= rank < world or rows < 1 or length < 1 or start < 0:
            raise BadInput(f"no batches of {rows} rows and {length} tokens from {start} for rank {rank} of {world}")
        if not self.n_windows(length):
            raise BadInput(f"{self.folder} has {self.n_tokens:,} training tokens: not one window of {length}")
        order = _Order(self.n_windows(length), seed)
        for index in count(start):
            first = (index * world + rank) * rows
            windows = np.stack([self.window(order.window(row), length) for row in range(first, first + rows)])
            yield self._batch(windows, index)

    def _batch(self, windows: np.ndarray, index: int) -> TokenBatch:
        inputs = windows[:, :-1]
        begins = inputs == self.manifest.tokenizer.eot
        begins[:, 0] = False
        return TokenBatch(inputs, windows[:, 1:], np.cumsum(begins, axis=1, dtype=np.int32), index)

    def _stream(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the training stream, from as many shards as they lie in."""
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            offset, end = int(self._starts[shard]), min(stop, int(self._starts[shard + 1]))
            if shard not in self._ids:
                self._ids[shard] = open_ids(self.folder, self.train.shards[shard], self.dtype)
            parts.append(self._ids[shard][start - offset : end - offset])
            start, shard = end, shard + 1
        return np.concatenate(parts).astype(np.int64)

    # ── validation ───────────────────────────────────────────────────────────────────────────────────────────────────

    def first_validation(self, n_per_source: int) -> list[ValidationDocument]:
        """The first validation documents of each source."""
        return [document for source in self.sources for document in islice(self.validation(source), n_per_source)]

    def validation(self, source: str | None = None) -> Iterator[ValidationDocument]:
        """The validation documents of a source, or of all, in the order of the manifest; the same in every arm."""
        names = self.sources
        if source is not None and source not in names:
            raise BadInput(f"the corpus {self.folder} has no source '{source}'; it has {', '.join(names)}")
        for shard in self.held_out.shards:
            rows = open_index(self.folder, shard)
            if source is not None and names[rows["source"][0]] != source:
                continue
            ids = open_ids(self.folder, shard, self.dtype)
            ends = np.append(rows["offset"][1:], shard.n_tokens)
            for row, end in zip(rows, ends, strict=True):
                document = np.array(ids[int(row["offset"]) + 1 : int(end)])
                yield ValidationDocument(names[row["source"]], document, int(row["bytes"]))

    def notes(self) -> list[str]:
        """Facts that a user of the corpus should know, one line each."""
        n_bad = self.outcome.unreadable.rows
        found = [
            f"no validation documents from {name}: raise validation_fraction, or give more documents"
            for name in self.train.sources
            if name not in self.held_out.sources
        ]
        if n_bad:
            found.append(f"{n_bad:,} rows were no documents and were left out; the manifest lists the first of them")
        return found

    # ── checking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def verify(self) -> list[str]:
        """Differences from what was written, one line each: hashes, counts, ids, document bounds, overlap of the splits."""
        return verify_corpus(self.folder)

    def check(self) -> None:
        """BadInput unless `verify` finds everything as it was written."""
        wrong = self.verify()
        if wrong:
            raise BadInput(f"the corpus {self.folder} is not as it was built: {'; '.join(wrong[:3])}. Build it again.")


def verify_corpus(folder: str | Path) -> list[str]:
    """`Corpus.verify` of a folder that may be too damaged to open. BadInput where there is no manifest."""
    folder = Path(folder)
    manifest = CorpusManifest.read(folder)
    if manifest.outcome is None:
        return [f"the manifest says {manifest.status}, not complete"]
    splits, dtype, about = manifest.outcome.splits, np.dtype(manifest.dtype), manifest.tokenizer
    found = [
        line
        for split in splits.values()
        for shard in split.shards
        for line in differences(folder, shard, dtype, about.width, about.eot)
    ]
    found += _tokenizer_differences(folder, about.digest)
    if found:
        return found
    counted = [line for name, split in splits.items() for line in _count_differences(folder, name, split)]
    return counted + _overlap(folder, splits)


def _tokenizer_differences(folder: Path, digest: str) -> list[str]:
    try:
        tokenizer = Tokenizer.load(folder / "tokenizer")
    except BadInput as error:
        return [str(error)]
    return [] if tokenizer.digest == digest else [f"{folder / 'tokenizer'} is not the tokenizer of this corpus"]


def _count_differences(folder: Path, name: str, split: Split) -> Iterator[str]:
    rows = [open_index(folder, shard) for shard in split.shards]
    counted = {
        "documents": (sum(map(len, rows)), split.n_documents),
        "bytes": (sum(int(part["bytes"].sum()) for part in rows), split.n_bytes),
        "tokens": (sum(shard.n_tokens for shard in split.shards), split.n_tokens),
    }
    for what, (n, said) in counted.items():
        if n != said:
            yield f"{name} has {n:,} {what}, the manifest says {said:,}"
    if raw_digest(folder, split.shards) != split.raw_sha256:
        yield f"the {name} documents are not those of the manifest (raw_sha256)"


def _overlap(folder: Path, splits: Mapping[SplitName, Split]) -> list[str]:
    """Validation documents that are trained on; hashes of one shard in memory at a time."""
    held = [open_index(folder, shard)["hash"] for shard in splits["validation"].shards]
    hashes = np.concatenate([np.empty(0, np.uint64), *held])
    rows = (open_index(folder, shard) for shard in splits["train"].shards)
    n = sum(int(np.isin(part["hash"], hashes).sum()) for part in rows)
    return [f"{n} training documents are validation documents too"] if n else []


class _Order:
    """Row of the endless sequence of windows → window: a permutation an epoch, one of them in memory."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def window(self, row: int) -> int:
        epoch, place = divmod(row, self.n)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = seeds.numpy(f"windows {epoch}", self.seed).permutation(self.n)
        return int(self._permutation[place])
