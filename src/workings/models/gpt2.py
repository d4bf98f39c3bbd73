"""Token ids → hidden states → logits or nats: GPT-2, written out.

Pre-norm blocks, one matrix for query, key and value, tanh-GELU, learned positions, and the embedding again as the head. The
names of the parameters are those of the published weights, except that a linear map stores [out, in].

With document masking a token sees its own document only, and **positions start at 0 in every document**: what the model computes
for a document inside a packed row is what it computes for the document alone. (Without it, a row is one stream of positions.)

Attention is torch's `scaled_dot_product_attention` on every device. Matrix product and softmax written out were no faster on two
AMD cores with torch 2.13 (5–25 % slower at 256 positions, 1.4–2 times at 512 and more; 10 % faster at 128).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workings import seeds
from workings.errors import BadInput
from workings.models.configs import GPT2Config
from workings.models.linear import Linear, linear
from workings.models.nats import compute_dtype, mean_nats, nats

STD = 0.02  # of every initial weight; GPT-2 drew them so at each of its sizes


class GPT2(nn.Module):
    """A GPT-2 of any size. Its weights are arbitrary until `init` draws them or `load_gpt2` reads them."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab, config.d_model, _weight=torch.empty(config.vocab, config.d_model))
        self.wpe = nn.Embedding(config.block, config.d_model, _weight=torch.empty(config.block, config.d_model))
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = nn.LayerNorm(config.d_model)

    @torch.no_grad()
    def init(self, seed: int) -> GPT2:
        """Draw new weights: N(0, .02), the maps onto the residual stream narrower by √(2·n_layers), biases 0, gains 1.

        Every tensor has a stream of its own, drawn on the CPU: the same on every device, whatever the other shapes are.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            std = STD / math.sqrt(2 * self.config.n_layers) if name.endswith("c_proj.weight") else STD
            stream = seeds.torch(f"init {name}", seed)
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=stream))
        return self

    def hidden(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """[B, T] int64 → [B, T, d] after the final norm. `documents` [B, T]: which document of its row a token belongs to."""
        length = ids.shape[1]
        self.check_length(length)
        if documents is None:
            positions, visible = self.wpe.weight[:length], None
        else:
            positions, visible = self.wpe(restarting(documents)), same_document(documents)
        x = self.wte(ids) + positions
        for block in self.h:
            x = block(x, visible)
        return self.ln_f(x)

    def check_length(self, length: int) -> None:
        """BadInput for a row of more tokens than there are positions; a GPU would only stop."""
        if length > self.config.block:
            raise BadInput(f"a row of {length} tokens is longer than the {self.config.block} positions of this model")

    def forward(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits [B, T, vocab] of the token that follows each."""
        return self.logits(self.hidden(ids, documents))

    def logits(self, hidden: Tensor) -> Tensor:
        """Normed hidden states [..., d] → [..., vocab]: the embedding is the head."""
        return linear(hidden, self.wte.weight)

    def loss(
        self, ids: Tensor, targets: Tensor, documents: Tensor | None = None, live_bias: Tensor | None = None
    ) -> Tensor:
        """Mean nats per target [B, T] that is not −100, fp32. `live_bias` [vocab]: 0 for live ids, −inf for the others."""
        return mean_nats(self.hidden(ids, documents), self.wte.weight, targets, live_bias)

    @torch.no_grad()
    def nats(
        self, ids: Tensor, targets: Tensor, documents: Tensor | None = None, live_bias: Tensor | None = None
    ) -> Tensor:
        """As `loss`, for each target: [B, T], 0 where it is −100; not differentiable."""
        return nats(self.hidden(ids, documents), self.wte.weight, targets, live_bias)

    # ── one piece after another ──────────────────────────────────────────────────────────────────────────────────────

    def cache(self, n_rows: int, capacity: int | None = None) -> Cache:
        """An empty cache for `n_rows` rows of at most `capacity` tokens (as many as there are positions)."""
        config, place = self.config, self.wpe.weight
        shape = (2, n_rows, config.n_heads, capacity or config.block, config.d_model // config.n_heads)
        dtype = compute_dtype(place)
        return Cache([torch.empty(shape, dtype=dtype, device=place.device) for _ in self.h])

    @torch.no_grad()
    def extend(self, ids: Tensor, cache: Cache, padding: Tensor | None = None, *, last_only: bool = False) -> Tensor:
        """Logits after more tokens of every row, [B, t, vocab] ([B, 1, vocab] with `last_only`); the cache takes them in.

        `padding` [B]: how many ids at the left of each row are filling, which nothing attends to; only where the cache is empty.
        Rows of unequal length are thus aligned at their ends, and their positions start at their first real token.
        """
        x = self.extend_hidden(ids, cache, padding)
        return self.logits(x[:, -1:] if last_only else x)

    @torch.no_grad()
    def extend_hidden(self, ids: Tensor, cache: Cache, padding: Tensor | None = None) -> Tensor:
        """`extend` before the head: [B, t, d] after the final norm (arbitrary at filling)."""
        positions, visible = cache.begin(ids.shape[1], padding, self.config.block)
        x = self.wte(ids) + self.wpe(positions.to(ids.device))
        for block, stored in zip(self.h, cache.layers, strict=True):
            x = block(x, visible, stored, cache.n_slots)
        cache.n_slots += ids.shape[1]
        return self.ln_f(x)

    # ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def n_parameters(self) -> int:
        """Every weight once; the head is the embedding."""
        return sum(parameter.numel() for parameter in self.parameters())

    def decayed(self) -> dict[str, nn.Parameter]:
        """What weight decay applies to: matrices, the two embeddings among them."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.dim() >= 2}

    def not_decayed(self) -> dict[str, nn.Parameter]:
        """Biases and gains."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.dim() < 2}

    def flops_per_token(self, length: int) -> int:
        """Of training, forward and backward: 6N + 12·n_layers·d_model·length, as in PaLM's appendix B and nanoGPT.

        N leaves out the position table, which is only added; the embedding counts once, as the head. Attention is counted
        whole although half of it is masked, and so is a masked document: a utilisation computed from it compares with others'.
        """
        n = self.n_parameters - self.wpe.weight.numel()
        return 6 * n + 12 * self.config.n_layers * self.config.d_model * length


class Block(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, visible: Tensor | None, stored: Tensor | None = None, n_stored: int = 0) -> Tensor:
        x = x + self.attn(self.ln_1(x), visible, stored, n_stored)
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.c_attn = Linear(config.d_model, 3 * config.d_model)
        self.c_proj = Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, visible: Tensor | None, stored: Tensor | None, n_stored: int) -> Tensor:
        """`visible` [B or 1, 1, t, S] bool; without it a token sees what precedes it. `stored` [2, B, heads, slots, d_head]."""
        rows, length, width = x.shape
        q, k, v = (part.view(rows, length, self.n_heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, 2))
        if stored is not None:
            stored[0, :, :, n_stored : n_stored + length], stored[1, :, :, n_stored : n_stored + length] = k, v
            k, v = stored[:, :, :, : n_stored + length].unbind()
        causal = visible is None and length > 1
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)
        return self.c_proj(seen.transpose(1, 2).reshape(rows, length, width))


class MLP(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.d_model, 4 * config.d_model)
        self.c_proj = Linear(4 * config.d_model, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Cache:
    """Keys and values of what every row has read, in buffers that are written in place; rows can be copied and dropped.

    Rows end together: a shorter one starts at a later slot. `starts` [B] is that slot, None while all start at 0.
    """

    def __init__(self, layers: Sequence[Tensor], n_slots: int = 0, starts: Tensor | None = None) -> None:
        self.layers = layers  # each [2, B, heads, capacity, d_head]
        self.n_slots = n_slots
        self.starts = starts

    @property
    def capacity(self) -> int:
        """Slots there are, filling included."""
        return self.layers[0].shape[3]

    @property
    def lengths(self) -> Tensor:
        """[B] real tokens that each row has read."""
        whole = torch.full((self.layers[0].shape[1],), self.n_slots, device=self.layers[0].device)
        return whole if self.starts is None else whole - self.starts

    def begin(self, n_new: int, padding: Tensor | None, block: int) -> tuple[Tensor, Tensor | None]:
        """Room for `n_new` tokens a row → their positions, [t] or [B, t], and what they see, [B or 1, 1, t, S].

        None stands for everything before them. BadInput where a row gets longer than the model or the buffers allow.
        """
        if padding is not None and self.n_slots:
            raise ValueError("rows can be padded only where the cache is empty")
        if padding is not None and bool(padding.any()):
            self.starts = padding.to(self.layers[0].device)
        end = self.n_slots + n_new
        longest = end if self.starts is None else end - int(self.starts.min())
        if end > self.capacity or longest > block:
            raise BadInput(f"{longest} tokens in {end} slots; this cache has {self.capacity} and the model {block}")
        slots = torch.arange(self.n_slots, end, device=self.layers[0].device)
        if self.starts is None:
            needed = n_new > 1 and self.n_slots > 0
            return slots, _before(slots, end)[None, None] if needed else None
        first = self.starts[:, None, None, None]
        # Filling sees itself: a row of attention that sees nothing is not a number, and would spread.
        real = torch.arange(end, device=slots.device) >= first
        visible = _before(slots, end) & (real | (torch.arange(end, device=slots.device) == slots[:, None]))
        return (slots - self.starts[:, None]).clamp(min=0), visible

    def select(self, rows: Tensor | Sequence[int], capacity: int | None = None) -> Cache:
        """A copy that holds these rows, in this order, a row as often as it is named; slots that nobody uses any more go."""
        device = self.layers[0].device
        rows = torch.as_tensor(rows, device=device)
        starts = None if self.starts is None else self.starts[rows]
        unused = 0 if starts is None or not len(starts) else int(starts.min())
        shape = list(self.layers[0].shape)
        shape[1], shape[3] = len(rows), capacity or self.capacity
        layers = [layer.new_empty(shape) for layer in self.layers]
        for new, old in zip(layers, self.layers, strict=True):
            new[:, :, :, : self.n_slots - unused] = old[:, rows, :, unused : self.n_slots]
        if starts is not None:
            starts = starts - unused if bool((starts > unused).any()) else None
        return Cache(layers, self.n_slots - unused, starts)

    def repeat(self, n: int, capacity: int | None = None) -> Cache:
        """A copy with every row `n` times, neighbours: one context for several continuations."""
        return self.select(torch.arange(self.layers[0].shape[1]).repeat_interleave(n), capacity)


def restarting(documents: Tensor) -> Tensor:
    """[B, T] document of each token → [B, T] its position, counted from the document's first token in the row."""
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    new = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    return at - (at * new).cummax(1).values


def same_document(documents: Tensor) -> Tensor:
    """[B, T] → [B, 1, T, T] bool: the tokens of one's own document up to oneself."""
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]


def _before(slots: Tensor, end: int) -> Tensor:
    """[t], S → [t, S] bool: slots up to one's own."""
    return torch.arange(end, device=slots.device) <= slots[:, None]
