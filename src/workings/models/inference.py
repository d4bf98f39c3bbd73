"""Token ids → final states of our GPT-2 without gradients, a whole row or one token after another, in few calls.

What is computed is what `GPT2.hidden` computes for each row alone (tests compare them); how is a matter of speed, over the same
parameters. A step of generation is some forty small calls, so each that is saved counts, and products go to oneDNN with bias,
GELU and residual in the same call (`kernels.py`).

Rows of unequal length are aligned at their ends: a shorter one is padded on the left, nothing attends to the padding, and
positions start at the first real token.

Shapes: n rows, t new positions, T slots of the buffers, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workings.errors import BadInput
from workings.models.gpt2 import GPT2
from workings.models.kernels import Maps, compute_dtype, maps_for

Weights = tuple[tuple[Tensor, Tensor], ...]


@dataclass
class KVCache:
    """Keys and values of what every row has read, in buffers that are written in place; rows can be copied and dropped."""

    layers: Sequence[Tensor]  # L of [2, n, heads, T, d_head]
    n_slots: int  # slots in use, padding included
    starts: Tensor | None  # Long [n]: the slot of each row's first token; None while all start at 0
    next_position: Tensor = field(init=False)  # Long [n, 1]
    padding: Tensor | None = field(init=False, default=None)  # [n, 1, 1, T]: −inf at slots of padding, 0 at others

    def __post_init__(self) -> None:
        first = self.layers[0]
        whole = torch.full((first.shape[1],), self.n_slots, device=first.device)
        self.next_position = (whole if self.starts is None else whole - self.starts)[:, None]
        if self.starts is not None:
            filled = torch.arange(self.capacity, device=first.device) < self.starts[:, None]
            self.padding = first.new_zeros(filled.shape).masked_fill_(filled, -torch.inf)[:, None, None]

    @classmethod
    def empty(cls, model: GPT2, n_rows: int, capacity: int, starts: Tensor | None) -> KVCache:
        """Buffers for `n_rows` rows of at most `capacity` slots each."""
        config, place = model.config, model.wpe.weight
        shape = (2, n_rows, config.n_heads, capacity, config.d_model // config.n_heads)
        dtype = compute_dtype(place)
        return cls([torch.empty(shape, dtype=dtype, device=place.device) for _ in model.h], 0, starts)

    @property
    def capacity(self) -> int:
        """Slots there are, padding included."""
        return self.layers[0].shape[3]

    @property
    def lengths(self) -> Tensor:
        """Long [n]: real tokens that each row has read."""
        return self.next_position[:, 0]

    def added(self, n_new: int) -> None:
        """Count `n_new` slots of every row as filled."""
        self.n_slots += n_new
        self.next_position = self.next_position + n_new

    def room(self, n_new: int, n_positions: int) -> tuple[Tensor, Tensor | None]:
        """Positions of `n_new` more tokens a row ([t] or [n, t]), and what they see, Bool [n or 1, 1, t, slots].

        None stands for everything before them.

        Raises:
            BadInput: A row gets longer than the model's `n_positions` or the buffers allow.
        """
        end = self.n_slots + n_new
        longest = end if self.starts is None else end - int(self.starts.min())
        if end > self.capacity or longest > n_positions:
            raise BadInput(
                f"{longest} tokens in {end} slots; this cache has {self.capacity} and the model {n_positions}"
            )
        slots = torch.arange(self.n_slots, end, device=self.layers[0].device)
        every = torch.arange(end, device=slots.device)
        before = every <= slots[:, None]  # [t, slots]: up to one's own
        if self.starts is None:
            return slots, before[None, None] if n_new > 1 and self.n_slots > 0 else None
        # Padding sees itself: a row of attention that sees nothing is not a number, and would spread.
        real = every >= self.starts[:, None, None, None]
        visible = before & (real | (every == slots[:, None]))
        return (slots - self.starts[:, None]).clamp(min=0), visible

    def select(self, rows: Tensor, capacity: int | None = None) -> KVCache:
        """A copy that holds these rows (Long, repeats allowed), in this order; slots that nobody uses any more go."""
        starts = None if self.starts is None else self.starts[rows]
        unused = 0 if starts is None or not len(starts) else int(starts.min())
        shape = list(self.layers[0].shape)
        shape[1], shape[3] = len(rows), capacity or self.capacity
        layers = [layer.new_empty(shape) for layer in self.layers]
        for new, old in zip(layers, self.layers, strict=True):
            new[:, :, :, : self.n_slots - unused] = old[:, rows, :, unused : self.n_slots]
        if starts is not None:
            starts = starts - unused if bool((starts > unused).any()) else None
        return KVCache(layers, self.n_slots - unused, starts)

    def keep(self, rows: Tensor) -> KVCache:
        """As `select`, for fewer rows and none twice, in the same buffers: a row that keeps its place costs nothing."""
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for layer in self.layers:
            layer[:, moved, :, : self.n_slots] = layer[:, rows[moved], :, : self.n_slots]
        starts = None if self.starts is None else self.starts[rows]
        return KVCache([layer[:, : len(rows)] for layer in self.layers], self.n_slots, starts)


class Inference:
    """The forward pass of one model, whose parameters are used as they are at each call."""

    def __init__(self, model: GPT2) -> None:
        self.model = model
        # Looking them up through modules takes as long as a product.
        self._blocks = [_weights(block) for block in model.h]

    def read(self, ids: Tensor) -> Tensor:
        """Final states [n, t, d] of whole rows, Long [n, t], padding only on the right.

        Raises:
            BadInput: They are longer than the model.
        """
        self.model.check_length(ids.shape[1])
        return self._states(ids, torch.arange(ids.shape[1], device=ids.device), None, repeat(None), 0)

    def begin(self, ids: Tensor, padding: Tensor, capacity: int) -> tuple[Tensor, KVCache]:
        """Read rows, Long [n, t], of which `padding` Long [n] ids on the left are padding.

        Returns:
            Final states [n, t, d] (arbitrary at padding), and what can be extended to `capacity` slots a row.
        """
        starts = padding.to(self.model.wpe.weight.device) if bool(padding.any()) else None
        cache = KVCache.empty(self.model, len(ids), capacity, starts)
        return self._extended(ids, cache), cache

    def extend(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Final states [n, t, d] of more tokens, Long [n, t]; the cache takes them in."""
        if ids.shape[1] > 1 or cache.n_slots == cache.capacity:
            return self._extended(ids, cache)
        mask = None if cache.padding is None else cache.padding[..., : cache.n_slots + 1]
        states = self._states(ids, cache.next_position, mask, cache.layers, cache.n_slots)
        cache.added(1)
        return states

    def _extended(self, ids: Tensor, cache: KVCache) -> Tensor:
        positions, mask = cache.room(ids.shape[1], self.model.config.block)
        states = self._states(ids, positions, mask, cache.layers, cache.n_slots)
        cache.added(ids.shape[1])
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


def _weights(block: nn.Module) -> Weights:
    names = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    return tuple((block.get_parameter(f"{name}.weight"), block.get_parameter(f"{name}.bias")) for name in names)


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
