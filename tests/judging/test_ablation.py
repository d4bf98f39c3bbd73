"""Ablations do what their names say, and a swap is never with a twin; the bundled model carries its answer in its thoughts."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.conftest import *  # noqa: F403  (the small models)
from workings.arithmetic.chain import Step
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.judging.ablation import CONDITIONS, ablate, accuracy, accuracy_over_seeds, donors
from workings.judging.statistics import wilson
from workings.models.codi import open_model
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
    assert counts["condition"].to_list() == list(CONDITIONS) == ["own", "zero", "mean", "first", "swapped", "written"]
    assert set(counts["len"]) == set(counts["n"]) and len(set(counts["len"])) == 1


def test_accuracy_counts_by_chain_length_and_condition(outcomes):
    table = accuracy(outcomes)
    for (n_steps, condition), found in table.items():
        rows = outcomes.filter(n_steps=n_steps, condition=condition)
        right = int(rows["correct"].sum())
        assert (found.correct.k, found.correct.n) == (right, len(rows))
        assert found.correct.n_clusters == rows["structure"].n_unique()
        assert found.correct.low <= wilson(right, len(rows)).low and wilson(right, len(rows)).high <= found.correct.high
        assert (found.follows is None) == (condition == "written")


def test_several_seeds_are_pooled_on_the_problems_that_all_have_answered(outcomes):
    worse = outcomes.with_columns(correct=pl.lit(False)).sample(fraction=1, shuffle=True, seed=1)
    one, pooled = accuracy(outcomes), accuracy_over_seeds([outcomes, worse])
    assert pooled.keys() == one.keys()
    for key, found in pooled.items():
        assert found.correct.value == one[key].correct.value / 2
        assert found.correct.n_clusters == one[key].correct.n_clusters
        assert (found.follows and found.follows.value) == (one[key].follows and one[key].follows.value)
    with pytest.raises(BadInput, match="did not answer the same problems"):
        accuracy_over_seeds([outcomes, worse.head(-1)])


# ---- on small models ------------------------------------------------------------------------------------------------


def problem(answer: int, n_steps: int, name: str = "a") -> Problem:
    steps = tuple(Step(f"{answer}*1", str(answer)) for _ in range(n_steps))
    return Problem(f"{name} has {answer} pens . how many now ?", steps, str(answer))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=30), st.integers(0, 5))
def test_a_donor_has_as_many_steps_and_another_answer(made, seed):
    problems = [problem(answer, n) for answer, n in made]
    for own, at in zip(problems, donors(problems, seed), strict=True):
        others = [p for p in problems if p.n_steps == own.n_steps and p.value != own.value]
        assert (at is None) == (not others)
        if at is not None:
            assert problems[at].n_steps == own.n_steps and problems[at].value != own.value


def test_each_problem_is_answered_under_every_condition(thinker):
    problems = [problem(i, 1 + i % 2) for i in range(8)]
    frame = ablate(thinker(), problems, [problem(i, 1, "b") for i in range(9, 12)])
    assert frame.group_by("condition").len().sort("condition")["len"].to_list() == [8] * len(CONDITIONS)
    assert frame["problem"].n_unique() == 8


def test_under_a_constant_recurrence_no_substitution_of_thoughts_between_problems_changes_anything(thinker):
    """What is fed is the same vector for every problem and step: swapped, averaged and frozen thoughts are the own ones."""
    problems = [problem(i, 1) for i in range(6)]
    frame = ablate(thinker(recurrence="constant"), problems, [problem(9, 1)])
    of = {name: rows.sort("problem")["answer"].to_list() for (name,), rows in frame.group_by("condition")}
    assert of["own"] == of["swapped"] == of["first"] == of["mean"]


def test_nothing_to_swap_is_an_error(thinker):
    with pytest.raises(BadInput, match="nothing can be swapped"):
        ablate(thinker(), [problem(1, 1), problem(1, 1, "b")], [problem(2, 1)])


def test_the_follow_rate_counts_the_donors_answer(thinker):
    """`follows` is about the donor of the same row: never true where the answer is the problem's own."""
    frame = ablate(thinker(), [problem(i, 1) for i in range(8)], [problem(9, 1)])
    assert frame.filter(pl.col("correct") & pl.col("follows")).is_empty()
