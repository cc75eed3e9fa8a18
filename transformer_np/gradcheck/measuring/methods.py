"""How each argument's gradient is measured: which way, why, and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Outcome, Pair, backward_pass
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.measuring.adjoint import NUM_COTANGENTS, measure_adjoint
from transformer_np.gradcheck.measuring.complex_step import complex_step
from transformer_np.gradcheck.measuring.differences import differences
from transformer_np.gradcheck.measuring.exact import NUM_REFERENCES, Exact, moved_loss
from transformer_np.gradcheck.measuring.kinks import equal_numbers, is_between, one_sided, slopes
from transformer_np.gradcheck.measuring.loss import Loss, Product
from transformer_np.gradcheck.measuring.measurement import Measurement, measure_directions, measure_elements, random_direction
from transformer_np.gradcheck.measuring.precision import NOTHING, UNCERTAIN
from transformer_np.layer import Array

METHODS = ("auto", "complex_step", "differences", "adjoint", "taylor")

# Up to so many elements are measured one by one; beyond, each argument is measured along random directions. Differences need some
# 15 forwards for each.
MAX_ELEMENTS: dict[Product, int] = {complex_step: 4000, differences: 300}

NUM_DIRECTIONS = 8
MAX_SAMPLE = 200            # so many elements of a large array are measured when they have to be looked at one by one

NEARER = (2.0 ** -16, 2.0 ** -20, 2.0 ** -24)      # steps beside a kink, as parts of the size of the numbers that move,
SHOWN = 1e-4                                       # show a slope that is off by so much, relative

NAMES: dict[Callable, str] = {complex_step: "complex step", differences: "differences of fourth order"}


@dataclass
class Measuring:
    """Everything that is known before anything is measured.

    pair: what is judged.   exact: what it is judged by.   gradients: what backward gave for the cotangents; None stands for 0.
    seed: of the directions, so that they are the same again.   still: of each argument that is measured along directions, the
    elements that do not move in them.
    """

    pair: Pair
    exact: Exact
    base: Outcome
    cotangents: Sequence[Array]
    gradients: Sequence[Array | None]
    precision: Precision
    rng: np.random.Generator
    seed: int
    method: str
    products: list[Product] = field(default_factory=list)       # one for each argument
    because: str = ""                                           # why it is not the complex step
    still: dict[int, Array] = field(default_factory=dict)

    @property
    def loss(self) -> Loss:
        return self.exact.loss

    def held_still(self, which: int) -> Array:
        """Equal numbers and zeros, if the loss has a kink there: among thousands of elements a few kinks would excuse whatever
        the others have."""
        if which not in self.still:
            marked, rng = equal_numbers(self.loss.arguments)[which], np.random.default_rng([self.seed, which])
            direction = random_direction(self.loss, which, rng)
            if not self._bends(which, direction * marked):
                marked = np.zeros_like(marked)
            elif marked.sum() <= MAX_SAMPLE:  # few enough to look at each
                for index in map(tuple, np.argwhere(marked)):
                    alone = np.zeros(marked.shape)
                    alone[index] = direction[index]
                    marked[index] = self._bends(which, alone)
            self.still[which] = marked
        return self.still[which]

    def _bends(self, which: int, direction: Array) -> bool:
        if not direction.any():
            return False
        kink = one_sided(self.loss, {which: direction})
        return kink is None or bool(kink.bent.any())

    def directions(self, which: int) -> list[Array]:
        """Random ones, the same at each call."""
        rng = np.random.default_rng([self.seed, which])
        return [random_direction(self.loss, which, rng) * ~self.held_still(which) for _ in range(NUM_DIRECTIONS)]

    def known(self, which: int) -> Array:
        gradient = self.gradients[which]
        return np.zeros(self.pair.arguments[which].shape) if gradient is None else np.asarray(gradient, np.float64)


def choose(loss: Loss, method: str, rng: np.random.Generator) -> tuple[list[Product], str]:
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
        # saturated, an output changes by less than its own rounding, and differences see nothing of it, or little
        off = abs(float(loss.weights @ np.where(other != 0, change - other, 0)))
        unseen = NOTHING * float(np.abs(loss.weights * loss.base).sum()) / loss.length(move)
        if not off > UNCERTAIN * error + max(1e-5, math.sqrt(loss.eps)) * float(np.abs(loss.weights * change).sum()) + unseen:
            return True
    kink = one_sided(loss, move)
    return (kink is not None and is_between(loss, kink, float(loss.weights @ change))) or _shows(loss, move, change)


def _shows(loss: Loss, move: dict[int, Array], change: Array) -> bool:
    """Whether short steps to one side show this change. Beside a kink, steps that cross it show another, and differences may have
    settled on that."""
    slope, size = float(loss.weights @ change), float(np.abs(loss.weights * change).sum())
    for part in NEARER:
        step = part * loss.length(move)
        rounding = 8 * loss.eps * float(np.abs(loss.weights * loss.base)[change != 0].sum()) / step
        try:
            shown = [float(loss.weights @ each) for each in slopes(loss, move, step)]
        except Fault:
            continue
        if rounding <= SHOWN * size and min(abs(each - slope) for each in shown) <= SHOWN * size:
            return True
    return False


def measure_all(measuring: Measuring, loss: Loss, changes: Sequence[Sequence[Array]]) -> list[Measurement]:
    """changes: of the gradients, by rounding."""
    total = sum(argument.size for argument in loss.arguments)
    by_elements = total <= min((MAX_ELEMENTS[each] for each in measuring.products), default=0)
    measured = []
    for which, product in enumerate(measuring.products):
        known, rng = measuring.known(which), np.random.default_rng([measuring.seed, which])
        if by_elements:
            measured.append(measure_elements(loss, which, known, changes[which], product))
        elif loss.pair.dtype == np.float64:
            measured.append(measure_directions(loss, which, known, changes[which], product, measuring.directions(which)))
        else:  # where numbers lie far apart, a direction cannot be kept
            indices = sample(np.ones(known.shape, bool), rng)
            measured.append(measure_elements(loss, which, known, changes[which], product, indices=indices))
    return measured


def sample(marked: Array, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Indices of some of the marked elements."""
    places = np.flatnonzero(marked)
    chosen = np.sort(rng.choice(places, min(MAX_SAMPLE, len(places)), replace=False))
    return [tuple(int(i) for i in np.unravel_index(place, marked.shape)) for place in chosen]


def with_moved_references(measuring: Measuring, measured: list[Measurement]) -> list[Measurement]:
    """What rounding changes is seen from a reference, whoever wrote backward: it is measured again where all has moved."""
    nothing: list[list[Array]] = [[] for _ in measured]
    for _ in range(NUM_REFERENCES):
        loss = moved_loss(measuring.loss, measuring.cotangents, measuring.precision.eps, measuring.rng)
        again = measure_all(measuring, loss, nothing)
        measured = [replace(each, noise=np.maximum(each.noise, np.abs(other.numeric - each.numeric)))
                    for each, other in zip(measured, again, strict=True)]
    return measured


def measure_adjoints(measuring: Measuring, changes: Sequence[Sequence[Array]]) -> list[Measurement]:
    cotangents, gradients = [measuring.cotangents], [measuring.gradients]
    while len(cotangents) < NUM_COTANGENTS:
        drawn = random_cotangents(measuring.base.members, measuring.rng, measuring.pair.dtype)
        gradients.append(backward_pass(measuring.pair, measuring.base, drawn))
        cotangents.append([np.asarray(each, np.float64) for each in drawn])
    measured = []
    for which, product in enumerate(measuring.products):
        zeros = np.zeros(measuring.pair.arguments[which].shape)
        known = [zeros if each[which] is None else np.asarray(each[which], np.float64) for each in gradients]
        direction = measuring.directions(which)[0]
        measured.append(measure_adjoint(measuring.loss, which, cotangents, known, changes[which], product, direction))
    return measured


def way_of(measuring: Measuring, which: int, measured: Measurement) -> str:
    """What was done and why, for the report."""
    product = measuring.products[which]
    whose = f" of {measuring.exact.who}" if measuring.exact.is_reference or measuring.precision.profile != "float64" else ""
    says = (f"{measured.method}, by {NAMES[product]}{whose}" if measured.place == "cotangent" else
            f"{NAMES[product]}{whose} {measured.method}")
    if product is differences:
        worst = float(measured.error.max(initial=0))
        says += f", good to {worst:.0e}"
        if measuring.because:
            says += f" (not the complex step: {measuring.because})"
    return says
