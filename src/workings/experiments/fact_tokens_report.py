"""Runs that read digits, facts, and their controls → a verdict and a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workings.arithmetic.probes import PROBE_KINDS
from workings.experiments.evaluate_model_report import chance
from workings.experiments.fact_arms import HELD_OUT, MEASURES, TRAINED, Arms, Gap, adjusted, asked, gap, share
from workings.experiments.fact_tokens import Config
from workings.judging.comparison import MATCHED, ONE_SEED, REPORTED
from workings.judging.statistics import seeds_and_items
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
    write_report,
)
from workings.report.wording import interval, number
from workings.run import RunRecord

CONTRASTS = (("facts", "digits"), ("facts", "shuffled"), ("shuffled", "digits"), ("reserved", "digits"))
"""What is asked of pairs of arms: the whole effect, its content, its saving, the dead rows."""


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Of runs of the four arms, or some of them, with one seed or several."""
    arms = Arms(records)
    found = gaps(arms)
    one_seed = len({r.manifest.seed for r in records}) == 1
    made = Report(
        title="Facts as tokens",
        question=records[0].question,
        conclusion=verdict(found),
        headline=_headline(arms),
        sections=[
            *([_gap_table(found)] if found else []),
            *probe_tables(arms),
            *_text_tables(arms),
            *curves(arms),
            cost_table(arms),
        ],
        provenance=record_of(records),
        warnings=[ONE_SEED] if one_seed else [],
        properties=_facts(arms),
        limits=[*LIMITS, *_few_seeds(records)],
    )
    return write_report(made, out)


LIMITS = [
    "Rewriting forgets how an equation was written, so an arm that reads facts has less to predict in a document that has any: "
    "its bits per byte compare on documents without facts. On others they are low by what is forgotten, and high where a fact is "
    "held out.",
    "Arms read the same raw bytes in the same number of steps; an arm with fact tokens does so in fewer tokens and FLOPs.",
    "The small scale says what a small model on drills does; it is no statement about GPT-2 on ten billion tokens.",
]


def _few_seeds(records: Sequence[RunRecord]) -> list[str]:
    """What an interval over two to four seeds is worth."""
    n_seeds = len({record.manifest.seed for record in records})
    return [f"{FEW_SEEDS} Here there are {n_seeds}."] if 2 <= n_seeds < 5 else []


FEW_SEEDS = (
    "Few training seeds say little of how far seeds differ: with as many others an interval may be half as wide, or twice, and "
    "an end that lies near zero may cross it. More seeds mend that; no other interval does."
)


def gaps(arms: Arms) -> list[Gap]:
    """Every contrast of arms that are there, on every measure."""
    found = []
    for pair in CONTRASTS:
        if not set(pair) <= set(arms.names) or not arms.seeds(*pair):
            continue
        for measure, in_words in MEASURES.items():
            for held_out, which in ((False, TRAINED), (True, HELD_OUT)):
                differences = arms.differences(pair, measure, held_out)
                if differences.size:
                    found.append(gap(pair, f"{in_words}, {which}", differences))
    return adjusted(found)


def verdict(found: Iterable[Gap]) -> Conclusion:
    """From the interval of facts − digits with the work shown, on what was drilled; shuffled says what it is due to."""
    main = {one.arms: one for one in found if one.what == f"{MEASURES['worked']}, {TRAINED}"}
    effect = main.get(("facts", "digits"))
    if effect is None:
        return Conclusion("One arm alone shows no difference: run digits and facts.", "undecided")
    of = f"{effect.n_items:,} probes, {effect.n_seeds} training seed{'s' * (effect.n_seeds > 1)}"
    says = f"With the work shown, facts − digits is {points(effect)} ({of})"
    if effect.interval.low <= 0 <= effect.interval.high:
        return Conclusion(f"{says}: no evidence of a difference.", "undecided")
    if effect.interval.high < 0:
        return Conclusion(f"{says}: reading facts as tokens makes it worse.", "fails")
    content = main.get(("facts", "shuffled"))
    if content is None:
        return Conclusion(f"{says}: better, and without the arm shuffled nothing says why.", "holds")
    if content.interval.low > 0:
        return Conclusion(f"{says}, and over shuffled {points(content)}: it is the content of the tokens.", "holds")
    over = f"over shuffled {points(content)}"
    return Conclusion(
        f"{says}, but {over}: no evidence that it is the content; shorter text may explain it.",
        "explained by a control",
    )


def points(one: Gap) -> str:
    return f"{number(one.difference, 'points')} points {interval(one.interval.low, one.interval.high, 'share')}"


def _headline(arms: Arms) -> list[Stat]:
    stats = []
    for arm in arms.names:
        seeds = arms.seeds(arm)
        n = len(asked(arms.probes(arm, seeds[0]), "worked", False))
        note = f"of what was drilled, with the work shown; n = {n:,}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
        stats.append(Stat(arm, arms.answered(arm, "worked"), "share", note))
    return stats


def _gap_table(found: Sequence[Gap]) -> Table:
    tested = any(one.p is not None for one in found)
    rows = [
        Row(
            f"{one.arms[0]} − {one.arms[1]}, {one.what}",
            [Estimate(one.difference, one.interval.low, one.interval.high), one.n_seeds, *([one.p] * tested)],
            one.n_items,
        )
        for one in found
    ]
    columns = [
        Column("difference", "points", signed=True),
        Column("seeds", "count"),
        *([Column("p, Holm", "p")] * tested),
    ]
    caption = (
        "Share of probes answered, paired by probe and by seed; what is held out rests on a fact that the drills never show. "
        "Intervals (95 %, each by itself) cover seeds and items where there are several seeds, items alone where there is one"
        + ("; p only there, by sign flips over items." if tested else ".")
    )
    return Table("What two arms are apart", columns, rows, caption, rows_are="contrast", drawn="difference")


def probe_tables(arms: Arms) -> list[Table]:
    """One table a measure: a row a kind of probe, a column an arm."""
    return [probe_table(measure, list(probe_rows(arms, measure, arms.names)), arms.names) for measure in MEASURES]


def probe_rows(arms: Arms, measure: str, names: Sequence[str], suffix: str = "") -> Iterator[Row]:
    """A row a kind of probe: the shares of these arms, chance where there is one, and n."""
    frames = [
        [arms.probes(arm, seed).filter(pl.col(measure).is_not_null()) for seed in arms.seeds(arm)] for arm in names
    ]
    guessing = [chance("value_choice")] if measure == "value_correct" else []
    for kind in PROBE_KINDS:
        right = [[frame.filter(condition=kind)[measure] for frame in some] for some in frames]
        if len(right[0][0]):
            shares = [share(pl.concat(of), len(of)) for of in right]
            yield Row(f"{kind}{suffix}", [*shares, *guessing], len(right[0][0]))


def probe_table(measure: str, rows: Sequence[Row], names: Sequence[str]) -> Table:
    """Rows of `probe_rows` under the names of their arms."""
    columns = [*(Column(name, "share") for name in names), *[Column("chance", "share")] * (measure == "value_correct")]
    caption = "Means over seeds; intervals (Wilson) cover the items of one seed and not what seeds differ by."
    return Table(f"Probes, {MEASURES[measure]}", columns, rows, caption, rows_are="kind of probe")


def _text_tables(arms: Arms) -> list[Table]:
    """Bits per byte of each arm, and what two arms are apart, by what a document holds."""
    groups = _document_groups(arms)
    every = {arm: [arms.text(arm, seed) for seed in arms.seeds(arm)] for arm in arms.names}
    rows = [
        Row(name, [_estimate(_bits_by_document(some, ids)) for some in every.values()], len(ids))
        for name, ids in groups.items()
    ]
    columns = [Column(arm, "number", digits=4) for arm in every]
    caption = (
        "Bits per byte of validation documents, the same raw documents in every arm; n counts documents. A held-out fact is a "
        "token that no training text has: to the arm facts it is all but impossible, and weighs on its bits per byte. "
        "Intervals cover documents, and seeds where there are several."
    )
    made = [Table("Bits per byte", columns, rows, caption, rows_are="documents")]
    apart = [
        Row(f"{a} − {b}, {name}", [_estimate(of_a - of_b), len(of_a)], len(ids))
        for a, b in CONTRASTS
        if {a, b} <= every.keys() and (seeds := arms.seeds(a, b))
        for name, ids in groups.items()
        for of_a, of_b in [[_bits_by_document([arms.text(arm, seed) for seed in seeds], ids) for arm in (a, b)]]
    ]
    if apart:
        columns = [Column("difference", "number", digits=4, signed=True), Column("seeds", "count")]
        caption = "Less is better. Paired by document and by seed; each interval (95 %) by itself."
        made.append(Table("Bits per byte, two arms apart", columns, apart, caption, rows_are="contrast"))
    return made


def _bits_by_document(some: Sequence[pl.DataFrame], ids: Sequence[str]) -> np.ndarray:
    """[seeds, documents] whose mean over documents is a seed's bits per byte, and whose spread is that of this ratio."""
    rows = []
    for text in some:
        asked = text.filter(pl.col("id").is_in(ids))
        bits, n_bytes = asked["nats"].to_numpy() / math.log(2), asked["bytes"].to_numpy()
        ratio = bits.sum() / n_bytes.sum()
        rows.append(ratio + (bits - ratio * n_bytes) / n_bytes.mean())
    return np.array(rows)


def _estimate(values: np.ndarray) -> Estimate:
    """The mean of [seeds, items] with its interval."""
    around = seeds_and_items(values)
    return Estimate(float(values.mean()), around.low, around.high)


def _document_groups(arms: Arms) -> dict[str, list[str]]:
    """{source and what its documents hold: ids}. Which hold a fact the rewriting says, so an arm that reads facts is asked."""
    marked = next((arm for arm in ("facts", "shuffled") if arm in arms.names), None)
    arm = marked or arms.names[0]
    text = arms.text(arm, arms.seeds(arm)[0])
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


def curves(arms: Arms) -> list[Curves]:
    measures = {
        "validation bits per byte": ("bits_per_byte", "bits per byte"),
        "the 81 products, with the work shown": ("table_worked", "share"),
        "the 81 products, at once": ("table_direct", "share"),
    }
    made = []
    for title, (column, unit) in measures.items():
        series = [_series(arms, arm, column) for arm in arms.names]
        series = [one for one in series if len(one.x)]
        caption = "Means over the seeds of an arm; bands reach from its lowest seed to its highest."
        if series:
            made.append(Curves(f"While training: {title}", Axis("step"), Axis(unit), series, caption))
    return made


def _series(arms: Arms, arm: str, column: str) -> Series:
    """A curve of an arm, all its seeds together."""
    seeds = arms.seeds(arm)
    logged = [_logged(arms.of[arm][seed], column) for seed in seeds]
    y = pl.col(column)
    steps = pl.concat(logged).group_by("step").agg(mean=y.mean(), low=y.min(), high=y.max()).sort("step")
    band = [steps[end].to_list() if len(seeds) > 1 else None for end in ("low", "high")]
    name = f"{arm}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    return Series(name, steps["step"].to_list(), steps["mean"].to_list(), *band, control=not arm.startswith("facts"))


def _logged(record: RunRecord, column: str) -> pl.DataFrame:
    """Columns step and what was logged, where it was."""
    metrics = record.metrics()
    if column not in metrics.columns:
        return pl.DataFrame(schema={"step": pl.Int64, column: pl.Float64})
    kept = metrics.filter(pl.col(column).is_not_null())
    return kept.select(pl.col("step").cast(pl.Int64), pl.col(column).cast(pl.Float64))


def cost_table(arms: Arms) -> Table:
    names = (*MATCHED, *REPORTED)
    rows = []
    for arm in arms.names:
        record = arms.of[arm][arms.seeds(arm)[0]]
        rows.append(Row(arm, [*(record.result("budget")[name] for name in names), record.manifest.spent.seconds]))
    columns = [*(Column(name.replace("_", " "), "count") for name in names), Column("seconds, first seed", "count")]
    return Table("What each arm cost", columns, rows, "Parameters, steps and raw bytes are matched.", rows_are="arm")


def _facts(arms: Arms) -> list[Properties]:
    record = next(iter(arms.of[arms.names[0]].values()))
    config: Any = record.config(Config)
    shape = config.training.shape
    items = {
        "model": f"GPT-2, {shape.n_layers} layers of {shape.d_model}, {record.result('budget')['parameters']:,} parameters",
        "text": f"{config.text.english}, {config.text.problems}, drills for {config.fact_rate:.2%} facts",
        "seeds": ", ".join(map(str, arms.seeds(arms.names[0]))),
    }
    return [Properties("Every arm", items)]


def record_of(records: Sequence[RunRecord]) -> Provenance:
    name = records[0].manifest.experiment
    seeds = " ".join(map(str, sorted({r.manifest.seed for r in records})))
    return Provenance.of_runs(
        {r.path: r.manifest.config_digest for r in records},
        records[0].manifest.versions,
        f"workings run {name} --scale {records[0].manifest.scale} --seeds {seeds}",
        records[0].manifest.started,
    )
