"""Convolution along one axis: second opinions, theorems, traps."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from hypothesis import assume, given
from hypothesis import strategies as st

from baselines_np import gradcheck_examples
from baselines_np.convolution import (
    Convolution1D,
    convolution_1d_backward,
    convolution_1d_backward_naive,
    convolution_1d_forward,
    convolution_1d_forward_naive,
)
from transformer_np.gradcheck import check_gradients
from transformer_np.linear import linear_backward, linear_forward

seeds = st.integers(0, 2**32 - 1)
EXAMPLES = list(gradcheck_examples.convolution_1d(np.random.default_rng(1)))


@st.composite
def cases(draw):
    """x, weight, bias, and settings that fit them."""
    rng = np.random.default_rng(draw(seeds))
    groups, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    K, T = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    sizes = st.integers(0, 3)
    padding = draw(sizes | st.tuples(sizes, sizes) | st.sampled_from(["same", "causal"]))
    added = dilation * (K - 1) if isinstance(padding, str) else sum(padding) if isinstance(padding, tuple) else 2 * padding
    assume(T + added >= dilation * (K - 1) + 1)
    group_in, group_out = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = rng.standard_normal((draw(st.integers(1, 2)), T, groups * group_in))
    weight = rng.standard_normal((K, group_in, groups * group_out))
    bias = rng.standard_normal(groups * group_out) if draw(st.booleans()) else None
    return x, weight, bias, {"stride": draw(st.integers(1, 4)), "padding": padding, "dilation": dilation, "groups": groups}


# ---------------------------------------------------------------------------------------------------- second opinions

@given(cases())
def test_products_by_tap_equal_the_equation_number_by_number(assert_close, case):
    x, weight, bias, settings = case
    y, cache = convolution_1d_forward(x, weight, bias, **settings)
    y_naive, cache_naive = convolution_1d_forward_naive(x, weight, bias, **settings)
    assert_close(y, y_naive, 1e-13)
    d_y = np.random.default_rng(0).standard_normal(y.shape)
    for ours, theirs in zip(convolution_1d_backward(d_y, cache), convolution_1d_backward_naive(d_y, cache_naive), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, 1e-13)


@given(seeds, st.integers(1, 4), st.integers(4, 9))
def test_one_channel_agrees_with_scipy(assert_close, seed, kernel_size, length):
    rng = np.random.default_rng(seed)
    x, kernel = rng.standard_normal(length), rng.standard_normal(kernel_size)
    for padding, mode in ((0, "valid"), (kernel_size - 1, "full")):
        y, _ = convolution_1d_forward(x[None, :, None], kernel[:, None, None], padding=padding)
        assert_close(y[0, :, 0], scipy.signal.correlate(x, kernel, mode), 1e-12)


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_every_example_agrees_with_the_complex_step(example):
    example.check(1).raise_if_failed()


@given(cases(), seeds)
def test_backward_agrees_with_the_complex_step(case, seed):
    x, weight, bias, settings = case
    check_gradients(lambda *inputs: convolution_1d_forward(*inputs, **settings), convolution_1d_backward, [x, weight, bias],
                    seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@given(seeds, st.integers(1, 4), st.integers(1, 8))
def test_convolution_is_a_toeplitz_product(assert_close, seed, kernel_size, length):
    # the causal convolution of one channel is a product with a matrix of constant diagonals, its gradient one with the transpose
    rng = np.random.default_rng(seed)
    x, kernel, d_y = rng.standard_normal(length), rng.standard_normal(kernel_size), rng.standard_normal(length)
    column = np.pad(kernel[::-1], (0, length))[:length]                         # tap K - 1 meets the newest input
    toeplitz = scipy.linalg.toeplitz(column, np.zeros(length))
    y, cache = convolution_1d_forward(x[None, :, None], kernel[:, None, None], padding="causal")
    d_x, _, _ = convolution_1d_backward(d_y[None, :, None], cache)
    assert_close(y[0, :, 0], toeplitz @ x, 1e-13)
    assert_close(d_x[0, :, 0], toeplitz.T @ d_y, 1e-13)


@given(seeds)
def test_a_kernel_of_one_is_a_linear_layer(assert_close, seed):
    rng = np.random.default_rng(seed)
    x, weight, bias = rng.standard_normal((2, 5, 3)), rng.standard_normal((3, 4)), rng.standard_normal(4)
    d_y = rng.standard_normal((2, 5, 4))
    y, cache = convolution_1d_forward(x, weight[None], bias)
    linear, linear_cache = linear_forward(x, weight, bias)
    assert_close(y, linear, 1e-13)
    d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache)
    assert_close((d_x, d_weight[0], d_bias), linear_backward(d_y, linear_cache), 1e-13)


@given(seeds)
def test_groups_are_convolutions_side_by_side(assert_close, seed):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((2, 6, 4)), rng.standard_normal((3, 2, 6))
    y, _ = convolution_1d_forward(x, weight, groups=2)
    left, _ = convolution_1d_forward(x[..., :2], weight[..., :3])
    right, _ = convolution_1d_forward(x[..., 2:], weight[..., 3:])
    assert_close(y, np.concatenate([left, right], axis=2), 1e-13)


@given(seeds, st.integers(2, 4))
def test_dilation_is_a_kernel_with_zeros_between_its_taps(assert_close, seed, dilation):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((2, 12, 3)), rng.standard_normal((3, 3, 2))
    spread = np.zeros((2 * dilation + 1, 3, 2))
    spread[::dilation] = weight
    for padding in (0, "same", "causal"):
        dilated, _ = convolution_1d_forward(x, weight, dilation=dilation, padding=padding)
        assert_close(dilated, convolution_1d_forward(x, spread, padding=padding)[0], 1e-13)


@given(cases())
def test_a_stride_skips_outputs(assert_close, case):
    x, weight, bias, settings = case
    strided, _ = convolution_1d_forward(x, weight, bias, **settings)
    every, _ = convolution_1d_forward(x, weight, bias, **(settings | {"stride": 1}))
    assert_close(strided, every[:, ::settings["stride"]], 1e-13)


@given(seeds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 8))
def test_causal_gradient_to_the_future_is_zero_and_reaches_no_further_than_the_kernel(seed, kernel_size, dilation, t):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((1, 9, 2)), rng.standard_normal((kernel_size, 2, 3))
    y, cache = convolution_1d_forward(x, weight, padding="causal", dilation=dilation)
    assert y.shape == (1, 9, 3)
    d_y = np.zeros_like(y)
    d_y[:, t] = rng.standard_normal(3)
    d_x, _, _ = convolution_1d_backward(d_y, cache)
    seen = {t - dilation * k for k in range(kernel_size)}
    assert {int(place) for place in np.flatnonzero(d_x[0].any(axis=1))} == {place for place in seen if place >= 0}


@given(seeds, st.integers(1, 5), st.integers(1, 3))
def test_same_keeps_the_length_and_puts_the_odd_zero_on_the_right(assert_close, seed, kernel_size, dilation):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((2, 7, 3)), rng.standard_normal((kernel_size, 3, 2))
    y, _ = convolution_1d_forward(x, weight, padding="same", dilation=dilation)
    assert y.shape == (2, 7, 2)
    reach = dilation * (kernel_size - 1)
    left, right = reach // 2, reach - reach // 2
    assert 0 <= right - left <= 1
    assert_close(y, convolution_1d_forward(x, weight, padding=(left, right), dilation=dilation)[0], 0)


# ---------------------------------------------------------------------------------------------------- traps

def test_a_stride_that_does_not_divide_leaves_zero_gradient_at_the_end():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 10, 3)), rng.standard_normal((3, 3, 2))
    y, cache = convolution_1d_forward(x, weight, stride=4)
    assert y.shape == (2, 2, 2)                                                 # windows 0..2 and 4..6; 7, 8 and 9 are not seen
    d_x, _, _ = convolution_1d_backward(np.ones_like(y), cache)
    assert d_x.shape == x.shape
    assert (d_x[:, [3, 7, 8, 9]] == 0).all()
    assert (d_x[:, [0, 1, 2, 4, 5, 6]] != 0).all()


def test_overlapping_windows_add():
    y, cache = convolution_1d_forward(np.ones((1, 5, 1)), np.ones((3, 1, 1)))
    d_x, _, _ = convolution_1d_backward(np.ones_like(y), cache)
    np.testing.assert_array_equal(d_x[0, :, 0], [1, 2, 3, 2, 1])


def test_a_kernel_as_long_as_the_input_gives_one_output():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 3)), rng.standard_normal((4, 3, 2))
    y, _ = convolution_1d_forward(x, weight)
    np.testing.assert_allclose(y[:, 0], np.einsum("bkc,kco->bo", x, weight), rtol=1e-12)
    assert y.shape == (2, 1, 2)


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (0, 0, 4), (2, 5, 0)])
@pytest.mark.parametrize("padding", [0, 1, "same", "causal"])
def test_empty_input_gives_empty_or_zero_results(shape, padding):
    weight, bias = np.ones((3, shape[2], 6)), np.ones(6)
    y, cache = convolution_1d_forward(np.zeros(shape), weight, bias, padding=padding)
    assert y.shape[0] == shape[0]
    assert y.shape[2] == 6
    assert shape[1] or y.shape[1] == 0
    d_x, d_weight, d_bias = convolution_1d_backward(np.ones_like(y), cache)
    assert d_x.shape == shape
    assert (d_weight == 0).all()
    assert d_bias.shape == (6,)


def test_float32_stays_float32():
    layer = Convolution1D.create(4, 6, 3, rng=np.random.default_rng(0), padding="same", groups=2)
    y, cache = layer.forward(np.ones((2, 5, 4), np.float32))
    d_x, d_layer = layer.backward(np.ones_like(y), cache)
    assert {array.dtype for array in (y, d_x, d_layer.weight, d_layer.bias)} == {np.dtype(np.float32)}


def test_the_textbook_form_keeps_float32_too():
    x, weight, bias = np.ones((2, 5, 4), np.float32), np.ones((3, 4, 6), np.float32), np.ones(6, np.float32)
    y, cache = convolution_1d_forward_naive(x, weight, bias, padding=(2, 1))
    gradients = convolution_1d_backward_naive(y, cache)
    assert {array.dtype for array in (y, cache.padded, *gradients)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("forward", [convolution_1d_forward, convolution_1d_forward_naive])
def test_the_output_has_the_dtype_that_input_and_weight_promote_to(forward):
    x, weight = np.ones((2, 5, 4)), np.ones((3, 4, 6))
    assert forward(x.astype(np.float32), weight)[0].dtype == np.float64
    assert forward(x, weight.astype(np.float32))[0].dtype == np.float64


def test_both_forms_have_the_same_defaults_and_the_layer_passes_its_settings_on():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((2, 9, 4)), rng.standard_normal((3, 2, 6)), rng.standard_normal(6)
    spread = rng.standard_normal((3, 4, 6))
    np.testing.assert_allclose(convolution_1d_forward(x, spread)[0], convolution_1d_forward_naive(x, spread)[0], rtol=1e-12)
    settings = {"stride": 2, "padding": (3, 1), "dilation": 2, "groups": 2}
    expected, _ = convolution_1d_forward(x, weight, bias, **settings)
    np.testing.assert_array_equal(Convolution1D(weight, bias, **settings).forward(x)[0], expected)


def test_layout_and_writability_do_not_matter(assert_close):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 9, 4)), rng.standard_normal((3, 2, 6))
    expected, cache = convolution_1d_forward(x, weight, groups=2, stride=2)
    d_y = rng.standard_normal(expected.shape)
    views = np.asfortranarray(x), weight[::-1].copy()[::-1], np.ascontiguousarray(d_y[:, ::-1])[:, ::-1]
    for view in views:
        view.flags.writeable = False
    y, view_cache = convolution_1d_forward(views[0], views[1], groups=2, stride=2)
    assert_close(y, expected, 1e-14)
    assert_close(convolution_1d_backward(views[2], view_cache)[:2], convolution_1d_backward(d_y, cache)[:2], 1e-14)


def test_create_keeps_the_variance_and_may_leave_the_bias_out():
    rng = np.random.default_rng(0)
    layer = Convolution1D.create(16, 64, 5, rng=rng, groups=2, bias=False, dtype=np.float64)
    assert layer.bias is None
    assert layer.weight.shape == (5, 8, 64)
    y, cache = layer.forward(rng.standard_normal((8, 40, 16)))
    assert y.var() == pytest.approx(1, abs=0.1)                                 # 64 kernels of 40 weights: 2 standard errors
    assert layer.backward(y, cache)[1].bias is None
    assert not Convolution1D.create(4, 4, 3, rng=rng, std=0.0).weight.any()


# ---------------------------------------------------------------------------------------------------- bad input

X, WEIGHT, BIAS = np.zeros((2, 5, 4)), np.zeros((3, 4, 6)), np.zeros(6)


@pytest.mark.parametrize(("x", "weight", "bias", "settings", "message"), [
    (X[0], WEIGHT, BIAS, {}, r"x \[5, 4\], expected \[B, T, C_in\]"),
    (X, WEIGHT[0], BIAS, {}, r"weight \[4, 6\], expected \[K, C_in / groups, C_out\]"),
    (X, WEIGHT[:0], BIAS, {}, r"weight \[0, 4, 6\], expected \[K, C_in / groups, C_out\] with K at least 1"),
    (X, WEIGHT[:, :3], BIAS, {}, r"weight \[3, 3, 6\], expected \[K, 4, C_out\] for x \[2, 5, 4\] in 1 groups"),
    (X, WEIGHT, BIAS, {"groups": 2}, r"weight \[3, 4, 6\], expected \[K, 2, C_out\] for x \[2, 5, 4\] in 2 groups"),
    (X, WEIGHT, BIAS, {"groups": 3}, "groups 3 do not divide the channels, 4 in and 6 out"),
    (X, WEIGHT, BIAS, {"groups": 4}, "groups 4 do not divide the channels, 4 in and 6 out"),
    (X, WEIGHT, BIAS[1:], {}, r"bias \[5\], expected \[6\]"),
    (X, WEIGHT, BIAS, {"stride": 0}, "stride 0, expected at least 1"),
    (X, WEIGHT, BIAS, {"dilation": 0}, "dilation 0, expected at least 1"),
    (X, WEIGHT, BIAS, {"groups": 0}, "groups 0, expected at least 1"),
    (X, WEIGHT, BIAS, {"padding": -1}, r"padding \(-1, -1\), expected at least 0"),
    (X, WEIGHT, BIAS, {"padding": (-1, 3)}, r"padding \(-1, 3\), expected at least 0"),
    (X, WEIGHT, BIAS, {"padding": (3, -1)}, r"padding \(3, -1\), expected at least 0"),
    (X, WEIGHT, BIAS, {"padding": "valid"}, "padding 'valid', expected an integer, .left, right., 'same' or 'causal'"),
    (X, WEIGHT, BIAS, {"dilation": 3}, "the kernel spans 7 places, the padded input has 5"),
    (X[:, :1], WEIGHT, BIAS, {"padding": (1, 0)}, "the kernel spans 3 places, the padded input has 2"),
])
def test_what_does_not_fit_is_named(x, weight, bias, settings, message):
    for forward in (convolution_1d_forward, convolution_1d_forward_naive):
        with pytest.raises(ValueError, match=f"^convolution_1d: {message}"):
            forward(x, weight, bias, **settings)


def test_create_names_what_does_not_fit():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^Convolution1D: groups 3 do not divide the channels, 4 in and 6 out"):
        Convolution1D.create(4, 6, 3, rng=rng, groups=3)
    with pytest.raises(ValueError, match=r"^Convolution1D: kernel_size 0, expected at least 1"):
        Convolution1D.create(4, 6, 0, rng=rng)
