"""The golden numbers of one call of a pair, and how far off a right program may be.

The inputs and the cotangent are first rounded to the precision that is judged. From these the reference works in float64, so the
precision of the numbers that go in costs nobody anything. What is left is the rounding on the way, and that is measured on the
reference itself, in two ways; the larger of the two is the unit in which an error is stated:

    naive       our own form, worked out in the precision that is judged
    rounding    our own form in float64, when everything that is stored (inputs, cotangent, cache) moves by one rounding error

Without the second, a form that happens to be exact, such as a weight of exactly 1 in a row of one key, would ask the same luck of
every other. A program is right if no element is off by more than BOUND units. PyTorch's functions, which add in other orders and
use other formulas, stayed below 5 under 60 seeds; what is wrong by more than rounding is far above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.inputs import Inputs
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Outcome, Pair, backward_pass, forward_pass, pair_of_functions
from transformer_np.gradcheck.calling.rounding import Precision, narrow, widen
from transformer_np.gradcheck.examples import Call
from transformer_np.gradcheck.judging.verdict import NUM_WORST
from transformer_np.gradcheck.measuring.noise import NUM_MOVES, moved
from transformer_np.gradcheck.report import Element
from transformer_np.layer import Array

BOUND = 8.0

LONG = 150

# Beyond its own rounding a program in float64 may owe some digits to the approximation of a function, such as erf.
FLOAT64_FLOOR = 1e-12


@dataclass(frozen=True)
class Verdict:
    """ok: no element is too far off.   figure: the largest error in units, infinite where nothing fits.   says: as a sentence."""

    ok: bool
    figure: float
    says: str


@dataclass(frozen=True, eq=False)
class Answer:
    """One array that a kernel must give.

    name: "output", "output[1]" or "gradient of q".   exact: what the reference gives.
    judged: where a number can be asked for: where the reference, and our form in this precision, have a finite one.
    naive: largest error of our own form in this precision.   unit: of errors, see above.
    """

    name: str
    exact: Array
    judged: Array
    naive: float
    unit: float
    precision: Precision

    @property
    def allowed(self) -> float:
        """So far off an element may be."""
        return BOUND * self.unit

    def judge(self, given: Array) -> Verdict:
        given = np.asarray(given).astype(np.float64)
        if given.shape != self.exact.shape:
            says = f"{self.name} has shape {list(given.shape)}, expected {list(self.exact.shape)}"
            return Verdict(False, math.inf, says)
        if given.size == 0:
            return Verdict(True, 0.0, "it has no elements")
        error = self._errors(given)
        index = np.unravel_index(error.argmax(), error.shape)
        worst = float(error[index])
        figure = 0.0 if worst == 0 else worst / self.unit if self.unit > 0 else math.inf
        if figure <= BOUND:
            return Verdict(True, figure, self._size(worst, figure, float(self.exact[index])))
        says = self._size(worst, figure, float(self.exact[index])) + "; worst at " if math.isfinite(worst) else "at "
        says += (f"{[int(i) for i in index]}: got {given[index]:.9g}, expected {self.exact[index]:.9g}; "
                 f"wrong: {int((error > self.allowed).sum())} of {error.size}")
        return Verdict(False, figure, says)

    def worst_elements(self, given: Array, argument: Array | None) -> tuple[Element, ...]:
        """Those that are beyond the bound, the worst first.   argument: whose gradient this is, None for an output."""
        given = np.asarray(given).astype(np.float64)
        if given.shape != self.exact.shape:
            return ()
        error = self._errors(given)
        elements = []
        for place in np.argsort(-error, axis=None, kind="stable")[:NUM_WORST]:
            index = tuple(int(i) for i in np.unravel_index(place, error.shape))
            off, right = float(error[index]), float(self.exact[index])
            if not off <= self.allowed:
                relative = off / abs(right) if right != 0 else math.inf
                elements.append(Element(index, None if argument is None else float(argument[index]), float(given[index]), right,
                                        off, relative, off / self.precision.ulp(right) if math.isfinite(right) else math.inf))
        return tuple(elements)

    def _errors(self, given: Array) -> Array:
        """0 where any number will do; an infinity that the reference gives is asked for as it is: there is no error beside it."""
        with np.errstate(invalid="ignore"):
            error = np.where(given == self.exact, 0.0, np.abs(given - self.exact))
        error = np.where(np.isnan(error), np.inf, error)
        return np.where(self.judged | np.isinf(self.exact), error, 0)

    def _size(self, error: float, figure: float, beside: float) -> str:
        says = f"off by {error:.1e}, {figure:.2g} units (bound {BOUND:g})"
        if error > 0 and self.naive > 0:
            says += f", {error / self.naive:.2g} times as far as our form in {self.precision.profile}"
        if error > 0 and beside != 0:
            says += f", {error / self.precision.ulp(beside):.2g} ULP"
        return says


@dataclass(frozen=True)
class Golden:
    """inputs: as forward takes them, the floating ones rounded, in float64.   arguments: those that are differentiated, by name.
    outputs: one for each floating member of the output, which has a cotangent each.   gradients: one for each argument."""

    inputs: tuple[Any, ...]
    arguments: dict[str, Array]
    cotangents: tuple[Array, ...]
    outputs: tuple[Answer, ...]
    gradients: tuple[Answer, ...]

    def argument_of(self, answer: Answer) -> Array | None:
        """Whose gradient it is; None for an output."""
        return self.arguments.get(answer.name.removeprefix("gradient of ")) if answer in self.gradients else None

    def as_lenient_as(self, whole: Golden) -> Golden:
        """For a part of another call, cut from it: with units that are no smaller. A few elements that are left of it may all be
        small, and their last digits be those of the larger numbers that they were made of."""
        outputs, gradients = (tuple(replace(answer, unit=max(answer.unit, other.unit))
                                    for answer, other in zip(answers, others, strict=True))
                              for answers, others in ((self.outputs, whole.outputs), (self.gradients, whole.gradients)))
        return replace(self, outputs=outputs, gradients=gradients)

    def for_long_sums(self, length: int) -> Golden:
        """With units for axes of this length. The unit grows with the root of the length of a sum, but the rounding of a plain
        loop, which is right too, with the length. Up to LONG the bound has room for both."""
        factor = math.sqrt(max(1.0, length / LONG))
        outputs, gradients = (tuple(replace(answer, unit=answer.unit * factor) for answer in answers)
                              for answers in (self.outputs, self.gradients))
        return replace(self, outputs=outputs, gradients=gradients)


def work_out(call: Call, inputs: Sequence[Any], precision: Precision, rng: np.random.Generator,
             draw: Callable[..., tuple[Array, ...]] = random_cotangents) -> Golden:
    """draw: the cotangents, from the members of the output and `rng`. Raises Fault if the reference refuses these inputs, or
    gives NaN."""
    pair = pair_of_functions(call.bind(call.forward), call.backward, inputs)
    arguments = [precision.round(argument) for argument in pair.arguments]
    base = forward_pass(pair, arguments)
    cotangents = tuple(precision.round(cotangent) for cotangent in draw(base.members, rng))
    exact = _numbers(pair, base, cotangents)
    naive = exact if precision.profile == "float64" else _naive(call, pair, inputs, precision, cotangents)
    runs = [_run_moved(pair, arguments, cotangents, precision.eps / 2, rng) for _ in range(NUM_MOVES)]
    count = len(base.members)
    names = ["output" if count == 1 else f"output[{index}]" for index in range(count)]
    names += [f"gradient of {name}" for name in pair.names]
    made_of = max(map(_largest, cotangents), default=0.0) * _largest_in(base.cache)
    answers = [_answer(name, exact[index], naive[index], [each[index] for each in runs], precision, made_of)
               for index, name in enumerate(names)]
    by_name = dict(zip(pair.names, arguments, strict=True))
    given = Inputs(call.bind(call.forward), inputs)
    return Golden(given.rebuild(arguments, given.constants), by_name, cotangents, tuple(answers[:count]), tuple(answers[count:]))


def _answer(name: str, exact: Array, naive: Array, runs: Sequence[Array], precision: Precision, made_of: float) -> Answer:
    """made_of: what a gradient is made of, cotangents times what is stored. One that is 0 everywhere is a difference of such
    numbers, and has no size of its own."""
    judged = np.isfinite(exact) & np.isfinite(naive)
    with np.errstate(invalid="ignore"):
        off = [_largest(np.where(judged, each - exact, 0)) for each in (naive, *runs)]
    floor = FLOAT64_FLOOR if precision.profile == "float64" else precision.eps
    size = _largest(np.where(judged, exact, 0))
    return Answer(name, exact, judged, off[0], max(*off, floor * (size or made_of)), precision)


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0))


def _largest_in(node: Any) -> float:
    """The largest finite number in the floating arrays of a cache, list or tuple."""
    if isinstance(node, np.ndarray) and np.issubdtype(node.dtype, np.floating):
        return _largest(np.where(np.isfinite(node), node, 0))
    if is_dataclass(node) and not isinstance(node, type):
        node = [getattr(node, field.name) for field in fields(node)]
    return max(map(_largest_in, node), default=0.0) if isinstance(node, tuple | list) else 0.0


def _numbers(pair: Pair, outcome: Outcome, cotangents: Sequence[Array]) -> list[Array]:
    """Outputs, then gradients; zeros for None, which stands for them."""
    gradients = backward_pass(pair, outcome, cotangents)
    return [*outcome.members, *(np.zeros(argument.shape) if gradient is None else gradient
                                for gradient, argument in zip(gradients, pair.arguments, strict=True))]


def _naive(call: Call, pair: Pair, inputs: Sequence[Any], precision: Precision, cotangents: Sequence[Array]) -> list[Array]:
    """Our form in that precision. Where NumPy goes over to wider numbers, the result is rounded."""
    forward = call.bind(call.forward)

    def forward_there(*inputs: Any) -> Any:
        output, cache = forward(*narrow(inputs, precision.dtype))
        return widen(output), cache

    def backward_there(d_output: Any, cache: Any) -> Any:
        return widen(call.backward(narrow(d_output, precision.dtype), cache))

    there = pair_of_functions(forward_there, backward_there, inputs)
    arguments = [precision.round(argument) for argument in pair.arguments]
    return [precision.round(array) for array in _numbers(there, forward_pass(there, arguments), cotangents)]


def _run_moved(pair: Pair, arguments: Sequence[Array], cotangents: Sequence[Array], eps: float,
           rng: np.random.Generator) -> list[Array]:
    outcome = forward_pass(pair, moved(list(arguments), eps, rng, ties=False))
    with np.errstate(over="ignore", invalid="ignore"):
        stored = replace(outcome, cache=moved(outcome.cache, eps, rng, ties=False))
    return _numbers(pair, stored, moved(list(cotangents), eps, rng, ties=False))
