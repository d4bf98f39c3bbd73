"""Runs of `move-thoughts` → their report: how many answers follow a moved thought, against a random difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from workings.experiments.default_report import FAMILY_INTERVALS, estimate_of, report_on_runs
from workings.experiments.move_thoughts import MOVED, RANDOM
from workings.judging.paired import PairedDifference, paired_difference, with_holm
from workings.judging.statistics import Measure
from workings.report import Column, Conclusion, Row, Section, Table
from workings.run import RunRecord


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """For each step the thought chosen on validation, and what happens there on test problems that are right by themselves."""
    frames = [record.outcomes("moved").filter("right") for record in records]
    steps = sorted(set(frames[0]["step"]))
    places = {step: k for step in steps if (k := _place(frames, step)) is not None}
    found = dict(zip(places, with_holm([_difference(frames, step, k) for step, k in places.items()]), strict=True))
    return report_on_runs(
        records,
        out,
        title="Thoughts moved to another result",
        conclusion=_conclusion(found),
        sections=[_table(frames, places, found), *_by_thought(frames, steps)],
        limits=["The thought's vector is moved, and with it all that goes along with the result in training problems."],
    )


def _place(frames: Sequence[pl.DataFrame], step: int) -> int | None:
    """The thought at which most answers of validation problems follow; None where none was tried."""
    rows = pl.concat(frames).filter(split="val", step=step, direction=MOVED)
    by_k = rows.group_by("k").agg(pl.col("follows").mean()).sort("follows", "k", descending=[True, False])
    return by_k["k"][0] if len(by_k) else None


def _at(frame: pl.DataFrame, step: int, k: int, direction: str) -> pl.DataFrame:
    return frame.filter(split="test", step=step, k=k, direction=direction).sort("problem")


def _difference(frames: Sequence[pl.DataFrame], step: int, k: int) -> PairedDifference:
    sides = [[_at(f, step, k, name)["follows"].cast(pl.Float64).to_numpy() for f in frames] for name in (MOVED, RANDOM)]
    clusters = _at(frames[0], step, k, MOVED)["structure"].to_numpy() if len(frames) == 1 else None
    return paired_difference(*sides, clusters, same_items=False)


def _share(frames: Sequence[pl.DataFrame], step: int, k: int, direction: str, column: str = "follows") -> Measure:
    rows = pl.concat([_at(frame, step, k, direction) for frame in frames])
    return Measure.share(rows[column].to_numpy(), rows["structure"].to_numpy())


def _table(frames: Sequence[pl.DataFrame], places: dict[int, int], found: dict[int, PairedDifference]) -> Table:
    rows = []
    for step, k in places.items():
        one = found[step]
        shares = [estimate_of(_share(frames, step, k, name)) for name in (MOVED, RANDOM)]
        keeps = estimate_of(_share(frames, step, k, MOVED, "keeps"))
        rows.append(Row(f"step {step}", [f"t{k}", *shares, estimate_of(one), one.p_holm, keeps], one.n_items))
    columns = [
        Column("thought"),
        Column("follow", "share"),
        Column("by a random difference", "share"),
        Column("difference", "points", signed=True),
        Column("p, Holm", "p"),
        Column("keep their answer", "share"),
    ]
    caption = (
        "Test problems that are right by themselves; the thought at which most follow on validation. p is adjusted for the steps, "
        f"and {FAMILY_INTERVALS}"
    )
    return Table("Answers that follow", columns, rows, caption, rows_are="changed", drawn="follow")


def _by_thought(frames: Sequence[pl.DataFrame], steps: Sequence[int]) -> list[Section]:
    thoughts = sorted(set(frames[0]["k"]))
    rows = [
        Row(f"step {step}", [estimate_of(_share(frames, step, k, MOVED)) for k in thoughts])
        for step in steps
        if len(_at(frames[0], step, thoughts[0], MOVED))
    ]
    columns = [Column(f"t{k}", "share") for k in thoughts]
    caption = (
        "Share of answers that follow when this thought alone is moved; test problems, so no place is chosen here."
    )
    return [Table("Every thought", columns, rows, caption, rows_are="changed")] if rows else []


def _conclusion(found: dict[int, PairedDifference]) -> Conclusion:
    if not found:
        return Conclusion("No step could be changed: too few problems are right by themselves.", "not judged")
    followed = [step for step, one in found.items() if one.differs and one.difference > 0]
    if followed:
        one = found[followed[0]]
        named = ", ".join(map(str, followed))
        return Conclusion(
            f"Answers follow a moved thought for step {named}: {one.in_points} at the first of them.", "holds"
        )
    fails = all(one.interval.high < 0.05 for one in found.values())
    return Conclusion("No answers are shown to follow a moved thought.", "fails" if fails else "undecided")
