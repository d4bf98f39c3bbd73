"""prompts → greedy text: batched, each row ended by itself, and what has ended leaves the batch.

A row's text is decoded a few ids at a time as it grows, so that a stop string is found however tokens divide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.scoring import check_ids
from workings.models.thinking import by_length

if TYPE_CHECKING:
    from workings.models.causal import LanguageModel

Ended = Literal["eot", "stop", "length"]
UNFINISHED = "\ufffd"  # what decoding gives for a character whose bytes have not all come


@dataclass(frozen=True)
class Generation:
    """What a model said. `ids` hold the token that completed a stop string, not the id that ended the text.

    `text` is cut before the stop string; `cut` counts the tokens that the prompt lost on its left.
    """

    ids: list[int]
    text: str
    ended: Ended
    cut: int


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[str],
    forbid: Sequence[int],
    batch_size: int,
) -> list[Generation]:
    """See `LanguageModel.generate`."""
    if not 0 <= max_new_tokens < model.context:
        raise BadInput(
            f"{max_new_tokens} new tokens leave no room for a prompt in the {model.context} positions of {model.name}"
        )
    if isinstance(stop, str) or "" in stop:
        raise BadInput("stop strings are given as a list, and none of them may be empty")
    room, stops = model.context - max_new_tokens, Stops(model.decode, stop)
    rows = [_Row(list(p)[-room:] or [model.start], max(0, len(p) - room), Growing(stops)) for p in prompts]
    for row in rows:
        check_ids(row.prompt, model)
    check_ids(forbid, model)
    choose = model.chooser(forbid)
    for batch in by_length([len(row.prompt) for row in rows], batch_size):
        _greedy([rows[i] for i in batch], model, max_new_tokens, choose)
    return [Generation(row.said.ids, row.said.text, row.ended, row.cut) for row in rows]


class Stops:
    """Stop strings, and which ids can complete one: shared by all rows, since most ids cannot and need not be looked at."""

    def __init__(self, decode: Callable[[Sequence[int]], str], strings: Sequence[str]) -> None:
        self.decode, self.strings = decode, strings
        self.reach = max(map(len, strings), default=0)
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
        """Where the first stop string begins."""
        return min((at for string in self.strings if (at := text.find(string)) >= 0), default=None)


@dataclass
class Growing:
    """Text that grows by one id at a time and is watched for stop strings: only what is new is decoded."""

    stops: Stops
    ids: list[int] = field(default_factory=list)
    # Ids from `_begin` on are decoded, those before `_read` only for company: the first of some ids may be written otherwise.
    _begin: int = 0
    _read: int = 0
    _tail: str = ""  # the end of the text before `_read`, as far as a stop string can reach back
    _waiting: bool = False  # for the rest of a character

    def add(self, token: int) -> bool:
        """True once the text holds a stop string."""
        self.ids.append(token)
        if not self.stops.strings or not (self._waiting or self.stops.can_end_with(token)):
            return False
        old, new = self._decoded(self._begin, self._read), self._decoded(self._begin, None)
        self._waiting = new.endswith(UNFINISHED)
        if self._waiting or len(new) <= len(old):
            return False
        self._begin, self._read = self._read, len(self.ids)
        seen = self._tail + new[len(old) :]
        self._tail = seen[-self.stops.reach :]
        return self.stops.find(seen) is not None and self.stops.find(self.whole) is not None

    @property
    def whole(self) -> str:
        """The text, with the stop string that it may hold."""
        return self._decoded(0, None)

    @property
    def text(self) -> str:
        """The text, cut before the first stop string."""
        return self.whole[: self.stops.find(self.whole)]

    def _decoded(self, begin: int, end: int | None) -> str:
        return self.stops.decode(self.ids[begin:end])


@dataclass
class _Row:
    prompt: list[int]
    cut: int
    said: Growing
    ended: Ended = "length"

    def add(self, token: int, ends: frozenset[int]) -> bool:
        """Take the next id; False once the row has ended."""
        if token in ends:
            self.ended = "eot"
            return False
        if self.said.add(token):
            self.ended = "stop"
            return False
        return True


def _greedy(rows: list[_Row], model: LanguageModel, max_new_tokens: int, choose: Callable[[Tensor], Tensor]) -> None:
    """Generate for one batch; what is said is written into its rows."""
    everyone = rows
    features, state = model.begin([row.prompt for row in rows], max_new_tokens - 1)
    for left in reversed(range(max_new_tokens)):
        tokens = choose(features)
        going = [i for i, token in enumerate(tokens.tolist()) if rows[i].add(token, model.reader.ends)]
        if not going or not left:
            break
        if len(going) < len(rows):
            order = _closing_up(going)
            at = torch.tensor(order, device=model.device)
            rows, tokens, state = [rows[i] for i in order], tokens[at], model.keep(state, at)
        features, state = model.extend(tokens[:, None], state)
        features = features[:, -1]
    for row in everyone:  # a stop string may end in bytes that never became a character
        if row.ended == "length" and row.said.stops.find(row.said.whole) is not None:
            row.ended = "stop"


def _closing_up(going: list[int]) -> list[int]:
    """Rows in use → the same rows, the last of them in the places of those that ended, so that few have to move."""
    n = len(going)
    late = iter([i for i in going if i >= n])
    here = set(going)
    return [i if i in here else next(late) for i in range(n)]
