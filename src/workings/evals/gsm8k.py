"""GSM8K questions → what a model answers: greedy text, the number in it by three rules, and how it was said.

    correct    our one definition of an answer (`arithmetic/answers.py`), equal as an exact number
    strict     lm-eval's strict-match: the first `#### 18`, compared as text
    flexible   lm-eval's flexible-extract: the last thing that looks like a number, compared as text

Prompts are `User: …\\nAssistant:` or lm-eval's `Question: …\\nAnswer:`, with worked examples before them if asked for. A
prompt that is too long is cut on the left, so it still ends where the answer begins, and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from workings.arithmetic.answers import answer_in, same_answer
from workings.arithmetic.problems import Problem, problem_of_row
from workings.errors import BadInput
from workings.evals.estimates import mean, share
from workings.evals.lm_eval_files import LmEvalTask, sample
from workings.evals.settings import GSM8K, TEMPLATES, PromptStyle, encode_prompt, n_new_tokens
from workings.models.generation import Generation
from workings.models.language import LanguageModel
from workings.text.datasets import Row, content_ids, load_problems, local_file, rows_of

LM_EVAL_SEED = 1234
"""With which lm-eval draws worked examples; ours are the same ones for the same training file."""

_INVALID = "[invalid]"
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


@dataclass(frozen=True, slots=True)
class Item:
    """A question, its answer as the data set has it (chain and `#### 18`), and the number that is right."""

    id: str
    question: str
    answer: str
    gold: Fraction


Example = tuple[str, str]


def items(reference: str | Path = GSM8K, limit: int | None = None, split: str = "test", seed: int = 0) -> list[Item]:
    """The items of a hub id, a JSON-lines file, a folder with a file of that split, another file of problems, or
    `generated[:preset]` (a thousand). BadInput names a malformed line.
    """
    rows = list(_rows(reference, split, seed))
    ids = content_ids([question, answer] for question, answer, _ in rows)
    return [Item(id, *row) for id, row in zip(ids, rows, strict=True)][:limit]


def examples_for(reference: str | Path, n_items: int, n_fewshot: int, seed: int = LM_EVAL_SEED) -> list[list[Example]]:
    """For each of so many items `n_fewshot` worked examples, drawn from the training split beside `reference`."""
    if not n_fewshot:
        return [[] for _ in range(n_items)]
    pool = _training(reference)
    if len(pool) < n_fewshot:
        raise BadInput(f"{n_fewshot} worked examples were asked for and {reference} has {len(pool)} to train on")
    draw = Random(seed)  # one stream over the items in order, as lm-eval has it: workings.seeds would give others
    return [[(one.question, one.answer) for one in draw.sample(pool, n_fewshot)] for _ in range(n_items)]


def judge(
    model: LanguageModel,
    judged: Sequence[Item],
    style: PromptStyle = "chat",
    examples: Sequence[Sequence[Example]] | None = None,
    max_new_tokens: int = 256,
    batch_size: int = 32,
) -> pl.DataFrame:
    """One row an item: what was said, what it counts as, its tokens and facts, whether it was truncated or its prompt cut.

    Where `max_new_tokens` are more than half of the model's positions, an answer has that half (`room`).
    """
    shown = examples or [() for _ in judged]
    template = TEMPLATES[style]
    prompts = [template.prompt(item.question, tuple(some)) for item, some in zip(judged, shown, strict=True)]
    ids = [encode_prompt(model, prompt) for prompt in prompts]
    said = model.generate(ids, n_new_tokens(model, max_new_tokens), stop=template.stop, batch_size=batch_size)
    rows = [_row(model, *one) for one in zip(judged, prompts, said, strict=True)]
    return pl.DataFrame(rows, schema=_SCHEMA)


_SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "correct": pl.Boolean,
    "strict": pl.Boolean,
    "flexible": pl.Boolean,
    "gold": pl.String,
    "prediction": pl.String,
    "strict_prediction": pl.String,
    "flexible_prediction": pl.String,
    "response": pl.String,
    "prompt": pl.String,
    "n_tokens": pl.Int64,
    "n_facts": pl.Int64,
    "ended": pl.String,
    "truncated": pl.Boolean,
    "cut": pl.Int64,
}


def _row(model: LanguageModel, item: Item, prompt: str, said: Generation) -> dict[str, Any]:
    value = answer_in(said.text)
    strict, flexible = strict_match(said.text), flexible_extract(said.text)
    return {
        "id": item.id,
        "correct": same_answer(value, item.gold),
        "strict": is_same_text(strict, item.answer),
        "flexible": is_same_text(flexible, item.answer),
        "gold": str(item.gold),
        "prediction": None if value is None else str(value),
        "strict_prediction": strict,
        "flexible_prediction": flexible,
        "response": said.text,
        "prompt": model.prepare(prompt),
        "n_tokens": len(said.ids),
        "n_facts": n_facts(model, said.ids),
        "ended": said.ended,
        "truncated": said.ended == "length",
        "cut": said.cut,
    }


def summary(frame: pl.DataFrame) -> dict[str, Any]:
    """Accuracy by each rule, rates of truncation and cut prompts, tokens and facts a response, all with n and interval."""
    return {
        "n": len(frame),
        "accuracy": share(frame["correct"]),
        "strict": share(frame["strict"]),
        "flexible": share(frame["flexible"]),
        "truncated": share(frame["truncated"]),
        "prompts_cut": share(frame["cut"] > 0),
        "tokens_per_response": mean(frame["n_tokens"]),
        "facts_per_response": mean(frame["n_facts"]),
    }


def for_lm_eval(
    judged: Sequence[Item], frame: pl.DataFrame, n_all: int, style: PromptStyle, n_fewshot: int, max_new_tokens: int
) -> LmEvalTask:
    """Two samples an item, one for each of lm-eval's filters."""
    asked = {"until": list(TEMPLATES[style].stop), "do_sample": False, "max_gen_toks": max_new_tokens}
    samples = [
        sample(
            i,
            {"question": item.question, "answer": item.answer},
            item.answer,
            [(row["prompt"], asked)],
            [row["response"]],
            name,
            {"exact_match": float(row[kind])},
            filtered=[row[f"{kind}_prediction"]],
        )
        for name, kind in (("strict-match", "strict"), ("flexible-extract", "flexible"))
        for i, (item, row) in enumerate(zip(judged, frame.iter_rows(named=True), strict=True))
    ]
    return LmEvalTask("gsm8k" if style == "lm-eval" else f"gsm8k_{style}", "generate_until", samples, n_all, n_fewshot)


def n_facts(model: LanguageModel, ids: Sequence[int]) -> int:
    """How many of these ids are facts to this model's tokenizer."""
    return len(model.vocabulary.of_ids(ids)) if model.vocabulary is not None else 0


# ---- lm-eval's two rules -----------------------------------------------------------------------------------------


def strict_match(text: str) -> str:
    """The first number behind `#### `, as written; `[invalid]` where there is none."""
    found = _STRICT.search(text)
    return found[1].strip() if found else _INVALID


def flexible_extract(text: str) -> str:
    """The last run of digits, `$`, `,` and `.` (a lone `.,` too), as written; `[invalid]` where there is none."""
    found = _FLEXIBLE.findall(text)
    return next(part for part in found[-1] if part).strip() if found else _INVALID


def is_same_text(prediction: str, answer: str) -> bool:
    """Equal once commas, dollars, what precedes `#### ` and a last full stop are gone, in small letters."""
    return _bare(prediction) == _bare(answer)


def _bare(text: str) -> str:
    plain = text.replace(",", "").replace("$", "")
    return re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", plain)).lower()


# ---- where items come from ---------------------------------------------------------------------------------------


def _rows(reference: str | Path, split: str, seed: int) -> Iterator[tuple[str, str, Fraction]]:
    if _has_rows(reference, split):
        for place, row in rows_of(reference, split):
            yield _parts(row, place)
        return
    for problem in load_problems(reference, split=split, seed=seed, strict=True).problems:
        yield problem.question, _written(problem), problem.value


def _has_rows(reference: str | Path, split: str) -> bool:
    """Whether rows are read as they are: files of other formats, and generated problems, have no written answer."""
    if str(reference).partition(":")[0] == "generated":
        return False
    path = local_file(reference, split)
    return path is None or path.name.endswith((".jsonl", ".jsonl.gz"))


def _parts(row: Row, place: str) -> tuple[str, str, Fraction]:
    try:
        problem = problem_of_row(row)
        gold = problem.value
    except ValueError as error:
        raise BadInput(f"{place}: {error}; mend or delete the row") from error
    answer = str(row["answer"])
    return str(row["question"]), answer if "####" in answer else _written(problem), gold


def _written(problem: Problem) -> str:
    """A problem as GSM8K writes its answers: a step a line, then `#### 18`."""
    steps = [f"{step.expression} = <<{step.expression}={step.result}>>{step.result}" for step in problem.steps]
    return "\n".join([*steps, f"#### {problem.answer}"])


def _training(reference: str | Path) -> list[Item]:
    """What worked examples are drawn from: the training split, or `train.jsonl` beside a file."""
    path = Path(reference).expanduser()
    if path.is_file():
        beside = [path.with_name(name) for name in ("train.jsonl", "train.jsonl.gz")]
        found = next((file for file in beside if file.is_file() and file != path), None)
        if found is None:
            raise BadInput(f"worked examples need training problems, and no train.jsonl lies beside {path}")
        return items(found)
    return items(reference, split="train", seed=1)
