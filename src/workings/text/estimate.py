"""The first documents of a config → what the whole corpus would come to: bytes, tokens, facts, disk, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from workings.arithmetic.drills import drill_documents
from workings.errors import Failed
from workings.text.documents import Document, Source
from workings.text.encoding import Encoder
from workings.text.manifest import CorpusConfig
from workings.text.mixing import Mixture
from workings.text.shards import DOCUMENT

SAMPLE_DOCUMENTS, SAMPLE_BYTES = 2000, 8 << 20
_DRILLS = 300


@dataclass(frozen=True)
class CorpusEstimate:
    """Estimates over the training documents. None is unknown: a source without limit does not say how long it is."""

    sample_documents: int
    sample_bytes: int
    sample_unreadable: int
    bytes_per_token: float
    """In the sample, in this vocabulary."""
    natural_fact_rate: float
    """Facts over tokens in the facts arm, before any drill."""
    bytes: int | None
    """Raw, drills not counted."""
    tokens: int | None
    facts: int | None
    drill_tokens: int | None
    disk_bytes: int | None
    seconds: float | None
    """With the processes given, if reading and one processor each keep up."""
    processes: int


@dataclass(frozen=True)
class _Rates:
    """Per raw byte: tokens and facts in this vocabulary and in the facts arm, documents, seconds of one process."""

    n_bytes: int
    tokens: float
    facts: float
    arm_tokens: float
    arm_facts: float
    documents: float
    seconds: float


def estimate_corpus(config: CorpusConfig, processes: int, skip_bad: bool = False) -> CorpusEstimate:
    """Encode the first documents of each source, in their mixture, and scale up. Writes nothing; `skip_bad` as in a build."""
    sources, encoder = config.open_sources(skip_bad), Encoder(config.build_tokenizer())
    documents, n_unreadable = _sample(config, sources)
    encoder(["The first text starts the encoder."])
    natural = _measured(encoder, [document.text for document in documents])
    n_bytes = _whole_bytes(config, sources, documents)
    drills = _drill_rates(config, encoder)
    n_drill_bytes = _drill_bytes(config.fact_rate, natural, drills) * n_bytes if n_bytes is not None else None

    def scaled(name: str, *, only_drills: bool = False) -> float | None:
        if n_bytes is None or n_drill_bytes is None:
            return None
        drilled = getattr(drills, name) * n_drill_bytes if drills else 0.0
        return drilled + (0.0 if only_drills else getattr(natural, name) * n_bytes)

    tokens, n_documents, seconds = scaled("tokens"), scaled("documents"), scaled("seconds")
    size = config.build_tokenizer().dtype.itemsize
    return CorpusEstimate(
        sample_documents=len(documents),
        sample_bytes=natural.n_bytes,
        sample_unreadable=n_unreadable,
        bytes_per_token=1 / natural.tokens,
        natural_fact_rate=natural.arm_facts / natural.arm_tokens,
        bytes=n_bytes,
        tokens=_rounded(tokens),
        facts=_rounded(scaled("facts")),
        drill_tokens=_rounded(scaled("tokens", only_drills=True)),
        disk_bytes=None
        if tokens is None or n_documents is None
        else round(tokens * size + n_documents * DOCUMENT.itemsize),
        seconds=None if seconds is None else seconds / max(processes, 1),
        processes=processes,
    )


def _sample(config: CorpusConfig, sources: Sequence[Source]) -> tuple[list[Document], int]:
    weights = [source.weight for source in config.documents]
    n_documents = min(SAMPLE_DOCUMENTS, config.documents_limit or SAMPLE_DOCUMENTS)
    rows = list(Mixture(sources, weights, n_documents, min(SAMPLE_BYTES, config.bytes_limit or SAMPLE_BYTES)))
    documents = [row for row in rows if isinstance(row, Document)]
    if not documents:
        raise Failed("the sources gave no document to train on")
    return documents, len(rows) - len(documents)


def _measured(encoder: Encoder, texts: Sequence[str]) -> _Rates:
    began = time.perf_counter()
    entries = encoder(texts).entries
    seconds = time.perf_counter() - began
    n_bytes = int(entries["bytes"].sum())
    names = ("tokens", "facts", "facts_arm_tokens", "facts_arm_facts")
    sums = [int(entries[name].sum()) / n_bytes for name in names]
    return _Rates(n_bytes, *sums, documents=len(texts) / n_bytes, seconds=seconds / n_bytes)


def _whole_bytes(config: CorpusConfig, sources: Sequence[Source], sample: Sequence[Document]) -> int | None:
    """Raw bytes of all documents but those held out: what the limits allow, or what the files hold."""
    mean = float(np.mean([document.n_bytes for document in sample]))
    limits = [config.bytes_limit, config.documents_limit and round(config.documents_limit * mean)]
    known = [limit for limit in limits if limit is not None]
    parts = [_source_bytes(source, sample) for source in sources]
    if None not in parts:
        known.append(round(sum(part for part in parts if part is not None)))
    return round(min(known) * (1 - config.validation_fraction)) if known else None


def _source_bytes(source: Source, sample: Sequence[Document]) -> float | None:
    """Raw bytes in a source of files, if the rest of them is like the part that was read."""
    if not source.bytes_on_disk or not source.position.n_bytes:
        return None
    read = sum(document.n_bytes for document in sample if document.source == source.name)
    return read * source.bytes_on_disk / source.position.n_bytes


def _drill_rates(config: CorpusConfig, encoder: Encoder) -> _Rates | None:
    if not config.fact_rate:
        return None
    began = time.perf_counter()
    texts = list(islice(drill_documents(config.drills, config.seed), _DRILLS))
    making = time.perf_counter() - began
    rates = _measured(encoder, texts)
    return replace(rates, seconds=rates.seconds + making / rates.n_bytes)


def _drill_bytes(rate: float, natural: _Rates, drills: _Rates | None) -> float:
    """Bytes of drills for each byte of documents: (facts + d*x) / (tokens + t*x) = rate, solved for x."""
    if drills is None:
        return 0.0
    missing, gain = rate * natural.arm_tokens - natural.arm_facts, drills.arm_facts - rate * drills.arm_tokens
    return max(missing, 0.0) / gain if gain > 0 else float("inf")


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)
