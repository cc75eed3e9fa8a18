"""How close is close enough: the fair comparison of two gradients."""

from __future__ import annotations

import numpy as np

from transformer_np.layer import Array

# The complex step is good to about 1e-15; what a backward pass loses by rounding, in the examples of this project, stays
# below 1e-12. A forgotten eps of 1e-5, the smallest fault that is known from public code, is seen as 1e-5.
RELATIVE_BOUND = 1e-11

# A gradient whose true value is 0, such as that of a key bias, comes out as rounding noise of the numbers that cancel in it. So
# much of the largest element of all gradients is taken for noise.
NOISE = 32 * float(np.finfo(np.float64).eps)


def relative_error(a: Array, b: Array, size: Array, largest: float) -> Array:
    """|a - b| / (size + largest NOISE / RELATIVE_BOUND), elementwise; infinite where a number is not finite.

    It is at most RELATIVE_BOUND exactly where |a - b| <= RELATIVE_BOUND size + NOISE largest: a relative bound, and an absolute
    one in proportion to the largest gradient.
    """
    difference = np.abs(a - b)
    floor = largest * (NOISE / RELATIVE_BOUND)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(difference == 0, 0, difference / (size + floor))
    return np.where(np.isfinite(error), error, np.inf)
