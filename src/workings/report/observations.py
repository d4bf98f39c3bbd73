"""Sections → CSV bytes: the numbers behind each table and figure, unrounded, one observation a line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from numbers import Real

from workings.report.cells import heat_rows
from workings.report.scales import as_estimate
from workings.report.sections import Curves, HeatMap, Samples, Section, Table
from workings.report.wording import axis_name, printable, visible


def csv_of(section: Section) -> bytes | None:
    """The section's numbers, or None for a text. Shares stay fractions; an unknown value is an empty field."""
    if isinstance(section, HeatMap):
        lines = _heat_map_lines(section)
    elif isinstance(section, Curves):
        lines = _curve_lines(section)
    elif isinstance(section, Table):
        lines = _table_lines(section)
    elif isinstance(section, Samples):
        lines = _sample_lines(section)
    else:
        return None
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_plain(value) for value in line] for line in lines)
    return out.getvalue().encode()


def _heat_map_lines(heat_map: HeatMap) -> Iterator[Sequence]:
    yield heat_map.rows_are, heat_map.columns_are, "value", "low", "high", "n", "differs"
    for row in heat_rows(heat_map):
        for cell in row.cells:
            yield cell.row, cell.column, cell.value, cell.low, cell.high, cell.n, cell.differs


def _curve_lines(curves: Curves) -> Iterator[Sequence]:
    yield "series", axis_name(curves.x), axis_name(curves.y), "low", "high"
    for series in curves.series:
        for at, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
            yield series.name, x, y, *(None if side is None else side[at] for side in (series.low, series.high))


def _table_lines(table: Table) -> Iterator[Sequence]:
    is_text = [all(isinstance(row.cells[at], str) for row in table.rows) for at in range(len(table.columns))]
    header = [table.rows_are, "n"]
    for column, text in zip(table.columns, is_text, strict=True):
        header += [column.name] if text else [column.name, f"{column.name} low", f"{column.name} high"]
    yield header
    for row in table.rows:
        line: list[object] = [row.name, row.n]
        for value, text in zip(row.cells, is_text, strict=True):
            parts = as_estimate(value)
            line += [value] if text else [value if isinstance(value, str) else parts.value, parts.low, parts.high]
        yield line


def _sample_lines(samples: Samples) -> Iterator[Sequence]:
    yield "problem", "layer", "position", "guess", "token", "probability", "is_target"
    for at, grid in enumerate(samples.grids, 1):
        for layer, row in zip(grid.layers, grid.cells, strict=True):
            for position, reading in zip(grid.positions, row, strict=True):
                for rank, guess in enumerate(reading.guesses, 1):
                    token = visible(guess.token)
                    yield grid.problem or at, layer, position, rank, token, guess.probability, guess.is_target


def _plain(value: object) -> object:
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return ""
    return printable(value) if isinstance(value, str) else value
