"""Arrays of other libraries: torch, jax, cupy. They come in and go out through DLPack, and none of them is imported here.

A callable is given what it was written for: an argument that came as a torch tensor goes to it as a torch tensor, on the device
of the one that came. In between, everything is NumPy.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from transformer_np.layer import Array


class Unsupported(ValueError):
    """An array that the other library cannot hold: a negative stride in torch, or another order of bytes."""


def to_numpy(value: Any) -> Array | None:
    """An array or number as NumPy has it, without a copy where that can be; None for anything else."""
    if isinstance(value, np.ndarray | np.generic | float | int | complex):
        return np.asarray(value)
    if not is_foreign(value):
        return None
    if hasattr(value, "detach"):  # torch: a tensor with a history, or with its conjugation put off, does not hand out its memory
        value = value.detach().resolve_conj().resolve_neg().cpu()
        if _dtype_name(value) == "bfloat16":  # which DLPack has and NumPy has not
            return np.from_dlpack(value.float()).astype(bfloat16())
    elif hasattr(value, "get"):  # cupy: from the device
        value = value.get()
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError):
        return np.asarray(value)


def is_foreign(value: Any) -> bool:
    return hasattr(type(value), "__dlpack__") and not isinstance(value, np.ndarray | np.generic)


def like(array: Array, model: Any) -> Any:
    """The array in the library and on the device of `model`. Raises Unsupported.

    A copy only where it must be: on a device, and for bfloat16.
    """
    if not is_foreign(model):
        return array
    array = np.asarray(array)
    # torch ends the whole process when it is handed a negative stride
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        raise Unsupported(f"{_library(model).__name__} cannot hold such an array")
    library = _library(model)
    narrow = array.dtype.name == "bfloat16"
    source = array.astype(np.float32) if narrow else array
    try:
        made = library.from_dlpack(source)
    except (BufferError, RuntimeError, TypeError, ValueError):  # cupy takes what is on its device only
        made = library.asarray(source)
    if narrow:
        made = made.to(library.bfloat16) if hasattr(made, "to") else made.astype("bfloat16")
    if hasattr(made, "to") and hasattr(model, "device"):
        made = made.to(model.device)
    if _dtype_name(made) != array.dtype.name:
        raise Unsupported(f"{library.__name__} made {_dtype_name(made)} of {array.dtype.name}"
                          + (": set jax_enable_x64, or ask for the profile float32" if "jax" in library.__name__ else ""))
    return made


def is_floating(value: Any) -> bool:
    """Whether an array or number has a floating dtype, bfloat16 included, which NumPy does not count among its own."""
    return value is not None and is_floating_dtype(_dtype(value))


def is_floating_dtype(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def is_inexact(value: Any) -> bool:
    dtype = _dtype(value)
    return is_floating_dtype(dtype) or np.issubdtype(dtype, np.complexfloating)


def bfloat16() -> np.dtype:
    """Raises ValueError without ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError:
        raise ValueError("bfloat16 needs ml_dtypes, which is not installed: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def _dtype(value: Any) -> np.dtype:
    array = to_numpy(value)
    return np.dtype(object) if array is None else array.dtype


def _dtype_name(value: Any) -> str:
    """torch.float32 is float32."""
    return str(value.dtype).rpartition(".")[2]


def _library(model: Any) -> ModuleType:
    """The module that has `from_dlpack` and `asarray`: the one of the array standard, or the package that defines the type."""
    if hasattr(model, "__array_namespace__"):
        return model.__array_namespace__()
    return sys.modules[type(model).__module__.partition(".")[0]]
