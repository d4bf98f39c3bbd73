"""A lens × hidden states × targets → readings: at what rank, and with how much surprise, each target was read.

The frame of `read_all` is what every statistic is computed from; controls give rows of the same shape.
Shapes: b problems at a time, P positions, d width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.reading.lens import Lens
from workings.reading.store import HiddenStates
from workings.reading.targets import Targets

if TYPE_CHECKING:
    import polars as pl

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
    """One row a (problem, layer, position) with a target, for the problems `rows` (Long [m]).

    Columns: reader (the lens's name, or as given), problem, layer, position, target, rank (how many other tokens score
    at least as high: ties count against), nll (nats, full softmax in float32), new_value, split.
    BadInput for states of another model than the lens is for, or targets of other problems.
    """
    import polars as pl

    _check(lens, hidden)
    if list(targets.problems) != list(hidden.ids):
        raise BadInput(
            f"the targets '{targets.rule}' are of other problems than the hidden states, or in another order"
        )
    tables = []
    for layer, place, some, h in _states(lens, hidden, rows, layers):
        asked = targets.mask[some, place]
        if not asked.any():
            continue
        some, h = some[asked], h[asked]
        target = targets.ids[some, place]
        rank, nll = _judged(lens.read(h, layer, hidden.positions[place]), target)
        columns = {"row": some, "target": target, "rank": rank, "nll": nll, "new_value": targets.new_value[some, place]}
        table = pl.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        tables.append(table.with_columns(layer=pl.lit(layer), position=pl.lit(hidden.positions[place])))
    return _named(tables, hidden, targets, reader or lens.name)


@torch.no_grad()
def top_tokens(
    lens: Lens, hidden: HiddenStates, rows: Tensor, *, k: int = 5, layers: Sequence[str] | None = None
) -> pl.DataFrame:
    """What a lens reads first: one row a (problem, layer, position, place 1 … k).

    Columns: problem, layer, position, place, token, probability (of the full softmax, in float32).
    """
    import polars as pl

    _check(lens, hidden)
    tables = []
    for layer, place, some, h in _states(lens, hidden, rows, layers):
        found = lens.read(h, layer, hidden.positions[place]).float().softmax(-1).topk(k)
        columns = {
            "row": some.repeat_interleave(k),
            "place": torch.arange(1, k + 1).repeat(len(some)),
            "token": found.indices.flatten(),
            "probability": found.values.flatten(),
        }
        table = pl.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        tables.append(table.with_columns(layer=pl.lit(layer), position=pl.lit(hidden.positions[place])))
    ids = pl.DataFrame({"row": range(len(hidden.ids)), "problem": list(hidden.ids)})
    frame = pl.concat(tables).join(ids, on="row", how="left", maintain_order="left")
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


def _judged(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(rank Int [b], nll [b]) of targets Long [b] under scores [b, V]."""
    scores = scores.float()
    of_target = scores.gather(1, target[:, None].to(scores.device))
    rank = (scores >= of_target).sum(1, dtype=torch.int32) - 1
    return rank, scores.logsumexp(1) - of_target[:, 0]


def _named(tables: list[pl.DataFrame], hidden: HiddenStates, targets: Targets, reader: str) -> pl.DataFrame:
    import polars as pl

    if not tables:
        raise BadInput(f"none of the problems asked about has a target of '{targets.rule}'; there is nothing to read")
    names = pl.DataFrame({"row": range(len(hidden.ids)), "problem": list(hidden.ids), "split": list(targets.splits)})
    frame = pl.concat(tables).join(names, on="row", how="left", maintain_order="left")
    return frame.with_columns(reader=pl.lit(reader)).select(
        "reader", "problem", "layer", "position", "target", "rank", "nll", "new_value", "split"
    )


def _check(lens: Lens, hidden: HiddenStates) -> None:
    if lens.fingerprint != hidden.fingerprint:
        raise BadInput(
            f"the {lens.name} is for the model {lens.fingerprint}, and the hidden states are of {hidden.fingerprint}"
        )
