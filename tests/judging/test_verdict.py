"""Readings in which the truth is known: planted, absent, explained, too few to say; and one that was published."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.judging.test_scores import LAYERS, both_splits, readings
from workings.judging.controls import ControlInputs, read_controls
from workings.judging.scores import score, skill
from workings.judging.former_verdict import verdict

V, N = 40, 900


def ranks_with(seed: int, n: int, hit: float, n_layers: int = 1, like: np.ndarray | None = None) -> np.ndarray:
    """Hits in a share `hit` of the slots; with `like`, three in four slots are decided as there."""
    generator = np.random.default_rng(seed)
    chance = generator.random((n, n_layers, 3))
    if like is not None:
        agreed = generator.random(chance.shape) < 0.75
        return np.where(agreed, like, np.where(chance < hit, 0, 7))
    return np.where(chance < hit, 0, 7)


def judged(hits: dict[str, float], n: int = 400, nats: dict[str, float] | None = None, **options):
    """The verdict on readers that hit these shares of slots; every reader but the first agrees mostly with it."""
    parts = []
    for split in ("val", "test"):
        like = None
        for seed, (reader, hit) in enumerate(hits.items()):
            ranks = ranks_with(seed + 100 * (split == "val"), n, hit, like=like if hit == 0.3 else None)
            like = ranks if like is None else like
            parts.append(readings(reader, ranks, ("",), split, (nats or {}).get(reader, 2.0)))
    return verdict(pl.concat(parts), **options)


# ---- planted truths ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted() -> tuple[ControlInputs, dict[str, np.ndarray]]:
    """States that hold a token each at block1 in known directions, and noise at embed."""
    generator = np.random.default_rng(0)
    held = generator.integers(0, V, (N, 3))
    inputs = ControlInputs(
        problems=[f"p{i}" for i in range(N)],
        splits=["train", "val", "test"] * (N // 3),
        positions=("bot", "t1", "t2"),
        targets=held,
        mask=np.ones((N, 3), bool),
        new_values=np.zeros((N, 3), bool),
        chain_lengths=generator.integers(3, 6, N),
        questions=[generator.integers(0, V, 9).tolist() for _ in range(N)],
        is_number=lambda token: token < V // 2,
        n_tokens=V,
    )
    states = {"embed": generator.normal(size=(N, 3, V)), "block1": 4 * np.eye(V)[held]}
    return inputs, states


def read_states(inputs: ControlInputs, states: dict[str, np.ndarray], reader: str = "tuned lens") -> pl.DataFrame:
    """READINGS rows of a lens whose logits are the states themselves."""
    parts = []
    for layer, logits in states.items():
        own = np.take_along_axis(logits, inputs.targets[..., None], axis=2)
        p = np.exp(own[..., 0]) / np.exp(logits).sum(2)
        rows = inputs.readings(reader, ((logits >= own).sum(2) - 1).ravel(), p.ravel())
        parts.append(rows.with_columns(layer=pl.lit(layer)))
    return pl.concat(parts)


def test_a_planted_token_is_read_and_the_layer_found(planted):
    inputs, states = planted
    found = verdict(pl.concat([read_states(inputs, states), read_controls(inputs)]))
    assert found.kind == "read"
    assert found.numbers["layer"] == "block1"
    assert found.numbers["n_problems"] == N // 3
    assert found.sentence.startswith("The tuned lens names the target 100.0 % [")
    assert "at block1 (n = 300 problems)" in found.sentence
    assert "the thoughts hold more than the controls explain" in found.sentence


def test_a_planted_token_is_not_read_under_shuffled_targets(planted):
    inputs, states = planted
    shuffled = replace(inputs, targets=np.random.default_rng(1).permutation(inputs.targets))
    found = verdict(pl.concat([read_states(shuffled, states), read_controls(shuffled)]))
    assert found.kind != "read"
    assert found.numbers["skill_low"] <= 0


def test_a_lens_like_its_control_is_called_read_no_more_than_one_time_in_twenty():
    generator = np.random.default_rng(2)
    n_read = 0
    for _ in range(150):
        parts = []
        for split in ("val", "test"):
            ease = generator.random((60, 1, 1))
            for reader in ("tuned lens", "majority", "structure only"):
                ranks = np.where(generator.random((60, 1, 3)) < ease, 0, 5)
                parts.append(readings(reader, ranks, ("",), split))
        n_read += skill(pl.concat(parts)).filter(measure="top1")["low"][0] > 0
    assert n_read / 150 <= 0.05


# ---- a published reading -----------------------------------------------------------------------------------------

# Top-1 by position in %: a tuned lens on 200 test problems and 16 layers, and naming each position's commonest token.
PUBLISHED_LENS = (10.00, 17.53, 22.47, 24.78, 16.72, 19.06)
COMMONEST = (9.5, 17.0, 23.5, 29.5, 16.0, 14.5)


def published(split: str) -> pl.DataFrame:
    """Readings with exactly these shares of hits, the lens right mostly where the commonest token is."""
    generator = np.random.default_rng(split == "val")
    n, n_layers = 200, 16
    problem, layer, position = (axis.ravel() for axis in np.indices((n, n_layers, 6)))
    lens, commonest = np.ones((n, n_layers, 6), int), np.ones((n, 1, 6), int)
    for at, (lens_share, share) in enumerate(zip(PUBLISHED_LENS, COMMONEST, strict=True)):
        right = generator.permutation(n)[: round(n * share / 100)]
        commonest[right, 0, at] = 0
        per_layer = np.full(n_layers, round(n * n_layers * lens_share / 100) // n_layers)
        per_layer[: round(n * n_layers * lens_share / 100) - per_layer.sum()] += 1
        for of_layer, count in enumerate(generator.permutation(per_layer)):
            likely = np.where(np.isin(np.arange(n), right), 8.0, 1.0)
            lens[generator.choice(n, count, replace=False, p=likely / likely.sum()), of_layer, at] = 0

    def frame(reader: str, ranks: np.ndarray, nats: float) -> pl.DataFrame:
        has_layers = ranks.shape[1] > 1
        kept = slice(None) if has_layers else layer == 0
        return pl.DataFrame(
            {
                "reader": reader,
                "problem": [f"{split}{i}" for i in problem[kept]],
                "layer": [f"layer{i}" if has_layers else "" for i in layer[kept]],
                "position": [f"position{i}" for i in position[kept]],
                "target": np.zeros(ranks.size, np.int64),
                "rank": ranks.ravel().astype(np.int32),
                "nll": np.full(ranks.size, nats, np.float32),
                "new_value": False,
                "split": split,
            }
        )

    return pl.concat([frame("tuned lens", lens, 3.90), frame("majority", commonest, 3.85)])


def test_a_published_lens_at_18_43_percent_is_explained_by_the_commonest_token_at_18_33():
    table = pl.concat([published("val"), published("test")])
    overall = dict(score(table).select("reader", "top1").iter_rows())
    assert overall["tuned lens"] == pytest.approx(0.1843, abs=5e-5)
    assert overall["majority"] == pytest.approx(0.1833, abs=5e-5)
    pooled = skill(table).row(by_predicate=pl.col("measure") == "top1", named=True)
    assert pooled["skill"] == pytest.approx(0.0010, abs=1e-4)
    assert pooled["low"] < 0 < pooled["high"] < 0.05
    found = verdict(table)
    assert found.kind == "explained by a control"
    assert "always naming each position's commonest token does as well" in found.sentence
    assert "(n = 200 problems)" in found.sentence


# ---- the four answers --------------------------------------------------------------------------------------------


def test_the_sentence_gives_share_interval_n_control_and_skill_in_points_and_bits():
    found = judged(
        {"tuned lens": 0.41, "structure only": 0.31, "majority": 0.2}, 1000, {"tuned lens": 1.5, "majority": 3.0}
    )
    shape = (
        r"The tuned lens names the target \d\d\.\d % \[\d\d\.\d, \d\d\.\d\] of the time \(n = 1,000 problems\); "
        r"the best control \(structure only\) \d\d\.\d %; skill \+\d+\.\d points \[\d+\.\d, \d+\.\d\], "
        r"\+0\.72 bits \[0\.72, 0\.72\]: the thoughts hold more than the controls explain\. "
        r"One training seed: the intervals are items only and say nothing about the method\."
    )
    assert re.fullmatch(shape, found.sentence), found.sentence


def test_several_seeds_are_not_called_one():
    assert "items only" not in judged({"tuned lens": 0.4, "majority": 0.2}, n_seeds=3).sentence


def test_worse_than_the_commonest_token_is_nothing_read():
    found = judged({"tuned lens": 0.05, "majority": 0.3, "structure only": 0.4})
    assert found.kind == "nothing read"
    assert "−" in found.sentence
    assert "-" not in found.sentence


def test_a_copying_control_that_does_better_explains_the_reading():
    found = judged({"tuned lens": 0.3, "majority": 0.2, "copy from question": 0.5})
    assert found.kind == "explained by a control"
    assert "copying numbers out of the question does better" in found.sentence


def test_few_problems_leave_it_undecided():
    found = judged({"tuned lens": 0.3, "structure only": 0.3}, n=12)
    assert found.kind == "undecided"
    assert "more problems are needed" in found.sentence


def test_likelier_targets_but_no_more_of_them_leave_it_undecided():
    found = judged({"tuned lens": 0.3, "structure only": 0.3}, nats={"tuned lens": 1.0})
    assert found.kind == "undecided"
    assert "finds them likelier" in found.sentence


def test_a_model_without_recurrence_that_reads_as_well_is_named():
    found = judged({"tuned lens": 0.3, "control model": 0.3, "majority": 0.1})
    assert found.kind == "explained by a control"
    assert "a matched model without recurrence does as well" in found.sentence
    assert "Over the best other control (majority) the skill is +2" in found.sentence
    assert "what is read needs no recurrence" in found.sentence
    assert found.numbers["over_the_others_low"] > 0.1


def test_a_model_without_recurrence_counts_though_another_control_was_better_on_validation():
    found = judged({"tuned lens": 0.3, "control model": 0.3})
    parts = [both_splits("tuned lens", ("",), {"val": np.ones((300, 1, 3)), "test": np.zeros((300, 1, 3))})]
    parts += [both_splits("control model", ("",), {"val": np.ones((300, 1, 3)), "test": np.zeros((300, 1, 3))})]
    parts += [both_splits("majority", ("",), {"val": np.zeros((300, 1, 3)), "test": np.ones((300, 1, 3))})]
    found = verdict(pl.concat(parts))
    assert found.numbers["skill_control"] == "majority"
    assert found.numbers["skill"] == 1.0
    assert found.kind == "explained by a control"
    assert "this control is beaten" in found.sentence
    assert "what is read needs no recurrence" in found.sentence


def test_a_model_without_recurrence_that_reads_less_is_named_too():
    found = judged({"tuned lens": 0.6, "control model": 0.15, "structure only": 0.4})
    assert found.kind == "read"
    assert re.search(r"A matched model without recurrence reads \d\d\.\d % \(difference \+", found.sentence)


def test_each_control_is_taken_at_its_own_best_layer():
    lens, shuffled = np.full((90, 4, 3), 7), np.full((90, 4, 3), 7)
    lens[:, 2], shuffled[:, 0] = 0, 0
    table = pl.concat(
        both_splits(reader, LAYERS, {"val": ranks, "test": ranks})
        for reader, ranks in (("tuned lens", lens), ("shuffled targets", shuffled))
    )
    found = verdict(table)
    assert found.numbers["layer"] == "block2"
    assert found.kind == "explained by a control"


def test_the_numbers_can_be_written_down():
    found = judged({"tuned lens": 0.3, "control model": 0.2, "majority": 0.1})
    assert json.loads(json.dumps(dict(found.numbers), allow_nan=False)) == found.numbers
