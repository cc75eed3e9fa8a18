"""What is checked, in one form: a pair of plain functions and a layer with its weights look the same from here on.

    arguments     the arrays that are differentiated: the floating inputs, then the weights
    constants     the other inputs: integers, booleans, None
    forward       arguments, constants -> (output, cache)
    backward      d_output, cache -> one gradient for each argument

The calls are guarded: whatever a user's callable does wrong becomes a `Fault`, a sentence that names it. Arrays of other
libraries come out of them as NumPy arrays, and go into them as what they were.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported, is_floating_dtype, to_numpy
from transformer_np.gradcheck.calling.inputs import Fault, Inputs, phrase
from transformer_np.gradcheck.calling.outputs import arrange_cotangents, floating_members
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.layer import Array, Layer, describe, named_arrays, with_arrays

FLOAT64 = np.dtype(np.float64)
ANOTHER_SHAPE = "gives outputs of another shape when it is called again"


@dataclass(frozen=True)
class Pair:
    names: tuple[str, ...]           # of the arguments
    arguments: tuple[Array, ...]     # float64
    num_inputs: int                  # so many of the arguments are inputs, the others are weights
    constants: tuple[Any, ...]
    forward: Callable[[Sequence[Array], Sequence[Any]], Any]
    backward: Callable[[Any, Any], tuple[Any, ...]]
    called: tuple[str, str] = ("forward", "backward")       # as the user calls the two
    dtype: np.dtype = FLOAT64                  # of the profile; the arguments are numbers of it
    absent: tuple[bool, ...] | None = None     # which gradients were None at the first call of backward, where that must stay so

    @property
    def given(self) -> tuple[Array, ...]:
        """The arguments as forward gets them."""
        wide = self.dtype == FLOAT64  # then they are the same objects at every call, see `pair_of_layer`
        return self.arguments if wide else tuple(argument.astype(self.dtype) for argument in self.arguments)


def pair_of_functions(forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any]) -> Pair:
    """`forward(*inputs) -> (output, cache)`, `backward(d_output, cache) -> gradients`."""
    given = Inputs(forward, inputs)

    def call_forward(arguments: Sequence[Array], constants: Sequence[Any]) -> Any:
        return forward(*given.rebuild(arguments, constants))

    def call_backward(d_output: Any, cache: Any) -> tuple[Any, ...]:
        return given.gradients(_several(backward(d_output, cache)))

    return Pair(given.names, given.arguments, len(given.arguments), given.constants, call_forward, call_backward)


def pair_of_vjp(function: Callable[..., Any], vjp: Callable[..., Any], inputs: Sequence[Any]) -> Pair:
    """`function(*inputs) -> output`, `vjp(d_output, *inputs) -> gradients`: the inputs are the cache."""
    given = Inputs(function, inputs, called=("function", "vjp"))

    def call_function(arguments: Sequence[Array], constants: Sequence[Any]) -> Any:
        built = given.rebuild(arguments, constants)
        return function(*built), built

    def call_vjp(d_output: Any, cache: Any) -> tuple[Any, ...]:
        return given.gradients(_several(vjp(d_output, *cache)))

    return Pair(given.names, given.arguments, len(given.arguments), given.constants, call_function, call_vjp, given.called)


def pair_of_layer(layer: Layer, inputs: Sequence[Any], forward: Callable[..., Any]) -> Pair:
    """`forward(layer, *inputs) -> (output, cache)`, `layer.backward(d_output, cache) -> (d_inputs..., d_layer)`."""
    given = Inputs(layer.forward, inputs)  # type: ignore[attr-defined]
    num_inputs = len(given.arguments)
    for name, weight in named_arrays(layer).items():
        if not np.issubdtype(weight.dtype, np.floating):
            raise ValueError(f"check_layer: {name} is {describe(weight)}, expected a floating dtype")
    original = with_arrays(layer, {name: weight.astype(np.float64) for name, weight in named_arrays(layer).items()})
    names, weights = tuple(named_arrays(original)), tuple(named_arrays(original).values())

    def call_forward(arguments: Sequence[Array], constants: Sequence[Any]) -> Any:
        # at the original weights it is always the same object, so that state hidden in it shows
        moved = any(array is not weight for array, weight in zip(arguments[num_inputs:], weights, strict=True))
        called = with_arrays(layer, dict(zip(names, arguments[num_inputs:], strict=True))) if moved else original
        result = forward(called, *given.rebuild(arguments[:num_inputs], constants))
        if not _is_pair(result):
            return result
        output, cache = result
        return output, {"layer": called, "own": cache}

    def call_backward(d_output: Any, cache: Any) -> tuple[Any, ...]:
        returned = _several(cache["layer"].backward(d_output, cache["own"]))
        if not returned or type(returned[-1]) is not type(layer):
            last = phrase(returned[-1]) if returned else "missing"
            raise Fault(f"the last gradient is {last}, expected a {type(layer).__name__}: "
                        "the gradient of a layer is a layer of the same class")
        *d_inputs, d_layer = returned
        d_weights = named_arrays(d_layer)
        unexpected = sorted(set(d_weights) - set(names))
        if unexpected:
            raise Fault(f"the gradient has {', '.join(unexpected)}, which the layer has not")
        return (*given.gradients(d_inputs), *(d_weights.get(name) for name in names))

    return Pair((*given.names, *names), (*given.arguments, *weights), num_inputs, given.constants, call_forward, call_backward)


def in_precision(pair: Pair, precision: Precision) -> Pair:
    """The pair in another precision than float64, with its arguments rounded to it. Raises ValueError for a number that is too
    large for it; what is infinite already may be."""
    if precision.dtype == FLOAT64:
        return pair
    arguments = tuple(map(precision.round, pair.arguments))
    for index, (name, wide, rounded) in enumerate(zip(pair.names, pair.arguments, arguments, strict=True)):
        if (np.isinf(rounded) & np.isfinite(wide)).any():
            whose = "input" if index < pair.num_inputs else "weight"
            largest = np.abs(wide[np.isfinite(wide)]).max()
            raise ValueError(f"{whose} {name} has a number of size {largest:.6g}, and the largest of {precision.profile} is "
                             f"{precision.largest:.6g}: it would become infinite")
    return replace(pair, arguments=arguments, dtype=precision.dtype)


def _several(returned: Any) -> Sequence[Any]:
    """A single gradient may come bare."""
    return returned if isinstance(returned, tuple | list) else (returned,)


def _is_pair(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2


@dataclass(frozen=True)
class Outcome:
    """What a forward left.   members: the floating arrays of the output, those that have a cotangent."""

    output: Any
    members: tuple[Array, ...]
    cache: Any


def forward_pass(pair: Pair, arguments: Sequence[Array], constants: Sequence[Any] | None = None, *,
                warned: list[str] | None = None) -> Outcome:
    """Call forward. Raises Fault, or Unsupported if its library has not such arrays.

    warned: where to put the warnings; they are dropped without it.
    """
    dtype = arguments[0].dtype
    name, _ = pair.called
    result, caught = _call(name, dtype, pair.forward, arguments, pair.constants if constants is None else constants)
    if np.issubdtype(dtype, np.complexfloating) and any(map(_drops_imaginary_part, caught)):
        raise Fault(f"{name} casts complex numbers to real ones, so the complex step cannot measure it: "
                    "keep float() away, and give what it allocates the dtype of its inputs")
    if warned is not None:
        warned += [f"{name} warns for {dtype} inputs: {warning.category.__name__}: {warning.message}" for warning in caught]
    if not _is_pair(result):
        raise Fault(f"{name} returned {phrase(result)}, expected a tuple of two: (output, cache)")
    output, cache = result
    return Outcome(output, floating_members(output, dtype), cache)


def backward_pass(pair: Pair, outcome: Outcome, cotangents: Sequence[Array], *,
                 warned: list[str] | None = None) -> tuple[Array | None, ...]:
    """Call backward with the cache of a forward. Raises Fault, also for a gradient that has not the shape of its argument, and
    Unsupported.

    cotangents: one for each floating member of the output.   warned: as for `forward_pass`.
    """
    dtype = cotangents[0].dtype
    _, name = pair.called
    if len(cotangents) != len(outcome.members):
        raise Fault(f"{pair.called[0]} gives {len(outcome.members)} floating outputs, and gave {len(cotangents)} before",
                    "wrong number")
    d_output = arrange_cotangents(outcome.output, cotangents)
    try:
        gradients, caught = _call(name, dtype, pair.backward, d_output, outcome.cache)
    except Fault:
        _require_a_shape(pair)
        raise
    if warned is not None:
        warned += [f"{name} warns for {dtype} inputs: {warning.category.__name__}: {warning.message}" for warning in caught]
    return tuple(_fitting(*each) for each in zip(pair.names, pair.arguments, gradients, strict=True))


def _require_a_shape(pair: Pair) -> None:
    """Where backward raises, is it because forward gives outputs of another shape each time? Raises Fault if it does."""
    try:
        shapes = [[member.shape for member in forward_pass(pair, pair.given).members] for _ in range(2)]
    except (Fault, Unsupported):
        return
    if shapes[0] != shapes[1]:
        raise Fault(f"{pair.called[0]} {ANOTHER_SHAPE}", "wrong shape") from None


def _drops_imaginary_part(warning: warnings.WarningMessage) -> bool:
    """NumPy has a category for it, torch only words."""
    return issubclass(warning.category, np.exceptions.ComplexWarning) or "discards the imaginary part" in str(warning.message)


def _call(name: str, dtype: np.dtype, function: Callable[..., Any], *arguments: Any) -> tuple[Any, list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught, np.errstate(divide="warn", over="warn", invalid="warn"):
        warnings.simplefilter("always")
        try:
            return function(*arguments), caught
        except (Fault, Unsupported):
            raise
        except Exception as error:
            raise Fault(f"{name} raised {type(error).__name__} for {dtype} inputs: {error}") from error


def _fitting(name: str, argument: Array, gradient: Any) -> Array | None:
    if gradient is None:
        return None
    array = to_numpy(gradient)
    if array is None or not (np.issubdtype(array.dtype, np.number) or is_floating_dtype(array.dtype)):
        raise Fault(f"the gradient of {name} is {phrase(gradient)}, expected an array of numbers")
    if array.shape != argument.shape:
        raise Fault(f"the gradient of {name} has shape {list(array.shape)}, expected {list(argument.shape)}",
                    "wrong shape")
    return array
