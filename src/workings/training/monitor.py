"""The numbers of every step → means for the log, and an early end when a training has gone wrong or is asked to stop."""

from __future__ import annotations

import math
import signal
import threading
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.errors import Failed


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
    """What one update gave: the mean losses of the step, the norm of the gradient before clipping, whether to stop.

    `values` [n + 2] is still on the device; `names` has n names of losses, "grad_norm" and "stop".
    """

    names: tuple[str, ...]
    values: Tensor


class LossMonitor:
    """The numbers of every step → means for the log, and an early end when a training has gone wrong.

    On a GPU a step's numbers are read after the next step has been queued, so that the device never waits for this.
    """

    def __init__(self, limits: LossLimits, resume_point: Path) -> None:
        self.limits, self.resume_point = limits, resume_point
        self.stop = False
        self._n, self._sums = 0, dict[str, float]()  # since the last line of the log
        self._smooth: float | None = None  # running mean of the limited loss since warm-up (half-life 35 steps)
        self._unread: deque[tuple[int, StepNumbers, Any]] = deque()

    def saw(self, step: int, numbers: StepNumbers) -> None:
        """Raises Failed if this step or the one before it went wrong."""
        event = None
        if numbers.values.device.type == "cuda":
            host = torch.empty(len(numbers.values), pin_memory=True).copy_(numbers.values, non_blocking=True)
            numbers, event = StepNumbers(numbers.names, host), torch.cuda.current_stream().record_event()
        self._unread.append((step, numbers, event))
        if event is None or len(self._unread) > 1:
            self._read()

    def settle(self) -> None:
        """Read what has not been read; before anything is written down."""
        while self._unread:
            self._read()

    def means(self) -> dict[str, float]:
        """Mean of each loss and of the gradient's norm over the steps since the last call."""
        self.settle()
        n, sums = max(1, self._n), self._sums
        self._n, self._sums = 0, {}
        return {name: value / n for name, value in sums.items()}

    def state(self) -> dict[str, Any]:
        """What a resumed training needs to log the same means."""
        return {"n": self._n, "sums": dict(self._sums), "smooth": self._smooth}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what was saved."""
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

    def _failed(self, step: int, what: str) -> Failed:
        return Failed(
            f"step {step}: {what}. {last_good(self.resume_point)}; lower the learning rate or lengthen the warm-up, and "
            "start again (if the data are at fault, they are those of this step)"
        )


def last_good(path: Path) -> str:
    return f"the last good resume point is {path}" if path.exists() else "no resume point had been saved yet"


@dataclass
class StopFlag:
    """Set when SIGTERM arrives."""

    is_set: bool = False


@contextmanager
def stop_on_sigterm() -> Generator[StopFlag]:
    """Inside, SIGTERM only sets the flag. Outside the main thread, where signals never arrive, it stays unset."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def set_flag(number: int, frame: object) -> None:
        flag.is_set = True

    before = signal.signal(signal.SIGTERM, set_flag)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)
