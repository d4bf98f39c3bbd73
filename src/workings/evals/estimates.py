"""Columns of outcomes → numbers that are never without their n and their interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binom

from workings.errors import BadInput
from workings.judging.statistics import cluster_bootstrap, wilson


def share(flags: pl.Series) -> dict[str, Any]:
    """How often: value, low, high (Wilson, 95 %), k, n."""
    n, k = len(flags), int(flags.sum())
    _some(n)
    interval = wilson(k, n)
    return {"value": k / n, "low": interval.low, "high": interval.high, "k": k, "n": n}


def mean(values: pl.Series, seed: int = 0) -> dict[str, Any]:
    """How much on average: value, low, high (bootstrap over items, 95 %), n."""
    n = len(values)
    _some(n)
    interval = cluster_bootstrap(values.to_numpy(), seed=seed)
    return {"value": float(values.to_numpy().mean()), "low": interval.low, "high": interval.high, "n": n}


def median(values: pl.Series) -> dict[str, Any]:
    """The middle value: value, low, high (order statistics that hold it 95 % of the time, or more), n."""
    n, ordered = len(values), np.sort(values.to_numpy())
    _some(n)
    reach = int(binom.ppf(0.025, n, 0.5))
    return {
        "value": float(np.median(ordered)),
        "low": float(ordered[max(reach - 1, 0)]),
        "high": float(ordered[min(n - reach, n - 1)]),
        "n": n,
    }


def _some(n: int) -> None:
    if not n:
        raise BadInput("there is nothing to judge: no item was given")
