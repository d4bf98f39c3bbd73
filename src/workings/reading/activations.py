"""Activation files of the lens notes (torch pickles) → a ThoughtStore. No code of the files is run.

A file holds `hidden_states` [N, d] and, for each row, its problem, layer and position in `metadata`; `config` says of which model.
Their layer 0 is the embedding and layer i the output of block i; their position 0 is the opening token and position k thought k.
Each problem must have every layer and position once. What they left out is noted in the store's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.arithmetic.problems import Problem, problem_of_row, text_in
from workings.errors import BadInput, listed
from workings.models.anatomy import layer_names
from workings.models.pickles import read_pickle
from workings.reading.store import FINAL_NORM, ThoughtStore
from workings.reading.targets import split_problems

_IDS = ("gsm8k_id", "problem_id", "id")
_VALIDATED = (0.875, 0.125, 0.0)  # of a file of training problems: the notes had no validation problems


@dataclass(frozen=True)
class _Activations:
    """What one file holds: states [n, L, P, d] of n problems."""

    file: Path
    problems: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    states: Tensor
    about: Mapping[str, Any]


def import_activations(files: Sequence[str | Path], problems: str | Path, out: str | Path) -> ThoughtStore:
    """Write the activations of one or several files as a store, and open it.

    Args:
        files: Files of one model. The problems of one whose name holds "test" are for test, those of one with "train" for training
            and validation; otherwise they are divided by chance.
        problems: The problems they name: a JSON list whose rows have `gsm8k_id`, `problem_id` or `id`.
        out: Folder of the store: new or empty.

    Raises:
        BadInput: A file cannot be read without running code, holds something else, lacks a state, or names a problem that is not
            there; or the files are not of one model.
    """
    read = [_read(Path(file)) for file in files]
    if not read:
        raise BadInput("no activation file was given")
    first = read[0]
    for other in read[1:]:
        same = (other.layers, other.positions, other.states.shape[3], other.about.get("model"))
        if same != (first.layers, first.positions, first.states.shape[3], first.about.get("model")):
            raise BadInput(
                f"{other.file} and {first.file} are of different models, layers or positions; import them apart"
            )
    known = _problems_by_id(Path(problems))
    chosen, splits = [], {}
    for one in read:
        if unknown := [name for name in one.problems if name not in known]:
            raise BadInput(f"{problems} lacks {len(unknown)} of the problems of {one.file}: {listed(unknown)}")
        mine = [known[name] for name in one.problems]
        chosen += mine
        splits |= _splits(one.file.name.lower(), mine)
    if not any(split == "train" for split in splits.values()):
        splits = split_problems(chosen)
    layers, notes = _layers(first)
    positions = ["bot" if k == 0 else f"t{k}" for k in first.positions]
    return ThoughtStore.from_arrays(
        chosen,
        torch.cat([one.states for one in read]),
        layers,
        positions,
        out,
        splits,
        fingerprint=str(first.about.get("model") or "activations"),
        notes=(*notes, *_notes_on_positions(first)),
    )


def _splits(name: str, problems: Sequence[Problem]) -> dict[str, str]:
    if "test" in name:
        return {problem.id: "test" for problem in problems}
    if "train" in name:
        return split_problems(problems, _VALIDATED)
    return split_problems(problems)


def _read(file: Path) -> _Activations:
    content = read_pickle(file)
    wanted = ("hidden_states", "metadata", "config")
    if not isinstance(content, Mapping) or not all(name in content for name in wanted):
        raise BadInput(f"{file} holds no activations: it needs {', '.join(wanted)}")
    states, rows, about = (content[name] for name in wanted)
    fields = ("problem_ids", "layers", "positions")
    if (
        not isinstance(states, Tensor)
        or states.dim() != 2
        or not all(isinstance(rows.get(f), Sequence) for f in fields)
    ):
        raise BadInput(
            f"{file}: hidden_states must be a matrix, and metadata must list {', '.join(fields)} of its rows"
        )
    if any(len(rows[field]) != len(states) for field in fields):
        counts = ", ".join(f"{len(rows[field])} {field}" for field in fields)
        raise BadInput(f"{file} has {len(states)} states and {counts}: they do not match")
    named = [str(name) for name in rows["problem_ids"]]
    problems = tuple(dict.fromkeys(named))
    layers, positions = (tuple(sorted({int(i) for i in rows[field]})) for field in ("layers", "positions"))
    place = {name: i for i, name in enumerate(problems)}
    flat = [
        (place[name] * len(layers) + layers.index(int(layer))) * len(positions) + positions.index(int(position))
        for name, layer, position in zip(named, rows["layers"], rows["positions"], strict=True)
    ]
    n = len(problems) * len(layers) * len(positions)
    if len(flat) != n or len(set(flat)) != n:
        raise BadInput(
            f"{file} has {len(flat):,} states of {len(problems):,} problems, {len(layers)} layers and {len(positions)} positions: "
            "every problem must have each of them once"
        )
    ordered = torch.empty_like(states)
    ordered[torch.tensor(flat)] = states
    shape = (len(problems), len(layers), len(positions), states.shape[1])
    return _Activations(
        file, problems, layers, positions, ordered.reshape(shape), about if isinstance(about, Mapping) else {}
    )


def _problems_by_id(path: Path) -> dict[str, Problem]:
    try:
        rows = json.loads(text_in(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not a JSON list of problems: {error}") from None
    found = {}
    for row in rows if isinstance(rows, list) else []:
        name = next((row[field] for field in _IDS if field in row), None) if isinstance(row, Mapping) else None
        if name is None:
            continue
        try:
            found[str(name)] = problem_of_row(row, f"{path.name}: {name}")
        except ValueError as reason:
            raise BadInput(f"{path}: problem {name}: {reason}") from None
    if not found:
        raise BadInput(f"{path} names no problem: its rows need {', '.join(_IDS[:-1])} or {_IDS[-1]}")
    return found


def _layers(one: _Activations) -> tuple[list[str], list[str]]:
    """The layers' names, and what should be known of them."""
    n_blocks = int(one.about.get("num_layers") or max(one.layers) + 1)
    names = layer_names(n_blocks)
    if max(one.layers) >= len(names) or min(one.layers) < 0:
        raise BadInput(f"{one.file} has a layer {max(one.layers)}, and its model {n_blocks} blocks")
    kept = [names[i] for i in one.layers]
    missing = [name for name in names if name not in kept]
    notes = [f"States of {len(kept)} of {len(names)} layers: {listed(missing)} was not kept."] if missing else []
    if FINAL_NORM in missing:
        notes.append(f"The state that the next thought is made from, {FINAL_NORM}, is among those that were not kept.")
    return kept, notes


def _notes_on_positions(one: _Activations) -> list[str]:
    notes = []
    if 0 in one.positions:
        notes.append("Position 0 of the file is the opening token and no thought.")
    n_thoughts = int(one.about.get("num_ct_tokens") or one.about.get("num_positions") or 0)
    n_kept = sum(k > 0 for k in one.positions)
    if n_thoughts > n_kept:
        notes.append(f"{n_kept} of {n_thoughts} thoughts were kept.")
    if one.about.get("representation") == "pre_mlp":
        notes.append(
            "The projection was skipped between thoughts (pre_mlp), so these are not the model's own thoughts."
        )
    return notes
