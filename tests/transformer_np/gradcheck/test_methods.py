"""Each way of measuring a gradient passes right code, rejects wrong code, and says what it did and why."""

import numpy as np
import pytest

from transformer_np.attention import attention_backward, attention_forward
from transformer_np.gradcheck import check_gradients, check_vjp
from transformer_np.gradcheck.calling.pair import pair_of_vjp
from transformer_np.gradcheck.measuring import methods
from transformer_np.gradcheck.measuring.differences import differences
from transformer_np.gradcheck.measuring.loss import Loss
from transformer_np.normalization import layer_norm_backward, layer_norm_forward
from transformer_np.softmax import softmax_backward, softmax_forward

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3, 5))
GAIN, BIAS = RNG.standard_normal(5), RNG.standard_normal(5)
Q, K, V = RNG.standard_normal((2, 4, 5)), RNG.standard_normal((2, 6, 5)), RNG.standard_normal((2, 6, 3))
METHODS = ("complex_step", "differences", "adjoint", "taylor")


def layer_norm_without_eps(d_y, cache):
    """1.7e-5 off."""
    d_x, d_gain, d_bias = layer_norm_backward(d_y, cache)
    return d_x * (1 + 1.7e-5), d_gain, d_bias


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("forward, backward, inputs", [
    (softmax_forward, softmax_backward, [X]),
    (layer_norm_forward, layer_norm_backward, [X, GAIN, BIAS]),
    (attention_forward, attention_backward, [Q, K, V]),
], ids=["softmax", "layer norm", "attention"])
def test_every_method_passes_right_code(method, forward, backward, inputs):
    report = check_gradients(forward, backward, inputs, method=method)
    assert report.ok, str(report)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_rejects_wrong_code(method):
    report = check_gradients(softmax_forward, lambda d_y, cache: d_y * cache.y, [X], method=method)
    assert not report.check("gradient of x").ok
    report = check_gradients(layer_norm_forward, layer_norm_without_eps, [X, GAIN, BIAS], method=method)
    assert not report.check("gradient of x").ok
    assert report.check("gradient of gain").ok


@pytest.mark.parametrize("method, relative", [("complex_step", 1e-10), ("differences", 1e-9), ("adjoint", 1e-10),
                                              ("taylor", 1e-5)])
def test_the_smallest_relative_error_that_a_method_finds(method, relative):
    def backward(d_y, cache):
        return (1 + relative) * softmax_backward(d_y, cache)

    for seed in range(2):
        assert not check_gradients(softmax_forward, backward, [X], method=method, seed=seed).check("gradient of x").ok


def test_the_report_says_what_ran():
    ways = {method: check_gradients(softmax_forward, softmax_backward, [X], method=method).check("gradient of x").method
            for method in METHODS}
    assert ways["complex_step"] == "complex step at each of 30 elements"
    assert ways["differences"].startswith("differences of fourth order at each of 30 elements, good to ")
    assert ways["adjoint"] == "adjoint identity for 4 cotangents and one random direction, by complex step"
    assert ways["taylor"] == "Taylor remainders along 3 random directions"
    assert check_gradients(softmax_forward, softmax_backward, [X]).check("gradient of x").method == ways["complex_step"]


def test_a_taylor_remainder_of_a_right_gradient_falls_with_slope_2():
    report = check_gradients(layer_norm_forward, layer_norm_backward, [X, GAIN, BIAS], method="taylor")
    assert "slope 2.0" in report.check("gradient of x").says or "slope 1.99" in report.check("gradient of x").says
    assert report.check("gradient of bias").says.startswith("no remainder but rounding")
    report = check_gradients(softmax_forward, lambda d_y, cache: 1.01 * softmax_backward(d_y, cache), [X], method="taylor")
    assert "slope 1.0" in report.check("gradient of x").says


# ---------------------------------------------------------------------------------------------------- what auto does

def cast(x):
    y = np.empty(x.shape, x.real.dtype)
    y[...] = x * x
    return y


def refuse(x):
    if np.iscomplexobj(x):
        raise TypeError("float only")
    return x * x




@pytest.mark.parametrize("function, because", [
    (cast, "function casts complex numbers to real ones"),
    (refuse, "function raised TypeError for complex128 inputs: float only"),
    (lambda x: np.real(x) ** 2, "function gives real output for complex input"),
    (lambda x: x * np.abs(x) * np.sign(x.real), "function drops the imaginary part on the way"),
    (lambda x: x * x.real, "function drops the imaginary part on the way"),
    (lambda x: x * np.conj(x), "function drops the imaginary part on the way"),
])
def test_auto_measures_differences_where_complex_numbers_are_refused_or_dropped(function, because):
    report = check_vjp(function, lambda d_y, x: 2 * x * d_y, [X])
    assert report.ok, str(report)
    assert report.check("gradient of x").method.endswith(f"(not the complex step: {because})")
    wrong = check_vjp(function, lambda d_y, x: (2 + 1e-7) * x * d_y, [X])
    assert not wrong.check("gradient of x").ok
    assert not check_vjp(function, lambda d_y, x: x * d_y, [X]).check("gradient of x").ok


def test_only_the_argument_whose_imaginary_part_is_dropped_is_measured_by_differences():
    report = check_vjp(lambda x, gain: x.real * gain, lambda d_y, x, gain: (d_y * gain, (d_y * x).sum((0, 1))), [X, GAIN])
    assert report.ok, str(report)
    assert report.check("gradient of x").method.startswith("differences")
    assert report.check("gradient of gain").method.startswith("complex step")


@pytest.mark.parametrize("relative", [1e-3, 1e-6])
def test_large_arrays_are_measured_along_directions_by_differences_too(monkeypatch, relative):
    monkeypatch.setitem(methods.MAX_ELEMENTS, differences, 10)
    report = check_vjp(cast, lambda d_y, x: 2 * x * d_y, [X])
    assert report.ok, str(report)
    assert "along 8 random directions" in report.check("gradient of x").method
    assert not check_vjp(cast, lambda d_y, x: (2 + relative) * x * d_y, [X]).ok


# ---------------------------------------------------------------------------------------------------- differences

@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("function, derivative", [
    (lambda x, unit: np.sin(x / unit), lambda x, unit: np.cos(x / unit) / unit),
    (lambda x, unit: (x / unit) ** 3, lambda x, unit: 3 * (x / unit) ** 2 / unit),
    (lambda x, unit: np.log(np.abs(x / unit)), lambda x, unit: 1 / x),
    (lambda x, unit: 1 / x, lambda x, unit: -1 / x ** 2),
    (lambda x, unit: np.sqrt(np.abs(x)), lambda x, unit: np.sign(x) / (2 * np.sqrt(np.abs(x)))),
], ids=["sin", "cube", "log", "reciprocal", "root"])
def test_the_error_that_differences_state_is_not_too_small(function, derivative, scale):
    x = scale * RNG.standard_normal((8, 5))
    pair = pair_of_vjp(lambda x: function(x, scale), lambda d_y, x: d_y, [x])
    loss = Loss(pair, [RNG.standard_normal(x.shape)])
    truth = derivative(x, scale) * loss.weights.reshape(x.shape)
    for index in np.ndindex(x.shape):
        direction = np.zeros(x.shape)
        direction[index] = 1
        change, error = differences(loss, {0: direction})
        off = abs(loss.weights @ change - truth[index])
        assert off <= 5 * error + 1e-15 * abs(truth[index])
        assert error <= 1e-8 * abs(truth[index]) + 1e-10 * np.median(abs(truth))


def test_differences_beside_the_end_of_a_domain():
    """Where a large step leaves it, smaller ones are tried."""
    report = check_vjp(np.log, lambda d_y, x: d_y / x, [np.array([1e-3, 1.0])], method="differences")
    assert report.ok, str(report)


@pytest.mark.parametrize("scale", [1e-300, 1e-310, 1e-320])
def test_the_complex_step_beside_the_smallest_numbers_that_there_are(scale):
    x = scale * np.random.default_rng(0).standard_normal((3, 4))
    assert check_vjp(np.tanh, lambda d, x: d * (1 - np.tanh(x) ** 2), [x]).check("gradient of x").ok
    assert not check_vjp(np.tanh, lambda d, x: d * (2 - np.tanh(x) ** 2), [x]).check("gradient of x").ok
