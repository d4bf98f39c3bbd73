"""Which token of a written solution is a thought read as best, once what anyone could guess is taken off?

Seed 001 asks for the first token of each slice of the chain and compares its 18.4 % with about 18 % for "the first response
token", which was the model's own guess at the opening token. Here the first, the middle, the last and the most telling token
(TF-IDF) of each slice stand beside the first token that the model really says, the final answer and the results of steps. Targets
differ in how well they can be guessed, so lenses are compared in what they name beyond the position and the length of the chain.
Prediction (2026-11-25): plain top-1 ranks the targets as their majorities do; beyond the structure the final answer is read best.
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
    """The targets, the one that all others are compared with first."""

    targets: tuple[str, ...] = fixed(
        ("uniform", "uniform:middle", "uniform:last", "uniform:tfidf", "response", "answer", "step1", "step2"),
        "target rules, the one that the others are compared with first",
    )
    max_new_tokens: int = fixed(16, "maximum number of new tokens per answer: the response is a target", at_least=1)


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "mini": {}, "full": RELEASED}


def run_arm(config: Config, run: Run) -> None:
    """Fit the same lens to every target."""
    cells = [Cell(target, "tuned", target, fit=config.fit) for target in config.targets]
    judging.lens_study.carry_out(config, run, cells, [(target, config.targets[0]) for target in config.targets[1:]])
