"""model × tasks → outcomes item by item, summaries, files for lm-eval's readers: all of them in one Run.

Every model is asked the same items in the same words. Items that a limit leaves out are the last ones, and the summary
says how many there were.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from workings.evals import contamination, gsm8k, hellaswag, lm_eval_files, probes
from workings.evals.lm_eval_files import LmEvalTask
from workings.evals.settings import Settings, checked_tasks, n_new_tokens
from workings.models.language import LanguageModel
from workings.run import Run

_CHUNK = 500  # items between two lines of progress


@dataclass(frozen=True)
class Task:
    """One benchmark: where its items come from, how they are judged, what is said of them."""

    items: Callable[[Settings], list[Any]]
    judge: Callable[[LanguageModel, Sequence[Any], Settings, int], pl.DataFrame]
    summary: Callable[[pl.DataFrame], dict[str, Any]]
    frames: Callable[[pl.DataFrame], dict[str, pl.DataFrame]]
    files: Callable[[Sequence[Any], pl.DataFrame, int, Settings], list[LmEvalTask]]
    source: Callable[[Sequence[Any], Settings], str]


def evaluate(
    model: LanguageModel,
    tasks: Iterable[str],
    run: Run,
    settings: Settings,
    *,
    step: int | None = None,
    items: dict[str, list[Any]] | None = None,
    reference: str | Path = "",
) -> dict[str, dict[str, Any]]:
    """Judge a model and write everything into the run; the results by task.

    With a `step`, names end in it (`hellaswag_step_002000`), so that the checkpoints of a training lie side by side. What a
    run that was stopped has already is not judged again. `items`: what `load` gave, for several models. `reference` is
    the model as the user named it: where it lies, the corpus it was trained on may be found.
    """
    loaded = load(tasks, settings) if items is None else items
    found: dict[str, dict[str, Any]] = {}
    files: list[LmEvalTask] = []
    for name in checked_tasks(tasks):
        kept, n_all = loaded[name][: settings.limit], len(loaded[name])
        frame = _kept_or_judged(run, name, model, kept, settings, step)
        found[name] = _result(name, model, kept, frame, n_all, settings, step)
        if name == "probes" and str(reference):
            found[name]["training"] = contamination.report_on(reference, kept)
        run.results(stem_of(name, step), found[name])
        files += TASKS[name].files(kept, frame, n_all, settings)
    _write_files(run, model, files, settings, step)
    return found


def _kept_or_judged(
    run: Run, name: str, model: LanguageModel, kept: Sequence[Any], settings: Settings, step: int | None
) -> pl.DataFrame:
    """A task's outcomes: those the run has, or new ones, which it has from then on."""
    stem = stem_of(name, step)
    done = run.path / "outcomes" / f"{stem}.parquet"
    if done.is_file():
        return pl.read_parquet(done)
    frame = _judged(name, model, kept, settings, stem)
    for other, one in TASKS[name].frames(frame).items():
        run.outcomes(stem_of(f"{name}_{other}", step), one)
    run.outcomes(stem, frame)  # last: what is there is complete
    return frame


def stem_of(name: str, step: int | None) -> str:
    """The name of a task's outcomes and results, of a model or of a checkpoint."""
    return name if step is None else f"{name}_step_{step:06d}"


def load(tasks: Iterable[str], settings: Settings) -> dict[str, list[Any]]:
    """{task: all its items}. Before any model is opened: a mistake in the data is found in a second."""
    return {name: TASKS[name].items(settings) for name in checked_tasks(tasks)}


def evaluation(
    task: str, settings: Settings, measures: Callable[[str], bool] = lambda name: True
) -> Callable[[LanguageModel, int], dict[str, Any]]:
    """What a training asks of its model every so many steps: {"hellaswag.karpathy.acc_norm": …, with _low, _high and n}."""
    (name,) = checked_tasks([task])
    asked = TASKS[name].items(settings)[: settings.limit]

    def judge(model: LanguageModel, step: int) -> dict[str, Any]:
        summary = TASKS[name].summary(TASKS[name].judge(model, asked, settings, 0))
        found: dict[str, Any] = {f"{name}.n": len(asked)}
        for measure, estimate in estimates(summary):
            if measures(measure):
                key = f"{name}.{measure}"
                found |= {key: estimate["value"], f"{key}_low": estimate["low"], f"{key}_high": estimate["high"]}
        return found

    return judge


def estimates(summary: dict[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """("karpathy.acc_norm", {value, low, high, n}) for every number of a summary that has an interval."""
    for name, value in summary.items():
        if isinstance(value, dict):
            if {"value", "low", "high"} <= value.keys():
                yield before + name, value
            else:
                yield from estimates(value, f"{before}{name}.")


def _judged(name: str, model: LanguageModel, kept: Sequence[Any], settings: Settings, stem: str) -> pl.DataFrame:
    """In chunks, with a line of progress after each; chunks decide nothing."""
    frames = []
    for start in range(0, len(kept), _CHUNK):
        chunk = kept[start : start + _CHUNK]
        frames.append(TASKS[name].judge(model, chunk, settings, start))
        print(f"{stem}: {start + len(chunk):,} of {len(kept):,}", file=sys.stderr, flush=True)
    return pl.concat(frames)


def _result(
    name: str,
    model: LanguageModel,
    kept: Sequence[Any],
    frame: pl.DataFrame,
    n_all: int,
    settings: Settings,
    step: int | None,
) -> dict[str, Any]:
    return {
        "task": name,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "step": step,
        "n": len(kept),
        "n_all": n_all,
        "limit": settings.limit,
        "data": TASKS[name].source(kept, settings),
        "notes": list(_notes(name, model, frame, settings)),
        "summary": TASKS[name].summary(frame),
    }


def _notes(name: str, model: LanguageModel, frame: pl.DataFrame, settings: Settings) -> Iterator[str]:
    """What the positions of a small model did to a task, in sentences for the report."""
    if name == "gsm8k" and (most := n_new_tokens(model, settings.max_new_tokens)) < settings.max_new_tokens:
        yield (
            f"answers have at most {most} new tokens where {settings.max_new_tokens} were asked for: the model has "
            f"{model.context} positions, half of them for the prompt."
        )
    if name == "hellaswag":
        for (convention,), rows in frame.group_by("condition", maintain_order=True):
            if n := hellaswag.n_not_judged(rows):
                yield (
                    f"{n:,} of {len(rows):,} items ({convention}) were not judged, for an ending is longer than the model's "
                    f"{model.context} positions; they count as wrong."
                )


def _write_files(
    run: Run, model: LanguageModel, tasks: Sequence[LmEvalTask], settings: Settings, step: int | None
) -> None:
    folder = run.path / "lm_eval" / stem_of("", step).strip("_")
    for earlier in folder.glob("*_*.json*"):  # of a run that was stopped: the same items, under another time
        earlier.unlink()
    about = {
        "model_sha": model.fingerprint,
        "batch_size": settings.batch_size,
        "limit": settings.limit,
        "device": str(model.device),
        "gen_kwargs": {"do_sample": False, "max_gen_toks": n_new_tokens(model, settings.max_new_tokens)},
    }
    lm_eval_files.write(folder, model.name, tasks, about)


# ---- the tasks ---------------------------------------------------------------------------------------------------


def _gsm8k_items(settings: Settings) -> list[gsm8k.Item]:
    gsm8k.examples_for(
        settings.gsm8k_data, 1, settings.n_fewshot
    )  # BadInput before anything is judged, if there are none
    return gsm8k.items(settings.gsm8k_data)


def _judge_gsm8k(model: LanguageModel, some: Sequence[gsm8k.Item], settings: Settings, start: int) -> pl.DataFrame:
    # Examples are one stream over all items: those of a chunk are the ones behind the items before it.
    shown = gsm8k.examples_for(settings.gsm8k_data, start + len(some), settings.n_fewshot)[start:]
    return gsm8k.judge(model, some, settings.prompt, shown, settings.max_new_tokens, settings.batch_size)


def _gsm8k_files(kept: Sequence[gsm8k.Item], frame: pl.DataFrame, n_all: int, settings: Settings) -> list[LmEvalTask]:
    return [gsm8k.for_lm_eval(kept, frame, n_all, settings.prompt, settings.n_fewshot, settings.max_new_tokens)]


TASKS: dict[str, Task] = {
    "hellaswag": Task(
        lambda settings: hellaswag.items(settings.hellaswag_data),
        lambda model, some, settings, _: hellaswag.judge(model, some, settings.customs, settings.batch_tokens),
        hellaswag.summary,
        lambda frame: {},
        lambda kept, frame, n_all, _: list(hellaswag.for_lm_eval(kept, frame, n_all)),
        lambda kept, settings: f"{settings.hellaswag_data} ({hellaswag.variant_of(kept)})",
    ),
    "gsm8k": Task(
        _gsm8k_items,
        _judge_gsm8k,
        gsm8k.summary,
        lambda frame: {},
        _gsm8k_files,
        lambda kept, settings: f"{settings.gsm8k_data}, {settings.prompt} prompt, {settings.n_fewshot} worked examples",
    ),
    "probes": Task(
        lambda settings: probes.items(settings.drills, seed=settings.probe_seed),
        lambda model, some, settings, _: probes.judge(
            model, some, settings.prompt, settings.batch_size, settings.batch_tokens
        ),
        probes.summary,
        probes.other_frames,
        lambda kept, frame, n_all, settings: [probes.for_lm_eval(kept, frame, n_all, settings.prompt)],
        lambda kept, settings: f"arithmetic probes, {settings.prompt} prompt",
    ),
}
