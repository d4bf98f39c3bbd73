"""Runs of `read-thoughts` → their report: what the thoughts hold, on one screen; targets in full, use and samples folded away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from workings.experiments.default_report import chain_facts, provenance
from workings.experiments.judged_report import (
    FED,
    conclusion,
    detection,
    first_screen,
    in_full,
    in_order,
    target_name,
    use_in_full,
    used_badge,
)
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
from workings.judging.ceiling import LINEAR_PROBE
from workings.judging.detection import DetectionCurve
from workings.judging.scores import TUNED_LENS, at_one_layer, choose_layer, new_values, score, skill
from workings.judging.statistics import ONE_SEED, wilson
from workings.judging.transplant import Used, used
from workings.judging.verdict import verdicts
from workings.reading import Predictor, SampleGrid
from workings.report import (
    Axis,
    Block,
    Column,
    Conclusion,
    ControlRow,
    Curves,
    Estimate,
    Fold,
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
    Table,
    Text,
    write_report,
)
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
ScoreRow = Mapping[str, float]  # a row of `score`
SWAPPED = "transplants"  # outcomes
LENS_ALONE = "Read by the lens alone, which is no verdict."
NOT_JUDGED = Conclusion(
    "This run was not judged: it is older than the judge, or too few of its problems have a step result to judge.",
    "not judged",
)


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Say what the thoughts hold: report.html, report.md and figures, in `out`.

    Runs of several models that were judged on the same problems are training seeds, and pooled; the lens's tables, ablations and
    samples are the first one's. Of other runs the last is shown.
    """
    shown, unlike = _pooled(records)
    record = shown[0]
    config, model = record.config(Config), record.result("model", ModelSummary)
    declared = record.manifest.declared
    judged = {rule: [one.outcomes(f"judged_{rule}") for one in shown] for rule in in_order(declared.get("family", []))}
    found = verdicts(judged, declared["rung"]) if judged else {}
    readings = {rule: _readings(record, rule) for rule in model.targets}
    use = _used(record)
    badges = {rule: used_badge(one) for rule, one in use.items()}
    sections: list[Section] = [*first_screen(found, declared["headline"], badges)] if found else []
    for rule in in_order(list(dict.fromkeys([*found, *readings]))):
        inside = in_full(found[rule], judged[rule]) if rule in found else []
        if rule == declared.get("headline") and record.has_result("detection"):
            inside.append(detection(record.result("detection", DetectionCurve)))
        if rule in readings:
            inside += _about_lens(rule, readings[rule], model, record.metrics())
        sections.append(Fold(_name(rule), inside, found[rule].sentence if rule in found else LENS_ALONE))
    sections += [*_use(record, use), _samples(record)]
    made = Report(
        title=f"Reading the thoughts of {_short(config.model)}" + f", {len(shown)} training seeds" * (len(shown) > 1),
        question=records[0].question,
        conclusion=conclusion(found[declared["headline"]]) if found else NOT_JUDGED,
        sections=sections,
        provenance=provenance(shown),
        warnings=[*_warnings(record, model), *([ONE_SEED] if found and len(shown) == 1 else []), *unlike],
        properties=_properties(record, model, config),
        limits=_limits(model),
    )
    page = write_report(made, out)
    for rule, frame in readings.items():
        write_with(out / "figures" / f"scores_{rule}.csv", every_score(frame).write_csv)
    return page


def _pooled(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The runs to show, one a model, and a warning where others are left out."""
    last_of = {record.result("model", ModelSummary).fingerprint: record for record in records}
    shown = [record for record in records if record in last_of.values()]
    asked = [_asked(record) for record in shown]
    if any(one is None or one != asked[0] for one in asked):
        shown = shown[-1:]
    left_out = len(records) - len(shown)
    unlike = (
        f"{left_out} of the runs are not shown: only runs of different models, judged on the same problems, are pooled."
    )
    return shown, [unlike] if left_out else []


def _asked(record: RunRecord) -> tuple[dict[str, Any], list[list[str]]] | None:
    """What a run declared, and the problems on which it was judged; None for a run that was not."""
    declared = {name: value for name, value in record.manifest.declared.items() if name != "at"}
    if not declared:
        return None
    tables = [record.outcomes(f"judged_{rule}") for rule in declared["family"]]
    return declared, [table["problem"].unique(maintain_order=True).to_list() for table in tables]


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


def _about_lens(rule: str, readings: pl.DataFrame, model: ModelSummary, metrics: pl.DataFrame) -> list[Block]:
    """The lens's own tables about one target, beside everything that names it without the thoughts."""
    layer, counts = choose_layer(readings), model.targets[rule]
    blocks: list[Block] = [Text("What the lens is asked for", _counted(counts)), _controls(readings, layer)]
    if counts.n_new_values:
        blocks.append(_new_values(readings, layer))
    return [
        *blocks,
        _overall(readings),
        _by(readings, "layer", _in_order(model.layers, readings["layer"])),
        _by(readings, "position", _in_order(model.positions, readings["position"])),
        _heat_map(readings, model),
        *_fit_curve(metrics, rule),
    ]


def _controls(readings: pl.DataFrame, layer: str) -> Table:
    order = {TUNED: 0, LOGIT: 1, str(LINEAR_PROBE): 2}
    rows = _rows(score(at_one_layer(readings, layer=layer)), lambda reader: order.get(reader, 3))
    caption = (
        f"Test problems; the tuned lens at {_layer_name(layer)}, other readers with layers where they do best, all chosen on "
        "validation. The linear probe is no control: it sees the thoughts, and says what a lens could have read. Intervals are "
        "clustered by problem."
    )
    return Table("The lens beside its controls", SCORE_COLUMNS, rows, caption, highlight=TUNED, drawn="top-1")


def _new_values(readings: pl.DataFrame, layer: str) -> Table:
    scores = new_values(at_one_layer(readings, layer=layer))
    rows = _rows(scores, lambda reader: reader != TUNED, ("top1", "top5"))
    caption = "Only targets that are numbers found neither in the question nor in the answer: they cannot be copied."
    return Table("The lens on new values", SCORE_COLUMNS[:2], rows, caption)


def _overall(readings: pl.DataFrame) -> Table:
    """Every layer and position pooled, as seed 001 printed its headline."""
    rows = _rows(score(readings), lambda reader: reader not in (TUNED, LOGIT))
    caption = "All layers and positions of the test problems; n counts problems, not states."
    return Table("The lens at all layers and positions together", SCORE_COLUMNS, rows, caption, highlight=TUNED)


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


def _by(readings: pl.DataFrame, column: str, order: Sequence[str]) -> Table:
    """The lens's scores and its skill in points and bits by layer or by position, with simultaneous intervals of the skill."""
    of_lens = score(readings.filter(**TUNED_LENS._asdict()), (column,))
    scores, skills = {row[column]: row for row in of_lens.iter_rows(named=True)}, _least_certain(readings, (column,))
    rows = []
    for value in (value for value in order if value in scores):
        top1, bits = skills[value, "top1"], skills[value, "bits"]
        leads = [Estimate(row["skill"], row["low"], row["high"]) for row in (top1, bits)]
        cells = [*(_estimate(scores[value], key) for key in SCORES), top1["control_value"], *leads]
        shown = _layer_name(value) if column == "layer" else value
        rows.append(Row(shown, cells, top1["n_problems"], note=f"hardest control: {_named(top1)}"))
    columns = [
        *SCORE_COLUMNS[:-1],
        Column("CE", "nats"),
        Column("that control", "share"),
        Column("skill", "points", signed=True),
        Column("skill by CE", "bits", signed=True),
    ]
    caption = (
        "Skill is the lens minus the control that is hardest to beat, named in the row: where it is beaten, all are. The "
        "intervals of the skill hold for all rows at once."
    )
    return Table(f"The lens by {column}", columns, rows, caption, rows_are=column)


def _heat_map(readings: pl.DataFrame, model: ModelSummary) -> HeatMap:
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
        "The lens by layer and position: top-1",
        [_layer_name(layer) for layer in layers],
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


def _fit_curve(metrics: pl.DataFrame, rule: str) -> list[Block]:
    """The validation loss of the lens, of the lens on shuffled targets, and of the compared models'."""
    if "fit" not in metrics.columns:
        return []
    series = []
    for reader in metrics["reader"].drop_nulls().unique(maintain_order=True):
        for fit in (rule, f"{rule}, shuffled"):
            rows = metrics.filter(reader=reader, fit=fit)
            name = (
                "shuffled targets"
                if fit != rule
                else TUNED
                if reader == MODEL
                else f"{reader.removesuffix(' model')} model"
            )
            if len(rows):
                steps, losses = rows["step"].to_list(), rows["validation"].to_list()
                series.append(Series(name, steps, losses, control=name != TUNED))
    return [Curves("Fitting the lens", Axis("epoch"), Axis("validation loss", "nats"), series)] if series else []


def _use(record: RunRecord, found: Mapping[str, Used]) -> list[Fold]:
    """Ablations and swaps of thoughts, where the run has them."""
    blocks: list[Block] = use_in_full(found, record.outcomes(SWAPPED).filter(split="test")) if found else []
    # Runs before 2026-11-25 call the outcomes "necessity".
    blocks += [_ablated(record.outcomes(name)) for name in ("ablation", "necessity") if record.has_outcomes(name)]
    says = "A reading says what a thought holds; this says whether the answer needs it."
    return [Fold("Are the thoughts used?", blocks, says)] if blocks else []


def _ablated(outcomes: pl.DataFrame) -> Table:
    table = accuracy(outcomes)
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
        "Accuracy of the answer when what is fed is replaced and later thoughts are recomputed. A constant recurrence feeds the "
        "same vector anyway. n counts structures, the numbers and operations of a chain."
    )
    return Table("Right answers with other thoughts", columns, rows, caption, rows_are="what is fed")


def _used(record: RunRecord) -> dict[str, Used]:
    """Whether the answer uses each target; nothing where no thoughts were swapped."""
    if not record.has_outcomes(SWAPPED):
        return {}
    outcomes = record.outcomes(SWAPPED)
    return used(outcomes.filter(split="val"), outcomes.filter(split="test"))


def _samples(record: RunRecord) -> Fold:
    samples = record.result("samples", SampleReadings)
    caption = f"The target is {target_name(samples.rule)}. Probabilities are those of the full softmax."
    grids = Samples("Test problems read by the lens", [_reading_grid(grid) for grid in samples.grids], caption)
    return Fold(
        "Sample readings", [grids], "The first test problems that have a target, not picked by how well they were read."
    )


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
        layers=[_layer_name(layer) for layer in grid.layers],
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
        **chain_facts(problems.chains),
        "could not be thought about": str(len(model.failures)),
        "train, validation, test": ", ".join(f"{share:.0%}" for share in config.fractions),
    }
    checks = {f"largest change: {name}": f"{value:g}" for name, value in model.self_check.items()}
    about_test = (
        {
            "headline": target_name(declared["headline"]),
            "strongest question readers": declared["rung"],
            "targets tested together": ", ".join(map(target_name, declared["family"])),
            "declared at": declared["at"],
        }
        if (declared := record.manifest.declared)
        else {"what is tested": "nothing was declared"}
    )
    return [
        Properties("The model", about_model),
        Properties("Declared before the test", about_test),
        Properties("The problems", about_problems),
        Properties("Edits that must change nothing", checks),
    ]


def _warnings(record: RunRecord, model: ModelSummary) -> list[str]:
    warnings = []
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
        "What is read from a state need not be what the model uses: see whether the thoughts are used.",
        "The question readers are a declared ladder: a stronger one may know what is called read here.",
        "Intervals hold the fitted readers fixed; they do not cover the luck of fitting them.",
        "The written chain stands for one way to the answer; a model may think another.",
    ]
    if not model.trained:
        limits.append(
            "This model was never trained to think; what is read here is what any language model's states hold."
        )
    return limits


# Small words ---------------------------------------------------------------------------------------------------------


def _name(rule: str) -> str:
    """The heading of a target."""
    name = target_name(rule)
    return name[0].upper() + name[1:]


def _layer_name(layer: str) -> str:
    return f"{layer} ({FED})" if layer == "embed" else layer


def _counted(counts: TargetCounts) -> str:
    return (
        f"{counts.n_targets:,} slots (problem × position) have a target, {counts.n_empty:,} are empty and masked. "
        f"{counts.n_new_values:,} targets are new values. "
        f"{100 * counts.multi_token_share:.1f} % of the targets are only the first token of something longer."
    )


def _estimate(row: ScoreRow, key: str) -> Estimate:
    return Estimate(row[key], row[f"{key}_low"], row[f"{key}_high"])


def _in_order(names: Sequence[str], present: pl.Series) -> list[str]:
    there = set(present.unique())
    return [name for name in names if name in there]


def _short(reference: str) -> str:
    """The end of a long path, for a title; the whole of it stands among the facts."""
    return reference if len(reference) <= 48 else "…" + reference[-47:]
