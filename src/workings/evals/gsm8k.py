"""GSM8K: a question → a model's greedy answer, the number read from it by three rules, and its length.

    correct    our one definition of an answer (`arithmetic/answers.py`), equal as an exact number
    strict     lm-eval's strict-match: the first `#### 18`, compared as text
    flexible   lm-eval's flexible-extract: the last thing that looks like a number, compared as text

The benchmark is Cobbe et al. 2021 (arXiv:2110.14168). Prompts are `User: …\\nAssistant:` or lm-eval's
`Question: …\\nAnswer:`, with worked examples before them if there are any. A prompt that is too long is cut on the left, so it
still ends where the answer begins, and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import polars as pl

from workings.arithmetic.answers import answer_in, same_answer
from workings.arithmetic.problems import Problem, problem_of_row
from workings.errors import BadInput
from workings.evals.lm_eval_files import LmEvalTask, Sample
from workings.evals.settings import TEMPLATES, Settings, encode_prompt, n_new_tokens
from workings.judging.statistics import Measure
from workings.text.datasets import content_ids, load_problems, local_file, read_rows

if TYPE_CHECKING:
    from workings.models.causal import Generation
    from workings.models.language import LanguageModel

LM_EVAL_SEED = 1234
"""lm-eval's seed for drawing worked examples: the same training file gives the same examples."""

_INVALID = "[invalid]"
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


Example = tuple[str, str]
"""A worked example: question and answer."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its answer as the data set writes it (steps and `#### 18`), that number, and the examples shown before it."""

    id: str
    question: str
    answer: str
    gold: Fraction
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class GSM8KMeasures:
    """Shares of right answers by each rule, of truncated answers and of prompts cut; means of tokens and facts."""

    n: int
    accuracy: Measure
    strict: Measure
    flexible: Measure
    truncated: Measure
    prompts_cut: Measure
    tokens_per_response: Measure
    facts_per_response: Measure


def load_items(settings: Settings) -> list[Item]:
    """Read all test items of `gsm8k_data` and draw their worked examples.

    Raises:
        BadInput: A line is malformed (the message names it), or there are too few training problems for the examples.
    """
    items = _read(settings.gsm8k_data, "test", settings.gsm8k_fields)
    examples = examples_for(settings.gsm8k_data, len(items), settings.n_fewshot, settings.gsm8k_fields)
    return [replace(item, examples=shown) for item, shown in zip(items, examples, strict=True)]


def examples_for(
    reference: str | Path, n_items: int, n_fewshot: int, fields: Sequence[str] = ()
) -> list[tuple[Example, ...]]:
    """Draw worked examples for so many items from the training split beside `reference`, the same ones that lm-eval draws."""
    if not n_fewshot:
        return [()] * n_items
    pool = _training(reference, fields)
    if len(pool) < n_fewshot:
        raise BadInput(f"{n_fewshot} worked examples were asked for and {reference} has {len(pool)} to train on")
    draw = Random(LM_EVAL_SEED)  # one stream over the items, as in lm-eval: workings.seeds would draw other ones
    return [tuple((one.question, one.answer) for one in draw.sample(pool, n_fewshot)) for _ in range(n_items)]


# ---- judged ------------------------------------------------------------------------------------------------------


def judge_items(model: LanguageModel, items: Sequence[Item], settings: Settings) -> pl.DataFrame:
    """Answer every question greedily.

    Returns:
        One row an item: response, prompt, what each rule reads from the response and whether that is right, numbers of
        tokens and facts, whether the response was truncated, and how many tokens its prompt lost on the left (`cut`).
    """
    template = TEMPLATES[settings.prompt]
    prompts = [template.prompt(item.question, item.examples) for item in items]
    ids = [encode_prompt(model, prompt) for prompt in prompts]
    n_new = n_new_tokens(model, settings.max_new_tokens)
    answers = model.generate(ids, n_new, stop=template.stop, batch_size=settings.batch_size)
    rows = [_outcome(model, *one) for one in zip(items, prompts, answers, strict=True)]
    return pl.DataFrame(rows, schema_overrides={"prediction": pl.String})  # of which all may be None


def _outcome(model: LanguageModel, item: Item, prompt: str, answer: Generation) -> dict[str, object]:
    value = answer_in(answer.text)
    strict, flexible = strict_match(answer.text), flexible_extract(answer.text)
    return {
        "id": item.id,
        "correct": same_answer(value, item.gold),
        "strict": is_same_text(strict, item.answer),
        "flexible": is_same_text(flexible, item.answer),
        "gold": str(item.gold),
        "prediction": None if value is None else str(value),
        "strict_prediction": strict,
        "flexible_prediction": flexible,
        "response": answer.text,
        "prompt": model.prepare(prompt),
        "n_tokens": len(answer.ids),
        "n_facts": n_facts(model, answer.ids),
        "ended": answer.ended,
        "truncated": answer.ended == "length",
        "cut": answer.n_cut,
    }


def summarize(outcomes: pl.DataFrame) -> GSM8KMeasures:
    """The measures of the outcomes of `judge_items`."""
    return GSM8KMeasures(
        len(outcomes),
        accuracy=Measure.share(outcomes["correct"]),
        strict=Measure.share(outcomes["strict"]),
        flexible=Measure.share(outcomes["flexible"]),
        truncated=Measure.share(outcomes["truncated"]),
        prompts_cut=Measure.share(outcomes["cut"] > 0),
        tokens_per_response=Measure.mean(outcomes["n_tokens"]),
        facts_per_response=Measure.mean(outcomes["n_facts"]),
    )


def notes(model: LanguageModel, outcomes: pl.DataFrame, settings: Settings) -> list[str]:
    """Sentences for the report on what the model's few positions did."""
    limit, most = settings.max_new_tokens, n_new_tokens(model, settings.max_new_tokens)
    if most == limit:
        return []
    return [
        f"answers have at most {most} new tokens where {limit} were asked for: the model has {model.context_length} positions, "
        "half of them for the prompt."
    ]


def other_outcomes(outcomes: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """No measure but `correct` is compared between models."""
    return {}


def source(items: Sequence[Item], settings: Settings) -> str:
    """The source of the items and their prompt, in words."""
    return f"{settings.gsm8k_data}, {settings.prompt} prompt, {settings.n_fewshot} worked examples"


def lm_eval_tasks(items: Sequence[Item], outcomes: pl.DataFrame, n_all: int, settings: Settings) -> list[LmEvalTask]:
    """The outcomes as lm-eval's files have them: two samples an item, one for each of lm-eval's filters."""
    stop = list(TEMPLATES[settings.prompt].stop)
    request = {"until": stop, "do_sample": False, "max_gen_toks": settings.max_new_tokens}
    samples = [
        Sample(
            i,
            {"question": item.question, "answer": item.answer},
            item.answer,
            [(row["prompt"], request)],
            [row["response"]],
            name,
            [row[f"{rule}_prediction"]],
            {"exact_match": float(row[rule])},
        )
        for name, rule in (("strict-match", "strict"), ("flexible-extract", "flexible"))
        for i, (item, row) in enumerate(zip(items, outcomes.iter_rows(named=True), strict=True))
    ]
    name = "gsm8k" if settings.prompt == "lm-eval" else f"gsm8k_{settings.prompt}"
    return [LmEvalTask(name, "generate_until", samples, n_all, settings.n_fewshot)]


def n_facts(model: LanguageModel, ids: Sequence[int]) -> int:
    """The number of these ids that are facts to this model's tokenizer."""
    return len(model.facts.of_ids(ids)) if model.facts is not None else 0


# ---- lm-eval's two rules -----------------------------------------------------------------------------------------


def strict_match(text: str) -> str:
    """lm-eval's strict-match: the first number after `#### `, as written; `[invalid]` where there is none."""
    found = _STRICT.search(text)
    return found[1].strip() if found else _INVALID


def flexible_extract(text: str) -> str:
    """lm-eval's flexible-extract: the last run of digits, `$`, `,` and `.`, as written; `[invalid]` where there is none.

    A lone `.,` counts as such a run, as it does in lm-eval's pattern.
    """
    found = _FLEXIBLE.findall(text)
    return next(part for part in found[-1] if part).strip() if found else _INVALID


def is_same_text(prediction: str, answer: str) -> bool:
    """lm-eval's exact_match: equal but for case, commas, dollars, all before `#### `, and a last full stop."""
    bare = [
        re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", text.replace(",", "").replace("$", ""))).lower()
        for text in (prediction, answer)
    ]
    return bare[0] == bare[1]


# ---- where items come from ---------------------------------------------------------------------------------------


def _read(reference: str | Path, split: str, fields: Sequence[str] = (), seed: int = 0) -> list[Item]:
    """The items of a split, whose rows have GSM8K's fields, those of another known data set, or `fields` by name.

    Rows of GSM8K are read as they are. Where no answer is in writing (other fields, other formats, generated problems, of which
    `seed` is the seed) it is made.
    """
    is_generated = str(reference).partition(":")[0] == "generated"
    path = None if is_generated else local_file(reference, split)
    rows: list[tuple[str, str, Fraction]] = []
    if is_generated or (path is not None and not path.name.endswith((".jsonl", ".jsonl.gz", ".parquet"))):
        problems = load_problems(reference, split=split, seed=seed, strict=True, fields=fields).problems
        rows = [(problem.question, _written(problem), problem.value) for problem in problems]
    else:
        for place, row in read_rows(reference, split):
            try:
                problem = problem_of_row(row, fields=fields)
                gold = problem.value
            except ValueError as error:
                raise BadInput(f"{place}: {error}; mend or delete the row") from error
            answer = str(row.get("answer", ""))
            as_it_is = "####" in answer and not fields
            question = str(row["question"]) if "question" in row and not fields else problem.question
            rows.append((question, answer if as_it_is else _written(problem), gold))
    ids = content_ids([question, answer] for question, answer, _ in rows)
    return [Item(id, *row) for id, row in zip(ids, rows, strict=True)]


def _written(problem: Problem) -> str:
    """The answer to a problem as GSM8K writes it: a step or sentence a line, then `#### 18`."""
    steps = [f"{step.expression} = <<{step.expression}={step.result}>>{step.result}" for step in problem.steps]
    return "\n".join([*steps, *problem.words, f"#### {problem.answer}"])


def _training(reference: str | Path, fields: Sequence[str]) -> list[Item]:
    """The problems that worked examples are drawn from: the training split, or `train.jsonl` beside a file."""
    path = Path(reference).expanduser()
    if path.is_file():
        siblings = [path.with_name(name) for name in ("train.jsonl", "train.jsonl.gz")]
        found = next((file for file in siblings if file.is_file() and file != path), None)
        if found is None:
            raise BadInput(f"worked examples need training problems, and no train.jsonl lies beside {path}")
        return _read(found, "train", fields)
    return _read(reference, "train", fields, seed=1)
