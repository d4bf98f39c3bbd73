"""The embedded default does what its card says, and its control does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import workings
from workings.arithmetic.answers import same_answer
from workings.arithmetic.generator import PRESETS, generate, part_of
from workings.judging.ablation import CONDITIONS, accuracy
from workings.models.codi import CODI
from workings.run import SHIPPED_RUNS, RunRecord

FOLDER = Path(workings.__file__).parent / "bundled"
N = 150


@pytest.fixture(scope="module", params=["bundled", "bundled-control"])
def model(request) -> CODI:
    return CODI.load(request.param)


def problems(n_steps: int):
    return list(generate(N, replace(PRESETS["bundled"], n_steps=(n_steps,), structures="test"), seed=77))


def on_card(model: CODI, n_steps: int, column: int) -> float:
    folder = FOLDER / ("recurrent" if model.config.recurrence == "state" else "constant")
    row = next(line for line in (folder / "README.md").read_text().splitlines() if line.startswith(f"| {n_steps} |"))
    return float(re.findall(r"\| *([\d.]+) \[", row)[column]) / 100


@pytest.mark.parametrize("n_steps", sorted(set(PRESETS["bundled"].n_steps)))
def test_the_accuracy_by_thinking_is_the_cards(model, n_steps):
    asked = problems(n_steps)
    right = [
        same_answer(a.value, p.value) for a, p in zip(model.answer([p.question for p in asked]), asked, strict=True)
    ]
    assert abs(sum(right) / N - on_card(model, n_steps, 0)) < 0.15  # four standard errors of 150 problems


def test_the_written_chain_is_the_cards(model):
    asked = problems(3)
    written = model.write_and_answer([p.question for p in asked], max_new_tokens=80)
    right = [same_answer(a.value, p.value) for a, p in zip(written, asked, strict=True)]
    assert abs(sum(right) / N - on_card(model, 3, 5)) < 0.15


def test_it_is_small_enough_to_ship():
    for folder in ("recurrent", "constant"):
        assert (FOLDER / folder / "model.safetensors").stat().st_size <= 6_000_000


def test_what_is_fed_is_what_the_names_say():
    assert CODI.load("bundled").config.recurrence == "state"
    assert CODI.load("bundled-control").config.recurrence == "constant"
    assert CODI.load("bundled").config.answer_sees == CODI.load("bundled-control").config.answer_sees == "thoughts"


@pytest.mark.parametrize("folder", sorted(SHIPPED_RUNS.glob("*")), ids=lambda folder: folder.name)
def test_a_shipped_record_is_whole_and_was_judged_on_structures_that_no_training_had(folder: Path):
    record = RunRecord(folder)
    assert record.verify() == []
    assert set(map(part_of, record.outcomes("answers")["structure"].unique())) == {"test"}


def test_the_cards_first_table_is_of_the_model_that_is_shipped_and_its_second_of_all_seeds(model):
    arm = "recurrent" if model.config.recurrence == "state" else "constant"
    card = (FOLDER / arm / "README.md").read_text()
    seeds = sorted(int(folder.name.rpartition("-")[2]) for folder in SHIPPED_RUNS.glob(f"{arm}-*"))
    assert f"--seeds {' '.join(map(str, seeds or [0]))}\n" in card
    if seeds:
        outcomes = RunRecord(SHIPPED_RUNS / f"{arm}-{seeds[0]}").outcomes("answers")
        for (n_steps, condition), found in accuracy(outcomes).items():
            assert abs(found.correct.value - on_card(model, n_steps, CONDITIONS.index(condition))) < 0.0006
