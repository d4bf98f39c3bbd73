"""Rows of token ids through a causal model, one batch at a time: padding, batches, the steps a model supplies, greedy text.

`CausalModel` is what every kind of language model shares. A kind supplies the steps of one batch (`begin`, `extend`, `fork`, and
what turns a position into logits or a choice); generation here, and scoring in `scoring.py`, are written once on these. Where
tokens are divided between context and continuation is the caller's decision: nothing here joins or splits text.

Each row of a generation is ended by itself, by an id or by a stop string. Its text is decoded a few ids at a time as it grows, so
that a stop string is found however tokens divide it.

Shapes: n rows, T positions, q new positions, V rows of the output head. *Features* [..., f] are what a kind makes logits of: the
final state for our own GPT-2 (f = d), the logits themselves for a model of transformers (f = V).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from workings.errors import BadInput

if TYPE_CHECKING:
    from workings.arithmetic.facts import FactVocabulary
    from workings.text.tokenizer import Tokenizer

Ended = Literal["eot", "stop", "length"]
UNFINISHED = "\ufffd"  # what decoding gives for a character whose bytes have not all come

# ── rows of ids → batches ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PaddedRows:
    """Token rows of different length, padded on the left. `ids` Long [n, T]; `mask` Bool [n, T], False on padding."""

    ids: Tensor
    mask: Tensor


def left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> PaddedRows:
    """Pad token rows on the left, so that what follows each row stands right behind it."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return PaddedRows(ids, torch.arange(width, device=device) >= width - lengths[:, None])


def right_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Tensor:
    """Pad token rows on the right, Long [n, T]: for causal models that read whole rows, to which later padding is nothing."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)


def by_length(lengths: Sequence[int], n_rows: int | None = None, n_tokens: int | None = None) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, so that little is padding and the most memory is needed at once.

    Args:
        lengths: Tokens in each row.
        n_rows: The most rows in a batch.
        n_tokens: The most tokens in a batch, padding included; a longer row is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    at = 0
    while at < len(order):
        n = len(order) if n_tokens is None else max(1, n_tokens // max(1, lengths[order[at]]))
        n = min(n, n_rows or n)
        yield order[at : at + n]
        at += n


def in_order(n_all: int, n_rows: int) -> Iterator[list[int]]:
    """Indices in batches of `n_rows`, as given: for models whose numbers depend on what else is in the batch."""
    return (list(range(at, min(at + n_rows, n_all))) for at in range(0, n_all, n_rows))


# ── greedy decoding ──────────────────────────────────────────────────────────────────────────────────────────────────


class Decoder(Protocol):
    """A batch of rows in the middle of being continued."""

    def choose(self) -> Tensor:
        """The likeliest next id of each row, Long [n]."""

    def keep(self, rows: list[int]) -> list[int]:
        """Drop all rows but these, given in rising order; returns them in the order in which they now stand."""

    def extend(self, tokens: Tensor) -> None:
        """Read one more token a row, Long [n]."""


def greedy(decoder: Decoder, rows: Sequence[int], max_new_tokens: int, take: Callable[[int, int], bool]) -> None:
    """Continue a batch by the likeliest token again and again; a row that has ended leaves it.

    Args:
        decoder: The batch, after its last token was read.
        rows: What the caller calls each row of it.
        max_new_tokens: The most tokens of a row.
        take: Gets a row and its next token; False once the row has ended.
    """
    for n_left in reversed(range(max_new_tokens)):
        tokens = decoder.choose()
        going = [i for i, token in enumerate(tokens.tolist()) if take(rows[i], token)]
        if not going or not n_left:
            return
        if len(going) < len(rows):
            order = decoder.keep(going)
            rows, tokens = [rows[i] for i in order], tokens[torch.tensor(order, device=tokens.device)]
        decoder.extend(tokens)


# ── text that grows ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Generation:
    """A greedy continuation. `ids` hold the token that completed a stop string, not the id that ended the text.

    `text` is cut before the stop string; `n_cut` counts the tokens that the prompt lost on its left.
    """

    ids: list[int]
    text: str
    ended: Ended
    n_cut: int


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
        whole = self.whole
        return whole[: self.stops.find(whole)]


# ── what a kind of model supplies ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class TextCodec:
    """Text ⇄ token ids as one model has them: what its tokenizer decides, ours or one of transformers."""

    tokenizer: Any  # Tokenizer, or PreTrainedTokenizerFast
    prepare: Callable[[str], str]  # raw text → as this model reads it: facts rewritten, or unchanged
    encode: Callable[[str], list[int]]  # prepared text → ids, with nothing put before or behind
    decode: Callable[[Sequence[int]], str]  # without the ids that only open, end or pad a text
    eot: int  # ends a text
    start: int  # opens a text: what an empty context stands for
    ends: frozenset[int]  # end a generation
    predictable: tuple[range, ...] | None  # ids that may be predicted; None: every row
    facts: FactVocabulary | None  # the facts that are one id

    @classmethod
    def of_ours(cls, tokenizer: Tokenizer) -> TextCodec:
        """Our tokenizer: end of text opens and ends a text, and only the ids that text can hold are predicted."""
        eot = tokenizer.eot
        return cls(
            tokenizer,
            tokenizer.prepare,
            tokenizer.encode,
            lambda ids: tokenizer.decode([i for i in ids if i != eot]),
            eot,
            eot,
            frozenset([eot]),
            tokenizer.live,
            tokenizer.facts if tokenizer.has_facts else None,
        )

    @classmethod
    def of_transformers(cls, tokenizer: Any, ends: Sequence[int], name: str) -> TextCodec:
        """A tokenizer of transformers; `ends` are the ids with which the model's own settings end a text."""
        eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
        if eos is None and bos is None:
            raise BadInput(
                f"the tokenizer of {name} names neither an eos nor a bos token: no text can be begun or ended"
            )
        eot, start = (bos if eos is None else eos), (eos if bos is None else bos)
        silent = {eot, start, tokenizer.pad_token_id}
        return cls(
            tokenizer,
            str,
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            lambda ids: tokenizer.decode([i for i in ids if i not in silent], clean_up_tokenization_spaces=False),
            eot,
            start,
            frozenset([eot, *ends]),
            None,
            None,
        )


class CausalModel(ABC):
    """A causal language model with its tokenizer, in steps. Abstract: `language.py` has the kinds."""

    name: str
    codec: TextCodec
    vocab_size: int  # V
    context_length: int  # positions: how many tokens can be read at once
    n_positions_at_once: int  # features of so many positions fit the memory together

    # 1. What a kind knows: one batch, in steps. A state is whatever the kind needs to go on, and each has its own -----

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of what decides the outputs."""

    @abstractmethod
    def begin(self, rows: Sequence[Sequence[int]], n_more: int) -> tuple[Tensor, Any]:
        """Read n non-empty rows, to each of which at most `n_more` tokens will be added.

        Returns:
            Features of the last token [n, f], and the state.
        """

    @abstractmethod
    def extend(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read q more tokens a row, Long [n, q].

        Returns:
            Their features [n, q, f], and the state after them; the one given is invalid from now on.
        """

    @abstractmethod
    def fork(self, state: Any, rows: Tensor, n_more: int) -> Any:
        """A copy of the state for some rows, Long, repeats allowed, with room for `n_more` tokens."""

    def keep(self, state: Any, rows: Tensor) -> Any:
        """As `fork`, for a subset of rows without repeats; the state given is invalid from now on, and may be written over."""
        return self.fork(state, rows, 0)

    @abstractmethod
    def read(self, ids: Tensor) -> Tensor:
        """Features [n, T, f] of whole rows, Long [n, T], padding only on the right."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """fp32 logits [m, V] of features [m, f]; −inf for ids that may not be predicted."""

    @abstractmethod
    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """A function from features [m, f] to the likeliest predictable id, Long [m], that is not in `forbid`."""

    # 2. What its tokenizer knows -------------------------------------------------------------------------------------

    @property
    def eot(self) -> int:
        """The id that ends a text."""
        return self.codec.eot

    @property
    def start(self) -> int:
        """The id that opens a text, and that an empty context stands for: bos where there is one, else the end of text."""
        return self.codec.start

    @property
    def facts(self) -> FactVocabulary | None:
        """The facts that are one id each in this model's texts; None where there are none."""
        return self.codec.facts

    @property
    def predictable(self) -> Tensor | None:
        """Bool [V]: the ids that may be predicted and generated; None where every row may."""
        if self.codec.predictable is None:
            return None
        mask = torch.zeros(self.vocab_size, dtype=torch.bool, device=self.device)
        for ids in self.codec.predictable:
            mask[ids.start : ids.stop] = True
        return mask

    def allowed(self, forbid: Sequence[int]) -> Tensor:
        """Bool [V]: the ids that may be predicted, without those in `forbid`."""
        mask = self.predictable
        if mask is None:
            mask = torch.ones(self.vocab_size, dtype=torch.bool, device=self.device)
        mask[list(forbid)] = False
        return mask

    def prepare(self, text: str) -> str:
        """Raw text as this model reads it: facts are rewritten where its tokenizer has them. What `encode` expects."""
        return self.codec.prepare(text)

    def encode(self, text: str) -> list[int]:
        """Ids of a prepared text, with nothing put before or behind it."""
        return self.codec.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without those that only open, end or pad a text."""
        return self.codec.decode(ids)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise BadInput for an id that the model has no row for: on a GPU it would end the process."""
        if len(ids) and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(i for i in ids if not 0 <= i < self.vocab_size)
            raise BadInput(
                f"id {wrong} is outside the {self.vocab_size} rows of {self.name}; were these ids made by its own tokenizer?"
            )

    # 3. What is written once for all kinds ---------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        forbid: Sequence[int] = (),
        batch_size: int = 32,
    ) -> list[Generation]:
        """Greedy continuations, in the order given, each what it would be alone.

        Args:
            prompts: Token ids. One longer than the positions less `max_new_tokens` is cut on the left (`Generation.n_cut`).
            max_new_tokens: Where a row ends at the latest. It also ends at an id that ends a text, which is not kept.
            stop: Strings at which a row ends; its text is cut before them.
            forbid: Ids that never come, nor do ids that may not be predicted.
            batch_size: The most rows in a batch.

        Raises:
            BadInput: There is no room for a prompt, a stop string is empty, or an id is none of this model's.
        """
        longest = self.context_length - max_new_tokens
        if max_new_tokens < 0 or longest < 1:
            raise BadInput(
                f"{max_new_tokens} new tokens leave no room for a prompt in the {self.context_length} positions of {self.name}"
            )
        if isinstance(stop, str) or "" in stop:
            raise BadInput("stop strings are given as a list, and none of them may be empty")
        rows = [list(prompt)[-longest:] or [self.start] for prompt in prompts]
        for ids in (*rows, forbid):
            self.check_ids(ids)
        choose, stops = self.chooser(forbid), StopStrings(self.decode, stop)
        texts = [GrowingText(stops) for _ in rows]
        ended: list[Ended] = ["length"] * len(rows)

        def take(row: int, token: int) -> bool:
            if token in self.codec.ends:
                ended[row] = "eot"
            elif texts[row].add(token):
                ended[row] = "stop"
            return ended[row] == "length"

        for batch in by_length([len(row) for row in rows], batch_size):
            features, state = self.begin([rows[i] for i in batch], max(0, max_new_tokens - 1))
            greedy(_Continuing(self, choose, features, state), batch, max_new_tokens, take)
        for row, text in enumerate(texts):  # a stop string may end in bytes that never became a character
            if ended[row] == "length" and stops.find(text.whole) is not None:
                ended[row] = "stop"
        n_cut = [max(0, len(prompt) - longest) for prompt in prompts]
        return [Generation(t.ids, t.text, end, n) for t, end, n in zip(texts, ended, n_cut, strict=True)]


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
