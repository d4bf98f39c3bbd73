"""Runs of `train-codi` → their report: accuracy with its controls, and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workings.run import RunRecord


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Accuracy and curves of each run."""
    from workings.judging.ablation import CONDITIONS, IN_WORDS
    from workings.judging.statistics import wilson
    from workings.report import (
        Axis,
        Column,
        Curves,
        Estimate,
        Provenance,
        Report,
        Row,
        Series,
        Table,
        write_report,
    )

    rows, curves = [], []
    for record in records:
        name = record.path.name
        of = {condition: frame for (condition,), frame in record.outcomes("answers").group_by("condition")}
        cells = []
        for condition in CONDITIONS:
            right, n = int(of[condition]["correct"].sum()), len(of[condition])
            cells.append(Estimate(right / n, wilson(right, n).low, wilson(right, n).high))
        rows.append(Row(name, cells, len(of["own"])))
        logged = record.metrics()
        for column in ("student", "teacher", "distil"):
            kept = logged.filter(logged[column].is_not_null())
            curves.append(Series(f"{name}: {column}", kept["step"].to_list(), kept[column].to_list()))
    made = Report(
        title="Training a CODI",
        question=records[0].question,
        conclusion=_verdict(records[-1]),
        sections=[
            Table("Validation accuracy", [Column(IN_WORDS[c], "share") for c in CONDITIONS], rows, rows_are="run"),
            Curves("Losses", Axis("step"), Axis("loss"), curves),
        ],
        provenance=Provenance([str(r.path) for r in records], versions=records[0].manifest.versions),
        warnings=["One training seed: the intervals are over items only and say nothing about other seeds."],
    )
    return write_report(made, out)


def _verdict(record: RunRecord) -> Any:
    """Whether the answers need the thoughts: own against zeroed, paired by problem."""
    from workings.judging.statistics import paired_bootstrap
    from workings.report import Conclusion
    from workings.report.wording import interval, number

    of = {name: frame.sort("problem") for (name,), frame in record.outcomes("answers").group_by("condition")}
    own, zero = (of[name]["correct"].cast(float).to_numpy() for name in ("own", "zero"))
    gap = paired_bootstrap(own, zero)
    says = (
        f"By thinking it answers {number(own.mean(), 'share')} % of {len(own):,} validation problems; "
        f"with its thoughts zeroed {number(zero.mean(), 'share')} %, "
        f"a difference of {number((own - zero).mean(), 'points')} points {interval(gap.low, gap.high, 'share')}"
    )
    if gap.low > 0:
        return Conclusion(f"{says}: its answers use the thoughts.", "holds")
    unseen = gap.high + 3 / len(own)  # what never happened in n problems may still happen in 3 / n of them
    return Conclusion(
        f"{says}: nothing shows that its answers use the thoughts.", "fails" if unseen < 0.05 else "undecided"
    )
