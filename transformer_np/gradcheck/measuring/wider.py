"""What rounding did to a gradient, seen from backward itself: it is called again in NumPy's longdouble, where that is wider.

A formula that is wrong gives the same wrong number in every precision. Where 1 - y is all that is left of a saturated y, the
number in float64 is rounding, and the wider one is not; and moving what goes in by a rounding error does not show it, since y
stays 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import Pair, backward_pass, forward_pass
from transformer_np.gradcheck.measuring.precision import NOTHING, loss_over_arguments
from transformer_np.layer import Array

WIDER = np.dtype(np.longdouble)
MAY_LOSE = 1e-10            # of the largest element; a bound allows several times that, so that 9 of its 16 digits must be left


def next_to_nothing(pair: Pair, members: Sequence[Array], cotangents: Sequence[Array],
                    gradients: Sequence[Array | None]) -> list[Array]:
    """For each argument, what rounding did to its gradient, as long as that is next to nothing beside the loss or the largest
    element: a backward that loses more digits of a gradient that matters is no good. Zeros where it cannot be told."""
    errors = _rounding_errors(pair, cotangents, gradients) if pair.dtype == np.float64 else None
    if errors is None:
        return [np.zeros(argument.shape) for argument in pair.arguments]
    possible = loss_over_arguments(members, cotangents, pair.arguments)
    largest = [0.0 if gradient is None else float(np.abs(gradient).max(initial=0)) for gradient in gradients]
    return [np.minimum(error, max(NOTHING * part, MAY_LOSE * size))
            for error, part, size in zip(errors, possible, largest, strict=True)]


def _rounding_errors(pair: Pair, cotangents: Sequence[Array], gradients: Sequence[Array | None]) -> list[Array] | None:
    """For each argument, by how much its gradient in float64 is off the same in longdouble. None where that cannot be told: a
    platform has nothing wider, or a function on the way does not keep it.
    """
    if np.finfo(WIDER).eps >= np.finfo(np.float64).eps:
        return None
    wide = replace(pair, dtype=WIDER)
    try:
        outcome = forward_pass(wide, wide.given)
        again = backward_pass(wide, outcome, [cotangent.astype(WIDER) for cotangent in cotangents])
    except (Fault, Unsupported):
        return None
    errors = []
    for argument, gradient, wider in zip(pair.arguments, gradients, again, strict=True):
        if gradient is None or wider is None:
            errors.append(np.zeros(argument.shape))
        elif wider.dtype != WIDER:
            return None
        else:
            difference = np.abs(wider - gradient).astype(np.float64)
            errors.append(np.where(np.isfinite(difference), difference, 0))
    return errors
