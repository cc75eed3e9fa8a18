"""Encoder and decoder blocks: second opinions, theorems, traps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.blocks import DecoderBlock, EncoderBlock
from transformer_np.checkpoints.pytorch import (
    decoder_block_from_pytorch,
    decoder_block_to_pytorch,
    encoder_block_from_pytorch,
    encoder_block_to_pytorch,
)
from transformer_np.gradcheck import check_layer, with_random_weights
from transformer_np.layer import map_arrays
from transformer_np.masks import causal_mask, padding_mask

seeds = st.integers(0, 2**32 - 1)
orders = pytest.mark.parametrize("pre_norm", [True, False], ids=["pre-norm", "post-norm"])


def random_block(cls, seed, d_model=4, num_heads=2, d_hidden=5, **settings):
    rng = np.random.default_rng(seed)
    return with_random_weights(cls.create(d_model, num_heads, d_hidden, rng=rng, **settings), rng)


def draw(seed, B=2, T=3, S=5, D=4):
    """x, memory, a cotangent of y."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, T, D)), rng.standard_normal((B, S, D)), rng.standard_normal((B, T, D))


# ---------------------------------------------------------------------------------------------------- second opinions

@orders
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_block_and_its_gradients_agree_with_pytorch(torch, torch_module, assert_close, pre_norm, activation):
    x, _, d_y = draw(0, D=6)
    module = torch.nn.TransformerEncoderLayer(6, 2, 7, dropout=0.0, activation=activation, batch_first=True,
                                              norm_first=pre_norm)
    lengths = np.array([3, 2])
    state, y, d_inputs, d_state = torch_module(module, d_y, x, src_mask=~causal_mask(3),
                                               src_key_padding_mask=~padding_mask(lengths, 3)[:, 0, 0])
    block = encoder_block_from_pytorch(state, num_heads=2, norm_first=pre_norm, activation=activation)
    our_y, cache = block.forward(x, causal_mask(3) & padding_mask(lengths, 3))
    d_x, d_block = block.backward(d_y, cache)
    assert_close((our_y, (d_x,)), (y, d_inputs))
    assert_close(encoder_block_to_pytorch(d_block), d_state)


@orders
def test_a_decoder_block_and_its_gradients_agree_with_pytorch(torch, torch_module, assert_close, pre_norm):
    x, memory, d_y = draw(0, D=6)
    module = torch.nn.TransformerDecoderLayer(6, 2, 7, dropout=0.0, batch_first=True, norm_first=pre_norm)
    lengths = np.array([5, 2])
    state, y, d_inputs, d_state = torch_module(module, d_y, x, memory, tgt_mask=~causal_mask(3),
                                               memory_key_padding_mask=~padding_mask(lengths, 5)[:, 0, 0])
    block = decoder_block_from_pytorch(state, num_heads=2, norm_first=pre_norm)
    our_y, cache = block.forward(x, memory, causal_mask(3), padding_mask(lengths, 5))
    d_x, d_memory, d_block = block.backward(d_y, cache)
    assert_close((our_y, (d_x, d_memory)), (y, d_inputs))
    assert_close(decoder_block_to_pytorch(d_block), d_state)


@orders
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_backward_of_an_encoder_block_agrees_with_the_complex_step(pre_norm, dropout):
    block = random_block(EncoderBlock, 0, pre_norm=pre_norm, activation="gelu", dropout=dropout)
    check_layer(block, [draw(0)[0], causal_mask(3)], rng_seed=1).raise_if_failed()


@orders
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_backward_of_a_decoder_block_agrees_with_the_complex_step(pre_norm, dropout):
    block = random_block(DecoderBlock, 0, pre_norm=pre_norm, activation="gelu_tanh", dropout=dropout)
    check_layer(block, [*draw(0)[:2], causal_mask(3), padding_mask([2, 5], 5)], rng_seed=1).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@given(seeds)
def test_a_pre_norm_block_that_adds_nothing_is_the_identity(seed):
    x, memory, d_y = draw(seed)
    encoder = random_block(EncoderBlock, seed)
    decoder = random_block(DecoderBlock, seed)

    def silent(sublayer, name, part):
        inner = getattr(sublayer, name)
        return replace(sublayer, **{name: replace(inner, **{part: map_arrays(np.zeros_like, getattr(inner, part))})})

    encoder = replace(encoder, self_attention=silent(encoder.self_attention, "attention", "output"),
                      feed_forward=silent(encoder.feed_forward, "feed_forward", "contract"))
    y, cache = encoder.forward(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(encoder.backward(d_y, cache)[0], d_y)

    decoder = replace(decoder, self_attention=silent(decoder.self_attention, "attention", "output"),
                      cross_attention=silent(decoder.cross_attention, "attention", "output"),
                      feed_forward=silent(decoder.feed_forward, "feed_forward", "contract"))
    y, cache = decoder.forward(x, memory)
    d_x, d_memory, _ = decoder.backward(d_y, cache)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(d_x, d_y)
    np.testing.assert_array_equal(d_memory, np.zeros_like(memory))


@given(seeds, st.floats(-50, 50))
def test_a_shift_of_the_residual_stream_passes_through_a_pre_norm_block(seed, shift):
    # the norms do not see it, the residual path carries it
    x, _, _ = draw(seed)
    block = random_block(EncoderBlock, seed)
    np.testing.assert_allclose(block.forward(x + shift)[0], block.forward(x)[0] + shift, rtol=0, atol=1e-10)


@given(seeds)
def test_a_post_norm_block_ends_with_its_norm(seed):
    block = random_block(EncoderBlock, seed, pre_norm=False)
    last = block.feed_forward.norm
    y, _ = block.forward(draw(seed)[0])
    normalized = (y - last.bias) / last.gain
    np.testing.assert_allclose(normalized.mean(axis=-1), 0, atol=1e-8)  # a gain near 0 takes digits away
    assert (normalized.var(axis=-1) <= 1 + 1e-8).all()


@orders
@given(seeds, st.integers(0, 2))
def test_a_block_under_a_causal_mask_does_not_look_ahead(pre_norm, seed, t):
    x, memory, d_y = draw(seed)
    block = random_block(DecoderBlock, seed, pre_norm=pre_norm)
    y, cache = block.forward(x, memory, causal_mask(3))
    changed = np.concatenate([x[:, :t + 1], 9 - x[:, t + 1:]], axis=1)
    changed_y, _ = block.forward(changed, memory, causal_mask(3))
    np.testing.assert_allclose(changed_y[:, :t + 1], y[:, :t + 1], rtol=0, atol=1e-13)
    d_y[:, :t] = 0
    d_y[:, t + 1:] = 0
    assert (block.backward(d_y, cache)[0][:, t + 1:] == 0).all()


@orders
@given(seeds, st.permutations(range(3)))
def test_a_block_without_mask_does_not_know_the_order(pre_norm, seed, order):
    x, _, d_y = draw(seed)
    block = random_block(EncoderBlock, seed, pre_norm=pre_norm)
    y, cache = block.forward(x)
    permuted_y, permuted_cache = block.forward(x[:, order])
    np.testing.assert_allclose(permuted_y, y[:, order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(block.backward(d_y[:, order], permuted_cache)[0], block.backward(d_y, cache)[0][:, order],
                               rtol=0, atol=1e-11)


@orders
@given(seeds)
def test_each_sublayer_draws_its_own_dropout(pre_norm, seed):
    # and backward uses it: one generator serves two forwards, whose backwards come in reverse order
    x, _, d_y = draw(seed)
    block = random_block(EncoderBlock, seed, pre_norm=pre_norm, dropout=0.4)
    alone = [block.forward(x, rng=np.random.default_rng(seed)) for _ in range(2)]
    np.testing.assert_array_equal(alone[0][0], alone[1][0])
    rng = np.random.default_rng(seed)
    first, second = block.forward(x, rng=rng), block.forward(x, rng=rng)
    np.testing.assert_array_equal(first[0], alone[0][0])
    assert np.abs(second[0] - first[0]).max() > 0
    masks = [cache.dropout.keep for cache in (first[1].self_attention, first[1].feed_forward)]
    assert (masks[0] != masks[1]).any()
    block.backward(d_y, second[1])
    np.testing.assert_array_equal(block.backward(d_y, first[1])[0], block.backward(d_y, alone[0][1])[0])


@orders
@pytest.mark.parametrize(("cls", "count"), [(EncoderBlock, 3), (DecoderBlock, 5)])
def test_every_dropout_of_a_block_draws_with_a_generator_and_only_then(dropout_masks, pre_norm, cls, count):
    x, memory, _ = draw(0)
    block = random_block(cls, 0, pre_norm=pre_norm, dropout=0.4)
    inputs = (x,) if cls is EncoderBlock else (x, memory)
    drawn = dropout_masks(block.forward(*inputs, rng=np.random.default_rng(1))[1])
    assert len(drawn) == count                                                  # of the weights, and of each sublayer
    assert all((mask == 0).any() for mask in drawn)
    assert dropout_masks(block.forward(*inputs)[1]) == [None] * count


@orders
@given(seeds, st.integers(0, 4))
def test_what_the_memory_mask_hides_has_no_influence(pre_norm, seed, hidden):
    x, memory, d_y = draw(seed)
    block = random_block(DecoderBlock, seed, pre_norm=pre_norm)
    memory_mask = np.arange(5) != hidden
    y, cache = block.forward(x, memory, None, memory_mask)
    other = memory.copy()
    other[:, hidden] += 1
    np.testing.assert_array_equal(block.forward(x, other, None, memory_mask)[0], y)
    assert np.abs(block.forward(x, memory)[0] - y).max() > 0
    assert (block.backward(d_y, cache)[1][:, hidden] == 0).all()


# ---------------------------------------------------------------------------------------------------- traps

@orders
@pytest.mark.parametrize(("B", "T", "S"), [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_axes_work(pre_norm, B, T, S):
    x, memory, d_y = draw(0, B, T, S)
    block = random_block(DecoderBlock, 0, pre_norm=pre_norm)
    y, cache = block.forward(x, memory, causal_mask(T), np.ones((T, S), bool))
    d_x, d_memory, _ = block.backward(d_y, cache)
    assert (y.shape, d_x.shape, d_memory.shape) == (x.shape, x.shape, memory.shape)
    block = random_block(EncoderBlock, 0, pre_norm=pre_norm)
    y, cache = block.forward(x)
    assert (y.shape, block.backward(d_y, cache)[0].shape) == (x.shape, x.shape)


def test_an_encoder_block_shows_who_looked_where():
    block = random_block(EncoderBlock, 0)
    _, cache = block.forward(draw(0)[0], causal_mask(3))
    assert cache.weights.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(cache.weights.sum(axis=-1), 1)


def test_heads_that_do_not_divide_the_width_raise():
    for cls in (EncoderBlock, DecoderBlock):
        with pytest.raises(ValueError, match=r"^MultiHeadAttention: num_heads 3 does not divide d_model 4"):
            cls.create(4, 3, 5, rng=np.random.default_rng(0))
