"""Where in the sequence: attention alone does not know the order of its inputs, so their positions are added to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from transformer_np.layer import Array, Cache, Layer


def sinusoidal_table(length: int, d_model: int, *, dtype: type = np.float64) -> Array:
    """Sines and cosines of geometrically falling frequency.

        table[t, 2i]     = sin(t / 10000^(2i / D))
        table[t, 2i + 1] = cos(t / 10000^(2i / D))

    The row of t + k is a fixed rotation of the row of t, whatever t. Returns [T, D].   Vaswani et al. 2017, section 3.5.
    """
    even = np.arange(0, d_model, 2)                                             # [D / 2], rounded up
    frequency = np.exp(even * (-math.log(10000.0) / d_model))                   # [D / 2]
    angle = np.arange(length)[:, None] * frequency                              # [T, D / 2]
    table = np.empty((length, d_model))                                         # [T, D]
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)[:, : d_model // 2]
    return table.astype(dtype)


@dataclass(frozen=True, repr=False, eq=False)
class SinusoidalPositionsCache(Cache):
    """Nothing is needed: a fixed table is added."""


def sinusoidal_positions_forward(x: Array, *, scale: float = 1.0) -> tuple[Array, SinusoidalPositionsCache]:
    """Add the sinusoidal table.   y_t = x_t + scale table_t

    x: [..., T, D], T of any size.   scale: amplitude.   Returns y: like x.   Raises ValueError if x has fewer than 2 axes.
    """
    if x.ndim < 2:
        raise ValueError(f"sinusoidal_positions: x {list(x.shape)}, expected [..., T, D]")
    table = sinusoidal_table(*x.shape[-2:], dtype=x.real.dtype.type)            # [T, D]
    # as a NumPy float64, scale would turn float32 into float64
    y = x + float(scale) * table                                                # [..., T, D]
    return y, SinusoidalPositionsCache()


def sinusoidal_positions_backward(d_y: Array, cache: SinusoidalPositionsCache) -> Array:
    """Gradient of `sinusoidal_positions_forward`.   d_x = d_y, since the table is fixed.   d_y: [..., T, D]."""
    # y = x + scale * table
    return d_y                                                                  # [..., T, D]


@dataclass(repr=False, eq=False)
class SinusoidalPositions(Layer):
    """`sinusoidal_positions_forward`. It has no weights, and goes beyond any trained length.

    scale: Vaswani et al. add amplitude 1 to embeddings of variance 1. Beside embeddings of standard deviation 0.02, an
    amplitude of 0.02 keeps that ratio; amplitude 1 would drown the tokens.
    """

    scale: float = 1.0

    def forward(self, x: Array) -> tuple[Array, SinusoidalPositionsCache]:      # x: [..., T, D]
        return sinusoidal_positions_forward(x, scale=self.scale)

    def backward(self, d_y: Array, cache: SinusoidalPositionsCache) -> tuple[Array, SinusoidalPositions]:
        return sinusoidal_positions_backward(d_y, cache), self


@dataclass(frozen=True, repr=False, eq=False)
class LearnedPositionsCache(Cache):
    context: int


def learned_positions_forward(x: Array, weight: Array) -> tuple[Array, LearnedPositionsCache]:
    """Add a learned row for each position.   y_t = x_t + weight_t

    x: [..., T, D].   weight: [context, D] with T <= context: there is nothing to add beyond it.   Returns y: like x.
    Raises ValueError if the shapes do not fit.   Gehring et al. 2017, section 3.1; Radford et al. 2018.
    """
    if x.ndim < 2 or weight.ndim != 2 or x.shape[-1] != weight.shape[-1]:
        raise ValueError(f"learned_positions: x {list(x.shape)} and weight {list(weight.shape)} "
                         "do not fit [..., T, D] and [context, D]")
    T, context = x.shape[-2], weight.shape[0]
    if T > context:
        raise ValueError(f"learned_positions: x has {T} positions, but there are weights for {context} only")
    y = x + weight[:T]                                                          # [..., T, D]
    return y, LearnedPositionsCache(context)


def learned_positions_backward(d_y: Array, cache: LearnedPositionsCache) -> tuple[Array, Array]:
    """Gradient of `learned_positions_forward`.

        forward   y_t = x_t + weight_t
        backward  d_x_t = d_y_t,   d_weight_t = sum over sequences of d_y_t, and 0 for t >= T

    d_y: [..., T, D].   Returns d_x [..., T, D], d_weight [context, D].
    """
    T, D = d_y.shape[-2:]
    # y = x + weight[:T]           one row serves every sequence, so its gradients add
    d_weight = np.zeros((cache.context, D), d_y.dtype)                          # [context, D]
    d_weight[:T] = d_y.sum(axis=tuple(range(d_y.ndim - 2)))                     # [T, D]
    return d_y, d_weight


@dataclass(repr=False, eq=False)
class LearnedPositions(Layer):
    """`learned_positions_forward` with its weights."""

    weight: Array        # [context, D]

    @classmethod
    def create(cls, context: int, d_model: int, *, rng: np.random.Generator, std: float = 0.02,
               dtype: type = np.float32) -> LearnedPositions:
        return cls((std * rng.standard_normal((context, d_model))).astype(dtype))

    def forward(self, x: Array) -> tuple[Array, LearnedPositionsCache]:         # x: [..., T, D]
        return learned_positions_forward(x, self.weight)

    def backward(self, d_y: Array, cache: LearnedPositionsCache) -> tuple[Array, LearnedPositions]:
        d_x, d_weight = learned_positions_backward(d_y, cache)
        return d_x, replace(self, weight=d_weight)
