"""Layer normalization: second opinions, theorems, traps."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transformer_np.checkpoints.pytorch import layer_norm_from_pytorch, layer_norm_to_pytorch
from transformer_np.gradcheck import check_gradients
from transformer_np.normalization import LayerNorm, layer_norm_backward, layer_norm_forward

seeds = st.integers(0, 2**32 - 1)
leading = st.lists(st.integers(1, 3), max_size=2).map(tuple)
widths = st.integers(2, 6)


def draw(seed, leading, D):
    """x, gain, bias and a cotangent."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((*leading, D)), rng.standard_normal(D), rng.standard_normal(D),
            rng.standard_normal((*leading, D)))


def layer_norm_naive(row, gain, bias, eps):
    """One row, number by number."""
    D = len(row)
    mean = math.fsum(row) / D
    variance = math.fsum((x - mean) ** 2 for x in row) / D
    return [(row[i] - mean) / math.sqrt(variance + eps) * gain[i] + bias[i] for i in range(D)]


# ---------------------------------------------------------------------------------------------------- second opinions

@given(seeds, leading, st.integers(1, 6), st.sampled_from([1e-5, 1e-3, 1.0]))
def test_layer_norm_agrees_with_a_loop_over_rows(seed, leading, D, eps):
    x, gain, bias, _ = draw(seed, leading, D)
    y, _ = layer_norm_forward(x, gain, bias, eps=eps)
    for row in np.ndindex(leading):
        np.testing.assert_allclose(y[row], layer_norm_naive(x[row], gain, bias, eps), rtol=0, atol=1e-12)


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_and_its_gradients_agree_with_pytorch(torch, torch_module, assert_close, eps):
    x, _, _, d_y = draw(0, (2, 3), 5)
    state, y, d_inputs, d_state = torch_module(torch.nn.LayerNorm(5, eps=eps), d_y, x)
    layer = layer_norm_from_pytorch(state, eps=eps)
    our_y, cache = layer.forward(x)
    d_x, d_layer = layer.backward(d_y, cache)
    assert_close((our_y, (d_x,)), (y, d_inputs))
    assert_close(layer_norm_to_pytorch(d_layer), d_state)


@given(seeds, leading, widths, st.sampled_from([1e-5, 0.1]))
def test_backward_agrees_with_the_complex_step(seed, leading, D, eps):
    x, gain, bias, _ = draw(seed, leading, D)
    check_gradients(lambda x, gain, bias: layer_norm_forward(x, gain, bias, eps=eps), layer_norm_backward, [x, gain, bias],
                    seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@given(seeds, leading, widths, st.floats(-100, 100), st.floats(0.01, 100))
def test_layer_norm_is_invariant_to_shift_and_scale(seed, leading, D, shift, scale):
    x, gain, bias, _ = draw(seed, leading, D)
    assume(x.std(axis=-1).min() > 0.05)  # a shift of 100 leaves 1e-14 of error, which is compared with the spread
    y, _ = layer_norm_forward(x, gain, bias, eps=0.0)
    np.testing.assert_allclose(layer_norm_forward(scale * x + scale * shift, gain, bias, eps=0.0)[0], y, rtol=0, atol=1e-11)


@given(seeds, leading, widths, st.floats(0.01, 100))
def test_layer_norm_is_invariant_to_scale_together_with_eps(seed, leading, D, scale):
    x, gain, bias, _ = draw(seed, leading, D)
    y, _ = layer_norm_forward(x, gain, bias, eps=0.1)
    np.testing.assert_allclose(layer_norm_forward(scale * x, gain, bias, eps=scale**2 * 0.1)[0], y, rtol=0, atol=1e-12)


@given(seeds, leading, widths)
def test_normalized_rows_have_mean_zero_and_variance_one(seed, leading, D):
    x, _, _, _ = draw(seed, leading, D)
    y, _ = layer_norm_forward(x, np.ones(D), np.zeros(D), eps=0.0)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(axis=-1), 1, rtol=1e-13)


@given(seeds, leading, widths)
def test_the_gradient_is_orthogonal_to_ones_and_to_the_normalized_row(seed, leading, D):
    x, gain, bias, d_y = draw(seed, leading, D)
    assume(x.std(axis=-1).min() > 0.05)
    _, cache = layer_norm_forward(x, gain, bias, eps=0.0)
    d_x, _, _ = layer_norm_backward(d_y, cache)
    np.testing.assert_allclose(d_x.sum(axis=-1), 0, atol=1e-12)  # a shift changes nothing
    np.testing.assert_allclose((d_x * cache.normalized).sum(axis=-1), 0, atol=1e-12)  # nor does a scale


# ---------------------------------------------------------------------------------------------------- traps

def test_a_small_spread_around_a_large_mean_survives_in_float32():
    # mean(x^2) - mean(x)^2 is 0 here, and a mean that is rounded once leaves an error of 3e-3
    x = (100 + 1e-3 * np.random.default_rng(0).standard_normal((50, 64))).astype(np.float32)
    gain, bias = np.ones(64, np.float32), np.zeros(64, np.float32)
    y, _ = layer_norm_forward(x, gain, bias)
    exact, _ = layer_norm_forward(x.astype(np.float64), gain, bias)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("constant", [0.0, 0.1, -123.456, 1e6 + 0.3])
@pytest.mark.parametrize("D", [1, 2, 7, 100])
def test_a_constant_row_gives_the_bias(dtype, constant, D):
    rng = np.random.default_rng(0)
    gain, bias, d_y = (rng.standard_normal(D).astype(dtype) for _ in range(3))
    y, cache = layer_norm_forward(np.full(D, constant, dtype), gain, bias)
    np.testing.assert_allclose(y, bias, atol=1e-6)  # 1e6 in float32 is its own mean to 4e-9 at the second attempt
    d_x, d_gain, d_bias = layer_norm_backward(d_y, cache)
    assert np.isfinite(d_x).all()
    np.testing.assert_allclose(d_gain, 0, atol=1e-5)
    np.testing.assert_array_equal(d_bias, d_y)


def test_a_row_of_one_number_is_the_bias_and_has_no_gradient():
    y, cache = layer_norm_forward(np.array([[3.0], [5.0]]), np.array([2.0]), np.array([0.7]))
    np.testing.assert_array_equal(y, [[0.7], [0.7]])
    d_x, d_gain, d_bias = layer_norm_backward(np.array([[1.0], [4.0]]), cache)
    np.testing.assert_array_equal(d_x, [[0], [0]])
    np.testing.assert_array_equal(d_gain, [0])
    np.testing.assert_array_equal(d_bias, [5])


def test_a_square_that_overflows_warns_and_gives_the_bias():
    x = np.array([[1e30, -1e30, 0]], np.float32)
    with pytest.warns(RuntimeWarning, match="overflow"):
        y, cache = layer_norm_forward(x, np.ones(3, np.float32), np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(y, [[0.5, 0.5, 0.5]])
    assert (layer_norm_backward(np.ones_like(x), cache)[0] == 0).all()


def test_no_rows_give_zero_gradients():
    y, cache = layer_norm_forward(np.zeros((0, 3)), np.ones(3), np.zeros(3))
    d_x, d_gain, d_bias = layer_norm_backward(y, cache)
    assert (y.shape, d_x.shape) == ((0, 3), (0, 3))
    np.testing.assert_array_equal(d_gain, np.zeros(3))
    np.testing.assert_array_equal(d_bias, np.zeros(3))


def test_a_new_layer_only_normalizes():
    layer = LayerNorm.create(4)
    assert (layer.gain == 1).all()
    assert (layer.bias == 0).all()
    assert (layer.eps, layer.gain.dtype, layer.bias.dtype) == (1e-5, np.float32, np.float32)


def test_eps_is_1e_5_unless_the_layer_has_another():
    x, gain, bias, _ = draw(0, (3,), 4)
    x = 0.01 * x                                                                # a variance near eps
    np.testing.assert_array_equal(layer_norm_forward(x, gain, bias)[0], layer_norm_forward(x, gain, bias, eps=1e-5)[0])
    for eps in (1e-5, 0.3):
        np.testing.assert_array_equal(LayerNorm(gain, bias, eps).forward(x)[0], layer_norm_forward(x, gain, bias, eps=eps)[0])


@pytest.mark.parametrize(("x", "gain", "bias", "message"), [
    ((2, 3), (4,), (4,), r"^layer_norm: gain \[4\] does not fit x \[2, 3\], expected \[D\] and \[..., D\]"),
    ((2, 3), (1,), (1,), r"^layer_norm: gain \[1\] does not fit x \[2, 3\]"),
    ((), (), (), r"^layer_norm: gain \[\] does not fit x \[\]"),
    ((2, 3), (3,), (2,), r"^layer_norm: bias \[2\], expected \[3\], the shape of gain"),
])
def test_shapes_that_do_not_fit_raise(x, gain, bias, message):
    with pytest.raises(ValueError, match=message):
        layer_norm_forward(np.zeros(x), np.zeros(gain), np.zeros(bias))
