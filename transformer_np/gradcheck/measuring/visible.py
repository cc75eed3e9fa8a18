"""Whether forward shows that a derivative is wrong, to anyone who can only look at its numbers.

A gate that is shut by an argument of -47 has the derivative 1e-20, and the complex step sees it. But the gate was rounded to 0,
to the last bit, and backward, which is given that 0, cannot know better. Where 1 - y is all that is left of a saturated y, it is
rounding. Nor can anyone tell what it should be: a step that is small changes nothing, and one that is large enough to change
something opens the gate, and then the function is no longer straight.

A derivative that matters is shown by some step, however small it is itself: adding 1e-30 to 1 changes nothing, and adding 1
changes as much as the derivative of a sum says.
"""

from __future__ import annotations

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.measuring.differences import differences
from transformer_np.gradcheck.measuring.kinks import slopes
from transformer_np.gradcheck.measuring.loss import Loss, Move, Product
from transformer_np.gradcheck.measuring.precision import MASKED, UNCERTAIN, usual_size
from transformer_np.layer import Array

CLEAR = 1000         # times the rounding of the outputs: a step must change them by so much to tell two slopes apart;
RATIO = 8            # the next step is so many times as long,
NUM_STEPS = 8        # and so many are tried; but if
SHORT = 1 / 8        # the first is short beside the numbers that move: in most functions straight,
NUM_SHORT = 2        # and so many are enough
ALIKE = 1 / 4        # what a step shows may be off by so much of the difference between the two
MATTERS = 2e-11      # of the outputs: an error matters that changes more of them when the numbers move by all that they are


def is_visible(loss: Loss, move: Move, product: Product, given: float) -> bool:
    """Whether steps along the move tell the slope that `product` measures from the one that is `given`. Raises Fault."""
    change, _ = product(loss, move)
    slope = float(loss.weights @ change)
    apart, length = abs(given - slope), loss.length(move)
    total = float((np.abs(loss.weights) * _sizes(loss))[change != 0].sum())
    if not np.isfinite(apart) or total == 0:
        return True
    first = CLEAR * loss.eps * total / apart
    is_short = first < SHORT * length
    for step in first * float(RATIO) ** np.arange(NUM_SHORT if is_short else NUM_STEPS):
        try:
            left, right = (float(loss.weights @ each) for each in slopes(loss, move, step))
        except Fault:
            continue
        # real numbers may have a gate of 1 - 0.999999999999 where complex ones, rounded in another way, have another
        if abs((left + right) / 2 - given) <= ALIKE * apart:
            return False
        if min(abs(left - slope), abs(right - slope)) <= ALIKE * apart:
            return True
    # neither: it bends too much within a short step, or rounds more than its outputs tell
    return is_short and (apart * length > MATTERS * total or _settles(loss, move, apart))


def _sizes(loss: Loss) -> Array:
    """Of the outputs. Formulas add 1 and take it away again: a small output may have been as large as the others on the way."""
    usual = usual_size(loss.base)
    return np.where(loss.base > MASKED, np.maximum(np.abs(loss.base), usual), usual)


def _settles(loss: Loss, move: Move, apart: float) -> bool:
    """Whether differences of any step come as near to a slope as that."""
    try:
        _, error = differences(loss, move)
    except Fault:
        return True
    return UNCERTAIN * error <= apart
