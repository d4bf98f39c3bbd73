"""Report → a folder: report.html, report.md, figures/*.svg and the CSV behind each table and figure."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from workings.errors import BadInput, Failed
from workings.files import write_atomic
from workings.report.figures import svg_of
from workings.report.observations import csv_of
from workings.report.page import html_of
from workings.report.plain import markdown_of
from workings.report.sections import Report, Section
from workings.report.wording import slug


def write_report(report: Report, out: Path | str) -> Path:
    """Write the report into the folder `out` (made if missing) and return the path of its report.html.

    Everything is made before anything is written; every file appears whole or not at all, report.html last.
    BadInput: the folder cannot be written. Failed: the disk is full.
    """
    out = Path(out)
    files = _files(report)
    with _explained(out):
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write_atomic(out / file, content)
        for old in (out / "figures").glob("[0-9][0-9]-*"):  # of an earlier report that had other sections
            if f"figures/{old.name}" not in files:
                old.unlink()
    return out / "report.html"


def _files(report: Report) -> dict[str, bytes]:
    """Path inside the folder → content, in the order of writing."""
    sections = _named(report)
    drawings = {name: svg for name, section in sections if (svg := svg_of(section, name)) is not None}
    files = {f"figures/{name}.svg": svg for name, svg in drawings.items()}
    files |= {f"figures/{name}.csv": csv for name, section in sections if (csv := csv_of(section)) is not None}
    downloads = {name: [file for file in files if PurePosixPath(file).stem == name] for name, _ in sections}
    files["report.md"] = markdown_of(report, sections, downloads).encode()
    files["report.html"] = html_of(report, sections, downloads, drawings).encode()
    return files


def _named(report: Report) -> list[tuple[str, Section]]:
    """Each section with its anchor, which is also the name of its files: `02-skill-by-layer`."""
    return [(f"{at:02d}-{slug(section.title)}", section) for at, section in enumerate(report.sections, 1)]


@contextmanager
def _explained(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise Failed(
                f"the report could not be written into {out}: {reason}. Make room and run the report again."
            ) from error
        raise BadInput(
            f"the report cannot be written into {out}: {reason}. Name a folder that can be written."
        ) from error
