"""Lenses of several kinds, fitted to several targets on the same thoughts, side by side: one run of a study.

All fits share one pass over the states. What each lens reads of validation and test problems is kept row by row, beside what the
majority and the structure of the targets give, so that every difference can be made again without a model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch

from workings import seeds
from workings.errors import BadInput
from workings.judging.controls import ControlInputs, read_controls
from workings.judging.scores import choose_layer, predictors
from workings.models.anatomy import device_of, dtype_of
from workings.models.codi import CODI, open_model
from workings.models.thinking import ThoughtModel
from workings.reading.collection import collect
from workings.reading.fit import Fit, FitTask, fit_each
from workings.reading.lens_kinds import TunedLens, lens_of
from workings.reading.readings import read_all
from workings.reading.store import ThoughtStore
from workings.reading.study import Cell, StudyConfig
from workings.reading.targets import Targets, probe_targets, split_problems
from workings.run import Run
from workings.text.datasets import load_problems


@dataclass(frozen=True)
class FittedCell:
    """What `results/study.json` says of a cell: its lens, its fit, and the targets that it was read against.

    Attributes:
        rule: The target in words.
        layer: The layer at which it names most targets on validation.
        n_targets: Slots with a target, and without one.
        seconds: From the start of the fits to the end of this one.
    """

    name: str
    lens: str
    target: str
    rule: str
    layer: str
    n_parameters: int
    n_train: int
    n_targets: tuple[int, int]
    best_epoch: int
    n_epochs: int
    validation: float
    seconds: float


@dataclass(frozen=True)
class Study:
    """`results/study.json`: the cells, which pairs of them are compared, and whose thoughts they read."""

    cells: tuple[FittedCell, ...]
    comparisons: tuple[tuple[str, str], ...]
    fingerprint: str
    layers: tuple[str, ...]
    positions: tuple[str, ...]


def carry_out(config: StudyConfig, run: Run, cells: Sequence[Cell], comparisons: Sequence[tuple[str, str]]) -> None:
    """Think, store, fit every cell, read, and keep the readings.

    Args:
        config: Model, problems and recipe.
        run: Where everything is written. Outcomes: `readings` (READINGS with `cell` before), `controls` (the same with `target`),
            and `problems` (problem, structure).
        cells: The lenses, one that others start from before them.
        comparisons: Pairs of cells, the new one first; the first pair is the headline.

    Raises:
        BadInput: A cell names no kind, target, layer or start that there is, or a split has no target.
    """
    model = open_model(
        config.model,
        base=config.base,
        lora_alpha=config.lora_alpha,
        device=device_of(config.device),
        dtype=dtype_of(config.precision),
    )
    store = collected(model, config, run)
    run.declare(headline=list(comparisons[0]), comparisons=[list(pair) for pair in comparisons])
    targets = {
        rule: probe_targets(rule, model, store)
        for rule in dict.fromkeys(rule for cell in cells for rule in (cell.target, cell.asked))
    }
    for rule, one in targets.items():
        if not one.in_every_split:
            raise BadInput(f"the target '{rule}' does not stand in every split of these problems; give more of them")
    fits, seconds = _fitted(model, store, cells, targets, config, run)
    rows = {rule: torch.cat([one.rows("val"), one.rows("test")]) for rule, one in targets.items()}
    frames, about = [], []
    for cell in cells:
        fit, of_cell = fits[cell.name], targets[cell.asked]
        readings = read_all(fit.lens, store, of_cell, rows[cell.asked])
        frames.append(readings.select(pl.lit(cell.name).alias("cell"), pl.all()))
        about.append(_about(cell, fit, of_cell, readings, seconds[cell.name]))
    controls = [
        read_controls(ControlInputs.of(model, store, one)).select(pl.lit(rule).alias("target_rule"), pl.all())
        for rule, one in targets.items()
    ]
    run.outcomes("readings", pl.concat(frames))
    run.outcomes("controls", pl.concat(controls).filter(pl.col("split") != "train"))
    problems = store.as_problems()
    run.outcomes("problems", pl.DataFrame({"problem": store.ids, "structure": [p.structure for p in problems]}))
    run.results("study", Study(tuple(about), tuple(comparisons), store.fingerprint, store.layers, store.positions))


def collected(model: CODI, config: StudyConfig, run: Run) -> ThoughtStore:
    """The thoughts of the study's model about its problems, in the run."""
    read = load_problems(config.problems, split=config.problem_split, limit=config.limit, seed=config.seed + 1000)
    problems = list({problem.id: problem for problem in read.problems}.values())
    return collect(
        model,
        problems,
        run.folder("thoughts") / "model",
        dtype=config.store_dtype,
        batch_size=config.batch_size,
        splits=split_problems(problems, config.fractions, config.seed),
        max_new_tokens=config.max_new_tokens,
    )


def _fitted(
    model: ThoughtModel,
    store: ThoughtStore,
    cells: Sequence[Cell],
    targets: dict[str, Targets],
    config: StudyConfig,
    run: Run,
) -> tuple[dict[str, Fit], dict[str, float]]:
    """The fits by cell: first of those that start from nothing, then of those that start from one of them."""
    began, fits, seconds = time.perf_counter(), {}, {}
    log = lambda epoch, **metrics: run.log(epoch, **metrics)
    for group in ([c for c in cells if not c.start], [c for c in cells if c.start]):
        tasks = {cell.name: _task(cell, model, store, targets[cell.target], fits, config) for cell in group}
        fits |= fit_each(store, tasks, log)
        seconds |= {cell.name: time.perf_counter() - began for cell in group}
    return fits, seconds


def _task(
    cell: Cell, model: ThoughtModel, store: ThoughtStore, targets: Targets, fits: dict[str, Fit], config: StudyConfig
) -> FitTask:
    asked = [name for name, is_asked in zip(store.positions, targets.has_target.any(0), strict=True) if is_asked]
    lens = lens_of(cell.lens, model, cell.layers, positions=asked)
    if cell.start:
        if cell.start not in fits or not isinstance(lens, TunedLens):
            raise BadInput(
                f"the cell '{cell.name}' cannot start from '{cell.start}': name a cell with a tuned lens before it"
            )
        shared = fits[cell.start].lens
        assert isinstance(shared, TunedLens)
        lens.start_from(shared)
    return FitTask(lens, _first_share(targets, cell.share), replace(cell.fit, seed=config.seed))


def _first_share(targets: Targets, share: float) -> Targets:
    """The targets with only the first of the training problems to be fitted on; the others are in no split."""
    if share >= 1:
        return targets
    train = targets.rows("train").tolist()
    left_out = set(train[max(1, round(share * len(train))) :])
    splits = tuple("" if row in left_out else split for row, split in enumerate(targets.splits))
    return replace(targets, splits=splits)


def _about(cell: Cell, fit: Fit, targets: Targets, readings: pl.DataFrame, seconds: float) -> FittedCell:
    [lens] = predictors(readings)
    return FittedCell(
        name=cell.name,
        lens=fit.lens.name,
        target=cell.asked,
        rule=targets.rule,
        layer=choose_layer(readings, lens),
        n_parameters=fit.lens.n_parameters,
        n_train=len(_first_share(targets, cell.share).rows("train")),
        n_targets=(int(targets.has_target.sum()), targets.n_empty),
        best_epoch=fit.best_epoch,
        n_epochs=len(fit.epochs) - 1,
        validation=fit.validation,
        seconds=seconds,
    )


# ---- readings → values of problems -----------------------------------------------------------------------------------


def by_problem(
    readings: pl.DataFrame, controls: pl.DataFrame, problems: pl.DataFrame, layer: str | None
) -> pl.DataFrame:
    """A row for each test problem: what a lens names there, and how much more than the majority and the structure do.

    Args:
        readings: Rows of one cell.
        controls: Rows of its target's controls.
        problems: problem, structure.
        layer: The layer that is read; None pools all.

    Returns:
        problem, structure, top1, top5, top10 (means over the problem's slots), bits (−cross-entropy), and skill (top1 less the
        majority's), skill_bits, beyond_structure, beyond_structure_bits.
    """
    test = readings.filter(pl.col("split") == "test")
    mine = test if layer is None else test.filter(layer=layer)
    values = _means(mine)
    for control, suffix in (("majority", "skill"), ("structure only", "beyond_structure")):
        theirs = _means(controls.filter(reader=control, split="test")).select(
            "problem", top1_control="top1", bits_control="bits"
        )
        values = values.join(theirs, on="problem", how="left", maintain_order="left").with_columns(
            (pl.col("top1") - pl.col("top1_control")).alias(suffix),
            (pl.col("bits") - pl.col("bits_control")).alias(f"{suffix}_bits"),
        )
        values = values.drop("top1_control", "bits_control")
    return values.join(problems, on="problem", how="left", maintain_order="left")


def _means(rows: pl.DataFrame) -> pl.DataFrame:
    hits = [(pl.col("rank") < k).mean().alias(f"top{k}") for k in (1, 5, 10)]
    bits = (-pl.col("nll").cast(pl.Float64) / 0.6931471805599453).mean().alias("bits")
    return rows.group_by("problem", maintain_order=True).agg(*hits, bits)


# ---- is any cell the best? --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BestOf:
    """Whether the best of several cells (layers, positions) is better than equal ones would look.

    Attributes:
        best: The cell with the largest mean.
        largest: That mean.
        expected: The largest mean that is expected where cells are alike in every problem.
        p: How often it is at least as large there.
        n: Problems.
    """

    best: str
    largest: float
    expected: float
    p: float
    n: int


def best_of(values: pl.DataFrame, cells: Sequence[str], seed: int = 0, n_draws: int = 2000) -> BestOf:
    """Test the largest of several means, all of the same problems: which value stands in which cell is drawn anew in each problem.

    Means of the same problems are alike in what makes problems easy, which is kept; only what tells the cells apart is drawn.

    Args:
        values: A row for each problem, with a column for each cell; problems that lack one are left out.
        cells: The columns.

    Raises:
        BadInput: Fewer than two cells, or no problem has them all.

    >>> frame = pl.DataFrame({"block1": [0.0, 1.0, 0.0, 1.0] * 50, "block2": [1.0, 1.0, 0.0, 1.0] * 50})
    >>> found = best_of(frame, ["block1", "block2"])
    >>> found.best, found.largest, found.p < 0.01
    ('block2', 0.75, True)
    """
    table = values.select(cells).drop_nulls().to_numpy()
    if len(cells) < 2 or not len(table):
        raise BadInput(f"nothing to rank: {len(table)} problems have a value in each of {len(cells)} cells")
    means = table.mean(0)
    generator = seeds.numpy("best of", seed)
    largest = np.array([generator.permuted(table, axis=1).mean(0).max() for _ in range(n_draws)])
    p = (1 + int((largest >= means.max() - 1e-12).sum())) / (1 + n_draws)
    return BestOf(cells[int(means.argmax())], float(means.max()), float(largest.mean()), p, len(table))
