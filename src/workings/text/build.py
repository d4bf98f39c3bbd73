"""CorpusConfig → the files of a corpus: read, mix, shuffle, encode in parallel, add drills, write, remember.

What is decided here (who validates, how many drills and where, when to stop) rests on raw text and on the counts of the
facts arm, so every arm takes the same decisions. The journal is written about once a second; a build that was killed
reads its documents again from the start, skips the blocks that the journal counts, and writes on to identical bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workings.errors import BadInput, Failed, explained
from workings.files import begin_in
from workings.progress import Tracker, track
from workings.stopping import interruptible
from workings.text.build_state import BuildJournal
from workings.text.corpus import Corpus
from workings.text.documents import BadDocument, Source
from workings.text.encoding import Encoded, Encoder, Encoders, encode_texts
from workings.text.manifest import CorpusConfig, SplitName
from workings.text.mixing import DocumentBlock, Drilling, Mixture, blocks, shuffle, validation_drills, with_drills
from workings.text.shards import DOCUMENT
from workings.text.tokenizer import Tokenizer

TOLERANCE = 0.05
"""Relative, of the fact rate and of a source's share of the bytes."""
EARLY_BYTES, EARLY_TOLERANCE = 8 << 20, 0.25
"""After so many bytes a fact rate that the documents themselves exceed by so much, relatively, ends the build."""

MOST_PROCESSES = 1024


class NotAsAsked(Failed):
    """The documents do not make the corpus that was asked for; other settings, or more tolerance, may."""


@dataclass(frozen=True)
class ErrorTolerance:
    """Error-tolerance options. They never change the output bytes, so a build may be resumed under others."""

    skip_bad: bool = False
    """Rows that are no documents are counted and listed."""
    allow_short: bool = False
    """Sources may end before the limit, or before their share."""
    allow_rate: bool = False
    """The fact rate may be another than was asked for, in the documents themselves or with the drills."""


def n_processes(asked: int | None = None) -> int:
    """How many processes encode: as many as are asked for, by default one for each processor that this process may use."""
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= asked <= MOST_PROCESSES:
        raise BadInput(f"{asked:,} processes cannot encode a corpus: give 1 to {MOST_PROCESSES:,}")
    return asked


def build_corpus(
    config: CorpusConfig,
    out: str | Path,
    *,
    processes: int | None = None,
    skip_bad: bool = False,
    allow_short: bool = False,
    allow_rate: bool = False,
) -> Corpus:
    """Write a corpus into a folder, or resume one that was interrupted; a complete one is opened as it is.

    Shows its progress on stderr (`workings.progress`).

    Args:
        config: Everything that decides the bytes of the corpus.
        out: The folder: new, or that of the same corpus.
        processes: How many processes encode; this decides no byte. By default as many as there are processors for us. In a
            script, a call with more than one belongs under `if __name__ == "__main__":`.
        skip_bad: Leave out rows that are no documents, counted and listed in the manifest, instead of stopping at them.
        allow_short: Accept sources that end before the limit or before their share.
        allow_rate: Accept another fact rate than was asked for; the manifest says which.

    Raises:
        BadInput: The config, a document or the folder cannot be used.
        Failed: The corpus does not come out as asked, or a process died. No manifest then says complete, and the same call
            resumes from there. A corpus that did not come out as asked may be begun anew in its folder, with other settings.
        SystemExit: SIGTERM came; the same call resumes from there.

    Example:
        >>> from tempfile import mkdtemp
        >>> from workings import text
        >>> config = text.CorpusConfig((text.SourceConfig("generated"),), documents_limit=20, validation_fraction=0.2)
        >>> corpus = build_corpus(config, Path(mkdtemp()) / "corpus", processes=1)
        >>> corpus.train.n_documents + corpus.held_out.n_documents
        20
        >>> next(corpus.batches(seed=0, rows=2, length=16)).inputs.shape
        (2, 16)
    """
    out, tolerance = Path(out), ErrorTolerance(skip_bad, allow_short, allow_rate)
    n = n_processes(processes)
    tokenizer, sources = config.build_tokenizer(), config.open_sources(skip_bad)
    try:
        with (
            begin_in(out, "corpus", ("tokenizer",)),
            interruptible(f"the corpus {out} is unfinished: building it with the same settings goes on"),
        ):
            journal = BuildJournal(config, tokenizer, sources, out)
            try:
                if not journal.is_complete:
                    with Encoders(Encoder(tokenizer), n) as encoders:
                        Build(config, tokenizer, sources, journal, tolerance).run(encoders)
            except (BadInput, NotAsAsked):
                journal.give_up()
                raise
            finally:
                journal.release()
    except OSError as error:
        raise explained(error, out) from error
    return Corpus.open(out)


class Build:
    """One corpus being written. All that changes is in the journal's `state`, `totals` and `writers`."""

    def __init__(
        self,
        config: CorpusConfig,
        tokenizer: Tokenizer,
        sources: list[Source],
        journal: BuildJournal,
        tolerance: ErrorTolerance,
    ) -> None:
        self.config, self.tokenizer, self.sources, self.journal = config, tokenizer, sources, journal
        self.tolerance = tolerance
        self.state, self.totals = journal.state, journal.totals
        self._number = {source.name: i for i, source in enumerate(sources)}
        weights = [source.weight for source in config.documents]
        self.mixture = Mixture(sources, weights, config.documents_limit, config.bytes_limit)

    def run(self, encoders: Encoders) -> None:
        """Write all documents, then the manifest that says complete."""
        with track("building the corpus, bytes") as tracker:
            self._write_documents(encoders, tracker)
        self._check()
        if self.config.fact_rate:
            n = self.config.validation_documents
            entries, pieces = validation_drills(self.config.drills, self.config.seed, n, encoders)
            self._add("validation", np.full(len(pieces), len(self.sources), np.uint16), entries, pieces)
        self.journal.complete()

    def _show(self, tracker: Tracker, n_total: int | None) -> None:
        """Show how many bytes of documents are written, of how many in all if that is known."""
        tokens = self.totals.sum("train", "tokens")
        tracker.update(self._n_natural("bytes"), f"({tokens:,} training tokens)", n_total)

    def _n_bytes_expected(self) -> int | None:
        """The bytes that the sources will have given at the end, if what is to come is like what was read."""
        mixture, sources = self.mixture, self.sources
        n_read = sum(mixture.taken)
        expected: list[float] = [self.config.bytes_limit] if self.config.bytes_limit else []
        if self.config.documents_limit:
            expected.append(n_read * self.config.documents_limit / max(mixture.n_documents, 1))
        if all(source.bytes_on_disk and source.position.n_bytes for source in sources):
            on_disk = sum(source.bytes_on_disk or 0 for source in sources)
            expected.append(n_read * on_disk / sum(source.position.n_bytes for source in sources))
        return round(min(expected)) if expected else None

    def _n_natural(self, what: str) -> int:
        """A count over all documents written but the drills."""
        return sum(self.totals.sum(split, what, *range(len(self.sources))) for split in ("train", "validation"))

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write_documents(self, encoders: Encoders, tracker: Tracker) -> None:
        config = self.config
        stream = blocks(shuffle(self.mixture, config.shuffle_documents, config.shuffle_bytes, config.seed))
        self._skip(stream)
        drilling = self._drilling(encoders) if config.fact_rate else None
        works = ((block, partial(encode_texts, [document.text for document in block.documents])) for block in stream)
        for block, encoded in encoders.in_order(works, ahead=2 * encoders.n + 2):
            self._write(block, encoded, drilling)
            if self.journal.note():
                self._show(tracker, self._n_bytes_expected())
        self._show(tracker, self._n_natural("bytes"))

    def _drilling(self, encoders: Encoders) -> Drilling:
        """The drills from where the journal stands."""
        rows = self.journal.writers["train"].rows()
        seen = [part["hash"][part["source"] == len(self.sources)] for part in rows]
        config = self.config
        return Drilling(config.drills, config.fact_rate, config.seed, encoders, self.state.drill_position, seen)

    def _skip(self, stream: Iterator[DocumentBlock]) -> None:
        """Pass over the blocks written before a kill. Failed if they are not those that come now."""
        mark = 0
        for block in islice(stream, self.state.n_blocks):
            mark = block.mark(mark)
        if mark != self.state.mark:
            raise Failed(
                "the documents are not those this corpus was begun with: give the same, another folder, or delete it"
            )

    def _write(self, block: DocumentBlock, encoded: Encoded, drilling: Drilling | None) -> None:
        if len(encoded.ids) and (largest := int(encoded.ids.max())) >= self.tokenizer.width:
            raise Failed(f"the tokenizer gave the id {largest}, and its vocabulary ends at {self.tokenizer.width}")
        entries, pieces = encoded.entries, encoded.pieces()
        sources = np.array([self._number[document.source] for document in block.documents], np.uint16)
        self._note_bad(block, encoded.failures)
        held_out = self._is_held_out(entries)
        self._validate(sources, entries, pieces, np.flatnonzero(held_out))
        train = np.flatnonzero((entries["tokens"] > 0) & ~held_out)
        self._train((sources[train], entries[train], [pieces[i] for i in train]), drilling)
        self.state.n_blocks += 1
        self.state.mark = block.mark(self.state.mark)
        self._check_rate_early()

    def _train(self, documents: tuple[np.ndarray, np.ndarray, list[np.ndarray]], drilling: Drilling | None) -> None:
        """Write a block's training documents, and among them the drills that keep the rate."""
        sources, entries, pieces = documents
        if drilling and len(pieces):
            tokens, facts = (
                self.totals.sum("train", count) + int(entries[count].sum())
                for count in ("facts_arm_tokens", "facts_arm_facts")
            )
            drills = drilling.after(tokens, facts)
            places = drilling.places(len(drills), len(pieces), self.state.n_blocks)
            sources, entries, pieces = with_drills(documents, drills, places, len(self.sources))
            self.state.drill_position = drilling.position
            self.state.largest_drill = max(
                [self.state.largest_drill, *(int(entry["facts_arm_facts"]) for entry, _ in drills)]
            )
        self._add("train", sources, entries, pieces)

    def _is_held_out(self, entries: np.ndarray) -> np.ndarray:
        """Mark validation documents, by content alone: one that occurs twice, or in two sources, is on one side."""
        share = np.uint64(self.config.validation_fraction * 2**64)
        return (entries["tokens"] > 0) & (entries["hash"] < share)

    def _validate(
        self, sources: np.ndarray, entries: np.ndarray, pieces: list[np.ndarray], held_out: np.ndarray
    ) -> None:
        """Write the held-out documents of a block, each content once and at most so many of a source."""
        kept = []
        for i in held_out:
            content, source = int(entries[i]["hash"]), str(sources[i])
            seen = self.state.validating.setdefault(source, [])
            if any(content in hashes for hashes in self.state.validating.values()):
                self.state.left_out["repeats of validation documents"] += 1
            elif len(seen) >= self.config.validation_documents:
                self.state.left_out["beyond validation_documents"] += 1
            else:
                seen.append(content)
                kept.append(i)
        self._add("validation", sources[kept], entries[kept], [pieces[i] for i in kept])

    def _add(self, split: SplitName, sources: np.ndarray, entries: np.ndarray, pieces: list[np.ndarray]) -> None:
        self.totals.add(split, sources, entries)
        rows: Any = np.zeros(len(pieces), DOCUMENT)
        for name, values in (("bytes", entries["bytes"]), ("hash", entries["hash"]), ("source", sources)):
            rows[name] = values
        if split == "train":
            self.journal.writers["train"].append(pieces, rows)
            return
        for source in np.unique(sources):
            of = np.flatnonzero(sources == source)
            self.journal.writers[f"val_{self.totals.names[source]}"].append([pieces[i] for i in of], rows[of])

    # ── what is not as it should be ──────────────────────────────────────────────────────────────────────────────────

    def _note_bad(self, block: DocumentBlock, failures: dict[int, str]) -> None:
        """Count and list what is no document; the first raises BadInput, unless they are to be skipped."""
        failed = [BadDocument(block.documents[i].source, block.documents[i].place, why) for i, why in failures.items()]
        for bad in [*block.bad, *failed]:
            if not self.tolerance.skip_bad:
                raise bad.refused()
            self.journal.note_bad(bad)

    def _check(self) -> None:
        """Check that the corpus is what was asked for. Failed where it is not."""
        if not self.totals.sum("train", "documents"):
            bad = "".join(
                f"; first bad row: {row['place']}: {row['reason']}" for row in self.state.unreadable_listed[:1]
            )
            raise NotAsAsked(f"the sources gave no document to train on{bad}")
        if self.config.has_limit and not self.tolerance.allow_short:
            self._check_length()
            self._check_shares()
        self._check_rate()

    def _check_length(self) -> None:
        if not self.mixture.is_full:
            asked = ((self.config.documents_limit, "documents"), (self.config.bytes_limit, "bytes"))
            limits = " or ".join(f"{n:,} {what}" for n, what in asked if n is not None)
            raise NotAsAsked(
                f"the sources ended after {self.mixture.n_documents:,} documents and {sum(self.mixture.taken):,} bytes. "
                f"That is before the limit ({limits}): add sources, or accept it with --allow-short"
            )

    def _check_shares(self) -> None:
        mixture = self.mixture
        for i in mixture.ended if len(self.sources) > 1 else ():
            asked, share = mixture.weights[i] / sum(mixture.weights), mixture.taken[i] / sum(mixture.taken)
            if share < asked * (1 - TOLERANCE):
                raise NotAsAsked(
                    f"{self.sources[i].name} ended early: it is {share:.1%} of the bytes where its weight asks for "
                    f"{asked:.1%}. Give it less weight or the corpus a lower limit, or accept it with --allow-short"
                )

    def _check_rate_early(self) -> None:
        """What the documents themselves hold too many of, no drill takes away: seconds tell what hours would."""
        natural = range(len(self.sources))
        n_bytes, tokens, facts = (
            self.totals.sum("train", count, *natural) for count in ("bytes", "facts_arm_tokens", "facts_arm_facts")
        )
        highest = self.config.fact_rate * (1 + EARLY_TOLERANCE)
        if (
            self.config.fact_rate
            and n_bytes >= EARLY_BYTES
            and facts > highest * tokens
            and not self.tolerance.allow_rate
        ):
            raise self._wrong_rate("first", facts / tokens)

    def _check_rate(self) -> None:
        """A rate missed by no more than one drill document is as near as documents allow."""
        asked, tokens = self.config.fact_rate, self.totals.sum("train", "facts_arm_tokens")
        missed = abs(self.totals.rate - asked) * tokens
        if (
            asked
            and missed > max(TOLERANCE * asked * tokens, self.state.largest_drill)
            and not self.tolerance.allow_rate
        ):
            raise self._wrong_rate("training", self.totals.rate)

    def _wrong_rate(self, which: str, rate: float) -> NotAsAsked:
        because = (
            "the documents themselves hold more. Ask for a higher rate"
            if rate > self.config.fact_rate
            else "a drill document would be too many. Ask for fewer facts in one (drills.facts_per_document)"
        )
        return NotAsAsked(
            f"facts are {rate:.4%} of the {which} tokens where {self.config.fact_rate:.4%} were asked for: {because}, "
            "or accept it with --allow-rate"
        )
