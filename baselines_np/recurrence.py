"""What the recurrent cells share: checked shapes, the initial state, which steps are real, and the first recurrent weights."""

from __future__ import annotations

import numpy as np

from transformer_np.layer import Array
from transformer_np.masks import padding_mask


def check_sequence(name: str, x: Array, weight_x: Array, weight_h: Array, bias: Array, blocks: int) -> None:
    """x: [B, T, D_in].   weight_x: [D_in, blocks D].   weight_h: [D, blocks D].   bias: [blocks D].   Raises ValueError."""
    if x.ndim != 3:
        raise ValueError(f"{name}: x {list(x.shape)}, expected [B, T, D_in]")
    times = "" if blocks == 1 else f"{blocks} "
    if weight_h.ndim != 2 or weight_h.shape[1] != blocks * weight_h.shape[0]:
        raise ValueError(f"{name}: weight_h {list(weight_h.shape)}, expected [D, {times}D]")
    expected = (x.shape[2], weight_h.shape[1])
    if weight_x.shape != expected:
        raise ValueError(f"{name}: weight_x {list(weight_x.shape)}, expected {list(expected)}: [D_in, {times}D]")
    if bias.shape != expected[1:]:
        raise ValueError(f"{name}: bias {list(bias.shape)}, expected {list(expected[1:])}: [{times}D]")


def check_step(name: str, projected: Array, weight_h: Array, blocks: int, **states: Array) -> None:
    """projected: [B, blocks D].   weight_h: [D, blocks D].   Each of the states: [B, D].   Raises ValueError."""
    times = "" if blocks == 1 else f"{blocks} "
    if weight_h.ndim != 2 or weight_h.shape[1] != blocks * weight_h.shape[0]:
        raise ValueError(f"{name}: weight_h {list(weight_h.shape)}, expected [D, {times}D]")
    if projected.ndim != 2 or projected.shape[1] != weight_h.shape[1]:
        raise ValueError(f"{name}: projected {list(projected.shape)}, expected [B, {weight_h.shape[1]}]: [B, {times}D]")
    expected = (projected.shape[0], weight_h.shape[0])
    for argument, state in states.items():
        if state.shape != expected:
            raise ValueError(f"{name}: {argument} {list(state.shape)}, expected {list(expected)}: [B, D]")


def initial_state(name: str, argument: str, state: Array | None, x: Array, weight_h: Array) -> Array:
    """The state before the first step: [B, D], by default 0. Raises ValueError if a given one has another shape."""
    expected = (x.shape[0], weight_h.shape[0])
    if state is None:
        return np.zeros(expected, x.dtype)
    if state.shape != expected:
        raise ValueError(f"{name}: {argument} {list(state.shape)}, expected {list(expected)}: [B, D]")
    return state


def real_steps(name: str, lengths: Array | None, x: Array) -> Array | None:
    """Which steps are not padding: boolean [B, T, 1], or None if all are. Raises ValueError if lengths do not fit x."""
    if lengths is None:
        return None
    B, T = x.shape[:2]
    lengths = np.asarray(lengths)
    if lengths.shape != (B,):
        raise ValueError(f"{name}: lengths {list(lengths.shape)}, expected [{B}]: one for each sequence of x")
    return padding_mask(lengths, T).reshape(B, T, 1)


def orthogonal(size: int, *, rng: np.random.Generator) -> Array:
    """A random rotation, uniform over the orthogonal matrices: [size, size] in float64.

    Repeated products with it neither grow nor shrink, which is what a recurrence does to its state and to its gradient.
    Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", section 3.
    """
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    # the signs of r's diagonal are the routine's choice; made positive, the decomposition is unique, and q uniform
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)
