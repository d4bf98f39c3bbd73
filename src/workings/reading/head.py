"""The frozen head of a model, for a fit: cross-entropy and its gradient without ever holding all logits.

Shapes: R states, M asked tokens of a state, d width, V vocabulary.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workings.errors import BadInput
from workings.models.anatomy import Unembedding
from workings.reading.recipe import Precision
from workings.reading.targets import EMPTY

# Scores held at once: on a CPU as many as the last-level cache holds, on a GPU as many as keep it busy.
_CHUNK = {"cpu": 1 << 23, "cuda": 1 << 28}
_FEWEST_ROWS = 256  # with fewer rows a chunk the head itself is read from memory too often


class FrozenHead(nn.Module):
    """Cross-entropy under a model's final norm (float32) and head, and its gradient, without ever holding all logits.

    Why not torch's `F.linear_cross_entropy`: its chunked path reaches 66 to 88 GFLOP/s in bfloat16 on one AVX512-BF16 core,
    where this reaches 370 to 420 of 470 possible (d = 256, V = 8,192 and d = 2,048, V = 32,000). The head is frozen, so the
    gradient of the states is all there is to compute, and it can be computed while the scores are still in the cache.
    """

    def __init__(self, unembedding: Unembedding, precision: Precision) -> None:
        super().__init__()
        if unembedding.cap is not None:
            raise BadInput(
                f"a lens cannot be fitted to logits that are soft-capped (final_logit_softcapping = {unembedding.cap:g}): "
                "take the logit lens, or a model without it"
            )
        self.dtype = torch.bfloat16 if resolved(precision, unembedding.weight.device) == "bf16" else torch.float32
        self.norm = copy.deepcopy(unembedding.norm).float().requires_grad_(False)
        self.register_buffer("weight", unembedding.weight.detach().to(self.dtype))
        self.weight: Tensor
        vocabulary = len(self.weight)
        self.rows = max(_FEWEST_ROWS, _CHUNK.get(self.weight.device.type, 1 << 26) // vocabulary)

    def forward(self, state: Tensor, targets: Tensor, normed: bool = False) -> Tensor:
        """Σ −log p(target) in nats, float32, over all asked tokens.

        Args:
            state: [R, d]; past the final norm already if `normed`.
            targets: Long [R, M]; `EMPTY` where a state is asked for fewer.
        """
        state = state if normed else self.norm(state)
        return _CrossEntropy.apply(state.to(self.dtype), self.weight, targets, self.rows)


def resolved(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The format that "auto" stands for on a device: bfloat16 where it multiplies in hardware."""
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "bf16" if device.type == "cuda" else "fp32"
    try:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    except AttributeError:  # these are private to torch: without them, the safe answer
        native = False
    return "bf16" if native else "fp32"


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(x) if wants_gradient else None
        scores = x.new_empty(min(rows, len(x)), len(weight))
        total = torch.zeros((), device=x.device)
        for start in range(0, len(x), rows):
            some, target = x[start : start + rows], targets[start : start + rows]
            s = torch.mm(some, weight.T, out=scores[: len(some)])
            best, right = s.amax(1, keepdim=True).float(), s.gather(1, target.clamp(min=0)).float()
            p = torch.softmax(s, 1, out=s)
            # log Σ exp s = best − log p(best): p(best) is never too small for bfloat16, p(target) may be.
            nats = best - p.amax(1, keepdim=True).float().log() - right
            total += nats.masked_fill_(target == EMPTY, 0).sum()
            if gradient is not None:
                torch.mm(p, weight, out=gradient[start : start + rows])
        if gradient is not None:
            n_asked = (targets != EMPTY).sum(1, keepdim=True)
            if (n_asked != 1).any():
                gradient *= n_asked
            for target in targets.T:  # not weight[targets], which would hold M states a row
                asked = (target != EMPTY)[:, None]
                gradient.sub_(weight[target.clamp(min=0)].mul_(asked))
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient.float() * grad_outputs[0]).to(gradient.dtype), None, None, None
