"""The one paired comparison: what it does with one seed and with several, checked against the parts it is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.judging.test_statistics import N_EXPERIMENTS, close
from workings.errors import BadInput
from workings.judging.paired import (
    PairedDifference,
    paired_difference,
    seeds_and_items,
    share_over_seeds,
    t_interval,
    with_holm,
)
from workings.judging.statistics import Interval, holm, mcnemar, wilson

FACTS, DIGITS = (np.random.default_rng(21).random((2, 3, 90)) < [[[0.5]], [[0.3]]]).astype(float)


# ---- two arms ----------------------------------------------------------------------------------------------------


def test_right_and_wrong_of_one_seed_are_tested_by_mcnemar():
    found = paired_difference(FACTS[0], DIGITS[0])
    wins, losses = int((FACTS[0] > DIGITS[0]).sum()), int((FACTS[0] < DIGITS[0]).sum())
    assert (found.n_only_treatment, found.n_only_baseline, found.n_items, found.n_seeds) == (wins, losses, 90, 1)
    assert (found.test, found.p) == ("exact McNemar", mcnemar(wins, losses))
    assert found.interval == seeds_and_items(FACTS[:1] - DIGITS[:1])
    assert found.interval.covers == "items"
    assert found.difference == pytest.approx(found.treatment - found.baseline) == pytest.approx((wins - losses) / 90)


def test_the_difference_changes_sign_with_the_arms():
    there, back = paired_difference(FACTS[0], DIGITS[0]), paired_difference(DIGITS[0], FACTS[0])
    assert there.difference == -back.difference and there.p == back.p
    assert (there.n_only_treatment, there.n_only_baseline) == (back.n_only_baseline, back.n_only_treatment)
    assert close(there.interval, -back.interval.high, -back.interval.low, 1e-12)


def test_arms_that_never_differed_may_yet_do_so_in_about_3_of_n():
    found = paired_difference(np.ones(60), np.ones(60))
    assert found.interval.low == -found.interval.high and 0.03 < found.interval.high < 0.06 and found.p == 1.0


def test_real_values_of_one_seed_are_tested_by_students_paired_test():
    a, b = np.random.default_rng(22).normal(size=(2, 40))
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    assert (found.test, found.p) == ("Student's t", pytest.approx(expected.pvalue))
    around = expected.confidence_interval()
    assert close(found.interval, around.low, around.high, 1e-9)
    assert found.n_only_treatment is None and found.n_only_baseline is None
    same = paired_difference(a, a)
    assert (same.interval.low, same.interval.high) == (0.0, 0.0)  # the rule of three is about right and wrong


def test_one_real_value_says_nothing_of_others():
    found = paired_difference([0.3], [0.1])
    assert found.interval == Interval(-math.inf, math.inf, "items") and found.p == 1.0


def test_copies_of_an_item_are_not_more_items():
    labels = np.repeat(np.arange(90), 8)
    once = paired_difference(FACTS[0], DIGITS[0])
    copied = paired_difference(np.repeat(FACTS[0], 8), np.repeat(DIGITS[0], 8), labels)
    assert close(copied.interval, once.interval.low, once.interval.high, 1e-12) and copied.n_items == 90
    assert copied.test == "Student's t" and copied.p == pytest.approx(once.p, abs=0.02)
    over_seeds = [
        paired_difference(np.repeat(FACTS, n, 1), np.repeat(DIGITS, n, 1), np.repeat(np.arange(90), n)) for n in (1, 8)
    ]
    assert over_seeds[0].interval.low == pytest.approx(over_seeds[1].interval.low, abs=1e-12)


def test_several_seeds_are_an_interval_over_seeds_and_items_and_p_is_the_level_at_which_it_touches_zero():
    found = paired_difference(FACTS, DIGITS)
    assert found.interval == seeds_and_items(FACTS - DIGITS)
    assert (found.test, found.n_seeds, found.n_items) == ("Student's t", 3, 90)
    assert found.interval_at(found.p).low == pytest.approx(0.0, abs=1e-9)
    assert found.n_only_treatment == int((FACTS > DIGITS).sum())


def test_seeds_with_items_of_their_own_are_an_interval_over_seeds():
    facts, digits = ([values[seed][: 50 + 10 * seed] for seed in range(3)] for values in (FACTS, DIGITS))
    found = paired_difference(facts, digits, same_items=False)
    means = [float((a - b).mean()) for a, b in zip(facts, digits, strict=True)]
    expected = stats.ttest_1samp(means, 0)
    around = expected.confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((around.low, around.high))
    assert found.interval.covers == "seeds" and found.difference == pytest.approx(np.mean(means))
    assert found.p == pytest.approx(expected.pvalue)


def test_a_family_is_adjusted_whatever_its_tests_are():
    family = [
        paired_difference(FACTS[0], DIGITS[0]),
        paired_difference(FACTS, DIGITS),
        paired_difference(FACTS[1], DIGITS[1]),
    ]
    adjusted = with_holm(family)
    assert [each.p_holm for each in adjusted] == holm([each.p for each in family])
    assert [each.p for each in adjusted] == [each.p for each in family]
    assert {each.n_family for each in adjusted} == {3} and with_holm([]) == []


# ---- one rule ----------------------------------------------------------------------------------------------------


def of_counts(n_more: int, n_fewer: int, n_alike: int) -> PairedDifference:
    differences = np.repeat([1.0, -1.0, 0.0], [n_more, n_fewer, n_alike])
    return paired_difference((differences > 0) * 1.0, (differences < 0) * 1.0)


COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2000)).filter(lambda counts: sum(counts) > 0)


def agree(found: PairedDifference) -> bool:
    p = found.p if found.p_holm is None else found.p_holm
    return (p <= 0.05) == found.differs == (0.0 not in found.interval)


@given(st.lists(COUNTS, min_size=1, max_size=8))
def test_interval_p_and_words_never_disagree_about_right_and_wrong(counts: list[tuple[int, int, int]]):
    alone = [of_counts(*each) for each in counts]
    for found in [*alone, *with_holm(alone)]:
        assert agree(found)
        assert found.interval.low - 1e-12 <= found.difference <= found.interval.high + 1e-12


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12), st.floats(-2, 2)), min_size=1, max_size=6),
    st.integers(0, 999),
)
def test_interval_p_and_words_never_disagree_about_real_values_and_seeds(made: list[tuple[int, int, float]], seed: int):
    generator = np.random.default_rng(seed)
    alone = [paired_difference(generator.normal(by, 1, (s, n)), np.zeros((s, n))) for s, n, by in made]
    assert all(map(agree, [*alone, *with_holm(alone)]))


@given(COUNTS, st.sampled_from([0.05, 0.025, 0.01, 0.002]))
def test_a_stricter_level_makes_no_interval_shorter(counts: tuple[int, int, int], level: float):
    found = of_counts(*counts)
    wide, wider = found.interval_at(level), found.interval_at(level / 2)
    assert wider.low <= wide.low + 1e-12 and wide.high <= wider.high + 1e-12


@pytest.mark.parametrize("n_tests", [1, 5])
def test_equals_are_told_apart_in_a_family_at_most_one_time_in_twenty(n_tests: int):
    generator, found = np.random.default_rng(25), []
    for _ in range(400):
        a, b = (generator.random((2, n_tests, 150)) < 0.4).astype(float)
        found.append(
            any(each.differs for each in with_holm([paired_difference(*each) for each in zip(a, b, strict=True)]))
        )
    assert np.mean(found) <= 0.05 + 0.022  # two standard errors of 400 experiments


@pytest.mark.parametrize(("gained", "lost"), [(0.04, 0.0), (0.06, 0.02), (0.3, 0.1), (0.45, 0.4)])
def test_the_interval_of_right_and_wrong_holds_the_truth_in_95_percent(gained: float, lost: float):
    """Also where its end was moved to agree with McNemar's test."""
    generator, hold = np.random.default_rng(26), []
    for _ in range(N_EXPERIMENTS):
        n_more, n_fewer, n_alike = generator.multinomial(120, [gained, lost, 1 - gained - lost])
        hold.append(gained - lost in of_counts(n_more, n_fewer, n_alike).interval)
    assert np.mean(hold) >= 0.93


@pytest.mark.parametrize(
    ("treatment", "baseline", "says"),
    [
        ([], [], "no items"),
        ([1.0, math.nan], [0.0, 1.0], "not finite"),
        ([1.0, 0.0], [0.0, 1.0, 1.0], "cannot be paired"),
        ([[1.0], [0.0]], [[1.0]], "cannot be paired"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(treatment, baseline, says):
    with pytest.raises(BadInput, match=says):
        paired_difference(treatment, baseline)


def test_the_interval_of_few_real_values_covers_what_it_says():
    """A bootstrap of four documents holds the truth in some 85 % of experiments."""
    draws = np.random.default_rng(24).normal(size=(1000, 4))
    covered = [0.0 in paired_difference(values, np.zeros(4)).interval for values in draws]
    assert 0.93 <= np.mean(covered) <= 0.97


# ---- several seeds -----------------------------------------------------------------------------------------------


def test_the_interval_over_seeds_is_students():
    values = [10.0, 12.0, 11.5, 9.0, 12.5]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert close(t_interval(values), expected.low, expected.high, 1e-9)


def test_one_seed_says_nothing_about_the_method():
    assert t_interval([3.0]) == Interval(-math.inf, math.inf)
    assert paired_difference([[1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]], same_items=False).interval.covers == "items"


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


def test_equal_arms_are_told_apart_over_seeds_and_items_at_most_one_time_in_twenty():
    generator = np.random.default_rng(16)
    found = []
    for _ in range(N_EXPERIMENTS):
        values = trained(generator, 6, 0.2, 0.3, 1.0)
        found.append(0.0 not in seeds_and_items(values))
    assert np.mean(found) <= 0.05 + 0.014  # two standard errors of 1000 experiments


# ---- a share over seeds ------------------------------------------------------------------------------------------


def drawn_shares(generator, n_seeds: int, n_structures: int, told: int, truth: float, seeds: float, structures: float):
    """Right and wrong answers [seeds, problems], each structure told in `told` problems."""
    chance = truth + generator.normal(0, seeds, (n_seeds, 1)) + generator.normal(0, structures, (1, n_structures))
    chance = np.clip(chance, 0, 1).repeat(told, axis=1)
    return generator.random(chance.shape) < chance, np.arange(n_structures).repeat(told)


@pytest.mark.parametrize(
    "setting",
    [
        (5, 60, 16, 0.8, 0.02, 0.1),
        (5, 60, 16, 0.8, 0.05, 0.0),
        (5, 500, 2, 0.9, 0.01, 0.05),
        (3, 60, 16, 0.7, 0.05, 0.1),
    ],
)
def test_a_share_over_seeds_and_structures_is_covered_in_95_percent(setting: tuple):
    generator = np.random.default_rng(31)
    found = [share_over_seeds(*drawn_shares(generator, *setting)) for _ in range(N_EXPERIMENTS)]
    assert np.mean([one.low <= setting[3] <= one.high for one in found]) > 0.925


def test_problems_of_one_structure_are_no_more_evidence_than_one_of_them():
    right, structures = drawn_shares(np.random.default_rng(32), 5, 40, 1, 0.8, 0.02, 0.1)
    once, often = share_over_seeds(right, structures), share_over_seeds(right.repeat(25, 1), structures.repeat(25))
    assert (once.low, once.high) == pytest.approx((often.low, often.high))
    assert (once.n, once.n_clusters, often.n, often.n_clusters) == (40, 40, 1000, 40)


@pytest.mark.parametrize("value", [0, 1])
def test_seeds_that_are_always_right_may_yet_be_wrong_on_another_structure(value: int):
    found = share_over_seeds(np.full((5, 100), value), np.arange(100) // 2)
    expected = wilson(50 * value, 50)
    assert (found.value, found.low, found.high) == (value, expected.low, expected.high)


def test_a_share_stays_between_none_and_all_and_is_of_right_and_wrong():
    one_seed_fails = np.vstack([np.ones((4, 50)), np.zeros(50)])
    found = share_over_seeds(one_seed_fails)
    assert 0 <= found.low < 0.5 and found.value == 0.8 and 0.8 < found.high <= 1
    for flags in ([[0.5, 1.0]], [1, 0], [[]]):
        with pytest.raises(BadInput, match="right and wrong"):
            share_over_seeds(flags)
