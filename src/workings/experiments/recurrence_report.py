"""Runs of `recurrence` → their report: both arms beside each other, by chain length and by what was done to the thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from workings.experiments.default_report import cost_table, curves, difference_table, estimate_of, report_on_runs
from workings.experiments.recurrence import ARMS, Config
from workings.judging.ablation import CONDITIONS, IN_WORDS, accuracy
from workings.judging.arms import Arms
from workings.judging.paired import PairedDifference, with_holm
from workings.judging.statistics import ONE_SEED
from workings.report import Axis, Column, Conclusion, Properties, Row, Section, Table
from workings.run import RunRecord

PREDICTED = 0.15  # by how much at least `constant` was to fall behind on the longest chains
CURVES = {"thoughts": "accuracy with thoughts"}


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Show both arms beside each other, by chain length and by what was done to the thoughts."""
    configs = [record.config(Config) for record in records]
    names = [f"{record.manifest.arm}, seed {record.manifest.seed}" for record in records]
    lengths = sorted(set(configs[0].problems.n_steps))
    found = _differences(Arms(records), lengths)
    sections: list[Section] = [_difference_table(found)] if found else []
    sections += _accuracy_tables(dict(zip(names, records, strict=True)), lengths)
    sections += curves(records, "Validation accuracy while training", CURVES, Axis(CURVES["thoughts"]), ["constant"])
    return report_on_runs(
        records,
        out,
        title="Recurrence: state against constant",
        conclusion=_conclusion(found),
        sections=[*sections, cost_table(records)],
        properties=[
            Properties(name, {"fed": config.recurrence, "training problems": f"{config.n_train:,}"})
            for name, config in zip(names, configs, strict=True)
        ],
        limits=[
            "The problems are generated: nothing here is a statement about language at large.",
            "A constant's thoughts are one pass and a state's are several: equal steps and problems, unequal FLOPs.",
        ],
    )


def _differences(arms: Arms, lengths: Sequence[int]) -> dict[int, PairedDifference]:
    """{chain length: recurrent − constant with own thoughts}, where both arms were run."""
    if not arms.has(*ARMS):
        return {}
    own = pl.col("condition") == "own"
    found = [arms.difference(*ARMS, "answers", where=own & (pl.col("n_steps") == n_steps)) for n_steps in lengths]
    return dict(zip(lengths, with_holm(found), strict=True))


def _difference_table(found: dict[int, PairedDifference]) -> Table:
    one_seed = all(one.n_seeds == 1 for one in found.values())
    caption = "Accuracy with own thoughts, recurrent − constant, paired by problem" + (
        "; exact McNemar." if one_seed else " and by seed; discordant counts are sums over seeds."
    )
    counts = {"only recurrent right": "n_only_treatment", "only constant right": "n_only_baseline"}
    rows = {f"{n_steps} steps": one for n_steps, one in found.items()}
    return difference_table("Recurrent against constant", rows, counts, caption, rows_are="chain length")


def _accuracy_tables(runs: dict[str, RunRecord], lengths: Sequence[int]) -> list[Table]:
    """One table a condition of the thoughts: a row a run, a column a chain length."""
    tables = {name: accuracy(record.outcomes("answers")) for name, record in runs.items()}
    columns = [Column(f"{n_steps} step{'s' * (n_steps > 1)}", "share") for n_steps in lengths]
    made = []
    for condition in CONDITIONS:
        rows = []
        for name, table in tables.items():
            right = [table[n_steps, condition].correct for n_steps in lengths]
            rows.append(Row(name, [estimate_of(one) for one in right], right[0].n))
        made.append(Table(f"Accuracy with {IN_WORDS[condition]}", columns, rows, rows_are="run"))
    return made


def _conclusion(found: dict[int, PairedDifference]) -> Conclusion:
    """Judge the difference on the longest chains against the points that were predicted."""
    if not found:
        return Conclusion("One arm alone shows no difference: run both.", "undecided")
    n_steps = max(found)
    one = found[n_steps]
    says = (
        f"With {n_steps} steps the model that carries its state is {one.in_points} better than the one that is fed a constant "
        f"(n = {one.n_items:,} problems)"
    )
    items_only = f" {ONE_SEED}" if one.n_seeds == 1 else ""
    if one.interval.low >= PREDICTED:
        return Conclusion(f"{says}: more than the 15 points that were predicted.{items_only}", "holds")
    if one.interval.high < PREDICTED:
        return Conclusion(f"{says}: less than the 15 points that were predicted.{items_only}", "fails")
    return Conclusion(
        f"{says}: the interval holds 15 points and less, so more problems or seeds are needed.", "undecided"
    )
