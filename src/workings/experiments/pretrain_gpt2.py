"""What does a GPT-2 trained from scratch on a corpus learn, and at what cost?

`workings pretrain` is this experiment; its arms are recipes: `mini` for a laptop, `124M-10B` with the seeds' numbers, and the
same at 350M. Corpora that hold the same raw text in different vocabularies are compared by training one model on each.

Measure: bits per byte of the validation documents, for each source, beside the same model before training; judges on the way if
asked for. Stop rule: the number of steps. Nothing is selected on validation; the last weights are the result.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workings import evals, judging, models, training
from workings.config import check_ranges, fixed, nuisance, scientific, to_dict
from workings.errors import BadInput
from workings.run import Run
from workings.text.build import build_corpus
from workings.text.corpus import Corpus
from workings.text.manifest import CorpusConfig, SourceConfig
from workings.training import trackers
from workings.training.recipes import PRETRAIN_PRESETS, PretrainConfig

if TYPE_CHECKING:
    import polars as pl

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Config:
    """Corpus, recipe, and who judges."""

    corpus: str = scientific(
        "", "folder of a corpus, from workings corpus build; embedded: a small one, built inside the run"
    )
    start: str | None = fixed(None, "checkpoint, or its run, to start from instead of new weights")
    training: PretrainConfig = fixed(PRETRAIN_PRESETS["mini"], "recipe of the training")
    hellaswag: str | None = fixed(
        None, "HellaSwag items to judge on at the end and every training.evaluate_every steps: a file or a hub id"
    )
    probes: bool = fixed(False, "judge on arithmetic probes at the end and every training.evaluate_every steps")
    n_judged: int | None = fixed(None, "maximum number of items per benchmark", formerly="judged", at_least=1)
    verify: bool = fixed(
        True, "check the whole corpus before training and resuming; a shard is hashed at its first use in any case"
    )
    track: tuple[trackers.Tracker, ...] = fixed(
        (), "trackers that also receive the metrics: tensorboard, wandb, trackio"
    )
    project: str = fixed("workings", "project name under which trackers file the run")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    seed: int = nuisance(0, "random seed for initial weights and order")

    __post_init__ = check_ranges


ARMS = {name: Config(training=recipe) for name, recipe in PRETRAIN_PRESETS.items()}
_SMOKE = {"n_layers": 2, "n_heads": 2, "d_model": 32, "block": 32}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "corpus": EMBEDDED,
        "training": {
            "shape": _SMOKE,
            "steps": 20,
            "tokens_per_step": 256,
            "pass_rows": 8,
            "warmup_steps": 2,
            "validate_every": 10,
            "validation_documents": 5,
            "precision": "fp32",
            "compile": False,
        },
    },
    "mini": {},
    "full": {},
}


# Docstrings of Python's standard library and word problems: enough for a model that is not meant to learn much.
EMBEDDED_CORPUS = CorpusConfig(
    documents=(SourceConfig("docstrings", 3.0, name="english"), SourceConfig("generated", 1.0, name="problems")),
    bytes_limit=120_000,
    validation_fraction=0.05,
)


def inputs(config: Config) -> dict[str, str | None]:
    """The corpus by its manifest, which holds the digests of its shards, and what else is read from outside."""
    if not config.corpus:
        raise BadInput(
            "no corpus: make one with `workings corpus build` and name its folder (--corpus), or take --corpus embedded"
        )
    trackers.check_installed(config.track)
    start = None if config.start is None else str(models.checkpoint_in(Path(config.start).expanduser()))
    named = {"start": start, "hellaswag": config.hellaswag}
    if config.corpus == EMBEDDED:
        return {"corpus": EMBEDDED} | named
    return {"corpus": str(Corpus.open(Path(config.corpus).expanduser()).folder / "manifest.json")} | named


def run_arm(config: Config, run: Run) -> None:
    """Train, judge on all validation documents, save. Under torchrun this is rank 0; the others `follow`."""
    corpus = _corpus(config, run.path)
    with training.lead(run, config.device, str(corpus.folder)) as session:
        if session is not None:  # else it was killed after it had written everything
            _finish(train(config, corpus, session, run), corpus, run)


def follow(config: Config) -> None:
    """Take part in the training as any process but rank 0, which says what is trained."""
    with training.join(config.device) as session:
        if session is not None:
            train(config, Corpus.open(session.message), session, None)


def train(config: Config, corpus: Corpus, session: training.Session, run: Run | None) -> models.GPT2:
    """This process's part of a training; `run` is rank 0's, which alone writes and is judged."""
    start = None if config.start is None else _start(config.start, corpus)
    pretrain = partial(training.pretrain, config.training, corpus, session.folder, start=start, seed=config.seed)
    if run is None:
        return pretrain(group=session.group, resume=session.resume)
    if config.verify:
        corpus.check()
    shape = None if start is None else start.config
    judges = evaluations(config, run)
    run.results("budget", training.planned(config.training, corpus, session.group.size, shape).cost)
    with trackers.opened(run.log, config.track, config.project, run.path, to_dict(config)) as log:
        return pretrain(log, group=session.group, resume=session.resume, run=run, evaluations=judges)


def described_budget(config: Config, n_processes: int, flops_per_second: float | None) -> list[str]:
    """The lines of a dry run."""
    group = training.ProcessGroup(0, n_processes, models.device_of(config.device))
    with tempfile.TemporaryDirectory() as scratch:
        corpus = _corpus(config, Path(scratch))
        shape = None if config.start is None else _start(config.start, corpus).config
        budget = training.planned(config.training, corpus, n_processes, shape)
    if flops_per_second is not None:
        return budget.lines(flops_per_second, "as given")
    rate, because = training.rate_here(group.device, group.device_name, config.training.precision)
    return budget.lines(rate * n_processes, because)


# ── what is trained on and from ──────────────────────────────────────────────────────────────────────────────────────


def _corpus(config: Config, folder: Path) -> Corpus:
    """The one that the config names, or the embedded one, built in (or found in) `folder`."""
    if config.corpus != EMBEDDED:
        return Corpus.open(Path(config.corpus).expanduser())
    return build_corpus(EMBEDDED_CORPUS, folder / "corpus", processes=1)


def _start(folder: str, corpus: Corpus) -> models.GPT2:
    model, tokenizer = models.load_gpt2(models.checkpoint_in(Path(folder).expanduser()))
    if tokenizer.digest != corpus.tokenizer.digest:
        raise BadInput(
            f"the model {folder} reads {tokenizer.summary()}; the corpus {corpus.folder} was written in "
            f"{corpus.tokenizer.summary()}: build the corpus again with the model's tokenizer"
        )
    return model.train()


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


def evaluations(config: Config, run: Run) -> list[training.Evaluation]:
    """Judges in the form that `pretrain` calls; the run keeps the items' outcomes of the last call."""
    settings = evals.Settings(hellaswag_data=config.hellaswag or "", conventions=("karpathy",))

    def hellaswag_now(language: models.LanguageModel, step: int) -> dict[str, Any]:
        outcomes = evals.hellaswag.judge_items(language, hellaswag_items, settings)
        run.outcomes("hellaswag", outcomes)
        found = evals.hellaswag.summarize(outcomes)["karpathy"]
        return _flat("hellaswag.acc", found.acc) | _flat("hellaswag.acc_norm", found.acc_norm)

    def probes_now(language: models.LanguageModel, step: int) -> dict[str, Any]:
        outcomes = evals.probes.judge_items(language, probe_items, settings, choices=False)
        run.outcomes("probes", outcomes)
        columns: dict[str, Any] = {}
        for kind, accuracy in evals.probes.summarize(outcomes).items():
            columns |= _flat(f"probes.{kind}", accuracy.direct)
        return columns

    chosen: list[training.Evaluation] = []
    if config.hellaswag is not None:
        hellaswag_items = evals.hellaswag.load_items(settings)[: config.n_judged]
        chosen.append(hellaswag_now)
    if config.probes:
        probe_items = evals.probes.load_items(settings)[: config.n_judged]
        chosen.append(probes_now)
    return chosen


def _flat(name: str, share: judging.Measure) -> dict[str, Any]:
    """A share with its interval as columns of the metrics."""
    return {name: share.value, f"{name}.low": share.low, f"{name}.high": share.high, f"{name}.n": share.n}


def _finish(model: models.GPT2, corpus: Corpus, run: Run) -> None:
    """All validation documents, one outcome each; the checkpoint; at the very last the resume point goes."""
    language = models.GPT2LanguageModel.of(model, corpus.tokenizer)
    read = models.bits_per_byte(language, corpus.validation()).with_row_index("document")
    run.outcomes("validation", read)
    by_source = {name: _measured(part) for (name,), part in read.group_by("source", maintain_order=True)}
    run.results("headline", {"n": len(read), "bits per byte": {k: v.value for k, v in by_source.items()}})
    run.results("validation", by_source)
    models.save_gpt2(model, corpus.tokenizer, training.cleared(run.folder("checkpoint") / "model"))
    training.drop_resume_point(run.folder("checkpoint"))


def _measured(read: pl.DataFrame) -> judging.Measure:
    """Bits per byte with an interval over documents."""
    bits, n_bytes = read["nats"].to_numpy() / math.log(2), read["bytes"].to_numpy()
    intervals = judging.percentile_intervals(judging.ProblemSums(bits[:, None], n_bytes[:, None].astype(float)))
    low, high = (float(end[0]) for end in (intervals.low, intervals.high))
    return judging.Measure(float(bits.sum() / n_bytes.sum()), low, high, len(read))
