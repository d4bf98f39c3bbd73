"""Our own GPT-2 as a `LanguageModel`: buffers written in place, the head only where it is asked for, only over live rows.

Features are final states; rows are left-padded. What runs is `Inference` over the model's own parameters, without a copy, so that
a model in training is judged as it stands, and left as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.models.causal import LanguageModel, Reader, own_reader
from workings.models.gpt2 import GPT2, Cache
from workings.models.hub import LOGITS, left_padded
from workings.models.importing import config_of, to_own, unlike_ours
from workings.models.inference import ONEDNN, Inference, Running, is_large, maps_for, packed
from workings.models.linear import onednn
from workings.models.weights import fill, fingerprint_of
from workings.text.tokenizer import Tokenizer

SAME = 2e-5  # of the largest logit: what two orders of summing fp32 numbers differ by
PACKED_AFTER = 16  # choices: packing the head takes as long as it then saves in some ten of them


class Language(LanguageModel):
    """A GPT-2 of ours with its tokenizer. Final."""

    def __init__(self, model: GPT2, reader: Reader, name: str, files: Path | None = None):
        self.model, self.reader, self.name, self.files = model, reader, name, files
        self._run = Inference(model)
        self.context, self.width = model.config.block, model.config.vocab
        self.block = max(1, LOGITS // model.config.d_model)

    @classmethod
    def of(cls, model: GPT2, tokenizer: Tokenizer, name: str = "a model in training") -> Language:
        """Over the model's own weights: what it scores is always what the model is now."""
        return cls(model, own_reader(tokenizer), name)

    @property
    def device(self) -> torch.device:
        return self.model.wte.weight.device

    @property
    def fingerprint(self) -> str:
        """Of the files where there are some; else of the weights as they are now, and of what the tokenizer does."""
        return self._of_files if self.files else _digest(self.model, self.reader)

    def begin(self, rows: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Running]:
        ids, visible = left_padded(rows, self.eot, self.device)
        states, running = self._run.begin(ids, (~visible).sum(1), ids.shape[1] + room)
        return states[:, -1], running

    def extend(self, ids: Tensor, state: Running) -> tuple[Tensor, Running]:
        return self._run.extend(ids, state), state

    def fork(self, state: Running, rows: Tensor, room: int) -> Running:
        return Running.of(state.cache.select(rows, state.cache.n_slots + room))

    def keep(self, state: Running, rows: Tensor) -> Running:
        cache = state.cache
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for layer in cache.layers:
            layer[:, moved, :, : cache.n_slots] = layer[:, rows[moved], :, : cache.n_slots]
        starts = None if cache.starts is None else cache.starts[rows]
        return Running.of(Cache([layer[:, : len(rows)] for layer in cache.layers], cache.n_slots, starts))

    def read(self, ids: Tensor) -> Tensor:
        return self._run.read(ids)

    def logits(self, features: Tensor) -> Tensor:
        head = self.model.wte.weight
        return maps_for(head).linear(features, head, self._live_bias).float()

    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        allowed = torch.ones(self.width, dtype=torch.bool, device=self.device) if self.live is None else self.live
        allowed[list(forbid)] = False
        last = int(allowed.nonzero()[-1]) + 1
        head, allowed = self.model.wte.weight[:last], allowed[:last]
        return _Chooser(head, None if bool(allowed.all()) else _bias(allowed, head.dtype))

    @contextmanager
    def evaluating(self) -> Generator[None]:
        with torch.inference_mode():
            yield

    @cached_property
    def _of_files(self) -> str:
        assert self.files is not None
        parts = [part for part in (self.files, self.files / "tokenizer") if part.exists()]
        return fingerprint_of(parts[0]) if len(parts) == 1 else _sha(*map(fingerprint_of, parts))

    @cached_property
    def _live_bias(self) -> Tensor | None:
        return None if self.live is None else _bias(self.live, self.model.wte.weight.dtype)


@torch.no_grad()
def as_own(model: Any, name: str) -> GPT2 | None:
    """A GPT-2 of transformers (fp32) in our modules, which are faster. None where ours compute something else.

    Known settings are compared, since a wrong GELU would hardly show; then the logits of a row, for settings not known here.
    """
    if unlike_ours(model.config.to_dict()):
        return None
    state = to_own(model.state_dict(), name)
    own = GPT2(config_of(state, model.config.n_head, name))
    fill(own, state, name)
    ids = torch.linspace(0, own.config.vocab - 1, min(64, own.config.block)).long()[None]
    theirs = model(ids).logits
    same = bool((own(ids) - theirs).abs().max() <= SAME * theirs.abs().max())
    return own.eval() if same else None


class _Chooser:
    """The likeliest row of a head, again and again with the same weights."""

    def __init__(self, head: Tensor, bias: Tensor | None) -> None:
        self.head, self.bias, self.maps = head, bias, maps_for(head)
        self.packed: Tensor | None = None
        self.n_large = 0

    def __call__(self, features: Tensor) -> Tensor:
        if self.maps is not ONEDNN or not is_large(features, self.head):
            return self.maps.linear(features, self.head, self.bias).argmax(-1)
        self.n_large += 1
        if self.n_large == PACKED_AFTER:
            self.packed = packed(self.head, len(features))
        return onednn(features, self.head if self.packed is None else self.packed, self.bias).argmax(-1)


def _bias(live: Tensor, dtype: torch.dtype) -> Tensor:
    """0 for live rows, -inf for the others."""
    return torch.zeros(len(live), dtype=dtype, device=live.device).masked_fill(~live, -torch.inf)


def _digest(model: GPT2, reader: Reader) -> str:
    tensors = (t.detach().float().cpu().contiguous().numpy().tobytes() for t in model.state_dict().values())
    return _sha(reader.tokenizer.digest, *tensors)


def _sha(*parts: str | bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else part)
    return sha.hexdigest()
