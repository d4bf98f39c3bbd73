"""Runs at several rates of facts → how often a fact must have been seen before its token helps, and a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workings.experiments.fact_arms import MEASURES, TRAINED, Arms, Gap, adjusted, gap
from workings.experiments.fact_tokens_report import (
    LIMITS,
    cost_table,
    curves,
    points,
    probe_rows,
    probe_table,
    record_of,
)
from workings.judging.comparison import ONE_SEED
from workings.report import Column, Conclusion, Estimate, Report, Row, Table, write_report
from workings.run import RunRecord


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """facts − digits at every rate of facts, beside how often a fact was seen; arms are named <vocabulary>-<rate>."""
    arms = Arms(records)
    rates = list(dict.fromkeys(name.partition("-")[2] for name in arms.names))
    found = {rate: _at_rate(arms, rate) for rate in rates}
    one_by_one = iter(adjusted([one for some in found.values() for one in some.values()]))
    found = {rate: {measure: next(one_by_one) for measure in some} for rate, some in found.items()}
    made = Report(
        title="How often a fact must be seen",
        question=records[0].question,
        conclusion=_verdict_on_rates(arms, found),
        sections=[
            *(_rate_table(arms, measure, found) for measure in MEASURES),
            *(_probe_table(arms, measure, rates) for measure in MEASURES),
            *curves(arms),
            cost_table(arms),
        ],
        provenance=record_of(records),
        warnings=[ONE_SEED] if len({r.manifest.seed for r in records}) == 1 else [],
        limits=["Where drills are more frequent there is less English in the same number of bytes.", *LIMITS[-1:]],
    )
    return write_report(made, out)


def _at_rate(arms: Arms, rate: str) -> dict[str, Gap]:
    """{measure: facts − digits} on what was drilled."""
    pair = (f"facts-{rate}", f"digits-{rate}")
    if not set(pair) <= set(arms.names) or not arms.seeds(*pair):
        return {}
    differences = {measure: arms.differences(pair, measure, held_out=False) for measure in MEASURES}
    return {measure: gap(pair, measure, values) for measure, values in differences.items() if values.size}


def _probe_table(arms: Arms, measure: str, rates: Sequence[str]) -> Table:
    """A row a rate and kind of probe, of the rates that have both arms."""
    names = ("digits", "facts")
    pairs = {rate: [f"{name}-{rate}" for name in names] for rate in rates}
    rows = [
        row
        for rate, pair in pairs.items()
        if set(pair) <= set(arms.names)
        for row in probe_rows(arms, measure, pair, f", {rate}")
    ]
    return probe_table(measure, rows, names)


def _rate_table(arms: Arms, measure: str, found: dict[str, dict[str, Gap]]) -> Table:
    tested = any(one.p is not None for some in found.values() for one in some.values())
    rows = []
    for rate, some in found.items():
        if measure not in some:
            continue
        one = some[measure]
        shares = [arms.answered(arm, measure) for arm in reversed(one.arms)]
        estimate = Estimate(one.difference, one.interval.low, one.interval.high)
        seen = arms.sightings(one.arms[0])
        rows.append(Row(rate, [seen, *shares, estimate, one.n_seeds, *([one.p] * tested)], one.n_items))
    columns = [
        Column("sightings", "number", digits=1),
        Column("digits", "share"),
        Column("facts", "share"),
        Column("facts − digits", "points", signed=True),
        Column("seeds", "count"),
        *([Column("p, Holm", "p")] * tested),
    ]
    caption = f"Probes answered {MEASURES[measure]}, {TRAINED}; sightings of a fact in training, the mean over facts."
    return Table(f"Answered {MEASURES[measure]}", columns, rows, caption, rows_are="rate", drawn="facts − digits")


def _verdict_on_rates(arms: Arms, found: dict[str, dict[str, Gap]]) -> Conclusion:
    main = {rate: some["worked"] for rate, some in found.items() if "worked" in some}
    if not main:
        return Conclusion("No rate has both arms: run digits and facts at one.", "undecided")
    helps = [rate for rate, one in main.items() if one.interval.low > 0]
    seen = {rate: f"{arms.sightings(one.arms[0]):,.1f}" for rate, one in main.items()}
    if helps:
        one = main[helps[0]]
        return Conclusion(
            f"The lowest rate at which tokens help is {helps[0]} ({seen[helps[0]]} sightings of each fact): {points(one)}, "
            f"{one.n_seeds} training seed{'s' * (one.n_seeds > 1)} (each of {len(main)} rates has its own 95 % interval).",
            "holds",
        )
    every = "; ".join(f"{rate} ({seen[rate]} sightings) {points(one)}" for rate, one in main.items())
    fails = all(one.interval.high < 0 for one in main.values())
    return Conclusion(
        f"No evidence at any rate that fact tokens help with the work shown: {every}.",
        "fails" if fails else "undecided",
    )
