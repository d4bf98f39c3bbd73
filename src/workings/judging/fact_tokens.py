"""Runs of the fact-token experiments → probes and validation text paired by item and by seed, a verdict, a report.

Every run has the same probes and the same validation documents. A difference is taken item by item between two arms of one seed;
its interval covers items and seeds where there are several seeds, and items alone (with a warning) where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from workings.judging.compare import ONE_SEED
from workings.judging.costs import MATCHED, REPORTED, refuse_unmatched
from workings.judging.report import (
    Axis,
    Column,
    Curves,
    Estimate,
    Facts,
    Record,
    Report,
    Row,
    Series,
    Stat,
    Table,
    Verdict,
    write_report,
)
from workings.judging.report.wording import interval, number
from workings.judging.statistics import Interval, holm, seeds_and_items, sign_flip, wilson
from workings.models.scoring import bits_per_byte
from workings.run import RunRecord

if TYPE_CHECKING:
    from workings.models.causal import LanguageModel
    from workings.text.corpus import Corpus

CONTRASTS = (("facts", "digits"), ("facts", "shuffled"), ("shuffled", "digits"), ("reserved", "digits"))
"""What is asked of pairs of arms: the whole effect, its content, its saving, the dead rows."""
MEASURES = {"worked": "work shown", "correct": "at once", "value_correct": "choice of product"}
TRAINED, HELD_OUT = "drilled", "held out"


# ---- what a run keeps --------------------------------------------------------------------------------------------


def text_outcomes(model: LanguageModel, corpus: Corpus, most: int) -> pl.DataFrame:
    """One row a validation document: id, source, nats, bytes (raw), tokens, facts; at most `most` of each source."""
    documents = [one for source in corpus.sources for one in islice(corpus.validation(source), most)]
    facts = corpus.tokenizer.facts
    frame = bits_per_byte(model, documents)
    place = pl.int_range(pl.len()).over("source").cast(pl.String)
    counts = [sum(facts.first_id <= id < facts.width for id in one.ids.tolist()) for one in documents]
    return frame.with_columns(id=pl.col("source") + "/" + place, facts=pl.Series(counts, dtype=pl.Int64))


def headline(results: dict[str, dict[str, Any]], path: Path) -> dict[str, Any]:
    """What `show` prints of a run."""
    table = results["probes"]["summary"]["table"]
    text = pl.read_parquet(path / "outcomes" / "text.parquet")
    return {
        "table, with the work shown": round(table["worked"]["value"], 4),
        "table, at once": round(table["direct"]["value"], 4),
        "bits per byte": round(_bits(text), 4),
    }


def _bits(text: pl.DataFrame) -> float:
    """Of all these documents together."""
    return float(text["nats"].to_numpy().sum() / (math.log(2) * text["bytes"].to_numpy().sum()))


# ---- what two arms are apart -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """a − b: the mean over seeds and items, its interval, p with one seed, and how many seeds and items it rests on."""

    arms: tuple[str, str]
    what: str
    difference: float
    interval: Interval
    p: float | None
    n_seeds: int
    n_items: int


def gap(arms: tuple[str, str], what: str, differences: np.ndarray) -> Gap:
    """`differences` [seeds, items]. With one seed p is by sign flips over items; with a few seeds the interval must do: three
    signs cannot give a p below .25."""
    p = sign_flip(differences[0], np.zeros_like(differences[0])) if len(differences) == 1 else None
    return Gap(arms, what, float(differences.mean()), seeds_and_items(differences), p, *differences.shape)


class Arms:
    """Finished runs by arm and seed; refuses runs that are not matched in parameters, steps and raw bytes."""

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.of: dict[str, dict[int, RunRecord]] = {}
        for record in records:
            refuse_unmatched(records[0], record)
            self.of.setdefault(record.manifest["arm"], {})[record.manifest["seed"]] = record

    @property
    def names(self) -> list[str]:
        return list(self.of)

    def seeds(self, *arms: str) -> list[int]:
        """Those that all these arms have."""
        return sorted(set.intersection(*(set(self.of[arm]) for arm in arms)))

    def probes(self, arm: str, seed: int) -> pl.DataFrame:
        return self.of[arm][seed].outcomes("probes").sort("id")

    def text(self, arm: str, seed: int) -> pl.DataFrame:
        return self.of[arm][seed].outcomes("text").sort("id")

    def differences(self, arms: tuple[str, str], measure: str, held_out: bool) -> np.ndarray:
        """[seeds, probes] of −1, 0, 1."""
        rows = []
        for seed in self.seeds(*arms):
            a, b = (_asked(self.probes(arm, seed), measure, held_out) for arm in arms)
            paired = a.join(b, on="id", suffix="_b", maintain_order="left")
            rows.append((paired[measure].cast(pl.Int64) - paired[f"{measure}_b"].cast(pl.Int64)).to_numpy())
        return np.array(rows, dtype=float)

    def answered(self, arm: str, measure: str) -> Estimate:
        """What was drilled, over all seeds of an arm."""
        frames = [_asked(self.probes(arm, seed), measure, False) for seed in self.seeds(arm)]
        return _share(pl.concat(frames)[measure], len(frames))

    def sightings(self, arm: str) -> float:
        """How often training showed a fact, the mean over all there are and over seeds."""
        return float(np.mean([record.result("text")["sightings_per_fact"] for record in self.of[arm].values()]))


def _asked(frame: pl.DataFrame, measure: str, held_out: bool) -> pl.DataFrame:
    """The probes a measure applies to; held-out ones rest on a fact that the drills never show."""
    return frame.filter(pl.col(measure).is_not_null(), held_out=held_out).select("id", measure)


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


def adjusted(found: Sequence[Gap]) -> list[Gap]:
    """p-values, where there are any, adjusted for all of them (Holm)."""
    ps = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else replace(one, p=next(ps)) for one in found]


# ---- the report --------------------------------------------------------------------------------------------------


def report_on(records: Sequence[RunRecord], out: Path, docstring: str, config_class: type) -> Path:
    """Of runs of the four arms, or some of them, with one seed or several."""
    arms = Arms(records)
    found = gaps(arms)
    one_seed = len({r.manifest["seed"] for r in records}) == 1
    made = Report(
        title="Facts as tokens",
        question=docstring.partition("\n")[0],
        verdict=verdict(found),
        headline=_headline(arms),
        sections=[
            *([_gap_table(found)] if found else []),
            *_probe_tables(arms),
            _text_table(arms),
            *_curves(arms),
            _cost_table(arms),
        ],
        record=_record(records),
        warnings=[ONE_SEED] if one_seed else [],
        facts=_facts(arms, config_class),
        limits=LIMITS,
    )
    return write_report(made, out)


LIMITS = [
    "Rewriting forgets how an equation was written, so an arm that reads facts has less to predict in a document that has any: "
    "its bits per byte compare on documents without facts, and are a bound on the others.",
    "Arms read the same raw bytes in the same number of steps; an arm with fact tokens does so in fewer tokens and FLOPs.",
    "The small scale says what a small model on drills does; it is no statement about GPT-2 on ten billion tokens.",
]


def verdict(found: Iterable[Gap]) -> Verdict:
    """From the interval of facts − digits with the work shown, on what was drilled; shuffled says what it is due to."""
    main = {one.arms: one for one in found if one.what == f"{MEASURES['worked']}, {TRAINED}"}
    effect = main.get(("facts", "digits"))
    if effect is None:
        return Verdict("One arm alone shows no difference: run digits and facts.", "undecided")
    of = f"{effect.n_items:,} probes, {effect.n_seeds} training seed{'s' * (effect.n_seeds > 1)}"
    says = f"With the work shown, facts − digits is {_points(effect)} ({of})"
    if effect.interval.low <= 0 <= effect.interval.high:
        return Verdict(f"{says}: no evidence of a difference.", "undecided")
    if effect.interval.high < 0:
        return Verdict(f"{says}: reading facts as tokens makes it worse.", "fails")
    content = main.get(("facts", "shuffled"))
    if content is None:
        return Verdict(f"{says}: better, and without the arm shuffled nothing says why.", "holds")
    if content.interval.low > 0:
        return Verdict(f"{says}, and over shuffled {_points(content)}: it is the content of the tokens.", "holds")
    return Verdict(f"{says}, but over shuffled {_points(content)}: shorter text explains it.", "explained by a control")


def _points(one: Gap) -> str:
    return f"{number(one.difference, 'points')} points {interval(one.interval.low, one.interval.high, 'share')}"


def _headline(arms: Arms) -> list[Stat]:
    stats = []
    for arm in arms.names:
        n_seeds = len(arms.seeds(arm))
        note = f"of what was drilled, with the work shown, {n_seeds} seed{'s' * (n_seeds > 1)}"
        stats.append(Stat(arm, arms.answered(arm, "worked"), "share", note))
    return stats


def _share(right: pl.Series, n_seeds: int) -> Estimate:
    """Over all seeds; the interval is that of the items of one (Wilson): several seeds see the same items."""
    p, n = float(right.cast(pl.Float64).to_numpy().mean()), len(right) // n_seeds
    around = wilson(p * n, n)
    return Estimate(p, around.low, around.high)


def _gap_table(found: Sequence[Gap]) -> Table:
    rows = [
        Row(
            f"{one.arms[0]} − {one.arms[1]}, {one.what}",
            [Estimate(one.difference, one.interval.low, one.interval.high), one.n_seeds, one.p],
            one.n_items,
        )
        for one in found
    ]
    columns = [Column("difference", "points", signed=True), Column("seeds", "count"), Column("p, Holm", "p")]
    caption = (
        "Share of probes answered, paired by probe and by seed. Intervals (95 %, each by itself) cover seeds and items where there "
        "are several seeds, items alone where there is one; p only there, by sign flips over items."
    )
    return Table("What two arms are apart", columns, rows, caption, rows_are="contrast", drawn="difference")


def _probe_tables(arms: Arms) -> list[Table]:
    tables = []
    for measure, in_words in MEASURES.items():
        frames = {arm: [arms.probes(arm, seed) for seed in arms.seeds(arm)] for arm in arms.names}
        first = next(iter(frames.values()))[0].filter(pl.col(measure).is_not_null())
        kinds = first["condition"].unique(maintain_order=True).to_list()
        rows = [
            Row(
                arm,
                [_share(pl.concat(f.filter(condition=k)[measure] for f in some), len(some)) for k in kinds],
                len(first),
            )
            for arm, some in frames.items()
        ]
        title = f"Probes answered {in_words}"
        caption = "Means over seeds; intervals (Wilson) over the items of one seed."
        tables.append(Table(title, [Column(kind, "share") for kind in kinds], rows, caption, rows_are="arm"))
    return tables


def _text_table(arms: Arms) -> Table:
    """Bits per byte; which documents hold a fact is what the rewriting says, so an arm that reads facts is asked."""
    marked = next((arm for arm in ("facts", "shuffled") if arm in arms.names), None)
    with_facts: set[str] = set()
    if marked:
        text = arms.text(marked, arms.seeds(marked)[0])
        with_facts = set(text.filter(pl.col("facts") > 0)["id"])
    every = {arm: [arms.text(arm, seed) for seed in arms.seeds(arm)] for arm in arms.names}
    groups = _document_groups(next(iter(every.values()))[0], with_facts)
    rows = [
        Row(
            arm,
            [float(np.mean([_bits(text.filter(pl.col("id").is_in(ids))) for text in some])) for ids in groups.values()],
        )
        for arm, some in every.items()
    ]
    columns = [Column(f"{name} ({len(ids):,} documents)", "number", digits=4) for name, ids in groups.items()]
    caption = "Bits per byte of validation documents, the same raw documents in every arm; means over seeds."
    return Table("Bits per byte", columns, rows, caption, rows_are="arm")


def _document_groups(text: pl.DataFrame, with_facts: set[str]) -> dict[str, list[str]]:
    """{source or source with facts: ids}, those that have any document."""
    groups: dict[str, list[str]] = {}
    for source in text["source"].unique(maintain_order=True):
        ids = text.filter(source=source)["id"].to_list()
        groups[f"{source} without facts"] = [id for id in ids if id not in with_facts]
        groups[f"{source} with facts"] = [id for id in ids if id in with_facts]
    return {name: ids for name, ids in groups.items() if ids}


def _curves(arms: Arms) -> list[Curves]:
    measures = {
        "validation bits per byte": ("bits_per_byte", "bits per byte"),
        "the 81 products, with the work shown": ("table_worked", "share"),
        "the 81 products, at once": ("table_direct", "share"),
    }
    made = []
    for title, (column, unit) in measures.items():
        series = [
            Series(f"{arm}, seed {seed}", *_logged(arms.of[arm][seed], column), control=arm != "facts")
            for arm in arms.names
            for seed in arms.seeds(arm)
        ]
        series = [one for one in series if len(one.x)]
        if series:
            made.append(Curves(f"While training: {title}", Axis("step"), Axis(title, unit), series))
    return made


def _logged(record: RunRecord, column: str) -> tuple[list[int], list[float]]:
    metrics = record.metrics()
    if column not in metrics.columns:
        return [], []
    kept = metrics.filter(pl.col(column).is_not_null())
    return kept["step"].to_list(), kept[column].to_list()


def _cost_table(arms: Arms) -> Table:
    names = (*MATCHED, *REPORTED)
    rows = []
    for arm in arms.names:
        record = arms.of[arm][arms.seeds(arm)[0]]
        rows.append(Row(arm, [*(record.result("budget")[name] for name in names), record.manifest["spent"]["seconds"]]))
    columns = [*(Column(name.replace("_", " "), "count") for name in names), Column("seconds, first seed", "count")]
    return Table("What each arm cost", columns, rows, "Parameters, steps and raw bytes are matched.", rows_are="arm")


def _facts(arms: Arms, config_class: type) -> list[Facts]:
    record = next(iter(arms.of[arms.names[0]].values()))
    config: Any = record.config(config_class)
    shape = config.training.shape
    items = {
        "model": f"GPT-2, {shape.n_layers} layers of {shape.d_model}, {record.result('budget')['parameters']:,} parameters",
        "text": f"{config.text.english}, {config.text.problems}, drills for {config.fact_rate:.2%} facts",
        "seeds": ", ".join(map(str, arms.seeds(arms.names[0]))),
    }
    return [Facts("Every arm", items)]


def _record(records: Sequence[RunRecord]) -> Record:
    name = records[0].manifest["experiment"]
    seeds = " ".join(map(str, sorted({r.manifest["seed"] for r in records})))
    return Record(
        [str(r.path) for r in records],
        {r.path.name: r.manifest["config_digest"] for r in records},
        records[0].manifest["versions"],
        [f"workings run {name} --scale {records[0].manifest['scale']} --seeds {seeds}"],
        records[0].manifest["started"],
    )


# ---- how often a fact must be seen -------------------------------------------------------------------------------


def report_on_rates(records: Sequence[RunRecord], out: Path, docstring: str, config_class: type) -> Path:
    """facts − digits at every rate of facts, beside how often a fact was seen; arms are named <vocabulary>-<rate>."""
    arms = Arms(records)
    rates = list(dict.fromkeys(name.partition("-")[2] for name in arms.names))
    found = {rate: _at_rate(arms, rate) for rate in rates}
    one_by_one = iter(adjusted([one for some in found.values() for one in some.values()]))
    found = {rate: {measure: next(one_by_one) for measure in some} for rate, some in found.items()}
    made = Report(
        title="How often a fact must be seen",
        question=docstring.partition("\n")[0],
        verdict=_verdict_on_rates(arms, found),
        sections=[
            *(_rate_table(arms, measure, found) for measure in MEASURES),
            *_probe_tables(arms),
            *_curves(arms),
            _cost_table(arms),
        ],
        record=_record(records),
        warnings=[ONE_SEED] if len({r.manifest["seed"] for r in records}) == 1 else [],
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


def _rate_table(arms: Arms, measure: str, found: dict[str, dict[str, Gap]]) -> Table:
    rows = []
    for rate, some in found.items():
        if measure not in some:
            continue
        one = some[measure]
        shares = [arms.answered(arm, measure) for arm in reversed(one.arms)]
        estimate = Estimate(one.difference, one.interval.low, one.interval.high)
        rows.append(Row(rate, [arms.sightings(one.arms[0]), *shares, estimate, one.n_seeds, one.p], one.n_items))
    columns = [
        Column("sightings of each fact", "number", digits=0),
        Column("digits", "share"),
        Column("facts", "share"),
        Column("facts − digits", "points", signed=True),
        Column("seeds", "count"),
        Column("p, Holm", "p"),
    ]
    caption = f"Probes answered {MEASURES[measure]}, {TRAINED}; sightings in training, the mean over facts."
    return Table(f"Answered {MEASURES[measure]}", columns, rows, caption, rows_are="rate", drawn="facts − digits")


def _verdict_on_rates(arms: Arms, found: dict[str, dict[str, Gap]]) -> Verdict:
    main = {rate: some["worked"] for rate, some in found.items() if "worked" in some}
    if not main:
        return Verdict("No rate has both arms: run digits and facts at one.", "undecided")
    helps = [rate for rate, one in main.items() if one.interval.low > 0]
    seen = {rate: f"{arms.sightings(one.arms[0]):,.0f}" for rate, one in main.items()}
    if helps:
        one = main[helps[0]]
        return Verdict(
            f"The lowest rate at which tokens help is {helps[0]} ({seen[helps[0]]} sightings of each fact): {_points(one)}, "
            f"{one.n_seeds} training seed{'s' * (one.n_seeds > 1)}.",
            "holds",
        )
    every = "; ".join(f"{rate} ({seen[rate]} sightings) {_points(one)}" for rate, one in main.items())
    return Verdict(f"No evidence at any rate that fact tokens help with the work shown: {every}.", "undecided")
