"""Model × problems × an ablation of its thoughts → answers. What can be read from a thought is not yet what is used.

Every condition but `own` replaces the vectors that are *fed*; later thoughts are recomputed from them, so this is the total
effect. `zero` feeds nothing, `mean` the mean vector of each step over other problems (mean ablation), `first` the first thought
again at every step, `swapped` the thoughts of another problem with as many steps and another answer (interchange).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor

from workings import seeds
from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.anatomy import Edit
from workings.models.thinking import Answer, ThoughtModel

CONDITIONS = ("own", "zero", "mean", "first", "swapped")


def donors(problems: Sequence[Problem], seed: int) -> list[int | None]:
    """For each problem the index of another with as many steps and another answer, drawn at random; None where there is none."""
    random = seeds.python("donors", seed)
    by_steps: dict[int, dict[object, list[int]]] = {}
    for i, problem in enumerate(problems):
        by_steps.setdefault(problem.n_steps, {}).setdefault(problem.value, []).append(i)
    chosen: list[int | None] = []
    for problem in problems:
        by_answer = by_steps[problem.n_steps]
        n_others = sum(map(len, by_answer.values())) - len(by_answer[problem.value])
        chosen.append(_nth_other(by_answer, problem.value, random.randrange(n_others)) if n_others else None)
    return chosen


def _nth_other(by_answer: dict[object, list[int]], own: object, n: int) -> int:
    """The n-th of the problems with another answer, without listing them all for every problem."""
    for answer, rows in by_answer.items():
        if answer != own:
            if n < len(rows):
                return rows[n]
            n -= len(rows)
    raise AssertionError("n counts the others")


def ablated_answers(
    model: ThoughtModel,
    problems: Sequence[Problem],
    means_from: Sequence[Problem],
    *,
    seed: int = 0,
    batch_size: int = 256,
    max_new_tokens: int = 16,
) -> pl.DataFrame:
    """Answer problems with the model's own thoughts, and with each ablation of them.

    A problem without a donor (none with as many steps has another answer) is left out of every condition.

    Args:
        model: The model that thinks and answers.
        problems: The problems answered.
        means_from: Other problems, over which the mean of each step is taken.
        seed: Random seed of the donors.
        batch_size: Problems answered at once.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        One row per problem and condition: problem, n_steps, condition, answer, correct, follows (gives the donor's answer).

    Raises:
        BadInput: Where no problem has a donor.
    """
    found = {i: j for i, j in enumerate(donors(problems, seed)) if j is not None}
    if not found:
        raise BadInput(
            "no problem has a partner with as many steps and another answer, so nothing can be swapped; give more problems"
        )
    place = {i: at for at, i in enumerate(found)}
    donor = [place[j] for j in found.values()]  # a donor has a donor too: the problem itself would do
    problems = [problems[i] for i in found]
    questions = [p.question for p in problems]
    own, answers = model.think_and_answer(questions, batch_size=batch_size, max_new_tokens=max_new_tokens)
    assert own is not None
    means = model.think([p.question for p in means_from], batch_size=batch_size).projected.mean(0)
    fed = own.projected.to(model.device)
    means, partner = means.to(model.device), torch.tensor(donor)

    def answered(value) -> list[Answer]:
        return model.think_and_answer(
            questions, batch_size=batch_size, max_new_tokens=max_new_tokens, fed=value, keep=False
        )[1]

    said = {
        "own": answers,
        "zero": answered(lambda k, z, rows: torch.zeros_like(z)),
        "mean": answered(lambda k, z, rows: means[k - 1].expand_as(z)),
        "first": answered(lambda k, z, rows: fed[rows, 0]),
        "swapped": answered(lambda k, z, rows: fed[partner[rows], k - 1]),
    }
    return pl.concat([_rows(name, said[name], problems, donor) for name in CONDITIONS])


def _rows(name: str, answers: Sequence[Answer], problems: Sequence[Problem], donor: Sequence[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "problem": [p.id for p in problems],
            "n_steps": [p.n_steps for p in problems],
            "condition": name,
            "answer": [None if a.value is None else str(a.value) for a in answers],
            "correct": [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=True)],
            "follows": [same_answer(a.value, problems[j].value) for a, j in zip(answers, donor, strict=True)],
        },
        schema_overrides={"answer": pl.String},
    )


def self_check(model: ThoughtModel, questions: Sequence[str]) -> dict[str, float]:
    """Largest change of an answer's scores (logits) under two edits that must change nothing: exactly 0, or the engine is wrong.

    `replace by itself`: each thought fed again as it is. `last state`: the final-norm state of the last thought, fed to nothing.
    """
    with torch.no_grad():
        clean = model.begin(model.prompt(questions))
        states = [clean]
        for _ in range(model.n_thoughts):
            states.append(model.step(states[-1]))
        again = clean
        for k in range(model.n_thoughts):
            again = model.step(again, z=model.feed(states[k].final, k))
        edited = model.step(states[-2], edits=[Edit("final_norm", lambda h: h.flip(-1))])
        none = torch.empty(len(questions), 0, dtype=torch.long, device=model.device)
        opening = [model.close(s, none)[0][-1] for s in (states[-1], again, edited)]
    largest: dict[str, Tensor] = {
        "replace by itself": (opening[0] - opening[1]).abs().max(),
        "last state": (opening[0] - opening[2]).abs().max(),
    }
    return {name: float(change) for name, change in largest.items()}
