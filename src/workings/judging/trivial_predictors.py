"""The targets of a published reading → what predictors that see no model score: rivals for its figures.

The majority names the commonest target of each position, the structure adds how long the written chain is; both are the controls
that stand beside every lens (`controls`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from workings import seeds
from workings.errors import BadInput
from workings.judging.controls import Backoff, ControlInputs, majority, structure_only
from workings.judging.published import Row
from workings.reading.targets import SPLITS, Targets

TOP = (1, 5, 10)
SHARES = (0.7, 0.1, 0.2)
MAJORITY, STRUCTURE = "the commonest target", "position and length of the chain"


def read_targets(path: Path) -> pl.DataFrame:
    """A table of targets, .csv, .jsonl or .parquet: a column `target`, and perhaps `problem`, `position`, `length`, `split`.

    Without `problem` every row is one; without `split` problems are divided by chance, 70/10/20.
    """
    readers = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}
    if path.suffix not in readers:
        raise BadInput(f"{path}: targets are read from {', '.join(readers)}")
    if not path.is_file():
        raise BadInput(f"no file {path}; check the path")
    try:
        frame = readers[path.suffix](path)
    except pl.exceptions.PolarsError as error:
        raise BadInput(f"{path} cannot be read as a table: {error}") from None
    if "target" not in frame.columns or not len(frame):
        raise BadInput(f"{path} has no rows with a column 'target'; it has {', '.join(frame.columns) or 'none'}")
    return frame


def trivial_rows(frame: pl.DataFrame, seed: int = 0) -> tuple[Row, ...]:
    """What the majority and the structure score on test targets, overall and by position: top-1, top-5 and top-10.

    Args:
        frame: As `read_targets` gives it.
        seed: Random seed of the splits, where there are none.

    Returns:
        Rows called `the commonest target`, and where the targets have positions also `the commonest target at position 3`; where
        they have lengths, `position and length of the chain`. Their units are problems.
    """
    inputs = _inputs(frame, seed)
    predictors: dict[str, Backoff] = {MAJORITY: majority(inputs)}
    if "length" in frame.columns:
        predictors[STRUCTURE] = structure_only(inputs, predictors[MAJORITY])
    is_test = inputs.rows_of("test")
    rows = []
    for name, predictor in predictors.items():
        rank, _ = predictor.rank_and_p()
        groups = {name: is_test}
        if "position" in frame.columns:
            for place, position in enumerate(inputs.targets.positions):
                groups[f"{name} at position {position}"] = is_test & (inputs.position == place)
        for called, chosen in groups.items():
            if chosen.any():
                n, units = int(chosen.sum()), len(np.unique(inputs.problem[chosen]))
                rows += [Row(called, float((rank[chosen] < k).mean()), n, units, f"top-{k}") for k in TOP]
    return tuple(rows)


def _inputs(frame: pl.DataFrame, seed: int) -> ControlInputs:
    """The targets as the controls see them."""
    if "problem" not in frame.columns:
        frame = frame.with_columns(problem=pl.int_range(pl.len()))
    frame = frame.with_columns(pl.col("problem", "target").cast(pl.String))
    position = (
        frame["position"].cast(pl.String) if "position" in frame.columns else pl.repeat("", len(frame), eager=True)
    )
    positions, problems = tuple(position.unique(maintain_order=True)), frame["problem"].unique(maintain_order=True)
    vocabulary = frame["target"].unique(maintain_order=True)
    row = {problem: i for i, problem in enumerate(problems)}
    place, token = {p: i for i, p in enumerate(positions)}, {t: i for i, t in enumerate(vocabulary)}
    if frame.select("problem").with_columns(position=position).is_duplicated().any():
        raise BadInput(
            "two targets have the same problem and position; name the position of each in a column 'position'"
        )
    ids = torch.full((len(problems), len(positions), 1), -1)
    at = [row[each] for each in frame["problem"]], [place[each] for each in position]
    ids[at[0], at[1], 0] = torch.tensor([token[each] for each in frame["target"]])
    lengths = np.zeros(len(problems), np.int64)
    if "length" in frame.columns:
        lengths[at[0]] = frame["length"].to_numpy()
    return ControlInputs(
        Targets(
            "published",
            positions,
            ids,
            torch.zeros(ids.shape, dtype=torch.bool),
            (ids >= 0).sum(-1),
            tuple(problems),
            _splits(frame, row, seed),
            torch.from_numpy(lengths),
        ),
        questions=[()] * len(problems),
        is_number=lambda token: False,
        n_tokens=len(vocabulary),
    )


def _splits(frame: pl.DataFrame, row: dict[str, int], seed: int) -> tuple[str, ...]:
    if "split" not in frame.columns:
        drawn = seeds.numpy("published targets", seed).permutation(len(row))
        ends = np.cumsum(SHARES)[:2] * len(row)
        return tuple(SPLITS[int((rank >= ends).sum())] for rank in drawn)
    splits = [""] * len(row)
    for problem, split in frame.select("problem", "split").iter_rows():
        if split not in SPLITS:
            raise BadInput(f"the target of problem {problem} is in the split {split!r}; name {', '.join(SPLITS)}")
        splits[row[problem]] = split
    if not all((np.array(splits) == split).any() for split in SPLITS):
        raise BadInput(
            f"targets need problems in each of {', '.join(SPLITS)}; leave the column 'split' out to have it drawn"
        )
    return tuple(splits)
