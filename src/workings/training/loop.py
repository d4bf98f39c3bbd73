"""A task and its micro-batches → trained weights: the one training loop, of pretraining and of distillation.

`fit` is the loop and `train_step` one update. A `Task` says what is trained: an objective (a module that maps a micro-batch to
its losses), the micro-batches of every step, optimizers, schedule, and what is measured on the way. A `LossMonitor` takes in the
numbers of every step, averages them for the log, and ends a training that has gone wrong.

Everything that decides a step is a function of the step, or is in the resume point, which is saved after the step's update. So a
training that was killed goes on as if it had not been: bit for bit on a CPU, and on a GPU as far as its kernels give the same
sums twice.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from workings import seeds
from workings.errors import Failed
from workings.progress import track
from workings.run import Run
from workings.stopping import stop_on_sigterm, stopped
from workings.training.parallel import ProcessGroup, resume_point, synchronising, whole
from workings.training.recipes import Precision, Recipe, Schedule
from workings.training.resuming import ResumePoint, take_back

Model = TypeVar("Model", bound=nn.Module)


class Log(Protocol):
    """Takes every measurement; `Run.log` is one."""

    def __call__(self, step: int, **metrics: Any) -> None: ...


def no_log(step: int, **metrics: Any) -> None:
    """Discard metrics: the log of every process but the first."""


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the objective at once: its arguments, and its share of the step.

    Shares of a step sum to 1 in the mean over the processes.
    """

    arguments: tuple[Any, ...]
    share: float


@dataclass(frozen=True)
class Measurement(Generic[Model]):
    """A measurement of the model on the way. It leaves no trace in the training: random state and mode are restored.

    Attributes:
        measure: Called with the model and the number of updates made, by rank 0 alone.
        every: Steps between two measurements; 0 for none on the way.
        at_start: Also before the first step.
        at_end: Also after the last step, whether or not `every` divides it.
    """

    measure: Callable[[Model, int], None]
    every: int
    at_start: bool = False
    at_end: bool = True

    def is_due(self, step: int, n_steps: int) -> bool:
        """The same answer on every process."""
        regular = self.every > 0 and step % self.every == 0 and (step > 0 or self.at_start)
        return regular or (self.at_end and step == n_steps)


# ── numbers of a step, and when they end a training ──────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class LossLimits:
    """Where the loss named `term` may be, in nats, from `from_step` on: below `ceiling`, and never `jump` above its own
    running mean. Not a number and infinity end a training at any step."""

    ceiling: float
    jump: float
    from_step: int
    term: str = "loss"


@dataclass(frozen=True)
class StepNumbers:
    """The outcome of one update: mean losses of the step, norm of the gradient before clipping, whether to stop.

    `values` [n + 2] is still on the device; `names` has n names of losses, "grad_norm" and "stop".
    """

    names: tuple[str, ...]
    values: Tensor


class LossMonitor:
    """Averages the numbers of every step for the log, and raises Failed when a training has gone wrong.

    On a GPU a step's numbers are read after the next step has been queued, so that the device never waits for this.
    """

    def __init__(self, limits: LossLimits, resume_point: Path) -> None:
        self.limits, self.resume_point = limits, resume_point
        self.stop = False
        self._n, self._sums = 0, dict[str, float]()  # since the last line of the log
        self._smooth: float | None = None  # running mean of the limited loss since warm-up (half-life 35 steps)
        self._unread: deque[tuple[int, StepNumbers, Any]] = deque()

    def saw(self, step: int, numbers: StepNumbers) -> None:
        """Take in the numbers of a step. Raises Failed if this step or the one before it went wrong."""
        event = None
        if numbers.values.device.type == "cuda":
            host = torch.empty(len(numbers.values), pin_memory=True).copy_(numbers.values, non_blocking=True)
            numbers, event = StepNumbers(numbers.names, host), torch.cuda.current_stream().record_event()
        self._unread.append((step, numbers, event))
        if event is None or len(self._unread) > 1:
            self._read()

    def settle(self) -> None:
        """Read the numbers that are still on their way; called before anything is written down."""
        while self._unread:
            self._read()

    def means(self) -> dict[str, float]:
        """Mean of each loss and of the gradient's norm over the steps since the last call."""
        self.settle()
        n, sums = max(1, self._n), self._sums
        self._n, self._sums = 0, {}
        return {name: value / n for name, value in sums.items()}

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs to log the same means. Raises Failed as `saw` does."""
        self.settle()
        return {"n": self._n, "sums": dict(self._sums), "smooth": self._smooth}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._n, self._sums, self._smooth = state["n"], dict(state["sums"]), state["smooth"]

    def _read(self) -> None:
        step, numbers, event = self._unread.popleft()
        if event is not None:
            event.synchronize()
        found = dict(zip(numbers.names, numbers.values.tolist(), strict=True))
        self.stop = found.pop("stop") > 0 or self.stop
        if not all(map(math.isfinite, found.values())):
            raise self._failed(
                step, f"the loss is {found['loss']:g} and the norm of its gradient {found['grad_norm']:g}"
            )
        self._judge(step, found[self.limits.term])
        self._n += 1
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in found.items()}

    def _judge(self, step: int, loss: float) -> None:
        limits, smooth = self.limits, self._smooth
        if step < limits.from_step:
            return
        name = "loss" if limits.term == "loss" else f"{limits.term} loss"
        if loss > limits.ceiling:
            raise self._failed(step, f"the {name} {loss:.2f} is above {limits.ceiling:.2f}, worse than guessing")
        if smooth is not None and loss > smooth + limits.jump:
            raise self._failed(step, f"the {name} jumped to {loss:.2f} from a running mean of {smooth:.2f}")
        self._smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss

    def _failed(self, step: int, problem: str) -> Failed:
        return Failed(
            f"step {step}: {problem}. {last_good(self.resume_point)}; lower the learning rate or lengthen the warm-up, and "
            "start again (if the data are at fault, they are those of this step)"
        )


def last_good(path: Path) -> str:
    """Say where the last resume point is, for a message."""
    return f"the last good resume point is {path}" if path.exists() else "no resume point had been saved yet"


@dataclass(frozen=True)
class Task(Generic[Model]):
    """Everything that `fit` needs to know of a training.

    Attributes:
        model: Trained in place, and saved.
        objective: Arguments of a micro-batch → its losses by name, each a mean over the micro-batch. "loss" is minimised.
            With several processes, what `distributed` made of it.
        micro_batches: n → those of step n, of step n + 1, and so on (steps count from 0); this process's part of them.
        optimizers: All get the learning rate of the schedule.
        recipe: Its clipping, precision, and steps between log lines and resume points.
        identity: Everything that decides the weights, see `identity_of`. A resume point with another identity is refused.
        throughput: Steps a to b in so many seconds → what is logged about the work done in them.
        if_memory_is_full: What to try then, in words.
        about: Logged once, before the first step.
        whole_model: The model as one process has it, for measurements; every process calls it.
    """

    model: Model
    objective: nn.Module
    micro_batches: Callable[[int], Iterator[Sequence[MicroBatch]]]
    optimizers: Sequence[torch.optim.Optimizer]
    recipe: Recipe
    schedule: Schedule
    limits: LossLimits
    seed: int
    identity: Mapping[str, Any]
    throughput: Callable[[int, int, float], Mapping[str, float | None]]
    if_memory_is_full: str
    measurements: Sequence[Measurement[Model]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    whole_model: Callable[[], Model] | None = None


# ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def fit(
    task: Task[Model],
    folder: Path,
    log: Log,
    group: ProcessGroup,
    *,
    run: Run | None = None,
    resume: bool = False,
    max_steps: int | None = None,
) -> None:
    """Train `task.model` in place, on every process of the group.

    Args:
        task: What is trained.
        folder: Holds the resume point, and the models that the task keeps.
        log: Receives every measurement on rank 0.
        group: The processes that take part.
        run: Lines of its record about steps after the resume point are taken back first.
        resume: Go on where the resume point stands.
        max_steps: End after so many steps, without changing the schedule.

    Raises:
        BadInput: Nothing to resume, or the resume point of another training.
        Failed: The loss left its limits, or the memory or the disk is full. The last resume point is kept.
        SystemExit: SIGTERM came: the step was finished and the resume point saved; the exit code is 143.
    """
    log, n_steps = log if group.writes else no_log, task.schedule.n_steps
    last = n_steps if max_steps is None else min(max_steps, n_steps)
    is_due: Callable[[int], bool] = lambda every: every > 0 and (step % every == 0 or step == n_steps)
    monitor = LossMonitor(task.limits, resume_point(folder))
    point = ResumePoint(resume_point(folder), task.model, task.optimizers, task.identity, group)
    step = 0
    if resume:
        step, monitored = point.restore()
        monitor.restore(monitored)
    if group.writes:
        take_back(folder, run, step if resume else -1)
    if not resume:
        if task.about:
            log(0, **task.about)
        _measure(task, monitor, 0, group)
    task.objective.train()
    shown = track("training", n_steps) if group.writes else nullcontext()  # rank 0 shows the progress of all
    with stop_on_sigterm() as stop, _explaining_full_memory(task, folder, group), shown as tracker:
        since, logged, text = time.perf_counter(), step, ""
        for micro_batches in islice(task.micro_batches(step), last - step):
            step += 1
            rate = task.schedule.learning_rate(step - 1)
            monitor.saw(step, train_step(task, micro_batches, rate, group, step, stop.is_set))
            if is_due(task.recipe.log_every):
                means = monitor.means()  # reads the last step's numbers, so the device has finished it
                work = task.throughput(logged, step, time.perf_counter() - since)
                log(step, **means, lr=rate, **work)
                text = _in_words(means, work)
                since, logged = time.perf_counter(), step
            since += _measure(task, monitor, step, group)  # the clock stands still meanwhile
            stopping = monitor.stop and step < last
            if stopping or is_due(task.recipe.save_every) or step == last:
                point.save(step, monitor.state())
            if stopping:
                raise stopped()
            if tracker is not None:
                tracker.update(step, text)


def train_step(
    task: Task[Model], micro_batches: Sequence[MicroBatch], rate: float, group: ProcessGroup, step: int, stop: bool
) -> StepNumbers:
    """Make one update; `stop` says whether this process was asked to stop, and the result whether any was."""
    if group.rank:  # dropout differs between processes; only rank 0's random state is in the resume point
        torch.manual_seed(seeds.derive(f"training/{group.rank}/{step}", task.seed))
    for optimizer in task.optimizers:
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
    means: Tensor | None = None
    losses: dict[str, Tensor] = {}
    for number, micro_batch in enumerate(micro_batches, start=1):
        with synchronising(task.objective, last=number == len(micro_batches)):
            with autocast(task.recipe.precision, group):
                losses = task.objective(*micro_batch.arguments)
                loss = losses["loss"] * micro_batch.share
            loss.backward()
        shares = torch.stack([value.detach() for value in losses.values()]) * micro_batch.share
        means = shares if means is None else means + shares
    assert means is not None, "a step has at least one micro-batch"
    norm = whole(nn.utils.clip_grad_norm_([p for p in task.model.parameters() if p.requires_grad], task.recipe.clip))
    for optimizer in task.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    shared = group.mean(torch.cat([means, means.new_tensor([float(stop)])]))
    return StepNumbers(
        (*losses, "grad_norm", "stop"), torch.cat([shared[:-1], norm.to(shared.dtype)[None], shared[-1:]])
    )


def autocast(precision: Precision, group: ProcessGroup) -> AbstractContextManager[Any]:
    """The number format of forward passes; weights, gradients and optimizers stay fp32."""
    return torch.autocast(group.kind, torch.bfloat16) if precision == "bf16" else nullcontext()


def _measure(task: Task[Model], monitor: LossMonitor, step: int, group: ProcessGroup) -> float:
    """Make the measurements that are due at `step`. Returns the seconds they took."""
    measurements = [m for m in task.measurements if m.is_due(step, task.schedule.n_steps)]
    if not measurements:
        return 0.0
    began = time.perf_counter()
    monitor.settle()
    model = task.model if task.whole_model is None else task.whole_model()
    if group.writes:
        model.eval()
        with torch.random.fork_rng(group.gpus):
            for measurement in measurements:
                measurement.measure(model, step)
        task.objective.train()
    return time.perf_counter() - began


@contextmanager
def _explaining_full_memory(task: Task[Model], folder: Path, group: ProcessGroup) -> Generator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise Failed(
            f"the memory of {group.device_name} is full: start again with {task.if_memory_is_full}. "
            f"{last_good(resume_point(folder))}"
        ) from error


def _in_words(means: Mapping[str, float], work: Mapping[str, float | None]) -> str:
    losses = [f"{name} {value:.3f}" for name, value in means.items() if name != "grad_norm"]
    speeds = [
        f"{value:,.0f} {name.removesuffix('_per_second')}/s"
        for name, value in work.items()
        if name.endswith("_per_second")
    ]
    return " ".join(losses + speeds)


# ── optimizers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def adamw_and_muon(
    decayed: Sequence[nn.Parameter],
    rest: Sequence[nn.Parameter],
    matrices: Iterable[nn.Parameter],
    recipe: Recipe,
) -> list[torch.optim.Optimizer]:
    """Make AdamW for `decayed` and `rest` (not decayed), or with the recipe's Muon for those that are also in `matrices`.

    Muon decays all of its matrices. Its update is scaled to the size of AdamW's, so that one learning rate serves both.
    """
    chosen = {id(p): p for p in matrices} if recipe.optimizer == "muon" else {}
    rate, decay = recipe.learning_rate, recipe.weight_decay
    groups = [
        {"params": [p for p in decayed if id(p) not in chosen], "weight_decay": decay},
        {"params": [p for p in rest if id(p) not in chosen], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=recipe.betas, fused=True)
    if not chosen:
        return [adamw]
    muon = torch.optim.Muon(chosen.values(), lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [adamw, muon]
