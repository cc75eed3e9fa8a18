"""However bad a callable is, the verdict names the fault, and no traceback comes from inside the checker."""

import json
import re
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from transformer_np.gradcheck import check_gradients, check_layer, check_vjp
from transformer_np.gradcheck.calling.rounding import PROFILES
from transformer_np.gradcheck.measuring.methods import METHODS
from transformer_np.gradcheck.measuring.noise import moved
from transformer_np.linear import Linear

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


def tower(x):
    """Nested deeper than Python's recursion goes."""
    for _ in range(1200):
        x = (x,)
    return x


def top_of(cache):
    while isinstance(cache, tuple):
        cache, *_ = cache
    return cache


def ring(x):
    cache = {"x": x, "list": []}
    cache["itself"] = (cache, cache["list"])
    cache["list"].append(cache["list"])
    return cache


@pytest.mark.parametrize("keep, look", [(tower, top_of), (ring, lambda cache: cache["itself"][0]["itself"][0]["x"])],
                         ids=["deep", "a ring"])
@pytest.mark.parametrize("profile, factor", [("float64", 1), ("float64", 1 + 1e-9), ("float32", 1)])
def test_a_cache_may_be_nested_deep_or_hold_itself(keep, look, profile, factor):
    report = check_gradients(lambda x: (x * x, keep(x)), lambda d_y, cache: factor * 2 * d_y * look(cache), [X], profile=profile)
    assert [check.name for check in report.checks if not check.ok] == ([] if factor == 1 else ["gradient of x"]), str(report)


@pytest.mark.parametrize("keep", [tower, ring])
def test_outputs_and_gradients_that_are_nested_deep_or_hold_themselves_are_named(keep):
    says = check_vjp(lambda x: keep(x), square_vjp, [X]).check("function and vjp run").says
    assert says.startswith("output[") and says.endswith("expected an array or a number")
    report = check_vjp(square, lambda d_y, x: (keep(X),), [X])
    assert report.check("function and vjp run").says.startswith("the gradient of x is a ")
    report = check_vjp(lambda x, none: x * x, lambda d_y, x, none: (2 * d_y * x, keep(X)), [X, None])
    assert report.check("function and vjp run").says.endswith(" for an input that was None, expected None")
    with pytest.raises(ValueError, match=r"^input x.* is a .*, expected an array"):
        check_vjp(square, square_vjp, [keep(X)])


def test_rounding_moves_an_array_in_every_place_and_leaves_the_rest():
    array = X.astype(np.float32)
    cache = {"twice": [array, (array, 3, "text")], "layer": SimpleNamespace(ids=np.arange(3), tower=tower(array))}
    cache["itself"] = cache
    again = moved(cache, 1e-3, np.random.default_rng(0))
    (first, (second, *rest)), layer = again["twice"], again["layer"]
    np.testing.assert_allclose(np.abs(first / array - 1), 1e-3, rtol=1e-3)
    assert first.dtype == np.float32 and second is first and top_of(layer.tower) is first
    assert rest == [3, "text"] and layer.ids is cache["layer"].ids and again["itself"] is cache


@pytest.mark.parametrize("settings", [{"method": method} for method in METHODS] + [{"profile": profile} for profile in PROFILES])
def test_inputs_without_an_element_have_nothing_wrong(settings):
    if settings.get("profile") == "bfloat16":
        pytest.importorskip("ml_dtypes")
    report = check_vjp(square, square_vjp, [np.zeros((0, 4))], **settings)
    assert report.ok, str(report)
    assert report.check("gradient of x").says == "it has no elements"


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_an_output_that_is_infinite_everywhere_is_named(infinite):
    check = check_vjp(lambda x: x + infinite, lambda d_y, x: d_y, [X]).check("function and vjp run")
    assert check.says == "the output is infinite everywhere for float64 inputs: it has no derivative"
    assert check.diagnosis.kind == "not finite"
    masked = np.arange(5) > 0
    assert check_vjp(lambda x: np.where(masked, -np.inf, x), lambda d_y, x: np.where(masked, 0, d_y), [X]).ok


def test_at_other_inputs_an_output_may_be_infinite():
    """They are some 10 % larger, and there float16 has no room for them."""
    report = check_vjp(lambda x: x, lambda d_y, x: d_y, [np.full(40, 65e3)], profile="float16")
    assert report.check("gradients follow the inputs").ok, str(report)


@pytest.mark.parametrize("profile, number, largest", [("float16", 1.5e6, 65504), ("float32", 1e300, 3.40282e+38)])
def test_an_input_that_the_profile_has_no_room_for_raises(profile, number, largest):
    message = f"input x has a number of size {number:.6g}, and the largest of {profile} is {largest}: it would become infinite"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_vjp(square, square_vjp, [np.array([1.0, np.inf, -number])], profile=profile)
    assert check_vjp(np.tanh, lambda d_y, x: d_y * (1 - np.tanh(x) ** 2), [np.array([1.0, np.inf])], profile=profile).ok


def test_a_weight_that_the_profile_has_no_room_for_raises():
    layer = Linear(np.full((3, 2), 1e6), np.zeros(2))
    with pytest.raises(ValueError, match=r"^weight weight has a number of size 1e\+06, and the largest of float16 is 65504"):
        check_layer(layer, [np.ones((4, 3))], profile="float16")


@pytest.mark.parametrize("shape", [(1,) * 32, (2,) * 10 + (1,) * 22, (2,) * 12], ids=["32 of one", "32", "12"])
def test_many_axes_need_little_memory(shape):
    tracemalloc.start()
    try:
        report = check_vjp(square, square_vjp, [np.random.default_rng(0).standard_normal(shape)])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.ok, str(report)
    assert most < 20e6


@pytest.mark.parametrize("vjp", [square_vjp, lambda d_y, x: np.zeros(x.shape)], ids=["raises", "does not raise"])
@pytest.mark.parametrize("period", [2, 3])
def test_an_output_whose_shape_varies_is_named(vjp, period):
    calls = iter(range(10 ** 9))
    report = check_vjp(lambda x: (x * x)[:, :1 + (1 + next(calls)) % period], vjp, [X])
    check = report.check("function and vjp run")
    assert check.says == "function gives outputs of another shape when it is called again"
    assert check.diagnosis.kind == "wrong shape"


def test_a_backward_that_raises_is_named_where_the_shape_does_not_vary():
    says = check_vjp(lambda x: x[:, :2], square_vjp, [X]).check("function and vjp run").says
    assert says.startswith("vjp raised ValueError for float64 inputs: operands could not be broadcast")


def test_what_stops_the_program_is_not_caught():
    def interrupt(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_vjp(interrupt, square_vjp, [X])
