"""How much of a gradient is rounding: the gradient again, after everything that it is made from has moved by one rounding error.

Inputs, weights, cotangents and the arrays of the cache each stand for any number that rounds to them. What a gradient changes
when they move by so little is nobody's fault, and no fair bound is below it: it is 1e-16 of a gradient of good condition, more
where numbers of large mean and little spread are subtracted, and all that there is where the true gradient is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import Pair, backward_pass, forward_pass
from transformer_np.gradcheck.calling.trees import with_members
from transformer_np.layer import Array

NUM_MOVES = 4


def rounding_changes(pair: Pair, cotangents: Sequence[Array], gradients: Sequence[Array | None], eps: float,
                     rng: np.random.Generator) -> list[list[Array]]:
    """For each argument, the changes of its gradient in NUM_MOVES runs. A run that fails says nothing about rounding.

    eps: the rounding error, relative.   gradients: where nothing moves.
    """
    changes: list[list[Array]] = [[] for _ in gradients]
    for _ in range(NUM_MOVES):
        arguments, weights = ([each.astype(pair.dtype) for each in moved(arrays, eps, rng)]
                              for arrays in (list(pair.arguments), list(cotangents)))
        try:
            outcome = forward_pass(pair, arguments)
            again = backward_pass(pair, replace(outcome, cache=moved(outcome.cache, eps, rng)), weights)
        except (Fault, Unsupported):
            continue
        for found, gradient, other in zip(changes, gradients, again, strict=True):
            if gradient is not None and other is not None:
                with np.errstate(invalid="ignore"):
                    change = np.asarray(other, np.float64) - np.asarray(gradient, np.float64)
                found.append(np.where(np.isfinite(change), change, 0))
    return changes


def moved(node: Any, eps: float, rng: np.random.Generator, *, ties: bool = True) -> Any:
    """Every floating array in a cache, tuple, list or dict, times 1 + eps or 1 - eps.

    ties: numbers of one size move together, in whatever array they are, so that ties stay ties. In a low precision many are of
    one size by chance, and only where they move apart does it show what their difference is worth.
    """
    salt = rng.integers(2 ** 64, dtype=np.uint64)

    def move(array: Array) -> Array:
        signs = _signs(array, salt) if ties else rng.choice([-1.0, 1.0], array.shape)
        return np.asarray(array * (1 + eps * signs)).astype(array.dtype)

    return _map_arrays(move, node)


def _signs(array: Array, salt: np.uint64) -> Array:
    """1 or -1 at random, the same for numbers of the same size: the last step of SplitMix64 on their bits."""
    mixed = (np.abs(np.asarray(array, np.float64)).view(np.uint64) + salt) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where(mixed >> np.uint64(63), 1.0, -1.0)


def _map_arrays(function: Callable[[Array], Array], node: Any) -> Any:
    """A cache, tuple, list or dict with function(array) for each floating array, once for an array that is in several places.

    A loop and no recursion: the steps of a recurrent network may be nested in each other, and a cache may hold itself, which
    stays as it is there.
    """
    mapped: dict[int, Any] = {}
    opened: dict[int, tuple[Any, list[Any]]] = {}   # by their ids, which are theirs as long as they are kept here
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if id(here) in mapped:
            continue
        if id(here) in opened:
            _, inside = opened[id(here)]
            mapped[id(here)] = _with_items(here, [mapped.get(id(item), item) for item in inside])
        elif isinstance(here, np.ndarray):
            opened[id(here)] = here, []
            mapped[id(here)] = function(here) if np.issubdtype(here.dtype, np.floating) else here
        elif inside := _items(here):
            opened[id(here)] = here, inside
            waiting += [here, *(item for item in reversed(inside) if id(item) not in opened)]
    return mapped.get(id(node), node)


def _items(node: Any) -> list[Any]:
    if isinstance(node, tuple | list):
        return list(node)
    if isinstance(node, dict):
        return list(node.values())
    if isinstance(node, SimpleNamespace):
        return list(vars(node).values())
    return [getattr(node, field.name) for field in _fields(node)]


def _with_items(node: Any, items: list[Any]) -> Any:
    """Another one like `node`, which holds these in place of its own."""
    if isinstance(node, list):
        return items
    if isinstance(node, tuple | dict):
        return with_members(node, items)
    if isinstance(node, SimpleNamespace):
        return SimpleNamespace(**dict(zip(vars(node), items, strict=True)))
    return replace(node, **dict(zip((field.name for field in _fields(node)), items, strict=True)))


def _fields(node: Any) -> list[Field[Any]]:
    """Of a dataclass, those that make it."""
    return [field for field in fields(node) if field.init] if is_dataclass(node) and not isinstance(node, type) else []
