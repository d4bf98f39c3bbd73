"""Arithmetic probes: a plain question → whether a model answers it, and what it finds likely where it must choose.

Five measures of one question, the same words in every arm:

    direct     `… The answer is` is given, and the model goes on; the number of its first sentence counts
    worked     the model answers freely, with steps if it likes; the number `answer_in` reads from that counts
    forced     after `… The answer is`: the probability of the right value, and the rank of its first token
    value      restricted choice after `… The answer is`: which of the products in the times tables (36) is likeliest
    equation   restricted choice where the answer begins: which of the facts (45) it would write down next

The probability of a value is the sum over all ways to write it: in digits, and, where a model has fact tokens, as any fact of
that value. So direct, worked, forced and value ask every arm the same. *equation* does not: an arm without fact tokens writes a
fact in characters (in either order of the factors) and succeeds largely by copying the question's numbers, while a fact token
must be known whole. Read it within an arm, or next to *value*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from workings.arithmetic.answers import answer_in
from workings.arithmetic.facts import GPT2_MUL, Fact
from workings.arithmetic.probes import PROBE_KINDS, Probe, probes
from workings.evals.gsm8k import n_facts
from workings.evals.lm_eval_files import LmEvalTask, Sample
from workings.evals.settings import TEMPLATES, Settings, encode_prompt, n_new_tokens
from workings.judging.statistics import Measure

if TYPE_CHECKING:
    from workings.models.causal import Generation
    from workings.models.language import LanguageModel

ANSWER_IS = " The answer is"
N_DIRECT = 16  # new tokens
N_WORKED = 96
CHOSEN_AMONG = ("table", "held-out facts")
"""The kinds of probe whose right answer is one of the facts, so that it can be chosen among them."""
OTHER_OUTCOMES = {"worked": "worked", "value_choice": "value_correct"}
"""Columns that models are compared by, as well as the direct answer; not *equation*, which differs between arms."""

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_ROWS = 64  # prompts whose log-probabilities over the whole vocabulary are in memory at once


@dataclass(frozen=True)
class ProbeMeasures:
    """The measures of some probes. One that does not apply to these probes, or to this model, is None.

    Attributes:
        direct, worked, value_choice, equation_choice: Shares of right answers, or right choices.
        truncated: Share of worked answers that reached the limit of tokens.
        facts_per_response: Mean number of fact tokens in a worked answer.
        probability, fact_probability: Mean probability of the right value, in all spellings; of the right fact token.
        rank, fact_rank: Median rank of the value's first token; of the fact token. 1 is the likeliest.
    """

    n: int
    direct: Measure
    worked: Measure
    truncated: Measure
    facts_per_response: Measure
    probability: Measure
    rank: Measure
    fact_probability: Measure | None = None
    fact_rank: Measure | None = None
    value_choice: Measure | None = None
    equation_choice: Measure | None = None


def load_items(settings: Settings) -> list[Probe]:
    """Make the probes that go with the drills of the settings.

    They are the 81 cells of the table, 100 of each other kind, and the held-out facts in other words.
    """
    return probes(settings.drills, seed=settings.probe_seed)


_CHOICE = {"correct": pl.Boolean, "choice": pl.String, "rank": pl.Int64, "share": pl.Float64}
_CHOICES = {f"{choice}_{name}": kind for choice in ("value", "equation") for name, kind in _CHOICE.items()}
_NULLABLE = {
    "prediction": pl.String,
    "worked_prediction": pl.String,
    "fact_probability": pl.Float64,
    "fact_rank": pl.Int64,
    **_CHOICES,
}
"""The columns of which all rows may be None."""


def judge_items(model: LanguageModel, items: Sequence[Probe], settings: Settings, choices: bool = True) -> pl.DataFrame:
    """Ask every probe in the five ways.

    Args:
        choices: Whether to ask the two restricted choices, which take longest; without them their columns are null.

    Returns:
        One row a probe, `condition` being its kind. `correct` is the direct answer; `rank`, `value_rank` and so on are
        1 for the likeliest; `value_share` and `equation_share` are probabilities among the choices.
    """
    template, batch_size, batch_tokens = TEMPLATES[settings.prompt], settings.batch_size, settings.batch_tokens
    questions = [template.prompt(probe.question) for probe in items]
    free = [encode_prompt(model, question) for question in questions]
    forced = [encode_prompt(model, question + ANSWER_IS) for question in questions]
    direct = model.generate(forced, n_new_tokens(model, N_DIRECT), stop=("\n",), batch_size=batch_size)
    worked = model.generate(free, n_new_tokens(model, N_WORKED), stop=(*template.stop, "\n\n"), batch_size=batch_size)
    answers = [_answers(model, *one) for one in zip(items, direct, worked, strict=True)]
    likely = _forced(model, items, forced, batch_tokens)
    chosen = _chosen(model, items, free, forced, batch_tokens) if choices else [{} for _ in items]
    rows = [a | b | dict.fromkeys(_CHOICES) | c for a, b, c in zip(answers, likely, chosen, strict=True)]
    return pl.DataFrame(rows, schema_overrides=_NULLABLE)


# ---- direct and worked answers -------------------------------------------------------------------------------------


def first_answer(text: str) -> Fraction | None:
    """The number in what follows "The answer is": in its first sentence alone, whatever the model rambles after it."""
    return answer_in(f"#### {_SENTENCE_END.split(text.lstrip(), maxsplit=1)[0]}")


def _answers(model: LanguageModel, probe: Probe, direct: Generation, worked: Generation) -> dict[str, object]:
    first, whole = first_answer(direct.text), answer_in(worked.text)
    return {
        "id": probe.id,
        "condition": probe.kind,
        "correct": first == probe.answer,
        "held_out": probe.held_out,
        "question": probe.question,
        "answer": probe.answer,
        "prediction": None if first is None else str(first),
        "response": direct.text,
        "n_facts": n_facts(model, direct.ids),
        "worked": whole == probe.answer,
        "worked_prediction": None if whole is None else str(whole),
        "worked_response": worked.text,
        "worked_facts": n_facts(model, worked.ids),
        "worked_truncated": worked.ended == "length",
    }


# ---- forced prefix -----------------------------------------------------------------------------------------------


def _forced(
    model: LanguageModel, items: Sequence[Probe], forced: Sequence[list[int]], batch_tokens: int
) -> Iterator[dict[str, object]]:
    """Probability and rank of the right value, and of the right fact token, for each probe."""
    spellings = [_spellings(model, probe.answer) for probe in items]
    scored = model.logprobs(forced, spellings, batch_tokens)
    ranks = _ranks(model, forced, [ways[0][0] for ways in spellings], batch_tokens)
    vocabulary = model.facts or ()
    facts = [model.encode(f" {probe.fact.token}") if probe.fact in vocabulary else None for probe in items]
    behind = [prompt + (fact[:-1] if fact else []) for prompt, fact in zip(forced, facts, strict=True)]
    fact_ranks = _ranks(model, behind, [fact[-1] if fact else None for fact in facts], batch_tokens)
    for ways, one, rank, fact, fact_rank in zip(spellings, scored, ranks, facts, fact_ranks, strict=True):
        totals = [way.total for way in one]
        yield {
            "probability": float(np.exp(totals).sum()),
            "rank": rank,
            "fact_probability": float(np.exp(totals[ways.index(fact)])) if fact else None,
            "fact_rank": fact_rank,
        }


def _spellings(model: LanguageModel, value: int) -> list[list[int]]:
    """Ids of the ways to write a value after `is`: in digits first, then each fact token of that value."""
    facts = [fact for fact in model.facts or () if fact.result == value]
    return [model.encode(f" {value}"), *(model.encode(f" {fact.token}") for fact in facts)]


def _ranks(
    model: LanguageModel, prompts: Sequence[list[int]], targets: Sequence[int | None], batch_tokens: int
) -> list[int | None]:
    """Rank of the target id after each prompt, 1 being the likeliest; None where there is no target."""
    ranks: list[int | None] = [None] * len(prompts)
    rows = [i for i, id in enumerate(targets) if id is not None]
    for some in (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)):
        logprobs = model.next_logprobs([prompts[i] for i in some], batch_tokens)
        for i, row in zip(some, logprobs, strict=True):
            ranks[i] = 1 + int((row > row[targets[i]]).sum())
    return ranks


# ---- restricted choice -------------------------------------------------------------------------------------------


def _chosen(
    model: LanguageModel,
    items: Sequence[Probe],
    free: Sequence[list[int]],
    forced: Sequence[list[int]],
    batch_tokens: int,
) -> list[dict[str, object]]:
    """The value and the fact likeliest among all of the times tables, for the probes whose answer is a fact."""
    rows: list[dict[str, object]] = [{} for _ in items]
    places = [i for i, probe in enumerate(items) if probe.kind in CHOSEN_AMONG]
    if not places:
        return rows
    values = sorted({fact.result for fact in GPT2_MUL})
    by_value = {str(value): _spellings(model, value) for value in values}
    by_equation = {fact.equation: _equations(model, fact) for fact in GPT2_MUL}
    for choice, prompts, options in (("value", forced, by_value), ("equation", free, by_equation)):
        names, ways = list(options), [way for spellings in options.values() for way in spellings]
        starts = np.cumsum([0, *map(len, options.values())])[:-1]
        scored = model.logprobs([prompts[i] for i in places], [ways] * len(places), batch_tokens)
        for i, row in zip(places, scored, strict=True):
            logs = np.logaddexp.reduceat([one.total for one in row], starts)  # over all spellings of an option
            right = names.index(str(items[i].answer) if choice == "value" else items[i].fact.equation)
            rows[i] |= {
                f"{choice}_correct": bool(logs.argmax() == right),
                f"{choice}_choice": names[int(logs.argmax())],
                f"{choice}_rank": 1 + int((logs > logs[right]).sum()),
                f"{choice}_share": float(np.exp(logs[right] - np.logaddexp.reduce(logs))),
            }
    return rows


def _equations(model: LanguageModel, fact: Fact) -> list[list[int]]:
    """Ids of the ways in which this model's texts write a fact where an answer begins."""
    if model.facts is not None and fact in model.facts:
        return [model.encode(f" {fact.token}")]
    a, b = fact.operands
    return [model.encode(f" {one}*{other}={fact.result}") for one, other in dict.fromkeys([(a, b), (b, a)])]


# ---- measures ----------------------------------------------------------------------------------------------------


def summarize(outcomes: pl.DataFrame) -> dict[str, ProbeMeasures]:
    """The measures of each kind of probe, of all together, and of those that rest on a held-out fact or on none."""
    kinds = [kind for kind in PROBE_KINDS if kind in outcomes["condition"]]
    parts = {kind: outcomes.filter(condition=kind) for kind in kinds} | {"all": outcomes}
    parts |= {
        "resting on a held-out fact": outcomes.filter("held_out"),
        "resting on none": outcomes.filter(~pl.col("held_out")),
    }
    return {name: _measures(part) for name, part in parts.items() if len(part)}


def _measures(rows: pl.DataFrame) -> ProbeMeasures:
    facts = rows.filter(pl.col("fact_rank").is_not_null())
    chosen = rows.filter(pl.col("value_correct").is_not_null())
    return ProbeMeasures(
        len(rows),
        direct=Measure.share(rows["correct"]),
        worked=Measure.share(rows["worked"]),
        truncated=Measure.share(rows["worked_truncated"]),
        facts_per_response=Measure.mean(rows["worked_facts"]),
        probability=Measure.mean(rows["probability"]),
        rank=Measure.median(rows["rank"]),
        fact_probability=Measure.mean(facts["fact_probability"]) if len(facts) else None,
        fact_rank=Measure.median(facts["fact_rank"]) if len(facts) else None,
        value_choice=Measure.share(chosen["value_correct"]) if len(chosen) else None,
        equation_choice=Measure.share(chosen["equation_correct"]) if len(chosen) else None,
    )


def other_outcomes(outcomes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The measures other than the direct answer that models are compared by: for each, one row a probe, with `correct`."""
    frames = {name: outcomes.select("id", "condition", correct=column) for name, column in OTHER_OUTCOMES.items()}
    frames = {name: one.filter(pl.col("correct").is_not_null()) for name, one in frames.items()}
    return {name: one for name, one in frames.items() if len(one)}


def notes(model: LanguageModel, outcomes: pl.DataFrame, settings: Settings) -> list[str]:
    """A probe fits every model, so there is nothing to note."""
    return []


def source(items: Sequence[Probe], settings: Settings) -> str:
    """The probes and their prompt, in words."""
    return f"arithmetic probes, {settings.prompt} prompt"


def lm_eval_tasks(items: Sequence[Probe], outcomes: pl.DataFrame, n_all: int, settings: Settings) -> list[LmEvalTask]:
    """The direct answers as lm-eval's files have them, a generation task."""
    template = TEMPLATES[settings.prompt]
    request = {"until": ["\n"], "do_sample": False, "max_gen_toks": N_DIRECT}
    samples = [
        Sample(
            i,
            {"question": probe.question, "answer": probe.answer, "kind": probe.kind},
            probe.answer,
            [(template.prompt(probe.question) + ANSWER_IS, request)],
            [row["response"]],
            "first-answer",
            [row["prediction"] or "[invalid]"],
            {"exact_match": float(row["correct"])},
        )
        for i, (probe, row) in enumerate(zip(items, outcomes.iter_rows(named=True), strict=True))
    ]
    return [LmEvalTask("arithmetic_probes", "generate_until", samples, n_all, 0)]
