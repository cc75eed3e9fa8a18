"""Elementwise non-linearities: relu, gelu, gelu_tanh, sigmoid, tanh.

GELU has two forms in use, and they differ by up to 5e-4: `gelu` is the definition, with the error function; `gelu_tanh` is the
approximation that GPT-2 and BERT's first code use. They are two functions with two names, so that nobody meets one for the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array, Cache

# Beyond this, GELU is x or 0 to the last bit in every format; within it, no product of inf and 0 can arise.
# (np.maximum and np.minimum order complex numbers by their real part first, which is what the complex step needs.)
GELU_LIMIT = 200.0


@dataclass(frozen=True, repr=False, eq=False)
class ReluCache(Cache):
    positive: Array  # [...], boolean


def relu_forward(x: Array) -> tuple[Array, ReluCache]:
    """Rectified linear unit.   y = max(x, 0)

    x: [...].   Returns y: like x; NaN stays NaN.   Nair and Hinton 2010; Glorot et al. 2011.
    """
    y = np.where(x.real <= 0, 0, x)                                             # [...]
    return y, ReluCache(x.real > 0)


def relu_backward(d_y: Array, cache: ReluCache) -> Array:
    """Gradient of `relu_forward`.   d_x = d_y where x > 0, else 0: at the kink, x = 0, we choose 0, as everyone does.

    d_y: [...].   Returns d_x: like d_y.
    """
    # y = max(x, 0)
    return np.where(cache.positive, d_y, 0)                                     # [...]


@dataclass(frozen=True, repr=False, eq=False)
class GeluCache(Cache):
    x: Array         # [...]
    below: Array     # [...], the standard normal distribution function at x


def gelu_forward(x: Array) -> tuple[Array, GeluCache]:
    """Gaussian error linear unit: x, times the probability that a standard normal variable is below x.

        y = x Phi(x)            Phi(x) = erfc(-x / sqrt 2) / 2

    x: [...], float16, float32 or float64 (SciPy has no erfc in longdouble).   Returns y: like x; 0 at -inf.
    Hendrycks and Gimpel 2016, equation (1) and the one before it.
    """
    from scipy.special import erfc  # here, because SciPy takes longer to import than all of this package

    bounded = np.maximum(x, -GELU_LIMIT)                                        # [...], keeps -inf * 0 away from 2
    # 1. erfc(-x) keeps its digits where 1 + erf(x) cancels, at large negative x; SciPy has none for float16 and gives float64
    below = (0.5 * erfc(x * -math.sqrt(0.5))).astype(bounded.dtype)             # [...]
    # 2. x Phi(x)
    y = bounded * below                                                         # [...]
    return y, GeluCache(x, below)


def gelu_backward(d_y: Array, cache: GeluCache) -> Array:
    """Gradient of `gelu_forward`.

        forward   y = x Phi(x)
        backward  d_x = d_y (Phi(x) + x phi(x))         phi(x) = exp(-x^2 / 2) / sqrt(2 pi)

    d_y: [...].   Returns d_x: like d_y.
    """
    x, below = cache.x, cache.below
    # 2. y = x * below             x is in both factors
    bounded = np.clip(x, -GELU_LIMIT, GELU_LIMIT)                               # [...]
    # 1. below = Phi(x), whose derivative is the density
    density = np.exp(-0.5 * bounded * bounded) * (1 / math.sqrt(2 * math.pi))   # [...]
    return d_y * (below + bounded * density)                                    # [...]


@dataclass(frozen=True, repr=False, eq=False)
class GeluTanhCache(Cache):
    x: Array         # [...]
    t: Array         # [...], tanh(u)


def gelu_tanh_forward(x: Array) -> tuple[Array, GeluTanhCache]:
    """The tanh approximation of GELU.

        y = x (1 + tanh(u)) / 2         u = sqrt(2 / pi) (x + 0.044715 x^3)

    x: [...].   Returns y: like x; 0 at -inf.   Hendrycks and Gimpel 2016, section 2.
    """
    # 1. u, bounded so that neither x^3 overflows nor -inf meets 0
    bounded = np.maximum(x, -GELU_LIMIT)                                        # [...]
    inner = np.minimum(bounded, GELU_LIMIT)                                     # [...]
    u = inner * (math.sqrt(2 / math.pi) + math.sqrt(2 / math.pi) * 0.044715 * (inner * inner))  # [...]
    # 2. y
    t = np.tanh(u)                                                              # [...]
    y = 0.5 * bounded * (1 + t)                                                 # [...]
    return y, GeluTanhCache(inner, t)


def gelu_tanh_backward(d_y: Array, cache: GeluTanhCache) -> Array:
    """Gradient of `gelu_tanh_forward`.

        forward   y = x (1 + tanh(u)) / 2,   u = sqrt(2 / pi) (x + 0.044715 x^3)
        backward  d_x = d_y ((1 + tanh(u)) / 2 + x (1 - tanh(u)^2) / 2 * sqrt(2 / pi) (1 + 3 * 0.044715 x^2))

    d_y: [...].   Returns d_x: like d_y.
    """
    x, t = cache.x, cache.t
    # 2. y = x (1 + t) / 2         by t:  x / 2,  then  dt/du = 1 - t^2
    by_u = 0.5 * x * ((1 - t) * (1 + t))                                        # [...]
    # 1. u = sqrt(2 / pi) (x + 0.044715 x^3)
    du_by_dx = math.sqrt(2 / math.pi) + math.sqrt(2 / math.pi) * 3 * 0.044715 * (x * x)  # [...]
    return d_y * (0.5 * (1 + t) + by_u * du_by_dx)                              # [...]


@dataclass(frozen=True, repr=False, eq=False)
class SigmoidCache(Cache):
    y: Array  # [...]


def sigmoid_forward(x: Array) -> tuple[Array, SigmoidCache]:
    """The logistic function.   y = 1 / (1 + exp(-x)) = exp(x) / (1 + exp(x))

    Of the two forms the one whose exponent is not positive is used, so nothing overflows.
    x: [...].   Returns y: like x.
    """
    negative = x.real < 0                                                       # [...]
    e = np.exp(np.where(negative, x, -x))                                       # [...], at most 1
    y = np.where(negative, e, 1) / (1 + e)                                      # [...]
    return y, SigmoidCache(y)


def sigmoid_backward(d_y: Array, cache: SigmoidCache) -> Array:
    """Gradient of `sigmoid_forward`.   d_x = d_y y (1 - y), which is never NaN, unlike exp(-x) / (1 + exp(-x))^2.

    d_y: [...].   Returns d_x: like d_y.
    """
    y = cache.y
    # y = 1 / (1 + exp(-x))
    return d_y * (y * (1 - y))                                                  # [...]


@dataclass(frozen=True, repr=False, eq=False)
class TanhCache(Cache):
    y: Array  # [...]


def tanh_forward(x: Array) -> tuple[Array, TanhCache]:
    """The hyperbolic tangent.   y = tanh(x)           x: [...].   Returns y: like x."""
    y = np.tanh(x)                                                              # [...]
    return y, TanhCache(y)


def tanh_backward(d_y: Array, cache: TanhCache) -> Array:
    """Gradient of `tanh_forward`.   d_x = d_y (1 - y^2) = d_y (1 - y) (1 + y), the factors lose fewer digits near +-1.

    d_y: [...].   Returns d_x: like d_y.
    """
    y = cache.y
    # y = tanh(x)
    return d_y * ((1 - y) * (1 + y))                                            # [...]
