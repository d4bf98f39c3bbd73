"""Runs that read digits, facts, and their controls → a conclusion and a report.

Every run has the same probes and the same validation documents, so that two arms are compared item by item and seed by seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from workings.arithmetic.probes import PROBE_KINDS
from workings.experiments.default_report import (
    FAMILY_INTERVALS,
    cost_table,
    curves,
    difference_table,
    estimate_of,
    n_seeds,
    report_on_runs,
)
from workings.experiments.evaluate_model_report import chance
from workings.experiments.fact_tokens import Config, TextRead
from workings.judging.arms import Arms, Cost
from workings.judging.paired import PairedDifference, paired_difference, seeds_and_items, with_holm
from workings.judging.statistics import wilson
from workings.report import Axis, Column, Conclusion, Curves, Estimate, Properties, Row, Stat, Table
from workings.run import RunRecord

MEASURES = {"worked": "work shown", "correct": "at once", "value_correct": "choice of product"}
CONTRASTS = (("facts", "digits"), ("facts", "shuffled"), ("shuffled", "digits"), ("reserved", "digits"))
"""What is asked of pairs of arms: the whole effect, its content, its saving, the dead rows."""
CURVES = {
    "validation bits per byte": ("bits_per_byte", "bits per byte"),
    "the 81 products, with the work shown": ("table_worked", "share"),
    "the 81 products, at once": ("table_direct", "share"),
}
LIMITS = [
    "Rewriting forgets how an equation was written, so an arm that reads facts has less to predict in a document that has any: "
    "its bits per byte compare on documents without facts. On others they are low by what is forgotten, and high where a fact is "
    "held out.",
    "Arms read the same raw bytes in the same number of steps; an arm with fact tokens does so in fewer tokens and FLOPs.",
    "The small scale says what a small model on drills does; it is no statement about GPT-2 on ten billion tokens.",
]
FEW_SEEDS = (
    "Few training seeds say little of how far seeds differ: with as many others an interval may be half as wide, or twice, and "
    "an end that lies near zero may cross it. More seeds mend that; no other interval does."
)


class Contrast(NamedTuple):
    """What is compared: two arms, on one measure, on the probes that the drills show or on those held out from them."""

    treatment: str
    baseline: str
    measure: str
    held_out: bool = False

    @property
    def name(self) -> str:
        """The name of its row."""
        which = "held out" if self.held_out else "drilled"
        return f"{self.treatment} − {self.baseline}, {MEASURES[self.measure]}, {which}"


Contrasts = Mapping[Contrast, PairedDifference]


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Compare the four arms, or those of them that were run, with one seed or several."""
    arms = Arms(records)
    found = contrasts(arms)
    several = len({record.manifest.seed for record in records})
    return report_on_runs(
        records,
        out,
        title="Facts as tokens",
        conclusion=conclusion(found),
        headline=[_stat(arms, arm) for arm in arms.names],
        sections=[
            *([_contrast_table(found)] if found else []),
            *(probe_table(measure, list(probe_rows(arms, measure, arms.names)), arms.names) for measure in MEASURES),
            *_text_tables(arms),
            *training_curves(records),
            cost_table(records),
        ],
        properties=[_properties(arms)],
        limits=[*LIMITS, *([f"{FEW_SEEDS} Here there are {several}."] if 2 <= several < 5 else [])],
    )


# ── what two arms are apart ──────────────────────────────────────────────────────────────────────────────────────────


def contrasts(arms: Arms) -> dict[Contrast, PairedDifference]:
    """Every contrast of arms that were run, on every measure that has items."""
    asked = [
        Contrast(*pair, measure, held_out)
        for pair in CONTRASTS
        if arms.has(*pair)
        for measure in MEASURES
        for held_out in (False, True)
    ]
    return compared(arms, asked)


def compared(arms: Arms, asked: Sequence[Contrast]) -> dict[Contrast, PairedDifference]:
    """The difference of each contrast that has items; p-values and intervals are adjusted for all of them (Holm)."""
    found = {
        one: arms.difference(
            one.treatment, one.baseline, "probes", one.measure, where=_answerable(one.measure, one.held_out)
        )
        for one in asked
        if len(_probes(arms, one.treatment, one.measure, one.held_out)[0])
    }
    return dict(zip(found, with_holm(list(found.values())), strict=True))


def conclusion(found: Contrasts) -> Conclusion:
    """Judge by facts − digits with the work shown, on what was drilled; the arm shuffled says what it is due to."""
    effect = found.get(Contrast("facts", "digits", "worked"))
    if effect is None:
        return Conclusion("One arm alone shows no difference: run digits and facts.", "undecided")
    of = f"{effect.n_items:,} probes, {effect.n_seeds} training seed{'s' * (effect.n_seeds > 1)}"
    says = f"With the work shown, facts − digits is {effect.in_points} ({of})"
    if effect.interval.low <= 0 <= effect.interval.high:
        return Conclusion(f"{says}: no evidence of a difference.", "undecided")
    if effect.interval.high < 0:
        return Conclusion(f"{says}: reading facts as tokens makes it worse.", "fails")
    content = found.get(Contrast("facts", "shuffled", "worked"))
    if content is None:
        return Conclusion(f"{says}: better, and without the arm shuffled nothing says why.", "holds")
    if content.interval.low > 0:
        return Conclusion(f"{says}, and over shuffled {content.in_points}: it is the content of the tokens.", "holds")
    return Conclusion(
        f"{says}, but over shuffled {content.in_points}: no evidence that it is the content; "
        "shorter text may explain it.",
        "explained by a control",
    )


def _contrast_table(found: Contrasts) -> Table:
    caption = (
        "Share of probes answered, paired by probe and by seed; what is held out rests on a fact that the drills never show. "
        "Intervals cover seeds and items where there are several seeds (Student's t), items alone where there is one (exact "
        f"McNemar). p is adjusted for all rows (Holm); {FAMILY_INTERVALS}"
    )
    rows = {contrast.name: one for contrast, one in found.items()}
    return difference_table("What two arms are apart", rows, {"seeds": "n_seeds"}, caption, rows_are="contrast")


# ── probes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _answerable(measure: str, held_out: bool) -> pl.Expr:
    """The probes that a measure applies to; held-out ones rest on a fact that the drills never show."""
    return pl.col(measure).is_not_null() & (pl.col("held_out") == held_out)


def _probes(arms: Arms, arm: str, measure: str, held_out: bool) -> list[pl.Series]:
    """Right or wrong, for each seed of an arm."""
    frames = [arms.outcomes(arm, seed, "probes") for seed in arms.seeds(arm)]
    return [frame.filter(_answerable(measure, held_out))[measure] for frame in frames]


def answered(arms: Arms, arm: str, measure: str) -> Estimate:
    """The share of what was drilled that an arm answers."""
    return _share(_probes(arms, arm, measure, held_out=False))


def _share(right: Sequence[pl.Series]) -> Estimate:
    """Mean over seeds. The Wilson interval uses the items of one seed, because all seeds share items."""
    p, n = float(pl.concat(right).cast(pl.Float64).to_numpy().mean()), len(right[0])
    around = wilson(p * n, n)
    return Estimate(p, around.low, around.high)


def _stat(arms: Arms, arm: str) -> Stat:
    n = len(_probes(arms, arm, "worked", held_out=False)[0])
    note = f"of what was drilled, with the work shown; n = {n:,}, {n_seeds(len(arms.seeds(arm)))}"
    return Stat(arm, answered(arms, arm, "worked"), "share", note)


def probe_rows(arms: Arms, measure: str, names: Sequence[str], suffix: str = "") -> Iterator[Row]:
    """A row a kind of probe: the shares of these arms, chance where there is one, and n."""
    frames = [
        [arms.outcomes(arm, seed, "probes").filter(pl.col(measure).is_not_null()) for seed in arms.seeds(arm)]
        for arm in names
    ]
    guessing = [chance("value_choice")] if measure == "value_correct" else []
    for kind in PROBE_KINDS:
        right = [[frame.filter(condition=kind)[measure] for frame in some] for some in frames]
        if len(right[0][0]):
            yield Row(f"{kind}{suffix}", [*map(_share, right), *guessing], len(right[0][0]))


def probe_table(measure: str, rows: Sequence[Row], names: Sequence[str]) -> Table:
    """Rows of `probe_rows` under the names of their arms."""
    columns = [*(Column(name, "share") for name in names), *[Column("chance", "share")] * (measure == "value_correct")]
    caption = "Means over seeds; intervals (Wilson) cover the items of one seed and not what seeds differ by."
    return Table(f"Probes, {MEASURES[measure]}", columns, rows, caption, rows_are="kind of probe")


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text_tables(arms: Arms) -> list[Table]:
    """Bits per byte of each arm, and what two arms are apart, by what a document holds."""
    groups = _document_groups(arms)
    rows = [Row(name, [_bits_per_byte(arms, arm, ids) for arm in arms.names], len(ids)) for name, ids in groups.items()]
    columns = [Column(arm, "number", digits=4) for arm in arms.names]
    caption = (
        "Bits per byte of validation documents, the same raw documents in every arm; n counts documents. A held-out fact is a "
        "token that no training text has: to the arm facts it is all but impossible, and weighs on its bits per byte. "
        "Intervals cover documents, and seeds where there are several."
    )
    made = [Table("Bits per byte", columns, rows, caption, rows_are="documents")]
    apart = []
    for pair in CONTRASTS:
        if not arms.has(*pair):
            continue
        for name, ids in groups.items():
            found = paired_difference(*(_bits_by_document(arms, arm, arms.seeds(*pair), ids) for arm in pair))
            apart.append(Row(f"{pair[0]} − {pair[1]}, {name}", [estimate_of(found), found.n_seeds], len(ids)))
    if apart:
        columns = [Column("difference", "number", digits=4, signed=True), Column("seeds", "count")]
        caption = "Less is better. Paired by document and by seed; each interval (95 %) by itself."
        made.append(Table("Bits per byte, two arms apart", columns, apart, caption, rows_are="contrast"))
    return made


def _bits_by_document(arms: Arms, arm: str, seeds: Sequence[int], ids: Sequence[str]) -> np.ndarray:
    """[seeds, documents] whose mean over documents is a seed's bits per byte, and whose spread is that of this ratio."""
    rows = []
    for seed in seeds:
        text = arms.outcomes(arm, seed, "text").filter(pl.col("id").is_in(ids))
        bits, n_bytes = text["nats"].to_numpy() / math.log(2), text["bytes"].to_numpy()
        ratio = bits.sum() / n_bytes.sum()
        rows.append(ratio + (bits - ratio * n_bytes) / n_bytes.mean())  # linearised, as in the delta method
    return np.array(rows)


def _bits_per_byte(arms: Arms, arm: str, ids: Sequence[str]) -> Estimate:
    values = _bits_by_document(arms, arm, arms.seeds(arm), ids)
    around = seeds_and_items(values)
    return Estimate(float(values.mean()), around.low, around.high)


def _document_groups(arms: Arms) -> dict[str, list[str]]:
    """{source and what its documents hold: ids}; which hold a fact, an arm that reads facts says."""
    marked = next((arm for arm in ("facts", "shuffled") if arm in arms.names), None)
    arm = marked or arms.names[0]
    text = arms.outcomes(arm, arms.seeds(arm)[0], "text")
    held_out = pl.col("held_out_facts") if "held_out_facts" in text.columns else pl.lit(0)
    holds = (
        pl.when(pl.col("facts") == 0)
        .then(pl.lit(" without facts"))
        .when(held_out > 0)
        .then(pl.lit(" with a held-out fact"))
        .otherwise(pl.lit(" with facts"))
    )
    named = text.with_columns(group=pl.col("source") + (holds if marked else pl.lit("")))
    return {
        str(name): part["id"].to_list() for (name,), part in named.sort("group").group_by("group", maintain_order=True)
    }


# ── the runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def training_curves(records: Sequence[RunRecord]) -> list[Curves]:
    """What the arms were measured by while they trained; those that do not read facts are drawn as controls."""
    controls = [one.manifest.arm for one in records if not one.manifest.arm.startswith("facts")]
    figures = [
        curves(records, f"While training: {title}", {column: unit}, Axis(unit), controls)
        for title, (column, unit) in CURVES.items()
    ]
    return [figure for some in figures for figure in some]


def sightings(arms: Arms, arm: str) -> float:
    """How often training showed a fact, the mean over all there are and over seeds."""
    return float(np.mean([record.result("text", TextRead).sightings_per_fact for record in arms.runs[arm].values()]))


def _properties(arms: Arms) -> Properties:
    record = next(iter(arms.runs[arms.names[0]].values()))
    config, cost = record.config(Config), Cost.of(record)
    shape = config.training.shape
    items = {
        "model": f"GPT-2, {shape.n_layers} layers of {shape.d_model}, {cost.parameters:,} parameters"
        if cost
        else "GPT-2",
        "text": f"{config.text.english}, {config.text.problems}, drills for {config.fact_rate:.2%} facts",
        "seeds": ", ".join(map(str, arms.seeds(arms.names[0]))),
    }
    return Properties("Every arm", items)
