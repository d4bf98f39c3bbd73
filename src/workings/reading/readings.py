"""A lens × hidden states × targets → readings: at what rank, and with how much surprise, each target was read.

The frame of `read_all` is what every statistic is computed from; controls give rows of the same shape.
Shapes: b problems at a time, P positions, d width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens
from workings.reading.store import HiddenStates, ThoughtStore
from workings.reading.targets import EMPTY, Targets

_SCORES_AT_ONCE = 1 << 24


@torch.no_grad()
def read_all(
    lens: Lens,
    hidden: HiddenStates,
    targets: Targets,
    rows: Tensor,
    *,
    reader: str | None = None,
    layers: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Read every target of some problems with a lens, at every layer.

    Args:
        lens: A lens of the model whose states these are.
        hidden: Hidden states [n, P, d] by layer.
        targets: Probe targets of the same problems, in the same order.
        rows: The problems to read, Long [m].
        reader: Name in the frame; the lens's own, by default.
        layers: Layers to read; by default all that the lens knows.

    Returns:
        One row per (problem, layer, position) with a target. Columns: reader, problem, layer, position, target, rank (how
        many other tokens score at least as high: ties count against), nll (−log p of the full softmax, in nats, float32),
        new_value, split.

    Raises:
        BadInput: For states of another model than the lens is for, or targets of other problems.
    """
    lens.refuse_others(hidden)
    targets.refuse_others(hidden)
    tables = []
    for layer, place, some, h in _states(lens, hidden, rows, layers):
        has_target = targets.mask[some, place]
        if not has_target.any():
            continue
        some, h = some[has_target], h[has_target]
        target = targets.ids[some, place]
        rank, nll = _rank_and_nll(lens.read(h, layer, hidden.positions[place]), target)
        columns = {"row": some, "target": target, "rank": rank, "nll": nll, "new_value": targets.new_value[some, place]}
        table = pl.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        tables.append(table.with_columns(layer=pl.lit(layer), position=pl.lit(hidden.positions[place])))
    if not tables:
        raise BadInput(f"none of these problems has a target of '{targets.rule}'; there is nothing to read")
    frame = pl.concat(tables)
    problem, split = (pl.Series(names).gather(frame["row"]) for names in (hidden.ids, targets.splits))
    frame = frame.with_columns(reader=pl.lit(reader or lens.name), problem=problem, split=split)
    return frame.select("reader", "problem", "layer", "position", "target", "rank", "nll", "new_value", "split")


def _states(
    lens: Lens, hidden: HiddenStates, rows: Tensor, layers: Sequence[str] | None
) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """(layer, place of the position, problems Long [b], their states [b, d]); few enough that their scores fit."""
    at_once = max(1, _SCORES_AT_ONCE // len(lens.unembedding.weight))
    for layer in lens.layers if layers is None else layers:
        for some in rows.split(at_once):
            h = hidden.hidden(layer, some)
            for place in range(len(hidden.positions)):
                yield layer, place, some, h[:, place]


def _rank_and_nll(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(rank Int [b], nll [b] in nats) of targets Long [b] under scores [b, V]."""
    scores = scores.float()
    of_target = scores.gather(1, target[:, None].to(scores.device))
    return (scores >= of_target).sum(1, dtype=torch.int32) - 1, scores.logsumexp(1) - of_target[:, 0]


@torch.no_grad()
def top_tokens(lens: Lens, h: Tensor, layer: str, position: str, k: int = 5) -> list[tuple[int, float]]:
    """The k likeliest tokens that a lens reads from a state [d]: (id, probability of the full softmax in float32)."""
    found = lens.read(h[None], layer, position).float().softmax(-1).topk(k)
    return list(zip(found.indices[0].tolist(), found.values[0].tolist(), strict=True))


# ---- a few problems in full --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleCell:
    """The lens's reading of one state: (token, probability) of its likeliest tokens, and the target's, if there is one."""

    guesses: tuple[tuple[str, float], ...]
    rank: int | None
    probability: float | None


@dataclass(frozen=True)
class SampleGrid:
    """All readings of one problem: cells [layers, positions], and the target token of each position or None."""

    problem: str
    question: str
    chain: str
    gold: str
    answer: str
    correct: bool
    layers: tuple[str, ...]
    positions: tuple[str, ...]
    targets: tuple[str | None, ...]
    cells: tuple[tuple[SampleCell, ...], ...]


def sample_grids(
    model: ThoughtModel, store: ThoughtStore, lens: Lens, targets: Targets, n: int
) -> tuple[SampleGrid, ...]:
    """Read the first `n` test problems that have a target: nothing is picked by how well it was read."""
    lens.refuse_others(store)
    targets.refuse_others(store)
    grids = []
    for row in [row for row in targets.rows("test").tolist() if targets.mask[row].any()][:n]:
        about = store.problems.row(row, named=True)
        asked = [token if token != EMPTY else None for token in targets.ids[row].tolist()]
        cells = []
        for layer in lens.layers:
            [states] = store.hidden(layer, torch.tensor([row]))  # [P, d]
            places = zip(states, store.positions, asked, strict=True)
            cells.append(tuple(_cell(model, lens, h, layer, position, target) for h, position, target in places))
        grid = SampleGrid(
            problem=about["problem"],
            question=about["question"],
            chain=about["chain"],
            gold=about["gold"],
            answer=about["model_answer"] or "",
            correct=bool(about["correct"]),
            layers=lens.layers,
            positions=store.positions,
            targets=tuple(None if token is None else model.tokens([token])[0] for token in asked),
            cells=tuple(cells),
        )
        grids.append(grid)
    return tuple(grids)


@torch.no_grad()
def _cell(model: ThoughtModel, lens: Lens, h: Tensor, layer: str, position: str, target: int | None) -> SampleCell:
    ids, probabilities = zip(*top_tokens(lens, h, layer, position), strict=True)
    guesses = tuple(zip(model.tokens(ids), probabilities, strict=True))
    if target is None:
        return SampleCell(guesses, None, None)
    rank, nll = _rank_and_nll(lens.read(h[None], layer, position), torch.tensor([target]))
    return SampleCell(guesses, int(rank), math.exp(-float(nll)))
