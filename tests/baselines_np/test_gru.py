"""The gated recurrent unit: a second opinion, and what is its own. `test_recurrent_cells.py` has what it shares."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines_np.gru import GRU, gru_backward, gru_forward, gru_reset_before_step_forward, gru_step_forward
from transformer_np.gradcheck import with_random_weights

seeds = st.integers(0, 2**32 - 1)
B, T, D_IN, D = 2, 4, 3, 3


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def random_layer(reset_after):
    rng = np.random.default_rng(0)
    return with_random_weights(GRU.create(D_IN, D, rng=rng, reset_after=reset_after), rng)


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_step_agrees_with_the_equations_number_by_number(reset_after):
    rng = np.random.default_rng(0)
    p, h = rng.standard_normal((B, 3 * D)), rng.standard_normal((B, D))
    weight_h, bias_h = rng.standard_normal((D, 3 * D)), rng.standard_normal(D)
    if reset_after:
        h_next, _ = gru_step_forward(p, h, weight_h, bias_h)
    else:
        h_next, _ = gru_reset_before_step_forward(p, h, weight_h)
    for b in range(B):
        def recalled(state, column):
            return sum(state[e] * weight_h[e, column] for e in range(D))
        r = [sigmoid(p[b, d] + recalled(h[b], d)) for d in range(D)]
        z = [sigmoid(p[b, D + d] + recalled(h[b], D + d)) for d in range(D)]
        for d in range(D):
            if reset_after:
                n = math.tanh(p[b, 2 * D + d] + r[d] * (recalled(h[b], 2 * D + d) + bias_h[d]))
            else:
                n = math.tanh(p[b, 2 * D + d] + recalled([r[e] * h[b, e] for e in range(D)], 2 * D + d))
            assert h_next[b, d] == pytest.approx((1 - z[d]) * n + z[d] * h[b, d], rel=1e-13)


@given(seeds)
def test_reset_before_equals_reset_after_where_the_candidates_weights_are_diagonal(assert_close, seed):
    # then r (h U_n) = (r h) U_n, and without the second bias nothing is left that differs
    rng = np.random.default_rng(seed)
    x, h_0 = rng.standard_normal((B, T, D_IN)), rng.standard_normal((B, D))
    weight_x, weight_h, bias = rng.standard_normal((D_IN, 3 * D)), rng.standard_normal((D, 3 * D)), rng.standard_normal(3 * D)
    weight_h[:, 2 * D:] = np.diag(rng.standard_normal(D))
    d_output = rng.standard_normal((B, T, D)), rng.standard_normal((B, D))
    after, after_cache = gru_forward(x, weight_x, weight_h, bias, np.zeros(D), h_0)
    before, before_cache = gru_forward(x, weight_x, weight_h, bias, None, h_0, reset_after=False)
    assert_close(after, before, 1e-13)
    d_x, d_weight_x, d_weight_h, d_bias, _, d_h_0 = gru_backward(d_output, after_cache)
    e_x, e_weight_x, e_weight_h, e_bias, absent, e_h_0 = gru_backward(d_output, before_cache)
    assert absent is None
    assert_close((d_x, d_weight_x, d_bias, d_h_0), (e_x, e_weight_x, e_bias, e_h_0), 1e-12)
    assert_close(d_weight_h[:, :2 * D], e_weight_h[:, :2 * D], 1e-12)
    assert_close(np.diag(d_weight_h[:, 2 * D:]), np.diag(e_weight_h[:, 2 * D:]), 1e-12)


@pytest.mark.parametrize("reset_after", [True, False])
def test_an_update_gate_of_one_keeps_the_state_and_its_gradient(reset_after):
    layer = random_layer(reset_after)
    layer.bias[D:2 * D] = 800
    rng = np.random.default_rng(2)
    h_0, d_h_T = rng.standard_normal((B, D)), rng.standard_normal((B, D))
    (y, h_T), cache = layer.forward(rng.standard_normal((B, T, D_IN)), h_0)
    _, d_h_0, _ = layer.backward((np.zeros_like(y), d_h_T), cache)
    np.testing.assert_allclose(h_T, h_0, rtol=1e-15)
    np.testing.assert_allclose(d_h_0, d_h_T, rtol=1e-15)


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_closed_reset_gate_hides_the_state_from_the_candidate(reset_after):
    layer = random_layer(reset_after)
    layer.bias[:2 * D] = -800                                                   # r = 0 and z = 0: the candidate alone
    rng = np.random.default_rng(2)
    x = rng.standard_normal((B, T, D_IN))
    (y, _), _ = layer.forward(x, rng.standard_normal((B, D)))
    np.testing.assert_allclose(y, np.tanh(x @ layer.weight_x + layer.bias)[..., 2 * D:], rtol=1e-14)


def test_the_second_bias_belongs_to_the_reset_after_the_product():
    x, weight_x, weight_h, bias = np.zeros((B, T, D_IN)), np.zeros((D_IN, 3 * D)), np.zeros((D, 3 * D)), np.zeros(3 * D)
    with pytest.raises(ValueError, match=r"^gru: bias_h None, expected \[3\]: \[D\], with reset_after"):
        gru_forward(x, weight_x, weight_h, bias, None)
    with pytest.raises(ValueError, match=r"^gru: bias_h \[4\], expected \[3\]: \[D\], with reset_after"):
        gru_forward(x, weight_x, weight_h, bias, np.zeros(4))
    with pytest.raises(ValueError, match=r"^gru: bias_h \[3\], expected None without reset_after"):
        gru_forward(x, weight_x, weight_h, bias, np.zeros(3), reset_after=False)
    with pytest.raises(ValueError, match=r"^gru_step: bias_h \[4\], expected \[3\]: \[D\]"):
        gru_step_forward(np.zeros((B, 3 * D)), np.zeros((B, D)), weight_h, np.zeros(4))
    with pytest.raises(ValueError, match=r"^gru_step: h \[2, 4\], expected \[2, 3\]: \[B, D\]"):
        gru_step_forward(np.zeros((B, 3 * D)), np.zeros((B, 4)), weight_h, np.zeros(3))
