"""Clip a gradient by its global norm: one long step, in the same direction, made shorter."""

from __future__ import annotations

import math

import numpy as np

from transformer_np.layer import AnyLayer, Layer, map_arrays, named_arrays


def global_norm(gradient: Layer) -> float:
    """The length of all arrays of the tree laid end to end.

        norm = sqrt(sum over every number g of g^2) = peak sqrt(sum (g / peak)^2)         peak = max |g|

    The second form cannot overflow or underflow where the norm itself does not. NaN or inf anywhere gives NaN or inf.
    """
    arrays = list(named_arrays(gradient).values())
    # 1. the largest magnitude; NumPy's maximum hands a NaN on, Python's may lose it
    peak = float(np.max([np.abs(g).max(initial=0) for g in arrays], initial=0))
    if peak == 0 or not math.isfinite(peak):
        return peak
    # 2. the sum of squares of numbers between -1 and 1
    total = math.fsum(float(np.square(g / peak).sum()) for g in arrays)
    return peak * math.sqrt(total)


def clip_by_global_norm(gradient: AnyLayer, max_norm: float) -> tuple[AnyLayer, float]:
    """A gradient no longer than `max_norm`, and the norm that it had before.

        g = g max_norm / norm       if norm > max_norm, else as it came

    A norm of 0 leaves the gradient as it came. So does a norm of inf or NaN: no factor turns that gradient into a direction
    (inf * 0 is NaN), and the norm that is returned tells the caller, who decides. Raises ValueError unless max_norm > 0.

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_by_global_norm: max_norm {max_norm}, expected a positive number")
    norm = global_norm(gradient)
    if not max_norm < norm < math.inf:
        return gradient, norm
    scale = float(max_norm / norm)  # a NumPy float64 would promote float32 gradients
    return map_arrays(lambda g: g * scale, gradient), norm
