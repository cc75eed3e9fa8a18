"""How a pair or layer says what it is to be checked with.

Each package has a module `gradcheck_examples`. Every public function in it takes a generator and yields examples:

    def softmax(rng):
        x = rng.standard_normal((2, 3, 5))
        yield pair_example(softmax_forward, softmax_backward, x)
        yield pair_example(softmax_forward, softmax_backward, x, random_mask(rng, (2, 3, 5)), case="mask")
        yield pair_example(softmax_forward, softmax_backward, x, case="first axis", axis=0)

    def layer_norm(rng):
        x = rng.standard_normal((2, 3, 5))
        yield layer_example(with_random_weights(LayerNorm.create(5), rng), x)

An example must not flatter: all sizes different and greater than 1, gains not 1, biases not 0, an id that repeats and one
that is missing, a mask with a row that allows nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformer_np.gradcheck.check import check_gradients, check_layer
from transformer_np.gradcheck.report import Report
from transformer_np.layer import Array, Layer, map_arrays, named_arrays


@dataclass(frozen=True)
class Call:
    """How an example calls a pair: `forward(*inputs, **settings)`, and `rng` besides where `rng_seed` is given."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: tuple[Any, ...]
    settings: dict[str, Any]
    rng_seed: int | None

    def keywords(self) -> dict[str, Any]:
        """The settings, and a fresh generator: what is random repeats from call to call."""
        return self.settings if self.rng_seed is None else {**self.settings, "rng": np.random.default_rng(self.rng_seed)}

    def bind(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A forward of the inputs alone. It keeps the names of the parameters, for the report."""

        @functools.wraps(forward)
        def with_settings(*inputs: Any) -> Any:
            return forward(*inputs, **self.keywords())

        return with_settings


@dataclass(frozen=True)
class Example:
    """subject: the forward function, or the class of the layer, that is checked.   name: of the subject, and of the case.
    check: takes a seed and gives the report.   call: of a pair, for those who hold a kernel against it; None for a layer."""

    subject: Any
    name: str
    check: Callable[[int], Report]
    call: Call | None = None


def pair_example(forward: Callable[..., Any], backward: Callable[..., Any], *inputs: Any, case: str = "",
                 rng_seed: int | None = None, **settings: Any) -> Example:
    """Check `forward(*inputs, **settings)` against `backward`.

    case: what is special, one or two words.   rng_seed: give forward `rng=np.random.default_rng(rng_seed)` at each call.
    """
    name = _with_case(forward.__name__.removesuffix("_forward"), case)
    call = Call(forward, backward, inputs, settings, rng_seed)
    return Example(forward, name, lambda seed: check_gradients(call.bind(forward), backward, inputs, seed=seed, name=name), call)


def layer_example(layer: Layer, *inputs: Any, case: str = "", rng_seed: int | None = None, **settings: Any) -> Example:
    """Check `layer.forward(*inputs, **settings)` against `layer.backward`. `case` and `rng_seed` as for `pair_example`.

    Raises ValueError for a weight that is the same number everywhere, as `create` leaves gains and biases: it would flatter.
    """
    name = _with_case(type(layer).__name__, case)
    for weight, array in named_arrays(layer).items():
        if array.size > 1 and (array == array.flat[0]).all():
            raise ValueError(f"{name}: {weight} is {array.flat[0]} everywhere, expected random weights: "
                             "with_random_weights(layer, rng)")

    def check(seed: int) -> Report:
        return check_layer(layer, inputs, seed=seed, rng_seed=rng_seed, name=name, **settings)

    return Example(type(layer), name, check)


def _with_case(name: str, case: str) -> str:
    return f"{name} ({case})" if case else name


def with_random_weights(layer: Any, rng: np.random.Generator, *, std: float = 0.5) -> Any:
    """The layer in float64, with normal noise added to every array: no gain is 1 and no bias is 0 any more."""
    return map_arrays(lambda array: array.astype(np.float64) + std * rng.standard_normal(array.shape), layer)


def random_mask(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A boolean mask, True for some two in three, with a first row that allows nothing and a second that allows all."""
    mask = rng.random(shape) < 2 / 3
    rows = mask.reshape(-1, shape[-1])
    rows[0] = False
    rows[1] = True
    return mask
