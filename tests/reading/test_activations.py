"""Activation files of the lens notes: read without their code, put in order, and what they left out is said."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from workings.cli import main
from workings.errors import BadInput
from workings.reading import ThoughtStore
from workings.reading.activations import import_activations

N_LAYERS, LAYERS, POSITIONS, WIDTH = 3, (0, 1, 2), (0, 1, 2), 5


def value(problem: int, layer: int, position: int) -> torch.Tensor:
    return torch.full((WIDTH,), 100.0 * problem + 10 * layer + position)


def rows_of(problems: list[int]) -> list[tuple[int, int, int]]:
    return list(product(problems, POSITIONS, LAYERS))  # problem > position > layer, as the notes wrote them


def saved(path: Path, problems: list[int], rows: list[tuple[int, int, int]] | None = None, **config: object) -> Path:
    rows = rows_of(problems) if rows is None else rows
    content = {
        "hidden_states": torch.stack([value(p, layer, position) for p, position, layer in rows]),
        "target_token_ids": torch.zeros(len(rows), dtype=torch.long),
        "metadata": {
            "problem_ids": [f"train_{p}" for p, _, _ in rows],
            "positions": [position for _, position, _ in rows],
            "layers": [layer for _, _, layer in rows],
            "difficulties": ["2-step"] * len(rows),
        },
        "config": {
            "model": "llama",
            "num_layers": N_LAYERS,
            "num_ct_tokens": 6,
            "representation": "post_mlp",
            **config,
        },
    }
    torch.save(content, path)
    return path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    listed = [
        {
            "gsm8k_id": f"train_{p}",
            "question": f"{p} and 4?",
            "answer": str(p + 4),
            "full_solution": f"<<{p}+4={p + 4}>>",
        }
        for p in range(40)
    ]
    path = tmp_path / "problems.json"
    path.write_text(json.dumps(listed))
    return path


def test_states_come_to_their_problem_layer_and_position_in_whatever_order_they_lie(
    tmp_path: Path, problems: Path
) -> None:
    shuffled = [
        rows_of(list(range(30)))[i] for i in torch.randperm(270, generator=torch.Generator().manual_seed(0)).tolist()
    ]
    train, test = saved(tmp_path / "cot_train.pt", [], shuffled), saved(tmp_path / "cot_test.pt", list(range(30, 40)))
    store = import_activations([train, test], problems, tmp_path / "store")
    assert store.layers == ("embed", "block1", "block2") and store.positions == ("bot", "t1", "t2")
    numbers = [int(problem.question.split()[0]) for problem in store.as_problems()]
    for at, layer in enumerate(store.layers):
        expected = torch.stack([torch.stack([value(p, at, k) for k in POSITIONS]) for p in numbers])
        assert torch.equal(store.hidden(layer), expected)
    assert {split for split, p in zip(store.splits, numbers, strict=True) if p >= 30} == {"test"}
    assert {split for split, p in zip(store.splits, numbers, strict=True) if p < 30} == {"train", "val"}
    assert store.fingerprint == "llama"


def test_what_was_left_out_is_noted(tmp_path: Path, problems: Path, capsys) -> None:
    file = saved(tmp_path / "all.pt", list(range(30)), representation="pre_mlp")
    assert main(["thoughts", "import", str(file), "--problems", str(problems), "--out", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().err
    notes = ThoughtStore.open(tmp_path / "store").manifest.settings.notes
    for note in (
        "States of 3 of 4 layers: final_norm was not kept.",
        "The state that the next thought is made from, final_norm, is among those that were not kept.",
        "Position 0 of the file is the opening token and no thought.",
        "2 of 6 thoughts were kept.",
        "The projection was skipped between thoughts (pre_mlp), so these are not the model's own thoughts.",
    ):
        assert note in notes and note in said


def test_files_that_are_something_else_are_refused(tmp_path: Path, problems: Path) -> None:
    rows = rows_of([0, 1])
    missing, twice = saved(tmp_path / "a.pt", [], rows[1:]), saved(tmp_path / "b.pt", [], [*rows, rows[0]])
    unknown, deep = saved(tmp_path / "c.pt", [99]), saved(tmp_path / "d.pt", [0], num_layers=1)
    other = saved(tmp_path / "e.pt", [2], model="gpt2")
    torch.save({"hidden_states": torch.zeros(2, 3)}, tmp_path / "f.pt")
    torch.save({"hidden_states": torch.zeros(2, 3), "config": {}, "metadata": {"layers": [0]}}, tmp_path / "g.pt")
    torch.save(exec, tmp_path / "h.pt")
    for files, message in (
        ([missing], "has 17 states of 2 problems, 3 layers and 3 positions"),
        ([twice], "each of them once"),
        ([unknown], "lacks 1 of the problems of .*: train_99"),
        ([deep], "has a layer 2, and its model 1 blocks"),
        ([saved(tmp_path / "x.pt", [0]), other], "different models"),
        ([tmp_path / "f.pt"], "holds no activations"),
        ([tmp_path / "g.pt"], "must list problem_ids, layers, positions"),
        ([tmp_path / "h.pt"], "any code|read safely"),
        ([], "no activation file"),
    ):
        with pytest.raises(BadInput, match=message):
            import_activations(files, problems, tmp_path / "store")
        assert not (tmp_path / "store").exists()
    with pytest.raises(BadInput, match="names no problem"):
        (tmp_path / "none.json").write_text("[]  ")
        import_activations([saved(tmp_path / "y.pt", [0])], tmp_path / "none.json", tmp_path / "store")
