"""Does a lens for one layer read that layer better than one that was fitted for all layers together?

Seed 001 reports 19.2 % for a lens of the last layer alone and 18.4 % for all sixteen, and calls it "more data is not better". A
tuned lens has a translator for each layer and nothing that the layers share, so the two differ by early stopping and clipping
alone.
Prediction (2026-11-25): at its own layer neither lens is better by a point or more.
Measure: top-1 and bits at the same layer of test problems, paired by problem. Stop rule: none is needed; test is read once.
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
    """The layers that have a lens of their own."""

    alone: tuple[str, ...] = fixed(("embed", "block1"), "layers that a lens of their own is fitted for")


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    "mini": {},
    "full": RELEASED | {"alone": ("block6", "block9", "block15")},
}


def run_arm(config: Config, run: Run) -> None:
    """Fit each layer alone and all of them together."""
    together = Cell("all layers", "tuned", config.target, fit=config.fit)
    alone = [Cell(f"{layer} alone", "tuned", config.target, (layer,), config.fit) for layer in config.alone]
    judging.lens_study.carry_out(config, run, [together, *alone], [(cell.name, "all layers") for cell in alone])
