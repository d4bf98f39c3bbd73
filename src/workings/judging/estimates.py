"""Columns of outcomes → numbers that are never without their n and their interval."""

from __future__ import annotations

from typing import Any

import polars as pl

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


def _some(n: int) -> None:
    if not n:
        raise BadInput("there is nothing to judge: no item was given")
