"""Sections → figures as SVG bytes, drawn by matplotlib in one style, and the numbers behind them as CSV bytes.

The page takes its colours, axis ends and ticks from here too, so that page and figures show the same.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator

from workings.report.sections import (
    Axis,
    Badge,
    Block,
    Cell,
    Curves,
    Estimate,
    Fold,
    HeatMap,
    HeatRow,
    Intervals,
    Panel,
    Report,
    Samples,
    Section,
    Series,
    Table,
    Text,
    Unit,
)
from workings.report.wording import axis_name, n_of_map, number, printable, slug, suffix, visible

INK, MUTED, EDGE, GRID, EMPTY, PAPER = "#1d232b", "#5c6773", "#9aa5b1", "#e6eaef", "#f1f3f5", "#ffffff"
# Okabe & Ito's colours that hold up on white, in an order that keeps neighbours apart; dashes repeat the distinction.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#8e4a9e", "#a87400", "#333333")
CONTROLS = ("#2f363e", "#8a939d", "#5c6773", "#a87f5a")  # greys, and one that is nearly: told apart by their dashes too
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)))
# Steps of equal length in OKLab (Ottosson 2020), a space in which equal distances look equal; tests/report measures
# them. Lightness alone orders the sequential scale, so it survives colour blindness and a grey printer. None of
# matplotlib's own colour maps has steps as even.
_STOPS = {
    "sequential": "fcfbe6 f1f6dc e6f2d2 dcedc8 d1e9be c4e4bd b7dfbc aad9bb 9dd4ba 8fcfb9 81cab8 76c4b8 6dbdb9 65b6b9 5cafb9 "
    "53a9b9 4aa2b9 409bb8 3994b7 368cb4 3485b1 327dae 3076ab 2e6ea7 2c67a4 2a5f9e 295897 275190 264a89 244382 223d7c "
    "213675 1f2f6e",
    "diverging": "70310a 7e3a0d 8b4411 994e15 a85818 b6621c c46d24 cc7b38 d4894a dd985a e5a66b ecb47b f1c291 f3d0aa f5ddc3 "
    "f7eadb f6f5f1 e3eaee d0e0eb bdd5e8 aacbe4 97c0e0 87b4d8 77a9d1 669dc9 5692c2 4486ba 397aaf 326ea3 2b6297 23568b "
    "1d4a80 163f74",
}
SCALES = {name: [f"#{stop}" for stop in stops.split()] for name, stops in _STOPS.items()}
_COLOUR_MAPS = {
    name: LinearSegmentedColormap.from_list(name, stops, N=257, bad=EMPTY) for name, stops in SCALES.items()
}

MOST_POINTS = 600  # of a curve, as drawn; its CSV has them all
_LOCATOR = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10])  # about four round numbers on every axis
_STYLE = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the layout is the same on every machine
    "svg.fonttype": "none",  # text stays text: it can be searched, and the page's own font applies
    "text.parse_math": False,  # a title may hold a price
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": EDGE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}

Ends = tuple[float, float]


@dataclass(frozen=True)
class Part:
    """A section with its files; of a fold, its sections too. Its name is its anchor on the page: `02-skill-by-layer`."""

    name: str
    section: Section
    svg: bytes | None = None
    csv: bytes | None = None
    parts: Sequence[Part] = ()

    @property
    def files(self) -> dict[str, bytes]:
        """Path inside the report's folder → content; without those of the sections in a fold."""
        contents = {"svg": self.svg, "csv": self.csv}
        return {f"figures/{self.name}.{kind}": content for kind, content in contents.items() if content is not None}


def parts_of(report: Report) -> list[Part]:
    """Draw every section of a report. The same data give the same bytes."""
    parts = []
    for at, section in enumerate(report.sections, 1):
        name = f"{at:02d}-{slug(section.title)}"
        if isinstance(section, Fold):
            inside = [
                _drawn(f"{at:02d}-{within:02d}-{slug(f'{section.title} {one.title}')}", one)
                for within, one in enumerate(section.sections, 1)
            ]
            parts.append(Part(name, section, parts=inside))
        else:
            parts.append(_drawn(name, section))
    return parts


def every_part(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts, and after each fold those inside it."""
    for part in parts:
        yield part
        yield from part.parts


def _drawn(name: str, section: Block) -> Part:
    return Part(name, section, _svg(section, name), _csv(section))


# ── colours, ends and ticks ──────────────────────────────────────────────────────────────────────────────────────────


def colour(fraction: float, scale: str = "sequential") -> str:
    """The colour at `fraction` of the way along a scale (clamped to its ends), as `#rrggbb`."""
    return to_hex(_COLOUR_MAPS[scale](min(1.0, max(0.0, float(fraction)))))


def shade(value: float | None, heat_map: HeatMap) -> str | None:
    """The colour of a value in this map, or None where there is no value to colour."""
    if value is None or not math.isfinite(value):
        return None
    low, high = ends_of(heat_map)
    return colour((value - low) / (high - low), heat_map.scale)


def ink_on(background: str) -> str:
    """Black or white, whichever stands out more; never less than 4.5 : 1 (WCAG 2.2, 1.4.3)."""
    parts = [int(background[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def ends_of(heat_map: HeatMap) -> Ends:
    """The values at the two ends of the colour scale: round, and symmetrical about 0 when it is diverging."""
    if heat_map.limits is not None:
        return heat_map.limits
    values = _finite(cell.value for row in heat_map.all_rows() for cell in row.cells)
    if heat_map.scale == "diverging":
        return round_ends([sign * value for value in values for sign in (-1, 1)])
    return round_ends([0.0, *values])


def domain_of(table: Table) -> Ends:
    """The ends of the drawn column's axis: round, wide enough for every interval, with 0 where 0 means something."""
    values = _finite(value for cell in drawn_cells(table) for value in (cell.value, cell.low, cell.high))
    unit = table.columns[table.column_index(table.drawn or "")].unit
    return round_ends([0.0, *values] if unit in ("share", "points", "bits") else values)


def round_ends(values: Sequence[float]) -> Ends:
    """Round numbers around all of the values, not far beyond them; one unit apart where there is one value or none."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    marks = _LOCATOR.tick_values(low, high if high > low else low + 1.0)
    return float(marks[0]), float(marks[-1])


def drawn_cells(table: Table) -> list[Estimate]:
    """The drawn column's cells, each as an Estimate (text counts as not known)."""
    index = table.column_index(table.drawn or "")
    return [_as_estimate(row.cells[index]) for row in table.rows]


def ticks(ends: Ends) -> list[float]:
    """About four round numbers within the ends, ascending."""
    marks = _LOCATOR.tick_values(*ends)
    slack = 1e-9 * (ends[1] - ends[0])
    return [float(mark) for mark in marks if ends[0] - slack <= mark <= ends[1] + slack]


def tick_labels(marks: Sequence[float], unit: Unit) -> list[str]:
    """The ticks as text, with as few digits as keep them apart."""
    for digits in range(5):
        labels = [number(mark, unit, digits) for mark in marks]
        if len(set(labels)) == len(marks):
            break
    return labels


def _as_estimate(value: Cell) -> Estimate:
    return value if isinstance(value, Estimate) else Estimate(None if isinstance(value, (str, Badge)) else value)


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


# ── SVG ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _svg(section: Block, name: str) -> bytes | None:
    if isinstance(section, HeatMap):
        height = 0.24 if len(section.rows) > 12 else 0.34
        inches = 1.9 + 0.68 * len(section.columns), 1.0 + height * (len(section.rows) + 1.3 * len(section.controls))
        draw = partial(_draw_heat_map, section)
    elif isinstance(section, Curves):
        inches, draw = (5.6, 3.3), partial(_draw_curves, section)
    elif isinstance(section, Intervals):
        rows = len(section.rows) * (0.12 * len(section.series) + 0.12)
        inches, draw = (3.2 + 2.6 * (len(section.panels) - 1), 1.0 + rows), partial(_draw_intervals, section)
    elif isinstance(section, Table) and section.drawn is not None:
        # The names of the rows must leave the axes about half of the width.
        width = max(5.6, 2.8 + 0.08 * max((len(row.name) for row in section.rows), default=0))
        inches, draw = (width, 0.75 + 0.3 * len(section.rows)), partial(_draw_column, section)
    else:
        return None
    style: Any = {**_STYLE, "svg.hashsalt": name}  # matplotlib types the keys as a list of literals
    with rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        out = io.BytesIO()
        # No metadata: its date would make equal reports differ.
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()


def _draw_heat_map(heat_map: HeatMap, figure: Figure) -> None:
    axes, rows, colours = figure.add_subplot(), heat_map.all_rows(), _COLOUR_MAPS[heat_map.scale]
    tops = [index + (0.3 if row.is_control else 0.0) for index, row in enumerate(rows)]
    norm = Normalize(*ends_of(heat_map))
    for top, row in zip(tops, rows, strict=True):
        values = np.ma.masked_invalid(np.array([[cell.value for cell in row.cells]], dtype=float))
        axes.pcolormesh(
            np.arange(len(row.cells) + 1),
            [top, top + 1],
            values,
            cmap=colours,
            norm=norm,
            edgecolor=PAPER,
            linewidth=0.8,
        )
        _write_cells(axes, top, row, heat_map)
    axes.set(xlim=(0, len(heat_map.columns)), ylim=(tops[-1] + 1, 0))
    axes.set_yticks([top + 0.5 for top in tops], [printable(row.name) for row in rows])
    middles = [left + 0.5 for left in range(len(heat_map.columns))]
    axes.set_xticks(middles, [printable(name) for name in heat_map.columns])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    # A figure on its own must still say n and what the marked corner means.
    mark = f"Marked corner: differs from {heat_map.control or 'the control'}." if heat_map.differs is not None else ""
    axes.set_xlabel(printable(fill(f"{n_of_map(heat_map)}. {mark}", 15 * len(heat_map.columns))), fontsize=8)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    bar = figure.colorbar(
        axes.collections[0], ax=axes, location="right", fraction=0.045, pad=0.03, aspect=18, shrink=0.9
    )
    marks = ticks(ends_of(heat_map))
    bar.set_ticks(marks, labels=tick_labels(marks, heat_map.unit))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    bar.set_label(suffix(heat_map.unit))


def _write_cells(axes: Axes, top: float, row: HeatRow, heat_map: HeatMap) -> None:
    """The number of every cell, and a corner where it differs from the control."""
    for left, cell in enumerate(row.cells):
        background = shade(cell.value, heat_map)
        ink = ink_on(background) if background else MUTED
        if cell.differs:
            x, y = left + 0.985, top + 0.03
            axes.add_patch(Polygon([(x - 0.13, y), (x, y), (x, y + 0.28)], facecolor=ink, linewidth=0))
        text = number(cell.value, heat_map.unit, heat_map.digits)
        weight = "bold" if cell.differs else "normal"
        middle = (left + 0.5, top + 0.5)
        axes.text(*middle, text, ha="center", va="center_baseline", color=ink, fontsize=8.5, fontweight=weight)


def _draw_curves(curves: Curves, figure: Figure) -> None:
    axes = figure.add_subplot()
    marker = "o" if all(len(series.x) <= 24 for series in curves.series) else None
    for index, series in enumerate(curves.series):
        _draw_series(axes, series, index, marker)
    if curves.chosen is not None:
        axes.axvline(curves.chosen, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(
            "chosen",
            (curves.chosen, 1.0),
            (4, -2),
            ("data", "axes fraction"),
            "offset points",
            va="top",
            fontsize=8.5,
            color=MUTED,
        )
    axes.set(xlabel=axis_name(curves.x), ylabel=axis_name(curves.y))
    axes.margins(x=0.03)
    if curves.x.log:
        axes.set_xscale("log")
    elif all(float(x).is_integer() for series in curves.series for x in series.x):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))  # there is no epoch 2.5
    if curves.y.log:
        axes.set_yscale("log")
    elif all(y >= 0 for series in curves.series for y in _finite(series.y)):
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # there is no share below 0
    if len(curves.series) > 1:
        columns = min(3, len(curves.series))
        figure.legend(loc="outside upper left", ncols=columns, fontsize=8.5, handlelength=2.4, columnspacing=1.4)


def _draw_series(axes: Axes, series: Series, index: int, marker: str | None) -> None:
    n = len(series.x)
    kept = np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(int))

    def drawn(values: Sequence[float | None]) -> np.ndarray:
        return np.array(values, dtype=float)[kept]  # None becomes NaN

    colours, dashes = (CONTROLS, DASHES[1:]) if series.control else (SERIES, DASHES)
    ink, dash = colours[index % len(colours)], dashes[index % len(dashes)]
    x, y = drawn(series.x), drawn(series.y)
    axes.plot(x, y, color=ink, linestyle=dash, marker=marker, markersize=3.2, label=printable(series.name))
    if series.low is not None and series.high is not None:
        axes.fill_between(x, drawn(series.low), drawn(series.high), color=ink, alpha=0.15, linewidth=0)


MARKERS = "osD^vP"


def _draw_intervals(section: Intervals, figure: Figure) -> None:
    """The panels side by side, which share their rows; series below each other in a row, the first at the top."""
    every = figure.subplots(1, len(section.panels), sharey=True, squeeze=False)[0]
    n = len(section.series)
    inks = _inks(section)
    for axes, panel in zip(every, section.panels, strict=True):
        factor = 100 if panel.unit in ("share", "points") else 1
        for value in panel.lines.values():
            axes.axvline(factor * value, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for at, row in enumerate(panel.values):
            if at % 2:
                axes.axhspan(at - 0.5, at + 0.5, color=GRID, alpha=0.45, linewidth=0)
            for index, one in enumerate(row):
                y = at + 0.74 * ((index + 0.5) / n - 0.5)
                value, *ends = factor * np.array([one.value, one.low, one.high], dtype=float)
                axes.plot(ends, [y] * 2, color=inks[index], linewidth=1.6)
                axes.plot([value], [y], MARKERS[index % len(MARKERS)], color=inks[index], markersize=4.6)
        axes.set(xlim=[factor * end for end in ends_of_panel(panel)], ylim=(len(section.rows) - 0.5, -0.5))
        axes.set_xlabel(axis_name(Axis(panel.name, suffix(panel.unit))))
        axes.set_yticks(range(len(section.rows)), [printable(name) for name in section.rows])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=ink, marker=MARKERS[index % len(MARKERS)], markersize=4.6, label=printable(name))
        for index, (name, ink) in enumerate(zip(section.series, inks, strict=True))
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, fontsize=8, handlelength=1.6, columnspacing=1.0)


def _inks(section: Intervals) -> list[str]:
    """A colour for each series, from the controls' own or from the others'."""
    own = [name for name in section.series if name not in section.controls]
    return [
        CONTROLS[section.controls.index(name) % len(CONTROLS)]
        if name in section.controls
        else SERIES[own.index(name) % len(SERIES)]
        for name in section.series
    ]


def ends_of_panel(panel: Panel) -> Ends:
    """The ends of a panel's axis: round, around every interval, 0 and the named lines."""
    return round_ends(
        _finite(
            [
                0.0,
                *panel.lines.values(),
                *(x for row in panel.values for one in row for x in (one.value, one.low, one.high)),
            ]
        )
    )


def _draw_column(table: Table, figure: Figure) -> None:
    axes, column = figure.add_subplot(), table.columns[table.column_index(table.drawn or "")]
    factor = 100 if column.unit in ("share", "points") else 1
    for index, (row, cell) in enumerate(zip(table.rows, drawn_cells(table), strict=True)):
        value, *ends = factor * np.array([cell.value, cell.low, cell.high], dtype=float)
        ink = SERIES[0] if row.name == table.highlight else MUTED
        axes.plot(ends, [index] * 2, color=ink)
        axes.plot([value], [index], "o", color=ink, markersize=5)
    axes.set(xlim=[factor * end for end in domain_of(table)], ylim=(len(table.rows) - 0.4, -0.6))
    axes.set_yticks(range(len(table.rows)), [printable(row.name) for row in table.rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(axis_name(Axis(column.name, suffix(column.unit))))


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _csv(section: Block) -> bytes | None:
    """The section's numbers, unrounded, one observation a line. Shares stay fractions; an unknown value is empty."""
    if isinstance(section, Text):
        return None
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_field(value) for value in line] for line in _lines(section))
    return out.getvalue().encode()


def _lines(section: Table | HeatMap | Intervals | Curves | Samples) -> Iterator[Sequence]:
    if isinstance(section, HeatMap):
        yield section.rows_are, section.columns_are, "value", "low", "high", "n", "differs"
        for row in section.all_rows():
            for cell in row.cells:
                yield cell.row, cell.column, cell.value, cell.low, cell.high, cell.n, cell.differs
    elif isinstance(section, Curves):
        yield "series", axis_name(section.x), axis_name(section.y), "low", "high"
        for series in section.series:
            for at, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
                yield series.name, x, y, *(None if side is None else side[at] for side in (series.low, series.high))
    elif isinstance(section, Intervals):
        yield section.rows_are, "series", "measure", "unit", "value", "low", "high"
        for panel in section.panels:
            for row, values in zip(section.rows, panel.values, strict=True):
                for series, one in zip(section.series, values, strict=True):
                    yield row, series, panel.name, panel.unit, one.value, one.low, one.high
    elif isinstance(section, Table):
        yield from _table_lines(section)
    else:
        yield "problem", "layer", "position", "guess", "token", "probability", "is_target"
        for at, grid in enumerate(section.grids, 1):
            for layer, row in zip(grid.layers, grid.cells, strict=True):
                for position, reading in zip(grid.positions, row, strict=True):
                    for rank, guess in enumerate(reading.guesses, 1):
                        token = visible(guess.token)
                        yield grid.problem or at, layer, position, rank, token, guess.probability, guess.is_target


def _table_lines(table: Table) -> Iterator[Sequence]:
    is_text = [all(isinstance(row.cells[at], (str, Badge)) for row in table.rows) for at in range(len(table.columns))]
    header = [table.rows_are, "n"]
    for column, text in zip(table.columns, is_text, strict=True):
        header += [column.name] if text else [column.name, f"{column.name} low", f"{column.name} high"]
    yield header
    for row in table.rows:
        line: list[object] = [row.name, row.n]
        for value, text in zip(row.cells, is_text, strict=True):
            if isinstance(value, Badge):
                value = value.text
            parts = _as_estimate(value)
            line += [value] if text else [value if isinstance(value, str) else parts.value, parts.low, parts.high]
        yield line


def _field(value: object) -> object:
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return ""
    return printable(value) if isinstance(value, str) else value
