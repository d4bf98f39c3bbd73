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
    room = model.context - max_new_tokens
    rows = [
        _Row(list(prompt)[-room:] or [model.start], max(0, len(prompt) - room), Growing(model.decode, stop))
        for prompt in prompts
    ]
    for row in rows:
        check_ids(row.prompt, model)
    check_ids(forbid, model)
    choose = model.chooser(forbid)
    for batch in by_length([len(row.prompt) for row in rows], batch_size):
        _greedy([rows[i] for i in batch], model, max_new_tokens, choose)
    return [Generation(row.said.ids, row.said.text, row.ended, row.cut) for row in rows]


@dataclass
class Growing:
    """Text that grows by one id at a time, decoded from the last few ids on, and watched for stop strings."""

    decode: Callable[[Sequence[int]], str]
    stop: Sequence[str]
    ids: list[int] = field(default_factory=list)
    _begin: int = (
        0  # decoded from here on: a tokenizer may write the first of some ids otherwise than the same id in a text
    )
    _read: int = 0  # ids whose text is known
    _tail: str = ""  # the end of the known text, as far as a stop string can reach back

    def add(self, token: int) -> bool:
        """True once the text holds a stop string."""
        self.ids.append(token)
        if not self.stop:
            return False
        old, new = self.decode(self.ids[self._begin : self._read]), self.decode(self.ids[self._begin :])
        if new.endswith(UNFINISHED) or len(new) <= len(old):
            return False
        self._begin, self._read = self._read, len(self.ids)
        seen = self._tail + new[len(old) :]
        self._tail = seen[-max(map(len, self.stop)) :]
        return any(s in seen for s in self.stop) and self.stops_at() is not None

    def stops_at(self) -> int | None:
        """Where in the whole text the first stop string begins."""
        whole = self.decode(self.ids)
        return min((at for s in self.stop if (at := whole.find(s)) >= 0), default=None)

    @property
    def text(self) -> str:
        """The text, cut before the first stop string."""
        return self.decode(self.ids)[: self.stops_at()]


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
        elif self.said.add(token):
            self.ended = "stop"
        return self.ended == "length"


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
    for row in everyone:
        if (
            row.ended == "length" and row.said.stops_at() is not None
        ):  # completed by bytes that never became a character
            row.ended = "stop"


def _closing_up(going: list[int]) -> list[int]:
    """Rows in use → the same rows, the last of them in the places of those that ended, so that few have to move."""
    n = len(going)
    late = iter([i for i in going if i >= n])
    here = set(going)
    return [i if i in here else next(late) for i in range(n)]
