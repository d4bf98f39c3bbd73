"""Progress of long work, on stderr: one display for everything, and the one place that knows about `--quiet`.

Warnings and errors do not pass through here, so quiet never hides them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 10.0  # where stderr is a file: a log of a night should be readable in the morning

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show no progress and no notes in this process from now on; results, warnings and errors are shown as before."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether progress and notes are left out."""
    return _quiet


@contextmanager
def quietly(quiet: bool = True) -> Generator[None]:
    """Inside, this process is quiet if `quiet` says so or if it was before."""
    before = _quiet
    set_quiet(before or quiet)
    try:
        yield
    finally:
        set_quiet(before)


def say(line: str) -> None:
    """A note for people, one line on stderr."""
    if not _quiet:
        print(line, file=sys.stderr, flush=True)


@dataclass
class Tracker:
    """How far a piece of work is; made by `track`."""

    description: str
    n_total: float | None
    bar: Progress | None
    task: TaskID | None
    n_done: float = 0.0
    last_line: float = field(default_factory=time.monotonic)

    def advance(self, n: float = 1, text: str = "") -> None:
        """`n` more units are done; `text` says what a bar cannot: a loss, a speed."""
        self.update(self.n_done + n, text)

    def update(self, n_done: float, text: str = "", n_total: float | None = None) -> None:
        """`n_done` units are done of `n_total` (by default of as many as before)."""
        self.n_done, self.n_total = n_done, n_total or self.n_total
        if self.bar is not None and self.task is not None:
            self.bar.update(
                self.task, completed=n_done, total=self.n_total, description=f"{self.description} {text}".strip()
            )
        elif time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES or n_done == self.n_total:
            of = f" of {self.n_total:,.10g}" if self.n_total else ""
            say(f"{self.description}: {n_done:,.10g}{of} {text}".rstrip())
            self.last_line = time.monotonic()


@contextmanager
def track(description: str, n_total: float | None = None) -> Generator[Tracker]:
    """Show how far some work is while it is done: a bar on a terminal, a line now and then where stderr is a file.

    Args:
        description: What is done, as a participle phrase: "collecting thoughts".
        n_total: Units of work, if that is known.

    Example:
        >>> with track("adding", 3) as tracker:
        ...     for number in range(3):
        ...         tracker.advance(text=f"at {number}")
    """
    if _quiet or not sys.stderr.isatty():
        yield Tracker(description, n_total, None, None)
        return
    # imported here, where a bar is shown: 0.1 s that every command would wait for
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Tracker(description, n_total, bar, bar.add_task(description, total=n_total))
