"""Convolution along one axis, and its layer.

As in every deep learning library this is a cross-correlation: the kernel is not reversed. The layout is [B, T, C], channels
last, as everywhere in this project; PyTorch has [B, C, T].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from transformer_np.layer import Array, Cache, Layer

Padding = int | tuple[int, int] | str


@dataclass(frozen=True, repr=False, eq=False)
class Convolution1DCache(Cache):
    padded: Array        # [B, P, C_in], x between its zeros
    weight: Array        # [K, C_in / G, C_out]
    has_bias: bool
    left: int            # how many zeros stand before x
    num_inputs: int      # T
    stride: int
    dilation: int
    groups: int


def convolution_1d_forward(x: Array, weight: Array, bias: Array | None = None, *, stride: int = 1, padding: Padding = 0,
                           dilation: int = 1, groups: int = 1) -> tuple[Array, Convolution1DCache]:
    """Cross-correlation: every output is a weighted sum over a window of the inputs, with the same weights at every place.

        y_t = b + sum_k padded_{stride t + dilation k} weight_k         t = 0 ... T_out - 1,   k = 0 ... K - 1
        T_out = floor((left + T + right - dilation (K - 1) - 1) / stride) + 1

    x: [B, T, C_in].   weight: [K, C_in / G, C_out].   bias: [C_out] or None.   Returns y: [B, T_out, C_out].
    padding: so many zeros at each end (an integer), or (left, right), or
        "same"    dilation (K - 1) zeros in all: T_out is T at stride 1. An even kernel has one zero more on the right,
        "causal"  dilation (K - 1) zeros on the left: y_t sees nothing that comes after x_{stride t}.
    groups: G; the channels fall into G groups, and each group of outputs sees its own group of inputs only. G = C_in is the
    depthwise convolution.
    An empty sequence gives an empty output. Raises ValueError if shapes or settings do not fit, or if the kernel is larger than
    the padded input.

    One matrix product for each tap of the kernel: as fast here as one product over copied windows (im2col), with a K-th
    of its memory. `convolution_1d_forward_naive` is the equation, number by number.
    """
    left, right = check_convolution_1d(x, weight, bias, stride, padding, dilation, groups)
    B, T, C_in = x.shape
    K, _, C_out = weight.shape
    # 1. zeros around the input
    padded = np.zeros((B, left + T + right, C_in), x.dtype)                     # [B, P, C_in]
    padded[:, left:left + T] = x
    num_outputs = count_outputs(T, padded.shape[1], dilation * (K - 1) + 1, stride)
    N = B * num_outputs
    # 2. one product for each tap: the inputs that tap k meets on its way, times its weights
    total = np.zeros((groups, N, C_out // groups), np.result_type(x, weight))   # [G, N, C_out / G]
    for k in range(K):
        met = padded[:, dilation * k:][:, :stride * num_outputs:stride]         # [B, T_out, C_in]
        rows = met.reshape(N, groups, C_in // groups).swapaxes(0, 1)            # [G, N, C_in / G]
        tap = weight[k].reshape(C_in // groups, groups, C_out // groups).swapaxes(0, 1)  # [G, C_in / G, C_out / G]
        total += rows @ tap                                                     # [G, N, C_out / G]
    # 3. the groups side by side
    y = total.swapaxes(0, 1).reshape(B, num_outputs, C_out)                     # [B, T_out, C_out]
    # 4. the bias is the same at every place
    if bias is not None:
        y = y + bias                                                            # [B, T_out, C_out]
    return y, Convolution1DCache(padded, weight, bias is not None, left, T, stride, dilation, groups)


def convolution_1d_backward(d_y: Array, cache: Convolution1DCache) -> tuple[Array, Array, Array | None]:
    """Gradient of `convolution_1d_forward`.

        forward   y_t = b + sum_k padded_{stride t + dilation k} weight_k
        backward  d_padded_p = sum of d_y_t weight_k^T over all t, k with stride t + dilation k = p
                  d_weight_k = sum_t padded_{stride t + dilation k}^T d_y_t
                  d_b        = sum_t d_y_t

    Windows overlap, so an input that several outputs saw takes the sum; one that no output saw (at the end, when the stride
    does not divide) takes 0.
    d_y: [B, T_out, C_out].   Returns d_x [B, T, C_in], d_weight [K, C_in / G, C_out], d_bias [C_out] (None if there was none).
    """
    padded, weight, stride, dilation, groups = cache.padded, cache.weight, cache.stride, cache.dilation, cache.groups
    B, num_outputs, C_out = d_y.shape
    K, C_in = weight.shape[0], padded.shape[2]
    N = B * num_outputs
    # 4. y = y + bias                      one bias serves every place, so its gradients add
    d_bias = d_y.sum(axis=(0, 1)) if cache.has_bias else None                   # [C_out]
    # 3. y = the groups of total side by side
    d_total = d_y.reshape(N, groups, C_out // groups).swapaxes(0, 1)            # [G, N, C_out / G]
    # 2. total += rows @ tap, rows = padded[:, dilation * k:][:, :stride * num_outputs:stride]
    d_padded = np.zeros(padded.shape, d_y.dtype)                                # [B, P, C_in]
    d_weight = np.zeros(weight.shape, weight.dtype)                             # [K, C_in / G, C_out]
    for k in range(K):
        met = padded[:, dilation * k:][:, :stride * num_outputs:stride]         # [B, T_out, C_in]
        rows = met.reshape(N, groups, C_in // groups).swapaxes(0, 1)            # [G, N, C_in / G]
        tap = weight[k].reshape(C_in // groups, groups, C_out // groups).swapaxes(0, 1)  # [G, C_in / G, C_out / G]
        d_tap = rows.swapaxes(1, 2) @ d_total                                   # [G, C_in / G, C_out / G]
        d_weight[k] = d_tap.swapaxes(0, 1).reshape(C_in // groups, C_out)       # [C_in / G, C_out]
        d_rows = d_total @ tap.swapaxes(1, 2)                                   # [G, N, C_in / G]
        d_met = d_rows.swapaxes(0, 1).reshape(met.shape)                        # [B, T_out, C_in]
        d_padded[:, dilation * k:][:, :stride * num_outputs:stride] += d_met    # [B, T_out, C_in]
    # 1. padded[:, left:left + T] = x      with T written out: a slice [left:-right] is empty where right is 0
    d_x = d_padded[:, cache.left:cache.left + cache.num_inputs]                 # [B, T, C_in]
    return d_x, d_weight, d_bias


def convolution_1d_forward_naive(x: Array, weight: Array, bias: Array | None = None, *, stride: int = 1, padding: Padding = 0,
                                 dilation: int = 1, groups: int = 1) -> tuple[Array, Convolution1DCache]:
    """`convolution_1d_forward`, as its equation reads: a loop over every index, an input outside the sequence is 0."""
    left, right = check_convolution_1d(x, weight, bias, stride, padding, dilation, groups)
    B, T, C_in = x.shape
    K, group_in, C_out = weight.shape
    num_outputs = count_outputs(T, left + T + right, dilation * (K - 1) + 1, stride)
    y = np.zeros((B, num_outputs, C_out), np.result_type(x, weight))            # [B, T_out, C_out]
    for b, t, o, k, c in np.ndindex(B, num_outputs, C_out, K, group_in):
        source = stride * t + dilation * k - left
        group = o // (C_out // groups)
        if 0 <= source < T:
            y[b, t, o] += x[b, source, group * group_in + c] * weight[k, c, o]
    if bias is not None:
        y = y + bias                                                            # [B, T_out, C_out]
    padded = np.concatenate([np.zeros((B, left, C_in), x.dtype), x, np.zeros((B, right, C_in), x.dtype)], axis=1)
    return y, Convolution1DCache(padded, weight, bias is not None, left, T, stride, dilation, groups)


def convolution_1d_backward_naive(d_y: Array, cache: Convolution1DCache) -> tuple[Array, Array, Array | None]:
    """`convolution_1d_backward`, as its equations read: whatever forward multiplied takes the other factor times d_y."""
    padded, weight, left = cache.padded, cache.weight, cache.left
    B, num_outputs, C_out = d_y.shape
    K, group_in, _ = weight.shape
    d_padded = np.zeros(padded.shape, d_y.dtype)                                # [B, P, C_in]
    d_weight = np.zeros(weight.shape, weight.dtype)                             # [K, C_in / G, C_out]
    for b, t, o, k, c in np.ndindex(B, num_outputs, C_out, K, group_in):
        source = cache.stride * t + cache.dilation * k
        channel = o // (C_out // cache.groups) * group_in + c
        d_padded[b, source, channel] += d_y[b, t, o] * weight[k, c, o]
        d_weight[k, c, o] += d_y[b, t, o] * padded[b, source, channel]
    d_bias = d_y.sum(axis=(0, 1)) if cache.has_bias else None                   # [C_out]
    return d_padded[:, left:left + cache.num_inputs], d_weight, d_bias


def count_outputs(num_inputs: int, padded: int, span: int, stride: int) -> int:
    """How many windows of `span` fit into `padded` places, a stride apart. None into an empty sequence, whatever its padding."""
    return 0 if num_inputs == 0 else (padded - span) // stride + 1


def check_convolution_1d(x: Array, weight: Array, bias: Array | None, stride: int, padding: Padding, dilation: int,
                         groups: int) -> tuple[int, int]:
    """How many zeros go before and after x. Raises ValueError if shapes or settings do not fit."""
    if x.ndim != 3:
        raise ValueError(f"convolution_1d: x {list(x.shape)}, expected [B, T, C_in]")
    if weight.ndim != 3 or weight.shape[0] < 1:
        raise ValueError(f"convolution_1d: weight {list(weight.shape)}, expected [K, C_in / groups, C_out] with K at least 1")
    for name, value in (("stride", stride), ("dilation", dilation), ("groups", groups)):
        if value < 1:
            raise ValueError(f"convolution_1d: {name} {value}, expected at least 1")
    C_in, (K, group_in, C_out) = x.shape[2], weight.shape
    if C_in % groups or C_out % groups:
        raise ValueError(f"convolution_1d: groups {groups} do not divide the channels, {C_in} in and {C_out} out")
    if group_in * groups != C_in:
        raise ValueError(f"convolution_1d: weight {list(weight.shape)}, expected [K, {C_in // groups}, C_out] for x "
                         f"{list(x.shape)} in {groups} groups")
    if bias is not None and bias.shape != (C_out,):
        raise ValueError(f"convolution_1d: bias {list(bias.shape)}, expected [{C_out}], the last axis of weight")
    reach = dilation * (K - 1)
    if padding == "same":
        left, right = reach // 2, reach - reach // 2
    elif padding == "causal":
        left, right = reach, 0
    elif isinstance(padding, str):
        raise ValueError(f"convolution_1d: padding {padding!r}, expected an integer, (left, right), 'same' or 'causal'")
    else:
        left, right = padding if isinstance(padding, tuple) else (padding, padding)
    if left < 0 or right < 0:
        raise ValueError(f"convolution_1d: padding {(left, right)}, expected at least 0")
    if x.shape[1] > 0 and left + x.shape[1] + right < reach + 1:
        raise ValueError(f"convolution_1d: the kernel spans {reach + 1} places, the padded input has {left + x.shape[1] + right}")
    return left, right


@dataclass(repr=False, eq=False)
class Convolution1D(Layer):
    """`convolution_1d_forward` with its weights and settings."""

    weight: Array            # [K, C_in / G, C_out]
    bias: Array | None       # [C_out]
    stride: int = 1
    padding: Padding = 0
    dilation: int = 1
    groups: int = 1

    @classmethod
    def create(cls, d_in: int, d_out: int, kernel_size: int, *, rng: np.random.Generator, stride: int = 1, padding: Padding = 0,
               dilation: int = 1, groups: int = 1, bias: bool = True, std: float | None = None,
               dtype: type = np.float32) -> Convolution1D:
        """Weights from a normal distribution of standard deviation `std`, by default 1 / sqrt(K C_in / G): one over the
        root of the numbers that an output sums up. The bias starts at 0. Raises ValueError if the groups do not divide the
        channels, or the kernel is empty."""
        if kernel_size < 1:
            raise ValueError(f"Convolution1D: kernel_size {kernel_size}, expected at least 1")
        if groups < 1 or d_in % groups or d_out % groups:
            raise ValueError(f"Convolution1D: groups {groups} do not divide the channels, {d_in} in and {d_out} out")
        shape = (kernel_size, d_in // groups, d_out)
        std = 1 / math.sqrt(kernel_size * shape[1]) if std is None else std
        weight: Array = (std * rng.standard_normal(shape)).astype(dtype)
        return cls(weight, np.zeros(d_out, dtype) if bias else None, stride, padding, dilation, groups)

    def forward(self, x: Array) -> tuple[Array, Convolution1DCache]:            # x: [B, T, C_in]
        return convolution_1d_forward(x, self.weight, self.bias, stride=self.stride, padding=self.padding,
                                      dilation=self.dilation, groups=self.groups)

    def backward(self, d_y: Array, cache: Convolution1DCache) -> tuple[Array, Convolution1D]:
        d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache)
        return d_x, replace(self, weight=d_weight, bias=d_bias)
