"""The simple recurrent network: a second opinion, and what is its own. `test_recurrent_cells.py` has what it shares."""

import math

import numpy as np
import pytest

from baselines_np.rnn import RNN, rnn_forward, rnn_step_backward, rnn_step_forward


def test_a_step_agrees_with_the_equation_number_by_number():
    rng = np.random.default_rng(0)
    projected, h, weight_h = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), rng.standard_normal((3, 3))
    h_next, _ = rnn_step_forward(projected, h, weight_h)
    for b, d in np.ndindex(2, 3):
        expected = math.tanh(projected[b, d] + sum(h[b, e] * weight_h[e, d] for e in range(3)))
        assert h_next[b, d] == pytest.approx(expected, rel=1e-14)


def test_without_recurrent_weights_every_step_is_a_linear_map_and_a_tanh():
    rng = np.random.default_rng(0)
    x, weight_x, bias = rng.standard_normal((2, 4, 3)), rng.standard_normal((3, 5)), rng.standard_normal(5)
    (y, _), _ = rnn_forward(x, weight_x, np.zeros((5, 5)), bias, rng.standard_normal((2, 5)))
    np.testing.assert_allclose(y, np.tanh(x @ weight_x + bias), rtol=1e-14)


def test_the_gradient_of_a_saturated_step_keeps_its_digits():
    # in float32, 1 - h * h at a = 6 has lost four of its seven digits; (1 - h) * (1 + h) none
    a = np.linspace(-6, 6, 25, dtype=np.float32)[:, None]
    _, cache = rnn_step_forward(a, np.zeros_like(a), np.zeros((1, 1), np.float32))
    d_projected, _, _ = rnn_step_backward(np.ones_like(a), cache)
    np.testing.assert_allclose(d_projected, 1 - cache.h_next.astype(np.float64) ** 2, rtol=3e-7)


def test_an_orthogonal_linear_regime_keeps_the_length_of_the_gradient():
    # near 0 tanh is the identity, so the gradient is rotated by W_h^T at every step, and neither vanishes nor explodes
    layer = RNN.create(3, 6, rng=np.random.default_rng(0), dtype=np.float64)
    (y, _), cache = layer.forward(np.zeros((1, 50, 3)), np.full((1, 6), 1e-9))
    d_last = np.random.default_rng(1).standard_normal((1, 6))
    _, d_first, _ = layer.backward((np.zeros_like(y), d_last), cache)
    assert np.linalg.norm(d_first) == pytest.approx(np.linalg.norm(d_last), rel=1e-12)
