"""Token ids → hidden states → logits or loss: GPT-2, written out twice, to be trained (`GPT2`) and to be asked (`Inference`).

Source: "Language Models are Unsupervised Multitask Learners" (2019). Pre-norm blocks, one matrix for query, key and value,
tanh-GELU, learned positions, and the embedding again as the head. The names of the parameters are those of the published weights,
except that a linear map stores [out, in].

With document masking a token sees its own document only, and **positions start at 0 in every document**: what the model computes
for a document inside a packed row is what it computes for the document alone. (Without it, a row is one stream of positions.)

Attention is torch's `scaled_dot_product_attention` on every device. Matrix product and softmax written out were no faster on two
AMD cores with torch 2.13 (5–25 % slower at 256 positions, 1.4–2 times at 512 and more; 10 % faster at 128).

`Inference` computes the same for each row alone (tests compare the two) over the same parameters, without gradients, a whole row or
one token after another. A step of generation is some forty small calls, so each that is saved counts, and products go to oneDNN
with bias, GELU and residual in the same call (`kernels.py`). Rows of unequal length are aligned at their ends: a shorter one is
padded on the left, nothing attends to the padding, and positions start at the first real token.

Shapes: n rows, T positions, t new positions, d width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workings import seeds
from workings.errors import BadInput
from workings.models.anatomy import count_parameters
from workings.models.configs import GPT2Config
from workings.models.kernels import Linear, compute_dtype, linear, maps_for, mean_nll

STD = 0.02  # standard deviation of every initial weight; GPT-2 drew them so at each of its sizes


class GPT2(nn.Module):
    """A GPT-2 of any size. Its weights are arbitrary until `init` draws them or `load_gpt2` reads them."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab, config.d_model, _weight=torch.empty(config.vocab, config.d_model))
        self.wpe = nn.Embedding(config.block, config.d_model, _weight=torch.empty(config.block, config.d_model))
        self.h = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
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
        """Hidden states [n, T, d] after the final norm.

        Args:
            ids: Long [n, T].
            documents: [n, T], which document of its row a token belongs to; without it, a row is one document.

        Raises:
            BadInput: A row is longer than the model has positions.
        """
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
        """Raise BadInput for a row of more tokens than there are positions; a GPU would only stop."""
        if length > self.config.block:
            raise BadInput(f"a row of {length} tokens is longer than the {self.config.block} positions of this model")

    def forward(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits [n, T, vocab] of the token that follows each."""
        return self.logits(self.hidden(ids, documents))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of normed hidden states [..., d]: the embedding is the head."""
        return linear(hidden, self.wte.weight)

    def loss(
        self, ids: Tensor, targets: Tensor, documents: Tensor | None = None, logit_bias: Tensor | None = None
    ) -> Tensor:
        """Mean negative log-likelihood of the targets in nats, to differentiate: a scalar, fp32.

        Args:
            ids: Long [n, T].
            targets: Long [n, T], the token that follows each; −100 where none counts.
            documents: [n, T], as for `hidden`.
            logit_bias: [vocab], added to the logits: 0, or −inf for ids that may not be predicted.
        """
        return mean_nll(self.hidden(ids, documents), self.wte.weight, targets, logit_bias)

    # ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def n_parameters(self) -> int:
        """Number of weights; the head is the embedding and counts once."""
        return count_parameters(self)

    def decayed(self) -> dict[str, nn.Parameter]:
        """The parameters that weight decay applies to: matrices, the two embeddings among them."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.dim() >= 2}

    def not_decayed(self) -> dict[str, nn.Parameter]:
        """The other parameters: biases and gains."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.dim() < 2}

    def flops_per_token(self, length: int) -> int:
        """FLOPs of training on one token of a row of `length`, forward and backward: 6N + 12·n_layers·d_model·length.

        As in PaLM's appendix B and nanoGPT, so that a utilisation computed from it compares with theirs: N leaves out the
        position table, which is only added; the embedding counts once, as the head; attention is counted whole although half
        of it is masked, and so is a masked document.
        """
        n = self.n_parameters - self.wpe.weight.numel()
        return 6 * n + 12 * self.config.n_layers * self.config.d_model * length


class TransformerBlock(nn.Module):
    """Attention and MLP, each added to the residual stream x [n, T, d] after a norm of its own."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.d_model)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), visible)
        return x + self.mlp(self.ln_2(x))


class Attention(nn.Module):
    """Causal self-attention, or what `visible` Bool [n, 1, T, T] allows."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.c_attn = Linear(config.d_model, 3 * config.d_model)
        self.c_proj = Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        n, length, width = x.shape
        q, k, v = (part.view(n, length, self.n_heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, 2))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None and length > 1)
        return self.c_proj(seen.transpose(1, 2).reshape(n, length, width))


class MLP(nn.Module):
    """Two linear maps with tanh-GELU between them, four times as wide inside."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Linear(config.d_model, 4 * config.d_model)
        self.c_proj = Linear(4 * config.d_model, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


def restarting(documents: Tensor) -> Tensor:
    """[n, T] document of each token → [n, T] its position, counted from the document's first token in the row."""
    at = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    new = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    return at - (at * new).cummax(1).values


def same_document(documents: Tensor) -> Tensor:
    """[n, T] → Bool [n, 1, T, T]: the tokens of one's own document up to oneself."""
    same = documents[:, :, None] == documents[:, None, :]
    return same.tril()[:, None]


# ── without gradients ────────────────────────────────────────────────────────────────────────────────────────────────


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

    @property
    def capacity(self) -> int:
        """Slots there are, padding included."""
        return self.layers[0].shape[3]

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
        names = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        self._blocks = [
            [(block.get_parameter(f"{name}.weight"), block.get_parameter(f"{name}.bias")) for name in names]
            for block in model.h
        ]

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
        config, place = self.model.config, self.model.wpe.weight
        shape = (2, len(ids), config.n_heads, capacity, config.d_model // config.n_heads)
        dtype, device = compute_dtype(place), place.device
        layers = [torch.empty(shape, dtype=dtype, device=device) for _ in self.model.h]
        cache = KVCache(layers, 0, padding.to(device) if bool(padding.any()) else None)
        return self.extend(ids, cache), cache

    def extend(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Final states [n, t, d] of more tokens, Long [n, t]; the cache takes them in.

        Raises:
            BadInput: A row gets longer than the model or the buffers allow.
        """
        n_new = ids.shape[1]
        if n_new == 1 and cache.n_slots < cache.capacity:
            positions = cache.next_position
            mask = None if cache.padding is None else cache.padding[..., : cache.n_slots + 1]
        else:
            positions, mask = cache.room(n_new, self.model.config.block)
        states = self._states(ids, positions, mask, cache.layers, cache.n_slots)
        cache.n_slots += n_new
        cache.next_position = cache.next_position + n_new
        return states

    def _states(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, stored: Iterable[Tensor | None], at: int
    ) -> Tensor:
        """`mask` as torch's attention takes it, none for what is causal; keys and values go into `stored` from slot `at` on."""
        model, maps = self.model, maps_for(self.model.wte.weight)
        (n, t), d, n_heads = ids.shape, model.config.d_model, model.config.n_heads
        x = F.embedding(ids, model.wte.weight) + F.embedding(positions, model.wpe.weight)
        for (ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj), layer in zip(self._blocks, stored, strict=False):
            fused = maps.linear(torch.layer_norm(x, (d,), *ln_1), *c_attn)
            parts = fused.view(n, t, 3, n_heads, d // n_heads).permute(2, 0, 3, 1, 4)
            q, k, v = parts.unbind()
            if layer is not None:
                layer[:, :, :, at : at + t] = parts[1:]
                k, v = layer[:, :, :, : at + t].unbind()
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and t > 1)
            x = maps.adding(seen.transpose(1, 2).reshape(n, t, d), *attn_proj, x)
            x = maps.adding(maps.gelu(torch.layer_norm(x, (d,), *ln_2), *c_fc), *mlp_proj, x)
        return torch.layer_norm(x, (d,), model.ln_f.weight, model.ln_f.bias)
