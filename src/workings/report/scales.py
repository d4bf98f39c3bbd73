"""Sections → the ends and ticks of their axes, shared by page and figures so that both show the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from workings.report.colours import colour
from workings.report.sections import Cell, Curves, Estimate, HeatMap, Series, Table, Unit
from workings.report.wording import DASH, axis_name, is_known, number

_ROUND = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)

Ends = tuple[float, float]


def ends_of(heat_map: HeatMap) -> Ends:
    """The values at the two ends of the colour scale: 0 to a round number, or symmetrical about 0 when diverging."""
    if heat_map.limits is not None:
        return heat_map.limits
    control_values = [control.values for control in heat_map.controls]
    values = known(value for row in (*heat_map.values, *control_values) for value in row)
    furthest = round_up(max((abs(value) for value in values), default=0.0))
    if heat_map.scale == "diverging":
        return -furthest, furthest
    lowest = min(values, default=0.0)
    return (-round_up(-lowest) if lowest < 0 else 0.0), round_up(max(values, default=1.0))


def shade(value: float | None, heat_map: HeatMap) -> str | None:
    """The colour of a value in this map, or None where there is no value to colour."""
    if value is None or not math.isfinite(value):
        return None
    ends = ends_of(heat_map)
    return colour((value - ends[0]) / (ends[1] - ends[0]), heat_map.scale)


def domain_of(table: Table) -> Ends:
    """The axis of the drawn column: wide enough for every interval, and from 0 where 0 means something."""
    values = known(value for row in drawn_cells(table) for value in (row.value, row.low, row.high))
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if table.columns[table.column_index(table.drawn or "")].unit in ("share", "points", "bits"):
        return (-round_up(-low) if low < 0 else 0.0), round_up(high) if high > 0 else 0.0 if low < 0 else 1.0
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def drawn_cells(table: Table) -> list[Estimate]:
    """The drawn column's cells, each as an Estimate (text counts as not known)."""
    index = table.column_index(table.drawn or "")
    return [as_estimate(row.cells[index]) for row in table.rows]


def as_estimate(value: Cell) -> Estimate:
    if isinstance(value, Estimate):
        return value
    return Estimate(None if isinstance(value, str) else value)


def ticks(ends: Ends, n: int = 4) -> list[float]:
    """About `n` round numbers within the ends, ascending."""
    span = ends[1] - ends[0]
    if span <= 0:
        return [ends[0]]
    magnitude = 10.0 ** math.floor(math.log10(span / n))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= span / n * 0.8)
    first = math.ceil(ends[0] / step - 1e-9)
    return [index * step for index in range(first, math.floor(ends[1] / step + 1e-9) + 1)]


def tick_labels(marks: Sequence[float], unit: Unit) -> list[str]:
    """The ticks as text, with as few digits as keep them apart."""
    labels: list[str] = []
    for digits in range(5):
        labels = [number(mark, unit, digits) for mark in marks]
        if len(set(labels)) == len(marks):
            break
    return labels


def along(value: float | None, ends: Ends) -> str:
    """Where a value lies between the ends, in per cent from the left, as the page writes it."""
    if value is None:
        return "0"
    return f"{100 * min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0]))):.2f}".rstrip("0").rstrip(".")


def curve_header(curves: Curves) -> list[str]:
    """The columns of a curve in short."""
    return [f"{axis_name(curves.y)} by {axis_name(curves.x)}", "first", "lowest", "highest", "last", "points"]


def curve_lines(curves: Curves) -> list[list[str]]:
    """Each series in short: its first, lowest, highest and last value, and at which x the extremes stand."""
    return [_in_short(series) for series in curves.series]


def _in_short(series: Series) -> list[str]:
    points = [(y, x) for x, y in zip(series.x, series.y, strict=True) if y is not None and math.isfinite(y)]
    if not points:
        return [series.name, DASH, DASH, DASH, DASH, "0"]
    low, high = min(points), max(points)
    extremes = [f"{y:.4g} at {x:g}" for y, x in (low, high)]
    return [series.name, f"{points[0][0]:.4g}", *extremes, f"{points[-1][0]:.4g}", f"{len(points):,}"]


def round_up(value: float) -> float:
    """The next round number: 0.213 → 0.25, 0.937 → 1, 0 → 1."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(value))
    return next(size * magnitude for size in _ROUND if size * magnitude >= value * (1 - 1e-9))


def known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and is_known(value) and math.isfinite(value)]


def thinned(indices: Sequence[int], most: int) -> list[int]:
    """At most `most` of the indices, evenly, always with the first and the last."""
    if len(indices) <= most:
        return list(indices)
    return [indices[round(step * (len(indices) - 1) / (most - 1))] for step in range(most)]
