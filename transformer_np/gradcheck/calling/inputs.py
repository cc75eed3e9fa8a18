"""The inputs of a forward pass: arrays, numbers, None, and nested tuples and dicts of them, such as the state (h, c) of an LSTM.

Those with a floating dtype are differentiated: the arguments. The others are constants. A tuple or dict is taken apart for the
checks, put together again for forward, and its gradient is a tuple or dict.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import is_floating, like, to_numpy
from transformer_np.gradcheck.calling.trees import leaves, map_leaves, members
from transformer_np.layer import Array, describe


class Fault(Exception):
    """A callable that is checked broke its contract. The message becomes a failed check, and `kind` its diagnosis."""

    def __init__(self, message: str, kind: str = "does not run") -> None:
        super().__init__(message)
        self.kind = kind


class Inputs:
    """names, arguments: what is differentiated, in float64.   constants: the rest.   All are copies of what was given, and NumPy
    arrays whatever they came as."""

    def __init__(self, forward: Callable[..., Any], inputs: Sequence[Any], *,
                 called: tuple[str, str] = ("forward", "backward")) -> None:
        """Raises ValueError for an input that is no array, number, None or tuple or dict of them."""
        name_of_forward = called[0]
        if not isinstance(inputs, tuple | list):
            raise ValueError(f"inputs is {phrase(inputs)}, expected a list or tuple of the arguments of {name_of_forward}")
        self.tree = tuple(inputs)
        self.names: tuple[str, ...] = ()
        self.arguments: tuple[Array, ...] = ()
        self.constants: tuple[Any, ...] = ()
        self.called = called
        for name, leaf in _named_leaves(self.tree, _parameter_names(forward, len(inputs))):
            array = to_numpy(leaf)
            if leaf is not None and array is None:
                raise ValueError(f"input {name} is {phrase(leaf)}, expected an array, a number, None or a tuple or dict of them; "
                                 f"a setting belongs into {name_of_forward}: lambda x: {name_of_forward}(x, setting)")
            if array is not None and np.iscomplexobj(array):
                raise ValueError(f"input {name} is {phrase(leaf)}, expected real numbers")
            if is_floating(leaf):
                self.names += (name,)
                self.arguments += (np.array(array, np.float64),)
            else:
                self.constants += (leaf if array is None or not hasattr(leaf, "shape") else array.copy(),)

    def rebuild(self, arguments: Sequence[Array], constants: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs as forward takes them, with these arguments and constants in their places, in the library that each came
        from."""
        next_argument, next_constant = iter(arguments), iter(constants)

        def build(leaf: Any) -> Any:
            value = next(next_argument) if is_floating(leaf) else next(next_constant)
            return like(value, leaf) if value is not None else None

        return map_leaves(build, self.tree)

    def gradients(self, returned: Sequence[Any]) -> tuple[Any, ...]:
        """One gradient for each argument, from what backward returned. Raises Fault if their number is not right."""
        return tuple(_flatten_gradients(list(returned), list(self.tree), self.names, self.called[1]))


def phrase(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, np.ndarray):
        return describe(value)
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def require_seed(seed: Any) -> int:
    """The seed as Python has it. Raises ValueError for what is no whole number of at least 0: None and a generator too, for a
    report must come out the same again."""
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}, expected a whole number of at least 0")
    return int(seed)


def _named_leaves(tree: tuple[Any, ...], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name, node in zip(names, tree, strict=True):
        yield from leaves(node, name)


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


def _flatten_gradients(returned: list[Any], nodes: list[Any], names: Sequence[str], who: str) -> Iterator[Any]:
    """One for each floating leaf, from what was returned for some nodes."""
    readings = _readings(returned, nodes)
    if not readings:
        floating = sum(map(_has_floating, nodes))
        raise Fault(f"{who} returned {len(returned)} gradients of inputs, expected {floating}, "
                    f"one for each floating input: {', '.join(names)}", "wrong number")
    if len(readings) > 1:
        readings.sort(key=_misfits)
    for gradient, node in readings[0]:
        yield from _flatten_gradient(gradient, node, who)


def _readings(returned: list[Any], nodes: list[Any]) -> list[list[tuple[Any, Any]]]:
    """Each way in which what was returned may be meant: which gradient is that of which node. The likely ones come first.

    A gradient may come for what is floating only, for inputs that are None too, for all that are not None, or for each input; and
    Nones at the end may be left out, or be too many, as for the settings of a function. The gradient of the only floating input
    may come bare, be it an array or a tuple.
    """
    floating = [_has_floating(node) for node in nodes]
    conventions = (floating, [floats or node is None for floats, node in zip(floating, nodes, strict=True)],
                   [node is not None for node in nodes], [True] * len(nodes))
    found: dict[int, list[list[tuple[Any, Any]]]] = {}
    for which, convention in enumerate(conventions):
        if convention in conventions[:which]:
            continue
        places = [place for place, there in enumerate(convention) if there]
        rest, missing = returned[len(places):], places[len(returned):]
        if any(each is not None for each in rest) or any(floating[place] for place in missing):
            continue
        reading = [(gradient, nodes[place]) for gradient, place in zip(returned, places, strict=False)]
        found.setdefault(len(rest) + len(missing), []).append(reading)
    only = [node for node, floats in zip(nodes, floating, strict=True) if floats]
    bare = [[(tuple(returned), only[0])]] if len(only) == 1 and isinstance(only[0], tuple) else []
    return [reading for off in sorted(found) for reading in found[off]] + bare


def _misfits(reading: list[tuple[Any, Any]]) -> tuple[int, int]:
    """How many gradients cannot be those of their nodes: of what has none, and by their shapes."""
    of_nothing = sum(not _has_floating(node) and not _is_absent(gradient) for gradient, node in reading)
    return of_nothing, sum(_has_floating(node) and not _may_be_of(gradient, node) for gradient, node in reading)


def _may_be_of(gradient: Any, node: Any) -> bool:
    if gradient is None:
        return True
    if members(node) is not None:
        return isinstance(gradient, dict if isinstance(node, dict) else tuple)
    array, argument = to_numpy(gradient), to_numpy(node)
    return array is not None and argument is not None and array.shape == argument.shape


def _is_absent(gradient: Any) -> bool:
    """None, or a tree of them; jax has an array of nothing for it, of a dtype of its own."""
    return all(leaf is None or getattr(getattr(leaf, "dtype", None), "names", None) == ("float0",)
               for _, leaf in leaves(gradient, ""))


def _flatten_gradient(gradient: Any, node: Any, who: str) -> Iterator[Any]:
    inside = members(node)
    if not _has_floating(node):
        if not _is_absent(gradient):
            raise Fault(f"{who} returned {phrase(gradient)} for an input that was {phrase(node)}, expected None")
    elif inside is None:
        yield gradient
    elif gradient is None:
        yield from (None for _, leaf in leaves(node, "") if is_floating(leaf))
    elif isinstance(node, dict):
        if not isinstance(gradient, dict):
            raise Fault(f"{who} returned {phrase(gradient)} for an input that was a dict, expected a dict")
        missing = [key for key, item in node.items() if _has_floating(item) and key not in gradient]
        unexpected = [key for key in gradient if key not in node]
        if missing or unexpected:
            raise Fault(f"{who} returned a dict of {list(gradient)} for an input that was a dict of {list(node)}: "
                        f"missing {missing}, unexpected {unexpected}")
        for key, item in node.items():
            yield from _flatten_gradient(gradient.get(key), item, who)
    elif isinstance(gradient, tuple):
        names = [name for name, leaf in leaves(node, "") if is_floating(leaf)]
        yield from _flatten_gradients(list(gradient), list(node), names, who)
    else:
        raise Fault(f"{who} returned {phrase(gradient)} for an input that was {phrase(node)}, expected a tuple")


def _has_floating(node: Any) -> bool:
    return any(is_floating(leaf) for _, leaf in leaves(node, ""))
