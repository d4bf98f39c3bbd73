"""Runs of `replace-thoughts` → their report: what is left of the answers, by what was put in a thought's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import polars as pl

from workings.experiments.default_report import FAMILY_INTERVALS, estimate_of, report_on_runs
from workings.experiments.replace_thoughts import EACH, FIRST, OWN
from workings.judging.paired import PairedDifference, paired_difference, with_holm
from workings.judging.replacements import IN_WORDS
from workings.judging.statistics import Measure
from workings.report import Axis, Column, Conclusion, Curves, Row, Section, Series, Table
from workings.report.sections import Cell
from workings.run import RunRecord

ORACLE, RANDOM = "oracle", "random of its class"


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Accuracy under every replacement, against the model's own thoughts and against a random token of the class."""
    frames = [record.outcomes("replaced") for record in records]
    last = max(frames[0]["k"].to_list())
    whole = [
        frame.filter((pl.col("replacement") == OWN) | (pl.col("where").eq(FIRST) & pl.col("k").eq(last)))
        for frame in frames
    ]
    names = [name for name in frames[0]["replacement"].unique(maintain_order=True) if name != OWN]
    pairs = [(name, OWN) for name in names] + [(name, RANDOM) for name in names if name not in (RANDOM,)]
    found = dict(zip(pairs, with_holm([_difference(whole, *pair) for pair in pairs]), strict=True))
    return report_on_runs(
        records,
        out,
        title="Thoughts replaced by what is read from them",
        conclusion=_conclusion(found),
        sections=[_all(whole, names, found), _by_thought(frames, names, last), _dose(frames, names, last)],
        limits=["Later thoughts are recomputed from what was fed, so this is the total effect."],
    )


def _difference(frames: Sequence[pl.DataFrame], new: str, old: str) -> PairedDifference:
    sides = [
        [frame.filter(replacement=name).sort("problem")["correct"].cast(pl.Float64).to_numpy() for frame in frames]
        for name in (new, old)
    ]
    clusters = frames[0].filter(replacement=new).sort("problem")["structure"].to_numpy() if len(frames) == 1 else None
    return paired_difference(*sides, clusters, same_items=False)


def _share(frames: Sequence[pl.DataFrame], column: str = "correct") -> Measure:
    rows = pl.concat(frames)
    return Measure.share(rows[column].to_numpy(), rows["structure"].to_numpy())


def _all(whole: Sequence[pl.DataFrame], names: Sequence[str], found: dict[tuple[str, str], PairedDifference]) -> Table:
    rows = [
        Row(
            "its own thoughts",
            [estimate_of(_share([f.filter(replacement=OWN) for f in whole])), None, None, None, None, 0.0],
        )
    ]
    for name in names:
        some = [frame.filter(replacement=name) for frame in whole]
        beside = found.get((name, RANDOM))
        cells: list[Cell] = [
            estimate_of(_share(some)),
            estimate_of(found[name, OWN]),
            found[name, OWN].p_holm,
            None if beside is None else estimate_of(beside),
            None if beside is None else beside.p_holm,
            mean(pl.concat(some)["divergence"].to_list()),
        ]
        rows.append(Row(IN_WORDS[name], cells, found[name, OWN].n_items))
    columns = [
        Column("right", "share"),
        Column("less than its own", "points", signed=True),
        Column("p, Holm", "p"),
        Column("more than a random token", "points", signed=True),
        Column("p, Holm ", "p"),
        Column("KL at the answer", "nats"),
    ]
    caption = f"Test problems, every thought replaced; p is adjusted for the whole table, and {FAMILY_INTERVALS}"
    return Table("Every thought replaced", columns, rows, caption, rows_are="fed instead", drawn="right")


def _by_thought(frames: Sequence[pl.DataFrame], names: Sequence[str], last: int) -> Table:
    rows = [
        Row(
            IN_WORDS[name],
            [
                estimate_of(_share([f.filter(replacement=name, where=EACH, k=k) for f in frames], "keeps"))
                for k in range(1, last + 1)
            ],
        )
        for name in names
    ]
    columns = [Column(f"t{k}", "share") for k in range(1, last + 1)]
    caption = "Share of answers that stay as they were when this thought alone is replaced."
    return Table("One thought replaced", columns, rows, caption, rows_are="fed instead")


def _dose(frames: Sequence[pl.DataFrame], names: Sequence[str], last: int) -> Section:
    series = []
    for name in names:
        shares = [_share([f.filter(replacement=name, where=FIRST, k=k) for f in frames]) for k in range(1, last + 1)]
        series.append(
            Series(
                IN_WORDS[name],
                list(range(1, last + 1)),
                [one.value for one in shares],
                [one.low for one in shares],
                [one.high for one in shares],
                control=name not in (ORACLE, "logit lens", "tuned lens"),
            )
        )
    return Curves("The first j thoughts replaced", Axis("thoughts replaced"), Axis("right answers"), series)


def _conclusion(found: dict[tuple[str, str], PairedDifference]) -> Conclusion:
    """Does the oracle's token keep more answers than a random one of its class?"""
    one = found[ORACLE, RANDOM]
    if one.differs and one.difference > 0:
        return Conclusion(
            f"The token of the chain keeps more answers than a random one of its class: {one.in_points}.", "holds"
        )
    kind = "fails" if one.interval.high < 0.05 else "undecided"
    return Conclusion(
        f"The token of the chain keeps no more answers than a random one of its class: {one.in_points}.", kind
    )
