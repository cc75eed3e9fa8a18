"""The simple recurrent network with tanh: a step, the sequence that repeats it, and the layer.

Elman 1990, "Finding Structure in Time". The state is all that the network remembers, and every step overwrites all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from baselines_np.recurrence import check_sequence, check_step, initial_state, orthogonal, real_steps
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import LinearCache, linear_backward, linear_forward


@dataclass(frozen=True, repr=False, eq=False)
class RNNStepCache(Cache):
    h: Array             # [B, D], the state before the step
    h_next: Array        # [B, D], the state after it
    weight_h: Array      # [D, D]


def rnn_step_forward(projected: Array, h: Array, weight_h: Array) -> tuple[Array, RNNStepCache]:
    """One step: the new state is made of the input and of the old state.

        h' = tanh(projected + h W_h)                projected = x W_x + b

    The input's share comes in projected, because a sequence does that for all its steps in one product.
    projected: [B, D].   h: [B, D].   weight_h: [D, D].   Returns h': [B, D].
    Raises ValueError if the shapes do not fit.
    """
    check_step("rnn_step", projected, weight_h, 1, h=h)
    # 1. what comes in, and what was known
    a = projected + h @ weight_h                                                # [B, D]
    # 2. squash
    h_next = np.tanh(a)                                                         # [B, D]
    return h_next, RNNStepCache(h, h_next, weight_h)


def rnn_step_backward(d_h_next: Array, cache: RNNStepCache) -> tuple[Array, Array, Array]:
    """Gradient of `rnn_step_forward`.

        forward   a = projected + h W_h,   h' = tanh(a)
        backward  d_a         = d_h' (1 - h'^2)
                  d_projected = d_a
                  d_h         = d_a W_h^T
                  d_W_h       = h^T d_a

    d_h_next: [B, D].   Returns d_projected [B, D], d_h [B, D], d_weight_h [D, D].
    """
    h, h_next, weight_h = cache.h, cache.h_next, cache.weight_h
    # 2. h_next = tanh(a)                  1 - h'^2 in factors, which lose fewer digits near +-1
    d_a = d_h_next * ((1 - h_next) * (1 + h_next))                              # [B, D]
    # 1. a = projected + h @ weight_h
    return d_a, d_a @ weight_h.T, h.T @ d_a


@dataclass(frozen=True, repr=False, eq=False)
class RNNCache(Cache):
    projection: LinearCache
    steps: list[RNNStepCache]
    real: Array | None       # [B, T, 1], False at padded steps; None without lengths
    weight_h: Array          # [D, D]
    has_h_0: bool


def rnn_forward(x: Array, weight_x: Array, weight_h: Array, bias: Array, h_0: Array | None = None, *,
                lengths: Array | None = None) -> tuple[tuple[Array, Array], RNNCache]:
    """A sequence of steps.

        h_t = tanh(x_t W_x + b + h_{t-1} W_h)       y_t = h_t       for t = 1 ... T

    x: [B, T, D_in].   weight_x: [D_in, D].   weight_h: [D, D].   bias: [D].   h_0: [B, D], by default 0.
    lengths: [B], integers from 0 to T: later steps of a sequence are padding. There the state stays as it is, y is 0, and
    what x holds has no influence, NaN included.
    Returns y: [B, T, D], the state after every step, and h_T: [B, D], the state after the last real one.
    Raises ValueError if the shapes do not fit.
    """
    check_sequence("rnn", x, weight_x, weight_h, bias, 1)
    h = initial_state("rnn", "h_0", h_0, x, weight_h)                           # [B, D]
    real = real_steps("rnn", lengths, x)                                        # [B, T, 1]
    B, T, D = *x.shape[:2], weight_h.shape[0]
    # 1. padding becomes 0: to ignore what comes of it is not enough, since in the gradient 0 * NaN is NaN
    if real is not None:
        x = np.where(real, x, 0)                                                # [B, T, D_in]
    # 2. the input's share of every step in one product
    projected, projection = linear_forward(x, weight_x, bias)                   # [B, T, D]
    # 3. step by step
    y = np.zeros((B, T, D), np.result_type(projected, h, weight_h))             # [B, T, D]
    steps = []
    for t in range(T):
        h_next, step = rnn_step_forward(projected[:, t], h, weight_h)           # [B, D]
        h = h_next if real is None else np.where(real[:, t], h_next, h)         # [B, D]
        y[:, t] = h if real is None else np.where(real[:, t], h, 0)             # [B, D]
        steps.append(step)
    return (y, h), RNNCache(projection, steps, real, weight_h, h_0 is not None)


def rnn_backward(d_output: tuple[Array, Array | None], cache: RNNCache) -> tuple[Array, Array, Array, Array, Array | None]:
    """Gradient of `rnn_forward`: back-propagation through time (Werbos 1990).

        forward   h_t = step(x_t W_x + b, h_{t-1}),   y_t = h_t
        backward  d_h_t = d_y_t + what step t + 1 sends back;   W_h serves every step, so its gradients add

    d_output: d_y [B, T, D], ignored at padded steps, and d_h_T [B, D], where None means 0.
    Returns d_x [B, T, D_in], d_weight_x [D_in, D], d_weight_h [D, D], d_bias [D], d_h_0 [B, D] (None if it was).
    """
    d_y, d_h_T = d_output
    real, weight_h = cache.real, cache.weight_h
    B, T, D = d_y.shape
    d_h = np.zeros((B, D), d_y.dtype) if d_h_T is None else d_h_T               # [B, D]
    d_projected = np.zeros((B, T, D), d_y.dtype)                                # [B, T, D]
    d_weight_h = np.zeros_like(weight_h)                                        # [D, D]
    # 3. h = step(projected[:, t], h), y[:, t] = h            h goes two ways: out, and on to the next step
    for t in reversed(range(T)):
        # a frozen state passes its gradient on to the step before, untouched
        d_h_next = d_y[:, t] + d_h if real is None else np.where(real[:, t], d_y[:, t] + d_h, 0)  # [B, D]
        d_projected[:, t], d_h_before, d_weight_h_t = rnn_step_backward(d_h_next, cache.steps[t])
        d_h = d_h_before if real is None else np.where(real[:, t], d_h_before, d_h)  # [B, D]
        d_weight_h += d_weight_h_t                                              # [D, D]
    # 2. projected = x @ weight_x + bias
    d_x, d_weight_x, d_bias = linear_backward(d_projected, cache.projection)    # [B, T, D_in], [D_in, D], [D]
    # 1. padding was replaced by 0: d_projected is 0 there, and so is d_x
    d_h_0 = d_h if cache.has_h_0 else None                                      # [B, D]
    return d_x, d_weight_x, d_weight_h, d_bias, d_h_0  # type: ignore[return-value]  # there is a bias


@dataclass(repr=False, eq=False)
class RNN(Layer):
    """`rnn_forward` with its weights. The state goes in and comes out; nothing is kept inside."""

    weight_x: Array          # [D_in, D]
    weight_h: Array          # [D, D]
    bias: Array              # [D]

    @classmethod
    def create(cls, d_in: int, d_hidden: int, *, rng: np.random.Generator, dtype: type = np.float32) -> RNN:
        """Input weights from a normal distribution of standard deviation 1 / sqrt(d_in), orthogonal recurrent weights
        (see `orthogonal`), biases 0."""
        weight_x = rng.standard_normal((d_in, d_hidden)) / math.sqrt(d_in)
        weight_h = orthogonal(d_hidden, rng=rng)
        return cls(weight_x.astype(dtype), weight_h.astype(dtype), np.zeros(d_hidden, dtype))

    def forward(self, x: Array, state: Array | None = None,
                lengths: Array | None = None) -> tuple[tuple[Array, Array], RNNCache]:
        """x: [B, T, D_in].   state: [B, D], by default 0.   lengths: [B].   Returns y [B, T, D] and the last state [B, D]."""
        return rnn_forward(x, self.weight_x, self.weight_h, self.bias, state, lengths=lengths)

    def backward(self, d_output: tuple[Array, Array | None], cache: RNNCache) -> tuple[Array, Array | None, RNN]:
        """d_output: d_y [B, T, D] and d_state [B, D] or None.   Returns d_x, the gradient of the first state (None
        if that was None), and that of the weights."""
        d_x, d_weight_x, d_weight_h, d_bias, d_state = rnn_backward(d_output, cache)
        return d_x, d_state, replace(self, weight_x=d_weight_x, weight_h=d_weight_h, bias=d_bias)
