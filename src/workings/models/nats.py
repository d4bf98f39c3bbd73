"""Hidden states × the head's rows × the tokens that came → nats, a few hundred rows at a time.

With 50,304 tokens the logits are by far the largest tensor of a small GPT-2, and writing them out costs a CPU more than
multiplying them: a chunk that is used up while it is in the cache halves the time of the head, forward and backward
(benchmarks/pretrain.py). torch's own chunks (`F.linear_cross_entropy` of 2.13) save the memory and cost more time than none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # a target of this value counts for nothing: torch's own convention
ROWS = 256  # of logits at a time; 128 to 512 were as fast on two cores, for 8,192 tokens and for 50,304


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
    out = torch.empty(len(wanted), device=flat.device)
    for here, _, logits in _chunks(flat, head, bias):
        out[here], _ = _nats_and_p(logits, wanted[here])
    return out.view_as(targets)


class _MeanNats(torch.autograd.Function):
    """The gradients are made in the forward pass, while a chunk's probabilities are at hand; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        d_hidden, d_head = torch.empty_like(hidden), torch.zeros_like(head, dtype=torch.float32)
        narrow = head.to(compute_dtype(hidden))
        for here, rows, logits in _chunks(hidden, head, bias):
            lost, p = _nats_and_p(logits, targets[here])
            total += lost.sum()
            d_logits = _minus_target(p, targets[here]).to(rows.dtype)
            d_hidden[here] = d_logits @ narrow
            _add_product(d_head, d_logits.T, rows)
        count = (targets != IGNORED).sum()
        ctx.save_for_backward(d_hidden, d_head, count)
        ctx.head_dtype = head.dtype
        return total / count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head, count = ctx.saved_tensors
        scale = gradients[0] / count
        return (d_hidden * scale).to(d_hidden.dtype), (d_head * scale).to(ctx.head_dtype), None, None


def _chunks(hidden: Tensor, head: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(which rows, the rows as they are multiplied, their logits in fp32, which the next chunk overwrites)."""
    compute = compute_dtype(hidden)
    head, bias = head.to(compute), None if bias is None else bias.to(compute)
    # One buffer for all: a fresh tensor of this size is given back to the system, and fetched page by page, every time.
    buffer = torch.empty(min(ROWS, len(hidden)), len(head), device=hidden.device, dtype=compute)
    wide = buffer if compute == torch.float32 else torch.empty_like(buffer, dtype=torch.float32)
    for start in range(0, len(hidden), ROWS):
        here = slice(start, min(start + ROWS, len(hidden)))
        rows, n = hidden[here].to(compute), here.stop - start
        if bias is None:
            torch.mm(rows, head.T, out=buffer[:n])
        else:
            torch.addmm(bias, rows, head.T, out=buffer[:n])
        yield here, rows, buffer[:n] if wide is buffer else wide[:n].copy_(buffer[:n])


def _nats_and_p(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The nats of each row, and the probabilities, which take the place of the logits."""
    said = logits.gather(1, targets.clamp(min=0)[:, None])
    top = logits.amax(1)
    p = torch.softmax(logits, 1, out=logits)
    # log Σ exp = top − log p(top): no exponential is taken twice, and nothing underflows however small p(target) is
    lost = top - p.amax(1).log() - said[:, 0]
    return lost.masked_fill(targets == IGNORED, 0.0), p


def _minus_target(p: Tensor, targets: Tensor) -> Tensor:
    """p − 1 at the target: the gradient of a row's nats by its logits, zero where the target does not count."""
    counts = (targets != IGNORED)[:, None]
    p.scatter_add_(1, targets.clamp(min=0)[:, None], -counts.to(p.dtype))
    return p if bool(counts.all()) else p.mul_(counts)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b; the sum over chunks is kept in fp32 whatever the factors are."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What a matrix product would be computed in here; autocast itself does not reach into buffers and functions of our own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype
