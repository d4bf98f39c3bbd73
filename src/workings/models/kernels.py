"""The two computations that a small GPT-2 spends its time in: linear maps, and cross-entropy over a large vocabulary.

On a CPU torch gives fp32 products to MKL, which on an AMD processor runs at half the speed of oneDNN (measured on two Zen 5 cores
with torch 2.13: 200 against 400 GFLOP/s forward, 190 against 300–350 for the gradient of the weights; on one core the same ratio).
torch has oneDNN's product as an operation that its own compiler uses, alone or with a GELU or a sum behind it; anywhere else,
`F.linear` it is.

With 50,304 tokens the logits are by far the largest tensor of a small GPT-2. Written out, they cost a CPU as much as multiplying
them; in pieces that are used up while they are near, forward and backward take half the time or less (LOG, pretraining speed).
torch's own chunks (`F.linear_cross_entropy` of 2.13) save the memory and cost more time than none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN's product, alone or with what follows it; a build may lack it.
_POINTWISE: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_LARGE = 1 << 20  # multiplications: below, oneDNN takes longer to begin than it saves

IGNORED = -100  # a target of this value counts for nothing: torch's own convention
# Rows whose probabilities are held at once: the gradient of the head is summed over as many.
ROWS, ROWS_ON_GPU = 512, 4096
# Logits made at once, in bytes. On a CPU a larger tensor is taken by glibc from the system, page by page, and given back, each
# time; a GPU would read the head as often as there are pieces.
PIECE, PIECE_ON_GPU = 1 << 25, 1 << 29


# ── linear maps ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Linear(nn.Linear):
    """`nn.Linear` on `linear`: the same parameters, arbitrary until they are filled. torch's own generator is not asked."""

    def reset_parameters(self) -> None:
        """Draw nothing."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weightᵀ + bias, differentiable: x [..., in], weight [out, in], bias [out] → [..., out]."""
    if not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight, bias)  # type: ignore[return-value]
    return product(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` without a gradient, of matrices in any layout."""
    return onednn(x, weight, bias) if _by_onednn(x, weight) else F.linear(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` without a gradient, fp32, on a CPU where there is oneDNN; the weight may be `packed`."""
    return _POINTWISE.default(x, weight, bias, "none", [], "")


def packed(weight: Tensor, n_rows: int) -> Tensor:
    """A matrix in the order in which oneDNN reads it for about `n_rows` rows: half the time for few rows and a large matrix."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, n_rows)


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # which chooses for itself, and fuses what follows
        and x.numel() > 0
        and x.dtype == weight.dtype
        and maps_for(weight) is ONEDNN
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (d_out,) = gradients
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        flat, rows = d_out.reshape(-1, d_out.shape[-1]), x.reshape(-1, x.shape[-1])
        d_weight = None
        if needs_weight:  # [out, in]; oneDNN is the faster the longer the rows of its result are
            wide = weight.shape[0] > weight.shape[1]
            d_weight = product(rows.T, flat.T).T.contiguous() if wide else product(flat.T, rows.T)
        return product(d_out, weight.T) if needs_x else None, d_weight, flat.sum(0) if needs_bias else None


class Maps(NamedTuple):
    """Linear maps without a gradient, with what follows them: (x, weight, bias), and for `adding` the residual stream."""

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    gelu: Callable[[Tensor, Tensor, Tensor], Tensor]
    adding: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def is_large(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is worth the time it takes to begin."""
    return x.numel() * weight.shape[0] >= _LARGE


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return onednn(x, weight, bias) if is_large(x, weight) else F.linear(x, weight, bias)


def _onednn_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    large = is_large(x, weight)
    return _POINTWISE.default(x, weight, bias, "gelu", [], "tanh") if large else TORCH.gelu(x, weight, bias)


def _onednn_adding(x: Tensor, weight: Tensor, bias: Tensor, stream: Tensor) -> Tensor:
    large = is_large(x, weight)
    return _POINTWISE.binary(x, stream, weight, bias, "add") if large else TORCH.adding(x, weight, bias, stream)


TORCH = Maps(
    F.linear,
    lambda x, weight, bias: F.gelu(F.linear(x, weight, bias), approximate="tanh"),
    lambda x, weight, bias, stream: stream + F.linear(x, weight, bias),
)
ONEDNN = Maps(_onednn_linear, _onednn_gelu, _onednn_adding)


def maps_for(weight: Tensor) -> Maps:
    """oneDNN's for fp32 on a CPU, else torch's."""
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    mkldnn = torch.backends.mkldnn  # builds for Apple's processors lack it
    return ONEDNN if plain and mkldnn.is_available() and mkldnn.enabled and _POINTWISE is not None else TORCH


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What a product is computed in here; autocast itself does not reach into buffers and functions of our own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


# ── cross-entropy ────────────────────────────────────────────────────────────────────────────────────────────────────


def mean_nll(hidden: Tensor, head: Tensor, targets: Tensor, logit_bias: Tensor | None = None) -> Tensor:
    """The mean of `token_nll` over the targets that count, to differentiate: a scalar, fp32. NaN if no target counts."""
    flat, wanted = hidden.flatten(0, -2), targets.flatten()
    if torch.compiler.is_compiling():  # the compiler fuses the softmax itself, and would stop at a loop over chunks
        logits = F.linear(flat, head, None if logit_bias is None else logit_bias.to(head.dtype)).float()
        return F.cross_entropy(logits, wanted, ignore_index=IGNORED)
    if torch.is_grad_enabled() and (flat.requires_grad or head.requires_grad):
        return _MeanNLL.apply(flat, head, wanted, logit_bias)  # type: ignore[return-value]
    return token_nll(flat, head, wanted, logit_bias).sum() / (wanted != IGNORED).sum()


@torch.no_grad()
def token_nll(hidden: Tensor, head: Tensor, targets: Tensor, logit_bias: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of each target, in nats: −log softmax(hidden @ headᵀ + logit_bias).

    Args:
        hidden: [..., d], after the final norm.
        head: [V, d].
        targets: Long [...]; `IGNORED` for a position that does not count.
        logit_bias: [V], −inf for an id that may not be predicted.

    Returns:
        fp32, of the targets' shape, 0 where a target is `IGNORED`.
    """
    flat, wanted = hidden.flatten(0, -2), targets.flatten()
    head, logit_bias = _narrowed(flat, head, logit_bias)
    out = torch.empty(len(wanted), device=flat.device)
    for span in _spans(0, len(flat), n_rows_at_once(len(head), flat.device)):
        logits = product(flat[span].to(head.dtype), head, logit_bias).float()
        out[span] = _nll_and_p(logits, wanted[span], logits)
    return out.view_as(targets)


class _MeanNLL(torch.autograd.Function):
    """The gradients are made in the forward pass, while the probabilities are at hand; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, logit_bias: Tensor | None) -> Tensor:
        narrow, logit_bias = _narrowed(hidden, head, logit_bias)
        n_rows = min(ROWS if hidden.device.type == "cpu" else ROWS_ON_GPU, len(hidden))
        counts = (targets != IGNORED)[:, None]
        total = torch.zeros((), device=hidden.device)
        p = torch.empty(n_rows, len(head), device=hidden.device)
        minus_one = -torch.ones(1, 1, device=hidden.device)
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros_like(head.T, dtype=torch.float32)
        for group in _spans(0, len(hidden), n_rows):
            for span in _spans(group.start, group.stop, n_rows_at_once(len(head), hidden.device)):
                logits = product(hidden[span].to(narrow.dtype), narrow, logit_bias).float()
                at = p[span.start - group.start : span.stop - group.start]
                total += _nll_and_p(logits, targets[span], at).sum()
                at.scatter_add_(1, _column(targets[span]), minus_one.expand(at.shape[0], 1))
            # A row that does not count is taken out of the small factors; asking whether there is one would halt a GPU.
            d_logits, rows = p[: group.stop - group.start].to(narrow.dtype), counts[group].to(narrow.dtype)
            d_hidden[group] = product(d_logits, narrow.T) * rows
            d_head += product((hidden[group].to(narrow.dtype) * rows).T, d_logits.T)
        count = counts.sum()
        ctx.save_for_backward(d_hidden, d_head, count)
        ctx.head_dtype = head.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head, count = ctx.saved_tensors
        scale = gradients[0] / count
        return (d_hidden * scale).to(d_hidden.dtype), (d_head * scale).T.to(ctx.head_dtype).contiguous(), None, None


def _narrowed(hidden: Tensor, head: Tensor, logit_bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Head and bias in the format that is computed in, converted once for all pieces."""
    kind = compute_dtype(hidden)
    return head.to(kind), None if logit_bias is None else logit_bias.to(kind)


def n_rows_at_once(vocab: int, device: torch.device) -> int:
    """As many rows of logits as are best made at once, a power of two."""
    size = PIECE if device.type == "cpu" else PIECE_ON_GPU
    return 1 << max(0, (size // (4 * vocab)).bit_length() - 1)


def _spans(start: int, stop: int, step: int) -> Iterator[slice]:
    return (slice(at, min(at + step, stop)) for at in range(start, stop, step))


def _nll_and_p(logits: Tensor, targets: Tensor, p: Tensor) -> Tensor:
    """The negative log-likelihood of each row; the probabilities are written to `p`, which may be the logits' own memory."""
    picked = logits.gather(1, _column(targets))[:, 0]
    _, log_z = top_and_logsumexp(logits, p)
    return (log_z - picked).masked_fill(targets == IGNORED, 0.0)


def top_and_logsumexp(logits: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit and log Σ exp of each row; the probabilities are written to `p`, which may be the logits' own memory."""
    top = logits.amax(1)
    torch.softmax(logits, 1, out=p)
    # log Σ exp = top − log p(top): no exponential is taken twice, and nothing underflows however small another p is
    return top, top - p.amax(1).log()


def _column(targets: Tensor) -> Tensor:
    """[n] → [n, 1]: a column to gather from; any column where the target does not count."""
    return targets.clamp(min=0)[:, None]
