"""Judge language models on benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from workings.cli.options import AsJson, Device, Precision, Quiet, refuse_beside_resume
from workings.errors import BadInput
from workings.progress import quietly


def evaluate(
    tasks: Annotated[list[str], "hellaswag, gsm8k, probes: one or several"],
    /,
    *,
    model: Annotated[
        str | None, "a hub id (gpt2), a Hugging Face folder, a checkpoint, a .gguf file, or untrained"
    ] = None,
    checkpoints: Annotated[
        list[str] | None, "instead: trainings' run directories, whose kept models are all judged"
    ] = None,
    data: Annotated[list[str] | None, "hub id or path; with several tasks gsm8k=… hellaswag=…"] = None,
    limit: Annotated[int | None, "at most so many items of each task; the report says so"] = None,
    num_fewshot: Annotated[int | None, "worked examples before a GSM8K question"] = None,
    prompt: Annotated[Literal["chat", "lm-eval"] | None, "User:/Assistant: or Question:/Answer:"] = None,
    custom: Annotated[Literal["both", "karpathy", "lm-eval"], "HellaSwag scoring convention"] = "both",
    batch_size: Annotated[int | None, "answers generated at once"] = None,
    max_new_tokens: Annotated[int | None, "of an answer to GSM8K"] = None,
    seed: Annotated[int, "that the model was trained with, where its folder does not say"] = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    out: Annotated[str, "the folder that runs go into"] = "runs",
    resume: Annotated[str | None, "go on with this unfinished run"] = None,
    quiet: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Judge a model, or all checkpoints of trainings, item by item; prints the path of report.html."""
    from workings.config import changed
    from workings.evals.settings import Settings, checked_tasks
    from workings.experiment import report_runs, resume_run
    from workings.experiments.evaluate_model import Config, evaluate_model
    from workings.run import RunRecord

    names = checked_tasks(tasks)
    given: dict[str, Any] = {
        "limit": limit,
        "num_fewshot": num_fewshot,
        "prompt": prompt,
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "conventions": None if custom == "both" else [custom],
    }
    given = {name: value for name, value in given.items() if value is not None} | _data(data, names)
    settings = changed(Settings(), given)
    with quietly(quiet):
        if resume:
            asked_before = RunRecord.find(resume, out).config(Config).tasks
            refuse_beside_resume(given, model, checkpoints, seed, device != "auto", precision != "fp32")
            if set(names) != set(asked_before):
                raise BadInput(f"--resume: that run judges {' '.join(asked_before)}; name these tasks")
            records = [resume_run(resume, out, quiet, "evaluate-model")]
        else:
            if checkpoints and model:
                raise BadInput("name a model or checkpoints, not both: they would be two evaluations")
            asked = {"tasks": names, "device": device, "precision": precision, "seed": seed}
            config = replace(changed(Config(), asked), settings=settings)
            places = [{"checkpoints": one} for one in checkpoints] if checkpoints else [{"model": model}]
            records = [evaluate_model(changed(config, place), out) for place in places]
    page = report_runs(records)
    if json_:
        results = [
            record.result(path.stem) for record in records for path in sorted((record.path / "results").glob("*"))
        ]
        print(json.dumps({"report": str(page), "results": results}, ensure_ascii=False))
    else:
        print(page)


def _data(given: list[str] | None, tasks: Sequence[str]) -> dict[str, str]:
    """`--data PATH` for the one task that reads data, `--data gsm8k=PATH hellaswag=PATH` for several."""
    readers = [task for task in tasks if task != "probes"]
    found = {}
    for one in given or ():
        name, equals, place = one.partition("=")
        if not equals or Path(one).exists():
            if len(readers) != 1:
                raise BadInput(f"--data {one}: say for which task, as in --data {(readers or ['gsm8k'])[0]}={one}")
            name, place = readers[0], one
        if name not in readers:
            raise BadInput(
                f"--data {one}: '{name}' is none of the tasks asked for that read data ({', '.join(readers) or 'none'})"
            )
        found[f"{name}_data"] = place
    return found
