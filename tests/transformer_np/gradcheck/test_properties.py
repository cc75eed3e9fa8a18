"""Each property of a right pair is broken once, by a pair that is right otherwise, and caught by the check of that name."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from transformer_np.gradcheck import check_gradients, check_layer, check_vjp
from transformer_np.layer import Layer

X = np.random.default_rng(5).standard_normal((2, 3, 5))
GAIN = np.random.default_rng(6).standard_normal(5)


def forward(x, gain):
    return x * x * gain, SimpleNamespace(x=x, gain=gain)


def backward(d_y, cache):
    return 2 * d_y * cache.x * cache.gain, (d_y * cache.x * cache.x).sum(axis=(0, 1))


def failures(forward, backward, *inputs):
    """The names of the checks that fail, with what they say."""
    report = check_gradients(forward, backward, inputs or (X, GAIN))
    return {check.name: check.says for check in report.checks if not check.ok}


def test_the_pair_is_right_otherwise():
    assert failures(forward, backward) == {}


# ---------------------------------------------------------------------------------------------------- nothing is written to

def test_forward_that_changes_an_input():
    def in_place(x, gain):
        y, cache = forward(x.copy(), gain)
        x *= 2
        return y, cache

    assert failures(in_place, backward)["nothing is written to"] == "forward changed input x"


def test_forward_that_changes_an_input_only_the_first_time():
    """A clip in place has nothing to do in a second call: the check starts from untouched inputs."""
    def clipping(x, gain):
        x[x.real < 0] = 0
        return forward(x, gain)

    assert failures(clipping, backward)["nothing is written to"] == "forward changed input x"


def test_forward_that_changes_an_integer_input():
    def in_place(x, gain, ids):
        ids += 1
        return forward(x, gain)

    assert failures(in_place, backward, X, GAIN, np.arange(3)) ["nothing is written to"] == "forward changed constant input 0"


def test_the_arrays_of_the_caller_stay_as_they_are():
    x, gain = X.copy(), GAIN.copy()

    def in_place(x, gain):
        x *= 2
        return forward(x, gain)

    check_gradients(in_place, backward, [x, gain])
    assert (x == X).all() and (gain == GAIN).all()


@pytest.mark.parametrize("damage, message", [
    (lambda d_y, cache: np.multiply(d_y, 2, out=d_y), "backward changed d_output.0"),
    (lambda d_y, cache: np.multiply(cache.x, 2, out=cache.x), "backward changed cache.x"),
    (lambda d_y, cache: np.multiply(cache.gain, 2, out=cache.gain), "backward changed cache.gain"),
    (lambda d_y, cache: cache.__dict__.pop("x"), "backward changed cache.x"),
], ids=["cotangent", "cached input", "cached weight", "cache"])
def test_backward_that_changes_what_it_was_given(damage, message):
    def in_place(d_y, cache):
        gradients = backward(d_y.copy(), cache)
        damage(d_y, cache)
        return gradients

    assert failures(lambda x, gain: forward(x.copy(), gain.copy()), in_place)["nothing is written to"] == message


@dataclass(repr=False, eq=False)
class Gain(Layer):
    gain: np.ndarray

    def forward(self, x):
        return forward(x, self.gain)

    def backward(self, d_y, cache):
        d_x, d_gain = backward(d_y, cache)
        return d_x, replace(self, gain=d_gain)


def test_a_layer_that_changes_its_weights():
    class Learning(Gain):
        def backward(self, d_y, cache):
            d_x, d = super().backward(d_y, cache)
            self.gain -= 0.1 * d.gain
            return d_x, d

    assert check_layer(Gain(GAIN), [X]).ok
    layer = Learning(GAIN.copy())
    report = check_layer(layer, [X])
    assert report.check("nothing is written to").says == "backward changed weight gain"
    assert (layer.gain == GAIN).all()


# ---------------------------------------------------------------------------------------------------- dtypes

def test_forward_that_promotes():
    scale = np.sqrt(np.float64(2))
    assert failures(lambda x: (x * scale, None), lambda d_y, cache: d_y * float(scale), X.astype(np.float32)) == {
        "float32 stays float32": "for float32 inputs, the output is float64[2, 3, 5], expected float32; "
                                 "float32=False if it is meant for float64 only"}


def test_backward_that_promotes():
    def promoting(d_y, cache):
        d_x, d_gain = backward(d_y, cache)
        return d_x, d_gain.astype(np.float64)

    assert failures(forward, promoting) == {
        "float32 stays float32": "for float32 inputs, the gradient of gain is float64[5], expected float32; "
                                 "float32=False if it is meant for float64 only"}


def test_code_that_is_meant_for_float64_only_is_not_asked_about_float32():
    def warning(x):
        if x.dtype == np.float32:
            np.log(np.zeros(1))
        y = np.empty(x.shape)
        y[...] = x * x
        return y, x

    report = check_gradients(warning, lambda d_y, x: 2 * d_y * x, [X], float32=False)
    assert report.ok, str(report)
    assert report.check("float32 stays float32").says == "not asked: float32=False"
    assert report.check("no warning").says == "none in float64"
    assert not check_gradients(warning, lambda d_y, x: 2 * d_y * x, [X]).ok


def test_a_loss_that_is_a_number_of_python_has_no_dtype_to_keep():
    report = check_gradients(lambda x: (float((x * x).sum()), x), lambda d_loss, x: 2 * d_loss * x, [X])
    assert report.ok, str(report)
    report = check_gradients(lambda x: (np.float64((x * x).sum()), x), lambda d_loss, x: 2 * d_loss * x, [X])
    assert [check.name for check in report.checks if not check.ok] == ["float32 stays float32"]


def test_backward_that_rounds_to_float32():
    def rounding(d_y, cache):
        d_x, d_gain = backward(d_y, cache)
        return d_x.astype(np.float32), d_gain

    found = failures(forward, rounding)
    assert found["float64 stays float64"] == "for float64 inputs, the gradient of x is float32[2, 3, 5], expected float64"
    assert "gradient of x" in found


# ---------------------------------------------------------------------------------------------------- warnings

def test_a_pass_that_warns():
    def logarithm(x, gain):
        np.log(np.zeros(1))
        return forward(x, gain)

    def overflow(d_y, cache):
        np.exp(np.full(1, 200.0, d_y.dtype))
        return backward(d_y, cache)

    assert failures(logarithm, backward) == {
        "no warning": "forward warns for float64 inputs: RuntimeWarning: divide by zero encountered in log"}
    assert failures(forward, overflow) == {
        "no warning": "backward warns for float32 inputs: RuntimeWarning: overflow encountered in exp"}


# ---------------------------------------------------------------------------------------------------- the cotangent

def test_backward_that_is_not_zero_for_a_zero_cotangent():
    found = failures(forward, lambda d_y, cache: tuple(gradient + 1e-30 for gradient in backward(d_y, cache)))
    assert found == {"zero cotangent gives zero":
                     "for a cotangent of 0, the gradient of x at [0, 0, 0] is 1.0000000000000001e-30, expected 0"}


def test_backward_that_is_not_linear():
    found = failures(forward, lambda d_y, cache: backward(np.clip(d_y, -2.5, 2.5), cache))
    assert "backward(c + 2 c') is not backward(c) + 2 backward(c') for x" in found["linear in the cotangent"]


# ---------------------------------------------------------------------------------------------------- repetition

def test_forward_that_is_random():
    rng = np.random.default_rng(0)
    found = failures(lambda x, gain: forward(x * (rng.random(x.shape) < 0.5), gain), backward)
    assert "a second forward on the same inputs gives another output" in found["two calls agree"]


def test_backward_that_accumulates():
    total = np.zeros(5)

    def accumulating(d_y, cache):
        nonlocal total
        d_x, d_gain = backward(d_y, cache)
        total = total + d_gain
        return d_x, total

    assert failures(forward, accumulating)["two calls agree"] == (
        "the gradient of gain differs in a second backward on the same cache")


def test_backward_that_returns_the_same_buffer_every_time():
    buffer = np.zeros(X.shape)

    def reusing(d_y, cache):
        d_x, d_gain = backward(d_y, cache)
        buffer[...] = d_x
        return buffer, d_gain

    found = failures(forward, reusing)
    assert "gradient of x" not in found and "two calls agree" not in found
    assert "the gradient of x differs when two forwards run before their two backwards" in found["caches stand alone"]


def test_a_cache_that_the_next_forward_overwrites():
    latest = SimpleNamespace()

    def stale_forward(x, gain):
        latest.x, latest.gain = x, gain
        return x * x * gain, None

    found = failures(stale_forward, lambda d_y, cache: backward(d_y, latest))
    assert "differs when two forwards run before their two backwards" in found["caches stand alone"]


def test_a_layer_that_keeps_its_cache():
    """As a Dropout does that serves two sublayers and remembers one mask."""
    class Remembering(Gain):
        def forward(self, x):
            y, self.cache = forward(x, self.gain)
            return y, None

        def backward(self, d_y, cache):
            return super().backward(d_y, self.cache)

    report = check_layer(Remembering(GAIN), [X])
    assert not report.check("caches stand alone").ok
    assert report.check("two calls agree").ok


def remembering_by_shape(backward):
    """A backward that keeps the first cache that it sees, for all of that shape."""
    kept = {}
    return lambda d_y, cache: backward(d_y, kept.setdefault((d_y.shape, d_y.dtype), cache))


def test_a_cache_that_is_looked_up_by_shape():
    """It is right where it is measured, repeats itself, and mixes up no two caches: all are the first."""
    found = failures(forward, remembering_by_shape(backward))
    assert list(found) == ["gradients follow the inputs"]
    assert "the gradient of x is the same to the last bit" in found["gradients follow the inputs"]


@pytest.mark.parametrize("function, vjp", [
    (lambda x: 3 * x, lambda d_y, x: 3 * d_y), (np.abs, lambda d_y, x: d_y * np.sign(x)), (np.square, lambda d_y, x: 2 * d_y * x),
    (lambda x: np.round(x), lambda d_y, x: 0 * d_y), (lambda x: np.where(x.real > 0, x, 0), lambda d_y, x: d_y * (x > 0)),
], ids=["linear", "abs", "square", "steps", "relu"])
@pytest.mark.parametrize("x", [X, np.round(2 * X) / 2, 0 * X, 1e-30 * X, 1e30 * X],
                         ids=["as it is", "halves", "zero", "tiny", "huge"])
def test_a_gradient_that_does_not_depend_on_the_inputs_is_no_fault(function, vjp, x):
    assert check_vjp(function, vjp, [x]).check("gradients follow the inputs").ok


def test_a_token_layer_that_keeps_its_cache():
    """Without floating inputs, the tokens of the second forward change places."""
    @dataclass(repr=False, eq=False)
    class Table(Layer):
        weight: np.ndarray

        def forward(self, ids):
            self.ids = ids
            return self.weight[ids], None

        def backward(self, d_y, cache):
            d_weight = np.zeros_like(d_y, shape=self.weight.shape)
            np.add.at(d_weight, self.ids, d_y)
            return replace(self, weight=d_weight)

    report = check_layer(Table(X[0]), [np.array([0, 2, 2, 1])])
    assert [check.name for check in report.checks if not check.ok] == ["caches stand alone"]


# ---------------------------------------------------------------------------------------------------- memory layouts

def read_flat(array):
    """As a kernel does that gets a pointer and a shape, and no strides."""
    first = np.lib.stride_tricks.as_strided(array, strides=np.zeros(array.shape).strides)
    return first.copy()


def square_plus_one(x):
    return x * x + 1


@pytest.mark.parametrize("function, vjp, message", [
    (lambda x: square_plus_one(read_flat(x)), lambda d_y, x: 2 * d_y * read_flat(x), "with inputs in memory in another way"),
    (square_plus_one, lambda d_y, x: 2 * x * read_flat(d_y), "with cotangents in memory in another way (Fortran order), "),
    (square_plus_one, lambda d_y, x: 2 * x * (d_y if d_y.strides[0] > 0 else read_flat(d_y)), "(reversed), the gradient of x is"),
    (square_plus_one, lambda d_y, x: 2 * x * (d_y if 0 not in d_y.strides else -d_y), "(stride 0), the gradient of x is "),
], ids=["inputs", "cotangents", "negative strides", "stride 0"])
def test_a_kernel_that_does_not_look_at_strides(function, vjp, message):
    report = check_vjp(function, vjp, [X])
    assert report.check("gradient of x").ok
    assert message in report.check("memory layouts agree").says
    assert "other: " in report.check("memory layouts agree").says


def test_a_kernel_that_needs_to_write_into_its_inputs():
    def writing(x):
        x[...] = x
        return square_plus_one(x)

    says = check_vjp(writing, lambda d_y, x: 2 * x * d_y, [X]).check("memory layouts agree").says
    assert says == ("with inputs in memory in another way (stride 0): function raised ValueError for float64 inputs: "
                    "assignment destination is read-only")


def test_a_kernel_may_refuse_a_layout_with_an_error_that_names_it():
    def careful(x):
        if not x.flags.c_contiguous:
            raise ValueError("x must be contiguous")
        return square_plus_one(x)

    report = check_vjp(careful, lambda d_y, x: 2 * x * d_y, [X])
    assert report.ok, str(report)
    assert report.check("memory layouts agree").says == (
        "the same for inputs and cotangents in C order, read-only; left out: Fortran order, strided, reversed, stride 0")


def test_what_a_failure_explains_is_not_asked_again():
    """A gradient that is another at each call differs in every layout, and in every order of calls."""
    noise = np.random.default_rng(0)

    def noisy(d_y, x):
        return (2 * x * d_y * (1 + 1e-3 * noise.standard_normal(x.shape))).astype(x.dtype)

    found = check_vjp(square_plus_one, noisy, [X])
    assert [check.name for check in found.checks if not check.ok and check.argument is None] == ["two calls agree"]
    says = 'not asked, since the answer to "two calls agree" is no: mend that first'
    assert [check.name for check in found.checks if check.says == says] == [
        "zero cotangent gives zero", "linear in the cotangent", "memory layouts agree", "caches stand alone",
        "gradients follow the inputs"]


# ---------------------------------------------------------------------------------------------------- what comes later

def at_call(number, then, first, *, on=False):
    """`first`, but `then` at the call of that number, and from it on."""
    calls = iter(range(1, 10 ** 9))

    def called(*arguments):
        count = next(calls)
        return then(*arguments) if count == number or (on and count > number) else first(*arguments)
    return called


def raises(*arguments):
    raise RuntimeError("out of luck")


@pytest.mark.parametrize("number", range(2, 40))
def test_a_backward_that_raises_once_is_never_let_off_and_is_called_what_it_is(number):
    """The second to fifth calls ask what rounding changes, where what does not run at moved inputs is no fault."""
    report = check_vjp(square_plus_one, at_call(number, raises, lambda d_y, x: 2 * x * d_y), [X])
    failed = [check for check in report.checks if not check.ok]
    assert [check.diagnosis.kind for check in failed] == ["does not run"], str(report)
    assert "vjp raised RuntimeError" in failed[0].says


@pytest.mark.parametrize("method", ["auto", "differences"])
@pytest.mark.parametrize("number", [*range(2, 30), 50, 70])
def test_a_function_that_raises_once_is_never_let_off_either(number, method):
    """Not in the steps of differences, of which some may be too large for a function."""
    report = check_vjp(at_call(number, raises, square_plus_one), lambda d_y, x: 2 * x * d_y, [X[0]], method=method)
    failed = [check for check in report.checks if not check.ok]
    assert "does not run" in [check.diagnosis.kind for check in failed], str(report)
    assert "function raised RuntimeError" in failed[0].says


def test_a_function_that_refuses_what_is_beyond_its_domain_by_a_rounding_error_does_not_raise_by_chance():
    """It raises at inputs that are moved by a rounding error, each time that they are the same."""
    def careful(x):
        if np.abs(x.real).max() > 1:
            raise ValueError("beyond 1")
        return x * x

    assert check_vjp(careful, lambda d_y, x: 2 * d_y * x, [np.array([1.0, -1, 0.5])]).check("gradient of x").ok


@pytest.mark.parametrize("number", range(2, 40))
def test_a_gradient_that_is_none_from_some_call_on(number):
    report = check_vjp(square_plus_one, at_call(number, lambda d_y, x: None, lambda d_y, x: 2 * x * d_y, on=True), [X])
    assert "nondeterministic" in [check.diagnosis.kind for check in report.checks if not check.ok]


def test_none_for_a_cotangent_of_zero_or_at_other_inputs_is_right():
    """As of an expert that no token goes to."""
    def first_rows(x, which):
        return x * which[:, None, None].mean()

    def vjp(d_y, x, which):
        return None if not d_y.any() or np.array_equal(x[0], x[1]) else d_y * which[:, None, None].mean()

    report = check_vjp(first_rows, vjp, [X, np.array([1, 2])])
    assert "nondeterministic" not in [check.diagnosis.kind for check in report.checks if not check.ok], str(report)


def test_a_cache_that_is_used_up_by_its_first_backward():
    """As of torch without retain_graph. What is kept lies outside of the cache, so that nothing is seen to be written to."""
    kept = {}

    def using_forward(x):
        key = object()
        kept[key] = x
        return x * x, key

    report = check_gradients(using_forward, lambda d_y, key: 2 * d_y * kept.pop(key), [X])
    (failed,) = [check for check in report.checks if not check.ok]
    assert failed.name == "two calls agree"
    assert failed.diagnosis.kind == "cache used up"
    assert "backward may be called several times on one cache" in failed.says


def test_a_shape_that_changes_later_is_called_that():
    report = check_vjp(square_plus_one, at_call(6, lambda d_y, x: d_y[0], lambda d_y, x: 2 * x * d_y), [X])
    assert report.check("float64 stays float64").diagnosis.kind == "wrong shape"


@pytest.mark.parametrize("number", [22, 25, 28])
def test_a_gradient_that_is_another_once_does_not_depend_on_strides(number):
    """As of a race: in C order, and when it is called again, it is right."""
    report = check_vjp(square_plus_one, at_call(number, lambda d_y, x: 3 * x * d_y, lambda d_y, x: 2 * x * d_y), [X])
    failed = report.check("memory layouts agree")
    assert not failed.ok
    assert failed.diagnosis.kind == "nondeterministic", failed.says
