"""Are the numbers right? Every gradient against a derivative that is measured from forward alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import Outcome, Pair
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.diagnosis.case import Diagnosis
from transformer_np.gradcheck.judging.ties import equal_numbers_move_together
from transformer_np.gradcheck.judging.verdict import verdict
from transformer_np.gradcheck.measuring.exact import NUM_REFERENCES, Exact, changes_by_rounding, moved_loss
from transformer_np.gradcheck.measuring.measurement import Measurement, measure_elements
from transformer_np.gradcheck.measuring.methods import (
    Measuring,
    choose,
    measure_adjoints,
    measure_all,
    sample,
    with_moved_references,
)
from transformer_np.gradcheck.measuring.precision import NOTHING, UNCERTAIN, Bounds, gradient_scales, relative_error
from transformer_np.gradcheck.measuring.taylor import taylor_slope
from transformer_np.gradcheck.report import Check
from transformer_np.layer import Array

SMALLEST_SLOPE = 1.9        # of a Taylor remainder,
NUM_DIRECTIONS = 3          # along so many directions
SAME = 1e-9                 # two derivatives are the same that differ by so much, relative


def check_values(pair: Pair, exact: Exact, base: Outcome, cotangents: Sequence[Array], gradients: Sequence[Array | None],
                 rng: np.random.Generator, method: str, precision: Precision) -> list[Check]:
    """One check for each argument, and one for equal numbers if there are any.

    cotangents: in float64.   gradients: what backward gave for them; None stands for 0.
    """
    measuring = Measuring(pair, exact, base, cotangents, gradients, precision, rng, int(rng.integers(2 ** 32)), method)
    try:
        measuring.products, measuring.because = choose(exact.loss, method, rng)
        if method == "taylor":
            return [_taylor(measuring, which) for which in range(len(pair.names))]
        changes = changes_by_rounding(exact, pair, cotangents, gradients, precision.eps, rng)
        measured = measure_adjoints(measuring, changes) if method == "adjoint" else measure_all(measuring, exact.loss, changes)
        if exact.is_reference:
            measured = with_moved_references(measuring, measured)
    except Fault as fault:
        diagnosis = Diagnosis(fault.kind, str(fault))
        return [Check(f"gradient of {name}", False, str(fault), argument=name, diagnosis=diagnosis) for name in pair.names]
    finite = [np.where(np.isfinite(each.numeric), each.numeric, 0) for each in measured]
    scales = gradient_scales(finite, base.members, cotangents, pair.arguments)
    checks = [_verdict(measuring, which, measured, scale) for which, scale in enumerate(scales)]
    ties = equal_numbers_move_together(measuring, measured, scales) if all(check.ok for check in checks) else None
    return checks if ties is None else [*checks, ties]


def _verdict(measuring: Measuring, which: int, everything: Sequence[Measurement], scale: float) -> Check:
    """Beside the directions, along which they do not move, numbers at kinks are measured one by one."""
    found = verdict(measuring, which, everything, scale)
    if everything[which].place != "direction" or not found.ok or not measuring.held_still(which).any():
        return found
    still = measuring.held_still(which)
    indices = sample(still, np.random.default_rng([measuring.seed, which]))
    one_by_one = measure_elements(measuring.loss, which, measuring.known(which), [], measuring.products[which], indices=indices)
    beside = [*everything[:which], replace(one_by_one, part=float(still.mean())), *everything[which + 1:]]
    at_kinks = verdict(measuring, which, beside, scale)
    if not at_kinks.ok:
        return at_kinks
    says = f"{found.says}; {still.sum()} numbers at kinks are held still in these, and {len(indices)} of them measured one by one"
    return replace(found, says=says, skipped=at_kinks.skipped)


def check_output(pair: Pair, exact: Exact, base: Outcome, cotangents: Sequence[Array], precision: Precision,
                 rng: np.random.Generator) -> Check:
    """Is forward right, in a low precision or beside a reference? Where both are the same, there is nothing to ask."""
    loss, bounds = exact.loss, Bounds.of(precision)
    try:
        given = loss.numbers(base.members)
        again = [moved_loss(loss, cotangents, precision.eps, rng).base - loss.base for _ in range(NUM_REFERENCES)]
    except Fault as fault:
        return Check("output", False, str(fault))
    if not given.size:
        return Check("output", True, "it has no elements", 0.0, bounds.relative)
    size = np.abs(loss.base)
    allowed = bounds.noise * float(size.max()) + bounds.rounding * np.max(np.abs(again), axis=0)
    error = relative_error(given, loss.base, size, allowed, bounds.relative)
    worst = int(error.argmax())
    ulps = abs(given[worst] - loss.base[worst]) / precision.ulp(loss.base[worst])
    says = f"relative error {error[worst]:.1e}, bound {bounds.relative:.0e}, {ulps:.2g} ULP beside {exact.who}"
    ok = bool(error[worst] <= bounds.relative)
    if not ok:
        says += (f"; worst at finite number {worst} of {error.size}: given {given[worst]:.9g}, expected {loss.base[worst]:.9g}; "
                 f"wrong: {int((error > bounds.relative).sum())} of {error.size}")
    return Check("output", ok, says, float(error[worst]), bounds.relative)


def _taylor(measuring: Measuring, which: int) -> Check:
    """Where the steps do not come into the range in which the function is smooth, for a kink or for saturation, the slope says
    nothing about the gradient. So a slope that is too small is believed only if the derivative along that direction is wrong."""
    name, loss, gradient = measuring.pair.names[which], measuring.loss, measuring.known(which)
    way, bound = f"Taylor remainders along {NUM_DIRECTIONS} random directions", 2 - SMALLEST_SLOPE
    if not gradient.size:
        return Check(f"gradient of {name}", True, "it has no elements", 0.0, bound, name, way)
    slopes, skipped = [math.inf], 0
    for direction in measuring.directions(which)[:NUM_DIRECTIONS]:
        slope = taylor_slope(loss, which, gradient, direction)
        if slope < SMALLEST_SLOPE:
            change, error = measuring.products[which](loss, {which: direction})
            derivative, expected = float(loss.weights @ change), float((gradient * direction).sum())
            nothing = NOTHING * float(np.abs(loss.weights * loss.base).sum()) / loss.length({which: direction})
            if abs(derivative - expected) <= SAME * abs(derivative) + UNCERTAIN * error + nothing:
                skipped += 1
                continue
        slopes.append(slope)
    slope = min(slopes)
    says = "no remainder but rounding" if math.isinf(slope) else f"the remainder falls with slope {slope:.2f}"
    says += f", expected {SMALLEST_SLOPE} or more; {way}"
    if skipped:
        says += f"; {skipped} of them do not come into the range where the function is smooth"
    return Check(f"gradient of {name}", slope >= SMALLEST_SLOPE, says, max(0.0, 2 - slope), bound, name, way, skipped=skipped,
                 diagnosis=None if slope >= SMALLEST_SLOPE else Diagnosis("wrong or missing term", says))
