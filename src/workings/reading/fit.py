"""Hidden states × targets → fitted lenses: all layers at once, selected on validation; the test split is never seen.

Any lens is fitted: the `parameters()` of a copy of it are trained to say the targets (Belrose et al. 2023 fit theirs to the model's
own last layer, which is the objective "final"). By default every asked token counts the same: the loss is the mean over the asked
tokens of all slots and layers, so a slot that asks for several weighs more than one that asks for one. Several fits on the same
states (kinds, targets, seeds) load and check the states once.
Shapes: T translated layers, b problems of a batch, P positions, R states with a target, M asked tokens of a state, d width.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from workings import seeds
from workings.errors import BadInput, Failed
from workings.reading.head import FrozenHead, resolved
from workings.reading.lens import Fitted, Lens
from workings.reading.recipe import FitConfig, Precision
from workings.reading.store import FINAL_NORM, HiddenStates
from workings.reading.targets import EMPTY, Targets

Log = Callable[..., Any]  # called once an epoch as log(epoch, fit=…, train=…, validation=…, lr=…); a run's `log` is one
_VALIDATED_AT_ONCE = 128  # problems; they need no gradients


@dataclass(frozen=True)
class Epoch:
    """One pass over the training problems; losses are means of the objective in nats over all translated layers.

    Attributes:
        epoch: 0 is before the first step.
        train, validation: NaN in `train` for epoch 0.
        top1, top5, top10: Shares of the asked tokens of validation problems among the likeliest.
        seconds: Since the fit began.
    """

    epoch: int
    train: float
    validation: float
    top1: float
    top5: float
    top10: float
    lr: float
    seconds: float


@dataclass(frozen=True)
class Fit:
    """A fitted lens and how it came about.

    Attributes:
        best_epoch: The epoch whose weights the lens has; 0 is the start: nothing better was found.
        validation: Mean of the objective, in nats, in float32.
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
    return fit_each(hidden, {"": FitTask(lens, targets, config or FitConfig())}, log)[""]


@dataclass(frozen=True)
class FitTask:
    """One fit among several: where it starts, what it is to say, and how."""

    lens: Lens
    targets: Targets
    config: FitConfig = FitConfig()


def fit_each(hidden: HiddenStates, tasks: Mapping[str, FitTask], log: Log | None = None) -> dict[str, Fit]:
    """`fit_lens` for several named tasks on the same states; each is fitted as if it were alone.

    States are read once and kept on the device, where half of its free memory holds them; otherwise a batch at a time, which
    tasks of one seed and batch size share.
    """
    if not tasks:
        return {}
    for task in tasks.values():
        _refuse_unfit(task, hidden)
    translated = sorted({layer for task in tasks.values() for layer in task.lens.translated}, key=hidden.layers.index)
    needed = torch.cat([task.targets.rows(split) for task in tasks.values() for split in ("train", "val")]).unique()
    _check_finite(hidden, translated, needed)
    device = next(iter(tasks.values())).lens.unembedding.weight.device
    states = _States(hidden, translated, device)
    heads: dict[tuple[int, Precision], FrozenHead] = {}
    fittings = {}
    for name, task in tasks.items():
        unembedding, precision = task.lens.unembedding, task.config.precision
        head = heads.setdefault((id(unembedding), precision), FrozenHead(unembedding, precision))
        fittings[name] = _Fitting(task, head, states)
    for name, fitting in fittings.items():
        _say(log, name, fitting.validated(0))
    for epoch in range(1, 1 + max(task.config.max_epochs for task in tasks.values())):
        going = {name: fitting for name, fitting in fittings.items() if not fitting.is_over}
        if not going:
            break
        batches = [fitting.batches(epoch) for fitting in going.values()]
        for each in zip_longest(*batches):
            for fitting, rows in zip(going.values(), each, strict=True):
                if rows is not None:
                    fitting.step(rows)
        for name, fitting in going.items():
            _say(log, name, fitting.validated(epoch))
    return {name: fitting.result(hidden.digest) for name, fitting in fittings.items()}


def _say(log: Log | None, name: str, epoch: Epoch) -> None:
    metrics = asdict(epoch)
    if log is not None:
        log(metrics.pop("epoch"), fit=name, **metrics)


def _refuse_unfit(task: FitTask, hidden: HiddenStates) -> None:
    lens, targets = task.lens, task.targets
    lens.refuse_others(hidden)
    targets.refuse_others(hidden)
    if not lens.n_parameters:
        raise BadInput(f"a {lens.name} has nothing to fit: it has no parameters, or no layer but {FINAL_NORM}")
    if task.config.objective == "final" and FINAL_NORM not in hidden.layers:
        raise BadInput(f"the objective 'final' needs states at {FINAL_NORM}; there are {', '.join(hidden.layers)}")
    for split in ("train", "val"):
        if not targets.mask[targets.rows(split)].any():
            raise BadInput(
                f"no target of '{targets.rule}' is in the split '{split}'; a fit needs some in train and val"
            )


class _States:
    """Hidden states of some layers, on the device where they fit into half of what is free there."""

    def __init__(self, hidden: HiddenStates, layers: Sequence[str], device: torch.device) -> None:
        self.hidden, self.device = hidden, device
        rows = torch.arange(1)
        of_one = sum(hidden.hidden(layer, rows).nbytes for layer in {*layers, FINAL_NORM} & {*hidden.layers})
        fits = of_one * len(hidden.ids) < _free_bytes(device) / 2
        self.kept = {layer: hidden.hidden(layer).to(device) for layer in layers} if fits else {}
        self.last: tuple[Tensor, dict[str, Tensor]] = torch.empty(0), {}  # rows, and their states of each layer

    def load(self, layers: Sequence[str], rows: Tensor) -> Tensor:
        """States [T, b, P, d] of some problems."""
        return torch.stack([self.of_layer(layer, rows) for layer in layers])

    def of_layer(self, layer: str, rows: Tensor) -> Tensor:
        """States [b, P, d] of one layer."""
        if layer in self.kept:
            return self.kept[layer][rows.to(self.device)]
        if not torch.equal(self.last[0], rows):
            self.last = rows, {}
        if layer not in self.last[1]:
            self.last[1][layer] = self.hidden.hidden(layer, rows).to(self.device)
        return self.last[1][layer]


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Fitting:
    """One lens on its way to one set of targets."""

    def __init__(self, task: FitTask, head: FrozenHead, states: _States) -> None:
        self.head, self.targets, self.config, self.states = head, task.targets, task.config, states
        self.lens = copy.deepcopy(task.lens)
        self.device = task.lens.unembedding.weight.device
        # The place in the lens of each position at which something is asked.
        asked = self.targets.has_target.any(0).tolist()
        names = zip(self.targets.positions, asked, strict=True)
        self.places = torch.tensor([self.lens.place_of(name) if is_asked else 0 for name, is_asked in names])
        self.trained = list(self.lens.parameters())
        self.best = [each.detach().clone() for each in self.trained]
        self.start = self.best if self.config.decay_to == "start" else None
        self.best_epoch, self.best_validation = 0, torch.inf
        decay = self.config.weight_decay if self.start is None else 0.0
        self.optimizer = torch.optim.AdamW(self.trained, lr=self.config.lr, weight_decay=decay, fused=True)
        # Stepped by the epoch; over the largest number of epochs, though patience usually ends the fit long before.
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=self.config.max_epochs)
        self.order = seeds.torch("lens order", self.config.seed)
        self.epochs: list[Epoch] = []
        self.train_sum = torch.zeros((), device=self.device)
        self.began = time.perf_counter()

    @property
    def is_over(self) -> bool:
        last = len(self.epochs) - 1
        return last >= self.config.max_epochs or last - self.best_epoch >= self.config.patience

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """The training problems of a new epoch, Long [b] each, in an order that the seed gives."""
        if epoch > 1:
            self.schedule.step()
        self.train_sum.zero_()
        train = self.targets.rows("train")
        return train[torch.randperm(len(train), generator=self.order)].split(self.config.batch_problems)

    def step(self, rows: Tensor) -> None:
        """One step on the problems `rows`."""
        loss, n = self._loss(rows, self.head)
        if n == 0:
            return
        self.optimizer.zero_grad(set_to_none=True)
        (loss / n).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip, foreach=True)
        if self.start is not None:
            decay = self.optimizer.param_groups[0]["lr"] * self.config.weight_decay
            with torch.no_grad():
                for weight, start in zip(self.trained, self.start, strict=True):
                    weight.lerp_(start, decay)
        self.optimizer.step()
        self.train_sum += loss.detach()

    @torch.no_grad()
    def loss_sum(self, head: FrozenHead | None = None) -> tuple[float, list[int]]:
        """(Σ of the objective over the validation problems, asked tokens in the top 1, 5 and 10), with the present weights."""
        total, hits = 0.0, torch.zeros(3, dtype=torch.long, device=self.device)
        for rows in self.targets.rows("val").split(_VALIDATED_AT_ONCE):
            loss, _ = self._loss(rows, head or self.head, hits)
            total += float(loss)
        return total, hits.tolist()

    def _loss(self, rows: Tensor, head: FrozenHead, hits: Tensor | None = None) -> tuple[Tensor, int]:
        """Σ of the objective over the slots of some problems in all layers, and what it is the mean over; adds to `hits`."""
        lens, config = self.lens, self.config
        asked = self.targets.has_target[rows]
        h = self.states.load(lens.translated, rows)[:, asked]  # [T, R, d]
        targets = self.targets.ids[rows][asked].to(self.device)  # [R, M]
        position = self.places.expand_as(asked)[asked].to(self.device)
        n_layers = len(lens.translated)
        # Matrix products in the head's dtype; what they are added to is float32.
        with torch.autocast(self.device.type, head.dtype, enabled=head.dtype is not torch.float32):
            x = lens.translate(h, position)
        below = n_layers - lens.final_norm  # the last one is past the norm already
        x = torch.cat([lens.normalise(x[:below], head.norm), x[below:]])
        x = lens.scale(x, position).flatten(0, 1)
        everywhere = targets.repeat(n_layers, 1)
        columns = lens.columns(x, position.repeat(n_layers))
        final = None
        if config.objective == "final":
            final = self.states.of_layer(FINAL_NORM, rows)[asked].repeat(n_layers, 1)
        n = self._n(targets) * n_layers
        weights = self._weights(position, n) if config.group_mean else None
        return head(x, everywhere, config.objective, columns, final, weights, hits), n

    def _n(self, targets: Tensor) -> int:
        """What a mean is over: asked tokens for "cross-entropy", slots for every other objective."""
        return int((targets != EMPTY).sum()) if self.config.objective == "cross-entropy" else len(targets)

    def _weights(self, position: Tensor, n: int) -> Tensor:
        """What each state counts [T · R], so that the mean over n is the mean over groups of their means."""
        groups = self.lens.groups(position).flatten()
        _, group, counts = groups.unique(return_inverse=True, return_counts=True)
        return n / (len(counts) * counts[group].float())

    def validated(self, epoch: int) -> Epoch:
        """How the present weights do on validation; they are kept, if they do best."""
        total, hits = self.loss_sum()
        validation = total / self._n_of("val")
        if epoch and not validation < torch.inf:
            raise Failed(f"the fit of '{self.targets.rule}' diverged in epoch {epoch}: lower its learning rate")
        if validation < self.best_validation:
            self.best_epoch, self.best_validation = epoch, validation
            self.best = [each.detach().clone() for each in self.trained]
        train = float(self.train_sum) / self._n_of("train") if epoch else float("nan")
        n_asked = int(self.targets.mask[self.targets.rows("val")].sum()) * len(self.lens.translated)
        lr, seconds = self.optimizer.param_groups[0]["lr"], time.perf_counter() - self.began
        self.epochs.append(Epoch(epoch, train, validation, *(n / n_asked for n in hits), lr, seconds))
        return self.epochs[-1]

    @torch.no_grad()
    def result(self, states: str) -> Fit:
        """The lens with the best weights; its validation loss is measured again in float32."""
        for present, best in zip(self.trained, self.best, strict=True):
            present.copy_(best)
        self.lens.zero_grad()
        accurate = self.head if self.head.dtype is torch.float32 else FrozenHead(self.lens.unembedding, "fp32")
        self.lens.fitted = Fitted(
            recipe=replace(self.config, precision=resolved(self.config.precision, self.device)),
            rule=self.targets.rule,
            targets=self.targets.digest,
            states=states,
            best_epoch=self.best_epoch,
            validation=self.loss_sum(accurate)[0] / self._n_of("val"),
            n_epochs=len(self.epochs) - 1,
        )
        return Fit(self.lens, self.best_epoch, self.lens.fitted.validation, self.epochs)

    def _n_of(self, split: str) -> int:
        """What the mean over a split is over, in all layers."""
        rows = self.targets.rows(split)
        return self._n(self.targets.ids[rows][self.targets.has_target[rows]]) * len(self.lens.translated)


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
