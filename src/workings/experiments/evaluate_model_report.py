"""Runs of judged models → one report: every measure with n and interval, chance, curves over checkpoints, paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from workings.arithmetic.facts import GPT2_MUL
from workings.errors import BadInput
from workings.evals.curves import curves, results_by_step
from workings.evals.evaluation import stem_of
from workings.experiments.evaluate_model import Config
from workings.judging.comparison import Comparison, compare, shared_outcomes, subject
from workings.report import (
    Column,
    Conclusion,
    Estimate,
    Properties,
    Provenance,
    Report,
    Row,
    Stat,
    Table,
    Text,
    write_report,
)
from workings.report.sections import Section
from workings.report.wording import interval, number
from workings.run import RunRecord

IN_WORDS = {
    "karpathy.acc": "HellaSwag acc (Karpathy)",
    "karpathy.acc_norm": "HellaSwag acc_norm (Karpathy: per token)",
    "lm-eval.acc": "HellaSwag acc (lm-eval)",
    "lm-eval.acc_norm": "HellaSwag acc_norm (lm-eval: per character)",
    "lm-eval.acc_bytes": "HellaSwag acc_bytes (lm-eval: per byte)",
    "accuracy": "GSM8K, our answer",
    "strict": "GSM8K, strict match",
    "flexible": "GSM8K, flexible extract",
    "truncated": "GSM8K, truncated answers",
    "prompts_cut": "GSM8K, prompts cut on the left",
}
PROBE_MEASURES = {
    "direct": "at once",
    "worked": "with the work shown",
    "value_choice": "choice of values",
    "equation_choice": "choice of facts",
}
HEADLINES = ("karpathy.acc_norm", "lm-eval.acc_norm", "accuracy", "table.direct", "table.worked", "table.value_choice")
ONE_MODEL = "The intervals cover items and not training seeds: they say nothing about the method behind a model."
LIMITS = (
    "A restricted choice of facts asks arms different things: in characters a fact is chosen largely by copying the numbers of "
    "the question, while a fact token must be known whole. Compare it within an arm; the choice of values is the same for all.",
    "A probability counts every way to write the right value behind “The answer is”, and does not ask what comes after it.",
)


def chance(measure: str) -> float | None:
    """What guessing gives where the answer is chosen among a few."""
    if "acc" in measure.split(".")[-1] and "." in measure:
        return 0.25
    if measure.endswith("value_choice"):
        return 1 / len({fact.value for fact in GPT2_MUL})
    return 1 / len(GPT2_MUL) if measure.endswith("equation_choice") else None


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Write the report of these runs into `out`; the path of its report.html."""
    named = list(zip(_names(records), records, strict=True))
    tables = {name: results_by_step(record) for name, record in named}
    last = {name: _last_step(table) for name, table in tables.items()}
    compared = _compared(records, list(tables.values()))
    sections: list[Section] = [
        *_shares(last),
        *_probe_tables(last),
        *_numbers(last),
        *curves(named, _drawn(tables), chance),
    ]
    sections += _comparison(compared) if compared else []
    sections += _contamination(named)
    made = Report(
        title="Language models judged item by item",
        question=records[0].question,
        conclusion=_verdict(last, compared),
        headline=_headline(last),
        sections=sections,
        properties=[Properties(name, _about(record)) for name, record in named],
        warnings=[ONE_MODEL, *_limited(named)],
        limits=list(LIMITS) if any("table.direct" in table["measure"] for table in last.values()) else [],
        provenance=Provenance(
            [str(record.path) for record in records],
            digests={f"{name}: model": _results(record)[0]["fingerprint"] for name, record in named},
            versions=records[0].manifest.versions,
        ),
    )
    return write_report(made, out)


# ---- what was judged ---------------------------------------------------------------------------------------------


def _names(records: Sequence[RunRecord]) -> list[str]:
    """The arm, with the seed, the folder judged or the run where that does not tell them apart."""
    arms = [record.manifest.arm for record in records]
    seeded = [f"{record.manifest.arm}, seed {record.manifest.seed}" for record in records]
    placed = [
        f"{name}, {Path(_results(record)[0]['model']).name}" for name, record in zip(seeded, records, strict=True)
    ]
    told_apart = (names for names in (arms, seeded, placed) if len(set(names)) == len(names))
    return next(told_apart, [record.path.name for record in records])


def _results(record: RunRecord) -> list[dict[str, Any]]:
    """The results of each task, of the last step where there are several."""
    results = [record.result(path.stem) for path in sorted((record.path / "results").glob("*.json"))]
    if not results:
        raise BadInput(f"{record.path} holds no results")
    last = max(result["step"] or 0 for result in results)
    return [result for result in results if (result["step"] or 0) == last]


def _last_step(table: pl.DataFrame) -> pl.DataFrame:
    last = table["step"].max()
    return table if last is None else table.filter(step=last)


def _about(record: RunRecord) -> dict[str, str]:
    results = _results(record)
    about = {"model": results[0]["model"], "judged": str(record.manifest.started)}
    if results[0]["step"] is not None:
        about["checkpoint"] = f"step {results[0]['step']:,}, the last"
    for result in results:
        n = (
            f"{result['n']:,} of {result['n_all']:,} items"
            if result["n"] < result["n_all"]
            else f"all {result['n']:,} items"
        )
        about[result["task"]] = f"{n}; {result['data']}"
    return about


def _limited(named: Sequence[tuple[str, RunRecord]]) -> Iterator[str]:
    for name, record in named:
        for result in _results(record):
            if result["n"] < result["n_all"]:
                yield f"{name}: {result['task']} was limited to its first {result['n']:,} of {result['n_all']:,} items."
            yield from (f"{name}: {result['task']}: {note}" for note in result.get("notes", ()))
            if "local rows" in result["data"]:
                yield (
                    f"{name}: these HellaSwag rows lost parts of their contexts; their numbers compare models with each other, "
                    "not with published ones."
                )


# ---- sections ----------------------------------------------------------------------------------------------------


def _row(name: str, measure: str, table: pl.DataFrame, shown: str = "") -> Row | None:
    found = table.filter(measure=measure)
    if found.is_empty():
        return None
    one = found.row(0, named=True)
    return Row(shown or name, [Estimate(one["value"], one["low"], one["high"]), chance(measure)], one["n"])


def _shares(last: dict[str, pl.DataFrame]) -> Iterator[Section]:
    """HellaSwag and GSM8K: one table, a row a measure and model."""
    columns = [Column("share", "share"), Column("chance", "share")]
    several = len(last) > 1
    rows = [
        row
        for measure, words in IN_WORDS.items()
        for name, table in last.items()
        if (row := _row(name, measure, table, f"{words}: {name}" if several else words))
    ]
    if rows:
        yield Table("HellaSwag and GSM8K", columns, rows, "Wilson intervals, 95 %.", rows_are="measure", drawn="share")


def _probe_tables(last: dict[str, pl.DataFrame]) -> Iterator[Section]:
    """One table a measure: a row a kind of probe and model."""
    several = len(last) > 1
    columns = [Column("share", "share"), Column("chance", "share")]
    for measure, words in PROBE_MEASURES.items():
        kinds = {
            m.rpartition(".")[0] for table in last.values() for m in _of_probes(table) if m.endswith(f".{measure}")
        }
        ordered = [m for table in last.values() for m in _of_probes(table) if m.rpartition(".")[0] in kinds]
        rows = [
            row
            for kind in dict.fromkeys(m.rpartition(".")[0] for m in ordered)
            for name, table in last.items()
            if (row := _row(name, f"{kind}.{measure}", table, f"{kind}: {name}" if several else kind))
        ]
        if rows:
            yield Table(
                f"Arithmetic probes, {words}", columns, rows, "Wilson intervals, 95 %.", rows_are="kind of probe"
            )


def _of_probes(table: pl.DataFrame) -> list[str]:
    return table.filter(task="probes")["measure"].to_list()


def _numbers(last: dict[str, pl.DataFrame]) -> Iterator[Section]:
    """What is no share: tokens and facts a response; probability and rank of the right answer."""
    wanted = ("tokens_per_response", "facts_per_response", "probability", "rank", "fact_probability", "fact_rank")
    rows = [
        Row(f"{row['task']} {row['measure']}: {name}", [Estimate(row["value"], row["low"], row["high"])], row["n"])
        for name, table in last.items()
        for row in table.filter(pl.col("measure").str.split(".").list.last().is_in(wanted)).iter_rows(named=True)
    ]
    if rows:
        caption = "Means over items with bootstrap intervals; of ranks the median, with order statistics; 95 %."
        yield Table(
            "Responses, probabilities and ranks", [Column("value", "number", 4)], rows, caption, rows_are="measure"
        )


def _drawn(tables: dict[str, pl.DataFrame]) -> list[tuple[str, str, str]]:
    """(task, measure, title) of what is worth a curve, in the order of the tables."""
    there = {(row[0], row[1]) for table in tables.values() for row in table.select("task", "measure").iter_rows()}
    plain = [(task, measure, IN_WORDS[measure]) for measure in IN_WORDS for task in ("hellaswag", "gsm8k")]
    kinds = list(dict.fromkeys(m.rpartition(".")[0] for table in tables.values() for m in _of_probes(table)))
    probes = [
        ("probes", f"{kind}.{m}", f"Probes, {kind}, {words}") for kind in kinds for m, words in PROBE_MEASURES.items()
    ]
    return [one for one in [*plain, *probes] if one[:2] in there]


def _contamination(named: Sequence[tuple[str, RunRecord]]) -> Iterator[Section]:
    for name, record in named:
        training = next((r["training"] for r in _results(record) if r.get("training")), None)
        if training is None:
            continue
        rows = [
            Row(row["kind"], [row["n_questions"], row["n_equations"]], row["n"])
            for row in training.get("overlap", ())
            if row["n"]
        ]
        title = f"Were the probes trained on? {name}"
        if not rows:
            yield Text(title, training["about"])
            continue
        columns = [Column("question word for word", "count"), Column("its equation", "count")]
        yield Table(title, columns, rows, training["about"], rows_are="kind of probe")


# ---- words -------------------------------------------------------------------------------------------------------


def _compared(records: Sequence[RunRecord], tables: Sequence[pl.DataFrame]) -> Comparison | None:
    """Of several models, on all they were asked; of trainings at the last step that all kept: one family of tests, not
    one a step. None of one model, and of trainings that kept no step in common."""
    steps = set.intersection(*(set(table["step"]) for table in tables))
    if len(records) < 2 or not steps:
        return None
    names = shared_outcomes(records)
    if None not in steps:
        last = stem_of("", max(steps))
        names = [name for name in names if name.endswith(last)]
    return compare(records, Config, names)


def _comparison(compared: Comparison) -> Iterator[Section]:
    """Every pair of runs on every frame of outcomes, and what is said beside them."""
    columns = [
        Column("before", "share"),
        Column("after", "share"),
        Column("difference", "points", signed=True),
        Column("right only before", "count"),
        Column("only after", "count"),
        Column("p, Holm", "p"),
    ]
    rows = [
        Row(
            subject(row),
            [
                row["accuracy_a"],
                row["accuracy_b"],
                Estimate(row["difference"], row["low"], row["high"]),
                row["only_a"],
                row["only_b"],
                row["p_holm"],
            ],
            row["n"],
        )
        for row in compared.table.iter_rows(named=True)
    ]
    caption = (
        "Paired by item: bootstrap intervals (95 %, each by itself), exact McNemar p, adjusted for all rows (Holm)."
    )
    yield Table("Compared item by item", columns, rows, caption, rows_are="from → to")
    if said := compared.beside():
        yield Text("Beside the comparison", "\n\n".join(said))


def _headline(last: dict[str, pl.DataFrame]) -> list[Stat]:
    name, table = next(iter(last.items()))
    return [
        Stat(title, row.cells[0], "share", f"{name}, n = {row.n:,}")
        for measure in HEADLINES
        if (row := _row(name, measure, table)) and isinstance(row.cells[0], Estimate)
        for title in [IN_WORDS.get(measure) or f"Times table, {PROBE_MEASURES[measure.partition('.')[2]]}"]
    ][:4]


def _verdict(last: dict[str, pl.DataFrame], compared: Comparison | None) -> Conclusion:
    """Of several models: whether any difference holds. Of one: whether it chooses better than chance."""
    if compared is not None:
        found = compared.table.filter(pl.col("p_holm") <= 0.05)
        n = len(compared.table)
        if found.is_empty():
            return Conclusion(
                f"No evidence of a difference in any of {n} paired comparisons (McNemar, Holm).", "undecided"
            )
        return Conclusion(
            f"{len(found)} of {n} paired comparisons differ beyond chance (McNemar, Holm at 5 %).", "holds"
        )
    if len(last) > 1:
        return Conclusion("The trainings kept no step in common, so nothing is compared.", "undecided")
    ((name, table),) = last.items()
    chosen = [row for row in table.iter_rows(named=True) if chance(row["measure"]) is not None]
    if not chosen:
        return Conclusion(f"{name} was judged; its numbers have no chance level to stand beside.", "undecided")
    row = next((r for m in HEADLINES for r in chosen if r["measure"] == m), chosen[0])
    guessing = chance(row["measure"]) or 0.0
    says = (
        f"{name} chooses right in {number(row['value'], 'share')} % {interval(row['low'], row['high'], 'share')} of "
        f"{row['n']:,} items ({IN_WORDS.get(row['measure'], row['measure'])}), where guessing gives {number(guessing, 'share')} %"
    )
    if row["low"] > guessing:
        return Conclusion(f"{says}: better than chance.", "holds")
    return Conclusion(
        f"{says}: no evidence that it is better than chance.", "undecided" if row["high"] > guessing else "fails"
    )
