"""The same numbers in memory in other ways. A kernel that reads a pointer and a shape, and no strides, breaks on most of them.

Two ways are left out: another order of bytes, which no library but NumPy has; and addresses that are no multiple of a number's
size, which no library gives, and for which a processor may stop compiled code, and the checker with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transformer_np.layer import Array


def c_order(array: Array) -> Array:
    """The last axis runs fastest, without gaps."""
    return np.array(array, order="C")


def fortran_order(array: Array) -> Array:
    """The first axis runs fastest."""
    return np.array(array, order="F")


MOST_STRIDED = 4


def strided(array: Array) -> Array:
    """Every second number of an array twice as wide. Between them is NaN, or the largest integer, or True: not to be read.

    Twice as wide along its last axes of two or more, and not along more than MOST_STRIDED of them: each doubles the memory.
    """
    long = [axis for axis, size in enumerate(array.shape) if size > 1][-MOST_STRIDED:]
    wide = np.full([size * (1 + (axis in long)) for axis, size in enumerate(array.shape)], _poison(array.dtype), array.dtype)
    every_second: Any = (..., *(slice(1, None, 2) if axis in long else slice(None) for axis in range(array.ndim)))
    view = wide[every_second]
    view[...] = array
    return view


def reversed_axes(array: Array) -> Array:
    """From the last number to the first: every stride is negative."""
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    return array[backwards].copy()[backwards]


def stride_0(array: Array) -> Array:
    """One number, or row, stands for all along each axis on which they are equal; other arrays are copied. Read-only."""
    repeats = [size > 1 and bool((array == array.take([0], axis)).all()) for axis, size in enumerate(array.shape)]
    first = array[tuple(slice(0, 1) if repeated else slice(None) for repeated in repeats)]
    return np.broadcast_to(first.copy(), array.shape)


def read_only(array: Array) -> Array:
    """To be looked at, not written to."""
    array = np.array(array)
    array.flags.writeable = False
    return array


LAYOUTS = {"C order": c_order, "Fortran order": fortran_order, "strided": strided, "reversed": reversed_axes,
           "stride 0": stride_0, "read-only": read_only}


def _poison(dtype: np.dtype) -> object:
    if np.issubdtype(dtype, np.integer):
        return np.iinfo(dtype).max
    return dtype.type(True) if dtype == np.bool_ else dtype.type(np.nan)
