"""Low precision is judged fairly: by its own rounding, on numbers that it can hold."""

import numpy as np
import pytest

from transformer_np.attention import attention_backward, attention_forward
from transformer_np.gradcheck import check_gradients, check_layer, check_vjp, with_random_weights
from transformer_np.linear import Linear
from transformer_np.normalization import layer_norm_backward, layer_norm_forward
from transformer_np.softmax import softmax_backward, softmax_forward

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3, 5))
GAIN, BIAS = RNG.standard_normal(5), RNG.standard_normal(5)
Q, K, V = RNG.standard_normal((2, 4, 5)), RNG.standard_normal((2, 6, 5)), RNG.standard_normal((2, 6, 3))
PROFILES = ("float32", "float16")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("forward, backward, inputs", [
    (softmax_forward, softmax_backward, [X]),
    (layer_norm_forward, layer_norm_backward, [X, GAIN, BIAS]),
    (layer_norm_forward, layer_norm_backward, [X + 30, GAIN, BIAS]),
    (attention_forward, attention_backward, [Q, K, V]),
], ids=["softmax", "layer norm", "layer norm of a large mean", "attention"])
def test_right_code_passes_in_low_precision(profile, forward, backward, inputs):
    report = check_gradients(forward, backward, inputs, profile=profile)
    assert report.ok, str(report)
    assert report.check(f"{profile} stays {profile}").ok
    assert "ULP" in report.checks[1].says and "of forward in float64 at each of" in report.checks[1].method


@pytest.mark.parametrize("profile, factor", [("float32", 1 + 1e-5), ("float16", 1.05)])
def test_wrong_code_fails_in_low_precision(profile, factor):
    def backward(d_y, cache):
        return softmax_backward(d_y, cache) * d_y.dtype.type(factor)

    report = check_gradients(softmax_forward, backward, [X], profile=profile)
    assert [check.name for check in report.checks if not check.ok] == ["gradient of x"]


def test_a_forward_that_is_inaccurate_in_low_precision_is_named():
    """Statistics in one pass: right in float64, wrong in float32 where the mean is large."""
    def forward(x):
        variance = (x * x).mean(-1, keepdims=True) - x.mean(-1, keepdims=True) ** 2
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + x.dtype.type(1e-5)), x

    def backward(d_y, x):
        _, cache = layer_norm_forward(x, np.ones(5, x.dtype), np.zeros(5, x.dtype))
        return layer_norm_backward(d_y, cache)[0]

    assert check_gradients(forward, backward, [X + 300]).ok
    report = check_gradients(forward, backward, [X + 300], profile="float32")
    assert not report.check("output").ok
    assert "ULP beside forward in float64; worst at finite number " in report.check("output").says
    assert report.check("gradient of x").ok


def test_inputs_are_rounded_first():
    seen = []

    def forward(x):
        seen.append(x)
        return 3 * x, None

    assert check_gradients(forward, lambda d_y, cache: 3 * d_y, [X], profile="float16").ok
    wide = [x for x in seen if x.dtype == np.float64]
    assert wide and (wide[0] == X.astype(np.float16)).all()


def test_a_layer_in_low_precision():
    layer = with_random_weights(Linear.create(5, 4, rng=RNG), RNG)
    report = check_layer(layer, [X], profile="float32")
    assert report.ok, str(report)
    assert report.check("float32 stays float32").ok


def only(*dtypes):
    def require(*arrays):
        for array in arrays:
            if array.dtype.name not in dtypes:
                raise TypeError(f"no kernel for {array.dtype}")
    return require


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(d_y, x):
    y = softmax(x)
    return y * (d_y - (d_y * y).sum(-1, keepdims=True))


def of_one_precision(dtype, factor=1.0):
    require = only(dtype)

    def function(x):
        require(x)
        return softmax(x)

    def vjp(d_y, x):
        require(d_y, x)
        return softmax_vjp(d_y, x) * x.dtype.type(factor)

    return function, vjp


@pytest.mark.parametrize("profile, factor", [("float32", 1 + 1e-4), ("float16", 1.05)])
def test_a_kernel_of_one_precision_beside_a_reference(profile, factor):
    report = check_vjp(*of_one_precision(profile), [X], profile=profile, reference=softmax)
    assert report.ok, str(report)
    assert report.check("output").ok and "beside the reference" in report.check("output").says
    assert report.check("gradient of x").method == "complex step of the reference at each of 30 elements"
    wrong = check_vjp(*of_one_precision(profile, factor), [X], profile=profile, reference=softmax)
    assert [check.name for check in wrong.checks if not check.ok] == ["gradient of x"]
    other = check_vjp(*of_one_precision(profile), [X], profile=profile, reference=lambda x: softmax(1.1 * x))
    assert not other.check("output").ok and not other.check("gradient of x").ok
    shape = check_vjp(*of_one_precision(profile), [X], profile=profile, reference=lambda x: softmax(x)[0])
    assert "another shape" in shape.check("function and vjp run").says


def test_a_kernel_of_one_precision_without_a_reference():
    """It is measured by itself, as well as that goes."""
    report = check_vjp(*of_one_precision("float32"), [X], profile="float32")
    assert report.ok, str(report)
    method = report.check("gradient of x").method
    assert method.startswith("differences of fourth order of function in float32 at each of 30 elements, good to ")
    assert method.endswith("(not the complex step: function raised TypeError for complex64 inputs: no kernel for complex64)")
    assert not check_vjp(*of_one_precision("float32", 1.05), [X], profile="float32").check("gradient of x").ok


def test_a_kernel_without_float64_is_held_against_itself_in_float32():
    require = only("float16", "float32", "complex64")

    def function(x):
        require(x)
        return np.tanh(x)

    def vjp(d_y, x):
        require(d_y, x)
        return d_y * (1 - np.tanh(x) ** 2)

    report = check_vjp(function, vjp, [X], profile="float16")
    assert report.ok, str(report)
    assert report.check("gradient of x").method == "complex step of function in float32 at each of 30 elements"
    assert "beside function in float32" in report.check("output").says
    assert not check_vjp(function, lambda d_y, x: vjp(d_y, x) * x.dtype.type(1.1), [X], profile="float16").ok


def test_a_large_kernel_of_one_precision_is_measured_at_random_elements():
    report = check_vjp(*of_one_precision("float32"), [RNG.standard_normal((20, 50))], profile="float32")
    assert report.ok, str(report)
    assert "at 200 random ones of 1000 elements" in report.check("gradient of x").method


def test_a_kernel_of_one_precision_that_takes_complex_numbers_of_it():
    require = only("float32", "complex64")

    def function(x):
        require(x)
        return np.tanh(x)

    report = check_vjp(function, lambda d_y, x: d_y * (1 - np.tanh(x) ** 2), [X], profile="float32")
    assert report.ok, str(report)
    assert report.check("gradient of x").method == "complex step of function in float32 at each of 30 elements"


def test_overflow_in_low_precision_is_named():
    report = check_vjp(lambda x: np.log(np.exp(x)), lambda d_y, x: d_y, [X + 15], profile="float16")
    assert "worst at finite number" in report.check("output").says and "given inf" in report.check("output").says
    assert not report.check("no warning").ok


def test_bfloat16():
    pytest.importorskip("ml_dtypes")
    report = check_vjp(softmax, softmax_vjp, [X], profile="bfloat16")
    assert report.ok, str(report)
    wrong = check_vjp(softmax, lambda d_y, x: softmax_vjp(d_y, x) * x.dtype.type(1.5), [X], profile="bfloat16")
    assert not wrong.check("gradient of x").ok


def test_bfloat16_without_ml_dtypes_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ValueError, match="pip install ml_dtypes"):
        check_vjp(softmax, softmax_vjp, [X], profile="bfloat16")


def test_a_torch_kernel_in_bfloat16():
    pytest.importorskip("ml_dtypes")
    torch = pytest.importorskip("torch")

    def function(x):
        return torch.softmax(x, -1)

    def vjp(d_y, x):
        assert d_y.dtype == x.dtype
        y = function(x)
        return y * (d_y - (d_y * y).sum(-1, keepdim=True))

    report = check_vjp(function, vjp, [torch.tensor(X)], profile="bfloat16")
    assert report.ok, str(report)
    assert report.check("bfloat16 stays bfloat16").ok
    wrong = check_vjp(function, lambda d_y, x: vjp(d_y, x) * 1.5, [torch.tensor(X)], profile="bfloat16")
    assert not wrong.check("gradient of x").ok


@pytest.mark.parametrize("profile, factor", [("bfloat16", 1.1), ("float16", 1.013), ("float32", 1.000002)])
def test_what_all_elements_have_in_common_is_no_rounding(profile, factor):
    """Each element by itself may be off by so much."""
    if profile == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((10, 10)), rng.standard_normal((10, 10))

    def vjp(factor):
        return lambda d, x, weight: (((d @ weight.T).astype(np.float32) * np.float32(factor)).astype(x.dtype), x.T @ d)

    for seed in range(3):
        assert check_vjp(np.matmul, vjp(1), [x, weight], profile=profile, seed=seed).check("gradient of x1").ok
        failed = check_vjp(np.matmul, vjp(factor), [x, weight], profile=profile, seed=seed).check("gradient of x1")
        assert not failed.ok and "which no rounding explains" in failed.says
