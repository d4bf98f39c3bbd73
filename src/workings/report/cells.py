"""A heat map, its controls included → rows of cells: one walk for page, text, figure and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from workings.report.sections import ControlRow, HeatMap
from workings.report.wording import interval, is_known, number, suffix


@dataclass(frozen=True)
class HeatCell:
    """One score of a heat map. `differs` is None where nothing was compared."""

    row: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    differs: bool | None = None

    def says(self, heat_map: HeatMap) -> str:
        """`block3, t3: 93.7 % [91.8, 95.2], n = 1,000, differs from the control`: the cell in full, as one line."""
        unit, digits = heat_map.unit, heat_map.digits
        parts = [f"{self.row}, {self.column}: {number(self.value, unit, digits)} {suffix(unit)}".rstrip()]
        if is_known(self.value):
            parts[0] += f" {interval(self.low, self.high, unit, digits)}"
        if self.n is not None:
            parts.append(f"n = {self.n:,}")
        if self.differs:
            parts.append("differs from the control")
        return ", ".join(parts)


@dataclass(frozen=True)
class HeatRow:
    name: str
    is_control: bool
    cells: Sequence[HeatCell]


def heat_rows(heat_map: HeatMap) -> list[HeatRow]:
    """The map's own rows, then its controls'."""
    own = [HeatRow(name, False, _own_cells(heat_map, index)) for index, name in enumerate(heat_map.rows)]
    return own + [HeatRow(control.name, True, _control_cells(heat_map, control)) for control in heat_map.controls]


def n_of_map(heat_map: HeatMap) -> str:
    """`1,000 problems`, or `412 to 1,000 problems` where the cells differ."""
    counts = [cell.n or 0 for row in heat_rows(heat_map) if not row.is_control for cell in row.cells]
    fewest, most = min(counts), max(counts)
    return f"{most:,} problems" if fewest == most else f"{fewest:,} to {most:,} problems"


def _own_cells(heat_map: HeatMap, i: int) -> list[HeatCell]:
    def at(matrix, j: int):
        return matrix if matrix is None or isinstance(matrix, Integral) else matrix[i][j]

    sides = (heat_map.values, heat_map.lows, heat_map.highs, heat_map.n, heat_map.differs)
    return [
        HeatCell(heat_map.rows[i], column, *(at(side, j) for side in sides))
        for j, column in enumerate(heat_map.columns)
    ]


def _control_cells(heat_map: HeatMap, control: ControlRow) -> list[HeatCell]:
    def at(values, j: int):
        return values if values is None or isinstance(values, Integral) else values[j]

    sides = (control.values, control.lows, control.highs, control.n)
    return [
        HeatCell(control.name, column, *(at(side, j) for side in sides)) for j, column in enumerate(heat_map.columns)
    ]
