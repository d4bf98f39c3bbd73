"""Model × problems → answers with its own thoughts, with ablated ones and in words: what the thoughts are needed for.

What can be read from a thought is not yet what is used. Every condition but `own` and `written` replaces the vectors that are
*fed*; later thoughts are recomputed from them, so this is the total effect. `zero` feeds nothing, `mean` the mean vector of each
step over other problems (mean ablation), `first` the first thought again at every step, `swapped` the thoughts of another problem
with as many steps and another answer (interchange). `written` is the chain in words, the positive control.
One row per problem and condition, so that every interval and test can be made again without the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from workings import seeds
from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.config import several
from workings.errors import BadInput
from workings.judging.paired import share_over_seeds
from workings.judging.statistics import Measure, with_columns
from workings.models.anatomy import Edit
from workings.models.interventions import Condition, Intervention, Value, answers_under
from workings.models.thinking import Answer, Questions, ThoughtModel

IN_WORDS = {
    "own": "its own thoughts",
    "zero": "thoughts zeroed",
    "mean": "each thought the mean over other problems",
    "first": "the first thought again at every step",
    "swapped": "thoughts of another problem",
    "written": "the chain written in words",
}
CONDITIONS = tuple(IN_WORDS)


def ablate(
    model: ThoughtModel,
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
        written: Answer by the chain in words, too.

    Returns:
        One row per problem and condition: problem, structure, n_steps, condition, answer, correct, follows (gives the donor's
        answer; null for `written`).

    Raises:
        BadInput: Where no problem has a donor.
    """
    problems, donor = with_donors(problems, seed)
    if not problems:
        raise BadInput(
            "no problem has a partner with as many steps and another answer, so nothing can be swapped; give more problems"
        )
    questions = [p.question for p in problems]
    thoughts, answers = model.think_and_answer(questions, batch_size=batch_size, max_new_tokens=max_new_tokens)
    assert thoughts is not None
    own = thoughts.projected.to(model.device)
    means = model.think([p.question for p in others], batch_size=batch_size).projected.mean(0).to(model.device)
    values: dict[str, Value] = {
        "zero": lambda m: torch.zeros_like(m.value),
        "mean": lambda m: means[m.k - 1].expand_as(m.value),
        "first": lambda m: own[m.rows, 0],
        "swapped": lambda m: own[donor[m.rows], m.k - 1],
    }
    thoughts_of = tuple(range(1, model.n_thoughts + 1))
    conditions = {name: Condition((Intervention(value, thoughts_of),)) for name, value in values.items()}
    found = answers_under(model, questions, conditions, batch_size=batch_size, max_new_tokens=max_new_tokens)
    answers_in = {"own": answers} | {name: one.answers for name, one in found.items()}
    if written:
        longest = max(len(model.chain_ids(p)) for p in problems) + max_new_tokens
        answers_in["written"] = model.write_and_answer(questions, max_new_tokens=longest, batch_size=batch_size)
    return pl.concat([_outcomes(name, answers, problems, donor.tolist()) for name, answers in answers_in.items()])


def with_donors(problems: Sequence[Problem], seed: int) -> tuple[list[Problem], torch.Tensor]:
    """The problems that have a donor, and the places of their donors among them, Long [n]."""
    found = {i: j for i, j in enumerate(donors(problems, seed)) if j is not None}
    place = {i: at for at, i in enumerate(found)}  # a donor has a donor too: the problem itself would do
    return [problems[i] for i in found], torch.tensor([place[j] for j in found.values()], dtype=torch.long)


def donors(problems: Sequence[Problem], seed: int) -> list[int | None]:
    """For each problem the index of another with as many steps and another answer, drawn at random; None where there is none."""
    random = seeds.python("donors", seed)
    by_steps: dict[int, dict[object, list[int]]] = {}
    for i, problem in enumerate(problems):
        by_steps.setdefault(problem.n_steps, {}).setdefault(problem.value, []).append(i)
    chosen: list[int | None] = []
    for problem in problems:
        by_answer = by_steps[problem.n_steps]
        others = [i for answer, rows in by_answer.items() if answer != problem.value for i in rows]
        chosen.append(random.choice(others) if others else None)
    return chosen


def _outcomes(condition: str, answers: Sequence[Answer], problems: Sequence[Problem], donor: list[int]) -> pl.DataFrame:
    follows = [same_answer(a.value, problems[j].value) for a, j in zip(answers, donor, strict=True)]
    return pl.DataFrame(
        {
            "problem": [p.id for p in problems],
            "structure": [p.structure for p in problems],
            "n_steps": [p.n_steps for p in problems],
            "condition": condition,
            "answer": [None if a.value is None else str(a.value) for a in answers],
            "correct": [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=True)],
            "follows": None if condition == "written" else follows,
        },
        schema_overrides={"answer": pl.String, "follows": pl.Boolean},
    )


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, and share of answers that are the donor's; None where no donor is meant (`written`)."""

    correct: Measure
    follows: Measure | None


OUTCOMES = ("problem", "n_steps", "condition", "correct", "follows")
"""Columns that the accuracies are counted from."""


def accuracy(outcomes: pl.DataFrame) -> dict[tuple[int, str], Accuracy]:
    """{(number of steps, condition): accuracy} of `ablate`'s outcomes, with Wilson intervals clustered by structure."""
    found = {}
    with_columns(outcomes, OUTCOMES, "outcomes of judging.ablate")
    if "structure" not in outcomes.columns:  # a run of before it was recorded
        outcomes = outcomes.with_columns(structure="problem")
    for (n_steps, condition), rows in outcomes.sort("n_steps").group_by("n_steps", "condition", maintain_order=True):
        follows = None if condition == "written" else Measure.share(rows["follows"], rows["structure"])
        found[n_steps, condition] = Accuracy(Measure.share(rows["correct"], rows["structure"]), follows)
    return found


def accuracy_over_seeds(outcomes: Sequence[pl.DataFrame]) -> dict[tuple[int, str], Accuracy]:
    """`accuracy` of several training seeds, one frame of outcomes each, with intervals over seeds and structures.

    Raises:
        BadInput: Where the frames are not of the same problems, or there are none.
    """
    if not outcomes:
        raise BadInput("there is nothing to judge: no seed was given")
    for frame in outcomes:
        with_columns(frame, (*OUTCOMES, "structure"), "outcomes of judging.ablate")
    ordered = [frame.sort("n_steps", "condition", "problem") for frame in outcomes]
    keys = [frame.select("n_steps", "condition", "problem") for frame in ordered]
    if not all(each.equals(keys[0]) for each in keys):
        raise BadInput("the seeds did not answer the same problems, so their outcomes cannot be pooled")
    stacked = ordered[0].with_columns(
        pl.concat_list([frame[column] for frame in ordered]).alias(column) for column in ("correct", "follows")
    )
    found = {}
    for (n_steps, condition), rows in stacked.group_by("n_steps", "condition", maintain_order=True):
        follows = None if condition == "written" else _over_seeds(rows["follows"], rows["structure"])
        found[n_steps, condition] = Accuracy(_over_seeds(rows["correct"], rows["structure"]), follows)
    return found


def _over_seeds(flags: pl.Series, structures: pl.Series) -> Measure:
    return share_over_seeds(np.array(flags.to_list(), np.float64).T, structures.to_numpy())


def self_check(model: ThoughtModel, questions: Questions) -> dict[str, float]:
    """Largest change of an answer's scores (logits) under two edits that must change nothing: exactly 0, or the engine is wrong.

    `replace by itself`: each thought fed again as it is. `last state`: the final-norm state of the last thought, fed to nothing.
    """
    questions = several(questions)
    with torch.no_grad():
        states = [model.begin(model.prompt(questions))]
        for _ in range(model.n_thoughts):
            states.append(model.step(states[-1]))
        again = states[0]
        for k in range(model.n_thoughts):
            again = model.step(again, z=model.feed(states[k].final, k))
        edited = model.step(states[-2], edits=[Edit("final_norm", lambda h: h.flip(-1))])
        none = torch.empty(len(questions), 0, dtype=torch.long, device=model.device)
        clean, replaced, last = (model.close(s, none)[0][-1] for s in (states[-1], again, edited))
    return {
        "replace by itself": float((clean - replaced).abs().max()),
        "last state": float((clean - last).abs().max()),
    }
