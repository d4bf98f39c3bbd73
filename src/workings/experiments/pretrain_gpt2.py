"""What does a GPT-2 trained from scratch on a corpus learn, and at what cost?

`workings pretrain` is this experiment; its arms are recipes: `mini` for a laptop, `124M-10B` with the seeds' numbers, and the
same at 350M. Corpora that hold the same raw text in different vocabularies are compared by training one model on each.

Measure: bits per byte of the validation documents, for each source, beside the same model before training; judges on the way if
asked for. Stop rule: the number of steps. Nothing is selected on validation; the last weights are the result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workings.config import fixed, from_dict, nuisance, scientific, to_dict
from workings.errors import BadInput
from workings.run import Run
from workings.training.echo import Tracker, check_installed, echoing
from workings.training.journal import Journal
from workings.training.recipes import PRESETS, PretrainConfig, rows_of, shape_of

if TYPE_CHECKING:
    from workings.judging.statistics import Measure
    from workings.models.gpt2 import GPT2
    from workings.models.language import LanguageModel
    from workings.text.corpus import Corpus
    from workings.training.budget import Budget
    from workings.training.parallel import World
    from workings.training.pretraining import Evaluation


@dataclass(frozen=True)
class Config:
    """Corpus, recipe, and who judges."""

    corpus: str = scientific("", "folder of a corpus, from workings corpus build")
    start: str | None = fixed(None, "checkpoint, or its run, to start from instead of new weights")
    training: PretrainConfig = fixed(PRESETS["mini"], "recipe of the training")
    hellaswag: str | None = fixed(
        None, "HellaSwag items to judge on at the end and every training.evaluate_every steps: a file or a hub id"
    )
    probes: bool = fixed(False, "judge on arithmetic probes at the end and every training.evaluate_every steps")
    judged: int | None = fixed(None, "maximum number of items per benchmark")
    verify: bool = fixed(True, "hash every shard of the corpus before training, and before resuming")
    track: tuple[Tracker, ...] = fixed((), "trackers that also receive the metrics: tensorboard, wandb, trackio")
    project: str = fixed("workings", "project name under which trackers file the run")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    seed: int = nuisance(0, "random seed for initial weights and order")


ARMS = {name: Config(training=recipe) for name, recipe in PRESETS.items()}
_SMOKE = {"n_layers": 2, "n_heads": 2, "d_model": 32, "block": 32}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
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
        }
    },
    "mini": {},
    "full": {},
}


def inputs(config: Config) -> dict[str, str | Path]:
    """The corpus by its manifest, which holds the digests of its shards; what else is read, by content where it is local."""
    if not config.corpus:
        raise BadInput("no corpus: make one with `workings corpus build` and name its folder (--corpus)")
    _opened(config.corpus)
    check_installed(config.track)
    named = {"start": config.start, "hellaswag": config.hellaswag}
    found = {k: Path(v).expanduser() if Path(v).expanduser().exists() else v for k, v in named.items() if v is not None}
    return {"corpus": Path(config.corpus).expanduser() / "manifest.json"} | found


def run_arm(config: Config, run: Run) -> None:
    """Train, judge on all validation documents, save. Under torchrun this is rank 0; the others `follow`.

    What was killed after it had written everything has nothing left to do.
    """
    from workings.training.parallel import world
    from workings.training.trainer import RESUME_POINT

    with world(config.device) as where:
        folder = run.folder("checkpoint")
        resume = (folder / "state" / RESUME_POINT).exists()
        done = (folder / "model").exists() and not resume
        where.agreed(None if done else (to_dict(config), str(folder), resume))
        if not done:
            train(config, folder, where, resume, run)


def follow(config: Config) -> None:
    """What every process but rank 0 does: learn from it what is trained, and take part."""
    from workings.training.parallel import world

    with world(config.device) as where:
        told = where.agreed(None)
        if told is not None:
            fields, folder, resume = told
            train(from_dict(Config, fields), Path(folder), where, resume, None)


def train(config: Config, folder: Path, where: World, resume: bool, run: Run | None) -> None:
    """This process's part of a training; `run` is rank 0's."""
    from workings.training.pretraining import pretrain, tell_nobody

    corpus, start = _opened(config.corpus), None
    if config.start is not None:
        start = _start(config.start, corpus)
    told: dict[str, Any] = {"resume": resume, "seed": config.seed, "where": where, "start": start}
    if run is None:
        pretrain(config.training, corpus, folder, tell_nobody, **told)
        return
    if config.verify:
        corpus.check()
    run.results("budget", budget_of_run(config, corpus, where.size, start).matched())
    with _logging(config, run) as log:
        judges, journal = evaluations(config, run), Journal.of(run, _progress)
        model = pretrain(config.training, corpus, folder, log, evaluations=judges, journal=journal, **told)
    _finish(model, corpus, run)


def budget_of_run(config: Config, corpus: Corpus, n_processes: int = 1, start: GPT2 | None = None) -> Budget:
    """What the training costs; no model is made for it."""
    from workings.training.budget import planned

    shape = start.config if start is not None else shape_of(config.training, corpus.tokenizer)
    rows = rows_of(config.training, corpus, shape.block, n_processes)
    return planned(shape, rows, corpus.train, config.training)


def described_budget(config: Config, n_processes: int, flops_per_second: float | None) -> list[str]:
    """The lines of a dry run."""
    from workings.models.device import device_of
    from workings.training.budget import rate_here
    from workings.training.parallel import World

    where = World(0, n_processes, device_of(config.device))
    corpus = _opened(config.corpus)
    start = None if config.start is None else _start(config.start, corpus)
    found = budget_of_run(config, corpus, n_processes, start)
    rate, because = flops_per_second, "as given"
    if rate is None:
        one, because = rate_here(where.device, where.device_name, config.training.precision)
        rate = one * n_processes
    return found.lines(rate, because)


# ── what is trained on and from ──────────────────────────────────────────────────────────────────────────────────────


def _opened(corpus: str) -> Corpus:
    from workings.text.corpus import Corpus

    return Corpus.open(Path(corpus).expanduser())


def _start(folder: str, corpus: Corpus) -> GPT2:
    from workings.models.checkpoint import checkpoint_in, load_gpt2

    model, tokenizer = load_gpt2(checkpoint_in(Path(folder).expanduser()))
    if tokenizer.digest != corpus.tokenizer.digest:
        raise BadInput(
            f"the model {folder} reads {tokenizer.summary()}; the corpus {corpus.folder} was written in "
            f"{corpus.tokenizer.summary()}: build the corpus again with the model's tokenizer"
        )
    return model.train()


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _logging(config: Config, run: Run) -> Generator[Callable[..., None]]:
    with echoing(config.track, config.project, run.path.name, run.path, to_dict(config)) as echo:

        def log(step: int, **metrics: Any) -> None:
            run.log(step, **metrics)
            echo(step, **metrics)

        yield log


def _progress(step: int, n_steps: int, text: str) -> None:
    from workings.training.distillation import progress_line

    progress_line(step, n_steps, text)


def evaluations(config: Config, run: Run) -> list[Evaluation]:
    """Judges as `pretrain` asks them; the items' outcomes of the last time stay in the run."""
    from workings.evals import Settings, hellaswag, probes

    settings = Settings(hellaswag_data=config.hellaswag or "", conventions=("karpathy",))

    def hellaswag_now(language: LanguageModel, step: int) -> dict[str, Any]:
        outcomes = hellaswag.judge_items(language, hellaswag_items, settings)
        run.outcomes("hellaswag", outcomes)
        found = hellaswag.summarize(outcomes)["karpathy"]
        return _flat("hellaswag.acc", found.acc) | _flat("hellaswag.acc_norm", found.acc_norm)

    def probes_now(language: LanguageModel, step: int) -> dict[str, Any]:
        outcomes = probes.judge_items(language, asked, settings, choices=False)
        run.outcomes("probes", outcomes)
        direct = {kind: one.direct for kind, one in probes.summarize(outcomes).items()}
        return {key: value for kind, one in direct.items() for key, value in _flat(f"probes.{kind}", one).items()}

    chosen: list[Evaluation] = []
    if config.hellaswag is not None:
        hellaswag_items = hellaswag.load_items(settings)[: config.judged]
        chosen.append(hellaswag_now)
    if config.probes:
        asked = probes.load_items(settings)[: config.judged]
        chosen.append(probes_now)
    return chosen


def _flat(name: str, found: Measure) -> dict[str, Any]:
    """A share with its interval as columns of the metrics."""
    return {name: found.value, f"{name}.low": found.low, f"{name}.high": found.high, f"{name}.n": found.n}


def _finish(model: GPT2, corpus: Corpus, run: Run) -> None:
    """All validation documents, one outcome each; the checkpoint; at the very last the resume point goes."""
    import shutil

    from workings.models.own import Language
    from workings.models.scoring import bits_per_byte
    from workings.training.measures import keep_model

    read = bits_per_byte(Language.of(model, corpus.tokenizer), corpus.validation()).with_row_index("document")
    run.outcomes("validation", read)
    by_source = {name: _estimate(part) for (name,), part in read.group_by("source", maintain_order=True)}
    run.results("headline", {"n": len(read), "bits per byte": {k: v["value"] for k, v in by_source.items()}})
    run.results("validation", by_source)
    keep_model(model, corpus.tokenizer, run.folder("checkpoint") / "model")
    shutil.rmtree(run.path / "checkpoint" / "state", ignore_errors=True)


def _estimate(read: Any) -> dict[str, float]:
    """Bits per byte with an interval over documents, and n."""
    import math

    from workings.judging.statistics import ProblemSums, percentile

    bits, n_bytes = read["nats"].to_numpy() / math.log(2), read["bytes"].to_numpy()
    band = percentile(ProblemSums(bits[:, None], n_bytes[:, None].astype(float)))
    low, high = (float(end[0]) for end in (band.low, band.high))
    return {"value": float(bits.sum() / n_bytes.sum()), "low": low, "high": high, "n": len(read)}
