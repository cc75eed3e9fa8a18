"""The gated recurrent unit: a step in two versions, the sequence that repeats it, and the layer.

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder". The two versions of the paper differ in where
the reset gate acts:

    reset after  (the default; cuDNN, PyTorch, Keras)       n = tanh(x W_n + b_n + r (h U_n + b'_n))
    reset before (version 1 of the paper, equation (8))     n = tanh(x W_n + b_n + (r h) U_n)

After it, all of h W_h is one product, and the candidate has a second bias, b'_n, which the gate scales. The three gates lie
side by side in the columns of the weights, in the order r, z, n (reset, update, candidate), as in PyTorch; Keras and ONNX
have z, r, n. z = 1 keeps the old state, as in the paper and in PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from baselines_np.recurrence import check_sequence, check_step, initial_state, orthogonal, real_steps
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import LinearCache, linear_backward, linear_forward


@dataclass(frozen=True, repr=False, eq=False)
class GRUStepCache(Cache):
    h: Array             # [B, D], the state before the step
    r: Array             # [B, D], reset gate: how much of the old state the candidate sees
    z: Array             # [B, D], update gate: how much of the old state stays
    n: Array             # [B, D], the candidate
    recalled: Array      # [B, D], what the old state offers to the candidate
    weight_h: Array      # [D, 3 D]


def gru_step_forward(projected: Array, h: Array, weight_h: Array, bias_h: Array) -> tuple[Array, GRUStepCache]:
    """One step, with the reset after the matrix product.

        r, z = sigmoid(p_r + u_r), sigmoid(p_z + u_z)           p = projected = x W_x + b
        n    = tanh(p_n + r (u_n + b_h))                        u = h W_h
        h'   = (1 - z) n + z h

    The input's share comes in projected, because a sequence does that for all its steps in one product.
    projected: [B, 3 D].   h: [B, D].   weight_h: [D, 3 D].   bias_h: [D], the candidate's own.   Returns h': [B, D].
    Raises ValueError if the shapes do not fit.   Cho et al. 2014, version 3, section 2.3; cuDNN's CUDNN_GRU.
    """
    check_step("gru_step", projected, weight_h, 3, h=h)
    D = h.shape[1]
    if bias_h.shape != (D,):
        raise ValueError(f"gru_step: bias_h {list(bias_h.shape)}, expected [{D}]: [D]")
    # 1. all that the old state says, in one product
    u = h @ weight_h                                                            # [B, 3 D]
    # 2. the gates: sigmoid(a) = (1 + tanh(a / 2)) / 2, nothing to overflow, at any a
    r = 0.5 * np.tanh(0.5 * (projected[:, :D] + u[:, :D])) + 0.5                # [B, D]
    z = 0.5 * np.tanh(0.5 * (projected[:, D:2 * D] + u[:, D:2 * D])) + 0.5      # [B, D]
    # 3. the candidate: the reset gate scales what is recalled
    recalled = u[:, 2 * D:] + bias_h                                            # [B, D]
    n = np.tanh(projected[:, 2 * D:] + r * recalled)                            # [B, D]
    # 4. between the candidate and the old state: (1 - z) n + z h
    h_next = n + z * (h - n)                                                    # [B, D]
    return h_next, GRUStepCache(h, r, z, n, recalled, weight_h)


def gru_step_backward(d_h_next: Array, cache: GRUStepCache) -> tuple[Array, Array, Array, Array]:
    """Gradient of `gru_step_forward`.

        forward   u = h W_h,   m = u_n + b_h,   n = tanh(p_n + r m),   h' = (1 - z) n + z h
        backward  d_p_n = d_h' (1 - z) (1 - n^2)
                  d_p_r = d_p_n m r (1 - r)             d_p_z = d_h' (h - n) z (1 - z)
                  d_u   = d_p_r, d_p_z, d_p_n r         d_b_h = sum over rows of d_p_n r
                  d_h   = d_h' z + d_u W_h^T            d_W_h = h^T d_u

    d_h_next: [B, D].   Returns d_projected [B, 3 D], d_h [B, D], d_weight_h [D, 3 D], d_bias_h [D].
    """
    h, r, z, n = cache.h, cache.r, cache.z, cache.n
    # 4. h_next = n + z * (h - n)
    d_z = d_h_next * (h - n)                                                    # [B, D]
    d_h = d_h_next * z                                                          # [B, D]
    d_n = d_h_next * (1 - z)                                                    # [B, D]
    # 3. n = tanh(projected_n + r * recalled), recalled = u_n + bias_h
    d_p_n = d_n * ((1 - n) * (1 + n))                                           # [B, D]
    d_r = d_p_n * cache.recalled                                                # [B, D]
    d_recalled = d_p_n * r                                                      # [B, D]
    d_bias_h = d_recalled.sum(axis=0)                                           # [D]
    # 2. r, z = sigmoid(projected + u)
    d_p_r = d_r * r * (1 - r)                                                   # [B, D]
    d_p_z = d_z * z * (1 - z)                                                   # [B, D]
    d_projected = np.concatenate([d_p_r, d_p_z, d_p_n], axis=1)                 # [B, 3 D]
    # 1. u = h @ weight_h                  h is used twice: here and in step 4
    d_u = np.concatenate([d_p_r, d_p_z, d_recalled], axis=1)                    # [B, 3 D]
    d_h = d_h + d_u @ cache.weight_h.T                                          # [B, D]
    return d_projected, d_h, h.T @ d_u, d_bias_h


@dataclass(frozen=True, repr=False, eq=False)
class GRUResetBeforeStepCache(Cache):
    h: Array             # [B, D], the state before the step
    r: Array             # [B, D], reset gate
    z: Array             # [B, D], update gate
    n: Array             # [B, D], the candidate
    reset: Array         # [B, D], r h
    weight_h: Array      # [D, 3 D]


def gru_reset_before_step_forward(projected: Array, h: Array, weight_h: Array) -> tuple[Array, GRUResetBeforeStepCache]:
    """One step, with the reset before the matrix product.

        r, z = sigmoid(p_r + h U_r), sigmoid(p_z + h U_z)       p = projected = x W_x + b
        n    = tanh(p_n + (r h) U_n)                            W_h = U_r, U_z, U_n side by side
        h'   = (1 - z) n + z h

    projected: [B, 3 D].   h: [B, D].   weight_h: [D, 3 D].   Returns h': [B, D].
    Raises ValueError if the shapes do not fit.   Cho et al. 2014, version 1, equations (5) to (8).
    """
    check_step("gru_reset_before_step", projected, weight_h, 3, h=h)
    D = h.shape[1]
    # 1. what the old state says to the gates
    u = h @ weight_h[:, :2 * D]                                                 # [B, 2 D]
    # 2. the gates: sigmoid(a) = (1 + tanh(a / 2)) / 2, nothing to overflow, at any a
    r = 0.5 * np.tanh(0.5 * (projected[:, :D] + u[:, :D])) + 0.5                # [B, D]
    z = 0.5 * np.tanh(0.5 * (projected[:, D:2 * D] + u[:, D:])) + 0.5           # [B, D]
    # 3. the candidate sees what the reset gate leaves of the old state
    reset = r * h                                                               # [B, D]
    n = np.tanh(projected[:, 2 * D:] + reset @ weight_h[:, 2 * D:])             # [B, D]
    # 4. between the candidate and the old state: (1 - z) n + z h
    h_next = n + z * (h - n)                                                    # [B, D]
    return h_next, GRUResetBeforeStepCache(h, r, z, n, reset, weight_h)


def gru_reset_before_step_backward(d_h_next: Array, cache: GRUResetBeforeStepCache) -> tuple[Array, Array, Array]:
    """Gradient of `gru_reset_before_step_forward`.

        forward   n = tanh(p_n + (r h) U_n),   h' = (1 - z) n + z h
        backward  d_p_n = d_h' (1 - z) (1 - n^2)                d_(r h) = d_p_n U_n^T
                  d_p_r = d_(r h) h r (1 - r)                   d_p_z   = d_h' (h - n) z (1 - z)
                  d_h   = d_h' z + d_(r h) r + d_p_r U_r^T + d_p_z U_z^T
                  d_U_r, d_U_z, d_U_n = h^T d_p_r, h^T d_p_z, (r h)^T d_p_n

    d_h_next: [B, D].   Returns d_projected [B, 3 D], d_h [B, D], d_weight_h [D, 3 D].
    """
    h, r, z, n, weight_h = cache.h, cache.r, cache.z, cache.n, cache.weight_h
    D = h.shape[1]
    # 4. h_next = n + z * (h - n)
    d_z = d_h_next * (h - n)                                                    # [B, D]
    d_h = d_h_next * z                                                          # [B, D]
    d_n = d_h_next * (1 - z)                                                    # [B, D]
    # 3. n = tanh(projected_n + reset @ weight_n), reset = r * h
    d_p_n = d_n * ((1 - n) * (1 + n))                                           # [B, D]
    d_weight_n = cache.reset.T @ d_p_n                                          # [D, D]
    d_reset = d_p_n @ weight_h[:, 2 * D:].T                                     # [B, D]
    d_r = d_reset * h                                                           # [B, D]
    d_h = d_h + d_reset * r                                                     # [B, D]
    # 2. r, z = sigmoid(projected + u)
    d_p_r = d_r * r * (1 - r)                                                   # [B, D]
    d_p_z = d_z * z * (1 - z)                                                   # [B, D]
    # 1. u = h @ weight_rz                 h is used three times: here, in step 3 and in step 4
    d_u = np.concatenate([d_p_r, d_p_z], axis=1)                                # [B, 2 D]
    d_h = d_h + d_u @ weight_h[:, :2 * D].T                                     # [B, D]
    d_weight_h = np.concatenate([h.T @ d_u, d_weight_n], axis=1)                # [D, 3 D]
    return np.concatenate([d_u, d_p_n], axis=1), d_h, d_weight_h


@dataclass(frozen=True, repr=False, eq=False)
class GRUCache(Cache):
    projection: LinearCache
    steps: list[Any]         # GRUStepCache, or GRUResetBeforeStepCache without reset_after
    real: Array | None       # [B, T, 1], False at padded steps; None without lengths
    weight_h: Array          # [D, 3 D]
    has_h_0: bool
    reset_after: bool


def gru_forward(x: Array, weight_x: Array, weight_h: Array, bias: Array, bias_h: Array | None, h_0: Array | None = None, *,
                lengths: Array | None = None, reset_after: bool = True) -> tuple[tuple[Array, Array], GRUCache]:
    """A sequence of steps.

        h_t = step(x_t W_x + b, h_{t-1})            y_t = h_t       for t = 1 ... T

    x: [B, T, D_in].   weight_x: [D_in, 3 D].   weight_h: [D, 3 D].   bias: [3 D].   bias_h: [D], and None when the reset is
    before the product.   h_0: [B, D], by default 0.
    lengths: [B], integers from 0 to T: later steps of a sequence are padding. There the state stays as it is, y is 0, and
    what x holds has no influence, NaN included.
    Returns y: [B, T, D], the state after every step, and h_T: [B, D], the state after the last real one.
    Raises ValueError if the shapes do not fit.
    """
    check_sequence("gru", x, weight_x, weight_h, bias, 3)
    h = initial_state("gru", "h_0", h_0, x, weight_h)                           # [B, D]
    real = real_steps("gru", lengths, x)                                        # [B, T, 1]
    B, T, D = *x.shape[:2], weight_h.shape[0]
    if reset_after and (bias_h is None or bias_h.shape != (D,)):
        raise ValueError(f"gru: bias_h {None if bias_h is None else list(bias_h.shape)}, expected [{D}]: [D], with reset_after")
    if not reset_after and bias_h is not None:
        raise ValueError(f"gru: bias_h {list(bias_h.shape)}, expected None without reset_after")
    # 1. padding becomes 0: to ignore what comes of it is not enough, since in the gradient 0 * NaN is NaN
    if real is not None:
        x = np.where(real, x, 0)                                                # [B, T, D_in]
    # 2. the input's share of every step in one product
    projected, projection = linear_forward(x, weight_x, bias)                   # [B, T, 3 D]
    # 3. step by step
    y = np.zeros((B, T, D), np.result_type(projected, h, weight_h, 0.0 if bias_h is None else bias_h))  # [B, T, D]
    steps: list[Any] = []
    step: Any
    for t in range(T):
        if bias_h is not None:
            h_next, step = gru_step_forward(projected[:, t], h, weight_h, bias_h)  # [B, D]
        else:
            h_next, step = gru_reset_before_step_forward(projected[:, t], h, weight_h)  # [B, D]
        h = h_next if real is None else np.where(real[:, t], h_next, h)         # [B, D]
        y[:, t] = h if real is None else np.where(real[:, t], h, 0)             # [B, D]
        steps.append(step)
    return (y, h), GRUCache(projection, steps, real, weight_h, h_0 is not None, reset_after)


def gru_backward(d_output: tuple[Array, Array | None],
                 cache: GRUCache) -> tuple[Array, Array, Array, Array, Array | None, Array | None]:
    """Gradient of `gru_forward`: back-propagation through time.

        forward   h_t = step(x_t W_x + b, h_{t-1}),   y_t = h_t
        backward  d_h_t = d_y_t + what step t + 1 sends back;   W_h and b_h serve every step, so their gradients add

    d_output: d_y [B, T, D], ignored at padded steps, and d_h_T [B, D], where None means 0.
    Returns d_x [B, T, D_in], d_weight_x [D_in, 3 D], d_weight_h [D, 3 D], d_bias [3 D], d_bias_h [D],
    d_h_0 [B, D] (None for what was None).
    """
    d_y, d_h_T = d_output
    real, weight_h = cache.real, cache.weight_h
    B, T, D = d_y.shape
    d_h = np.zeros((B, D), d_y.dtype) if d_h_T is None else d_h_T               # [B, D]
    d_projected = np.zeros((B, T, 3 * D), d_y.dtype)                            # [B, T, 3 D]
    d_weight_h = np.zeros_like(weight_h)                                        # [D, 3 D]
    d_bias_h = np.zeros(D, weight_h.dtype) if cache.reset_after else None       # [D]
    # 3. h = step(projected[:, t], h), y[:, t] = h            h goes two ways: out, and on to the next step
    for t in reversed(range(T)):
        # a frozen state passes its gradient on to the step before, untouched
        d_h_next = d_y[:, t] + d_h if real is None else np.where(real[:, t], d_y[:, t] + d_h, 0)  # [B, D]
        if d_bias_h is not None:
            d_projected[:, t], d_h_before, d_weight_h_t, d_bias_h_t = gru_step_backward(d_h_next, cache.steps[t])
            d_bias_h += d_bias_h_t                                              # [D]
        else:
            d_projected[:, t], d_h_before, d_weight_h_t = gru_reset_before_step_backward(d_h_next, cache.steps[t])
        d_h = d_h_before if real is None else np.where(real[:, t], d_h_before, d_h)  # [B, D]
        d_weight_h += d_weight_h_t                                              # [D, 3 D]
    # 2. projected = x @ weight_x + bias
    d_x, d_weight_x, d_bias = linear_backward(d_projected, cache.projection)    # [B, T, D_in], [D_in, 3 D], [3 D]
    # 1. padding was replaced by 0: d_projected is 0 there, and so is d_x
    d_h_0 = d_h if cache.has_h_0 else None                                      # [B, D]
    return d_x, d_weight_x, d_weight_h, d_bias, d_bias_h, d_h_0  # type: ignore[return-value]  # there is a bias


@dataclass(repr=False, eq=False)
class GRU(Layer):
    """`gru_forward` with its weights. The state goes in and comes out; nothing is kept inside."""

    weight_x: Array          # [D_in, 3 D]: r, z, n
    weight_h: Array          # [D, 3 D]
    bias: Array              # [3 D]
    bias_h: Array | None     # [D], the candidate's recurrent bias; None with the reset before the product
    reset_after: bool = True

    @classmethod
    def create(cls, d_in: int, d_hidden: int, *, rng: np.random.Generator, reset_after: bool = True,
               dtype: type = np.float32) -> GRU:
        """Input weights from a normal distribution of standard deviation 1 / sqrt(d_in), for each gate orthogonal recurrent
        weights (see `orthogonal`), biases 0."""
        weight_x = rng.standard_normal((d_in, 3 * d_hidden)) / math.sqrt(d_in)
        weight_h = np.concatenate([orthogonal(d_hidden, rng=rng) for _ in range(3)], axis=1)
        bias_h: Array | None = np.zeros(d_hidden, dtype) if reset_after else None
        return cls(weight_x.astype(dtype), weight_h.astype(dtype), np.zeros(3 * d_hidden, dtype), bias_h, reset_after)

    def forward(self, x: Array, state: Array | None = None,
                lengths: Array | None = None) -> tuple[tuple[Array, Array], GRUCache]:
        """x: [B, T, D_in].   state: [B, D], by default 0.   lengths: [B].   Returns y [B, T, D] and the last state [B, D]."""
        return gru_forward(x, self.weight_x, self.weight_h, self.bias, self.bias_h, state, lengths=lengths,
                           reset_after=self.reset_after)

    def backward(self, d_output: tuple[Array, Array | None], cache: GRUCache) -> tuple[Array, Array | None, GRU]:
        """d_output: d_y [B, T, D] and d_state [B, D] or None.   Returns d_x, the gradient of the first state (None
        if that was None), and that of the weights."""
        d_x, d_weight_x, d_weight_h, d_bias, d_bias_h, d_state = gru_backward(d_output, cache)
        return d_x, d_state, replace(self, weight_x=d_weight_x, weight_h=d_weight_h, bias=d_bias, bias_h=d_bias_h)
