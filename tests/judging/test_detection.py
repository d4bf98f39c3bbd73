"""What is planted is read from some strength on; what the states held themselves is gone from the copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workings.arithmetic.generator import PRESETS, generate
from workings.errors import BadInput
from workings.judging.conditional import Asked
from workings.judging.detection import DetectionCurve, detection_curve
from workings.reading import StatesInMemory

PROBLEMS = list(generate(200, replace(PRESETS["bundled"], n_steps=(2, 3)), seed=7))
POSITIONS = ("bot", "t1", "t2")


def states(held: float, scale: float = 1.0) -> StatesInMemory:
    """States of which a few directions vary most, with the result of the first step at t2, held so strongly."""
    random = np.random.default_rng(0)
    h = random.standard_normal((len(PROBLEMS), len(POSITIONS), 16)) * np.geomspace(3, 0.1, 16)
    h[:, 2] += held * random.standard_normal((200, 16))[[int(p.steps[0].result) for p in PROBLEMS]]
    return StatesInMemory({"block1": torch.tensor(scale * h).float()}, POSITIONS, [p.id for p in PROBLEMS], "toy")


def curve(hidden: StatesInMemory, strengths: tuple[float, ...], n_draws: int = 2, **at: str) -> DetectionCurve:
    where = {"layer": "block1", "position": "t2"} | at
    asked = Asked.of("step1", PROBLEMS, [""] * len(PROBLEMS))
    return detection_curve(asked, hidden, **where, rung="surface", strengths=strengths, n_draws=n_draws)


@pytest.mark.parametrize("held", [0.0, 3.0])
def test_nothing_planted_is_not_read_and_much_is_whatever_the_states_held(held: float) -> None:
    found = curve(states(held), (0.0, 3.0))
    assert found.n_read == (0, 2)
    assert found.strength_read_in(0.9) == 3.0
    assert found.shares[1][1].low < found.shares[1][0] == 1.0


def test_the_unit_of_the_states_does_not_matter() -> None:
    small, large = (curve(states(0.0, scale), (0.2, 0.4, 0.8, 1.6), n_draws=1) for scale in (1.0, 64.0))
    assert small.n_read == large.n_read
    assert list(small.n_read) == sorted(small.n_read)


def test_a_strength_that_is_never_read_is_infinite() -> None:
    assert DetectionCurve("step1", "surface", "block1", "t2", (0.1, 0.2), (0, 3), 8).strength_read_in(0.5) == float(
        "inf"
    )


@pytest.mark.parametrize("at", [{"layer": "block9"}, {"position": "t9"}, {"position": "bot"}])
def test_a_place_that_is_no_thought_is_refused(at: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="is no place of a thought"):
        curve(states(0.0), (1.0,), **at)
