"""Report → a folder to read, show and check: report.html, report.md, figures/*.svg, and the CSV behind each table and figure.

The page needs no network, can be read without its one small script, and escapes everything it was given. What is folded away
opens for a link to anything inside it, and is printed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workings.errors import explained
from workings.files import drop_half_written, write_atomic
from workings.report import figures, wording
from workings.report.figures import Part, every_part, parts_of
from workings.report.markdown import markdown_of
from workings.report.sections import Badge, Curves, Estimate, Intervals, Report

TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"))
# A figure in the page takes the page's colours, which its style sheet darkens and lightens; other colours stay.
_PAGE_COLOURS = {
    figures.INK: "var(--ink)",
    figures.MUTED: "var(--muted)",
    figures.EDGE: "var(--edge)",
    figures.GRID: "var(--rule-soft)",
    figures.PAPER: "var(--paper)",
} | {
    colour: f"var(--{kind}{at}, {colour})"
    for kind, colours in (("series", figures.SERIES), ("control", figures.CONTROLS))
    for at, colour in enumerate(colours)
    if colour != figures.MUTED
}


def write_report(report: Report, out: Path | str) -> Path:
    """Write a report into a folder, which is made if it is missing.

    Everything is made before anything is written. Every file appears whole or not at all, report.html last.

    Returns:
        The path of report.html.

    Raises:
        BadInput: The folder cannot be written.
        Failed: The disk is full.
    """
    out, parts = Path(out), parts_of(report)
    files = {path: content for part in every_part(parts) for path, content in part.files.items()}
    files["report.md"] = markdown_of(report, parts).encode()
    files["report.html"] = html_of(report, parts).encode()
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        drop_half_written(out / "figures")
        for left in out.glob(".report.*.half"):  # by name, for `out` may be anybody's folder
            left.unlink(missing_ok=True)
        for path, content in files.items():
            write_atomic(out / path, content)
        for old in (out / "figures").glob("[0-9][0-9]-*"):  # of an earlier report that had other sections
            if f"figures/{old.name}" not in files:
                old.unlink()
    except OSError as error:
        raise explained(error, out) from error
    return out / "report.html"


def html_of(report: Report, parts: Sequence[Part]) -> str:
    """The whole page."""
    environment = Environment(
        loader=TEMPLATES, autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_printable
    )
    environment.tests["estimate"] = lambda value: isinstance(value, Estimate)
    environment.tests["badge"] = lambda value: isinstance(value, Badge)
    environment.filters["kind"] = lambda value: type(value).__name__
    environment.filters["extension"] = lambda path: PurePosixPath(path).suffix[1:].upper()
    style, script = (TEMPLATES.get_source(environment, f"report.{kind}")[0] for kind in ("css", "js"))
    # The hash lets this script run and no other, whatever a token may contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        report=report,
        parts=parts,
        contents=_contents(parts),
        drawings={
            part.name: _inline(part.svg, part)
            for part in every_part(parts)
            if part.svg and isinstance(part.section, (Curves, Intervals))
        },
        wording=wording,
        figures=figures,
        along=_along,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _printable(value: object) -> object:
    """A value as jinja escapes it next. Markup has been through here already."""
    return wording.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _contents(parts: Sequence[Part]) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, links as (anchor, text)): neighbours whose titles begin alike up to a colon share a heading."""
    contents = []
    for heading, group in groupby(parts, lambda part: part.section.title.partition(": ")[0]):
        titles = {part.name: part.section.title for part in group}
        if len(titles) == 1:
            contents.append(("", list(titles.items())))
        else:
            texts = {name: title.partition(": ")[2] or "overview" for name, title in titles.items()}
            contents.append((heading, list(texts.items())))
    return contents


def _along(value: float | None, ends: figures.Ends) -> str:
    """The place of a value between the ends, in per cent from the left."""
    if value is None:
        return "0"
    return f"{100 * min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0]))):.2f}".rstrip("0").rstrip(".")


def _inline(svg: bytes, part: Part) -> Markup:
    """A figure as part of a page: no namespaces, no fixed size, ids that no other figure has, the page's colours."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _fitted(key, value, part.name) for key, value in element.attrib.items()
        }
    for definitions in root.findall("defs"):
        for style in definitions.findall("style"):
            definitions.remove(style)  # it would hold for the whole page
    for size in ("width", "height"):
        root.attrib.pop(size)
    root.attrib |= {"role": "img", "aria-label": wording.printable(part.section.title)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _fitted(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"f{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#f{name}-", 1)
    if key == "style":
        value = re.sub(r"#[0-9a-f]{6}\b", lambda found: _PAGE_COLOURS.get(found[0], found[0]), value)
    return value.replace("url(#", f"url(#f{name}-")
