"""x @ Wᵀ + b, forward and backward, by the library that is fast on this machine.

On a CPU torch gives fp32 products to MKL, which on an AMD processor runs at half the speed of oneDNN (measured on two Zen 5 cores
with torch 2.13: 200 against 400 GFLOP/s forward, 190 against 300–350 for the gradient of the weights; on one core the same ratio).
torch has oneDNN's product as an operation that its own compiler uses; anywhere else, `F.linear` it is.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# oneDNN's product, alone or with what follows it; a build may lack it.
POINTWISE: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


class Linear(nn.Linear):
    """`nn.Linear` on `linear`: the same parameters, arbitrary until they are filled. torch's own generator is not asked."""

    def reset_parameters(self) -> None:
        """Draws nothing."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in], weight [out, in], bias [out] → [..., out], differentiable."""
    if not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight, bias)  # type: ignore[return-value]
    return product(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` without a gradient, of matrices in any layout."""
    return onednn(x, weight, bias) if _by_onednn(x, weight) else F.linear(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` without a gradient, fp32, on a CPU where `onednn_is_there`; the weight may be `inference.packed`."""
    return POINTWISE.default(x, weight, bias, "none", [], "")


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which chooses for itself, and fuses what follows
        and x.numel() > 0
        and onednn_is_there()
    )


def onednn_is_there() -> bool:
    """Not in every build of torch: those for Apple's processors lack it."""
    mkldnn = torch.backends.mkldnn
    return mkldnn.is_available() and bool(mkldnn.enabled) and POINTWISE is not None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (d_out,) = gradients
        wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad
        flat, rows = d_out.reshape(-1, d_out.shape[-1]), x.reshape(-1, x.shape[-1])
        return (
            product(d_out, weight.T) if wanted_x else None,
            _of_weight(flat, rows) if wanted_weight else None,
            flat.sum(0) if wanted_bias else None,
        )


def _of_weight(d_out: Tensor, rows: Tensor) -> Tensor:
    """d_outᵀ @ rows, [out, in]; oneDNN is the faster the longer the rows of its result are."""
    if d_out.shape[1] > rows.shape[1]:
        return product(rows.T, d_out.T).T.contiguous()
    return product(d_out.T, rows.T)
