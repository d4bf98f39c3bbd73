"""Lines of metrics → TensorBoard, W&B or Trackio too, for those who like to look there. metrics.jsonl stays the record."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from workings.errors import BadInput

Tracker = Literal["tensorboard", "wandb", "trackio"]
Send = Callable[[int, Mapping[str, float]], None]


def check_installed(trackers: Sequence[Tracker]) -> None:
    """BadInput if the package of one is missing."""
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise BadInput(f"{tracker} is not installed: pip install 'workings[track]', or leave it out of track")


@contextmanager
def opened(
    log: Callable[..., None], trackers: Sequence[Tracker], project: str, folder: Path, config: Any
) -> Generator[Callable[..., None]]:
    """Extend `log(step, **metrics)`, so that each tracker also gets the numbers among the metrics; close them at the end.

    `config` is a mapping for their tables. A run is named as its folder, so a resumed one goes on under the same name.
    BadInput if a package is missing.
    """
    check_installed(trackers)
    runs = [_OPEN[tracker](project, folder.name, folder, config) for tracker in dict.fromkeys(trackers)]

    def log_and_send(step: int, **metrics: Any) -> None:
        log(step, **metrics)
        numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, Real)}
        for send, _ in runs:
            send(step, numbers)

    try:
        yield log_and_send
    finally:
        for _, close in runs:
            close()


def _tensorboard(project: str, name: str, folder: Path, config: Any) -> tuple[Send, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def send(step: int, numbers: Mapping[str, float]) -> None:
        # Hidden, because a run's manifest lists every other file. Steps that a killed run sent from here on are purged.
        if not writers:
            writers.append(SummaryWriter(str(folder / ".tensorboard"), purge_step=step))
        for key, value in numbers.items():
            writers[0].add_scalar(key, value, step)

    def close() -> None:
        for writer in writers:
            writer.close()

    return send, close


def _wandb(project: str, name: str, folder: Path, config: Any) -> tuple[Send, Callable[[], None]]:
    wandb = importlib.import_module("wandb")
    hidden = folder / ".wandb"
    hidden.mkdir(exist_ok=True)
    run = wandb.init(project=project, name=name, id=name, resume="allow", dir=str(hidden), config=config)
    return lambda step, numbers: run.log(dict(numbers), step=step), run.finish


def _trackio(project: str, name: str, folder: Path, config: Any) -> tuple[Send, Callable[[], None]]:
    trackio = importlib.import_module("trackio")
    trackio.init(project=project, name=name, resume="allow", config=config)
    return lambda step, numbers: trackio.log(dict(numbers), step=step), trackio.finish


_OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
