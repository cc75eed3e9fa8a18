"""Long short-term memory: a second opinion, and what is its own. `test_recurrent_cells.py` has what it shares."""

import math

import numpy as np
import pytest

from baselines_np.lstm import LSTM, lstm_backward, lstm_forward, lstm_step_forward
from transformer_np.gradcheck import with_random_weights

B, T, D_IN, D = 2, 4, 3, 2


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def random_layer():
    return with_random_weights(LSTM.create(D_IN, D, rng=np.random.default_rng(0)), np.random.default_rng(1))


def test_a_step_agrees_with_the_equations_number_by_number():
    rng = np.random.default_rng(0)
    projected, weight_h = rng.standard_normal((B, 4 * D)), rng.standard_normal((D, 4 * D))
    h, c = rng.standard_normal((B, D)), rng.standard_normal((B, D))
    (h_next, c_next), _ = lstm_step_forward(projected, h, c, weight_h)
    for b, d in np.ndindex(B, D):
        a_i, a_f, a_g, a_o = (projected[b, column] + sum(h[b, e] * weight_h[e, column] for e in range(D))
                              for column in (d, D + d, 2 * D + d, 3 * D + d))
        cell = sigmoid(a_f) * c[b, d] + sigmoid(a_i) * math.tanh(a_g)
        assert c_next[b, d] == pytest.approx(cell, rel=1e-13)
        assert h_next[b, d] == pytest.approx(sigmoid(a_o) * math.tanh(cell), rel=1e-13)


def test_a_cell_that_only_remembers_carries_its_gradient_over_any_distance():
    layer = random_layer()
    layer.weight_x[:] = layer.weight_h[:] = 0
    layer.bias[:] = np.repeat([-800, 800, 0, 800], D)                           # write nothing, forget nothing, show all
    rng = np.random.default_rng(2)
    state, d_c_T = (np.zeros((B, D)), rng.standard_normal((B, D))), rng.standard_normal((B, D))
    (y, (h_T, c_T)), cache = layer.forward(rng.standard_normal((B, 1000, D_IN)), state)
    _, (_, d_c_0), _ = layer.backward((np.zeros_like(y), (np.zeros((B, D)), d_c_T)), cache)
    np.testing.assert_array_equal(c_T, state[1])
    np.testing.assert_array_equal(d_c_0, d_c_T)
    np.testing.assert_array_equal(h_T, np.tanh(c_T))


def test_a_cell_that_forgets_has_no_past():
    layer = random_layer()
    layer.weight_h[:] = 0
    layer.bias[D:2 * D] = -800
    rng = np.random.default_rng(2)
    x, d_y = rng.standard_normal((B, T, D_IN)), rng.standard_normal((B, T, D))
    d_y[:, :-1] = 0
    _, cache = layer.forward(x)
    d_x, _, _ = layer.backward((d_y, None), cache)
    assert (d_x[:, :-1] == 0).all()
    assert (d_x[:, -1] != 0).all()


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 3.5])
def test_the_forget_bias_is_settable_and_alone(forget_bias):
    layer = LSTM.create(D_IN, D, rng=np.random.default_rng(0), forget_bias=forget_bias)
    np.testing.assert_array_equal(layer.bias, np.repeat([0, forget_bias, 0, 0], D))


def test_the_cell_is_checked_too():
    layer = random_layer()
    with pytest.raises(ValueError, match=r"^lstm: c_0 \[2, 5\], expected \[2, 2\]: \[B, D\]"):
        lstm_forward(np.zeros((B, T, D_IN)), layer.weight_x, layer.weight_h, layer.bias, None, np.zeros((B, 5)))


@pytest.mark.parametrize("given", ["h_0", "c_0"])
def test_a_state_that_was_not_given_has_no_gradient(given):
    layer = random_layer()
    (y, _, _), cache = lstm_forward(np.ones((B, T, D_IN)), layer.weight_x, layer.weight_h, layer.bias, **{given: np.ones((B, D))})
    *_, d_h_0, d_c_0 = lstm_backward((np.ones_like(y), None, None), cache)
    assert [gradient is not None for gradient in (d_h_0, d_c_0)] == [given == "h_0", given == "c_0"]
