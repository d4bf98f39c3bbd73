"""Does a model that carries no state from thought to thought fall behind on longer chains?

Two small models come with the package. Both think in six vectors before they answer. `recurrent` computes each thought from
the one before it; `constant` is fed the same learned vector every time, so that it carries nothing from thought to thought.

Prediction (2026-11-25, before any run): both answer one step; `constant` loses on five.
Matched: problems, training data and steps, all weights but the projection. Measure: accuracy, paired by problem.
Stop rule: the number of problems is fixed beforehand.

    workings run example --scale smoke      seconds: does the code run?
    workings run example                    both arms, then a report; the last line printed is its path
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from workings import models
from workings.arithmetic.answers import same_answer
from workings.arithmetic.generator import PRESETS, generate
from workings.config import fixed, nuisance, scientific
from workings.run import Run


# Every choice is a field; `--set n_problems=50` changes one. Its role says who may change it: arms differ in scientific fields
# only, nuisance fields are tuned alike for all arms, fixed fields stay as they are.
@dataclass(frozen=True)
class Config:
    """One arm."""

    model: str = scientific("bundled", "checkpoint that answers: bundled, bundled-control, a path")
    n_problems: int = fixed(200, "problems of each chain length", at_least=1)
    n_steps: tuple[int, ...] = fixed((1, 3, 5), "lengths of the chains", at_least=1)
    batch_size: int = fixed(64, "problems answered at once", at_least=1)
    seed: int = nuisance(0, "random seed of the problems")


# What is compared: name → config. They differ in the one field that the question is about.
ARMS = {"recurrent": Config(), "constant": Config(model="bundled-control")}

# The fields that --scale sets. smoke shows only that the code runs, mini (the default) answers, full narrows the intervals.
SCALES = {"smoke": {"n_problems": 20}, "mini": {}, "full": {"n_problems": 2000}}


def run_arm(config: Config, run: Run) -> None:
    """Answer problems of each length, and record what came out: the report reads nothing but the record."""
    model = models.open_model(config.model)
    rows = []
    for n_steps in config.n_steps:
        # The seed alone decides the problems, so both arms get the same ones and can be compared problem by problem.
        # "held out": chains whose numbers and operations neither model has seen.
        spec = replace(PRESETS["bundled"], n_steps=(n_steps,), structures="held out")
        problems = list(generate(config.n_problems, spec, config.seed))
        answers = model.answer([problem.question for problem in problems], batch_size=config.batch_size)
        correct = [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=True)]
        run.log(n_steps, accuracy=sum(correct) / len(correct))  # a point of a curve, here over chain length
        rows += [
            {"problem": p.id, "structure": p.structure, "condition": f"{n_steps} steps", "correct": c}
            for p, c in zip(problems, correct, strict=True)
        ]
    # One row for each problem: enough for intervals and an exact test now, and for any other statistic later.
    outcomes = pl.DataFrame(rows)
    run.outcomes("answers", outcomes)
    # A few numbers under labels of your own, for `workings show`.
    run.results("headline", {"n": len(outcomes), "accuracy": round(outcomes["correct"].to_numpy().mean(), 4)})
