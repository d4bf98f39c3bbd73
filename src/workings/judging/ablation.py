"""Model × fresh problems → what its thoughts are needed for: accuracy with its own, without them, and with another problem's.

One row per problem and condition, so that every interval and test can be made again without the model. Conditions are those of
`workings.reading.intervene`, and `written`: the chain in words, which the model can do when it may write (positive control).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.judging.statistics import Measure
from workings.models.codi import CODI
from workings.reading import intervene

CONDITIONS = (*intervene.CONDITIONS, "written")
IN_WORDS = {
    "own": "its own thoughts",
    "zero": "thoughts zeroed",
    "mean": "each thought the mean over other problems",
    "first": "the first thought again at every step",
    "swapped": "thoughts of another problem",
    "written": "the chain written in words",
}


def ablate(
    model: CODI,
    problems: Sequence[Problem],
    others: Sequence[Problem],
    seed: int = 0,
    batch_size: int = 250,
    max_new_tokens: int = 16,
    written: bool = True,
) -> pl.DataFrame:
    """Answer problems with the model's own thoughts, with ablated and swapped ones, and in words.

    Args:
        model: The model that thinks and answers.
        problems: The problems answered. Those without a donor for the swap are left out of every condition.
        others: Other problems, over which the mean of each thought is taken.
        seed: Random seed of the donors.
        batch_size: Problems answered at once.
        max_new_tokens: Longest answer, in tokens; a written chain may be as much longer as the longest chain.
        written: Whether the chain is also written in words.

    Returns:
        One row per problem and condition: problem, n_steps, condition, answer, correct, follows (gives the donor's answer;
        null for `written`).
    """
    frame = intervene.ablated_answers(
        model, problems, others, seed=seed, batch_size=batch_size, max_new_tokens=max_new_tokens
    )
    if not written:
        return frame
    kept = set(frame["problem"])
    problems = [p for p in problems if p.id in kept]
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


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, and share of answers that are the donor's; None where no donor is meant (`written`)."""

    correct: Measure
    follows: Measure | None


def accuracy(outcomes: pl.DataFrame) -> dict[tuple[int, str], Accuracy]:
    """{(number of steps, condition): accuracy} of `ablate`'s outcomes, with Wilson intervals."""
    found = {}
    for (n_steps, condition), rows in outcomes.sort("n_steps").group_by("n_steps", "condition", maintain_order=True):
        follows = None if condition == "written" else Measure.share(rows["follows"])
        found[n_steps, condition] = Accuracy(Measure.share(rows["correct"]), follows)
    return found
