"""Does a model that carries no state from thought to thought fall behind on longer chains?

The two bundled models answer the same generated problems: `recurrent` feeds each thought the state of the one before,
`constant` feeds a learned constant. `workings new NAME` writes a copy of this file: change what you like.

Prediction (2026-11-25, before any run): both answer one step; `constant` loses on five.
Matched: problems, training data and steps, all weights but the projection. Measure: accuracy, paired by problem.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from workings import models
from workings.arithmetic.answers import same_answer
from workings.arithmetic.generator import PRESETS, generate
from workings.config import fixed, nuisance, scientific
from workings.run import Run


# Arms differ in scientific fields only; nuisance fields are set well for every arm; fixed ones never change.
@dataclass(frozen=True)
class Config:
    """One arm."""

    model: str = scientific("bundled", "checkpoint that answers: bundled, bundled-control, a path")
    n_problems: int = fixed(200, "problems of each chain length")
    n_steps: tuple[int, ...] = fixed((1, 3, 5), "lengths of the chains")
    batch_size: int = fixed(64, "problems answered at once")
    seed: int = nuisance(0, "random seed of the problems")


ARMS = {"recurrent": Config(), "constant": Config(model="bundled-control")}
SCALES = {"smoke": {"n_problems": 20}, "mini": {}, "full": {"n_problems": 2000}}


def run_arm(config: Config, run: Run) -> None:
    """Answer problems of each length; keep one row a problem, from which the report redoes every statistic."""
    model = models.open_model(config.model)
    rows = []
    for n_steps in config.n_steps:
        spec = replace(PRESETS["bundled"], n_steps=(n_steps,))
        problems = list(generate(config.n_problems, spec, config.seed))
        answers = model.answer([problem.question for problem in problems], batch_size=config.batch_size)
        right = [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=True)]
        run.log(n_steps, accuracy=sum(right) / len(right))
        rows += [
            {"problem": p.id, "condition": f"{n_steps} steps", "correct": correct}
            for p, correct in zip(problems, right, strict=True)
        ]
    outcomes = pl.DataFrame(rows)
    run.outcomes("answers", outcomes)
    run.results("headline", {"n": len(outcomes), "accuracy": round(outcomes["correct"].to_numpy().mean(), 4)})
