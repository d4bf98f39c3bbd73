"""The recipe of a lens fit, apart from the fit itself: an experiment's `Config` holds one and must not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workings.config import check_ranges, fixed, nuisance

Precision = Literal["auto", "fp32", "bf16"]
Objective = Literal["cross-entropy", "uniform", "bag", "multi-label", "final"]


@dataclass(frozen=True)
class FitConfig:
    """How a tuned lens is fitted: AdamW with a cosine schedule over the epochs, stopped early on validation.

    Attributes:
        patience: Epochs without a better validation loss after which fitting stops.
        batch_problems: Problems per optimizer step; each brings all its positions at all layers.
        objective: What is minimised, in nats: `cross-entropy`, Σ −log p over the asked tokens of a slot; `uniform`, KL from the
            uniform distribution over them; `bag`, −log of their probability together; `multi-label`, binary cross-entropies over
            the vocabulary; `final`, KL from what the model itself says at its last layer (Belrose et al. 2023), wherever a
            target is asked.
        decay_to: Where weight decay pulls: `zero`, and so to the logit lens; or `start`, the weights that the fit began with,
            which of a lens started from a shared one are the shared solution.
        group_mean: Count every layer the same, and of a kind with a translator for each position every position of it, however
            many slots it has. The notes did; slots that are rare then count for more than others.
        precision: Format of the matrix products; weights, norms and sums are float32. "auto" is bfloat16 where the device
            multiplies it in hardware.
    """

    lr: float = nuisance(1e-3, "learning rate of AdamW at the start of the cosine schedule", above=0)
    weight_decay: float = nuisance(
        1e-3, "weight decay, which pulls the translators to zero and so to the logit lens", at_least=0
    )
    clip: float = nuisance(1.0, "largest norm of the gradient of all layers together", above=0)
    max_epochs: int = nuisance(50, "maximum number of passes over the training problems", at_least=1)
    patience: int = nuisance(
        5, "number of epochs without a better validation loss after which fitting stops", at_least=1
    )
    batch_problems: int = nuisance(
        32, "number of problems per optimizer step; each brings all its positions at all layers", at_least=1
    )
    objective: Objective = fixed("cross-entropy", "what is minimised, in nats")
    decay_to: Literal["zero", "start"] = fixed("zero", "where weight decay pulls the weights")
    group_mean: bool = fixed(False, "count every layer (and position, where it has a translator of its own) the same")
    precision: Precision = fixed(
        "auto", "floating-point format of the matrix products; weights, norms and sums are float32"
    )
    seed: int = fixed(0, "random seed for the order of the problems")

    __post_init__ = check_ranges
