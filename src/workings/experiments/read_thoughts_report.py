"""A run of `read-thoughts` → its report: verdict, controls, layer × position, curves, ablations, samples. Reads the record only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from workings.experiments.default_report import one_seed, provenance
from workings.experiments.read_thoughts import (
    MODEL,
    Config,
    ModelSummary,
    ProblemCounts,
    SampleReadings,
    TargetCounts,
)
from workings.files import write_with
from workings.judging.ablation import CONDITIONS, IN_WORDS, accuracy
from workings.judging.former_verdict import Skill, Verdict, verdict
from workings.judging.scores import TUNED_LENS, at_one_layer, new_values, score, skill
from workings.judging.statistics import wilson
from workings.reading import Predictor, SampleGrid
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
    Section,
    Series,
    Stat,
    Table,
    Text,
    write_report,
)
from workings.report.sections import ConclusionKind
from workings.run import RunRecord

TUNED, LOGIT = map(str, (TUNED_LENS, Predictor("logit lens")))
# The `reader` of runs before 2026-11-26, which had no column for subject, features or targets.
FORMER_READERS = {
    "tuned lens": TUNED_LENS,
    "logit lens": Predictor("logit lens"),
    "shuffled targets": TUNED_LENS._replace(targets="shuffled"),
    "untrained model": TUNED_LENS._replace(subject="untrained"),
    "control model": TUNED_LENS._replace(subject="control"),
} | {name: Predictor(name, "", "Q") for name in ("majority", "structure only", "copy from question")}
SCORES = ("top1", "top5", "top10", "ce")
SCORE_COLUMNS = (
    Column("top-1", "share"),
    Column("top-5", "share"),
    Column("top-10", "share"),
    Column("cross-entropy", "nats"),
)
KINDS: dict[str, ConclusionKind] = {
    "read": "read",
    "explained by a control": "not read",
    "nothing read": "not read",
    "undecided": "undecided",
}
ScoreRow = Mapping[str, float]  # a row of `score`


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Judge the reading of one run (the last of several): report.html, report.md and figures, in `out`."""
    record = records[-1]
    config, model = record.config(Config), record.result("model", ModelSummary)
    readings = {rule: _readings(record, rule) for rule in model.targets}
    verdicts = {rule: verdict(frame) for rule, frame in readings.items()}
    headline, found = next(iter(verdicts.items()))
    n = f"n = {found.score['n_problems']:,} test problems, {found.layer}"
    sections: list[Section] = [_at_a_glance(verdicts, model)] if len(verdicts) > 1 else []
    for rule, frame in readings.items():
        sections += _about_rule(rule, frame, verdicts[rule], model, first=rule == headline)
    sections += _fit_curves(record.metrics(), list(verdicts))
    sections += _ablations(record)
    samples = record.result("samples", SampleReadings)
    caption = (
        f"The first test problems that have a target ({samples.rule}), not picked by how well they were read. "
        "Full-softmax probabilities."
    )
    sections.append(Samples("Sample readings", [_reading_grid(grid) for grid in samples.grids], caption))
    made = Report(
        title=f"Reading the thoughts of {_short(config.model)}",
        question=records[0].question,
        conclusion=Conclusion(f"{_name(headline, model)}: {found.sentence}", KINDS[found.kind]),
        sections=sections,
        provenance=provenance([record]),
        headline=[
            Stat("the lens names the target", _estimate(found.score, "top1"), "share", n),
            Stat("skill over the best control", _skill(found.points), "points", found.points.control),
            Stat("skill in bits", _skill(found.bits), "bits", found.bits.control),
        ],
        warnings=_warnings(record, model),
        properties=_properties(record, model, config),
        limits=_limits(model),
    )
    page = write_report(made, out)
    for rule, frame in readings.items():
        write_with(out / "figures" / f"scores_{rule}.csv", every_score(frame).write_csv)
    return page


def _readings(record: RunRecord, rule: str) -> pl.DataFrame:
    found = record.outcomes(f"readings_{rule}")
    if "subject" in found.columns:
        return found
    was = {old: predictor._asdict() for old, predictor in FORMER_READERS.items()}
    split = [
        pl.col("reader").replace_strict({old: new[name] for old, new in was.items()}).alias(name)
        for name in Predictor._fields
    ]
    return found.with_columns(split)


def every_score(readings: pl.DataFrame) -> pl.DataFrame:
    """`score` of every predictor overall, by layer, by position, and by layer and position; null where a row pools them."""
    groups = ((), ("layer",), ("position",), ("layer", "position"))
    return pl.concat([score(readings, by) for by in groups], how="diagonal").select(
        *Predictor._fields, "layer", "position", pl.exclude(*Predictor._fields, "layer", "position")
    )


# The parts, in the order of the page ---------------------------------------------------------------------------------


def _at_a_glance(verdicts: Mapping[str, Verdict], model: ModelSummary) -> Table:
    """One row per target rule: none is shown without the others."""
    rows = []
    for rule, found in verdicts.items():
        lens, best = found.score, found.points
        cells = [_estimate(lens, "top1"), best.control_value, _skill(best), best.control, found.kind]
        rows.append(Row(_name(rule, model), cells, int(lens["n_problems"])))
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
    return Table("The targets, and what was read", columns, rows, caption, rows_are="target", drawn="skill")


def _about_rule(rule: str, readings: pl.DataFrame, found: Verdict, model: ModelSummary, first: bool) -> list[Section]:
    name, counts = _name(rule, model), model.targets[rule]
    sections: list[Section] = (
        [Text(name, _counted(counts))]
        if first  # whose sentence is the report's conclusion
        else [Text(f"{name}: {found.kind}", f"{found.sentence}\n\n{_counted(counts)}")]
    )
    sections.append(_controls(name, readings, found))
    if counts.n_new_values:
        sections.append(_new_values(readings, found.layer, name))
    sections.append(_overall(readings, name))
    sections.append(_by(readings, "layer", name, _in_order(model.layers, readings["layer"])))
    sections.append(_by(readings, "position", name, _in_order(model.positions, readings["position"])))
    sections.append(_heat_map(readings, name, model))
    return sections


def _controls(name: str, readings: pl.DataFrame, found: Verdict) -> Table:
    order = {TUNED: 0, LOGIT: 1}
    rows = _rows(score(at_one_layer(readings, layer=found.layer)), lambda reader: order.get(reader, 2))
    caption = (
        f"Test problems; the tuned lens at {found.layer}, every other reader with layers at the layer where it does best, all "
        "chosen on validation. Brackets are 95 % intervals, clustered by problem."
    )
    return Table(
        f"{name}: the lens beside its controls",
        SCORE_COLUMNS,
        rows,
        caption,
        highlight=TUNED,
        drawn="top-1",
    )


def _new_values(readings: pl.DataFrame, layer: str, name: str) -> Table:
    scores = new_values(at_one_layer(readings, layer=layer))
    rows = _rows(scores, lambda reader: reader != TUNED, ("top1", "top5"))
    caption = "Only targets that are numbers found neither in the question nor in the answer: they cannot be copied."
    return Table(f"{name}: hits on new values", SCORE_COLUMNS[:2], rows, caption)


def _overall(readings: pl.DataFrame, name: str) -> Table:
    """Every layer and position pooled, as seed 001 printed its headline."""
    rows = _rows(score(readings), lambda reader: reader not in (TUNED, LOGIT))
    caption = "All layers and positions of the test problems; n counts problems, not states."
    return Table(f"{name}: all layers and positions together", SCORE_COLUMNS, rows, caption, highlight=TUNED)


def _rows(scores: pl.DataFrame, place: Callable[[str], int], keys: Sequence[str] = SCORES) -> list[Row]:
    """A row for each reader: those with a lower `place` first, then those that name more targets."""
    named = [(_named(row), row) for row in scores.iter_rows(named=True)]
    order = sorted(named, key=lambda one: (place(one[0]), -one[1]["top1"]))
    return [Row(name, [_estimate(row, key) for key in keys], row["n_problems"]) for name, row in order]


def _named(row: Mapping[str, Any]) -> str:
    return str(Predictor(*(row[name] for name in Predictor._fields)))


def _least_certain(readings: pl.DataFrame, by: Sequence[str]) -> dict[tuple[Any, str], dict[str, Any]]:
    """{(cell, measure): the skill over the control that is beaten least clearly there}: all are beaten where it is."""
    rows = skill(readings, by=by).sort("low", maintain_order=True).unique([*by, "measure"], keep="first")
    return {
        (row[by[0]] if len(by) == 1 else tuple(row[name] for name in by), row["measure"]): row
        for row in rows.iter_rows(named=True)
    }


def _by(readings: pl.DataFrame, column: str, name: str, order: Sequence[str]) -> Table:
    """The lens's scores and its skill in points and bits by layer or by position, with simultaneous intervals of the skill."""
    of_lens = score(readings.filter(**TUNED_LENS._asdict()), (column,))
    scores, skills = {row[column]: row for row in of_lens.iter_rows(named=True)}, _least_certain(readings, (column,))
    rows = []
    for value in (value for value in order if value in scores):
        top1, bits = skills[value, "top1"], skills[value, "bits"]
        leads = [Estimate(row["skill"], row["low"], row["high"]) for row in (top1, bits)]
        cells = [*(_estimate(scores[value], key) for key in SCORES), top1["control_value"], *leads]
        rows.append(Row(value, cells, top1["n_problems"], note=_named(top1)))
    columns = [
        *SCORE_COLUMNS[:-1],
        Column("CE", "nats"),
        Column("that control", "share"),
        Column("skill", "points", signed=True),
        Column("skill by CE", "bits", signed=True),
    ]
    caption = (
        "Skill is the lens minus a control: the one (named in the row) that it beats least clearly, so that all are beaten where "
        "this one is. The intervals hold for all rows at once (95 %)."
    )
    return Table(f"{name}: by {column}", columns, rows, caption, rows_are=column)


def _heat_map(readings: pl.DataFrame, name: str, model: ModelSummary) -> HeatMap:
    layers = _in_order(model.layers, readings["layer"])
    positions = _in_order(model.positions, readings["position"])
    by_cell = ("layer", "position")
    lens = score(readings.filter(**TUNED_LENS._asdict()), by_cell).rows_by_key(by_cell, named=True, unique=True)
    skills = {cell: row for (cell, measure), row in _least_certain(readings, by_cell).items() if measure == "top1"}
    majority = score(readings.filter(reader="majority"), ("position",)).rows_by_key("position", named=True, unique=True)
    cells = [[(layer, position) for position in positions] for layer in layers]
    grid = lambda key: [[lens[cell][key] if cell in lens else None for cell in row] for row in cells]
    of_majority = lambda key: [majority[p][key] if p in majority else None for p in positions]
    return HeatMap(
        f"{name}: top-1 by layer and position",
        layers,
        positions,
        grid("top1"),
        [[lens[cell]["n_problems"] if cell in lens else 0 for cell in row] for row in cells],
        lows=grid("top1_low"),
        highs=grid("top1_high"),
        differs=[[cell in skills and skills[cell]["low"] > 0 for cell in row] for row in cells],
        control="every control (simultaneous 95 % intervals)",
        controls=[ControlRow("majority", of_majority("top1"), of_majority("top1_low"), of_majority("top1_high"))],
        limits=(0.0, 1.0),
    )


def _fit_curves(metrics: pl.DataFrame, rules: Sequence[str]) -> list[Section]:
    """A figure a rule: the validation loss of the lens, of the lens on shuffled targets, and of the compared models'."""
    if "fit" not in metrics.columns:
        return []
    sections: list[Section] = []
    for rule in rules:
        series = []
        for reader in metrics["reader"].drop_nulls().unique(maintain_order=True):
            for fit in (rule, f"{rule}, shuffled"):
                rows = metrics.filter(reader=reader, fit=fit)
                name = "shuffled targets" if fit != rule else TUNED if reader == MODEL else f"{reader} model"
                if len(rows):
                    steps, losses = rows["step"].to_list(), rows["validation"].to_list()
                    series.append(Series(name, steps, losses, control=name != TUNED))
        sections.append(Curves(f"Fitting the lens: {rule}", Axis("epoch"), Axis("validation loss", "nats"), series))
    return sections


def _ablations(record: RunRecord) -> list[Section]:
    # Runs before 2026-11-25 call the outcomes "necessity".
    names = [name for name in ("ablation", "necessity") if (record.path / "outcomes" / f"{name}.parquet").is_file()]
    if not names:
        return []
    table = accuracy(record.outcomes(names[0]))
    lengths = sorted({n_steps for n_steps, _ in table})
    rows = [
        Row(IN_WORDS[condition], [Estimate(one.value, one.low, one.high) for one in right])
        for condition in CONDITIONS
        if (right := [table[n_steps, condition].correct for n_steps in lengths if (n_steps, condition) in table])
    ]
    columns = [
        Column(f"{n_steps} step{'s' * (n_steps != 1)} (n = {table[n_steps, 'own'].correct.n_clusters})", "share")
        for n_steps in lengths
    ]
    caption = (
        "Accuracy of the answer when what is fed is replaced and later thoughts are recomputed. A reading says what a thought "
        "holds; this says whether the answer needs it. A constant recurrence feeds the same vector anyway. n counts structures "
        "(numbers and operations of a chain), by which intervals are clustered."
    )
    return [Table("Are the thoughts used?", columns, rows, caption, rows_are="what is fed")]


def _reading_grid(grid: SampleGrid) -> ReadingGrid:
    cells = [
        [
            Reading(
                [Guess(token, p, cell.rank == at) for at, (token, p) in enumerate(cell.guesses)],
                cell.rank,
                cell.probability,
            )
            for cell in row
        ]
        for row in grid.cells
    ]
    return ReadingGrid(
        question=grid.question,
        chain=grid.chain,
        gold=grid.gold,
        answer=grid.answer,
        correct=grid.correct,
        layers=grid.layers,
        positions=grid.positions,
        cells=cells,
        targets=grid.targets,
        problem=grid.problem,
    )


def _properties(record: RunRecord, model: ModelSummary, config: Config) -> list[Properties]:
    right, n = model.accuracy
    accurate = "not asked"
    if n:
        around = wilson(right, n)
        accurate = f"{100 * right / n:.1f} % [{100 * around.low:.1f}, {100 * around.high:.1f}], n = {n:,}"
    problems = record.result("problems", ProblemCounts)
    about_model = {
        "model": config.model,
        "trained to think": "yes" if model.trained else "no: a language model wrapped as an untrained CODI",
        "architecture": f"{model.family}, {model.n_blocks} blocks, width {model.width}, vocabulary {model.n_tokens:,}",
        "parameters": f"{model.n_parameters:,}",
        "thoughts": f"{model.n_thoughts}, fed: {model.recurrence}; the answer sees {model.answer_sees}",
        "right answers, all problems": accurate,
        "fingerprint": model.fingerprint,
    }
    about_problems = {
        "problems": config.problems,
        "read, used": f"{problems.n_read:,} rows, {problems.n_used:,} problems",
        "malformed, repeated": f"{len(problems.malformed)}, {problems.n_repeated}",
        "could not be thought about": str(len(model.failures)),
        "train, validation, test": ", ".join(f"{share:.0%}" for share in config.fractions),
    }
    checks = {f"largest change: {name}": f"{value:g}" for name, value in model.self_check.items()}
    return [
        Properties("The model", about_model),
        Properties("The problems", about_problems),
        Properties("Edits that must change nothing", checks),
    ]


def _warnings(record: RunRecord, model: ModelSummary) -> list[str]:
    warnings = one_seed([record])
    if model.failures:
        first = model.failures[0].reason
        warnings.append(f"{len(model.failures)} problems could not be thought about, the first because: {first}")
    malformed = record.result("problems", ProblemCounts).malformed
    if malformed:
        warnings.append(f"{len(malformed)} rows could not be read, the first: {malformed[0]}")
    if any(value != 0 for value in model.self_check.values()):
        warnings.append("An edit that must change nothing changed something: do not trust the numbers below.")
    return warnings


def _limits(model: ModelSummary) -> list[str]:
    limits = [
        "What a lens reads from a state need not be what the model uses: see the table on ablated thoughts.",
        "The written chain stands for one way to the answer; a model may think another.",
    ]
    if not model.trained:
        limits.append(
            "This model was never trained to think; what is read here is what any language model's states hold."
        )
    return limits


# Small words ---------------------------------------------------------------------------------------------------------


def _name(rule: str, model: ModelSummary) -> str:
    name = model.targets[rule].rule
    return "The chain's tokens (uniform split)" if rule == "uniform" else name[0].upper() + name[1:]


def _counted(counts: TargetCounts) -> str:
    return (
        f"{counts.n_targets:,} slots (problem × position) have a target, {counts.n_empty:,} are empty and masked; "
        f"{counts.n_new_values:,} targets are new values; {100 * counts.multi_token_share:.1f} % of the targets are only the "
        "first token of something longer."
    )


def _estimate(row: ScoreRow, key: str) -> Estimate:
    return Estimate(row[key], row[f"{key}_low"], row[f"{key}_high"])


def _skill(one: Skill) -> Estimate:
    return Estimate(one.value, one.low, one.high)


def _in_order(names: Sequence[str], present: pl.Series) -> list[str]:
    there = set(present.unique())
    return [name for name in names if name in there]


def _short(reference: str) -> str:
    """The end of a long path, for a title; the whole of it stands among the facts."""
    return reference if len(reference) <= 48 else "…" + reference[-47:]
