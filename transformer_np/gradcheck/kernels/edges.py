"""What lies at the edges of a call: sizes of 0 and 1, extreme numbers, equal ones. Made from any call of a pair, so that a new
pair has its edges too.

The examples of this project have a size of their own for every axis, so axes of equal size belong together: the keys of k, of v
and of the mask are all cut at once. What comes out may make no sense, such as an id that the smaller table has not. The reference
knows: what it refuses is no case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.inputs import Inputs
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.examples import Call
from transformer_np.layer import Array

SIZES = ("a size of 0", "a size of 1")       # the kinds of edge that are a part of the call

Variant = tuple[str, tuple[Any, ...]]        # what is special about it, and the inputs


def edges_of(call: Call, precision: Precision) -> dict[str, list[Variant]]:
    """Variants of the inputs of a call, by kind."""
    power = math.log2(precision.largest) / 8
    large, small = 2.0 ** int(power), 2.0 ** -int(2 * power)
    far = 2.0 ** round(-math.log2(precision.eps) / 2)        # its square has no digit left for a spread of 1
    return {
        **{kind: list(_cut(call, size)) for size, kind in enumerate(SIZES)},
        "extreme numbers": [(f"inputs times {large:.1e}", _each(call, lambda array: array * large)),
                            (f"inputs times {small:.1e}", _each(call, lambda array: array * small)),
                            (f"first input plus {far:.1e}", _first(call, lambda array: array + far))],
        "equal numbers": [("inputs equal everywhere", equal_numbers(call)),
                          ("inputs of zeros", _each(call, np.zeros_like))],
    }


def equal_numbers(call: Call) -> tuple[Any, ...]:
    """Each floating input is one number everywhere: its usual size, without a sign."""
    return _each(call, lambda array: np.full_like(array, np.nanmean(np.abs(array)) if array.size else 0))


def _cut(call: Call, size: int) -> Iterator[Variant]:
    given = Inputs(call.bind(call.forward), call.inputs)
    first: dict[int, str] = {}
    for name, argument in zip(given.names, given.arguments, strict=True):
        for axis, length in enumerate(argument.shape):
            if length > size:
                first.setdefault(length, f"{name}.shape[{axis}] = {size}")
    for length, says in first.items():
        yield says, given.rebuild([_shorter(array, length, size) for array in given.arguments],
                                  [_shorter(constant, length, size) for constant in given.constants])


def _shorter(value: Any, length: int, size: int) -> Any:
    """Every axis of this length cut to `size`."""
    if not isinstance(value, np.ndarray):
        return value
    return value[tuple(slice(size if found == length else None) for found in value.shape)].copy()


def _first(call: Call, change: Callable[[Array], Array]) -> tuple[Any, ...]:
    given = Inputs(call.bind(call.forward), call.inputs)
    first, *others = given.arguments
    return given.rebuild([change(first), *others], given.constants)


def _each(call: Call, change: Callable[[Array], Array]) -> tuple[Any, ...]:
    given = Inputs(call.bind(call.forward), call.inputs)
    return given.rebuild([change(argument) for argument in given.arguments], given.constants)
