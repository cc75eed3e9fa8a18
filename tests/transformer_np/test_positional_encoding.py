"""Positions: second opinions, theorems, traps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.gradcheck import check_gradients
from transformer_np.positional_encoding import (
    LearnedPositions,
    SinusoidalPositions,
    learned_positions_backward,
    learned_positions_forward,
    sinusoidal_positions_backward,
    sinusoidal_positions_forward,
    sinusoidal_table,
)

seeds = st.integers(0, 2**32 - 1)


@given(st.integers(0, 20), st.integers(1, 9))
def test_the_table_reads_as_the_paper(length, d_model):
    table = sinusoidal_table(length, d_model)
    assert table.shape == (length, d_model)
    for t, column in np.ndindex(length, d_model):
        angle = t / 10000 ** (2 * (column // 2) / d_model)
        assert table[t, column] == pytest.approx(math.sin(angle) if column % 2 == 0 else math.cos(angle), abs=1e-13)


@given(st.integers(1, 5).map(lambda half: 2 * half), st.integers(0, 50))
def test_the_row_of_t_plus_k_is_a_fixed_rotation_of_the_row_of_t(d_model, k):
    table = sinusoidal_table(80, d_model)
    rotation = np.zeros((d_model, d_model))
    for i in range(0, d_model, 2):
        angle = k / 10000 ** (i / d_model)
        rotation[i:i + 2, i:i + 2] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    np.testing.assert_allclose(table[k:], table[:80 - k] @ rotation.T, rtol=0, atol=1e-13)  # sines of angles up to 80
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(d_model), rtol=0, atol=1e-15)


@given(seeds, st.integers(0, 4), st.integers(0, 4), st.floats(-2, 2))
def test_sinusoidal_positions_add_the_same_table_to_each_sequence(seed, B, T, scale):
    rng = np.random.default_rng(seed)
    x, d_y = rng.standard_normal((B, T, 5)), rng.standard_normal((B, T, 5))
    y, cache = sinusoidal_positions_forward(x, scale=scale)
    np.testing.assert_array_equal(y, x + scale * sinusoidal_table(T, 5))
    np.testing.assert_array_equal(sinusoidal_positions_backward(d_y, cache), d_y)


@given(seeds, st.lists(st.integers(0, 3), max_size=2).map(tuple), st.integers(0, 4))
def test_learned_positions_add_a_row_and_sum_its_gradient_over_sequences(seed, leading, T):
    rng = np.random.default_rng(seed)
    x, weight, d_y = rng.standard_normal((*leading, T, 3)), rng.standard_normal((4, 3)), rng.standard_normal((*leading, T, 3))
    y, cache = learned_positions_forward(x, weight)
    d_x, d_weight = learned_positions_backward(d_y, cache)
    expected = np.zeros((4, 3))
    for index in np.ndindex(*leading, T):
        np.testing.assert_array_equal(y[index], x[index] + weight[index[-1]])
        expected[index[-1]] += d_y[index]
    np.testing.assert_array_equal(d_x, d_y)
    np.testing.assert_allclose(d_weight, expected, rtol=0, atol=1e-14)
    assert (d_weight[T:] == 0).all()


def test_learned_positions_and_their_gradients_agree_with_pytorch(torch, torch_vjp, assert_close):
    rng = np.random.default_rng(0)
    x, weight, d_y = rng.standard_normal((2, 3, 4)), rng.standard_normal((5, 4)), rng.standard_normal((2, 3, 4))
    theirs = torch_vjp(lambda x, weight: x + torch.nn.functional.embedding(torch.arange(3), weight), d_y, x, weight)
    y, cache = learned_positions_forward(x, weight)
    assert_close((y, learned_positions_backward(d_y, cache)), theirs)


@given(seeds, st.integers(1, 3), st.integers(1, 4))
def test_backward_agrees_with_the_complex_step(seed, B, T):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((B, T, 3)), rng.standard_normal((4, 3))
    check_gradients(learned_positions_forward, learned_positions_backward, [x, weight], seed=seed).raise_if_failed()
    check_gradients(sinusoidal_positions_forward, sinusoidal_positions_backward, [x], seed=seed).raise_if_failed()


def test_sinusoidal_positions_are_a_layer_without_weights():
    layer = SinusoidalPositions(scale=0.5)
    y, cache = layer.forward(np.zeros((2, 3, 4), np.float32))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y[0], 0.5 * sinusoidal_table(3, 4), atol=1e-7)
    d_x, d_layer = layer.backward(y, cache)
    assert d_x.dtype == np.float32
    assert isinstance(d_layer, SinusoidalPositions)


def test_sinusoidal_positions_have_amplitude_1_unless_told_and_need_no_batch():
    np.testing.assert_array_equal(sinusoidal_positions_forward(np.zeros((3, 4)))[0], sinusoidal_table(3, 4))


def test_new_learned_positions_have_the_standard_deviation_asked_for():
    layer = LearnedPositions.create(200, 100, rng=np.random.default_rng(0), std=0.3)
    assert layer.weight.dtype == np.float32
    assert layer.weight.std() == pytest.approx(0.3, rel=0.02)  # 20 000 samples: the estimate is right to 0.5 %


@pytest.mark.parametrize(("x", "weight", "message"), [
    ((2, 5, 3), (4, 3), r"^learned_positions: x has 5 positions, but there are weights for 4 only"),
    ((2, 4, 3), (4, 5), r"^learned_positions: x \[2, 4, 3\] and weight \[4, 5\] do not fit \[..., T, D\] and \[context, D\]"),
    ((3,), (4, 3), r"^learned_positions: x \[3\] and weight \[4, 3\] do not fit"),
    ((4, 3), (3,), r"^learned_positions: x \[4, 3\] and weight \[3\] do not fit"),
])
def test_learned_positions_that_do_not_fit_raise(x, weight, message):
    with pytest.raises(ValueError, match=message):
        learned_positions_forward(np.zeros(x), np.zeros(weight))


def test_sinusoidal_positions_without_a_time_axis_raise():
    with pytest.raises(ValueError, match=r"^sinusoidal_positions: x \[3\], expected \[..., T, D\]"):
        sinusoidal_positions_forward(np.zeros(3))
