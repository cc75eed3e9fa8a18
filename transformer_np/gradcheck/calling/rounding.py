"""The precisions that a kernel may be judged in, and how numbers get there and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformer_np.layer import Array

PROFILES = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Precision:
    """profile: its name.   dtype: of the arrays that a kernel gets.   eps: the step from 1 to the next number."""

    profile: str
    dtype: np.dtype
    eps: float
    largest: float
    smallest: float      # that is normal

    @classmethod
    def of(cls, profile: str) -> Precision:
        """Raises ValueError for an unknown profile, or bfloat16 without ml_dtypes, which teaches it to NumPy."""
        if profile not in PROFILES:
            raise ValueError(f"profile {profile!r}, expected one of {', '.join(PROFILES)}")
        if profile != "bfloat16":
            info = np.finfo(profile)
            return cls(profile, np.dtype(profile), float(info.eps), float(info.max), float(info.tiny))
        try:
            import ml_dtypes
        except ImportError:
            raise ValueError("profile bfloat16 needs ml_dtypes: pip install ml_dtypes") from None
        bfloat16 = ml_dtypes.finfo(ml_dtypes.bfloat16)
        return cls(profile, np.dtype(ml_dtypes.bfloat16), float(bfloat16.eps), float(bfloat16.max), float(bfloat16.tiny))

    def round(self, array: Array) -> Array:
        """To the nearest number of this precision, in float64."""
        with np.errstate(over="ignore"):
            return np.asarray(array).astype(self.dtype).astype(np.float64)

    def ulp(self, value: float) -> float:
        """From one number of this precision to the next, near this value."""
        return self.eps * max(2.0 ** (math.frexp(value)[1] - 1), self.smallest)


def eps_of(dtype: np.dtype) -> float:
    """The step from 1 to the next number of any floating dtype."""
    return float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.inexact) else Precision.of(dtype.name).eps


def narrow(node: Any, dtype: np.dtype) -> Any:
    """Every floating array or number of nested tuples in another dtype."""
    if isinstance(node, tuple):
        return tuple(narrow(item, dtype) for item in node)
    if isinstance(node, np.ndarray | np.generic | float) and np.issubdtype(np.asarray(node).dtype, np.floating):
        with np.errstate(over="ignore"):
            return np.asarray(node).astype(dtype)
    return node


def widen(node: Any) -> Any:
    """Every floating array of nested tuples and lists in float64. Kinds of number that NumPy does not call floating, such as
    bfloat16, are widened too."""
    if isinstance(node, tuple | list):
        return type(node)(widen(item) for item in node)
    if isinstance(node, np.ndarray | np.generic) and node.dtype.kind in "fV":
        return np.asarray(node).astype(np.float64)
    return node
