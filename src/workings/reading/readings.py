"""A lens × hidden states × targets → readings: at what rank, and with how much surprise, each target was read.

The frame of `read_all` is what every statistic is computed from; controls give rows of the same shape.
Shapes: b problems at a time, P positions, d width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens
from workings.reading.store import HiddenStates, ThoughtStore
from workings.reading.targets import Targets

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
        scores = lens.read(h, layer, hidden.positions[place]).float()
        of_target = scores.gather(1, target[:, None].to(scores.device))
        columns = {
            "row": some,
            "target": target,
            "rank": (scores >= of_target).sum(1, dtype=torch.int32) - 1,
            "nll": scores.logsumexp(1) - of_target[:, 0],
            "new_value": targets.new_value[some, place],
        }
        tables.append(_table(columns, layer, hidden.positions[place]))
    if not tables:
        raise BadInput(f"none of these problems has a target of '{targets.rule}'; there is nothing to read")
    frame = pl.concat(tables)
    problem, split = (pl.Series(names).gather(frame["row"]) for names in (hidden.ids, targets.splits))
    frame = frame.with_columns(reader=pl.lit(reader or lens.name), problem=problem, split=split)
    return frame.select("reader", "problem", "layer", "position", "target", "rank", "nll", "new_value", "split")


@torch.no_grad()
def top_tokens(
    lens: Lens, hidden: HiddenStates, rows: Tensor, *, k: int = 5, layers: Sequence[str] | None = None
) -> pl.DataFrame:
    """The k likeliest tokens that a lens reads: one row per (problem, layer, position, place 1 … k).

    Columns: problem, layer, position, place, token, probability (of the full softmax, in float32).
    """
    lens.refuse_others(hidden)
    tables = []
    for layer, place, some, h in _states(lens, hidden, rows, layers):
        found = lens.read(h, layer, hidden.positions[place]).float().softmax(-1).topk(k)
        columns = {
            "row": some.repeat_interleave(k),
            "place": torch.arange(1, k + 1).repeat(len(some)),
            "token": found.indices.flatten(),
            "probability": found.values.flatten(),
        }
        tables.append(_table(columns, layer, hidden.positions[place]))
    frame = pl.concat(tables)
    frame = frame.with_columns(problem=pl.Series(hidden.ids).gather(frame["row"]))
    return frame.select("problem", "layer", "position", "place", "token", "probability")


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


def _table(columns: Mapping[str, Tensor], layer: str, position: str) -> pl.DataFrame:
    table = pl.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
    return table.with_columns(layer=pl.lit(layer), position=pl.lit(position))


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
    model: ThoughtModel, store: ThoughtStore, lens: Lens, targets: Targets, n: int, k: int = 5
) -> tuple[SampleGrid, ...]:
    """Read the first `n` test problems that have a target: nothing is picked by how well it was read."""
    grids = []
    for row in [row for row in targets.rows("test").tolist() if targets.mask[row].any()][:n]:
        one = torch.tensor([row])
        tops, ranks = top_tokens(lens, store, one, k=k), read_all(lens, store, targets, one)
        about = store.problems.row(row, named=True)
        tokens = model.tokens(targets.ids[row].clamp(min=0).tolist())
        cells = tuple(tuple(_cell(model, tops, ranks, layer, p) for p in store.positions) for layer in lens.layers)
        grid = SampleGrid(
            problem=about["problem"],
            question=about["question"],
            chain=about["chain"],
            gold=about["gold"],
            answer=about["model_answer"] or "",
            correct=bool(about["correct"]),
            layers=lens.layers,
            positions=store.positions,
            targets=tuple(t if has else None for t, has in zip(tokens, targets.mask[row].tolist(), strict=True)),
            cells=cells,
        )
        grids.append(grid)
    return tuple(grids)


def _cell(model: ThoughtModel, tops: pl.DataFrame, ranks: pl.DataFrame, layer: str, position: str) -> SampleCell:
    top = tops.filter(layer=layer, position=position).sort("place")
    of_target = ranks.filter(layer=layer, position=position).select("rank", "nll").rows()
    rank, nll = of_target[0] if of_target else (None, None)
    tokens = model.tokens(top["token"].to_list())
    guesses = tuple(zip(tokens, top["probability"].to_list(), strict=True))
    return SampleCell(guesses, rank, None if nll is None else math.exp(-nll))
