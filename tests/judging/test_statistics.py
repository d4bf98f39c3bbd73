"""Known values from scipy and from published examples, and simulations in which the truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workings.errors import BadInput
from workings.judging.paired import seeds_and_items, sign_flip, t_interval
from workings.judging.statistics import (
    Interval,
    Measure,
    ProblemSums,
    cluster_bootstrap,
    clustered_wilson,
    fisher,
    holm,
    mcnemar,
    minimum_detectable_difference,
    newcombe,
    p_in_words,
    paired_bootstrap,
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
            sign_flip(a.ravel(), b.ravel(), problems, n_resamples=400, seed=at) <= 0.05,
            mcnemar(b_only, a_only) <= 0.05,
            paired_bootstrap(a.ravel(), b.ravel(), problems, n_resamples=400, seed=at).low > 0,  # "a is better"
        )
        found.append(claims)
    assert (np.mean(found, axis=0) <= 0.05).all()


def test_a_paired_interval_is_narrower_than_an_unpaired_one_when_problems_differ():
    ease = np.random.default_rng(5).normal(size=300)
    a, b = ease + 0.1, ease
    paired = paired_bootstrap(a, b)
    assert paired.low == pytest.approx(0.1)
    assert paired.high == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(6).random(50)
    assert cluster_bootstrap(values, seed=1) == cluster_bootstrap(values, seed=1) != cluster_bootstrap(values, seed=2)


# ---- permutation, families, power --------------------------------------------------------------------------------


def test_six_seeds_that_agree_give_two_in_sixty_four():
    assert sign_flip(np.ones(6), np.zeros(6)) == 2 / 64


def test_sign_flips_agree_with_scipys_permutation_test():
    difference = np.random.default_rng(7).normal(0.3, 1, size=12)
    expected = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(difference, np.zeros(12)) == pytest.approx(expected.pvalue)
    assert sign_flip(difference, np.zeros(12), n_resamples=4000) == pytest.approx(expected.pvalue, abs=0.03)


def test_holms_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_over_seeds_is_students():
    values = [10.0, 12.0, 11.5, 9.0, 12.5]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert close(t_interval(values), expected.low, expected.high, 1e-9)


def test_one_seed_says_nothing_about_the_method():
    assert t_interval([3.0]) == Interval(-math.inf, math.inf)


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


# ---- seeds and items ---------------------------------------------------------------------------------------------


def trained(generator: np.random.Generator, n: int, seeds: float, items: float, noise: float) -> np.ndarray:
    """Paired differences [n, items] of truth 0, of `n` seeds: spread over seeds, over items, and from value to value."""
    shape = (n, N_ITEMS)
    return (
        generator.normal(size=(n, 1)) * seeds
        + generator.normal(size=(1, N_ITEMS)) * items
        + generator.normal(size=shape) * noise
    )


N_ITEMS = 60
SPREADS = [(0.0, 0.5, 1.0), (0.1, 0.3, 1.0), (0.3, 0.5, 1.0), (0.05, 0.5, 0.5), (0.0, 0.0, 1.0)]
"""Between seeds, between items, within: from seeds that do not matter to seeds that matter more than all else."""


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(("n_seeds", "at_most"), [(2, 0.99), (3, 0.98), (5, 0.97), (10, 0.97)])
def test_intervals_over_seeds_and_items_hold_the_truth_in_95_percent(
    n_seeds: int, at_most: float, spread: tuple[float, float, float]
):
    """With two or three seeds that vary about as much as the items do, a little more often: the safe side."""
    generator = np.random.default_rng(11)
    hold = [0.0 in seeds_and_items(trained(generator, n_seeds, *spread)) for _ in range(N_EXPERIMENTS)]
    assert 0.93 <= np.mean(hold) <= at_most


def test_right_and_wrong_answers_have_the_same_coverage():
    """Seeds shift how often an item is solved; the truth is the mean over ever more seeds and items."""
    generator, hold = np.random.default_rng(12), []
    for _ in range(N_EXPERIMENTS):
        ease = generator.normal(-0.5, 1.2, size=300) + generator.normal(0, 0.5, size=(3, 1))
        of_arms = [ease + shift + generator.normal(0, 0.3, size=(3, 1)) for shift in (0.0, 0.0)]
        a, b = (generator.random((3, 300)) < 1 / (1 + np.exp(-arm)) for arm in of_arms)
        hold.append(0.0 in seeds_and_items(a.astype(float) - b))
    assert 0.93 <= np.mean(hold) <= 0.97


def test_items_alone_seeds_alone_and_resampled_seeds_all_miss_the_truth_too_often():
    """Why the interval is what it is: the three shorter ways of making one."""
    generator = np.random.default_rng(13)
    items, seeds, resampled = [], [], []
    for at in range(400):
        values = trained(generator, 3, *((0.3, 0.5, 1.0) if at % 2 else (0.0, 1.0, 0.3)))
        items.append(0.0 in t_interval(values.mean(0)))
        seeds.append(0.0 in t_interval(values.mean(1)))
        rows, columns = generator.integers(3, size=(200, 3)), generator.integers(N_ITEMS, size=(200, N_ITEMS))
        means = values[rows[:, :, None], columns[:, None, :]].mean((1, 2))
        resampled.append(np.quantile(means, 0.025) <= 0 <= np.quantile(means, 0.975))
    assert np.mean(items) < 0.9 and np.mean(seeds) < 0.9 and np.mean(resampled) < 0.925


def test_one_seed_covers_items_and_says_so():
    values = np.random.default_rng(14).normal(size=(1, 40))
    found = seeds_and_items(values)
    assert found.covers == "items"
    expected = t_interval(values[0])
    assert close(found, expected.low, expected.high, 1e-12)


def test_what_is_covered_is_named():
    values = np.random.default_rng(15).normal(size=(3, 40))
    assert seeds_and_items(values).covers == "seeds and items"
    assert seeds_and_items(values[:, :1]).covers == "seeds"
    expected = t_interval(values[:, 0])
    assert close(seeds_and_items(values[:, :1]), expected.low, expected.high, 1e-9)


def test_the_two_parts_add_up_to_the_textbook_table():
    """Two-way table without replication: MS of seeds, of items and of the rest, worked out cell by cell."""
    values = np.array([[1.0, 2.0, 6.0, 3.0], [2.0, 1.0, 9.0, 4.0], [3.0, 6.0, 9.0, 2.0]])
    n, m, mean = 3, 4, values.mean()
    ms_seeds = m * sum((row.mean() - mean) ** 2 for row in values) / (n - 1)
    ms_items = n * sum((column.mean() - mean) ** 2 for column in values.T) / (m - 1)
    squares = [(values[s, i] - values[s].mean() - values[:, i].mean() + mean) ** 2 for s in range(n) for i in range(m)]
    ms_rest = sum(squares) / ((n - 1) * (m - 1))
    t_seeds, t_items = stats.t.ppf(0.975, n - 1), stats.t.ppf(0.975, m - 1)
    reach = math.sqrt((t_seeds**2 * ms_seeds + t_items**2 * (ms_items - ms_rest)) / (n * m))
    assert ms_items > ms_rest
    assert close(seeds_and_items(values), mean - reach, mean + reach, 1e-9)


@given(
    st.integers(2, 5),
    st.integers(2, 30),
    st.integers(0, 1000),
    st.floats(-5, 5, allow_nan=False),
    st.sampled_from([0.5, 2.0, -1.0]),
)
def test_an_interval_moves_and_scales_with_its_values(n_seeds: int, n_items: int, seed: int, by: float, times: float):
    values = np.random.default_rng(seed).normal(size=(n_seeds, n_items))
    found, moved = seeds_and_items(values), seeds_and_items(values * times + by)
    ends = sorted((found.low * times + by, found.high * times + by))
    assert close(moved, *ends, 1e-9)
    shuffled = np.random.default_rng(seed + 1).permutation(values, axis=1)
    assert close(seeds_and_items(shuffled), found.low, found.high, 1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_what_never_differed_may_yet_do_so(value: float):
    found = seeds_and_items(np.full((3, 100), value))
    assert value in found and 0.04 < found.high - found.low < 0.08  # of 100 equals, 3 may yet differ
    single = seeds_and_items(np.full((3, 1), value))
    assert value in single and single.high - single.low > 1


@pytest.mark.parametrize(
    ("n", "gained", "lost"), [(100, 0.03, 0.0), (100, 0.02, 0.01), (100, 0.05, 0.0), (1319, 0.005, 0.0)]
)
def test_few_items_that_differ_make_no_interval_too_short(n: int, gained: float, lost: float):
    """Student's own interval of these, without the two items more, holds the truth in 85 to 89 %."""
    generator, hold = np.random.default_rng(17), []
    for _ in range(N_EXPERIMENTS):
        draw = generator.random((1, n))
        hold.append(gained - lost in seeds_and_items((draw < gained) * 1.0 - (draw > 1 - lost)))
    assert np.mean(hold) >= 0.93


def test_shares_are_no_further_apart_than_one():
    found = seeds_and_items(np.array([[1.0] * 9 + [0.0], [0.0] * 10]))
    assert (found.low, found.high) == (-1.0, 1.0)


def test_one_item_that_differs_makes_no_interval_shorter_than_none():
    none, one = np.zeros((1, 89)), np.zeros((1, 89))
    one[0, 0] = 1.0
    lengths = [found.high - found.low for found in map(seeds_and_items, (none, one))]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize("values", [[0.1, 0.2], [[]], [[0.1, math.nan]]])
def test_what_is_no_table_of_differences_is_refused(values: list):
    with pytest.raises(BadInput, match=r"finite numbers \[seeds, items\]"):
        seeds_and_items(values)


def test_19_of_500_against_12_of_500_in_words():
    assert p_in_words(fisher(19, 500, 12, 500), "the first") == "no evidence of a difference"
    assert p_in_words(fisher(60, 500, 12, 500), "the first") == "the first is better"


def test_equal_arms_are_told_apart_over_seeds_and_items_at_most_one_time_in_twenty():
    generator = np.random.default_rng(16)
    found = []
    for _ in range(N_EXPERIMENTS):
        values = trained(generator, 6, 0.2, 0.3, 1.0)
        found.append((0.0 not in seeds_and_items(values), sign_flip(values.mean(1), np.zeros(6)) <= 0.05))
    assert (np.mean(found, axis=0) <= 0.05 + 0.014).all()  # two standard errors of 1000 experiments


# ---- a number as results keep it ---------------------------------------------------------------------------------


def test_an_interval_of_a_median_holds_it():
    found = Measure.median([5, 1, 3, 2, 4, 9, 8, 7, 6])
    assert (found.value, found.low, found.high, found.n) == (5, 2, 8, 9)
    assert Measure.median([4]) == Measure(4, 4, 4, 1)


def test_a_share_and_a_mean_say_what_they_rest_on():
    share = Measure.share([True, False, False, True])
    assert (share.value, share.k, share.n) == (0.5, 2, 4) and (share.low, share.high) == (
        wilson(2, 4).low,
        wilson(2, 4).high,
    )
    mean = Measure.mean([1.0, 2.0, 6.0])
    assert (mean.value, mean.n, mean.k) == (3.0, 3, None) and mean.low < 3 < mean.high


@pytest.mark.parametrize("kind", [Measure.share, Measure.mean, Measure.median])
def test_a_measure_of_no_items_is_bad_input(kind):
    with pytest.raises(BadInput, match="no item"):
        kind([])
