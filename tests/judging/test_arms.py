"""Outcomes of real runs in a temporary folder, paired arm by arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.judging.test_comparison import outcomes, run
from workings.errors import BadInput
from workings.judging.arms import Arms, between_conditions
from workings.judging.paired import paired_difference, seeds_and_items
from workings.judging.statistics import mcnemar


def test_arms_are_paired_by_example_and_by_the_seeds_that_both_have(tmp_path: Path):
    generator = np.random.default_rng(3)
    drawn = {(arm, seed): generator.random(40) < 0.5 for arm in ("digits", "facts") for seed in (0, 1, 2)}
    records = [
        run(tmp_path, arm, outcomes(correct).sample(fraction=1, shuffle=True, seed=seed), seed)
        for (arm, seed), correct in drawn.items()
        if (arm, seed) != ("facts", 1)
    ]
    arms = Arms(records)
    assert arms.names == ["digits", "facts"] and arms.seeds("facts", "digits") == [0, 2]
    facts, digits = (np.array([drawn[arm, seed] for seed in (0, 2)]) for arm in ("facts", "digits"))
    found = arms.difference("facts", "digits", "gsm8k")
    expected = seeds_and_items(facts.astype(float) - digits)
    assert found.interval.covers == "seeds and items"
    assert (found.difference, found.interval.low) == pytest.approx((facts.mean() - digits.mean(), expected.low))


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_problems_of_one_structure_count_once(tmp_path: Path, seeds: tuple[int, ...]):
    """Forty problems that tell ten structures, four times each, are as much evidence as the ten."""
    generator = np.random.default_rng(4)
    of_structure = {(arm, seed): generator.random(10) < 0.6 for arm in ("digits", "facts") for seed in seeds}
    records = [
        run(tmp_path, arm, outcomes(np.repeat(correct, 4)).with_columns(structure=pl.Series(range(40)) // 4), seed)
        for (arm, seed), correct in of_structure.items()
    ]
    found = Arms(records).difference("facts", "digits", "gsm8k")
    once = [[of_structure[arm, seed].astype(float) for seed in seeds] for arm in ("facts", "digits")]
    expected = paired_difference(*once, clusters=range(10))
    assert found.n_items == 10 and found.difference == pytest.approx(expected.difference)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.interval.low, expected.interval.high))
    assert found.test == "Student's t"


def test_a_condition_a_subset_and_another_column_are_selected(tmp_path: Path):
    frame = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(6)] * 2,
            "condition": ["own"] * 6 + ["zero"] * 6,
            "correct": [True] * 12,
            "bits": [0.5, 1.5, 2.5, 3.5, 4.5, None] + [9.0] * 6,
        }
    )
    better = frame.with_columns(bits=pl.col("bits") - 0.25)
    arms = Arms([run(tmp_path, "digits", frame), run(tmp_path, "facts", better)])
    asked = (pl.col("condition") == "own") & pl.col("bits").is_not_null()
    found = arms.difference("facts", "digits", "gsm8k", "bits", where=asked)
    assert (found.difference, found.n_items, found.test) == (-0.25, 5, "Student's t")
    with pytest.raises(BadInput, match="lack a judgement"):
        arms.difference("facts", "digits", "gsm8k", "bits")
    with pytest.raises(BadInput, match="are empty"):
        arms.difference("facts", "digits", "gsm8k", where=pl.col("condition") == "mean")


def test_two_conditions_of_the_same_run_are_paired_by_example(tmp_path: Path):
    own, zero = outcomes([True] * 9 + [False]), outcomes([False] * 8 + [True] * 2).reverse()
    frame = pl.concat([own.with_columns(condition=pl.lit("own")), zero.with_columns(condition=pl.lit("zero"))])
    found = between_conditions([run(tmp_path, "digits", frame)], "gsm8k", "own", "zero")
    assert (found.n_only_treatment, found.n_only_baseline, found.n_items) == (8, 1, 10)
    assert found.p == mcnemar(8, 1)


def test_arms_without_a_common_seed_or_with_two_runs_of_one_are_refused(tmp_path: Path):
    digits, facts = run(tmp_path, "digits", [True] * 4, 0), run(tmp_path, "facts", [True] * 4, 1)
    assert not Arms([digits, facts]).has("digits", "facts")
    with pytest.raises(BadInput, match="no seed has runs of both facts and digits"):
        Arms([digits, facts]).difference("facts", "digits", "gsm8k")
    with pytest.raises(BadInput, match="same arm and seed"):
        Arms([digits, facts, run(tmp_path, "digits", [True] * 4, 0)])
