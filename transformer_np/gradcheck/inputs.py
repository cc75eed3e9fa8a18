"""The inputs of a forward pass: arrays, numbers, None, and tuples of them, such as the state (h, c) of an LSTM.

Those with a floating dtype are differentiated: the arguments. The others are constants. A tuple is taken apart for the checks,
put together again for forward, and its gradient is a tuple.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from transformer_np.layer import Array, describe


class Fault(Exception):
    """A callable that is checked broke its contract. The message becomes a failed check."""


class Inputs:
    """names, arguments: what is differentiated, in float64.   constants: the rest.   All are copies of what was given."""

    def __init__(self, forward: Callable[..., Any], inputs: Sequence[Any]) -> None:
        """Raises ValueError for an input that is no array, number, None or tuple of them."""
        if not isinstance(inputs, tuple | list):
            raise ValueError(f"inputs is {phrase(inputs)}, expected a list or tuple of the arguments of forward")
        self.tree = tuple(inputs)
        self.names: tuple[str, ...] = ()
        self.arguments: tuple[Array, ...] = ()
        self.constants: tuple[Any, ...] = ()
        for name, leaf in _leaves(self.tree, _parameter_names(forward, len(inputs))):
            if not (leaf is None or isinstance(leaf, np.ndarray | np.generic | float | int)):
                raise ValueError(f"input {name} is {phrase(leaf)}, expected an array, a number, None or a tuple of them; "
                                 "a setting belongs into forward: lambda x: forward(x, setting)")
            if leaf is not None and np.iscomplexobj(np.asarray(leaf)):
                raise ValueError(f"input {name} is {phrase(leaf)}, expected real numbers")
            if _is_floating(leaf):
                self.names += (name,)
                self.arguments += (np.array(leaf, np.float64),)
            else:
                self.constants += (leaf.copy() if isinstance(leaf, np.ndarray) else leaf,)

    def rebuild(self, arguments: Sequence[Array], constants: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs as forward takes them, with these arguments and constants in their places."""
        next_argument, next_constant = iter(arguments), iter(constants)

        def build(node: Any) -> Any:
            if isinstance(node, tuple):
                return tuple(build(item) for item in node)
            return next(next_argument) if _is_floating(node) else next(next_constant)

        return build(self.tree)

    def gradients(self, returned: Sequence[Any]) -> tuple[Any, ...]:
        """One gradient for each argument, from what backward returned. Raises Fault if their number is not right."""
        return tuple(_flatten_gradients(returned, self.tree, self.names))


def phrase(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, np.ndarray):
        return describe(value)
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _is_floating(leaf: Any) -> bool:
    return leaf is not None and np.issubdtype(np.asarray(leaf).dtype, np.floating)


def _leaves(tree: tuple[Any, ...], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The leaves of nested tuples: `state[0]` and `state[1]` of a tuple called state."""
    for name, node in zip(names, tree, strict=True):
        if isinstance(node, tuple):
            yield from _leaves(node, [f"{name}[{index}]" for index in range(len(node))])
        else:
            yield name, node


def _parameter_names(forward: Callable[..., Any], count: int) -> list[str]:
    """The names that forward gives to its first parameters; "input 0" and so on where it gives none."""
    names = [f"input {index}" for index in range(count)]
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # a compiled function may not say
        return names
    for index, parameter in enumerate(parameters[:count]):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names[index] = parameter.name
    return names


def _flatten_gradients(returned: Sequence[Any], tree: tuple[Any, ...], names: Sequence[str]) -> Iterator[Any]:
    """An integer has no gradient. An input that is None, given or left out, has None or nothing in its place."""
    floating = [node for node in tree if _has_floating(node)]
    places = [node for node in tree if _has_floating(node) or node is None]
    returned = list(returned)
    while len(returned) > len(places) and returned[-1] is None:
        returned.pop()
    if len(returned) not in (len(floating), len(places)):
        raise Fault(f"backward returned {len(returned)} gradients of inputs, expected {len(floating)}, "
                    f"one for each floating input: {', '.join(names)}")
    for gradient, node in zip(returned, floating if len(returned) == len(floating) else places, strict=True):
        if node is None:
            if gradient is not None:
                raise Fault(f"backward returned {phrase(gradient)} for an input that was None, expected None")
        elif not isinstance(node, tuple):
            yield gradient
        elif gradient is None:
            yield from (None for _, leaf in _leaves(node, [""] * len(node)) if _is_floating(leaf))
        elif isinstance(gradient, tuple):
            yield from _flatten_gradients(gradient, node, names)
        else:
            raise Fault(f"backward returned {phrase(gradient)} for an input that was {phrase(node)}, expected a tuple")


def _has_floating(node: Any) -> bool:
    return any(_has_floating(item) for item in node) if isinstance(node, tuple) else _is_floating(node)
