"""Do the continuous thoughts of this model hold its chain of thought, or does the lens only know the data?

The model thinks about problems; its hidden states at every layer, at the opening token and at each thought, are stored; a tuned
lens (seed 001: one affine translator a layer, shared by the positions) is fitted to name, from a state, a token of the written
chain. What it names is judged beside everything that could name it without the thoughts: the commonest token of the position,
the position and the length of the chain, the numbers of the question, the same lens fitted on shuffled targets, the same lens
on an untrained model, and on the matched control without recurrence where there is one.

Targets: `step1`, `step2` …: the result of that step, asked of every position; `uniform`: the first token of the position's slice
of the chain. The first rule named is the headline.
Prediction (2026-11-21): for the bundled model the results of steps are read far above every control but the one without
recurrence on step 1; for an untrained CODI on GSM8K nothing is read beyond the controls.
Measure: share of targets named (top-1) at the layer chosen on validation, minus the best control's; intervals by problem.
Stop rule: none is needed; the splits are fixed before anything is fitted, and test is read once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workings.config import fixed, nuisance, scientific
from workings.errors import BadInput, Failed
from workings.reading.recipe import FitConfig
from workings.run import Run, RunRecord


@dataclass(frozen=True)
class Config:
    """Which model, which problems, what is asked."""

    model: str = scientific(
        "bundled",
        "model whose thoughts are read: bundled, a checkpoint, or a plain language model (wrapped as an untrained CODI)",
    )
    base: str | None = fixed(
        None, "language model that a released checkpoint was trained from, for its config and tokenizer"
    )
    lora_alpha: float | None = fixed(None, "LoRA alpha of a released checkpoint, which its file does not hold")
    control: str | None = fixed(None, "matched model without recurrence; for bundled it is bundled-control")
    untrained: bool = fixed(True, "whether an untrained model of the same architecture is read too")
    problems: str = fixed("generated", "problems to think about: generated[:preset], a file, or a hub id")
    problem_split: str = fixed("test", "dataset split of the problems, for hub data sets")
    limit: int = fixed(2000, "maximum number of problems")
    targets: tuple[str, ...] = fixed(
        ("step1", "step2", "step3", "step4", "uniform"),
        "rules that say what each position is probed for: step1, step2, …, uniform",
    )
    fractions: tuple[float, float, float] = fixed(
        (0.5, 0.1, 0.4), "shares of the problems used for training, validation and test"
    )
    layers: tuple[str, ...] = fixed((), "layers to read; by default all")
    fit: FitConfig = fixed(FitConfig(), "recipe of the tuned lens")
    necessity: int = fixed(1000, "number of test problems answered again with ablated thoughts; 0: none")
    samples: int = fixed(6, "number of test problems shown in the report")
    max_new_tokens: int = fixed(32, "maximum number of new tokens per answer")
    max_failures: float = fixed(0.05, "largest share of the problems that may be left out, each for a listed reason")
    store_dtype: Literal["float32", "bfloat16"] = fixed("float32", "floating-point format of the stored states")
    batch_size: int = fixed(128, "number of problems thought about at once")
    device: str = fixed("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = fixed("fp32", "floating-point format in which the model computes")
    seed: int = nuisance(0, "random seed for problems, splits, shuffled targets and untrained weights")


ARMS = {"reading": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"limit": 300, "necessity": 60, "samples": 2, "fit": {"max_epochs": 2}},
    "mini": {},
    "full": {"limit": 8792, "necessity": 1319},
}


def inputs(config: Config) -> dict[str, str | Path]:
    """The model and the problems, by content where they are local."""
    from workings.models.checkpoint import BUNDLED, resolve

    named = {"model": config.model, "base": config.base, "control": _control(config)}
    given: dict[str, str | Path] = {}
    for name, value in named.items():
        if value is not None:
            given[name] = resolve(value) if value in BUNDLED or Path(value).expanduser().exists() else value
    problems = Path(config.problems).expanduser()
    return given | {"problems": problems if problems.exists() else config.problems}


def run_arm(config: Config, run: Run) -> None:
    """Think, store, ask, fit, read; every outcome is kept, so that the report needs no model."""
    from workings.judging.ablation import judge
    from workings.judging.readings import readings_beside_controls
    from workings.reading.rules import can_be_asked, targets_of
    from workings.reading.samples import sample_grids

    subjects, problems = _subjects(config), _problems(config, run)
    splits = _split(problems, config)
    stores = _collected(subjects, problems, splits, config, run)
    model, store = subjects["model"], stores["model"]
    asked = {rule: targets_of(rule, model, store) for rule in config.targets}
    targets = {rule: each for rule, each in asked.items() if can_be_asked(each)}
    if not targets:
        raise BadInput(
            f"none of the targets {', '.join(config.targets)} exists in these problems: they have too few steps"
        )
    lenses = _fitted(subjects, stores, targets, config, run)
    for rule, each in targets.items():
        beside = {name: (of_rule[rule], stores.get(name, store)) for name, of_rule in lenses.items()}
        run.outcomes(f"readings_{rule}", readings_beside_controls(model, store, each, beside))
        lenses["tuned lens"][rule].save(run.folder("lens") / rule)
    headline = next(iter(targets))
    grids = sample_grids(model, store, lenses["tuned lens"][headline], targets[headline], config.samples)
    run.results("samples", {"rule": headline, "grids": grids})
    run.results("model", _about(model, store, targets, config))
    test = [p for p, split in zip(store.as_problems(), store.splits, strict=True) if split == "test"][
        : config.necessity
    ]
    if test:
        others = [p for p, split in zip(store.as_problems(), store.splits, strict=True) if split == "train"]
        longest = config.max_new_tokens
        run.outcomes(
            "necessity", judge(model, test, others, config.seed, config.batch_size, longest, written=_is_trained(model))
        )
    run.results("headline", _headline(run, headline))


# What is read --------------------------------------------------------------------------------------------------------


def _control(config: Config) -> str | None:
    return "bundled-control" if config.control is None and config.model == "bundled" else config.control


def _subjects(config: Config) -> dict[str, Any]:
    """The model, and the models it is compared with, by the reader's name."""
    import warnings

    from workings.models.codi import open_model
    from workings.models.device import device_of, dtype_of

    where: dict[str, Any] = {
        "device": device_of(config.device),
        "dtype": dtype_of(config.precision),
        "seed": config.seed,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        model = open_model(config.model, base=config.base, lora_alpha=config.lora_alpha, **where)
    subjects: dict[str, Any] = {"model": model}
    if config.untrained:
        subjects["untrained model"] = model.untrained(config.seed)
    control = _control(config)
    if control is not None:
        subjects["control model"] = open_model(control, **where)
        if subjects["control model"].tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise BadInput(
                f"the control {control} has another vocabulary than {config.model}; they cannot be asked the same"
            )
    return subjects


def _problems(config: Config, run: Run) -> list[Any]:
    """Problems of the reference, each once; malformed rows and repeats are counted in the run."""
    from workings.text.datasets import load_problems

    read = load_problems(config.problems, split=config.problem_split, limit=config.limit, seed=config.seed + 1000)
    unique = list({p.id: p for p in read.problems}.values())
    counts = {"read": read.n_rows, "repeated": len(read.problems) - len(unique), "used": len(unique)}
    run.results("problems", counts | {"malformed": list(map(str, read.malformed))})
    return unique


def _split(problems: Sequence[Any], config: Config) -> dict[str, str]:
    from workings.reading.targets import split_problems

    return split_problems(problems, config.fractions, config.seed)


def _collected(
    subjects: Mapping[str, Any], problems: list[Any], splits: Mapping[str, str], config: Config, run: Run
) -> dict[str, Any]:
    """A store per subject. The others think about exactly the problems that the model could think about."""
    from workings.reading.collection import collect

    stores: dict[str, Any] = {}
    for name, subject in subjects.items():
        stores[name] = collect(
            subject,
            problems,
            run.folder("thoughts") / name.replace(" ", "-"),
            dtype=config.store_dtype,
            batch_size=config.batch_size,
            splits=splits,
            max_new_tokens=config.max_new_tokens if name == "model" else 0,
            max_failures=config.max_failures,
            progress=sys.stderr.isatty(),
        )
        if name == "model":
            problems = stores[name].as_problems()
        elif stores[name].ids != stores["model"].ids:
            raise Failed(f"the {name} failed on {len(stores[name].failures)} problems that the model could think about")
    return stores


# How it is read ------------------------------------------------------------------------------------------------------


def _fitted(
    subjects: Mapping[str, Any], stores: Mapping[str, Any], targets: Mapping[str, Any], config: Config, run: Run
) -> dict[str, Any]:
    """Lenses by reader and rule: the tuned lens, the same on shuffled targets, and the same for each compared model."""
    from workings.reading.fit import fit_each
    from workings.reading.lens import TunedLens

    fit = replace(config.fit, seed=config.seed)
    shuffled = {f"{rule}, shuffled": asked.shuffled(config.seed) for rule, asked in targets.items()}
    lenses: dict[str, Any] = {}
    for name, subject in subjects.items():
        lens = TunedLens.start(subject.unembedding, _layers(subject, config), subject.fingerprint)
        asked = {**targets, **shuffled} if name == "model" else dict(targets)
        log = lambda epoch, fit, name=name, **metrics: run.log(epoch, reader=name, fit=fit, **metrics)
        fits = fit_each(lens, stores[name], asked, fit, log)
        lenses["tuned lens" if name == "model" else name] = {rule: fits[rule].lens for rule in targets}
        if name == "model":
            lenses["shuffled targets"] = {rule: fits[f"{rule}, shuffled"].lens for rule in targets}
    return lenses


def _layers(model: Any, config: Config) -> tuple[str, ...]:
    unknown = [layer for layer in config.layers if layer not in model.layers]
    if unknown:
        raise BadInput(f"no layer {', '.join(unknown)} in this model; it has {', '.join(model.layers)}")
    return config.layers or model.layers


def _is_trained(model: Any) -> bool:
    return not model.fingerprint.startswith("untrained")


def _about(model: Any, store: Any, targets: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Everything about model, problems and targets that the report prints."""
    from workings.models.anatomy import count_parameters
    from workings.reading.intervene import self_check

    answered = store.problems["correct"].drop_nulls()
    return {
        "fingerprint": model.fingerprint,
        "trained": _is_trained(model),
        "family": model.base.config.model_type,
        "parameters": count_parameters(model),
        "blocks": model.n_layers,
        "width": model.width,
        "vocabulary": model.base.get_input_embeddings().weight.shape[0],
        "recurrence": model.config.recurrence,
        "answer_sees": model.config.answer_sees,
        "n_thoughts": model.n_thoughts,
        "layers": store.layers,
        "positions": store.positions,
        "accuracy": [int(answered.sum()), len(answered)],
        "self_check": self_check(model, store.problems["question"].head(8).to_list()),
        "failures": store.failures,
        "targets": {
            rule: {
                "rule": t.rule,
                "asked": int(t.mask.sum()),
                "empty": t.n_empty,
                "new_values": int(t.new_value.sum()),
                "multi_token_share": t.multi_token_share,
            }
            for rule, t in targets.items()
        },
    }


def _headline(run: Run, rule: str) -> dict[str, Any]:
    from workings.judging.verdict import verdict

    record = RunRecord(run.path)
    found = verdict(record.outcomes(f"readings_{rule}"))
    return {"rule": rule, "kind": found.kind, "sentence": found.sentence} | dict(found.numbers)
