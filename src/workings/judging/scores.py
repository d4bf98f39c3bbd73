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
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workings.errors import BadInput
from workings.judging.statistics import (
    UPPER,
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
    simultaneously: bool = False,
) -> pl.DataFrame:
    """Score every reader on the test rows: how often it names the target (top-k), and its cross-entropy.

    Args:
        readings: READINGS rows.
        by: Columns whose values are the cells (layer, position); one cell, by default.
        simultaneously: Make intervals that hold for all cells of a reader at once, to compare cells; else each holds by itself.

    Returns:
        One row per reader and cell. Columns: reader, `by`…, n_problems, n_rows, ce (nats), top1, top5, top10 (fractions),
        each of the four with _low and _high: 95 % intervals clustered by problem (Wilson for shares, Student's t for `ce`).
    """
    rows = _rows(readings, "test")
    found = []
    for reader in rows["reader"].unique(maintain_order=True):
        of_reader = rows.filter(reader=reader)
        cells = _Cells.of(of_reader, by)
        columns: dict[str, NDArray] = {"n_problems": cells.n_problems, "n_rows": cells.n_rows}
        ce = cells.sums(_values(of_reader["rank"], of_reader["nll"], "nats"))
        reach = stats.t.ppf(UPPER, np.maximum(ce.n_problems - 1, 1))
        if simultaneously:
            reach = np.maximum(reach, critical_value(ce))
        reach = reach * ce.standard_errors()
        columns |= {"ce": ce.means(), "ce_low": ce.means() - reach, "ce_high": ce.means() + reach}
        for name in ("top1", "top5", "top10"):
            hits = cells.sums(_values(of_reader["rank"], of_reader["nll"], name))
            one = clustered_wilson(hits, critical_value(hits) if simultaneously else None)
            columns |= {name: one.estimate, f"{name}_low": one.low, f"{name}_high": one.high}
        found.append(cells.labelled(columns).select(pl.lit(reader).alias("reader"), pl.all()))
    return pl.concat(found)


def new_values(readings: pl.DataFrame) -> pl.DataFrame:
    """`score` on targets that are numbers found neither in the question nor in the answer; empty without any."""
    rows = _rows(readings, "test").filter("new_value")
    return score(rows) if len(rows) else score(readings).clear()


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
) -> pl.DataFrame:
    """The lens's skill on the test rows: its difference to the best control, on the same targets.

    The control of a cell is the one that is best there on validation: at top-1 for both shares, at cross-entropy for bits. A
    control with layers is paired layer by layer (see `at_one_layer`).

    Args:
        readings: READINGS rows.
        lens: The reader that is judged.
        by: Columns whose values are the cells (layer, position); one cell, by default.
        controls: The readers it is compared with; all of `CONTROLS` that are there, by default.

    Returns:
        One row per cell and measure (top1, top5, bits). Columns: `by`…, measure, control, n_problems, n_rows, lens_value,
        control_value, skill, low, high. The 95 % intervals are paired, clustered by problem and hold for all cells at once.
    """
    readers = set(readings["reader"].unique())
    present = [control for control in (CONTROLS if controls is None else controls) if control in readers]
    if not present:
        raise BadInput(
            f"no control among the readers {sorted(readers)}: a lens is judged only beside one of {CONTROLS}"
        )
    val, test = (_rows(_of(readings, lens), split) for split in ("val", "test"))
    of_lens = pl.concat([val, test])
    paired = [_paired(of_lens, readings.filter(reader=control), lens, control) for control in present]
    ranks, nlls = (np.stack([each[name].to_numpy() for each in paired], axis=1) for name in ("rank", "nll"))
    cells, val_cells = _Cells.of(test, by), _Cells.of(val, by)
    found = []
    for metric in METRICS:
        chosen_at = "bits" if metric == "bits" else "top1"
        best = _best_controls(_values(ranks, nlls, chosen_at)[: len(val)], val_cells, cells)
        lens_values = _values(test["rank"], test["nll"], metric)
        control_values = _values(ranks, nlls, metric)[len(val) :]
        chosen = np.take_along_axis(control_values, best[cells.codes][:, None], axis=1)[:, 0]
        lead = difference_intervals(cells.sums(lens_values - chosen), are_shares=metric != "bits")
        columns = {
            "measure": [metric] * cells.n,
            "control": [present[at] for at in best],
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


def _values(rank: ArrayLike, nll: ArrayLike, measure: str) -> Floats:
    """Hits among the first k for "topK", log₂ p for "bits" (more is better), cross-entropy for "nats"; in the shape given."""
    if measure.startswith("top"):
        return (np.asarray(rank) < int(measure[3:])).astype(np.float64)
    nats = np.asarray(nll).astype(np.float64)
    return -nats / log(2) if measure == "bits" else nats


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


def _best_controls(values: Floats, val_cells: _Cells, cells: _Cells) -> Ints:
    """The control that does best on the validation rows of each test cell [cells]; overall, where a cell has none."""
    by_cell = np.stack([val_cells.sums(of_control).means() for of_control in values.T], axis=1).argmax(1)
    overall = int(values.mean(0).argmax())
    found = {label: int(best) for label, best in zip(val_cells.labels.rows() or [()], by_cell, strict=True)}
    return np.array([found.get(label, overall) for label in cells.labels.rows() or [()]])
