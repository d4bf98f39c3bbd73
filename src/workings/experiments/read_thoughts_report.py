"""A run of `read-thoughts` → its report: verdict, controls, layer × position, curves, necessity, samples. Reads the record only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from workings.experiments.default_report import provenance
from workings.experiments.read_thoughts import Config
from workings.files import write_with
from workings.judging.ablation import CONDITIONS, IN_WORDS, accuracy
from workings.judging.scores import LENSES, at_one_layer, new_values, score, skill
from workings.judging.statistics import wilson
from workings.judging.verdict import verdict
from workings.report import (
    Axis,
    Column,
    Conclusion,
    ControlRow,
    Curves,
    Estimate,
    Guess,
    HeatMap,
    Properties,
    Reading,
    ReadingGrid,
    Report,
    Row,
    Samples,
    Series,
    Stat,
    Table,
    Text,
    write_report,
)
from workings.run import RunRecord

TUNED = "tuned lens"
SCORES = ("top1", "top5", "top10", "ce")
SCORE_COLUMNS = (
    Column("top-1", "share"),
    Column("top-5", "share"),
    Column("top-10", "share"),
    Column("cross-entropy", "nats"),
)


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """The reading of one run (the last, where several are given), judged: report.html, report.md and figures, in `out`."""
    record = records[-1]
    config = record.config(Config)
    about, rules = record.result("model"), list(record.result("model")["targets"])
    readings = {rule: record.outcomes(f"readings_{rule}") for rule in rules}
    verdicts = {rule: verdict(readings[rule]) for rule in rules}
    found = verdicts[rules[0]]
    sections: list[Any] = [_at_a_glance(verdicts, about)] if len(rules) > 1 else []
    for rule in rules:
        sections += _about_rule(rule, readings[rule], verdicts[rule], about, first=rule == rules[0])
    sections += _fit_curves(record.metrics(), rules)
    sections += _necessity(record)
    sections.append(_samples(record.result("samples")))
    made = Report(
        title=f"Reading the thoughts of {_short(config.model)}",
        question=records[0].question,
        conclusion=Conclusion(f"{_asked(rules[0], about)}: {found.sentence}", found.kind),
        sections=sections,
        provenance=provenance([record]),
        headline=_headline(found.numbers),
        warnings=_warnings(record, about),
        properties=_facts(record, about, config),
        limits=_limits(about),
    )
    page = write_report(made, out)
    for rule in rules:
        write_with(out / "figures" / f"scores_{rule}.csv", every_score(readings[rule]).write_csv)
    return page


def every_score(readings: pl.DataFrame) -> pl.DataFrame:
    """`score` of every reader overall, by layer, by position, and by layer and position; null where a row pools them."""
    groups = ((), ("layer",), ("position",), ("layer", "position"))
    return pl.concat([score(readings, by) for by in groups], how="diagonal").select(
        "reader", "layer", "position", pl.exclude("reader", "layer", "position")
    )


# The parts, in the order of the page ---------------------------------------------------------------------------------


def _headline(numbers: Any) -> list[Stat]:
    n = f"n = {numbers['n_problems']:,} test problems, {numbers['layer']}"
    lens = Estimate(numbers["top1"], numbers["top1_low"], numbers["top1_high"])
    points = Estimate(numbers["skill"], numbers["skill_low"], numbers["skill_high"])
    bits = Estimate(numbers["bits"], numbers["bits_low"], numbers["bits_high"])
    return [
        Stat("the lens names the target", lens, "share", n),
        Stat("skill over the best control", points, "points", numbers["skill_control"]),
        Stat("skill in bits", bits, "bits", numbers["bits_control"]),
    ]


def _at_a_glance(verdicts: dict[str, Any], about: dict[str, Any]) -> Table:
    """One row a target rule: none is shown without the others."""
    rows = []
    for rule, found in verdicts.items():
        n = found.numbers
        lens, lead = (
            Estimate(n["top1"], n["top1_low"], n["top1_high"]),
            Estimate(n["skill"], n["skill_low"], n["skill_high"]),
        )
        cells = [lens, n["skill_control_value"], lead, n["skill_control"], found.kind]
        rows.append(Row(_asked(rule, about), cells, n["n_problems"]))
    columns = [
        Column("lens", "share"),
        Column("best control", "share"),
        Column("skill", "points", signed=True),
        Column("that control"),
        Column("verdict"),
    ]
    caption = (
        "Top-1 on test problems, at the layer chosen on validation. The first row is the headline, named beforehand."
    )
    return Table("What was asked, and what was read", columns, rows, caption, rows_are="target", drawn="skill")


def _about_rule(rule: str, readings: pl.DataFrame, found: Any, about: dict[str, Any], first: bool) -> list[Any]:
    name = _asked(rule, about)
    counts = about["targets"][rule]
    body = f"{found.sentence}\n\n{_counted(counts)}"
    sections: list[Any] = [Text(f"{name}: {found.kind}", body)] if not first else [Text(name, _counted(counts))]
    sections.append(_controls(rule, readings, found.numbers["layer"], found.numbers["skill_control"], about))
    if counts["new_values"]:
        sections.append(_new_values(readings, found.numbers["layer"], name))
    sections.append(_overall(readings, name))
    sections.append(_by(readings, "layer", name, _in_order(about["layers"], readings["layer"])))
    sections.append(_by(readings, "position", name, _in_order(about["positions"], readings["position"])))
    sections.append(_heat_map(readings, name, about))
    return sections


def _controls(rule: str, readings: pl.DataFrame, layer: str, best: str, about: dict[str, Any]) -> Table:
    scores = score(at_one_layer(readings, TUNED, layer))
    order = {TUNED: 0, "logit lens": 1}
    rows = sorted(scores.iter_rows(named=True), key=lambda r: (order.get(r["reader"], 2), -r["top1"]))
    cells = [
        Row(r["reader"], [_estimate(r, k) for k in ("top1", "top5", "top10", "ce")], r["n_problems"]) for r in rows
    ]
    caption = (
        f"Test problems; the tuned lens at {layer}, every other reader with layers at the layer where it does best, all chosen on "
        "validation. Brackets are 95 % intervals, clustered by problem."
    )
    return Table(
        f"{_asked(rule, about)}: the lens beside its controls",
        SCORE_COLUMNS,
        cells,
        caption,
        highlight=TUNED,
        reference=best,
        drawn="top-1",
    )


def _new_values(readings: pl.DataFrame, layer: str, name: str) -> Table:
    scores = new_values(at_one_layer(readings, TUNED, layer))
    rows = sorted(scores.iter_rows(named=True), key=lambda r: (r["reader"] != TUNED, -r["top1"]))
    cells = [Row(r["reader"], [_estimate(r, "top1"), _estimate(r, "top5")], r["n_problems"]) for r in rows]
    caption = "Only targets that are numbers standing neither in the question nor in the answer: they cannot be copied."
    return Table(f"{name}: hits on new values", [Column("top-1", "share"), Column("top-5", "share")], cells, caption)


def _overall(readings: pl.DataFrame, name: str) -> Table:
    """Every layer and position pooled, as seed 001 printed its headline."""
    rows = sorted(score(readings).iter_rows(named=True), key=lambda r: (r["reader"] not in LENSES, -r["top1"]))
    cells = [Row(r["reader"], [_estimate(r, k) for k in SCORES], r["n_problems"]) for r in rows]
    caption = "All layers and positions of the test problems; n counts problems, not states."
    return Table(f"{name}: all layers and positions together", SCORE_COLUMNS, cells, caption, highlight=TUNED)


def _by(readings: pl.DataFrame, column: str, name: str, order: Sequence[str]) -> Table:
    """The lens's scores and its skill in points and bits by layer or by position, with simultaneous intervals of the skill."""
    scores = {r[column]: r for r in score(readings.filter(reader=TUNED), (column,)).iter_rows(named=True)}
    leads = skill(readings, by=(column,))
    rows = []
    for value in (value for value in order if value in scores):
        lead = {r["measure"]: r for r in leads.filter(pl.col(column) == value).iter_rows(named=True)}
        control = lead["top1"]
        cells = [_estimate(scores[value], k) for k in SCORES] + [
            control["control_value"],
            _lead(control),
            _lead(lead["bits"]),
        ]
        rows.append(Row(value, cells, control["n_problems"], note=control["control"]))
    columns = [
        *SCORE_COLUMNS[:-1],
        Column("CE", "nats"),
        Column("best control", "share"),
        Column("skill", "points", signed=True),
        Column("skill by CE", "bits", signed=True),
    ]
    caption = (
        "Skill is the lens minus the control (named in the row) that is best on validation in the same cell; the intervals of "
        "the skill hold for all rows at once (95 %)."
    )
    return Table(f"{name}: by {column}", columns, rows, caption, rows_are=column)


def _heat_map(readings: pl.DataFrame, name: str, about: dict[str, Any]) -> HeatMap:
    layers = _in_order(about["layers"], readings["layer"])
    positions = _in_order(about["positions"], readings["position"])
    lens = {
        (r["layer"], r["position"]): r
        for r in score(readings.filter(reader=TUNED), ("layer", "position")).iter_rows(named=True)
    }
    leads = skill(readings, by=("layer", "position")).filter(measure="top1")
    lead = {(r["layer"], r["position"]): r for r in leads.iter_rows(named=True)}
    cells = [[(layer, position) for position in positions] for layer in layers]
    grid = lambda key: [[lens[cell][key] if cell in lens else None for cell in row] for row in cells]
    differs = [[cell in lead and lead[cell]["low"] > 0 for cell in row] for row in cells]
    majority = {
        r["position"]: r for r in score(readings.filter(reader="majority"), ("position",)).iter_rows(named=True)
    }
    control = ControlRow(
        "majority",
        [majority[p]["top1"] if p in majority else None for p in positions],
        [majority[p]["top1_low"] if p in majority else None for p in positions],
        [majority[p]["top1_high"] if p in majority else None for p in positions],
    )
    return HeatMap(
        f"{name}: top-1 by layer and position",
        layers,
        positions,
        grid("top1"),
        [[lens[cell]["n_problems"] if cell in lens else 0 for cell in row] for row in cells],
        lows=grid("top1_low"),
        highs=grid("top1_high"),
        differs=differs,
        control="the best control of the cell (simultaneous 95 % intervals)",
        controls=[control],
        limits=(0.0, 1.0),
    )


def _fit_curves(metrics: pl.DataFrame, rules: Sequence[str]) -> list[Curves]:
    if "fit" not in metrics.columns:
        return []
    sections = []
    for rule in rules:
        series = []
        for reader in metrics["reader"].drop_nulls().unique(maintain_order=True):
            for fit in (rule, f"{rule}, shuffled"):
                rows = metrics.filter(reader=reader, fit=fit)
                if len(rows):
                    name = "shuffled targets" if fit != rule else "tuned lens" if reader == "model" else reader
                    series.append(
                        Series(name, rows["step"].to_list(), rows["validation"].to_list(), control=name != "tuned lens")
                    )
        sections.append(Curves(f"Fitting the lens: {rule}", Axis("epoch"), Axis("validation loss", "nats"), series))
    return sections


def _necessity(record: RunRecord) -> list[Table]:
    path = record.path / "outcomes" / "necessity.parquet"
    if not path.exists():
        return []
    table = accuracy(record.outcomes("necessity"))
    lengths = sorted(table["n_steps"].unique())
    rows = []
    for condition in CONDITIONS:
        cells = {r["n_steps"]: r for r in table.filter(condition=condition).iter_rows(named=True)}
        if cells:
            row = [Estimate(cells[k]["accuracy"], cells[k]["low"], cells[k]["high"]) for k in lengths]
            rows.append(Row(IN_WORDS[condition], row))
    ns = {r["n_steps"]: r["n"] for r in table.filter(condition="own").iter_rows(named=True)}
    columns = [Column(f"{k} step{'' if k == 1 else 's'} (n = {ns[k]})", "share") for k in lengths]
    caption = (
        "Accuracy of the answer when what is fed is replaced and later thoughts are recomputed. A reading says what a thought "
        "holds; this says whether the answer needs it. A constant recurrence feeds the same vector anyway."
    )
    return [Table("Are the thoughts used?", columns, rows, caption, rows_are="what is fed")]


def _samples(result: dict[str, Any]) -> Samples:
    grids = [_reading_grid(grid) for grid in result["grids"]]
    caption = (
        f"The first test problems that have a target ({result['rule']}), not picked by how well they were read. "
        "Full-softmax probabilities."
    )
    return Samples("Sample readings", grids, caption)


def _reading_grid(grid: dict[str, Any]) -> ReadingGrid:
    def reading(cell: dict[str, Any]) -> Reading:
        guesses = [Guess(token, p, cell["rank"] == at) for at, (token, p) in enumerate(cell["guesses"])]
        return Reading(guesses, cell["rank"], cell["probability"])

    cells = [[reading(cell) for cell in row] for row in grid["cells"]]
    plain = {
        k: grid[k]
        for k in ("question", "chain", "gold", "answer", "correct", "layers", "positions", "targets", "problem")
    }
    return ReadingGrid(cells=cells, **plain)


def _facts(record: RunRecord, about: dict[str, Any], config: Any) -> list[Properties]:
    right, n = about["accuracy"]
    accurate = (
        f"{100 * right / n:.1f} % [{100 * wilson(right, n).low:.1f}, {100 * wilson(right, n).high:.1f}], n = {n:,}"
        if n
        else "not asked"
    )
    problems = record.result("problems")
    model = {
        "model": str(config.model),
        "trained to think": "yes" if about["trained"] else "no: a language model wrapped as an untrained CODI",
        "architecture": f"{about['family']}, {about['blocks']} blocks, width {about['width']}, vocabulary {about['vocabulary']:,}",
        "parameters": f"{about['parameters']:,}",
        "thoughts": f"{about['n_thoughts']}, fed: {about['recurrence']}; the answer sees {about['answer_sees']}",
        "right answers, all problems": accurate,
        "fingerprint": about["fingerprint"],
    }
    checks = {f"largest change: {name}": f"{value:g}" for name, value in about["self_check"].items()}
    data = {
        "problems": str(config.problems),
        "read, used": f"{problems['read']:,} rows, {problems['used']:,} problems",
        "malformed, repeated": f"{len(problems['malformed'])}, {problems['repeated']}",
        "could not be thought about": str(len(about["failures"])),
        "train, validation, test": ", ".join(f"{share:.0%}" for share in config.fractions),
    }
    return [
        Properties("The model", model),
        Properties("The problems", data),
        Properties("Edits that must change nothing", checks),
    ]


def _warnings(record: RunRecord, about: dict[str, Any]) -> list[str]:
    warnings = [
        "One training seed: the intervals are over items only and say nothing about other trainings of this model."
    ]
    if about["failures"]:
        first = about["failures"][0]
        warnings.append(
            f"{len(about['failures'])} problems could not be thought about, the first because: {first['reason']}"
        )
    malformed = record.result("problems")["malformed"]
    if malformed:
        warnings.append(f"{len(malformed)} rows could not be read, the first: {malformed[0]}")
    if any(value != 0 for value in about["self_check"].values()):
        warnings.append("An edit that must change nothing changed something: do not trust the numbers below.")
    return warnings


def _limits(about: dict[str, Any]) -> list[str]:
    limits = [
        "What a lens reads from a state need not be what the model uses: see the table on substituted thoughts.",
        "The written chain stands for one way to the answer; a model may think another.",
    ]
    if not about["trained"]:
        limits.append(
            "This model was never trained to think; what is read here is what any language model's states hold."
        )
    return limits


# Small words ---------------------------------------------------------------------------------------------------------


def _asked(rule: str, about: dict[str, Any]) -> str:
    name = about["targets"][rule]["rule"]
    return "The chain's tokens (uniform split)" if rule == "uniform" else name[0].upper() + name[1:]


def _counted(counts: dict[str, Any]) -> str:
    return (
        f"{counts['asked']:,} slots (problem × position) are asked about, {counts['empty']:,} are empty and masked; "
        f"{counts['new_values']:,} targets are new values; of {100 * counts['multi_token_share']:.1f} % of the targets only the "
        "first token is asked."
    )


def _estimate(row: dict[str, Any], key: str) -> Estimate:
    return Estimate(row[key], row[f"{key}_low"], row[f"{key}_high"])


def _lead(row: dict[str, Any]) -> Estimate:
    return Estimate(row["skill"], row["low"], row["high"])


def _in_order(names: Sequence[str], present: pl.Series) -> list[str]:
    there = set(present.unique())
    return [name for name in names if name in there]


def _short(reference: str) -> str:
    """The end of a long path, for a title; the whole of it stands among the facts."""
    return reference if len(reference) <= 48 else "…" + reference[-47:]
