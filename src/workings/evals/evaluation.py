"""A model and tasks → outcomes item by item, measures with intervals, and files in lm-eval's form, all in one Run.

Every model gets the same items in the same words. A limit keeps the first items; the result gives both counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from workings.evals import gsm8k, hellaswag, lm_eval_files, probes
from workings.evals.contamination import Contamination, contamination_of
from workings.evals.gsm8k import GSM8KMeasures
from workings.evals.hellaswag import HellaSwagMeasures
from workings.evals.lm_eval_files import LmEvalTask
from workings.evals.probes import ProbeMeasures
from workings.evals.settings import Settings, TaskName, checked_tasks, n_new_tokens
from workings.judging.statistics import Measure
from workings.progress import track
from workings.run import Run, RunRecord

if TYPE_CHECKING:
    from workings.models.language import LanguageModel

Summary = GSM8KMeasures | dict[str, HellaSwagMeasures] | dict[str, ProbeMeasures]
_CHUNK = 500  # items between two steps of the progress display; chunks decide nothing


@dataclass(frozen=True)
class TaskResult:
    """A task's file in the results/ of a run.

    Attributes:
        model: The model as the user named it; `fingerprint` is the sha256 of what decides its outputs.
        step: Of a checkpoint that a training kept; None for a model by itself.
        n, n_all: Items judged, and items there are.
        data: Where the items come from and how they are asked, in words.
        notes: Sentences for the report on what the model's few positions did to the task.
        summary: Measures; by convention for HellaSwag, by kind for probes.
        training: For probes, how many of them the training text showed.
    """

    task: TaskName
    model: str
    fingerprint: str
    step: int | None
    n: int
    n_all: int
    limit: int | None
    data: str
    notes: tuple[str, ...]
    summary: Summary
    training: Contamination | None = None

    @property
    def measures(self) -> dict[str, Measure]:
        """Every number with an interval by its dotted name: `accuracy`, `karpathy.acc_norm`, `table.worked`."""
        groups = self.summary if isinstance(self.summary, dict) else {"": self.summary}
        named = {
            f"{group}.{field.name}".lstrip("."): getattr(measures, field.name)
            for group, measures in groups.items()
            for field in fields(measures)
        }
        return {name: value for name, value in named.items() if isinstance(value, Measure)}


class Benchmark(Protocol):
    """The functions of a benchmark's module; an item is whatever its `load_items` returns."""

    def load_items(self, settings: Settings) -> list[Any]: ...
    def judge_items(self, model: LanguageModel, items: Sequence[Any], settings: Settings) -> pl.DataFrame: ...
    def summarize(self, outcomes: pl.DataFrame) -> Summary: ...
    def other_outcomes(self, outcomes: pl.DataFrame) -> dict[str, pl.DataFrame]: ...
    def source(self, items: Sequence[Any], settings: Settings) -> str: ...
    def notes(self, model: LanguageModel, outcomes: pl.DataFrame, settings: Settings) -> list[str]: ...
    def lm_eval_tasks(
        self, items: Sequence[Any], outcomes: pl.DataFrame, n_all: int, settings: Settings
    ) -> list[LmEvalTask]: ...


TASKS: dict[TaskName, Benchmark] = {"hellaswag": hellaswag, "gsm8k": gsm8k, "probes": probes}
Items = dict[TaskName, list[Any]]
"""All items of each task."""


def load_items(tasks: Iterable[str], settings: Settings) -> Items:
    """Load the items of tasks. Do it before a model is opened: a mistake in the data is found in a second.

    Raises:
        BadInput: There is no such task, or its data cannot be read.
    """
    return {name: TASKS[name].load_items(settings) for name in checked_tasks(tasks)}


def evaluate(
    model: LanguageModel,
    items: Items,
    run: Run,
    settings: Settings,
    *,
    step: int | None = None,
    reference: str | Path = "",
) -> dict[TaskName, TaskResult]:
    """Judge a model and write everything into the run. What a stopped run has already is not judged again.

    Args:
        items: From `load_items` with the same settings, whose limit is applied here.
        step: The model's step in its training. Names then end in it (`hellaswag_step_002000`), so that the checkpoints of
            a training lie side by side.
        reference: The model as the user named it; the corpus it was trained on may be found from there.
    """
    results: dict[TaskName, TaskResult] = {}
    files: list[LmEvalTask] = []
    for name, every in items.items():
        task, judged = TASKS[name], every[: settings.limit]
        outcomes = _outcomes(model, name, judged, run, settings, step)
        results[name] = TaskResult(
            name,
            model.name,
            model.fingerprint,
            step,
            len(judged),
            len(every),
            settings.limit,
            task.source(judged, settings),
            tuple(task.notes(model, outcomes, settings)),
            task.summarize(outcomes),
            contamination_of(reference, judged) if name == "probes" and str(reference) else None,
        )
        run.results(name_at(name, step), results[name])
        files += task.lm_eval_tasks(judged, outcomes, len(every), settings)
    _write_lm_eval_files(run, model, files, settings, step)
    return results


def name_at(name: str, step: int | None) -> str:
    """The name of a task's outcomes and results, for a model or for the checkpoint of a step."""
    return name if step is None else f"{name}_step_{step:06d}"


def is_judged(run: Run, tasks: Iterable[TaskName], step: int) -> bool:
    """True if the run has the results of all these tasks for the checkpoint of a step."""
    return all((run.path / "results" / f"{name_at(task, step)}.json").is_file() for task in tasks)


def results_of(record: RunRecord) -> list[TaskResult]:
    """All results of a run of `evaluate-model`, in the order of their names."""
    return [record.result(name, TaskResult) for name in record.names("results", ".json")]


def _outcomes(
    model: LanguageModel, task: TaskName, items: Sequence[Any], run: Run, settings: Settings, step: int | None
) -> pl.DataFrame:
    """A task's outcomes: those the run has, or new ones, which it has from then on."""
    name = name_at(task, step)
    done = run.path / "outcomes" / f"{name}.parquet"
    if done.is_file():
        return pl.read_parquet(done)
    frames = []
    with track(f"judging {name}", len(items)) as tracker:
        for start in range(0, len(items), _CHUNK):
            frames.append(TASKS[task].judge_items(model, items[start : start + _CHUNK], settings))
            tracker.update(min(start + _CHUNK, len(items)))
    outcomes = pl.concat(frames)
    for other, frame in TASKS[task].other_outcomes(outcomes).items():
        run.outcomes(name_at(f"{task}_{other}", step), frame)
    run.outcomes(name, outcomes)  # last: what is there is complete
    return outcomes


def _write_lm_eval_files(
    run: Run, model: LanguageModel, tasks: Sequence[LmEvalTask], settings: Settings, step: int | None
) -> None:
    folder = run.path / "lm_eval" / name_at("", step).strip("_")
    for earlier in folder.glob("*_*.json*"):  # of a run that was stopped: the same items, under another time
        earlier.unlink()
    config = {
        "model_sha": model.fingerprint,
        "batch_size": settings.batch_size,
        "limit": settings.limit,
        "device": str(model.device),
        "gen_kwargs": {"do_sample": False, "max_gen_toks": n_new_tokens(model, settings.max_new_tokens)},
    }
    lm_eval_files.write(folder, model.name, tasks, config)
