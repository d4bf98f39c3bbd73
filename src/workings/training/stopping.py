"""SIGTERM → a wish that the loop fulfils when its step is done: nothing is interrupted halfway."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Wish:
    """Whether the process was asked to stop."""

    asked: bool = False


@contextmanager
def asked_to_stop() -> Generator[Wish]:
    """Inside, SIGTERM only sets `asked`. Outside the main thread, where signals never arrive, it stays unset."""
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def ask(number: int, frame: object) -> None:
        wish.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGTERM, before)
