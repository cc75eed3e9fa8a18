"""A gradient that is wrong, and everything that is at hand to find out why.

    Case           one argument: what backward gives for it, what was measured, and the arrays round it
    Jacobian       the same for every number of the output by itself, where it is small enough
    Diagnosis      the kind of fault, and a sentence
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.trees import leaves
from transformer_np.layer import Array

LEFT = 1e-3                 # a diagnosis may leave so much of the error
MAX_AXES = 4                # arrays of more axes are not tried in every order


@dataclass(frozen=True)
class Diagnosis:
    """kind: a word or two, for programs.   says: a sentence."""

    kind: str
    says: str


@dataclass(frozen=True)
class Jacobian:
    """measured, given: [M, n], by every number of the output and every element of the argument, from forward and from backward.
    weights: [M], the cotangent.   outputs: for each of the M, in which output it is, and at which index.
    shapes: of the outputs.   argument_shape: of the argument."""

    measured: Array
    given: Array
    weights: Array
    outputs: Sequence[tuple[int, tuple[int, ...]]]
    shapes: Sequence[tuple[int, ...]]
    argument_shape: tuple[int, ...]

    @property
    def slack(self) -> float:
        """What is wrong by less is as good as right, beside the largest error."""
        return LEFT * float(np.abs(self.given - self.measured).max())

    @property
    def wrong(self) -> Array:
        return np.abs(self.given - self.measured) > self.slack

    @property
    def used(self) -> Array:
        """Where the output depends on the argument."""
        return np.abs(self.measured) > 0

    @property
    def dropped(self) -> Array:
        """Where backward gives nothing, and should."""
        return self.wrong & (np.abs(self.given) <= self.slack)

    def along(self, member: int, axis: int) -> Array:
        """[M, 1]: the index along an axis of one of the outputs; -1 in another output."""
        return np.array([index[axis] if which == member else -1 for which, index in self.outputs])[:, None]

    def axis_name(self, member: int, axis: int) -> str:
        return f"axis {axis} of " + ("the output" if len(self.shapes) == 1 else f"output[{member}]")


@dataclass(frozen=True)
class Case:
    """A gradient that is wrong.

    analytic, numeric: what backward gives and what was measured.   judged: where.   wrong: where they differ.
    allowed: by how much a right gradient may be off at each element.   argument: the array that the gradient is of.
    others: every other argument with its measured gradient.   integers: the inputs that have none, such as token ids.
    outputs: with the cotangent of each.   jacobian: makes it, or gives None where it is too large.
    """

    name: str
    analytic: Array
    numeric: Array
    judged: Array
    wrong: Array
    allowed: Array
    argument: Array
    others: Mapping[str, tuple[Array, Array]]
    integers: Sequence[Array]
    outputs: Sequence[tuple[Array, Array]]
    jacobian: Callable[[], Jacobian | None]

    @property
    def error(self) -> Array:
        return np.where(self.judged, self.analytic - self.numeric, 0)

    @property
    def slack(self) -> Array:
        """Of an explanation that is as good as the whole truth."""
        return LEFT * np.abs(self.error).max() + 4 * self.allowed

    def explained_by(self, candidate: Array) -> bool:
        """Whether backward gives just this, in place of what was measured."""
        return bool((np.where(self.judged, np.abs(self.analytic - candidate), 0) <= self.slack).all())

    def is_right(self, corrected: Array) -> bool:
        """Whether backward would be right if it gave this."""
        return bool((np.where(self.judged, np.abs(corrected - self.numeric), 0) <= self.slack).all())

    def sizes(self) -> Iterator[tuple[int, str]]:
        """Every size that a factor may come from, with its name."""
        arrays = [(self.name, self.argument), *((name, array) for name, (array, _) in self.others.items())]
        names = ["the output"] if len(self.outputs) == 1 else [f"output[{index}]" for index in range(len(self.outputs))]
        arrays += [(name, array) for name, (array, _) in zip(names, self.outputs, strict=True)]
        for name, array in arrays:
            for axis, size in enumerate(array.shape):
                yield size, f"the size of axis {axis} of {name}"
        for name, array in arrays:
            if array.ndim > 1:
                yield array.size, f"the number of elements of {name}"
                yield array.size // max(array.shape[-1], 1), f"the number of rows of {name}"


def arrangements(array: Array) -> Iterator[tuple[Array, str]]:
    """An array as it was before someone put it in another order."""
    shape, axes = array.shape, range(array.ndim)
    for axis in axes:
        yield np.flip(array, axis), f"reversed along axis {axis}"
        for by in (1, -1):
            yield np.roll(array, by, axis), f"shifted by {-by} along axis {axis}"
    if 1 < array.ndim <= MAX_AXES:
        for order in itertools.permutations(axes):
            if list(order) == sorted(order):
                continue
            moved = tuple(shape[axis] for axis in order)
            if moved == shape:
                yield array.transpose(order), f"axes in the order {list(order)}"
            # someone read memory as if the axes lay there in this order
            yield array.reshape(moved).transpose(np.argsort(order)), f"a reshape where axes {list(order)} want a transpose"
            yield array.transpose(order).reshape(shape), f"a transpose of axes {list(order)} where there is none"


def broadcasts(array: Array, shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        return False


def integers_of(values: Any) -> list[Array]:
    """The integer arrays among inputs, tuples and dicts of them."""
    return [leaf for _, leaf in leaves(values, "") if isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.integer)]
