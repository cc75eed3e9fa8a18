"""What one training step costs: floating point operations, counted as they happen, and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from transformer_np.layer import Layer, map_arrays


def count_flops(model: Layer, step: Callable[[Any], Any]) -> int:
    """Floating point operations of every matrix product in `step(model)`, forward and backward: 2 for a multiplication and the
    addition that follows it.

    The step is run on arrays of a class that counts. Products are what models spend their operations on; additions, activations
    and norms (a few per number, and a few thousand for a row) are left out, as in the closed forms:

        [..., N, K] @ [..., K, M]       2 N K M for each matrix of the leading axes
    """
    flops = 0

    class Counted(np.ndarray):
        """What is computed from a counted array is counted too."""

        def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **settings: Any) -> Any:
            nonlocal flops
            if "out" in settings:
                settings["out"] = tuple(_plain(array) for array in settings["out"])
            result = getattr(ufunc, method)(*(_plain(value) for value in inputs), **settings)
            if ufunc is np.matmul:
                flops += 2 * np.size(result) * inputs[0].shape[-1]
            return _counted(result)

        def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
            return _counted(super().__array_function__(function, types, args, kwargs))

    def _plain(value: Any) -> Any:
        return value.view(np.ndarray) if isinstance(value, Counted) else value

    def _counted(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(_counted(item) for item in value)
        return value.view(Counted) if isinstance(value, np.ndarray) else value

    # a pair that fills an array of its own starts from zeros or empty, which take no counted argument
    zeros, empty = np.zeros, np.empty
    with mock.patch.object(np, "zeros", lambda *args, **kwargs: _counted(zeros(*args, **kwargs))), \
         mock.patch.object(np, "empty", lambda *args, **kwargs: _counted(empty(*args, **kwargs))):
        step(map_arrays(_counted, model))
    return flops


def peak_bytes(step: Callable[[], Any]) -> int:
    """The most memory that `step()` holds at one moment, beyond what was there before it: activations, gradients, new weights."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before
