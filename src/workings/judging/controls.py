"""Controls: predictors of the probe targets from the data alone, which never see a thought, as READINGS rows.

Three controls, fitted on the training problems' targets and smoothed on the validation problems: the majority token of each
position, the position and the length of the chain, and the numbers of the question. Each gives a whole distribution over the
vocabulary, so that its rank and its nats stand beside a lens's, and its `log_probabilities` of any candidates. Only the tokens seen
in training have a probability of their own; all others share a floor, so nothing of size [problems, positions, vocabulary] is held.
Shapes: n problems, P positions, rows = asked tokens (one a slot, by most target rules).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from workings.errors import BadInput
from workings.judging.ceiling import probe_readings
from workings.models.thinking import ThoughtModel
from workings.reading.lens import Lens
from workings.reading.lens_kinds import LogitLens
from workings.reading.readings import READINGS, Predictor, read_all
from workings.reading.store import ThoughtStore
from workings.reading.targets import Targets

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

N_COPIED = 8  # number tokens looked at from either end of the question
KEPT_BACK = (0.01, 0.03, 0.1, 0.3, 1.0)  # share of the copying given back to the majority
_EM_STEPS = 100
# How much each context hands to the next coarser estimate, in observations: a part for every kind of token seen in it,
# and a constant. (With the constant alone, a token common elsewhere could outrank the position's own commonest.)
DISCOUNTS = (0.0, 0.25, 0.5, 0.75, 0.9)
STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def readings_beside_controls(
    model: ThoughtModel,
    store: ThoughtStore,
    targets: Targets,
    lens: Lens,
    *,
    shuffled: Lens | None = None,
    others: Mapping[str, tuple[Lens, ThoughtStore]] | None = None,
) -> pl.DataFrame:
    """Read with a lens and with everything that stands beside it, on validation and test.

    Args:
        model: The model that thought.
        store: Its thoughts, which the lens and the logit lens read.
        targets: Probe targets of the same problems.
        lens: The lens that is judged.
        shuffled: The same kind of lens, fitted to the targets of other problems.
        others: {"control" or "untrained": (a lens for that model, its thoughts of the same problems)}.

    Returns:
        READINGS rows (see `reading.read_all`) of the lenses, the logit lens, the linear probes and the data controls.
    """
    for subject, pair in (others or {}).items():
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Lens)):
            raise BadInput(f"others['{subject}'] must be a pair: a lens of that model, and that model's thoughts")
    rows = torch.cat([targets.rows("val"), targets.rows("test")])
    frames = [read_all(lens, store, targets, rows)]
    frames.append(read_all(LogitLens(lens.unembedding, lens.layers, lens.fingerprint), store, targets, rows))
    if shuffled is not None:
        frames.append(read_all(shuffled, store, targets, rows, fitted_to="shuffled"))
    for subject, (of_subject, states) in (others or {}).items():
        frames.append(read_all(of_subject, states, targets, rows, subject=subject))
    frames.append(probe_readings(store, targets))
    controls = read_controls(ControlInputs.of(model, store, targets))
    return pl.concat([*frames, controls.filter(pl.col("split") != "train")])


def read_controls(inputs: ControlInputs) -> pl.DataFrame:
    """READINGS rows of the three controls, in all splits."""
    by_position = majority(inputs)
    predictors = {
        "majority": by_position,
        "structure only": structure_only(inputs, by_position),
        "copy from question": copy_from_question(inputs, by_position),
    }
    return pl.concat([inputs.readings(name, *each.rank_and_p()) for name, each in predictors.items()])


def majority(inputs: ControlInputs) -> Backoff:
    """P(token | position), backing off to the tokens of all positions, then to none in particular."""
    return Backoff(inputs).finer(np.zeros_like(inputs.position)).finer(inputs.position)


def structure_only(inputs: ControlInputs, by_position: Backoff) -> Backoff:
    """P(token | position, number of tokens in the chain), backing off to the majority of the position."""
    length = inputs.targets.chain_lengths.numpy()[inputs.problem]
    return by_position.finer(inputs.position * (length.max() + 1) + length)


def copy_from_question(inputs: ControlInputs, by_position: Backoff) -> Copying:
    """At each position a mixture of the question's number tokens, counted from either end, and the majority.

    Weights are fitted on train, and how much of them to give back to the majority is chosen on validation.
    """
    named = np.full((len(inputs.questions), 2 * N_COPIED), -1)
    for of_question, question in zip(named, inputs.questions, strict=True):
        numbers = [token for token in question if inputs.is_number(token)][:N_COPIED]
        of_question[: len(numbers)] = numbers
        backwards = [token for token in reversed(question) if inputs.is_number(token)][:N_COPIED]
        of_question[N_COPIED : N_COPIED + len(backwards)] = backwards
    sources = named[inputs.problem]
    _, by_majority = by_position.rank_and_p()
    names_it, exists = sources == inputs.target[:, None], sources >= 0
    weights = np.zeros((len(inputs.targets.positions), sources.shape[1]))
    for position in np.unique(inputs.position[inputs.rows_of("train")]):
        rows = inputs.rows_of("train") & (inputs.position == position)
        weights[position] = _mixture(names_it[rows], exists[rows], by_majority[rows])
    choices = [Copying(by_position, sources, weights[inputs.position] * exists * (1 - kept)) for kept in KEPT_BACK]
    is_val = inputs.rows_of("val")
    return min(choices, key=lambda copying: -np.log(copying.p[is_val]).mean())


# ---- what they see -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ControlInputs:
    """What the controls see: the probe targets with the lengths of their chains, and the questions; no hidden state.

    Attributes:
        targets: Probe targets of n problems.
        questions: Token ids of each question.
        is_number: True for a token id that is a number.
        n_tokens: Size of the vocabulary.
    """

    targets: Targets
    questions: Sequence[Sequence[int]]
    is_number: Callable[[int], bool]
    n_tokens: int

    @classmethod
    def of(cls, model: ThoughtModel, store: ThoughtStore, targets: Targets) -> ControlInputs:
        problems = store.as_problems()
        is_number = [text.strip().isdigit() for text in model.tokens(range(len(model.tokenizer)))]
        return cls(
            targets=targets,
            questions=model.tokenizer([p.question for p in problems], add_special_tokens=False)["input_ids"],
            is_number=lambda i: i < len(is_number) and is_number[i],
            n_tokens=len(model.unembedding.weight),
        )

    def __post_init__(self) -> None:
        n = len(self.targets.problems)
        if len(self.questions) != n:
            raise ValueError(f"there must be a question for each of the {n} problems, not {len(self.questions)}")
        if len(self.target) and not 0 <= self.target.min() <= self.target.max() < self.n_tokens:
            raise ValueError(f"a target is outside the vocabulary of {self.n_tokens:,} tokens")
        for split, use in (("train", "fitted on"), ("val", "smoothed on")):
            if not self.rows_of(split).any():
                raise BadInput(f"no target in split '{split}', which the controls are {use}: give more problems")

    @cached_property
    def _places(self) -> tuple[Ints, ...]:
        return self.targets.mask.numpy().nonzero()

    @property
    def problem(self) -> Ints:
        """The problem of each row; rows are the asked tokens, problem by problem [rows]."""
        return self._places[0]

    @property
    def position(self) -> Ints:
        """The position of each row [rows]."""
        return self._places[1]

    @cached_property
    def target(self) -> Ints:
        """The target token of each row [rows]."""
        return self.targets.ids.numpy()[self._places]

    @cached_property
    def seen(self) -> Ints:
        """The token ids that are targets in training, sorted."""
        return np.unique(self.target[self.rows_of("train")])

    def rows_of(self, split: str) -> NDArray[np.bool_]:
        """True for the rows of one split [rows]."""
        return (np.asarray(self.targets.splits) == split)[self.problem]

    def readings(self, reader: str, rank: Ints, p: Floats) -> pl.DataFrame:
        """READINGS rows of a reader that sees no layer, from the rank and probability of each row's target."""
        frame = {
            "problem": pl.Series(self.targets.problems, dtype=pl.String).gather(self.problem),
            "position": pl.Series(self.targets.positions, dtype=pl.String).gather(self.position),
            "target": pl.Series(self.target, dtype=pl.Int64),
            "rank": pl.Series(rank, dtype=pl.Int64).cast(pl.Int32),
            "nll": pl.Series(-np.log(p), dtype=pl.Float64).cast(pl.Float32),
            "new_value": pl.Series(self.targets.new_value.numpy()[self._places], dtype=pl.Boolean),
            "split": pl.Series(self.targets.splits, dtype=pl.String).gather(self.problem),
        }
        labels = Predictor(reader, subject="", features="Q")._asdict() | {"layer": ""}
        named = pl.DataFrame(frame).with_columns(**{name: pl.lit(value) for name, value in labels.items()})
        return named.select(READINGS)


# ---- smoothed counts in contexts ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distribution:
    """Probabilities over a vocabulary: the seen tokens' own, and one (`floor`) that every other token has.

    Of seen tokens that are equally probable the lower id comes first: a control that counted its ties against itself
    would name nothing there, and any lens would beat it. Unseen tokens do tie with each other, and come last.
    """

    seen: Ints
    p: Floats
    floor: float
    n_tokens: int

    def of(self, tokens: Ints) -> Floats:
        """Probability of each token."""
        at = _index(self.seen, tokens)
        return np.where(at >= 0, self.p[at], self.floor)

    def n_above(self, p: Floats) -> Ints:
        """Number of seen tokens that are likelier than `p`."""
        return len(self.seen) - np.searchsorted(self.p[self.order[::-1]], p, side="right")

    def rank_of(self, tokens: Ints) -> Ints:
        """Number of tokens before each token; all others come before an unseen one."""
        at = _index(self.seen, tokens)
        return np.where(at >= 0, np.argsort(self.order)[at], self.n_tokens - 1)

    @cached_property
    def order(self) -> Ints:
        """Places of the seen tokens, the likeliest first."""
        return np.argsort(-self.p, kind="stable")


@dataclass(frozen=True)
class Level:
    """Training counts in contexts of one fineness, and their smoothing (discount and strength after Pitman and Yor 1997)."""

    contexts: Ints  # the context of each row; −1 where training never showed it [rows]
    counts: sparse.csr_array  # [contexts, seen tokens]
    totals: Floats  # [contexts]
    n_kinds: Floats  # different tokens seen in the context [contexts]
    discount: float = 0.0
    strength: float = 1.0

    @classmethod
    def of(cls, inputs: ControlInputs, labels: Ints) -> Level:
        """Count the training targets in the contexts that `labels` [rows] give."""
        is_train = inputs.rows_of("train")
        known = np.unique(labels[is_train])
        contexts, tokens = _index(known, labels), _index(inputs.seen, inputs.target[is_train])
        where = (np.ones(len(tokens)), (contexts[is_train], tokens))
        counts = sparse.csr_array(where, shape=(len(known), len(inputs.seen)))
        counts.sum_duplicates()
        return cls(contexts, counts, counts.sum(1), np.diff(counts.indptr).astype(np.float64))

    def smoothed(self, counts: Floats, contexts: Ints | int, coarser: Floats) -> Floats:
        """Probability of tokens with these counts in known contexts, given their probability in the coarser one.

        `contexts` must broadcast against `counts`.
        """
        handed_on = self.strength + self.discount * self.n_kinds[contexts]
        kept = np.maximum(counts - self.discount, 0.0)
        return (kept + handed_on * coarser) / (self.totals[contexts] + self.strength)

    def of_tokens(self, rows: Ints, tokens: Ints, coarser: Floats) -> Floats:
        """Probability of one token per row; `tokens` are places among the seen, or −1."""
        contexts, counts = self.contexts[rows], np.zeros(len(rows))
        is_known, is_seen = contexts >= 0, (contexts >= 0) & (tokens >= 0)
        if is_seen.any():  # for no index at all scipy gives another kind of array
            counts[is_seen] = self.counts[contexts[is_seen], tokens[is_seen]]
        return np.where(is_known, self.smoothed(counts, contexts, coarser), coarser)


@dataclass(frozen=True)
class Backoff:
    """Levels from the coarsest to the finest, each smoothed by the one before; the first by 1/V for every token."""

    inputs: ControlInputs
    levels: tuple[Level, ...] = ()

    def finer(self, labels: Ints) -> Backoff:
        """Add a level, with the smoothing that is best on the validation rows."""
        rows = np.flatnonzero(self.inputs.rows_of("val"))
        tokens = _index(self.inputs.seen, self.inputs.target[rows])
        coarser = np.full(len(rows), 1 / self.inputs.n_tokens)
        for level in self.levels:
            coarser = level.of_tokens(rows, tokens, coarser)
        counted = Level.of(self.inputs, labels)
        levels = [replace(counted, discount=d, strength=s) for d, s in product(DISCOUNTS, STRENGTHS)]
        best = min(levels, key=lambda level: -np.log(level.of_tokens(rows, tokens, coarser)).mean())
        return Backoff(self.inputs, (*self.levels, best))

    def distribution(self, row: int) -> Distribution:
        """The whole distribution for one row."""
        inputs = self.inputs
        n_seen = len(inputs.seen)
        p = np.full(n_seen + 1, 1 / inputs.n_tokens)  # the last one stands for every unseen token
        for level in self.levels:
            if (context := level.contexts[row]) >= 0:
                p = level.smoothed(np.append(level.counts[[context]].toarray()[0], 0.0), context, p)
        return Distribution(inputs.seen, p[:n_seen], p[n_seen], inputs.n_tokens)

    def by_context(self) -> Iterator[tuple[Ints, Distribution]]:
        """All rows, grouped by those that have the same distribution."""
        _, group = np.unique(np.stack([level.contexts for level in self.levels]), axis=1, return_inverse=True)
        for rows in np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1]):
            yield rows, self.distribution(rows[0])

    def log_probabilities(self, candidates: Sequence[int]) -> Floats:
        """log p (natural) of each candidate token in each row [rows, candidates].

        They are probabilities over the whole vocabulary: those of a row add up to 1 with those of all other tokens.
        """
        at = _index(self.inputs.seen, np.asarray(candidates, np.int64))
        p = np.full((len(self.inputs.target), len(at)), 1 / self.inputs.n_tokens)
        for level in self.levels:
            rows = np.flatnonzero(level.contexts >= 0)
            contexts = level.contexts[rows]
            counts = np.zeros((len(rows), len(at)))
            counts[:, at >= 0] = level.counts[contexts][:, at[at >= 0]].toarray()
            p[rows] = level.smoothed(counts, contexts[:, None], p[rows])
        return np.log(p)

    def rank_and_p(self) -> tuple[Ints, Floats]:
        """Rank and probability of each row's target token."""
        rank, p = np.empty(len(self.inputs.target), np.int64), np.empty(len(self.inputs.target))
        for rows, distribution in self.by_context():
            p[rows] = distribution.of(self.inputs.target[rows])
            rank[rows] = distribution.rank_of(self.inputs.target[rows])
        return rank, p


def _index(known: Ints, values: Ints) -> Ints:
    """Place of each value in the sorted `known`; −1 for those that are not there."""
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, at, -1)


# ---- copying numbers out of the question -------------------------------------------------------------------------


@dataclass(frozen=True)
class Copying:
    """A mixture: each source's weight goes to the token it names, and the rest to the majority."""

    base: Backoff
    sources: Ints  # token id that each source names, −1 where the question has no such number [rows, sources]
    weights: Floats  # 0 for a missing source [rows, sources]

    @cached_property
    def left(self) -> Floats:
        """Probability mass left for the majority baseline [rows]."""
        return 1 - self.weights.sum(1)

    @cached_property
    def p(self) -> Floats:
        """Probability of each row's target [rows]."""
        given = _given(self.base.inputs.target, self.sources, self.weights)
        return self.left * self.base.rank_and_p()[1] + given

    def log_probabilities(self, candidates: Sequence[int]) -> Floats:
        """log p (natural) of each candidate token in each row [rows, candidates], as `Backoff.log_probabilities`."""
        tokens, p = (
            np.asarray(candidates, np.int64),
            self.left[:, None] * np.exp(self.base.log_probabilities(candidates)),
        )
        for named, weights in zip(self.sources.T, self.weights.T, strict=True):
            p += weights[:, None] * (named[:, None] == tokens)
        return np.log(p)

    def rank_and_p(self) -> tuple[Ints, Floats]:
        """Rank and probability of each row's target token."""
        rank = np.empty(len(self.left), np.int64)
        for rows, distribution in self.base.by_context():
            rank[rows] = self._rank(rows, distribution)
        return rank, self.p

    def _rank(self, rows: Ints, majority: Distribution) -> Ints:
        """Rank among the majority's tokens, corrected for the few tokens that each row's question names.

        Of equally probable tokens those that a source names come first, in the order of the sources. All is in the
        majority's own scale, where its ties are exact.
        """
        target, sources, weights = self.base.inputs.target[rows], self.sources[rows], self.weights[rows]
        left, given = self.left[rows], _given(target, sources, weights)
        own, is_named = majority.of(target), given > 0
        reach = np.where(is_named, own + given / left, own)
        rank = np.where(is_named, majority.n_above(reach), majority.rank_of(target))
        first_mention = np.where(is_named, (sources == target[:, None]).argmax(1), sources.shape[1])
        is_unseen = majority.rank_of(target) == majority.n_tokens - 1
        for at, token in enumerate(sources.T):
            alone, more = majority.of(token), _given(token, sources, weights) / left
            is_new = (token != target) & (more > 0) & (sources[:, :at] != token[:, None]).all(1)
            is_ahead = (alone + more > reach) | ((alone + more == reach) & (at < first_mention))
            was_ahead = is_unseen | (majority.rank_of(token) < majority.rank_of(target))
            rank += is_new * (is_ahead.astype(np.int64) - np.where(is_named, alone > reach, was_ahead))
        return rank


def _mixture(names_it: NDArray[np.bool_], exists: NDArray[np.bool_], by_majority: Floats) -> Floats:
    """The sources' weights that make these targets most probable, the majority having the rest (EM) [sources]."""
    n_sources = names_it.shape[1]
    # A source that the question lacks predicts as the majority does.
    likelihood = np.where(exists, names_it, by_majority[:, None])
    weights = np.full(n_sources, 0.5 / n_sources)
    for _ in range(_EM_STEPS):
        share = weights * likelihood
        weights = (share / (share.sum(1) + (1 - weights.sum()) * by_majority)[:, None]).mean(0)
    return weights


def _given(token: Ints, sources: Ints, weights: Floats) -> Floats:
    """Total weight of the sources that name one token per row [rows]."""
    return np.where(sources == token[:, None], weights, 0.0).sum(1)
