"""Places where a function bends, such as relu at 0 and the maximum of equal numbers.

There is no derivative there, and no wrong one between the slopes to the left and to the right: backward may choose. A way of
measuring chooses too, and need not choose the same. So where the two differ, and only there, one looks whether the outputs have a
kink: slopes that differ by as much however small the step, where those of a smooth function come together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.measuring.loss import Loss, Move
from transformer_np.layer import Array

STEP = 2.0 ** -14            # of the size of the number that moves; a second step is
SMALLER = 16                 # times smaller
TOLERANCE = 1e-6             # of the slopes: they are differences


@dataclass(frozen=True)
class Slopes:
    """left, right: how fast each output changes on either side.   bent: which of them have a kink."""

    left: Array
    right: Array
    bent: Array


def equal_numbers(arguments: Sequence[Array]) -> list[Array]:
    """Where a kink is to be looked for: numbers that equal another one of any argument, and zeros."""
    everything = np.concatenate([np.ravel(argument) for argument in arguments])
    _, which, counts = np.unique(everything, return_inverse=True, return_counts=True)
    marked = np.isfinite(everything) & ((counts[which] > 1) | (everything == 0))
    ends = np.cumsum([argument.size for argument in arguments])[:-1]
    return [part.reshape(argument.shape) for part, argument in zip(np.split(marked, ends), arguments, strict=True)]


def one_sided(loss: Loss, move: Move) -> Slopes | None:
    """None where forward cannot be called beside the place."""
    length = loss.length(move)
    try:
        left, right = slopes(loss, move, length * STEP)
        closer_left, closer_right = slopes(loss, move, length * STEP / SMALLER)
    except Fault:
        return None
    with np.errstate(invalid="ignore"):
        jump, closer_jump = np.abs(right - left), np.abs(closer_right - closer_left)
        rounding = 16 * loss.eps * np.abs(loss.base) * SMALLER / (length * STEP)
        visible = closer_jump > 1e-4 * (np.abs(closer_left) + np.abs(closer_right)) + rounding
        # of a smooth function it is SMALLER times smaller now, of a step SMALLER times larger
        bent = visible & (closer_jump > jump / 2) & (closer_jump < 2 * jump)
    return Slopes(closer_left, closer_right, bent)


def is_between(loss: Loss, slopes: Slopes, derivative: float) -> bool:
    """Whether a derivative of the loss lies between those that the slopes of the outputs allow, if any has a kink."""
    if not slopes.bent.any():
        return False
    left, right = loss.weights * slopes.left, loss.weights * slopes.right
    slack = TOLERANCE * float(np.abs(left).sum() + np.abs(right).sum())
    return bool(np.minimum(left, right).sum() - slack <= derivative <= np.maximum(left, right).sum() + slack)


def slopes(loss: Loss, move: Move, step: float) -> tuple[Array, Array]:
    """Of second order, with the place itself at the end: (-3 f(x) + 4 f(x + h) - f(x + 2h)) / 2h."""
    def slope(step: float) -> Array:
        near, far = loss.output(move, step) - loss.base, loss.output(move, 2 * step) - loss.base
        return (4 * near - far) / (2 * step)

    with np.errstate(invalid="ignore", over="ignore"):
        return slope(-step), slope(step)
