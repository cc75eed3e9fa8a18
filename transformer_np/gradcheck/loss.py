"""What is differentiated: the loss sum(cotangent * output), whose gradient backward gives.

The ways of measuring it move the arguments along a direction and look at what each number of the output does; the cotangent
weighs these numbers only in the end. So the outputs that stay as they are cancel exactly, and one measured direction serves
every cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from transformer_np.gradcheck.foreign import Unsupported
from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.pair import Pair, forward_pass
from transformer_np.layer import Array

# Arguments that move together, by their places, each with the direction in which it moves.
Move = Mapping[int, Array]


class Loss:
    """base: the finite numbers of the output, flat, where no argument moves.   weights: their cotangents.
    sizes: of each argument, see `sizes_of`.   eps: of the precision in which forward answers."""

    def __init__(self, pair: Pair, cotangents: Sequence[Array], *, dtype: np.dtype | None = None) -> None:
        """dtype: in which forward is called, float64 if it is None. Raises Fault."""
        self.pair = pair
        self.dtype = np.dtype(np.float64) if dtype is None else dtype
        self.arguments = [np.asarray(argument, np.float64) for argument in pair.arguments]
        members = forward_pass(pair, [argument.astype(self.dtype) for argument in self.arguments]).members
        self.shapes = [member.shape for member in members]
        if self.shapes != [cotangent.shape for cotangent in cotangents]:
            raise Fault(f"{pair.called[0]} gives outputs of another shape when it is called again")
        everything = _flat(members)
        # an output that is infinite, such as the log-probability of a masked entry, does not move
        self._moving = np.isfinite(everything)
        self.base = everything.real[self._moving]
        self.weights = self.weigh(cotangents)
        self.eps = max(float(np.finfo(member.dtype).eps) if member.dtype.kind in "fc" else 2.0 ** -7 for member in members)
        self.sizes = sizes_of(self.arguments)

    def weigh(self, cotangents: Sequence[Array]) -> Array:
        """Cotangents as weights of the numbers of `base`."""
        return _flat(cotangents)[self._moving]

    def output(self, move: Move, step: complex) -> Array:
        """The output, flat like `base`, where the arguments have moved by step * direction. Complex if the step is.

        Raises Fault.
        """
        dtype = np.dtype(np.complex128) if isinstance(step, complex) else self.dtype
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
            raise Fault(f"{name} gives outputs of another shape for other {dtype} inputs")
        return _flat(members)[self._moving]

    def length(self, move: Move) -> float:
        """How many times a move can be made until it is as long as the numbers that move are large: what a step is a part of."""
        lengths = [float((self.sizes[which][direction != 0] / np.abs(direction[direction != 0])).min(initial=np.inf))
                   for which, direction in move.items()]
        return min((length for length in lengths if np.isfinite(length)), default=1.0)


# What a way of measuring is: how fast each number of the output changes along a move, and by how much the weighted sum of these
# may be wrong, as far as the way can tell.
Product = Callable[[Loss, Move], tuple[Array, float]]


def sizes_of(arguments: Sequence[Array]) -> list[Array]:
    """How large each number is, for steps in proportion to it: its absolute value, but no less than a tenth of what is typical
    of its argument. An argument of zeros has the size of the smallest other one, or 1."""
    typical = [_root_mean_square(argument) for argument in arguments]
    smallest = min((size for size in typical if size > 0), default=1.0)
    return [np.maximum(np.where(np.isfinite(argument), np.abs(argument), 0), 0.1 * size if size > 0 else smallest)
            for argument, size in zip(arguments, typical, strict=True)]


def _root_mean_square(argument: Array) -> float:
    finite = np.abs(argument[np.isfinite(argument)])
    largest = float(finite.max(initial=0))  # the square of 1e200 is not a number
    return largest * float(np.sqrt(np.mean((finite / largest) ** 2))) if largest > 0 else 0.0


def _flat(members: Sequence[Array]) -> Array:
    wide = [np.ravel(member).astype(np.complex128 if np.iscomplexobj(member) else np.float64) for member in members]
    return np.concatenate(wide)
