"""What is checked, in one form: a pair of plain functions and a layer with its weights look the same from here on.

    arguments     the arrays that are differentiated: the floating inputs, then the weights
    constants     the other inputs: integers, booleans, None
    forward       arguments, constants -> output, cache
    backward      d_output, cache -> one gradient for each argument

The calls are guarded: whatever a user's callable does wrong becomes a `Fault`, a sentence that names it. Only what is wrong
with the call of the checker itself, an input that is no array and no number, raises ValueError.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformer_np.layer import Array, Layer, describe, named_arrays, with_arrays


class Fault(Exception):
    """A callable that is checked broke its contract. The message becomes a failed check."""


@dataclass(frozen=True)
class Pair:
    names: tuple[str, ...]           # of the arguments
    arguments: tuple[Array, ...]     # float64
    num_inputs: int                  # so many of the arguments are inputs, the others are weights
    constants: tuple[Any, ...]
    forward: Callable[[Sequence[Array], Sequence[Any]], Any]
    backward: Callable[[Any, Any], tuple[Any, ...]]


def pair_of_functions(forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any]) -> Pair:
    """`forward(*inputs) -> (output, cache)`, `backward(d_output, cache) -> gradients`."""
    slots, arguments, constants = _sort_inputs(inputs)

    def call_forward(arguments: Sequence[Array], constants: Sequence[Any]) -> Any:
        return forward(*_fill(slots, arguments, constants))

    def call_backward(d_output: Any, cache: Any) -> tuple[Any, ...]:
        gradients = backward(d_output, cache)
        return _one_for_each(gradients if isinstance(gradients, tuple | list) else (gradients,), slots)

    return Pair(_names(forward, slots), arguments, len(arguments), constants, call_forward, call_backward)


def pair_of_layer(layer: Layer, inputs: Sequence[Any], forward: Callable[..., Any]) -> Pair:
    """`forward(layer, *inputs) -> (output, cache)`, `layer.backward(d_output, cache) -> (d_inputs..., d_layer)`."""
    slots, input_arguments, constants = _sort_inputs(inputs)
    num_inputs = len(input_arguments)
    weights = named_arrays(layer)
    for name, weight in weights.items():
        if not np.issubdtype(weight.dtype, np.floating):
            raise ValueError(f"check_layer: {name} is {describe(weight)}, expected weights of a floating dtype")
    original = with_arrays(layer, {name: weight.astype(np.float64) for name, weight in weights.items()})
    own = tuple(named_arrays(original).values())

    def call_forward(arguments: Sequence[Array], constants: Sequence[Any]) -> Any:
        # at the original weights it is always the same object, so that state hidden in it shows
        moved = any(given is not held for given, held in zip(arguments[num_inputs:], own, strict=True))
        called = with_arrays(layer, dict(zip(weights, arguments[num_inputs:], strict=True))) if moved else original
        result = forward(called, *_fill(slots, arguments[:num_inputs], constants))
        if not isinstance(result, tuple) or len(result) != 2:
            return result
        output, cache = result
        return output, (called, cache)

    def call_backward(d_output: Any, called_and_cache: Any) -> tuple[Any, ...]:
        called, cache = called_and_cache
        gradients = called.backward(d_output, cache)
        *d_inputs, d_layer = gradients if isinstance(gradients, tuple) and gradients else (gradients,)
        if type(d_layer) is not type(layer):
            raise Fault(f"the last gradient is {_phrase(d_layer)}, expected a {type(layer).__name__}: "
                        "the gradient of a layer is a layer of the same class")
        d_weights = named_arrays(d_layer)
        unexpected = sorted(set(d_weights) - set(weights))
        if unexpected:
            raise Fault(f"the gradient has {', '.join(unexpected)}, which the layer has not")
        return (*_one_for_each(d_inputs, slots), *(d_weights.get(name) for name in weights))

    names = (*_names(layer.forward, slots), *weights)  # type: ignore[attr-defined]
    return Pair(names, (*input_arguments, *own), num_inputs, constants, call_forward, call_backward)


# ---------------------------------------------------------------------------------------------------- guarded calls

@dataclass(frozen=True)
class Outcome:
    """What a forward left.   members: the floating arrays of the output, those that have a cotangent."""

    output: Any
    members: tuple[Array, ...]
    cache: Any


def run_forward(pair: Pair, arguments: Sequence[Array], constants: Sequence[Any] | None = None, *,
                warned: list[str] | None = None) -> Outcome:
    """Call forward. Raises Fault.   warned: where to put the warnings; they are dropped without it."""
    dtype = arguments[0].dtype
    result, caught = _call("forward", dtype, pair.forward, arguments, pair.constants if constants is None else constants)
    if any(issubclass(warning.category, np.exceptions.ComplexWarning) for warning in caught):
        raise Fault("forward casts complex numbers to real ones, so the complex step cannot measure it: "
                    "give what it allocates the dtype of its inputs")
    if warned is not None:
        warned += [f"forward warns for {dtype} inputs: {warning.category.__name__}: {warning.message}" for warning in caught]
    if not isinstance(result, tuple) or len(result) != 2:
        raise Fault(f"forward returned {_phrase(result)}, expected a tuple of two: (output, cache)")
    output, cache = result
    return Outcome(output, _floating_members(output, dtype), cache)


def run_backward(pair: Pair, cotangents: Sequence[Array], cache: Any, *,
                 warned: list[str] | None = None) -> tuple[Array | None, ...]:
    """Call backward. Raises Fault, also for a gradient that has not the shape of its argument.

    cotangents: one for each floating member of the output. `backward` gets them as it gave the output: a bare array for one,
    a tuple for several.
    """
    d_output = cotangents[0][()] if len(cotangents) == 1 else tuple(cotangent[()] for cotangent in cotangents)
    dtype = cotangents[0].dtype
    gradients, caught = _call("backward", dtype, pair.backward, d_output, cache)
    if warned is not None:
        warned += [f"backward warns for {dtype} inputs: {warning.category.__name__}: {warning.message}" for warning in caught]
    return tuple(_fitting(*each) for each in zip(pair.names, pair.arguments, gradients, strict=True))


def _call(name: str, dtype: np.dtype, function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught, np.errstate(divide="warn", over="warn", invalid="warn"):
        warnings.simplefilter("always")
        try:
            return function(*arguments), caught
        except Fault:
            raise
        except Exception as error:
            raise Fault(f"{name} raised {type(error).__name__} for {dtype} inputs: {error}") from error


def _floating_members(output: Any, dtype: np.dtype) -> tuple[Array, ...]:
    members = []
    several = isinstance(output, tuple)
    for index, member in enumerate(output if several else (output,)):
        name = f"output {index}" if several else "the output"
        if not isinstance(member, np.ndarray | np.generic | float | int | complex):
            raise Fault(f"{name} is {_phrase(member)}, expected an array or a number")
        array = np.asarray(member)
        if not np.issubdtype(array.dtype, np.inexact):
            continue
        if np.isnan(array).any():
            raise Fault(f"{name} is NaN at {np.argwhere(np.isnan(array))[0].tolist()} for {dtype} inputs")
        members.append(array)
    if not members:
        raise Fault(f"forward returned {_phrase(output)} as output: without a floating one there is nothing to differentiate")
    return tuple(members)


def _fitting(name: str, argument: Array, gradient: Any) -> Array | None:
    if gradient is None:
        return None
    array = np.asarray(gradient) if isinstance(gradient, np.ndarray | np.generic | float | int) else None
    if array is None or not np.issubdtype(array.dtype, np.number):
        raise Fault(f"the gradient of {name} is {_phrase(gradient)}, expected an array of numbers")
    if array.shape != argument.shape:
        raise Fault(f"the gradient of {name} has shape {list(array.shape)}, expected {list(argument.shape)}")
    return array


def random_cotangents(members: Sequence[Array], rng: np.random.Generator, dtype: type = np.float64) -> tuple[Array, ...]:
    """A random array for each floating member of the output. Ones would not do: they hide whatever sums to zero."""
    return tuple(np.asarray(rng.standard_normal(member.shape)).astype(dtype) for member in members)


# ---------------------------------------------------------------------------------------------------- inputs

def _sort_inputs(inputs: Sequence[Any]) -> tuple[tuple[str, ...], tuple[Array, ...], tuple[Any, ...]]:
    """Which input is what: slots ("argument", "constant" or "none" for each), and the arguments in float64, and the constants."""
    if not isinstance(inputs, tuple | list):
        raise ValueError(f"inputs is {_phrase(inputs)}, expected a list or tuple of the arguments of forward")
    slots: list[str] = []
    arguments: list[Array] = []
    constants: list[Any] = []
    for index, value in enumerate(inputs):
        if not (value is None or isinstance(value, np.ndarray | np.generic | float | int)):
            raise ValueError(f"inputs[{index}] is {_phrase(value)}, expected an array, a number or None; "
                             "anything else belongs into forward: lambda x: forward(x, setting)")
        array = None if value is None else np.asarray(value)
        if array is not None and np.issubdtype(array.dtype, np.complexfloating):
            raise ValueError(f"inputs[{index}] is {describe(array)}, expected real numbers")
        if array is not None and np.issubdtype(array.dtype, np.floating):
            slots.append("argument")
            arguments.append(np.array(array, np.float64))
        else:
            slots.append("none" if value is None else "constant")
            constants.append(value.copy() if isinstance(value, np.ndarray) else value)
    return tuple(slots), tuple(arguments), tuple(constants)


def _fill(slots: Sequence[str], arguments: Sequence[Array], constants: Sequence[Any]) -> list[Any]:
    """The inputs in the order in which forward takes them."""
    next_argument, next_constant = iter(arguments), iter(constants)
    return [next(next_argument) if slot == "argument" else next(next_constant) for slot in slots]


def _names(forward: Callable[..., Any], slots: Sequence[str]) -> tuple[str, ...]:
    """The names that forward gives to its floating inputs, "input 0" and so on where it gives none."""
    names = [f"input {index}" for index in range(len(slots))]
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # a compiled function may not say
        parameters = []
    for index, parameter in enumerate(parameters[:len(slots)]):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names[index] = parameter.name
    return tuple(name for name, slot in zip(names, slots, strict=True) if slot == "argument")


def _one_for_each(gradients: Sequence[Any], slots: Sequence[str]) -> tuple[Any, ...]:
    """The gradients of the floating inputs. An input that was given as None may have its place among them, or not."""
    expected = slots.count("argument")
    if len(gradients) == expected:
        return tuple(gradients)
    with_none = [slot for slot in slots if slot != "constant"]
    if len(gradients) == len(with_none):
        for gradient, slot in zip(gradients, with_none, strict=True):
            if slot == "none" and gradient is not None:
                raise Fault(f"backward returned {_phrase(gradient)} for an input that was None, expected None")
        return tuple(gradient for gradient, slot in zip(gradients, with_none, strict=True) if slot == "argument")
    raise Fault(f"backward returned {len(gradients)} gradients of inputs, expected {expected}: one for each floating input")


def _phrase(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, np.ndarray):
        return describe(value)
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"

