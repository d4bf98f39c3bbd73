"""Which slots are asked about → token counts in contexts → smoothed distributions, without building them.

Only the tokens that training showed have a probability of their own; all others share a floor. So nothing of size
[problems, positions, vocabulary] is ever held: a distribution is its seen tokens and one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from workings.errors import BadInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# How much each context hands to the next coarser estimate, in observations: a part for every kind of token seen in it,
# and a constant. (With the constant alone, a token common elsewhere could outrank the position's own commonest.)
DISCOUNTS = (0.0, 0.25, 0.5, 0.75, 0.9)
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Asked:
    """What is asked about: n problems, P positions, and a slot is asked about where `mask` is true. No hidden state."""

    problems: Sequence[str]
    splits: Sequence[str]  # "train", "val" or "test" [n]
    positions: Sequence[str]
    targets: NDArray[np.integer]  # token ids [n, P]; whatever stands where the mask is false is never looked at
    mask: NDArray[np.bool_]  # [n, P]
    new_values: NDArray[np.bool_]  # [n, P]: a number standing neither in the question nor in the answer
    chain_lengths: NDArray[np.integer]  # tokens of the written chain [n]
    questions: Sequence[Sequence[int]]  # token ids
    is_number: Callable[[int], bool]  # of a token id; for a boolean array, its `__getitem__`
    vocabulary_size: int

    def __post_init__(self) -> None:
        n, shape = len(self.problems), (len(self.problems), len(self.positions))
        for name in ("targets", "mask", "new_values"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}; problems × positions is {shape}")
        if any(len(each) != n for each in (self.splits, self.chain_lengths, self.questions)):
            raise ValueError(f"splits, chain_lengths and questions must have one entry for each of the {n} problems")
        if len(self.target) and not 0 <= self.target.min() <= self.target.max() < self.vocabulary_size:
            raise ValueError(f"a target is outside the vocabulary of {self.vocabulary_size:,} tokens")
        for split, use in (("train", "fitted on"), ("val", "smoothed on")):
            if not self.rows_of(split).any():
                raise BadInput(f"no target in split '{split}', which the controls are {use}: give more problems")

    @cached_property
    def problem(self) -> Ints:
        """Which problem each row is of. Rows are the slots asked about, problem by problem [rows]."""
        return np.nonzero(self.mask)[0]

    @cached_property
    def position(self) -> Ints:
        return np.nonzero(self.mask)[1]

    @cached_property
    def target(self) -> Ints:
        return np.asarray(self.targets, np.int64)[self.mask]

    @cached_property
    def seen(self) -> Ints:
        """The token ids that are targets in training, in order."""
        return np.unique(self.target[self.rows_of("train")])

    def rows_of(self, split: str) -> NDArray[np.bool_]:
        return (np.asarray(self.splits) == split)[self.problem]

    def readings(self, reader: str, rank: Ints, p: Floats) -> pl.DataFrame:
        """READINGS rows of a reader that sees no layer, from the rank and the probability of every row's target."""
        frame = {
            "problem": pl.Series(self.problems, dtype=pl.String).gather(self.problem),
            "position": pl.Series(self.positions, dtype=pl.String).gather(self.position),
            "target": pl.Series(self.target, dtype=pl.Int64),
            "rank": pl.Series(rank, dtype=pl.Int64).cast(pl.Int32),
            "nll": pl.Series(-np.log(p), dtype=pl.Float64).cast(pl.Float32),
            "new_value": pl.Series(self.new_values[self.mask], dtype=pl.Boolean),
            "split": pl.Series(self.splits, dtype=pl.String).gather(self.problem),
        }
        named = pl.DataFrame(frame).with_columns(reader=pl.lit(reader), layer=pl.lit(""))
        return named.select("reader", "problem", "layer", "position", "target", "rank", "nll", "new_value", "split")


@dataclass(frozen=True)
class Distribution:
    """Over a whole vocabulary: the seen tokens' own probabilities, and the one (`floor`) that each other token has.

    Of seen tokens that are equally probable the lower id comes first: a control that counted its ties against itself
    would name nothing there, and any lens would beat it. Unseen tokens do tie with each other, and come last.
    """

    seen: Ints
    p: Floats
    floor: float
    vocabulary_size: int

    def of(self, tokens: Ints) -> Floats:
        at = _index(self.seen, tokens)
        return np.where(at >= 0, self.p[at], self.floor)

    def n_above(self, p: Floats) -> Ints:
        """How many seen tokens are likelier than `p`."""
        return len(self.seen) - np.searchsorted(self.p[self.order[::-1]], p, side="right")

    def rank_of(self, tokens: Ints) -> Ints:
        """How many tokens come before; all others do before an unseen one."""
        at = _index(self.seen, tokens)
        return np.where(at >= 0, np.argsort(self.order)[at], self.vocabulary_size - 1)

    @cached_property
    def order(self) -> Ints:
        """The seen tokens' places, the likeliest first."""
        return np.argsort(-self.p, kind="stable")

    def written_out(self) -> Floats:
        """[vocabulary]"""
        whole = np.full(self.vocabulary_size, self.floor)
        whole[self.seen] = self.p
        return whole


@dataclass(frozen=True)
class Level:
    """Training counts in contexts of one fineness, and how they are smoothed (after Pitman and Yor)."""

    contexts: Ints  # of every row; −1 is a context that training never showed [rows]
    counts: sparse.csr_array  # [contexts, seen tokens]
    totals: Floats  # [contexts]
    n_kinds: Floats  # different tokens seen in the context [contexts]
    discount: float = 0.0
    strength: float = 1.0

    @classmethod
    def of(cls, asked: Asked, labels: Ints) -> Level:
        """`labels` say in which context each row is [rows]."""
        is_train = asked.rows_of("train")
        known = np.unique(labels[is_train])
        contexts, tokens = _index(known, labels), _index(asked.seen, asked.target[is_train])
        where = (np.ones(len(tokens)), (contexts[is_train], tokens))
        counts = sparse.csr_array(where, shape=(len(known), len(asked.seen)))
        counts.sum_duplicates()
        return cls(contexts, counts, counts.sum(1), np.diff(counts.indptr).astype(np.float64))

    def smoothed(self, counts: Floats, contexts: Ints | int, coarser: Floats) -> Floats:
        """The probability of tokens with these counts in known contexts, given their probability in the coarser one."""
        handed_on = self.strength + self.discount * self.n_kinds[contexts]
        kept = np.maximum(counts - self.discount, 0.0)
        return (kept + handed_on * coarser) / (self.totals[contexts] + self.strength)

    def of_tokens(self, rows: Ints, tokens: Ints, coarser: Floats) -> Floats:
        """The probability of one token a row; `tokens` are places among the seen, or −1."""
        contexts, counts = self.contexts[rows], np.zeros(len(rows))
        is_known, is_seen = contexts >= 0, (contexts >= 0) & (tokens >= 0)
        if is_seen.any():  # asked for nothing, scipy gives back another kind of array
            counts[is_seen] = self.counts[contexts[is_seen], tokens[is_seen]]
        return np.where(is_known, self.smoothed(counts, contexts, coarser), coarser)


@dataclass(frozen=True)
class Backoff:
    """Levels from the coarsest to the finest, each smoothed by the one before, the first by 1/V for every token."""

    asked: Asked
    levels: tuple[Level, ...] = ()

    def finer(self, labels: Ints) -> Backoff:
        """With one more level, smoothed as the validation rows ask."""
        rows = np.flatnonzero(self.asked.rows_of("val"))
        tokens = _index(self.asked.seen, self.asked.target[rows])
        coarser = np.full(len(rows), 1 / self.asked.vocabulary_size)
        for level in self.levels:
            coarser = level.of_tokens(rows, tokens, coarser)
        counted = Level.of(self.asked, labels)
        levels = [replace(counted, discount=d, strength=s) for d, s in product(DISCOUNTS, STRENGTHS)]
        best = min(levels, key=lambda level: -np.log(level.of_tokens(rows, tokens, coarser)).mean())
        return Backoff(self.asked, (*self.levels, best))

    def distribution(self, row: int) -> Distribution:
        asked = self.asked
        n_seen = len(asked.seen)
        p = np.full(n_seen + 1, 1 / asked.vocabulary_size)  # the last one stands for every unseen token
        for level in self.levels:
            if (context := level.contexts[row]) >= 0:
                p = level.smoothed(np.append(level.counts[[context]].toarray()[0], 0.0), context, p)
        return Distribution(asked.seen, p[:n_seen], p[n_seen], asked.vocabulary_size)

    def by_context(self) -> Iterator[tuple[Ints, Distribution]]:
        """All rows, those with one and the same distribution together."""
        _, group = np.unique(np.stack([level.contexts for level in self.levels]), axis=1, return_inverse=True)
        for rows in np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1]):
            yield rows, self.distribution(rows[0])

    def rank_and_p(self) -> tuple[Ints, Floats]:
        """Of every row's target: how many tokens come before it, and its probability."""
        rank, p = np.empty(len(self.asked.target), np.int64), np.empty(len(self.asked.target))
        for rows, distribution in self.by_context():
            p[rows] = distribution.of(self.asked.target[rows])
            rank[rows] = distribution.rank_of(self.asked.target[rows])
        return rank, p


def _index(known: Ints, values: Ints) -> Ints:
    """Where the values stand in the sorted `known`; −1 for those that are not there."""
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, at, -1)
