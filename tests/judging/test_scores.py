"""Scores and skill against loops over rows, and choices that must look at validation rows only."""

from __future__ import annotations

from collections.abc import Mapping
from math import log

import numpy as np
import polars as pl
import pytest

from workings.errors import BadInput
from workings.judging.scores import at_one_layer, choose_layer, controls_of, new_values, predictors, score, skill
from workings.judging.statistics import wilson
from workings.reading.readings import Predictor

LAYERS = ("embed", "block1", "block2", "block10")
POSITIONS = ("bot", "t1", "t2")
CONTROLS = ("majority", "structure only", "shuffled targets")


PREDICTORS = {
    "shuffled targets": Predictor("tuned lens", targets="shuffled"),
    "untrained model": Predictor("tuned lens", "untrained"),
    "control model": Predictor("tuned lens", "control"),
} | {name: Predictor(name, "", "Q") for name in ("majority", "structure only", "copy from question")}


def predictor(name: str) -> Predictor:
    """A lens on the model, or what a short name stands for in these tests."""
    return PREDICTORS.get(name, Predictor(name))


def readings(
    reader: str, ranks: np.ndarray, layers: tuple[str, ...] = ("",), split: str = "test", nll: float | np.ndarray = 1.0
) -> pl.DataFrame:
    """From ranks [problems, layers, positions]; the target of a slot is the same for every reader."""
    n_layers, n_positions = ranks.shape[1:]
    problem, layer, position = (axis.ravel() for axis in np.indices(ranks.shape))
    assert n_layers == len(layers)
    return pl.DataFrame(
        {
            **{column: [value] * ranks.size for column, value in predictor(reader)._asdict().items()},
            "problem": [f"{split}{i}" for i in problem],
            "layer": np.array(layers)[layer].tolist(),
            "position": np.array(POSITIONS)[position].tolist(),
            "target": (problem * n_positions + position).astype(np.int64),
            "rank": ranks.ravel().astype(np.int32),
            "nll": np.broadcast_to(nll, ranks.shape).ravel().astype(np.float32),
            "new_value": (problem + position) % 4 == 0,
            "split": [split] * ranks.size,
        }
    )


def random_ranks(seed: int, n: int, n_layers: int, hit: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.where(generator.random((n, n_layers, 3)) < hit, 0, generator.integers(1, 20, (n, n_layers, 3)))


def both_splits(
    reader: str, layers: tuple[str, ...], ranks: Mapping[str, np.ndarray], nll: float = 1.0
) -> pl.DataFrame:
    return pl.concat([readings(reader, each, layers, split, nll) for split, each in ranks.items()])


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """A lens at four layers, two controls without layers and one with: val and test, 80 problems each."""
    parts = []
    for at, (split, n) in enumerate((("val", 80), ("test", 80))):
        parts += [
            readings("tuned lens", random_ranks(10 + at, n, 4, 0.5), LAYERS, split, 1.0),
            readings("majority", random_ranks(20 + at, n, 1, 0.2), ("",), split, 3.0),
            readings("structure only", random_ranks(30 + at, n, 1, 0.3), ("",), split, 2.5),
            readings("shuffled targets", random_ranks(40 + at, n, 4, 0.1), LAYERS, split, 4.0),
        ]
    return pl.concat(parts)


def of(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows of a predictor, in a table of readings, scores or skills."""
    return table.filter(**predictor(name)._asdict())


def hits(table: pl.DataFrame, reader: str, k: int = 1, **where: str) -> dict[tuple, bool]:
    rows = of(table, reader).filter(split="test", **where)
    return {(row["problem"], row["layer"], row["position"]): row["rank"] < k for row in rows.iter_rows(named=True)}


def test_scores_are_means_over_test_rows(table: pl.DataFrame):
    found = {name: of(score(table), name).row(0, named=True) for name in ("tuned lens", *CONTROLS)}
    for reader, row in found.items():
        for k in (1, 5, 10):
            assert row[f"top{k}"] == pytest.approx(np.mean(list(hits(table, reader, k).values())))
            assert row[f"top{k}_low"] < row[f"top{k}"] < row[f"top{k}_high"]
    assert found["tuned lens"]["n_problems"] == 80
    assert found["tuned lens"]["n_rows"] == 80 * 4 * 3
    assert found["majority"]["n_rows"] == 80 * 3
    assert found["structure only"]["ce"] == pytest.approx(2.5)


def test_scores_by_layer_and_position_come_in_the_order_of_the_readings(table: pl.DataFrame):
    found = of(score(table, by=("layer", "position")), "tuned lens")
    assert found.select("layer", "position").rows() == [(layer, position) for layer in LAYERS for position in POSITIONS]
    row = found.row(by_predicate=(pl.col("layer") == "block10") & (pl.col("position") == "t1"), named=True)
    mean = np.mean(list(hits(table, "tuned lens", layer="block10", position="t1").values()))
    assert row["top1"] == pytest.approx(mean)
    assert row["n_problems"] == row["n_rows"] == 80
    # One row a problem: the interval is Wilson's, but for Student's t in place of the normal quantile.
    assert row["top1_low"] == pytest.approx(wilson(80 * mean, 80).low, abs=0.004)


def test_copying_a_layer_makes_no_interval_narrower():
    ranks = random_ranks(1, 300, 1, 0.2)
    alone, copied = (
        score(readings("tuned lens", np.repeat(ranks, len(layers), axis=1), layers)).row(0, named=True)
        for layers in (("block1",), LAYERS)
    )
    assert copied["n_problems"] == alone["n_problems"] == 300
    assert copied["top1_low"] == pytest.approx(alone["top1_low"], abs=1e-3)
    assert copied["top1_high"] == pytest.approx(alone["top1_high"], abs=1e-3)


def test_intervals_that_hold_together_are_wider(table: pl.DataFrame):
    by = ("layer", "position")
    each, together = (of(score(table, by, simultaneously=flag), "tuned lens") for flag in (False, True))
    assert (together["top1_high"] - together["top1_low"] > each["top1_high"] - each["top1_low"]).all()
    assert (together["ce_high"] - together["ce_low"] >= each["ce_high"] - each["ce_low"]).all()


def test_new_values_are_scored_by_themselves_beside_every_control(table: pl.DataFrame):
    found = new_values(table)
    assert predictors(found) == predictors(table)
    rows = of(table, "majority").filter(split="test", new_value=True)
    row = of(found, "majority").row(0, named=True)
    assert row["n_rows"] == len(rows)
    assert row["top1"] == pytest.approx((rows["rank"] < 1).mean())
    assert new_values(table.with_columns(new_value=pl.lit(False))).is_empty()


def test_skill_is_the_paired_difference_to_each_control(table: pl.DataFrame):
    assert [str(control) for control in controls_of(table)] == [
        "majority",
        "structure only",
        "tuned lens on shuffled targets",
    ]
    lens = hits(table, "tuned lens")
    for name in CONTROLS:
        theirs = hits(table, name)
        at = {
            False: lambda problem, layer, position: ("", position),
            True: lambda _, layer, position: (layer, position),
        }
        where = at[name == "shuffled targets"]
        expected = np.mean([hit - theirs[slot[0], *where(*slot)] for slot, hit in lens.items()])
        row = of(skill(table), name).row(by_predicate=pl.col("measure") == "top1", named=True)
        assert row["skill"] == pytest.approx(expected)
        assert row["skill"] == pytest.approx(row["lens_value"] - row["control_value"])
        assert row["low"] < expected < row["high"]
    bits = of(skill(table), "structure only").row(by_predicate=pl.col("measure") == "bits", named=True)
    assert bits["skill"] == pytest.approx((2.5 - 1.0) / log(2))
    assert bits["lens_value"] == pytest.approx(1 / log(2))


def test_no_comparison_depends_on_which_other_controls_there_are(table: pl.DataFrame):
    alone = skill(table, controls=[predictor("majority")])
    assert of(skill(table), "majority").equals(alone)
    without_validation = table.filter((pl.col("split") == "test") | (pl.col("reader") == "tuned lens"))
    found, expected = (skill(each).sort(*Predictor._fields, "measure") for each in (without_validation, table))
    assert found.equals(expected)


def test_a_lens_no_better_than_its_controls_beats_all_of_them_no_more_than_one_time_in_twenty():
    """The best of several controls, chosen on validation, is beaten by nothing in 8 to 26 % of such draws."""
    generator = np.random.default_rng(3)
    n_beaten = 0
    for _ in range(100):
        best = generator.random((100, 1, 1)) < 0.3
        parts = []
        for split in ("val", "test"):
            for at, reader in enumerate(("tuned lens", "majority", "structure only", "copy from question")):
                agrees = generator.random((100, 1, 1)) < 0.6
                hit = np.where(agrees, best, generator.random((100, 1, 1)) < 0.3 - 0.03 * max(0, at - 1))
                parts.append(readings(reader, np.where(np.broadcast_to(hit, (100, 1, 1)), 0, 5), ("",), split))
        n_beaten += skill(pl.concat(parts)).filter(measure="top1")["low"].min() > 0
    assert n_beaten <= 5


def test_other_lenses_on_the_model_are_no_controls(table: pl.DataFrame):
    other = table.with_columns(reader=pl.lit("logit lens")).filter(subject="model", targets="real")
    both = pl.concat([table, other])
    assert controls_of(both) == controls_of(table)
    assert skill(both).equals(skill(table))


def test_a_control_with_layers_is_paired_layer_by_layer(table: pl.DataFrame):
    row = skill(table, by=("layer",), controls=[predictor("shuffled targets")]).row(
        by_predicate=(pl.col("layer") == "block2") & (pl.col("measure") == "top1"), named=True
    )
    lens, control = (hits(table, reader, layer="block2") for reader in ("tuned lens", "shuffled targets"))
    assert row["skill"] == pytest.approx(np.mean([hit - control[at] for at, hit in lens.items()]))


def test_skills_of_many_cells_hold_together(table: pl.DataFrame):
    cells = of(skill(table, by=("layer", "position")), "structure only").filter(measure="top1")
    kept = table.filter((pl.col("layer") == "block1") | (pl.col("layer") == ""), position="t1")
    alone = of(skill(kept), "structure only")
    one = cells.row(by_predicate=(pl.col("layer") == "block1") & (pl.col("position") == "t1"), named=True)
    pointwise = alone.row(by_predicate=pl.col("measure") == "top1", named=True)
    assert one["skill"] == pytest.approx(pointwise["skill"])
    assert one["high"] - one["low"] > 1.2 * (pointwise["high"] - pointwise["low"])


def test_a_difference_that_never_varies_is_not_taken_for_certain():
    always = np.zeros((12, 1, 3), int)
    table = pl.concat(
        both_splits(reader, ("",), {"val": always, "test": always}) for reader in ("tuned lens", "majority")
    )
    row = skill(table).row(by_predicate=pl.col("measure") == "top1", named=True)
    assert (row["skill"], row["low"], row["high"]) == (0.0, -0.25, 0.25)


def test_the_layer_is_chosen_on_validation():
    val, test = random_ranks(1, 50, 4, 0.2), random_ranks(2, 50, 4, 0.2)
    val[:, 2], test[:, 0] = 0, 0
    table = both_splits("tuned lens", LAYERS, {"val": val, "test": test})
    assert choose_layer(table) == "block2"


def test_among_layers_that_name_as_many_the_likelier_is_chosen():
    nll = np.array([3.0, 1.0, 2.0, 4.0])[None, :, None]
    table = readings("tuned lens", np.zeros((9, 4, 3), int), LAYERS, "val", nll)
    assert choose_layer(table) == choose_layer(table, metric="bits") == "block1"


def test_readers_of_different_layers_can_be_paired_at_the_best_of_each():
    lens, shuffled = random_ranks(1, 40, 4, 0.1), random_ranks(2, 40, 4, 0.1)
    lens[:, 3], shuffled[:, 1] = 0, 0
    table = pl.concat(
        both_splits(reader, LAYERS, {"val": ranks, "test": ranks})
        for reader, ranks in (("tuned lens", lens), ("shuffled targets", shuffled))
    )
    found = at_one_layer(table)
    assert found["layer"].unique().to_list() == [""]
    assert skill(found).filter(measure="top1")["skill"].to_list() == [0.0]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda t: of(t, "tuned lens"), "no control among"),
        (lambda t: t.filter(pl.col("reader") != "tuned lens"), "no readings by the tuned lens; there are majority"),
        (lambda t: t.filter(pl.col("split") == "val"), "no readings of split 'test'"),
        (
            lambda t: t.filter(~((pl.col("reader") == "majority") & (pl.col("problem") == "test7"))),
            "12 of the 960 rows",
        ),
        (lambda t: pl.concat([t, t.filter(pl.col("reader") == "majority")]), "several readings"),
        (lambda t: t.drop("nll"), "lacks the columns nll"),
        (lambda t: t.with_columns(nll=pl.lit(float("nan"))), "not a number"),
        (
            lambda t: t.with_columns(
                target=pl.when(pl.col("reader") == "majority").then(pl.col("target") + 1).otherwise(pl.col("target"))
            ),
            "against other targets",
        ),
    ],
)
def test_tables_that_cannot_be_judged_are_refused(table: pl.DataFrame, broken, says: str):
    with pytest.raises(BadInput, match=says):
        skill(broken(table))
