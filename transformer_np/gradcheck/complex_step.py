"""The complex step: a derivative to the last digit, from forward alone.

    f(x + i h) = f(x) + i h f'(x) - h^2 f''(x) / 2 - ...          so   f'(x) = Im f(x + i h) / h

Nothing is subtracted, so nothing cancels, and h may be so small that the next term, h^2 times smaller, is lost in rounding.
A difference (f(x + h) - f(x)) / h cannot do that: below h = 1e-8 it loses digits faster than it gains them.

Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.pair import Outcome, Pair, forward_pass
from transformer_np.layer import Array

STEP = 1e-20
NUM_DIRECTIONS = 8


@dataclass(frozen=True)
class Measurement:
    """A gradient as backward gives it beside what was measured, at so many places."""

    analytic: Array
    numeric: Array
    size: Array      # of what is compared, which a relative error is relative to
    place: str       # "element" or "direction": what an index of these arrays means
    method: str      # how it was measured, for the report


def measure_elements(pair: Pair, which: int, gradient: Array, cotangents: Sequence[Array], base: Outcome) -> Measurement:
    """Derivatives of sum(cotangent * output) by every element of argument `which`: one forward each."""
    argument = pair.arguments[which]
    numeric = np.empty(argument.shape)
    for index in np.ndindex(argument.shape):
        direction = np.zeros(argument.shape)
        direction[index] = 1
        numeric[index] = _derivative(pair, which, direction, cotangents, base)
    method = f"complex step at each of {argument.size} elements"
    return Measurement(gradient, numeric, np.abs(numeric), "element", method)


def measure_directions(pair: Pair, which: int, gradient: Array, cotangents: Sequence[Array], base: Outcome,
                       rng: np.random.Generator) -> Measurement:
    """Derivatives of sum(cotangent * output) when argument `which` moves along random directions: one forward each.

    A direction is +1 and -1 over the root of the size: every element has its part in every derivative, and a derivative is
    about as large as the gradient's typical element.
    """
    argument = pair.arguments[which]
    directions = rng.choice([-1.0, 1.0], size=(NUM_DIRECTIONS, *argument.shape)) / math.sqrt(max(argument.size, 1))
    analytic = np.array([(direction * gradient).sum() for direction in directions])
    numeric = np.array([_derivative(pair, which, direction, cotangents, base) for direction in directions])
    size = np.full(NUM_DIRECTIONS, np.abs(numeric).max())
    method = f"complex step along {NUM_DIRECTIONS} random directions (too large for each of {argument.size} elements)"
    return Measurement(analytic, numeric, size, "direction", method)


def _derivative(pair: Pair, which: int, direction: Array, cotangents: Sequence[Array], base: Outcome) -> float:
    # every argument becomes complex, not only the one that moves: forward may allocate with the dtype of any of them
    moved = [argument.astype(np.complex128) for argument in pair.arguments]
    moved[which] = pair.arguments[which] + 1j * STEP * direction
    members = forward_pass(pair, moved).members
    if not any(np.iscomplexobj(member) for member in members):
        raise Fault("forward gives real output for complex input, so the complex step cannot measure it: "
                    "branch on x.real, and keep abs, float() and casts away")
    if [member.shape for member in members] != [member.shape for member in base.members]:
        raise Fault("forward gives outputs of another shape for complex input")
    total = 0.0
    for cotangent, member, real in zip(cotangents, members, base.members, strict=True):
        # an output that is infinite, such as the log-probability of a masked entry, does not move
        change = np.where(np.isfinite(real), member.imag, 0)
        total += float((cotangent * change).sum()) / STEP
    return total
