"""The parts of a report, as plain data: an experiment fills them, `write_report` writes them down.

Nothing here computes a statistic. Shares are fractions (0.937 is shown as 93.7 %), differences of shares too
(0.726 is shown as +72.6 points); `None` and NaN mean "not known" and are shown as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Literal

from workings.report.grids import ReadingGrid
from workings.report.shapes import same_length

Unit = Literal["text", "share", "points", "bits", "nats", "count", "p", "number"]
ConclusionKind = Literal["read", "holds", "explained by a control", "nothing read", "fails", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: `Estimate(0.937, 0.918, 0.952)`. An interval that is missing is shown as missing."""

    value: float | None
    low: float | None = None
    high: float | None = None


Cell = Estimate | str | float | int | None
Matrix = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Conclusion:
    """The answer in one sentence, and which kind of answer it is: of a reading (read … undecided) or of a claim (holds, fails)."""

    sentence: str
    kind: ConclusionKind


@dataclass(frozen=True)
class Stat:
    """One of the few numbers shown large under the verdict; `note` says n and what it stands beside."""

    label: str
    estimate: Estimate
    unit: Unit
    note: str = ""


@dataclass(frozen=True)
class Properties:
    """What a reader must know about one thing (the model, the data, the run): ordered name → value."""

    title: str
    items: Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """A column of a table. `digits` after the point default to the unit's; `signed` writes the plus sign too."""

    name: str
    unit: Unit = "text"
    digits: int | None = None
    signed: bool = False


@dataclass(frozen=True)
class Row:
    """A named row; `n` counts problems. Cells stand in the order of the table's columns."""

    name: str
    cells: Sequence[Cell]
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Named rows of numbers with their intervals.

    `highlight` names the row the table is about and `reference` the row it must beat (the best control); `drawn`
    names the column that is also drawn as dots and whiskers, beside the numbers and as a figure.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    rows_are: str = "reader"
    highlight: str | None = None
    reference: str | None = None
    drawn: str | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            same_length(f"table {self.title!r}, row {row.name!r}", "cells", row.cells, "columns", self.columns)
        names = {row.name for row in self.rows}
        for role, name in (("highlight", self.highlight), ("reference", self.reference)):
            if name is not None and name not in names:
                raise ValueError(
                    f"table {self.title!r}: {role} names the row {name!r}, which is not one of {sorted(names)}"
                )
        if self.drawn is not None:
            self.column_index(self.drawn)

    def column_index(self, name: str) -> int:
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        raise ValueError(
            f"table {self.title!r} has no column {name!r}; it has {[column.name for column in self.columns]}"
        )


@dataclass(frozen=True)
class ControlRow:
    """What a control scores in every column of a heat map: drawn under it, on the same colour scale."""

    name: str
    values: Sequence[float | None]
    lows: Sequence[float | None] | None = None
    highs: Sequence[float | None] | None = None
    n: int | Sequence[int] | None = None


@dataclass(frozen=True)
class HeatMap:
    """Rows (layers) × columns (positions) of scores, all of shape [rows][columns].

    `n` counts problems, for the whole map or for each cell (empty slots are masked, so positions may differ).
    `differs` marks the cells whose interval excludes the control's value; `control` says which control and what kind of
    interval that is. `limits` fixes the ends of the colour scale, so that two maps can be compared by eye.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Matrix
    n: int | Sequence[Sequence[int]]
    lows: Matrix | None = None
    highs: Matrix | None = None
    unit: Unit = "share"
    digits: int | None = None
    scale: Literal["sequential", "diverging"] = "sequential"
    limits: tuple[float, float] | None = None
    differs: Sequence[Sequence[bool]] | None = None
    control: str = ""
    controls: Sequence[ControlRow] = ()
    caption: str = ""
    rows_are: str = "layer"
    columns_are: str = "position"

    def __post_init__(self) -> None:
        if not len(self.rows) or not len(self.columns):
            raise ValueError(f"heat map {self.title!r} has no cells")
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"heat map {self.title!r}: the limits {self.limits} do not ascend")
        for name in ("values", "lows", "highs", "n", "differs"):
            matrix = getattr(self, name)
            if matrix is None or isinstance(matrix, Integral):
                continue
            same_length(f"heat map {self.title!r}", name, matrix, "rows", self.rows)
            for row, values in zip(self.rows, matrix, strict=True):
                same_length(f"heat map {self.title!r}, row {row!r}", name, values, "columns", self.columns)
        for control in self.controls:
            for name in ("values", "lows", "highs", "n"):
                values = getattr(control, name)
                if values is not None and not isinstance(values, Integral):
                    where = f"heat map {self.title!r}, control {control.name!r}"
                    same_length(where, name, values, "columns", self.columns)


@dataclass(frozen=True)
class Axis:
    """`Axis("validation loss", "nats")`; `log` for a logarithmic axis."""

    name: str
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class Series:
    """One curve: y over x, with an interval where there is one. Control curves are drawn dashed and grey."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    control: bool = False

    def __post_init__(self) -> None:
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is not None:
                same_length(f"series {self.name!r}", name, values, "x", self.x)


@dataclass(frozen=True)
class Curves:
    """Curves over one x axis; `chosen` marks the x that was selected (the epoch kept, say)."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    caption: str = ""
    chosen: float | None = None


@dataclass(frozen=True)
class Samples:
    """Some problems to look at one by one. Say in the caption how they were picked."""

    title: str
    grids: Sequence[ReadingGrid]
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by blank lines."""

    title: str
    body: str


Section = Table | HeatMap | Curves | Samples | Text


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from and how to make them again.

    Args:
        runs: The run directories.
        digests: What was read, name → digest.
        versions: Package → version.
        commands: Shell commands that repeat the runs.
        when: The time the first run started.
    """

    runs: Sequence[str]
    digests: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    when: str = ""

    @classmethod
    def of_runs(
        cls, config_digests: Mapping[Path, str], versions: Mapping[str, str], command: str, when: str
    ) -> Provenance:
        """Build it for one command that made all of the runs: `config_digests` maps each run directory to its digest."""
        digests = {folder.name: digest for folder, digest in config_digests.items()}
        return cls([str(folder) for folder in config_digests], digests, versions, [command], when)


@dataclass(frozen=True)
class Report:
    """A whole report, in the order it is read."""

    title: str
    question: str
    conclusion: Conclusion
    sections: Sequence[Section]
    provenance: Provenance
    headline: Sequence[Stat] = ()
    warnings: Sequence[str] = ()
    properties: Sequence[Properties] = ()
    limits: Sequence[str] = ()
