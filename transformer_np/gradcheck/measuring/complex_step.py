"""The complex step: a derivative to the last digit, from forward alone.

    f(x + i h) = f(x) + i h f'(x) - h^2 f''(x) / 2 - ...          so   f'(x) = Im f(x + i h) / h

Nothing is subtracted, so nothing cancels, and h may be so small that the next term, h^2 times smaller, is lost in rounding.
A difference (f(x + h) - f(x)) / h cannot do that: below h = 1e-8 it loses digits faster than it gains them.

Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions".
"""

from __future__ import annotations

import numpy as np

from transformer_np.gradcheck.measuring.loss import Loss, Move
from transformer_np.layer import Array

STEP = 1e-100
SMALLEST = 1e-250            # beside subnormal arguments a step must still be a number
STEP_OF_FLOAT32 = 1e-12      # which ends at 1e-38


def complex_step(loss: Loss, move: Move) -> tuple[Array, float]:
    """The change of each output along a move: one forward. Raises Fault if forward does not take complex numbers."""
    # small beside arguments of 1e-30, and beside 1 where they are 1e30: a 0 among these may be anywhere
    largest = [(float(loss.sizes[which].max(initial=0)), float(np.abs(direction).max(initial=0)))
               for which, direction in move.items()]
    unit = min((min(size, 1.0) / length for size, length in largest if length > 0), default=1.0)
    step = max(STEP * unit, SMALLEST) if loss.pair.dtype == np.float64 else STEP_OF_FLOAT32 * unit
    change = loss.output(move, 1j * step).imag / step
    # in float64 this is as good as backward can be, and in float32 no better
    error = 0.0 if loss.pair.dtype == np.float64 else loss.eps * float(np.abs(loss.weights * change).sum())
    return change, error
