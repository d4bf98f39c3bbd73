"""What an experiment found → a folder to read, show and check: report.html, report.md, figures and their data.

Fill a `Report` with plain sections and give it to `write_report`.
"""

from workings.report.folder import write_report
from workings.report.grids import Guess, Reading, ReadingGrid
from workings.report.sections import (
    Axis,
    Column,
    ControlRow,
    Curves,
    Estimate,
    Facts,
    HeatMap,
    Record,
    Report,
    Row,
    Samples,
    Series,
    Stat,
    Table,
    Text,
    Verdict,
)

__all__ = [
    "Axis",
    "Column",
    "ControlRow",
    "Curves",
    "Estimate",
    "Facts",
    "Guess",
    "HeatMap",
    "Reading",
    "ReadingGrid",
    "Record",
    "Report",
    "Row",
    "Samples",
    "Series",
    "Stat",
    "Table",
    "Text",
    "Verdict",
    "write_report",
]
