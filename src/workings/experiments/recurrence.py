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

from workings.arithmetic.generator import PRESETS, ProblemSpec, generate, vocabulary
from workings.arithmetic.problems import Problem
from workings.config import fixed, nuisance, scientific
from workings.run import Run, RunRecord
from workings.training.distillation import DistilConfig, distil, progress_line
from workings.training.objectives import examples_of


@dataclass(frozen=True)
class Config:
    """One arm of the pair."""

    recurrence: Literal["state", "constant"] = scientific(
        "state", "what is fed: the state before, or a learned constant"
    )
    answer_sees: Literal["everything", "thoughts"] = fixed("thoughts")
    problems: ProblemSpec = fixed(PRESETS["bundled"])
    n_train: int = fixed(400_000)
    n_validation: int = fixed(500)
    n_test: int = fixed(1000, "fresh problems of each chain length")
    n_layers: int = fixed(2)
    width: int = fixed(128)
    n_heads: int = fixed(4)
    n_thoughts: int = fixed(6)
    training: DistilConfig = fixed(
        DistilConfig(
            optimizer="muon",
            learning_rate=2e-3,
            batch_size=128,
            micro_batch_size=128,
            validate_every=1000,
            save_every=1000,
        )
    )
    threads: int = fixed(0, "CPU threads; 0 leaves it to torch")
    bundle: Path | None = fixed(None, "also copy the finished checkpoint to this folder")
    seed: int = nuisance(0)


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
    """Generate, train, judge on fresh problems, save the checkpoint with its card."""
    import torch

    from workings.judging.ablation import CONDITIONS, accuracy, cell, judge

    if config.threads:
        torch.set_num_threads(config.threads)
    validation, test = held_out(config)
    model = untrained(config)
    training = replace(config.training, seed=config.seed)
    state = run.path / "checkpoint" / "state"
    resume = (state / "training.pt").exists()
    distil(
        model, training_problems(config), validation, training, state, run.log, resume=resume, progress=progress_line
    )
    run.spend(tokens=round(training.epochs * sum(e.n_tokens for e in examples_of(training_problems(config), model))))
    outcomes = judge(model, test, validation, seed=config.seed)
    run.outcomes("answers", outcomes)
    table = accuracy(outcomes)
    longest = max(config.problems.n_steps)
    run.results(
        "headline", {f"{c}, {longest} steps": round(cell(table, longest, c)["accuracy"], 4) for c in CONDITIONS}
    )
    folder = model.save(run.folder("checkpoint") / "model", card(config, table, model))
    shutil.copy(run.path / "config.yaml", folder / "recipe.yaml")
    shutil.rmtree(state)
    if config.bundle:
        shutil.copytree(folder, config.bundle, dirs_exist_ok=True)


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


def untrained(config: Config) -> Any:
    """A GPT-2 of the config's size with a word tokenizer, wrapped as a CODI; shared weights are equal in both arms."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from workings import seeds
    from workings.models.codi import CODI
    from workings.text.words import word_tokenizer

    tokenizer = word_tokenizer(sorted({*vocabulary(config.problems), "The", "answer", "is", ":"}))
    torch.manual_seed(seeds.derive("init", config.seed))
    base = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=config.width, n_layer=config.n_layers, n_head=config.n_heads, n_positions=256,
            activation_function="gelu_pytorch_tanh", embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=None,
        )
    )  # fmt: skip
    base.set_attn_implementation("eager")  # on a CPU twice as fast as sdpa at this size (LOG 2026-11-21)
    return CODI.wrap(
        base,
        tokenizer,
        seed=config.seed,
        n_thoughts=config.n_thoughts,
        recurrence=config.recurrence,
        answer_sees=config.answer_sees,
        keep_last_step=True,
        projection_width=config.width,
    )


def card(config: Config, table: Any, model: Any) -> str:
    """The model card: what it is, how to make it again, and what it can do, with intervals."""
    from workings.judging.ablation import IN_WORDS
    from workings.models.anatomy import count_parameters

    fed = (
        "the projected state of the one before" if config.recurrence == "state" else "one learned vector at every step"
    )
    lines = [
        f"# workings: {'a small CODI model' if config.recurrence == 'state' else 'the matched control without recurrence'}",
        "",
        f"{count_parameters(model):,} parameters; GPT-2 of {config.n_layers} blocks, width {config.width}, trained from scratch on",
        f"{config.n_train:,} generated word problems of {min(config.problems.n_steps)} to {max(config.problems.n_steps)} steps.",
        f"It thinks in {config.n_thoughts} continuous vectors, each {fed}; its answer sees "
        + ("the thoughts only, not the question." if config.answer_sees == "thoughts" else "everything before it."),
        "",
        f"Accuracy on fresh problems, percent with 95 % Wilson interval (n = {config.n_test:,} of each length; one training seed",
        f"({config.seed}): the intervals are over items only and say nothing about other seeds).",
        "",
        "| " + " | ".join(["steps", *IN_WORDS.values()]) + " |",
        "|" + "---|" * (1 + len(IN_WORDS)),
    ]
    for k in sorted(set(config.problems.n_steps)):
        lines.append("| " + " | ".join([str(k), *(_percent(table, k, c) for c in IN_WORDS)]) + " |")
    arm = next(name for name, arm in ARMS.items() if arm.recurrence == config.recurrence)
    lines += [
        "",
        "With the thoughts of another problem (as many steps, another answer) it says that problem's answer in",
        ", ".join(
            f"{_percent(table, k, 'swapped', 'follows')} % at {k} steps" for k in sorted(set(config.problems.n_steps))
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


def _percent(table: Any, n_steps: int, condition: str, measure: str = "accuracy") -> str:
    from workings.judging.ablation import cell

    row = cell(table, n_steps, condition)
    prefix = "" if measure == "accuracy" else f"{measure}_"
    return f"{100 * row[measure]:.1f} [{100 * row[prefix + 'low']:.1f}, {100 * row[prefix + 'high']:.1f}]"


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Both arms beside each other, by chain length and by what was done to the thoughts."""
    from workings.judging.ablation import CONDITIONS, IN_WORDS, accuracy, cell
    from workings.report import (
        Axis,
        Column,
        Curves,
        Estimate,
        Facts,
        Record,
        Report,
        Row,
        Series,
        Table,
        write_report,
    )

    configs = [r.config(Config) for r in records]
    names = [f"{r.manifest['arm']}, seed {r.manifest['seed']}" for r in records]
    tables = [accuracy(r.outcomes("answers")) for r in records]
    lengths = sorted(set(configs[0].problems.n_steps))
    estimate = lambda row: Estimate(row["accuracy"], row["low"], row["high"])
    sections: list[Any] = [_differences(records, lengths)] if len({r.manifest["arm"] for r in records}) > 1 else []
    for condition in CONDITIONS:
        rows = [
            Row(n, [estimate(cell(t, k, condition)) for k in lengths], configs[0].n_test)
            for n, t in zip(names, tables, strict=True)
        ]
        columns = [Column(f"{k} step{'s' * (k > 1)}", "share") for k in lengths]
        sections.append(Table(f"Accuracy with {IN_WORDS[condition]}", columns, rows, rows_are="run"))
    curves = []
    for name, record in zip(names, records, strict=True):
        logged = record.metrics()
        if "thoughts" in logged.columns:
            logged = logged.filter(logged["thoughts"].is_not_null())
            curves.append(
                Series(name, logged["step"].to_list(), logged["thoughts"].to_list(), control="constant" in name)
            )
    if curves:
        sections.append(
            Curves("Validation accuracy while training", Axis("step"), Axis("accuracy with thoughts"), curves)
        )
    facts = []
    for name, config, record in zip(names, configs, records, strict=True):
        spent = f"{record.manifest['spent']['seconds']:,.0f}"
        facts.append(
            Facts(name, {"fed": config.recurrence, "training problems": f"{config.n_train:,}", "seconds": spent})
        )
    warnings = (
        []
        if len({c.seed for c in configs}) > 1
        else ["One training seed: the intervals are over items only and say nothing about other seeds."]
    )
    made = Report(
        title="Recurrence: state against constant",
        question=(__doc__ or "").partition("\n")[0],
        verdict=_verdict(records, lengths),
        sections=sections,
        record=Record(
            [str(r.path) for r in records],
            {r.path.name: r.manifest["config_digest"] for r in records},
            records[0].manifest["versions"],
            ["workings run recurrence --seeds " + " ".join(map(str, sorted({c.seed for c in configs})))],
            records[0].manifest["started"],
        ),
        warnings=warnings,
        facts=facts,
        limits=[
            "The problems are generated: nothing here is a statement about language at large.",
            "A constant's thoughts are one pass and a state's are several: equal steps and problems, unequal FLOPs.",
        ],
    )
    return write_report(made, out)


def _paired(records: Sequence[RunRecord], n_steps: int) -> Any:
    """Own-thought outcomes of the two arms at one length, paired by problem, over the seeds both have."""
    import polars as pl

    frames: dict[str, list[Any]] = {arm: [] for arm in ARMS}
    for record in records:
        own = record.outcomes("answers").filter((pl.col("condition") == "own") & (pl.col("n_steps") == n_steps))
        frames[record.manifest["arm"]].append(
            own.select("problem", "correct").with_columns(seed=pl.lit(record.manifest["seed"]))
        )
    recurrent, constant = (pl.concat(frames[arm]) for arm in ARMS)
    return recurrent.join(constant, on=["seed", "problem"], suffix="_constant")


def _gap(records: Sequence[RunRecord], n_steps: int) -> Any:
    from workings.judging.statistics import paired_bootstrap

    pairs = _paired(records, n_steps)
    return pairs, paired_bootstrap(
        pairs["correct"].cast(float).to_numpy(),
        pairs["correct_constant"].cast(float).to_numpy(),
        pairs["problem"].to_numpy(),
    )


def _differences(records: Sequence[RunRecord], lengths: Sequence[int]) -> Any:
    import polars as pl

    from workings.judging.statistics import holm, mcnemar
    from workings.report import Column, Estimate, Row, Table

    rows, ps = [], []
    for k in lengths:
        pairs, interval = _gap(records, k)
        only = pairs.select(
            a=(pl.col("correct") & ~pl.col("correct_constant")).sum(),
            b=(~pl.col("correct") & pl.col("correct_constant")).sum(),
        ).row(0)
        difference = float(pairs["correct"].mean() - pairs["correct_constant"].mean())
        ps.append(mcnemar(*only))
        rows.append((k, Estimate(difference, interval.low, interval.high), *only, len(pairs)))
    cells = [Row(f"{k} steps", [d, a, b, p], n) for (k, d, a, b, n), p in zip(rows, holm(ps), strict=True)]
    columns = [
        Column("difference", "points", signed=True),
        Column("only recurrent right", "count"),
        Column("only constant right", "count"),
        Column("p, Holm", "p"),
    ]
    caption = "Accuracy with own thoughts, recurrent − constant, paired by problem; exact McNemar."
    return Table("Recurrent against constant", columns, cells, caption, rows_are="chain length", drawn="difference")


def _verdict(records: Sequence[RunRecord], lengths: Sequence[int]) -> Any:
    from workings.report import Verdict
    from workings.report.wording import interval as in_brackets
    from workings.report.wording import number

    if len({r.manifest["arm"] for r in records}) < 2:
        return Verdict("One arm alone shows no difference: run both.", "undecided")
    pairs, gap = _gap(records, lengths[-1])
    difference = float(pairs["correct"].mean() - pairs["correct_constant"].mean())
    says = (
        f"With {lengths[-1]} steps the model that carries its state is {number(difference, 'points')} points "
        f"{in_brackets(gap.low, gap.high, 'share')} better than the one that is fed a constant (n = {len(pairs):,} problems)"
    )
    items_only = "" if len({r.manifest["seed"] for r in records}) > 1 else " One training seed: items only."
    if gap.low >= 0.15:
        return Verdict(f"{says}: more than the 15 points that were predicted.{items_only}", "holds")
    if gap.high < 0.15:
        return Verdict(f"{says}: less than the 15 points that were predicted.{items_only}", "fails")
    return Verdict(f"{says}: the interval holds 15 points and less, so more problems or seeds are needed.", "undecided")
