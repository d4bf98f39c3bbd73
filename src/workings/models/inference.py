"""Token ids → final states of a GPT-2, for whoever needs no gradient: its forward pass in few calls, over its own parameters.

What is computed is what `GPT2.hidden` and `GPT2.extend_hidden` compute (a test compares them); how is a matter of speed. A step
of generation is some forty small calls, so each that is saved counts; and on a CPU torch gives fp32 products to MKL, which leaves
half the speed of an AMD processor unused: here oneDNN has them, with bias, GELU and residual in the same call.

Shapes: n rows, t new positions, T slots of the cache, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workings.models.gpt2 import GPT2, Cache
from workings.models.linear import POINTWISE, onednn, onednn_is_there


class Maps(NamedTuple):
    """Linear maps, with what follows them: (x, weight, bias), and for `adding` the residual stream."""

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    gelu: Callable[[Tensor, Tensor, Tensor], Tensor]
    adding: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


LARGE = 1 << 20  # multiplications: below, oneDNN takes longer to begin than it saves


def is_large(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is worth its beginning."""
    return x.numel() * weight.shape[0] >= LARGE


def packed(weight: Tensor, n_rows: int) -> Tensor:
    """A matrix in the order that oneDNN reads it in, for about so many rows: half the time for few rows and a large matrix."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, n_rows)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return onednn(x, weight, bias) if is_large(x, weight) else F.linear(x, weight, bias)


def _gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (
        POINTWISE.default(x, weight, bias, "gelu", [], "tanh") if is_large(x, weight) else TORCH.gelu(x, weight, bias)
    )


def _adding(x: Tensor, weight: Tensor, bias: Tensor, stream: Tensor) -> Tensor:
    large = is_large(x, weight)
    return POINTWISE.binary(x, stream, weight, bias, "add") if large else TORCH.adding(x, weight, bias, stream)


TORCH = Maps(
    F.linear,
    lambda x, weight, bias: F.gelu(F.linear(x, weight, bias), approximate="tanh"),
    lambda x, weight, bias, stream: stream + F.linear(x, weight, bias),
)
ONEDNN = Maps(_linear, _gelu, _adding)


def maps_for(weight: Tensor) -> Maps:
    """oneDNN's for fp32 on a CPU, else torch's."""
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return ONEDNN if plain and onednn_is_there() else TORCH


@dataclass
class Running:
    """A batch that has been read. `hidden` [n, 1, 1, T] is -inf at slots of padding, 0 at others; None where none is padding."""

    cache: Cache
    hidden: Tensor | None
    next_position: Tensor  # Long [n, 1]

    @classmethod
    def of(cls, cache: Cache) -> Running:
        hidden = None
        if cache.starts is not None:
            filled = torch.arange(cache.capacity, device=cache.starts.device) < cache.starts[:, None]
            hidden = cache.layers[0].new_zeros(filled.shape).masked_fill_(filled, -torch.inf)[:, None, None]
        return cls(cache, hidden, cache.lengths[:, None])


class Inference:
    """The forward pass of one model, whose parameters are used as they are at each call."""

    def __init__(self, model: GPT2) -> None:
        self.model = model
        self._blocks = [
            _weights(block) for block in model.h
        ]  # looking them up through modules takes as long as a product

    def read(self, ids: Tensor) -> Tensor:
        """Whole rows, Long [n, t], padding only on the right → [n, t, d]. BadInput where they are longer than the model."""
        self.model.check_length(ids.shape[1])
        return self._states(ids, torch.arange(ids.shape[1], device=ids.device), None, repeat(None), 0)

    def begin(self, ids: Tensor, padding: Tensor, capacity: int) -> tuple[Tensor, Running]:
        """Rows, Long [n, t], with `padding` [n] ids of filling on the left → [n, t, d], and what can be extended."""
        cache = self.model.cache(len(ids), capacity)
        states = self._extended(ids, cache, padding)
        return states, Running.of(cache)

    def extend(self, ids: Tensor, state: Running) -> Tensor:
        """More tokens, Long [n, t] → [n, t, d]; the state takes them in."""
        cache = state.cache
        if ids.shape[1] > 1:
            states = self._extended(ids, cache, None)
        else:
            mask = None if state.hidden is None else state.hidden[..., : cache.n_slots + 1]
            states = self._states(ids, state.next_position, mask, cache.layers, cache.n_slots)
            cache.n_slots += 1
        state.next_position = state.next_position + ids.shape[1]
        return states

    def _extended(self, ids: Tensor, cache: Cache, padding: Tensor | None) -> Tensor:
        positions, mask = cache.begin(ids.shape[1], padding, self.model.config.block)
        states = self._states(ids, positions, mask, cache.layers, cache.n_slots)
        cache.n_slots += ids.shape[1]
        return states

    def _states(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, stored: Iterable[Tensor | None], at: int
    ) -> Tensor:
        """`mask` as torch's attention takes it, none for what is causal; keys and values go into `stored` from slot `at` on."""
        model, maps = self.model, maps_for(self.model.wte.weight)
        x = F.embedding(ids, model.wte.weight) + F.embedding(positions, model.wpe.weight)
        for block, layer in zip(self._blocks, stored, strict=False):
            x = _block(x, block, maps, model.config.n_heads, mask, layer, at)
        return _norm(x, (model.ln_f.weight, model.ln_f.bias))


Weights = tuple[tuple[Tensor, Tensor], ...]


def _weights(block: Any) -> Weights:
    modules = (block.ln_1, block.attn.c_attn, block.attn.c_proj, block.ln_2, block.mlp.c_fc, block.mlp.c_proj)
    return tuple((module.weight, module.bias) for module in modules)


def _block(
    x: Tensor, weights: Weights, maps: Maps, n_heads: int, mask: Tensor | None, stored: Tensor | None, at: int
) -> Tensor:
    ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj = weights
    n, t, d = x.shape
    parts = maps.linear(_norm(x, ln_1), *c_attn).view(n, t, 3, n_heads, d // n_heads).permute(2, 0, 3, 1, 4)
    q, k, v = parts.unbind()
    if stored is not None:
        stored[:, :, :, at : at + t] = parts[1:]
        k, v = stored[:, :, :, : at + t].unbind()
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and t > 1)
    x = maps.adding(seen.transpose(1, 2).reshape(n, t, d), *attn_proj, x)
    return maps.adding(maps.gelu(_norm(x, ln_2), *c_fc), *mlp_proj, x)


def _norm(x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return torch.layer_norm(x, x.shape[-1:], *weights)
