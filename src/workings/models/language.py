"""A causal language model as judges see it: token ids in; log-probabilities or greedy text out.

`LanguageModel` is what both kinds share. A kind supplies three steps (`begin` a batch of prompts, `extend` it, `fork` its rows),
and scoring.py and generation.py are written once on these. Where tokens are split between context and continuation is the
caller's decision: nothing here joins or splits text.

Shapes: n rows, T positions, q new positions, V rows of the output head.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models import generation, scoring
from workings.models.checkpoint import fingerprint_of, load_base, resolve
from workings.models.device import device_of, dtype_of
from workings.models.generation import Generation
from workings.models.scoring import Scored, bits_per_byte

__all__ = ["Generation", "HubModel", "LanguageModel", "Scored", "bits_per_byte", "open_language"]


class LanguageModel(ABC):
    """A causal language model with its tokenizer, to be scored and to generate from. Abstract: the kinds below are final."""

    name: str
    width: int  # rows of the output head
    context: int  # positions: how many tokens can be read at once
    eot: int  # the id that ends a document, and starts one where the tokenizer has no other id for that
    start: int  # what an empty context stands for: the id before the first token of a text
    ends: frozenset[int]  # the ids that end a generation
    live: Tensor | None  # Bool [V]: may be predicted; None: every row may
    vocabulary: Any  # the facts its tokenizer knows (FactVocabulary), or None
    device: torch.device

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of what decides the outputs."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text as it is, with nothing put before or behind it."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without those that only open, end or pad a text."""

    # What a kind of model knows: one batch, in steps -----------------------------------------------------------------

    @abstractmethod
    def begin(self, rows: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:
        """Read n non-empty rows; at most `room` tokens will follow each. → logits after the last token [n, V], and the state."""

    @abstractmethod
    def extend(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read q more tokens a row, Long [n, q] → logits [n, q, V] and the state after them; the state given is used up."""

    @abstractmethod
    def fork(self, state: Any, rows: Tensor) -> Any:
        """The state of some rows, repeats allowed; the state given stays what it is."""

    @abstractmethod
    def read(self, ids: Tensor) -> Tensor:
        """Whole rows at once, Long [n, T], padding only on the right → logits [n, T, V]."""

    @abstractmethod
    def evaluating(self) -> Any:
        """A context: no gradients, no dropout; what was before is restored after it."""

    # What is built on them -------------------------------------------------------------------------------------------

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
            return scoring.next_logprobs(self, prompts, batch_tokens)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        forbid: Sequence[int] = (),
        batch_size: int = 32,
    ) -> list[Generation]:
        """Greedy continuations, in the order given, each what it would be alone.

        A row ends at an id of `ends` (not kept), when its text holds a `stop` string (cut before it), or after `max_new_tokens`.
        Ids in `forbid` and ids that are not live never come. A prompt longer than the positions less `max_new_tokens` is cut on the
        left (`Generation.cut`).
        """
        with self.evaluating():
            return generation.generate(self, prompts, max_new_tokens, stop, forbid, batch_size)


@dataclass
class _Running:
    """A batch that a Hugging Face model has read: left-padded, so that what follows a row stands right behind it."""

    cache: Any
    visible: Tensor  # Bool [n, T]: not padding
    next_position: Tensor  # Long [n]


class HubModel(LanguageModel):
    """Any causal language model of transformers. Final."""

    def __init__(self, model: Any, tokenizer: Any, path: Path, name: str):
        self.model, self.tokenizer, self.path, self.name = model.eval(), tokenizer, path, name
        self.context = model.config.max_position_embeddings
        self.width = len(model.get_output_embeddings().weight)
        self.eot, self.start = _document_ids(tokenizer, name)
        self.ends = frozenset([self.eot, *_listed(model.generation_config.eos_token_id)])
        self.live, self.vocabulary = None, None
        self.device = model.get_input_embeddings().weight.device
        self._silent = {
            i for i in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) if i is not None
        }
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.path)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([i for i in ids if i not in self._silent], clean_up_tokenization_spaces=False)

    def begin(self, rows: Sequence[Sequence[int]], room: int) -> tuple[Tensor, _Running]:
        ids, visible = _left_padded(rows, self.eot, self.device)
        state = _Running(None, visible[:, :0], torch.zeros(len(rows), dtype=torch.long, device=self.device))
        logits, state = self._forward(ids, visible, state, logits_to_keep=1)
        return logits[:, -1], state

    def extend(self, ids: Tensor, state: _Running) -> tuple[Tensor, _Running]:
        return self._forward(ids, torch.ones_like(ids, dtype=torch.bool), state)

    def fork(self, state: _Running, rows: Tensor) -> _Running:
        cache = copy.copy(state.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)
        return _Running(cache, state.visible[rows], state.next_position[rows])

    def read(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits

    @contextmanager
    def evaluating(self) -> Generator[None]:
        with torch.no_grad():
            yield

    def _forward(self, ids: Tensor, new: Tensor, state: _Running, **options: Any) -> tuple[Tensor, _Running]:
        """Read `ids` [n, q], of which `new` [n, q] are not padding, behind what the state has read."""
        visible = torch.cat([state.visible, new], 1)
        # The padding of a short row behind a long context may stand beyond the positions: it is read and never used.
        positions = (state.next_position[:, None] + new.cumsum(1) - 1).clamp(0, self.context - 1)
        if self._takes_positions:
            options["position_ids"] = positions
        out = self.model(
            input_ids=ids, attention_mask=visible.long(), past_key_values=state.cache, use_cache=True, **options
        )
        return out.logits, _Running(out.past_key_values, visible, positions[:, -1] + 1)


def open_language(reference: str | Path, device: str = "auto", precision: str = "fp32") -> LanguageModel:
    """A hub id, a Hugging Face folder or a GGUF file → a model to judge. BadInput says what cannot be opened, and why."""
    where, dtype = device_of(device), dtype_of(precision)
    model, tokenizer = load_base(reference, dtype)
    return HubModel(model.to(where), tokenizer, resolve(reference), str(reference))


def _document_ids(tokenizer: Any, name: str) -> tuple[int, int]:
    """(the id that ends a text, the id that opens one); one stands for both where there is no other."""
    ends, opens = tokenizer.eos_token_id, tokenizer.bos_token_id
    if ends is None and opens is None:
        raise BadInput(f"the tokenizer of {name} names neither an eos nor a bos token: no text can be begun or ended")
    return (opens if ends is None else ends), (ends if opens is None else opens)


def _listed(ids: int | Sequence[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids Long [n, T] and which of them are not padding, Bool [n, T]."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) >= width - lengths[:, None]
