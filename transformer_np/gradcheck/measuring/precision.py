"""How close is close enough: the fair comparison of two gradients.

    |a - n| <= relative size + noise scale + rounding changes + UNCERTAIN error

A relative bound, and absolute ones in proportion to what the numbers are made of: to the largest gradient (scale), to what one
rounding error of everything that goes in changes in this one (changes), and to what the method says about itself (error).
Without them, a gradient that is truly 0, such as that of a key bias, would be called wrong for its rounding; with a fixed one,
every small gradient would pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.measuring.measurement import Measurement
from transformer_np.layer import Array

EPS = float(np.finfo(np.float64).eps)

# Where all gradients together are smaller than this part of the loss, they are what rounding left of a gradient that is 0.
NOTHING = 1000 * EPS

# This part of the loss over the argument is no less than what a gradient is made of, however small it is itself.
SATURATED = 1 / 4

# Beside greater outputs, one that is smaller than this stands for minus infinity, and one so many times as large as nearly
# all others for infinity.
MASKED = -1e4
FAR_ABOVE, NEARLY_ALL = 1e6, 0.9

# The error that differences state is that of the last two steps. It has been seen 5 times too small.
UNCERTAIN = 20


@dataclass(frozen=True)
class Bounds:
    """relative: to each element.   noise: so much of the largest of all gradients is taken for the rounding of numbers that
    cancelled.   rounding: so many times what one rounding error of everything that goes in changes may be owed to the rounding
    errors on the way."""

    relative: float
    noise: float
    rounding: float

    @classmethod
    def of(cls, precision: Precision) -> Bounds:
        # float64: the complex step is good to about 1e-15, and what a backward pass loses by rounding stayed below 3e-12 in the
        # examples of this project under 14 seeds. A forgotten eps of 1e-5, among the smallest faults known from public code, is
        # seen as 1e-5.
        # lower precisions: a few roundings of the element itself, and two of the largest. All pairs of this project stay below a
        # fifth of the bound in float32 and float16, each operation rounded; a program that accumulates in float32 is far better.
        return FLOAT64 if precision.profile == "float64" else cls(8 * precision.eps, 2 * precision.eps, 8)

    def allowed(self, measured: Measurement, scale: float) -> Array:
        """By how much a right gradient may be off at each place, beyond the relative bound."""
        return self.noise * scale + self.rounding * measured.noise + UNCERTAIN * measured.error


FLOAT64 = Bounds(relative=1e-11, noise=32 * EPS, rounding=16)


def gradient_scales(gradients: Sequence[Array | None], members: Sequence[Array], cotangents: Sequence[Array],
                    arguments: Sequence[Array]) -> list[float]:
    """For each argument, how large its gradient might be, so that its rounding can be told from nothing.

    It is the largest element of all gradients, in the units of this argument: where weights are 1e-30 and inputs 1e30, their
    gradients are of other sizes than these, and gradient times argument, a part of the loss, is what can be compared. If every
    gradient is 0 but for rounding, as those of sum(softmax(x)) are, it is the loss over the argument; and it is never less than a
    part of that: where a softmax is saturated, 1 - y is what rounding left of 1.
    """
    own = [0.0 if gradient is None else _largest(gradient) for gradient in gradients]
    sizes = [_largest(argument[np.isfinite(argument)]) for argument in arguments]
    share = max((gradient * size for gradient, size in zip(own, sizes, strict=True)), default=0.0)
    scales = [max(gradient, min(max(own), share / size if size > 0 else np.inf))
              for gradient, size in zip(own, sizes, strict=True)]
    possible = loss_over_arguments(members, cotangents, arguments)
    if all(scale < NOTHING * part for scale, part in zip(scales, possible, strict=True)):
        return possible
    return [max(scale, SATURATED * part) for scale, part in zip(scales, possible, strict=True)]


def loss_over_arguments(members: Sequence[Array], cotangents: Sequence[Array], arguments: Sequence[Array]) -> list[float]:
    """What a gradient would be if the loss were in proportion to the argument."""
    loss = loss_size(members, cotangents)
    # an argument of 1e-30 could have a gradient of 1e30 for all one knows; that must not excuse everything
    return [loss / max(_largest(argument[np.isfinite(argument)]), 1.0) for argument in arguments]


def loss_size(members: Sequence[Array], cotangents: Sequence[Array]) -> float:
    """How large the part of a single output in the loss may be."""
    return sum(_largest(cotangent) * usual_size(member) for cotangent, member in zip(cotangents, members, strict=True))


def usual_size(outputs: Array) -> float:
    """The largest, without what stands for something else: -1e9 and -1e30 for the minus infinity behind a mask, and a few numbers
    far above nearly all others. They say nothing about the rounding of those."""
    finite = outputs[np.isfinite(outputs)]
    if not finite.size:
        return 0.0
    others = finite[(finite > MASKED) & (np.abs(finite) <= FAR_ABOVE * np.quantile(np.abs(finite), NEARLY_ALL, method="lower"))]
    return _largest(others if others.size else finite)


def relative_error(a: Array, b: Array, size: Array, allowed: Array | float, bound: float = FLOAT64.relative) -> Array:
    """|a - b| / (size + allowed / bound), elementwise; infinite where a number is not finite.

    It is `bound` or less just where |a - b| <= bound size + allowed.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.abs(a - b)
        error = np.where(difference == 0, 0, difference / (size + np.asarray(allowed) / bound))
    return np.where(np.isfinite(error), error, np.inf)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0))
