"""The controls against a plain reading of their definitions, built densely on small vocabularies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from workings.errors import BadInput
from workings.judging.controls import (
    ControlInputs,
    Copying,
    Distribution,
    copy_from_question,
    majority,
    read_controls,
    structure_only,
)
from workings.reading.readings import READINGS
from workings.reading.targets import EMPTY, Targets

V = 60
NUMBERS = range(20, 50)


def asked(
    ids: np.ndarray,
    problems: list[str],
    splits: list[str],
    new_values: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
) -> Targets:
    """Targets of token ids [n, P] or [n, P, M], in chains of these lengths [n]."""
    ids = ids[:, :, None] if ids.ndim == 2 else ids
    new = np.zeros(ids.shape, bool) if new_values is None else new_values[:, :, None] & (ids != EMPTY)
    positions = ("bot", "t1", "t2")[: ids.shape[1]]
    n_members = torch.from_numpy((ids != EMPTY).sum(2))
    named = tuple(problems), tuple(splits)
    of_chain = torch.from_numpy(np.zeros(len(ids), np.int64) if lengths is None else np.asarray(lengths, np.int64))
    return Targets("planted", positions, torch.from_numpy(ids), torch.from_numpy(new), n_members, *named, of_chain)


def with_ids(inputs: ControlInputs, where: np.ndarray, ids: np.ndarray | int) -> ControlInputs:
    """The same problems, with other tokens asked in some of the slots that have a target."""
    before = inputs.targets.ids[..., 0].numpy()
    after = np.where(where & (before != EMPTY), ids, before)
    return replace(inputs, targets=replace(inputs.targets, ids=torch.from_numpy(after)[..., None]))


def in_split(inputs: ControlInputs, split: str) -> np.ndarray:
    return (np.array(inputs.targets.splits) == split)[:, None]


def problems_with(n: int, seed: int = 0, n_positions: int = 3) -> ControlInputs:
    """Position 0 copies the question's second number, position 1 tells the chain's length, position 2 is noise."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 8, n)
    questions = [[1, *generator.choice(NUMBERS, size=generator.integers(1, 5)).tolist(), 2, 3] for _ in range(n)]
    targets = generator.integers(4, 20, (n, n_positions)) // generator.integers(1, 4, (n, n_positions))
    targets[:, 0] = [question[2] if question[2] in NUMBERS else 5 for question in questions]
    targets[:, 1] = 10 + lengths
    splits = ["train", "train", "val", "test"] * (n // 4) + ["train"] * (n % 4)
    mask = generator.random((n, n_positions)) < 0.9
    new_values = generator.random((n, n_positions)) < 0.3
    return ControlInputs(
        targets=asked(np.where(mask, targets, EMPTY), [f"p{i}" for i in range(n)], splits, new_values, lengths),
        questions=questions,
        is_number=lambda token: token in NUMBERS,
        n_tokens=V,
    )


@pytest.fixture(scope="module")
def inputs() -> ControlInputs:
    return problems_with(401)


def top1(readings: pl.DataFrame, reader: str, position: str) -> float:
    rows = readings.filter(reader=reader, position=position, split="test")
    return float((rows["rank"] < 1).mean())  # ty: ignore[invalid-argument-type]


def written_out(found: Distribution) -> np.ndarray:
    """All probabilities [vocabulary]."""
    whole = np.full(found.n_tokens, found.floor)
    whole[found.seen] = found.p
    return whole


def mixed(copying: Copying, row: int) -> np.ndarray:
    """All probabilities of one row [vocabulary]: the majority's, and the weight of every source that names a token."""
    whole = copying.left[row] * written_out(copying.base.distribution(row))
    for token, weight in zip(copying.sources[row], copying.weights[row], strict=True):
        whole[token] += weight if token >= 0 else 0
    return whole


def whole_distributions(inputs: ControlInputs) -> dict[str, list[np.ndarray]]:
    rows = range(len(inputs.target))
    by_position = majority(inputs)
    structure, copying = structure_only(inputs, by_position), copy_from_question(inputs, by_position)
    return {
        "majority": [written_out(by_position.distribution(row)) for row in rows],
        "structure only": [written_out(structure.distribution(row)) for row in rows],
        "copy from question": [mixed(copying, row) for row in rows],
    }


def test_every_distribution_sums_to_one(inputs: ControlInputs):
    for distributions in whole_distributions(inputs).values():
        np.testing.assert_allclose(np.sum(distributions, axis=1), 1, rtol=1e-12)
        assert np.min(distributions) > 0


def test_rank_and_nats_are_those_of_the_whole_distribution(inputs: ControlInputs):
    readings = read_controls(inputs)
    for reader, distributions in whole_distributions(inputs).items():
        rows = readings.filter(reader=reader)
        p = np.array(distributions)
        own = p[np.arange(len(p)), rows["target"].to_numpy()]
        np.testing.assert_allclose(rows["nll"].to_numpy(), -np.log(own), rtol=1e-6)
        n_likelier, n_as_likely = ((p > own[:, None] * (1 + within)).sum(1) for within in (1e-12, -1e-12))
        rank = rows["rank"].to_numpy()
        assert ((n_likelier <= rank) & (rank < n_as_likely)).all()


def test_log_probabilities_are_those_of_the_whole_distribution(inputs: ControlInputs):
    candidates = [59, *range(5, 50, 3), 30]  # in no order, and some never seen
    by_position = majority(inputs)
    found = {
        "majority": by_position,
        "structure only": structure_only(inputs, by_position),
        "copy from question": copy_from_question(inputs, by_position),
    }
    for reader, distributions in whole_distributions(inputs).items():
        expected = np.log(np.array(distributions)[:, candidates])
        np.testing.assert_allclose(found[reader].log_probabilities(candidates), expected, rtol=1e-9)
        everything = np.exp(found[reader].log_probabilities(range(V)))
        np.testing.assert_allclose(everything.sum(1), 1, rtol=1e-12)


def test_several_tokens_of_a_slot_are_as_many_rows_of_one_distribution(inputs: ControlInputs):
    one = inputs.targets.ids[..., 0].numpy()
    several = np.stack([one, np.where((one != EMPTY) & (np.arange(3) > 0), one + 1, EMPTY)], axis=2)
    more = replace(inputs, targets=asked(several, list(inputs.targets.problems), list(inputs.targets.splits)))
    readings = read_controls(more).filter(reader="majority")
    assert len(readings) == (several != EMPTY).sum()
    assert not readings.select("problem", "position", "target").is_duplicated().any()
    whole = written_out(majority(more).distribution(0))
    first = readings.row(0, named=True)
    assert first["nll"] == pytest.approx(-np.log(whole[first["target"]]), rel=1e-5)


def test_every_control_names_one_token_first_and_ranks_each_seen_token_apart(inputs: ControlInputs):
    """A control that lost its ties would name nothing at all, and be beaten by any lens."""
    everything = np.arange(V)[:, None].repeat(3, axis=1)
    before = inputs.targets
    more = replace(
        inputs,
        targets=asked(
            np.concatenate([before.ids[..., 0].numpy(), everything]),
            [*before.problems, *(f"more{i}" for i in range(V))],
            [*before.splits, *["test"] * V],
            lengths=np.append(before.chain_lengths.numpy(), [4] * V),
        ),
        questions=[*inputs.questions, *[[1, 30, 25, 25, 49]] * V],
    )
    all_tokens = read_controls(more).filter(pl.col("problem").str.starts_with("more"))
    for _, rows in all_tokens.group_by("reader", "position"):
        ranks = rows["rank"].sort().to_list()
        n_unseen = ranks.count(V - 1)
        assert ranks[: V - n_unseen] == list(range(V - n_unseen))
        assert n_unseen < V / 2


def test_readings_are_the_asked_slots_of_every_split_in_the_agreed_columns(inputs: ControlInputs):
    readings = read_controls(inputs)
    assert readings.columns == list(READINGS)
    assert readings.schema["rank"] == pl.Int32 and readings.schema["nll"] == pl.Float32
    assert readings.select("subject", "features", "targets").unique().rows() == [("", "Q", "real")]
    targets = inputs.targets
    expected = {
        (targets.problems[i], targets.positions[p], int(targets.ids[i, p, 0]), bool(targets.new_value[i, p, 0]), split)
        for i, split in enumerate(targets.splits)
        for p in targets.has_target[i].nonzero()[:, 0].tolist()
    }
    for _, rows in readings.group_by("reader"):
        found = rows.select("problem", "position", "target", "new_value", "split").rows()
        assert len(found) == len(expected)
        assert set(found) == expected


def test_each_control_finds_what_it_looks_at(inputs: ControlInputs):
    readings = read_controls(inputs)
    assert top1(readings, "structure only", "t1") == 1.0
    assert top1(readings, "majority", "t1") < 0.4
    assert top1(readings, "copy from question", "bot") > 0.95
    assert top1(readings, "structure only", "bot") < 0.4


def test_the_majority_names_the_commonest_training_token_of_each_position(inputs: ControlInputs):
    by_position = majority(inputs)
    for row in range(20):
        here = inputs.rows_of("train") & (inputs.position == inputs.position[row])
        tokens, counts = np.unique(inputs.target[here], return_counts=True)
        assert counts[tokens == written_out(by_position.distribution(row)).argmax()] == counts.max()


def test_test_targets_change_no_prediction(inputs: ControlInputs):
    other = with_ids(inputs, in_split(inputs, "test"), 59)
    for name, distributions in whole_distributions(inputs).items():
        np.testing.assert_array_equal(distributions, whole_distributions(other)[name])


def test_an_unseen_token_ties_with_all_unseen_tokens_and_loses():
    inputs = problems_with(400)
    inputs = with_ids(inputs, in_split(inputs, "test"), 59)
    lost = read_controls(inputs).filter(pl.col("target") == 59, pl.col("reader") != "copy from question")
    assert lost["rank"].unique().to_list() == [V - 1]


def test_an_unseen_chain_length_is_read_as_the_position():
    inputs = problems_with(400)
    lengths = torch.from_numpy(in_split(inputs, "test")[:, 0]) * 99 + inputs.targets.chain_lengths
    other = replace(inputs, targets=replace(inputs.targets, chain_lengths=lengths))
    structure = structure_only(other, majority(other))
    rows = np.flatnonzero(inputs.rows_of("test"))
    by_position = structure.distribution(rows[0])
    same = [row for row in rows if inputs.position[row] == inputs.position[rows[0]]]
    assert all(np.array_equal(structure.distribution(row).p, by_position.p) for row in same)


def test_what_nothing_depends_on_costs_nothing():
    """On noise the finer controls are smoothed back to the majority, so they do not look worse than it."""
    inputs = problems_with(4000)
    noise = np.random.default_rng(1).integers(4, 20, (4000, 3))
    nats = (
        read_controls(with_ids(inputs, np.array(True), noise))
        .filter(split="test")
        .group_by("reader")
        .agg(pl.mean("nll"))
    )
    by_reader = dict(nats.iter_rows())
    assert max(by_reader.values()) < np.log(16) * 1.02


def test_questions_without_numbers_and_empty_positions_are_no_trouble(inputs: ControlInputs):
    without = with_ids(inputs, np.arange(3) == 2, EMPTY)
    readings = read_controls(replace(without, questions=[[1, 2]] * len(inputs.questions)))
    assert "t2" not in readings["position"]
    copied, constant = (readings.filter(reader=name)["rank"].to_list() for name in ("copy from question", "majority"))
    assert copied == constant


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_problems_to_fit_or_smooth_on_is_said(inputs: ControlInputs, split: str):
    with pytest.raises(BadInput, match=f"no target in split '{split}'"):
        splits = tuple("test" if each == split else each for each in inputs.targets.splits)
        replace(inputs, targets=replace(inputs.targets, splits=splits))


def test_a_large_vocabulary_is_never_written_out():
    inputs = problems_with(2000)
    large = replace(inputs, n_tokens=100_000_000)
    assert read_controls(large)["nll"].is_finite().all()


def test_validation_targets_that_training_never_showed_are_no_trouble(inputs: ControlInputs):
    readings = read_controls(with_ids(inputs, in_split(inputs, "val"), inputs.n_tokens - 1))
    assert readings["nll"].is_finite().all()
