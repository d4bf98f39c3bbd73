"""Questions of plain arithmetic → whether a model answers them, and what it holds likely where it must choose.

Five measures of one question, the same words in every arm:

    direct     `… The answer is` is given, and the model goes on; the number of its first sentence counts
    worked     the model answers as it likes, chain and all; `answer_in` of what it says counts
    forced     after `… The answer is`: the probability of the right value, and the rank of its first token
    value      restricted choice after `… The answer is`: which of the products in the times tables (36) is likeliest
    equation   restricted choice where the answer begins: which of the facts (45) it would write down next

A value is likely as the sum over all ways to write it: in digits, and, where a model has fact tokens, as any fact of that
value. So direct, worked, forced and value ask every arm the same. *equation* does not: an arm without fact tokens
writes a fact in characters (in either order of the factors) and comes far by copying the question's numbers, while a
fact token must be known whole. It is to be read within an arm, or beside value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from workings.arithmetic.answers import answer_in
from workings.arithmetic.drills import DrillSpec
from workings.arithmetic.facts import GPT2_MUL, Fact
from workings.arithmetic.probes import PROBE_KINDS, Probe, overlap, probes
from workings.evals.estimates import mean, median, share
from workings.evals.gsm8k import n_facts
from workings.evals.lm_eval_files import LmEvalTask, sample
from workings.evals.settings import TEMPLATES, PromptStyle, encode_prompt, n_new_tokens
from workings.models.generation import Generation
from workings.models.language import LanguageModel

ANSWER_IS = " The answer is"
N_DIRECT = 16
N_WORKED = 96
CHOSEN_AMONG = ("table", "held-out facts")
"""The kinds whose right answer is one of the facts, so that a choice among them is one."""
OTHER_FRAMES = {"worked": "worked", "value_choice": "value_correct"}
"""What is compared between models beside the direct answer. *equation* is not: it asks every arm something else."""

_FAMILIES = {"addition": "ADD", "subtraction": "SUB"}  # all others are products
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_ROWS = 64  # prompts whose log-probabilities over the whole vocabulary are held at once


def items(spec: DrillSpec | None = None, limit: int | None = None, seed: int = 0) -> list[Probe]:
    """The probes that go with a spec of drills: 81 cells, 100 of each other kind, the held-out facts in other words."""
    return probes(spec, seed=seed)[:limit]


def judge(
    model: LanguageModel,
    judged: Sequence[Probe],
    style: PromptStyle = "chat",
    batch_size: int = 32,
    batch_tokens: int = 8192,
    choices: bool = True,
) -> pl.DataFrame:
    """One row a probe, `condition` its kind; `correct` is the direct answer. Without `choices` the two of them are null."""
    template = TEMPLATES[style]
    asked = [encode_prompt(model, template.prompt(probe.question)) for probe in judged]
    given = [encode_prompt(model, template.prompt(probe.question) + ANSWER_IS) for probe in judged]
    direct = model.generate(given, n_new_tokens(model, N_DIRECT), stop=("\n",), batch_size=batch_size)
    worked = model.generate(asked, n_new_tokens(model, N_WORKED), stop=(*template.stop, "\n\n"), batch_size=batch_size)
    said = [_said(model, *one) for one in zip(judged, direct, worked, strict=True)]
    likely = _forced(model, judged, given, batch_tokens)
    chosen = _choices(model, judged, asked, given, batch_tokens) if choices else [{} for _ in judged]
    rows = [a | b | c for a, b, c in zip(said, likely, chosen, strict=True)]
    return pl.DataFrame(rows, schema=_SCHEMA)


_SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "condition": pl.String,
    "correct": pl.Boolean,
    "held_out": pl.Boolean,
    "question": pl.String,
    "answer": pl.Int64,
    "prediction": pl.String,
    "response": pl.String,
    "n_facts": pl.Int64,
    "worked": pl.Boolean,
    "worked_prediction": pl.String,
    "worked_response": pl.String,
    "worked_facts": pl.Int64,
    "worked_truncated": pl.Boolean,
    "probability": pl.Float64,
    "rank": pl.Int64,
    "fact_probability": pl.Float64,
    "fact_rank": pl.Int64,
    **{
        f"{choice}_{column}": kind
        for choice in ("value", "equation")
        for column, kind in {"correct": pl.Boolean, "choice": pl.String, "rank": pl.Int64, "share": pl.Float64}.items()
    },
}


# ---- said --------------------------------------------------------------------------------------------------------


def first_answer(text: str) -> Fraction | None:
    """The number of what follows "The answer is": of its first sentence alone, whatever is rambled after it."""
    return answer_in(f"#### {_SENTENCE_END.split(text.lstrip(), maxsplit=1)[0]}")


def _said(model: LanguageModel, probe: Probe, direct: Generation, worked: Generation) -> dict[str, Any]:
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
    model: LanguageModel, judged: Sequence[Probe], given: Sequence[list[int]], batch_tokens: int
) -> Iterator[dict[str, Any]]:
    """Probability of the right value in all its spellings and rank of its first digits' token; of the right fact, both."""
    spellings = [_spellings(model, probe.answer) for probe in judged]
    scored = model.logprobs(given, spellings, batch_tokens)
    ranks = _ranks(model, given, [ways[0][0] for ways in spellings], batch_tokens)
    facts = [_own_fact(model, probe) for probe in judged]
    behind = [prompt + (fact[:-1] if fact else []) for prompt, fact in zip(given, facts, strict=True)]
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
    """The ways to write a value behind `is`: digits first, then each fact of that value that is a token to this model."""
    facts = [fact for fact in model.vocabulary or () if fact.value == value]
    return [model.encode(f" {value}"), *(model.encode(f" {fact.token}") for fact in facts)]


def _own_fact(model: LanguageModel, probe: Probe) -> list[int] | None:
    """The ids of the fact that a probe asks for, where it is a token to this model."""
    fact = Fact.of(*probe.operands, family=_FAMILIES.get(probe.kind, "MUL"))
    return model.encode(f" {fact.token}") if model.vocabulary is not None and fact in model.vocabulary else None


def _ranks(
    model: LanguageModel, prompts: Sequence[list[int]], wanted: Sequence[int | None], batch_tokens: int
) -> list[int | None]:
    """1 where no other id is likelier to come next."""
    ranks: list[int | None] = [None] * len(prompts)
    rows = [i for i, id in enumerate(wanted) if id is not None]
    for some in (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)):
        logprobs = model.next_logprobs([prompts[i] for i in some], batch_tokens)
        for i, row in zip(some, logprobs, strict=True):
            ranks[i] = 1 + int((row > row[wanted[i]]).sum())
    return ranks


# ---- restricted choice -------------------------------------------------------------------------------------------


def _choices(
    model: LanguageModel,
    judged: Sequence[Probe],
    asked: Sequence[list[int]],
    given: Sequence[list[int]],
    batch_tokens: int,
) -> list[dict[str, Any]]:
    """Of the probes whose answer is a fact: which value, and which fact, is likeliest among all of the times tables."""
    rows: list[dict[str, Any]] = [{} for _ in judged]
    places = [i for i, probe in enumerate(judged) if probe.kind in CHOSEN_AMONG]
    if not places:
        return rows
    values = sorted({fact.value for fact in GPT2_MUL})
    for choice, prompts, options in (
        ("value", given, {str(value): _spellings(model, value) for value in values}),
        ("equation", asked, {fact.equation: _equations(model, fact) for fact in GPT2_MUL}),
    ):
        likely = _likely(model, [prompts[i] for i in places], options, batch_tokens)
        for i, logs in zip(places, likely, strict=True):
            right = str(judged[i].answer) if choice == "value" else Fact.of(*judged[i].operands).equation
            rows[i] |= _chosen(choice, list(options), logs, right)
    return rows


def _equations(model: LanguageModel, fact: Fact) -> list[list[int]]:
    """The ways in which this model's texts write a fact where an answer begins."""
    if model.vocabulary is not None and fact in model.vocabulary:
        return [model.encode(f" {fact.token}")]
    a, b = fact.operands
    return [model.encode(f" {one}*{other}={fact.value}") for one, other in dict.fromkeys([(a, b), (b, a)])]


def _likely(
    model: LanguageModel, prompts: Sequence[list[int]], options: dict[str, list[list[int]]], batch_tokens: int
) -> list[np.ndarray]:
    """For each prompt, log of the summed probability of each option's spellings [options]."""
    ways = [way for spellings in options.values() for way in spellings]
    starts = np.cumsum([0, *(len(spellings) for spellings in options.values())])[:-1]
    scored = model.logprobs(prompts, [ways] * len(prompts), batch_tokens)
    return [np.logaddexp.reduceat([one.total for one in row], starts) for row in scored]


def _chosen(choice: str, options: list[str], logs: np.ndarray, right: str) -> dict[str, Any]:
    at = options.index(right)
    return {
        f"{choice}_correct": bool(logs.argmax() == at),
        f"{choice}_choice": options[int(logs.argmax())],
        f"{choice}_rank": 1 + int((logs > logs[at]).sum()),
        f"{choice}_share": float(np.exp(logs[at] - np.logaddexp.reduce(logs))),
    }


# ---- read --------------------------------------------------------------------------------------------------------


def summary(frame: pl.DataFrame) -> dict[str, Any]:
    """{kind: every measure with n and interval}; "all" takes each probe once, and by what its answer rests on."""
    kinds = [kind for kind in PROBE_KINDS if kind in frame["condition"]]
    parts = {kind: frame.filter(condition=kind) for kind in kinds} | {"all": frame}
    parts |= {
        "resting on a held-out fact": frame.filter("held_out"),
        "resting on none": frame.filter(~pl.col("held_out")),
    }
    return {name: _measures(part) for name, part in parts.items() if len(part)}


def _measures(rows: pl.DataFrame) -> dict[str, Any]:
    """A measure that does not apply to these probes, or to this model, is left out."""
    found = {
        "n": len(rows),
        "direct": share(rows["correct"]),
        "worked": share(rows["worked"]),
        "truncated": share(rows["worked_truncated"]),
        "facts_per_response": mean(rows["worked_facts"]),
        "probability": mean(rows["probability"]),
        "rank": median(rows["rank"]),
    }
    facts = rows.filter(pl.col("fact_rank").is_not_null())
    if len(facts):
        found |= {
            "fact_probability": mean(facts["fact_probability"]),
            "fact_rank": median(facts["fact_rank"]),
        }
    chosen = rows.filter(pl.col("value_correct").is_not_null())
    if len(chosen):
        found |= {"value_choice": share(chosen["value_correct"]), "equation_choice": share(chosen["equation_correct"])}
    return found


def other_frames(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """{measure: one row a probe with `correct`} of the measures beside the direct answer, to be compared like it."""
    frames = {name: frame.select("id", "condition", correct=column) for name, column in OTHER_FRAMES.items()}
    frames = {name: one.filter(pl.col("correct").is_not_null()) for name, one in frames.items()}
    return {name: one for name, one in frames.items() if len(one)}


def overlap_with(judged: Sequence[Probe], texts: Iterable[str]) -> list[dict[str, Any]]:
    """How many probes of each kind stand in training texts: as asked word for word, and as an equation."""
    return [asdict(one) for one in overlap(judged, texts)]


def for_lm_eval(judged: Sequence[Probe], frame: pl.DataFrame, n_all: int, style: PromptStyle) -> LmEvalTask:
    """The direct answers, as a generation task of lm-eval."""
    template = TEMPLATES[style]
    samples = [
        sample(
            i,
            {"question": probe.question, "answer": probe.answer, "kind": probe.kind},
            probe.answer,
            [
                (
                    template.prompt(probe.question) + ANSWER_IS,
                    {"until": ["\n"], "do_sample": False, "max_gen_toks": N_DIRECT},
                )
            ],
            [row["response"]],
            "first-answer",
            {"exact_match": float(row["correct"])},
            filtered=[row["prediction"] or "[invalid]"],
        )
        for i, (probe, row) in enumerate(zip(judged, frame.iter_rows(named=True), strict=True))
    ]
    return LmEvalTask("arithmetic_probes", "generate_until", samples, n_all, 0)
