"""Inverted dropout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array, Cache


@dataclass(frozen=True, repr=False, eq=False)
class DropoutCache(Cache):
    keep: Array | None  # [...], 0 or 1 / (1 - p); None if nothing was dropped


def dropout_forward(x: Array, p: float, rng: np.random.Generator | None = None) -> tuple[Array, DropoutCache]:
    """Set each number to 0 with probability p, and scale the others so that the mean stays.

        y = x * keep            keep = 0 with probability p, else 1 / (1 - p)

    x: [...].   p: 0 <= p < 1.   rng: draws `keep`; None means evaluation: y = x.   Returns y: like x.
    Raises ValueError if p is not in [0, 1).   Srivastava et al. 2014, section 10 for the scaling while training.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p {p}, expected 0 <= p < 1")
    if rng is None or p == 0:
        return x, DropoutCache(None)
    keep = (rng.random(x.shape) >= p) / (1 - p)                                 # [...]
    keep = keep.astype(x.real.dtype)                                            # [...]
    y = x * keep                                                                # [...]
    return y, DropoutCache(keep)


def dropout_backward(d_y: Array, cache: DropoutCache) -> Array:
    """Gradient of `dropout_forward`.   d_x = d_y * keep, with the same `keep` that forward drew.

    d_y: [...].   Returns d_x: like d_y.
    """
    # y = x * keep
    return d_y if cache.keep is None else d_y * cache.keep                      # [...]
