"""Runs of `recurrence`, all seeds pooled → their report: both arms, by chain length and by what was done to the thoughts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from workings.experiments.default_report import (
    FAMILY_INTERVALS,
    cost_table,
    curves,
    difference_table,
    estimate_of,
    grouped,
    n_seeds,
    report_on_runs,
)
from workings.experiments.recurrence import ARMS, Config
from workings.judging.ablation import CONDITIONS, IN_WORDS, Accuracy, accuracy, accuracy_over_seeds
from workings.judging.arms import Arms
from workings.judging.paired import PairedDifference, with_holm
from workings.judging.statistics import ONE_SEED, Measure
from workings.report import Axis, Column, Conclusion, Estimate, Properties, Row, Section, Table
from workings.run import RunRecord

PREDICTED = 0.15  # by how much at least `constant` was to fall behind on the longest chains
CURVES = {"thoughts": "accuracy with thoughts"}


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Show both arms beside each other, by chain length and by what was done to the thoughts."""
    records = sorted(records, key=lambda one: (list(ARMS).index(one.manifest.arm), one.manifest.seed))
    configs = [record.config(Config) for record in records]
    names = [f"{record.manifest.arm}, seed {record.manifest.seed}" for record in records]
    lengths = sorted(set(configs[0].problems.n_steps))
    outcomes = {record: record.outcomes("answers") for record in records}
    counted = _counted(outcomes[records[0]], lengths)
    found = _differences(Arms(records), lengths)
    sections: list[Section] = [_difference_table(found, counted)] if found else []
    sections += _accuracy_tables(outcomes, lengths, counted)
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


def _counted(outcomes: pl.DataFrame, lengths: Sequence[int]) -> str:
    """What n counts, by chain length."""
    own = [outcomes.filter(condition="own", n_steps=n_steps) for n_steps in lengths]
    if "structure" not in outcomes.columns:
        return (
            "n counts problems; this run is from before structures were held out, and some may have been in training."
        )
    n_problems = dict.fromkeys(f"{len(rows):,}" for rows in own)
    n_structures = ", ".join(f"{rows['structure'].n_unique():,}" for rows in own)
    return (
        f"n counts structures, the numbers and operations of a chain: {n_structures} with {lengths[0]} to {lengths[-1]} steps, "
        f"told in {', '.join(n_problems)} problems each. None was in training."
    )


def _difference_table(found: dict[int, PairedDifference], counted: str) -> Table:
    one_seed = all(one.n_seeds == 1 for one in found.values())
    caption = "Accuracy with own thoughts, recurrent − constant, paired by problem" + (
        "; by structure, where problems share one"
        if one_seed
        else " and by seed; discordant counts are sums over seeds"
    )
    caption += f". p is adjusted for all rows (Holm); {FAMILY_INTERVALS}"
    counts = {"only recurrent right": "n_only_treatment", "only constant right": "n_only_baseline"}
    rows = {f"{n_steps} step{'s' * (n_steps > 1)}": one for n_steps, one in found.items()}
    title = "Recurrent against constant"
    return difference_table(title, rows, counts, f"{caption} {counted}", rows_are="chain length")


def _accuracy_tables(outcomes: Mapping[RunRecord, pl.DataFrame], lengths: Sequence[int], counted: str) -> list[Table]:
    """One table a condition of the thoughts: a row an arm over its seeds, then a row a run; a column a chain length."""
    arms = {arm: some for arm, some in grouped(list(outcomes)).items() if len(some) > 1}
    tables = {
        f"{arm}, {n_seeds(len(some))}": accuracy_over_seeds([outcomes[record] for record in some])
        for arm, some in arms.items()
    }
    tables |= {
        f"{record.manifest.arm}, seed {record.manifest.seed}": accuracy(frame) for record, frame in outcomes.items()
    }
    columns = [Column(f"{n_steps} step{'s' * (n_steps > 1)}", "share") for n_steps in lengths]
    caption = "Rows of several seeds: intervals over seeds and structures; of one: over structures." if arms else ""

    def table(title: str, shown: Callable[[Accuracy], Measure | None], condition: str, caption: str) -> Table:
        rows = [
            Row(name, [_cell(shown(found[n_steps, condition])) for n_steps in lengths])
            for name, found in tables.items()
        ]
        return Table(title, columns, rows, caption, rows_are="runs")

    first = f"{caption} {counted}".strip()
    made = [
        table(f"Accuracy with {IN_WORDS[condition]}", lambda one: one.correct, condition, "" if at else first)
        for at, condition in enumerate(CONDITIONS)
    ]
    title = f"The other problem's answer, with {IN_WORDS['swapped']}"
    return [*made, table(title, lambda one: one.follows, "swapped", "Above: right for the problem asked.")]


def _cell(share: Measure | None) -> Estimate | None:
    return None if share is None else estimate_of(share)


def _conclusion(found: dict[int, PairedDifference]) -> Conclusion:
    """Judge the difference on the longest chains against the points that were predicted."""
    if not found:
        return Conclusion("One arm alone shows no difference: run both.", "undecided")
    n_steps = max(found)
    one = found[n_steps]
    says = (
        f"With {n_steps} steps the model that carries its state is {one.in_points} better than the one that is fed a constant "
        f"(n = {one.n_items:,} structures, {n_seeds(one.n_seeds)})"
    )
    items_only = f" {ONE_SEED}" if one.n_seeds == 1 else ""
    if one.interval.low >= PREDICTED:
        return Conclusion(f"{says}: more than the 15 points that were predicted.{items_only}", "holds")
    if one.interval.high < PREDICTED:
        return Conclusion(f"{says}: less than the 15 points that were predicted.{items_only}", "fails")
    return Conclusion(
        f"{says}: the interval holds 15 points and less, so more problems or seeds are needed.", "undecided"
    )
