"""Counts, and sums by problem → intervals and p-values. numpy and scipy; every random choice is a seed's.

The unit is the problem. Rows of one problem (its layers, its positions) rise and fall together, so whole problems are
resampled: everything is first added up to one sum and one row count per (problem, cell), and a bootstrap is then a
matrix product of "how often was each problem drawn" with those sums. A million rows cost what their problems cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, hypot, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from workings.errors import BadInput

Array = NDArray[np.float64]
N_RESAMPLES = 2000
ALPHA = 0.05
_CHUNK = 4_000_000  # numbers of a resampling matrix held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """`covers` names what may be drawn anew ("items", "seeds", "seeds and items") where the call does not say it."""

    low: float
    high: float
    covers: str = ""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Band:
    """An estimate with its interval for each cell [cells]; NaN where a cell has no rows."""

    estimate: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class ProblemSums:
    """Sum of the values and number of rows of every (problem, cell): both [problems, cells]."""

    sums: Array
    counts: Array

    @classmethod
    def of(cls, values: ArrayLike, problems: ArrayLike, cells: ArrayLike | None = None) -> ProblemSums:
        """From one value a row. `problems` are any labels; `cells` are 0, 1, …; without them there is one cell."""
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
        """The mean over rows, cell by cell [cells]."""
        with np.errstate(invalid="ignore"):
            return self.sums.sum(0) / self.counts.sum(0)

    def linearised(self) -> Array:
        """Values [problems, cells] whose mean is the mean over rows, and whose spread is that of this ratio (delta method)."""
        n_rows = self.counts.sum(0) / np.maximum(self.n_problems, 1)
        return self.means() + (self.sums - self.means() * self.counts) / n_rows

    def standard_errors(self) -> Array:
        """Of the means, problems being the independent units (ratio estimator) [cells]; NaN for a single problem."""
        n = self.n_problems
        residuals = np.where(self.counts > 0, self.sums - self.means() * self.counts, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.where(n > 1, n / (n - 1.0), np.nan) * (residuals**2).sum(0)) / self.counts.sum(0)


# ---- proportions -------------------------------------------------------------------------------------------------


def wilson(k: float, n: float, confidence: float = 0.95) -> Interval:
    """Of a share k/n. `n` may be an effective number and need not be whole."""
    low, high = _wilson(np.array([k / n]), np.array([float(n)]), _z(confidence))
    return Interval(float(low[0]), float(high[0]))


def newcombe(k1: int, n1: int, k2: int, n2: int, confidence: float = 0.95) -> Interval:
    """Of k1/n1 − k2/n2, independent samples: the hybrid score interval (Newcombe 1998, method 10)."""
    p1, p2 = k1 / n1, k2 / n2
    one, two = wilson(k1, n1, confidence), wilson(k2, n2, confidence)
    return Interval(
        p1 - p2 - sqrt((p1 - one.low) ** 2 + (two.high - p2) ** 2),
        p1 - p2 + sqrt((one.high - p1) ** 2 + (p2 - two.low) ** 2),
    )


def fisher(k1: int, n1: int, k2: int, n2: int) -> float:
    """Two-sided exact p of k1/n1 against k2/n2, independent samples."""
    return float(stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]).pvalue)


def evidence(p: float, better: str, alpha: float = ALPHA) -> str:
    """What a p-value lets one say: that `better` is better, or "no evidence of a difference"; never that two are equal."""
    return f"{better} is better" if p <= alpha else "no evidence of a difference"


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p of b examples only the one gets right against c only the other does."""
    return float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def clustered_wilson(shares: ProblemSums, confidence: float = 0.95, z: float | None = None) -> Band:
    """Of shares whose rows are clustered by problem, cell by cell: Wilson's interval at the effective sample size.

    Unlike the bootstrap it is not empty at 0 % and 100 % (there n counts problems). After Korn and Graubard (1998).
    `z` replaces the normal quantile, for simultaneous intervals.
    """
    p, n_problems, n_rows = shares.means(), shares.n_problems, shares.counts.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = p * (1 - p) / shares.standard_errors() ** 2
        n = np.where(np.isfinite(effective), np.minimum(effective, n_rows), n_problems)
        low, high = _wilson(p, n / _widening(n_problems, confidence) ** 2, _z(confidence) if z is None else z)
    return Band(p, low, high)


# ---- resampling whole problems -----------------------------------------------------------------------------------


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    n_resamples: int = N_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Of the mean over rows, whole clusters resampled; without `clusters` every row is its own."""
    values = np.asarray(values, np.float64)
    sums = ProblemSums.of(values, np.arange(len(values)) if clusters is None else clusters)
    band = percentile(sums, n_resamples, confidence, seed)
    return Interval(float(band.low[0]), float(band.high[0]))


def paired_bootstrap(a: ArrayLike, b: ArrayLike, clusters: ArrayLike | None = None, **options) -> Interval:
    """Of mean(a) − mean(b) over the same rows; options are those of `cluster_bootstrap`."""
    return cluster_bootstrap(np.asarray(a, np.float64) - np.asarray(b, np.float64), clusters, **options)


def percentile(sums: ProblemSums, n_resamples: int = N_RESAMPLES, confidence: float = 0.95, seed: int = 0) -> Band:
    """Each cell by itself: percentile intervals, expanded for few problems (Hesterberg 2015)."""
    means = np.concatenate(list(_resampled_means(sums, n_resamples, seed)))
    tail = stats.norm.cdf(-_z(confidence) * _widening(sums.n_problems, confidence))
    sides = [_quantiles(means, levels) for levels in (tail, 1 - tail)]
    return Band(sums.means(), *sides)


def simultaneous(sums: ProblemSums, n_resamples: int = N_RESAMPLES, confidence: float = 0.95, seed: int = 0) -> Band:
    """All cells at once: in `confidence` of the experiments *every* cell's interval holds its true mean (max-t)."""
    means, errors = sums.means(), sums.standard_errors()
    reach = critical_value(sums, n_resamples, confidence, seed) * _widening(sums.n_problems, confidence) * errors
    return Band(means, means - reach, means + reach)


def critical_value(sums: ProblemSums, n_resamples: int = N_RESAMPLES, confidence: float = 0.95, seed: int = 0) -> float:
    """How many standard errors the furthest of all cells strays; about 1.96 for one cell, more for many."""
    means, errors = sums.means(), sums.standard_errors()
    varies = errors > 0
    if not varies.any():
        return _z(confidence)
    strays = [
        np.nan_to_num(np.abs(resampled[:, varies] - means[varies]) / errors[varies]).max(1)
        for resampled in _resampled_means(sums, n_resamples, seed)
    ]
    return max(_z(confidence), float(np.quantile(np.concatenate(strays), confidence)))


def difference_band(sums: ProblemSums, are_shares: bool, confidence: float = 0.95, seed: int = 0) -> Band:
    """Bootstrap intervals of paired differences: percentile for one cell, simultaneous for several.

    Args:
        sums: Differences summed by problem and cell.
        are_shares: Whether they are differences of right and wrong (−1, 0, 1). Resampling equal values shows no spread, but
            an event that none of n problems showed may have a probability of 3/n (the rule of three), so an empty interval
            is widened by that.
        confidence: Of each interval, or of all of them together.
        seed: Random seed of the bootstrap.
    """
    band = (simultaneous if sums.sums.shape[1] > 1 else percentile)(sums, confidence=confidence, seed=seed)
    if not are_shares:
        return band
    unseen = np.where(band.high > band.low, 0.0, 3 / np.maximum(sums.n_problems, 1))
    return Band(band.estimate, np.maximum(band.low - unseen, -1.0), np.minimum(band.high + unseen, 1.0))


def sign_flip(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike | None = None, n_resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p that a and b differ: under the null a whole problem's difference might as well have the other sign.

    All 2^n sign patterns are tried where they are no more than `n_resamples`.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    problems = np.arange(len(difference)) if clusters is None else clusters
    sums = ProblemSums.of(difference, problems).sums[:, 0]
    reached = abs(sums.sum()) * (1 - 1e-12)
    is_exact = len(sums) < 60 and 2 ** len(sums) <= n_resamples
    patterns = _all_signs(len(sums)) if is_exact else _random_signs(len(sums), n_resamples, seed)
    n_as_far = sum(int((np.abs(signs @ sums) >= reached).sum()) for signs in patterns)
    # The pattern observed counts as one of those drawn, so p is never 0.
    return n_as_far / 2 ** len(sums) if is_exact else (n_as_far + 1) / (n_resamples + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values of one family, adjusted (Holm 1979), in the order given."""
    order = np.argsort(ps)
    stepped = np.maximum.accumulate(np.asarray(ps, np.float64)[order] * np.arange(len(ps), 0, -1))
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


# ---- seeds and power ---------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Of the mean over training seeds. One seed says nothing about the method: its interval is the whole line."""
    if len(values) < 2:  # the mean of none is no number
        return Interval(-np.inf, np.inf)
    mean, reach = float(np.mean(values)), _reach(values, confidence)
    return Interval(mean - reach, mean + reach)


def seeds_and_items(differences: ArrayLike, confidence: float = 0.95) -> Interval:
    """Of the mean of paired differences [seeds, items]; every seed has the same items, and both are drawn anew.

    Student's interval over the seeds' means and Student's over the items' means, their half-lengths added in
    quadrature (Zou and Donner 2008; for variance components Graybill and Wang 1980). What is left when both are taken
    out, the noise of single values, is already in what the seeds' means vary by, so it is taken off the items' part.
    Seeds are not resampled: of three, draws with replacement vary by √(2/3) of what seeds vary by and never leave the
    three there are. Two or three seeds make a wide interval, which is what they know, and its own width is uncertain;
    simulated, two hold the truth in 94 to 99 %, three in 94 to 98 %, five and more in 94 to 97 %. Of one seed the interval
    is over items alone, says so in `covers`, and holds for that seed, not for the method.

    Differences of right and wrong (−1, 0 and 1) are given two items more, one for each side (Bonett and Price 2012):
    where few items differ, or none does, the interval would else be too short. Nor does it leave −1 to 1.
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
    over_seeds = _reach(values.mean(1), confidence) if n_seeds > 1 else 0.0
    over_items = _reach_beyond_noise(values, confidence) if values.shape[1] > 1 or n_seeds == 1 else 0.0
    mean, reach = float(values.mean()), hypot(over_seeds, over_items)
    return Interval(max(mean - reach, -furthest), min(mean + reach, furthest), covers)


def _reach_beyond_noise(values: Array, confidence: float) -> float:
    """Half of Student's interval over items [seeds, items], less what the noise of single values adds; all of one seed's."""
    n_seeds, n_items = values.shape
    reach = _reach(values.mean(0), confidence)
    if n_seeds == 1:
        return reach
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    noise = float((rest**2).sum()) / ((n_seeds - 1) * (n_items - 1)) / values.size
    return sqrt(max(0.0, reach**2 - float(stats.t.ppf(0.5 + confidence / 2, n_items - 1)) ** 2 * noise))


def required_n(
    difference: float, p: float, power: float = 0.8, alpha: float = 0.05, discordant: float | None = None
) -> int:
    """Problems (per arm) needed to see a share of `p` become `p + difference`.

    `discordant` is the share of problems on which two paired arms disagree (McNemar); without it they are independent.
    """
    return ceil(_needed(difference, p, power, alpha, discordant))


def minimum_detectable_difference(
    n: int, p: float, power: float = 0.8, alpha: float = 0.05, discordant: float | None = None
) -> float:
    """The smallest gain over a share of `p` that n problems (per arm) show with this power; NaN if there is none."""
    largest = 1 - p if discordant is None else discordant
    excess: Callable[[float], float] = lambda d: _needed(d, p, power, alpha, discordant) - n
    if largest <= 0 or excess(largest) > 0:
        return float("nan")
    return float(optimize.brentq(excess, 1e-6, largest))


def _needed(difference: float, p: float, power: float, alpha: float, discordant: float | None) -> float:
    z_alpha, z_power = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    if discordant is None:
        middle, other = p + difference / 2, p + difference
        null, real = sqrt(2 * middle * (1 - middle)), sqrt(max(0.0, p * (1 - p) + other * (1 - other)))
    else:
        null, real = sqrt(discordant), sqrt(max(0.0, discordant - difference**2))
    return ((z_alpha * null + z_power * real) / difference) ** 2


# ---- a number as results keep it ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % interval, and how many items it rests on.

    Attributes:
        value, low, high: The estimate and the ends of its interval, in the unit of the values.
        n: Items.
        k: For a share, how many of the items.
    """

    value: float
    low: float
    high: float
    n: int
    k: int | None = None

    @classmethod
    def share(cls, flags: ArrayLike) -> Measure:
        """The share of true flags [items] with Wilson's interval. BadInput where there are no items."""
        flags = _some(flags)
        n, k = len(flags), int(flags.sum())
        interval = wilson(k, n)
        return cls(k / n, interval.low, interval.high, n, k)

    @classmethod
    def mean(cls, values: ArrayLike, seed: int = 0) -> Measure:
        """The mean of values [items] with a bootstrap interval over items. BadInput where there are none."""
        values = _some(values)
        interval = cluster_bootstrap(values, seed=seed)
        return cls(float(values.mean()), interval.low, interval.high, len(values))

    @classmethod
    def median(cls, values: ArrayLike) -> Measure:
        """The median of values [items]; its interval lies between order statistics and covers at least 95 %."""
        ordered = np.sort(_some(values))
        n = len(ordered)
        before = int(stats.binom.ppf(0.025, n, 0.5))
        low, high = ordered[max(before - 1, 0)], ordered[min(n - before, n - 1)]
        return cls(float(np.median(ordered)), float(low), float(high), n)


def _some(values: ArrayLike) -> NDArray[Any]:
    values = np.asarray(values)
    if not len(values):
        raise BadInput("there is nothing to judge: no item was given")
    return values


# ---- the pieces --------------------------------------------------------------------------------------------------


def _reach(values: ArrayLike, confidence: float) -> float:
    """Half of Student's interval of the mean; infinite for a single value."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float("inf")
    return float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / sqrt(len(values)))


def _z(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))


def _widening(n_problems: NDArray[np.int64], confidence: float) -> Array:
    """How much wider an interval from n problems must be than the normal one [cells]: Student's t over z."""
    freedom = np.maximum(n_problems - 1, 1)
    return stats.t.ppf(0.5 + confidence / 2, freedom) / _z(confidence) * np.sqrt((freedom + 1) / freedom)


def _wilson(p: Array, n: Array, z: float) -> tuple[Array, Array]:
    centre, reach = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
    return np.where(p <= 0, 0.0, low), np.where(p >= 1, 1.0, high)


def _resampled_means(sums: ProblemSums, n_resamples: int, seed: int) -> Iterator[Array]:
    """The cells' means [a chunk of resamples, cells] when as many problems as there are, are drawn with replacement."""
    generator = np.random.default_rng(seed)
    n = len(sums.sums)
    per_chunk = max(1, _CHUNK // max(n, 1))
    for start in range(0, n_resamples, per_chunk):
        size = min(per_chunk, n_resamples - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        with np.errstate(invalid="ignore"):
            yield (times @ sums.sums) / (times @ sums.counts)


def _quantiles(means: Array, levels: Array) -> Array:
    """Column by column, each at its own level [cells]; a resample that missed a cell says nothing about it."""
    return np.array(
        [
            np.quantile(column[~np.isnan(column)], level) if np.isfinite(column).any() else np.nan
            for column, level in zip(means.T, levels, strict=True)
        ]
    )


def _all_signs(n: int) -> Iterator[Array]:
    yield 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)


def _random_signs(n: int, n_resamples: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    per_chunk = max(1, _CHUNK // max(n, 1))
    for start in range(0, n_resamples, per_chunk):
        yield generator.choice([-1.0, 1.0], size=(min(per_chunk, n_resamples - start), n))
