"""Does a pair read its arrays as they lie in memory, or as it thinks they do?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.layouts import LAYOUTS, c_order
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Outcome, Pair, backward_pass, forward_pass
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.judging.asking import NOT_AGAIN, Broken, Gradients, ask_backward, copies, elsewhere, refuses
from transformer_np.gradcheck.measuring.precision import Bounds, relative_error
from transformer_np.layer import Array

# An error with one of these words refuses a layout, which is no fault.
LAYOUT_WORDS = "contiguous|stride|layout"


def memory_layouts_agree(pair: Pair, rng: np.random.Generator) -> str:
    """The same numbers lie in memory in another way, in the inputs and weights first, then in the cotangents: the output and the
    gradients are the same, but for the order of sums. Equal numbers along the first axis may lie there once, with a stride of 0.

    To refuse a layout with an error that names it is right; to read other numbers is not.
    """
    left_out: dict[str, None] = {}
    for layout, lay_out in LAYOUTS.items():
        arguments, constants, asked = pair.given, pair.constants, pair
        if layout == "stride 0":
            arguments, asked = tuple(_equal_rows(argument) for argument in arguments), elsewhere(pair)
        drawn = int(rng.integers(2 ** 32))
        try:
            base, cotangents, expected = _in_c_order(asked, arguments, constants, layout, drawn)
        except Fault as fault:
            if layout != "stride 0":
                raise
            try:  # equal rows may be outside of what the two take, but then they are at every call
                _in_c_order(asked, arguments, constants, layout, drawn)
            except Fault:
                left_out[layout] = None
                continue
            raise Fault(f"{fault}; {NOT_AGAIN}", fault.kind) from fault
        members = copies(base.members)
        laid_constants = [lay_out(constant) if isinstance(constant, np.ndarray) else constant for constant in constants]
        for whose, used, others, weights in (
                ("inputs", [lay_out(argument) for argument in arguments], laid_constants,
                 [cotangent.copy() for cotangent in cotangents]),
                ("cotangents", arguments, constants, [lay_out(cotangent) for cotangent in cotangents])):
            try:
                outcome, gradients = _both_passes(pair, used, others, weights)
            except Unsupported:  # torch has no negative strides
                left_out[layout] = None
                continue
            except Fault as fault:
                if refuses(fault, LAYOUT_WORDS):
                    left_out[layout] = None
                    continue
                try:  # an error that does not come again is not the layout's
                    _both_passes(pair, used, others, weights)
                except Fault:
                    raise Broken(f"with {whose} in memory in another way ({layout}): {fault}") from None
                raise Fault(f"{fault}; {NOT_AGAIN}", fault.kind) from fault
            when = f"with {whose} in memory in another way ({layout})"
            try:
                _require_both_close(pair, outcome, gradients, members, expected, when)
            except Broken as broken:
                _require_both_close(pair, *_both_passes(pair, used, others, weights), members, expected, when)
                raise Broken(f"{broken}; {NOT_AGAIN}", "nondeterministic") from None
    says = "the same for inputs and cotangents in " + ", ".join(layout for layout in LAYOUTS if layout not in left_out)
    return says + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _in_c_order(pair: Pair, arguments: Sequence[Array], constants: Sequence[Any], layout: str,
                seed: int) -> tuple[Outcome, Sequence[Array], Gradients]:
    base = forward_pass(pair, arguments, constants)
    cotangents = random_cotangents(base.members, np.random.default_rng(seed), pair.dtype)
    if layout == "stride 0":
        cotangents = tuple(_equal_rows(cotangent) for cotangent in cotangents)
    return base, cotangents, copies(ask_backward(pair, base, cotangents))


def _both_passes(pair: Pair, arguments: Sequence[Array], constants: Sequence[Any],
                 cotangents: Sequence[Array]) -> tuple[Outcome, Gradients]:
    outcome = forward_pass(pair, arguments, constants)
    return outcome, backward_pass(pair, outcome, cotangents)


def _equal_rows(array: Array) -> Array:
    """As it is at the first index, everywhere."""
    return c_order(np.broadcast_to(array[:1], array.shape)) if array.ndim and array.size else array


def _require_both_close(pair: Pair, outcome: Outcome, gradients: Gradients, members: Gradients, expected: Gradients,
                        when: str) -> None:
    names = ["the output" if len(members) == 1 else f"floating output {index}" for index in range(len(members))]
    _require_close(pair, names, outcome.members, members, when)
    _require_close(pair, [f"the gradient of {name}" for name in pair.names], gradients, expected, when)


def _require_close(pair: Pair, names: Sequence[str], got: Gradients, expected: Gradients, when: str) -> None:
    """The same numbers but for the order of sums."""
    bounds = Bounds.of(Precision.of(pair.dtype.name))
    # the rounding of all of them, since a gradient that is zero in truth (the bias of keys) is left with that of the others
    finite = [np.abs(array[np.isfinite(array)]).max(initial=0) for array in expected if array is not None]
    noise = bounds.noise * float(max(finite, default=0))
    for name, a, b in zip(names, got, expected, strict=True):
        if a is None or b is None:
            continue
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise Broken(f"{when}, {name} has shape {list(a.shape)}, expected {list(b.shape)}")
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(same, 0, relative_error(a, b, np.abs(b), noise, bounds.relative))
        if error.size and error.max() > bounds.rounding * bounds.relative:
            index = np.unravel_index(error.argmax(), error.shape)
            raise Broken(f"{when}, {name} is {a[index]:.9g} at {[int(i) for i in index]}, expected {b[index]:.9g}; "
                        f"other: {int((error > bounds.rounding * bounds.relative).sum())} of {error.size}")
