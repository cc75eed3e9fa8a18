"""Taylor rates: a second opinion that needs no good step and no complex numbers.

    r(h) = |f(x + h v) - f(x) - h <g, v>|

is about h^2 when g is the gradient, so that halving h quarters it: slope 2 in a plot of logarithms. When g is wrong, h itself is
left in it, and the slope falls to 1 as h becomes small. The errors of 1e-6 and less drown in rounding before that shows.

Farrell, Ham, Funke and Rognes 2013, "Automated derivation of the adjoint of high-level transient finite element programs",
section 6.
"""

from __future__ import annotations

import numpy as np

from transformer_np.gradcheck.measuring.loss import Loss
from transformer_np.layer import Array

FIRST_STEP = 1 / 8
NUM_STEPS = 26
ABOVE_ROUNDING = 30      # a remainder counts that is so many times the rounding of the loss
NUM_SLOPES = 4           # the median of so many of the last slopes is taken


def taylor_slope(loss: Loss, which: int, gradient: Array, direction: Array) -> float:
    """The slope of the remainder when argument `which` moves along a direction: 2 or more when the gradient is right.

    Infinite where there is no remainder but rounding, as for a right gradient of a linear function. Raises Fault.
    """
    expected = float((gradient * direction).sum())
    length = loss.length({which: direction})
    remainders = []
    for level in range(NUM_STEPS):
        step = length * FIRST_STEP * 2.0 ** -level
        change = loss.output({which: direction}, step) - loss.base
        rounding = 2 * loss.eps * float(np.abs(loss.weights * loss.base).sum())
        remainder = abs(float(loss.weights @ change) - step * expected)
        if not remainder > ABOVE_ROUNDING * max(rounding, loss.eps * abs(step * expected)):
            break
        remainders.append(remainder)
    if len(remainders) < 2:
        return np.inf
    return float(np.median(-np.diff(np.log2(remainders))[-NUM_SLOPES:]))
