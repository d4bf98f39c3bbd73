"""SIGTERM → a flag that long work looks at where it can stop, or an exception; and the exit that says how to go on.

Clusters and `timeout` send SIGTERM some time before they kill. Work that is resumed from what it wrote needs that time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopFlag:
    """Set when SIGTERM arrives."""

    is_set: bool = False


@contextmanager
def stop_on_sigterm() -> Generator[StopFlag]:
    """Inside, SIGTERM only sets the flag. Outside the main thread, where signals never arrive, it stays unset."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def set_flag(number: int, frame: object) -> None:
        flag.is_set = True

    before = signal.signal(signal.SIGTERM, set_flag)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)


def stopped(how_to_go_on: str = "") -> SystemExit:
    """What to raise once everything is safe: exit code 143, as of a process that SIGTERM ended, and a note for the user."""
    error = SystemExit(128 + signal.SIGTERM)
    if how_to_go_on:
        error.add_note(how_to_go_on)
    return error


@contextmanager
def interruptible(how_to_go_on: str = "") -> Generator[None]:
    """Inside, SIGTERM ends the work at once, as Ctrl-C does: what is kept is whole at any moment. Both carry the note."""

    def end(number: int, frame: object) -> None:
        raise stopped()

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if in_main_thread else None
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        if how_to_go_on:
            error.add_note(how_to_go_on)
        raise
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
