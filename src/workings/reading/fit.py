"""Hidden states × targets → a fitted lens: all layers at once, selected on validation; the test split is never seen.

Any lens is fitted: the `parameters()` of a copy of it are trained, by cross-entropy, to say the targets (Belrose et al. 2023 fit
theirs to the model's own last layer). Every asked token counts the same: the loss is the mean over the asked tokens of all slots
and layers, so a slot that asks for several weighs more than one that asks for one. Fitting several sets of targets on the same
states (the real ones and their shuffles) loads and checks the states once.
Shapes: T translated layers, b problems of a batch, P positions, R states with a target, M asked tokens of a state, d width.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from workings import seeds
from workings.errors import BadInput, Failed
from workings.reading.head import FrozenHead, resolved
from workings.reading.lens import Fitted, Lens
from workings.reading.recipe import FitConfig
from workings.reading.store import FINAL_NORM, HiddenStates
from workings.reading.targets import EMPTY, Targets

Log = Callable[..., Any]  # called once an epoch as log(epoch, fit=…, train=…, validation=…, lr=…); a run's `log` is one
_VALIDATED_AT_ONCE = 128  # problems; they need no gradients


@dataclass(frozen=True)
class Epoch:
    """One pass over the training problems; losses are nats per asked token, means over all translated layers."""

    epoch: int  # 0 is before the first step
    train: float  # NaN for epoch 0
    validation: float
    lr: float
    seconds: float  # since the fit began


@dataclass(frozen=True)
class Fit:
    """A fitted lens and how it came about.

    Attributes:
        best_epoch: The epoch whose weights the lens has; 0 is the start: nothing better was found.
        validation: Loss of the lens, in nats per asked token, in float32.
    """

    lens: Lens
    best_epoch: int
    validation: float
    epochs: list[Epoch]


def fit_lens(
    lens: Lens, hidden: HiddenStates, targets: Targets, config: FitConfig | None = None, log: Log | None = None
) -> Fit:
    """Fit a copy of `lens` to say `targets`: on the rows of split "train", selected on "val".

    The same seed gives the same lens on the same machine.

    Args:
        lens: Starting point of the fit, of any kind that has parameters; it is not changed.
        hidden: States of the lens's model.
        targets: Probe targets of the same problems, in the same order.
        config: Recipe of the fit; the default recipe if omitted.
        log: Called once an epoch.

    Raises:
        BadInput: For a lens without parameters, states of another model or not finite (naming problem, layer and position),
            targets of other problems, or a split without a target.
        Failed: Where the fit diverges.

    >>> from workings.reading import FitConfig, StatesInMemory, TunedLens, fit_lens, probe_targets
    >>> from workings.models import open_model
    >>> from workings.text.datasets import load_problems
    >>> import tempfile
    >>> from workings.reading import collect, split_problems
    >>> model, problems = open_model("bundled"), load_problems("generated", limit=60).problems
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = collect(model, problems, folder.name, max_new_tokens=0, splits=split_problems(problems))
    >>> fit = fit_lens(TunedLens.of(model), store, probe_targets("step1", model, store), FitConfig(max_epochs=2))
    >>> fit.epochs[2].train < fit.epochs[1].train, fit.lens.n_parameters
    (True, 33024)
    """
    return fit_each(lens, hidden, {"": targets}, config, log)[""]


def fit_each(
    lens: Lens,
    hidden: HiddenStates,
    targets: Mapping[str, Targets],
    config: FitConfig | None = None,
    log: Log | None = None,
) -> dict[str, Fit]:
    """`fit_lens` for several named sets of targets with the same splits; each is fitted as if it were alone."""
    config = config or FitConfig()
    lens.refuse_others(hidden)
    if not lens.n_parameters:
        raise BadInput(f"a {lens.name} has nothing to fit: it has no parameters, or no layer but {FINAL_NORM}")
    first = next(iter(targets.values()))
    for one in targets.values():
        one.refuse_others(hidden)
        if one.splits != first.splits:
            raise BadInput(f"'{one.rule}' and '{first.rule}' have different splits; fit them apart")
        for split in ("train", "val"):
            if not one.mask[one.rows(split)].any():
                raise BadInput(
                    f"no target of '{one.rule}' is in the split '{split}'; a fit needs some in train and val"
                )
    train, val = first.rows("train"), first.rows("val")
    _check_finite(hidden, lens.translated, torch.cat([train, val]))
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
        metrics = asdict(fitting.end_epoch(epoch, sums[name]))
        if log is not None:
            log(metrics.pop("epoch"), fit=name, **metrics)


class _Fitting:
    """One lens on its way to one set of targets."""

    def __init__(self, start: Lens, head: FrozenHead, targets: Targets, config: FitConfig) -> None:
        self.head, self.targets, self.config = head, targets, config
        self.lens = copy.deepcopy(start)
        self.device = start.unembedding.weight.device
        # The place in the lens of each position at which something is asked.
        asked = targets.has_target.any(0).tolist()
        names = zip(targets.positions, asked, strict=True)
        self.places = torch.tensor([start.place_of(name) if is_asked else 0 for name, is_asked in names])
        self.trained = list(self.lens.parameters())
        self.best = [each.detach().clone() for each in self.trained]
        self.best_epoch, self.best_validation = 0, torch.inf
        self.optimizer = torch.optim.AdamW(self.trained, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        # Stepped by the epoch; over the largest number of epochs, though patience usually ends the fit long before.
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=config.max_epochs)
        self.epochs: list[Epoch] = []
        self.train_sum = torch.zeros((), device=self.device)
        self.began = time.perf_counter()

    @property
    def is_over(self) -> bool:
        return len(self.epochs) - 1 - self.best_epoch >= self.config.patience

    def begin_epoch(self, epoch: int) -> None:
        if epoch > 1:
            self.schedule.step()
        self.train_sum.zero_()

    def step(self, states: Tensor, rows: Tensor) -> None:
        """One step on states [T, b, P, d] of the problems `rows`."""
        loss, n = self._loss(states, rows, self.head)
        if n == 0:
            return
        self.optimizer.zero_grad(set_to_none=True)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip, foreach=True)
        self.optimizer.step()
        self.train_sum += loss.detach()

    @torch.no_grad()
    def loss_sum(self, states: Tensor, rows: Tensor, head: FrozenHead | None = None) -> float:
        """Σ nats over the targets of the problems `rows`, with the present weights."""
        return float(self._loss(states, rows, head or self.head)[0])

    def _loss(self, states: Tensor, rows: Tensor, head: FrozenHead) -> tuple[Tensor, int]:
        """Σ nats over the asked tokens of states [T, b, P, d], and their number, in all layers."""
        asked = self.targets.has_target[rows]
        h = states[:, asked].to(self.device)  # [T, R, d]
        targets = self.targets.ids[rows][asked].to(self.device)  # [R, M]
        position = self.places.expand_as(asked)[asked].to(self.device)
        # Matrix products in the head's dtype; what they are added to is float32.
        with torch.autocast(self.device.type, head.dtype, enabled=head.dtype is not torch.float32):
            translated = self.lens.translate(h, position)
        n_below = len(self.lens.translated) - self.lens.final_norm  # the last one is past the norm already
        loss = head(translated[:n_below].flatten(0, 1), targets.repeat(n_below, 1))
        if self.lens.final_norm:
            loss = loss + head(translated[-1], targets, normed=True)
        return loss, int((targets != EMPTY).sum()) * len(self.lens.translated)

    def end_epoch(self, epoch: int, validation_sum: float) -> Epoch:
        validation = validation_sum / self._n_targets("val")
        if epoch and not validation < torch.inf:
            raise Failed(f"the fit of '{self.targets.rule}' diverged in epoch {epoch}: lower its learning rate")
        if validation < self.best_validation:
            self.best_epoch, self.best_validation = epoch, validation
            self.best = [each.detach().clone() for each in self.trained]
        train = float(self.train_sum) / self._n_targets("train") if epoch else float("nan")
        lr, seconds = self.optimizer.param_groups[0]["lr"], time.perf_counter() - self.began
        self.epochs.append(Epoch(epoch, train, validation, lr, seconds))
        return self.epochs[-1]

    @torch.no_grad()
    def take_best(self) -> None:
        for present, best in zip(self.trained, self.best, strict=True):
            present.copy_(best)

    def result(self, head: FrozenHead, load: Callable[[Tensor], Tensor], val: Tensor, states: str) -> Fit:
        """The lens with the best weights; its validation loss is measured again with `head` (float32)."""
        self.take_best()
        self.lens.zero_grad()
        total = sum(self.loss_sum(load(rows), rows, head) for rows in val.split(_VALIDATED_AT_ONCE))
        self.lens.fitted = Fitted(
            recipe=replace(self.config, precision=resolved(self.config.precision, self.device)),
            rule=self.targets.rule,
            targets=self.targets.digest,
            states=states,
            best_epoch=self.best_epoch,
            validation=total / self._n_targets("val"),
            n_epochs=len(self.epochs) - 1,
        )
        return Fit(self.lens, self.best_epoch, self.lens.fitted.validation, self.epochs)

    def _n_targets(self, split: str) -> int:
        """Asked tokens of a split, in all layers."""
        return int(self.targets.mask[self.targets.rows(split)].sum()) * len(self.lens.translated)


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
