"""Values of two arms on the same items, arrays [seeds, items] → the difference between them, its interval and p.

This is the only paired comparison of the package; `arms` and `comparison` apply it to the outcomes of runs. One rule says whether
there is a difference (docs/decisions/0015): interval and p are two sides of one test, so that an interval excludes zero exactly
where its p is at most .05; in a family both are Holm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, hypot, inf, log, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from workings.errors import BadInput
from workings.judging.statistics import ALPHA, UPPER, Array, Interval, Measure, ProblemSums, holm, mcnemar, wilson
from workings.report.wording import interval, number

Values = Sequence[ArrayLike] | NDArray[Any]  # [items], or one array [items] a seed


@dataclass(frozen=True)
class PairedDifference:
    """How much better one arm does than another on the same items.

    Attributes:
        treatment, baseline: Means of the two arms over items, then over seeds.
        difference: treatment − baseline, in the unit of the values (a fraction for right and wrong).
        interval: Confidence interval of the difference: 95 % by itself, or in a family at the level that Holm gives it (see
            `with_holm`). It excludes zero exactly where `differs`. `interval.covers` names what would be drawn anew:
            "items" for one seed, "seeds and items" for several, "seeds" where seeds have different items.
        test: The test behind `p`.
        p: Two-sided, by itself.
        p_holm: `p` adjusted for a family; None outside of one.
        n_only_treatment, n_only_baseline: Discordant counts, summed over seeds; None unless values are right or wrong.
        n_items: Different items (clusters, where items are clustered).
        n_seeds: Training seeds.
        n_family: Comparisons in the family.
        spread: What an interval at any level is made of.
    """

    treatment: float
    baseline: float
    difference: float
    interval: Interval
    test: Literal["exact McNemar", "Student's t"]
    p: float
    n_only_treatment: int | None
    n_only_baseline: int | None
    n_items: int
    n_seeds: int
    spread: Spread
    p_holm: float | None = None
    n_family: int = 1

    @property
    def differs(self) -> bool:
        """Whether there is evidence of a difference: p, adjusted where there is a family, is at most .05."""
        return (self.p if self.p_holm is None else self.p_holm) <= ALPHA

    @property
    def in_points(self) -> str:
        """ "+1.4 points [−0.3, 3.1]": a difference of shares in percentage points, with its interval."""
        return f"{number(self.difference, 'points')} points {interval(self.interval.low, self.interval.high, 'share')}"

    def interval_at(self, level: float) -> Interval:
        """The interval with an error rate of `level`, which excludes zero exactly where p is at most that.

        Where McNemar's exact test and Student's interval disagree about zero, the end on that side is the test's own: Clopper
        and Pearson's limit of the share of discordant items, times how many are discordant.
        """
        found = self.spread.interval(level)
        if self.test != "exact McNemar" or (self.p <= level) == (0.0 not in found):
            return found
        n_more, n_fewer = sorted((self.n_only_treatment or 0, self.n_only_baseline or 0), reverse=True)
        share = float(stats.beta.ppf(level / 2, n_more, n_fewer + 1))
        end = (n_more + n_fewer) / self.n_items * (2 * share - 1)
        return replace(found, low=end) if self.difference > 0 else replace(found, high=-end)


def paired_difference(
    treatment: Values,
    baseline: Values,
    clusters: ArrayLike | None = None,
    *,
    same_items: bool = True,
) -> PairedDifference:
    """Compare two arms, paired by item and by training seed.

    The interval is that of `seeds_and_items`, or Student's over the seeds' means where seeds have different items. p is the level
    at which it touches zero. For right and wrong of one seed p is that of the exact McNemar test, with which the
    interval agrees about zero (`PairedDifference.interval_at`). One real value says nothing: its interval is the whole line.

    Args:
        treatment, baseline: Values of the two arms, right or wrong (0, 1) or real: [items] or [seeds, items].
        clusters: A label for each item, where several belong together (problems with several rows) [items].
        same_items: True if every seed has the same items in the same order; if not, seeds may differ in their number.

    Raises:
        BadInput: Where there is no item, or a value is not finite.

    >>> found = paired_difference(treatment=[1, 1, 1, 0, 1, 1, 1, 1], baseline=[0, 1, 0, 0, 0, 1, 0, 0])
    >>> found.difference, found.n_only_treatment, found.n_only_baseline, found.test, found.p, found.differs
    (0.625, 5, 0, 'exact McNemar', 0.0625, False)
    >>> 0 in found.interval, found.interval.covers
    (True, 'items')
    >>> over_seeds = paired_difference([[1, 1, 0, 1], [1, 0, 1, 1]], [[0, 1, 0, 0], [0, 0, 0, 1]])
    >>> over_seeds.n_seeds, over_seeds.interval.covers, over_seeds.test
    (2, 'seeds and items', "Student's t")
    """
    a, b = _by_seed(treatment), _by_seed(baseline)
    if [len(each) for each in a] != [len(each) for each in b]:
        raise BadInput("the arms do not have the same seeds and items, so their values cannot be paired")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    are_shares = all(np.isin(each, (0, 1)).all() for each in [*a, *b])
    spread, n_items = _spread(differences, clusters, same_items, are_shares)
    n_wins, n_losses = (sum(int((sign * each > 0).sum()) for each in differences) for sign in (1, -1))
    is_exact = are_shares and len(differences) == 1 and n_items == len(differences[0])
    found = PairedDifference(
        treatment=float(np.mean([each.mean() for each in a])),
        baseline=float(np.mean([each.mean() for each in b])),
        difference=float(np.mean([each.mean() for each in differences])),
        interval=spread.interval(),
        test="exact McNemar" if is_exact else "Student's t",
        p=mcnemar(n_wins, n_losses) if is_exact else spread.p,
        n_only_treatment=n_wins if are_shares else None,
        n_only_baseline=n_losses if are_shares else None,
        n_items=n_items,
        n_seeds=len(differences),
        spread=spread,
    )
    return replace(found, interval=found.interval_at(ALPHA))


def with_holm(family: Sequence[PairedDifference]) -> list[PairedDifference]:
    """Adjust p-values and intervals of a family of tests (Holm 1979), in the order given.

    Holm tests the smallest of m p-values at .05/m, the next at .05/(m − 1), up to the first that is not below its level; what
    is left stays at that level. Each interval is shown at the level of its own test, so that it excludes zero exactly where
    the adjusted p is at most .05.
    """
    adjusted = holm([one.p for one in family])
    n_found = sum(p <= ALPHA for p in adjusted)
    ranks = np.argsort(np.argsort([one.p for one in family], kind="stable"))
    levels = [ALPHA / (len(family) - min(int(rank), n_found)) for rank in ranks]
    return [
        replace(one, p_holm=p, n_family=len(family), interval=one.interval_at(level))
        for one, p, level in zip(family, adjusted, levels, strict=True)
    ]


def _by_seed(values: Values) -> list[NDArray[np.float64]]:
    """One array [items] a seed; a single array is that of one seed."""
    several = values if len(values) and np.ndim(values[0]) else [values]
    arrays = [np.asarray(each, np.float64) for each in several]
    if not all(each.size and np.isfinite(each).all() for each in arrays):
        raise BadInput("nothing to compare: an arm has no items, or a value that is not finite")
    return arrays


def _spread(
    differences: Sequence[NDArray[np.float64]], clusters: ArrayLike | None, same_items: bool, are_shares: bool
) -> tuple[Spread, int]:
    """What the interval of the mean difference is made of, and the number of items it rests on."""
    if not same_items and len(differences) > 1:
        means = [float(each.mean()) for each in differences]
        furthest = 1.0 if are_shares else inf
        return Spread(float(np.mean(means)), (_error(means),), "seeds", furthest), sum(map(len, differences))
    values = np.array(differences)
    if clusters is not None:
        values = np.array([ProblemSums.of(each, clusters).linearised()[:, 0] for each in differences])
    return _over_seeds_and_items(values, are_shares), values.shape[1]


# ---- intervals and p of one make ---------------------------------------------------------------------------------

Error = tuple[float, int]
"""A standard error and its degrees of freedom; with none, nothing bounds the mean."""


@dataclass(frozen=True)
class Spread:
    """What an interval at any level is made of.

    Attributes:
        centre: Where it lies.
        errors: Standard errors with their degrees of freedom; Student's half-lengths are added in quadrature.
        covers: As in `Interval`.
        furthest: No mean is further from zero.
    """

    centre: float
    errors: tuple[Error, ...]
    covers: str
    furthest: float = inf

    def interval(self, level: float = ALPHA) -> Interval:
        """The interval with an error rate of `level`."""
        reach = self.reach(level)
        low, high = max(self.centre - reach, -self.furthest), min(self.centre + reach, self.furthest)
        return Interval(low, high, self.covers)

    @property
    def p(self) -> float:
        """The level at which the interval touches zero; 0 where that is below 1e-100."""
        if self.centre == 0 or any(freedom < 1 for _, freedom in self.errors):
            return 1.0
        excess = lambda x: self.reach(exp(x)) - abs(self.centre)
        tiny = log(1e-100)
        return 0.0 if excess(tiny) <= 0 else exp(float(optimize.brentq(excess, tiny, 0.0, xtol=1e-14)))

    def reach(self, level: float) -> float:
        """Half of the interval's length; infinite where a single value shows no spread."""
        if any(freedom < 1 for _, freedom in self.errors):
            return inf
        return hypot(*(float(stats.t.isf(level / 2, freedom)) * error for error, freedom in self.errors))


def t_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean over training seeds. One seed's is the whole line: it says nothing about a method.

    BadInput where there is no seed.
    """
    if not len(values):
        raise BadInput("no training seed was given, so there is no mean over seeds")
    return replace(Spread(float(np.mean(values)), (_error(values),), "").interval(), covers="")


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
    return _over_seeds_and_items(values, bool(np.isin(values, (-1, 0, 1)).all())).interval()


def _over_seeds_and_items(values: Array, are_shares: bool) -> Spread:
    """`seeds_and_items` at any level, of differences [seeds, items]."""
    n_seeds, n_items = values.shape
    covers = " and ".join(["seeds"] * (n_seeds > 1) + ["items"] * (n_items > 1 or n_seeds == 1))
    if are_shares:
        values = np.hstack([values, np.ones((n_seeds, 1)), -np.ones((n_seeds, 1))])
    errors = [_error(values.mean(1))] if n_seeds > 1 else []
    if values.shape[1] > 1 or n_seeds == 1:
        errors.append(_error_beyond_noise(values))
    return Spread(float(values.mean()), tuple(errors), covers, 1.0 if are_shares else inf)


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
        reach, z = _over_seeds_and_items(values, are_shares=False).reach(ALPHA), float(stats.norm.ppf(UPPER))
        effective = min(right.size, max(share * (1 - share) * (z / reach) ** 2, 1e-3)) if reach > 0 else right.size
    found = wilson(share * effective, effective)
    return Measure(share, found.low, found.high, right.shape[1], n_clusters=None if clusters is None else n)


def _error_beyond_noise(values: Array) -> Error:
    """Standard error over items of values [seeds, items], less the noise of single values (but all of it for one seed)."""
    n_seeds, n_items = values.shape
    error, freedom = _error(values.mean(0))
    if n_seeds == 1:
        return error, freedom
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    noise = float((rest**2).sum()) / ((n_seeds - 1) * (n_items - 1)) / values.size
    return sqrt(max(0.0, error**2 - noise)), freedom


def _error(values: ArrayLike) -> Error:
    """Standard error of the mean of values, and its degrees of freedom: none for a single value."""
    values = np.asarray(values, np.float64)
    n = len(values)
    return (float(values.std(ddof=1)) / sqrt(n) if n > 1 else inf, n - 1)
