"""Dropout: theorems and traps. Its derivative is the mask that it drew."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.dropout import dropout_backward, dropout_forward
from transformer_np.gradcheck import check_gradients

seeds = st.integers(0, 2**32 - 1)
probabilities = st.floats(0, 0.95)


@given(seeds, probabilities)
def test_each_number_is_dropped_or_scaled_by_the_same_factor(seed, p):
    x = np.random.default_rng(seed).uniform(1, 2, (4, 5))
    y, _ = dropout_forward(x, p, np.random.default_rng(seed))
    np.testing.assert_allclose(y[y != 0], x[y != 0] / (1 - p), rtol=1e-14)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(p):
    n = 100_000
    y, _ = dropout_forward(np.ones(n), p, np.random.default_rng(0))
    sd = math.sqrt(p / (1 - p) / n)  # of the mean of n numbers that are 0 or 1 / (1 - p)
    assert y.mean() == pytest.approx(1, abs=4 * sd)
    assert (y == 0).mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))


def test_a_draw_of_exactly_p_is_kept():
    """Draws are multiples of 2^-53 in [0, 1), and just p of them are below p."""
    class Always:
        def random(self, shape):
            return np.full(shape, 0.5)

    y, _ = dropout_forward(np.ones(3), 0.5, Always())
    np.testing.assert_array_equal(y, 2)


@given(seeds, probabilities)
def test_backward_uses_the_mask_that_forward_drew(seed, p):
    rng = np.random.default_rng(seed)
    x, d_y = rng.uniform(1, 2, (4, 5)), rng.standard_normal((4, 5))
    y, cache = dropout_forward(x, p, rng)
    dropout_forward(x, p, rng)  # draws another mask, and must not disturb the first
    np.testing.assert_allclose(dropout_backward(d_y, cache), d_y * (y / x), rtol=1e-14)


@given(seeds, probabilities)
def test_backward_agrees_with_the_complex_step(seed, p):
    x = np.random.default_rng(seed).standard_normal((4, 5))
    check_gradients(lambda x: dropout_forward(x, p, np.random.default_rng(seed)), dropout_backward, [x]).raise_if_failed()


@pytest.mark.parametrize(("p", "rng"), [(0.0, np.random.default_rng(0)), (0.5, None), (0.0, None)])
def test_without_a_generator_or_with_p_zero_nothing_changes(p, rng):
    x, d_y = np.arange(6.0), np.arange(6.0) - 2
    y, cache = dropout_forward(x, p, rng)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dropout_backward(d_y, cache), d_y)


def test_p_zero_draws_nothing_from_the_generator():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    dropout_forward(np.ones(3), 0.0, rng)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0, math.nan])
def test_a_bad_probability_raises_with_and_without_a_generator(p):
    for rng in (None, np.random.default_rng(0)):
        with pytest.raises(ValueError, match=rf"^dropout: p {p}, expected 0 <= p < 1"):
            dropout_forward(np.ones(3), p, rng)
