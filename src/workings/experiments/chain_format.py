"""Is the chain that the teacher saw read better from thoughts than the same chain in another form?

Seed 001 strips the brackets and keeps the last step, which a CODI's teacher never saw so. The same thoughts are read as the chain
that was seen, with all steps and no brackets, with brackets, and as the model itself writes it. Brackets are easy to guess (they
stand at fixed places), so lenses are compared beyond the position and the length of their own chain.
Prediction (2026-11-25): plain top-1 is highest with brackets; beyond the structure no form is better than the chain that was
seen.
Measure: top-1 and bits beyond the structure-only predictor on test problems, paired by problem. Stop rule: none is needed; test
is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workings import judging
from workings.config import fixed
from workings.experiments.lens_study_report import report
from workings.reading.study import RELEASED, SMOKE, Cell, StudyConfig
from workings.run import Run

__all__ = ["ARMS", "SCALES", "Config", "report", "run_arm"]


@dataclass(frozen=True)
class Config(StudyConfig):
    """The forms of the chain, the one that all others are compared with first."""

    forms: tuple[str, ...] = fixed(
        ("seen", "stripped", "marked", "own"), "forms of the chain, the one that the others are compared with first"
    )


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit the same lens to every form."""
    cells = [Cell(form, "tuned", f"{config.target}@{form}", fit=config.fit) for form in config.forms]
    judging.lens_study.carry_out(config, run, cells, [(form, config.forms[0]) for form in config.forms[1:]])
