"""Planted machines × draws → how the judge answers, beside the truth, and how often it is wrong.

A draw is other problems, other models and other splits. Answers are compared with what is true of the machine: a yes where the
truth is no, or a no where it is yes, is wrong; undecided is not. With further problems in the test split, on which no verdict
rests, the gain that an interval should cover is known too: that of the same fitted readers on (nearly) all problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import polars as pl

from tests.planted.states import MACHINES, planted
from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.errors import Failed
from workings.judging.conditional import Asked, judged
from workings.judging.questions import RUNGS
from workings.judging.verdict import QUESTIONS, verdicts
from workings.launch import in_processes
from workings.progress import track
from workings.reading.targets import split_problems

FAMILY = ("step1", "step2", "step3", "step4", "answer")
PAIRS = {
    "before": (("model", "S+B"), ("", "S")),
    "read": (("model", "S+T"), ("", "S")),
    "of_this_step": (("model", "S+N+T"), ("", "S+N")),
    "in_the_thoughts": (("model", "S+B+T"), ("model", "S+B")),
    "needs_the_recurrence": (("model", "S+T"), ("control", "S+T")),
}
"""(subject, features) on both sides of the difference that each question is about."""


@dataclass(frozen=True)
class Draw:
    """One draw of some machines: all are judged on the same problems.

    Attributes:
        seed: Of the problems, the splits and the models.
        machines: Names in MACHINES.
        rules: Targets judged together, as one family.
        n_problems: As many as are generated; those with the target are judged.
        n_further: Problems on which the truth of the fitted readers is measured.
    """

    seed: int
    machines: tuple[str, ...] = tuple(MACHINES)
    rules: tuple[str, ...] = ("step2",)
    n_problems: int = 2000
    n_further: int = 0


def problems_of(draw: Draw) -> tuple[list[Problem], list[str]]:
    """The problems of a draw and their splits, 50/20/30; the further ones come last and are tested too."""
    problems = list(generate(draw.n_problems + draw.n_further, PRESETS["bundled"], seed=1000 + draw.seed))
    split_of = split_problems(problems[: draw.n_problems], (0.5, 0.2, 0.3), draw.seed)
    return problems, [split_of.get(problem.id, "test") for problem in problems]


def answers(draw: Draw) -> pl.DataFrame:
    """One row per machine, target and question.

    Columns: machine, draw, target, question, truth, answer, points and bits (the difference that decided), n; and of the difference
    that the question is about, with 95 % intervals (low, high, bits_low, bits_high), the truth for the fitted readers (true_points,
    true_bits; null without further problems).
    """
    problems, splits = problems_of(draw)
    # Question readers see problems only, and most of the time goes there: the machines share them.
    asked = [Asked.of(rule, problems, splits, draw.seed) for rule in draw.rules]
    further = [problem.id for problem in problems[draw.n_problems :]]
    rows = []
    for name in draw.machines:
        states = planted(name, problems, draw.seed)
        tables = {each.rule: judged(each, states.model, states.control, states.untrained) for each in asked}
        of_draw = {rule: table.filter(~pl.col("problem").is_in(further)) for rule, table in tables.items()}
        plain = {rule: table.filter(_IN_A_PAIR) for rule, table in of_draw.items()}
        given, of_pairs = verdicts(of_draw), verdicts(plain)
        for rule, question in product(draw.rules, QUESTIONS):
            answer, pair = getattr(given[rule], question), getattr(of_pairs[rule], question)
            row = {"machine": name, "draw": draw.seed, "target": rule, "question": question}
            row |= {"truth": MACHINES[name].truth.answers[question], "answer": answer.answer}
            row |= {"points": answer.points, "bits": answer.bits, "n": answer.n}
            row |= {edge: getattr(pair, edge) for edge in ("low", "high", "bits_low", "bits_high")}
            rows.append(row | _gain(tables[rule].filter(pl.col("problem").is_in(further)), question))
    return pl.DataFrame(rows, schema_overrides={"true_points": pl.Float64, "true_bits": pl.Float64})


_IN_A_PAIR = (pl.col("reader") == RUNGS[-1]) & (pl.col("subject") != "untrained") & (pl.col("targets") == "real")


def _gain(rows: pl.DataFrame, question: str) -> dict[str, float | None]:
    """How much better the left side of a question's pair does than the right on these rows of a judged table."""
    if not len(rows):
        return {"true_points": None, "true_bits": None}
    of = lambda side: rows.filter(_IN_A_PAIR & (pl.col("subject") == side[0]) & (pl.col("features") == side[1]))
    left, right = (of(side) for side in PAIRS[question])
    return {
        "true_points": left["hit"].mean() - right["hit"].mean(),
        "true_bits": (left["bits"] - right["bits"]).fill_null(0).mean(),
    }


def all_answers(draws: Sequence[Draw], at_once: int = 2) -> pl.DataFrame:
    """`answers` of many draws, each in a process of one thread.

    Raises:
        Failed: A process died, or the judge raised.
    """
    return pl.concat(list(_finished(draws, at_once))).sort("draw", maintain_order=True)


def _finished(draws: Sequence[Draw], at_once: int) -> Iterator[pl.DataFrame]:
    with track("judging draws", len(draws)) as tracker:
        for number, found in in_processes(answers, draws, at_once, threads=1):
            if isinstance(found, Exception):
                raise Failed(f"draw {draws[number].seed} failed: {found}") from found
            tracker.advance()
            yield found


# ---- how often it is wrong -------------------------------------------------------------------------------------------

CLAIMED = pl.col("answer").is_in(["yes", "no"])
IS_WRONG = CLAIMED & (pl.col("truth") != "either") & (pl.col("answer") != pl.col("truth"))


def rates(found: pl.DataFrame) -> pl.DataFrame:
    """By machine, target and question: the truth, draws, shares of each answer and of wrong ones, and mean gains."""
    share = lambda answer: (pl.col("answer") == answer).mean().alias(answer)
    return found.group_by("machine", "target", "question", maintain_order=True).agg(
        pl.col("truth").first(),
        pl.len().alias("draws"),
        *(share(answer) for answer in ("yes", "no", "undecided")),
        IS_WRONG.mean().alias("wrong"),
        pl.col("points", "bits").mean(),
    )


def draws_without_error(found: pl.DataFrame) -> pl.DataFrame:
    """By machine: draws, and `right`, in how many of them no answer about any target was wrong."""
    by_draw = found.group_by("machine", "draw", maintain_order=True).agg(IS_WRONG.any().alias("wrong"))
    return by_draw.group_by("machine", maintain_order=True).agg(
        pl.len().alias("draws"), (~pl.col("wrong")).sum().alias("right")
    )


def coverage(found: pl.DataFrame) -> pl.DataFrame:
    """By machine and question: how often a 95 % interval, in points and in bits, covers the truth.

    Twice: the truth of the fitted readers, which the interval is about, and the average of that over draws, which it is not
    about, for it holds the readers fixed.
    """
    within = lambda truth, low, high: ((pl.col(low) <= truth) & (truth <= pl.col(high))).mean()
    sides = {"points": ("true_points", "low", "high"), "bits": ("true_bits", "bits_low", "bits_high")}
    return (
        found.drop_nulls("true_points")
        .group_by("machine", "question", maintain_order=True)
        .agg(
            pl.len().alias("draws"),
            *(
                within(pl.col(truth), *edges).alias(f"{unit}, fitted readers")
                for unit, (truth, *edges) in sides.items()
            ),
            *(
                within(pl.col(truth).mean(), *edges).alias(f"{unit}, average")
                for unit, (truth, *edges) in sides.items()
            ),
        )
    )
