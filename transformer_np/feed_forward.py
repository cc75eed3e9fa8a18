"""The position-wise feed-forward network: what each position computes on its own, between two attentions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transformer_np.activations import (
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    relu_backward,
    relu_forward,
)
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import Linear, LinearCache

FORWARD: dict[str, Callable[[Array], tuple[Array, Any]]] = {
    "relu": relu_forward, "gelu": gelu_forward, "gelu_tanh": gelu_tanh_forward,
}
BACKWARD: dict[str, Callable[[Array, Any], Array]] = {
    "relu": relu_backward, "gelu": gelu_backward, "gelu_tanh": gelu_tanh_backward,
}


@dataclass(frozen=True, repr=False, eq=False)
class FeedForwardCache(Cache):
    expand: LinearCache
    activation: Cache
    contract: LinearCache


@dataclass(repr=False, eq=False)
class FeedForward(Layer):
    """Two linear maps with an activation between them.

        y = activation(x W_1 + b_1) W_2 + b_2

    Vaswani et al. 2017, section 3.3 (relu, F = 4 D); GPT-2 has gelu_tanh.
    """

    expand: Linear           # [D, F]
    contract: Linear         # [F, D]
    activation: str          # "relu", "gelu" or "gelu_tanh"

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown activation."""
        if self.activation not in FORWARD:
            raise ValueError(f"FeedForward: activation {self.activation!r}, expected one of {', '.join(FORWARD)}")

    @classmethod
    def create(cls, d_model: int, d_hidden: int, *, activation: str = "relu", rng: np.random.Generator, bias: bool = True,
               std: float | None = None, output_std: float | None = None, dtype: type = np.float32) -> FeedForward:
        expand = Linear.create(d_model, d_hidden, rng=rng, bias=bias, std=std, dtype=dtype)
        output_std = std if output_std is None else output_std
        contract = Linear.create(d_hidden, d_model, rng=rng, bias=bias, std=output_std, dtype=dtype)
        return cls(expand, contract, activation)

    def forward(self, x: Array) -> tuple[Array, FeedForwardCache]:
        """x: [..., D].   Returns y: [..., D]."""
        hidden, expand = self.expand.forward(x)                                 # [..., F]
        active, activation = FORWARD[self.activation](hidden)                   # [..., F]
        y, contract = self.contract.forward(active)                             # [..., D]
        return y, FeedForwardCache(expand, activation, contract)

    def backward(self, d_y: Array, cache: FeedForwardCache) -> tuple[Array, FeedForward]:
        """d_y: [..., D].   Returns d_x [..., D] and the gradient of the weights."""
        # y = contract(active)
        d_active, d_contract = self.contract.backward(d_y, cache.contract)      # [..., F]
        # active = activation(hidden)
        d_hidden = BACKWARD[self.activation](d_active, cache.activation)        # [..., F]
        # hidden = expand(x)
        d_x, d_expand = self.expand.backward(d_hidden, cache.expand)            # [..., D]
        return d_x, replace(self, expand=d_expand, contract=d_contract)
