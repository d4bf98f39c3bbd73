"""The two ways a command ends badly: a mistake in what was given (exit code 2), a failure of the work (exit code 1)."""

from __future__ import annotations


class BadInput(Exception):
    """Something given to us cannot be used. The message says what, where, and what to do; exit code 2."""


class Failed(Exception):
    """The input was fine and the work still did not succeed. The message says what and where; exit code 1."""
