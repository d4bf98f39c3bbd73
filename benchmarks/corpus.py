"""What does rewriting cost, how much faster is a build than the loop usually written, and does it stay so for long?

Three ratios, each from one run on this machine, on English and GSM8K (../shared/data):

    rewriting   rewrite + encode over encode alone, one process, by corpus
    build       `build_corpus` with 2 processes over a single-process loop: a regular expression on each document, tiktoken
                with the facts as special tokens, a Python loop that counts facts, one .npy file at a time
    length      bytes a second at the largest size over the smallest, after the processes have started; and peak memory

and what 10 billion tokens would take on 16 cores, from the processor seconds of the encoding processes and of the one
that reads and writes. Ours does more in its time (shuffles, hashes, holds out, journals); the loop does not.

    python benchmarks/corpus.py [--mb 10 200] [--base ../shared/tokenizers/gpt2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from workings.text import CorpusConfig, SourceConfig, build_corpus
from workings.text.bpe import GPT2_PIECES, open_bpe, tiktoken_ranks
from workings.text.build_state import BuildJournal
from workings.text.encoding import BulkEncoder
from workings.text.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared"
LOOSE = re.compile(r"\b([1-9])\s*[*×x]\s*([1-9])(?:\s*=\s*(\d+))?")
"""The kind of pattern that is usually written; which hits are right is not asked here."""


def english() -> list[str]:
    with gzip.open(SHARED / "data" / "english" / "docs.jsonl.gz") as lines:
        return [json.loads(line)["text"] for line in lines]


def gsm8k() -> list[str]:
    lines = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return ["{question}\n{answer}".format(**json.loads(line)) for line in lines]


def written(folder: Path, megabytes: float) -> Path:
    """A .jsonl of so many MB: both corpora over and over, each copy of a document salted with its number."""
    path = folder / f"{megabytes:g}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        n_bytes = 0
        for text in _salted([*english(), *gsm8k()]):
            n_bytes += len(text.encode())
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            if n_bytes >= megabytes * 1e6:
                return path
    raise AssertionError


def _salted(texts: Sequence[str]) -> Iterator[str]:
    order = np.random.default_rng(0).permutation(len(texts))
    for copy in count(1):
        for i in order:
            yield f"Copy {copy} of document {i}.\n{texts[i]}"


# ── the cost of rewriting ────────────────────────────────────────────────────────────────────────────────────────────


def rewriting(base: str, texts: Sequence[str], rounds: int) -> tuple[float, float, float]:
    """MB/s of encoding alone and of rewriting and encoding, and the best of the ratios of their times."""
    facts = Tokenizer.build(base)
    digits = replace(facts, vocabulary="digits")
    n_bytes = sum(len(text.encode()) for text in texts)
    plain, rewritten = BulkEncoder(digits), BulkEncoder(facts)
    blocks = [texts[at : at + 500] for at in range(0, len(texts), 500)]
    alone, both = [], []
    for _ in range(rounds + 1):  # the first starts the encoders
        began = time.process_time()
        for block in blocks:
            plain(block)
        alone.append(time.process_time() - began)
        began = time.process_time()
        for block in blocks:
            rewritten([facts.prepare_counted(text)[0] for text in block])
        both.append(time.process_time() - began)
    return n_bytes / min(alone[1:]) / 1e6, n_bytes / min(both[1:]) / 1e6, min(both[1:]) / min(alone[1:])


# ── a build, and the loop ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measured:
    """One build or loop in a process of its own: seconds by the clock, processor seconds, tokens, peak MB of memory."""

    wall: float
    cpu: float
    cpu_encoding: float
    tokens: int
    facts: int
    peak: float
    peak_encoding: float
    """The largest of the encoding processes; 0 without."""


def ours(documents: Path, base: str, processes: int) -> Measured:
    config = CorpusConfig((SourceConfig(str(documents)),), base=base)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        peaks = [0.0]

        def note(journal: BuildJournal) -> bool:
            peaks.extend(_peak(process.pid or 0) for process in multiprocessing.active_children())
            return plain_note(journal)

        plain_note, BuildJournal.note = BuildJournal.note, note
        corpus = build_corpus(config, Path(folder) / "corpus", processes=processes)
        wall = time.perf_counter() - began
    return _measured(wall, corpus.train.n_tokens, corpus.train.n_facts, max(peaks))


def loop(documents: Path, base: str) -> Measured:
    """Document after document: rewrite, encode, count, append."""
    import tiktoken

    facts = {fact.token: 50304 + i for i, fact in enumerate(Tokenizer.build(base).facts.facts)}
    bpe = open_bpe(base)
    encoding = tiktoken.Encoding(
        "loop", pat_str=GPT2_PIECES, mergeable_ranks=tiktoken_ranks(bpe) or {}, special_tokens=facts
    )
    names, ids_of_facts = set(facts), set(facts.values())

    def token(match: re.Match[str]) -> str:
        a, b = sorted((int(match[1]), int(match[2])))
        return f"<MUL_{a}_{b}_{a * b}>" if match[3] in (None, str(a * b)) else match[0]

    began = time.perf_counter()
    n_tokens = n_facts = 0
    with tempfile.TemporaryDirectory() as folder, documents.open(encoding="utf-8") as lines:
        shard: list[int] = []
        for line in lines:
            ids = encoding.encode(
                LOOSE.sub(token, json.loads(line)["text"]), allowed_special=names, disallowed_special=()
            )
            for i in ids:
                if i in ids_of_facts:
                    n_facts += 1
            shard += [bpe.eot, *ids]
            if len(shard) >= 10_000_000:
                np.save(Path(folder) / "shard.npy", np.array(shard, np.uint16))
                n_tokens, shard = n_tokens + len(shard), []
        np.save(Path(folder) / "shard.npy", np.array(shard, np.uint16))
        n_tokens += len(shard)
    return _measured(time.perf_counter() - began, n_tokens, n_facts)


def _measured(wall: float, tokens: int, facts: int, peak_encoding: float = 0.0) -> Measured:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    processors = [used.ru_utime + used.ru_stime for used in (own, children)]
    return Measured(wall, *processors, tokens, facts, _peak(os.getpid()), peak_encoding)


def _peak(process: int) -> float:
    """MB. Not ru_maxrss, which remembers what the process was forked from."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def apart(what: str, documents: Path, base: str, processes: int = 2) -> Measured:
    """Measured in a new process, so that memory and processor seconds are its own."""
    words = [sys.executable, __file__, "--alone", what, str(documents), base, str(processes)]
    return Measured(**json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, nargs="+", default=[10, 200])
    parser.add_argument("--base", default=str(SHARED / "tokenizers" / "gpt2"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        what, documents, base, processes = given.alone
        measured = loop(Path(documents), base) if what == "loop" else ours(Path(documents), base, int(processes))
        print(json.dumps(asdict(measured)))
        return
    for name, texts in (("english", english()), ("gsm8k", gsm8k()), ("both", [*english(), *gsm8k()])):
        alone, both, ratio = rewriting(given.base, texts, given.rounds)
        print(f"{name}: encode {alone:.1f} MB/s, rewrite and encode {both:.1f} MB/s")
        print(f"RATIO rewriting {name}: {ratio:.2f} (aim: at most 1.15)")
    with tempfile.TemporaryDirectory() as folder:
        builds(Path(folder), sorted(given.mb), given.base)


def builds(folder: Path, sizes: Sequence[float], base: str) -> None:
    began = apart("ours", written(folder, 0.01), base)
    print(
        f"a build of 10 kB, which is its start and end: {began.wall:.1f} s, {began.cpu + began.cpu_encoding:.1f} s of processors"
    )
    speeds = []
    for size in sizes:
        documents = written(folder, size)
        fast, slow = apart("ours", documents, base), apart("loop", documents, base)
        speeds.append(size / (fast.wall - began.wall))
        print(
            f"{size:g} MB: build {fast.wall:.1f} s ({speeds[-1]:.1f} MB/s after its start), {fast.tokens / 1e6:.1f} M tokens, "
            f"{fast.facts:,} facts, peak {fast.peak:.0f} MB and {fast.peak_encoding:.0f} MB in an encoding process; "
            f"loop {slow.wall:.1f} s, {slow.tokens / 1e6:.1f} M tokens, {slow.facts:,} facts, peak {slow.peak:.0f} MB"
        )
        later = slow.wall / (fast.wall - began.wall)
        print(f"RATIO build {size:g} MB: {slow.wall / fast.wall:.1f} (without its start {later:.1f}; aim: at least 5)")
        documents.unlink()
    if len(sizes) > 1:
        print(f"RATIO length: {speeds[-1] / speeds[0]:.2f} ({sizes[-1]:g} MB over {sizes[0]:g} MB)")
    project(fast, began)


def project(measured: Measured, began: Measured, tokens: float = 1e10, cores: int = 16) -> None:
    """Assumes that reading, writing and encoding share nothing but bandwidth of memory, that the disk and the source keep
    up (about 4.4 bytes of text a token), that all cores are as fast together as one of them alone, and this text."""
    encoding = (measured.cpu_encoding - began.cpu_encoding) / measured.tokens * tokens
    reading = (measured.cpu - began.cpu) / measured.tokens * tokens
    hours = max(encoding / (cores - 1), reading) / 3600
    bound = "encoding" if encoding / (cores - 1) > reading else "the one process that reads and writes"
    print(
        f"{tokens / 1e9:g} billion tokens on {cores} cores: {hours:.2f} hours ({cores - 1} encode: {encoding / 3600:.2f} "
        f"processor hours together; one reads and writes: {reading / 3600:.2f}); bound by {bound}"
    )


if __name__ == "__main__":
    main()
