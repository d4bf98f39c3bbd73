"""A lens × hidden states × targets → readings: at what rank, and with how much surprise, each target was read.

READINGS, the frame of `read_all`, is what every statistic on lenses is computed from; controls give rows of the same shape.
Shapes: b problems at a time, P positions, M asked tokens of a slot, d width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from workings.config import several
from workings.errors import BadInput
from workings.models.anatomy import QUESTION
from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens
from workings.reading.store import HiddenStates, ThoughtStore
from workings.reading.targets import EMPTY, Targets

_SCORES_AT_ONCE = 1 << 24


class Predictor(NamedTuple):
    """Who predicts a target, from what, and fitted to what: the columns that tell the readers of a table apart.

    Attributes:
        reader: What predicts: tuned lens, logit lens, majority, ….
        subject: Whose states it sees: "model", "control" (matched, without recurrence) or "untrained"; "" for none.
        features: "T" for states, "Q" for what is known from the question or the data.
        targets: "real", or "shuffled" where it was fitted to the targets of other problems.
    """

    reader: str
    subject: str = "model"
    features: str = "T"
    targets: str = "real"

    def __str__(self) -> str:
        on = [f"the {self.subject} model"] if self.subject in ("control", "untrained") else []
        on += [f"{self.targets} targets"] if self.targets != "real" else []
        return " on ".join([self.reader, " and ".join(on)] if on else [self.reader])


READINGS = (*Predictor._fields, "problem", "layer", "position", "target", "rank", "nll", "new_value", "split")


@torch.no_grad()
def read_all(
    lens: Lens,
    hidden: HiddenStates,
    targets: Targets,
    rows: Tensor,
    *,
    subject: str = "model",
    fitted_to: str = "real",
    layers: str | Sequence[str] | None = None,
) -> pl.DataFrame:
    """Read every target of some problems with a lens, at every layer.

    Args:
        lens: A lens of the model whose states these are.
        hidden: Hidden states [n, P, d] by layer.
        targets: Probe targets of the same problems, in the same order.
        rows: The problems to read, Long [m].
        subject: Whose states these are: "model", "control" or "untrained".
        fitted_to: "shuffled" for a lens that was fitted to the targets of other problems.
        layers: Layers to read; by default all that the lens knows.

    Returns:
        One row per (problem, layer, position, asked token). Columns: reader (the lens's name), subject, features ("T") and
        targets, see `Predictor`; problem, layer, position, target, rank (how many other tokens score at least as high: ties
        count against), nll (−log p of the full softmax, in nats, float32), new_value, split.

    Raises:
        BadInput: For states of another model than the lens is for, or targets of other problems.
    """
    lens.refuse_others(hidden)
    targets.refuse_others(hidden)
    tables = []
    for layer, place, some, h in _states(lens, hidden, rows, lens.layers if layers is None else several(layers)):
        has_target = targets.has_target[some, place]
        if not has_target.any():
            continue
        some, h = some[has_target], h[has_target]
        target, asked = targets.ids[some, place], targets.mask[some, place]
        rank, nll = _rank_and_nll(lens.read(h, layer, hidden.positions[place]), target)
        found = {"target": target, "rank": rank.cpu(), "nll": nll.cpu(), "new_value": targets.new_value[some, place]}
        columns = {name: column[asked] for name, column in found.items()}
        columns["row"] = some[:, None].expand_as(asked)[asked]
        table = pl.DataFrame({name: column.numpy() for name, column in columns.items()})
        tables.append(table.with_columns(layer=pl.lit(layer), position=pl.lit(hidden.positions[place])))
    if not tables:
        raise BadInput(f"none of these problems has a target of '{targets.rule}'; there is nothing to read")
    frame = pl.concat(tables)
    problem, split = (pl.Series(names).gather(frame["row"]) for names in (hidden.ids, targets.splits))
    named = Predictor(lens.name, subject, targets=fitted_to)._asdict()
    labels = {name: pl.lit(value) for name, value in named.items()}
    return frame.with_columns(problem=problem, split=split, **labels).select(READINGS)


def _states(
    lens: Lens, hidden: HiddenStates, rows: Tensor, layers: Sequence[str]
) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """(layer, place of the position, problems Long [b], their states [b, d]); few enough that their scores fit."""
    at_once = max(1, _SCORES_AT_ONCE // len(lens.unembedding.weight))
    for layer in layers:
        for some in rows.split(at_once):
            h = hidden.hidden(layer, some)
            for place in range(len(hidden.positions)):
                yield layer, place, some, h[:, place]


def _rank_and_nll(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(rank Int, nll in nats) [b, M] of targets Long [b, M] under scores [b, V]; of no meaning where nothing is asked."""
    scores = scores.float()
    of_target = scores.gather(1, target.to(scores.device).clamp(min=0))
    at_least = torch.stack([(scores >= own[:, None]).sum(1, dtype=torch.int32) for own in of_target.T], 1)
    return at_least - 1, scores.logsumexp(1, keepdim=True) - of_target


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
    """All readings of one problem: cells [layers, positions], and the (first) target token of each position or None."""

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
    """Read the first `n` test problems that have a target: nothing is picked by how well it was read.

    The mean over the question is left out, as it is no state that a lens is asked about.
    """
    lens.refuse_others(store)
    targets.refuse_others(store)
    shown = [place for place, position in enumerate(store.positions) if position != QUESTION]
    positions, grids = tuple(store.positions[place] for place in shown), []
    for row in [row for row in targets.rows("test").tolist() if targets.mask[row].any()][:n]:
        about = store.problems.row(row, named=True)
        asked = [token if token != EMPTY else None for token in targets.ids[row, shown, 0].tolist()]
        cells = []
        for layer in lens.layers:
            [states] = store.hidden(layer, torch.tensor([row]))  # [P, d]
            places = zip(states[shown], positions, asked, strict=True)
            cells.append(tuple(_cell(model, lens, h, layer, position, target) for h, position, target in places))
        grid = SampleGrid(
            problem=about["problem"],
            question=about["question"],
            chain=about["chain"],
            gold=about["gold"],
            answer=about["model_answer"] or "",
            correct=bool(about["correct"]),
            layers=lens.layers,
            positions=positions,
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
    rank, nll = _rank_and_nll(lens.read(h[None], layer, position), torch.tensor([[target]]))
    return SampleCell(guesses, int(rank), math.exp(-float(nll)))
