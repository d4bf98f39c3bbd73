"""Step → learning rate, and step → rows of the corpus: pure functions, so that a resumed run knows them without a memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from workings.errors import BadInput


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then half a cosine down to `floor`; steps count from 0."""

    peak: float
    floor: float
    warmup_steps: int
    n_steps: int

    def learning_rate(self, step: int) -> float:
        """The rate of the update that turns the weights of `step` into those of `step + 1`."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.n_steps - self.warmup_steps))
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Rows:
    """Which rows each step reads. A row is a window of `length` tokens; `n_processes` read side by side, equally many each.

    `total` rows a process over the whole run are spread evenly: a step takes `total / n_steps` of them, rounded so that no
    remainder is lost. `pass_rows` go through the model at once.
    """

    n_steps: int
    total: int
    pass_rows: int
    length: int
    n_processes: int

    def before(self, step: int) -> int:
        """Rows that one process has read when `step` begins."""
        return step * self.total // self.n_steps

    def tokens_before(self, step: int) -> int:
        """Tokens that all processes have read when `step` begins."""
        return self.before(step) * self.n_processes * self.length

    @property
    def n_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.tokens_before(self.n_steps)

    @property
    def even(self) -> bool:
        """Whether every step is the same number of full passes."""
        return self.total % (self.n_steps * self.pass_rows) == 0

    def passes(self, step: int) -> list[int]:
        """Rows of each pass of one process in `step`; only the last may be short."""
        left = self.before(step + 1) - self.before(step)
        return [min(self.pass_rows, left - at) for at in range(0, left, self.pass_rows)]


def rows_of_tokens(tokens_per_step: int, n_steps: int, length: int, pass_rows: int, n_processes: int) -> Rows:
    """Every step reads exactly `tokens_per_step` in full passes; BadInput names the nearest numbers that divide."""
    at_once = length * pass_rows * n_processes
    if tokens_per_step < 1 or tokens_per_step % at_once:
        below = tokens_per_step // at_once * at_once
        fits = " or ".join(f"{n:,}" for n in (below, below + at_once) if n)
        raise BadInput(
            f"tokens_per_step = {tokens_per_step:,} is no multiple of {at_once:,} = {pass_rows} rows a pass × {length} tokens × "
            f"{n_processes} {'processes' if n_processes > 1 else 'process'}; the nearest that fit: {fits}"
            + _smaller_pass(tokens_per_step, length, pass_rows, n_processes)
        )
    return Rows(n_steps, n_steps * tokens_per_step // (length * n_processes), pass_rows, length, n_processes)


def rows_of_bytes(
    raw_bytes: int, bytes_per_token: float, n_steps: int, length: int, pass_rows: int, n_processes: int
) -> Rows:
    """`raw_bytes` of text over `n_steps` steps, exact to half a row a process, whatever a tokenizer makes of it.

    This is how arms that cut the same text into different tokens read equally much of it in equally many steps.
    """
    total = round(raw_bytes / (bytes_per_token * length * n_processes))
    if total < n_steps:
        raise BadInput(
            f"raw_bytes = {raw_bytes:,} is about {total:,} rows of {length} tokens a process, too few for {n_steps:,} steps; "
            "take more bytes or fewer steps"
        )
    return Rows(n_steps, total, pass_rows, length, n_processes)


def _smaller_pass(tokens_per_step: int, length: int, pass_rows: int, n_processes: int) -> str:
    """A hint where fewer rows a pass would do."""
    rows, remainder = divmod(tokens_per_step, length * n_processes)
    if remainder or not rows:
        return ""
    return f"; or pass_rows = {max(n for n in range(1, min(pass_rows, rows) + 1) if rows % n == 0)}"
