"""A layer is a tree of arrays, and its gradient is a layer of the same class.

A layer is a dataclass whose fields are weights (arrays), other layers, lists of layers, and plain settings. Because its
gradient has the same class and the same field names, with d_weight where weight was, everything that is done to weights
is a walk over trees of equal shape: an optimizer step, a norm, a sum over workers, a checkpoint.

    named_arrays(model)                   {"embedding.weight": ..., "blocks.0.attention.query.weight": ...}
    map_arrays(np.subtract, a, b)         a layer like a, with a.x - b.x at every array x
    add(a, b)                             the sum of two gradients
    save(model, path), load(model, path)  one .npz file, written whole

A cache is what a forward pass leaves for its backward pass: a frozen dataclass of arrays and of other caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from transformer_np.files import write_whole

Array = np.ndarray
AnyLayer = TypeVar("AnyLayer", bound="Layer")
SHOWN_ITEMS = 3


class _ShapesFirst:
    """A debugger shows `repr`: names, dtypes and shapes tell more there than a page of numbers."""

    def __repr__(self) -> str:
        parts = [f"{field.name}={describe(getattr(self, field.name))}" for field in fields(self)]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(parts)})"


class Layer(_ShapesFirst):
    """Base of every layer. Subclasses are `@dataclass(repr=False, eq=False)` with `create`, `forward` and `backward`."""


class Cache(_ShapesFirst):
    """Base of every cache. Subclasses are `@dataclass(frozen=True, repr=False, eq=False)`."""


def describe(value: Any) -> str:
    """One short phrase for a value: `float32[4, 8]` for an array, the usual `repr` for a setting."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        # of a long list (the steps of a recurrent network) the first items stand for the others
        shown = [describe(item) for item in value[:SHOWN_ITEMS]]
        more = [f"and {len(value) - SHOWN_ITEMS} more"] if len(value) > SHOWN_ITEMS else []
        return f"[{', '.join(shown + more)}]"
    return repr(value)


def named_arrays(layer: Layer) -> dict[str, Array]:
    """Every array of the tree under its dotted name, in the order of the fields.

    `blocks.0.attention.query.weight` is `layer.blocks[0].attention.query.weight`. The arrays are the layer's own,
    not copies. A field that is None (a bias that is left out) has no name.
    """
    return dict(_walk(layer, ""))


def _walk(node: Any, name: str) -> Iterator[tuple[str, Array]]:
    if isinstance(node, np.ndarray):
        yield name, node
    elif isinstance(node, Layer):
        for field in fields(node):  # type: ignore[arg-type]
            yield from _walk(getattr(node, field.name), f"{name}.{field.name}" if name else field.name)
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _walk(item, f"{name}.{index}" if name else str(index))


def map_arrays(function: Callable[..., Array], layer: AnyLayer, *others: Layer) -> AnyLayer:
    """A layer like `layer` with `function(a, b, ...)` at every place where the trees hold arrays a, b, ...

        y.name = function(layer.name, other_1.name, other_2.name, ...)      for every name

    Settings are taken from `layer`. Raises ValueError if a tree has another class, length or shape at some place.
    """
    return _map(function, (layer, *others), type(layer).__name__)


def _map(function: Callable[..., Array], nodes: tuple[Any, ...], name: str) -> Any:
    first = nodes[0]
    if isinstance(first, np.ndarray):
        for other in nodes[1:]:
            if not isinstance(other, np.ndarray) or other.shape != first.shape:
                raise ValueError(f"map_arrays: at {name}, expected {describe(first)}, got {describe(other)}")
        return np.asanyarray(function(*nodes))  # NumPy hands back a scalar where the arrays have no axes
    if isinstance(first, Layer):
        for other in nodes[1:]:
            if type(other) is not type(first):
                raise ValueError(f"map_arrays: at {name}, expected a {type(first).__name__}, got a {type(other).__name__}")
        changed = {}
        for field in fields(first):  # type: ignore[arg-type]
            children = tuple(getattr(node, field.name) for node in nodes)
            changed[field.name] = _map(function, children, f"{name}.{field.name}")
        return replace(first, **changed)  # type: ignore[type-var]
    if isinstance(first, list):
        for other in nodes[1:]:
            if not isinstance(other, list) or len(other) != len(first):
                raise ValueError(f"map_arrays: at {name}, expected a list of {len(first)}, got {describe(other)}")
        return [_map(function, items, f"{name}.{index}") for index, items in enumerate(zip(*nodes, strict=True))]
    for other in nodes[1:]:
        if isinstance(other, (np.ndarray, Layer, list)):  # a bias beside None: passing over it would lose a gradient
            raise ValueError(f"map_arrays: at {name}, expected {describe(first)}, got {describe(other)}")
    return first


def add(a: AnyLayer, b: AnyLayer) -> AnyLayer:
    """The sum of two trees: what two uses of one layer send back to its weights."""
    return map_arrays(np.add, a, b)


def count_parameters(layer: Layer) -> int:
    """How many numbers the tree holds. A tied weight is stored once, so it is counted once."""
    return sum(array.size for array in named_arrays(layer).values())


def save(layer: Layer, path: str | PathLike[str]) -> None:
    """Write every array under its dotted name to one .npz file, whole or not at all."""
    with write_whole(path) as file:
        np.savez(file, **named_arrays(layer))  # type: ignore[arg-type]


def load(layer: AnyLayer, path: str | PathLike[str]) -> AnyLayer:
    """A layer like `layer` with the arrays of the file that `save` wrote. `layer` gives the structure and the shapes.

    Raises FileNotFoundError, or ValueError if the file is not an .npz or its names or shapes are not those of `layer`.
    """
    return with_arrays(layer, read_arrays(path), source=str(path))


def read_arrays(path: str | PathLike[str]) -> dict[str, Array]:
    """The arrays of an .npz file. Raises FileNotFoundError, or ValueError if the file is damaged or not an .npz."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:  # NumPy leaves a damaged file open
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib, pickle and NumPy each have their own way to say "damaged"
        raise ValueError(f"{path}: damaged, or not an .npz file ({error})") from error


def with_arrays(layer: AnyLayer, arrays: dict[str, Array], *, source: str = "arrays") -> AnyLayer:
    """A layer like `layer` with the given arrays under its dotted names. Raises ValueError, naming `source`."""
    expected = named_arrays(layer)
    missing = sorted(set(expected) - set(arrays))
    unexpected = sorted(set(arrays) - set(expected))
    if missing or unexpected:
        raise ValueError(f"{source}: not the arrays of a {type(layer).__name__}: missing {missing}, unexpected {unexpected}")
    for name, array in expected.items():
        if arrays[name].shape != array.shape:
            raise ValueError(f"{source}: {name} has shape {list(arrays[name].shape)}, expected {list(array.shape)}")
    in_order = iter([arrays[name] for name in expected])
    return map_arrays(lambda _: next(in_order), layer)
