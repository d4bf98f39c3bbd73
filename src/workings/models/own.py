"""Our own GPT-2 as a `LanguageModel`: buffers written in place, the head only where it is asked for, only over live rows.

Features are final states; rows are left-padded. What runs is a second tree of modules over the model's own parameters, without a
copy: it needs no gradient and is always in evaluation, so a model in training is judged as it stands, and left as it was.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workings.models.causal import LanguageModel, Reader, own_reader
from workings.models.checkpoint import fingerprint_of
from workings.models.exchange import fill
from workings.models.gpt2 import GPT2, Cache
from workings.models.hub import LOGITS, left_padded
from workings.models.layouts import shape_of, to_own
from workings.text.tokenizer import Tokenizer

SAME = 2e-5  # of the largest logit: what two orders of summing fp32 numbers differ by
SETTINGS = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "n_inner": (None,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "tie_word_embeddings": (True,),
}  # of transformers' config, with the values that ours stands for


class Language(LanguageModel):
    """A GPT-2 of ours with its tokenizer. Final."""

    def __init__(self, model: GPT2, reader: Reader, name: str, files: Path | None = None):
        self.model, self.reader, self.name, self.files = evaluation_twin(model), reader, name, files
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

    def begin(self, rows: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Cache]:
        ids, visible = left_padded(rows, self.eot, self.device)
        cache = self.model.cache(len(rows), ids.shape[1] + room)
        return self.model.extend_hidden(ids, cache, (~visible).sum(1))[:, -1], cache

    def extend(self, ids: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        return self.model.extend_hidden(ids, state), state

    def fork(self, state: Cache, rows: Tensor, room: int) -> Cache:
        return state.select(rows, state.n_slots + room)

    def keep(self, state: Cache, rows: Tensor) -> Cache:
        moved = rows != torch.arange(len(rows), device=rows.device)
        to, source = moved.nonzero()[:, 0], rows[moved]
        for layer in state.layers:
            layer[:, to] = layer[:, source]
        starts = None if state.starts is None else state.starts[rows]
        return Cache([layer[:, : len(rows)] for layer in state.layers], state.n_slots, starts)

    def read(self, ids: Tensor) -> Tensor:
        return self.model.hidden(ids)

    def logits(self, features: Tensor) -> Tensor:
        return _linear(features, self.model.wte.weight, self._live_bias).float()

    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        allowed = torch.ones(self.width, dtype=torch.bool, device=self.device) if self.live is None else self.live
        allowed[list(forbid)] = False
        last = int(allowed.nonzero()[-1]) + 1
        head, allowed = self.model.wte.weight[:last], allowed[:last]
        bias = None if bool(allowed.all()) else _bias(allowed, head.dtype)
        return lambda features: _linear(features, head, bias).argmax(-1)

    @contextmanager
    def evaluating(self) -> Generator[None]:
        with torch.no_grad():
            yield

    @cached_property
    def _of_files(self) -> str:
        assert self.files is not None
        parts = [part for part in (self.files, self.files / "tokenizer") if part.exists()]
        return fingerprint_of(parts[0]) if len(parts) == 1 else _sha(*map(fingerprint_of, parts))

    @cached_property
    def _live_bias(self) -> Tensor | None:
        return None if self.live is None else _bias(self.live, self.model.wte.weight.dtype)


def evaluation_twin(model: GPT2) -> GPT2:
    """The same parameters in modules of their own, in evaluation; on a CPU its linear maps are oneDNN's."""
    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()}).eval()
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _Linear(child.weight, child.bias))
    return twin


@torch.no_grad()
def as_own(model: Any, name: str) -> GPT2 | None:
    """A GPT-2 of transformers (fp32) in our modules, which are faster. None where ours compute something else.

    Known settings are compared, since a wrong GELU would hardly show; then the logits of a row, for settings not known here.
    """
    about = model.config.to_dict()
    if any(about.get(field) not in values for field, values in SETTINGS.items()):
        return None
    state = to_own(model.state_dict(), name)
    own = GPT2(shape_of(state, model.config.n_head, name))
    fill(own, state, name)
    ids = torch.linspace(0, own.config.vocab - 1, min(64, own.config.block)).long()[None]
    theirs = model(ids).logits
    same = bool((own(ids) - theirs).abs().max() <= SAME * theirs.abs().max())
    return own.eval() if same else None


class _Linear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, without a gradient. Torch gives fp32 on a CPU to MKL, which leaves half the speed of an AMD processor unused."""
    if x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


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
