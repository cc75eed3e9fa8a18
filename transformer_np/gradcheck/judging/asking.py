"""How a property asks: backward is called so that it can harm nothing, and a refusal is told from a fault."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.pair import Outcome, Pair, backward_pass, forward_pass
from transformer_np.layer import Array

# What is chance.
NOT_AGAIN = "and it did not when it was called again with the same"

Gradients = Sequence[Array | None]


class Broken(Fault):
    """A property does not hold. Without a kind, it is that of the property."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message, kind)


def ask_backward(pair: Pair, outcome: Outcome, cotangents: Sequence[Array], *, warned: list[str] | None = None) -> Gradients:
    """With copies of the cotangents: a backward that writes into them is found once, and not by every check. Which gradients are
    None is as it was at the first call."""
    gradients = backward_pass(pair, outcome, [cotangent.copy() for cotangent in cotangents], warned=warned)
    if pair.absent is not None and any(cotangent.any() for cotangent in cotangents):
        _require_as_absent(pair, gradients, cotangents[0].dtype)
    return gradients


def _require_as_absent(pair: Pair, gradients: Gradients, dtype: np.dtype) -> None:
    for name, gradient, absent in zip(pair.names, gradients, pair.absent or (), strict=True):
        if (gradient is None) != absent:
            now, first = ("None", "an array") if gradient is None else ("an array", "None")
            kind = "nondeterministic" if dtype == pair.dtype else "absent"
            raise Broken(f"for {dtype} inputs, the gradient of {name} is {now}, and at the first call, for {pair.dtype}, it was "
                         f"{first}", kind)


def ask_backward_again(pair: Pair, outcome: Outcome, cotangents: Sequence[Array]) -> Gradients:
    """On a cache that backward had before. One that cannot do that, as torch without retain_graph, uses its cache up."""
    try:
        return ask_backward(pair, outcome, cotangents)
    except Broken:
        raise
    except Fault as fault:
        fresh = forward_pass(pair, pair.given)
        ask_backward(pair, fresh, cotangents)
        try:
            ask_backward(pair, fresh, cotangents)
        except Fault:
            raise Fault(f"{fault}; it did so at its second call on one cache, and not at the first: backward may be called "
                        "several times on one cache, so that nothing may be freed or used up there (in torch: retain_graph=True)",
                        "cache used up") from fault
        raise


def elsewhere(pair: Pair) -> Pair:
    """At other inputs the output may not depend on an argument that it depends on here."""
    return replace(pair, absent=None)


def copies(arrays: Gradients) -> Gradients:
    """A buffer that is returned again and again must not look like equal results."""
    return [None if array is None else array.copy() for array in arrays]


def refuses(fault: Fault, words: str) -> bool:
    """Whether a callable raised an error of its own that says what it does not take."""
    error = fault.__cause__
    return error is not None and (isinstance(error, NotImplementedError) or
                                  re.search(words, str(error), re.IGNORECASE) is not None)
