"""The ceiling beside a lens, on states whose content is planted."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from workings.judging.ceiling import LINEAR_PROBE, probe_readings
from workings.judging.scores import score
from workings.reading import StatesInMemory
from workings.reading.targets import EMPTY, Targets

N, POSITIONS = 300, ("question", "bot", "t1")


def planted() -> tuple[StatesInMemory, Targets]:
    """Ten tokens, at t1 of block1 in directions of their own, and nowhere else; nothing is asked at the question."""
    random = np.random.default_rng(0)
    token = random.integers(40, 50, N)
    h = random.standard_normal((N, 3, 12))
    h[:, 2] += 2.5 * random.standard_normal((50, 12))[token]
    ids = torch.from_numpy(np.repeat(token[:, None, None], 3, axis=1))
    ids[:, 0] = EMPTY
    splits = ("train",) * 150 + ("val",) * 50 + ("test",) * 100
    names = tuple(f"p{i}" for i in range(N))
    targets = Targets(
        "planted", POSITIONS, ids, ids > 0, torch.ones(N, 3, dtype=torch.long), names, splits, torch.ones(N)
    )
    states = {"block1": torch.tensor(h).float(), "final_norm": torch.tensor(random.standard_normal(h.shape)).float()}
    return StatesInMemory(states, POSITIONS, list(names), "toy"), targets


def test_a_probe_names_what_is_planted_where_it_is_planted() -> None:
    hidden, targets = planted()
    readings = probe_readings(hidden, targets)
    assert set(readings["split"]) == {"val", "test"} and set(readings["position"]) == {"bot", "t1"}
    by_place = score(readings, ("layer", "position"))
    named = {(row["layer"], row["position"]): row["top1"] for row in by_place.iter_rows(named=True)}
    assert named.pop(("block1", "t1")) > 0.9 and max(named.values()) < 0.3
    assert by_place.select(LINEAR_PROBE._fields).unique().rows() == [LINEAR_PROBE]


def test_a_token_that_training_never_shows_comes_last() -> None:
    hidden, targets = planted()
    targets.ids[-1, 1:] = 99
    last = probe_readings(hidden, targets).filter(problem=f"p{N - 1}")
    assert (last["rank"] == 10).all() and (last["nll"] > 13).all()
    assert last["target"].to_list() == [99] * 4 and last.schema["nll"] == pl.Float32
