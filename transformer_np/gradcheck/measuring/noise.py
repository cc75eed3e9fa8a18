"""How much of a gradient is rounding: the gradient again, after everything that it is made from has moved by one rounding error.

Inputs, weights, cotangents and the arrays of the cache each stand for any number that rounds to them. What a gradient changes
when they move by so little is nobody's fault, and no fair bound is below it: it is 1e-16 of a gradient of good condition, more
where numbers of large mean and little spread are subtracted, and all that there is where the true gradient is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import Pair, backward_pass, forward_pass
from transformer_np.gradcheck.calling.trees import map_leaves
from transformer_np.layer import Array

NUM_MOVES = 4


def rounding_changes(pair: Pair, cotangents: Sequence[Array], gradients: Sequence[Array | None], eps: float,
                     rng: np.random.Generator) -> list[list[Array]]:
    """For each argument, the changes of its gradient in NUM_MOVES runs. A run that fails says nothing about rounding.

    eps: the rounding error, relative.   gradients: where nothing moves.
    """
    changes: list[list[Array]] = [[] for _ in gradients]
    for _ in range(NUM_MOVES):
        arguments, weights = ([moved(each, eps, rng).astype(pair.dtype) for each in arrays]
                              for arrays in (pair.arguments, cotangents))
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

    ties: numbers of one size move together, so that ties stay ties. In a low precision many are of one size by chance, and only
    where they move apart does it show what their difference is worth.
    """
    if isinstance(node, np.ndarray):
        if not np.issubdtype(node.dtype, np.floating):
            return node
        if not ties:
            return np.asarray(node * (1 + eps * rng.choice([-1.0, 1.0], node.shape))).astype(node.dtype)
        sizes, which = np.unique(np.abs(node), return_inverse=True)
        factors = 1 + eps * rng.choice([-1.0, 1.0], sizes.shape)
        return np.asarray(node * factors[which].reshape(node.shape)).astype(node.dtype)
    if isinstance(node, list):
        return [moved(item, eps, rng, ties=ties) for item in node]
    if isinstance(node, tuple | dict) and node:
        return map_leaves(lambda leaf: moved(leaf, eps, rng, ties=ties), node)
    if isinstance(node, SimpleNamespace):
        return SimpleNamespace(**{name: moved(value, eps, rng, ties=ties) for name, value in vars(node).items()})
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{field.name: moved(getattr(node, field.name), eps, rng, ties=ties)
                                for field in fields(node) if field.init})
    return node
