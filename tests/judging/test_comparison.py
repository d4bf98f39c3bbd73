"""Real runs in a temporary folder, compared; and runs that must not be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from workings.config import fixed, nuisance, scientific
from workings.errors import BadInput
from workings.judging.arms import refuse_unmatched
from workings.judging.comparison import compare
from workings.judging.paired import seeds_and_items
from workings.judging.statistics import ONE_SEED, holm, mcnemar
from workings.run import Run, RunRecord


@dataclass(frozen=True)
class Optim:
    lr: float = nuisance(1e-3)


@dataclass(frozen=True)
class Config:
    vocabulary: str = scientific("digits")
    optim: Optim = fixed(Optim())
    n_steps: int = fixed(10)
    seed: int = fixed(0)


def outcomes(correct: np.ndarray | list[bool], first: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"problem": [f"p{first + i}" for i in range(len(correct))], "correct": correct})


def run(root: Path, arm: str, correct, seed: int = 0, name: str = "gsm8k", config: Config | None = None) -> RunRecord:
    frame = correct if isinstance(correct, pl.DataFrame) else outcomes(correct)
    with Run.start(root, "facts", arm, seed, config or Config(vocabulary=arm, seed=seed)) as started:
        started.outcomes(name, frame)
    return RunRecord(started.path)


def right(n_both: int, n_only: int, n_other: int, n: int) -> tuple[list[bool], list[bool]]:
    a = [True] * n_both + [True] * n_only + [False] * n_other
    b = [True] * n_both + [False] * n_only + [True] * n_other
    return a + [False] * (n - len(a)), b + [False] * (n - len(b))


def test_12_against_19_of_500_is_no_evidence(tmp_path: Path):
    digits, facts = right(7, 5, 12, 500)
    found = compare([run(tmp_path, "digits", digits), run(tmp_path, "facts", facts)], Config)
    row = found.table.row(0, named=True)
    assert (row["n"], row["only_a"], row["only_b"]) == (500, 5, 12)
    assert row["difference"] == pytest.approx(0.014)
    assert row["low"] < 0 < row["high"]
    assert row["p"] == row["p_holm"] == mcnemar(12, 5)
    assert row["detectable"] > 0.014
    assert "2.4 % → 3.8 %, difference +1.4 points [−" in found.text()
    assert "n = 500 paired; right in only one: 5 and 12, McNemar p = 0.143" in found.text()
    assert "no evidence of a difference" in found.text()


def test_examples_are_paired_by_id_and_not_by_place(tmp_path: Path):
    correct = np.random.default_rng(0).random(60) < 0.5
    there = outcomes(correct)
    found = compare([run(tmp_path, "digits", there), run(tmp_path, "facts", there.reverse())], Config).table
    assert found["only_a"].to_list() == found["only_b"].to_list() == [0]
    assert 0.03 < found["high"].item() < 0.06  # never different in 60: up to 5 % may still be


def test_a_clear_difference_is_said_to_be_one(tmp_path: Path):
    digits, facts = right(20, 2, 60, 100)
    text = compare([run(tmp_path, "digits", digits), run(tmp_path, "facts", facts)], Config).text()
    assert "facts is better on these examples" in text
    assert "p < 0.001" in text


def test_one_seed_is_warned_of(tmp_path: Path):
    found = compare([run(tmp_path, arm, [True, False] * 20) for arm in ("digits", "facts")], Config)
    assert found.warnings == (ONE_SEED,)
    assert f"Warning: {ONE_SEED}" in found.text()
    assert not found.arms


def test_seeds_are_paired_and_carry_the_headline(tmp_path: Path):
    generator = np.random.default_rng(1)
    gains = (0.10, 0.20, 0.15)
    records, differences = [], []
    for seed, gain in enumerate(gains):
        digits, facts = (np.arange(200) < 60)[generator.permutation(200)], np.arange(200) < 60 + 200 * gain
        both = [run(tmp_path, "digits", digits, seed), run(tmp_path, "facts", facts, seed)]
        records += both if seed != 1 else both[::-1]  # the order of the runs decides nothing
        differences.append(facts.astype(float) - digits)
    found = compare(records, Config)
    assert found.table.select("seed_a", "seed_b").rows() == [(0, 0), (1, 1), (2, 2)]
    (pair,) = found.arms
    expected, one = seeds_and_items(np.array(differences)), pair.difference
    assert (pair.arm_a, pair.arm_b, one.n_seeds) == ("digits", "facts", 3)
    assert (one.difference, one.interval.low, one.interval.high) == pytest.approx((0.15, expected.low, expected.high))
    assert "over 3 paired seeds: difference +15.0 points" in found.text()
    assert f"(seeds and items), Student's t p = {one.p:.3f}: the arms differ" in found.text()
    assert not found.warnings


def test_seeds_that_judged_other_examples_are_an_interval_over_seeds(tmp_path: Path):
    gains, records = (0.1, 0.2, 0.15), []
    for seed, gain in enumerate(gains):
        for arm, n_right in (("digits", 60), ("facts", 60 + round(200 * gain))):
            records.append(run(tmp_path, arm, outcomes(np.arange(200) < n_right, first=seed), seed))
    found = compare(records, Config).arms[0].difference.interval
    expected = stats.ttest_1samp(gains, 0).confidence_interval()
    assert found.covers == "seeds"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_examples_are_compared_and_show_nothing(tmp_path: Path, n: int):
    found = compare([run(tmp_path, "digits", [False] * n), run(tmp_path, "facts", [True] * n)], Config)
    (pair,) = found.pairs
    assert (pair.difference.n_items, pair.difference.differs) == (n, False)
    assert pair.difference.interval.low <= 0 and pair.difference.interval.high == 1.0
    assert "no evidence of a difference" in pair.text()


def test_three_arms_are_a_family(tmp_path: Path):
    generator = np.random.default_rng(2)
    records = [run(tmp_path, arm, generator.random(100) < 0.5) for arm in ("digits", "facts", "shuffled")]
    found = compare(records, Config).table
    assert found.select("arm_a", "arm_b").rows() == [("digits", "facts"), ("digits", "shuffled"), ("facts", "shuffled")]
    assert found["p_holm"].to_list() == holm(found["p"].to_list())


def test_seeds_of_one_arm_are_compared_with_each_other(tmp_path: Path):
    records = [run(tmp_path, "digits", [True, False, True, False], seed) for seed in (0, 1, 2)]
    assert compare(records, Config).table.select("seed_a", "seed_b").rows() == [(0, 1), (0, 2), (1, 2)]
    assert compare(records).table.height == 3  # the seed needs no Config to be told apart


def test_arms_without_a_common_seed_are_compared_with_a_warning(tmp_path: Path):
    records = [run(tmp_path, "digits", [True] * 9, 0), run(tmp_path, "facts", [True] * 9, 1)]
    assert compare(records, Config).warnings == (
        "No seed is common to the arms: every run is compared with those of the other arms, and no seeds are paired.",
    )


def test_a_seed_that_only_one_arm_has_is_named(tmp_path: Path):
    records = [run(tmp_path, arm, [True] * 9, seed) for arm, seed in (("digits", 0), ("digits", 1), ("facts", 0))]
    found = compare(records, Config)
    assert found.table.select("seed_a", "seed_b").rows() == [(0, 0)]
    left_out = "Seed 1 of digits has no run of facts beside it: only seeds that both arms have are compared."
    assert found.warnings == (ONE_SEED, left_out)


def test_an_arm_that_shares_no_seed_with_the_others_is_named(tmp_path: Path):
    made = (("digits", 0), ("facts", 0), ("shuffled", 1), ("shuffled", 2))
    found = compare([run(tmp_path, arm, [True] * 9, seed) for arm, seed in made], Config)
    assert any(
        line.startswith("Seeds 1, 2 of shuffled have no run of digits, facts beside them") for line in found.warnings
    )


def test_what_was_read_from_one_place_and_is_not_the_same_is_warned_of(tmp_path: Path):
    file, records = tmp_path / "problems.jsonl", []
    for arm in ("digits", "facts"):
        file.write_text(f"written before {arm}")
        with Run.start(tmp_path, "facts", arm, 0, Config(vocabulary=arm), inputs={"problems": file}) as started:
            started.outcomes("gsm8k", outcomes([True, False]))
        records.append(RunRecord(started.path))
    changed = "What the runs read was not the same: problems changed in content between them."
    assert changed in compare(records, Config).warnings


def test_interval_p_and_words_agree_in_every_row(tmp_path: Path):
    """Three arms of which one pair differs by itself (p = .021, bootstrap interval above zero) and not among three."""
    base = np.zeros(200, bool)
    better, other = base.copy(), base.copy()
    better[:10], base[10:12], other[:3] = True, True, True
    arms = {"digits": base, "facts": better, "shuffled": other}
    found = compare([run(tmp_path, arm, correct) for arm, correct in arms.items()], Config)
    first = found.pairs[0]
    assert first.difference.p < 0.05 < first.p_holm
    assert first.difference.interval.low < 0 and "no evidence of a difference" in first.text()
    assert f"McNemar p = {first.p_holm:.3f}, Holm's of 3 comparisons" in first.text()
    for row, pair in zip(found.table.rows(named=True), found.pairs, strict=True):
        assert (row["low"] <= 0 <= row["high"]) == (row["p_holm"] > 0.05) == ("no evidence" in pair.text())


def test_conditions_of_one_example_are_compared_one_by_one(tmp_path: Path):
    frames = [
        pl.concat(
            [outcomes(own).with_columns(condition=pl.lit("own")), outcomes(zero).with_columns(condition=pl.lit("zero"))]
        )
        for own, zero in (([True] * 8, [False] * 8), ([True] * 8, [True] * 8))
    ]
    records = [run(tmp_path, arm, frame) for arm, frame in zip(("digits", "facts"), frames, strict=True)]
    found = compare(records, Config)
    assert found.table.select("condition", "difference").rows() == [("own", 0.0), ("zero", 1.0)]
    assert "gsm8k zero, digits → facts" in found.text()


def test_all_outcomes_that_the_runs_share_are_compared_or_the_one_named(tmp_path: Path):
    records = []
    for arm in ("digits", "facts"):
        with Run.start(tmp_path, "facts", arm, 0, Config(vocabulary=arm)) as started:
            started.outcomes("gsm8k", outcomes([True, False]))
            started.outcomes("probes", outcomes([True, True, False]))
            started.outcomes("readings", pl.DataFrame({"problem": ["p0"], "rank": [3]}))
        records.append(RunRecord(started.path))
    assert compare(records, Config).table["outcomes"].to_list() == ["gsm8k", "probes"]
    assert compare(records, Config, outcomes="probes").table["outcomes"].to_list() == ["probes"]


def test_two_runs_of_one_arm_and_seed_are_not_two_seeds(tmp_path: Path):
    twice = [run(tmp_path, "digits", [True, False] * 10) for _ in range(2)]
    found = compare([*twice, run(tmp_path, "facts", [True] * 20)], Config)
    assert not found.arms and len(found.table) == 2


# ---- matched in cost ---------------------------------------------------------------------------------------------

COST = {
    "parameters": 4_000_000,
    "steps": 600,
    "raw_bytes": 12_000_000,
    "tokens": 3_100_000,
    "flops": 74_000_000_000_000,
}


def costing(root: Path, arm: str, **changes: int) -> RunRecord:
    with Run.start(root, "facts", arm, 0, Config(vocabulary=arm)) as started:
        started.outcomes("gsm8k", outcomes([True, False, True]))
        started.results("budget", {name: value for name, value in (COST | changes).items() if value >= 0})
    return RunRecord(started.path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("parameters", 4_000_001, "4,000,000 and 4,000,001"),
        ("steps", 599, "600 and 599"),
        ("raw_bytes", 12_200_000, "12,000,000 and 12,200,000"),
    ],
)
def test_runs_that_did_not_cost_alike_are_refused(tmp_path: Path, field: str, value: int, says: str):
    records = [costing(tmp_path, "digits"), costing(tmp_path, "facts", **{field: value})]
    for refuse in (lambda: compare(records, Config), lambda: refuse_unmatched(*records)):
        with pytest.raises(BadInput, match=f"not matched in {field}: {says}"):
            refuse()


def test_tokens_and_flops_may_differ_and_are_told(tmp_path: Path):
    fewer = {"tokens": 2_900_000, "flops": 69_000_000_000_000}
    digits, facts = costing(tmp_path, "digits"), costing(tmp_path, "facts", **fewer)
    found = compare([digits, facts], Config)
    assert [record.manifest.arm for record, _ in found.costs] == ["digits", "facts"]
    assert [cost.tokens for _, cost in found.costs] == [3_100_000, 2_900_000]
    matched = "4,000,000 parameters, 600 steps, 12,000,000 raw bytes"
    assert f"Cost of {facts.path.name} (facts): {matched}, 2,900,000 tokens, 6.9e+13 FLOPs" in found.text()


def test_half_a_row_of_raw_text_is_no_difference(tmp_path: Path):
    records = [costing(tmp_path, "digits"), costing(tmp_path, "facts", raw_bytes=12_000_400)]
    assert compare(records, Config).table.height == 1


def test_runs_that_record_no_cost_are_compared_and_a_single_one_is_warned_of(tmp_path: Path):
    silent, priced = run(tmp_path, "digits", [True, False, True]), costing(tmp_path, "facts")
    found = compare([silent, priced], Config)
    assert "Some of the runs record no cost, so nothing says that they are matched in it." in found.warnings
    assert len(found.costs) == 1
    without = [run(tmp_path / "other", arm, [True, False, True]) for arm in ("digits", "facts")]
    assert compare(without, Config).warnings == (ONE_SEED,)


def test_a_field_that_only_one_run_records_is_not_asked_about(tmp_path: Path):
    records = [costing(tmp_path, "digits"), costing(tmp_path, "facts", steps=-1)]
    assert [cost.steps for _, cost in compare(records, Config).costs] == [600, None]


# ---- refused -----------------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_refused(tmp_path: Path):
    whole = run(tmp_path, "digits", [True])
    with pytest.raises(RuntimeError), Run.start(tmp_path, "facts", "facts", 0, Config("facts")) as started:
        raise RuntimeError("lost power")
    with pytest.raises(BadInput, match="is failed, not finished"):
        compare([whole, RunRecord(started.path)], Config)


def test_runs_that_differ_in_a_field_not_scientific_are_refused(tmp_path: Path):
    one = run(tmp_path, "digits", [True])
    tuned = run(tmp_path, "facts", [True], config=Config("facts", optim=Optim(lr=3e-3), n_steps=20))
    with pytest.raises(BadInput, match=r"differ in optim\.lr, n_steps, which the experiment does not mark scientific"):
        compare([one, tuned], Config)


def test_without_the_experiments_config_no_field_may_differ(tmp_path: Path):
    records = [run(tmp_path, arm, [True]) for arm in ("digits", "facts")]
    with pytest.raises(BadInput, match="differ in vocabulary"):
        compare(records)


def test_runs_of_different_examples_are_refused_and_counted(tmp_path: Path):
    records = [
        run(tmp_path, "digits", outcomes([True] * 10)),
        run(tmp_path, "facts", outcomes([True] * 12, first=4)),
    ]
    with pytest.raises(BadInput, match=r"6 of .* are missing in .*, and 4 the other way"):
        compare(records, Config)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pl.DataFrame({"problem": ["a", "a"], "correct": [True, False]}), "judge an example more than once"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": [True, None]}), "lack a judgement"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": [None, None]}), "lack a judgement"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": ["yes", "no"]}), "is text: write right and wrong as true"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": [[1], [0]]}), "is of the type List"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": [1.0, 0.5]}), r"holds 0\.5: give true and false, or 1 and 0"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": [1, 2]}), "holds 2: give true and false, or 1 and 0"),
        (pl.DataFrame({"problem": ["a", "b"], "correct": [1.0, float("nan")]}), "holds nan"),
        (
            pl.DataFrame({"problem": [], "correct": []}, schema={"problem": pl.String, "correct": pl.Boolean}),
            "are empty",
        ),
        (pl.DataFrame({"question": ["a", "b"], "correct": [True, True]}), "need columns 'problem' and 'correct'"),
        (pl.DataFrame({"problem": ["a"], "rank": [1]}), "no outcomes with a column 'correct'"),
    ],
)
def test_outcomes_that_cannot_be_paired_are_refused(tmp_path: Path, frame: pl.DataFrame, says: str):
    records = [run(tmp_path, arm, frame) for arm in ("digits", "facts")]
    with pytest.raises(BadInput, match=says):
        compare(records, Config)


@pytest.mark.parametrize("asked", ["question", "gold", "label"])
def test_examples_of_one_id_that_asked_something_else_are_refused(tmp_path: Path, asked: str):
    mine, theirs = (
        outcomes([True, False]).with_columns(pl.Series(asked, what)) for what in (["6*9?", "1"], ["6*9?", "2"])
    )
    with pytest.raises(BadInput, match=f"1 of the examples, first 'p1', have another {asked}"):
        compare([run(tmp_path, "digits", mine), run(tmp_path, "facts", theirs)], Config)
    assert len(compare([run(tmp_path, "digits", mine), run(tmp_path, "facts", mine.reverse())], Config).pairs) == 1


def test_one_run_is_not_a_comparison(tmp_path: Path):
    with pytest.raises(BadInput, match="two finished runs or more"):
        compare([run(tmp_path, "digits", [True])], Config)


def test_runs_of_different_experiments_are_refused(tmp_path: Path):
    one = run(tmp_path, "digits", [True])
    with Run.start(tmp_path, "thoughts", "facts", 0, replace(Config(), vocabulary="facts")) as started:
        started.outcomes("gsm8k", outcomes([True]))
    with pytest.raises(BadInput, match="different experiments"):
        compare([one, RunRecord(started.path)], Config)
