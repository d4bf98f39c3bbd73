"""What an experiment found → a folder to read, show and check: report.html, report.md, figures and their data.

Fill a `Report` with plain sections and give it to `write_report`.
"""

from workings.report.folder import write_report
from workings.report.grids import Guess, Reading, ReadingGrid
from workings.report.sections import (
    Axis,
    Column,
    Conclusion,
    ControlRow,
    Curves,
    Estimate,
    HeatMap,
    Properties,
    Provenance,
    Report,
    Row,
    Samples,
    Series,
    Stat,
    Table,
    Text,
)

__all__ = [
    "Axis",
    "Column",
    "Conclusion",
    "ControlRow",
    "Curves",
    "Estimate",
    "Guess",
    "HeatMap",
    "Properties",
    "Provenance",
    "Reading",
    "ReadingGrid",
    "Report",
    "Row",
    "Samples",
    "Series",
    "Stat",
    "Table",
    "Text",
    "write_report",
]
