"""Where a function is saturated, 1 - y is what rounding left of 1: no fault of a right formula. A wrong one is still wrong."""

import numpy as np
import pytest

from transformer_np.gradcheck import check_vjp
from transformer_np.gradcheck.calling.pair import pair_of_vjp
from transformer_np.gradcheck.measuring.complex_step import complex_step
from transformer_np.gradcheck.measuring.loss import Loss
from transformer_np.gradcheck.measuring.visible import is_visible


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(d, x):
    y = softmax(x)
    return y * (d - (d * y).sum(-1, keepdims=True))


def tanh_vjp(d, x):
    return d * (1 - np.tanh(x) ** 2)


def gate(x):
    """A sigmoid that is 0, to the last bit, from -38 on."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def gate_vjp(d, x):
    y = gate(x)
    return d * y * (1 - y)


def large_gate(x):
    return 1e10 * gate(x)


def large_gate_vjp(d, x):
    return 1e10 * gate_vjp(d, x)


PAIRS = {"softmax": (softmax, softmax_vjp), "tanh": (np.tanh, tanh_vjp), "gate": (gate, gate_vjp),
         "large gate": (large_gate, large_gate_vjp)}


def saturated(seed, scale):
    return scale * np.random.default_rng(seed).standard_normal((4, 5))


@pytest.mark.parametrize("scale", [5, 10, 20, 50, 200, 300])
@pytest.mark.parametrize("name", PAIRS)
def test_what_rounding_left_is_no_fault(name, scale):
    for seed in range(6):
        report = check_vjp(*PAIRS[name], [saturated(seed, scale)], seed=seed)
        assert report.ok, str(report)


@pytest.mark.parametrize("profile", ["float32", "float16"])
@pytest.mark.parametrize("name", ["softmax", "tanh", "gate"])
def test_what_rounding_left_is_no_fault_in_low_precision(name, profile):
    for scale in (5, 20, 60):
        for seed in range(3):
            report = check_vjp(*PAIRS[name], [saturated(seed, scale)], seed=seed, profile=profile)
            assert all(check.ok for check in report.checks if check.argument), str(report)


@pytest.mark.parametrize("name", ["softmax", "tanh", "gate"])
def test_what_is_wrong_in_low_precision_only_is_a_fault(name):
    function, right = PAIRS[name]

    def vjp(d, x):
        return right(d, x) * x.dtype.type(1.001 if x.dtype == np.float32 else 1)

    for seed in range(3):
        assert not check_vjp(function, vjp, [saturated(seed, 5)], seed=seed, profile="float32").ok


@pytest.mark.parametrize("profile", ["float32", "float16"])
def test_in_low_precision_zeros_are_no_factor_where_the_gradient_is_below_all_rounding(profile):
    """1e-52 in truth, and 0 in the kernel: not "all of them 0 times what is right"."""
    report = check_vjp(np.tanh, tanh_vjp, [np.sign(saturated(0, 1)) * np.linspace(60, 80, 20).reshape(4, 5)], profile=profile)
    assert report.ok, str(report)


@pytest.mark.parametrize("scale", [5, 10, 20])
def test_a_wrong_formula_is_still_wrong_there(scale):
    for seed in range(6):
        x = saturated(seed, scale)
        assert not check_vjp(softmax, lambda d, x: softmax(x) * d, [x], seed=seed).ok
        for name in ("tanh", "gate", "large gate"):
            function, vjp = PAIRS[name]
            assert not check_vjp(function, lambda d, x, vjp=vjp: vjp(d, x) * (1 + 1e-8), [x], seed=seed).ok


def update(w, x, n, h):
    """The end of a gated recurrent unit: between a candidate and the old state."""
    return n + gate(w * x) * (h - n)


def update_vjp(d, w, x, n, h):
    z = gate(w * x)
    d_a = d * (h - n) * z * (1 - z)
    return d_a * x, d_a * w, d * (1 - z), d * z


def test_a_gate_that_is_shut_has_no_gradient_though_its_derivative_is_large():
    """The derivative by a weight of 4.5e-25 is 1e6, since x is 1e26. But the gate is 0, and stays 0 when the weight moves by all
    that it is; a move that changes anything opens it."""
    w, x = np.array([-4.5e-25, -4.6e-25]), np.array([1e26, 1e26])
    report = check_vjp(update, update_vjp, [w, x, np.array([0.5, -0.2]), np.array([0.1, 0.9])])
    assert report.ok, str(report)
    check = report.check("gradient of w")
    assert check.skipped == 2 and "what forward does not show" in check.says
    open_gate = [w / 45, x, np.array([0.5, -0.2]), np.array([0.1, 0.9])]
    assert check_vjp(update, update_vjp, open_gate).check("gradient of w").skipped == 0
    assert not check_vjp(update, lambda *given: (np.zeros(2), *update_vjp(*given)[1:]), open_gate).ok


@pytest.mark.parametrize("factor", [0, 0.5, 1 + 1e-6])
def test_a_gradient_that_matters_is_judged_however_small_the_number(factor):
    """Moving 1e-30 by all that it is changes nothing of 1 + 1e-30 either. But a step of 1 shows what its gradient is."""
    report = check_vjp(lambda x, b: x + b, lambda d, x, b: (d, factor * d), [np.ones(3), np.array([1e-30, 0, 2e-30])])
    assert not report.check("gradient of b").ok
    assert "wrong: 3 of 3" in report.check("gradient of b").says


@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1])
def test_a_small_factor_is_seen_where_the_numbers_are_small(scale):
    """Steps as long as 1e-8 are too short to show it; the function is the same for longer ones."""
    for seed in range(3):
        x = saturated(seed, scale)
        assert check_vjp(softmax, softmax_vjp, [x], seed=seed, float32=False).ok
        assert not check_vjp(softmax, lambda d, x: softmax_vjp(d, x) * (1 + 1e-9), [x], seed=seed, float32=False).ok


def test_a_gradient_of_which_real_numbers_show_a_part_is_not_called_wrong():
    """A softmax of 1 and 2e-17: the complex step sees both move, and real numbers only the small one, for 1 stays 1."""
    x = np.array([[0.0, -1000.0, -38.4]])
    report = check_vjp(softmax, softmax_vjp, [x])
    assert report.ok, str(report)


@pytest.mark.parametrize("hidden", [-1e9, -1e30])
def test_outputs_behind_a_mask_do_not_excuse_the_others(hidden):
    mask = np.triu(np.ones((4, 4), bool), 1)

    def function(x):
        scores = np.where(mask, hidden, x)
        shifted = scores - scores.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    def vjp(d, x):
        d_scores = d - softmax(np.where(mask, hidden, x)) * d.sum(-1, keepdims=True)
        return np.where(mask, 0, d_scores)

    x = np.random.default_rng(0).standard_normal((4, 4))
    assert check_vjp(function, vjp, [x]).ok
    failed = check_vjp(function, lambda d, x: vjp(d, x) * (1 + 1e-8), [x]).check("gradient of x")
    assert not failed.ok
    assert "wrong: 10 of 16" in failed.says, failed.says     # all that are not masked


@pytest.mark.parametrize("instead", [1e9, 1e30])
def test_a_few_outputs_that_stand_for_infinity_do_not_excuse_the_others(instead):
    first = np.zeros((4, 5), bool)
    first[0, :2] = True

    def function(x):
        return np.where(first, instead, np.tanh(x))

    def vjp(d, x):
        return np.where(first, 0, tanh_vjp(d, x))

    assert check_vjp(function, vjp, [saturated(0, 1)], float32=False).ok
    failed = check_vjp(function, lambda d, x: vjp(d, x) * (1 + 1e-8), [saturated(0, 1)], float32=False).check("gradient of x")
    assert not failed.ok
    assert "wrong: 18 of 20" in failed.says, failed.says


def test_a_backward_that_loses_the_digits_of_a_gradient_that_matters_is_not_excused():
    """x - (x - 1e8 + 1e8) of rounding beside a gradient of 1: no rounding of forward explains it."""
    def lossy(d, x):
        return d * np.cos(x) * ((x + 1e8) - 1e8) / x

    assert not check_vjp(np.sin, lossy, [1 + saturated(0, 0.1)]).ok


def test_of_two_slopes_the_one_that_real_numbers_show_is_believed():
    """A function that is another one for complex numbers: what backward gives is right if it is that of the real one."""
    def function(x):
        return np.sin(x) if np.isrealobj(x) else np.sin(x) * (1 + 1e-5)

    x = np.array([0.3, 1.1, 2.0])
    loss = Loss(pair_of_vjp(function, lambda d, x: d * np.cos(x), [x]), [np.ones(3)])
    for index in range(3):
        move = {0: np.eye(3)[index]}
        assert not is_visible(loss, move, complex_step, float(np.cos(x[index])))
        assert is_visible(loss, move, complex_step, float(np.cos(x[index]) * (1 + 2e-5)))
        assert is_visible(loss, move, complex_step, np.nan)


def test_differences_do_not_call_wrong_what_they_cannot_see():
    """One element of thirty is below the rounding of the outputs. It is counted, and not judged."""
    x = np.random.default_rng(0).standard_normal((5, 6))
    x[0] = [40, 1, 0, -1, 0.5, 2]
    report = check_vjp(softmax, softmax_vjp, [x], method="differences")
    assert report.ok, str(report)
    assert not check_vjp(softmax, lambda d, x: softmax(x) * d, [x], method="differences").ok
