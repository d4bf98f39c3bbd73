"""Prompts → greedy text: batched, each row ended by itself, by an id or by a stop string.

A row's text is decoded a few ids at a time as it grows, so that a stop string is found however tokens divide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.causal import CausalModel, by_length, greedy

Ended = Literal["eot", "stop", "length"]
UNFINISHED = "\ufffd"  # what decoding gives for a character whose bytes have not all come


@dataclass(frozen=True)
class Generation:
    """A greedy continuation. `ids` hold the token that completed a stop string, not the id that ended the text.

    `text` is cut before the stop string; `n_cut` counts the tokens that the prompt lost on its left.
    """

    ids: list[int]
    text: str
    ended: Ended
    n_cut: int


def continuations(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[str],
    forbid: Sequence[int],
    batch_size: int,
) -> list[Generation]:
    """Continue prompts greedily; see `LanguageModel.generate`."""
    if not 0 <= max_new_tokens < model.context_length:
        raise BadInput(
            f"{max_new_tokens} new tokens leave no room for a prompt in the {model.context_length} positions of {model.name}"
        )
    if isinstance(stop, str) or "" in stop:
        raise BadInput("stop strings are given as a list, and none of them may be empty")
    longest, stops = model.context_length - max_new_tokens, StopStrings(model.decode, stop)
    rows = [
        _Row(list(prompt)[-longest:] or [model.start], max(0, len(prompt) - longest), GrowingText(stops))
        for prompt in prompts
    ]
    for row in rows:
        model.check_ids(row.prompt)
    model.check_ids(forbid)
    choose = model.chooser(forbid)
    for batch in by_length([len(row.prompt) for row in rows], batch_size):
        some = [rows[i] for i in batch]
        features, state = model.begin([row.prompt for row in some], max(0, max_new_tokens - 1))
        decoder = _Continuing(model, choose, features, state)
        greedy(decoder, len(some), max_new_tokens, lambda i, token, some=some: some[i].take(token, model.codec.ends))
    for row in rows:  # a stop string may end in bytes that never became a character
        if row.ended == "length" and stops.find(row.grown.whole) is not None:
            row.ended = "stop"
    return [Generation(row.grown.ids, row.grown.text, row.ended, row.n_cut) for row in rows]


@dataclass
class _Continuing:
    """One batch of a language model, for `greedy`."""

    model: CausalModel
    chooser: Callable[[Tensor], Tensor]
    features: Tensor  # [n, f] of each row's last token
    state: Any

    def choose(self) -> Tensor:
        return self.chooser(self.features)

    def keep(self, rows: list[int]) -> list[int]:
        # The last rows take the places of those that ended: few have to move in buffers that are written in place.
        n = len(rows)
        late, kept = iter([i for i in rows if i >= n]), set(rows)
        order = [i if i in kept else next(late) for i in range(n)]
        self.state = self.model.keep(self.state, torch.tensor(order, device=self.model.device))
        return order

    def extend(self, tokens: Tensor) -> None:
        features, self.state = self.model.extend(tokens[:, None], self.state)
        self.features = features[:, -1]


class StopStrings:
    """Stop strings, and which ids can complete one: shared by all rows, since most ids cannot and need not be looked at."""

    def __init__(self, decode: Callable[[Sequence[int]], str], strings: Sequence[str]) -> None:
        self.decode, self.strings = decode, strings
        self.longest = max(map(len, strings), default=0)
        self._last = {string[-1] for string in strings}
        self._can: dict[int, bool] = {}

    def can_end_with(self, token: int) -> bool:
        """Whether a stop string may be complete after this id: it holds a last character, or a part of one.

        A space may also come from joining two ids, so where a stop string ends in one every id is looked at.
        """
        found = self._can.get(token)
        if found is None:
            characters = {*self.decode([token])}
            found = self._can[token] = " " in self._last or UNFINISHED in characters or bool(self._last & characters)
        return found

    def find(self, text: str) -> int | None:
        """Index at which the first stop string begins; None if there is none."""
        return min((at for string in self.strings if (at := text.find(string)) >= 0), default=None)


@dataclass
class GrowingText:
    """Text that grows by one id at a time and is watched for stop strings: only what is new is decoded."""

    stops: StopStrings
    ids: list[int] = field(default_factory=list)
    # Ids from `_begin` on are decoded, those before `_read` only for company: the first of some ids may be written otherwise.
    _begin: int = 0
    _read: int = 0
    _tail: str = ""  # the end of the text before `_read`, as far as a stop string can reach back
    _waiting: bool = False  # for the rest of a character

    def add(self, token: int) -> bool:
        """Add an id. True once the text holds a stop string."""
        self.ids.append(token)
        if not self.stops.strings or not (self._waiting or self.stops.can_end_with(token)):
            return False
        old, new = self.stops.decode(self.ids[self._begin : self._read]), self.stops.decode(self.ids[self._begin :])
        self._waiting = new.endswith(UNFINISHED)
        if self._waiting or len(new) <= len(old):
            return False
        self._begin, self._read = self._read, len(self.ids)
        seen = self._tail + new[len(old) :]
        self._tail = seen[-self.stops.longest :]
        return self.stops.find(seen) is not None and self.stops.find(self.whole) is not None

    @property
    def whole(self) -> str:
        """The text, with the stop string that it may hold."""
        return self.stops.decode(self.ids)

    @property
    def text(self) -> str:
        """The text, cut before the first stop string."""
        return self.whole[: self.stops.find(self.whole)]


@dataclass
class _Row:
    prompt: list[int]
    n_cut: int
    grown: GrowingText
    ended: Ended = "length"

    def take(self, token: int, ends: frozenset[int]) -> bool:
        """Take the next id; False once the row has ended."""
        if token in ends:
            self.ended = "eot"
        elif self.grown.add(token):
            self.ended = "stop"
        return self.ended == "length"
