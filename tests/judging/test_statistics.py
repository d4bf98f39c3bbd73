"""Known values from scipy and from published examples, and simulations in which the truth is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workings.config import from_dict
from workings.errors import BadInput
from workings.files import to_json
from workings.judging.paired import paired_difference, seeds_and_items, t_interval
from workings.judging.statistics import (
    Interval,
    Measure,
    ProblemSums,
    cluster_bootstrap,
    clustered_wilson,
    difference_intervals,
    fisher,
    holm,
    mcnemar,
    minimum_detectable_difference,
    newcombe,
    p_in_words,
    percentile_intervals,
    required_n,
    simultaneous_intervals,
    wilson,
)

N_EXPERIMENTS = 1000


def close(interval: Interval, low: float, high: float, within: float) -> bool:
    return abs(interval.low - low) <= within and abs(interval.high - high) <= within


def clustered_hits(seed: int, n_problems: int, n_rows: int, mean: float, n_cells: int) -> ProblemSums:
    """Problems differ (a beta distribution), their rows are alike: `n_cells` independent experiments of one truth."""
    generator = np.random.default_rng(seed)
    ease = generator.beta(2 * mean, 2 * (1 - mean), size=(n_problems, n_cells))
    return ProblemSums(
        generator.binomial(n_rows, ease).astype(float), np.full((n_problems, n_cells), n_rows, dtype=float)
    )


# ---- proportions -------------------------------------------------------------------------------------------------


def test_19_of_500_against_12_of_500_is_no_evidence_of_a_difference():
    assert close(wilson(19, 500), 0.0245, 0.0586, 5e-5)
    assert close(wilson(12, 500), 0.0138, 0.0415, 5e-5)
    assert close(newcombe(19, 500, 12, 500), -0.0081, 0.0370, 5e-5)
    assert fisher(19, 500, 12, 500) == pytest.approx(0.273, abs=5e-4)


def test_12_discordant_one_way_and_5_the_other_give_p_143():
    assert mcnemar(12, 5) == mcnemar(5, 12) == pytest.approx(0.143, abs=5e-4)


def test_19_of_500_against_12_of_500_in_words():
    assert p_in_words(fisher(19, 500, 12, 500), "the first") == "no evidence of a difference"
    assert p_in_words(fisher(60, 500, 12, 500), "the first") == "the first is better"


def test_arms_that_never_disagree_do_not_differ():
    assert mcnemar(0, 0) == 1.0


@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_wilson_is_scipys(n: int, share: float):
    k = round(share * n)
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert close(wilson(k, n), expected.low, expected.high, 1e-9)


def test_newcombes_published_example():
    assert close(newcombe(56, 70, 48, 80), 0.0524, 0.3339, 5e-5)


@given(n1=st.integers(1, 500), n2=st.integers(1, 500), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_newcombe_holds_the_difference_and_mirrors(n1: int, n2: int, shares: tuple[float, float]):
    k1, k2 = round(shares[0] * n1), round(shares[1] * n2)
    there, back = newcombe(k1, n1, k2, n2), newcombe(k2, n2, k1, n1)
    assert there.low - 1e-12 <= k1 / n1 - k2 / n2 <= there.high + 1e-12
    assert close(there, -back.high, -back.low, 1e-12)


# ---- whole problems ----------------------------------------------------------------------------------------------


def test_sums_by_problem_and_cell_are_what_a_loop_gives():
    values, problems, cells = [1.0, 2.0, 4.0, 8.0], ["b", "a", "b", "b"], [0, 1, 1, 1]
    sums = ProblemSums.of(values, problems, cells)
    assert sums.sums.tolist() == [[0, 2], [1, 12]]
    assert sums.counts.tolist() == [[0, 1], [1, 2]]
    assert sums.means().tolist() == [1.0, 14 / 3]
    assert sums.n_problems.tolist() == [1, 2]


def test_sixteen_copies_of_a_row_are_not_sixteen_observations():
    hits = np.random.default_rng(0).random(200) < 0.2
    once = cluster_bootstrap(hits, np.arange(200))
    copied = cluster_bootstrap(np.repeat(hits, 16), np.repeat(np.arange(200), 16))
    naive = cluster_bootstrap(np.repeat(hits, 16))
    assert copied == once
    assert naive.high - naive.low < (once.high - once.low) / 3


def test_sixteen_copies_of_a_pair_are_not_sixteen_pairs():
    a, b = (np.random.default_rng(5).random((2, 200)) < 0.3).astype(float)
    once = cluster_bootstrap(a - b)
    copied = cluster_bootstrap(np.repeat(a, 16) - np.repeat(b, 16), np.repeat(np.arange(200), 16))
    assert copied == once


def test_wilson_by_problem_is_wilson_where_every_problem_has_one_row():
    hits = np.arange(1000) < 184
    band = clustered_wilson(ProblemSums.of(hits, np.arange(1000)))
    assert close(wilson(184, 1000), float(band.low[0]), float(band.high[0]), 3e-4)


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_nothing_hit_and_everything_hit_still_have_an_interval_of_n_problems(hit: float):
    band = clustered_wilson(ProblemSums.of(np.full(700, hit), np.repeat(np.arange(100), 7)))
    assert close(wilson(100 * hit, 100), float(band.low[0]), float(band.high[0]), 3e-3)


def test_a_cell_without_rows_has_no_number():
    sums = ProblemSums.of([1.0, 0.0, 1.0], [0, 1, 2], [0, 0, 2])
    assert np.isnan(simultaneous_intervals(sums).estimate[1])
    assert np.isnan(clustered_wilson(sums).low[1])
    assert np.isnan(percentile_intervals(sums, 100).low[1])


@pytest.mark.parametrize("n_problems", [25, 150])
def test_bootstrap_intervals_hold_the_truth_in_95_percent(n_problems: int):
    band = percentile_intervals(clustered_hits(n_problems, n_problems, 7, 0.3, N_EXPERIMENTS), n_resamples=600)
    assert 0.93 <= np.mean((band.low <= 0.3) & (band.high >= 0.3)) <= 0.97


@pytest.mark.parametrize(("n_problems", "mean"), [(60, 0.1), (200, 0.3)])
def test_wilson_by_problem_holds_the_truth_in_95_percent(n_problems: int, mean: float):
    band = clustered_wilson(clustered_hits(n_problems, n_problems, 7, mean, N_EXPERIMENTS))
    assert 0.93 <= np.mean((band.low <= mean) & (mean <= band.high)) <= 0.97


def test_simultaneous_intervals_hold_all_the_truths_in_95_percent_where_pointwise_ones_do_not():
    generator = np.random.default_rng(3)
    shape, all_hold, each_holds = (120, 12), [], []
    for at in range(400):
        values = generator.normal(size=shape) + generator.normal(size=(shape[0], 1))  # layers of one problem are alike
        sums = ProblemSums(values, np.ones(shape))
        for found, band in (
            (all_hold, simultaneous_intervals(sums, 250, seed=at)),
            (each_holds, percentile_intervals(sums, 250, seed=at)),
        ):
            found.append(((band.low <= 0) & (band.high >= 0)).all())
    assert 0.93 <= np.mean(all_hold) <= 0.97
    assert np.mean(each_holds) < 0.85


def test_no_test_finds_a_difference_between_equals_more_than_one_time_in_twenty():
    generator = np.random.default_rng(4)
    problems, found = np.repeat(np.arange(80), 5), []
    for at in range(1000):
        ease = generator.random((80, 1))
        a, b = (generator.random((2, 80, 5)) < ease).astype(float)
        b_only, a_only = (int((x[:, 0] > y[:, 0]).sum()) for x, y in ((b, a), (a, b)))
        claims = (
            paired_difference(a.ravel(), b.ravel(), problems).differs,
            mcnemar(b_only, a_only) <= 0.05,
            cluster_bootstrap(a.ravel() - b.ravel(), problems, n_resamples=400, seed=at).low > 0,  # "a is better"
        )
        found.append(claims)
    assert (np.mean(found, axis=0) <= 0.05).all()


def test_a_paired_interval_is_narrower_than_an_unpaired_one_when_problems_differ():
    ease = np.random.default_rng(5).normal(size=300)
    a, b = ease + 0.1, ease
    paired = cluster_bootstrap(a - b)
    assert paired.low == pytest.approx(0.1)
    assert paired.high == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(6).random(50)
    assert cluster_bootstrap(values, seed=1) == cluster_bootstrap(values, seed=1) != cluster_bootstrap(values, seed=2)


# ---- families, power --------------------------------------------------------------------------------


def test_holms_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_halving_a_difference_of_proportions_needs_the_textbook_number():
    assert required_n(0.1, 0.5) == 388  # 50 % against 60 %, 80 % power: the uncorrected textbook formula
    assert minimum_detectable_difference(388, 0.5) == pytest.approx(0.1, abs=2e-4)


def test_fewer_disagreements_show_smaller_differences():
    assert minimum_detectable_difference(500, 0.3, discordant=0.05) < minimum_detectable_difference(500, 0.3)


def test_no_difference_is_detectable_from_three_problems():
    assert math.isnan(minimum_detectable_difference(3, 0.9))


def test_the_stated_power_is_the_power():
    n = required_n(0.15, 0.4)
    hits = np.random.default_rng(8).binomial(n, [[0.4], [0.55]], size=(2, 2000))
    p_pooled = hits.sum(0) / (2 * n)
    z = (hits[1] - hits[0]) / n / np.sqrt(2 * p_pooled * (1 - p_pooled) / n)
    assert 0.77 <= np.mean(z > 1.96) <= 0.83


# ---- a number as results keep it ---------------------------------------------------------------------------------


def test_an_interval_of_a_median_holds_it():
    found = Measure.median([5, 1, 3, 2, 4, 9, 8, 7, 6])
    assert (found.value, found.low, found.high, found.n) == (5, 2, 8, 9)
    lowest, highest = Measure.median([3, 1, 2, 6, 5, 4]).low, Measure.median([3, 1, 2, 6, 5, 4]).high
    assert (lowest, highest) == (1, 6)


def test_a_share_and_a_mean_say_what_they_rest_on():
    share = Measure.share([True, False, False, True])
    assert (share.value, share.k, share.n) == (0.5, 2, 4) and (share.low, share.high) == (
        wilson(2, 4).low,
        wilson(2, 4).high,
    )
    mean = Measure.mean([1.0, 2.0, 6.0])
    assert (mean.value, mean.n, mean.k) == (3.0, 3, None) and mean.low < 3 < mean.high


def test_a_measure_without_ends_is_read_back_from_json():
    one = Measure.mean([2.5])
    assert (one.low, one.high) == (-math.inf, math.inf)
    assert from_dict(Measure, json.loads(to_json(one))) == one


# ---- none, one and two -------------------------------------------------------------------------------------------

OF_VALUES = {
    "cluster_bootstrap": cluster_bootstrap,
    "percentile_intervals": lambda values: percentile_intervals(ProblemSums.of(values, range(len(values)))).only(),
    "simultaneous_intervals": lambda values: simultaneous_intervals(ProblemSums.of(values, range(len(values)))).only(),
    "difference_intervals": lambda values: difference_intervals(
        ProblemSums.of(values, range(len(values))), are_shares=False
    ).only(),
    "Measure.mean": Measure.mean,
    "Measure.median": Measure.median,
    "t_interval": t_interval,
    "paired_difference": lambda values: paired_difference(values, [0.0] * len(values)).interval,
    "seeds_and_items": lambda values: seeds_and_items([values]),
}
OF_SHARES = {
    "wilson": lambda flags: wilson(sum(flags), len(flags)),
    "newcombe": lambda flags: newcombe(sum(flags), len(flags), 0, 5),
    "newcombe, the second": lambda flags: newcombe(0, 5, sum(flags), len(flags)),
    "clustered_wilson": lambda flags: clustered_wilson(ProblemSums.of(flags, range(len(flags)))).only(),
    "Measure.share": Measure.share,
    "difference_intervals": lambda flags: difference_intervals(
        ProblemSums.of(flags, range(len(flags))), are_shares=True
    ).only(),
    "paired_difference": lambda flags: paired_difference(flags, [0] * len(flags)).interval,
}
OTHERS = {
    "ProblemSums.of": lambda: ProblemSums.of([], []),
    "ProblemSums": lambda: ProblemSums(np.empty((0, 1)), np.empty((0, 1))),
    "fisher": lambda: fisher(0, 0, 1, 2),
    "fisher, the second": lambda: fisher(1, 2, 0, 0),
    "minimum_detectable_difference": lambda: minimum_detectable_difference(0, 0.5),
}


@pytest.mark.parametrize("name", [*OF_VALUES, *OF_SHARES, *OTHERS])
def test_of_no_item_nothing_is_said(name: str):
    made = {**OF_VALUES, **OF_SHARES}.get(name)
    with pytest.raises(BadInput, match=r"no item|no training seed|at least one"):
        _ = made([]) if made else OTHERS[name]()


@pytest.mark.parametrize("name", OF_VALUES)
@given(value=st.floats(-1e3, 1e3).filter(lambda value: value not in (-1, 0, 1)))
def test_one_value_has_the_whole_line_for_its_interval(name: str, value: float):
    found = OF_VALUES[name]([value])
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("name", OF_SHARES)
@pytest.mark.parametrize("flags", [[0], [1]])
def test_one_right_or_wrong_leaves_most_of_what_is_possible_open(name: str, flags: list[int]):
    """Wilson's interval of one item is .79 wide; a difference may be anything at least so wide."""
    found = OF_SHARES[name](flags)
    assert found.high - found.low > 0.75


@pytest.mark.parametrize("name", OF_VALUES)
@given(values=st.lists(st.integers(-1000, 1000), min_size=2, max_size=2, unique=True))
def test_two_values_have_an_interval_that_holds_both(name: str, values: list[int]):
    """Their own range holds the truth half the time; Student's interval of two reaches six times as far as they lie apart."""
    found = OF_VALUES[name]([value + 0.5 for value in values])
    assert found.low < min(values) and max(values) + 0.5 < found.high


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_of_few_values_hold_the_truth_in_95_percent(n: int):
    draws = np.random.default_rng(n).normal(size=(N_EXPERIMENTS, n))
    for make in (lambda values: cluster_bootstrap(values, n_resamples=1), Measure.median):
        assert np.mean([(found := make(values)).low <= 0 <= found.high for values in draws]) >= 0.93


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (math.nan, 5), (1, -3)])
def test_what_is_no_count_of_items_is_refused(k: float, n: float):
    for make in (lambda: wilson(k, n), lambda: newcombe(k, n, 1, 2), lambda: fisher(1, 2, k, n)):
        with pytest.raises(BadInput, match=r"no share|no item"):
            make()


@pytest.mark.parametrize(("difference", "p"), [(0.0, 0.5), (-0.1, 0.5), (0.6, 0.5), (0.1, 1.2)])
def test_no_n_shows_what_is_no_gain(difference: float, p: float):
    with pytest.raises(BadInput, match="no n shows"):
        required_n(difference, p)
