"""Runs of `train-codi` → their report: accuracy with its controls, and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workings.experiments.default_report import chain_facts, cost_table, curves, estimate_of, grouped, report_on_runs
from workings.experiments.train_codi import Problems
from workings.judging.ablation import CONDITIONS, IN_WORDS
from workings.judging.arms import between_conditions
from workings.judging.statistics import Measure
from workings.report import Axis, Column, Conclusion, Properties, Row, Table
from workings.report.wording import number
from workings.run import RunRecord

LOSSES = {"student": "student", "teacher": "teacher", "distil": "distil"}


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Show the accuracy of each run beside its controls, and its losses."""
    columns = [Column(IN_WORDS[condition], "share") for condition in CONDITIONS]
    *_, last = grouped(records).values()
    return report_on_runs(
        records,
        out,
        title="Training a CODI",
        conclusion=_conclusion(last),
        sections=[
            Table("Validation accuracy", columns, [_row(record) for record in records], rows_are="run"),
            *curves(records, "Losses", LOSSES, Axis("loss")),
            cost_table(records),
        ],
        properties=[_about_problems(last[-1])],
    )


def _about_problems(record: RunRecord) -> Properties:
    """What was learnt from: how many problems had a chain, and what in them was not as it should be."""
    problems = record.result("problems", Problems)
    facts = {
        "training, validation": f"{problems.n_train:,}, {problems.n_validation:,}",
        "malformed": f"{len(problems.malformed):,} rows",
        **chain_facts(problems.chains),
    }
    if problems.without_chain is not None:
        facts["without a chain for the teacher"] = f"{problems.without_chain:,} of {problems.n_train:,}"
    return Properties(f"The problems of {record.path.name}", facts)


def _row(record: RunRecord) -> Row:
    outcomes = record.outcomes("answers")
    of = {name: Measure.share(outcomes.filter(condition=name)["correct"].to_numpy()) for name in CONDITIONS}
    return Row(record.path.name, list(map(estimate_of, of.values())), of["own"].n)


def _conclusion(records: Sequence[RunRecord]) -> Conclusion:
    """Judge whether the answers need the thoughts: own against zeroed, paired by problem."""
    found = between_conditions(records, "answers", "own", "zero")
    says = (
        f"By thinking it answers {number(found.treatment, 'share')} % of {found.n_items:,} validation problems; "
        f"with its thoughts zeroed {number(found.baseline, 'share')} %, a difference of {found.in_points}"
    )
    if found.interval.low > 0:
        return Conclusion(f"{says}: its answers use the thoughts.", "holds")
    # What never happened in n problems may still happen in 3 / n of them (the rule of three).
    highest = max(found.interval.high, 3 / found.n_items)
    return Conclusion(
        f"{says}: nothing shows that its answers use the thoughts.", "fails" if highest < 0.05 else "undecided"
    )
