"""Lengths that must agree, or the report would show a number in the wrong place."""

from __future__ import annotations

from collections.abc import Sequence


def same_length(where: str, what: str, given: Sequence, of: str, expected: Sequence) -> None:
    """ValueError unless there are as many `what` as `of`."""
    if len(given) != len(expected):
        raise ValueError(f"{where}: {len(given)} {what} for {len(expected)} {of}")
