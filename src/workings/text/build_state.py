"""The state of a build ⇄ its folder: what lets a killed build go on, and the manifest that says complete at the end.

state.json is written about once a second. Files are then cut to the lengths it names, so whatever a killed build wrote after
it is forgotten.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workings.config import to_dict
from workings.errors import BadInput, first_line
from workings.files import drop_half_written, sealed, write_atomic
from workings.progress import say
from workings.provenance import versions
from workings.text.documents import BadDocument, Source
from workings.text.manifest import (
    COUNTS,
    DRILLS,
    BadRows,
    BuildOutcome,
    CorpusConfig,
    CorpusManifest,
    Counts,
    FactRate,
    LeftOutFiles,
    SourceName,
    Split,
    SplitName,
    TokenizerIdentity,
)
from workings.text.shards import Shard, ShardWriter, raw_digest, shard_files
from workings.text.tokenizer import Tokenizer

SECONDS_BETWEEN_NOTES = 1.0
"""Between two entries of the journal."""
LISTED = 1000
"""Unreadable rows, and files left out, that the manifest lists; all are counted."""


@dataclass
class BuildState:
    """The memory of a build, beside totals and files."""

    n_blocks: int = 0
    drill_position: int = 0
    """Drills gone through, with those left out as repeats."""
    mark: int = 0
    """Over the documents of these blocks, to know them again."""
    largest_drill: int = 0
    """In facts."""
    unreadable: int = 0
    unreadable_listed: list[dict[str, str]] = field(default_factory=list)
    validating: dict[str, list[int]] = field(default_factory=dict)
    """{number of a source: content hashes of its validation documents}."""
    left_out: dict[str, int] = field(
        default_factory=lambda: {"beyond validation_documents": 0, "repeats of validation documents": 0}
    )
    given_up: bool = False
    """The build ended with an error that other settings may mend."""


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

    def counts(self, split: str) -> Counts:
        """The counts over all sources."""
        return Counts(*self.of[split].sum(0).tolist())

    def by_source(self, split: str) -> dict[str, Counts]:
        """The counts of the sources that gave any document to the split."""
        rows = zip(self.names, self.of[split].tolist(), strict=True)
        return {name: Counts(*row) for name, row in rows if row[0]}

    @property
    def rate(self) -> float:
        """Facts over tokens of the training documents, in the facts arm."""
        return self.sum("train", "facts_arm_facts") / max(self.sum("train", "facts_arm_tokens"), 1)


class _Noted(NamedTuple):
    """The content of the journal; the counts, and the states of the writers, by split and stem."""

    state: BuildState
    totals: dict[str, Any]
    writers: dict[str, Any]


class BuildJournal:
    """The folder of a corpus being built; its caller holds the folder's lock.

    Other settings begin a folder anew whose build was given up, or had not come to its first documents. BadInput if the folder
    holds anything else, or a build with other settings that was interrupted.
    """

    def __init__(self, config: CorpusConfig, tokenizer: Tokenizer, sources: list[Source], out: Path) -> None:
        self.config, self.tokenizer, self.sources, self.out = config, tokenizer, sources, out
        names = [source.name for source in sources] + ([DRILLS] if config.fact_rate else [])
        self.totals, self.state = Totals(names), BuildState()
        self.writers = {
            stem: ShardWriter(out, stem, tokenizer.dtype, config.shard_tokens)
            for stem in ("train", *(f"val_{name}" for name in names))
        }
        self._noted = time.monotonic()
        self.is_complete = self._begun() == "complete"
        if not self.is_complete:
            self._restore()

    def note(self) -> bool:
        """Make what was done so far safe from any end; at most once a second, and whether it was done now."""
        if time.monotonic() - self._noted < SECONDS_BETWEEN_NOTES:
            return False
        totals = {split: rows.tolist() for split, rows in self.totals.of.items()}
        self._write(self.state, totals, {name: writer.state() for name, writer in self.writers.items()})
        for writer in self.writers.values():
            writer.forget_parts()
        self._noted = time.monotonic()
        return True

    def give_up(self) -> None:
        """Note that these settings do not make a corpus of these documents: others may begin anew in this folder.

        What was noted last stands. What came after it may be half a block.
        """
        if noted := self._read():
            self._write(replace(noted.state, given_up=True), noted.totals, noted.writers)

    def _write(self, state: BuildState, totals: dict[str, Any], writers: dict[str, Any]) -> None:
        write_atomic(self._journal, json.dumps({"state": asdict(state), "totals": totals, "writers": writers}))

    def note_bad(self, bad: BadDocument) -> None:
        """Count a row that is no document, and list it if it is among the first."""
        self.state.unreadable += 1
        if len(self.state.unreadable_listed) < LISTED:
            listed = {"source": bad.source, "place": str(bad.place), "reason": bad.reason}
            self.state.unreadable_listed.append(listed)

    def complete(self) -> None:
        """Close all shards and say so. The same documents and settings give the same bytes, whatever happened between."""
        for writer in self.writers.values():
            writer.finish()
        write_atomic(self.out / "manifest.json", sealed(replace(self._identity(), outcome=self._outcome()).to_json()))
        self._journal.unlink(missing_ok=True)
        for writer in self.writers.values():
            writer.forget_parts()

    def release(self) -> None:
        for writer in self.writers.values():
            writer.release()

    @property
    def _journal(self) -> Path:
        return self.out / "state.json"

    def _begun(self) -> str:
        """Begin a manifest, or find the one that is there; its status."""
        if not (self.out / "manifest.json").exists():
            self._begin()
        manifest, mine = CorpusManifest.read(self.out), self._identity()
        differ = [name for name in mine.config if manifest.config.get(name) != mine.config[name]]
        differ += [] if manifest.tokenizer == mine.tokenizer else ["the tokenizer"]
        if not differ:
            return manifest.status
        others = f"another {', '.join(differ)}"
        if manifest.status == "complete":
            raise BadInput(f"{self.out} was built with {others}: give the same, or another folder")
        noted = self._read()
        if noted and not noted.state.given_up:
            raise BadInput(
                f"{self.out} was begun with {others}: give the same to go on, or another folder, or delete it"
            )
        say(f"note: {self.out} holds a failed build with {others}; it is begun anew")
        # first: whenever we are killed, what is left without it counts for nothing
        self._journal.unlink(missing_ok=True)
        for path in shard_files(self.out, "*"):
            path.unlink()
        self._begin()
        return "building"

    def _begin(self) -> None:
        self.tokenizer.save(self.out / "tokenizer")
        write_atomic(self.out / "manifest.json", sealed(self._identity().to_json()))

    def _read(self) -> _Noted | None:
        """The content of the journal; None where nothing was noted yet."""
        try:
            content = json.loads(self._journal.read_text(encoding="utf-8"))
            return _Noted(BuildState(**content["state"]), content["totals"], content["writers"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from None

    def _restore(self) -> None:
        drop_half_written(self.out)
        noted = self._read()
        nothing = {"closed": [], "tokens": 0, "documents": 0}
        try:
            for name, writer in self.writers.items():
                writer.restore(noted.writers[name] if noted else nothing)
            for split, rows in noted.totals.items() if noted else ():
                self.totals.of[split][:] = np.array(rows, np.int64)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from None
        if noted:
            self.state = replace(noted.state, given_up=False)

    def _damaged(self, error: Exception) -> BadInput:
        return BadInput(f"{self._journal} is damaged ({first_line(error)}): delete the folder and build it again")

    def _identity(self) -> CorpusManifest:
        """The manifest before anything is known of the outcome."""
        return CorpusManifest(
            config=json.loads(json.dumps(to_dict(self.config))),
            dtype=self.tokenizer.dtype.name,
            tokenizer=TokenizerIdentity.of(self.tokenizer),
            sources=tuple(SourceName(source.name, source.reference) for source in self.sources),
        )

    def _outcome(self) -> BuildOutcome:
        validation = [shard for name in self.totals.names for shard in self.writers[f"val_{name}"].closed]
        return BuildOutcome(
            splits={
                "train": self._split("train", self.writers["train"].closed),
                "validation": self._split("validation", validation),
            },
            fact_rate=FactRate(self.config.fact_rate, self.totals.rate),
            left_out=self.state.left_out,
            unreadable=BadRows(self.state.unreadable, tuple(self.state.unreadable_listed)),
            versions=versions(),
            files_left_out={
                source.name: LeftOutFiles(len(source.left_out), source.left_out[:LISTED])
                for source in self.sources
                if source.left_out
            },
        )

    def _split(self, name: SplitName, shards: list[Shard]) -> Split:
        counts = vars(self.totals.counts(name))
        return Split(
            **counts, raw_sha256=raw_digest(self.out, shards), sources=self.totals.by_source(name), shards=tuple(shards)
        )
