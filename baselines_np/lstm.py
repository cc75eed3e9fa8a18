"""Long short-term memory: a step, the sequence that repeats it, and the layer.

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000. Beside the state h, which every step rewrites, runs
a cell c that is only scaled and added to: along it a gradient can travel far.

The four gates lie side by side in the columns of the weights, in the order i, f, g, o (input, forget, candidate, output), as in
PyTorch; Keras has i, f, g, o too, ONNX i, o, f, g. There is one bias, where PyTorch adds two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from baselines_np.recurrence import check_sequence, check_step, initial_state, orthogonal, real_steps
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import LinearCache, linear_backward, linear_forward


@dataclass(frozen=True, repr=False, eq=False)
class LSTMStepCache(Cache):
    h: Array             # [B, D], the state before the step
    c: Array             # [B, D], the cell before the step
    i: Array             # [B, D], input gate: how much of the candidate is written
    f: Array             # [B, D], forget gate: how much of the cell is kept
    g: Array             # [B, D], the candidate
    o: Array             # [B, D], output gate: how much of the cell is shown
    tanh_c: Array        # [B, D], of the cell after the step
    weight_h: Array      # [D, 4 D]


def lstm_step_forward(projected: Array, h: Array, c: Array, weight_h: Array) -> tuple[tuple[Array, Array], LSTMStepCache]:
    """One step: forget a part of the cell, write to it, show a part of it.

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)      g = tanh(a_g)       a = projected + h W_h
        c' = f c + i g                                                              projected = x W_x + b
        h' = o tanh(c')

    The input's share comes in projected, because a sequence does that for all its steps in one product.
    projected: [B, 4 D].   h: [B, D].   c: [B, D].   weight_h: [D, 4 D].   Returns h' [B, D] and c' [B, D].
    Raises ValueError if the shapes do not fit.   Gers et al. 2000, equations (2) to (8), without peepholes.
    """
    check_step("lstm_step", projected, weight_h, 4, h=h, c=c)
    D = h.shape[1]
    # 1. all gates in one product
    a = projected + h @ weight_h                                                # [B, 4 D]
    # 2. sigmoid(a) = (1 + tanh(a / 2)) / 2: nothing to overflow, at any a
    i = 0.5 * np.tanh(0.5 * a[:, :D]) + 0.5                                     # [B, D]
    f = 0.5 * np.tanh(0.5 * a[:, D:2 * D]) + 0.5                                # [B, D]
    g = np.tanh(a[:, 2 * D:3 * D])                                              # [B, D]
    o = 0.5 * np.tanh(0.5 * a[:, 3 * D:]) + 0.5                                 # [B, D]
    # 3. the cell forgets, then takes in
    c_next = f * c + i * g                                                      # [B, D]
    # 4. and shows a part of itself
    tanh_c = np.tanh(c_next)                                                    # [B, D]
    h_next = o * tanh_c                                                         # [B, D]
    return (h_next, c_next), LSTMStepCache(h, c, i, f, g, o, tanh_c, weight_h)


def lstm_step_backward(d_output: tuple[Array, Array], cache: LSTMStepCache) -> tuple[Array, Array, Array, Array]:
    """Gradient of `lstm_step_forward`.

        forward   a = projected + h W_h,   c' = f c + i g,   h' = o tanh(c')
        backward  d_c'  = d_c' + d_h' o (1 - tanh(c')^2)            c' is used twice: shown, and carried on
                  d_c   = d_c' f
                  d_a_i = d_c' g i (1 - i)          d_a_f = d_c' c f (1 - f)
                  d_a_g = d_c' i (1 - g^2)          d_a_o = d_h' tanh(c') o (1 - o)
                  d_projected = d_a,   d_h = d_a W_h^T,   d_W_h = h^T d_a

    d_output: d_h' [B, D] and d_c' [B, D].   Returns d_projected [B, 4 D], d_h [B, D], d_c [B, D], d_weight_h [D, 4 D].
    """
    d_h_next, d_c_next = d_output
    i, f, g, o, tanh_c = cache.i, cache.f, cache.g, cache.o, cache.tanh_c
    # 4. h_next = o * tanh(c_next)         1 - tanh^2 in factors, which lose fewer digits near +-1
    d_o = d_h_next * tanh_c                                                     # [B, D]
    d_c_next = d_c_next + d_h_next * o * ((1 - tanh_c) * (1 + tanh_c))          # [B, D]
    # 3. c_next = f * c + i * g
    d_f = d_c_next * cache.c                                                    # [B, D]
    d_c = d_c_next * f                                                          # [B, D]
    d_i = d_c_next * g                                                          # [B, D]
    d_g = d_c_next * i                                                          # [B, D]
    # 2. i, f, o = sigmoid(a), g = tanh(a)
    d_a_i = d_i * i * (1 - i)                                                   # [B, D]
    d_a_f = d_f * f * (1 - f)                                                   # [B, D]
    d_a_g = d_g * ((1 - g) * (1 + g))                                           # [B, D]
    d_a_o = d_o * o * (1 - o)                                                   # [B, D]
    d_a = np.concatenate([d_a_i, d_a_f, d_a_g, d_a_o], axis=1)                  # [B, 4 D]
    # 1. a = projected + h @ weight_h
    return d_a, d_a @ cache.weight_h.T, d_c, cache.h.T @ d_a


@dataclass(frozen=True, repr=False, eq=False)
class LSTMCache(Cache):
    projection: LinearCache
    steps: list[LSTMStepCache]
    real: Array | None       # [B, T, 1], False at padded steps; None without lengths
    weight_h: Array          # [D, 4 D]
    has_h_0: bool
    has_c_0: bool


def lstm_forward(x: Array, weight_x: Array, weight_h: Array, bias: Array, h_0: Array | None = None, c_0: Array | None = None, *,
                 lengths: Array | None = None) -> tuple[tuple[Array, Array, Array], LSTMCache]:
    """A sequence of steps.

        h_t, c_t = step(x_t W_x + b, h_{t-1}, c_{t-1})          y_t = h_t       for t = 1 ... T

    x: [B, T, D_in].   weight_x: [D_in, 4 D].   weight_h: [D, 4 D].   bias: [4 D].   h_0, c_0: [B, D], by default 0.
    lengths: [B], integers from 0 to T: later steps of a sequence are padding. There the state stays as it is, y is 0, and
    what x holds has no influence, NaN included.
    Returns y: [B, T, D], the state after every step, and h_T, c_T: [B, D], the states after the last real one.
    Raises ValueError if the shapes do not fit.
    """
    check_sequence("lstm", x, weight_x, weight_h, bias, 4)
    h = initial_state("lstm", "h_0", h_0, x, weight_h)                          # [B, D]
    c = initial_state("lstm", "c_0", c_0, x, weight_h)                          # [B, D]
    real = real_steps("lstm", lengths, x)                                       # [B, T, 1]
    B, T, D = *x.shape[:2], weight_h.shape[0]
    # 1. padding becomes 0: to ignore what comes of it is not enough, since in the gradient 0 * NaN is NaN
    if real is not None:
        x = np.where(real, x, 0)                                                # [B, T, D_in]
    # 2. the input's share of every step in one product
    projected, projection = linear_forward(x, weight_x, bias)                   # [B, T, 4 D]
    # 3. step by step
    y = np.zeros((B, T, D), np.result_type(projected, h, c, weight_h))          # [B, T, D]
    steps = []
    for t in range(T):
        (h_next, c_next), step = lstm_step_forward(projected[:, t], h, c, weight_h)  # [B, D]
        h = h_next if real is None else np.where(real[:, t], h_next, h)         # [B, D]
        c = c_next if real is None else np.where(real[:, t], c_next, c)         # [B, D]
        y[:, t] = h if real is None else np.where(real[:, t], h, 0)             # [B, D]
        steps.append(step)
    return (y, h, c), LSTMCache(projection, steps, real, weight_h, h_0 is not None, c_0 is not None)


def lstm_backward(d_output: tuple[Array, Array | None, Array | None],
                  cache: LSTMCache) -> tuple[Array, Array, Array, Array, Array | None, Array | None]:
    """Gradient of `lstm_forward`: back-propagation through time.

        forward   h_t, c_t = step(x_t W_x + b, h_{t-1}, c_{t-1}),   y_t = h_t
        backward  d_h_t = d_y_t + what step t + 1 sends back;   d_c_t = what step t + 1 sends back;
                  W_h serves every step, so its gradients add

    d_output: d_y [B, T, D], ignored at padded steps, d_h_T [B, D] and d_c_T [B, D], where None means 0.
    Returns d_x [B, T, D_in], d_weight_x [D_in, 4 D], d_weight_h [D, 4 D], d_bias [4 D], d_h_0 [B, D], d_c_0 [B, D]
    (None for a state that was None).
    """
    d_y, d_h_T, d_c_T = d_output
    real, weight_h = cache.real, cache.weight_h
    B, T, D = d_y.shape
    d_h = np.zeros((B, D), d_y.dtype) if d_h_T is None else d_h_T               # [B, D]
    d_c = np.zeros((B, D), d_y.dtype) if d_c_T is None else d_c_T               # [B, D]
    d_projected = np.zeros((B, T, 4 * D), d_y.dtype)                            # [B, T, 4 D]
    d_weight_h = np.zeros_like(weight_h)                                        # [D, 4 D]
    # 3. h, c = step(projected[:, t], h, c), y[:, t] = h      h goes two ways: out, and on to the next step
    for t in reversed(range(T)):
        # a frozen state passes its gradient on to the step before, untouched
        d_h_next = d_y[:, t] + d_h if real is None else np.where(real[:, t], d_y[:, t] + d_h, 0)  # [B, D]
        d_c_next = d_c if real is None else np.where(real[:, t], d_c, 0)        # [B, D]
        d_projected[:, t], d_h_before, d_c_before, d_weight_h_t = lstm_step_backward((d_h_next, d_c_next), cache.steps[t])
        d_h = d_h_before if real is None else np.where(real[:, t], d_h_before, d_h)  # [B, D]
        d_c = d_c_before if real is None else np.where(real[:, t], d_c_before, d_c)  # [B, D]
        d_weight_h += d_weight_h_t                                              # [D, 4 D]
    # 2. projected = x @ weight_x + bias
    d_x, d_weight_x, d_bias = linear_backward(d_projected, cache.projection)    # [B, T, D_in], [D_in, 4 D], [4 D]
    # 1. padding was replaced by 0: d_projected is 0 there, and so is d_x
    d_h_0 = d_h if cache.has_h_0 else None                                      # [B, D]
    d_c_0 = d_c if cache.has_c_0 else None                                      # [B, D]
    return d_x, d_weight_x, d_weight_h, d_bias, d_h_0, d_c_0  # type: ignore[return-value]  # there is a bias


@dataclass(repr=False, eq=False)
class LSTM(Layer):
    """`lstm_forward` with its weights. The state, a pair (h, c), goes in and comes out; nothing is kept inside."""

    weight_x: Array          # [D_in, 4 D]: i, f, g, o
    weight_h: Array          # [D, 4 D]
    bias: Array              # [4 D]

    @classmethod
    def create(cls, d_in: int, d_hidden: int, *, rng: np.random.Generator, forget_bias: float = 1.0,
               dtype: type = np.float32) -> LSTM:
        """Input weights from a normal distribution of standard deviation 1 / sqrt(d_in), for each gate orthogonal recurrent
        weights (see `orthogonal`). Biases 0, but `forget_bias` for the forget gate: a cell that starts by remembering learns
        long lags sooner (Jozefowicz et al. 2015, section 3.2)."""
        weight_x = rng.standard_normal((d_in, 4 * d_hidden)) / math.sqrt(d_in)
        weight_h = np.concatenate([orthogonal(d_hidden, rng=rng) for _ in range(4)], axis=1)
        bias: Array = np.zeros(4 * d_hidden, dtype)
        bias[d_hidden:2 * d_hidden] = forget_bias
        return cls(weight_x.astype(dtype), weight_h.astype(dtype), bias)

    def forward(self, x: Array, state: tuple[Array, Array] | None = None,
                lengths: Array | None = None) -> tuple[tuple[Array, tuple[Array, Array]], LSTMCache]:
        """x: [B, T, D_in].   state: h and c, each [B, D], by default 0.   lengths: [B].
        Returns y [B, T, D] and the last state (h, c)."""
        h_0, c_0 = (None, None) if state is None else state
        (y, h, c), cache = lstm_forward(x, self.weight_x, self.weight_h, self.bias, h_0, c_0, lengths=lengths)
        return (y, (h, c)), cache

    def backward(self, d_output: tuple[Array, tuple[Array, Array] | None],
                 cache: LSTMCache) -> tuple[Array, tuple[Array, Array] | None, LSTM]:
        """d_output: d_y [B, T, D] and d_state (d_h, d_c) or None.   Returns d_x, the gradient of the first state (None
        if that was None), and that of the weights."""
        d_y, d_state = d_output
        d_h_T, d_c_T = (None, None) if d_state is None else d_state
        d_x, d_weight_x, d_weight_h, d_bias, d_h_0, d_c_0 = lstm_backward((d_y, d_h_T, d_c_T), cache)
        d_first = None if d_h_0 is None or d_c_0 is None else (d_h_0, d_c_0)
        return d_x, d_first, replace(self, weight_x=d_weight_x, weight_h=d_weight_h, bias=d_bias)
