"""Do the continuous thoughts of this model hold the results of its steps, or does the question tell them all?

The model thinks about problems; its hidden states at every layer, over the question, at the opening token and at each thought, are
stored. What a state adds to the question is judged: five answers for each target, beside a ladder of question readers, the states
before the first thought, the neighbouring steps, an untrained model and the matched control without recurrence
(`judging.conditional`, `judging.verdict`). Whether the thoughts are used is asked by ablation. Beside this stands the lens's own
table: a tuned lens (seed 001: one affine translator a layer, shared by the positions) is fitted to name a token of the written
chain, and is compared with everything that could name it without the thoughts.

Targets: `step1`, `step2` …: the result of that step; `answer`; `uniform`, for the lens alone: the first token of the position's
slice of the chain. The first target named is the headline; with the rung of question readers and the family of targets it is
declared in the manifest before any test problem is read.
Prediction (2026-11-25): for the bundled model the result of step 4 is read beyond every question reader and needs the recurrence;
step 1 is not shown beyond readers that look pairs of numbers up; for an untrained CODI on GSM8K nothing is read.
Measure: what a linear reader of the state adds to the stack of question readers, in points and bits, on test problems; intervals by
structure. Stop rule: none is needed; the splits are fixed before anything is fitted, and test is read once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from workings import judging, models, reading
from workings.arithmetic.fields import FIELDS_HELP
from workings.arithmetic.problems import ChainCounts, Problem, ProblemFile, steps_among
from workings.config import check_ranges, fixed, nuisance, scientific
from workings.errors import BadInput, Failed
from workings.progress import say
from workings.run import Run, resolved
from workings.text.datasets import announce, load_problems

# The models that think: the one that is read, and those it is compared with (their names as the subject of readings).
MODEL, UNTRAINED, CONTROL = "model", "untrained", "control"
SHUFFLED = "shuffled targets"  # the lens on the model, fitted to the targets of other problems


@dataclass(frozen=True)
class Config:
    """The model whose thoughts are read, the problems, the probe targets and the lens."""

    model: str = scientific(
        "bundled",
        "model whose thoughts are read: bundled, a checkpoint, or a plain language model (wrapped as an untrained CODI)",
    )
    base: str | None = fixed(
        None, "language model that a released checkpoint was trained from, for its config and tokenizer"
    )
    lora_alpha: float | None = fixed(None, "LoRA alpha of a released checkpoint, which its file does not hold", above=0)
    control: str | None = fixed(None, "matched model without recurrence; for bundled it is bundled-control")
    untrained: bool = fixed(True, "whether an untrained model of the same architecture is read too")
    problems: str = fixed("generated", "problems to think about: generated[:preset], a file, or a hub id")
    problem_split: str = fixed("test", "dataset split of the problems, for hub data sets")
    limit: int = fixed(2000, "maximum number of problems", at_least=1)
    fields: tuple[str, ...] = fixed((), FIELDS_HELP)
    targets: tuple[str, ...] = fixed(
        ("step4", "step1", "step2", "step3", "answer", "uniform"),
        "targets, the headline first: step1, step2, …, answer; uniform is for the lens alone",
    )
    rung: Literal["surface", "first order", "computing"] = fixed(
        "computing", "strongest question readers that the thoughts must beat"
    )
    fractions: tuple[float, float, float] = fixed(
        (0.5, 0.2, 0.3), "shares of the problems used for training, validation and test", at_least=0, at_most=1
    )
    layers: tuple[str, ...] = fixed((), "layers to read; by default all")
    fit: reading.FitConfig = fixed(
        reading.FitConfig(lr=2e-3, batch_problems=64, max_epochs=40), "recipe of the tuned lens"
    )
    n_ablated: int = fixed(
        1000, "number of test problems answered again with ablated thoughts; 0: none", formerly="necessity", at_least=0
    )
    n_transplanted: int = fixed(
        150,
        "number of test problems, and of validation problems, answered with a donor's thoughts; 0: none",
        at_least=0,
    )
    n_planted: int = fixed(
        8,
        "number of draws in which the headline is planted into copies of the states, to see what is read; 0: none",
        at_least=0,
    )
    n_samples: int = fixed(6, "number of test problems shown in the report", formerly="samples", at_least=0)
    max_new_tokens: int = fixed(32, "maximum number of new tokens per answer", at_least=1)
    max_failures: float = fixed(
        0.05, "largest share of the problems that may be left out, each for a listed reason", at_least=0, at_most=1
    )
    store_dtype: Literal["float32", "bfloat16"] = fixed("float32", "floating-point format of the stored states")
    batch_size: int = fixed(128, "number of problems thought about at once", at_least=1)
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = fixed("fp32", "floating-point format in which the model computes")
    seed: int = nuisance(0, "random seed for problems, splits, shuffled targets and untrained weights")

    __post_init__ = check_ranges


ARMS = {"reading": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "targets": ("step2", "uniform"),
        "limit": 300,
        "n_ablated": 60,
        "n_transplanted": 20,
        "n_planted": 1,
        "n_samples": 2,
        "fit": {"max_epochs": 2},
    },
    "mini": {},
    "full": {"limit": 8792, "n_ablated": 1319, "n_transplanted": 1319},
}


def inputs(config: Config) -> dict[str, str | Path]:
    """The models and the problems, by content where they are local."""
    named = {"model": config.model, "base": config.base, "control": _control(config)}
    bundled = {name: str(models.resolve(value)) for name, value in named.items() if value in models.BUNDLED}
    return resolved({**named, **bundled, "problems": config.problems})


# What a run writes besides outcomes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProblemCounts:
    """`results/problems.json`: rows read, problems given more than once, problems used, rows that are malformed, chains."""

    n_read: int = field(metadata={"formerly": "read"})
    n_repeated: int = field(metadata={"formerly": "repeated"})
    n_used: int = field(metadata={"formerly": "used"})
    malformed: tuple[str, ...] = ()
    chains: ChainCounts | None = None  # unknown in records written before it was counted


@dataclass(frozen=True)
class TargetCounts:
    """Probe targets of one rule: slots (problem × position) with and without a target, and kinds of targets."""

    rule: str
    n_targets: int = field(metadata={"formerly": "asked"})
    n_empty: int = field(metadata={"formerly": "empty"})
    n_new_values: int = field(metadata={"formerly": "new_values"})
    multi_token_share: float = 0.0


@dataclass(frozen=True)
class ModelSummary:
    """`results/model.json`: all that the report says of the model, of what it could not think about, and of the targets.

    Attributes:
        accuracy: Right answers, and problems answered.
        self_check: Largest change under edits that must change nothing.
        targets: By the rule's name, the headline first.
    """

    fingerprint: str
    trained: bool
    family: str
    n_parameters: int = field(metadata={"formerly": "parameters"})
    n_blocks: int = field(metadata={"formerly": "blocks"})
    width: int
    n_tokens: int = field(metadata={"formerly": "vocabulary"})
    recurrence: str
    answer_sees: str
    n_thoughts: int
    layers: tuple[str, ...]
    positions: tuple[str, ...]
    accuracy: tuple[int, int]
    self_check: dict[str, float] = field(default_factory=dict)
    failures: tuple[reading.Failure, ...] = ()
    targets: dict[str, TargetCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleReadings:
    """`results/samples.json`: a few test problems read in full, with the rule of their targets."""

    rule: str
    grids: tuple[reading.SampleGrid, ...]


# The run -------------------------------------------------------------------------------------------------------------


def run_arm(config: Config, run: Run) -> None:
    """Think, store, fit, read, ablate; every outcome is kept, so that the report needs no model."""
    thinkers = _thinkers(config)
    known = thinkers[MODEL].layers
    if unknown := [layer for layer in config.layers if layer not in known]:
        raise BadInput(f"no layer {', '.join(unknown)} in this model; it has {', '.join(known)}")
    read = load_problems(
        config.problems, split=config.problem_split, limit=config.limit, seed=config.seed + 1000, fields=config.fields
    )
    problems = list({p.id: p for p in read.problems}.values())
    n_repeated, malformed = len(read.problems) - len(problems), tuple(map(str, read.malformed))
    splits = reading.split_problems(problems, config.fractions, config.seed)
    chains = announce(ProblemFile(problems, read.malformed))
    run.results("problems", ProblemCounts(read.n_rows, n_repeated, len(problems), malformed, chains))
    stores = _collected(thinkers, problems, splits, config, run)
    model, store = thinkers[MODEL], stores[MODEL]
    targets = _targets(model, store, config)
    _judge(stores, targets, config, run)
    lenses = _fitted(thinkers, stores, targets, config, run)
    for rule, of_rule in targets.items():
        others = {name: (lenses[name][rule], stores[name]) for name in stores if name != MODEL}
        shuffled = lenses[SHUFFLED][rule]
        readings = judging.readings_beside_controls(
            model, store, of_rule, lenses[MODEL][rule], shuffled=shuffled, others=others
        )
        run.outcomes(f"readings_{rule}", readings)
        reading.save_lens(lenses[MODEL][rule], run.folder("lens") / rule)
    headline = next(iter(targets))
    grids = reading.sample_grids(model, store, lenses[MODEL][headline], targets[headline], config.n_samples)
    run.results("samples", SampleReadings(headline, grids))
    run.results("model", _summary(model, store, targets))
    _ablate(model, store, config, run)
    _transplant(model, store, config, run)


def _judge(
    stores: Mapping[str, reading.ThoughtStore], targets: Mapping[str, reading.Targets], config: Config, run: Run
) -> Path:
    """Declare what is tested, then judge every target, the headline first; where none can be judged, the lens stands alone."""
    store = stores[MODEL]
    problems = store.as_problems()
    family = judging.family(targets, problems)
    if not family:
        sentence = (
            f"The targets {', '.join(targets)} were not judged: no step result among them has enough problems "
            f"({steps_among(problems)})."
        )
        return run.results("headline", {"target": next(iter(targets)), "sentence": sentence})
    run.declare(headline=family[0], rung=config.rung, family=family)
    tables: dict[str, pl.DataFrame] = {}
    headline = judging.Asked.of(family[0], problems, store.splits, config.seed)
    for rule in family:
        asked = headline if rule == headline.rule else judging.Asked.of(rule, problems, store.splits, config.seed)
        tables[rule] = judging.judged(asked, store, stores.get(CONTROL), stores.get(UNTRAINED), config.rung)
        run.outcomes(f"judged_{rule}", tables[rule])
    found = judging.verdicts(tables, config.rung)[headline.rule]
    if config.n_planted:
        run.results("detection", _detection(headline, tables[headline.rule], store, config))
    read = {name: value for name, value in vars(found.read).items() if name not in ("over", "why")}
    return run.results("headline", {"target": found.rule, "sentence": found.sentence, "beyond": found.rung, **read})


def _detection(
    headline: judging.Asked, table: pl.DataFrame, store: reading.ThoughtStore, config: Config
) -> judging.DetectionCurve:
    """How strongly the headline would have to be carried to be read, at the single place that was read most often."""
    read = table.filter(features="S+T", subject="model", targets="real", reader=config.rung)
    places = read.filter(pl.col("position") != "all")["layer", "position"].rows() or [
        (store.layers[-1], next(filter(models.is_thought, store.positions)))
    ]
    layer, position = max(dict.fromkeys(places), key=places.count)
    return judging.detection_curve(headline, store, layer, position, config.rung, n_draws=config.n_planted)


def _control(config: Config) -> str | None:
    return "bundled-control" if config.control is None and config.model == "bundled" else config.control


def _thinkers(config: Config) -> dict[str, models.CODI]:
    """The model, and the models it is compared with, by the reader's name."""
    place, kind = models.device_of(config.device), models.dtype_of(config.precision)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # that a LoRA alpha is assumed is said in every run, not once
        model = models.open_model(
            config.model,
            base=config.base,
            lora_alpha=config.lora_alpha,
            seed=config.seed,
            device=place,
            dtype=kind,
        )
    thinkers = {MODEL: model}
    if config.untrained:
        thinkers[UNTRAINED] = model.untrained(config.seed)
    control = _control(config)
    if control is not None:
        thinkers[CONTROL] = models.open_model(control, seed=config.seed, device=place, dtype=kind)
        if thinkers[CONTROL].tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise BadInput(
                f"the control {control} has another vocabulary than {config.model}, so the two cannot have the same targets"
            )
    return thinkers


def _collected(
    thinkers: Mapping[str, models.CODI], problems: list[Problem], splits: Mapping[str, str], config: Config, run: Run
) -> dict[str, reading.ThoughtStore]:
    """A store per model. The others think about exactly the problems that the first could think about."""
    stores: dict[str, reading.ThoughtStore] = {}
    for name, thinker in thinkers.items():
        stores[name] = reading.collect(
            thinker,
            problems,
            run.folder("thoughts") / name,
            dtype=config.store_dtype,
            batch_size=config.batch_size,
            splits=splits,
            max_new_tokens=config.max_new_tokens if name == MODEL else 0,
            max_failures=config.max_failures,
        )
        if name == MODEL:
            problems = stores[name].as_problems()
        elif stores[name].ids != stores[MODEL].ids:
            raise Failed(
                f"the {name} model failed on {len(stores[name].failures)} problems that the model could think about"
            )
    return stores


def _targets(model: models.CODI, store: reading.ThoughtStore, config: Config) -> dict[str, reading.Targets]:
    """Probe targets by rule; rules without a target in every split are left out."""
    every = {rule: reading.probe_targets(rule, model, store) for rule in config.targets}
    targets = {rule: one for rule, one in every.items() if one.in_every_split}
    if not targets:
        raise BadInput(
            f"none of the targets {', '.join(config.targets)} exists in these problems: they have too few steps "
            f"({steps_among(store.as_problems())})"
        )
    if absent := [rule for rule in every if rule not in targets]:
        say(f"left out, for too few problems have them: {', '.join(absent)} ({steps_among(store.as_problems())})")
    return targets


def _fitted(
    thinkers: Mapping[str, models.CODI],
    stores: Mapping[str, reading.ThoughtStore],
    targets: Mapping[str, reading.Targets],
    config: Config,
    run: Run,
) -> dict[str, dict[str, reading.Lens]]:
    """Lenses by subject and rule: the model's, the same on shuffled targets, and the same for each compared model."""
    fit = replace(config.fit, seed=config.seed)
    shuffled = {f"{rule}, shuffled": one.shuffled(config.seed) for rule, one in targets.items()}
    lenses: dict[str, dict[str, reading.Lens]] = {}
    for name, thinker in thinkers.items():
        lens = reading.TunedLens.of(thinker, config.layers)
        log = lambda epoch, fit, name=name, **metrics: run.log(epoch, reader=name, fit=fit, **metrics)
        of_model = {**targets, **(shuffled if name == MODEL else {})}
        fits = reading.fit_each(
            stores[name], {rule: reading.FitTask(lens, one, fit) for rule, one in of_model.items()}, log
        )
        lenses[name] = {rule: fits[rule].lens for rule in targets}
        if name == MODEL:
            lenses[SHUFFLED] = {rule: fits[f"{rule}, shuffled"].lens for rule in targets}
    return lenses


def _ablate(model: models.CODI, store: reading.ThoughtStore, config: Config, run: Run) -> None:
    """Answer test problems with ablated thoughts; means are taken over the training problems."""
    problems = list(zip(store.as_problems(), store.splits, strict=True))
    test = [problem for problem, split in problems if split == "test"][: config.n_ablated]
    if test:
        others = [problem for problem, split in problems if split == "train"]
        outcomes = judging.ablate(
            model, test, others, config.seed, config.batch_size, config.max_new_tokens, written=_is_trained(model)
        )
        run.outcomes("ablation", outcomes)


def _transplant(model: models.CODI, store: reading.ThoughtStore, config: Config, run: Run) -> None:
    """Answer validation and test problems with thoughts of donors: the first choose the place, the second judge it."""
    if not config.n_transplanted or not _is_trained(model):
        return
    of_split: dict[str, list[Problem]] = {"train": [], "val": [], "test": []}
    for problem, split in zip(store.as_problems(), store.splits, strict=True):
        of_split[split].append(problem)
    parts = []
    for split in ("val", "test"):
        asked = of_split[split][: config.n_transplanted]
        try:
            found = judging.swap_thoughts(
                model, asked, of_split["train"], config.seed, config.batch_size, config.max_new_tokens
            )
        except BadInput as reason:  # few problems, or none that can be retold: all else that was found stays
            return say(f"no thoughts were swapped: {reason}")
        parts.append(found.outcomes.with_columns(split=pl.lit(split)))
    run.outcomes("transplants", pl.concat(parts))


def _is_trained(model: models.CODI) -> bool:
    return not model.fingerprint.startswith("untrained")


def _summary(model: models.CODI, store: reading.ThoughtStore, targets: Mapping[str, reading.Targets]) -> ModelSummary:
    answered = store.problems["correct"].drop_nulls()
    return ModelSummary(
        fingerprint=model.fingerprint,
        trained=_is_trained(model),
        family=model.base.config.model_type,
        n_parameters=models.count_parameters(model),
        n_blocks=model.n_layers,
        width=model.width,
        n_tokens=model.base.get_input_embeddings().weight.shape[0],
        recurrence=model.config.recurrence,
        answer_sees=model.config.answer_sees,
        n_thoughts=model.n_thoughts,
        layers=store.layers,
        positions=store.positions,
        accuracy=(int(answered.sum()), len(answered)),
        self_check=judging.self_check(model, store.problems["question"].head(8).to_list()),
        failures=tuple(store.failures),
        targets={
            rule: TargetCounts(
                one.rule, int(one.mask.sum()), one.n_empty, int(one.new_value.sum()), one.multi_token_share
            )
            for rule, one in targets.items()
        },
    )
