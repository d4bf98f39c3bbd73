"""How well does a language model do on HellaSwag, GSM8K and plain arithmetic, item by item?

`workings eval` is this experiment. One run judges one model, or every checkpoint that a training kept; several runs are compared
item by item (`workings compare`). Naming `gpt2` as the model is the comparison with OpenAI's.

Measure: shares right with Wilson intervals, beside what chance gives where the answer is chosen; how long answers are, how many
are truncated, how many facts they hold. Stop rule: every item once, greedily. Nothing is selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workings.config import fixed, nuisance, scientific
from workings.errors import BadInput
from workings.evals.settings import Settings
from workings.experiment import Experiment, load
from workings.run import Run, RunRecord

Tasks = tuple[Literal["hellaswag", "gsm8k", "probes"], ...]


@dataclass(frozen=True)
class Config:
    """Which model, asked what."""

    model: str | None = scientific(
        None, "model to judge: a hub id (gpt2), a Hugging Face folder, a checkpoint, or a .gguf file"
    )
    checkpoints: str | None = scientific(
        None, "run directory of a training, whose kept models are all judged, instead of one model"
    )
    tasks: Tasks = fixed(("hellaswag", "gsm8k", "probes"), "benchmarks: hellaswag, gsm8k, probes")
    settings: Settings = fixed(Settings(), "prompts, data and limits of the benchmarks")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = fixed("fp32", "floating-point format in which the model computes")
    seed: int = nuisance(0, "seed that the model was trained with, by which arms are paired")


ARMS = {"model": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"settings": {"limit": 8, "max_new_tokens": 16}},
    "mini": {"settings": {"limit": 200}},
    "full": {},
}


def inputs(config: Config) -> dict[str, str | Path]:
    """Model and data, by content where they are local."""
    if (config.model is None) == (config.checkpoints is None):
        raise BadInput(
            "name one model (--model path or hub id), or a training whose checkpoints are meant (--checkpoints)"
        )
    named = {"model": config.model, "checkpoints": config.checkpoints}
    named |= {task: getattr(config.settings, f"{task}_data") for task in config.tasks if task != "probes"}
    return {k: Path(v).expanduser() if Path(v).expanduser().exists() else v for k, v in named.items() if v is not None}


def run_arm(config: Config, run: Run) -> None:
    """Items first, so that a mistake in them is found before a model is opened; then every task."""
    from workings.evals.curves import checkpoints_in, evaluate_all
    from workings.evals.evaluation import evaluate
    from workings.evals.evaluation import load as load_items
    from workings.models.language import open_language

    if config.checkpoints is not None:
        found = checkpoints_in(config.checkpoints)
        evaluate_all(
            found,
            config.tasks,
            run,
            config.settings,
            lambda folder: open_language(folder, config.device, config.precision),
        )
        return
    items = load_items(config.tasks, config.settings)
    model = open_language(config.model or "", config.device, config.precision)
    evaluate(model, config.tasks, run, config.settings, items=items, reference=config.model or "")


def evaluate_model(config: Config, root: str | Path = "runs", overrides: Sequence[str] = ()) -> RunRecord:
    """One run, named after the model; of a model that lies in a run of ours, after that run's arm and seed."""
    from workings.config import changed

    experiment: Experiment = load("evaluate-model")
    arm, seed = named_after(config.model or config.checkpoints or "")
    seeded = changed(config, {"seed": seed if seed is not None else config.seed})
    places = inputs(seeded)
    with Run.start(
        root,
        experiment.name,
        arm,
        seeded.seed,
        seeded,
        source=experiment.file,
        inputs=places,
        overrides=overrides,
        scale="full" if config.settings.limit is None else f"limit {config.settings.limit}",
    ) as run:
        run_arm(seeded, run)
    return RunRecord(run.path)


def named_after(reference: str) -> tuple[str, int | None]:
    """(arm, seed) of the training run that a checkpoint, or a folder of them, lies in; else the last part of the name.

    A pretraining's arm is its recipe, so the name of the corpus it was given is added: `mini-digits`, `mini-facts`.
    """
    from workings.evals.contamination import corpus_given

    here = Path(reference).expanduser().resolve()
    for folder in (here, *here.parents[:2]) if here.exists() else ():
        if (folder / "manifest.json").is_file() and (folder / "config.yaml").is_file():
            manifest = RunRecord(folder).manifest
            arm, corpus = manifest.arm, corpus_given(manifest.input_places)
            return arm if corpus is None or corpus.name in arm else f"{arm}-{corpus.name}", manifest.seed
    return reference.rstrip("/").rpartition("/")[2].partition("@")[0] or "model", None
