"""Raw documents → ids, counts and content hashes; blocks of them in several processes, in the order they were given.

Three layers, each the one before for more texts: `BulkEncoder` (prepared texts → ids, one call of tiktoken), `Encoder` (raw
texts → `Encoded`), `Workers` (many calls of an encoder, spread over processes).

Beside the ids of its own vocabulary a document gets the numbers of tokens and facts that the vocabulary "facts" would give
it (its counts in the facts arm), so that every arm can decide alike how many drills it needs.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import tiktoken

from workings.arithmetic.rewrite import rewrite_counted
from workings.errors import BadInput, Failed
from workings.text.bpe import END_OF_TEXT, tiktoken_ranks
from workings.text.tokenizer import Tokenizer

ENTRY = np.dtype(
    [
        ("tokens", "<i8"),  # with the end of text before the document
        ("facts", "<i8"),
        ("facts_arm_tokens", "<i8"),  # of the same document in the vocabulary "facts"
        ("facts_arm_facts", "<i8"),
        ("bytes", "<i8"),  # of the raw text in UTF-8
        ("hash", "<u8"),  # of the raw text
    ]
)

T = TypeVar("T")
L = TypeVar("L")
R = TypeVar("R")
Tool = TypeVar("Tool")


# ── prepared texts → ids ─────────────────────────────────────────────────────────────────────────────────────────────

FACT, BETWEEN, CUT = "\x05", "\x06", "\x07"
_PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}\x05-\x07]+|\s+|\x05<[A-Z]+_[0-9_]+>|[\x06\x07]"
"""`bpe.GPT2_PIECES` without its look-ahead."""
_ODD = re.compile("[\x05-\x07\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff]")
_TOKEN = re.compile("<[A-Z]+_[0-9_]+>")
_IS_BLANK, _ENDS_BLANKS = np.zeros(256, bool), np.ones(256, bool)
_IS_BLANK[[9, 10, 11, 12, 13, 32]] = True
_ENDS_BLANKS[[9, 10, 11, 12, 13, 32, ord(FACT), ord(BETWEEN)]] = False  # at the end of a text blanks stay whole


@dataclass(frozen=True)
class BulkEncoder:
    """The ids of `Tokenizer.encode_batch` at nearly twice its speed, for hundreds of texts at once. Cheap to pickle.

    Most of tiktoken's time goes into its pattern: `\\s+(?!\\S)` looks ahead, and so the whole pattern runs in an engine
    that backtracks. Here the text is cut where the look-ahead would cut it, before the last of several blanks, with a
    control character that is a piece of its own; what is left of the pattern runs in an automaton. Another such character
    marks a fact token, a third one parts texts. Texts that hold one of them, a blank beyond ASCII, or half a surrogate
    pair go the tokenizer's own way.
    """

    tokenizer: Tokenizer

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text. BadInput where one holds half a surrogate pair."""
        if self.tokenizer.library != "tiktoken":
            return self.tokenizer.encode_batch(texts)
        apart = [i for i, text in enumerate(texts) if _is_odd(text)]
        found = dict(zip(apart, self.tokenizer.encode_batch([texts[i] for i in apart]), strict=True))
        together = [text for i, text in enumerate(texts) if i not in found]
        encoded = iter(self._joined(together) if together else ())
        return [found[i] if i in found else next(encoded) for i in range(len(texts))]

    def _joined(self, texts: Sequence[str]) -> list[np.ndarray]:
        joined = BETWEEN.join(texts)
        if self.tokenizer.has_facts:
            joined = _TOKEN.sub(lambda found: FACT + found[0] if found[0] in self._facts else found[0], joined)
        ids = self._encoding.encode_to_numpy(_cut(joined), disallowed_special=())
        ids = ids[ids != self._encoding.encode_single_token(CUT)].astype(self.tokenizer.dtype)
        ends = np.flatnonzero(ids == self._encoding.encode_single_token(BETWEEN))
        return parts(np.delete(ids, ends), np.append(ends - np.arange(len(ends)), len(ids) - len(ends)))

    @cached_property
    def _facts(self) -> dict[str, int]:
        facts = self.tokenizer.facts
        return {fact.token: i for i, fact in enumerate(facts, start=facts.first_id)} if self.tokenizer.has_facts else {}

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        # a fact is a whole piece, and what is a whole piece tiktoken looks up before it merges anything
        facts = {f"{FACT}{token}".encode(): i for token, i in self._facts.items()}
        ranks = {**(tiktoken_ranks(self.tokenizer.bpe) or {}), **facts}
        special = {END_OF_TEXT: self.tokenizer.eot}  # never looked for; without any, tiktoken is slow
        return tiktoken.Encoding("workings-bulk", pat_str=_PIECES, mergeable_ranks=ranks, special_tokens=special)


def parts(ids: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """`ids` in parts that end at `ends`. (`np.split` takes several times as long.)"""
    return [ids[start:end] for start, end in pairwise([0, *ends.tolist()])]


def _is_odd(text: str) -> bool:
    if text.isascii():
        return FACT in text or BETWEEN in text or CUT in text
    return _ODD.search(text) is not None


def _cut(text: str) -> str:
    """With CUT before the last of several blanks that something follows."""
    raw = np.frombuffer(text.encode(), np.uint8)
    blank = _IS_BLANK[raw]
    at = np.flatnonzero(blank[:-2] & blank[1:-1] & _ENDS_BLANKS[raw[2:]]) + 1
    return np.insert(raw, at, ord(CUT)).tobytes().decode() if len(at) else text


# ── raw texts → ids, counts, hashes ──────────────────────────────────────────────────────────────────────────────────


class Encoded(NamedTuple):
    """A block of documents: the ids of all of them, each behind an end of text, and one entry (ENTRY) a document.

    A document that cannot be encoded has no ids, 0 tokens, and its reason in `failures` by its number.
    """

    ids: np.ndarray
    entries: np.ndarray
    failures: dict[int, str]

    def pieces(self) -> list[np.ndarray]:
        """The ids of each document, the end of text included."""
        return parts(self.ids, np.cumsum(self.entries["tokens"]))


class _Prepared(NamedTuple):
    text: str
    n_facts: int
    facts_arm_text: str | None
    """None where the facts arm reads the same text."""
    n_facts_arm_facts: int


@dataclass(frozen=True)
class Encoder:
    """Raw texts → `Encoded`, in this process."""

    tokenizer: Tokenizer
    ids: BulkEncoder = field(init=False)
    facts_arm_ids: BulkEncoder = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", BulkEncoder(self.tokenizer))
        object.__setattr__(self, "facts_arm_ids", BulkEncoder(replace(self.tokenizer, vocabulary="facts")))

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Encode raw texts: prepared as the vocabulary reads them, counted, hashed."""
        failures: dict[int, str] = {}
        prepared = _one_by_one(self._prepare, dict(enumerate(texts)), failures)
        ids = _all_at_once(self.ids, {i: one.text for i, one in prepared.items()}, failures)
        others = {i: one.facts_arm_text for i, one in prepared.items() if one.facts_arm_text is not None}
        facts_arm_ids = _all_at_once(self.facts_arm_ids, others, failures)
        entries, pieces = np.zeros(len(texts), ENTRY), []
        eot = np.array([self.tokenizer.eot], self.tokenizer.dtype)
        for i in sorted(ids.keys() - failures.keys()):
            raw = texts[i].encode()
            n_tokens, n_facts_arm_tokens = len(ids[i]) + 1, len(facts_arm_ids.get(i, ids[i])) + 1
            counts = n_tokens, prepared[i].n_facts, n_facts_arm_tokens, prepared[i].n_facts_arm_facts
            entries[i] = (*counts, len(raw), content_hash(raw))
            pieces += [eot, ids[i]]
        return Encoded(np.concatenate(pieces) if pieces else eot[:0], entries, failures)

    def _prepare(self, text: str) -> _Prepared:
        prepared, n_facts = self.tokenizer.prepare_counted(text)
        if self.tokenizer.has_facts:  # a shuffled fact is a fact: as many tokens
            return _Prepared(prepared, n_facts, None, n_facts)
        rewritten, n_rewritten = rewrite_counted(text, self.tokenizer.facts, self.tokenizer.mode)
        return _Prepared(prepared, n_facts, rewritten if n_rewritten else None, n_rewritten)


def content_hash(raw: bytes) -> int:
    """64 bits of the sha256 of a raw text."""
    return int.from_bytes(hashlib.sha256(raw).digest()[:8], "big")


def _one_by_one(make: Callable[[T], R], texts: Mapping[int, T], failures: dict[int, str]) -> dict[int, R]:
    """The result of `make` for each text, by its number; a text it refuses goes to `failures` with the reason."""
    made = {}
    for i, text in texts.items():
        try:
            made[i] = make(text)
        except (BadInput, ValueError, TypeError, RecursionError) as error:
            failures[i] = f"cannot be encoded: {error}"
    return made


def _all_at_once(encode: BulkEncoder, texts: Mapping[int, str], failures: dict[int, str]) -> dict[int, np.ndarray]:
    """The ids of each text, by one call for all texts; one by one only where that fails."""
    try:
        return dict(zip(texts, encode([*texts.values()]), strict=True))
    except (BadInput, ValueError, TypeError, RecursionError):
        return _one_by_one(lambda text: encode([text])[0], texts, failures)


# ── in several processes ─────────────────────────────────────────────────────────────────────────────────────────────


class Workers(Generic[Tool]):
    """`n` processes, each with a copy of `tool` (the encoder); with 0 or 1 the work is done here. Use in a `with`.

    Each process has a pipe of its own, and a thread here waits at it. So the death of a process ends its pipe, whatever it
    was doing. `ProcessPoolExecutor` waits for ever if a process is killed in the middle of a large result (decision 0011).
    Processes are spawned: a fork would take threads and locks along, and with them the lock of a folder after our death.
    """

    def __init__(self, tool: Tool, n: int) -> None:
        self.here, self.n = tool, n
        self._processes: list[BaseProcess] = []
        self._idle: SimpleQueue[tuple[BaseProcess, Connection]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(max(n, 1))

    def __enter__(self) -> Workers[Tool]:
        context = multiprocessing.get_context("spawn")
        for _ in range(self.n if self.n > 1 else 0):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self.here), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._idle.put((process, ours))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()  # which ends its pipe, and with it what a thread of ours waits for
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.join()

    def in_order(self, works: Iterable[tuple[L, Callable[[Tool], R]]], ahead: int) -> Iterator[tuple[L, R]]:
        """Do work, and yield each piece's label and result in the order of the work.

        Args:
            works: (label, function of the tool); a function and its result travel through a pipe.
            ahead: At most so many pieces are under way or wait to be yielded: the bound on memory.

        Raises:
            Failed: A process died, or raised what is no error of ours. An error is raised at its piece's turn.
        """
        if not self._processes:
            yield from ((label, work(self.here)) for label, work in works)
            return
        waiting: deque[tuple[L, Future[R]]] = deque()
        for label, work in works:
            waiting.append((label, self._threads.submit(partial(self._elsewhere, work))))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        yield from ((label, future.result()) for label, future in waiting)

    def _elsewhere(self, work: Callable[[Tool], R]) -> R:
        """The result of work, from whichever process is idle."""
        process, pipe = self._idle.get()
        try:
            pipe.send(work)
            result = pipe.recv()
        except (EOFError, OSError) as error:
            process.join(1)
            raise Failed(
                f"an encoding process died (exit code {process.exitcode}) without an error message. What is written is kept: "
                "start the same command again, with fewer --processes if memory was short"
            ) from error
        finally:
            self._idle.put((process, pipe))
        if isinstance(result, Exception):
            raise result
        return result


def _serve(pipe: Connection, tool: Tool) -> None:
    """The life of a worker: one piece of work after the other, until the parent has gone."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # they reach every process of a terminal or a job; the parent kills us
        signal.signal(number, signal.SIG_IGN)
    try:
        while True:
            pipe.send(_outcome(pipe.recv(), tool))
    except (EOFError, OSError):  # killed, the parent could not say goodbye
        return


def _outcome(work: Callable[[Tool], R], tool: Tool) -> R | Exception:
    try:
        return work(tool)
    except (BadInput, Failed) as error:
        return error
    except Exception as error:  # whatever it is, the parent must hear of it
        return Failed(f"{type(error).__name__} in an encoding process: {error}")


Encoders = Workers[Encoder]


def encode_texts(texts: list[str], encoder: Encoder) -> Encoded:
    """The work of a block of documents; only their texts travel to another process."""
    return encoder(texts)
