"""Is a lens limited by how much it can express, or by how many problems it was fitted on?

Seed 002 concludes from overfitting in the first epoch that capacity is not the bottleneck; it had 84,000 to 189,000 parameters a
problem and no regularisation. Nested kinds (a low rank, the shared translator, low-rank deltas, a translator for each position, a
perceptron) are fitted on growing shares of the training problems.
Prediction (2026-11-25): every kind gains with more problems; with all of them the kinds are within 2 points, but for the
perceptron.
Measure: top-1 and bits on the same test problems, paired by problem. Stop rule: none is needed; test is read once.
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
    """The kinds, from the plainest on, and the shares of the training problems."""

    kinds: tuple[str, ...] = fixed(
        ("tuned", "low-rank(8)", "low-rank(32)", "per-position", "mlp(128)"), "kinds of lens, from the plainest on"
    )
    shares: tuple[float, ...] = fixed((0.125, 0.5, 1.0), "shares of the training problems", above=0, at_most=1)


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE | {"shares": (0.5, 1.0)}, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit every kind on every share."""
    name = lambda kind, share: f"{kind}, {share:.3g} of the problems"
    cells = [
        Cell(name(kind, share), kind, config.target, fit=config.fit, share=share)
        for share in config.shares
        for kind in config.kinds
    ]
    most, least = max(config.shares), min(config.shares)
    first = config.kinds[0]
    pairs = [(name(kind, most), name(first, most)) for kind in config.kinds[1:]]
    pairs += [(name(kind, most), name(kind, least)) for kind in config.kinds if most > least]
    judging.lens_study.carry_out(config, run, cells, pairs)
