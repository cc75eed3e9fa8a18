"""Central differences of fourth order, for a forward that takes real numbers only.

    s(h) = (f(x + h) - f(x - h)) / 2h                    wrong by about h^2 f'''
    d(h) = (16 s(h / 4) - s(h)) / 15                     wrong by about h^4

Large steps leave terms of higher order, small ones drown in rounding, and where the best lies between them depends on the
function. So steps are tried from an eighth of the number on downwards, each a quarter of the one before, and that one is taken
whose result differs least from both its neighbours. By how much they differ is the error that is stated, unless it is below what
rounding does to the outputs anyway.

Lyness and Moler 1967, "Numerical differentiation of analytic functions"; Ridders 1982, "Accurate computation of F'(x) and
F'(x) F''(x)", for the choice of a step by what its neighbours give.
"""

from __future__ import annotations

import numpy as np

from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.loss import Loss, Move
from transformer_np.layer import Array

FIRST_STEP = 1 / 8
RATIO = 4
MAX_STEPS = 14
PATIENCE = 3       # so many more steps are tried after the best


def differences(loss: Loss, move: Move) -> tuple[Array, float]:
    """The change of each output along a move, and by how much their weighted sum may be wrong. Some 15 forwards. Raises Fault.

    A move is as long as the numbers that move are large: see `Loss.sizes`.
    """
    length = loss.length(move)
    slopes: list[Array] = []         # s(h), step by step
    fourth: list[Array] = []         # d(h)
    errors: list[float] = []         # |d(h) - d(4h)|, weighted, beside each d(h)
    best, best_error, best_level = np.zeros_like(loss.base), np.inf, 0
    fault = None
    for level in range(MAX_STEPS):
        step = length * FIRST_STEP * RATIO ** -level
        try:
            change = _central(loss, move, step)
        except Fault as error:  # such as the logarithm of a negative number, where a smaller step is still good
            if slopes:
                break
            fault = error
            continue
        slopes.append(change)
        if len(slopes) < 2:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            fourth.append((RATIO ** 2 * slopes[-1] - slopes[-2]) / (RATIO ** 2 - 1))
            if len(fourth) < 2:
                continue
            errors.append(_weighted(loss, fourth[-1] - fourth[-2]))
        if len(errors) < 2:
            continue
        # fourth[-2] stands between two neighbours; its step is RATIO times the present one
        rounding = 4 * loss.eps * _weighted(loss, np.where(change != 0, loss.base, 0)) / (RATIO * step)
        error = max(errors[-1], errors[-2], rounding)
        if error < best_error:
            best, best_error, best_level = fourth[-2], error, level
        if level >= best_level + PATIENCE and np.isfinite(best_error):
            break
    if not slopes:
        raise fault or Fault("no step could be made")
    return best, float(best_error)


def _central(loss: Loss, move: Move, step: float) -> Array:
    made = loss.made(move, step)
    if made == 0:
        raise Fault(f"in {loss.pair.dtype.name}, no number is near enough")
    with np.errstate(invalid="ignore", over="ignore"):
        return (loss.output(move, step) - loss.output(move, -step)) / (2 * made)


def _weighted(loss: Loss, change: Array) -> float:
    """The largest that the weighted sum can be, whatever the signs."""
    total = float(np.abs(loss.weights * change).sum())
    return total if np.isfinite(total) else np.inf
