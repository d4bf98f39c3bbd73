"""Runs of a lens read layer by layer or position by position → whether any is the best, beside what sees no thought."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from workings.experiments.default_report import report_on_runs
from workings.judging.lens_study import BestOf, Study, best_of
from workings.judging.scores import score
from workings.judging.statistics import ALPHA
from workings.report import Column, Conclusion, Estimate, Row, Section, Table
from workings.report.wording import number
from workings.run import RunRecord


def report_by(column: str, records: Sequence[RunRecord], out: Path) -> Path:
    """Show the first run's lens by layer or by position, and test its best cell in every run.

    Args:
        column: "layer" or "position".
        records: Runs of one experiment.
        out: Folder of the report.
    """
    tested = {record.manifest.seed: _tested(record, column) for record in records}
    first = next(iter(tested.values()))
    return report_on_runs(
        records,
        out,
        title=records[0].manifest.experiment,
        conclusion=_conclusion(column, list(tested.values())),
        sections=[_scores(records[0], column), _tests(column, tested)],
        limits=[f"A {column} that reads best need not be the one that is used: edits ask that."] if first else [],
    )


def _tested(record: RunRecord, column: str) -> BestOf:
    """The best cell, of what the lens names beyond the position's majority."""
    readings = record.outcomes("readings").filter(split="test")
    controls = record.outcomes("controls").filter(split="test", reader="majority")
    keys = ["problem", "position", "target"]
    own = readings.with_columns(hit=(pl.col("rank") < 1).cast(pl.Float64))
    guessed = controls.with_columns(guess=(pl.col("rank") < 1).cast(pl.Float64)).select(*keys, "guess")
    own = own.join(guessed, on=keys, how="left").with_columns(value=pl.col("hit") - pl.col("guess"))
    if column == "position":
        layer = record.result("study", Study).cells[0].layer
        own = own.filter(layer=layer)
    table = own.group_by("problem", column).agg(pl.col("value").mean()).pivot(column, index="problem", values="value")
    return best_of(table, [name for name in table.columns if name != "problem"], seed=record.manifest.seed)


def _scores(record: RunRecord, column: str) -> Section:
    study = record.result("study", Study)
    readings, controls = record.outcomes("readings").drop("cell"), record.outcomes("controls").drop("target_rule")
    if column == "position":
        readings = readings.filter(layer=study.cells[0].layer)
    order = study.layers if column == "layer" else study.positions
    scored = score(readings, (column,), simultaneously=True).rows_by_key(column, named=True, unique=True)
    by_control = () if column == "layer" else (column,)
    guessed = score(controls.filter(reader="majority"), by_control)
    rows = []
    for name in (name for name in order if name in scored):
        own = scored[name]
        theirs = guessed if not by_control else guessed.filter(pl.col(column) == name)
        cells = [Estimate(own[key], own[f"{key}_low"], own[f"{key}_high"]) for key in ("top1", "top5", "top10")]
        rows.append(Row(name, [*cells, theirs["top1"].to_list()[0]], own["n_problems"]))
    columns = [*(Column(name, "share") for name in ("top-1", "top-5", "top-10")), Column("majority, top-1", "share")]
    caption = f"Test problems of the first run; the intervals hold for all rows at once. Target: {study.cells[0].rule}."
    return Table(f"The lens by {column}", columns, rows, caption, rows_are=column, drawn="top-1")


def _tests(column: str, tested: dict[int, BestOf]) -> Table:
    rows = [Row(f"seed {seed}", [one.best, one.largest, one.expected, one.p], one.n) for seed, one in tested.items()]
    columns = [
        Column(f"best {column}"),
        Column("beyond the majority", "points", signed=True),
        Column("of equal ones expected", "points", signed=True),
        Column("p", "p"),
    ]
    caption = (
        f"The largest mean over the problems' slots, against that of {column}s whose values are drawn anew in each problem: what "
        f"the best of equal {column}s looks like."
    )
    return Table(f"Is any {column} the best?", columns, rows, caption, rows_are="run")


def _conclusion(column: str, tested: Sequence[BestOf]) -> Conclusion:
    found = [one for one in tested if one.p <= ALPHA]
    same = len({one.best for one in tested}) == 1
    one = tested[0]
    if len(found) == len(tested) and same:
        excess = number(one.largest - one.expected, "points")
        return Conclusion(f"{one.best} is the best {column}: {excess} points above the best of equal ones.", "holds")
    if found:
        return Conclusion(f"Another {column} is best from run to run, or in some runs none is.", "undecided")
    return Conclusion(f"No {column} is shown to be the best: equal ones look like this.", "undecided")
