"""A training run's kept checkpoints → every step judged on the same items → one curve a measure, with intervals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from workings.errors import BadInput
from workings.evals.evaluation import estimates, evaluate, load, stem_of
from workings.evals.settings import Settings, checked_tasks
from workings.models.language import LanguageModel
from workings.report import Axis, Curves, Series
from workings.run import Run, RunRecord

_STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A model that a training kept."""

    step: int
    folder: Path


def checkpoints_in(reference: str | Path) -> list[Checkpoint]:
    """Those of a run directory (or of a folder of `step_000200`, `step_000400` …), by step. BadInput where there are none."""
    folder = Path(reference).expanduser()
    if (folder / "checkpoint").is_dir():
        folder = folder / "checkpoint"
    found = [Checkpoint(int(name[1]), path) for path, name in _named(folder) if (path / "config.json").is_file()]
    if not found:
        raise BadInput(
            f"{reference} holds no kept checkpoints (checkpoint/step_000200 and so on): name the run directory of a training "
            "that kept some (--set training.keep_every=…)"
        )
    return sorted(found, key=lambda one: one.step)


def evaluate_all(
    checkpoints: Iterable[Checkpoint],
    tasks: Sequence[str],
    run: Run,
    settings: Settings,
    open_model: Callable[[Path], LanguageModel],
) -> None:
    """Judge each checkpoint into the run; those that it has already are not opened again."""
    items = load(tasks, settings)
    ordered = list(checkpoints)
    for one in ordered:
        if all((run.path / "results" / f"{stem_of(name, one.step)}.json").is_file() for name in checked_tasks(tasks)):
            continue
        # The corpus is the same for all of them: what it gave away is looked up once, for the last.
        reference = one.folder if one is ordered[-1] else ""
        evaluate(open_model(one.folder), tasks, run, settings, step=one.step, items=items, reference=reference)


def results_by_step(record: RunRecord) -> pl.DataFrame:
    """One row a step, task and measure: step (null where a single model was judged), task, measure, value, low, high, n."""
    rows = []
    for path in sorted((record.path / "results").glob("*.json")):
        result = record.result(path.stem)
        for measure, estimate in estimates(result["summary"]):
            row = {"step": result["step"], "task": result["task"], "measure": measure}
            rows.append(row | {name: estimate[name] for name in ("value", "low", "high", "n")})
    kinds: dict[str, Any] = {"step": pl.Int64, "task": pl.String, "measure": pl.String}
    kinds |= dict.fromkeys(("value", "low", "high"), pl.Float64) | {"n": pl.Int64}
    return pl.DataFrame(rows, schema=kinds).sort("step", "task", maintain_order=True)


def curves(
    records: Sequence[tuple[str, RunRecord]],
    measures: Sequence[tuple[str, str, str]],
    chance: Callable[[str], float | None],
) -> list[Curves]:
    """For each (task, measure, title) that any record has over several steps, a figure with one series a (name, record),
    and what guessing gives."""
    tables = [(name, results_by_step(record).filter(pl.col("step").is_not_null())) for name, record in records]
    figures: list[Curves] = []
    for task, measure, title in measures:
        parts = [(name, table.filter(task=task, measure=measure)) for name, table in tables]
        series = [_series(name, part) for name, part in parts if len(part)]
        if series:
            n = " and ".join(f"{n:,}" for n in sorted({n for _, part in parts for n in part["n"]}))
            caption = f"Wilson intervals, 95 %, items only; n = {n} items at every step."
            figures.append(
                Curves(title, Axis("step"), Axis("share"), [*series, *_guessing(series, chance(measure))], caption)
            )
    return figures


def _series(name: str, part: pl.DataFrame) -> Series:
    x, y, low, high = (part[column].to_list() for column in ("step", "value", "low", "high"))
    return Series(name, x, y, low, high)


def _guessing(series: Sequence[Series], share: float | None) -> list[Series]:
    steps = sorted({step for one in series for step in one.x})
    return [] if share is None else [Series("chance", steps, [share] * len(steps), control=True)]


def _named(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return [(path, name) for path in paths if (name := _STEP.fullmatch(path.name))]
