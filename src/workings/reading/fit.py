"""Hidden states × targets → a tuned lens: all layers at once, selected on validation; the test split is never seen.

Fitting several sets of targets on the same states (the real ones and their shuffles) loads and checks the states once.
Shapes: T translated layers, b problems of a batch, P positions, R = states with a target, d width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workings import seeds
from workings.config import to_dict
from workings.errors import BadInput, Failed
from workings.reading.head import FrozenHead, resolved
from workings.reading.lens import TunedLens
from workings.reading.recipe import FitConfig
from workings.reading.store import HiddenStates
from workings.reading.targets import Targets

Log = Callable[..., Any]
"""Called once an epoch as `log(epoch, fit=…, train=…, validation=…, lr=…)`; a run's `log` is one."""
_VALIDATED_AT_ONCE = 128
"""Problems; they need no gradients."""


@dataclass(frozen=True)
class Fit:
    """A fitted lens and how it came about. Losses are nats a target, means over all layers, positions and problems."""

    lens: TunedLens
    best_epoch: int  # 0 is the start: nothing better was found
    validation: float  # of the lens returned, in float32
    epochs: list[dict[str, float]]  # epoch, train, validation, lr, seconds; epoch 0 is before the first step


def fit_tuned_lens(
    lens: TunedLens, hidden: HiddenStates, targets: Targets, config: FitConfig | None = None, log: Log | None = None
) -> Fit:
    """A copy of `lens` fitted to say `targets`: on the rows of split "train", selected on "val".

    BadInput for states of another model, states that are not finite (naming problem, layer and position), targets of
    other problems, or a split without a target. The same seed gives the same lens on the same machine.
    """
    return fit_each(lens, hidden, {"": targets}, config, log)[""]


def fit_each(
    lens: TunedLens,
    hidden: HiddenStates,
    targets: Mapping[str, Targets],
    config: FitConfig | None = None,
    log: Log | None = None,
) -> dict[str, Fit]:
    """`fit_tuned_lens` for several named sets of targets with the same splits; each is fitted as if it were alone."""
    config = config or FitConfig()
    splits = _shared_splits(targets)
    _check_states(lens, hidden, targets)
    train, val = (torch.tensor([i for i, s in enumerate(splits) if s == name]) for name in ("train", "val"))
    _check_finite(hidden, lens.translated, torch.cat([train, val]).long())
    head = FrozenHead(lens.unembedding, config.precision)
    fittings = {name: _Fitting(lens, head, one, config) for name, one in targets.items()}
    load = lambda rows: torch.stack([hidden.hidden(layer, rows) for layer in lens.translated])
    _validate(fittings, load, val, epoch=0, log=log)
    order = seeds.torch("lens order", config.seed)
    for epoch in range(1, config.max_epochs + 1):
        going = {name: fitting for name, fitting in fittings.items() if not fitting.is_over}
        if not going:
            break
        for fitting in going.values():
            fitting.begin_epoch(epoch)
        for rows in train[torch.randperm(len(train), generator=order)].split(config.batch_problems):
            states = load(rows)
            for fitting in going.values():
                fitting.step(states, rows)
        _validate(going, load, val, epoch, log)
    accurate = head if head.dtype is torch.float32 else FrozenHead(lens.unembedding, "fp32")
    return {name: fitting.result(accurate, load, val, hidden.digest) for name, fitting in fittings.items()}


def _validate(
    fittings: Mapping[str, _Fitting], load: Callable[[Tensor], Tensor], val: Tensor, epoch: int, log: Log | None
) -> None:
    sums = dict.fromkeys(fittings, 0.0)
    for rows in val.split(_VALIDATED_AT_ONCE):
        states = load(rows)
        for name, fitting in fittings.items():
            sums[name] += fitting.loss_sum(states, rows)
    for name, fitting in fittings.items():
        metrics = fitting.end_epoch(epoch, sums[name])
        if log is not None:
            log(epoch, fit=name, **{key: value for key, value in metrics.items() if key != "epoch"})


class _Fitting:
    """One lens on its way to one set of targets."""

    def __init__(self, start: TunedLens, head: FrozenHead, targets: Targets, config: FitConfig) -> None:
        self.start, self.head, self.targets, self.config = start, head, targets, config
        self.weight = start.weight.detach().clone().requires_grad_()
        self.bias = start.bias.detach().clone().requires_grad_()
        self.device = self.weight.device
        self.optimizer = torch.optim.AdamW(
            [self.weight, self.bias], lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        # Stepped by the epoch; over the largest number of epochs, though patience usually ends the fit long before.
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=config.max_epochs)
        self.best = _Best(torch.inf, 0, start.weight.detach(), start.bias.detach())
        self.epochs: list[dict[str, float]] = []
        self.train_sum = torch.zeros((), device=self.device)
        self.began = time.perf_counter()

    @property
    def is_over(self) -> bool:
        return len(self.epochs) - 1 - self.best.epoch >= self.config.patience

    def begin_epoch(self, epoch: int) -> None:
        if epoch > 1:
            self.schedule.step()
        self.train_sum.zero_()

    def step(self, states: Tensor, rows: Tensor) -> None:
        """One step on states [T, b, P, d] of the problems `rows`."""
        h, asked = self._asked(states, rows)
        if len(asked) == 0:
            return
        loss = self.head(_translated(h, self.weight, self.bias, self.head.dtype), asked)
        self.optimizer.zero_grad(set_to_none=True)
        (loss / len(asked)).backward()
        torch.nn.utils.clip_grad_norm_([self.weight, self.bias], self.config.clip, foreach=True)
        self.optimizer.step()
        self.train_sum += loss.detach()

    @torch.no_grad()
    def loss_sum(self, states: Tensor, rows: Tensor) -> float:
        return float(self._sum(states, rows, self.head, self.weight, self.bias))

    def end_epoch(self, epoch: int, validation_sum: float) -> dict[str, float]:
        validation = validation_sum / self._n("val")
        if epoch and not validation < torch.inf:
            raise Failed(f"the fit of '{self.targets.rule}' diverged in epoch {epoch}: lower its learning rate")
        if validation < self.best.validation:
            self.best = _Best(validation, epoch, self.weight.detach().clone(), self.bias.detach().clone())
        train = float(self.train_sum) / self._n("train") if epoch else float("nan")
        lr, seconds = self.optimizer.param_groups[0]["lr"], time.perf_counter() - self.began
        self.epochs.append({"epoch": epoch, "train": train, "validation": validation, "lr": lr, "seconds": seconds})
        return self.epochs[-1]

    @torch.no_grad()
    def result(self, head: FrozenHead, load: Callable[[Tensor], Tensor], val: Tensor, data: str) -> Fit:
        lens = TunedLens.start(self.start.unembedding, self.start.layers, self.start.fingerprint)
        lens.weight.copy_(self.best.weight)
        lens.bias.copy_(self.best.bias)
        parts = val.split(_VALIDATED_AT_ONCE)
        total = sum(float(self._sum(load(rows), rows, head, lens.weight, lens.bias)) for rows in parts)
        validation = total / self._n("val")
        recipe = to_dict(self.config) | {"precision": resolved(self.config.precision, self.device)}
        outcome = {"best_epoch": self.best.epoch, "validation": validation, "n_epochs": len(self.epochs) - 1}
        lens.fitted = {"recipe": recipe, "rule": self.targets.rule, "targets": self.targets.digest, "states": data}
        lens.fitted |= outcome
        return Fit(lens, self.best.epoch, validation, self.epochs)

    def _sum(self, states: Tensor, rows: Tensor, head: FrozenHead, weight: Tensor, bias: Tensor) -> Tensor:
        h, asked = self._asked(states, rows)
        return head(_translated(h, weight, bias, head.dtype), asked)

    def _asked(self, states: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The states [T, R, d] that have a target, and the targets Long [T·R]."""
        mask = self.targets.mask[rows]
        asked = self.targets.ids[rows][mask].repeat(len(states))
        return states[:, mask].to(self.device), asked.to(self.device)

    def _n(self, split: str) -> int:
        return int(self.targets.mask[self.targets.rows(split)].sum()) * len(self.weight)


@dataclass(frozen=True)
class _Best:
    validation: float
    epoch: int
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)


def _translated(h: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """h + A h + b for all layers: [T, R, d] → [T·R, d] in float32, the product in `dtype`."""
    moved = torch.bmm(h.to(dtype), weight.to(dtype).transpose(1, 2))
    return (h.float() + moved.float() + bias[:, None]).flatten(0, 1)


def _shared_splits(targets: Mapping[str, Targets]) -> Sequence[str]:
    first = next(iter(targets.values()))
    for one in targets.values():
        if one.splits != first.splits:
            raise BadInput(f"'{one.rule}' and '{first.rule}' have different splits; fit them apart")
        for split in ("train", "val"):
            if not one.mask[one.rows(split)].any():
                raise BadInput(
                    f"no target of '{one.rule}' is in the split '{split}'; a fit needs some in train and val"
                )
    return first.splits


def _check_states(lens: TunedLens, hidden: HiddenStates, targets: Mapping[str, Targets]) -> None:
    if lens.fingerprint != hidden.fingerprint:
        raise BadInput(
            f"the lens is for the model {lens.fingerprint}, and the hidden states are of {hidden.fingerprint}: "
            "a lens is fitted on the thoughts of its own model"
        )
    for one in targets.values():
        if list(one.problems) != list(hidden.ids):
            raise BadInput(
                f"the targets '{one.rule}' are of other problems than the hidden states, or in another order"
            )


def _check_finite(hidden: HiddenStates, layers: Sequence[str], rows: Tensor) -> None:
    for layer in layers:
        for some in rows.split(1024):
            bad = (~hidden.hidden(layer, some).isfinite()).any(-1).nonzero()
            if len(bad):
                row, place = bad[0].tolist()
                raise BadInput(
                    f"a hidden state is not finite: problem {hidden.ids[int(some[row])]}, {layer}, "
                    f"{hidden.positions[place]}; leave the problem out, or collect it again"
                )
