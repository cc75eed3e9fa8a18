"""The output of a forward pass: an array, a number, or nested tuples and dicts of them. Its floating members have a cotangent
each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import is_foreign, is_inexact, like, to_numpy
from transformer_np.gradcheck.calling.inputs import Fault, phrase
from transformer_np.gradcheck.calling.trees import leaves, members, with_members
from transformer_np.layer import Array, describe


def floating_members(output: Any, dtype: np.dtype) -> tuple[Array, ...]:
    """The members of an output that are differentiated. Raises Fault for one that is no number or NaN, or if there are none.

    dtype: of the inputs, for the message.
    """
    found = []
    for name, member in leaves(output, "output"):
        array = to_numpy(member)
        if array is None:
            raise Fault(f"{name} is {phrase(member)}, expected an array or a number")
        if not is_inexact(array):
            continue
        if np.iscomplexobj(array) and not np.issubdtype(dtype, np.complexfloating):
            raise Fault(f"{name} is {describe(array)} for {dtype} inputs, expected real numbers: "
                        "give the real and the imaginary part as two outputs")
        if np.isnan(array).any():
            raise Fault(f"{name} is NaN at {np.argwhere(np.isnan(array))[0].tolist()} for {dtype} inputs", "not finite")
        found.append(array)
    if not found:
        raise Fault(f"the output is {phrase(output)} without a floating member: there is nothing to differentiate")
    return tuple(found)


def random_cotangents(members: Sequence[Array], rng: np.random.Generator, dtype: Any = np.float64) -> tuple[Array, ...]:
    """A random array for each floating member of the output. Ones would not do: they hide whatever sums to zero."""
    return tuple(np.asarray(rng.standard_normal(member.shape)).astype(dtype) for member in members)


def arrange_cotangents(output: Any, cotangents: Sequence[Array]) -> Any:
    """The cotangents as backward gets them: like the output, without what is not floating; bare if one is left."""
    following = iter(cotangents)

    def arrange(node: Any) -> Any:
        inside = members(node)
        if inside is None:
            cotangent = next(following)
            return like(cotangent, node) if is_foreign(node) else cotangent[()]
        kept = [(index, item) for (index, (_, item)) in enumerate(inside) if _has_floating(item)]
        if isinstance(node, dict):
            keys = list(node)
            return {keys[index]: arrange(item) for index, item in kept}
        arranged = [arrange(item) for _, item in kept]
        return with_members(node, arranged) if len(arranged) == len(inside) else tuple(arranged)

    if len(cotangents) == 1:
        (only,) = (leaf for _, leaf in leaves(output, "") if is_inexact(leaf))
        return arrange(only)
    return arrange(output)


def _has_floating(node: Any) -> bool:
    return any(is_inexact(leaf) for _, leaf in leaves(node, ""))
