"""What a kernel of low precision is held against: the same, worked out in float64 from the numbers that it was given.

The inputs and cotangents are rounded to the profile first, so that their precision costs the kernel nothing. Then forward is
called in float64: the one that is checked if it can do that, or a reference that the user gives. A kernel that has no float64
is called in the widest precision that it has, and is measured as roughly as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import FLOAT64, Pair, backward_pass, forward_pass
from transformer_np.gradcheck.calling.rounding import eps_of
from transformer_np.gradcheck.measuring.loss import Loss
from transformer_np.gradcheck.measuring.noise import moved, rounding_changes
from transformer_np.layer import Array

NUM_REFERENCES = 2      # times that a reference is measured again, with everything moved by a rounding error


@dataclass(frozen=True)
class Exact:
    """loss: what is measured, in `loss.pair.dtype`.   who: whose it is, for the report.   is_reference: the user's."""

    loss: Loss
    who: str
    is_reference: bool = False


def exact_of(pair: Pair, cotangents: Sequence[Array], reference: Pair | None) -> Exact:
    """cotangents: in float64.   reference: a pair whose forward is the user's reference. Raises Fault."""
    name, _ = pair.called
    if reference is not None:
        return Exact(Loss(reference, cotangents), "the reference", is_reference=True)
    for dtype in (FLOAT64, np.dtype(np.float32)):
        if eps_of(dtype) < eps_of(pair.dtype):
            wide = replace(pair, dtype=dtype)
            try:
                if all(member.dtype == dtype for member in forward_pass(wide, wide.given).members):
                    return Exact(Loss(wide, cotangents), f"{name} in {dtype.name}")
            except (Fault, Unsupported):
                pass  # it does not know that one
    return Exact(Loss(pair, cotangents), f"{name} in {pair.dtype.name}")


def changes_by_rounding(exact: Exact, pair: Pair, cotangents: Sequence[Array], gradients: Sequence[Array | None], eps: float,
                        rng: np.random.Generator) -> list[list[Array]]:
    """For each argument, how its gradient changes by rounding in the precision of `pair`, as far as backward can tell: best in
    float64, where its own rounding is out of sight."""
    wide = gradients_in_float64(exact, pair, cotangents)
    if wide is not None:
        return rounding_changes(exact.loss.pair, cotangents, wide, eps, rng)
    return rounding_changes(pair, cotangents, gradients, eps, rng)


def gradients_in_float64(exact: Exact, pair: Pair, cotangents: Sequence[Array]) -> Sequence[Array | None] | None:
    """What the backward of a kernel of low precision gives in float64, or in float32 if that is the widest that it knows; None if
    it knows the low precision only."""
    wide = exact.loss.pair
    if exact.is_reference or wide.dtype == pair.dtype:
        return None
    try:
        return backward_pass(wide, forward_pass(wide, wide.given), cotangents)
    except (Fault, Unsupported):
        return None


def moved_loss(loss: Loss, cotangents: Sequence[Array], eps: float, rng: np.random.Generator) -> Loss:
    """The loss where everything that goes in has moved by one rounding error; equal numbers stay equal. Raises Fault."""
    arguments = tuple(moved(list(loss.pair.arguments), eps, rng))
    return Loss(replace(loss.pair, arguments=arguments), moved(list(cotangents), eps, rng))
