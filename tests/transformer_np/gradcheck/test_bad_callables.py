"""However bad a callable is, the verdict names the fault, and no traceback comes from inside the checker."""

import json

import numpy as np
import pytest

from transformer_np.gradcheck import check_gradients, check_vjp

X = np.random.default_rng(5).standard_normal((2, 3, 5))


def square(x):
    return x * x


def square_vjp(d_y, x):
    return 2 * d_y * x


def fails(message="no such kernel"):
    def raising(*arguments):
        raise RuntimeError(message)
    return raising


def after(count, then, first):
    """A function that is right for so many calls."""
    calls = iter(range(10 ** 9))
    return lambda *arguments: first(*arguments) if next(calls) < count else then(*arguments)


def with_nan(array):
    array = np.array(array)
    array.flat[0] = np.nan
    return array


FUNCTIONS = {
    "raises": (fails(), "function raised RuntimeError for float64 inputs: no such kernel"),
    "nothing": (lambda x: None, "output is None, expected an array or a number"),
    "integers": (lambda x: np.arange(4), "the output is int64[4] without a floating member: there is nothing to differentiate"),
    "nan": (lambda x: with_nan(x), "output is NaN at [0, 0, 0] for float64 inputs"),
    "text": (lambda x: {"y": "y"}, "output['y'] is a str, expected an array or a number"),
    "an empty tuple": (lambda x: (), "the output is a tuple of 0 without a floating member"),
    "complex": (lambda x: x * 1j, "output is complex128[2, 3, 5] for float64 inputs, expected real numbers"),
    "objects": (lambda x: np.array([object()]), "without a floating member"),
    "another number of inputs": (lambda x, y: x, "function raised TypeError for float64 inputs"),
    "recursion": (lambda x: FUNCTIONS["recursion"][0](x), "function raised RecursionError for float64 inputs"),
}


@pytest.mark.parametrize("function, message", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_bad_function_is_named(function, message):
    report = check_vjp(function, square_vjp, [X])
    assert not report.ok
    check = report.check("function and vjp run")
    assert message in check.says
    assert check.diagnosis.kind == ("not finite" if "NaN" in message else "does not run")
    json.loads(report.to_json())


VJPS = {
    "raises": (fails(), "vjp raised RuntimeError for float64 inputs: no such kernel"),
    "too few": (lambda d_y, x: (), "vjp returned 0 gradients of inputs, expected 1, one for each floating input: x"),
    "too many": (lambda d_y, x: (d_y, d_y), "vjp returned 2 gradients of inputs, expected 1"),
    "another shape": (lambda d_y, x: d_y.sum(), "the gradient of x has shape [], expected [2, 3, 5]"),
    "a dict": (lambda d_y, x: {"x": d_y}, "the gradient of x is a dict, expected an array of numbers"),
    "objects": (lambda d_y, x: np.full(x.shape, None), "the gradient of x is object[2, 3, 5], expected an array of numbers"),
}


@pytest.mark.parametrize("vjp, message", VJPS.values(), ids=VJPS)
def test_a_bad_vjp_is_named(vjp, message):
    report = check_vjp(square, vjp, [X])
    assert message in report.check("function and vjp run").says


@pytest.mark.parametrize("vjp, words", [
    (lambda d_y, x: with_nan(2 * d_y * x), "NaN at 1 of 30 elements, the first at [0, 0, 0]"),
    (lambda d_y, x: 2 * d_y * x / 0.0, "infinity at 30 of 30"),
    (lambda d_y, x: np.round(2 * d_y * x).astype(int), "all its numbers are whole: an array of integers"),
], ids=["nan", "infinity", "integers"])
def test_a_gradient_of_bad_numbers_is_wrong(vjp, words):
    report = check_vjp(square, vjp, [X])
    failed = report.check("gradient of x")
    assert not failed.ok
    assert words in failed.diagnosis.says
    assert "NaN" not in report.to_json().replace('"says": "NaN', "")


def test_a_gradient_of_integers_is_of_the_wrong_dtype():
    report = check_vjp(square, lambda d_y, x: np.round(2 * d_y * x).astype(int), [X])
    assert report.check("float64 stays float64").diagnosis.kind == "wrong dtype"


@pytest.mark.parametrize("then", [fails(), with_nan, lambda x: x[:1], lambda x: (x, x), lambda x: None, lambda x: "y"],
                         ids=["raises", "nan", "shape", "members", "none", "text"])
@pytest.mark.parametrize("count", [1, 3, 8, 40])
def test_a_function_that_goes_bad_later_is_never_a_traceback(then, count):
    report = check_vjp(after(count, then, square), square_vjp, [X])
    assert not report.ok
    str(report), json.loads(report.to_json())


@pytest.mark.parametrize("then", [fails(), lambda d_y, x: with_nan(d_y), lambda d_y, x: d_y[:1], lambda d_y, x: (),
                                  lambda d_y, x: "g"], ids=["raises", "nan", "shape", "too few", "text"])
@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("method", ["auto", "adjoint"])
def test_a_vjp_that_goes_bad_later_is_never_a_traceback(then, count, method):
    report = check_vjp(square, after(count, then, square_vjp), [X], method=method)
    assert not report.ok
    str(report), json.loads(report.to_json())


@pytest.mark.parametrize("profile", ["float64", "float32", "float16"])
@pytest.mark.parametrize("function", [fails(), lambda x: None, lambda x: x.astype(np.float64), lambda x: x > 0],
                         ids=["raises", "gives None", "gives float64", "gives booleans"])
def test_bad_functions_in_every_profile(profile, function):
    str(check_vjp(function, square_vjp, [X], profile=profile))


def test_a_function_that_takes_float64_only_refuses_float32():
    """It says so, and that is no fault of its gradient."""
    def careful(x):
        if x.dtype == np.float32:
            raise TypeError("expected float64, got float32")
        return x * x

    report = check_vjp(careful, square_vjp, [X])
    assert report.ok, str(report)
    assert report.check("float32 stays float32").says == (
        "not asked: function raised TypeError for float32 inputs: expected float64, got float32")


def test_a_cache_that_cannot_be_copied_or_read():
    class Odd:
        @property
        def __dict__(self):
            raise RuntimeError("hands off")

    report = check_gradients(lambda x: (x * x, (x, Odd())), lambda d_y, cache: 2 * d_y * cache[0], [X])
    assert report.check("gradient of x").ok
    str(report)


def test_what_stops_the_program_is_not_caught():
    def interrupt(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_vjp(interrupt, square_vjp, [X])
