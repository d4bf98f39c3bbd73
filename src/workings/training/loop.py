"""A task and its micro-batches → trained weights: the one training loop, of pretraining and of distillation.

`fit` is the loop and `train_step` one update. A `Task` says what is trained: an objective (a module that maps a micro-batch to
its losses), the micro-batches of every step, optimizers, schedule, and what is measured on the way.

Everything that decides a step is a function of the step, or is in the resume point, which is saved after the step's update. So a
training that was killed goes on as if it had not been: bit for bit on a CPU, and on a GPU as far as its kernels give the same
sums twice.
"""

from __future__ import annotations

import signal
import time
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
from workings.progress import Tracker, track
from workings.run import Run
from workings.training.monitor import LossLimits, LossMonitor, StepNumbers, last_good, stop_on_sigterm
from workings.training.parallel import ProcessGroup, resume_point, synchronising, whole
from workings.training.recipes import Precision, Schedule
from workings.training.resuming import ResumePoint, take_back

Model = TypeVar("Model", bound=nn.Module)


class Log(Protocol):
    """Takes every measurement; `Run.log` is one."""

    def __call__(self, step: int, **metrics: Any) -> None: ...


def no_log(step: int, **metrics: Any) -> None:
    """Discard metrics: the log of every process but the first."""


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the objective at once: its arguments, and its share of the step. Shares of a step sum to 1."""

    arguments: tuple[Any, ...]
    share: float


@dataclass(frozen=True)
class Measurement(Generic[Model]):
    """What the model is asked for on the way. It leaves no trace in the training: random state and mode are restored.

    Attributes:
        take: Called with the model and the number of updates made, by rank 0 alone.
        every: Steps between two measurements; 0 for none on the way.
        at_start: Also before the first step.
        at_end: Also after the last step, whether or not `every` divides it.
    """

    take: Callable[[Model, int], None]
    every: int
    at_start: bool = False
    at_end: bool = True

    def is_due(self, step: int, n_steps: int) -> bool:
        """The same answer on every process."""
        regular = self.every > 0 and step % self.every == 0 and (step > 0 or self.at_start)
        return regular or (self.at_end and step == n_steps)


@dataclass(frozen=True)
class Task(Generic[Model]):
    """What is trained, on what.

    Attributes:
        model: What is trained in place and saved.
        objective: Arguments of a micro-batch → its losses by name, each a mean over the micro-batch. "loss" is minimised.
            With several processes, what `distributed` made of it.
        micro_batches: n → those of step n, of step n + 1, and so on (steps count from 0); this process's part of them.
        optimizers: All get the learning rate of the schedule.
        clip: Largest norm of the gradient.
        identity: What decides the weights. A resume point with another identity is refused.
        throughput: Steps a to b in so many seconds → what is logged about the work done in them.
        if_memory_is_full: What to try then, in words.
        about: Logged once, before the first step.
        whole_model: The model as one process has it, for measurements; every process calls it.
    """

    model: Model
    objective: nn.Module
    micro_batches: Callable[[int], Iterator[Sequence[MicroBatch]]]
    optimizers: Sequence[torch.optim.Optimizer]
    schedule: Schedule
    clip: float
    precision: Precision
    limits: LossLimits
    log_every: int
    save_every: int
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
    step = point.restore(monitor) if resume else 0
    if group.writes:
        take_back(folder, run, step if resume else -1)
    if not resume:
        if task.about:
            log(0, **task.about)
        _measure(task, monitor, 0, group)
    task.objective.train()
    with stop_on_sigterm() as stop, _explaining_full_memory(task, folder, group), _shown(group, n_steps) as tracker:
        since, logged, text = time.perf_counter(), step, ""
        for micro_batches in islice(task.micro_batches(step), last - step):
            step += 1
            rate = task.schedule.learning_rate(step - 1)
            monitor.saw(step, train_step(task, micro_batches, rate, group, step, stop.is_set))
            if is_due(task.log_every):
                means = monitor.means()  # reads the last step's numbers, so the device has finished it
                work = task.throughput(logged, step, time.perf_counter() - since)
                log(step, **means, lr=rate, **work)
                text = _in_words(means, work)
                since, logged = time.perf_counter(), step
            since += _measure(task, monitor, step, group)  # the clock stands still meanwhile
            stopping = monitor.stop and step < last
            if stopping or is_due(task.save_every) or step == last:
                point.save(step, monitor)
            if stopping:
                raise SystemExit(128 + signal.SIGTERM)
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
    for number, one in enumerate(micro_batches, start=1):
        with synchronising(task.objective, last=number == len(micro_batches)):
            with autocast(task.precision, group):
                losses = task.objective(*one.arguments)
                loss = losses["loss"] * one.share
            loss.backward()
        shares = torch.stack([value.detach() for value in losses.values()]) * one.share
        means = shares if means is None else means + shares
    assert means is not None, "a step has at least one micro-batch"
    norm = whole(nn.utils.clip_grad_norm_([p for p in task.model.parameters() if p.requires_grad], task.clip))
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
    """Take the measurements that are due at `step`; the seconds that took."""
    due = [one for one in task.measurements if one.is_due(step, task.schedule.n_steps)]
    if not due:
        return 0.0
    began = time.perf_counter()
    monitor.settle()
    model = task.model if task.whole_model is None else task.whole_model()
    if group.writes:
        model.eval()
        with torch.random.fork_rng(group.gpus):
            for one in due:
                one.take(model, step)
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


def _shown(group: ProcessGroup, n_steps: int) -> AbstractContextManager[Tracker | None]:
    """Rank 0 shows the progress of all."""
    return track("training", n_steps) if group.writes else nullcontext()


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
