"""Is a thought read better when a lens is fitted to all tokens of its slice instead of the first?

Seed 001 asks for one token a slot and proposes a sequence loss or several labels. Four objectives are fitted to all tokens of a
slice: the sum of their cross-entropies, the distance to the uniform distribution over them, the probability that they have
together, and binary cross-entropies over the vocabulary. They are compared with the lens for the first token on what each token
of the slice gets.
Prediction (2026-11-25): fitted to all tokens, a lens names more of them than one that was fitted to the first, and no more than
the position and the length of the chain tell.
Measure: top-1 and bits over all tokens of the slices on test problems, paired by problem. Stop rule: none is needed; test is read
once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workings import judging
from workings.config import fixed
from workings.experiments.lens_study_report import report
from workings.reading.study import RELEASED, SMOKE, Cell, StudyConfig
from workings.run import Run

__all__ = ["ARMS", "SCALES", "Config", "report", "run_arm"]


@dataclass(frozen=True)
class Config(StudyConfig):
    """The split whose slices are asked for."""

    target: str = fixed("uniform", "membership rule, without a selection")


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit every objective on the same states."""
    every = f"{config.target}:every"
    fits = {
        "each token": config.fit,
        "uniform over them": replace(config.fit, objective="uniform"),
        "together": replace(config.fit, objective="bag"),
        "labels": replace(config.fit, objective="multi-label"),
    }
    cells = [Cell("first token", "tuned", config.target, fit=config.fit, read=every)]
    cells += [Cell(name, "tuned", every, fit=fit) for name, fit in fits.items()]
    pairs = [(name, "each token") for name in fits if name != "each token"]
    judging.lens_study.carry_out(config, run, cells, [*pairs, ("each token", "first token")])
