"""Layer normalization."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from transformer_np.layer import Array, Cache, Layer


@dataclass(frozen=True, repr=False, eq=False)
class LayerNormCache(Cache):
    normalized: Array    # [..., D]
    inverse_std: Array   # [..., 1]
    gain: Array          # [D]


def layer_norm_forward(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, LayerNormCache]:
    """Give each row mean 0 and variance 1, then a learned gain and bias for each column.

        y_i = (x_i - mean x) / sqrt(var x + eps) * gain_i + bias_i          var x = sum_j (x_j - mean x)^2 / D

    x: [..., D].   gain, bias: [D].   Returns y: [..., D].   Raises ValueError if the shapes do not fit.
    A constant row gives y = bias. In float32 a spread beyond 1.8e19 overflows when squared: NumPy warns, and y = bias.

    Ba, Kiros and Hinton 2016, equations (3) and (4), with eps inside the root as everyone computes it.
    """
    if x.ndim == 0 or gain.shape != x.shape[-1:]:
        raise ValueError(f"layer_norm: gain {list(gain.shape)} does not fit x {list(x.shape)}, expected [D] and [..., D]")
    if bias.shape != gain.shape:
        raise ValueError(f"layer_norm: bias {list(bias.shape)}, expected {list(gain.shape)}, the shape of gain")
    # 1. mean, and the mean of what is left: the first is rounded, and beside a small spread that shows. A constant row of
    #    1e6 in float32 could lie 0.06 beside its own mean, and would come out as 1 instead of 0.
    rough = x - x.mean(axis=-1, keepdims=True)                                  # [..., D]
    centered = rough - rough.mean(axis=-1, keepdims=True)                       # [..., D]
    # 2. variance, from the centered numbers: mean(x^2) - mean(x)^2 would cancel. As a NumPy float64, eps would turn float32 into
    #    float64
    variance = (centered * centered).mean(axis=-1, keepdims=True)               # [..., 1]
    inverse_std = 1 / np.sqrt(variance + float(eps))                            # [..., 1]
    # 3. normalize
    normalized = centered * inverse_std                                         # [..., D]
    # 4. gain and bias
    y = normalized * gain + bias                                                # [..., D]
    return y, LayerNormCache(normalized, inverse_std, gain)


def layer_norm_backward(d_y: Array, cache: LayerNormCache) -> tuple[Array, Array, Array]:
    """Gradient of `layer_norm_forward`.

        forward   n_i = (x_i - mean x) / sqrt(var x + eps),   y_i = n_i gain_i + bias_i
        backward  d_gain_i = sum over rows of d_y_i n_i
                  d_bias_i = sum over rows of d_y_i
                  d_n_i    = d_y_i gain_i
                  d_x_i    = (d_n_i - mean_j d_n_j - n_i mean_j (d_n_j n_j)) / sqrt(var x + eps)

    d_y: [..., D].   Returns d_x [..., D], d_gain [D], d_bias [D].
    """
    normalized, inverse_std, gain = cache.normalized, cache.inverse_std, cache.gain
    rows = tuple(range(d_y.ndim - 1))
    # 4. y = normalized * gain + bias           one gain and one bias serve every row, so their gradients add
    d_bias = d_y.sum(axis=rows)                                                 # [D]
    d_gain = (d_y * normalized).sum(axis=rows)                                  # [D]
    d_normalized = d_y * gain                                                   # [..., D]
    # 2, 3. normalized = centered / sqrt(mean(centered^2) + eps)        every x_j reaches normalized_i through the variance:
    through_variance = (d_normalized * normalized).mean(axis=-1, keepdims=True)  # [..., 1]
    # 1. centered = x - mean x                  and through the mean:
    through_mean = d_normalized.mean(axis=-1, keepdims=True)                    # [..., 1]
    d_x = (d_normalized - through_mean - normalized * through_variance) * inverse_std  # [..., D]
    return d_x, d_gain, d_bias


@dataclass(repr=False, eq=False)
class LayerNorm(Layer):
    """`layer_norm_forward` with its weights."""

    gain: Array          # [D]
    bias: Array          # [D]
    eps: float = 1e-5

    @classmethod
    def create(cls, d_model: int, *, eps: float = 1e-5, dtype: type = np.float32) -> LayerNorm:
        """Gain 1 and bias 0: at first the layer only normalizes."""
        return cls(np.ones(d_model, dtype), np.zeros(d_model, dtype), eps)

    def forward(self, x: Array) -> tuple[Array, LayerNormCache]:                # x: [..., D]
        return layer_norm_forward(x, self.gain, self.bias, eps=self.eps)

    def backward(self, d_y: Array, cache: LayerNormCache) -> tuple[Array, LayerNorm]:
        d_x, d_gain, d_bias = layer_norm_backward(d_y, cache)
        return d_x, replace(self, gain=d_gain, bias=d_bias)
