"""The frozen head of a model, for a fit: an objective and its gradient without ever holding all logits.

Shapes: R states, M asked tokens of a state, d width, V vocabulary, e columns that a lens adds to the head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workings.errors import BadInput
from workings.models.anatomy import Unembedding
from workings.reading.lens import Columns
from workings.reading.recipe import Objective, Precision
from workings.reading.targets import EMPTY

# Scores held at once: on a CPU as many as the last-level cache holds, on a GPU as many as keep it busy.
_CHUNK = {"cpu": 1 << 23, "cuda": 1 << 28}
_FEWEST_ROWS = 256  # with fewer rows a chunk the head itself is read from memory too often
TOP = (1, 5, 10)


class FrozenHead(nn.Module):
    """An objective under a model's head, and its gradient, without ever holding all logits.

    Why not torch's `F.linear_cross_entropy`: its chunked path reaches 66 to 88 GFLOP/s in bfloat16 on one AVX512-BF16 core,
    where this reaches 370 to 420 of 470 possible (d = 256, V = 8,192 and d = 2,048, V = 32,000). The head is frozen, so the
    gradient of the states (and of a lens's own columns) is all there is to compute, while the scores are still in the cache.

    Attributes:
        norm: The model's final norm, in float32.
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

    def forward(
        self,
        state: Tensor,
        targets: Tensor,
        objective: Objective = "cross-entropy",
        columns: Columns | None = None,
        final: Tensor | None = None,
        weights: Tensor | None = None,
        hits: Tensor | None = None,
    ) -> Tensor:
        """Σ of the objective over states, in nats, float32.

        Args:
            state: [R, d], past the final norm.
            targets: Long [R, M]; `EMPTY` where a state is asked for fewer.
            objective: See `OBJECTIVES`.
            columns: What the lens adds to the head.
            final: For the objective "final", the states [R, d] at `final_norm` whose distribution is to be matched.
            weights: What each state counts, Float [R]; 1, by default.
            hits: Long [3], to which the asked tokens among the 1, 5 and 10 likeliest are added; ties count against a token.
        """
        cast = lambda tensor: None if tensor is None else tensor.to(self.dtype)
        features, extra = (None, None) if columns is None else columns
        return _Loss.apply(
            cast(state),
            cast(features),
            cast(extra),
            self.weight,
            targets,
            self.rows,
            objective,
            cast(final),
            weights,
            hits,
        )


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


# ---- objectives ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """An objective of some states, and its gradient by their scores: `factor` · what the scores became − Σ `share` at targets.

    Attributes:
        loss: Nats [r].
        factor: [r, 1].
        share: [r, M]; 0 where nothing is asked.
    """

    loss: Tensor
    factor: Tensor | None
    share: Tensor


def _log_normaliser(scores: Tensor) -> Tensor:
    """log Σ exp [r, 1] in float32; the scores become their softmax.

    It is best − log p(best): p(best) is never too small for bfloat16, as p of another token may be.
    """
    best = scores.amax(1, keepdim=True).float()
    p = torch.softmax(scores, 1, out=scores)
    return best - p.amax(1, keepdim=True).float().log()


def _of_targets(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the asked tokens in float32 (a copy), and which are asked, both [r, M]."""
    return scores.gather(1, targets.clamp(min=0)).float(), targets != EMPTY


def _n_hits(scores: Tensor, targets: Tensor) -> Tensor:
    """How many asked tokens are among the likeliest, Long [3]."""
    right, asked = _of_targets(scores, targets)
    rank = torch.stack([(scores >= own[:, None]).sum(1) - 1 for own in right.to(scores.dtype).T], 1)
    return torch.stack([((rank < k) & asked).sum() for k in TOP])


def _cross_entropy(scores: Tensor, targets: Tensor, final: Tensor | None) -> _Parts:
    """Σ over the asked tokens of −log p: each counts once."""
    right, asked = _of_targets(scores, targets)
    loss = (_log_normaliser(scores) - right).masked_fill_(~asked, 0).sum(1)
    n_asked = asked.sum(1, keepdim=True)
    return _Parts(loss, n_asked if (n_asked != 1).any() else None, asked)


def _uniform(scores: Tensor, targets: Tensor, final: Tensor | None) -> _Parts:
    """KL from the uniform distribution over the asked tokens: each state counts once."""
    right, asked = _of_targets(scores, targets)
    n_asked = asked.sum(1, keepdim=True).clamp(min=1)
    share = asked / n_asked
    loss = ((_log_normaliser(scores) - right) * share).sum(1) - n_asked[:, 0].log()
    return _Parts(loss, asked.any(1, keepdim=True), share)


def _bag(scores: Tensor, targets: Tensor, final: Tensor | None) -> _Parts:
    """−log of the probability that is given to the asked tokens together."""
    right, asked = _of_targets(scores, targets)
    any_asked = asked.any(1, keepdim=True)
    right = right.masked_fill(~asked, -torch.inf)
    together = right.logsumexp(1, keepdim=True)
    loss = (_log_normaliser(scores) - together).masked_fill_(~any_asked, 0)[:, 0]
    return _Parts(loss, any_asked, (right - together).exp().masked_fill(~asked, 0))


def _multi_label(scores: Tensor, targets: Tensor, final: Tensor | None) -> _Parts:
    """Σ over the vocabulary of the binary cross-entropies of "is asked" under the logistic function of each score."""
    right, asked = _of_targets(scores, targets)
    any_asked = asked.any(1, keepdim=True)
    loss = F.softplus(scores).sum(1, dtype=torch.float32) - (right * asked).sum(1)
    torch.sigmoid(scores, out=scores)
    return _Parts(loss.masked_fill(~any_asked[:, 0], 0), any_asked, asked)


def _final(scores: Tensor, targets: Tensor, final: Tensor | None) -> _Parts:
    """KL from the distribution that the model itself has at its last layer (Belrose et al. 2023)."""
    assert final is not None
    any_asked = (targets != EMPTY).any(1, keepdim=True)
    log_q = final.float().log_softmax(1)
    q, own = log_q.exp(), scores.float()
    loss = ((q * (log_q - own)).sum(1) + own.logsumexp(1)).masked_fill_(~any_asked[:, 0], 0)
    torch.softmax(scores, 1, out=scores)
    scores -= q
    return _Parts(loss, any_asked, torch.zeros_like(targets, dtype=torch.float32))


OBJECTIVES: dict[Objective, Callable[[Tensor, Tensor, Tensor | None], _Parts]] = {
    "cross-entropy": _cross_entropy,
    "uniform": _uniform,
    "bag": _bag,
    "multi-label": _multi_label,
    "final": _final,
}
"""Each takes scores [r, V], which become the dense part of their gradient, targets [r, M], and the final layer's scores."""


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        features: Tensor | None,
        extra: Tensor | None,
        weight: Tensor,
        targets: Tensor,
        rows: int,
        objective: Objective,
        final: Tensor | None,
        weights: Tensor | None,
        hits: Tensor | None,
    ) -> Tensor:
        wants_gradient = any(ctx.needs_input_grad[:3])
        of_x = torch.empty_like(x) if wants_gradient else None
        of_features = torch.empty_like(features) if wants_gradient and features is not None else None
        of_extra = torch.zeros(extra.shape, device=x.device) if wants_gradient and extra is not None else None
        scores = x.new_empty(min(rows, len(x)), len(weight))
        total = torch.zeros((), device=x.device)
        for start in range(0, len(x), rows):
            here = slice(start, start + rows)
            some, target = x[here], targets[here]
            s = torch.mm(some, weight.T, out=scores[: len(some)])
            if features is not None and extra is not None:
                s.addmm_(features[here], extra.T)
            if hits is not None:
                hits += _n_hits(s, target)
            parts = OBJECTIVES[objective](s, target, None if final is None else final[here] @ weight.T)
            total += (parts.loss if weights is None else parts.loss * weights[here]).sum()
            if of_x is None:
                continue
            factor, share = parts.factor, parts.share
            if weights is not None:
                counted = weights[here, None]
                factor, share = counted if factor is None else factor * counted, share * counted
            torch.mm(s, weight, out=of_x[here])
            if features is not None and extra is not None and of_features is not None and of_extra is not None:
                torch.mm(s, extra, out=of_features[here])
                of_extra += (s.T @ (features[here] if factor is None else features[here] * factor)).float()
            for gradient, rows_of in ((of_x, weight), (of_features, extra)):
                if gradient is None or rows_of is None:
                    continue
                if factor is not None:
                    gradient[here] *= factor
                for asked, part in zip(target.T, share.T, strict=True):  # not rows_of[target], which would hold M a row
                    gradient[here].sub_(rows_of[asked.clamp(min=0)].mul_(part[:, None]))
            if of_extra is not None and features is not None:
                for asked, part in zip(target.T, share.T, strict=True):
                    of_extra.index_add_(0, asked.clamp(min=0), (features[here] * part[:, None]).float(), alpha=-1)
        if wants_gradient:
            ctx.save_for_backward(of_x, of_features, of_extra)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if one is None else (one.float() * grad_outputs[0]).to(one.dtype) for one in ctx.saved_tensors]
        return (*scaled, *[None] * 7)
