"""Report → one HTML page that needs no network, runs one small script, and escapes everything it was given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workings.report import scales, wording
from workings.report.cells import heat_rows, n_of_map
from workings.report.colours import Scale, ink_on, palette
from workings.report.grids import Reading
from workings.report.sections import ConclusionKind, Curves, Estimate, HeatMap, Report, Samples, Section, Table

Named = Sequence[tuple[str, Section]]

BADGES: dict[ConclusionKind, str] = {
    "read": "●",
    "holds": "●",
    "explained by a control": "◐",
    "nothing read": "○",
    "fails": "○",
    "undecided": "?",
}
TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"))


def html_of(
    report: Report, sections: Named, downloads: Mapping[str, Sequence[str]], drawings: Mapping[str, bytes]
) -> str:
    """The whole page. `sections` come with their anchors; `downloads` and `drawings` go by these."""
    environment = Environment(
        loader=TEMPLATES,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(_FILTERS)
    environment.tests.update(_TESTS)
    style, script = (TEMPLATES.get_source(environment, f"report.{kind}")[0] for kind in ("css", "js"))
    # The hash lets this script run and no other, whatever a token may contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        report=report,
        sections=sections,
        downloads=downloads,
        drawings={name: _inline(drawings[name], name, one.title) for name, one in sections if name in drawings},
        badges=BADGES,
        dash=wording.DASH,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _shown(value: object) -> object:
    """What jinja does to every value before it escapes it; what is Markup has been through here."""
    return wording.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _inline(svg: bytes, name: str, title: str) -> Markup:
    """A figure as part of a page: no namespaces, no fixed size, and ids that no other figure has."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _renamed(key, value, name) for key, value in element.attrib.items()}
    for definitions in root.findall("defs"):
        for style in definitions.findall("style"):
            definitions.remove(style)  # it would hold for the whole page
    for size in ("width", "height"):
        root.attrib.pop(size)
    root.attrib |= {"role": "img", "aria-label": wording.printable(title)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"f{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#f{name}-", 1)
    return value.replace("url(#", f"url(#f{name}-")


def _gradient(scale: Scale) -> str:
    return ",".join(palette(scale, 17))


def _legend_ticks(heat_map: HeatMap) -> list[tuple[str, str]]:
    ends = scales.ends_of(heat_map)
    marks = scales.ticks(ends)
    labels = scales.tick_labels(marks, heat_map.unit)
    return [(scales.along(mark, ends), label) for mark, label in zip(marks, labels, strict=True)]


def _drawn_ticks(table: Table) -> list[tuple[float, str]]:
    marks = scales.ticks(scales.domain_of(table))
    unit = table.columns[table.column_index(table.drawn or "")].unit
    return list(zip(marks, scales.tick_labels(marks, unit), strict=True))


def _reference_value(table: Table) -> float | None:
    values = dict(zip([row.name for row in table.rows], scales.drawn_cells(table), strict=True))
    value = values[table.reference].value if table.reference is not None else None
    return value if wording.is_known(value) else None


def _is_hit(reading: Reading) -> bool:
    return bool(reading.guesses) and reading.guesses[0].is_target


_FILTERS: dict[str, Any] = {
    "along": scales.along,
    "clipped": wording.clipped,
    "counts": lambda table: any(row.n is not None for row in table.rows),
    "curve_header": scales.curve_header,
    "curve_lines": scales.curve_lines,
    "domain_of": scales.domain_of,
    "drawn_cells": scales.drawn_cells,
    "drawn_ticks": _drawn_ticks,
    "extension": lambda file: PurePosixPath(file).suffix[1:].upper(),
    "gradient": _gradient,
    "heat_rows": heat_rows,
    "ink_on": ink_on,
    "interval_of": lambda value, *how: wording.interval(value.low, value.high, *how),
    "is_clipped": lambda token: len(token) > wording.LONGEST_TOKEN,
    "is_hit": _is_hit,
    "legend_ticks": _legend_ticks,
    "n_of_map": lambda heat_map: f"n = {n_of_map(heat_map)}",
    "number": wording.number,
    "paragraphs": lambda text: [part for part in text.split("\n\n") if part.strip()],
    "percent": lambda share: f"{100 * share:.0f}",
    "pieces": wording.pieces,
    "probability": wording.probability,
    "reference_value": _reference_value,
    "shade": scales.shade,
    "slug": wording.slug,
    "suffix": wording.suffix,
    "title_of": wording.title_of,
}
_TESTS: dict[str, Any] = {
    "curves": lambda section: isinstance(section, Curves),
    "estimate": lambda value: isinstance(value, Estimate),
    "heat_map": lambda section: isinstance(section, HeatMap),
    "known": wording.is_known,
    "samples": lambda section: isinstance(section, Samples),
    "table": lambda section: isinstance(section, Table),
}
