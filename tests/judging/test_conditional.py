"""What is tested on which problems, and what the table holds; tests/planted says what comes out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from workings.arithmetic.generator import PRESETS, generate
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.judging.conditional import N_FOLDS, Asked, family, judged
from workings.judging.verdict import JUDGED, verdicts
from workings.reading import StatesInMemory

POSITIONS = ("bot", "t1", "t2")
PROBLEMS = list(generate(160, replace(PRESETS["bundled"], n_steps=(2, 3)), seed=7))


def states(problems: list[Problem], positions: tuple[str, ...] = POSITIONS, seed: int = 0) -> StatesInMemory:
    """Noise, and at t2 of block1 the result of the first step in directions of its own."""
    random = np.random.default_rng(seed)
    h = random.standard_normal((len(problems), len(positions), 16))
    directions = np.random.default_rng(99).standard_normal((200, 16))
    if "t2" in positions:
        h[:, positions.index("t2")] += 2 * directions[[int(p.steps[0].result) for p in problems]]
    of_layers = {"block1": torch.tensor(h).float(), "final_norm": torch.tensor(random.standard_normal(h.shape)).float()}
    return StatesInMemory(of_layers, positions, [p.id for p in problems], "toy")


def judge(problems: list[Problem] = PROBLEMS, rule: str = "step1", **others: StatesInMemory) -> pl.DataFrame:
    return judged(Asked.of(rule, problems, [""] * len(problems)), states(problems), rung="surface", **others)


def test_every_problem_is_tested_once_by_every_predictor() -> None:
    table = judge(control=states(PROBLEMS, seed=1))
    assert dict(table.schema) == JUDGED
    keys = ["reader", "subject", "features", "targets"]
    for _, rows in table.group_by(keys):
        assert sorted(rows["problem"]) == sorted(p.id for p in PROBLEMS)
    assert set(table["fold"]) == set(range(N_FOLDS))
    predictors = set(table.select(keys[:3]).rows())
    assert {("surface", "model", "S+B+T"), ("surface", "control", "S+T"), ("surface", "", "S+N")} <= predictors
    named = {key: rows["hit"].mean() for key, rows in table.filter(features="S+T", subject="model").group_by("targets")}
    assert named[("real",)] > named[("shuffled",)] + 0.2
    chosen = table.filter(features="S+T", subject="model", targets="real")
    assert (chosen["layer"] == "block1").all()
    assert chosen["position"].is_in(["t2", "all"]).all()  # all positions together hold it too


def test_the_same_seed_gives_the_same_table() -> None:
    assert judge().equals(judge())


def test_equal_questions_are_judged_once() -> None:
    twice = [*PROBLEMS, replace(PROBLEMS[0], answer="1", source="again")]
    assert judge(twice).filter(features="S")["problem"].n_unique() == len(PROBLEMS)


def test_values_that_training_does_not_show_are_missed_by_every_reader() -> None:
    odd = replace(PROBLEMS[0].steps[0], result="199")
    problems = [replace(PROBLEMS[0], question="How odd?", steps=(odd, *PROBLEMS[0].steps[1:])), *PROBLEMS[1:]]
    rows = judge(problems).filter(problem=problems[0].id)
    assert not rows["known"].any() and not rows["hit"].any() and rows["bits"].null_count() == len(rows)
    assert set(rows["value"]) == {"199"}


def test_a_store_without_states_before_the_thoughts_is_judged_without_them() -> None:
    table = judged(Asked.of("step1", PROBLEMS, [""] * 160), states(PROBLEMS, ("t1", "t2")), rung="surface")
    found = verdicts({"step1": table}, "surface")["step1"]
    assert found.before.answer == found.in_the_thoughts.answer == "not asked"
    assert found.read.answer == "yes"


def test_a_given_split_of_many_problems_is_kept() -> None:
    problems = list(generate(1200, replace(PRESETS["bundled"], n_steps=(2, 3)), seed=8))
    splits = ["train"] * 600 + ["val"] * 250 + ["test"] * 350
    table = judged(Asked.of("answer", problems, splits), states(problems), rung="surface")
    assert set(table["problem"]) == {p.id for p in problems[850:]}


def test_what_cannot_be_judged_is_refused() -> None:
    h = states(PROBLEMS)
    with pytest.raises(BadInput, match="other problems"):
        judged(Asked.of("step1", PROBLEMS[:-1], [""] * 159), h)
    with pytest.raises(BadInput, match="control"):
        judged(Asked.of("step1", PROBLEMS, [""] * 160), h, control=states(PROBLEMS[::-1]))
    with pytest.raises(BadInput, match="no position is a thought"):
        judged(Asked.of("step1", PROBLEMS, [""] * 160), states(PROBLEMS, ("bot", "question")))
    with pytest.raises(BadInput, match="only 0 problems"):
        judged(Asked.of("step3", PROBLEMS, [""] * 160), h)
    with pytest.raises(BadInput, match="cannot be judged"):
        judged(Asked.of("uniform", PROBLEMS, [""] * 160), h)


def test_the_family_is_what_enough_problems_have() -> None:
    assert family(["step2", "uniform", "step1", "answer", "step3"], PROBLEMS) == ("step2", "step1", "answer")
    assert family(["step1", "answer"], PROBLEMS[:19]) == ()
