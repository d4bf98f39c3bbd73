"""The numbers of every step → means for the log, and an early end when a training has gone wrong.

On a GPU a step's numbers are read after the next step has been queued, so that watching never makes the device wait.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from workings.errors import Failed


@dataclass(frozen=True)
class Band:
    """Where a loss may be, in nats: below `ceiling` once warm-up is over, and never `jump` above its own running mean."""

    ceiling: float
    jump: float
    from_step: int


@dataclass
class _Sums:
    """Since the last line of the log; `smooth` is the running mean of all losses since warm-up (half-life 35 steps)."""

    n: int = 0
    loss: float = 0.0
    norm: float = 0.0
    smooth: float | None = None


class Watch:
    """Takes (loss, gradient norm, whether any process was asked to stop) of every step, as a tensor [3].

    `last_good` says where to find the last good resume point.
    """

    def __init__(self, band: Band, last_good: Callable[[], str]) -> None:
        self.band, self.last_good = band, last_good
        self.sums = _Sums()
        self.stop = False
        self._unread: deque[tuple[int, Tensor, Any]] = deque()

    def saw(self, step: int, numbers: Tensor) -> None:
        """Raises Failed if this step or the one before it went wrong."""
        if numbers.device.type != "cuda":
            self._judge(step, *numbers.tolist())
            return
        host = torch.empty(3, pin_memory=True).copy_(numbers, non_blocking=True)
        self._unread.append((step, host, torch.cuda.current_stream().record_event()))
        if len(self._unread) > 1:
            self._read()

    def settle(self) -> None:
        """Read what has not been read; before anything is written down."""
        while self._unread:
            self._read()

    def means(self) -> dict[str, float]:
        """Mean loss (nats a token) and gradient norm since the last call."""
        self.settle()
        sums = self.sums
        self.sums = _Sums(smooth=sums.smooth)
        return {"loss": sums.loss / max(1, sums.n), "grad_norm": sums.norm / max(1, sums.n)}

    def state(self) -> dict[str, Any]:
        """What a resumed training needs to log the same means."""
        return asdict(self.sums)

    def restore(self, state: dict[str, Any]) -> None:
        self.sums = _Sums(**state)

    def _read(self) -> None:
        step, host, event = self._unread.popleft()
        event.synchronize()
        self._judge(step, *host.tolist())

    def _judge(self, step: int, loss: float, norm: float, stop: float) -> None:
        self.stop = self.stop or stop > 0
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self._failed(step, f"the loss is {loss:g} and the norm of its gradient {norm:g}")
        sums = self.sums
        if step >= self.band.from_step:
            if loss > self.band.ceiling:
                raise self._failed(step, f"the loss {loss:.2f} is above {self.band.ceiling:.2f}, worse than guessing")
            if sums.smooth is not None and loss > sums.smooth + self.band.jump:
                raise self._failed(step, f"the loss jumped to {loss:.2f} from a running mean of {sums.smooth:.2f}")
            sums.smooth = loss if sums.smooth is None else 0.98 * sums.smooth + 0.02 * loss
        sums.n, sums.loss, sums.norm = sums.n + 1, sums.loss + loss, sums.norm + norm

    def _failed(self, step: int, what: str) -> Failed:
        return Failed(
            f"step {step}: {what}. {self.last_good()}; lower the learning rate or lengthen the warm-up, and start again "
            "(if the data are at fault, their rows are those of this step)"
        )
