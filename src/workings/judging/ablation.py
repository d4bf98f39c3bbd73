"""Model × fresh problems → what its thoughts are needed for: accuracy with its own, without, and with somebody else's.

One row per problem and condition, so that every interval and test can be made again without the model. Conditions are the
substitutes of `workings.reading.intervene` and `written`, the chain in words (what the model can do when it may write).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.judging.statistics import wilson
from workings.models.codi import CODI
from workings.reading.intervene import SUBSTITUTES, substituted

CONDITIONS = (*SUBSTITUTES, "written")
IN_WORDS = {
    "own": "its own thoughts",
    "zero": "thoughts zeroed",
    "mean": "each thought the mean over other problems",
    "first": "the first thought again at every step",
    "swapped": "thoughts of another problem",
    "written": "the chain written in words",
}


def judge(
    model: CODI,
    problems: Sequence[Problem],
    others: Sequence[Problem],
    seed: int = 0,
    batch_size: int = 250,
    max_new_tokens: int = 16,
    written: bool = True,
) -> pl.DataFrame:
    """Columns problem, n_steps, condition, answer, correct, follows. `others` give the means; none of them is judged.

    Problems without a donor for the swap are left out of every condition.
    """
    frame = substituted(model, problems, others, seed=seed, batch_size=batch_size, max_new_tokens=max_new_tokens)
    frame = frame.rename({"substitute": "condition"})
    if not written:
        return frame
    judged = set(frame["problem"])
    problems = [p for p in problems if p.id in judged]
    longest = max(len(model.chain_ids(p)) for p in problems) + max_new_tokens
    answers = model.write_and_answer([p.question for p in problems], max_new_tokens=longest, batch_size=batch_size)
    rows = {
        "problem": [p.id for p in problems],
        "n_steps": [p.n_steps for p in problems],
        "condition": "written",
        "answer": [None if a.value is None else str(a.value) for a in answers],
        "correct": [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=True)],
        "follows": [None] * len(problems),
    }
    return pl.concat([frame, pl.DataFrame(rows, schema=frame.schema)])


def accuracy(outcomes: pl.DataFrame) -> pl.DataFrame:
    """One row per number of steps and condition: n, accuracy with its Wilson interval, and the same of `follows`."""
    counted = outcomes.group_by("n_steps", "condition").agg(
        pl.len().alias("n"), pl.col("correct").sum(), pl.col("follows").sum()
    )
    rows = []
    for row in counted.sort("n_steps").iter_rows(named=True):
        n, right = row["n"], wilson(row["correct"], row["n"])
        taken = wilson(row["follows"] or 0, n)
        rows.append(
            {
                "n_steps": row["n_steps"],
                "condition": row["condition"],
                "n": n,
                "accuracy": row["correct"] / n,
                "low": right.low,
                "high": right.high,
                "follows": None if row["condition"] == "written" else (row["follows"] or 0) / n,
                "follows_low": None if row["condition"] == "written" else taken.low,
                "follows_high": None if row["condition"] == "written" else taken.high,
            }
        )
    return pl.DataFrame(rows)


def cell(table: pl.DataFrame, n_steps: int, condition: str) -> dict:
    """The row of `accuracy` for one chain length and condition."""
    return table.row(by_predicate=(pl.col("n_steps") == n_steps) & (pl.col("condition") == condition), named=True)
