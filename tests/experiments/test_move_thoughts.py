"""Moving a thought: the answer of a machine that computes with its thoughts follows, that of one that shows results does not."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from tests.planted.models import Chain, Echo, PlantedThinker
from workings.arithmetic.generator import PRESETS, generate
from workings.errors import BadInput
from workings.experiments.move_thoughts import MOVED, RANDOM, Change, Config, _changes, _means, _moved

PROBLEMS = [p for p in generate(400, PRESETS["bundled"], seed=4) if p.n_steps >= 2]
CONFIG = Config(fewest=2)


def shares(model: PlantedThinker, step: int) -> dict[tuple[str, int], float]:
    train, test = PROBLEMS[:260], PROBLEMS[260:]
    vectors = model.think([problem.question for problem in train], batch_size=260).projected
    means = _means(train, vectors, step, CONFIG.fewest)
    table = _moved(model, _changes(test, step, means, {p.value for p in train})[:40], means, CONFIG)  # type: ignore[arg-type]
    return {(direction, k): rows["follows"].mean() for (direction, k), rows in table.group_by("direction", "k")}


def test_the_answer_of_a_chain_follows_where_the_result_is_fed_and_not_by_a_random_difference() -> None:
    found = shares(Chain(), 1)
    # The first result stands in t1 and is what t2 is fed. (The machine counts to 20: some new results go beyond that on the way.)
    assert found[MOVED, 2] > 0.5
    assert found[RANDOM, 2] < 0.2
    assert found[MOVED, 6] < 0.2  # by then other results are fed


def test_the_answer_of_a_machine_that_only_shows_results_never_follows() -> None:
    assert max(shares(Echo(), 1).values()) == 0.0


def test_a_change_leads_to_the_answer_that_the_chain_then_has() -> None:
    means = {Fraction(value): torch.zeros(6, 3) for value in range(1, 120)}
    answers = {Fraction(value) for value in range(1, 21)}
    for change in _changes(PROBLEMS[:30], 1, means, answers):
        assert isinstance(change, Change) and change.other > change.own == change.problem.steps[0].value
        assert change.follows != change.problem.value and change.follows in answers
    assert _changes(PROBLEMS[:30], 9, means, answers) == []


def test_a_mean_needs_enough_problems_behind_it() -> None:
    vectors = torch.randn(len(PROBLEMS), 6, 3)
    few, many = (_means(PROBLEMS, vectors, 1, fewest) for fewest in (20, 2))
    assert 0 < len(few) < len(many)
    value, mean = next(iter(few.items()))
    rows = [i for i, problem in enumerate(PROBLEMS) if problem.steps[0].value == value]
    torch.testing.assert_close(mean, vectors[rows].mean(0))


def test_three_results_are_too_few_for_a_random_difference() -> None:
    means = {Fraction(value): torch.zeros(6, 3) for value in (5, 6, 7)}
    with pytest.raises(BadInput, match="has 3 results with enough problems, and 4 are needed"):
        _moved(Chain(), [Change(PROBLEMS[0], 1, Fraction(5), Fraction(6), Fraction(7))], means, CONFIG)  # type: ignore[arg-type]
