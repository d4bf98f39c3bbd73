"""Token ids → hidden states → logits or loss: GPT-2, written out.

Source: "Language Models are Unsupervised Multitask Learners" (2019). Pre-norm blocks, one matrix for query, key and value,
tanh-GELU, learned positions, and the embedding again as the head. The names of the parameters are those of the published weights,
except that a linear map stores [out, in].

With document masking a token sees its own document only, and **positions start at 0 in every document**: what the model computes
for a document inside a packed row is what it computes for the document alone. (Without it, a row is one stream of positions.)

Attention is torch's `scaled_dot_product_attention` on every device. Matrix product and softmax written out were no faster on two
AMD cores with torch 2.13 (5–25 % slower at 256 positions, 1.4–2 times at 512 and more; 10 % faster at 128).

Shapes: n rows, T positions, d width. Reading token by token, for scoring and generation, is in `inference.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workings import seeds
from workings.errors import BadInput
from workings.models.anatomy import count_parameters
from workings.models.configs import GPT2Config
from workings.models.kernels import Linear, linear, mean_nll

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
