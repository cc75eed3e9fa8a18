"""Encoder and decoder blocks: sublayers, each with a residual connection and a layer norm.

    post-norm (Vaswani et al. 2017, section 3.1)        y = norm(x + dropout(f(x)))
    pre-norm  (GPT-2; Xiong et al. 2020)                y = x + dropout(f(norm(x)))

Pre-norm leaves a path from the output to the input on which nothing stands, so deep models train without a warm-up;
a model of pre-norm blocks ends with one more norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from transformer_np.attention import MultiHeadAttention, MultiHeadAttentionCache
from transformer_np.dropout import DropoutCache, dropout_backward, dropout_forward
from transformer_np.feed_forward import FeedForward, FeedForwardCache
from transformer_np.layer import Array, Cache, Layer
from transformer_np.normalization import LayerNorm, LayerNormCache


@dataclass(frozen=True, repr=False, eq=False)
class AttentionSublayerCache(Cache):
    norm: LayerNormCache
    attention: MultiHeadAttentionCache
    dropout: DropoutCache


@dataclass(repr=False, eq=False)
class SelfAttentionSublayer(Layer):
    """Positions of one sequence look at each other."""

    norm: LayerNorm
    attention: MultiHeadAttention
    pre_norm: bool
    dropout: float

    def forward(self, x: Array, mask: Array | None = None, *,
                rng: np.random.Generator | None = None) -> tuple[Array, AttentionSublayerCache]:
        """x: [B, T, D].   mask: boolean, broadcastable to [B, H, T, T].   Returns y: [B, T, D]."""
        if self.pre_norm:
            normed, norm = self.norm.forward(x)                                             # [B, T, D]
            attended, attention = self.attention.forward(normed, normed, mask, rng=rng)     # [B, T, D]
            dropped, dropout = dropout_forward(attended, self.dropout, rng)                 # [B, T, D]
            y = x + dropped                                                                 # [B, T, D]
        else:
            attended, attention = self.attention.forward(x, x, mask, rng=rng)               # [B, T, D]
            dropped, dropout = dropout_forward(attended, self.dropout, rng)                 # [B, T, D]
            y, norm = self.norm.forward(x + dropped)                                        # [B, T, D]
        return y, AttentionSublayerCache(norm, attention, dropout)

    def backward(self, d_y: Array, cache: AttentionSublayerCache) -> tuple[Array, SelfAttentionSublayer]:
        """d_y: [B, T, D].   Returns d_x [B, T, D] and the gradient of the weights."""
        if self.pre_norm:
            # y = x + dropped
            d_attended = dropout_backward(d_y, cache.dropout)
            # attended = attention(normed, normed): normed is used twice, so its gradients add
            d_query, d_memory, d_attention = self.attention.backward(d_attended, cache.attention)
            # normed = norm(x): x is used twice
            d_through_norm, d_norm = self.norm.backward(d_query + d_memory, cache.norm)
            d_x = d_y + d_through_norm
        else:
            # y = norm(x + dropped)
            d_sum, d_norm = self.norm.backward(d_y, cache.norm)
            d_attended = dropout_backward(d_sum, cache.dropout)
            # attended = attention(x, x), and x beside it: x is used three times
            d_query, d_memory, d_attention = self.attention.backward(d_attended, cache.attention)
            d_x = d_sum + d_query + d_memory
        return d_x, replace(self, norm=d_norm, attention=d_attention)


@dataclass(repr=False, eq=False)
class CrossAttentionSublayer(Layer):
    """Positions of one sequence look at another sequence, the memory. The memory is not normalized here: its encoder did."""

    norm: LayerNorm
    attention: MultiHeadAttention
    pre_norm: bool
    dropout: float

    def forward(self, x: Array, memory: Array, mask: Array | None = None, *,
                rng: np.random.Generator | None = None) -> tuple[Array, AttentionSublayerCache]:
        """x: [B, T, D].   memory: [B, S, D].   mask: boolean, broadcastable to [B, H, T, S].   Returns y: [B, T, D]."""
        if self.pre_norm:
            normed, norm = self.norm.forward(x)                                             # [B, T, D]
            attended, attention = self.attention.forward(normed, memory, mask, rng=rng)     # [B, T, D]
            dropped, dropout = dropout_forward(attended, self.dropout, rng)                 # [B, T, D]
            y = x + dropped                                                                 # [B, T, D]
        else:
            attended, attention = self.attention.forward(x, memory, mask, rng=rng)          # [B, T, D]
            dropped, dropout = dropout_forward(attended, self.dropout, rng)                 # [B, T, D]
            y, norm = self.norm.forward(x + dropped)                                        # [B, T, D]
        return y, AttentionSublayerCache(norm, attention, dropout)

    def backward(self, d_y: Array, cache: AttentionSublayerCache) -> tuple[Array, Array, CrossAttentionSublayer]:
        """d_y: [B, T, D].   Returns d_x [B, T, D], d_memory [B, S, D] and the gradient of the weights."""
        if self.pre_norm:
            # y = x + dropped
            d_attended = dropout_backward(d_y, cache.dropout)
            # attended = attention(normed, memory)
            d_normed, d_memory, d_attention = self.attention.backward(d_attended, cache.attention)
            # normed = norm(x): x is used twice
            d_through_norm, d_norm = self.norm.backward(d_normed, cache.norm)
            d_x = d_y + d_through_norm
        else:
            # y = norm(x + dropped)
            d_sum, d_norm = self.norm.backward(d_y, cache.norm)
            d_attended = dropout_backward(d_sum, cache.dropout)
            # attended = attention(x, memory): x is used twice
            d_query, d_memory, d_attention = self.attention.backward(d_attended, cache.attention)
            d_x = d_sum + d_query
        return d_x, d_memory, replace(self, norm=d_norm, attention=d_attention)


@dataclass(frozen=True, repr=False, eq=False)
class FeedForwardSublayerCache(Cache):
    norm: LayerNormCache
    feed_forward: FeedForwardCache
    dropout: DropoutCache


@dataclass(repr=False, eq=False)
class FeedForwardSublayer(Layer):
    """Each position thinks on its own."""

    norm: LayerNorm
    feed_forward: FeedForward
    pre_norm: bool
    dropout: float

    def forward(self, x: Array, *, rng: np.random.Generator | None = None) -> tuple[Array, FeedForwardSublayerCache]:
        """x: [B, T, D].   Returns y: [B, T, D]."""
        if self.pre_norm:
            normed, norm = self.norm.forward(x)                                             # [B, T, D]
            thought, feed_forward = self.feed_forward.forward(normed)                       # [B, T, D]
            dropped, dropout = dropout_forward(thought, self.dropout, rng)                  # [B, T, D]
            y = x + dropped                                                                 # [B, T, D]
        else:
            thought, feed_forward = self.feed_forward.forward(x)                            # [B, T, D]
            dropped, dropout = dropout_forward(thought, self.dropout, rng)                  # [B, T, D]
            y, norm = self.norm.forward(x + dropped)                                        # [B, T, D]
        return y, FeedForwardSublayerCache(norm, feed_forward, dropout)

    def backward(self, d_y: Array, cache: FeedForwardSublayerCache) -> tuple[Array, FeedForwardSublayer]:
        """d_y: [B, T, D].   Returns d_x [B, T, D] and the gradient of the weights."""
        if self.pre_norm:
            # y = x + dropped
            d_thought = dropout_backward(d_y, cache.dropout)
            # thought = feed_forward(normed)
            d_normed, d_feed_forward = self.feed_forward.backward(d_thought, cache.feed_forward)
            # normed = norm(x): x is used twice
            d_through_norm, d_norm = self.norm.backward(d_normed, cache.norm)
            d_x = d_y + d_through_norm
        else:
            # y = norm(x + dropped)
            d_sum, d_norm = self.norm.backward(d_y, cache.norm)
            d_thought = dropout_backward(d_sum, cache.dropout)
            # thought = feed_forward(x): x is used twice
            d_through_feed_forward, d_feed_forward = self.feed_forward.backward(d_thought, cache.feed_forward)
            d_x = d_sum + d_through_feed_forward
        return d_x, replace(self, norm=d_norm, feed_forward=d_feed_forward)


@dataclass(frozen=True, repr=False, eq=False)
class EncoderBlockCache(Cache):
    self_attention: AttentionSublayerCache
    feed_forward: FeedForwardSublayerCache

    @property
    def weights(self) -> Array:
        """The attention weights, [B, H, T, T]."""
        return self.self_attention.attention.weights


@dataclass(repr=False, eq=False)
class EncoderBlock(Layer):
    """Self-attention, then feed-forward. With a causal mask it is the block of GPT. Vaswani et al. 2017, figure 1, left."""

    self_attention: SelfAttentionSublayer
    feed_forward: FeedForwardSublayer

    @classmethod
    def create(cls, d_model: int, num_heads: int, d_hidden: int, *, rng: np.random.Generator, pre_norm: bool = True,
               activation: str = "relu", dropout: float = 0.0, std: float | None = None, output_std: float | None = None,
               dtype: type = np.float32) -> EncoderBlock:
        """std, output_std: of the weights, and of those that write into the residual stream (see `Linear.create`)."""
        attention = MultiHeadAttention.create(d_model, num_heads, rng=rng, dropout=dropout, std=std, output_std=output_std,
                                              dtype=dtype)
        feed_forward = FeedForward.create(d_model, d_hidden, activation=activation, rng=rng, std=std, output_std=output_std,
                                          dtype=dtype)
        return cls(SelfAttentionSublayer(LayerNorm.create(d_model, dtype=dtype), attention, pre_norm, dropout),
                   FeedForwardSublayer(LayerNorm.create(d_model, dtype=dtype), feed_forward, pre_norm, dropout))

    def forward(self, x: Array, mask: Array | None = None, *,
                rng: np.random.Generator | None = None) -> tuple[Array, EncoderBlockCache]:
        """x: [B, T, D].   mask: boolean, broadcastable to [B, H, T, T].   Returns y: [B, T, D]; `cache.weights` [B, H, T, T]."""
        attended, self_attention = self.self_attention.forward(x, mask, rng=rng)            # [B, T, D]
        y, feed_forward = self.feed_forward.forward(attended, rng=rng)                      # [B, T, D]
        return y, EncoderBlockCache(self_attention, feed_forward)

    def backward(self, d_y: Array, cache: EncoderBlockCache) -> tuple[Array, EncoderBlock]:
        """d_y: [B, T, D].   Returns d_x [B, T, D] and the gradient of the weights."""
        d_attended, d_feed_forward = self.feed_forward.backward(d_y, cache.feed_forward)
        d_x, d_self_attention = self.self_attention.backward(d_attended, cache.self_attention)
        return d_x, EncoderBlock(d_self_attention, d_feed_forward)


@dataclass(frozen=True, repr=False, eq=False)
class DecoderBlockCache(Cache):
    self_attention: AttentionSublayerCache
    cross_attention: AttentionSublayerCache
    feed_forward: FeedForwardSublayerCache


@dataclass(repr=False, eq=False)
class DecoderBlock(Layer):
    """Self-attention, cross-attention to the encoder's output, then feed-forward. Vaswani et al. 2017, figure 1, right."""

    self_attention: SelfAttentionSublayer
    cross_attention: CrossAttentionSublayer
    feed_forward: FeedForwardSublayer

    @classmethod
    def create(cls, d_model: int, num_heads: int, d_hidden: int, *, rng: np.random.Generator, pre_norm: bool = True,
               activation: str = "relu", dropout: float = 0.0, std: float | None = None, output_std: float | None = None,
               dtype: type = np.float32) -> DecoderBlock:
        """std, output_std: of the weights, and of those that write into the residual stream (see `Linear.create`)."""
        self_attention = MultiHeadAttention.create(d_model, num_heads, rng=rng, dropout=dropout, std=std,
                                                   output_std=output_std, dtype=dtype)
        cross_attention = MultiHeadAttention.create(d_model, num_heads, rng=rng, dropout=dropout, std=std,
                                                    output_std=output_std, dtype=dtype)
        feed_forward = FeedForward.create(d_model, d_hidden, activation=activation, rng=rng, std=std, output_std=output_std,
                                          dtype=dtype)
        return cls(SelfAttentionSublayer(LayerNorm.create(d_model, dtype=dtype), self_attention, pre_norm, dropout),
                   CrossAttentionSublayer(LayerNorm.create(d_model, dtype=dtype), cross_attention, pre_norm, dropout),
                   FeedForwardSublayer(LayerNorm.create(d_model, dtype=dtype), feed_forward, pre_norm, dropout))

    def forward(self, x: Array, memory: Array, mask: Array | None = None, memory_mask: Array | None = None, *,
                rng: np.random.Generator | None = None) -> tuple[Array, DecoderBlockCache]:
        """x: [B, T, D].   memory: [B, S, D].   mask, memory_mask: boolean, broadcastable to [B, H, T, T] and [B, H, T, S].
        Returns y: [B, T, D]."""
        attended, self_attention = self.self_attention.forward(x, mask, rng=rng)            # [B, T, D]
        recalled, cross_attention = self.cross_attention.forward(attended, memory, memory_mask, rng=rng)  # [B, T, D]
        y, feed_forward = self.feed_forward.forward(recalled, rng=rng)                      # [B, T, D]
        return y, DecoderBlockCache(self_attention, cross_attention, feed_forward)

    def backward(self, d_y: Array, cache: DecoderBlockCache) -> tuple[Array, Array, DecoderBlock]:
        """d_y: [B, T, D].   Returns d_x [B, T, D], d_memory [B, S, D] and the gradient of the weights."""
        d_recalled, d_feed_forward = self.feed_forward.backward(d_y, cache.feed_forward)
        d_attended, d_memory, d_cross_attention = self.cross_attention.backward(d_recalled, cache.cross_attention)
        d_x, d_self_attention = self.self_attention.backward(d_attended, cache.self_attention)
        return d_x, d_memory, DecoderBlock(d_self_attention, d_cross_attention, d_feed_forward)
