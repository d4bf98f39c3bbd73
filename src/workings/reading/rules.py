"""The name of a rule → what a store's problems are asked about: `step1`, `step2`, … and `uniform`."""

from __future__ import annotations

from workings.errors import BadInput
from workings.models.thinking import ThoughtModel
from workings.reading.store import ThoughtStore
from workings.reading.targets import SPLITS, Targets, step_result, uniform_split


def targets_of(rule: str, model: ThoughtModel, store: ThoughtStore) -> Targets:
    """`stepK`: the result of step K, asked of every position. `uniform`: the first token of the position's slice of the chain.

    BadInput for another name.
    """
    problems, n_positions = store.as_problems(), len(store.positions)
    if rule == "uniform":
        chains = [model.chain_ids(p) for p in problems]
        return uniform_split(chains, n_positions, problems, store.splits, model.tokenizer.decode)
    if rule.startswith("step") and rule[4:].isdigit():
        encode = lambda text: model.tokenizer.encode(text, add_special_tokens=False)
        return step_result(problems, encode, int(rule[4:]), n_positions, store.splits)
    raise BadInput(f"no target rule '{rule}'; there are uniform, step1, step2, …")


def can_be_asked(targets: Targets) -> bool:
    """Whether every split has a target: otherwise nothing can be fitted, selected or judged."""
    return all(bool(targets.mask[targets.rows(split)].any()) for split in SPLITS)
