"""Softmax and its logarithm along an axis, with an optional boolean mask.

A masked entry does not take part: its probability is exactly 0, whatever it holds, NaN included. The mask is applied as a
mask, never as a large negative number: on a row without any allowed entry such a number would return the raw scores
(float64), uniform weights (float32) or NaN (float16), where the right answer is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array, Cache


@dataclass(frozen=True, repr=False, eq=False)
class SoftmaxCache(Cache):
    y: Array  # [..., N]
    axis: int


def softmax_forward(x: Array, mask: Array | None = None, *, axis: int = -1) -> tuple[Array, SoftmaxCache]:
    """Softmax along an axis: positive numbers that sum to one.

        y_i = exp(x_i - max x) / sum_j exp(x_j - max x)         the sum and the max are over allowed entries

    x: [..., N, ...] with N at `axis`.   mask: boolean, broadcastable to x, True = takes part.
    Returns y: like x; 0 where masked, and all 0 in a row without allowed entries.
    Raises ValueError if the mask is not boolean or does not broadcast to x.

    Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs", eq. (5).
    """
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise ValueError(f"softmax: mask must be boolean (True = takes part), got {mask.dtype}")
        try:
            np.broadcast_to(mask, x.shape)
        except ValueError:
            raise ValueError(f"softmax: mask {list(mask.shape)} does not broadcast to x {list(x.shape)}") from None
        # 1. a masked entry is out of the maximum and of the sum
        x = np.where(mask, x, -np.inf)                                          # [..., N]
    # 2. the largest exponent becomes 0, so that exp cannot overflow
    peak = x.real.max(axis=axis, keepdims=True, initial=-np.inf)                # [..., 1]
    peak = np.where(peak == -np.inf, 0, peak)                                   # a row of -inf: -inf - 0, not -inf + inf
    e = np.exp(x - peak)                                                        # [..., N]
    # 3. normalize
    total = e.sum(axis=axis, keepdims=True)                                     # [..., 1]
    y = e / np.where(total == 0, 1, total)                                      # [..., N]
    return y, SoftmaxCache(y, axis)


def softmax_backward(d_y: Array, cache: SoftmaxCache) -> Array:
    """Gradient of `softmax_forward`.

        forward   y_i = exp(x_i - max x) / sum_j exp(x_j - max x)
        backward  d_x_i = y_i (d_y_i - sum_j d_y_j y_j)

    d_y: [..., N, ...], gradient of the loss with respect to y.   Returns d_x: like d_y; exactly 0 where masked.
    """
    y, axis = cache.y, cache.axis
    # 3. y = e / total             every x_j reaches y_i through the total, hence the row term
    row = (d_y * y).sum(axis=axis, keepdims=True)                               # [..., 1]
    # 2. e = exp(x - peak)         the peak cancels: softmax does not change when all x shift together
    return y * (d_y - row)                                                      # [..., N]


@dataclass(frozen=True, repr=False, eq=False)
class LogSoftmaxCache(Cache):
    y: Array  # [..., N]
    mask: Array | None
    axis: int


def log_softmax_forward(x: Array, mask: Array | None = None, *, axis: int = -1) -> tuple[Array, LogSoftmaxCache]:
    """Logarithm of the softmax, computed without taking the logarithm of a number that has underflowed to 0.

        y_i = x_i - max x - log sum_j exp(x_j - max x)

    x: [..., N, ...] with N at `axis`.   mask: boolean, broadcastable to x, True = takes part.
    Returns y: like x; -inf where masked.
    Raises ValueError if the mask is not boolean or does not broadcast to x.
    """
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise ValueError(f"log_softmax: mask must be boolean (True = takes part), got {mask.dtype}")
        try:
            np.broadcast_to(mask, x.shape)
        except ValueError:
            raise ValueError(f"log_softmax: mask {list(mask.shape)} does not broadcast to x {list(x.shape)}") from None
        x = np.where(mask, x, -np.inf)                                          # [..., N]
    # 1. shift by the maximum
    peak = x.real.max(axis=axis, keepdims=True, initial=-np.inf)                # [..., 1]
    peak = np.where(peak == -np.inf, 0, peak)                                   # [..., 1]
    shifted = x - peak                                                          # [..., N]
    # 2. the logarithm of the sum: at least 1 is summed, unless the row is empty
    total = np.exp(shifted).sum(axis=axis, keepdims=True)                       # [..., 1]
    log_total = np.log(np.where(total == 0, 1, total))                          # [..., 1]
    # 3. subtract
    y = shifted - log_total                                                     # [..., N]
    return y, LogSoftmaxCache(y, mask, axis)


def log_softmax_backward(d_y: Array, cache: LogSoftmaxCache) -> Array:
    """Gradient of `log_softmax_forward`.

        forward   y_i = x_i - max x - log sum_j exp(x_j - max x)
        backward  d_x_i = d_y_i - exp(y_i) sum_j d_y_j

    d_y: [..., N, ...]; what it holds at masked entries (where y is -inf) is ignored.
    Returns d_x: like d_y; exactly 0 where masked.
    """
    y, mask, axis = cache.y, cache.mask, cache.axis
    if mask is not None:
        d_y = np.where(mask, d_y, 0)                                            # [..., N]
    # 3. y = shifted - log_total
    # 2. log_total = log sum exp(shifted)       whose derivative by x_i is the softmax, exp(y_i)
    d_log_total = -d_y.sum(axis=axis, keepdims=True)                            # [..., 1]
    return d_y + np.exp(y) * d_log_total                                        # [..., N]
