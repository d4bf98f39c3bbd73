"""A lens × a few test problems → what it reads from each state, as plain data for a report."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens
from workings.reading.readings import read_all, top_tokens
from workings.reading.store import ThoughtStore
from workings.reading.targets import Targets

Grid = dict[str, Any]


def sample_grids(
    model: ThoughtModel, store: ThoughtStore, lens: Lens, targets: Targets, n: int, k: int = 5
) -> list[Grid]:
    """The first `n` test problems that have a target: nothing is picked by how well it was read.

    Each grid has question, chain, gold, answer, correct, layers, positions, targets (token or None by position) and
    cells[layer][position] = {guesses: [[token, probability], …], rank, probability}; probabilities are of the full softmax.
    """
    rows = [row for row in targets.rows("test").tolist() if targets.mask[row].any()][:n]
    return [_grid(model, store, lens, targets, row, k) for row in rows]


def _grid(model: ThoughtModel, store: ThoughtStore, lens: Lens, targets: Targets, row: int, k: int) -> Grid:
    import torch

    one = torch.tensor([row])
    tops = top_tokens(lens, store, one, k=k)
    ranks = read_all(lens, store, targets, one)
    about = store.problems.row(row, named=True)
    named = model.tokens(targets.ids[row].clamp(min=0).tolist())
    asked = [token if there else None for token, there in zip(named, targets.mask[row].tolist(), strict=True)]
    return {
        "problem": about["problem"],
        "question": about["question"],
        "chain": about["chain"],
        "gold": about["gold"],
        "answer": about["model_answer"] or "",
        "correct": bool(about["correct"]),
        "layers": list(lens.layers),
        "positions": list(store.positions),
        "targets": asked,
        "cells": [[_cell(model, tops, ranks, layer, p) for p in store.positions] for layer in lens.layers],
    }


def _cell(model: ThoughtModel, tops: pl.DataFrame, ranks: pl.DataFrame, layer: str, position: str) -> dict[str, Any]:
    top = tops.filter(layer=layer, position=position).sort("place")
    asked = ranks.filter(layer=layer, position=position).select("rank", "nll").rows()
    rank, nll = asked[0] if asked else (None, None)
    guesses = [
        [token, p] for token, p in zip(model.tokens(top["token"].to_list()), top["probability"].to_list(), strict=True)
    ]
    return {"guesses": guesses, "rank": rank, "probability": None if nll is None else math.exp(-nll)}
