"""Runs at several rates of facts → how often a fact must have been seen before its token helps, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workings.experiments.default_report import FAMILY_INTERVALS, cost_table, estimate_of, report_on_runs
from workings.experiments.fact_tokens_report import (
    LIMITS,
    MEASURES,
    Contrast,
    Contrasts,
    answered,
    compared,
    probe_rows,
    probe_table,
    sightings,
    training_curves,
)
from workings.judging.arms import Arms
from workings.report import Column, Conclusion, Row, Table
from workings.run import RunRecord


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Compare facts with digits at every rate, beside how often a fact was seen; arms are named <vocabulary>-<rate>."""
    arms = Arms(records)
    named = dict.fromkeys(name.partition("-")[2] for name in arms.names)
    rates = [rate for rate in named if arms.has(f"facts-{rate}", f"digits-{rate}")]
    found = compared(arms, [_contrast(rate, measure) for rate in rates for measure in MEASURES])
    probes = {
        measure: [
            row for rate in rates for row in probe_rows(arms, measure, [f"digits-{rate}", f"facts-{rate}"], f", {rate}")
        ]
        for measure in MEASURES
    }
    return report_on_runs(
        records,
        out,
        title="How often a fact must be seen",
        conclusion=_conclusion(arms, found, rates),
        sections=[
            *(_rate_table(arms, measure, found, rates) for measure in MEASURES),
            *(probe_table(measure, rows, ("digits", "facts")) for measure, rows in probes.items()),
            *training_curves(records),
            cost_table(records),
        ],
        limits=["Where drills are more frequent there is less English in the same number of bytes.", *LIMITS[-1:]],
    )


def _contrast(rate: str, measure: str) -> Contrast:
    return Contrast(f"facts-{rate}", f"digits-{rate}", measure)


def _rate_table(arms: Arms, measure: str, found: Contrasts, rates: Sequence[str]) -> Table:
    """A row a rate: how often a fact was seen, what each arm answers, and their difference."""
    rows = []
    for rate in rates:
        contrast = _contrast(rate, measure)
        if contrast not in found:
            continue
        one = found[contrast]
        shares = [answered(arms, arm, measure) for arm in (contrast.baseline, contrast.treatment)]
        cells = [sightings(arms, contrast.treatment), *shares, estimate_of(one), one.n_seeds, one.p_holm]
        rows.append(Row(rate, cells, one.n_items))
    columns = [
        Column("sightings", "number", digits=1),
        Column("digits", "share"),
        Column("facts", "share"),
        Column("facts − digits", "points", signed=True),
        Column("seeds", "count"),
        Column("p, Holm", "p"),
    ]
    caption = (
        f"Probes answered {MEASURES[measure]}, drilled; sightings of a fact in training, the mean over facts. p is adjusted for "
        f"all rates and measures (Holm); {FAMILY_INTERVALS}"
    )
    return Table(f"Answered {MEASURES[measure]}", columns, rows, caption, rows_are="rate", drawn="facts − digits")


def _conclusion(arms: Arms, found: Contrasts, rates: Sequence[str]) -> Conclusion:
    """Name the lowest rate at which the interval of facts − digits, with the work shown, lies above zero."""
    worked = {rate: one for rate in rates if (one := found.get(_contrast(rate, "worked"))) is not None}
    if not worked:
        return Conclusion("No rate has both arms: run digits and facts at one.", "undecided")
    seen = {rate: f"{sightings(arms, f'facts-{rate}'):,.1f}" for rate in worked}
    helps = [rate for rate, one in worked.items() if one.interval.low > 0]
    if helps:
        one = worked[helps[0]]
        return Conclusion(
            f"The lowest rate at which tokens help is {helps[0]} ({seen[helps[0]]} sightings of each fact): {one.in_points}, "
            f"{one.n_seeds} training seed{'s' * (one.n_seeds > 1)} (Holm, {one.n_family} comparisons).",
            "holds",
        )
    every = "; ".join(f"{rate} ({seen[rate]} sightings) {one.in_points}" for rate, one in worked.items())
    fails = all(one.interval.high < 0 for one in worked.values())
    return Conclusion(
        f"No evidence at any rate that fact tokens help with the work shown: {every}.",
        "fails" if fails else "undecided",
    )
