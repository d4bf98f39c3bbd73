"""Work → results in the order of the work, by processes that share a tool (the encoder) and nothing else.

Each process has a pipe of its own, so the death of one is the end of its pipe, whatever it was doing: the executor of the
standard library waits for ever if a process dies in the middle of a large result. Processes are spawned, never forked: a
fork would take threads and locks along, and with them the lock of a folder after our death.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from workings.errors import BadInput, Failed

L = TypeVar("L")
R = TypeVar("R")
Tool = TypeVar("Tool")
_DIED = (
    "an encoding process died (out of memory, or killed); what is written is kept: start the same command again, with "
    "fewer --processes if memory was short"
)


class Workers(Generic[Tool]):
    """`n` processes, each with a copy of `tool`; with 0 or 1 the work is done here. Use in a `with`."""

    def __init__(self, tool: Tool, n: int) -> None:
        self.here, self.n = tool, n
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._under_way: Counter[int] = Counter()
        self._n_sent = 0
        self._done: dict[int, Any] = {}

    def __enter__(self) -> Workers[Tool]:
        context = multiprocessing.get_context("spawn")
        for _ in range(self.n if self.n > 1 else 0):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self.here), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()

    def in_order(self, works: Iterable[tuple[L, Callable[[Tool], R]]], ahead: int) -> Iterator[tuple[L, R]]:
        """Each work's label and result; at most `ahead` of them are under way at once.

        An error of the work is raised here at its turn; Failed where a process died.
        """
        if not self._pipes:
            yield from ((label, work(self.here)) for label, work in works)
            return
        waiting: deque[tuple[L, int]] = deque()
        for label, work in works:
            waiting.append((label, self._send(work)))
            if len(waiting) >= ahead:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _send(self, work: Callable[[Tool], R]) -> int:
        """Give work to the process that has least to do; its number."""
        to = min(range(len(self._pipes)), key=lambda i: self._under_way[i])
        self._n_sent += 1
        self._under_way[to] += 1
        try:
            self._pipes[to].send((self._n_sent, work))
        except OSError as error:
            raise Failed(_DIED) from error
        return self._n_sent

    def _next(self, waiting: deque[tuple[L, int]]) -> tuple[L, Any]:
        label, number = waiting.popleft()
        while number not in self._done:
            self._receive()
        result = self._done.pop(number)
        if isinstance(result, Exception):
            raise result
        return label, result

    def _receive(self) -> None:
        ready: list[Any] = wait(self._pipes)
        for pipe in ready:
            try:
                number, result = pipe.recv()
            except (EOFError, OSError) as error:
                raise Failed(_DIED) from error
            self._done[number] = result
            self._under_way[self._pipes.index(pipe)] -= 1


# ── in a process of ours ─────────────────────────────────────────────────────────────────────────────────────────────


def _serve(pipe: Connection, tool: Any) -> None:
    """Work without end. Threads read and write the pipe, so that neither side ever waits for the other to read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells us to stop
    inbox: SimpleQueue[Any] = SimpleQueue()
    outbox: SimpleQueue[Any] = SimpleQueue()
    for target, queue in ((_read, inbox), (_write, outbox)):
        threading.Thread(target=target, args=(pipe, queue), daemon=True).start()
    while True:
        number, work = inbox.get()
        try:
            outbox.put((number, work(tool)))
        except (BadInput, Failed) as error:
            outbox.put((number, error))
        except Exception as error:  # whatever it is, the parent must hear of it
            outbox.put((number, Failed(f"{type(error).__name__} in an encoding process: {error}")))


def _read(pipe: Connection, inbox: SimpleQueue[Any]) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):  # the parent has gone; killed, it could not say so
        os._exit(1)


def _write(pipe: Connection, outbox: SimpleQueue[Any]) -> None:
    try:
        while True:
            pipe.send(outbox.get())
    except OSError:
        os._exit(1)
