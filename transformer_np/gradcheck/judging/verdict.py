"""The verdict on one argument, from what backward gives and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import backward_pass
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.diagnosis.case import Case, Diagnosis, Jacobian, integers_of
from transformer_np.gradcheck.diagnosis.diagnose import diagnose
from transformer_np.gradcheck.measuring.differences import differences
from transformer_np.gradcheck.measuring.exact import NUM_REFERENCES, gradients_in_float64, moved_loss
from transformer_np.gradcheck.measuring.kinks import is_between, one_sided
from transformer_np.gradcheck.measuring.measurement import Measurement, measure_directions, measure_elements
from transformer_np.gradcheck.measuring.methods import Measuring, sample, way_of
from transformer_np.gradcheck.measuring.precision import NOTHING, UNCERTAIN, Bounds, loss_size, relative_error
from transformer_np.gradcheck.measuring.visible import is_visible
from transformer_np.gradcheck.report import Check, Element
from transformer_np.layer import Array

MAX_KINKS = 0.75            # the part of the elements of an argument that may be excused: half of what a relu gives are zeros
MAX_UNSETTLED = 0.1         # the part that may be left without a verdict because differences see too little
UNSETTLED = 1e-3            # an error of differences that is so large a part of the gradient is no measurement,
UNSETTLED_LOW = 0.1         # and in low precision, where the forward that is measured has no better to give
MAX_LOOKS = 1000            # so many elements that seem wrong are looked at for a kink
ENOUGH = 8                  # elements say something about what they have in common,
COMMON = 8                  # and a common factor may be off 1 by so many roundings: of a row's root, say
NUM_WORST = 5               # so many elements are shown
ROUNDINGS = 2               # of an output, by which a kernel of low precision may be off where it is saturated,
NEARER = 0.01               # if it is that much nearer in float64
SAME_FACTOR = 1e-6          # and if all elements together are right there
MAX_JACOBIAN = 600          # a Jacobian of so many rows and columns is worked out for a diagnosis


def verdict(measuring: Measuring, which: int, everything: Sequence[Measurement], scale: float) -> Check:
    """everything: what was measured of all arguments.   scale: how large this gradient might be."""
    measured, bounds = everything[which], Bounds.of(measuring.precision)
    question, name = f"gradient of {measuring.pair.names[which]}", measuring.pair.names[which]
    way = way_of(measuring, which, measured)
    if measured.numeric.size == 0 or measuring.pair.arguments[which].size == 0:
        return Check(question, True, "it has no elements", 0.0, bounds.relative, name, way)
    error, wrong = _errors(measured, scale, bounds)
    if wrong.any() and measured.place != "cotangent":
        measured = _with_noise_of_forward(measuring, which, measured, wrong)
        error, wrong = _errors(measured, scale, bounds)
    # the four ways to be no fault of backward's
    hidden = _hidden(measuring, which, measured, error, wrong) | _rounded(measuring, which, measured, wrong)
    wrong &= ~hidden
    enough = UNSETTLED if measuring.loss.pair.dtype == np.float64 else UNSETTLED_LOW
    unsettled = measured.judged & (UNCERTAIN * measured.error > enough * (np.abs(measured.numeric) + scale))
    unsettled |= wrong & _unseen(measuring, which, measured)
    kinks = _kinks(measuring, which, measured, wrong & ~unsettled)
    skipped = hidden | unsettled | kinks
    wrong &= ~skipped
    figure = float(np.where(skipped, 0, error).max())
    says = f"relative error {figure:.1e}, bound {bounds.relative:.0e}; {way}"
    if measuring.precision.profile != "float64":
        says += f"; {_ulps(measured, measuring.precision)}"
    why, too_many = _skipped(measured, hidden, unsettled, kinks)
    found = Check(question, not too_many, says + why, figure, bounds.relative, name, way, skipped=int(skipped.sum()))
    judged = measured.judged & ~skipped
    common = _common_factor(measuring, which, measured, judged, scale) if not wrong.any() else None
    if common is not None:
        wrong = judged
        says = f"{found.says}; together they are {common:.4g} times what is right, which no rounding explains"
        found = replace(found, says=says)
    if not wrong.any():
        return found
    index = tuple(int(i) for i in np.unravel_index(np.where(wrong, error, -1).argmax(), wrong.shape))
    absent, (_, who) = measuring.gradients[which] is None, measuring.pair.called
    given = f"{who} gives None, which stands for 0" if absent else f"analytic {measured.analytic[index]:.17g}"
    says = (f"{found.says}; worst at {measured.place} {list(index)}: {given}, numeric {measured.numeric[index]:.17g}; "
            f"wrong: {wrong.sum()} of {measured.judged.sum()}")
    if measured.place != "element":
        measured, error, wrong = _one_by_one(measuring, which, scale, bounds)
    case = _case(measuring, which, everything, measured, wrong, bounds.allowed(measured, scale))
    diagnosis = Diagnosis("absent", f"{who} gives None, but the output depends on it") if absent else diagnose(case)
    return replace(found, ok=False, says=says, elements=_worst_elements(measuring, which, measured, wrong, error),
                   diagnosis=diagnosis)


def _common_factor(measuring: Measuring, which: int, measured: Measurement, judged: Array, scale: float) -> float | None:
    """In low precision, what all elements together are times what is right, if that is no rounding: one by one each may be off by
    a few roundings, but not all of them in one direction."""
    precision, rounding = measuring.precision, _rounding(measuring)
    given, right, noise, error = (each[judged] for each in (measured.analytic, measured.numeric, measured.noise, measured.error))
    if precision.profile == "float64" or judged.sum() < ENOUGH or np.abs(right).max() <= max(precision.eps * scale, rounding):
        return None
    square = float((right * right).sum())
    wide = _in_float64(measuring, which) if measured.place == "element" else None
    if wide is not None and abs(float((wide[judged] * right).sum()) / square - 1) < SAME_FACTOR:
        noise = noise + rounding  # of 1 - y, where y is 1: only a few such elements may be all that there is
    by_rounding = precision.eps + float(np.sqrt(((right * noise) ** 2).sum())) / square
    by_measuring = float((np.abs(right) * error).sum()) / square
    factor = float((given * right).sum()) / square
    return factor if abs(factor - 1) > COMMON * by_rounding + UNCERTAIN * by_measuring else None


def _skipped(measured: Measurement, hidden: Array, unsettled: Array, kinks: Array) -> tuple[str, bool]:
    """What is not judged by its error, and whether that is too much."""
    says, too_many, count = "", False, int(measured.judged.sum())
    if hidden.any():
        says += f"; {hidden.sum()} of {count} {measured.place}s are off by what forward does not show: it rounds more there"
    if kinks.any():
        says += f"; {kinks.sum()} of {count} {measured.place}s are at a kink, and between the slopes on its two sides"
        if kinks.sum() * measured.part > MAX_KINKS * count:
            says, too_many = f"{says}, more than {MAX_KINKS:.0%}: move the inputs, so that there is something to check", True
    if unsettled.any():
        says += f"; {unsettled.sum()} of {count} {measured.place}s are not measured: differences see too little there"
        if unsettled.sum() > MAX_UNSETTLED * count:
            says, too_many = f"{says}, more than {MAX_UNSETTLED:.0%}", True
    return says, too_many


def _one_by_one(measuring: Measuring, which: int, scale: float, bounds: Bounds) -> tuple[Measurement, Array, Array]:
    """A direction says that something is wrong; some random elements say where, if they can."""
    known = measuring.known(which)
    indices = sample(np.ones(known.shape, bool), np.random.default_rng([measuring.seed, which]))
    measured = measure_elements(measuring.loss, which, known, [], measuring.products[which], indices=indices)
    return measured, *_errors(measured, scale, bounds)


def _case(measuring: Measuring, which: int, everything: Sequence[Measurement], measured: Measurement, wrong: Array,
          allowed: Array) -> Case:
    arguments, names = measuring.pair.arguments, measuring.pair.names
    others = {names[other]: (arguments[other], each.numeric) for other, each in enumerate(everything)
              if other != which and each.place == "element"}
    outputs = [(np.asarray(member, np.float64), cotangent)
               for member, cotangent in zip(measuring.base.members, measuring.cotangents, strict=True)]
    return Case(names[which], measured.analytic, measured.numeric, measured.judged, wrong, allowed, arguments[which], others,
                integers_of(measuring.pair.constants), outputs, cache(lambda: _jacobian(measuring, which)))


def _jacobian(measuring: Measuring, which: int) -> Jacobian | None:
    """None where it is too large, or backward does not take the cotangents."""
    loss, pair = measuring.loss, measuring.pair
    shape = pair.arguments[which].shape
    outputs = loss.places()
    if not 0 < len(outputs) <= MAX_JACOBIAN or pair.arguments[which].size > MAX_JACOBIAN:
        return None
    measured, given = np.zeros((2, len(outputs), pair.arguments[which].size))
    try:
        for column, index in enumerate(np.ndindex(shape)):
            direction = np.zeros(shape)
            direction[index] = 1
            measured[:, column], _ = measuring.products[which](loss, {which: direction})
        for row, (member, index) in enumerate(outputs):
            cotangents = [np.zeros(each.shape, pair.dtype) for each in measuring.cotangents]
            cotangents[member][index] = 1
            gradient = backward_pass(pair, measuring.base, cotangents)[which]
            given[row] = 0 if gradient is None else np.ravel(gradient)
    except Fault:
        return None
    return Jacobian(measured, given, loss.weights, outputs, loss.shapes, shape)


def _errors(measured: Measurement, scale: float, bounds: Bounds) -> tuple[Array, Array]:
    """Relative errors, and where they are too large."""
    allowed = bounds.allowed(measured, scale)
    error = relative_error(measured.analytic, measured.numeric, measured.size, allowed, bounds.relative)
    error = np.where(measured.judged, error, 0)
    return error, error > bounds.relative


def _with_noise_of_forward(measuring: Measuring, which: int, measured: Measurement, wrong: Array) -> Measurement:
    """Before anything is called wrong: forward may be what rounds so much, as one does that takes the variance in one pass. It is
    measured again where everything that goes in has moved by a rounding error."""
    product, noise = measuring.products[which], measured.noise
    for _ in range(NUM_REFERENCES):
        try:
            loss = moved_loss(measuring.loss, measuring.cotangents, measuring.precision.eps, measuring.rng)
            if measured.place == "element":
                indices = [tuple(map(int, index)) for index in np.argwhere(wrong)]
                again = measure_elements(loss, which, measuring.known(which), [], product, indices=indices)
            else:
                again = measure_directions(loss, which, measuring.known(which), [], product, measuring.directions(which))
        except Fault:
            continue
        with np.errstate(invalid="ignore"):
            change = np.abs(again.numeric - measured.numeric)
        noise = np.maximum(noise, np.where(again.judged & np.isfinite(change), change, 0))
    return replace(measured, noise=noise)


def _hidden(measuring: Measuring, which: int, measured: Measurement, error: Array, wrong: Array) -> Array:
    """Where forward had rounded away what backward would need to be right. The worst are looked at first: one that is wrong in
    truth is enough."""
    hidden = np.zeros(wrong.shape, bool)
    if measured.place == "cotangent":
        return hidden
    order = np.argsort(np.where(wrong, -error, 0), axis=None)[:min(MAX_LOOKS, int(wrong.sum()))]
    for place in order:
        index = tuple(int(i) for i in np.unravel_index(place, wrong.shape))
        move = {which: _direction(measuring, which, measured, index)}
        if is_visible(measuring.loss, move, measuring.products[which], float(measured.analytic[index])):
            break
        hidden[index] = True
    return hidden


def _rounded(measuring: Measuring, which: int, measured: Measurement, wrong: Array) -> Array:
    """Where a kernel of low precision is right in float64, and here off by a few roundings of the outputs."""
    if not wrong.any() or measuring.precision.profile == "float64" or measured.place != "element":
        return np.zeros(wrong.shape, bool)
    wide = _in_float64(measuring, which)
    if wide is None:
        return np.zeros(wrong.shape, bool)
    off, off_in_float64 = np.abs(measured.analytic - measured.numeric), np.abs(wide - measured.numeric)
    return wrong & (off_in_float64 <= NEARER * off) & (off <= _rounding(measuring))


def _in_float64(measuring: Measuring, which: int) -> Array | None:
    """The gradient that a kernel of low precision gives in float64, if it does."""
    gradients = gradients_in_float64(measuring.exact, measuring.pair, measuring.cotangents)
    return None if gradients is None else gradients[which]


def _rounding(measuring: Measuring) -> float:
    return ROUNDINGS * measuring.precision.eps * loss_size(measuring.base.members, measuring.cotangents)


def _direction(measuring: Measuring, which: int, measured: Measurement, index: tuple[int, ...]) -> Array:
    """In which the argument moves where `index` is measured."""
    if measured.place == "direction":
        return measuring.directions(which)[index[0]]
    alone = np.zeros(measuring.pair.arguments[which].shape)
    alone[index] = 1
    return alone


def _unseen(measuring: Measuring, which: int, measured: Measurement) -> Array:
    """Where an error moves the outputs by no more than their rounding, so that differences cannot tell whether it is one."""
    if measuring.products[which] is not differences or measured.place != "element":
        return np.zeros(measured.judged.shape, bool)
    loss = measuring.loss
    rounding = NOTHING * float(np.abs(loss.weights * loss.base).sum()) / loss.sizes[which]
    return np.abs(measured.analytic - measured.numeric) <= rounding


def _ulps(measured: Measurement, precision: Precision) -> str:
    """How far off the worst place is in steps of the precision, and beside what rounding changes there."""
    off = np.where(measured.judged, np.abs(measured.analytic - measured.numeric), 0)
    index = np.unravel_index(np.nan_to_num(off, posinf=np.inf).argmax(), off.shape)
    says = f"at most {off[index] / precision.ulp(float(measured.numeric[index])):.2g} ULP"
    return says + (f", {off[index] / measured.noise[index]:.2g} times what one rounding of all that goes in changes"
                   if measured.noise[index] > 0 else "")


def _kinks(measuring: Measuring, which: int, measured: Measurement, wrong: Array) -> Array:
    """Which of the places are wrong only because they are at a kink, where backward may take another slope.

    Elements that are excused one by one are then moved together with all that equal them: of equal largest numbers each may have
    all of the cotangent, but not both of two.
    """
    excused = np.zeros(wrong.shape, bool)
    loss, gradient = measuring.loss, measured.analytic
    if measured.place == "cotangent":
        return excused
    for index in map(tuple, np.argwhere(wrong)[:MAX_LOOKS]):
        if np.isfinite(gradient[index]):
            slopes = one_sided(loss, {which: _direction(measuring, which, measured, index)})
            excused[index] = slopes is not None and is_between(loss, slopes, float(gradient[index]))
    if measured.place == "direction" or not excused.any():
        return excused
    argument = measuring.pair.arguments[which]
    together = np.where(np.isin(argument, argument[excused]), loss.sizes[which], 0)
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
