"""The linear (dense, fully connected) layer: y = x W + b."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from transformer_np.layer import Array, Cache, Layer


@dataclass(frozen=True, repr=False, eq=False)
class LinearCache(Cache):
    x: Array         # [..., D_in]
    weight: Array    # [D_in, D_out]
    has_bias: bool


def linear_forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, LinearCache]:
    """A linear map of the last axis.

        y_o = sum_i x_i weight_io + bias_o

    x: [..., D_in].   weight: [D_in, D_out].   bias: [D_out] or None.   Returns y: [..., D_out].
    Raises ValueError if the shapes do not fit.
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[0]:
        raise ValueError(f"linear: x {list(x.shape)} and weight {list(weight.shape)} do not fit [..., D_in] and [D_in, D_out]")
    if bias is not None and bias.shape != weight.shape[1:]:
        raise ValueError(f"linear: bias {list(bias.shape)}, expected [{weight.shape[1]}], the last axis of weight")
    # 1. rows: one matrix product for all leading axes
    rows = x.reshape(math.prod(x.shape[:-1]), weight.shape[0])                  # [N, D_in]
    product = rows @ weight                                                     # [N, D_out]
    # 2. the bias is the same for every row
    shifted = product if bias is None else product + bias                       # [N, D_out]
    y = shifted.reshape(*x.shape[:-1], weight.shape[1])                         # [..., D_out]
    return y, LinearCache(x, weight, bias is not None)


def linear_backward(d_y: Array, cache: LinearCache) -> tuple[Array, Array, Array | None]:
    """Gradient of `linear_forward`.

        forward   y_o = sum_i x_i weight_io + bias_o
        backward  d_x_i       = sum_o d_y_o weight_io
                  d_weight_io = sum over rows of x_i d_y_o
                  d_bias_o    = sum over rows of d_y_o

    d_y: [..., D_out].   Returns d_x [..., D_in], d_weight [D_in, D_out], d_bias [D_out] (None if there was no bias).
    """
    x, weight = cache.x, cache.weight
    rows = x.reshape(math.prod(x.shape[:-1]), weight.shape[0])                  # [N, D_in]
    d_rows_out = d_y.reshape(rows.shape[0], weight.shape[1])                    # [N, D_out]
    # 2. shifted = product + bias          one bias serves every row, so its gradients add
    d_bias = d_rows_out.sum(axis=0) if cache.has_bias else None                 # [D_out]
    # 1. product = rows @ weight
    d_weight = rows.T @ d_rows_out                                              # [D_in, D_out]
    d_rows = d_rows_out @ weight.T                                              # [N, D_in]
    return d_rows.reshape(x.shape), d_weight, d_bias


@dataclass(repr=False, eq=False)
class Linear(Layer):
    """`linear_forward` with its weights."""

    weight: Array            # [D_in, D_out]
    bias: Array | None       # [D_out]

    @classmethod
    def create(cls, d_in: int, d_out: int, *, rng: np.random.Generator, bias: bool = True, std: float | None = None,
               dtype: type = np.float32) -> Linear:
        """Weights from a normal distribution of standard deviation `std`, by default 1 / sqrt(d_in): a row of unit variance
        gives outputs of unit variance (LeCun et al. 1998, "Efficient BackProp", section 4.6). The bias starts at 0."""
        std = 1 / math.sqrt(d_in) if std is None else std
        weight: Array = (std * rng.standard_normal((d_in, d_out))).astype(dtype)
        return cls(weight, np.zeros(d_out, dtype) if bias else None)

    def forward(self, x: Array) -> tuple[Array, LinearCache]:                   # x: [..., D_in]
        return linear_forward(x, self.weight, self.bias)

    def backward(self, d_y: Array, cache: LinearCache) -> tuple[Array, Linear]:
        d_x, d_weight, d_bias = linear_backward(d_y, cache)
        return d_x, replace(self, weight=d_weight, bias=d_bias)
