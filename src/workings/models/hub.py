"""A causal language model of transformers as a `LanguageModel`: its own forward pass, its own cache, any family.

Rows are left-padded, so that what follows a row stands right behind it, as sliding windows need. Features are logits: what stands
between a final state and the logits differs between families, and is not ours to guess.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.causal import LanguageModel, Reader
from workings.models.weights import fingerprint_of

LOGITS = 1 << 27  # numbers in one block of logits: half a gigabyte in fp32


@dataclass
class _Running:
    """A batch that has been read."""

    cache: Any
    visible: Tensor  # Bool [n, T]: not padding
    next_position: Tensor  # Long [n]


class HubModel(LanguageModel):
    """Any causal language model of transformers. Final."""

    def __init__(self, model: Any, reader: Reader, name: str, files: Path):
        self.model, self.reader, self.name, self.files = model.eval(), reader, name, files
        self.context = _positions(model.config, name)
        self.width = len(model.get_output_embeddings().weight)
        self.block = max(1, LOGITS // self.width)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.files)

    def begin(self, rows: Sequence[Sequence[int]], room: int) -> tuple[Tensor, _Running]:
        ids, visible = left_padded(rows, self.eot, self.device)
        state = _Running(None, visible[:, :0], torch.zeros(len(rows), dtype=torch.long, device=self.device))
        logits, state = self._forward(ids, visible, state, logits_to_keep=1)
        return logits[:, -1], state

    def extend(self, ids: Tensor, state: _Running) -> tuple[Tensor, _Running]:
        return self._forward(ids, torch.ones_like(ids, dtype=torch.bool), state)

    def fork(self, state: _Running, rows: Tensor, room: int) -> _Running:
        cache = copy.copy(state.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)
        return _Running(cache, state.visible[rows], state.next_position[rows])

    def keep(self, state: _Running, rows: Tensor) -> _Running:
        return self.fork(state, rows, 0)

    def read(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits

    def logits(self, features: Tensor) -> Tensor:
        return features.float() if self._dead is None else features.float().masked_fill(self._dead, -torch.inf)

    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        if self._dead is None and not len(forbid):
            return lambda features: features.argmax(-1)
        never = torch.zeros(self.width, dtype=torch.bool, device=self.device) if self._dead is None else self._dead
        never = never.index_fill(0, torch.tensor(list(forbid), dtype=torch.long, device=self.device), True)
        return lambda features: features.masked_fill(never, -torch.inf).argmax(-1)

    @contextmanager
    def evaluating(self) -> Generator[None]:
        with torch.inference_mode():
            yield

    @cached_property
    def _dead(self) -> Tensor | None:
        return None if self.live is None else ~self.live

    def _forward(self, ids: Tensor, new: Tensor, state: _Running, **options: Any) -> tuple[Tensor, _Running]:
        """Read `ids` [n, q], of which `new` [n, q] are not padding, behind what the state has read."""
        visible = torch.cat([state.visible, new], 1)
        positions = (state.next_position[:, None] + new.cumsum(1) - 1).clamp(min=0)
        if self._takes_positions:
            options["position_ids"] = positions
        out = self.model(
            input_ids=ids, attention_mask=visible.long(), past_key_values=state.cache, use_cache=True, **options
        )
        return out.logits, _Running(out.past_key_values, visible, positions[:, -1] + 1)


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids Long [n, T] and which of them are not padding, Bool [n, T]."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(width, device=device) >= width - lengths[:, None]


def _positions(config: Any, name: str) -> int:
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(found, int):
        raise BadInput(f"the config of {name} does not say how many positions it can read (max_position_embeddings)")
    return found
