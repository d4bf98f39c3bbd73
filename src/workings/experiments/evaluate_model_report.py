"""Runs of judged models → one report: every measure with n and interval, chance, curves over checkpoints, paired tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from workings import evals
from workings.arithmetic.facts import GPT2_MUL
from workings.errors import BadInput
from workings.evals.evaluation import TaskResult
from workings.experiments.default_report import comparison_sections, estimate_of, provenance
from workings.experiments.evaluate_model import Config
from workings.judging.comparison import Comparison, compare, shared_outcomes
from workings.judging.statistics import Measure
from workings.report import (
    Axis,
    Column,
    Conclusion,
    Curves,
    Properties,
    Report,
    Row,
    Series,
    Stat,
    Table,
    Text,
    write_report,
)
from workings.report.sections import Section
from workings.report.wording import interval, number
from workings.run import RunRecord

TITLES = {
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
PROBE_TITLES = {
    "direct": "at once",
    "worked": "with the work shown",
    "value_choice": "choice of values",
    "equation_choice": "choice of facts",
}
NOT_SHARES = ("tokens_per_response", "facts_per_response", "probability", "rank", "fact_probability", "fact_rank")
HEADLINES = ("karpathy.acc_norm", "lm-eval.acc_norm", "accuracy", "table.direct", "table.worked", "table.value_choice")
ONE_MODEL = "The intervals cover items and not training seeds: they say nothing about the method behind a model."
LIMITS = (
    "A restricted choice of facts asks arms different things: in characters a fact is chosen largely by copying the numbers of "
    "the question, while a fact token must be known whole. Compare it within an arm; the choice of values is the same for all.",
    "A probability counts every way to write the right value behind “The answer is”, and does not ask what comes after it.",
)


def chance(measure: str) -> float | None:
    """The share that guessing gives, where the answer is chosen among a few."""
    if "acc" in measure.split(".")[-1] and "." in measure:
        return 0.25
    if measure.endswith("value_choice"):
        return 1 / len({fact.result for fact in GPT2_MUL})
    return 1 / len(GPT2_MUL) if measure.endswith("equation_choice") else None


@dataclass(frozen=True)
class Judged:
    """A run as the report reads it: its results by step (None: a single model, not a checkpoint of a training)."""

    record: RunRecord
    by_step: dict[int | None, list[TaskResult]]

    @classmethod
    def of(cls, record: RunRecord) -> Judged:
        results = evals.results_of(record)
        if not results:
            raise BadInput(f"{record.path} holds no results")
        ordered = sorted(results, key=lambda result: result.step or 0)
        return cls(record, {step: list(some) for step, some in groupby(ordered, lambda result: result.step)})

    @property
    def last(self) -> list[TaskResult]:
        """The results of each task, for the last step where there are several."""
        return list(self.by_step.values())[-1]

    @cached_property
    def measures(self) -> dict[str, Measure]:
        """Every measure of `last`; no two tasks have one of the same name."""
        return {name: measure for result in self.last for name, measure in result.measures.items()}


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Write the report of these runs into `out`; the path of its report.html."""
    judged = _named([Judged.of(record) for record in records])
    compared = _compared(list(judged.values()))
    sections: list[Section] = [
        *_share_tables(judged),
        *_other_measures(judged),
        *curves(judged),
        *(comparison_sections(compared) if compared else ()),
        *_contamination(judged),
    ]
    made = Report(
        title="Language models judged item by item",
        question=records[0].question,
        conclusion=_conclusion(judged, compared),
        headline=_headline(judged),
        sections=sections,
        properties=[Properties(name, _about(one)) for name, one in judged.items()],
        warnings=[ONE_MODEL, *_warnings(judged)],
        limits=list(LIMITS) if any("table.direct" in one.measures for one in judged.values()) else [],
        provenance=provenance(records, {f"{name}: model": one.last[0].fingerprint for name, one in judged.items()}),
    )
    return write_report(made, out)


# ---- which models ------------------------------------------------------------------------------------------------


def _named(judged: Sequence[Judged]) -> dict[str, Judged]:
    """The runs by the shortest names that differ: arm; arm and seed; with the folder judged; else the run's own name."""
    manifests = [one.record.manifest for one in judged]
    arms = [manifest.arm for manifest in manifests]
    with_seeds = [f"{manifest.arm}, seed {manifest.seed}" for manifest in manifests]
    with_folders = [f"{name}, {Path(one.last[0].model).name}" for name, one in zip(with_seeds, judged, strict=True)]
    choices = (arms, with_seeds, with_folders, [one.record.path.name for one in judged])
    names = next((names for names in choices if len(set(names)) == len(names)), choices[-1])
    return dict(zip(names, judged, strict=True))


def _about(judged: Judged) -> dict[str, str]:
    first = judged.last[0]
    about = {"model": first.model, "judged": str(judged.record.manifest.started)}
    if first.step is not None:
        about["checkpoint"] = f"step {first.step:,}, the last"
    for result in judged.last:
        n = f"{result.n:,} of {result.n_all:,} items" if result.n < result.n_all else f"all {result.n:,} items"
        about[result.task] = f"{n}; {result.data}"
    return about


def _warnings(judged: dict[str, Judged]) -> Iterator[str]:
    for name, result in _last_results(judged):
        if result.n < result.n_all:
            yield f"{name}: {result.task} was limited to its first {result.n:,} of {result.n_all:,} items."
        yield from (f"{name}: {result.task}: {note}" for note in result.notes)
        if "local rows" in result.data:
            yield (
                f"{name}: these HellaSwag rows lost parts of their contexts; their numbers compare models with each other, "
                "not with published ones."
            )


def _last_results(judged: dict[str, Judged]) -> Iterator[tuple[str, TaskResult]]:
    return ((name, result) for name, one in judged.items() for result in one.last)


# ---- tables and curves -------------------------------------------------------------------------------------------


def _rows(judged: dict[str, Judged], titles: dict[str, str]) -> list[Row]:
    """A row for each measure titled and model that has it, beside chance; models are named where there are several."""
    return [
        Row(
            f"{title}: {name}" if len(judged) > 1 else title,
            [estimate_of(one.measures[m]), chance(m)],
            one.measures[m].n,
        )
        for m, title in titles.items()
        for name, one in judged.items()
        if m in one.measures
    ]


def _share_tables(judged: dict[str, Judged]) -> Iterator[Section]:
    """HellaSwag and GSM8K with a row a measure and model; then one table a measure of the probes, with a row a kind and model."""
    columns, caption = [Column("share", "share"), Column("chance", "share")], "Wilson intervals, 95 %."
    if rows := _rows(judged, TITLES):
        yield Table("HellaSwag and GSM8K", columns, rows, caption, rows_are="measure", drawn="share")
    for measure, title in PROBE_TITLES.items():
        if rows := _rows(judged, {f"{kind}.{measure}": kind for kind in _kinds(judged)}):
            yield Table(f"Arithmetic probes, {title}", columns, rows, caption, rows_are="kind of probe")


def _kinds(judged: dict[str, Judged]) -> list[str]:
    """The kinds of probe that any model was asked, in the order of the results."""
    names = [name for _, result in _last_results(judged) if result.task == "probes" for name in result.measures]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _other_measures(judged: dict[str, Judged]) -> Iterator[Section]:
    """Measures that are no shares: tokens and facts a response; probability and rank of the right answer."""
    rows = [
        Row(f"{result.task} {measure}: {name}", [estimate_of(value)], value.n)
        for name, result in _last_results(judged)
        for measure, value in result.measures.items()
        if measure.split(".")[-1] in NOT_SHARES
    ]
    if rows:
        columns = [Column("value", "number", 4)]
        caption = "Means over items with bootstrap intervals; of ranks the median, with order statistics; 95 %."
        yield Table("Responses, probabilities and ranks", columns, rows, caption, rows_are="measure")


def curves(judged: dict[str, Judged]) -> Iterator[Curves]:
    """A figure for each share that any training's checkpoints have: one series a training, and what guessing gives."""
    kinds = _kinds(judged)
    probes = {f"{kind}.{m}": f"Probes, {kind}, {title}" for kind in kinds for m, title in PROBE_TITLES.items()}
    for measure, title in (TITLES | probes).items():
        series, counts = [], set()
        for name, one in judged.items():
            by_step = {
                step: result.measures[measure]
                for step, results in one.by_step.items()
                for result in results
                if step is not None and measure in result.measures
            }
            if by_step:
                values = list(by_step.values())
                ends = [v.low for v in values], [v.high for v in values]
                series.append(Series(name, list(by_step), [v.value for v in values], *ends))
                counts |= {v.n for v in values}
        if series:
            steps = sorted({x for one in series for x in one.x})
            share = chance(measure)
            guessing = [] if share is None else [Series("chance", steps, [share] * len(steps), control=True)]
            n = " and ".join(f"{n:,}" for n in sorted(counts))
            caption = f"Wilson intervals, 95 %, items only; n = {n} items at every step."
            yield Curves(title, Axis("step"), Axis("share"), [*series, *guessing], caption)


def _contamination(judged: dict[str, Judged]) -> Iterator[Section]:
    for name, result in _last_results(judged):
        if result.training is None:
            continue
        title = f"Were the probes trained on? {name}"
        rows = [Row(one.kind, [one.n_questions, one.n_equations], one.n) for one in result.training.overlap if one.n]
        if not rows:
            yield Text(title, result.training.about)
            continue
        columns = [Column("question word for word", "count"), Column("its equation", "count")]
        yield Table(title, columns, rows, result.training.about, rows_are="kind of probe")


# ---- models compared ---------------------------------------------------------------------------------------------


def _compared(judged: Sequence[Judged]) -> Comparison | None:
    """Several models compared on all they were asked; trainings at the last step that all kept.

    That is one family of tests, not one a step. None for one model, and for trainings that kept no step in common.
    """
    steps = set.intersection(*(set(one.by_step) for one in judged))
    if len(judged) < 2 or not steps:
        return None
    records = [one.record for one in judged]
    names = shared_outcomes(records)
    kept = [step for step in steps if step is not None]
    if kept:
        names = [name for name in names if name.endswith(evals.name_at("", max(kept)))]
    return compare(records, Config, names)


# ---- the answer --------------------------------------------------------------------------------------------------


def _headline(judged: dict[str, Judged]) -> list[Stat]:
    """At most four numbers of the first model."""
    name, one = next(iter(judged.items()))
    return [
        Stat(_title(m), estimate_of(one.measures[m]), "share", f"{name}, n = {one.measures[m].n:,}")
        for m in HEADLINES
        if m in one.measures
    ][:4]


def _title(measure: str) -> str:
    kind, _, name = measure.rpartition(".")
    return TITLES.get(measure) or f"{'Times table' if kind == 'table' else f'Probes, {kind}'}, {PROBE_TITLES[name]}"


def _conclusion(judged: dict[str, Judged], compared: Comparison | None) -> Conclusion:
    """The verdict on the differences between several models, or on whether the one model chooses better than chance."""
    if compared is not None:
        n_found, n = sum(pair.difference.differs for pair in compared.pairs), len(compared.pairs)
        if n_found:
            sentence = f"{n_found} of {n} paired comparisons differ beyond chance (McNemar, Holm at 5 %)."
            return Conclusion(sentence, "holds")
        return Conclusion(f"No evidence of a difference in any of {n} paired comparisons (McNemar, Holm).", "undecided")
    if len(judged) > 1:
        return Conclusion("The trainings kept no step in common, so nothing is compared.", "undecided")
    ((name, one),) = judged.items()
    measure = next((m for m in [*HEADLINES, *one.measures] if m in one.measures and chance(m) is not None), "")
    guessing = chance(measure)
    if guessing is None:
        return Conclusion(f"{name} was judged; its numbers have no chance level to stand beside.", "undecided")
    found = one.measures[measure]
    sentence = (
        f"{name} chooses right in {number(found.value, 'share')} % {interval(found.low, found.high, 'share')} of "
        f"{found.n:,} items ({_title(measure)}), where guessing gives {number(guessing, 'share')} %"
    )
    if found.low > guessing:
        return Conclusion(f"{sentence}: better than chance.", "holds")
    kind = "undecided" if found.high > guessing else "fails"
    return Conclusion(f"{sentence}: no evidence that it is better than chance.", kind)
