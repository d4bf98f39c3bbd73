"""How well does a language model do on HellaSwag, GSM8K and plain arithmetic, item by item?

`workings eval` is this experiment. One run judges one model, or every checkpoint that a training kept; several runs are compared
item by item (`workings compare`). Naming `gpt2` as the model is the comparison with OpenAI's; `untrained` is the chance level: a
GPT-2 of the mini shape as it is before its first step, with the embedded tokenizer.

Measure: shares right with Wilson intervals, beside what chance gives where the answer is chosen; how long answers are, how many
are truncated, how many facts they hold. Stop rule: every item once, greedily. Nothing is selected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workings import evals, models
from workings.config import changed, fixed, nuisance, scientific
from workings.errors import BadInput
from workings.evals.settings import Settings, TaskName
from workings.experiment import load
from workings.run import Run, RunRecord
from workings.text.tokenizer import Tokenizer

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Config:
    """The model, the benchmarks and how it is asked."""

    model: str | None = scientific(
        None, "model to judge: a hub id (gpt2), a Hugging Face folder, a checkpoint, a .gguf file, or untrained"
    )
    checkpoints: str | None = scientific(
        None, "run directory of a training, whose kept models are all judged, instead of one model"
    )
    tasks: tuple[TaskName, ...] = fixed(("hellaswag", "gsm8k", "probes"), "benchmarks: hellaswag, gsm8k, probes")
    settings: Settings = fixed(Settings(), "prompts, data and limits of the benchmarks")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = fixed("fp32", "floating-point format in which the model computes")
    seed: int = nuisance(0, "seed that the model was trained with, by which arms are paired")


ARMS = {"model": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"model": UNTRAINED, "tasks": ["probes"], "settings": {"limit": 8, "max_new_tokens": 16}},
    "mini": {"settings": {"limit": 200}},
    "full": {},
}


def inputs(config: Config) -> dict[str, str | None]:
    """Model and data."""
    if config.model is None and config.checkpoints is None:
        raise BadInput(
            "name one model (--model path or hub id), or a training whose checkpoints are meant (--checkpoints)"
        )
    if config.model is not None and config.checkpoints is not None:
        raise BadInput("model and checkpoints are both set, and would be two evaluations: set one of them to null")
    named = {"model": config.model, "checkpoints": config.checkpoints}
    return named | {task: getattr(config.settings, f"{task}_data") for task in config.tasks if task != "probes"}


def run_arm(config: Config, run: Run) -> None:
    """Load the items, so that a mistake in them is found before a model is opened; then judge every task."""
    settings = config.settings
    if config.checkpoints is None:
        items = evals.load_items(config.tasks, settings)
        evals.evaluate(open_judged(config), items, run, settings, reference=config.model or "")
        return
    checkpoints = kept_checkpoints(config.checkpoints)
    items = evals.load_items(config.tasks, settings)
    for step, folder in checkpoints.items():
        if evals.is_judged(run, config.tasks, step):
            continue
        model = models.open_language(folder, config.device, config.precision)
        # All of them read one corpus: what it showed of the probes is looked up once, for the last.
        reference = folder if step == max(checkpoints) else ""
        evals.evaluate(model, items, run, settings, step=step, reference=reference)


def open_judged(config: Config) -> models.LanguageModel:
    """The model that a config names, or the untrained one, whose initial weights follow from the seed."""
    if config.model != UNTRAINED:
        return models.open_language(config.model or "", config.device, config.precision)
    tokenizer = Tokenizer.build("embedded", "digits")
    shape = replace(models.GPT2_SIZES["mini"], vocab=tokenizer.embedding_width)
    device, dtype = models.device_of(config.device), models.dtype_of(config.precision)
    return models.GPT2LanguageModel.of(
        models.GPT2(shape).init(config.seed).eval().to(device, dtype), tokenizer, UNTRAINED
    )


def kept_checkpoints(reference: str | Path) -> dict[int, Path]:
    """The models that a training kept, by step.

    Args:
        reference: A run directory, or a folder of `step_000200`, `step_000400` and so on. One without a config.json is not
            whole and is left out.

    Raises:
        BadInput: None is kept there.
    """
    folder = Path(reference).expanduser()
    if (folder / "checkpoint").is_dir():
        folder = folder / "checkpoint"
    paths = [path for path in folder.glob("step_*") if (path / "config.json").is_file()]
    found = {int(name[1]): path for path in paths if (name := re.fullmatch(r"step_(\d+)", path.name))}
    if not found:
        raise BadInput(
            f"{reference} holds no kept checkpoints (checkpoint/step_000200 and so on): name the run directory of a training "
            "that kept some (--set training.keep_every=…)"
        )
    return dict(sorted(found.items()))


def evaluate_model(config: Config, root: str | Path = "runs") -> RunRecord:
    """Judge a model in a run named after it; a model that lies in a run of ours, after that run's arm and seed."""
    arm, seed = named_after(config.model or config.checkpoints or "")
    seeded = changed(config, {"seed": seed if seed is not None else config.seed})
    with Run.start(
        root,
        "evaluate-model",
        arm,
        seeded.seed,
        seeded,
        source=load("evaluate-model").file,
        inputs=inputs(seeded),
        scale="full" if config.settings.limit is None else f"limit {config.settings.limit}",
    ) as run:
        run_arm(seeded, run)
    return RunRecord(run.path)


def named_after(reference: str) -> tuple[str, int | None]:
    """Arm and seed of the training run that a checkpoint, or a folder of them, lies in; else the last part of the name.

    The arm of a pretraining is its recipe, so the name of the corpus it was given is added: `mini-digits`, `mini-facts`.
    """
    here = Path(reference).expanduser().resolve()
    for folder in (here, *here.parents[:2]) if here.exists() else ():
        if (folder / "manifest.json").is_file() and (folder / "config.yaml").is_file():
            manifest = RunRecord(folder).manifest
            arm, corpus = manifest.arm, evals.corpus_given(manifest.input_places)
            return arm if corpus is None or corpus.name in arm else f"{arm}-{corpus.name}", manifest.seed
    return reference.rstrip("/").rpartition("/")[2].partition("@")[0] or "model", None
