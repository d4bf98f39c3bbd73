"""Is any layer read best, or is the best of equal ones always ahead?

Seed 001 found layer 9 interesting: 20.5 % where sixteen layers lie between 15.9 and 20.5. Sixteen equal layers, 1,200 targets
each, give 20.4 on average for the best one. Here values are drawn anew among the layers of each problem, which keeps what makes
problems easy.
Prediction (2026-11-25): in the bundled model the last translated layer is best; on Llama-1B no layer is.
Measure: top-1 of a tuned lens beyond the majority on test problems, the largest mean over layers against that of equal ones. Stop
rule: none is needed; test is read once.
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
    """The lens by layer, and the test of the best."""
    return report_by("layer", records, out)
