"""The two ways a command ends badly: a mistake in what was given (exit code 2), a failure of the work (exit code 1)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Something given to us cannot be used. The message says what, where, and what to do; exit code 2."""


class Failed(Exception):
    """The input was fine and the work still did not succeed. The message says what and where; exit code 1."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Text to append to an error: the known name nearest to `word`, or nothing. Dotted names are found by their last part too."""
    by_part = {part: name for name in reversed(list(known)) for part in (name.rsplit(".", 1)[-1], name)}
    tries = (word, word.rsplit(".", 1)[-1])
    near = [match for one in tries for match in difflib.get_close_matches(one, by_part, n=1)]
    return f" (did you mean '{by_part[near[0]]}'?)" if near else ""


def listed(names: Iterable[str], most: int = 4) -> str:
    """A few names in a sentence, in alphabetical order, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
