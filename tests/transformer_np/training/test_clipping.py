"""Clipping by the global norm, on good gradients and on broken ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_np.layer import map_arrays, named_arrays
from transformer_np.linear import Linear
from transformer_np.training.clipping import clip_by_global_norm, global_norm


def gradient(*numbers, dtype=np.float64):
    """Some of the numbers in a matrix, the others in a vector: the norm is over both."""
    return Linear(np.array([numbers[:2]], dtype), np.array(numbers[2:], dtype))


def test_the_norm_is_over_all_arrays_together():
    assert global_norm(gradient(1, 2, 2)) == 3.0
    assert global_norm(gradient(2, 3, 6)) == 7.0


def test_pytorch_has_the_same_norm_and_clips_to_the_same_gradient():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = Linear(rng.standard_normal((7, 5)), rng.standard_normal(5))
    theirs = [torch.nn.Parameter(torch.zeros(array.shape)).double() for array in (ours.weight, ours.bias)]
    for parameter, array in zip(theirs, (ours.weight, ours.bias), strict=True):
        parameter.grad = torch.tensor(array)
    clipped, norm = clip_by_global_norm(ours, 0.5)
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 0.5)), rel=1e-12)
    np.testing.assert_allclose(clipped.weight, theirs[0].grad.numpy(), rtol=1e-5)  # PyTorch adds 1e-6 to the norm


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=6), st.floats(1e-3, 1e4))
@settings(max_examples=50, deadline=None)
def test_a_clipped_gradient_keeps_its_direction_and_is_no_longer_than_the_limit(numbers, limit):
    given_gradient = gradient(*numbers)
    clipped, norm = clip_by_global_norm(given_gradient, limit)
    assert norm == pytest.approx(math.sqrt(sum(x * x for x in numbers)), rel=1e-12)
    assert global_norm(clipped) == pytest.approx(min(norm, limit), rel=1e-12)
    for name, array in named_arrays(clipped).items():
        np.testing.assert_allclose(array * max(norm, limit), named_arrays(given_gradient)[name] * limit, rtol=1e-12,
                                   atol=1e-300)


def test_a_gradient_within_the_limit_is_handed_back_as_it_came():
    short = gradient(1, 2, 2)
    assert clip_by_global_norm(short, 3.0) == (short, 3.0)
    assert clip_by_global_norm(short, math.inf) == (short, 3.0)


def test_a_norm_of_zero_leaves_the_gradient_at_zero():
    clipped, norm = clip_by_global_norm(gradient(0, 0, 0), 1.0)
    assert norm == 0.0
    np.testing.assert_array_equal(clipped.weight, 0)


@pytest.mark.parametrize(("bad", "norm"), [(math.inf, math.inf), (-math.inf, math.inf), (math.nan, math.nan)])
@pytest.mark.parametrize("place", [0, 2])
def test_a_norm_that_is_not_finite_leaves_the_gradient_and_is_told(bad, norm, place):
    numbers = [1.0, 2.0, 3.0]
    numbers[place] = bad
    broken = gradient(*numbers)
    clipped, found = clip_by_global_norm(broken, 1.0)
    assert clipped is broken
    np.testing.assert_equal(found, norm)


def test_nan_wins_over_inf():
    assert math.isnan(global_norm(gradient(math.inf, 1, math.nan)))


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_squares_that_would_overflow_or_underflow_do_not(size):
    assert global_norm(gradient(2 * size, 3 * size, 6 * size, dtype=np.float32)) == pytest.approx(7 * size, rel=1e-6)


def test_the_dtype_stays_and_nothing_is_written_to():
    long = map_arrays(lambda a: a.astype(np.float32), gradient(3, 4, 12))
    for array in named_arrays(long).values():
        array.setflags(write=False)
    clipped, norm = clip_by_global_norm(long, np.float64(1.0))
    assert type(norm) is float
    assert clipped.weight.dtype == clipped.bias.dtype == np.float32


def test_an_empty_tree_has_norm_zero():
    assert global_norm(Linear(np.zeros((0, 3)), None)) == 0.0


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match="max_norm"):
        clip_by_global_norm(gradient(1, 2, 3), limit)
