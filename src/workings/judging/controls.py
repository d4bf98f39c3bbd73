"""Targets, chain lengths and questions → what can be named without ever seeing a thought, as READINGS rows.

Three predictors, fitted on the training problems' targets and smoothed as the validation problems ask. Each gives a
whole distribution over the vocabulary, so that its rank and its nats stand beside a lens's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workings.judging.backoff import Asked, Backoff, Distribution, Floats, Ints

__all__ = ["Asked", "copy_from_question", "majority", "read_controls", "structure_only"]

N_COPIED = 8  # number tokens looked at from either end of the question
KEPT_BACK = (0.01, 0.03, 0.1, 0.3, 1.0)  # share of the copying given back to the majority
_EM_STEPS = 100


def read_controls(asked: Asked) -> pl.DataFrame:
    """READINGS rows of all three controls, all splits."""
    by_position = majority(asked)
    predictors = {
        "majority": by_position,
        "structure only": structure_only(asked, by_position),
        "copy from question": copy_from_question(asked, by_position),
    }
    return pl.concat([asked.readings(name, *each.rank_and_p()) for name, each in predictors.items()])


def majority(asked: Asked) -> Backoff:
    """P(token | position), backing off to the tokens of all positions, then to none in particular."""
    return Backoff(asked).finer(np.zeros_like(asked.position)).finer(asked.position)


def structure_only(asked: Asked, by_position: Backoff) -> Backoff:
    """P(token | position, number of tokens in the chain), backing off to the majority of the position."""
    length = np.asarray(asked.chain_lengths, np.int64)[asked.problem]
    return by_position.finer(asked.position * (length.max() + 1) + length)


def copy_from_question(asked: Asked, by_position: Backoff) -> Copying:
    """At each position a mixture of the question's number tokens, counted from either end, and the majority.

    Weights are fitted on train, and how much of them to give back to the majority is chosen on validation.
    """
    sources = np.array([_numbers_in(question, asked.is_number) for question in asked.questions])[asked.problem]
    _, by_majority = by_position.rank_and_p()
    names_it, exists = sources == asked.target[:, None], sources >= 0
    weights = np.zeros((len(asked.positions), sources.shape[1]))
    for position in np.unique(asked.position[asked.rows_of("train")]):
        rows = asked.rows_of("train") & (asked.position == position)
        weights[position] = _mixture(names_it[rows], exists[rows], by_majority[rows])
    choices = [Copying(by_position, sources, weights[asked.position] * exists * (1 - kept)) for kept in KEPT_BACK]
    is_val = asked.rows_of("val")
    return min(choices, key=lambda copying: -np.log(copying.p[is_val]).mean())


@dataclass(frozen=True)
class Copying:
    """The sources' weights go to the tokens they name; the majority has what is left, and what missing sources had."""

    base: Backoff
    sources: Ints  # token id that each source names, −1 where the question has no such number [rows, sources]
    weights: Floats  # 0 for a missing source [rows, sources]

    @cached_property
    def left(self) -> Floats:
        """What the majority has [rows]."""
        return 1 - self.weights.sum(1)

    @cached_property
    def p(self) -> Floats:
        """The probability of every row's target [rows]."""
        given = _given(self.base.asked.target, self.sources, self.weights)
        return self.left * self.base.rank_and_p()[1] + given

    def written_out(self, row: int) -> Floats:
        """The whole distribution of one row [vocabulary]."""
        whole = self.left[row] * self.base.distribution(row).written_out()
        is_there = self.sources[row] >= 0
        np.add.at(whole, self.sources[row][is_there], self.weights[row][is_there])
        return whole

    def rank_and_p(self) -> tuple[Ints, Floats]:
        """Of every row's target: how many tokens come before it, and its probability."""
        rank = np.empty(len(self.left), np.int64)
        for rows, distribution in self.base.by_context():
            rank[rows] = self._rank(rows, distribution)
        return rank, self.p

    def _rank(self, rows: Ints, majority: Distribution) -> Ints:
        """The rank among the majority's tokens, corrected for the few tokens that each row's question names.

        Of equally probable tokens those that a source names come first, in the order of the sources. All is in the
        majority's own scale, where its ties are exact.
        """
        target, sources, weights = self.base.asked.target[rows], self.sources[rows], self.weights[rows]
        left, given = self.left[rows], _given(target, sources, weights)
        own, is_named = majority.of(target), given > 0
        reach = np.where(is_named, own + given / left, own)
        rank = np.where(is_named, majority.n_above(reach), majority.rank_of(target))
        first_mention = np.where(is_named, (sources == target[:, None]).argmax(1), sources.shape[1])
        is_unseen = majority.rank_of(target) == majority.vocabulary_size - 1
        for at, token in enumerate(sources.T):
            alone, more = majority.of(token), _given(token, sources, weights) / left
            is_new = (token != target) & (more > 0) & (sources[:, :at] != token[:, None]).all(1)
            is_ahead = (alone + more > reach) | ((alone + more == reach) & (at < first_mention))
            was_ahead = is_unseen | (majority.rank_of(token) < majority.rank_of(target))
            rank += is_new * (is_ahead.astype(np.int64) - np.where(is_named, alone > reach, was_ahead))
        return rank


def _numbers_in(question: Sequence[int], is_number: Callable[[int], bool]) -> list[int]:
    """The first number tokens, then the last ones from the end inwards; −1 where there are no more [sources]."""
    numbers = [token for token in question if is_number(token)]
    padding = [-1] * (N_COPIED - len(numbers))
    return [*numbers[:N_COPIED], *padding, *numbers[::-1][:N_COPIED], *padding]


def _mixture(names_it: NDArray[np.bool_], exists: NDArray[np.bool_], by_majority: Floats) -> Floats:
    """The sources' weights that make these targets most probable, the majority having the rest (EM) [sources]."""
    n_sources = names_it.shape[1]
    # A source that the question lacks speaks with the majority's voice.
    likelihood = np.where(exists, names_it, by_majority[:, None])
    weights = np.full(n_sources, 0.5 / n_sources)
    for _ in range(_EM_STEPS):
        share = weights * likelihood
        weights = (share / (share.sum(1) + (1 - weights.sum()) * by_majority)[:, None]).mean(0)
    return weights


def _given(token: Ints, sources: Ints, weights: Floats) -> Floats:
    """What the sources give to one token a row [rows]."""
    return np.where(sources == token[:, None], weights, 0.0).sum(1)
