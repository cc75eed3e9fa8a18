"""Plain callables without a cache, and trees of inputs and outputs."""

from typing import NamedTuple

import numpy as np
import pytest

from transformer_np.gradcheck import check_gradients, check_vjp

X = np.random.default_rng(5).standard_normal((2, 3, 5))
W = np.random.default_rng(6).standard_normal((5, 4))


def linear(x, weight):
    return x @ weight


def linear_vjp(d_y, x, weight):
    return d_y @ weight.T, x.reshape(-1, 5).T @ d_y.reshape(-1, 4)


def test_a_function_and_its_vjp():
    report = check_vjp(linear, linear_vjp, [X, W])
    assert report.ok, str(report)
    assert report.name == "linear"
    assert [check.argument for check in report.checks if check.argument] == ["x", "weight"]


def test_a_wrong_vjp_is_named():
    report = check_vjp(linear, lambda d_y, x, weight: (d_y @ weight.T, 2 * linear_vjp(d_y, x, weight)[1]), [X, W])
    assert report.check("gradient of x").ok and not report.check("gradient of weight").ok


# ---------------------------------------------------------------------------------------------------- trees

def test_a_dict_of_weights_has_a_dict_of_gradients():
    def affine(x, weights):
        return {"y": x @ weights["weight"] + weights["bias"], "rows": 6}

    def affine_vjp(d_output, x, weights):
        assert list(weights) == ["weight", "ids", "bias"]
        d_x, d_weight = linear_vjp(d_output, x, weights["weight"])
        return d_x, {"bias": d_output.sum(axis=(0, 1)), "weight": d_weight}

    report = check_vjp(affine, affine_vjp, [X, {"weight": W, "ids": np.arange(3), "bias": W[0]}])
    assert report.ok, str(report)
    assert [check.argument for check in report.checks if check.argument] == ["x", "weights['weight']", "weights['bias']"]


def test_dicts_and_tuples_nest_in_inputs_and_outputs():
    class State(NamedTuple):
        h: np.ndarray
        c: np.ndarray

    def step(x, state):
        return {"y": x * state["top"].h, "state": (State(state["top"].c * x, x + state["low"]), np.arange(2))}

    def step_vjp(d_output, x, state):
        d_y, ((d_h, d_c),) = d_output["y"], d_output["state"]
        assert d_output["state"][0].h is d_h
        return (d_y * state["top"].h + d_h * state["top"].c + d_c,
                {"top": State(d_y * x, d_h * x), "low": d_c})

    report = check_vjp(step, step_vjp, [X, {"top": State(X + 1, X + 2), "low": X + 3}])
    assert report.ok, str(report)
    assert [check.argument for check in report.checks if check.argument] == [
        "x", "state['top'][0]", "state['top'][1]", "state['low']"]


@pytest.mark.parametrize("gradient, message", [
    (lambda d: {"a": d}, "vjp returned a dict of ['a'] for an input that was a dict of ['a', 'b']: missing ['b'], unexpected []"),
    (lambda d: {"a": d, "b": d, "c": d}, "missing [], unexpected ['c']"),
    (lambda d: (d, d), "vjp returned 2 gradients of inputs, expected 1, one for each floating input: w['a'], w['b']"),
    (lambda d: [(d, d)], "vjp returned a tuple of 2 for an input that was a dict, expected a dict"),
])
def test_a_gradient_of_another_form_is_named(gradient, message):
    report = check_vjp(lambda w: w["a"] + w["b"], lambda d_y, w: gradient(d_y), [{"a": X, "b": X}])
    assert message in report.check("function and vjp run").says


@pytest.mark.parametrize("gradients", [lambda d: (d,), lambda d: (d, None), lambda d: (d, None, None)])
def test_an_integer_has_none_for_its_gradient_or_nothing(gradients):
    def take(table, ids, unused):
        return table[ids]

    def take_vjp(d_y, table, ids, unused):
        d_table = np.zeros_like(table)
        np.add.at(d_table, ids, d_y)
        return gradients(d_table)

    report = check_vjp(take, take_vjp, [W, np.array([1, 1, 4]), np.arange(2)])
    assert report.ok, str(report)


ONE_PER_INPUT = {
    "floating": lambda d_a, d_b: (d_a, d_b),
    "floating and None": lambda d_a, d_b: (d_a, d_b, None),
    "all but None": lambda d_a, d_b: (d_a, None, d_b),
    "all": lambda d_a, d_b: (d_a, None, d_b, None),
    "all, and one for a setting": lambda d_a, d_b: (d_a, None, d_b, None, None),
    "jax's of an integer": lambda d_a, d_b: (d_a, np.zeros(1, [("float0", np.void)]), d_b, None),
}


@pytest.mark.parametrize("gradients", ONE_PER_INPUT.values(), ids=ONE_PER_INPUT)
@pytest.mark.parametrize("wrap, unwrap", [(lambda b: b, lambda b: b), (lambda b: (b,), lambda b: b[0])], ids=["array", "tuple"])
@pytest.mark.parametrize("factor", [1, 2])
def test_gradients_come_for_what_is_floating_or_for_more(gradients, wrap, unwrap, factor):
    """An integer stands between two floating inputs, and None behind them."""
    report = check_vjp(lambda a, ids, b, mask: unwrap(b) * a,
                       lambda d, a, ids, b, mask: gradients(d * unwrap(b), wrap(factor * d * a)),
                       [X, np.array([1]), wrap(X + 1), None])
    assert [check.argument for check in report.checks if check.argument and not check.ok] == (
        [] if factor == 1 else [report.checks[1].argument]), str(report)


@pytest.mark.parametrize("gradients", [lambda d: (None, d), lambda d: (None, d, None), lambda d: (None, None, d, None)])
@pytest.mark.parametrize("unused", [W, X + 1], ids=["of another shape", "of the same shape"])
def test_a_none_that_may_be_of_two_inputs_is_of_the_one_that_makes_the_others_fit(gradients, unused):
    report = check_vjp(lambda ids, unused, w, mask: 3 * w, lambda d, ids, unused, w, mask: gradients(3 * d),
                       [np.arange(2), unused, X, None])
    assert report.ok, str(report)


def test_a_gradient_for_an_integer_is_named():
    report = check_vjp(lambda x, ids: 2 * x, lambda d, x, ids: (2 * d, np.zeros(2)), [X, np.arange(2)])
    assert report.check("function and vjp run").says == "vjp returned float64[2] for an input that was int64[2], expected None"


@pytest.mark.parametrize("gradients, ok", [(lambda a, b: ((a, b),), True), (lambda a, b: (a, b), True),
                                           (lambda a, b: (b, a), False), (lambda a, b: (a, None), False),
                                           (lambda a, b: (a,), False)])
def test_the_gradient_of_the_only_input_may_come_bare_where_it_is_a_tuple(gradients, ok):
    report = check_vjp(lambda state: state[0] * state[1], lambda d, state: gradients(d * state[1], d * state[0]), [(X, X + 1)])
    assert report.ok == ok, str(report)


def test_none_declares_a_gradient_absent():
    assert check_vjp(lambda x, unused: 2 * x, lambda d_y, x, unused: (2 * d_y, None), [X, W]).ok
    report = check_vjp(linear, lambda d_y, x, weight: (d_y @ weight.T, None), [X, W])
    assert "vjp gives None" in report.check("gradient of weight").says


# ---------------------------------------------------------------------------------------------------- settings

@pytest.mark.parametrize("setting, message", [({"method": "guess"}, "method 'guess', expected one of auto, complex_step"),
                                              ({"profile": "int8"}, "profile 'int8', expected one of float64")])
def test_a_setting_that_there_is_not_raises(setting, message):
    with pytest.raises(ValueError, match=message):
        check_vjp(linear, linear_vjp, [X, W], **setting)
    with pytest.raises(ValueError, match=message):
        check_gradients(linear, linear_vjp, [X, W], **setting)


@pytest.mark.parametrize("seed", [None, 1.5, -1, "a", True, np.random.default_rng(0)])
def test_a_seed_that_is_no_whole_number_raises(seed):
    with pytest.raises(ValueError, match=r"^seed is .*, expected a whole number of at least 0"):
        check_vjp(linear, linear_vjp, [X, W], seed=seed)
    assert check_vjp(linear, linear_vjp, [X, W], seed=np.int64(3)).ok
