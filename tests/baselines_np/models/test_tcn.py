"""The temporal convolutional network: what it sees, and what it does not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines_np import gradcheck_examples
from baselines_np.convolution import convolution_1d_forward
from baselines_np.models.tcn import (
    CausalConvolution,
    ResidualBlock,
    TemporalConvolutionalNetwork,
    spatial_dropout_backward,
    spatial_dropout_forward,
)
from transformer_np.layer import count_parameters, named_arrays

V, D, T = 7, 4, 6


def create(*, num_layers=2, kernel_size=2, dropout=0.0, dtype=np.float64, seed=0):
    return TemporalConvolutionalNetwork.create(V, d_model=D, num_layers=num_layers, kernel_size=kernel_size,
                                               rng=np.random.default_rng(seed), dropout=dropout, dtype=dtype)


def draw(seed, batch=2, steps=T):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (batch, steps)), rng.standard_normal((batch, steps, V))


def test_backward_agrees_with_the_complex_step():
    for examples in (gradcheck_examples.temporal_convolutional_network, gradcheck_examples.spatial_dropout):
        for example in examples(np.random.default_rng(1)):
            example.check(1).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@pytest.mark.parametrize(("num_layers", "kernel_size", "expected"), [(1, 1, 1), (1, 2, 3), (2, 2, 7), (3, 3, 29), (4, 2, 31)])
def test_gradient_reaches_the_receptive_field_and_is_exactly_zero_beyond(num_layers, kernel_size, expected):
    model = create(num_layers=num_layers, kernel_size=kernel_size)
    assert model.receptive_field == expected
    steps = expected + 5
    x = np.random.default_rng(1).standard_normal((20, steps, D))                # of 20 sequences one gets through every ReLU
    caches = []
    for block in model.blocks:
        x, cache = block.forward(x)
        caches.append(cache)
    d_x = np.zeros_like(x)
    d_x[:, -1] = 1
    for block, cache in zip(reversed(model.blocks), reversed(caches), strict=True):
        d_x, _ = block.backward(d_x, cache)
    reached = np.flatnonzero(d_x.any(axis=(0, 2)))
    assert reached.min() == steps - expected
    assert reached.max() == steps - 1


@given(st.integers(0, 2**32 - 1), st.integers(0, 11))
def test_logits_depend_on_the_tokens_of_the_receptive_field_alone(seed, t):
    model = create()
    tokens, _ = draw(seed, steps=12)
    outside = (np.arange(12) > t) | (np.arange(12) <= t - model.receptive_field)
    changed = np.where(outside, (tokens + 1) % V, tokens)
    np.testing.assert_array_equal(model.forward(changed)[0][:, t], model.forward(tokens)[0][:, t])


def test_a_block_without_convolutions_is_its_skip():
    block = ResidualBlock.create(4, 3, 2, dilation=1, rng=np.random.default_rng(0), dtype=np.float64)
    for convolution in (block.first, block.second):
        convolution.gain[:] = 0
    x = np.random.default_rng(1).standard_normal((2, 5, 4))
    y, _ = block.forward(x)
    np.testing.assert_allclose(y, np.maximum(x @ block.skip.weight, 0), rtol=1e-13)
    assert ResidualBlock.create(4, 4, 2, dilation=1, rng=np.random.default_rng(0)).skip is None


def test_a_block_agrees_with_the_paper_written_out():
    rng = np.random.default_rng(0)
    block = ResidualBlock.create(3, 3, 2, dilation=2, rng=rng, dtype=np.float64)
    x = rng.standard_normal((2, 6, 3))

    def convolve(layer, x):
        length = np.sqrt((layer.direction ** 2).sum(axis=(0, 1)))
        return convolution_1d_forward(x, layer.gain * layer.direction / length, layer.bias, padding=(2, 0), dilation=2)[0]

    expected = np.maximum(np.maximum(convolve(block.second, np.maximum(convolve(block.first, x), 0)), 0) + x, 0)
    np.testing.assert_allclose(block.forward(x)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("num_layers", [1, 4, 8])
def test_logits_start_with_unit_variance_at_every_depth(num_layers):
    rng = np.random.default_rng(0)
    model = TemporalConvolutionalNetwork.create(50, d_model=64, num_layers=num_layers, kernel_size=3, rng=rng)
    assert model.forward(rng.integers(0, 50, (4, 32)))[0].std() == pytest.approx(1, abs=0.15)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_spatial_dropout_keeps_or_drops_whole_channels(seed, p):
    x = np.random.default_rng(seed).standard_normal((3, 5, 4))
    y, cache = spatial_dropout_forward(x, p, np.random.default_rng(seed))
    for b, c in np.ndindex(3, 4):
        assert not y[b, :, c].any() or np.allclose(y[b, :, c], x[b, :, c] / (1 - p), rtol=1e-12)
    np.testing.assert_array_equal(spatial_dropout_backward(x, cache), y)


# ---------------------------------------------------------------------------------------------------- traps

def test_dropout_is_drawn_only_while_training(dropout_masks):
    model = create(dropout=0.5)
    tokens, _ = draw(0)
    dropped, cache = model.forward(tokens, rng=np.random.default_rng(3))
    assert [(mask == 0).any() for mask in dropout_masks(cache)] == [True] * 4   # two in each block
    np.testing.assert_array_equal(model.forward(tokens, rng=np.random.default_rng(3))[0], dropped)
    assert (dropped != model.forward(tokens)[0]).any()
    np.testing.assert_array_equal(model.forward(tokens)[0], create().forward(tokens)[0])


def test_the_gradient_of_each_block_has_the_settings_of_that_block():
    model = create(num_layers=3)
    tokens, d_logits = draw(0)
    gradient = model.backward(d_logits, model.forward(tokens)[1])
    assert [(block.first.dilation, block.second.dilation) for block in gradient.blocks] == [(1, 1), (2, 2), (4, 4)]


def test_a_causal_convolution_adds_its_bias():
    layer = CausalConvolution.create(3, 4, 2, dilation=1, rng=np.random.default_rng(0), dtype=np.float64)
    x, bias = np.random.default_rng(1).standard_normal((2, 5, 3)), np.arange(1.0, 5.0)
    y, cache = replace(layer, bias=bias).forward(x)
    np.testing.assert_allclose(y, layer.forward(x)[0] + bias, rtol=1e-13)
    assert layer.backward(np.ones_like(y), cache)[1].bias.shape == (4,)


def test_tokens_may_be_a_list():
    np.testing.assert_array_equal(create().forward([[0, 6, 1]])[0], create().forward(np.array([[0, 6, 1]]))[0])


def test_parameters_are_counted():
    # a direction, a gain and a bias in each of two convolutions of two blocks
    assert count_parameters(create()) == V * D + 2 * 2 * (2 * D * D + 2 * D) + D * V + V


@pytest.mark.parametrize(("batch", "steps"), [(0, T), (2, 0), (1, 1)])
def test_empty_and_single_sequences_work(batch, steps):
    model = create(dtype=np.float32)
    tokens, d_logits = draw(0, batch, steps)
    logits, cache = model.forward(tokens)
    gradient = model.backward(d_logits.astype(np.float32), cache)
    assert logits.shape == (batch, steps, V)
    assert logits.dtype == np.float32
    for name, array in named_arrays(gradient).items():
        assert array.dtype == np.float32
        assert array.shape == named_arrays(model)[name].shape
        assert batch * steps or not array.any()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^TemporalConvolutionalNetwork: num_layers 0, expected at least 1"):
        create(num_layers=0)
    with pytest.raises(ValueError, match=r"^TemporalConvolutionalNetwork: kernel_size 0, expected at least 1"):
        create(kernel_size=0)
    with pytest.raises(ValueError, match=r"^TemporalConvolutionalNetwork: dropout -0.1, expected 0 <= dropout < 1"):
        create(dropout=-0.1)
    with pytest.raises(ValueError, match=r"^TemporalConvolutionalNetwork: tokens \[3\], expected \[B, T\]"):
        create().forward(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"ids from -1 to 0, expected 0 to 6"):
        create().forward(np.array([[0, -1]]))
