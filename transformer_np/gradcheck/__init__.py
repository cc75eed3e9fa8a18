"""Is a hand-written backward pass right? Ask on plain callables, or on a layer.

    report = check_gradients(forward, backward, inputs)     a pair of functions
    report = check_vjp(function, vjp, inputs)               plain functions: vjp(d_output, *inputs) -> gradients
    report = check_layer(layer, inputs)                     a layer and all its weights
    report.ok, print(report), report.raise_if_failed()

    check_against("softmax", forward, backward)             a kernel against the pair of this project of that name

    python -m transformer_np.gradcheck                      every pair and layer of this project

Inside, each folder stands on those above it:

    calling/      a pair as it is called: inputs, outputs, other libraries' arrays, precisions, memory layouts
    measuring/    a gradient from forward alone: complex step, differences, adjoint identity, Taylor; rounding and kinks
    diagnosis/    the kind of fault
    judging/      verdicts on the numbers, and on what else a pair must keep
    kernels/      golden numbers of our pairs, and someone's kernel beside them

A name is imported when it is first asked for: pytest imports this package at every start, for its fixture, whether or not a test
checks a gradient.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer_np.gradcheck.against import check_against
    from transformer_np.gradcheck.check import check_gradients, check_layer, check_vjp
    from transformer_np.gradcheck.examples import (
        Example,
        layer_example,
        pair_example,
        random_mask,
        with_random_weights,
    )
    from transformer_np.gradcheck.report import Check, GradientError, Report

__all__ = ["Check", "Example", "GradientError", "Report", "check_against", "check_gradients", "check_layer", "check_vjp",
           "layer_example", "pair_example", "random_mask", "with_random_weights"]

_HOMES = {
    "against": ("check_against",),
    "check": ("check_gradients", "check_layer", "check_vjp"),
    "examples": ("Example", "layer_example", "pair_example", "random_mask", "with_random_weights"),
    "report": ("Check", "GradientError", "Report"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
