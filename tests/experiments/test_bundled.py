"""The embedded default does what its card says, and its control does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import workings
from workings.arithmetic.answers import same_answer
from workings.arithmetic.generator import PRESETS, generate
from workings.models.codi import CODI

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
