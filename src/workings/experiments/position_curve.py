"""Is any position read best, or is the best of equal ones always ahead?

Seed 001's key finding is that positions 2 and 3 are read 2.5 times better than position 0, and their commonest tokens are named
as much better by whoever always names those. So what is ranked is what the lens names beyond the position's majority.
Prediction (2026-11-25): beyond the majority some position of the bundled model is best, where a step's result stands; on Llama-1B
none is.
Measure: top-1 of a tuned lens beyond the majority on test problems, the largest mean over positions against that of equal ones.
Stop rule: none is needed; test is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workings import judging
from workings.experiments.lens_curves_report import report_by
from workings.reading.study import RELEASED, SMOKE, Cell, StudyConfig
from workings.run import Run, RunRecord

__all__ = ["ARMS", "SCALES", "Config", "report", "run_arm"]


Config = StudyConfig
ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit one tuned lens, and read every layer and position with it."""
    cell = Cell("tuned lens", "tuned", config.target, fit=config.fit)
    judging.lens_study.carry_out(config, run, [cell], [(cell.name, cell.name)])


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """The lens by position, and the test of the best."""
    return report_by("position", records, out)
