"""A call with longer axes, so that a kernel crosses its tiles: made from any call of a pair, as its edges are.

Axes of equal length belong together, as in `edges.py`. One length at a time grows, then the last two of each input. Where the
reference refuses one that grows alone, another grows with it in proportion: the gates of an LSTM with its width, the input of a
convolution with its kernel.

A longer axis is stretched: what lies behind a mask, and the mask itself, stay beside each other, and whole tiles are hidden. Then
the numbers are drawn anew, with their mean and spread, since in repeated ones no maximum rises from tile to tile.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.inputs import Inputs
from transformer_np.gradcheck.calling.trees import leaves
from transformer_np.gradcheck.examples import Call
from transformer_np.layer import Array

# Not a multiple of any tile, and longer than one of 128: the last tile of every usual size is a part only.
LARGER = 150
BOTH = 300               # two axes that grow at once stay below this: their product must fit into memory many times
SHOWN = 0.9              # the part of a mask that stays True where it is


def larger_calls(call: Call, size: int, seed: int) -> Iterator[tuple[str, Call]]:
    """What has grown, and the call. Only calls that the reference takes."""
    rng = np.random.default_rng([seed, *b"larger"])
    names = _names_of_lengths(call)
    growths = [_alone_or_with_another(length, names, size) for length in names]
    # not of one length: axes that are equal by chance hide a transposition
    both = min(size, BOTH)
    growths += [iter([{first: both, second: both - both // 11}]) for first, second in _last_two_axes(call)]
    for alternatives in growths:
        for lengths in alternatives:
            if not all(1 < old < new for old, new in lengths.items()):
                continue
            larger = _grown_call(call, lengths, rng)
            if _is_taken(larger):
                yield ", ".join(f"{names[old]} = {new}" for old, new in lengths.items()), larger
                break


def _alone_or_with_another(length: int, names: dict[int, str], size: int) -> Iterator[dict[int, int]]:
    yield {length: size}
    for other in names:
        if other != length:
            yield {length: size, other: other * size // max(length, 1)}


def _names_of_lengths(call: Call) -> dict[int, str]:
    """Each length, by the first place where it is found."""
    names: dict[int, str] = {}
    for parameter, value in zip(inspect.signature(call.forward).parameters, call.inputs, strict=False):
        for name, leaf in leaves(value, parameter):
            for axis, length in enumerate(np.shape(leaf) if isinstance(leaf, np.ndarray) else ()):
                names.setdefault(length, f"{name}.shape[{axis}]")
    return names


def _last_two_axes(call: Call) -> list[tuple[int, int]]:
    """Of each input, once: the two that a tile has."""
    arrays = [leaf for _, leaf in leaves(call.inputs, "") if isinstance(leaf, np.ndarray) and leaf.ndim > 1]
    return list(dict.fromkeys((array.shape[-2], array.shape[-1]) for array in arrays if array.shape[-2] != array.shape[-1]))


def _is_taken(call: Call) -> bool:
    with np.errstate(all="ignore"):
        try:
            call.forward(*call.inputs, **call.keywords())
        except Exception:  # a reference says in many ways that shapes do not go together
            return False
    return True


def _grown_call(call: Call, lengths: dict[int, int], rng: np.random.Generator) -> Call:
    """lengths: the new by the old. Settings that are arrays grow too, such as the lengths of sequences."""
    given = Inputs(call.bind(call.forward), call.inputs)
    inputs = given.rebuild([_grown(array, lengths, rng) for array in given.arguments],
                           [_grown(constant, lengths, rng) for constant in given.constants])
    return replace(call, inputs=inputs, settings={name: _grown(value, lengths, rng) for name, value in call.settings.items()})


def _grown(value: Any, lengths: dict[int, int], rng: np.random.Generator) -> Any:
    if not isinstance(value, np.ndarray) or value.size == 0:
        return value
    if np.issubdtype(value.dtype, np.integer):
        return _grown_integers(value, lengths, rng)
    if not set(value.shape) & set(lengths):
        return value
    stretched = value[np.ix_(*(np.arange(lengths.get(n, n)) * n // lengths.get(n, n) for n in value.shape))]
    if value.dtype == np.bool_:
        return _grown_mask(value, stretched, rng)
    finite = value[np.isfinite(value)]
    if finite.size == 0:
        return stretched
    drawn = finite.mean() + finite.std() * rng.standard_normal(stretched.shape)
    return np.where(np.isfinite(stretched), drawn, stretched).astype(value.dtype)


def _grown_mask(mask: Array, stretched: Array, rng: np.random.Generator) -> Array:
    """A causal mask stays one. Others have holes besides: nothing that was hidden is shown."""
    if mask.ndim > 1:
        (rows, columns), (more_rows, more_columns) = mask.shape[-2:], stretched.shape[-2:]
        if (mask == np.tri(rows, columns, columns - rows, dtype=bool)).all():
            return np.broadcast_to(np.tri(more_rows, more_columns, more_columns - more_rows, dtype=bool), stretched.shape).copy()
    return stretched & (rng.random(stretched.shape) < SHOWN)


def _grown_integers(array: Array, lengths: dict[int, int], rng: np.random.Generator) -> Array:
    """Where the largest is the last index of an axis, as in ids and labels, half of them become indices of the longer axis; the
    others, and negative ones, stay what they may stand for. Where the largest is the length of an axis, all grow with it."""
    shape = tuple(lengths[length] if length in lengths else length for length in array.shape)
    grown = array if shape == array.shape else rng.choice(array.ravel(), shape)
    top = int(array.max())
    if top in lengths:
        return grown * lengths[top] // top
    if top + 1 in lengths:
        anywhere = (rng.random(shape) < 0.5) & (grown >= 0)
        return np.where(anywhere, rng.integers(0, lengths[top + 1], shape), grown).astype(array.dtype)
    return grown
