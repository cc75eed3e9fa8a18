"""Scaled dot-product attention, and multi-head attention.

Vaswani et al. 2017, "Attention Is All You Need", sections 3.2.1 and 3.2.2. The whole of the first is one function: to step
through it in a debugger is to see the paper's equation (1), line by line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import Linear, LinearCache, linear_backward, linear_forward


@dataclass(frozen=True, repr=False, eq=False)
class AttentionCache(Cache):
    q: Array                 # [..., T, E]
    k: Array                 # [..., S, E], 0 where no query may attend
    v: Array                 # [..., S, E_v], 0 where no query may attend
    weights: Array           # [..., T, S], before dropout
    keep: Array | None       # [..., T, S], 0 or 1 / (1 - p); None without dropout
    scale: float


def attention_forward(q: Array, k: Array, v: Array, mask: Array | None = None, *, scale: float | None = None,
                      dropout: float = 0.0, rng: np.random.Generator | None = None) -> tuple[Array, AttentionCache]:
    """Scaled dot-product attention: each query takes the mean of the values, weighted by how well the keys match it.

        y = softmax(scale q k^T) v                  scale = 1 / sqrt(E)

    q: [..., T, E].   k: [..., S, E].   v: [..., S, E_v], with the same leading axes.   Returns y: [..., T, E_v].
    mask: boolean, broadcastable to [..., T, S], True = may attend. A query that may attend to nothing gives 0. A key that no
    query may attend to has no influence, whatever it and its value hold, NaN included.
    dropout: probability of zeroing a weight; drawn from `rng`, and not applied without one.
    Raises ValueError if shapes do not fit, the mask is not boolean, or dropout is not in [0, 1).

    Vaswani et al. 2017, section 3.2.1, equation (1); dropout on the weights as in their published code.
    """
    if q.ndim < 2 or k.ndim < 2 or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"attention: q {list(q.shape)} and k {list(k.shape)} do not fit [..., T, E] and [..., S, E]")
    if v.shape[:-1] != k.shape[:-1]:
        raise ValueError(f"attention: v {list(v.shape)} does not fit [..., S, E_v] beside k {list(k.shape)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"attention: dropout {dropout}, expected 0 <= dropout < 1")
    # a NumPy float64, as in scale=1 / np.sqrt(E), would turn float32 scores into float64
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if mask is not None:
        mask = np.asarray(mask)
        scores_shape = (*q.shape[:-1], k.shape[-2])
        if mask.dtype != np.bool_:
            raise ValueError(f"attention: mask must be boolean (True = may attend), got {mask.dtype}")
        try:
            mask = np.broadcast_to(mask, scores_shape)                          # [..., T, S]
        except ValueError:
            raise ValueError(f"attention: mask {list(mask.shape)} does not broadcast to {list(scores_shape)}") from None
        # 1. what no query may see becomes 0: a weight of 0 is not enough, since 0 * NaN is NaN
        seen = np.any(mask, axis=-2)[..., None]                                  # [..., S, 1]
        k = np.where(seen, k, 0)                                                # [..., S, E]
        v = np.where(seen, v, 0)                                                # [..., S, E_v]
    # 2. scores: how well does each key match each query?
    scores = (q * scale) @ k.swapaxes(-1, -2)                                   # [..., T, S]
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)                                # [..., T, S]
    # 3. weights: softmax over the keys; a row without allowed keys sums to 0 and stays 0
    peak = scores.real.max(axis=-1, keepdims=True, initial=-np.inf)             # [..., T, 1]
    peak = np.where(peak == -np.inf, 0, peak)                                   # [..., T, 1]
    e = np.exp(scores - peak)                                                   # [..., T, S]
    total = e.sum(axis=-1, keepdims=True)                                       # [..., T, 1]
    weights = e / np.where(total == 0, 1, total)                                # [..., T, S]
    # 4. dropout: some weights become 0, the others grow to keep the mean
    keep, kept = None, weights                                                  # [..., T, S]
    if rng is not None and dropout > 0:
        keep = (rng.random(weights.shape) >= dropout) / (1 - dropout)
        keep = keep.astype(weights.real.dtype)
        kept = weights * keep
    # 5. the weighted mean of the values
    y = kept @ v                                                                # [..., T, E_v]
    return y, AttentionCache(q, k, v, weights, keep, scale)


def attention_backward(d_y: Array, cache: AttentionCache) -> tuple[Array, Array, Array]:
    """Gradient of `attention_forward`.

        forward   scores = scale q k^T,   weights = softmax(scores),   y = weights v
        backward  d_v       = weights^T d_y
                  d_weights = d_y v^T
                  d_scores  = weights * (d_weights - rowsum(d_weights * weights))
                  d_q       = scale d_scores k
                  d_k       = scale d_scores^T q

    d_y: [..., T, E_v].   Returns d_q [..., T, E], d_k [..., S, E], d_v [..., S, E_v].
    """
    q, k, v, weights, keep, scale = cache.q, cache.k, cache.v, cache.weights, cache.keep, cache.scale
    # 5. y = kept @ v
    kept = weights if keep is None else weights * keep                          # [..., T, S]
    d_v = kept.swapaxes(-1, -2) @ d_y                                           # [..., S, E_v]
    d_kept = d_y @ v.swapaxes(-1, -2)                                           # [..., T, S]
    # 4. kept = weights * keep
    d_weights = d_kept if keep is None else d_kept * keep                       # [..., T, S]
    # 3. weights = softmax(scores)         a masked weight is 0, so is its gradient
    row = (d_weights * weights).sum(axis=-1, keepdims=True)                     # [..., T, 1]
    d_scores = weights * (d_weights - row)                                      # [..., T, S]
    # 2. scores = (q * scale) @ k^T
    d_q = (d_scores @ k) * scale                                                # [..., T, E]
    d_k = d_scores.swapaxes(-1, -2) @ (q * scale)                               # [..., S, E]
    # 1. k and v are 0 where no query attends; their gradients are 0 there too, since weights and d_scores are
    return d_q, d_k, d_v


@dataclass(frozen=True, repr=False, eq=False)
class MultiHeadAttentionCache(Cache):
    query: LinearCache
    key: LinearCache
    value: LinearCache
    attention: AttentionCache
    output: LinearCache

    @property
    def weights(self) -> Array:
        """Who looked where: [B, H, T, S], each row sums to 1 (to 0 if nothing was allowed)."""
        return self.attention.weights


@dataclass(repr=False, eq=False)
class MultiHeadAttention(Layer):
    """H attentions side by side, each on its own E = D / H wide projection of the input.

        head_h = attention(x W^Q_h, memory W^K_h, memory W^V_h)         MultiHead = concat(head_1, ..., head_H) W^O

    Self-attention: memory is x. Cross-attention: memory is the other sequence.
    Vaswani et al. 2017, section 3.2.2. `weight` of the projections is [D, D], heads side by side in the columns.
    """

    query: Linear            # [D, D]
    key: Linear              # [D, D]
    value: Linear            # [D, D]
    output: Linear           # [D, D]
    num_heads: int
    dropout: float = 0.0

    @classmethod
    def create(cls, d_model: int, num_heads: int, *, rng: np.random.Generator, dropout: float = 0.0, bias: bool = True,
               std: float | None = None, output_std: float | None = None, dtype: type = np.float32) -> MultiHeadAttention:
        """Raises ValueError if the heads do not divide the width."""
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(f"MultiHeadAttention: num_heads {num_heads} does not divide d_model {d_model}")
        query = Linear.create(d_model, d_model, rng=rng, bias=bias, std=std, dtype=dtype)
        key = Linear.create(d_model, d_model, rng=rng, bias=bias, std=std, dtype=dtype)
        value = Linear.create(d_model, d_model, rng=rng, bias=bias, std=std, dtype=dtype)
        output_std = std if output_std is None else output_std
        output = Linear.create(d_model, d_model, rng=rng, bias=bias, std=output_std, dtype=dtype)
        return cls(query, key, value, output, num_heads, dropout)

    def forward(self, x: Array, memory: Array, mask: Array | None = None, *,
                rng: np.random.Generator | None = None) -> tuple[Array, MultiHeadAttentionCache]:
        """x: [B, T, D], where queries come from.   memory: [B, S, D], where keys and values come from (x for self-attention).
        mask: boolean, broadcastable to [B, H, T, S], True = may attend.   rng: draws dropout; None means none.
        Memory that is masked for every query has no influence, if it is finite: the projections' gradients are sums over it.
        Returns y: [B, T, D]; `cache.weights` is [B, H, T, S]. Raises ValueError if shapes do not fit."""
        if x.ndim != 3 or memory.ndim != 3 or x.shape[0] != memory.shape[0]:
            raise ValueError(f"MultiHeadAttention: x {list(x.shape)}, memory {list(memory.shape)}, expected [B, T, D], [B, S, D]")
        B, T, D = x.shape
        S, H = memory.shape[1], self.num_heads
        E = D // H
        # 1. three projections
        query, query_cache = linear_forward(x, self.query.weight, self.query.bias)              # [B, T, D]
        key, key_cache = linear_forward(memory, self.key.weight, self.key.bias)                 # [B, S, D]
        value, value_cache = linear_forward(memory, self.value.weight, self.value.bias)         # [B, S, D]
        # 2. D is H heads of E columns: split, then move H forward. Reshaping straight to [B, H, T, E] would mix positions.
        q = query.reshape(B, T, H, E).swapaxes(1, 2)                                            # [B, H, T, E]
        k = key.reshape(B, S, H, E).swapaxes(1, 2)                                              # [B, H, S, E]
        v = value.reshape(B, S, H, E).swapaxes(1, 2)                                            # [B, H, S, E]
        # 3. every head attends on its own
        attended, attention_cache = attention_forward(q, k, v, mask, dropout=self.dropout, rng=rng)  # [B, H, T, E]
        # 4. concatenate the heads and mix them
        joined = attended.swapaxes(1, 2).reshape(B, T, D)                                       # [B, T, D]
        y, output_cache = linear_forward(joined, self.output.weight, self.output.bias)          # [B, T, D]
        return y, MultiHeadAttentionCache(query_cache, key_cache, value_cache, attention_cache, output_cache)

    def backward(self, d_y: Array, cache: MultiHeadAttentionCache) -> tuple[Array, Array, MultiHeadAttention]:
        """d_y: [B, T, D].   Returns d_x [B, T, D], d_memory [B, S, D] and the gradient of the weights.
        In self-attention x is also the memory, so the caller adds d_x and d_memory."""
        B, T, D = d_y.shape
        S, H = cache.key.x.shape[1], self.num_heads
        E = D // H
        # 4. y = joined W^O
        d_joined, d_output_weight, d_output_bias = linear_backward(d_y, cache.output)           # [B, T, D]
        d_attended = d_joined.reshape(B, T, H, E).swapaxes(1, 2)                                # [B, H, T, E]
        # 3. attended = attention(q, k, v)
        d_q, d_k, d_v = attention_backward(d_attended, cache.attention)                         # [B, H, T or S, E]
        # 2. q = query with the heads moved forward
        d_query = d_q.swapaxes(1, 2).reshape(B, T, D)                                           # [B, T, D]
        d_key = d_k.swapaxes(1, 2).reshape(B, S, D)                                             # [B, S, D]
        d_value = d_v.swapaxes(1, 2).reshape(B, S, D)                                           # [B, S, D]
        # 1. query = x W^Q, key = memory W^K, value = memory W^V: memory is used twice, so its gradients add
        d_x, d_query_weight, d_query_bias = linear_backward(d_query, cache.query)               # [B, T, D]
        d_memory_by_key, d_key_weight, d_key_bias = linear_backward(d_key, cache.key)           # [B, S, D]
        d_memory_by_value, d_value_weight, d_value_bias = linear_backward(d_value, cache.value)  # [B, S, D]
        d_memory = d_memory_by_key + d_memory_by_value                                          # [B, S, D]
        return d_x, d_memory, replace(self,
                                      query=Linear(d_query_weight, d_query_bias),
                                      key=Linear(d_key_weight, d_key_bias),
                                      value=Linear(d_value_weight, d_value_bias),
                                      output=Linear(d_output_weight, d_output_bias))
