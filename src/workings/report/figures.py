"""Sections → figures as SVG bytes, drawn by matplotlib in one style.

Matplotlib is imported when something is drawn and not before: it costs more than the rest of a report.
"""

from __future__ import annotations

import io
import math
from textwrap import fill
from typing import TYPE_CHECKING, Any

from workings.report.cells import HeatCell, heat_rows, n_of_map
from workings.report.colours import CONTROLS, DASHES, SERIES, ink_on, palette
from workings.report.scales import domain_of, drawn_cells, ends_of, shade, thinned, tick_labels, ticks
from workings.report.sections import Axis, Curves, HeatMap, Section, Series, Table
from workings.report.wording import axis_name, is_known, number, printable, suffix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, SUBJECT = "#1d232b", "#5c6773", "#d5dbe2", SERIES[0]
MOST_POINTS = 600  # of a curve, as drawn; its CSV has them all

_STYLE = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the layout is the same on every machine
    "svg.fonttype": "none",  # text stays text: it can be searched, and the page's own font applies
    "text.parse_math": False,  # a title may hold a price
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaef",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


def svg_of(section: Section, name: str) -> bytes | None:
    """The section's figure, or None for a kind that is not drawn. The same data give the same bytes."""
    if isinstance(section, HeatMap):
        return _drawn(section, name, _heat_map_size(section), _draw_heat_map)
    if isinstance(section, Curves):
        return _drawn(section, name, (5.6, 3.3), _draw_curves)
    if isinstance(section, Table) and section.drawn is not None:
        return _drawn(section, name, (_whisker_width(section), 0.75 + 0.3 * len(section.rows)), _draw_whiskers)
    return None


def _drawn(section, name: str, inches: tuple[float, float], draw) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": name}  # matplotlib types the keys as a list of literals
    with rc_context(style):
        figure = Figure(figsize=inches, layout="constrained")
        draw(section, figure)
        out = io.BytesIO()
        # No metadata: its date would make equal reports differ.
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()


def _heat_map_size(heat_map: HeatMap) -> tuple[float, float]:
    height = 0.24 if len(heat_map.rows) > 12 else 0.34
    return 1.9 + 0.68 * len(heat_map.columns), 1.0 + height * (len(heat_map.rows) + 1.3 * len(heat_map.controls))


def _draw_heat_map(heat_map: HeatMap, figure: Figure) -> None:
    axes, rows = figure.add_subplot(), heat_rows(heat_map)
    tops = [index + (0.3 if row.is_control else 0.0) for index, row in enumerate(rows)]
    for top, row in zip(tops, rows, strict=True):
        for left, cell in enumerate(row.cells):
            _draw_cell(axes, (left, top), cell, heat_map)
    axes.set(xlim=(0, len(heat_map.columns)), ylim=(tops[-1] + 1, 0))
    axes.set_yticks([top + 0.5 for top in tops], [printable(row.name) for row in rows])
    axes.set_xticks(
        [left + 0.5 for left in range(len(heat_map.columns))], [printable(name) for name in heat_map.columns]
    )
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_xlabel(_heat_map_note(heat_map), fontsize=8)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    _draw_legend(figure, axes, heat_map)


def _heat_map_note(heat_map: HeatMap) -> str:
    """What a figure on its own must still say: n, and what the marked corner means."""
    mark = f"Marked corner: differs from {heat_map.control or 'the control'}." if heat_map.differs is not None else ""
    return printable(fill(f"n = {n_of_map(heat_map)}. {mark}", 15 * len(heat_map.columns)))


def _draw_cell(axes: Axes, corner: tuple[float, float], cell: HeatCell, heat_map: HeatMap) -> None:
    from matplotlib.patches import Polygon, Rectangle

    shaded = shade(cell.value, heat_map)
    background = shaded or "#f1f3f5"
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=background, edgecolor="white", linewidth=0.8))
    ink = ink_on(background) if shaded else MUTED
    if cell.differs:
        right, top = corner[0] + 0.985, corner[1] + 0.03
        axes.add_patch(Polygon([(right - 0.13, top), (right, top), (right, top + 0.28)], facecolor=ink, linewidth=0))
    text = number(cell.value, heat_map.unit, heat_map.digits)
    weight = "bold" if cell.differs else "normal"
    where = (corner[0] + 0.5, corner[1] + 0.5)
    axes.text(*where, text, ha="center", va="center_baseline", color=ink, fontsize=8.5, fontweight=weight)


def _draw_legend(figure: Figure, axes: Axes, heat_map: HeatMap) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    ends = ends_of(heat_map)
    mappable = ScalarMappable(Normalize(*ends), ListedColormap(palette(heat_map.scale)))
    bar = figure.colorbar(mappable, ax=axes, location="right", fraction=0.045, pad=0.03, aspect=18, shrink=0.9)
    marks = ticks(ends)
    bar.set_ticks(marks, labels=tick_labels(marks, heat_map.unit))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    bar.set_label(suffix(heat_map.unit))


def _draw_curves(curves: Curves, figure: Figure) -> None:
    axes = figure.add_subplot()
    for index, series in enumerate(curves.series):
        _draw_series(axes, series, index)
    if curves.chosen is not None:
        axes.axvline(curves.chosen, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        where = (curves.chosen, 1.0)
        axes.annotate(
            "chosen", where, (4, -2), ("data", "axes fraction"), "offset points", va="top", fontsize=8.5, color=MUTED
        )
    _name_axes(axes, curves)
    if len(curves.series) > 1:
        columns = min(3, len(curves.series))
        figure.legend(loc="outside upper left", ncols=columns, fontsize=8.5, handlelength=2.4, columnspacing=1.4)


def _draw_series(axes: Axes, series: Series, index: int) -> None:
    kept = thinned(range(len(series.x)), MOST_POINTS)
    x = [series.x[at] for at in kept]
    ink = CONTROLS[index % len(CONTROLS)] if series.control else SERIES[index % len(SERIES)]
    dash = (
        DASHES[1 + index % (len(DASHES) - 1)] if series.control else DASHES[index % len(DASHES)]
    )  # none of them solid
    marker = "o" if len(kept) <= 24 else None
    y = [_number_or_nan(series.y[at]) for at in kept]
    axes.plot(x, y, color=ink, linestyle=dash, marker=marker, markersize=3.2, label=printable(series.name))
    if series.low is not None and series.high is not None:
        low, high = ([_number_or_nan(side[at]) for at in kept] for side in (series.low, series.high))
        axes.fill_between(x, low, high, color=ink, alpha=0.15, linewidth=0)


def _name_axes(axes: Axes, curves: Curves) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(axis_name(curves.x))
    axes.set_ylabel(axis_name(curves.y))
    axes.margins(x=0.03)
    if curves.x.log:
        axes.set_xscale("log")
    elif all(float(x).is_integer() for series in curves.series for x in series.x):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))  # there is no epoch 2.5
    if curves.y.log:
        axes.set_yscale("log")


def _whisker_width(table: Table) -> float:
    """Inches: a row's name leaves the axes half of the usual width."""
    return max(5.6, 2.8 + 0.08 * max(len(row.name) for row in table.rows))


def _draw_whiskers(table: Table, figure: Figure) -> None:
    axes, column = figure.add_subplot(), table.columns[table.column_index(table.drawn or "")]
    domain = domain_of(table)
    factor = 100 if column.unit in ("share", "points") else 1
    for index, (row, value) in enumerate(zip(table.rows, drawn_cells(table), strict=True)):
        ink = SUBJECT if row.name == table.highlight else MUTED
        if is_known(value.low) and is_known(value.high):
            axes.plot([_number_or_nan(value.low) * factor, _number_or_nan(value.high) * factor], [index] * 2, color=ink)
        axes.plot([_number_or_nan(value.value) * factor], [index], "o", color=ink, markersize=5)
        if row.name == table.reference and is_known(value.value):
            axes.axvline(_number_or_nan(value.value) * factor, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    axes.set(xlim=(domain[0] * factor, domain[1] * factor), ylim=(len(table.rows) - 0.4, -0.6))
    axes.set_yticks(range(len(table.rows)), [printable(row.name) for row in table.rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(axis_name(Axis(column.name, suffix(column.unit))))


def _number_or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
