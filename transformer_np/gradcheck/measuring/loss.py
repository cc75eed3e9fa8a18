"""What is differentiated: the loss sum(cotangent * output), whose gradient backward gives.

The ways of measuring it move the arguments along a direction and look at what each number of the output does; the cotangent
weighs these numbers only in the end. So the outputs that stay as they are cancel exactly, and one measured direction serves
every cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import ANOTHER_SHAPE, Pair, forward_pass
from transformer_np.gradcheck.calling.rounding import eps_of
from transformer_np.layer import Array

COMPLEX = {"float64": "complex128", "float32": "complex64"}

# Arguments that move together, by their places, each with the direction in which it moves.
Move = Mapping[int, Array]


class Loss:
    """base: the finite numbers of the output, flat, where no argument moves.   weights: their cotangents.
    sizes: of each argument, see `sizes_of`.   eps: of the precision in which forward answers, that of `pair.dtype` or less."""

    def __init__(self, pair: Pair, cotangents: Sequence[Array]) -> None:
        """Raises Fault."""
        self.pair = pair
        self.arguments = pair.arguments
        members = forward_pass(pair, pair.given).members
        self.shapes = [member.shape for member in members]
        if self.shapes != [cotangent.shape for cotangent in cotangents]:
            raise Fault(f"{pair.called[0]} {ANOTHER_SHAPE}", "wrong shape")
        everything = _flat(members)
        # an output that is infinite, such as the log-probability of a masked entry, does not move
        self._moving = np.isfinite(everything)
        self.base = everything.real[self._moving]
        self.weights = self.weigh(cotangents)
        self.eps = max(eps_of(member.dtype) for member in members)
        # few digits want large steps
        self.sizes = sizes_of(self.arguments, 0.1 if pair.dtype == np.float64 else 1.0)

    def require_finite_output(self) -> None:
        """Raises Fault for an output that is infinite everywhere: nothing of it moves, as if it depended on nothing."""
        if self._moving.size and not self._moving.any():
            raise Fault(f"the output is infinite everywhere for {self.pair.dtype} inputs: it has no derivative", "not finite")

    def weigh(self, cotangents: Sequence[Array]) -> Array:
        """Cotangents as weights of the numbers of `base`."""
        return _flat(cotangents)[self._moving]

    def places(self) -> list[tuple[int, tuple[int, ...]]]:
        """For each number of `base`, in which output it is, and at which index."""
        everything = [(member, index) for member, shape in enumerate(self.shapes) for index in np.ndindex(shape)]
        return [place for place, moving in zip(everything, self._moving, strict=True) if moving]

    def numbers(self, members: Sequence[Array]) -> Array:
        """The numbers of another output, flat like `base`. Raises Fault for one of another shape."""
        if [member.shape for member in members] != self.shapes:
            shapes, expected = [list(member.shape) for member in members], [list(shape) for shape in self.shapes]
            raise Fault(f"the output has shapes {shapes}, expected {expected}")
        return _flat(members)[self._moving]

    def output(self, move: Move, step: complex) -> Array:
        """The output, flat like `base`, where the arguments have moved by step * direction. Complex if the step is.

        Raises Fault.
        """
        dtype = self._complex() if isinstance(step, complex) else self.pair.dtype
        # every argument becomes complex, not only those that move: forward may allocate with the dtype of any of them
        arguments = [(argument + step * move[which] if which in move else argument).astype(dtype)
                     for which, argument in enumerate(self.arguments)]
        try:
            members = forward_pass(self.pair, arguments).members
        except Unsupported as error:
            raise Fault(f"{error}, so the complex step cannot measure it") from None
        name, _ = self.pair.called
        if isinstance(step, complex) and not any(np.iscomplexobj(member) for member in members):
            raise Fault(f"{name} gives real output for complex input, so the complex step cannot measure it: "
                        "branch on x.real, and keep abs, float() and casts away")
        if [member.shape for member in members] != self.shapes:
            raise Fault(f"{name} gives outputs of another shape for other {dtype} inputs", "wrong shape")
        return _flat(members)[self._moving]

    def _complex(self) -> np.dtype:
        """The complex numbers of the precision. Raises Fault if there are none."""
        if self.pair.dtype.name not in COMPLEX:
            raise Fault(f"there are no complex numbers of {self.pair.dtype.name}")
        return np.dtype(COMPLEX[self.pair.dtype.name])

    def made(self, move: Move, step: float) -> float:
        """The step that is made in truth, half of that between -step and step: beside 1e30, and in low precision, numbers lie far
        apart. It is exact for a single element."""
        along = length = 0.0
        for which, direction in move.items():
            there, back = ((self.arguments[which] + sign * step * direction).astype(self.pair.dtype).astype(np.float64)
                           for sign in (1, -1))
            apart = np.where(np.isfinite(there - back), there - back, 2 * step * direction)  # NaN behind a mask may stay there
            along += float((apart * direction).sum())
            length += float((direction * direction).sum())
        return along / (2 * length) if length > 0 else step  # no argument has an element: nothing moves

    def length(self, move: Move) -> float:
        """How many times a move can be made until it is as long as the numbers that move are large: what a step is a part of."""
        lengths = [float((self.sizes[which][direction != 0] / np.abs(direction[direction != 0])).min(initial=np.inf))
                   for which, direction in move.items()]
        return min((length for length in lengths if np.isfinite(length)), default=1.0)


# What a way of measuring is: how fast each number of the output changes along a move, and by how much the weighted sum of these
# may be wrong, as far as the way can tell.
Product = Callable[[Loss, Move], tuple[Array, float]]


def sizes_of(arguments: Sequence[Array], least: float = 0.1) -> list[Array]:
    """How large each number is, for steps in proportion to it: its absolute value, but no less than a part of what is typical
    of its argument. An argument of zeros has the size of the smallest other one, or 1."""
    typical = [_root_mean_square(argument) for argument in arguments]
    smallest = min((size for size in typical if size > 0), default=1.0)
    return [np.maximum(np.where(np.isfinite(argument), np.abs(argument), 0), least * size if size > 0 else smallest)
            for argument, size in zip(arguments, typical, strict=True)]


def _root_mean_square(argument: Array) -> float:
    finite = np.abs(argument[np.isfinite(argument)])
    largest = float(finite.max(initial=0))  # the square of 1e200 is not a number
    return largest * float(np.sqrt(np.mean((finite / largest) ** 2))) if largest > 0 else 0.0


def _flat(members: Sequence[Array]) -> Array:
    wide = [np.ravel(member).astype(np.complex128 if np.iscomplexobj(member) else np.float64) for member in members]
    return np.concatenate(wide)
