"""A right kernel passes in every precision, a wrong one is named, and what a kernel cannot do is left out and told."""

import contextlib
import io
import time
import warnings

import numpy as np
import pytest

from transformer_np.attention import attention_backward, attention_forward
from transformer_np.embedding import embedding_forward
from transformer_np.gradcheck import against, check_against
from transformer_np.gradcheck.against import find_reference, references
from transformer_np.gradcheck.discovery import PACKAGES, discover, subject_name
from transformer_np.layer import Layer
from transformer_np.normalization import layer_norm_backward, layer_norm_forward
from transformer_np.softmax import softmax_backward, softmax_forward

REFERENCES = references()


def softmax(x, mask=None, axis=-1):
    """Of another form than ours: with a logarithm, and no maximum over what is masked."""
    shown = x if mask is None else np.where(mask, x, x.dtype.type(-np.inf))
    peak = shown.max(axis=axis, keepdims=True, initial=-np.inf)
    e = np.exp(shown - np.where(np.isfinite(peak), peak, 0))
    total = e.sum(axis=axis, keepdims=True)
    y = e * (1 / np.where(total == 0, 1, total))
    return y, (y, axis)


def softmax_gradient(d_y, cache):
    y, axis = cache
    return d_y * y - y * (d_y * y).sum(axis=axis, keepdims=True)


# ---------------------------------------------------------------------------------------------------- right kernels

@pytest.mark.parametrize("name", REFERENCES)
def test_every_pair_is_a_reference_and_agrees_with_itself(name):
    call = REFERENCES[name][0].call
    report = check_against(name, call.forward, call.backward, profile="float32")
    assert report.ok, str(report)
    assert report.worst <= 1.5  # a unit is what it costs ours; the layouts change the order of a sum


def test_no_pair_is_missing():
    pairs = {subject_name(subject) for subject in discover(PACKAGES, 0).subjects
             if not (isinstance(subject, type) and issubclass(subject, Layer))}
    assert set(REFERENCES) == pairs
    assert {"attention", "softmax", "layer_norm", "lstm", "gru", "convolution_1d", "embedding", "cross_entropy"} <= pairs


@pytest.mark.parametrize("profile", ["float64", "float32", "float16"])
@pytest.mark.parametrize("seed", range(3))
def test_another_form_of_the_same_is_right(profile, seed):
    report = check_against("softmax", softmax, softmax_gradient, profile=profile, seed=seed)
    assert report.ok, str(report)
    assert report.name == f"softmax against softmax in {profile}"


def test_bfloat16_is_fair_to_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")

    def forward(x, mask=None, axis=-1):
        y, cache = softmax(x.astype(np.float32), mask, axis)
        return y.astype(ml_dtypes.bfloat16), cache

    def backward(d_y, cache):
        return softmax_gradient(d_y.astype(np.float32), cache).astype(ml_dtypes.bfloat16)

    assert check_against("softmax", forward, backward, profile="bfloat16").ok
    wrong = check_against("softmax", forward, lambda d_y, cache: backward(d_y, cache) * 1.125, profile="bfloat16")
    assert not wrong.check("softmax: gradient of x").ok


def test_code_without_a_cache_comes_as_function_and_vjp():
    def function(x, gain, bias, eps=1e-5):
        return layer_norm_forward(x, gain, bias, eps=eps)[0]

    def vjp(d_y, x, gain, bias, eps=1e-5):
        return layer_norm_backward(d_y, layer_norm_forward(x, gain, bias, eps=eps)[1])

    report = check_against("layer_norm", function, vjp=vjp)
    assert report.ok, str(report)
    assert {"layer_norm: output", "layer_norm (eps 0.3): gradient of gain"} <= {check.name for check in report.checks}


def test_attention_takes_less_than_a_tenth_of_the_time_it_may():
    began = time.perf_counter()
    report = check_against("attention", attention_forward, attention_backward, profile="float32")
    assert time.perf_counter() - began < 5
    assert report.ok, str(report)
    assert [check.name for check in report.checks[-9:]] == [
        "a size of 0", "a size of 1", "extreme numbers", "equal numbers", "longer axes", "memory layouts",
        "float32 stays float32", "nothing is written to", "the kernel was run"]


def test_pytorch_is_right_in_every_precision(torch):
    def function(x, gain, bias, eps=1e-5):
        return torch.nn.functional.layer_norm(torch.from_numpy(np.array(x)), gain.shape, torch.from_numpy(np.array(gain)),
                                              torch.from_numpy(np.array(bias)), eps)

    def vjp(d_y, x, gain, bias, eps=1e-5):
        leaves = [torch.from_numpy(np.array(array)).requires_grad_() for array in (x, gain, bias)]
        y = torch.nn.functional.layer_norm(leaves[0], gain.shape, leaves[1], leaves[2], eps)
        return torch.autograd.grad(y, leaves, torch.from_numpy(np.array(d_y)))

    for profile in ("float32", "float16"):
        report = check_against("layer_norm", function, vjp=vjp, profile=profile)
        assert report.ok, str(report)


def test_a_seed_repeats():
    first, again = (check_against("softmax", softmax, softmax_gradient, seed=3) for _ in range(2))
    assert first == again != check_against("softmax", softmax, softmax_gradient, seed=4)


# ---------------------------------------------------------------------------------------------------- wrong kernels

def failed(report):
    return {check.name for check in report.checks if not check.ok}


def test_a_wrong_gradient_is_named_with_the_place_and_both_numbers():
    report = check_against("softmax", softmax, lambda d_y, cache: d_y * cache[0], profile="float32")
    says = report.check("softmax: gradient of x").says
    assert "units (bound 8)" in says and "times as far as our form in float32" in says and "ULP; worst at [" in says
    assert "got " in says and "expected " in says and "wrong: " in says
    assert "softmax: output" not in failed(report)


@pytest.mark.parametrize("profile, relative", [("float64", 1e-10), ("float32", 1e-5)])
def test_a_small_relative_error_is_seen(profile, relative):
    def wrong(d_y, cache):
        return softmax_gradient(d_y, cache) * d_y.dtype.type(1 + relative)

    assert not check_against("softmax", softmax, wrong, profile=profile).check("softmax: gradient of x").ok


def test_a_wrong_forward_is_wrong_though_backward_is_its_derivative():
    def scaled_twice(q, k, v, mask=None, scale=None, dropout=0.0, rng=None):
        return attention_forward(q, k, v, mask, scale=(scale or q.shape[-1] ** -0.5) ** 2, dropout=dropout, rng=rng)

    assert "attention: output" in failed(check_against("attention", scaled_twice, attention_backward))


def test_a_large_negative_number_for_a_mask_is_wrong_only_where_a_row_allows_nothing():
    def forward(x, mask=None, axis=-1):
        return softmax_forward(x if mask is None else np.where(mask, x, -1e9), axis=axis)

    report = check_against("softmax", forward, softmax_backward)
    assert not report.check("softmax (mask): output").ok and report.check("softmax: output").ok


def overflowing(x):
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def one_pass_variance(x, gain, bias, eps=1e-5):
    mean = x.mean(axis=-1, keepdims=True)
    variance = (x * x).mean(axis=-1, keepdims=True) - mean * mean
    return (x - mean) / np.sqrt(variance + eps) * gain + bias


def test_numbers_that_overflow_are_seen_at_the_edges():
    def forward(x):
        return overflowing(x), (overflowing(x), -1)

    report = check_against("softmax", forward, softmax_gradient)
    assert report.check("softmax: output").ok
    assert {"softmax (large mean): output", "extreme numbers"} <= failed(report)


def test_a_variance_in_one_pass_is_seen_in_float32():
    def vjp(d_y, x, gain, bias, eps=1e-5):
        return layer_norm_backward(d_y, layer_norm_forward(x, gain, bias, eps=eps)[1])

    assert "extreme numbers" in failed(check_against("layer_norm", one_pass_variance, vjp=vjp, profile="float32"))


def test_a_kernel_that_reads_memory_without_strides_is_wrong_in_other_layouts():
    def flat(array):
        return np.lib.stride_tricks.as_strided(array, array.shape, np.empty(array.shape, array.dtype).strides)

    def forward(x):
        x = flat(x) if x.size and x.strides[-1] > 0 else x
        return np.tanh(x), np.tanh(x)

    report = check_against("tanh", forward, lambda d_y, y: d_y * (1 - y * y))
    assert report.check("tanh: output").ok and failed(report) == {"memory layouts"}
    assert "Fortran order" in report.check("memory layouts").says


def test_a_kernel_that_writes_to_its_inputs_is_wrong():
    def forward(x):
        if x.flags.writeable:
            x *= 1 + 1e-3
        return np.maximum(x, 0) / (1 + 1e-3 * x.flags.writeable), x > 0

    assert "nothing is written to" in failed(check_against("relu", forward, lambda d_y, positive: d_y * positive))


def test_a_kernel_that_widens_is_wrong():
    report = check_against("relu", lambda x: (np.maximum(x, 0.0).astype(np.float64), x > 0), lambda d_y, positive: d_y * positive,
                           profile="float32")
    assert failed(report) == {"float32 stays float32"}
    assert "for float32 inputs, the output is float64[" in report.check("float32 stays float32").says


def raises(*arguments):
    raise IndexError("list index out of range")


@pytest.mark.parametrize("forward, backward, message", [
    (raises, softmax_gradient, "forward raised IndexError: list index out of range"),
    (lambda x: x, softmax_gradient, "forward returned float64[2, 3, 5], expected a tuple of two: (output, cache)"),
    (lambda x: ((x, x), x), softmax_gradient, "forward gives 2 floating outputs, expected 1"),
    (lambda x: ("y", x), softmax_gradient, "the output is or holds a str, expected arrays or numbers"),
    (lambda x: (x[0], x), softmax_gradient, "output has shape [3, 5], expected [2, 3, 5]"),
    (softmax, raises, "backward raised IndexError: list index out of range"),
    (softmax, lambda d_y, cache: (d_y, d_y, d_y), "backward returned 3 gradients of inputs, expected 1"),
    (softmax, lambda d_y, cache: "d_x", "the gradient of x is a str, expected an array of numbers"),
])
def test_a_kernel_that_breaks_its_contract_is_told_so(forward, backward, message):
    assert message in check_against("softmax", forward, backward).check("softmax: forward and backward run").says


def test_what_fails_at_once_is_told_once():
    report = check_against("softmax", softmax, raises)
    assert str(report).count("list index out of range") == 1 and len(report.checks) == 5 and len(failed(report)) == 4
    assert report.check("softmax (mask): forward and backward run").says == "as for softmax"


def test_what_fails_in_many_cases_of_one_kind_is_told_once():
    def forward(x, mask=None, axis=-1):
        if x.size == 0:
            raise IndexError("list index out of range")
        return softmax(x, mask, axis)

    report = check_against("softmax", forward, softmax_gradient, larger=0)
    assert failed(report) == {"a size of 0"}
    says = "; softmax, x.shape[0] = 0 and 11 more: forward raised IndexError: list index out of range"
    assert report.check("a size of 0").says.endswith(says)


def test_the_worst_elements_of_a_gradient_and_of_an_output_are_shown():
    report = check_against("softmax", softmax, lambda d_y, cache: 2 * softmax_gradient(d_y, cache), larger=0)
    elements = report.check("softmax: gradient of x").elements
    assert len(elements) == 5 and report.check("softmax: gradient of x").argument == "x"
    assert all(element.analytic == pytest.approx(2 * element.numeric) for element in elements)
    assert all(element.relative == pytest.approx(1) for element in elements)
    assert elements[0].absolute == max(element.absolute for element in elements)
    assert elements[0].input == report.inputs[0][elements[0].index]
    assert f"        x{list(elements[0].index)}  " in str(report)
    report = check_against("softmax", lambda *x, axis=-1: (2 * softmax(*x, axis=axis)[0], 0), lambda *d: 0, larger=0)
    elements = report.check("softmax: output").elements
    assert len(elements) == 5 and elements[0].input is None and f"        {list(elements[0].index)}" in str(report)
    assert not report.check("a size of 1").elements     # a table for each would hide the first


def test_only_a_few_wrong_elements_are_shown_as_a_few():
    def backward(d_y, cache):
        d_x = softmax_gradient(d_y, cache)
        d_x[..., -1, -1] += 1
        return d_x

    assert len(check_against("softmax", softmax, backward, larger=0).check("softmax: gradient of x").elements) == 2


def test_a_line_of_python_makes_the_report_again():
    report = check_against("softmax", softmax_forward, layer_norm_backward, profile="float32", seed=2, larger=0)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(report.again, {})
    assert shown.getvalue() == f"{report}\n" and f"  again: {report.again}" in str(report)
    assert report.again.endswith("# report.inputs: those of softmax")
    assert [(array.shape, array.dtype) for array in report.inputs] == [((2, 3, 5), np.float32)]
    assert "check_against('tanh', tanh, vjp=vjp, seed=0)" in check_against("tanh", np.tanh, vjp=lambda d_y, x: d_y).again


def test_a_refusal_of_a_layout_is_no_fault(torch):
    def forward(x):
        return torch.tanh(torch.from_numpy(x)), torch.from_numpy(x)

    def backward(d_y, x):
        return torch.from_numpy(d_y) * (1 - torch.tanh(x) ** 2)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of torch, for arrays that are read-only
        report = check_against("tanh", forward, backward, profile="float32")
    assert report.ok, str(report)
    assert "left out: tanh, reversed, since forward raised ValueError: At least one stride" in report.checks[-1].says


def test_a_refusal_of_every_layout_is_a_fault():
    def forward(x):
        raise ValueError("x must be contiguous")

    report = check_against("tanh", forward, lambda d_y, x: d_y)
    assert "tanh: forward and backward run" in failed(report)


def test_a_gradient_of_another_shape_or_none_is_wrong():
    report = check_against("softmax", softmax, lambda d_y, cache: d_y[0])
    assert report.check("softmax: gradient of x").says == "gradient of x has shape [3, 5], expected [2, 3, 5]"
    assert not check_against("softmax", softmax, lambda d_y, cache: None).check("softmax: gradient of x").ok


def last_repeat_only(d_y, cache):
    d_weight = np.zeros((cache.vocab_size, d_y.shape[-1]), d_y.dtype)
    d_weight[cache.ids] += d_y
    return d_weight


@pytest.mark.parametrize("name, forward, backward, profile, kind, says", [
    ("softmax", softmax, lambda d_y, cache: -softmax_gradient(d_y, cache), "bfloat16", "sign", "everywhere"),
    ("softmax", softmax, lambda d_y, cache: 3 * softmax_gradient(d_y, cache), "float16", "constant factor", "which is 3"),
    ("softmax", softmax, lambda d_y, cache: d_y * cache[0], "float32", "missing row term", "a multiple of the output"),
    ("embedding", embedding_forward, last_repeat_only, "float32", "repeated index", "only the last counts"),
])
def test_a_wrong_gradient_has_a_diagnosis(name, forward, backward, profile, kind, says):
    if profile == "bfloat16":
        pytest.importorskip("ml_dtypes")
    report = check_against(name, forward, backward, profile=profile)
    (first, *_) = [check.diagnosis for check in report.checks if check.argument and not check.ok]
    assert first.kind == kind and says in first.says
    assert f"diagnosis: {kind}: " in str(report)


def test_a_diagnosis_does_not_need_a_jacobian():
    """A backward that refuses other cotangents is still told what is wrong."""
    calls = iter(range(10_000))

    def backward(d_y, cache):
        if next(calls) > 0 and (d_y == 0).any():
            raise RuntimeError("no zeros")
        return 2 * softmax_gradient(d_y, cache) + d_y ** 2

    report = check_against("softmax", softmax, backward)
    assert report.check("softmax: gradient of x").diagnosis is not None


# ---------------------------------------------------------------------------------------------------- what a kernel cannot do

def test_what_forward_has_no_parameter_for_is_left_out_and_told():
    report = check_against("attention", lambda q, k, v, mask=None: attention_forward(q, k, v, mask), attention_backward)
    assert report.ok, str(report)
    says = report.check("the kernel was run").says
    assert "left out: attention (causal) and " in says
    assert " more, since forward takes no such call: got an unexpected keyword argument 'scale'; left out: atten" in says
    assert "attention (mask): output" in {check.name for check in report.checks}


def test_what_raises_not_implemented_is_left_out_and_told():
    def forward(x, mask=None, axis=-1):
        if mask is not None:
            raise NotImplementedError("masks come later")
        return softmax_forward(x, axis=axis)

    report = check_against("softmax", forward, softmax_backward)
    assert report.ok
    says = report.check("the kernel was run").says
    assert "left out: softmax (mask) and " in says and " more, since forward says: masks come later" in says


def test_a_kernel_that_does_nothing_at_all_is_not_right():
    def forward(*inputs, **settings):
        raise NotImplementedError

    report = check_against("softmax", forward, softmax_gradient)
    assert failed(report) == {"the kernel was run"}


# ---------------------------------------------------------------------------------------------------- names

def test_the_first_word_will_do_where_only_one_pair_has_it():
    assert find_reference("convolution")[0] == "convolution_1d"
    assert find_reference("softmax")[0] == "softmax"


@pytest.mark.parametrize("arguments, message", [
    ({"name": "sofmax", "backward": raises}, "no pair is called 'sofmax', expected one of attention, convolution_1d, "),
    ({"name": "softmax", "backward": raises, "profile": "float8"}, "profile 'float8', expected one of float64, float32, "),
    ({"name": "softmax", "backward": raises, "seed": "f"}, "seed is 'f', expected a whole number of at least 0"),
    ({"name": "softmax", "backward": raises, "seed": -1}, "seed is -1, expected a whole number of at least 0"),
    ({"name": "softmax", "backward": raises, "larger": -1}, "larger is -1, expected a length"),
    ({"name": "softmax", "backward": raises, "larger": 9.5}, "larger is 9.5, expected a length"),
    ({"name": "softmax"}, "expected backward or vjp, one of them"),
    ({"name": "softmax", "backward": raises, "vjp": raises}, "expected backward or vjp, one of them"),
])
def test_a_bad_call_raises(arguments, message):
    with pytest.raises(ValueError) as raised:
        check_against(forward=softmax, **arguments)
    assert message in str(raised.value)


def test_a_name_that_is_missing_since_examples_are_broken_says_so(monkeypatch):
    found = discover(PACKAGES, 0)
    found.broken["baselines_np.gradcheck_examples"] = "ImportError: no rnn"
    monkeypatch.setattr(against, "discover", lambda packages, seed: found)
    with pytest.raises(ValueError, match=r"no pair is called 'rn', .*; baselines_np.gradcheck_examples cannot be used"):
        find_reference("rn")
