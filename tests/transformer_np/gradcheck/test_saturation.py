"""Where a function is saturated, 1 - y is what rounding left of 1: no fault of a right formula. A wrong one is still wrong."""

import numpy as np
import pytest

from transformer_np.gradcheck import check_vjp


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(d, x):
    y = softmax(x)
    return y * (d - (d * y).sum(-1, keepdims=True))


def tanh_vjp(d, x):
    return d * (1 - np.tanh(x) ** 2)


def saturated(seed, scale):
    return scale * np.random.default_rng(seed).standard_normal((4, 5))


@pytest.mark.parametrize("scale", [5, 10, 20, 50, 200])
@pytest.mark.parametrize("function, vjp", [(softmax, softmax_vjp), (np.tanh, tanh_vjp)], ids=["softmax", "tanh"])
def test_what_rounding_left_is_no_fault(function, vjp, scale):
    for seed in range(6):
        report = check_vjp(function, vjp, [saturated(seed, scale)], seed=seed)
        assert report.ok, str(report)


@pytest.mark.parametrize("scale", [5, 10, 20])
def test_a_wrong_formula_is_still_wrong_there(scale):
    for seed in range(6):
        x = saturated(seed, scale)
        assert not check_vjp(softmax, lambda d, x: softmax(x) * d, [x], seed=seed).ok
        assert not check_vjp(np.tanh, lambda d, x: tanh_vjp(d, x) * (1 + 1e-8), [x], seed=seed).ok


def test_a_backward_that_loses_the_digits_of_a_gradient_that_matters_is_not_excused():
    """x - (x - 1e8 + 1e8) of rounding beside a gradient of 1: the same formula in longdouble is better, and that is no excuse."""
    def lossy(d, x):
        return d * np.cos(x) * ((x + 1e8) - 1e8) / x

    assert not check_vjp(np.sin, lossy, [1 + saturated(0, 0.1)]).ok


def test_differences_do_not_call_wrong_what_they_cannot_see():
    """One element of thirty is below the rounding of the outputs. It is counted, and not judged."""
    x = np.random.default_rng(0).standard_normal((5, 6))
    x[0] = [40, 1, 0, -1, 0.5, 2]
    report = check_vjp(softmax, softmax_vjp, [x], method="differences")
    assert report.ok, str(report)
    assert not check_vjp(softmax, lambda d, x: softmax(x) * d, [x], method="differences").ok
