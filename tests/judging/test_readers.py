"""Readers and their pool, on data whose truth is planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from workings.judging.readers import FLOOR, discriminants, fit_linear, joined_nats, linear_path, nats, normalised, pool

N, C = 600, 8
TRAIN, VAL, TEST = np.arange(300), np.arange(300, 420), np.arange(420, N)


def planted(strength: float, width: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States of a few large directions that hold nothing, and the class in directions of its own."""
    random = np.random.default_rng(seed)
    y = random.integers(0, C, N)
    spread = np.where(np.arange(width) < 4, 10.0, 0.3)
    directions = random.standard_normal((C, width)) / np.sqrt(width)
    return (random.standard_normal((N, width)) * spread + strength * directions[y]).astype(np.float32), y


def named(log_p: np.ndarray, y: np.ndarray) -> float:
    return float((log_p[TEST].argmax(1) == y[TEST]).mean())


def chosen(readers: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    return min(readers, key=lambda reader: nats(reader, y, VAL))


def test_what_is_planted_is_named_and_what_is_not_is_not() -> None:
    x, y = planted(3.0)
    other = np.random.default_rng(1).integers(0, C, N)
    for reader in (fit_linear(x, y, C, TRAIN, VAL), chosen(list(discriminants(x, y, C, TRAIN)), y)):
        assert named(reader, y) > 0.8
        assert nats(reader, y, TEST) < 1
    for reader in (fit_linear(x, other, C, TRAIN, VAL), chosen(list(discriminants(x, other, C, TRAIN)), other)):
        assert named(reader, other) < 0.25


def test_discriminants_see_small_directions_under_large_ones() -> None:
    """What trained states vary in most holds nothing of the target; the nearest centroid looks there first."""
    x, y = planted(1.5)
    centroids = np.stack([x[TRAIN][y[TRAIN] == c].mean(0) for c in range(C)])
    nearest = ((x[:, None] - centroids) ** 2).sum(-1).argmin(1)
    assert named(chosen(list(discriminants(x, y, C, TRAIN)), y), y) > (nearest[TEST] == y[TEST]).mean() + 0.2


def test_more_features_than_problems_change_nothing_but_the_cost() -> None:
    x, y = planted(3.0)
    wide = np.concatenate([x, np.zeros((N, 500), np.float32)], 1)
    for narrow_one, wide_one in zip(
        discriminants(x, y, C, TRAIN, (0.5,)), discriminants(wide, y, C, TRAIN, (0.5,)), strict=True
    ):
        assert wide_one.shape == narrow_one.shape == (N, C)
        np.testing.assert_allclose(wide_one, narrow_one, rtol=1e-3, atol=1e-3)
    same = np.ones((N, 500), np.float32)  # states that do not differ say how common a class is, and nothing else
    assert all(np.isfinite(one).all() and np.allclose(one, one[:1]) for one in discriminants(same, y, C, TRAIN))


def test_sparse_features_are_fitted_as_dense_ones_that_are_scaled_alike() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, C, N)
    x = (random.random((N, 40)) < 0.1).astype(np.float32)
    x[np.arange(N), y] = 1
    assert named(fit_linear(sparse.csr_array(x), y, C, TRAIN, VAL), y) > 0.6
    assert named(fit_linear(x, y, C, TRAIN, VAL), y) > 0.6


def test_classes_that_training_never_shows_are_neither_fitted_nor_scored() -> None:
    x, y = planted(3.0)
    y[:50], y[300:320] = -1, -1
    for reader in (*linear_path(x, y, C, TRAIN), *discriminants(x, y, C, TRAIN)):
        assert np.isfinite(reader).all() and reader.min() >= FLOOR
        np.testing.assert_allclose(np.exp(reader).sum(1), 1, atol=1e-3)


def test_nothing_of_the_test_problems_is_used() -> None:
    x, y = planted(3.0)
    other_y = y.copy()
    other_y[TEST] = np.random.default_rng(5).permutation(y[TEST])
    for fit in (lambda y: fit_linear(x, y, C, TRAIN, VAL), lambda y: chosen(list(discriminants(x, y, C, TRAIN)), y)):
        np.testing.assert_array_equal(fit(y), fit(other_y))


def test_a_reader_that_adds_nothing_gets_no_weight() -> None:
    x, y = planted(0.7)
    reader = fit_linear(x, y, C, TRAIN, VAL)
    noise = normalised(np.random.default_rng(2).standard_normal((N, C)))
    joined = pool([reader, noise], y, VAL)
    assert joined.weights[1] < 0.3 * joined.weights[0]
    assert abs(nats(joined.log_p, y, TEST) - nats(pool([reader], y, VAL).log_p, y, TEST)) < 0.03


def test_a_pool_mends_the_scale_of_a_reader() -> None:
    x, y = planted(0.7)
    reader = fit_linear(x, y, C, TRAIN, VAL)
    boasting = normalised(5 * reader)
    assert nats(boasting, y, TEST) > nats(reader, y, TEST) + 0.1
    assert nats(pool([boasting], y, VAL).log_p, y, TEST) < nats(reader, y, TEST) + 0.03


def test_two_halves_of_the_truth_are_joined() -> None:
    """One reader knows y // 2, the other y % 2: only together do they know y."""
    y = np.random.default_rng(3).integers(0, C, N)
    known = ((y // 2, np.arange(C) // 2), (y % 2, np.arange(C) % 2))
    halves = [normalised(4.0 * (of_problem[:, None] == of_class)) for of_problem, of_class in known]
    assert named(halves[0], y) < 0.7
    assert named(pool(halves, y, VAL).log_p, y) == 1


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), sharpness=st.floats(0.2, 5), noise=st.floats(0.2, 3))
def test_the_fast_search_finds_the_loss_of_the_pool(seed: int, sharpness: float, noise: float) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(0, C, N)
    truth = np.eye(C)[y]
    base, other = (normalised(sharpness * truth + noise * random.standard_normal((N, C))) for _ in range(2))
    quick = joined_nats(base, [other], y, VAL)[0]
    assert quick == pytest.approx(nats(pool([base, other], y, VAL).log_p, y, VAL), abs=0.01)
    assert quick <= nats(pool([base], y, VAL).log_p, y, VAL) + 0.003
