"""What kind of fault a kernel has: its wrong gradient beside the reference's, for `diagnosis/`.

A kernel and a reference may both be asked for as many cotangents as there are outputs. So their whole Jacobians are at hand, and
what backward forgets can be told from them: the rows of a sum, all uses of a repeated index but the last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.diagnosis.case import Case, Diagnosis, Jacobian, integers_of
from transformer_np.gradcheck.diagnosis.diagnose import diagnose
from transformer_np.gradcheck.judging.verdict import MAX_JACOBIAN
from transformer_np.gradcheck.kernels.golden import Answer, Golden
from transformer_np.gradcheck.kernels.kernel import LeftOut
from transformer_np.layer import Array

# The gradient for these cotangents: of the reference, and of the kernel.
Gradients = Callable[[tuple[Array, ...]], tuple[Array, Array]]


def what_is_wrong(golden: Golden, answer: Answer, given: Array, gradients: Gradients | None) -> Diagnosis:
    """given: what the kernel gives where `answer`, a gradient, is right.   gradients: None if the kernel is not to be asked."""
    name = answer.name.removeprefix("gradient of ")
    others = {other: (argument, gradient.exact) for (other, argument), gradient
              in zip(golden.arguments.items(), golden.gradients, strict=True) if other != name}
    outputs = [(output.exact, cotangent) for output, cotangent in zip(golden.outputs, golden.cotangents, strict=True)]
    allowed = np.full(answer.exact.shape, answer.unit)  # not the bound: beside it a gradient in bfloat16 would look like nothing
    wrong = answer.judged & ~(np.abs(given - answer.exact) <= answer.allowed)
    return diagnose(Case(name, given, answer.exact, answer.judged, wrong, allowed, golden.arguments[name], others,
                         integers_of(golden.inputs), outputs,
                         cache(lambda: _jacobian(golden, golden.arguments[name].shape, gradients))))


def _jacobian(golden: Golden, shape: tuple[int, ...], gradients: Gradients | None) -> Jacobian | None:
    """None where it is too large, or the kernel does not take the cotangents."""
    if gradients is None:
        return None
    shapes = [cotangent.shape for cotangent in golden.cotangents]
    places = [(member, index) for member, shape in enumerate(shapes) for index in np.ndindex(shape)]
    size = int(np.prod(shape))
    if not 0 < len(places) <= MAX_JACOBIAN or size > MAX_JACOBIAN:
        return None
    right, given = np.zeros((2, len(places), size))
    try:
        for row, (member, index) in enumerate(places):
            cotangents = tuple(np.zeros(shape) for shape in shapes)
            cotangents[member][index] = 1
            right[row], given[row] = map(np.ravel, gradients(cotangents))
    except (Fault, LeftOut, ValueError):
        return None
    weights = np.concatenate([np.ravel(cotangent) for cotangent in golden.cotangents])
    return Jacobian(right, given, weights, places, shapes, shape)
