"""The experiment that makes the bundled pair: matched arms, fresh test problems, a card, a report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from workings.config import changed
from workings.experiment import report_runs, run_experiment
from workings.experiments.recurrence import SCALES, Config, held_out, training_problems, untrained
from workings.models.codi import CODI

SMOKE = changed(Config(), SCALES["smoke"])
LENGTHS = sorted(set(SMOKE.problems.n_steps))


def test_both_arms_start_from_the_same_shared_weights():
    recurrent, constant = untrained(SMOKE), untrained(replace(SMOKE, recurrence="constant"))
    theirs = dict(constant.named_parameters())
    shared = [name for name, _ in recurrent.named_parameters() if name in theirs]
    assert shared and all(torch.equal(dict(recurrent.named_parameters())[name], theirs[name]) for name in shared)
    assert {name.split(".")[0] for name in dict(recurrent.named_parameters()) if name not in theirs} == {"prj"}
    assert [name for name in theirs if name not in dict(recurrent.named_parameters())] == ["constant"]


def test_no_problem_is_trained_on_and_judged():
    validation, test = held_out(SMOKE)
    kept_out = {p.id for p in validation + test}
    assert len(kept_out) == len(validation) + len(test)
    assert [sum(p.n_steps == k for p in test) for k in LENGTHS] == [SMOKE.n_test] * len(LENGTHS)
    assert kept_out.isdisjoint(p.id for p in training_problems(SMOKE))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return run_experiment("recurrence", scale="smoke", root=tmp_path_factory.mktemp("runs"), quiet=True)


def test_every_problem_has_an_outcome_under_every_condition(records):
    for record in records:
        outcomes = record.outcomes("answers")
        assert len(outcomes) == len(LENGTHS) * SMOKE.n_test * 6
        assert not record.verify()


def test_the_checkpoint_is_all_that_is_needed_to_run_it(records):
    for record in records:
        model = CODI.load(record.path / "checkpoint" / "model")
        assert model.config.recurrence == record.config(Config).recurrence
        assert model.answer(["Ann has 3 pens. How many?"])
        assert f"| {max(LENGTHS)} |" in (record.path / "checkpoint" / "model" / "README.md").read_text()


def test_the_report_compares_the_arms(records):
    page = report_runs(records).read_text()
    for words in ("Recurrent against constant", "Accuracy with thoughts of another problem", "items only"):
        assert words in page
