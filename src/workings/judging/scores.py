"""READINGS → scores with intervals, the best control, and skill over it.

A lens that names targets well may only know the data: its *skill* is the difference to the best control, a predictor that never
saw the thought. Everything is chosen on validation rows and measured on test rows, paired and clustered by problem.
READINGS is the frame of `reading.read_all`: one row per reader, problem, layer, position and target.
Shares are fractions (0.412), and so are differences of shares; `ce` is cross-entropy in nats, skill in bits is in bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from workings.errors import BadInput
from workings.judging.statistics import (
    CellIntervals,
    ProblemSums,
    clustered_wilson,
    critical_value,
    difference_intervals,
)

Metric = Literal["top1", "top5", "bits"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LENSES = ("tuned lens", "logit lens")
CONTROLS = (
    "majority",
    "structure only",
    "copy from question",
    "shuffled targets",
    "untrained model",
    "control model",
)
METRICS: tuple[Metric, ...] = ("top1", "top5", "bits")
_COLUMNS = ("reader", "problem", "layer", "position", "target", "rank", "nll", "new_value", "split")


def score(
    readings: pl.DataFrame,
    by: Sequence[str] = (),
    split: str = "test",
    simultaneously: bool = False,
    confidence: float = 0.95,
) -> pl.DataFrame:
    """Score every reader: how often it names the target (top-k), and its cross-entropy.

    Args:
        readings: READINGS rows.
        by: Columns whose values are the cells (layer, position); one cell, by default.
        split: The split that is scored.
        simultaneously: Whether intervals hold for all cells of a reader at once, to compare cells; else each by itself.
        confidence: Of the intervals, which are clustered by problem (Wilson for shares, Student's t for `ce`).

    Returns:
        One row per reader and cell. Columns: reader, `by`…, n_problems, n_rows, ce (nats), top1, top5, top10 (fractions),
        each of the four with _low and _high.
    """
    rows = _rows(readings, split)
    found = []
    for reader in rows["reader"].unique(maintain_order=True):
        of_reader = rows.filter(reader=reader)
        cells = _Cells.of(of_reader, by)
        columns: dict[str, NDArray] = {"n_problems": cells.n_problems, "n_rows": cells.n_rows}
        for name, one in _intervals(of_reader, cells, simultaneously, confidence).items():
            columns |= {name: one.estimate, f"{name}_low": one.low, f"{name}_high": one.high}
        found.append(cells.labelled(columns).select(pl.lit(reader).alias("reader"), pl.all()))
    return pl.concat(found)


def new_values(readings: pl.DataFrame, by: Sequence[str] = (), split: str = "test") -> pl.DataFrame:
    """`score` on targets that are numbers found neither in the question nor in the answer; empty without any."""
    rows = _rows(readings, split).filter("new_value")
    return score(rows, by, split) if len(rows) else score(_rows(readings, split), by, split).clear()


def choose_layer(readings: pl.DataFrame, reader: str = "tuned lens", metric: Metric = "top1") -> str:
    """The layer at which a reader does best on validation; ties go to the lower cross-entropy."""
    rows = _rows(_of(readings, reader), "val")
    by_layer = rows.group_by("layer", maintain_order=True).agg((pl.col("rank") < 1).mean().alias("top1"), "nll")
    by_layer = by_layer.with_columns(pl.col("nll").list.mean())
    keys, descending = (["nll"], [False]) if metric == "bits" else (["top1", "nll"], [True, False])
    return by_layer.sort(keys, descending=descending, maintain_order=True)["layer"][0]


def at_one_layer(
    readings: pl.DataFrame, lens: str = "tuned lens", layer: str | None = None, metric: Metric = "top1"
) -> pl.DataFrame:
    """Readings of every reader at one layer each, without its name, so that readers of different layers can be paired.

    Args:
        readings: READINGS rows.
        lens: The reader that is judged.
        layer: The lens's layer; the one at which it names most targets on validation, by default.
        metric: A control with layers is taken where it does best at this, on validation.
    """
    layers = (
        readings.filter(pl.col("layer") != "").group_by("reader", maintain_order=True).agg(pl.col("layer").unique())
    )
    chosen = {reader: choose_layer(readings, reader, metric) for reader in layers["reader"] if reader != lens}
    chosen[lens] = layer if layer is not None else choose_layer(readings, lens)
    kept = pl.col("layer") == pl.col("reader").replace_strict(chosen, default="", return_dtype=pl.String)
    return readings.filter(kept).with_columns(layer=pl.lit(""))


def skill(
    readings: pl.DataFrame,
    lens: str = "tuned lens",
    by: Sequence[str] = (),
    controls: Sequence[str] | None = None,
    split: str = "test",
    confidence: float = 0.95,
) -> pl.DataFrame:
    """The lens's skill: its difference to the best control, on the same targets.

    The control of a cell is the one that is best there on validation: at top-1 for both shares, at cross-entropy for bits. A
    control with layers is paired layer by layer (see `at_one_layer`).

    Args:
        readings: READINGS rows.
        lens: The reader that is judged.
        by: Columns whose values are the cells (layer, position); one cell, by default.
        controls: The readers it is compared with; all of `CONTROLS` that are there, by default.
        split: The split that is scored.
        confidence: Of the intervals, which are paired and clustered by problem and hold for all cells at once.

    Returns:
        One row per cell and measure (top1, top5, bits). Columns: `by`…, measure, control, n_problems, n_rows, lens_value,
        control_value, skill, low, high.
    """
    pairs = _Pairs.of(readings, lens, _present(readings, controls), ("val", split))
    tested, val = pairs.only(split), pairs.only("val")
    cells, val_cells = _Cells.of(tested.lens, by), _Cells.of(val.lens, by)
    found = []
    for metric in METRICS:
        best = _best_controls(val, val_cells, cells, "bits" if metric == "bits" else "top1")
        lens_values, control_values = tested.values(metric)
        chosen = np.take_along_axis(control_values, best[cells.codes][:, None], axis=1)[:, 0]
        lead = difference_intervals(cells.sums(lens_values - chosen), metric != "bits", confidence)
        columns = {
            "measure": [metric] * cells.n,
            "control": [tested.controls[at] for at in best],
            "n_problems": cells.n_problems,
            "n_rows": cells.n_rows,
            "lens_value": abs(cells.sums(lens_values).means()),  # bits are kept as −CE, more is better
            "control_value": abs(cells.sums(chosen).means()),
        }
        found.append(cells.labelled(columns | {"skill": lead.estimate, "low": lead.low, "high": lead.high}))
    return pl.concat(found)


# ---- rows and cells ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """Rows grouped into the cells that some columns name, in order of appearance."""

    labels: pl.DataFrame  # [cells, by]
    codes: Ints  # [rows]
    problems: Ints  # [rows]

    @classmethod
    def of(cls, rows: pl.DataFrame, by: Sequence[str]) -> _Cells:
        problems = rows["problem"].rank("dense").to_numpy().astype(np.int64)
        if not by:
            return cls(pl.DataFrame(), np.zeros(len(rows), np.int64), problems)
        labels = rows.select(by).unique(maintain_order=True)
        coded = rows.select(by).join(labels.with_row_index("cell"), on=list(by), how="left", maintain_order="left")
        return cls(labels, coded["cell"].to_numpy().astype(np.int64), problems)

    @property
    def n(self) -> int:
        return max(1, len(self.labels))

    @property
    def n_rows(self) -> Ints:
        return np.bincount(self.codes, minlength=self.n)

    @property
    def n_problems(self) -> Ints:
        return self.sums(np.zeros(len(self.codes))).n_problems

    def sums(self, values: Floats) -> ProblemSums:
        return ProblemSums.of(values, self.problems, self.codes)

    def labelled(self, columns: dict) -> pl.DataFrame:
        return pl.concat([self.labels, pl.DataFrame(columns)], how="horizontal")


def _of(readings: pl.DataFrame, reader: str) -> pl.DataFrame:
    rows = readings.filter(reader=reader)
    if rows.is_empty():
        raise BadInput(f"no reader '{reader}'; the readings are of {readings['reader'].unique().sort().to_list()}")
    return rows


def _rows(readings: pl.DataFrame, split: str) -> pl.DataFrame:
    missing = [name for name in _COLUMNS if name not in readings.columns]
    if missing:
        raise BadInput(f"not a table of readings: it lacks the columns {', '.join(missing)}")
    rows = readings.filter(split=split)
    if rows.is_empty():
        raise BadInput(f"no readings of split '{split}'; there are {readings['split'].unique().sort().to_list()}")
    if not rows["nll"].is_finite().all():
        of = rows.filter(~pl.col("nll").is_finite())["reader"].unique().to_list()
        raise BadInput(f"readings of split '{split}' have a cross-entropy that is not a number (readers: {of})")
    return rows


def _intervals(rows: pl.DataFrame, cells: _Cells, simultaneously: bool, confidence: float) -> dict[str, CellIntervals]:
    ce = cells.sums(rows["nll"].to_numpy().astype(np.float64))
    reach = stats.t.ppf(0.5 + confidence / 2, np.maximum(ce.n_problems - 1, 1))
    if simultaneously:
        reach = np.maximum(reach, critical_value(ce, confidence=confidence))
    reach = reach * ce.standard_errors()
    intervals = {"ce": CellIntervals(ce.means(), ce.means() - reach, ce.means() + reach)}
    for name, k in (("top1", 1), ("top5", 5), ("top10", 10)):
        hits = cells.sums((rows["rank"] < k).to_numpy().astype(np.float64))
        z = critical_value(hits, confidence=confidence) if simultaneously else None
        intervals[name] = clustered_wilson(hits, confidence, z)
    return intervals


# ---- pairs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """The lens's rows, and each control's reading of the same problem, position and target."""

    lens: pl.DataFrame  # [rows]
    controls: tuple[str, ...]
    ranks: Ints  # [rows, controls]
    nlls: Floats  # [rows, controls]

    @classmethod
    def of(cls, readings: pl.DataFrame, lens: str, controls: Sequence[str], splits: Sequence[str]) -> _Pairs:
        of_lens = pl.concat([_rows(_of(readings, lens), split) for split in dict.fromkeys(splits)])
        paired = [_paired(of_lens, readings.filter(reader=control), lens, control) for control in controls]
        ranks, nlls = (np.stack([each[name].to_numpy() for each in paired], axis=1) for name in ("rank", "nll"))
        return cls(of_lens, tuple(controls), ranks.astype(np.int64), nlls.astype(np.float64))

    def only(self, split: str) -> _Pairs:
        kept = (self.lens["split"] == split).to_numpy()
        return _Pairs(self.lens.filter(kept), self.controls, self.ranks[kept], self.nlls[kept])

    def values(self, metric: Metric) -> tuple[Floats, Floats]:
        """The lens's values [rows] and the controls' [rows, controls]; more is better."""
        if metric == "bits":
            return -self.lens["nll"].to_numpy().astype(np.float64) / log(2), -self.nlls / log(2)
        k = {"top1": 1, "top5": 5}[metric]
        return (self.lens["rank"] < k).to_numpy().astype(np.float64), (self.ranks < k).astype(np.float64)


def _present(readings: pl.DataFrame, controls: Sequence[str] | None) -> list[str]:
    readers = set(readings["reader"].unique())
    found = [control for control in (CONTROLS if controls is None else controls) if control in readers]
    if not found:
        raise BadInput(
            f"no control among the readers {sorted(readers)}: a lens is judged only beside one of {CONTROLS}"
        )
    return found


def _paired(lens_rows: pl.DataFrame, control_rows: pl.DataFrame, lens: str, control: str) -> pl.DataFrame:
    """The control's rank and nll for each of the lens's rows, in their order."""
    has_layers = (control_rows["layer"] != "").any()
    keys = ["problem", "layer", "position"] if has_layers else ["problem", "position"]
    if control_rows.select(keys).is_duplicated().any():
        raise BadInput(f"'{control}' has several readings of one {', '.join(keys)}")
    theirs = control_rows.select(*keys, "rank", "nll", pl.col("target").alias("their_target"))
    paired = lens_rows.select(*keys, "target").join(theirs, on=keys, how="left", maintain_order="left")
    n_missing = paired["rank"].null_count()
    if n_missing:
        first = ", ".join(map(str, paired.filter(pl.col("rank").is_null()).row(0)[: len(keys)]))
        raise BadInput(
            f"'{control}' has no reading for {n_missing:,} of the {len(paired):,} rows of '{lens}' "
            f"(first: {first}); read both on the same problems, layers and positions"
        )
    if (paired["target"] != paired["their_target"]).any():
        raise BadInput(f"'{control}' was read against other targets than '{lens}'; both need the same targets")
    return paired


def _best_controls(val: _Pairs, val_cells: _Cells, cells: _Cells, metric: Metric) -> Ints:
    """The control that does best on the validation rows of each test cell [cells]; overall, where a cell has none."""
    values = val.values(metric)[1]
    by_cell = np.stack([val_cells.sums(values[:, at]).means() for at in range(values.shape[1])], axis=1).argmax(1)
    overall = int(values.mean(0).argmax())
    found = {label: int(best) for label, best in zip(val_cells.labels.rows() or [()], by_cell, strict=True)}
    return np.array([found.get(label, overall) for label in cells.labels.rows() or [()]])
