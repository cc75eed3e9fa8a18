"""The convolution beside its equation, number by number, in every geometry that the gradient checker's strategies draw."""

import numpy as np
from hypothesis import given

from baselines_np.convolution import (
    convolution_1d_backward,
    convolution_1d_backward_naive,
    convolution_1d_forward,
    convolution_1d_forward_naive,
)
from transformer_np.gradcheck import strategies as draw


@given(draw.convolutions(max_length=6), draw.seeds(), draw.layouts())
def test_a_convolution_is_its_equation_in_every_geometry_and_layout(geometry, seed, drawn):
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal(geometry.x_shape), rng.standard_normal(geometry.weight_shape)
    bias = rng.standard_normal(geometry.channels_out)
    _, layout = drawn
    y, cache = convolution_1d_forward(layout(x), layout(weight), layout(bias), **geometry.settings)
    expected, naive = convolution_1d_forward_naive(x, weight, bias, **geometry.settings)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    d_y = rng.standard_normal(y.shape)
    for ours, theirs in zip(convolution_1d_backward(layout(d_y), cache), convolution_1d_backward_naive(d_y, naive), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
