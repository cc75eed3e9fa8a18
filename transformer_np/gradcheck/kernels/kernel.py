"""Someone's kernel, run on a call of ours: what it is handed, what it hands back, and what it does besides.

It gets NumPy arrays in the precision that is judged, laid out in memory as asked. It hands back NumPy arrays, or those of another
library that NumPy can read (DLPack).
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import is_foreign, to_numpy
from transformer_np.gradcheck.calling.inputs import Fault, Inputs, phrase
from transformer_np.gradcheck.calling.layouts import c_order
from transformer_np.gradcheck.calling.outputs import arrange_cotangents
from transformer_np.gradcheck.calling.rounding import Precision, narrow, widen
from transformer_np.gradcheck.examples import Call
from transformer_np.gradcheck.kernels.golden import Golden
from transformer_np.layer import Array, describe

Layout = Callable[[Array], Array]


class LeftOut(Exception):
    """A call is beyond the kernel, by its own word. The message says why."""


@dataclass(frozen=True)
class Kernel:
    """forward: `forward(*inputs, **settings) -> (output, cache)`.   backward: `backward(d_output, cache) -> gradients`."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]

    @classmethod
    def from_vjp(cls, function: Callable[..., Any], vjp: Callable[..., Any]) -> Kernel:
        """function: `function(*inputs, **settings) -> output`.   vjp: `vjp(d_output, *inputs, **settings) -> gradients`."""

        @functools.wraps(function)
        def forward(*inputs: Any, **settings: Any) -> Any:
            return function(*inputs, **settings), (inputs, settings)

        def backward(d_output: Any, cache: Any) -> Any:
            inputs, settings = cache
            return vjp(d_output, *inputs, **settings)

        return cls(forward, backward)


@dataclass(frozen=True)
class Run:
    """arrays: the floating members of the output, then a gradient for each argument.   wrong_dtypes, written: a sentence each."""

    arrays: list[Array]
    wrong_dtypes: list[str]
    written: list[str]


def run_kernel(kernel: Kernel, call: Call, golden: Golden, precision: Precision, layout: Layout = c_order) -> Run:
    """Raises LeftOut if the kernel does not take such a call, Fault for what it does wrong."""
    desk = _Desk(precision, layout)
    reference = Inputs(call.bind(call.forward), golden.inputs)
    inputs = _accepted(kernel.forward, desk.hand(golden.inputs, "an input"), call.keywords())
    result = _guarded("forward", lambda: kernel.forward(*inputs, **call.keywords()))
    if not (isinstance(result, tuple) and len(result) == 2):
        raise Fault(f"forward returned {phrase(result)}, expected a tuple of two: (output, cache)")
    output, cache = desk.take(result[0], "the output"), result[1]
    outputs = _floating(output)
    if len(outputs) != len(golden.outputs):
        raise Fault(f"forward gives {len(outputs)} floating outputs, expected {len(golden.outputs)}")
    for member, answer in zip(outputs, golden.outputs, strict=True):
        if member.shape != answer.exact.shape:  # backward would be given a cotangent that does not fit
            raise Fault(f"{answer.name} has shape {list(member.shape)}, expected {list(answer.exact.shape)}")
    d_output = desk.hand(arrange_cotangents(output, golden.cotangents), "the cotangent")
    returned = _guarded("backward", lambda: kernel.backward(d_output, cache))
    taken = desk.take(returned, "a gradient")
    gradients = reference.gradients(taken if isinstance(taken, tuple | list) else (taken,))
    arrays = list(outputs)
    for name, gradient, argument in zip(reference.names, gradients, reference.arguments, strict=True):
        if not (gradient is None or isinstance(gradient, np.ndarray | np.generic | float | int)):
            raise Fault(f"the gradient of {name} is {phrase(gradient)}, expected an array of numbers")
        arrays.append(np.zeros(argument.shape) if gradient is None else np.asarray(gradient))
    return Run(arrays, desk.wrong_dtypes, desk.written())


@dataclass
class _Desk:
    """What goes out to the kernel and what comes back, looked at on the way."""

    precision: Precision
    layout: Layout
    wrong_dtypes: list[str] = field(default_factory=list)
    _handed: list[tuple[str, Array, Array]] = field(default_factory=list)

    def hand(self, node: Any, name: str) -> Any:
        """In the precision and the layout; numbers stay numbers."""
        if isinstance(node, tuple):
            return tuple(self.hand(item, name) for item in node)
        if not isinstance(node, np.ndarray) or node.ndim == 0:
            narrowed = narrow(node, self.precision.dtype)
            return narrowed[()] if isinstance(narrowed, np.ndarray) else narrowed
        array = self.layout(narrow(node, self.precision.dtype))
        self._handed.append((name, array, array.copy()))
        return array

    def take(self, node: Any, name: str) -> Any:
        """As NumPy arrays, in float64."""
        if isinstance(node, tuple | list):
            return type(node)(self.take(item, name) for item in node)
        if is_foreign(node):
            try:
                node = to_numpy(node)
            except Exception as error:  # every library has its own
                raise Fault(f"{name} is {phrase(node)} that NumPy cannot read: {error}") from None
        if isinstance(node, np.ndarray | np.generic) and node.dtype != self.precision.dtype and node.dtype.kind in "fcV":
            profile = self.precision.profile
            self.wrong_dtypes.append(f"for {profile} inputs, {name} is {describe(np.asarray(node))}, expected {profile}")
        return widen(node)

    def written(self) -> list[str]:
        return [f"{name} is changed, {describe(now)}" for name, now, before in self._handed
                if now.tobytes() != before.tobytes()]


def _accepted(forward: Callable[..., Any], inputs: Sequence[Any], settings: dict[str, Any]) -> Sequence[Any]:
    """The inputs that forward takes: a last one that is None may be left away. Raises LeftOut."""
    try:
        signature = inspect.signature(forward)
    except (TypeError, ValueError):  # a compiled function may not say
        return inputs
    while True:
        try:
            signature.bind(*inputs, **settings)
            return inputs
        except TypeError as error:
            if not inputs or inputs[-1] is not None:
                raise LeftOut(f"forward takes no such call: {error}") from None
            inputs = inputs[:-1]


def _guarded(name: str, function: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function()
        except NotImplementedError as error:
            raise LeftOut(f"{name} says: {error}" if str(error) else f"{name} says that it is not implemented") from None
        except Exception as error:
            raise Fault(f"{name} raised {type(error).__name__}: {error}") from error


def _floating(node: Any) -> list[Array]:
    if isinstance(node, tuple):
        return [member for item in node for member in _floating(item)]
    if not isinstance(node, np.ndarray | np.generic | float | int):
        raise Fault(f"the output is or holds {phrase(node)}, expected arrays or numbers")
    return [np.asarray(node)] if np.issubdtype(np.asarray(node).dtype, np.floating) else []
