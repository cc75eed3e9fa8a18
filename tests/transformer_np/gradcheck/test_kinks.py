"""Where there is no derivative, backward may give any slope between the two sides, and no other."""

import numpy as np
import pytest

from transformer_np.gradcheck import check_vjp
from transformer_np.gradcheck.measuring import methods

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
    assert "6 of 6 elements are at a kink" in failed.says and "more than 75%: move the inputs" in failed.says
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
    assert not failed.ok and "kink" not in failed.says


def test_kinks_along_random_directions(monkeypatch):
    monkeypatch.setitem(methods.MAX_ELEMENTS, methods.complex_step, 10)
    report = check_vjp(relu, relu_vjp(1), [AT_ZERO])
    assert report.ok, str(report)
    assert "2 numbers at kinks are held still in these, and 2 of them measured one by one" in report.check("gradient of x").says
    assert not check_vjp(relu, lambda d_y, x: 1.1 * relu_vjp(1)(d_y, x), [AT_ZERO]).check("gradient of x").ok


# ---------------------------------------------------------------------------------------------------- equal numbers, jointly

def test_a_method_that_moves_one_number_at_a_time_does_not_hide_that_all_largest_take_the_gradient():
    """The complex step finds 1 for each of them, so that each by itself looks right."""
    failed = check_vjp(lambda x: x.max(-1), EACH, [TIES])
    assert failed.check("gradient of x").ok
    assert not failed.check("equal numbers move together").ok
    assert failed.check("equal numbers move together").diagnosis.kind == "ties"
    for right in (FIRST, LAST, EQUAL):
        assert check_vjp(lambda x: x.max(-1), right, [TIES]).ok


A, B = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 1.0])


@pytest.mark.parametrize("share, right", [((1, 0), True), ((0.5, 0.5), True), ((0, 1), True), ((1, 1), False), ((0, 0), False)])
@pytest.mark.parametrize("method", ["auto", "differences"])
def test_a_tie_between_two_arguments_gives_away_the_gradient_once(share, right, method):
    def vjp(d, a, b):
        tie = (a == b).astype(a.dtype)
        return d * ((a > b) + share[0] * tie), d * ((b > a) + share[1] * tie)

    assert check_vjp(np.maximum, vjp, [A, B], method=method).ok == right


def test_a_forward_that_drops_the_imaginary_part_does_not_hide_a_tie():
    """The complex step gives 0 for it, which must not be taken for the rounding of what differences give."""
    def maximum(a, b):
        return np.maximum(a.real, b.real) + 0 * (a + b)

    assert not check_vjp(maximum, lambda d, a, b: (d * (a >= b), d * (b >= a)), [A, B]).check("equal numbers move together").ok
    assert check_vjp(maximum, lambda d, a, b: (d * (a >= b), d * (b > a)), [A, B]).ok


def test_a_hinge_at_a_tie_may_not_move_one_side_only():
    """max(a - b, 0) stays 0 when both move, so that 1 for a and 0 for b is no slope of it."""
    assert not check_vjp(lambda a, b: np.maximum(a - b, 0), lambda d, a, b: (d * (a >= b), -d * (a > b)), [A, B]).ok
    assert check_vjp(lambda a, b: np.maximum(a - b, 0), lambda d, a, b: (d * (a >= b), -d * (a >= b)), [A, B]).ok


LARGE = np.where(np.random.default_rng(0).random((30, 20)) < 0.1, 0, np.random.default_rng(1).standard_normal((30, 20)))
WRONG = {
    "a factor": lambda g: 1.01 * g, "zeros": lambda g: 0 * g, "sign": lambda g: -g, "shifted": lambda g: np.roll(g, 1, 0),
    "the last row": lambda g: np.where(np.arange(30)[:, None] == 29, 0, g),
    "the sign of a row": lambda g: np.where(np.arange(30)[:, None] == 3, -g, g),
}


@pytest.mark.parametrize("x", [LARGE, np.maximum(LARGE, 0)], ids=["a tenth zeros", "more than half zeros"])
def test_kinks_in_a_large_array_excuse_no_other_element(monkeypatch, x):
    """Along a direction in which everything moves, a tenth of zeros leaves so wide a range of slopes that anything fits."""
    monkeypatch.setitem(methods.MAX_ELEMENTS, methods.complex_step, 10)
    for at_zero in (0, 1):
        right = check_vjp(relu, relu_vjp(at_zero), [x])
        assert right.ok, str(right)
    for name, change in WRONG.items():
        assert not check_vjp(relu, lambda d_y, x, change=change: change(relu_vjp(0)(d_y, x)), [x]).ok, name


@pytest.mark.parametrize("profile", ["float32", "float16"])
def test_kinks_are_no_factor_that_all_elements_have_in_common(profile):
    """A relu that is measured as 1 at 0 and takes 0 there."""
    x = np.maximum(np.random.default_rng(0).standard_normal((20, 10)), 0)
    report = check_vjp(lambda x: np.maximum(x, 0), relu_vjp(0), [x], profile=profile)
    assert report.check("gradient of x").ok, str(report)


@pytest.mark.parametrize("method", ["adjoint", "taylor"])
def test_methods_that_move_everything_at_once_hold_still_what_is_at_a_kink(method):
    for share in (FIRST, LAST, EQUAL):
        assert check_vjp(lambda x: x.max(-1), share, [TIES], method=method).ok
    assert not check_vjp(lambda x: x.max(-1), lambda d_y, x: 1.1 * FIRST(d_y, x), [TIES], method=method).ok


@pytest.mark.parametrize("distance", [1e-3, 1e-4, 3e-5, 1e-5, 1e-6])
def test_differences_that_cross_a_kink_do_not_make_the_complex_step_doubted(distance):
    """Steps longer than the distance see a slope between the two sides, and may settle on it."""
    def function(x):
        return np.where(x.real > 1, x - 1, 0) * np.sin(x)

    def vjp(d, x):
        return d * np.where(x > 1, np.sin(x) + (x - 1) * np.cos(x), 0)

    report = check_vjp(function, vjp, [np.array([1 + distance, 0.4, 2.0, 1.7])])
    assert report.ok, str(report)
    assert report.check("gradient of x").method.startswith("complex step")
