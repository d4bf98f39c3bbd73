"""Does a lens with translators of its own for each position read more than one that the positions share?

Seed 002 tried translators by position in four of sixteen layers (critical: those that did best before) and found 1 to 2 points.
Here the shared lens stands beside that hybrid, hybrids whose four layers are drawn at random (the null: is it these layers?),
low-rank deltas, a position embedding, and a translator for every layer and position; all with the model's own norm and one loss,
so that only the indexing differs. Those with many parameters start from the shared lens and decay to it.
Prediction (2026-11-25): no kind by position is better than the shared lens by 2 points or more; random layers do as well as
critical ones.
Measure: top-1 and bits on test problems, paired by problem; skill over the majority and the structure of the targets beside it.
Stop rule: none is needed; layers, epochs and kinds are fixed before test is read, which is once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from workings import judging, seeds
from workings.config import fixed
from workings.experiments.lens_study_report import report
from workings.reading.study import RELEASED, SMOKE, Cell, StudyConfig
from workings.run import Run

__all__ = ["ARMS", "SCALES", "Config", "report", "run_arm"]


@dataclass(frozen=True)
class Config(StudyConfig):
    """Which layers have translators by position."""

    critical: tuple[str, ...] = fixed(("block1",), "layers with a translator for each position in the hybrid")
    among: tuple[str, ...] = fixed(
        ("embed", "block1"), "layers that the null's are drawn from, as many as are critical"
    )
    n_random: int = fixed(1, "number of hybrids with layers drawn at random", at_least=0)
    rank: int = fixed(16, "rank of the low-rank deltas", at_least=1)


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    "mini": {},
    "full": {
        **RELEASED,
        "critical": ("block6", "block9", "block14", "block15"),
        "among": tuple(f"block{i}" for i in range(1, 16)),
        "n_random": 5,
    },
}


def run_arm(config: Config, run: Run) -> None:
    """Fit every kind on the same states."""
    shared = Cell("shared", "tuned", config.target, fit=config.fit)
    near = replace(config.fit, decay_to="start")
    by_position = {
        "hybrid, critical layers": f"hybrid({','.join(config.critical)})",
        **{f"hybrid, random layers {i + 1}": f"hybrid({','.join(layers)})" for i, layers in enumerate(_drawn(config))},
        "low-rank deltas": f"low-rank({config.rank})",
        "position embedding": "position-embedding",
        "every layer and position": "per-position",
    }
    cells = [shared, *(Cell(name, lens, config.target, fit=near, start="shared") for name, lens in by_position.items())]
    judging.lens_study.carry_out(config, run, cells, [(name, "shared") for name in by_position])


def _drawn(config: Config) -> list[tuple[str, ...]]:
    """Different random sets of as many layers, the critical ones not among them; fewer where there are no more."""
    others = [each for each in combinations(config.among, len(config.critical)) if set(each) != set(config.critical)]
    return seeds.python("random layers", config.seed).sample(others, min(config.n_random, len(others)))
