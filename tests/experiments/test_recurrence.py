"""The experiment that makes the bundled pair: matched arms, held-out structures, a card, a report over seeds, what is shipped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from workings.arithmetic.generator import part_of
from workings.config import changed
from workings.errors import BadInput
from workings.experiment import report_runs, run_experiment
from workings.experiments.recurrence import SCALES, Config, bundle, held_out, training_problems, untrained
from workings.models.codi import CODI
from workings.run import RunRecord

SMOKE = changed(Config(), SCALES["smoke"])
LENGTHS = sorted(set(SMOKE.problems.n_steps))


def test_both_arms_start_from_the_same_shared_weights():
    recurrent, constant = untrained(SMOKE), untrained(replace(SMOKE, recurrence="constant"))
    theirs = dict(constant.named_parameters())
    shared = [name for name, _ in recurrent.named_parameters() if name in theirs]
    assert shared and all(torch.equal(dict(recurrent.named_parameters())[name], theirs[name]) for name in shared)
    assert {name.split(".")[0] for name in dict(recurrent.named_parameters()) if name not in theirs} == {"prj"}
    assert [name for name in theirs if name not in dict(recurrent.named_parameters())] == ["constant"]


def test_no_problem_is_trained_on_and_judged_nor_another_of_its_structure():
    validation, test = held_out(SMOKE)
    training = list(training_problems(SMOKE))
    assert [sum(p.n_steps == k for p in test) for k in LENGTHS] == [SMOKE.n_test] * len(LENGTHS)
    for key in ("id", "question", "structure"):
        trained, validated, tested = ({getattr(p, key) for p in some} for some in (training, validation, test))
        assert trained.isdisjoint(validated | tested) and validated.isdisjoint(tested)


def test_every_seed_is_judged_on_the_same_problems_after_training_on_others():
    other = replace(SMOKE, seed=1)
    assert held_out(other) == held_out(SMOKE)
    assert list(training_problems(other)) != list(training_problems(SMOKE))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return run_experiment("recurrence", scale="smoke", seeds=[0, 1], root=root, quiet=True)


def test_every_problem_has_an_outcome_under_every_condition(records):
    for record in records:
        outcomes = record.outcomes("answers")
        assert len(outcomes) == len(LENGTHS) * SMOKE.n_test * 6
        assert set(map(part_of, outcomes["structure"])) == {"test"}
        assert not record.verify()


def test_the_checkpoint_is_all_that_is_needed_to_run_it(records):
    for record in records:
        model = CODI.load(record.path / "checkpoint" / "model")
        assert model.config.recurrence == record.config(Config).recurrence
        assert model.answer(["Ann has 3 pens. How many?"])
        assert f"| {max(LENGTHS)} |" in (record.path / "checkpoint" / "model" / "README.md").read_text()


def test_the_report_compares_the_arms_over_their_seeds(records):
    page = report_runs(records).read_text()
    for words in ("Recurrent against constant", "Accuracy with thoughts of another problem", "constant, 2 seeds"):
        assert words in page
    assert "items only" not in page


def test_the_report_on_one_seed_says_that_it_is_one(records):
    page = report_runs([record for record in records if record.manifest.seed == 1]).read_text()
    assert "items only" in page and "seeds and structures" not in page


def test_what_is_shipped_is_a_seed_of_each_arm_and_what_all_of_them_found(records, tmp_path):
    bundle([record.path for record in records], tmp_path)
    shipped = [RunRecord(folder) for folder in sorted((tmp_path / "seeds").iterdir())]
    assert [record.path.name for record in shipped] == ["constant-0", "constant-1", "recurrent-0", "recurrent-1"]
    assert all(record.verify() == [] for record in shipped)
    told, again = (
        [
            line
            for line in report_runs(some, tmp_path / name).with_suffix(".md").read_text().splitlines()
            if line[:1] in "|*"
        ]
        for name, some in [("told", records), ("again", shipped)]
    )
    assert told == again and any("recurrent, 2 seeds" in line for line in told)
    for arm in ("recurrent", "constant"):
        first = next(record for record in records if (record.manifest.arm, record.manifest.seed) == (arm, 0))
        weights = (first.path / "checkpoint" / "model" / "model.safetensors").read_bytes()
        assert (tmp_path / arm / "model.safetensors").read_bytes() == weights
        card = (tmp_path / arm / "README.md").read_text()
        assert "2 training seeds (0, 1)" in card and "--seeds 0 1" in card


def test_a_pair_is_shipped_whole_or_not_at_all(records, tmp_path):
    with pytest.raises(BadInput, match="with the same seeds"):
        bundle([record.path for record in records[:-1]], tmp_path)
    assert not list(tmp_path.iterdir())
