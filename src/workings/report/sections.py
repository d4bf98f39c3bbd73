"""The parts of a report, as plain data: an experiment fills them in and `write_report` writes the files.

Nothing here computes a statistic. Shares are fractions (0.937 is shown as 93.7 %), and so are differences of shares
(0.726 is shown as +72.6 points). `None` and NaN mean "not known" and are shown as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

Unit = Literal["text", "share", "points", "bits", "nats", "count", "p", "number"]
ConclusionKind = Literal[
    "read", "read in part", "not read", "not judged", "holds", "explained by a control", "fails", "undecided"
]
BadgeKind = Literal["yes", "in part", "no", "undecided", "not asked"]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval: `Estimate(0.937, 0.918, 0.952)`. A missing interval is shown as missing."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Badge:
    """A cell that answers in words: `Badge("beyond its numbers one by one", "in part")` is shown as `◐ beyond its numbers …`.

    Args:
        text: What is answered.
        kind: Which sign and colour go with it; neither says more than the words do.
        note: Small print under it.
    """

    text: str
    kind: BadgeKind
    note: str = ""


Cell = Estimate | Badge | str | float | int | None
Matrix = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Conclusion:
    """The answer in one sentence and its kind: of a reading (read … not judged), of a claim (holds … fails), or undecided."""

    sentence: str
    kind: ConclusionKind


@dataclass(frozen=True)
class Stat:
    """One of the few numbers shown large under the conclusion; `note` gives n and what it is compared with."""

    label: str
    estimate: Estimate
    unit: Unit
    note: str = ""


@dataclass(frozen=True)
class Properties:
    """Properties that a reader must know of one thing (the model, the data, the run), as name → value in the order shown."""

    title: str
    items: Mapping[str, str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: The header.
        unit: How its values are written.
        digits: Digits after the point; None means the usual number for the unit.
        signed: Write the plus sign too.
    """

    name: str
    unit: Unit = "text"
    digits: int | None = None
    signed: bool = False


@dataclass(frozen=True)
class Row:
    """A named row; `n` counts items. The cells are in the order of the table's columns."""

    name: str
    cells: Sequence[Cell]
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Named rows of numbers with their intervals.

    Args:
        rows_are: What a row is, as the header of the names.
        highlight: The name of the row that the table is about.
        drawn: The name of the column that is also drawn as dots and whiskers, beside the numbers and as a figure.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    rows_are: str = "reader"
    highlight: str | None = None
    drawn: str | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            same_length(f"table {self.title!r}, row {row.name!r}", "cells", row.cells, "columns", self.columns)
        names = {row.name for row in self.rows}
        if self.highlight is not None and self.highlight not in names:
            raise ValueError(
                f"table {self.title!r}: highlight names the row {self.highlight!r}, which is not one of {sorted(names)}"
            )
        if self.drawn is not None:
            self.column_index(self.drawn)

    @property
    def has_counts(self) -> bool:
        """True if any row says how many items it counts."""
        return any(row.n is not None for row in self.rows)

    @property
    def has_badges(self) -> bool:
        """True if any cell is a badge; a narrow page shows such a table as a card a row."""
        return any(isinstance(value, Badge) for row in self.rows for value in row.cells)

    def column_index(self, name: str) -> int:
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        raise ValueError(
            f"table {self.title!r} has no column {name!r}; it has {[column.name for column in self.columns]}"
        )


@dataclass(frozen=True)
class ControlRow:
    """The scores of a control in every column of a heat map: drawn under the map, on the same colour scale."""

    name: str
    values: Sequence[float | None]
    lows: Sequence[float | None] | None = None
    highs: Sequence[float | None] | None = None
    n: int | Sequence[int] | None = None


@dataclass(frozen=True)
class HeatCell:
    """One score of a heat map. `differs` is None where nothing was compared."""

    row: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    differs: bool | None


@dataclass(frozen=True)
class HeatRow:
    """A row of a heat map: one of its own, or a control's."""

    name: str
    is_control: bool
    cells: Sequence[HeatCell]


@dataclass(frozen=True)
class HeatMap:
    """Scores by row (layer) and column (position), all of shape [rows][columns].

    Args:
        n: Problems, for the whole map or for each cell (empty slots are masked, so positions may differ).
        differs: The cells whose interval excludes the control's value; None where nothing was compared.
        control: Which control that is, and what kind of interval.
        limits: The ends of the colour scale, so that two maps can be compared by eye.
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

    def all_rows(self) -> list[HeatRow]:
        """The map's own rows, then its controls'."""
        sides = (self.values, self.lows, self.highs, self.n, self.differs)
        own = [
            HeatRow(name, False, self._cells(name, *(_at(side, i) for side in sides)))
            for i, name in enumerate(self.rows)
        ]
        return own + [
            HeatRow(one.name, True, self._cells(one.name, one.values, one.lows, one.highs, one.n, None))
            for one in self.controls
        ]

    def _cells(self, row: str, *sides: object) -> list[HeatCell]:
        return [HeatCell(row, column, *(_at(side, j) for side in sides)) for j, column in enumerate(self.columns)]


def _at(values: Any, index: int) -> Any:
    """One of the values, or the number that stands for all of them."""
    return values if values is None or isinstance(values, Integral) else values[index]


@dataclass(frozen=True)
class Axis:
    """`Axis("validation loss", "nats")`; `log` for a logarithmic axis."""

    name: str
    unit: str = ""
    log: bool = False


@dataclass(frozen=True)
class Series:
    """One curve: y over x, with a band where there is one. Control curves are drawn dashed and grey."""

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
    """Curves over one x axis; `chosen` marks the x that was selected, for example the epoch that was kept."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    caption: str = ""
    chosen: float | None = None


@dataclass(frozen=True)
class Panel:
    """One axis of `Intervals`, with an estimate for each row and series.

    Args:
        name: What is measured.
        unit: How it is written.
        values: Estimates [rows][series].
        lines: Values on the axis that mean something, by name.
    """

    name: str
    unit: Unit
    values: Sequence[Sequence[Estimate]]
    lines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Intervals:
    """Estimates with their intervals as dots and whiskers: for each row one of each series, on one axis or two side by side.

    Args:
        rows: Names of the rows, the first at the top.
        series: Names of the series, told apart by colour and shape.
        controls: Those of them that are drawn as controls.
        rows_are: What a row is.
    """

    title: str
    rows: Sequence[str]
    series: Sequence[str]
    panels: Sequence[Panel]
    caption: str = ""
    controls: Sequence[str] = ()
    rows_are: str = "target"

    def __post_init__(self) -> None:
        for panel in self.panels:
            where = f"intervals {self.title!r}, {panel.name!r}"
            same_length(where, "values", panel.values, "rows", self.rows)
            for name, row in zip(self.rows, panel.values, strict=True):
                same_length(f"{where}, row {name!r}", "values", row, "series", self.series)


@dataclass(frozen=True)
class Guess:
    """A token (decoded text, possibly blank or broken) and its probability under the full softmax."""

    token: str
    probability: float
    is_target: bool = False

    def __post_init__(self) -> None:
        if self.probability > 1.0 + 1e-6 or self.probability < 0.0:
            raise ValueError(f"{self.token!r} has probability {self.probability}; a probability lies between 0 and 1")


@dataclass(frozen=True)
class Reading:
    """The best guesses of a lens from one state, and the rank and probability of the target.

    `target_rank` counts the tokens with a larger logit: 0 is the first guess.
    """

    guesses: Sequence[Guess]
    target_rank: int | None = None
    target_probability: float | None = None

    @property
    def is_hit(self) -> bool:
        """True if the first guess is the target."""
        return bool(self.guesses) and self.guesses[0].is_target

    def target_is_elsewhere(self) -> bool:
        """True if the target's rank is known and none of the guesses is the target."""
        return self.target_rank is not None and not any(guess.is_target for guess in self.guesses)


@dataclass(frozen=True)
class ReadingGrid:
    """One problem read at every place: `cells[layer][position]`; `targets` has one token a position (None: empty slot)."""

    question: str
    chain: str
    gold: str
    answer: str
    correct: bool
    layers: Sequence[str]
    positions: Sequence[str]
    cells: Sequence[Sequence[Reading]]
    targets: Sequence[str | None] = ()
    problem: str = ""

    def __post_init__(self) -> None:
        where = f"reading grid of {self.question[:40]!r}"
        same_length(where, "cells", self.cells, "layers", self.layers)
        for layer, row in zip(self.layers, self.cells, strict=True):
            same_length(f"{where}, layer {layer!r}", "cells", row, "positions", self.positions)
        if self.targets:
            same_length(where, "targets", self.targets, "positions", self.positions)


@dataclass(frozen=True)
class Samples:
    """Some problems to look at one by one. The caption says how they were picked."""

    title: str
    grids: Sequence[ReadingGrid]
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by blank lines."""

    title: str
    body: str


Block = Table | HeatMap | Intervals | Curves | Samples | Text


@dataclass(frozen=True)
class Fold:
    """Sections behind one heading, closed until a reader opens it: one entry in the contents, one chapter in Markdown.

    The titles of its sections need not repeat its own.

    Args:
        title: The heading, which stays in sight.
        sections: What it opens to.
        caption: What it says, in a sentence that stays in sight too.
    """

    title: str
    sections: Sequence[Block]
    caption: str = ""


Section = Block | Fold


@dataclass(frozen=True)
class Provenance:
    """The origin of the numbers and the commands that make them again.

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


def same_length(place: str, name: str, given: Sequence, of: str, expected: Sequence) -> None:
    """Raise ValueError unless the lengths agree; otherwise the report would show a number in the wrong place."""
    if len(given) != len(expected):
        raise ValueError(f"{place}: {len(given)} {name} for {len(expected)} {of}")
