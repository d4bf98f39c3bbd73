"""Values of two arms on the same items, arrays [seeds, items] → the difference between them, its interval and p.

This is the only paired comparison of the package; `arms` and `comparison` apply it to the outcomes of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workings.errors import BadInput
from workings.judging.statistics import (
    CHUNK,
    UPPER,
    Array,
    Interval,
    Measure,
    ProblemSums,
    difference_intervals,
    holm,
    mcnemar,
    wilson,
)
from workings.report.wording import interval, number

Values = Sequence[ArrayLike] | NDArray[Any]  # [items], or one array [items] a seed


@dataclass(frozen=True)
class PairedDifference:
    """How much better one arm does than another on the same items.

    Attributes:
        treatment, baseline: Means of the two arms over items, then over seeds.
        difference: treatment − baseline, in the unit of the values (a fraction for right and wrong).
        interval: 95 % confidence interval of the difference. `interval.covers` names what would be drawn anew: "items"
            for one seed, "seeds and items" for several, "seeds" where seeds have different items.
        test: The test behind `p`; None with several seeds.
        p: Two-sided. None with several seeds: three signs cannot give a p below .25, so the interval must do.
        p_holm: `p` adjusted for a family (see `with_holm`).
        n_only_treatment, n_only_baseline: Discordant counts, summed over seeds; None unless values are right or wrong.
        n_items: Different items (clusters, where items are clustered).
        n_seeds: Training seeds.
    """

    treatment: float
    baseline: float
    difference: float
    interval: Interval
    test: Literal["exact McNemar", "sign flips"] | None
    p: float | None
    n_only_treatment: int | None
    n_only_baseline: int | None
    n_items: int
    n_seeds: int
    p_holm: float | None = None

    @property
    def in_points(self) -> str:
        """ "+1.4 points [−0.3, 3.1]": a difference of shares in percentage points, with its interval."""
        return f"{number(self.difference, 'points')} points {interval(self.interval.low, self.interval.high, 'share')}"


def paired_difference(
    treatment: Values,
    baseline: Values,
    clusters: ArrayLike | None = None,
    *,
    same_items: bool = True,
    seed: int = 0,
) -> PairedDifference:
    """Compare two arms, paired by item and by training seed.

    One seed, right and wrong: the percentile bootstrap interval over items, widened by the rule of three, and p from the
    exact McNemar test (from sign flips where items are clustered). One seed, real values: Student's interval over items,
    because a bootstrap of few items is too narrow, and p from sign flips. Several seeds: the interval of
    `seeds_and_items`, or Student's over the seeds' means where seeds have different items.

    Args:
        treatment, baseline: Values of the two arms, right or wrong (0, 1) or real: [items] or [seeds, items].
        clusters: A label for each item, where several belong together (problems with several rows) [items].
        same_items: True if every seed has the same items in the same order; if not, seeds may differ in their number.
        seed: Random seed of the bootstrap and of sign flips.

    Raises:
        BadInput: Where there is no item, or a value is not finite.

    >>> found = paired_difference(treatment=[1, 1, 1, 0, 1, 1, 1, 1], baseline=[0, 1, 0, 0, 0, 1, 0, 0])
    >>> found.difference, found.n_only_treatment, found.n_only_baseline, found.test, found.p
    (0.625, 5, 0, 'exact McNemar', 0.0625)
    >>> found.interval.covers
    'items'
    >>> over_seeds = paired_difference([[1, 1, 0, 1], [1, 0, 1, 1]], [[0, 1, 0, 0], [0, 0, 0, 1]])
    >>> over_seeds.n_seeds, over_seeds.interval.covers, over_seeds.p
    (2, 'seeds and items', None)
    """
    a, b = _by_seed(treatment), _by_seed(baseline)
    if [len(each) for each in a] != [len(each) for each in b]:
        raise BadInput("the arms do not have the same seeds and items, so their values cannot be paired")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    is_binary = all(np.isin(each, (0, 1)).all() for each in [*a, *b])
    around, n_items = _interval(differences, clusters, same_items, is_binary, seed)
    n_wins, n_losses = (sum(int((sign * each > 0).sum()) for each in differences) for sign in (1, -1))
    test, p = None, None
    if len(differences) == 1:
        is_exact = is_binary and n_items == len(differences[0])
        test = "exact McNemar" if is_exact else "sign flips"
        p = mcnemar(n_wins, n_losses) if is_exact else sign_flip(a[0], b[0], clusters, seed=seed)
    return PairedDifference(
        treatment=float(np.mean([each.mean() for each in a])),
        baseline=float(np.mean([each.mean() for each in b])),
        difference=float(np.mean([each.mean() for each in differences])),
        interval=around,
        test=test,
        p=p,
        n_only_treatment=n_wins if is_binary else None,
        n_only_baseline=n_losses if is_binary else None,
        n_items=n_items,
        n_seeds=len(differences),
    )


def with_holm(family: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Adjust the p-values of a family of tests (Holm 1979). Differences without a p stay as they are."""
    adjusted = iter(holm([one.p for one in family if one.p is not None]))
    return [one if one.p is None else replace(one, p_holm=next(adjusted)) for one in family]


def _by_seed(values: Values) -> list[NDArray[np.float64]]:
    """One array [items] a seed; a single array is that of one seed."""
    several = values if len(values) and np.ndim(values[0]) else [values]
    arrays = [np.asarray(each, np.float64) for each in several]
    if not all(each.size and np.isfinite(each).all() for each in arrays):
        raise BadInput("nothing to compare: an arm has no items, or a value that is not finite")
    return arrays


def _interval(
    differences: Sequence[NDArray[np.float64]],
    clusters: ArrayLike | None,
    same_items: bool,
    is_binary: bool,
    seed: int,
) -> tuple[Interval, int]:
    """The interval of the mean difference, and the number of items it rests on."""
    if not same_items and len(differences) > 1:
        means = [float(each.mean()) for each in differences]
        return replace(t_interval(means), covers="seeds"), sum(map(len, differences))
    labels = np.arange(len(differences[0])) if clusters is None else clusters
    sums = [ProblemSums.of(each, labels) for each in differences]
    n_items = len(sums[0].sums)
    if len(differences) > 1 or not is_binary:
        values = np.array(differences) if clusters is None else np.array([one.linearised()[:, 0] for one in sums])
        around = seeds_and_items(values) if len(values) > 1 else replace(t_interval(values[0].tolist()), covers="items")
        return around, n_items
    return difference_intervals(sums[0], are_shares=True, seed=seed).only("items"), n_items


# ---- one seed: sign flips ----------------------------------------------------------------------------------------


def sign_flip(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike | None = None, n_resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided sign-flip (paired permutation) test that a and b have the same mean.

    Under the null hypothesis a whole cluster's difference might as well have the other sign. All 2^n patterns of signs are
    tried where they are no more than `n_resamples`; scipy's `permutation_test` flips rows one at a time and knows no clusters.

    Args:
        a, b: Values of two arms on the same rows [rows].
        clusters: A label for each row; every row is a cluster of its own, by default.
        n_resamples: Random patterns of signs.
        seed: Random seed.

    Returns:
        The p-value, which is never 0: the observed pattern counts as one of those drawn.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    labels = np.arange(len(difference)) if clusters is None else clusters
    sums = ProblemSums.of(difference, labels).sums[:, 0]
    n = len(sums)
    reached = abs(sums.sum()) * (1 - 1e-12)
    if n < 60 and 2**n <= n_resamples:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return int((np.abs(signs @ sums) >= reached).sum()) / 2**n
    generator = np.random.default_rng(seed)
    per_chunk = max(1, CHUNK // n)
    n_as_far = 0
    for start in range(0, n_resamples, per_chunk):
        signs = generator.choice([-1.0, 1.0], size=(min(per_chunk, n_resamples - start), n))
        n_as_far += int((np.abs(signs @ sums) >= reached).sum())
    return (n_as_far + 1) / (n_resamples + 1)


# ---- several seeds -----------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean over training seeds. One seed's is the whole line: it says nothing about a method."""
    if len(values) < 2:  # the mean of none is no number
        return Interval(-np.inf, np.inf)
    mean, reach = float(np.mean(values)), _reach(values)
    return Interval(mean - reach, mean + reach)


def seeds_and_items(differences: ArrayLike) -> Interval:
    """Interval of the mean of paired differences over training seeds and items, both drawn anew.

    Student's interval over the seeds' means and Student's over the items' means, their half-lengths added in quadrature (Zou
    and Donner 2008; for variance components Graybill and Wang 1980). The noise of single values is already in the variance of
    the seeds' means, so it is taken off the items' part.

    Why seeds are not resampled: draws of three seeds with replacement vary by √(2/3) of what seeds vary by, and never leave
    the three there are. Two or three seeds give a wide interval, whose own width is uncertain. Simulated coverage of a
    nominal 95 %: 94 to 99 % for two seeds, 94 to 98 % for three, 94 to 97 % for five and more.

    Args:
        differences: Real numbers, or differences of right and wrong (−1, 0, 1) [seeds, items]; all seeds have the same items.
            The latter are given two more items, one for each side (Bonett and Price 2012): where few items differ the interval
            would otherwise be too short. It stays within −1 to 1.

    Returns:
        The interval, and in `covers` what it holds for: with one seed items alone, and not the method.

    Raises:
        BadInput: Where a number is not finite, or there is none.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise BadInput(f"differences are finite numbers [seeds, items], at least one; not an array of {values.shape}")
    n_seeds, n_items = values.shape
    covers = " and ".join(["seeds"] * (n_seeds > 1) + ["items"] * (n_items > 1 or n_seeds == 1))
    furthest = np.inf
    if np.isin(values, (-1, 0, 1)).all():
        furthest = 1.0
        values = np.hstack([values, np.ones((n_seeds, 1)), -np.ones((n_seeds, 1))])
    over_seeds = _reach(values.mean(1)) if n_seeds > 1 else 0.0
    over_items = _reach_beyond_noise(values) if values.shape[1] > 1 or n_seeds == 1 else 0.0
    mean, reach = float(values.mean()), hypot(over_seeds, over_items)
    return Interval(max(mean - reach, -furthest), min(mean + reach, furthest), covers)


def share_over_seeds(flags: ArrayLike, clusters: ArrayLike | None = None) -> Measure:
    """A share of right answers over training seeds and items, both drawn anew: Wilson's interval at the effective sample size.

    The variance is that of `seeds_and_items`. Unlike Student's, the interval is not empty at 0 % and 100 %, and stays within them.

    Args:
        flags: Right or wrong (0, 1) [seeds, items]; all seeds have the same items.
        clusters: A label for each item, where several belong together [items].

    Returns:
        The share; `n` counts items, `n_clusters` clusters where there are labels.

    >>> shown = share_over_seeds([[1, 1, 0, 1], [1, 0, 0, 1]])
    >>> shown.value, shown.n, shown.low < 0.3, shown.high < 1
    (0.625, 4, True, True)
    """
    right = np.asarray(flags, np.float64)
    if right.ndim != 2 or not right.size or not np.isin(right, (0, 1)).all():
        raise BadInput(
            f"shares are of right and wrong (0, 1) [seeds, items], at least one; not of an array {right.shape}"
        )
    labels = np.arange(right.shape[1]) if clusters is None else np.asarray(clusters)
    values = np.array([ProblemSums.of(each, labels).linearised()[:, 0] for each in right])
    share, n = float(right.mean()), values.shape[1]
    effective = float(n)  # where nothing varies: so many times it might have gone otherwise, and did not
    if 0 < share < 1:
        reach = hypot(_reach(values.mean(1)) if len(values) > 1 else 0.0, _reach_beyond_noise(values))
        z = float(stats.norm.ppf(UPPER))
        effective = min(right.size, max(share * (1 - share) * (z / reach) ** 2, 1e-3)) if reach > 0 else right.size
    found = wilson(share * effective, effective)
    return Measure(share, found.low, found.high, right.shape[1], n_clusters=None if clusters is None else n)


def _reach_beyond_noise(values: Array) -> float:
    """Half-length of Student's interval over items [seeds, items], less the noise of single values (but all of it for one seed)."""
    n_seeds, n_items = values.shape
    reach = _reach(values.mean(0))
    if n_seeds == 1:
        return reach
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    noise = float((rest**2).sum()) / ((n_seeds - 1) * (n_items - 1)) / values.size
    return sqrt(max(0.0, reach**2 - float(stats.t.ppf(UPPER, n_items - 1)) ** 2 * noise))


def _reach(values: ArrayLike) -> float:
    """Half-length of Student's t interval of the mean; infinite for a single value."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float("inf")
    return float(stats.t.ppf(UPPER, len(values) - 1) * values.std(ddof=1) / sqrt(len(values)))
