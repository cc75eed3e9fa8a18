"""Weight normalization: a weight as a direction and a length.

Salimans and Kingma 2016, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array, Cache


@dataclass(frozen=True, repr=False, eq=False)
class WeightNormCache(Cache):
    unit: Array      # [..., D_out]
    norm: Array      # [D_out]
    gain: Array      # [D_out]


def weight_norm_forward(direction: Array, gain: Array) -> tuple[Array, WeightNormCache]:
    """The weights of each output have the direction of one array and the length of another.

        weight_o = gain_o direction_o / |direction_o|           |v| = sqrt(sum of v^2 over all axes but the last)

    direction: [..., D_out].   gain: [D_out].   Returns weight: [..., D_out].
    Raises ValueError if the shapes do not fit, or a direction is all 0.   Salimans and Kingma 2016, equation (2).
    """
    if direction.ndim == 0 or gain.shape != direction.shape[-1:]:
        raise ValueError(f"weight_norm: gain {list(gain.shape)}, expected the last axis of direction {list(direction.shape)}")
    # 1. the length of each direction
    norm = np.sqrt((direction * direction).sum(axis=tuple(range(direction.ndim - 1))))  # [D_out]
    if (norm == 0).any():
        raise ValueError(f"weight_norm: the direction of output {int((norm == 0).argmax())} is all 0, expected a direction")
    # 2. directions of length 1
    unit = direction / norm                                                     # [..., D_out]
    # 3. of length gain
    weight = gain * unit                                                        # [..., D_out]
    return weight, WeightNormCache(unit, norm, gain)


def weight_norm_backward(d_weight: Array, cache: WeightNormCache) -> tuple[Array, Array]:
    """Gradient of `weight_norm_forward`.

        forward   u = v / |v|,   weight = g u
        backward  d_g = sum of d_weight u
                  d_v = g / |v| (d_weight - u d_g)              at right angles to v: its length does not matter

    d_weight: [..., D_out].   Returns d_direction [..., D_out], d_gain [D_out].   Salimans and Kingma 2016, equation (3).
    """
    unit, norm, gain = cache.unit, cache.norm, cache.gain
    # 3. weight = gain * unit
    d_gain = (d_weight * unit).sum(axis=tuple(range(unit.ndim - 1)))            # [D_out]
    # 2. unit = direction / norm
    # 1. norm = |direction|                what moves along the direction only changes the norm, and is taken out
    d_direction = gain / norm * (d_weight - unit * d_gain)                      # [..., D_out]
    return d_direction, d_gain
