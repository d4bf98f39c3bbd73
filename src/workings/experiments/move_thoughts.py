"""Does changing 54 to 55 in a thought change the answer accordingly?

What is fed at a thought is moved along the difference of two means: of the training problems whose step has the result that the
answer is to follow, and of those whose step has this problem's own. If the thought holds the result there and the answer is
computed from it, the answer becomes what the chain gives with the new result; with a difference of the same length between two
other results it does not.
Prediction (2026-11-25): in the bundled model the answer follows at t1 for late steps of short chains, in under half of the
problems, and never by the random difference.
Measure: share of answers that follow, paired with the random difference, at the thought chosen on validation; test is read once.
Stop rule: none is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import polars as pl

from workings import judging, models, seeds
from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.arithmetic.variants import carried
from workings.config import check_ranges, fixed
from workings.errors import BadInput
from workings.reading.study import RELEASED, SMOKE, StudyConfig
from workings.run import Run

if TYPE_CHECKING:
    from torch import Tensor

MOVED, RANDOM = "moved", "random difference"


@dataclass(frozen=True)
class Config(StudyConfig):
    """Which steps, and how many problems."""

    steps: tuple[int, ...] = fixed((1, 2, 3, 4), "steps whose results are changed, from 1", at_least=1)
    fewest: int = fixed(5, "fewest training problems behind a mean", at_least=1)
    n_moved: int = fixed(300, "number of validation and of test problems, each, whose thoughts are moved", at_least=1)
    limit: int = fixed(4000, "maximum number of problems", at_least=1)
    max_new_tokens: int = fixed(16, "maximum number of new tokens per answer", at_least=1)

    __post_init__ = check_ranges


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "limit": 400, "steps": (1, 2), "fewest": 2, "n_moved": 20},
    "mini": {},
    "full": {**RELEASED, "n_moved": 1319, "max_new_tokens": 64},
}


@dataclass(frozen=True)
class Change:
    """A problem, one of whose steps is to have another result."""

    problem: Problem
    step: int
    own: Fraction
    other: Fraction
    follows: Fraction


def run_arm(config: Config, run: Run) -> None:
    """Think, take means by result, and answer with moved thoughts."""
    model = models.open_model(
        config.model,
        base=config.base,
        lora_alpha=config.lora_alpha,
        device=models.device_of(config.device),
        dtype=models.dtype_of(config.precision),
    )
    store = judging.lens_study.collected(model, config, run)
    problems, splits = store.as_problems(), store.splits
    train = [problem for problem, split in zip(problems, splits, strict=True) if split == "train"]
    vectors = model.think([problem.question for problem in train], batch_size=config.batch_size).projected
    frames, answers = [], {problem.value for problem in train}
    for step in config.steps:
        means = _means(train, vectors, step, config.fewest)
        for split in ("val", "test"):
            some = [problem for problem, of in zip(problems, splits, strict=True) if of == split]
            changes = _changes(some, step, means, answers)[: config.n_moved]
            if changes:
                frames.append(
                    _moved(model, changes, means, config).with_columns(split=pl.lit(split), step=pl.lit(step))
                )
    if not frames:
        raise BadInput("no step has two results with enough training problems behind them; give more problems")
    table = pl.concat(frames)
    run.outcomes("moved", table)
    shares = table.filter(split="test").group_by("direction").agg(pl.col("follows").mean())
    run.results("headline", {f"{name}, all places": share for name, share in shares.iter_rows()})


def _means(train: Sequence[Problem], vectors: Tensor, step: int, fewest: int) -> dict[Fraction, Tensor]:
    """{result of the step: mean of what is fed [K, d]} of the results that enough problems have."""
    rows: dict[Fraction, list[int]] = {}
    for row, problem in enumerate(train):
        if problem.n_steps >= step:
            rows.setdefault(problem.steps[step - 1].value, []).append(row)
    return {value: vectors[some].mean(0) for value, some in rows.items() if len(some) >= fewest}


def _changes(
    problems: Sequence[Problem], step: int, means: Mapping[Fraction, Tensor], answers: Set[Fraction]
) -> list[Change]:
    """Each problem with the next result above its own that has a mean and leads to another of the answers that training has."""
    found = []
    for problem in problems:
        own = problem.steps[step - 1].value if problem.n_steps >= step else None
        if own is None or own not in means:
            continue
        for other in sorted(value for value in means if value > own):
            leads_to = carried(problem, step, other)
            if leads_to in answers and leads_to != problem.value:
                assert leads_to is not None
                found.append(Change(problem, step, own, other, leads_to))
                break
    return found


def _moved(
    model: models.CODI, changes: Sequence[Change], means: Mapping[Fraction, Tensor], config: Config
) -> pl.DataFrame:
    """Answers with each thought moved alone, along the difference and along a random one of its length."""
    import torch

    toward = torch.stack([means[one.other] - means[one.own] for one in changes])  # [n, K, d]
    random = seeds.python(f"random difference {changes[0].step}", config.seed)
    if len(means) < 4:
        raise BadInput(
            f"step {changes[0].step} has {len(means)} results with enough problems, and 4 are needed; give more problems"
        )
    others = [random.sample([value for value in means if value not in (one.own, one.other)], 2) for one in changes]
    astray = torch.stack([means[a] - means[b] for a, b in others])
    astray = astray * toward.norm(dim=2, keepdim=True) / astray.norm(dim=2, keepdim=True).clamp(min=1e-9)
    by_name = {MOVED: toward.to(model.device), RANDOM: astray.to(model.device)}
    conditions = {"own": models.Condition()}
    for name, difference in by_name.items():
        for k in range(1, model.n_thoughts + 1):
            value = lambda m, d=difference: m.value + d[m.rows, m.k - 1].to(m.value)
            conditions[f"{name} {k}"] = models.Condition((models.Intervention(value, (k,)),))
    questions = [one.problem.question for one in changes]
    found = models.answers_under(
        model, questions, conditions, batch_size=config.batch_size, max_new_tokens=config.max_new_tokens
    )
    own = found.pop("own").answers
    frames = []
    for key, answered in found.items():
        name, _, k = key.rpartition(" ")
        frames.append(
            pl.DataFrame(
                {
                    "problem": [one.problem.id for one in changes],
                    "structure": [one.problem.structure for one in changes],
                    "direction": name,
                    "k": int(k),
                    "right": [same_answer(a.value, one.problem.value) for a, one in zip(own, changes, strict=True)],
                    "follows": [a.value == one.follows for a, one in zip(answered.answers, changes, strict=True)],
                    "keeps": [a.value == b.value for a, b in zip(answered.answers, own, strict=True)],
                }
            )
        )
    return pl.concat(frames)
