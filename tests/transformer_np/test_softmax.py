"""Softmax and log_softmax: second opinions, theorems, traps."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.gradcheck import check_gradients
from transformer_np.softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
PAIRS = [(softmax_forward, softmax_backward), (log_softmax_forward, log_softmax_backward)]
both = pytest.mark.parametrize(("forward", "backward"), PAIRS, ids=["softmax", "log_softmax"])


def draw(seed, shape, axis=-1):
    """Numbers of very different size, a cotangent, and a mask that leaves at least one entry along the axis."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.6
    np.put_along_axis(mask, np.zeros_like(mask.take([0], axis), int), True, axis)
    return 5 * rng.standard_normal(shape), rng.standard_normal(shape), mask


# ---------------------------------------------------------------------------------------------------- second opinions

@given(seeds, shapes, st.data())
def test_softmax_agrees_with_scipy(assert_close, seed, shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, _, _ = draw(seed, shape)
    assert_close(softmax_forward(x, axis=axis)[0], scipy.special.softmax(x, axis=axis), 1e-14)
    assert_close(log_softmax_forward(x, axis=axis)[0], scipy.special.log_softmax(x, axis=axis), 1e-14)


def test_masked_softmax_agrees_with_a_softmax_of_what_is_allowed(assert_close):
    x, _, mask = draw(0, (4, 6))
    y, _ = softmax_forward(x, mask)
    log_y, _ = log_softmax_forward(x, mask)
    for row in range(4):
        allowed = mask[row]
        assert_close(y[row][allowed], scipy.special.softmax(x[row][allowed]), 1e-14)
        assert_close(log_y[row][allowed], scipy.special.log_softmax(x[row][allowed]), 1e-14)
        assert (y[row][~allowed] == 0).all()
        assert (log_y[row][~allowed] == -np.inf).all()


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_softmax_and_its_gradient_agree_with_pytorch(torch, torch_vjp, assert_close, axis, masked):
    x, d_y, mask = draw(1, (3, 4, 5), axis)
    mask = mask if masked else np.ones_like(mask)
    hidden = torch.tensor(~mask)
    theirs = torch_vjp(lambda x: torch.softmax(x.masked_fill(hidden, -torch.inf), axis), d_y, x)
    y, cache = softmax_forward(x, mask, axis=axis)
    assert_close((y, (softmax_backward(d_y, cache),)), theirs)

    # log_softmax is -inf where masked, so the two are compared on what is allowed
    def allowed_log_softmax(x):
        return torch.log_softmax(x.masked_fill(hidden, -torch.inf), axis).masked_fill(hidden, 0)

    theirs = torch_vjp(allowed_log_softmax, d_y, x)
    y, cache = log_softmax_forward(x, mask, axis=axis)
    assert_close((np.where(mask, y, 0), (log_softmax_backward(d_y, cache),)), theirs)


@both
@given(seeds, shapes, st.booleans(), st.data())
def test_backward_agrees_with_the_complex_step(forward, backward, seed, shape, masked, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, _, mask = draw(seed, shape, axis)
    # an infinite output has no derivative: masked entries of log_softmax are set to 0 behind it
    def finite(x):
        y, cache = forward(x, mask if masked else None, axis=axis)
        return np.where(y.real == -np.inf, 0, y), cache
    check_gradients(finite, backward, [x], seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@both
@given(seeds, st.floats(-1000, 1000))
def test_softmax_is_invariant_to_shift(forward, backward, seed, shift):
    x, d_y, mask = draw(seed, (3, 5))
    y, cache = forward(x, mask)
    shifted_y, shifted_cache = forward(x + shift, mask)
    # x + 1000 is rounded to 1e-13, and exp turns that into a relative error of the same size
    np.testing.assert_allclose(shifted_y, y, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(backward(d_y, shifted_cache), backward(d_y, cache), rtol=0, atol=1e-11)


@both
@given(seeds, shapes)
def test_the_gradient_along_a_shift_is_zero(forward, backward, seed, shape):
    x, d_y, mask = draw(seed, shape)
    d_x = backward(d_y, forward(x, mask)[1])
    np.testing.assert_allclose(d_x.sum(axis=-1), 0, atol=1e-14 * shape[-1])  # rounding of a sum of numbers near 1


@given(seeds, shapes)
def test_probabilities_sum_to_one_over_allowed_entries(seed, shape):
    x, _, mask = draw(seed, shape)
    y, _ = softmax_forward(x, mask)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-14)


@given(seeds, shapes)
def test_log_softmax_is_the_logarithm_of_softmax(seed, shape):
    x, _, _ = draw(seed, shape)
    np.testing.assert_allclose(np.exp(log_softmax_forward(x)[0]), softmax_forward(x)[0], rtol=1e-12)


@both
@given(seeds)
def test_contents_of_masked_entries_are_irrelevant(forward, backward, seed):
    x, d_y, mask = draw(seed, (3, 5))
    spoiled = np.where(mask, x, np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 1e300], x.shape))
    (y, cache), (spoiled_y, spoiled_cache) = forward(x, mask), forward(spoiled, mask)
    np.testing.assert_array_equal(spoiled_y, y)
    np.testing.assert_array_equal(backward(d_y, spoiled_cache), backward(d_y, cache))
    assert (backward(d_y, cache)[~mask] == 0).all()


# ---------------------------------------------------------------------------------------------------- traps

@both
def test_large_numbers_do_not_overflow(forward, backward):
    for dtype in (np.float32, np.float64):
        x = np.array([[1e4, 1e4, -1e4], [1e30, -1e30, 0]], dtype)
        y, cache = forward(x)
        expected = [[0.5, 0.5, 0], [1, 0, 0]]
        np.testing.assert_allclose(y if forward is softmax_forward else np.exp(y), expected, rtol=1e-6)
        assert np.isfinite(backward(np.ones_like(x), cache)).all()


def test_log_softmax_keeps_what_softmax_underflows():
    np.testing.assert_array_equal(log_softmax_forward(np.array([0.0, -2000.0]))[0], [0, -2000])


def test_a_row_without_allowed_entries_is_zero_with_zero_gradient():
    x, d_y, mask = draw(0, (3, 4))
    mask[1] = False
    y, cache = softmax_forward(x, mask)
    assert (y[1] == 0).all()
    assert (softmax_backward(d_y, cache)[1] == 0).all()
    log_y, cache = log_softmax_forward(x, mask)
    assert (log_y[1] == -np.inf).all()
    assert (log_softmax_backward(d_y, cache)[1] == 0).all()


@both
def test_a_row_of_minus_infinity_is_not_nan(forward, backward):
    x = np.array([[-np.inf, -np.inf], [-np.inf, 3.0]])
    y, cache = forward(x)
    probabilities = y if forward is softmax_forward else np.exp(y)
    np.testing.assert_array_equal(probabilities, [[0, 0], [0, 1]])
    assert not np.isnan(backward(np.ones_like(x), cache)).any()


@both
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (0, 0)])
def test_an_empty_axis_gives_an_empty_result(forward, backward, shape):
    y, cache = forward(np.zeros(shape), np.zeros(shape, bool))
    assert y.shape == shape
    assert backward(np.zeros(shape), cache).shape == shape


@both
def test_a_mask_may_be_a_list(forward, backward):
    x, mask = np.array([[1.0, 2.0, 3.0]]), [[True, False, True]]
    np.testing.assert_array_equal(forward(x, mask)[0], forward(x, np.array(mask))[0])


@both
def test_bad_masks_raise(forward, backward):
    name = forward.__name__.removesuffix("_forward")
    with pytest.raises(ValueError, match=rf"^{name}: mask must be boolean \(True = takes part\), got float64"):
        forward(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=rf"^{name}: mask \[2, 2\] does not broadcast to x \[2, 3\]"):
        forward(np.zeros((2, 3)), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match=rf"^{name}: mask \[4, 2, 3\] does not broadcast to x \[2, 3\]"):
        forward(np.zeros((2, 3)), np.zeros((4, 2, 3), bool))
