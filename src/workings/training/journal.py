"""What a training tells a run besides its metrics: samples, what it spent, how far it is; and how it takes lines back.

A run that was killed has lines about steps after its resume point. They are taken back before it goes on, so that its
record is that of a run which was never killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workings.files import plain, write_atomic
from workings.run import Run

SAMPLES = "samples.jsonl"


def _nothing(*_: Any, **__: Any) -> None:
    """What is told to nobody."""


@dataclass(frozen=True)
class Journal:
    """By default nothing is told to anybody."""

    sample: Callable[..., None] = _nothing  # sample(step, prompt=…, text=…)
    spend: Callable[..., None] = _nothing  # spend(tokens=…, flops=…, bytes=…), since the last call
    rewind: Callable[[int], None] = _nothing  # take back what was told about later steps than this
    progress: Callable[[int, int, str], None] = _nothing  # step, of how many, a few words

    @classmethod
    def of(cls, run: Run, progress: Callable[[int, int, str], None] = _nothing) -> Journal:
        """Into a run's directory."""
        samples = run.path / SAMPLES
        return cls(
            sample=lambda step, **said: _append(samples, {"step": step} | said),
            spend=run.spend,
            rewind=lambda step: rewind(run.path, step),
            progress=progress,
        )


def rewind(folder: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl and samples.jsonl about steps after `step`; none is left for a step below 0."""
    for name in ("metrics.jsonl", SAMPLES):
        path = folder / name
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_atomic(path, "".join(kept))


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain(line), ensure_ascii=False) + "\n")
