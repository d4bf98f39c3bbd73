"""Parameters → the optimizers that move them: AdamW, and Muon for matrices if asked. The same for every kind of training here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def optimizers(
    decayed: Sequence[nn.Parameter],
    rest: Sequence[nn.Parameter],
    matrices: Iterable[nn.Parameter] = (),
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> list[torch.optim.Optimizer]:
    """AdamW on `decayed` and `rest` (not decayed); Muon on those of them that are also in `matrices`, which it decays too.

    Muon's update is scaled to the size of AdamW's, so that one learning rate serves both.
    """
    chosen = {id(p): p for p in matrices}
    groups = [
        {"params": [p for p in decayed if id(p) not in chosen], "weight_decay": weight_decay},
        {"params": [p for p in rest if id(p) not in chosen], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)
    if not chosen:
        return [adamw]
    muon = torch.optim.Muon(
        chosen.values(), lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [adamw, muon]


def set_learning_rate(chosen: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """The same rate for every group of every optimizer."""
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["lr"] = rate
