"""Runs of any experiment → a report; and the parts of it that the experiments' own reports share.

An experiment without a report of its own gets this one: its arms compared pairwise by example, the headline results of every
run, a curve of everything logged, what each arm cost, and where the numbers come from.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from workings.errors import BadInput
from workings.experiment import available, experiment_of, plan
from workings.judging.arms import MATCHED, Cost
from workings.judging.comparison import Comparison, compare
from workings.judging.statistics import ALPHA, ONE_SEED
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
    Table,
    Text,
    write_report,
)
from workings.report.sections import Section
from workings.run import RunRecord

_NOT_MEASURED = ("step", "seconds")  # columns of the metrics that say when, not what


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Compare the arms, and show everything else that the runs recorded."""
    compared, reason = _compared(records)
    made = Report(
        title=records[0].manifest.experiment,
        question=records[0].question,
        conclusion=_conclusion(compared, reason),
        sections=[
            *(comparison_sections(compared) if compared else []),
            *_headline_table(records),
            *(figure for name in _logged(records) for figure in curves(records, name, {name: name})),
            cost_table(records),
        ],
        provenance=provenance(records),
        warnings=one_seed(records) if compared is None else list(compared.warnings),
        properties=[_properties(record) for record in records],
    )
    return write_report(made, out)


# ── what reports share ───────────────────────────────────────────────────────────────────────────────────────────────


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


def one_seed(records: Sequence[RunRecord]) -> list[str]:
    """The warning that belongs on a report whose runs have all the same training seed."""
    return [ONE_SEED] if len({record.manifest.seed for record in records}) == 1 else []


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
    series = [
        one
        for arm, some in grouped(records).items()
        for column, in_words in columns.items()
        for one in _series(arm, some, column, f": {in_words}" if len(columns) > 1 else "", arm in controls)
    ]
    banded = "Means over the seeds of an arm; bands reach from its lowest seed to its highest."
    caption = banded if any(one.low is not None for one in series) else ""
    return [Curves(title, Axis("step"), y or Axis(title), series, caption)] if series else []


def _series(arm: str, records: Sequence[RunRecord], column: str, suffix: str, control: bool) -> Iterator[Series]:
    logged = pl.concat([record.curve(column) for record in records])
    if not len(logged):
        return
    y = pl.col(column)
    steps = logged.group_by("step").agg(mean=y.mean(), low=y.min(), high=y.max()).sort("step")
    band = [steps[end].to_list() if len(records) > 1 else None for end in ("low", "high")]
    name = f"{arm}, {len(records)} seed{'s' * (len(records) > 1)}{suffix}"
    yield Series(name, steps["step"].to_list(), steps["mean"].to_list(), *band, control=control)


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
        difference = Estimate(one.difference, one.interval.low, one.interval.high)
        counts = [one.n_only_baseline, one.n_only_treatment]
        rows.append(Row(pair.subject, [one.baseline, one.treatment, difference, *counts, one.p_holm], one.n_items))
    caption = (
        "Paired by item: bootstrap intervals (95 %, each by itself), exact McNemar p, adjusted for all rows (Holm)."
    )
    sections: list[Section] = [
        Table("Compared item by item", columns, rows, caption, rows_are="from → to", drawn="difference")
    ]
    if said := compared.beside():
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
    pair = max(compared.pairs, key=lambda pair: (pair.p_holm <= ALPHA, abs(pair.difference.difference)))
    one, n = pair.difference, len(compared.pairs)
    sentence = f"{pair.subject}: {one.in_points}, n = {one.n_items:,} paired: {pair.finding} (of {n} comparisons)."
    return Conclusion(sentence, "holds" if pair.p_holm <= ALPHA else "undecided")


def _headline_table(records: Sequence[RunRecord]) -> list[Table]:
    """What each run calls its result."""
    found = {record: record.result("headline") for record in records if record.has_result("headline")}
    flat = {record: result if isinstance(result, dict) else {"": result} for record, result in found.items()}
    labels = list(dict.fromkeys(label for result in flat.values() for label in result if label != "n"))
    rows = [
        Row(_name(record), [_shown(result.get(label)) for label in labels], result.get("n"))
        for record, result in flat.items()
    ]
    columns = [Column(label, "text") for label in labels]
    return [Table("What each run found", columns, rows, rows_are="run")] if labels else []


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _logged(records: Sequence[RunRecord]) -> list[str]:
    """The columns of numbers that any run logged."""
    columns = {name: dtype for record in records for name, dtype in record.metrics().schema.items()}
    return [name for name, dtype in columns.items() if dtype.is_numeric() and name not in _NOT_MEASURED]


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
