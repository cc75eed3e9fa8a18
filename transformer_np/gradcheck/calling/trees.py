"""Nested tuples and dicts, such as the state (h, c) of an LSTM or a dict of weights: taken apart, and put together again.

Their members are named as Python names them: `state[0]`, `weights['query']`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# Nobody's tree is nested so deep, but Python's recursion may be.
DEEPEST = 100


def members(node: Any) -> list[tuple[str, Any]] | None:
    """What a tuple or dict holds, each with its index as it is written; None for anything else, which is a leaf."""
    if isinstance(node, tuple):
        return [(f"[{index}]", item) for index, item in enumerate(node)]
    if isinstance(node, dict):
        return [(f"[{key!r}]", item) for key, item in node.items()]
    return None


def leaves(node: Any, name: str, around: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every leaf under its name. A dict that holds itself is one there, and so is what is nested deeper than DEEPEST: it is no
    array, and is named as such.   around: what holds this node."""
    inside = _inside(node, around)
    if inside is None:
        yield name, node
        return
    for index, item in inside:
        yield from leaves(item, f"{name}{index}", (*around, node))


def with_members(node: Any, items: list[Any]) -> Any:
    """A tuple, named tuple or dict like `node` that holds `items`, one for each of its members."""
    if isinstance(node, dict):
        return dict(zip(node, items, strict=True))
    return type(node)(*items) if hasattr(node, "_fields") else tuple(items)


def map_leaves(function: Callable[[Any], Any], node: Any, around: tuple[Any, ...] = ()) -> Any:
    """The same tree with function(leaf) for each leaf, in order."""
    inside = _inside(node, around)
    if inside is None:
        return function(node)
    return with_members(node, [map_leaves(function, item, (*around, node)) for _, item in inside])


def _inside(node: Any, around: tuple[Any, ...]) -> list[tuple[str, Any]] | None:
    return None if len(around) == DEEPEST or any(node is each for each in around) else members(node)
