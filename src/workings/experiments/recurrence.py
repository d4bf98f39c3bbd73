"""Does a shallow model need to carry a state from thought to thought, when a chain is longer than the model is deep?

Two arms train from scratch on the same generated problems, in the same order, for the same number of steps. In `recurrent` each
thought is the projected state of the one before (CODI); in `constant` the same learned vector is fed at every step, so nothing
is carried. In both the answer sees the thoughts only, not the question. The pair is what the package bundles: `recurrent` is
the embedded default, `constant` its matched control.

Prediction (2026-11-21): both answer one step; `constant` falls behind as chains grow longer than its two blocks, by 15 points
or more on the longest; thoughts swapped between problems take the answer with them in `recurrent`.
Since 2026-11-25 no test problem shares its structure (numbers and operations) with a training problem, and the claim is about the
method: five fresh seeds an arm, pooled. Prediction for them (2026-11-25): on the longest chains the interval over seeds and
structures lies above 15 points again; both answer short held-out chains, because their steps occur in other chains.
Matched: initial weights of all shared parameters, problems, their order, optimizer steps, number of thoughts. Not matched: the
projection (only `recurrent` has one) and FLOPs (a constant's thoughts are one pass); both are reported.
Measure: accuracy on held-out problems of each chain length, the same in every run; thoughts own, zeroed, averaged, frozen and
swapped, and the chain written in words (the positive control). n counts structures. Stop rule: the number of steps is fixed
beforehand; nothing is selected on test.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from workings import judging, models, training
from workings.arithmetic.generator import PRESETS, ProblemSpec, generate, vocabulary
from workings.arithmetic.problems import Problem
from workings.config import check_ranges, fixed, nuisance, scientific
from workings.errors import BadInput
from workings.experiment import finished
from workings.files import digests_in, sealed, write_atomic, write_with
from workings.models.configs import GPT2Config
from workings.run import SHIPPED_RUNS, Run, RunRecord
from workings.text.tokenizer import word_tokenizer
from workings.training.recipes import DistilConfig


@dataclass(frozen=True)
class Config:
    """One arm of the pair."""

    recurrence: Literal["state", "constant"] = scientific(
        "state", "what each thought is computed from: the state before it, or a learned constant"
    )
    answer_sees: Literal["everything", "thoughts"] = fixed(
        "thoughts", "what the answer attends to: question and thoughts, or thoughts only"
    )
    problems: ProblemSpec = fixed(
        PRESETS["bundled"], "specification of the generated problems, each part of which has structures of its own"
    )
    n_train: int = fixed(400_000, "number of training problems", at_least=1)
    n_validation: int = fixed(500, "number of validation problems", at_least=1)
    n_test: int = fixed(1000, "number of held-out test problems per chain length", at_least=1)
    n_layers: int = fixed(2, "number of transformer blocks", at_least=1)
    width: int = fixed(128, "width of the residual stream", at_least=1)
    n_heads: int = fixed(4, "number of attention heads per block", at_least=1)
    n_thoughts: int = fixed(6, "number of continuous thoughts before the answer", at_least=1)
    training: DistilConfig = fixed(
        DistilConfig(
            optimizer="muon",
            learning_rate=2e-3,
            batch_size=128,
            micro_batch_size=128,
            validate_every=1000,
            save_every=1000,
        ),
        "recipe of the training",
    )
    threads: int = fixed(0, "number of CPU threads; 0: torch decides", at_least=0)
    seed: int = nuisance(0, "random seed for training problems, initial weights and order")
    former_fields = ("bundle",)  # the folder to which a checkpoint was copied: `workings` bundles runs now

    def __post_init__(self) -> None:
        check_ranges(self)
        GPT2Config(self.n_layers, self.n_heads, self.width)  # refuses sizes that do not fit each other


ARMS = {"recurrent": Config(), "constant": Config(recurrence="constant")}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "n_train": 640,
        "n_validation": 20,
        "n_test": 30,
        "width": 32,
        "training": {"validate_every": 1000, "batch_size": 64, "micro_batch_size": 64},
    },
    "mini": {},
    "full": {"n_train": 5_000_000, "n_test": 5000},
}


def inputs(config: Config) -> dict[str, str]:
    """Nothing is read from outside: the problems are generated from config and seed."""
    return {}


def run_arm(config: Config, run: Run) -> None:
    """Generate, train, judge on fresh problems, save the checkpoint with its card. Under torchrun the others `follow`."""
    with training.lead(run, "cpu") as session:
        if session is not None:  # else it was killed after it had written everything
            validation, test = held_out(config)
            _finish(config, train(config, session, validation, run), validation, test, run)


def follow(config: Config) -> None:
    """Take part in the training as any process but rank 0."""
    with training.join("cpu") as session:
        if session is not None:
            train(config, session, [], None)


def train(config: Config, session: training.Session, validation: Sequence[Problem], run: Run | None) -> models.CODI:
    """This process's part of the training; `run` is rank 0's, which alone validates and writes."""
    training.limit_threads(config.threads)
    recipe = replace(config.training, seed=config.seed)
    return training.distil(
        untrained(config),
        training_problems(config),
        validation,
        recipe,
        session.folder,
        group=session.group,
        run=run,
        resume=session.resume,
    )


def _finish(
    config: Config, model: models.CODI, validation: Sequence[Problem], test: Sequence[Problem], run: Run
) -> None:
    """Outcomes on the test problems; the checkpoint; at the very last the resume point goes."""
    outcomes = judging.ablate(model, test, validation)  # the same donors in every run
    run.outcomes("answers", outcomes)
    table = judging.ablation.accuracy(outcomes)
    longest = max(config.problems.n_steps)
    shown = {c: table[longest, c].correct for c in judging.ablation.CONDITIONS}
    counts = {"n": shown["own"].n, "structures": shown["own"].n_clusters}
    run.results("headline", counts | {f"{c}, {longest} steps": round(one.value, 4) for c, one in shown.items()})
    folder = model.save(
        training.cleared(run.folder("checkpoint") / "model"), card(config, {config.seed: outcomes}, model)
    )
    shutil.copy(run.path / "config.yaml", folder / "recipe.yaml")
    training.drop_resume_point(run.folder("checkpoint"))


def training_problems(config: Config) -> Iterator[Problem]:
    """The same stream in every arm; drawn again rather than kept, for there may be millions."""
    return generate(config.n_train, replace(config.problems, structures="training"), config.seed)


def held_out(config: Config) -> tuple[list[Problem], list[Problem]]:
    """Validation and test problems, the same in every arm and for every seed, so that all runs are paired by problem.

    The three parts have different structures, and so no problem in common.
    """
    validation = generate(config.n_validation, replace(config.problems, structures="validation"), seed=0)
    test: list[Problem] = []
    for k in sorted(set(config.problems.n_steps)):
        test += generate(config.n_test, replace(config.problems, structures="test", n_steps=(k,)), seed=0)
    return list(validation), test


def untrained(config: Config) -> models.CODI:
    """A GPT-2 of the config's size with a word tokenizer, wrapped as a CODI; shared weights are equal in both arms."""
    tokenizer = word_tokenizer(sorted({*vocabulary(config.problems), "The", "answer", "is", ":"}))
    return models.CODI.wrap(
        training.new_base(tokenizer, config.n_layers, config.width, config.n_heads, config.seed),
        tokenizer,
        seed=config.seed,
        n_thoughts=config.n_thoughts,
        recurrence=config.recurrence,
        answer_sees=config.answer_sees,
        keep_last_step=True,
        projection_width=config.width,
    )


# The card, and what is shipped -----------------------------------------------------------------------------------------


def card(config: Config, outcomes: Mapping[int, pl.DataFrame], model: models.CODI) -> str:
    """The model card: what it is, how to make it again, and what it can do, with intervals.

    Args:
        config: The model's own.
        outcomes: Outcomes by training seed, the model's own first; those of others show what the method does.
        model: Counted.
    """
    fed = (
        "the projected state of the one before" if config.recurrence == "state" else "one learned vector at every step"
    )
    own = outcomes[config.seed]
    table = judging.ablation.accuracy(own)
    lengths, n_parameters = sorted(set(config.problems.n_steps)), models.count_parameters(model)
    n_structures = dict(own.group_by("n_steps").agg(pl.col("structure").n_unique()).iter_rows())
    counted = ", ".join(f"{n_structures[k]:,}" for k in lengths)
    lines = [
        f"# workings: {'a small CODI model' if config.recurrence == 'state' else 'the matched control without recurrence'}",
        "",
        f"{n_parameters:,} parameters; GPT-2 of {config.n_layers} blocks, width {config.width}, trained from scratch on",
        f"{config.n_train:,} generated word problems of {lengths[0]} to {lengths[-1]} steps.",
        f"It thinks in {config.n_thoughts} continuous vectors, each {fed}; its answer sees "
        + ("the thoughts only, not the question." if config.answer_sees == "thoughts" else "everything before it."),
        "",
        "No problem below shares its structure (the numbers and operations of its chain) with a training problem.",
        "The single steps of a short chain do occur in other training chains.",
        "",
        f"Accuracy on {config.n_test:,} such problems of each length, percent with 95 % Wilson interval. n counts structures:",
        f"{counted}, by length. The intervals say nothing about training seeds other than {config.seed}.",
        "",
        *_accuracy_table(table, lengths),
        "",
        "With the thoughts of another problem (as many steps, another answer) it says that problem's answer in",
        ", ".join(
            f"{_percent(follows)} % at {k} step{'s' * (k > 1)}"
            for k in lengths
            if (follows := table[k, "swapped"].follows) is not None
        )
        + ".",
        "",
    ]
    if len(outcomes) > 1:
        seeds = ", ".join(map(str, outcomes))
        lines += [
            f"The method, not this model alone: the mean of {len(outcomes)} training seeds ({seeds}),",
            "with intervals over seeds and structures.",
            "",
            *_accuracy_table(judging.ablation.accuracy_over_seeds(list(outcomes.values())), lengths),
            "",
            "`workings report bundled` shows both arms and every seed.",
            "",
        ]
    arm = next(name for name, arm in ARMS.items() if arm.recurrence == config.recurrence)
    lines += [
        "Made by this project, data included; retrain with",
        "",
        f"    workings run recurrence --arm {arm} --seeds {' '.join(map(str, outcomes))}",
        "",
        "It adds and multiplies small numbers in the stories of its own generator and can do nothing else.",
        "",
    ]
    return "\n".join(lines)


def _accuracy_table(
    table: Mapping[tuple[int, str], judging.ablation.Accuracy], lengths: Sequence[int]
) -> Iterator[str]:
    in_words = judging.ablation.IN_WORDS
    yield "| " + " | ".join(["steps", *in_words.values()]) + " |"
    yield "|" + "---|" * (1 + len(in_words))
    for k in lengths:
        yield "| " + " | ".join([str(k), *(_percent(table[k, c].correct) for c in in_words)]) + " |"


def _percent(share: judging.Measure) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def bundle(runs: Sequence[str | Path], folder: Path = SHIPPED_RUNS.parent) -> None:
    """Ship finished runs: of each arm the checkpoint of the first seed, with a card on all seeds, and what every run found.

    Args:
        runs: Runs of both arms with the same seeds, equal but for arm and seed.
        folder: The package's own folder of bundled models.

    Raises:
        BadInput: Where a run is not finished, an arm or seed is missing, or the runs differ in something else.
    """
    records = [RunRecord.find(run) for run in runs]
    finished(records)
    arms = judging.Arms(records)
    if not arms.has(*ARMS) or any(sorted(of_seed) != arms.seeds(*ARMS) for of_seed in arms.runs.values()):
        raise BadInput(f"the pair is shipped whole: give runs of {' and '.join(ARMS)} with the same seeds")
    if len({replace(record.config(Config), recurrence="state", seed=0, threads=0) for record in records}) > 1:
        raise BadInput("these runs differ in more than arm and seed: give those of one recipe")
    shutil.rmtree(folder / SHIPPED_RUNS.name, ignore_errors=True)
    for arm in ARMS:
        of_seed = dict(sorted(arms.runs[arm].items()))
        first = next(iter(of_seed.values()))
        shutil.copytree(first.path / "checkpoint" / "model", training.cleared(folder / arm), dirs_exist_ok=True)
        outcomes = {seed: record.outcomes("answers") for seed, record in of_seed.items()}
        write_atomic(folder / arm / "README.md", card(first.config(Config), outcomes, models.CODI.load(folder / arm)))
        for seed, record in of_seed.items():
            _ship_record(record, folder / SHIPPED_RUNS.name / f"{arm}-{seed}")


def _ship_record(record: RunRecord, folder: Path) -> None:
    """Copy the record of a run without its checkpoint and its source, so that it is small; what is copied still verifies."""
    answers = "outcomes/answers.parquet"
    for name in ("config.yaml", "metrics.jsonl", "results/headline.json", answers):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.path / name, folder / name)
    write_with(folder / answers, lambda path: record.outcomes("answers").write_parquet(path, compression_level=22))
    write_atomic(folder / "manifest.json", sealed(replace(record.manifest, artifacts=digests_in(folder))))
