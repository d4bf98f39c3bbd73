"""READINGS → scores with intervals, and a lens's skill: its paired difference to each control.

A lens that names targets well may only know the data: its *skill* over a control is the difference to a predictor that never
saw the thought. No control is chosen: a lens that is equal to the best of several is found to beat the one chosen on validation in
8 to 26 % of the draws, so it is shown beside each of them. Layers are chosen on validation rows; everything is measured on test
rows, paired and clustered by problem.
READINGS is the frame of `reading.read_all`: one row per predictor (reader, subject, features, targets), problem, layer, position
and target. Shares are fractions (0.412), and so are differences of shares; `ce` is cross-entropy in nats, skill in bits is in bits.
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

from workings.config import several
from workings.errors import BadInput
from workings.judging.statistics import (
    UPPER,
    ProblemSums,
    clustered_wilson,
    critical_value,
    difference_intervals,
    with_columns,
)
from workings.reading.readings import READINGS, Predictor

Metric = Literal["top1", "bits"]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TUNED_LENS = Predictor("tuned lens")
METRICS: tuple[Metric, ...] = ("top1", "bits")


def score(
    readings: pl.DataFrame,
    by: str | Sequence[str] = (),
    simultaneously: bool = False,
) -> pl.DataFrame:
    """Score every predictor on the test rows: how often it names the target (top-k), and its cross-entropy.

    Args:
        readings: READINGS rows.
        by: Columns whose values are the cells (layer, position); one cell, by default.
        simultaneously: Make intervals that hold for all cells of a predictor at once, to compare cells; else each holds by itself.

    Returns:
        One row per predictor and cell. Columns: reader, subject, features, targets, `by`…, n_problems, n_rows, ce (nats), top1,
        top5, top10 (fractions), each of the four with _low and _high: 95 % intervals clustered by problem (Wilson for shares,
        Student's t for `ce`).
    """
    rows = _rows(readings, "test")
    found = []
    for predictor in predictors(rows):
        of_reader = rows.filter(**predictor._asdict())
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
        found.append(cells.labelled(columns).select(*_labels(predictor), pl.all()))
    return pl.concat(found)


def new_values(readings: pl.DataFrame) -> pl.DataFrame:
    """`score` on targets that are numbers found neither in the question nor in the answer; empty without any."""
    rows = _rows(readings, "test").filter("new_value")
    return score(rows) if len(rows) else score(readings).clear()


def predictors(readings: pl.DataFrame) -> list[Predictor]:
    """The predictors of a table, in order of appearance."""
    of_readers = with_columns(readings, Predictor._fields, "a table of readings, nor of scores")
    named = of_readers.select(Predictor._fields).unique(maintain_order=True)
    return [Predictor(*row) for row in named.iter_rows()]


def controls_of(readings: pl.DataFrame, lens: Predictor = TUNED_LENS) -> list[Predictor]:
    """What a lens is compared with: predictors that see no state, and the same reader on other states or other targets."""
    return [each for each in predictors(readings) if each != lens and (not each.subject or each.reader == lens.reader)]


def choose_layer(readings: pl.DataFrame, lens: Predictor = TUNED_LENS, metric: Metric = "top1") -> str:
    """The layer at which a lens does best on validation; ties go to the lower cross-entropy."""
    rows = _rows(_of(readings, lens), "val")
    by_layer = rows.group_by("layer", maintain_order=True).agg((pl.col("rank") < 1).mean().alias("top1"), "nll")
    by_layer = by_layer.with_columns(pl.col("nll").list.mean())
    keys, descending = (["nll"], [False]) if metric == "bits" else (["top1", "nll"], [True, False])
    return by_layer.sort(keys, descending=descending, maintain_order=True)["layer"][0]


def at_one_layer(
    readings: pl.DataFrame, lens: Predictor = TUNED_LENS, layer: str | None = None, metric: Metric = "top1"
) -> pl.DataFrame:
    """Readings of every predictor at one layer each, without its name, so that those of different layers can be paired.

    Args:
        readings: READINGS rows.
        lens: The predictor that is judged.
        layer: The lens's layer; the one at which it names most targets on validation, by default.
        metric: A control with layers is taken where it does best at this, on validation.
    """
    kept = []
    for each in predictors(readings):
        rows = readings.filter(**each._asdict())
        if (rows["layer"] != "").any():
            at = choose_layer(rows, each, metric if each != lens else "top1")
            rows = rows.filter(layer=layer if each == lens and layer is not None else at)
        kept.append(rows)
    return pl.concat(kept).with_columns(layer=pl.lit(""))


def skill(
    readings: pl.DataFrame,
    lens: Predictor = TUNED_LENS,
    by: str | Sequence[str] = (),
    controls: Sequence[Predictor] | None = None,
) -> pl.DataFrame:
    """The lens's skill on the test rows: its paired difference to each control, on the same targets.

    A control with layers is paired layer by layer (see `at_one_layer`). To claim that a lens names more than *every* control,
    each of these differences must exclude zero; to look for any one that does as well invites a false answer.

    Args:
        readings: READINGS rows.
        lens: The predictor that is judged.
        by: Columns whose values are the cells (layer, position); one cell, by default.
        controls: What it is compared with; all of `controls_of`, by default.

    Returns:
        One row per control, measure (top1, bits) and cell. Columns: reader, subject, features, targets of the control, `by`…,
        measure, n_problems, n_rows, lens_value, control_value, skill, low, high. The 95 % intervals are paired, clustered by
        problem and hold for all cells of one control at once.
    """
    present = controls_of(readings, lens) if controls is None else controls
    if not present:
        named = ", ".join(map(str, predictors(readings)))
        raise BadInput(f"no control among the readers ({named}): a lens is judged only beside one")
    test = _rows(_of(readings, lens), "test")
    cells = _Cells.of(test, by)
    found = []
    for control in present:
        paired = _paired(test, _rows(_of(readings, control), "test"), lens, control)
        for metric in METRICS:
            values, theirs = (_values(each["rank"], each["nll"], metric) for each in (test, paired))
            lead = difference_intervals(cells.sums(values - theirs), are_shares=metric != "bits")
            columns = {
                "measure": [metric] * cells.n,
                "n_problems": cells.n_problems,
                "n_rows": cells.n_rows,
                "lens_value": abs(cells.sums(values).means()),  # bits are kept as −CE, more is better
                "control_value": abs(cells.sums(theirs).means()),
            }
            columns |= {"skill": lead.estimate, "low": lead.low, "high": lead.high}
            found.append(cells.labelled(columns).select(*_labels(control), pl.all()))
    return pl.concat(found)


# ---- rows and cells ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """Rows grouped into the cells that some columns name, in order of appearance."""

    labels: pl.DataFrame  # [cells, by]
    codes: Ints  # [rows]
    problems: Ints  # [rows]

    @classmethod
    def of(cls, rows: pl.DataFrame, by: str | Sequence[str]) -> _Cells:
        problems = rows["problem"].rank("dense").to_numpy().astype(np.int64)
        by = several(by)
        with_columns(rows, by, "a table with such cells")
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


def _labels(predictor: Predictor) -> list[pl.Expr]:
    return [pl.lit(value).alias(name) for name, value in predictor._asdict().items()]


def _checked(readings: pl.DataFrame) -> pl.DataFrame:
    return with_columns(readings, READINGS, "a table of readings")


def _of(readings: pl.DataFrame, predictor: Predictor) -> pl.DataFrame:
    rows = _checked(readings).filter(**predictor._asdict())
    if rows.is_empty():
        raise BadInput(f"no readings by the {predictor}; there are {', '.join(map(str, predictors(readings)))}")
    return rows


def _rows(readings: pl.DataFrame, split: str) -> pl.DataFrame:
    rows = _checked(readings).filter(split=split)
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


def _paired(lens_rows: pl.DataFrame, control_rows: pl.DataFrame, lens: Predictor, control: Predictor) -> pl.DataFrame:
    """The control's rank and nll for each of the lens's rows, in their order."""
    has_layers = (control_rows["layer"] != "").any()
    keys = ["problem", *(["layer"] if has_layers else []), "position", "target"]
    if control_rows.select(keys).is_duplicated().any():
        raise BadInput(f"the {control} has several readings of one {', '.join(keys)}")
    theirs = control_rows.select(*keys, "rank", "nll")
    paired = lens_rows.select(keys).join(theirs, on=keys, how="left", maintain_order="left")
    if n_missing := paired["rank"].null_count():
        slot, first = keys[:-1], paired.filter(pl.col("rank").is_null()).head(1)
        if len(first.join(theirs, on=slot, how="semi")):
            raise BadInput(f"the {control} was read against other targets than the {lens}; both need the same targets")
        raise BadInput(
            f"the {control} has no reading for {n_missing:,} of the {len(paired):,} rows of the {lens} "
            f"(first: {', '.join(map(str, first.row(0)[:-3]))}); read both on the same problems, layers and positions"
        )
    return paired
