"""Does a head of its own for each position let a lens read more?

Seed 002 blames the unembedding that all positions share. A whole head a position has 1.6 billion numbers at the size of Llama-1B,
so the change is diagonal (a gain for each coordinate), a bias for each token, or of low rank, each beside the shared translator
that the plain lens has. A bias of tokens by position is what the majority knows: what it adds says nothing of the thoughts.
Prediction (2026-11-25): bias and low rank gain over the plain lens in bits, and not beyond the structure of the targets.
Measure: top-1 and bits on test problems, paired by problem. Stop rule: none is needed; test is read once.
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
    """The rank of the change of the head."""

    rank: int = fixed(16, "rank of the change of the head for each position", at_least=1)


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit every kind on the same states."""
    kinds = {"gain": "position-gain", "bias of tokens": "position-bias", "low rank": f"position-head({config.rank})"}
    cells = [Cell("shared head", "tuned", config.target, fit=config.fit)]
    cells += [Cell(name, lens, config.target, fit=config.fit) for name, lens in kinds.items()]
    judging.lens_study.carry_out(config, run, cells, [(name, "shared head") for name in kinds])
