"""Central differences of fourth order, for a forward that takes real numbers only.

    s(h) = (f(x + h) - f(x - h)) / 2h                    wrong by about h^2 f'''
    d(h) = (16 s(h / 4) - s(h)) / 15                     wrong by about h^4

Large steps leave terms of higher order, small ones drown in rounding, and where the best lies between them depends on the
function. So steps are tried from an eighth of the number on downwards, each a quarter of the one before, and that one is taken
whose result differs least from both its neighbours. By how much they differ is the error that is stated, unless it is below what
rounding does to the outputs anyway. Results that differ by more than a tenth of themselves, and by more than rounding, have not
settled, however small they are: a sigmoid seen from afar has slopes of 1 / h.

Lyness and Moler 1967, "Numerical differentiation of analytic functions"; Ridders 1982, "Accurate computation of F'(x) and
F'(x) F''(x)", for the choice of a step by what its neighbours give.
"""

from __future__ import annotations

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.measuring.loss import Loss, Move
from transformer_np.layer import Array

FIRST_STEP = 1 / 8
RATIO = 4
MAX_STEPS = 40
PATIENCE = 3         # so many more steps are tried after the best
SETTLED = 0.1        # neighbours may differ by so much of what they give
FAITHFUL = 0.01      # a step may be made so much shorter or longer by rounding, relative
BLIND = 1e-8         # an output that reacts to the first step by less, relative, hardly feels it,
LONGER = 1e4         # and longer steps are tried too, each so many times the one before,
MAX_LONGER = 10      # so many of them
DISAGREE = 20        # times the error that is stated: so far apart, two results are not of the same derivative


def differences(loss: Loss, move: Move) -> tuple[Array, float]:
    """The change of each output along a move, and by how much their weighted sum may be wrong: infinite if it does not settle.
    Some 15 forwards. Raises Fault.

    A move is as long as the numbers that move are large: see `Loss.sizes`.
    """
    first = FIRST_STEP * loss.length(move)
    change, error = sweep(loss, move, first, loss.base)
    longer = _longer_step(loss, move, first)
    if longer is None:
        return change, error
    # the numbers are so small that the output is blind to them, or it does not depend on them here: if what it does further away
    # would be seen here, then it does something else here
    farther, farther_error = sweep(loss, move, longer, loss.base)
    hidden = 4 * loss.eps * _weighted(loss, np.where(farther != 0, loss.base, 0)) / first
    known = error if np.isfinite(error) else 0.0
    if farther_error < max(error, hidden) and _weighted(loss, farther - change) <= DISAGREE * max(known, hidden):
        return farther, farther_error
    return change, error


def _longer_step(loss: Loss, move: Move, first: float) -> float | None:
    """The first of the longer steps that the output feels; None if it feels `first`, or nothing."""
    step = first
    for _ in range(MAX_LONGER):
        try:
            felt = _weighted(loss, _central(loss, move, step)) * step > BLIND * _weighted(loss, loss.base)
        except Fault:
            return None
        if felt:
            return step if step > first else None
        step *= LONGER
    return None


def sweep(loss: Loss, move: Move, first: float, sizes: Array) -> tuple[Array, float]:
    """The best result of ever smaller steps, and its error.   sizes: of the numbers that were rounded to give the outputs."""
    slopes: list[Array] = []         # s(h), step by step
    fourth: list[Array] = []         # d(h)
    errors: list[float] = []         # |d(h) - d(4h)|, weighted, beside each d(h) but the first
    best, best_error, best_level = np.zeros_like(loss.base), np.inf, 0
    fault = None
    for level in range(MAX_STEPS):
        step = first * float(RATIO) ** -level
        if step == 0:
            break
        try:
            slopes.append(_central(loss, move, step))
        except Fault as error:  # such as the logarithm of a negative number, where a smaller step is still good
            if slopes:
                break
            fault = error
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            if len(slopes) > 1:
                fourth.append((RATIO ** 2 * slopes[-1] - slopes[-2]) / (RATIO ** 2 - 1))
            if len(fourth) > 1:
                errors.append(_weighted(loss, fourth[-1] - fourth[-2]))
        if len(errors) < 2:
            continue
        # fourth[-2] stands between two neighbours; its step is RATIO times the present one
        rounding = 4 * loss.eps * _weighted(loss, np.where(slopes[-1] != 0, sizes, 0)) / (RATIO * step)
        apart = max(errors[-1], errors[-2])
        settled = apart <= SETTLED * _weighted(loss, fourth[-2]) or apart <= 4 * RATIO * rounding
        if settled and max(apart, rounding) < best_error:
            best, best_error, best_level = fourth[-2], max(apart, rounding), level
        if level >= best_level + PATIENCE and np.isfinite(best_error):
            break
    if not slopes:
        raise fault or Fault("no step could be made")
    return best, float(best_error)


def _central(loss: Loss, move: Move, step: float) -> Array:
    """Raises Fault, also where no numbers lie near enough to make the step with."""
    made = loss.made(move, step)
    if abs(made - step) > (FAITHFUL if loss.pair.dtype == np.float64 else 0.5) * step:
        raise Fault(f"in {loss.pair.dtype.name}, no number is near enough")
    with np.errstate(invalid="ignore", over="ignore"):
        return (loss.output(move, step) - loss.output(move, -step)) / (2 * made)


def _weighted(loss: Loss, change: Array) -> float:
    """The largest that the weighted sum can be, whatever the signs."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(np.abs(loss.weights * change).sum())
    return total if np.isfinite(total) else np.inf
