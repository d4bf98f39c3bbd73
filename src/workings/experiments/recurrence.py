"""Does a shallow model need to carry a state from thought to thought, when a chain is longer than the model is deep?

Two arms train from scratch on the same generated problems, in the same order, for the same number of steps. In `recurrent` each
thought is the projected state of the one before (CODI); in `constant` the same learned vector is fed at every step, so nothing
is carried. In both the answer sees the thoughts only, not the question. The pair is what the package bundles: `recurrent` is
the embedded default, `constant` its matched control.

Prediction (2026-11-21): both answer one step; `constant` falls behind as chains grow longer than its two blocks, by 15 points
or more on the longest; thoughts swapped between problems take the answer with them in `recurrent`.
Matched: initial weights of all shared parameters, problems, their order, optimizer steps, number of thoughts. Not matched: the
projection (only `recurrent` has one) and FLOPs (a constant's thoughts are one pass); both are reported.
Measure: accuracy on fresh problems of each chain length, thoughts own, zeroed, averaged, frozen and swapped, and the chain
written in words (the positive control). Stop rule: the number of steps is fixed beforehand; nothing is selected on test.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workings import judging, models, training
from workings.arithmetic.generator import PRESETS, ProblemSpec, generate, vocabulary
from workings.arithmetic.problems import Problem
from workings.config import fixed, nuisance, scientific
from workings.run import Run
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
    problems: ProblemSpec = fixed(PRESETS["bundled"], "specification of the generated problems")
    n_train: int = fixed(400_000, "number of training problems")
    n_validation: int = fixed(500, "number of validation problems")
    n_test: int = fixed(1000, "number of fresh test problems per chain length")
    n_layers: int = fixed(2, "number of transformer blocks")
    width: int = fixed(128, "width of the residual stream")
    n_heads: int = fixed(4, "number of attention heads per block")
    n_thoughts: int = fixed(6, "number of continuous thoughts before the answer")
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
    threads: int = fixed(0, "number of CPU threads; 0: torch decides")
    bundle: Path | None = fixed(None, "folder to which the finished checkpoint is copied")
    seed: int = nuisance(0, "random seed for problems, initial weights and order")


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
    outcomes = judging.ablate(model, test, validation, seed=config.seed)
    run.outcomes("answers", outcomes)
    table = judging.ablation.accuracy(outcomes)
    longest = max(config.problems.n_steps)
    shown = {c: table[longest, c].correct.value for c in judging.ablation.CONDITIONS}
    run.results("headline", {f"{c}, {longest} steps": round(share, 4) for c, share in shown.items()})
    folder = model.save(training.cleared(run.folder("checkpoint") / "model"), card(config, table, model))
    shutil.copy(run.path / "config.yaml", folder / "recipe.yaml")
    if config.bundle:
        shutil.copytree(folder, config.bundle, dirs_exist_ok=True)
    training.drop_resume_point(run.folder("checkpoint"))


def training_problems(config: Config) -> Iterator[Problem]:
    """The same stream in every arm; drawn again rather than kept, for there may be millions."""
    return generate(config.n_train, config.problems, config.seed)


def held_out(config: Config) -> tuple[list[Problem], list[Problem]]:
    """Validation and test problems, the same in every arm; none is a training problem, none is in both."""
    seen = {p.id for p in training_problems(config)}
    validation = list(generate(config.n_validation, config.problems, config.seed + 1, without=seen))
    seen |= {p.id for p in validation}
    test: list[Problem] = []
    for k in sorted(set(config.problems.n_steps)):
        test += generate(config.n_test, replace(config.problems, n_steps=(k,)), config.seed + 2, without=seen)
    return validation, test


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


def card(config: Config, table: dict[tuple[int, str], judging.ablation.Accuracy], model: models.CODI) -> str:
    """The model card: what it is, how to make it again, and what it can do, with intervals."""
    in_words, n_parameters = judging.ablation.IN_WORDS, models.count_parameters(model)
    fed = (
        "the projected state of the one before" if config.recurrence == "state" else "one learned vector at every step"
    )
    lines = [
        f"# workings: {'a small CODI model' if config.recurrence == 'state' else 'the matched control without recurrence'}",
        "",
        f"{n_parameters:,} parameters; GPT-2 of {config.n_layers} blocks, width {config.width}, trained from scratch on",
        f"{config.n_train:,} generated word problems of {min(config.problems.n_steps)} to {max(config.problems.n_steps)} steps.",
        f"It thinks in {config.n_thoughts} continuous vectors, each {fed}; its answer sees "
        + ("the thoughts only, not the question." if config.answer_sees == "thoughts" else "everything before it."),
        "",
        f"Accuracy on fresh problems, percent with 95 % Wilson interval (n = {config.n_test:,} of each length; one training seed",
        f"({config.seed}): the intervals are over items only and say nothing about other seeds).",
        "",
        "| " + " | ".join(["steps", *in_words.values()]) + " |",
        "|" + "---|" * (1 + len(in_words)),
    ]
    for k in sorted(set(config.problems.n_steps)):
        lines.append("| " + " | ".join([str(k), *(_percent(table[k, c].correct) for c in in_words)]) + " |")
    arm = next(name for name, arm in ARMS.items() if arm.recurrence == config.recurrence)
    lines += [
        "",
        "With the thoughts of another problem (as many steps, another answer) it says that problem's answer in",
        ", ".join(
            f"{_percent(follows)} % at {k} steps"
            for k in sorted(set(config.problems.n_steps))
            if (follows := table[k, "swapped"].follows) is not None
        )
        + ".",
        "",
        "Made by this project, data included; retrain with",
        "",
        f"    workings run recurrence --arm {arm} --seeds {config.seed}",
        "",
        "It adds and multiplies small numbers in the stories of its own generator and can do nothing else.",
        "",
    ]
    return "\n".join(lines)


def _percent(share: judging.Measure) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
