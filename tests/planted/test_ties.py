"""Many readers of one strength or nearly: settings in which a judge that picks its opponent is wrong in up to 26 % of the draws.

Readers are simulated in the judge's own table: each names a known share, and they agree on what is easy as real ones do.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from workings import seeds
from workings.judging.verdict import JUDGED, verdicts

N_READERS = 13  # of the question, besides the stack
BITS_IF_NAMED, BITS_IF_NOT = np.log2(0.7), np.log2(0.05)  # then 5 points are worth .19 bits
ALIKE = 0.6  # correlation of what two readers find easy


def table(n: int, thoughts: float, stack: float, readers: list[float], seed: int) -> pl.DataFrame:
    """A table in which the stack, the stack with thoughts and each question reader name given shares; rivals do as the stack."""
    random = seeds.numpy("ties", seed)
    easy = random.normal(size=n)
    sides = {
        ("computing", "", "S", "real"): stack,
        ("computing", "model", "S+T", "real"): thoughts,
        ("computing", "untrained", "S+T", "real"): stack,
        ("computing", "model", "S+T", "shuffled"): stack,
    } | {(f"reader {i}", "", "Q", "real"): share for i, share in enumerate(readers)}
    frames = []
    for (reader, subject, features, targets), share in sides.items():
        own = np.sqrt(ALIKE) * easy + np.sqrt(1 - ALIKE) * random.normal(size=n)
        hit = own < stats.norm.ppf(share)
        columns = {"reader": reader, "subject": subject, "features": features, "targets": targets, "rung": "computing"}
        columns |= {
            "layer": "",
            "position": "",
            "problem": np.arange(n),
            "structure": np.arange(n),
            "fold": 0,
            "value": "7",
        }
        columns |= {"known": True, "hit": hit, "bits": np.where(hit, BITS_IF_NAMED, BITS_IF_NOT)}
        frames.append(pl.DataFrame(columns).cast(JUDGED).select(list(JUDGED)))
    return pl.concat(frames)


def at_most_5_percent(n_draws: int) -> int:
    """As many false answers as a judge whose rate is 5 % gives in all but 1 % of such series of draws."""
    return int(stats.binom.ppf(0.99, n_draws, 0.05))


def read(n: int, thoughts: float, stack: float, readers: list[float], n_draws: int) -> list[str]:
    """The answer to *read* in each draw."""
    tables = (table(n, thoughts, stack, readers, seed) for seed in range(n_draws))
    return [verdicts({"step2": one})["step2"].read.answer for one in tables]


@pytest.mark.parametrize("n_draws", [20, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize("below", [0.03, 0.10])
def test_thoughts_no_better_than_the_best_reader_are_hardly_ever_read(n: int, below: float, n_draws: int) -> None:
    readers = [0.4] + [0.4 - below] * (N_READERS - 1)
    assert read(n, 0.4, 0.4, readers, n_draws).count("yes") <= at_most_5_percent(n_draws)


@pytest.mark.parametrize("n_draws", [20, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("n", [100, 400])
def test_thoughts_better_than_each_of_many_readers_are_hardly_ever_called_nothing(n: int, n_draws: int) -> None:
    """They gain 5 points on each, just what is not small. The more readers, the sooner one seems to be no worse by chance."""
    readers = [0.4] * N_READERS
    assert read(n, 0.45, 0.4, readers, n_draws).count("no") <= at_most_5_percent(n_draws)


def test_thoughts_far_better_than_each_of_many_readers_are_read() -> None:
    assert read(400, 0.55, 0.4, [0.4] * N_READERS, 20).count("yes") >= 18
