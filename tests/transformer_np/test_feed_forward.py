"""The feed-forward network: second opinions and traps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.checkpoints.pytorch import linear_from_pytorch, linear_to_pytorch
from transformer_np.feed_forward import FeedForward
from transformer_np.gradcheck import check_layer, with_random_weights

seeds = st.integers(0, 2**32 - 1)
ACTIVATIONS = ["relu", "gelu", "gelu_tanh"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_and_its_gradients_agree_with_pytorch(torch, torch_module, assert_close, activation):
    rng = np.random.default_rng(0)
    x, d_y = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    between = {"relu": torch.nn.ReLU(), "gelu": torch.nn.GELU(), "gelu_tanh": torch.nn.GELU(approximate="tanh")}[activation]
    module = torch.nn.Sequential(torch.nn.Linear(4, 7), between, torch.nn.Linear(7, 4))
    state, y, d_inputs, d_state = torch_module(module, d_y, x)
    layer = FeedForward(linear_from_pytorch(state, prefix="0."), linear_from_pytorch(state, prefix="2."), activation)
    our_y, cache = layer.forward(x)
    d_x, d_layer = layer.backward(d_y, cache)
    assert_close((our_y, (d_x,)), (y, d_inputs))
    assert_close(linear_to_pytorch(d_layer.expand, prefix="0.") | linear_to_pytorch(d_layer.contract, prefix="2."), d_state)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(seeds, st.lists(st.integers(1, 3), max_size=2).map(tuple), st.booleans())
def test_backward_agrees_with_the_complex_step(activation, seed, leading, bias):
    rng = np.random.default_rng(seed)
    layer = with_random_weights(FeedForward.create(3, 5, activation=activation, rng=rng, bias=bias), rng)
    check_layer(layer, [rng.standard_normal((*leading, 3))], seed=seed).raise_if_failed()


@given(seeds)
def test_each_position_is_on_its_own(seed):
    rng = np.random.default_rng(seed)
    layer = with_random_weights(FeedForward.create(3, 5, rng=rng), rng)
    x = rng.standard_normal((2, 4, 3))
    y, _ = layer.forward(x)
    for index in np.ndindex(2, 4):
        np.testing.assert_allclose(y[index], layer.forward(x[index])[0], rtol=0, atol=1e-13)


def test_an_unknown_activation_raises():
    with pytest.raises(ValueError, match=r"^FeedForward: activation 'swish', expected one of relu, gelu, gelu_tanh"):
        FeedForward.create(3, 5, activation="swish", rng=np.random.default_rng(0))
