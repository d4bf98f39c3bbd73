"""Is a thought read better when the middle positions are given more tokens of the chain?

Seed 001 proposes weights (0.5, 1, 2, 2, 1, 0.5) instead of equal slices, because positions 2 and 3 were read best. A split
changes how well its targets can be guessed: with these weights the majority alone gains 6 points on GSM8K. So lenses are compared
beyond the structure of their own targets; the same weights in other orders are the control.
Prediction (2026-11-25): no weights are better beyond the structure than equal ones.
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
    """The weights, one for each thought, equal ones first."""

    weights: tuple[str, ...] = fixed(
        ("1,1,1,1,1,1", "0.5,1,2,2,1,0.5", "2,1,0.5,0.5,1,2", "0.5,0.5,1,1,2,2", "2,2,1,1,0.5,0.5"),
        "weights of the thoughts, one list each, separated by commas; the first is what the others are compared with",
    )
    rounding: str = fixed("weighted", "how slices are rounded: weighted, weighted-remainder or weighted-min1")


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit the same lens to every split."""
    cells = [Cell(f"({each})", "tuned", f"{config.rounding}({each})", fit=config.fit) for each in config.weights]
    judging.lens_study.carry_out(config, run, cells, [(cell.name, cells[0].name) for cell in cells[1:]])
