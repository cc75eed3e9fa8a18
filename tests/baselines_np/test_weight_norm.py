"""Weight normalization: a second opinion and its theorems."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines_np import gradcheck_examples
from baselines_np.weight_norm import weight_norm_backward, weight_norm_forward

seeds = st.integers(0, 2**32 - 1)


def draw(seed, shape=(3, 2, 4)):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape[-1]), rng.standard_normal(shape)


def test_backward_agrees_with_the_complex_step():
    for example in gradcheck_examples.weight_norm(np.random.default_rng(1)):
        example.check(1).raise_if_failed()


def test_weight_norm_agrees_with_pytorch(torch, torch_vjp, assert_close):
    direction, gain, d_weight = draw(0)
    weight, cache = weight_norm_forward(direction, gain)
    theirs = torch_vjp(lambda v, g: g * torch.nn.functional.normalize(v, dim=(0, 1)), d_weight, direction, gain)
    assert_close((weight, weight_norm_backward(d_weight, cache)), theirs)


@given(seeds)
def test_the_length_is_the_gain(seed):
    direction, gain, _ = draw(seed)
    weight, _ = weight_norm_forward(direction, gain)
    np.testing.assert_allclose(np.linalg.norm(weight.reshape(-1, 4), axis=0), np.abs(gain), rtol=1e-12)


@given(seeds, st.floats(1e-100, 1e100))
def test_the_length_of_the_direction_does_not_matter_and_its_gradient_is_at_right_angles(seed, factor):
    direction, gain, d_weight = draw(seed)
    weight, cache = weight_norm_forward(direction, gain)
    scaled, _ = weight_norm_forward(factor * direction, gain)
    np.testing.assert_allclose(scaled, weight, rtol=1e-12)
    d_direction, _ = weight_norm_backward(d_weight, cache)
    np.testing.assert_allclose((d_direction * direction).sum(axis=(0, 1)), 0, atol=1e-11)


def test_a_direction_of_one_number_for_each_output_is_a_sign():
    weight, _ = weight_norm_forward(np.array([3.0, -0.5]), np.array([2.0, 4.0]))
    np.testing.assert_array_equal(weight, [2, -4])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^weight_norm: gain \[3\], expected the last axis of direction \[5, 4\]"):
        weight_norm_forward(np.ones((5, 4)), np.ones(3))
    with pytest.raises(ValueError, match=r"^weight_norm: gain \[\], expected the last axis of direction \[\]"):
        weight_norm_forward(np.float64(1), np.float64(1))
    with pytest.raises(ValueError, match=r"^weight_norm: the direction of output 1 is all 0"):
        weight_norm_forward(np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones(2))
