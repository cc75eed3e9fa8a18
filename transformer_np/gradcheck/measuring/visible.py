"""Whether forward shows that a derivative is wrong, to anyone who can only look at its numbers.

A gate that is shut by an argument of -47 has the derivative 1e-20, and the complex step sees it. But the gate was rounded to 0,
to the last bit, and backward, which is given that 0, cannot know better. Where 1 - y is all that is left of a saturated y, it is
rounding. Nor can anyone tell what it should be: a step that is small changes nothing, and one that is large enough to change
something opens the gate, and then the function is no longer straight.

A derivative that matters is shown by some step, however small the number: adding 1e-30 to 1 changes nothing, and adding 1 changes
as much as the derivative of a sum says. So before an element is called wrong, real steps of all lengths are asked. Where they
agree with one of the two slopes, that one is right. Where they cannot tell, an error is one if it matters.
"""

from __future__ import annotations

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.measuring.differences import sweep
from transformer_np.gradcheck.measuring.loss import Loss, Move, Product
from transformer_np.gradcheck.measuring.precision import MASKED, usual_size
from transformer_np.layer import Array

FIRST = 0.1          # of a step that changes all that the outputs are, or the numbers by all that they are: no step is longer
ALIKE = 1 / 4        # two slopes are alike that differ by so much of what is in doubt
MATTERS = 2e-11      # of the outputs: an error matters that changes more of them when the numbers move by all that they are


def is_visible(loss: Loss, move: Move, product: Product, given: float) -> bool:
    """Whether steps along the move tell the slope that `product` measures from the one that is `given`. Raises Fault."""
    change, _ = product(loss, move)
    slope = float(loss.weights @ change)
    apart, length = abs(given - slope), loss.length(move)
    sizes = _sizes(loss)
    total = float((np.abs(loss.weights) * sizes)[change != 0].sum())
    if not np.isfinite(apart) or total == 0:
        return True
    try:
        shown, error = sweep(loss, move, FIRST * max(length, total / max(abs(slope), abs(given))), sizes)
    except Fault:
        return True
    # real numbers may have a gate of 1 - 0.999999999999 where complex ones, rounded in another way, have another
    from_slope, from_given = (abs(float(loss.weights @ shown) - each) for each in (slope, given))
    if max(error, min(from_slope, from_given)) <= ALIKE * apart:
        return from_slope < from_given
    return apart * length > MATTERS * total


def _sizes(loss: Loss) -> Array:
    """Of the outputs. Formulas add 1 and take it away again: a small output may have been as large as the others on the way."""
    usual = usual_size(loss.base)
    return np.where(loss.base > MASKED, np.maximum(np.abs(loss.base), usual), usual)
