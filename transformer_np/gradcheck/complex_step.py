"""The complex step: a derivative to the last digit, from forward alone.

    f(x + i h) = f(x) + i h f'(x) - h^2 f''(x) / 2 - ...          so   f'(x) = Im f(x + i h) / h

Nothing is subtracted, so nothing cancels, and h may be so small that the next term, h^2 times smaller, is lost in rounding.
A difference (f(x + h) - f(x)) / h cannot do that: below h = 1e-8 it loses digits faster than it gains them.

Squire and Trapp 1998, "Using complex variables to estimate derivatives of real functions".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.pair import Outcome, Pair, forward_pass
from transformer_np.layer import Array

STEP = 1e-20
NUM_DIRECTIONS = 8


def gradient_by_elements(pair: Pair, which: int, cotangents: Sequence[Array], base: Outcome) -> Array:
    """Gradient of sum(cotangent * output) with respect to argument `which`: one forward for each of its elements."""
    argument = pair.arguments[which]
    gradient = np.empty(argument.shape)
    for index in np.ndindex(argument.shape):
        direction = np.zeros(argument.shape)
        direction[index] = 1
        gradient[index] = _derivative(pair, which, direction, cotangents, base)
    return gradient


def random_directions(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """[NUM_DIRECTIONS, *shape], of +1 and -1 over the root of the size: a derivative along one is about as large as the
    gradient's typical element, and every element has its part in it."""
    signs = rng.choice([-1.0, 1.0], size=(NUM_DIRECTIONS, *shape))
    return signs / np.sqrt(signs[0].size)


def derivatives_along(pair: Pair, which: int, directions: Array, cotangents: Sequence[Array], base: Outcome) -> Array:
    """Derivatives of sum(cotangent * output) when argument `which` moves along each direction: one forward each."""
    return np.array([_derivative(pair, which, direction, cotangents, base) for direction in directions])


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
