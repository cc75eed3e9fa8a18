"""The linear layer: second opinions, theorems, traps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.checkpoints.pytorch import linear_from_pytorch, linear_to_pytorch
from transformer_np.gradcheck import check_gradients
from transformer_np.linear import Linear, linear_backward, linear_forward

seeds = st.integers(0, 2**32 - 1)
leading = st.lists(st.integers(0, 3), max_size=3).map(tuple)
widths = st.integers(1, 5)


def draw(seed, leading, d_in, d_out):
    """x, weight, bias and a cotangent."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((*leading, d_in)), rng.standard_normal((d_in, d_out)), rng.standard_normal(d_out),
            rng.standard_normal((*leading, d_out)))


@given(seeds, leading, widths, widths)
def test_linear_agrees_with_a_loop_over_rows(seed, leading, d_in, d_out):
    x, weight, bias, d_y = draw(seed, leading, d_in, d_out)
    y, cache = linear_forward(x, weight, bias)
    d_x, d_weight, d_bias = linear_backward(d_y, cache)
    assert (y.shape, d_x.shape) == (d_y.shape, x.shape)
    naive_d_weight, naive_d_bias = np.zeros_like(weight), np.zeros_like(bias)
    for row in np.ndindex(leading):
        np.testing.assert_allclose(y[row], weight.T @ x[row] + bias, rtol=0, atol=1e-13)
        np.testing.assert_allclose(d_x[row], weight @ d_y[row], rtol=0, atol=1e-13)
        naive_d_weight += np.outer(x[row], d_y[row])
        naive_d_bias += d_y[row]
    np.testing.assert_allclose(d_weight, naive_d_weight, rtol=0, atol=1e-12)
    np.testing.assert_allclose(d_bias, naive_d_bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients_agree_with_pytorch(torch, torch_module, assert_close, bias):
    x, _, _, d_y = draw(0, (2, 3), 4, 5)
    state, y, d_inputs, d_state = torch_module(torch.nn.Linear(4, 5, bias=bias), d_y, x)
    layer = linear_from_pytorch(state)
    our_y, cache = layer.forward(x)
    d_x, d_layer = layer.backward(d_y, cache)
    assert_close((our_y, (d_x,)), (y, d_inputs))
    assert_close(linear_to_pytorch(d_layer), d_state)


@given(seeds, st.lists(st.integers(1, 3), max_size=3).map(tuple), widths, widths, st.booleans())
def test_backward_agrees_with_the_complex_step(seed, leading, d_in, d_out, has_bias):
    x, weight, bias, _ = draw(seed, leading, d_in, d_out)
    check_gradients(linear_forward, linear_backward, [x, weight, bias if has_bias else None], seed=seed).raise_if_failed()


@given(seeds, leading, st.integers(-3, 3))
def test_without_bias_linear_is_linear(seed, leading, factor):
    x, weight, _, other = draw(seed, leading, 4, 4)
    sum_y = linear_forward(x + factor * other, weight)[0]
    np.testing.assert_allclose(sum_y, linear_forward(x, weight)[0] + factor * linear_forward(other, weight)[0], atol=1e-12)


def test_the_gradient_of_an_absent_bias_is_none():
    layer = Linear.create(3, 2, rng=np.random.default_rng(0), bias=False)
    y, cache = layer.forward(np.ones((4, 3), np.float32))
    _, d_layer = layer.backward(np.ones_like(y), cache)
    assert layer.bias is None
    assert d_layer.bias is None


def test_no_rows_give_zero_gradients():
    _, weight, bias, _ = draw(0, (), 3, 2)
    y, cache = linear_forward(np.zeros((2, 0, 3)), weight, bias)
    d_x, d_weight, d_bias = linear_backward(y, cache)
    assert (y.shape, d_x.shape) == ((2, 0, 2), (2, 0, 3))
    np.testing.assert_array_equal(d_weight, np.zeros((3, 2)))
    np.testing.assert_array_equal(d_bias, np.zeros(2))


def test_new_weights_keep_the_variance_of_a_row():
    layer = Linear.create(400, 300, rng=np.random.default_rng(0))
    assert layer.weight.dtype == np.float32
    assert layer.weight.std() == pytest.approx(1 / 20, rel=0.01)  # 120 000 samples: the estimate is right to 0.2 %
    assert (layer.bias == 0).all()
    assert Linear.create(40, 30, rng=np.random.default_rng(0), std=0.5).weight.std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(("x", "weight", "bias", "message"), [
    ((2, 3), (4, 5), (5,), r"^linear: x \[2, 3\] and weight \[4, 5\] do not fit \[..., D_in\] and \[D_in, D_out\]"),
    ((), (4, 5), (5,), r"^linear: x \[\] and weight \[4, 5\] do not fit"),
    ((4,), (4,), (4,), r"^linear: x \[4\] and weight \[4\] do not fit"),
    ((2, 4), (4, 5), (4,), r"^linear: bias \[4\], expected \[5\], the last axis of weight"),
    ((2, 4), (4, 5), (1,), r"^linear: bias \[1\], expected \[5\]"),
])
def test_shapes_that_do_not_fit_raise(x, weight, bias, message):
    with pytest.raises(ValueError, match=message):
        linear_forward(np.zeros(x), np.zeros(weight), np.zeros(bias))
