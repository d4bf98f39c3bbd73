"""A causal language model as judges see it: token ids in; log-probabilities or greedy text out.

`LanguageModel` is what every kind shares. A kind supplies the steps of one batch (`begin`, `extend`, `fork`, and what turns a
position into log-probabilities or a choice); scoring.py and generation.py are written once on these. Where tokens are divided
between context and continuation is the caller's decision: nothing here joins or splits text.

Shapes: n rows, T positions, q new positions, V rows of the output head. *Features* [..., f] are what a kind makes logits of: the
final state for our own GPT-2 (f = d), the logits themselves for a model of transformers (f = V).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models import generation, scoring

if TYPE_CHECKING:
    from workings.arithmetic.facts import FactVocabulary
    from workings.models.generation import Generation
    from workings.models.scoring import Scored
    from workings.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reader:
    """What a model's tokenizer decides, ours or one of transformers."""

    tokenizer: Any  # Tokenizer, or PreTrainedTokenizerFast
    prepare: Callable[[str], str]  # raw text → as this model reads it: facts rewritten, or unchanged
    encode: Callable[[str], list[int]]  # prepared text → ids, with nothing put before or behind
    decode: Callable[[Sequence[int]], str]  # without the ids that only open, end or pad a text
    eot: int  # ends a text
    start: int  # opens a text: what an empty context stands for
    ends: frozenset[int]  # end a generation
    live: tuple[range, ...] | None  # may be predicted; None: every row
    vocabulary: FactVocabulary | None  # the facts that are one id


def own_reader(tokenizer: Tokenizer) -> Reader:
    """Our tokenizer: end of text opens and ends a text, and only its live ids are predicted."""
    eot = tokenizer.eot
    return Reader(
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


def hub_reader(tokenizer: Any, ends: Sequence[int], name: str) -> Reader:
    """A tokenizer of transformers; `ends` are the ids that the model's own settings end a text with."""
    eos, bos = tokenizer.eos_token_id, tokenizer.bos_token_id
    if eos is None and bos is None:
        raise BadInput(f"the tokenizer of {name} names neither an eos nor a bos token: no text can be begun or ended")
    eot, start = (bos if eos is None else eos), (eos if bos is None else bos)
    silent = {eot, start, tokenizer.pad_token_id}
    return Reader(
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


class LanguageModel(ABC):
    """A causal language model with its tokenizer, to be scored and to generate from. Abstract: kinds are final."""

    name: str
    reader: Reader
    width: int  # V
    context: int  # positions: how many tokens can be read at once
    block: int  # features of so many positions are held at once

    # 1. What a kind knows: one batch, in steps -----------------------------------------------------------------------

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of what decides the outputs."""

    @abstractmethod
    def begin(self, rows: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:
        """Read n non-empty rows; at most `room` tokens will follow each → features of the last token [n, f], and the state."""

    @abstractmethod
    def extend(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read q more tokens a row, Long [n, q] → their features [n, q, f] and the state after them; the one given is used up."""

    @abstractmethod
    def fork(self, state: Any, rows: Tensor, room: int) -> Any:
        """The state of some rows, Long, repeats allowed, with room for so many tokens; the one given stays what it is."""

    @abstractmethod
    def keep(self, state: Any, rows: Tensor) -> Any:
        """As `fork`, for fewer rows and none twice; the state given is used up. A row that keeps its place costs nothing."""

    @abstractmethod
    def read(self, ids: Tensor) -> Tensor:
        """Whole rows, Long [n, T], padding only on the right → features [n, T, f]."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Features [m, f] → fp32 logits [m, V], -inf for ids that may not be predicted."""

    @abstractmethod
    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Features [m, f] → the likeliest live id, Long [m], that is not in `forbid`."""

    @abstractmethod
    def evaluating(self) -> AbstractContextManager[None]:
        """A context: no gradients, no dropout; what was before is restored after it."""

    # 2. What its tokenizer knows -------------------------------------------------------------------------------------

    @property
    def eot(self) -> int:
        """The id that ends a text."""
        return self.reader.eot

    @property
    def start(self) -> int:
        """The id that opens a text, and that an empty context stands for: bos where there is one, else the end of text."""
        return self.reader.start

    @property
    def vocabulary(self) -> FactVocabulary | None:
        """The facts that are one id each in this model's texts; None where there are none."""
        return self.reader.vocabulary

    @property
    def live(self) -> Tensor | None:
        """Bool [V]: the ids that may be predicted and generated; None where every row may."""
        if self.reader.live is None:
            return None
        live = torch.zeros(self.width, dtype=torch.bool, device=self.device)
        for ids in self.reader.live:
            live[ids.start : ids.stop] = True
        return live

    def prepare(self, text: str) -> str:
        """Raw text as this model reads it: facts are rewritten where its tokenizer has them. What `encode` expects."""
        return self.reader.prepare(text)

    def encode(self, text: str) -> list[int]:
        """Ids of a prepared text, with nothing put before or behind it."""
        return self.reader.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without those that only open, end or pad a text."""
        return self.reader.decode(ids)

    # 3. What is built on them ----------------------------------------------------------------------------------------

    def logprobs(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[Sequence[int]]],
        batch_tokens: int = 8192,
    ) -> list[list[Scored]]:
        """log p of each continuation after its context, in nats: what one plain pass over both gives, whatever the batch.

        `continuations[i]` are the alternatives of `contexts[i]`. An empty context stands for `start`. A context that does not fit
        the positions together with a continuation is cut on the left (`Scored.cut`). BadInput if a continuation alone does not fit.
        """
        with self.evaluating():
            return scoring.logprobs(self, contexts, continuations, batch_tokens)

    def next_logprobs(self, prompts: Sequence[Sequence[int]], batch_tokens: int = 8192) -> Tensor:
        """log p of every next id [n, V], fp32 on the CPU; -inf for ids that are not live. Long prompts are cut on the left."""
        with self.evaluating():
            found = scoring.next_logprobs(self, prompts, batch_tokens)
        return found.clone()  # a tensor of inference mode could not be changed by whoever asked

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        forbid: Sequence[int] = (),
        batch_size: int = 32,
    ) -> list[Generation]:
        """Greedy continuations, in the order given, each what it would be alone.

        A row ends at an id that ends a text (not kept), when its text holds a `stop` string (cut before it), or after
        `max_new_tokens`. Ids in `forbid` and ids that are not live never come. A prompt longer than the positions less
        `max_new_tokens` is cut on the left (`Generation.cut`).
        """
        with self.evaluating():
            return generation.generate(self, prompts, max_new_tokens, stop, forbid, batch_size)
