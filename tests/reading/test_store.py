"""Stores made of anybody's arrays: what is read back is what was given, or the message says what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reading.toy import problem, problems
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.reading.store import ThoughtStore

LAYERS, POSITIONS = ("block1", "final_norm"), ("question", "bot", "t1", "t2")


def states(n: int, layers: int = 2, positions: int = 4, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, layers, positions, width))


def stored(folder: Path, n: int = 12, **changed: Any) -> ThoughtStore:
    given = {"problems": problems(n), "hidden": states(n), "layers": LAYERS, "positions": POSITIONS, "folder": folder}
    return ThoughtStore.from_arrays(**given | changed)


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 600), layers=st.integers(1, 3), thoughts=st.integers(0, 3), width=st.integers(1, 9))
def test_states_and_problems_come_back_as_they_were_given(tmp_path_factory, n, layers, thoughts, width):
    names, positions = [f"block{i}" for i in range(layers)], ["bot", *(f"t{k + 1}" for k in range(thoughts))]
    hidden, given = states(n, layers, len(positions), width), problems(n)
    splits = {p.id: ("train", "val", "test")[i % 3] for i, p in enumerate(given)}
    folder = tmp_path_factory.mktemp("arrays") / "store"
    store = ThoughtStore.from_arrays(given, hidden, names, positions, folder, splits, fingerprint="mine")
    for i, layer in enumerate(names):
        np.testing.assert_array_equal(store.hidden(layer).numpy(), hidden[:, i].astype(np.float32))
    assert store.as_problems() == given and store.ids == [p.id for p in given]
    assert store.splits == [splits[p.id] for p in given]
    assert store.positions == tuple(positions) and store.manifest.settings.n_thoughts == thoughts
    assert store.fingerprint == "mine" and store.verify() == []


def test_chains_in_words_come_back_too(tmp_path):
    given = [Problem.of(f"{n} and 1?", f"One more than {n}. So {n + 1}.", str(n + 1)) for n in range(4)]
    store = stored(tmp_path / "s", n=4, problems=given, hidden=states(4))
    assert store.as_problems() == given and store.problems["n_steps"].to_list() == [0] * 4


def test_what_only_a_model_can_say_is_null(tmp_path):
    store = stored(tmp_path / "s")
    for column in ("model_answer", "model_text", "correct", "chain_ids", "answer_ids", "own_tokens"):
        assert store.problems[column].null_count() == 12
    assert store.index.height == 12 * 4 and store.index["own_token"].null_count() == 12 * 4
    assert set(store.splits) == {""}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_torch_states_are_stored_as_float32_or_bfloat16(tmp_path, dtype):
    hidden = torch.from_numpy(states(12)).to(dtype).requires_grad_()
    store = stored(tmp_path / "s", hidden=hidden)
    expected = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    assert torch.equal(store.hidden("block1"), hidden[:, 0].detach().to(expected))


def test_a_memory_mapped_array_is_read_from_its_file(tmp_path):
    np.save(tmp_path / "states.npy", states(300))
    mapped = np.load(tmp_path / "states.npy", mmap_mode="r")
    store = stored(tmp_path / "s", 300, hidden=mapped)
    assert torch.equal(store.hidden("block1"), torch.from_numpy(states(300)[:, 0]).float())
    assert len(store.manifest.shards) == 2


def spoilt(at: tuple[int, int, int], value: float = np.nan) -> np.ndarray:
    hidden = states(12)
    hidden[(*at, 3)] = value
    return hidden


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"problems": []}, "the list is empty"),
        ({"hidden": states(11)}, r"shape \[11, 2, 4, 8\]; it must be \[12 problems, 2 layers, 4 positions, width\]"),
        ({"hidden": states(12)[..., 0]}, "it must be"),
        ({"hidden": states(12)[..., :0]}, "it must be"),
        ({"layers": ("a", "a")}, "the layers name 'a' twice"),
        ({"positions": ("bot", "t1", "t2", "t1")}, "the positions name 't1' twice"),
        ({"problems": [*problems(11), problem(3)]}, "the problems name '.*' twice"),
        ({"hidden": spoilt((7, 1, 2))}, rf"problem {problem(7).id}, final_norm, t1"),
        ({"hidden": spoilt((0, 0, 0), 1e300)}, r"not finite \(float32\)"),
        ({"problems": [*problems(11), Problem("How many?", (), "many")]}, "holds no number"),
        ({"splits": {p.id: "train" for p in problems(11)}}, f"problem {problem(11).id} is in no split"),
        ({"splits": {p.id: "dev" for p in problems(12)}}, "is in no split"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_no_folder(tmp_path, changed, says):
    with pytest.raises(BadInput, match=says):
        stored(tmp_path / "s", **changed)
    assert not (tmp_path / "s").exists()


def test_nothing_is_overwritten(tmp_path):
    first = stored(tmp_path / "s")
    with pytest.raises(BadInput, match="there already"):
        stored(tmp_path / "s")
    assert ThoughtStore.open(first.path).digest == first.digest
