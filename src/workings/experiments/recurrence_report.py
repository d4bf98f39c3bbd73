"""Runs of `recurrence` → their report: both arms beside each other, by chain length and by what was done to the thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workings.experiments.recurrence import ARMS, Config
from workings.run import RunRecord


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Both arms beside each other, by chain length and by what was done to the thoughts."""
    from workings.judging.ablation import CONDITIONS, IN_WORDS, accuracy, cell
    from workings.report import (
        Axis,
        Column,
        Curves,
        Estimate,
        Properties,
        Provenance,
        Report,
        Row,
        Series,
        Table,
        write_report,
    )

    configs = [r.config(Config) for r in records]
    names = [f"{r.manifest.arm}, seed {r.manifest.seed}" for r in records]
    tables = [accuracy(r.outcomes("answers")) for r in records]
    lengths = sorted(set(configs[0].problems.n_steps))
    estimate = lambda row: Estimate(row["accuracy"], row["low"], row["high"])
    sections: list[Any] = [_differences(records, lengths)] if len({r.manifest.arm for r in records}) > 1 else []
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
        spent = f"{record.manifest.spent.seconds:,.0f}"
        facts.append(
            Properties(name, {"fed": config.recurrence, "training problems": f"{config.n_train:,}", "seconds": spent})
        )
    warnings = (
        []
        if len({c.seed for c in configs}) > 1
        else ["One training seed: the intervals are over items only and say nothing about other seeds."]
    )
    made = Report(
        title="Recurrence: state against constant",
        question=records[0].question,
        conclusion=_verdict(records, lengths),
        sections=sections,
        provenance=Provenance.of_runs(
            {r.path: r.manifest.config_digest for r in records},
            records[0].manifest.versions,
            "workings run recurrence --seeds " + " ".join(map(str, sorted({c.seed for c in configs}))),
            records[0].manifest.started,
        ),
        warnings=warnings,
        properties=facts,
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
        frames[record.manifest.arm].append(
            own.select("problem", "correct").with_columns(seed=pl.lit(record.manifest.seed))
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
    from workings.report import Conclusion
    from workings.report.wording import interval as in_brackets
    from workings.report.wording import number

    if len({r.manifest.arm for r in records}) < 2:
        return Conclusion("One arm alone shows no difference: run both.", "undecided")
    pairs, gap = _gap(records, lengths[-1])
    difference = float(pairs["correct"].mean() - pairs["correct_constant"].mean())
    says = (
        f"With {lengths[-1]} steps the model that carries its state is {number(difference, 'points')} points "
        f"{in_brackets(gap.low, gap.high, 'share')} better than the one that is fed a constant (n = {len(pairs):,} problems)"
    )
    items_only = "" if len({r.manifest.seed for r in records}) > 1 else " One training seed: items only."
    if gap.low >= 0.15:
        return Conclusion(f"{says}: more than the 15 points that were predicted.{items_only}", "holds")
    if gap.high < 0.15:
        return Conclusion(f"{says}: less than the 15 points that were predicted.{items_only}", "fails")
    return Conclusion(
        f"{says}: the interval holds 15 points and less, so more problems or seeds are needed.", "undecided"
    )
