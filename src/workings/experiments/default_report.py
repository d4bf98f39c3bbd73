"""Runs of any experiment → a report; and the parts of it that the experiments' own reports share.

An experiment without a report of its own gets this one: its arms compared pairwise by example, the headline results of every
run, a curve of everything logged, what each arm cost, and where the numbers come from.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from workings.arithmetic.problems import ChainCounts
from workings.errors import BadInput
from workings.experiment import available, experiment_of, plan
from workings.judging.arms import MATCHED, Cost, unpaired_seeds
from workings.judging.comparison import Comparison, compare
from workings.judging.paired import PairedDifference
from workings.judging.statistics import ONE_SEED, Measure
from workings.report import (
    Axis,
    Column,
    Conclusion,
    Curves,
    Estimate,
    Properties,
    Provenance,
    Report,
    Row,
    Series,
    Stat,
    Table,
    Text,
    write_report,
)
from workings.report.sections import Section
from workings.run import RunRecord, question_of

FAMILY_INTERVALS = (
    "each interval is at the level of its row's test, so that it excludes zero exactly where p is at most .05."
)


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Compare the arms, and show everything else that the runs recorded."""
    compared, reason = _compared(records)
    logged = {name: dtype for record in records for name, dtype in record.metrics().schema.items()}
    measured = [name for name, dtype in logged.items() if dtype.is_numeric() and name not in ("step", "seconds")]
    return report_on_runs(
        records,
        out,
        title=records[0].manifest.experiment,
        conclusion=_conclusion(compared, reason),
        sections=[
            *(comparison_sections(compared) if compared else []),
            *_headline_table(records),
            *(figure for name in measured for figure in curves(records, name, {name: name})),
            cost_table(records),
        ],
        warnings=None if compared is None else compared.warnings,
        properties=[_properties(record) for record in records],
    )


# ── what reports share ───────────────────────────────────────────────────────────────────────────────────────────────


def report_on_runs(
    records: Sequence[RunRecord],
    out: Path,
    *,
    title: str,
    conclusion: Conclusion,
    sections: Sequence[Section],
    headline: Sequence[Stat] = (),
    warnings: Sequence[str] | None = None,
    properties: Sequence[Properties] = (),
    limits: Sequence[str] = (),
) -> Path:
    """Write a report with the question of the runs and where its numbers come from; the path of its report.html.

    Args:
        warnings: By default those of `seed_warnings`.
    """
    warnings = seed_warnings(records) if warnings is None else warnings
    question = records[0].question or question_of(experiment_of(records[0]).file)
    source = provenance(records)
    made = Report(title, question, conclusion, sections, source, headline, warnings, properties, limits)
    return write_report(made, out)


def estimate_of(found: Measure | PairedDifference) -> Estimate:
    """A statistic as a cell of a table."""
    if isinstance(found, PairedDifference):
        return Estimate(found.difference, found.interval.low, found.interval.high)
    return Estimate(found.value, found.low, found.high)


def difference_table(
    title: str, found: Mapping[str, PairedDifference], counts: Mapping[str, str], caption: str, rows_are: str
) -> Table:
    """A row for each difference of shares by its name, with the p of its family; interval and p say the same.

    Args:
        counts: Further columns: header → field of `PairedDifference`.
    """
    rows = [
        Row(name, [estimate_of(one), *(getattr(one, field) for field in counts.values()), one.p_holm], one.n_items)
        for name, one in found.items()
    ]
    columns = [
        Column("difference", "points", signed=True),
        *(Column(header, "count") for header in counts),
        Column("p, Holm", "p"),
    ]
    return Table(title, columns, rows, caption, rows_are=rows_are, drawn="difference")


def provenance(records: Sequence[RunRecord], digests: Mapping[str, str] | None = None) -> Provenance:
    """Where the numbers come from: the runs, digests of configs and inputs, and the commands that give them again.

    Args:
        digests: Others that belong there, by name.
    """
    known = {record.path.name: record.manifest.config_digest for record in records}
    for record in records:
        known |= {f"{record.path.name}, {name}": digest for name, digest in record.manifest.inputs.items()}
    return Provenance(
        runs=[str(record.path) for record in records],
        digests=known | dict(digests or {}),
        versions=records[0].manifest.versions,
        commands=_commands(records),
        when=records[0].manifest.started,
    )


def _commands(records: Sequence[RunRecord]) -> list[str]:
    """One command for all runs that were given the same settings beside those of their scale."""
    commands: list[list[str]] = []
    alike: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        settings = _own_settings(record)
        if settings is None:
            commands.append(["workings", "run", _place(record), "--config", str(record.path / "config.yaml")])
        else:
            alike.setdefault(settings, []).append(record)
    for settings, some in alike.items():
        arms, seeds = (dict.fromkeys(getattr(one.manifest, name) for one in some) for name in ("arm", "seed"))
        words = ["workings", "run", _place(some[0]), "--arm", *arms, "--scale", some[0].manifest.scale]
        commands.append([*words, "--seeds", *map(str, sorted(seeds)), *(["--set", *settings] if settings else [])])
    return [shlex.join(words) for words in commands]


def _place(record: RunRecord) -> str:
    name = record.manifest.experiment
    return name if name in available() else str(record.source)


def _own_settings(record: RunRecord) -> tuple[str, ...] | None:
    """The overrides of a run that its scale does not set; None where its arm or scale is not one of the experiment's."""
    manifest = record.manifest
    try:
        [planned] = plan(experiment_of(record), [manifest.arm], manifest.scale, [manifest.seed])  # ty: ignore
    except BadInput:
        return None
    return tuple(setting for setting in manifest.overrides if setting not in planned.departures)


def n_seeds(n: int) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{n} seed{'s' * (n > 1)}"


def one_seed(records: Sequence[RunRecord]) -> list[str]:
    """The warning that belongs on a report whose runs have all the same training seed."""
    return [ONE_SEED] if len({record.manifest.seed for record in records}) == 1 else []


def seed_warnings(records: Sequence[RunRecord]) -> list[str]:
    """`one_seed`, and which seeds some of the arms lack."""
    return one_seed(records) + unpaired_seeds(records)


def grouped(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs of each arm under its name, or, where an arm has several runs of one seed, each run under its own."""
    arms: dict[str, list[RunRecord]] = {}
    for record in records:
        arms.setdefault(record.manifest.arm, []).append(record)
    if all(len({one.manifest.seed for one in some}) == len(some) for some in arms.values()):
        return arms
    return {record.path.name: [record] for record in records}


def curves(
    records: Sequence[RunRecord],
    title: str,
    columns: Mapping[str, str],
    y: Axis | None = None,
    controls: Sequence[str] = (),
) -> list[Curves]:
    """A figure of what was logged while training, if it was: one series an arm and column, the mean over its seeds.

    Args:
        columns: Name in the metrics → name in the figure.
        controls: Arms that are drawn as controls.
    """
    series = []
    for arm, some in grouped(records).items():
        for column, in_words in columns.items():
            logged = pl.concat([record.curve(column) for record in some])
            if logged.is_empty():
                continue
            value = pl.col(column)
            steps = logged.group_by("step").agg(mean=value.mean(), low=value.min(), high=value.max()).sort("step")
            band = [steps[end].to_list() if len(some) > 1 else None for end in ("low", "high")]
            name = f"{arm}, {n_seeds(len(some))}" + (f": {in_words}" if len(columns) > 1 else "")
            series.append(
                Series(name, steps["step"].to_list(), steps["mean"].to_list(), *band, control=arm in controls)
            )
    banded = "Means over the seeds of an arm; bands reach from its lowest seed to its highest."
    caption = banded if any(one.low is not None for one in series) else ""
    return [Curves(title, Axis("step"), y or Axis(title), series, caption)] if series else []


def chain_facts(counts: ChainCounts | None) -> dict[str, str]:
    """What is to be known of the problems' chains, as properties; nothing of records that did not count them."""
    if counts is None:
        return {}
    return {
        "with steps, with a chain in words": f"{counts.n_with_steps:,}, {counts.n_in_words:,} of {counts.n_problems:,}",
        "last step is not the answer": f"{counts.n_ending_elsewhere:,} of {counts.n_with_steps:,}",
        "steps wrong or not computable": f"{counts.n_wrong_steps:,} of {counts.n_steps:,}",
        "answers with several numbers": f"{counts.n_several_numbers:,}",
    }


def cost_table(records: Sequence[RunRecord]) -> Table:
    """What each arm cost: parameters, steps, raw bytes, tokens, FLOPs as planned, or as counted; seconds as measured."""
    costs = {arm: _costs(some) for arm, some in grouped(records).items()}
    names = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    rows = [Row(arm, [cost.get(name) for name in names]) for arm, cost in costs.items()]
    caption = "Seconds are the mean over the runs of an arm."
    if len(rows) > 1 and all(_alike([cost.get(name) for cost in costs.values()], MATCHED[name]) for name in MATCHED):
        caption = f"Parameters, steps and raw bytes are matched. {caption}"
    columns = [Column(name.replace("_", " "), "count") for name in names]
    return Table("What each arm cost", columns, rows, caption, rows_are="arm")


def _alike(numbers: Sequence[float | None], within: float) -> bool:
    known = [number for number in numbers if number is not None]
    return len(known) == len(numbers) and max(known) - min(known) <= within * max(known)


def _costs(records: Sequence[RunRecord]) -> dict[str, float]:
    spent, planned = records[0].manifest.spent, Cost.of(records[0])
    counted = Cost(tokens=spent.tokens, raw_bytes=spent.bytes, flops=spent.flops)
    known = asdict(planned or counted)
    seconds = [record.manifest.spent.seconds for record in records]
    return {name: value for name, value in known.items() if value} | {"seconds": sum(seconds) / len(seconds)}


def comparison_sections(compared: Comparison) -> list[Section]:
    """Every pair of runs on every frame of outcomes, and what is said beside them."""
    columns = [
        Column("before", "share"),
        Column("after", "share"),
        Column("difference", "points", signed=True),
        Column("right only before", "count"),
        Column("only after", "count"),
        Column("p, Holm", "p"),
    ]
    rows = []
    for pair in compared.pairs:
        one = pair.difference
        counts = [one.n_only_baseline, one.n_only_treatment]
        rows.append(
            Row(pair.subject, [one.baseline, one.treatment, estimate_of(one), *counts, one.p_holm], one.n_items)
        )
    caption = (
        "Paired by item; n counts items, or structures where items share them. p is exact McNemar's (Student's for "
        f"structures), adjusted for all rows (Holm); {FAMILY_INTERVALS}"
    )
    sections: list[Section] = [
        Table("Compared item by item", columns, rows, caption, rows_are="from → to", drawn="difference")
    ]
    # the report itself warns of a single seed, at its top
    if said := [line for line in compared.beside() if ONE_SEED not in line]:
        sections.append(Text("Beside the comparison", "\n\n".join(said)))
    return sections


# ── the default report's own ─────────────────────────────────────────────────────────────────────────────────────────


def _compared(records: Sequence[RunRecord]) -> tuple[Comparison | None, str]:
    """The comparison of the arms, or why there is none."""
    if len(records) < 2:
        return None, "One run alone shows no difference: run two arms."
    try:
        return compare(records, experiment_of(records[0]).module.Config), ""
    except BadInput as error:
        return None, f"The runs are not compared: {error}."


def _conclusion(compared: Comparison | None, reason: str) -> Conclusion:
    """The largest difference that there is evidence for."""
    if compared is None:
        return Conclusion(reason, "undecided")
    pair = max(compared.pairs, key=lambda pair: (pair.difference.differs, abs(pair.difference.difference)))
    one, n = pair.difference, len(compared.pairs)
    sentence = f"{pair.subject}: {one.in_points}, n = {one.n_items:,} paired: {pair.finding} (of {n} comparisons)."
    return Conclusion(sentence, "holds" if one.differs else "undecided")


def _headline_table(records: Sequence[RunRecord]) -> list[Table]:
    """What each run calls its result."""
    found = {record: record.headline for record in records if record.headline}
    labels = list(dict.fromkeys(label for headline in found.values() for label in headline if label != "n"))
    rows = []
    for record, headline in found.items():
        n = headline.get("n")
        rows.append(
            Row(_name(record), [_shown(headline.get(label)) for label in labels], n if isinstance(n, int) else None)
        )
    columns = [Column(label, "text") for label in labels]
    return [Table("What each run found", columns, rows, rows_are="run")] if labels else []


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _properties(record: RunRecord) -> Properties:
    manifest = record.manifest
    return Properties(
        _name(record),
        {
            "scale": manifest.scale,
            "not as the arm has it": ", ".join(manifest.overrides) or "nothing",
            "read from outside": ", ".join(manifest.input_places.values()) or "nothing",
        },
    )


def _name(record: RunRecord) -> str:
    return f"{record.manifest.arm}, seed {record.manifest.seed}"
