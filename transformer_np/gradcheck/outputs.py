"""The output of a forward pass: an array, a number, or nested tuples of them. Its floating members have a cotangent each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from transformer_np.gradcheck.inputs import Fault, phrase
from transformer_np.layer import Array


def floating_members(output: Any, dtype: np.dtype) -> tuple[Array, ...]:
    """The members of an output that are differentiated. Raises Fault for one that is no number or NaN, or if there are none.

    dtype: of the inputs, for the message.
    """
    members = []
    for name, member in _leaves(output, "output"):
        if not isinstance(member, np.ndarray | np.generic | float | int | complex):
            raise Fault(f"{name} is {phrase(member)}, expected an array or a number")
        array = np.asarray(member)
        if not np.issubdtype(array.dtype, np.inexact):
            continue
        if np.isnan(array).any():
            raise Fault(f"{name} is NaN at {np.argwhere(np.isnan(array))[0].tolist()} for {dtype} inputs")
        members.append(array)
    if not members:
        raise Fault(f"the output is {phrase(output)} without a floating member: there is nothing to differentiate")
    return tuple(members)


def random_cotangents(members: Sequence[Array], rng: np.random.Generator, dtype: type = np.float64) -> tuple[Array, ...]:
    """A random array for each floating member of the output. Ones would not do: they hide whatever sums to zero."""
    return tuple(np.asarray(rng.standard_normal(member.shape)).astype(dtype) for member in members)


def arrange_cotangents(output: Any, cotangents: Sequence[Array]) -> Any:
    """The cotangents as backward gets them: like the output, without what is not floating; bare if one is left."""
    if len(cotangents) == 1:
        return cotangents[0][()]
    following = iter(cotangents)

    def arrange(node: Any) -> Any:
        if isinstance(node, tuple):
            return tuple(arrange(item) for item in node if _has_floating(item))
        return next(following)[()]

    return arrange(output)


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, tuple):
        for index, item in enumerate(node):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, node


def _has_floating(node: Any) -> bool:
    if isinstance(node, tuple):
        return any(_has_floating(item) for item in node)
    return np.issubdtype(np.asarray(node).dtype, np.inexact)
