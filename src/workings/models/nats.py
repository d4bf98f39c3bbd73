"""Hidden states × the head's rows × the tokens that came → nats, some rows at a time.

With 50,304 tokens the logits are by far the largest tensor of a small GPT-2. Written out, they cost a CPU as much as multiplying
them; in pieces that are used up while they are near, forward and backward take half the time or less (LOG, pretraining speed).
torch's own chunks (`F.linear_cross_entropy` of 2.13) save the memory and cost more time than none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workings.models.linear import product

IGNORED = -100  # a target of this value counts for nothing: torch's own convention
# Whose probabilities are held at once: the gradient of the head is summed over as many.
ROWS, ROWS_ON_GPU = 512, 4096
# Logits made at once, in bytes. On a CPU a larger tensor is taken by glibc from the system, page by page, and given back, each
# time; a GPU would read the head as often as there are pieces.
PIECE, PIECE_ON_GPU = 1 << 25, 1 << 29


def mean_nats(hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """The mean of `nats` over the targets that count, to differentiate: a scalar, fp32. NaN if no target counts."""
    flat, wanted = hidden.flatten(0, -2), targets.flatten()
    if torch.compiler.is_compiling():  # the compiler fuses the softmax itself, and would stop at a loop over chunks
        logits = F.linear(flat, head, None if bias is None else bias.to(head.dtype)).float()
        return F.cross_entropy(logits, wanted, ignore_index=IGNORED)
    if torch.is_grad_enabled() and (flat.requires_grad or head.requires_grad):
        return _MeanNats.apply(flat, head, wanted, bias)  # type: ignore[return-value]
    return nats(flat, head, wanted, bias).sum() / (wanted != IGNORED).sum()


@torch.no_grad()
def nats(hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
    """−log softmax(hidden @ headᵀ + bias) at each target: fp32, of the targets' shape, 0 where a target is IGNORED.

    `hidden` [..., d], `head` [vocab, d], `targets` [...] int64, `bias` [vocab] (−inf for an id that may not be predicted).
    """
    flat, wanted = hidden.flatten(0, -2), targets.flatten()
    head, bias = _narrowed(flat, head, bias)
    out = torch.empty(len(wanted), device=flat.device)
    for here in _spans(0, len(flat), rows_of_a_piece(len(head), flat.device)):
        logits = product(flat[here].to(head.dtype), head, bias).float()
        out[here] = _nats_and_p(logits, wanted[here], logits)
    return out.view_as(targets)


class _MeanNats(torch.autograd.Function):
    """The gradients are made in the forward pass, while the probabilities are at hand; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        narrow, bias = _narrowed(hidden, head, bias)
        n_rows = min(ROWS if hidden.device.type == "cpu" else ROWS_ON_GPU, len(hidden))
        counts = (targets != IGNORED)[:, None]
        total = torch.zeros((), device=hidden.device)
        p = torch.empty(n_rows, len(head), device=hidden.device)
        minus_one = -torch.ones(1, 1, device=hidden.device)
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros_like(head.T, dtype=torch.float32)
        for group in _spans(0, len(hidden), n_rows):
            for here in _spans(group.start, group.stop, rows_of_a_piece(len(head), hidden.device)):
                logits = product(hidden[here].to(narrow.dtype), narrow, bias).float()
                at = p[here.start - group.start : here.stop - group.start]
                total += _nats_and_p(logits, targets[here], at).sum()
                at.scatter_add_(1, _at(targets[here]), minus_one.expand(at.shape[0], 1))
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


def _narrowed(hidden: Tensor, head: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Head and bias in the format that is computed in, converted once for all pieces."""
    kind = compute_dtype(hidden)
    return head.to(kind), None if bias is None else bias.to(kind)


def rows_of_a_piece(vocab: int, device: torch.device) -> int:
    """As many rows of logits as are best made at once, a power of two."""
    size = PIECE if device.type == "cpu" else PIECE_ON_GPU
    return 1 << max(0, (size // (4 * vocab)).bit_length() - 1)


def _spans(start: int, stop: int, step: int) -> Iterator[slice]:
    return (slice(at, min(at + step, stop)) for at in range(start, stop, step))


def _nats_and_p(logits: Tensor, targets: Tensor, p: Tensor) -> Tensor:
    """The nats of each row; the probabilities are written to `p`, which may be the logits' own place."""
    said = logits.gather(1, _at(targets))[:, 0]
    _, log_z = top_and_logsumexp(logits, p)
    return (log_z - said).masked_fill(targets == IGNORED, 0.0)


def top_and_logsumexp(logits: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit and log Σ exp of each row; the probabilities are written to `p`, which may be the logits' own place."""
    top = logits.amax(1)
    torch.softmax(logits, 1, out=p)
    # log Σ exp = top − log p(top): no exponential is taken twice, and nothing underflows however small another p is
    return top, top - p.amax(1).log()


def _at(targets: Tensor) -> Tensor:
    """[N] → [N, 1]: a column to gather from; any column where the target does not count."""
    return targets.clamp(min=0)[:, None]


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What a matrix product would be computed in here; autocast itself does not reach into buffers and functions of our own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
