"""Where there is no derivative, backward may give any slope between the two sides, and no other."""

import numpy as np
import pytest

from transformer_np.gradcheck import check_vjp

X = np.random.default_rng(5).standard_normal((4, 6))
AT_ZERO = X.copy()
AT_ZERO[1, 2] = AT_ZERO[3, 0] = 0
TIES = np.array([[1.0, 3.0, 3.0, 2.0], [0.5, 0.5, -1.0, 0.0], [2.0, 1.0, 0.0, -1.0]])


def relu(x):
    return np.where(x.real > 0, x, 0)


def real_relu(x):
    """Refuses complex numbers, so that it is measured by differences."""
    return np.maximum(x, np.float64(0).astype(x.dtype)) if not np.iscomplexobj(x) else float("x")


def relu_vjp(at_zero):
    return lambda d_y, x: d_y * np.where(x > 0, 1, np.where(x == 0, at_zero, 0)).astype(x.dtype)


@pytest.mark.parametrize("function", [relu, real_relu], ids=["complex step", "differences"])
@pytest.mark.parametrize("at_zero", [0, 0.5, 1])
def test_relu_at_exactly_0_may_have_any_slope_from_0_to_1(function, at_zero):
    report = check_vjp(function, relu_vjp(at_zero), [AT_ZERO])
    assert report.ok, str(report)
    told = "2 of 24 elements are at a kink" in report.check("gradient of x").says
    measured_as = 0 if function is relu else 0.5
    assert told == (at_zero != measured_as)
    assert report.check("gradient of x").skipped == (2 if told else 0)


@pytest.mark.parametrize("function", [relu, real_relu], ids=["complex step", "differences"])
@pytest.mark.parametrize("at_zero", [-0.1, 1.1, 2])
def test_relu_at_exactly_0_has_no_slope_beyond_them(function, at_zero):
    failed = check_vjp(function, relu_vjp(at_zero), [AT_ZERO]).check("gradient of x")
    assert not failed.ok
    assert "wrong: 2 of 24" in failed.says


def test_a_kink_does_not_excuse_the_other_elements():
    failed = check_vjp(relu, lambda d_y, x: relu_vjp(1)(d_y, x) * (1 + 1e-8), [AT_ZERO]).check("gradient of x")
    assert not failed.ok
    assert failed.skipped == 2 or "wrong: " in failed.says


def row_max(x):
    return np.take_along_axis(x, x.real.argmax(-1)[:, None], -1)[:, 0]


def row_max_vjp(share):
    def vjp(d_y, x):
        winners = x == x.max(-1, keepdims=True)
        return d_y[:, None] * share(winners).astype(x.dtype)
    return vjp


FIRST = row_max_vjp(lambda winners: winners & (winners.cumsum(-1) == 1))
LAST = row_max_vjp(lambda winners: winners & (winners[:, ::-1].cumsum(-1)[:, ::-1] == 1))
EQUAL = row_max_vjp(lambda winners: winners / winners.sum(-1, keepdims=True))
EACH = row_max_vjp(lambda winners: winners)


@pytest.mark.parametrize("vjp", [FIRST, LAST, EQUAL], ids=["first", "last", "equal shares"])
def test_of_equal_largest_numbers_any_may_take_the_gradient_or_all_a_share(vjp):
    report = check_vjp(row_max, vjp, [TIES])
    assert report.check("gradient of x").ok, str(report)


def test_equal_largest_numbers_may_not_all_take_the_whole_gradient():
    """Each for itself is between 0 and 1, but when they move together the maximum moves once."""
    assert not check_vjp(row_max, EACH, [TIES]).check("gradient of x").ok


def test_too_many_kinks_are_no_check():
    failed = check_vjp(relu, relu_vjp(1), [np.zeros((2, 3))]).check("gradient of x")
    assert not failed.ok
    assert "6 of 6 elements are at a kink" in failed.says and "more than 50%: move the inputs" in failed.says
    assert check_vjp(relu, relu_vjp(0), [np.zeros((2, 3))]).ok


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_steep_bend_is_no_kink(scale):
    """A softplus that is nearly a relu is smooth, and a wrong slope is wrong."""
    def softplus(x):
        z = 50 * x / scale
        return scale * (np.log1p(np.exp(-np.where(z.real < 0, -z, z))) + np.where(z.real > 0, z, 0))

    def vjp(factor):
        return lambda d_y, x: factor * 50 * d_y / (1 + np.exp(-50 * x / scale))

    x = scale * X
    assert check_vjp(softplus, vjp(1.0), [x]).check("gradient of x").ok
    failed = check_vjp(softplus, vjp(0.9), [x]).check("gradient of x")
    assert not failed.ok and failed.skipped == 0


def test_kinks_along_random_directions(monkeypatch):
    from transformer_np.gradcheck.measuring import methods
    monkeypatch.setitem(methods.MAX_ELEMENTS, methods.complex_step, 10)
    report = check_vjp(relu, relu_vjp(1), [AT_ZERO])
    assert report.ok, str(report)
    assert "are at a kink" in report.check("gradient of x").says or report.check("gradient of x").skipped == 0
    assert not check_vjp(relu, lambda d_y, x: 1.1 * relu_vjp(1)(d_y, x), [AT_ZERO]).check("gradient of x").ok
