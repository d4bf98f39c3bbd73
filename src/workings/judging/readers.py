"""Fits of readers that name one of C candidate values: linear ones, and log-linear pools of what several readers say.

A *reader* here is its log-probabilities [n, C] for all problems, whoever computed them. Two ways to join what the question tells
and what a state tells were tried and left: one linear reader on both (under one penalty, noise in the state costs the question's
reader 14 points; a state that merely parses the question is "read" in 47 % of the draws), and a second reader fitted to what the
first leaves over (27 %). In a log-linear pool, p ∝ Π pᵢ^wᵢ with wᵢ ≥ 0 (Genest and Zidek 1986), a reader that adds nothing gets
no weight.
Shapes: n problems, f features, C candidate values, R readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.special import logsumexp

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Features = Floats | sparse.csr_array

L2S = (0.3, 0.03, 0.003, 0.0003)
SHRINKAGES = (0.9, 0.6, 0.3, 0.1, 0.01)
FLOOR = float(np.log(1e-6))  # what a reader's log-probability is at least: no reader may veto a value
_STEPS = 60
_TOLERANCE = 1e-5


def fit_linear(x: Features, y: Ints, n_classes: int, train: Ints, val: Ints, l2s: Sequence[float] = L2S) -> Floats:
    """Log-probabilities [n, C] of multinomial logistic regression, with the penalty that does best on validation.

    Args:
        x: Features [n, f]. Dense ones are centred and scaled to unit variance on `train`; sparse ones are used as they are.
        y: The class of each problem [n]; −1, which is nowhere fitted or scored, where it is not among the C.
        n_classes: C.
        train, val: Problems to fit on, and to choose the penalty on.
        l2s: Penalties to try: half of that, times the squared weights, is added to the mean loss.

    >>> x = np.eye(3, dtype=np.float32)[[0, 1, 2] * 20]
    >>> y = np.array([0, 1, 2] * 20)
    >>> fit_linear(x, y, 3, np.arange(30), np.arange(30, 60)).argmax(1)[:3]
    array([0, 1, 2])
    """
    path = linear_path(x, y, n_classes, train, l2s)
    best = next(path)
    for log_p in path:
        if nats(log_p, y, val) > nats(
            best, y, val
        ):  # weaker penalties take longest, and only fit the training problems better
            break
        best = log_p
    return best


def linear_path(x: Features, y: Ints, n_classes: int, train: Ints, l2s: Sequence[float] = L2S) -> Iterator[Floats]:
    """The readers of `fit_linear`, one for each penalty, the strongest first: each fit starts where the one before ended."""
    rows = train[y[train] >= 0]
    dense = isinstance(x, np.ndarray)
    x = _standardised(x, rows) if dense else x.astype(np.float32)
    of_train, labels = x[rows], y[rows]
    n, f = of_train.shape
    start = np.zeros((f + 1, n_classes), np.float32)
    start[f] = np.log((np.bincount(labels, minlength=n_classes) + 0.5) / (n + 0.5 * n_classes))

    transposed = np.ascontiguousarray(of_train.T) if dense else sparse.csr_array(of_train.T)
    picked = (np.arange(n), labels)

    def objective(flat: NDArray[np.float64], l2: float) -> tuple[float, NDArray[np.float64]]:
        weights = flat.astype(np.float32).reshape(f + 1, n_classes)
        scores = of_train @ weights[:f] + weights[f]
        scores -= scores.max(1, keepdims=True)
        right = scores[picked].copy()
        np.exp(scores, out=scores)
        total = scores.sum(1, keepdims=True)
        loss = float((np.log(total[:, 0]) - right).mean())
        scores /= total
        scores[picked] -= 1.0
        scores /= n
        gradient = np.empty_like(weights)
        gradient[:f] = transposed @ scores + l2 * weights[:f]
        gradient[f] = scores.sum(0)
        return loss + 0.5 * l2 * float((weights[:f] ** 2).sum()), gradient.ravel().astype(np.float64)

    for l2 in sorted(l2s, reverse=True):
        found = optimize.minimize(
            objective,
            start.ravel().astype(np.float64),
            (l2,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _STEPS, "ftol": _TOLERANCE, "gtol": _TOLERANCE},
        )
        start = found.x.astype(np.float32).reshape(f + 1, n_classes)
        yield normalised(x @ start[:f] + start[f])


def _standardised(x: Floats, rows: Ints) -> Floats:
    some = x[rows].astype(np.float32)
    deviation = some.std(0)
    return (x.astype(np.float32) - some.mean(0)) / np.where(
        deviation > 1e-6 * max(deviation.max(initial=0), 1e-12), deviation, 1
    )


def normalised(scores: NDArray) -> Floats:
    """Scores [n, C] → log-probabilities, none below `FLOOR`."""
    log_p = scores - logsumexp(scores, axis=1, keepdims=True)
    return np.maximum(log_p, FLOOR).astype(np.float32)


def nats(log_p: Floats, y: Ints, rows: Ints) -> float:
    """Mean log-loss in nats over the rows whose class is known; infinite where there is none."""
    rows = rows[y[rows] >= 0]
    return float(-log_p[rows, y[rows]].mean()) if len(rows) else float("inf")


def discriminants(
    x: Floats, y: Ints, n_classes: int, train: Ints, shrinkages: Sequence[float] = SHRINKAGES
) -> Iterator[Floats]:
    """Log-probabilities [n, C] of linear discriminants, one for each shrinkage of the covariance, the strongest first.

    Classes are Gaussians with one covariance, shrunk towards a multiple of the identity (Friedman 1989). Of states, which vary most
    in directions that hold nothing, this sees far more than logistic regression does: of 100 tokens planted into 1,000 training
    problems at a tenth of the states' standard deviation, 99 % of the test problems' are named, against 48 %
    (benchmarks/judge_readers.py). It is in closed form, and the decomposition is shared by the shrinkages.

    Args:
        x: Features [n, f], dense.
        y, n_classes, train: As in `fit_linear`.
        shrinkages: Shares of the identity in the covariance.
    """
    rows = train[y[train] >= 0]
    every = x.astype(np.float32) - x[rows].mean(0, dtype=np.float64).astype(np.float32)
    if len(rows) < every.shape[1]:
        every = _in_their_span(every, every[rows])
    some, labels = every[rows], y[rows]
    counts = np.bincount(labels, minlength=n_classes)
    members = sparse.csr_array((np.ones(len(rows), np.float32), (labels, np.arange(len(rows)))), (n_classes, len(rows)))
    means = (members @ some) / (counts + 1)[:, None].astype(np.float32)
    # ^ one more observation, at the centre: a class seen once is not where that one state was
    within = some - means[labels]
    variances, axes = np.linalg.eigh(within.T @ within / len(rows))
    prior = np.log((counts + 0.5) / (len(rows) + 0.5 * n_classes)).astype(np.float32)
    every, means = every @ axes, means @ axes
    for shrinkage in sorted(shrinkages, reverse=True):
        precise = means / (
            (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * variances.mean() + np.float32(1e-12)
        )
        yield normalised(every @ precise.T - 0.5 * (precise * means).sum(1) + prior)


def _in_their_span(every: Floats, some: Floats) -> Floats:
    """Coordinates of rows in an orthonormal basis of what fewer rows span; means and covariance of those lie in it.

    By way of the products of the rows, in float64: several times faster than a singular value decomposition.
    """
    products = some.astype(np.float64) @ some.T.astype(np.float64)
    squares, axes = np.linalg.eigh(products)
    kept = squares > 1e-12 * squares[-1]
    kept[-1] = True  # of states that are all alike, too
    lengths = np.sqrt(np.maximum(squares[kept], 1e-12))
    return every @ (some.T @ (axes[:, kept] / lengths).astype(np.float32))


# ---- pools -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """A log-linear pool: the weights ≥ 0 of its readers, and what it says [n, C]."""

    weights: tuple[float, ...]
    log_p: Floats


def pool(readers: Sequence[Floats], y: Ints, val: Ints) -> Pool:
    """The log-linear pool of readers [n, C] whose weights minimise the log-loss on the problems `val`.

    One reader alone is rescaled in the same way: compared with an unscaled one, a pool would win by its scale only.
    """
    rows = val[y[val] >= 0]
    stacked = np.stack([reader[rows] for reader in readers])  # [R, m, C]
    labels = y[rows]
    of_right = stacked[:, np.arange(len(rows)), labels]  # [R, m]

    def objective(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = np.tensordot(weights.astype(np.float32), stacked, 1)
        scores -= scores.max(1, keepdims=True)
        np.exp(scores, out=scores)
        total = scores.sum(1, keepdims=True)
        scores /= total
        right = scores[np.arange(len(rows)), labels]
        expected = np.einsum("rmc,mc->rm", stacked, scores)
        loss = -np.log(np.maximum(right, 1e-30)).mean()
        return float(loss), (expected - of_right).mean(1).astype(np.float64)

    start = np.full(len(readers), 1.0 / len(readers))
    if len(rows):
        found = optimize.minimize(
            objective, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(readers), options={"maxiter": 100}
        )
        start = found.x
    log_p = normalised(sum(w * reader for w, reader in zip(start, readers, strict=True)))
    return Pool(tuple(float(w) for w in start), log_p)


def joined_nats(base: Floats, readers: Sequence[Floats], y: Ints, val: Ints) -> list[float]:
    """For each reader, the log-loss in nats on `val` of its pool with `base`; that of `base` alone where it adds nothing.

    Two weights each, by Newton's method: hundreds of places are compared, and of all of them only one is kept.
    """
    rows = val[y[val] >= 0]
    picked = (np.arange(len(rows)), y[rows])
    first = base[rows]
    _, alone = _newton(first[None], picked)
    return [min(alone, _newton(np.stack([first, reader[rows]]), picked)[1]) for reader in readers]


def best_beside(base: Floats, readers: Sequence[Floats], y: Ints, val: Ints) -> tuple[float, Floats]:
    """The reader whose pool with `base` has the least log-loss on `val`, after that loss in nats; of equals the first."""
    losses = joined_nats(base, readers, y, val)
    best = int(np.argmin(losses))
    return losses[best], readers[best]


def _newton(stacked: Floats, picked: tuple[Ints, Ints]) -> tuple[NDArray[np.float64], float]:
    """Weights [R], the last at least 0, and the log-loss of a pool of one or two readers [R, m, C]."""
    n_readers, n = stacked.shape[:2]
    weights = np.zeros(n_readers)
    weights[0] = 1.0
    of_right = stacked[:, picked[0], picked[1]].mean(1)
    best, best_loss, step = weights, np.inf, 1.0
    for _ in range(12):
        scores = np.tensordot(weights.astype(np.float32), stacked, 1)
        scores -= scores.max(1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(1, keepdims=True)
        loss = float(-np.log(np.maximum(scores[picked], 1e-30)).mean())
        if loss > best_loss - 1e-6:
            if loss <= best_loss + 1e-6 or step < 0.1:
                break
            step /= 2
        else:
            best, best_loss = weights, loss
            expected = np.einsum("rmc,mc->rm", stacked, scores)
            gradient = expected.mean(1) - of_right
            second = (
                np.einsum("rmc,mc,smc->rs", stacked, scores, stacked, optimize=True) / n - expected @ expected.T / n
            )
            towards = np.linalg.solve(second + 1e-6 * np.eye(n_readers), gradient)
        weights = best - step * towards
        if n_readers == 2 and weights[1] < 0:
            weights[1] = 0.0
    return best, best_loss
