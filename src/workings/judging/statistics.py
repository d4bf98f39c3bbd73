"""Counts, and sums by problem → intervals and p-values. Every random choice follows from a seed.

The unit is the problem. Rows of one problem (its layers, its positions) are correlated, so whole problems are resampled:
everything is first added up to one sum and one row count per (problem, cell), and a bootstrap is then a matrix product of "how
often was each problem drawn" with those sums. A million rows cost as much as their problems.

Intervals are 95 %; shares and their differences are fractions. scipy has the textbook tests
(binomial, Fisher, t), which are used; what is written out here it has not, or not for clusters or fractional n.

Of no item nothing can be said, and every function here refuses it (BadInput). One item has no spread: its interval is the
whole line (for a share what Wilson gives for n = 1), never a point. Of fewer than `FEW` values a bootstrap cannot reach 95 %,
because their own range does not, so Student's interval stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from workings.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

Array = NDArray[np.float64]
N_RESAMPLES = 2000
ALPHA = 0.05
POWER = 0.8
ONE_SEED = "One training seed: the intervals are items only and say nothing about the method."
FEW = 6  # the range of n values holds the middle of what they are drawn from in 1 − 2^(1−n): 93.8 % for five
CHUNK = 4_000_000  # numbers of a resampling matrix held at once: 32 MB
UPPER = 0.5 + 0.95 / 2  # the upper quantile of a 95 % interval
_Z = float(stats.norm.ppf(UPPER))


def with_columns(table: pl.DataFrame, needed: Iterable[str], kind: str) -> pl.DataFrame:
    """The table, which has these columns; BadInput where it is no table of this kind ("a table of readings"), which has them."""
    if missing := [name for name in needed if name not in table.columns]:
        raise BadInput(f"not {kind}: it lacks the columns {', '.join(missing)}")
    return table


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low, high: Its ends, in the unit of the values.
        covers: The units drawn anew ("items", "seeds", "seeds and items"), where the call does not say it.
    """

    low: float
    high: float
    covers: str = ""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class CellIntervals:
    """An estimate with its interval for each cell, arrays [cells]; NaN where a cell has no rows."""

    estimate: Array
    low: Array
    high: Array

    def only(self, covers: str = "") -> Interval:
        """The interval of the single cell."""
        return Interval(float(self.low[0]), float(self.high[0]), covers)


@dataclass(frozen=True)
class ProblemSums:
    """Sums of the values and counts of the rows of every (problem, cell), arrays [problems, cells].

    >>> sums = ProblemSums.of([1.0, 0.0, 1.0], problems=["a", "a", "b"])
    >>> sums.means(), sums.n_problems
    (array([0.66666667]), array([2]))
    """

    sums: Array
    counts: Array

    def __post_init__(self) -> None:
        _some(self.sums)

    @classmethod
    def of(cls, values: ArrayLike, problems: ArrayLike, cells: ArrayLike | None = None) -> ProblemSums:
        """Add up values [rows] by problem and cell.

        Args:
            values: One per row.
            problems: Any labels [rows].
            cells: Numbers of the cells from 0 [rows]; all rows are in one cell, by default.

        Raises:
            BadInput: There is no row.
        """
        _, problem = np.unique(np.asarray(problems), return_inverse=True)
        cell = np.zeros(len(problem), np.int64) if cells is None else np.asarray(cells, np.int64)
        n_problems, n_cells = (int(codes.max(initial=-1)) + 1 for codes in (problem, cell))
        flat = problem * n_cells + cell

        def add_up(weights: ArrayLike | None) -> Array:
            total = np.bincount(flat, weights, minlength=n_problems * n_cells)
            return total.astype(np.float64).reshape(n_problems, n_cells)

        return cls(add_up(np.asarray(values, np.float64)), add_up(None))

    @property
    def n_problems(self) -> NDArray[np.int64]:
        """Problems that have a row in the cell [cells]."""
        return (self.counts > 0).sum(0)

    def means(self) -> Array:
        """Mean over the rows of each cell [cells]."""
        with np.errstate(invalid="ignore"):
            return self.sums.sum(0) / self.counts.sum(0)

    def linearised(self) -> Array:
        """Values [problems, cells] whose mean is the mean over rows, and whose spread is that of this ratio (delta method)."""
        n_rows = self.counts.sum(0) / np.maximum(self.n_problems, 1)
        return self.means() + (self.sums - self.means() * self.counts) / n_rows

    def standard_errors(self) -> Array:
        """Standard errors of the means, with problems as the independent units (ratio estimator) [cells]; NaN for one problem."""
        n = self.n_problems
        residuals = np.where(self.counts > 0, self.sums - self.means() * self.counts, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.where(n > 1, n / (n - 1.0), np.nan) * (residuals**2).sum(0)) / self.counts.sum(0)


# ---- proportions -------------------------------------------------------------------------------------------------


def wilson(k: float, n: float) -> Interval:
    """Wilson score interval for a proportion k/n. `n` may be a non-integer effective sample size.

    Wilson (1927); recommended by Brown, Cai and DasGupta (2001). BadInput unless 0 ≤ k ≤ n and n > 0.

    >>> interval = wilson(19, 500)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0245, 0.0586)
    """
    return _wilson(np.array([_share(k, n)]), np.array([float(n)]), _Z).only()


def newcombe(k1: int, n1: int, k2: int, n2: int) -> Interval:
    """Hybrid score interval for the difference k1/n1 − k2/n2 of independent samples (Newcombe 1998, method 10).

    BadInput unless both are counts of some items.
    """
    p1, p2 = _share(k1, n1), _share(k2, n2)
    one, two = wilson(k1, n1), wilson(k2, n2)
    return Interval(
        p1 - p2 - sqrt((p1 - one.low) ** 2 + (two.high - p2) ** 2),
        p1 - p2 + sqrt((one.high - p1) ** 2 + (p2 - two.low) ** 2),
    )


def fisher(k1: int, n1: int, k2: int, n2: int) -> float:
    """Fisher's exact two-sided test of k1/n1 against k2/n2, independent samples; BadInput unless both count some items."""
    _ = _share(k1, n1), _share(k2, n2)
    return float(stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]).pvalue)


def p_in_words(p: float, better: str) -> str:
    """The conclusion that a p-value allows: `better` is better, or no evidence of a difference; never that two are equal."""
    return f"{better} is better" if p <= ALPHA else "no evidence of a difference"


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided McNemar test: b and c are the discordant counts.

    Args:
        b: Items that only the one arm gets right.
        c: Items that only the other arm gets right.

    Returns:
        The p-value; 1 where no item is discordant.

    >>> round(mcnemar(12, 5), 3)
    0.143
    """
    return float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def clustered_wilson(shares: ProblemSums, z: float | None = None) -> CellIntervals:
    """Wilson score interval at the effective sample size, cell by cell, for shares clustered by problem.

    Unlike the bootstrap it is not empty at 0 % and 100 %, where n counts problems. After Korn and Graubard (1998).

    Args:
        shares: Right and wrong (0, 1), summed by problem and cell.
        z: Replaces the normal quantile, for simultaneous intervals.
    """
    p, n_problems, n_rows = shares.means(), shares.n_problems, shares.counts.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = p * (1 - p) / shares.standard_errors() ** 2
        n = np.where(np.isfinite(effective), np.minimum(effective, n_rows), n_problems)
        return _wilson(p, n / _widening(n_problems) ** 2, _Z if z is None else z)


# ---- resampling whole problems -----------------------------------------------------------------------------------


def cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike | None = None, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap CI of the mean, resampling whole clusters; see `percentile_intervals` for few of them.

    Args:
        values: One per row [rows].
        clusters: A label for each row; every row is a cluster of its own, by default.
        n_resamples: Bootstrap resamples.
        seed: Random seed.

    Raises:
        BadInput: There is no value.

    >>> interval = cluster_bootstrap([1, 0, 0, 1, 0, 1, 0, 0])
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.0, 0.75)
    """
    values = np.asarray(values, np.float64)
    sums = ProblemSums.of(values, np.arange(len(values)) if clusters is None else clusters)
    return percentile_intervals(sums, n_resamples, seed).only()


def percentile_intervals(sums: ProblemSums, n_resamples: int = N_RESAMPLES, seed: int = 0) -> CellIntervals:
    """Percentile bootstrap intervals of the cells' means, each by itself, expanded for few problems (Hesterberg 2015).

    Student's for fewer than `FEW` problems, and for one the whole line.
    """
    n, means = sums.n_problems, np.concatenate(list(_resampled_means(sums, n_resamples, seed)))
    tail = stats.norm.cdf(-_Z * _widening(n))
    reach = _reach(stats.t.ppf(UPPER, np.maximum(n - 1, 1)), sums)
    ends = np.array([sums.means() - reach, sums.means() + reach])
    for cell in np.flatnonzero(n >= FEW):
        drawn = means[:, cell][~np.isnan(means[:, cell])]  # a resample that missed a cell says nothing about it
        ends[:, cell] = np.quantile(drawn, [tail[cell], 1 - tail[cell]])
    return CellIntervals(sums.means(), *ends)


def simultaneous_intervals(sums: ProblemSums, n_resamples: int = N_RESAMPLES, seed: int = 0) -> CellIntervals:
    """Intervals that hold for all cells at once: in 95 % of the experiments *every* one holds its true mean (max-t)."""
    means, reach = sums.means(), _reach(critical_value(sums, n_resamples, seed) * _widening(sums.n_problems), sums)
    return CellIntervals(means, means - reach, means + reach)


def critical_value(sums: ProblemSums, n_resamples: int = N_RESAMPLES, seed: int = 0) -> float:
    """Quantile of the largest deviation over all cells, in standard errors: about 1.96 for one cell, more for many."""
    means, errors = sums.means(), sums.standard_errors()
    varies = errors > 0
    if not varies.any():
        return _Z
    strays = [
        np.nan_to_num(np.abs(resampled[:, varies] - means[varies]) / errors[varies]).max(1)
        for resampled in _resampled_means(sums, n_resamples, seed)
    ]
    return max(_Z, float(np.quantile(np.concatenate(strays), 0.95)))


def difference_intervals(sums: ProblemSums, are_shares: bool, seed: int = 0) -> CellIntervals:
    """Bootstrap intervals of paired differences: percentile for one cell, simultaneous for several.

    Args:
        sums: Differences summed by problem and cell.
        are_shares: True for differences of right and wrong (−1, 0, 1). Resampling equal values shows no spread, but
            an event that none of n problems showed may have a probability of 3/n (the rule of three), so an empty interval
            is widened by that.
        seed: Random seed of the bootstrap.
    """
    make = simultaneous_intervals if sums.sums.shape[1] > 1 else percentile_intervals
    found = make(sums, seed=seed)
    if not are_shares:
        return found
    unseen = np.where(found.high > found.low, 0.0, 3 / np.maximum(sums.n_problems, 1))
    return CellIntervals(found.estimate, np.maximum(found.low - unseen, -1.0), np.minimum(found.high + unseen, 1.0))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust the p-values of one family of tests (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    """
    order = np.argsort(ps)
    stepped = np.maximum.accumulate(np.asarray(ps, np.float64)[order] * np.arange(len(ps), 0, -1))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


# ---- power ---------------------------------------------------------------------------------------------


def required_n(difference: float, p: float, discordant: float | None = None) -> int:
    """Problems (per arm) needed to detect that a share `p` becomes `p + difference`.

    Power is `POWER`, the two-sided level of the test `ALPHA`.

    Args:
        difference: The gain to detect, as a fraction.
        p: The share without it.
        discordant: Share of problems on which two paired arms disagree (McNemar); arms are independent, by default.

    Raises:
        BadInput: There is no difference to detect, or `p + difference` is no share.
    """
    if not (0 <= p <= 1 and 0 < difference <= 1 - p):
        raise BadInput(
            f"no n shows a gain of {difference:g} over a share of {p:g}: give a gain above 0, up to 1 in all"
        )
    return ceil(_needed(difference, p, discordant))


def minimum_detectable_difference(n: int, p: float, discordant: float | None = None) -> float:
    """The smallest gain over a share `p` of which `required_n` is n; NaN if there is none. BadInput where n is 0."""
    if n < 1:
        raise BadInput(_NOTHING)
    largest = 1 - p if discordant is None else discordant
    excess: Callable[[float], float] = lambda d: _needed(d, p, discordant) - n
    if largest <= 0 or excess(largest) > 0:
        return float("nan")
    return float(optimize.brentq(excess, 1e-6, largest))


def _needed(difference: float, p: float, discordant: float | None) -> float:
    """Normal approximation: two proportions (Fleiss 1981), or McNemar (Connor 1987)."""
    z_alpha, z_power = stats.norm.ppf(1 - ALPHA / 2), stats.norm.ppf(POWER)
    if discordant is None:
        middle, other = p + difference / 2, p + difference
        null, real = sqrt(2 * middle * (1 - middle)), sqrt(max(0.0, p * (1 - p) + other * (1 - other)))
    else:
        null, real = sqrt(discordant), sqrt(max(0.0, discordant - difference**2))
    return ((z_alpha * null + z_power * real) / difference) ** 2


# ---- a measured number ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval, and how many items it rests on.

    Attributes:
        value, low, high: The estimate and the ends of its interval, in the unit of the values; an end is infinite where
            there are too few items to bound it.
        n: Items.
        k: For a share, how many of the items.
        n_clusters: Clusters, where the interval draws those anew and not the items.
    """

    value: float
    low: float = field(metadata={"null": -inf})
    high: float = field(metadata={"null": inf})
    n: int
    k: int | None = None
    n_clusters: int | None = None

    @classmethod
    def share(cls, flags: ArrayLike, clusters: ArrayLike | None = None) -> Measure:
        """The share of true flags [items] with Wilson's interval. BadInput where there are no items.

        Args:
            flags: Right or wrong (0, 1) [items].
            clusters: A label for each item, where several belong together (problems of one structure) [items]; the interval is
                then that of `clustered_wilson`.

        >>> shown = Measure.share([1, 1, 0, 0, 1, 1], clusters=["6*9", "6*9", "7+5", "7+5", "8-2", "8-2"])
        >>> shown.n, shown.n_clusters, shown.low < Measure.share([1, 1, 0, 0, 1, 1]).low
        (6, 3, True)
        """
        flags = _some(flags)
        n, k = len(flags), int(flags.sum())
        if clusters is None:
            interval = wilson(k, n)
            return cls(k / n, interval.low, interval.high, n, k)
        sums = ProblemSums.of(flags, clusters)
        interval = clustered_wilson(sums).only()
        return cls(k / n, interval.low, interval.high, n, k, int(sums.n_problems[0]))

    @classmethod
    def mean(cls, values: ArrayLike, seed: int = 0) -> Measure:
        """The mean of values [items] with a bootstrap interval over items. BadInput where there are none."""
        values = _some(values)
        interval = cluster_bootstrap(values, seed=seed)
        return cls(float(values.mean()), interval.low, interval.high, len(values))

    @classmethod
    def median(cls, values: ArrayLike) -> Measure:
        """The median of values [items]; its interval lies between order statistics and covers at least 95 %.

        No order statistics of fewer than `FEW` items do: their interval is the whole line.
        """
        ordered = np.sort(_some(values))
        n = len(ordered)
        before = int(stats.binom.ppf(0.025, n, 0.5))
        low, high = (ordered[before - 1], ordered[n - before]) if n >= FEW else (-inf, inf)
        return cls(float(np.median(ordered)), float(low), float(high), n)


# ---- the pieces --------------------------------------------------------------------------------------------------

_NOTHING = "there is nothing to judge: no item was given"


def _some(values: ArrayLike) -> NDArray[Any]:
    values = np.asarray(values)
    if not values.size:
        raise BadInput(_NOTHING)
    return values


def _share(k: float, n: float) -> float:
    """k of n as a fraction; BadInput where there is nothing to take a share of, or more than all of it."""
    if not n > 0:
        raise BadInput(_NOTHING)
    if not 0 <= k <= n:
        raise BadInput(f"{k:g} of {n:g} is no share: give a count from 0 to n")
    return k / n


def _reach(quantiles: Array, sums: ProblemSums) -> Array:
    """Half-lengths of intervals of the means [cells]: infinite where a single problem shows no spread."""
    return np.where(sums.n_problems == 1, np.inf, quantiles * sums.standard_errors())


def _widening(n_problems: NDArray[np.int64]) -> Array:
    """Ratio of the length of an interval from n problems to the normal one [cells]: Student's t over z."""
    freedom = np.maximum(n_problems - 1, 1)
    return stats.t.ppf(UPPER, freedom) / _Z * np.sqrt((freedom + 1) / freedom)


def _wilson(p: Array, n: Array, z: float) -> CellIntervals:
    centre, reach = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
    return CellIntervals(p, np.where(p <= 0, 0.0, low), np.where(p >= 1, 1.0, high))


def _resampled_means(sums: ProblemSums, n_resamples: int, seed: int) -> Iterator[Array]:
    """Means [a chunk of resamples, cells] of as many problems as there are, drawn with replacement."""
    generator = np.random.default_rng(seed)
    n = len(sums.sums)
    per_chunk = max(1, CHUNK // max(n, 1))
    for start in range(0, n_resamples, per_chunk):
        size = min(per_chunk, n_resamples - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        with np.errstate(invalid="ignore"):
            yield (times @ sums.sums) / (times @ sums.counts)
