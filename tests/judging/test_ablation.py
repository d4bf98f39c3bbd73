"""Ablations: on the bundled model, which is known to carry its answer in its thoughts, each does what its name says."""

from __future__ import annotations

import polars as pl
import pytest

from workings.judging.ablation import CONDITIONS, ablate, accuracy
from workings.judging.statistics import wilson
from workings.models.codi import open_model
from workings.reading import intervene
from workings.text.datasets import load_problems


@pytest.fixture(scope="module")
def outcomes() -> pl.DataFrame:
    problems = load_problems("generated", limit=60, seed=7).problems
    return ablate(open_model("bundled"), problems[:40], problems[40:], seed=0)


def share(outcomes: pl.DataFrame, condition: str, column: str) -> float:
    return float(outcomes.filter(condition=condition)[column].to_numpy().mean())


def test_thoughts_of_another_problem_take_its_answer_with_them(outcomes):
    assert share(outcomes, "own", "correct") > 0.85 and share(outcomes, "own", "follows") < 0.1
    assert share(outcomes, "swapped", "follows") > 0.75 and share(outcomes, "swapped", "correct") < 0.1


def test_without_its_thoughts_the_model_cannot_answer(outcomes):
    for condition in ("zero", "mean"):
        assert share(outcomes, condition, "correct") < 0.25


def test_every_problem_is_answered_once_in_every_condition(outcomes):
    counts = outcomes.group_by("condition", maintain_order=True).agg(pl.len(), pl.col("problem").n_unique().alias("n"))
    assert counts["condition"].to_list() == list(CONDITIONS) == [*intervene.CONDITIONS, "written"]
    assert set(counts["len"]) == set(counts["n"]) and len(set(counts["len"])) == 1


def test_accuracy_counts_by_chain_length_and_condition(outcomes):
    table = accuracy(outcomes)
    for (n_steps, condition), found in table.items():
        rows = outcomes.filter(n_steps=n_steps, condition=condition)
        right = int(rows["correct"].sum())
        assert (found.correct.k, found.correct.n) == (right, len(rows))
        assert (found.correct.low, found.correct.high) == (wilson(right, len(rows)).low, wilson(right, len(rows)).high)
        assert (found.follows is None) == (condition == "written")
