"""Right code passes, wrong code is named, and no callable, however bad, gives a traceback from inside the checker."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from transformer_np.attention import MultiHeadAttention
from transformer_np.gradcheck import check_gradients, check_layer, random_mask, with_random_weights
from transformer_np.gradcheck.measuring import methods
from transformer_np.layer import Layer
from transformer_np.linear import Linear, linear_backward, linear_forward
from transformer_np.normalization import layer_norm_backward, layer_norm_forward
from transformer_np.softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward

X = np.random.default_rng(5).standard_normal((2, 3, 5))


def square_forward(x):
    return x * x, x


def square_backward(d_y, x):
    return 2 * x * d_y


# ---------------------------------------------------------------------------------------------------- right code

def test_a_right_pair_passes_every_check():
    report = check_gradients(square_forward, square_backward, [X])
    assert report.ok, str(report)
    assert report.name == "square_forward"
    assert report.worst < 1e-15
    assert [check.name for check in report.checks] == [
        "gradient of x", "float64 stays float64", "float32 stays float32", "no warning", "nothing is written to",
        "two calls agree", "zero cotangent gives zero", "linear in the cotangent", "memory layouts agree", "caches stand alone",
        "gradients follow the inputs"]


def test_a_right_layer_passes_with_every_weight_by_its_dotted_name():
    rng = np.random.default_rng(0)
    layer = with_random_weights(MultiHeadAttention.create(6, 2, rng=rng, dropout=0.3), rng)
    x, memory = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6))
    report = check_layer(layer, [x, memory, random_mask(rng, (2, 2, 3, 5))], rng_seed=1)
    assert report.ok, str(report)
    assert {check.argument for check in report.checks if check.argument} == {
        "x", "memory", "query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias", "output.weight",
        "output.bias"}


@pytest.mark.parametrize("seed", range(20))
def test_a_true_zero_is_no_false_alarm(seed):
    """The key bias shifts all scores of a query alike, so its gradient is 0; what comes out is rounding."""
    rng = np.random.default_rng(seed)
    layer = with_random_weights(MultiHeadAttention.create(4, 2, rng=rng), rng, std=2)
    report = check_layer(layer, [rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))], seed=seed)
    assert report.check("gradient of key.bias").ok, str(report)


@pytest.mark.parametrize("seed", range(20))
def test_a_loss_with_no_gradient_at_all_is_no_false_alarm(seed):
    def forward(x):
        y, cache = softmax_forward(x)
        return y.sum(), cache

    def backward(d_loss, cache):
        return softmax_backward(np.full(cache.y.shape, d_loss), cache)

    report = check_gradients(forward, backward, [np.random.default_rng(seed).standard_normal((3, 7))], seed=seed)
    assert report.ok, str(report)


def test_a_true_zero_is_no_excuse():
    """Beside a key bias whose gradient is 0, a gradient of 1e-8 is wrong."""
    rng = np.random.default_rng(0)
    right = with_random_weights(MultiHeadAttention.create(4, 2, rng=rng), rng)

    @dataclass(repr=False, eq=False)
    class Leaking(MultiHeadAttention):
        def backward(self, d_y, cache):
            d_x, d_memory, d = super().backward(d_y, cache)
            return d_x, d_memory, replace(d, key=replace(d.key, bias=d.key.bias + 1e-8 * d_y[0, 0]))

    wrong = Leaking(right.query, right.key, right.value, right.output, 2)
    report = check_layer(wrong, [rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4))])
    assert not report.check("gradient of key.bias").ok


def test_a_kink_away_from_the_data_is_no_false_alarm():
    def forward(x):
        return np.where(x.real > 0, x, 0), x > 0

    def backward(d_y, positive):
        return d_y * positive

    assert check_gradients(forward, backward, [X]).ok


def test_outputs_that_are_infinite_do_not_move():
    """log_softmax is -inf where masked; a random cotangent there must be ignored."""
    report = check_gradients(log_softmax_forward, log_softmax_backward, [X, random_mask(np.random.default_rng(0), X.shape)])
    assert report.ok, str(report)


def test_inputs_in_float32_are_checked_in_float64():
    assert check_gradients(square_forward, square_backward, [X.astype(np.float32)]).ok


def test_a_number_is_an_input_and_an_output():
    assert check_gradients(square_forward, square_backward, [1.5]).ok


def test_tuples_of_inputs_and_outputs_have_tuples_of_gradients():
    def step_forward(x, state, count):
        h, c = state
        return (x * h, (h + c * x, count + 1)), (x, h, c)

    def step_backward(d_output, cache):
        d_y, (d_next,) = d_output
        x, h, c = cache
        return d_y * h + d_next * c, (d_y * x + d_next, d_next * x)

    report = check_gradients(step_forward, step_backward, [X, (X + 1, X - 2), np.arange(3)])
    assert report.ok, str(report)
    assert [check.argument for check in report.checks if check.argument] == ["x", "state[0]", "state[1]"]


@pytest.mark.parametrize("inputs", [[X, X[0, :2].T], [X, X[0, :2].T, None]])
def test_an_absent_bias_may_have_none_in_its_place(inputs):
    assert check_gradients(linear_forward, linear_backward, inputs).ok


def test_none_stands_for_a_gradient_that_is_zero():
    def forward(x, unused):
        return 3 * x + 0 * unused, None

    report = check_gradients(forward, lambda d_y, cache: (3 * d_y, None), [X, X])
    assert report.ok, str(report)


def test_none_does_not_excuse_a_gradient_that_is_not_zero():
    report = check_gradients(lambda x, scale: (x * scale, (x, scale)), lambda d_y, cache: (d_y * cache[1], None), [X, X + 1])
    assert "backward gives None" in report.check("gradient of scale").says
    assert report.check("gradient of x").ok


def test_empty_arrays_are_checked_without_warnings():
    assert check_gradients(layer_norm_forward, layer_norm_backward, [X[:0], X[0, 0], X[0, 1]]).ok


# ---------------------------------------------------------------------------------------------------- wrong numbers

def test_the_worst_element_is_named_with_both_numbers():
    def wrong_backward(d_y, x):
        d_x = 2 * x * d_y
        d_x[1, 2, 3] *= 1 + 1e-6
        return d_x

    failed = check_gradients(square_forward, wrong_backward, [X]).check("gradient of x")
    assert not failed.ok
    assert failed.figure == pytest.approx(1e-6, rel=0.01)
    assert "element [1, 2, 3]: analytic " in failed.says
    assert ", numeric " in failed.says
    assert failed.says.endswith("; wrong: 1 of 30")


@pytest.mark.parametrize("relative", [1e-3, 1e-6, 1e-9])
def test_a_small_relative_error_is_found_in_large_arrays_too(monkeypatch, relative):
    """Above a size each argument is measured along random directions, and the report says so."""
    monkeypatch.setitem(methods.MAX_ELEMENTS, methods.complex_step, 10)
    right = check_gradients(square_forward, square_backward, [X]).check("gradient of x")
    assert right.ok and "8 random directions" in right.says

    failed = check_gradients(square_forward, lambda d_y, x: (2 + relative) * x * d_y, [X]).check("gradient of x")
    assert not failed.ok
    assert "worst at direction" in failed.says


def test_a_gradient_that_is_nan_is_wrong():
    failed = check_gradients(square_forward, lambda d_y, x: np.where(x > 1, np.nan, 2 * x * d_y), [X]).check("gradient of x")
    assert not failed.ok
    assert "analytic nan" in failed.says


def test_seeds_repeat():
    first = check_gradients(softmax_forward, softmax_backward, [X], seed=3)
    assert first == check_gradients(softmax_forward, softmax_backward, [X], seed=3)


# ---------------------------------------------------------------------------------------------------- bad callables

def raises(*arguments):
    raise IndexError("list index out of range")


BAD_FORWARDS = {
    "raises": (raises, "forward raised IndexError for float64 inputs: list index out of range"),
    "one result": (lambda x: x * x, "forward returned float64[2, 3, 5], expected a tuple of two: (output, cache)"),
    "three results": (lambda x: (x, x, x), "forward returned a tuple of 3, expected a tuple of two: (output, cache)"),
    "none": (lambda x: None, "forward returned None, expected a tuple of two: (output, cache)"),
    "nan": (lambda x: (np.where(x.real == X[1, 0, 2], np.nan, x), x), "output is NaN at [1, 0, 2] for float64 inputs"),
    "integers": (lambda x: (np.arange(3), x), "the output is int64[3] without a floating member"),
    "text": (lambda x: ("y", x), "output is a str, expected an array or a number"),
    "text in a tuple": (lambda x: ((x, "y"), x), "output[1] is a str, expected an array or a number"),
    "too many inputs": (lambda: None, "forward raised TypeError for float64 inputs"),
}


@pytest.mark.parametrize("forward, message", BAD_FORWARDS.values(), ids=BAD_FORWARDS)
def test_a_bad_forward_is_named(forward, message):
    report = check_gradients(forward, square_backward, [X])
    assert not report.ok
    assert message in report.check("forward and backward run").says


BAD_BACKWARDS = {
    "raises": (raises, "backward raised IndexError for float64 inputs: list index out of range"),
    "too few": (lambda d_y, x: (), "backward returned 0 gradients of inputs, expected 1, one for each floating input: x"),
    "too many": (lambda d_y, x: (d_y, d_y), "backward returned 2 gradients of inputs, expected 1"),
    "shape": (lambda d_y, x: d_y[0], "the gradient of x has shape [3, 5], expected [2, 3, 5]"),
    "text": (lambda d_y, x: "d_x", "the gradient of x is a str, expected an array of numbers"),
    "booleans": (lambda d_y, x: d_y > 0, "the gradient of x is bool[2, 3, 5], expected an array of numbers"),
}


@pytest.mark.parametrize("backward, message", BAD_BACKWARDS.values(), ids=BAD_BACKWARDS)
def test_a_bad_backward_is_named(backward, message):
    report = check_gradients(square_forward, backward, [X])
    assert not report.ok
    assert message in report.check("forward and backward run").says


def cast_forward(x):
    y = np.empty(x.shape)
    y[...] = x * x
    return y, x


def real_forward(x):
    return np.real(x) ** 2, x


def float_forward(x):
    return float((x * x).sum()), x


def math_forward(x):
    return math.exp(x[0, 0, 0].item()), x


@pytest.mark.parametrize("forward, message", [(cast_forward, "forward casts complex numbers to real ones"),
                                              (real_forward, "forward gives real output for complex input"),
                                              (float_forward, "forward casts complex numbers to real ones"),
                                              (math_forward, "forward raised TypeError for complex128 inputs")])
def test_a_forward_that_cannot_take_complex_numbers_is_named_where_the_complex_step_is_asked_for(forward, message):
    report = check_gradients(forward, square_backward, [X], method="complex_step")
    assert not report.ok
    assert message in report.check("gradient of x").says


def test_an_output_whose_shape_varies_is_named():
    calls = iter(range(100))
    report = check_gradients(lambda x: (x[:1 + next(calls) % 2] ** 2, x), lambda d_y, x: 2 * x, [X])
    assert report.check("forward and backward run").says == "forward gives outputs of another shape when it is called again"


@dataclass(repr=False, eq=False)
class Scale(Layer):
    weight: np.ndarray

    def forward(self, x):
        return x * self.weight, x

    def backward(self, d_y, x):
        return d_y * self.weight, replace(self, weight=(d_y * x).sum(axis=(0, 1)))


@pytest.mark.parametrize("gradient, message", [
    (lambda layer, d_y, x: (d_y, d_y), "the last gradient is float64[2, 3, 5], expected a Scaled"),
    (lambda layer, d_y, x: (), "the last gradient is missing, expected a Scaled"),
    (lambda layer, d_y, x: layer, "backward returned 0 gradients of inputs, expected 1, one for each floating input: x"),
    (lambda layer, d_y, x: (d_y, replace(layer, weight=[d_y])), "the gradient has weight.0, which the layer has not"),
], ids=["no layer", "nothing", "no input", "other names"])
def test_a_bad_backward_of_a_layer_is_named(gradient, message):
    class Scaled(Scale):
        def backward(self, d_y, x):
            return gradient(self, d_y, x)

    assert check_layer(Scale(X[0, 0]), [X]).ok
    report = check_layer(Scaled(X[0, 0]), [X])
    assert message in report.check("forward and backward run").says


def test_a_missing_weight_gradient_counts_as_zero():
    class Forgetful(Linear):
        def backward(self, d_y, cache):
            d_x, d = super().backward(d_y, cache)
            return d_x, replace(d, bias=None)

    layer = Forgetful(X[0].T.copy(), X[1, 0, :3].copy())
    report = check_layer(layer, [X])
    assert not report.check("gradient of bias").ok
    assert report.check("gradient of weight").ok


@pytest.mark.parametrize("inputs, message", [
    ([["a"]], "input x is a list of 1, expected an array"),
    ([{"a": "b"}], "input x['a'] is a str"),
    ([X + 1j], "input x is complex128[2, 3, 5], expected real numbers"),
    (X, "inputs is float64[2, 3, 5], expected a list or tuple"),
    ([np.arange(3)], "square_forward: no input is floating and there are no weights"),
])
def test_inputs_that_are_no_arrays_raise(inputs, message):
    with pytest.raises(ValueError) as raised:
        check_gradients(square_forward, square_backward, inputs)
    assert message in str(raised.value)


@pytest.mark.parametrize("layer, rng_seed, settings, message", [
    (3, None, {}, "layer is a int, expected a Layer"), (dict, None, {}, "layer is a type, expected a Layer"),
    (Layer(), None, {}, "layer is a Layer, expected a Layer with forward and backward"),
    (Scale(X[0, 0]), "a", {}, "rng_seed is 'a', expected None or a whole number"),
    (Scale(X[0, 0]), -1, {}, "rng_seed is -1, expected None or a whole number"),
    (Scale(X[0, 0]), 1, {}, "rng_seed is 1, which gives forward a generator `rng`, but Scale.forward takes x"),
    (Scale(X[0, 0]), None, {"causal": True}, "causal is no keyword of check_layer or of forward: Scale.forward takes x"),
])
def test_what_is_no_layer_or_no_setting_of_it_raises(layer, rng_seed, settings, message):
    with pytest.raises(ValueError) as raised:
        check_layer(layer, [X], rng_seed=rng_seed, **settings)
    assert message in str(raised.value)


# ---------------------------------------------------------------------------------------------------- the report's name

def test_a_report_has_the_name_of_a_function_that_has_one():
    assert check_gradients(lambda x: square_forward(x), square_backward, [X]).name == "square_backward"
    name = check_gradients(lambda x: square_forward(x), lambda d_y, x: 2 * x * d_y, [X]).name
    assert name.startswith("<lambda> ") and "test_check.py:" in name
    assert check_gradients(square_forward, square_backward, [X], name="mine").name == "mine"
