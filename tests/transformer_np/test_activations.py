"""Activations: second opinions, theorems, traps."""

import math

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from transformer_np import activations
from transformer_np.gradcheck import check_gradients

NAMES = ["relu", "gelu", "gelu_tanh", "sigmoid", "tanh"]
every = pytest.mark.parametrize("name", NAMES)
BY_SCIPY = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
}
seeds = st.integers(0, 2**32 - 1)


def pair(name):
    return getattr(activations, f"{name}_forward"), getattr(activations, f"{name}_backward")


def evaluate(name, x, d_y=1.0):
    """y and d_x."""
    forward, backward = pair(name)
    x = np.asarray(x)
    y, cache = forward(x)
    return y, backward(np.full_like(x, d_y), cache)


def draw(seed):
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((3, 4)), rng.standard_normal((3, 4))


# ---------------------------------------------------------------------------------------------------- second opinions

@every
@given(seeds)
def test_the_activation_agrees_with_scipy(name, seed):
    x, _ = draw(seed)
    np.testing.assert_allclose(pair(name)[0](x)[0], BY_SCIPY[name](x), rtol=1e-12, atol=1e-15)


@every
def test_the_activation_and_its_gradient_agree_with_pytorch(torch, torch_vjp, assert_close, name):
    functional = torch.nn.functional
    theirs = {"relu": torch.relu, "gelu": functional.gelu, "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
              "sigmoid": torch.sigmoid, "tanh": torch.tanh}[name]
    x, d_y = draw(5)
    forward, backward = pair(name)
    y, cache = forward(x)
    assert_close((y, (backward(d_y, cache),)), torch_vjp(theirs, d_y, x))


@every
@given(seeds)
def test_backward_agrees_with_the_complex_step(name, seed):
    check_gradients(*pair(name), [draw(seed)[0]], seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@given(st.floats(-300, 300))
def test_sigmoid_is_half_a_tanh_and_mirrors(x):
    (y, d_x), (mirrored, d_mirrored) = evaluate("sigmoid", x), evaluate("sigmoid", -x)
    assert y == pytest.approx((1 + math.tanh(x / 2)) / 2, abs=1e-15)
    assert y + mirrored == pytest.approx(1, abs=1e-15)
    # 1 - y loses the digits that y has where x is large, so the two agree absolutely
    assert d_x == pytest.approx(d_mirrored, abs=1e-15)


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh"])
@given(st.floats(-300, 300))
def test_what_the_two_sides_let_through_adds_up_to_x(name, x):
    # f(x) = x p(x) with p(x) + p(-x) = 1
    assert evaluate(name, x)[0] - evaluate(name, -x)[0] == pytest.approx(x, rel=1e-14, abs=1e-15)


def test_the_two_forms_of_gelu_differ_by_less_than_5e_4_and_more_than_4e_4():
    x = np.linspace(-5, 5, 10001)
    (exact, d_exact), (approximate, d_approximate) = evaluate("gelu", x), evaluate("gelu_tanh", x)
    assert 4e-4 < np.abs(exact - approximate).max() < 5e-4
    assert 8e-4 < np.abs(d_exact - d_approximate).max() < 9e-4  # a derivative of the wrong form is far off every bound here


# ---------------------------------------------------------------------------------------------------- traps

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "low", "high"), [
    ("relu", 0, math.inf), ("gelu", 0, math.inf), ("gelu_tanh", 0, math.inf), ("sigmoid", 0, 1), ("tanh", -1, 1),
])
def test_infinity_and_the_largest_numbers_reach_the_limits(dtype, name, low, high):
    largest = np.finfo(dtype).max
    y, d_x = evaluate(name, np.array([-np.inf, -largest, largest, np.inf], dtype))
    np.testing.assert_array_equal(y, [low, low, min(high, largest), high])
    slope = 1 if high == math.inf else 0
    np.testing.assert_array_equal(d_x, [0, 0, slope, slope])


@every
def test_nan_stays_nan(name):
    assert np.isnan(evaluate(name, [np.nan])[0]).all()


def test_sigmoid_at_minus_800_has_gradient_zero_and_not_nan():
    y, d_x = evaluate("sigmoid", [-800.0, 800.0])
    np.testing.assert_array_equal(y, [0, 1])
    np.testing.assert_array_equal(d_x, [0, 0])


def test_sigmoid_keeps_its_digits_far_to_the_left():
    y, d_x = evaluate("sigmoid", -700.0)
    assert y == pytest.approx(math.exp(-700), rel=1e-14)
    assert d_x == pytest.approx(math.exp(-700), rel=1e-14)


def test_gelu_keeps_its_digits_far_to_the_left():
    x = np.array([-5.0, -10.0, -30.0])
    np.testing.assert_allclose(evaluate("gelu", x)[0], x * scipy.special.ndtr(x), rtol=1e-13)


def test_the_kink_of_relu_has_gradient_zero_from_both_zeros():
    y, d_x = evaluate("relu", [0.0, -0.0, 5e-324, -5e-324, np.nan])
    np.testing.assert_array_equal(y, [0, 0, 5e-324, 0, np.nan])
    np.testing.assert_array_equal(d_x, [0, 0, 1, 0, 0])
    assert not np.signbit(y[:2]).any()


def test_relu_branches_on_the_real_part():
    # NumPy orders complex numbers by their imaginary parts where the real parts are equal; at the kink that would let the complex
    # step through
    y, cache = activations.relu_forward(np.array([1e-20j, -1e-20j, 1 - 1e-20j]))
    np.testing.assert_array_equal(y, [0, 0, 1 - 1e-20j])
    np.testing.assert_array_equal(cache.positive, [False, False, True])


@every
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_dtype_that_goes_in_comes_out(name, dtype):
    x, eps = np.array([-2, -0.5, 0, 1, 3]), np.finfo(dtype).eps
    y, d_x = evaluate(name, x.astype(dtype))
    assert y.dtype == d_x.dtype == dtype
    np.testing.assert_allclose(y, evaluate(name, x)[0], rtol=4 * eps, atol=eps)


@every
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_every_shape_keeps_its_shape(name, shape):
    y, d_x = evaluate(name, np.zeros(shape))
    assert np.shape(y) == np.shape(d_x) == shape
