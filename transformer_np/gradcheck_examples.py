"""What every pair and layer of this package is checked with. `transformer_np.gradcheck.examples` says how to write one.

Sizes are all different: B 2, T 3, S 5 or 4, D 6, H 3 or 2, V 7, so that no two axes can be taken for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from transformer_np.activations import (
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from transformer_np.attention import MultiHeadAttention, attention_backward, attention_forward
from transformer_np.blocks import (
    DecoderBlock,
    EncoderBlock,
)
from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.dropout import dropout_backward, dropout_forward
from transformer_np.embedding import Embedding, embedding_backward, embedding_backward_naive, embedding_forward
from transformer_np.feed_forward import FeedForward
from transformer_np.gradcheck.examples import Example, layer_example, pair_example, random_mask, with_random_weights
from transformer_np.layer import Array
from transformer_np.linear import Linear, linear_backward, linear_forward
from transformer_np.masks import causal_mask, combine_masks, padding_mask
from transformer_np.models.gpt import GPT
from transformer_np.normalization import LayerNorm, layer_norm_backward, layer_norm_forward
from transformer_np.positional_encoding import (
    LearnedPositions,
    SinusoidalPositions,
    learned_positions_backward,
    learned_positions_forward,
    sinusoidal_positions_backward,
    sinusoidal_positions_forward,
)
from transformer_np.softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward

Random = np.random.Generator
Function = Callable[..., Any]


def softmax(rng: Random) -> Iterator[Example]:
    yield from _softmax_cases(softmax_forward, softmax_backward, rng)
    yield from _softmax_cases(log_softmax_forward, log_softmax_backward, rng)


def _softmax_cases(forward: Function, backward: Function, rng: Random) -> Iterator[Example]:
    x = 2 * rng.standard_normal((2, 3, 5))
    yield pair_example(forward, backward, x)
    yield pair_example(forward, backward, x, random_mask(rng, (2, 3, 5)), case="mask")
    yield pair_example(forward, backward, x, random_mask(rng, (3, 1)), case="mask broadcast, first axis", axis=0)
    yield pair_example(forward, backward, x + 1000, case="large mean")


def cross_entropy(rng: Random) -> Iterator[Example]:
    logits = 2 * rng.standard_normal((2, 3, 7))
    targets = np.array([[4, 0, -100], [6, 4, 4]])
    all_count = np.array([[4, 0, 5], [6, 4, 4]])
    all_ignored = np.full((2, 3), -100)
    yield pair_example(cross_entropy_forward, cross_entropy_backward, logits, targets)
    yield pair_example(cross_entropy_forward, cross_entropy_backward, logits, targets, case="smoothing", label_smoothing=0.2)
    yield pair_example(cross_entropy_forward, cross_entropy_backward, logits, all_count, case="4 ignored", ignore_index=4)
    yield pair_example(cross_entropy_forward, cross_entropy_backward, logits, all_ignored, case="all ignored")


def linear(rng: Random) -> Iterator[Example]:
    x, weight, bias = rng.standard_normal((2, 3, 5)), rng.standard_normal((5, 4)), rng.standard_normal(4)
    yield pair_example(linear_forward, linear_backward, x, weight, bias)
    yield pair_example(linear_forward, linear_backward, x, weight, None, case="no bias")
    yield pair_example(linear_forward, linear_backward, x[0, 0], weight, bias, case="one row")
    yield layer_example(with_random_weights(Linear.create(5, 4, rng=rng), rng), x)
    yield layer_example(with_random_weights(Linear.create(5, 4, rng=rng, bias=False), rng), x, case="no bias")


def embedding(rng: Random) -> Iterator[Example]:
    ids = np.array([[3, 0, 3], [6, 3, 1]])  # 3 repeats, 2, 4 and 5 are missing
    weight = rng.standard_normal((7, 5))
    yield pair_example(embedding_forward, embedding_backward, ids, weight)
    yield pair_example(embedding_forward, embedding_backward_naive, ids, weight, case="naive backward")
    yield layer_example(with_random_weights(Embedding.create(7, 5, rng=rng), rng), ids)


def layer_norm(rng: Random) -> Iterator[Example]:
    x, gain, bias = 3 * rng.standard_normal((2, 3, 5)) + 1, 1 + rng.standard_normal(5), rng.standard_normal(5)
    yield pair_example(layer_norm_forward, layer_norm_backward, x, gain, bias)
    yield pair_example(layer_norm_forward, layer_norm_backward, x, gain, bias, case="eps 0.3", eps=0.3)
    yield pair_example(layer_norm_forward, layer_norm_backward, 0.01 * x, gain, bias, case="spread near eps")
    yield layer_example(with_random_weights(LayerNorm.create(5), rng), x)


def activations(rng: Random) -> Iterator[Example]:
    x = np.concatenate([3 * rng.standard_normal((2, 3, 5)), np.full((2, 3, 1), 12.0), np.full((2, 3, 1), -12.0)], axis=-1)
    yield pair_example(relu_forward, relu_backward, x)
    yield pair_example(gelu_forward, gelu_backward, x)
    yield pair_example(gelu_tanh_forward, gelu_tanh_backward, x)
    yield pair_example(sigmoid_forward, sigmoid_backward, x)
    yield pair_example(tanh_forward, tanh_backward, x)


def dropout(rng: Random) -> Iterator[Example]:
    x = rng.standard_normal((2, 3, 5))
    yield pair_example(dropout_forward, dropout_backward, x, p=0.4, rng_seed=1)
    yield pair_example(dropout_forward, dropout_backward, x, case="evaluation", p=0.4)


def positions(rng: Random) -> Iterator[Example]:
    x, weight = rng.standard_normal((2, 3, 5)), rng.standard_normal((4, 5))
    yield pair_example(sinusoidal_positions_forward, sinusoidal_positions_backward, x, scale=0.5)
    yield pair_example(learned_positions_forward, learned_positions_backward, x, weight)
    yield layer_example(SinusoidalPositions(0.5), x)
    yield layer_example(with_random_weights(LearnedPositions.create(4, 5, rng=rng), rng), x)


def attention(rng: Random) -> Iterator[Example]:
    q, k, v = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((2, 3, 6, 7))
    mask = random_mask(rng, (2, 3, 4, 6))
    hidden = _with_a_hidden_key(random_mask(rng, (4, 6)))
    nan_k, nan_v = k.copy(), v.copy()
    nan_k[..., 2, :] = nan_v[..., 2, :] = np.nan
    yield pair_example(attention_forward, attention_backward, q, k, v)
    yield pair_example(attention_forward, attention_backward, q, k, v, mask, case="mask")
    yield pair_example(attention_forward, attention_backward, q, k, v, causal_mask(4, 6), case="causal", scale=0.9)
    yield pair_example(attention_forward, attention_backward, q, nan_k, nan_v, hidden, case="NaN behind the mask")
    yield pair_example(attention_forward, attention_backward, q, k, v, mask, case="mask, dropout", dropout=0.3, rng_seed=1)


def multi_head_attention(rng: Random) -> Iterator[Example]:
    x, memory = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6))
    heads = with_random_weights(MultiHeadAttention.create(6, 3, rng=rng), rng)
    two_heads = with_random_weights(MultiHeadAttention.create(6, 2, rng=rng, bias=False, dropout=0.3), rng)
    yield layer_example(heads, x, memory)
    yield layer_example(heads, x, memory, random_mask(rng, (2, 3, 3, 5)), case="mask")
    yield layer_example(two_heads, x, memory, padding_mask(np.array([5, 0]), 5), case="no bias, dropout", rng_seed=1)


def feed_forward(rng: Random) -> Iterator[Example]:
    x = rng.standard_normal((2, 3, 5))
    for activation in ("relu", "gelu", "gelu_tanh"):
        layer = with_random_weights(FeedForward.create(5, 7, activation=activation, rng=rng), rng)
        yield layer_example(layer, x, case=activation)


def sublayers(rng: Random) -> Iterator[Example]:
    x, memory = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6))
    for pre_norm in (True, False):
        block = with_random_weights(DecoderBlock.create(6, 2, 7, rng=rng, pre_norm=pre_norm, dropout=0.2), rng)
        case = _norm_case(pre_norm)
        yield layer_example(block.self_attention, x, random_mask(rng, (2, 2, 3, 3)), case=case, rng_seed=1)
        yield layer_example(block.cross_attention, x, memory, random_mask(rng, (2, 2, 3, 5)), case=case, rng_seed=1)
        yield layer_example(block.feed_forward, x, case=case, rng_seed=1)


def blocks(rng: Random) -> Iterator[Example]:
    x, memory = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6))
    mask = combine_masks(causal_mask(3), padding_mask(np.array([3, 2]), 3))
    memory_mask = padding_mask(np.array([0, 4]), 5)
    for pre_norm in (True, False):
        encoder = with_random_weights(EncoderBlock.create(6, 3, 7, rng=rng, pre_norm=pre_norm, activation="gelu"), rng)
        decoder = with_random_weights(DecoderBlock.create(6, 2, 7, rng=rng, pre_norm=pre_norm, dropout=0.2), rng)
        case = _norm_case(pre_norm)
        yield layer_example(encoder, x, mask, case=case)
        yield layer_example(decoder, x, memory, mask, memory_mask, case=f"{case}, dropout", rng_seed=1)


def gpt(rng: Random) -> Iterator[Example]:
    tokens = np.array([[3, 0, 3], [6, 3, 1]])
    learned = GPT.create(7, context=5, d_model=4, num_layers=2, num_heads=2, rng=rng, dropout=0.2)
    sinusoidal = GPT.create(7, context=5, d_model=4, num_layers=1, num_heads=2, rng=rng, positions="sinusoidal")
    yield layer_example(with_random_weights(learned, rng), tokens)
    yield layer_example(with_random_weights(learned, rng), tokens, case="dropout", rng_seed=1)
    yield layer_example(with_random_weights(sinusoidal, rng), tokens, case="sinusoidal")


def _with_a_hidden_key(mask: Array) -> Array:
    """Key 2 is seen by no query."""
    mask[:, 2] = False
    return mask


def _norm_case(pre_norm: bool) -> str:
    return "pre-norm" if pre_norm else "post-norm"
