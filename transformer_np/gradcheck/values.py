"""Are the numbers right? Every gradient against a derivative that is measured from forward alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from transformer_np.gradcheck.adjoint import NUM_COTANGENTS, measure_adjoint
from transformer_np.gradcheck.complex_step import complex_step
from transformer_np.gradcheck.differences import differences
from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.kinks import is_between, one_sided
from transformer_np.gradcheck.loss import Loss, Product
from transformer_np.gradcheck.measurement import Measurement, measure_directions, measure_elements, random_direction
from transformer_np.gradcheck.noise import rounding_changes
from transformer_np.gradcheck.outputs import random_cotangents
from transformer_np.gradcheck.pair import Outcome, Pair, backward_pass
from transformer_np.gradcheck.precision import UNCERTAIN, Bounds, gradient_scales, relative_error
from transformer_np.gradcheck.report import Check, Element
from transformer_np.gradcheck.rounding import Precision
from transformer_np.gradcheck.taylor import taylor_slope
from transformer_np.layer import Array

METHODS = ("auto", "complex_step", "differences", "adjoint", "taylor")

# Up to so many elements are measured one by one; beyond, each argument is measured along random directions. Differences need some
# 15 forwards for each.
MAX_ELEMENTS = {complex_step: 4000, differences: 1000}

MAX_SAMPLE = 200            # so many elements of a large array are measured when a direction shows that something is wrong
MAX_KINKS = 0.5             # the part of the elements of an argument that may be excused
MAX_UNSETTLED = 0.1         # the part that may be left without a verdict because differences do not settle
UNSETTLED = 1e-3            # an error of differences that is so large a part of the gradient is no measurement
NUM_WORST = 5               # so many elements are shown
SMALLEST_SLOPE = 1.9        # of a Taylor remainder


@dataclass
class Measuring:
    """Everything that is known before anything is measured.

    pair: what is judged.   loss: of the same in float64.   gradients: what backward gave for the cotangents; None stands for 0.
    """

    pair: Pair
    loss: Loss
    base: Outcome
    cotangents: Sequence[Array]
    gradients: Sequence[Array | None]
    precision: Precision
    rng: np.random.Generator
    method: str
    products: list[Product] = field(default_factory=list)       # one for each argument
    because: str = ""                                           # why it is not the complex step

    def known(self, which: int) -> Array:
        gradient = self.gradients[which]
        return np.zeros(self.pair.arguments[which].shape) if gradient is None else np.asarray(gradient, np.float64)


def check_values(pair: Pair, exact: Pair, base: Outcome, cotangents: Sequence[Array], gradients: Sequence[Array | None],
                 rng: np.random.Generator, method: str, precision: Precision) -> list[Check]:
    """One check for each argument.

    exact: the pair, or one that works out the same, whose forward is called in float64 at the arguments of `pair`.
    gradients: what backward gave for the cotangents; None stands for 0.
    """
    wide = [np.asarray(each, np.float64) for each in cotangents]
    try:
        measuring = Measuring(pair, Loss(exact, wide), base, wide, gradients, precision, rng, method)
        measuring.products, measuring.because = _choose(measuring.loss, method, rng)
        if method == "taylor":
            return [_taylor(measuring, which) for which in range(len(pair.names))]
        measured = _measure(measuring, rounding_changes(exact, wide, gradients, precision.eps, rng))
    except Fault as fault:
        return [Check(f"gradient of {name}", False, str(fault), argument=name) for name in pair.names]
    scales = gradient_scales([each.numeric for each in measured], base.members, wide, pair.arguments)
    return [_verdict(measuring, which, each, scale) for which, (each, scale) in enumerate(zip(measured, scales, strict=True))]


# ---------------------------------------------------------------------------------------------------- the way of measuring

def _choose(loss: Loss, method: str, rng: np.random.Generator) -> tuple[list[Product], str]:
    """The complex step for every argument where forward takes complex numbers and keeps them, else differences, and why.

    A forward may drop the imaginary part without a word: `np.abs(x)`, `x.real`. What the complex step gives is compared with
    differences, once for all arguments together, and if they are at odds, once for each.
    """
    count = len(loss.arguments)
    if method in ("complex_step", "differences"):
        return [complex_step if method == "complex_step" else differences] * count, ""
    everything = {which: random_direction(loss, which, rng) for which in range(count) if loss.arguments[which].size}
    try:
        change, _ = complex_step(loss, everything)
    except Fault as fault:
        return [differences] * count, str(fault).partition(", so the complex step")[0]
    if _agrees(loss, everything, change):
        return [complex_step] * count, ""
    products = [complex_step if _agrees(loss, {which: direction}, complex_step(loss, {which: direction})[0]) else differences
                for which, direction in everything.items()]
    chosen = dict(zip(everything, products, strict=True))
    name, _ = loss.pair.called
    return [chosen.get(which, complex_step) for which in range(count)], f"{name} drops the imaginary part on the way"


def _agrees(loss: Loss, move: dict[int, Array], change: Array) -> bool:
    """Whether differences give the same change of the loss, or there is a kink that explains why they do not."""
    try:
        other, error = differences(loss, move)
    except Fault:
        return True
    with np.errstate(invalid="ignore"):
        off = abs(float(loss.weights @ (change - other)))
        if not off > UNCERTAIN * error + 1e-5 * float(np.abs(loss.weights * change).sum()):
            return True
    slopes = one_sided(loss, move)
    return slopes is not None and is_between(loss, slopes, float(loss.weights @ change))


def _measure(measuring: Measuring, changes: Sequence[Sequence[Array]]) -> list[Measurement]:
    """changes: of the gradients, by rounding."""
    loss, products = measuring.loss, measuring.products
    if measuring.method == "adjoint":
        return _measure_adjoints(measuring, changes)
    total = sum(argument.size for argument in loss.arguments)
    return [measure_elements(loss, which, measuring.known(which), changes[which], product)
            if total <= min(MAX_ELEMENTS[each] for each in products) else
            measure_directions(loss, which, measuring.known(which), changes[which], product, measuring.rng)
            for which, product in enumerate(products)]


def _measure_adjoints(measuring: Measuring, changes: Sequence[Sequence[Array]]) -> list[Measurement]:
    cotangents, gradients = [measuring.cotangents], [measuring.gradients]
    while len(cotangents) < NUM_COTANGENTS:
        drawn = random_cotangents(measuring.base.members, measuring.rng, measuring.pair.dtype)
        gradients.append(backward_pass(measuring.pair, measuring.base, drawn))
        cotangents.append([np.asarray(each, np.float64) for each in drawn])
    measured = []
    for which, product in enumerate(measuring.products):
        zeros = np.zeros(measuring.pair.arguments[which].shape)
        known = [zeros if each[which] is None else np.asarray(each[which], np.float64) for each in gradients]
        measured.append(measure_adjoint(measuring.loss, which, cotangents, known, changes[which], product, measuring.rng))
    return measured


NAMES: dict[Callable, str] = {complex_step: "complex step", differences: "differences of fourth order"}


def _way(measuring: Measuring, which: int, measured: Measurement) -> str:
    """What was done and why, for the report."""
    product = measuring.products[which]
    says = f"{NAMES[product]} {measured.method}" if measured.place != "cotangent" else f"{measured.method}, by {NAMES[product]}"
    if product is differences:
        worst = float(measured.error.max(initial=0))
        says += f", good to {worst:.0e}"
        if measuring.because:
            says += f" (not the complex step: {measuring.because})"
    return says


# ---------------------------------------------------------------------------------------------------- the verdict

def _verdict(measuring: Measuring, which: int, measured: Measurement, scale: float) -> Check:
    name = measuring.pair.names[which]
    bounds = Bounds.of(measuring.precision)
    way = _way(measuring, which, measured)
    if measured.numeric.size == 0:
        return Check(f"gradient of {name}", True, "it has no elements", 0.0, bounds.relative, name, way)
    error = relative_error(measured.analytic, measured.numeric, measured.size, bounds.allowed(measured, scale), bounds.relative)
    unsettled = UNCERTAIN * measured.error > UNSETTLED * (np.abs(measured.numeric) + scale)
    wrong = (error > bounds.relative) & ~unsettled
    kinks = _kinks(measuring, which, measured, wrong)
    wrong &= ~kinks
    figure = float(np.where(kinks | unsettled, 0, error).max())
    says = f"relative error {figure:.1e}, bound {bounds.relative:.0e}; {way}"
    ok = not wrong.any()
    if kinks.any():
        says += f"; {kinks.sum()} of {kinks.size} {measured.place}s are at a kink, and between the slopes on its two sides"
        if kinks.sum() > MAX_KINKS * kinks.size:
            ok, says = False, says + f", more than {MAX_KINKS:.0%}: move the inputs, so that there is something to check"
    if unsettled.any():
        says += f"; {unsettled.sum()} of {unsettled.size} {measured.place}s are not measured: differences do not settle there"
        if unsettled.sum() > MAX_UNSETTLED * unsettled.size:
            ok, says = False, says + f", more than {MAX_UNSETTLED:.0%}"
    if not wrong.any():
        return Check(f"gradient of {name}", ok, says, figure, bounds.relative, name, way, skipped=int((kinks | unsettled).sum()))
    worst = np.where(wrong, error, -1)
    index = tuple(int(i) for i in np.unravel_index(worst.argmax(), worst.shape))
    _, who = measuring.pair.called
    given = (f"{who} gives None, which stands for 0" if measuring.gradients[which] is None else
             f"analytic {measured.analytic[index]:.17g}")
    says += (f"; worst at {measured.place} {list(index)}: {given}, numeric {measured.numeric[index]:.17g}; "
             f"wrong: {wrong.sum()} of {error.size}")
    elements = _worst_elements(measuring, which, measured, wrong, error) if measured.place == "element" else ()
    return Check(f"gradient of {name}", False, says, figure, bounds.relative, name, way, elements,
                 skipped=int((kinks | unsettled).sum()))


def _kinks(measuring: Measuring, which: int, measured: Measurement, wrong: Array) -> Array:
    """Which of the places are wrong only because they are at a kink, where backward may take another slope.

    Elements that are excused one by one are then moved all together: for the maximum of equal numbers, each may have all of the
    cotangent, but not both of two.
    """
    excused = np.zeros(wrong.shape, bool)
    if measured.place != "element":
        return excused
    loss, gradient = measuring.loss, measured.analytic
    places = np.argwhere(wrong)
    for index in map(tuple, places[:MAX_SAMPLE]):
        if not np.isfinite(gradient[index]):
            continue
        direction = np.zeros(wrong.shape)
        direction[index] = 1
        slopes = one_sided(loss, {which: direction})
        excused[index] = slopes is not None and is_between(loss, slopes, float(gradient[index]))
    if excused.sum() < 2:
        return excused
    together = np.where(excused, loss.sizes[which], 0)
    slopes = one_sided(loss, {which: together})
    if slopes is not None and not slopes.bent.any():
        expected = float(loss.weights @ slopes.right)
        slack = 1e-5 * float(np.abs(loss.weights * slopes.right).sum() + np.abs(gradient * together).sum())
        if abs(float((gradient * together).sum()) - expected) > slack:
            return np.zeros(wrong.shape, bool)
    return excused


def _worst_elements(measuring: Measuring, which: int, measured: Measurement, wrong: Array, error: Array) -> tuple[Element, ...]:
    order = np.argsort(np.where(wrong, error, -1), axis=None)[::-1][:min(NUM_WORST, int(wrong.sum()))]
    argument = measuring.pair.arguments[which]
    elements = []
    for place in order:
        index = tuple(int(i) for i in np.unravel_index(place, error.shape))
        analytic, numeric = float(measured.analytic[index]), float(measured.numeric[index])
        off = abs(analytic - numeric)
        relative = off / abs(numeric) if numeric != 0 else np.inf
        elements.append(Element(index, float(argument[index]), analytic, numeric, off, relative,
                                off / measuring.precision.ulp(numeric)))
    return tuple(elements)


def _taylor(measuring: Measuring, which: int) -> Check:
    name = measuring.pair.names[which]
    way = "Taylor remainder along a random direction"
    if not measuring.known(which).size:
        return Check(f"gradient of {name}", True, "it has no elements", 0.0, 2 - SMALLEST_SLOPE, name, way)
    slope = taylor_slope(measuring.loss, which, measuring.known(which), measuring.rng)
    if np.isinf(slope):
        return Check(f"gradient of {name}", True, f"no remainder but rounding; {way}", 0.0, 2 - SMALLEST_SLOPE, name, way)
    says = f"the remainder falls with slope {slope:.2f}, expected {SMALLEST_SLOPE} or more; {way}"
    return Check(f"gradient of {name}", slope >= SMALLEST_SLOPE, says, max(0.0, 2 - slope), 2 - SMALLEST_SLOPE, name, way)
