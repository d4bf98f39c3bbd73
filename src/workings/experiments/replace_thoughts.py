"""Does the answer survive when a thought is replaced by the token that is read from it?

Seed 001's fifth proposal. What is fed at a thought is replaced by the embedding of the token that a lens reads from the state
which the thought is made of (logit lens, tuned lens), of the token of the chain that belongs there (the oracle), or of a random
token of its class; beside these stand nothing, the mean, noise of the same length and the negative. Later thoughts are
recomputed. Each is done at one thought, and at the first j of them, all at last.
If a thought were the token that is read from it, the oracle and the lens would keep the answer and a random token of the class
would not.
Prediction (2026-11-25): with all thoughts replaced no token keeps the answers of the bundled model, whose answer sees the
thoughts only; the oracle keeps no more than a random token of its class.
Measure: right answers on test problems, paired by problem with the model's own thoughts; KL of the first answer token. Stop rule:
none is needed; layer and lens are chosen on validation, and test is read once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from workings import judging, models, reading
from workings.arithmetic.answers import same_answer
from workings.config import check_ranges, fixed
from workings.errors import BadInput
from workings.reading.study import RELEASED, SMOKE, StudyConfig
from workings.run import Run

OWN, EACH, FIRST = "own", "each", "first"


@dataclass(frozen=True)
class Config(StudyConfig):
    """What is replaced, and of how many problems."""

    n_edited: int = fixed(300, "number of test problems answered under every replacement", at_least=1)
    keep_length: bool = fixed(True, "give an embedding the length of the thought that it replaces")
    max_new_tokens: int = fixed(16, "maximum number of new tokens per answer", at_least=1)

    __post_init__ = check_ranges


ARMS = {"study": Config()}
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "n_edited": 20},
    "mini": {},
    "full": {**RELEASED, "n_edited": 1319, "max_new_tokens": 64},
}


def run_arm(config: Config, run: Run) -> None:
    """Think, fit a tuned lens, and answer under every replacement."""
    model = models.open_model(
        config.model,
        base=config.base,
        lora_alpha=config.lora_alpha,
        device=models.device_of(config.device),
        dtype=models.dtype_of(config.precision),
    )
    store = judging.lens_study.collected(model, config, run)
    targets = reading.probe_targets(config.target, model, store)
    if not targets.in_every_split:
        raise BadInput(
            f"the target '{config.target}' does not stand in every split of these problems; give more of them"
        )
    fit = reading.fit_lens(
        reading.TunedLens.of(model),
        store,
        targets,
        replace(config.fit, seed=config.seed),
        lambda e, **m: run.log(e, **m),
    )
    readings = reading.read_all(fit.lens, store, targets, targets.rows("val"))
    layer = judging.choose_layer(readings, reading.Predictor(fit.lens.name))
    rows = targets.rows("test")[: config.n_edited]
    problems = [store.as_problems()[row] for row in rows.tolist()]
    values = judging.replacements.of_a_study(
        model, store, targets, rows, fit.lens, layer, config.keep_length, config.seed
    )
    conditions = {(OWN, "", 0): models.Condition()}
    for name, value in values.items():
        for k in range(1, model.n_thoughts + 1):
            conditions[name, EACH, k] = models.Condition((models.Intervention(value, (k,)),))
            conditions[name, FIRST, k] = models.Condition((models.Intervention(value, tuple(range(1, k + 1))),))
    named = {" ".join(map(str, key)): one for key, one in conditions.items()}
    found = models.answers_under(
        model,
        [problem.question for problem in problems],
        named,
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
    )
    own = found[" ".join(map(str, (OWN, "", 0)))].answers
    frames = []
    for key, (replacement, where, k) in zip(named, conditions, strict=True):
        answers = found[key].answers
        frames.append(
            pl.DataFrame(
                {
                    "problem": [problem.id for problem in problems],
                    "structure": [problem.structure for problem in problems],
                    "replacement": replacement,
                    "where": where,
                    "k": k,
                    "answer": [None if one.value is None else str(one.value) for one in answers],
                    "correct": [same_answer(a.value, p.value) for a, p in zip(answers, problems, strict=True)],
                    "keeps": [a.value == b.value for a, b in zip(answers, own, strict=True)],
                    "divergence": found[key].divergence.tolist(),
                },
                schema_overrides={"answer": pl.String},
            )
        )
    table = pl.concat(frames)
    run.outcomes("replaced", table)
    run.results("lens", {"layer": layer, "rule": targets.rule, "n_thoughts": model.n_thoughts})
    everything = table.filter(where=FIRST, k=model.n_thoughts).group_by("replacement").agg(pl.col("correct").mean())
    run.results(
        "headline",
        {"own": judging.Measure.share(table.filter(replacement=OWN)["correct"]).value, **dict(everything.iter_rows())},
    )
