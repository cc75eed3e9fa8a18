"""How close is close enough: the fair comparison of two gradients.

    |a - b| <= RELATIVE_BOUND size + NOISE scale

A relative bound, and an absolute one in proportion to what the numbers are made of. Without the second, a gradient that is
truly 0, such as that of a key bias, would be called wrong for its rounding; with a fixed one, every small gradient would pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from transformer_np.layer import Array

# The complex step is good to about 1e-15, and what a backward pass loses by rounding stayed below 3e-12 in the examples of this
# project under 14 seeds. A forgotten eps of 1e-5, among the smallest faults known from public code, is seen as 1e-5.
RELATIVE_BOUND = 1e-11

# So much of the largest of all gradients is taken for the rounding of numbers that cancelled.
NOISE = 32 * float(np.finfo(np.float64).eps)

# Where all gradients together are smaller than this part of the loss, they are what rounding left of a gradient that is 0.
NOTHING = 1000 * float(np.finfo(np.float64).eps)


def gradient_scale(gradients: Iterable[Array | None], members: Sequence[Array], cotangents: Sequence[Array],
                   arguments: Sequence[Array]) -> float:
    """The largest element of all gradients. If every one is 0 but for rounding, as those of sum(softmax(x)) are: what a
    gradient might have been, the loss over the arguments."""
    scale = max((_largest(gradient) for gradient in gradients if gradient is not None), default=0.0)
    loss = sum(_largest(cotangent * np.where(np.isfinite(member), member, 0))
               for cotangent, member in zip(cotangents, members, strict=True))
    argument = max((_largest(argument[np.isfinite(argument)]) for argument in arguments), default=0.0)
    possible = loss / argument if argument > 0 else loss
    return possible if scale < NOTHING * possible else scale


def relative_error(a: Array, b: Array, size: Array, scale: float) -> Array:
    """|a - b| / (size + scale NOISE / RELATIVE_BOUND), elementwise; infinite where a number is not finite.

    It is RELATIVE_BOUND or less just where |a - b| <= RELATIVE_BOUND size + NOISE scale.
    """
    difference = np.abs(a - b)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(difference == 0, 0, difference / (size + scale * (NOISE / RELATIVE_BOUND)))
    return np.where(np.isfinite(error), error, np.inf)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0))
