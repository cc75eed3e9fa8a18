"""Check a pair of functions, a function and its vjp, or a layer with all its weights: the calls that a user makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.exact import exact_of
from transformer_np.gradcheck.foreign import Unsupported, is_foreign, to_numpy
from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.measuring import METHODS
from transformer_np.gradcheck.outputs import random_cotangents
from transformer_np.gradcheck.pair import Pair, backward_pass, forward_pass, pair_of_functions, pair_of_layer, pair_of_vjp
from transformer_np.gradcheck.properties import Property, properties_of
from transformer_np.gradcheck.report import Check, Report
from transformer_np.gradcheck.rounding import Precision
from transformer_np.gradcheck.trees import map_leaves
from transformer_np.gradcheck.values import check_output, check_values
from transformer_np.layer import Layer


def check_gradients(forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any], *, seed: int = 0,
                    method: str = "auto", profile: str = "float64", reference: Callable[..., Any] | None = None,
                    name: str | None = None) -> Report:
    """Check a pair of functions against the complex step, and for what every pair must keep.

        report = check_gradients(softmax_forward, softmax_backward, [x])
        report.raise_if_failed()

    forward: `forward(*inputs) -> (output, cache)`. The output is an array, a number, or a tuple of them, nested as you like.
    Forward must take complex arrays: they are what it is measured with.
    backward: `backward(d_output, cache) -> gradients`, one for each floating input, in their order; bare if there is one.
    d_output is like the output, without what is not floating; a bare array if one is left. The gradient of an input that was
    None is None, or left out. None for a floating input means that the output does not depend on it, and is checked.
    inputs: arrays, numbers, None, tuples of them. Floating ones are checked in float64 whatever they are; integers and booleans
    get no gradient.
    seed: of the cotangent and everything else that is drawn.   name: of the report, by default forward's.
    method: how gradients are measured: complex_step, differences, adjoint, taylor, or auto, which takes the complex step where
    forward takes complex numbers and keeps their imaginary part, and differences elsewhere.
    profile: the precision in which forward and backward are called: float64, float32, float16, or bfloat16 with ml_dtypes
    installed. Inputs and cotangents are rounded to it; then forward is called in float64 for what is right, or `reference` is.
    reference: `reference(*inputs) -> output` in NumPy, which gives the same output in float64. For a forward that knows one low
    precision only; what forward gives is then compared with it too.

    Never raises for what forward and backward do: that is in the report. Raises ValueError if `inputs` are no arrays, for an
    unknown method or profile, for bfloat16 without ml_dtypes, and where another library has no arrays of the profile.
    """
    return _report(lambda: pair_of_functions(forward, backward, inputs), name or _name_of(forward), seed, method, profile,
                   reference, inputs)


def check_vjp(function: Callable[..., Any], vjp: Callable[..., Any], inputs: Sequence[Any], *, seed: int = 0,
              method: str = "auto", profile: str = "float64", reference: Callable[..., Any] | None = None,
              name: str | None = None) -> Report:
    """Check a function and its vector-Jacobian product, which work without a cache, as `check_gradients` checks a pair.

        report = check_vjp(softmax, softmax_vjp, [x])

    function: `function(*inputs) -> output`.   vjp: `vjp(d_output, *inputs) -> gradients`.
    What goes in and comes out, the settings and the errors are as for `check_gradients`.
    """
    return _report(lambda: pair_of_vjp(function, vjp, inputs), name or _name_of(function), seed, method, profile,
                   reference, inputs)


def check_layer(layer: Layer, inputs: Sequence[Any], *, seed: int = 0, rng_seed: int | None = None, method: str = "auto",
                profile: str = "float64", name: str | None = None, **settings: Any) -> Report:
    """Check a layer as `check_gradients` checks a pair: the gradient of every input and of every weight, by its dotted name.

        report = check_layer(MultiHeadAttention.create(6, 2, rng=rng), [x, memory, mask])

    layer: `layer.forward(*inputs) -> (output, cache)`, `layer.backward(d_output, cache) -> (d_inputs..., d_layer)`, or
    `d_layer` alone where no input is floating. Give it random weights: `create` leaves gains at 1 and biases at 0, where
    wrong gradients look right.
    rng_seed: give forward `rng=np.random.default_rng(rng_seed)`, a fresh one at each call, so that dropout repeats.
    settings: other keywords of forward.   seed, name and errors: as for `check_gradients`.
    """

    def forward(layer: Any, *inputs: Any) -> Any:
        fresh = {} if rng_seed is None else {"rng": np.random.default_rng(rng_seed)}
        return layer.forward(*inputs, **fresh, **settings)

    return _report(lambda: pair_of_layer(layer, inputs, forward), name or type(layer).__name__, seed, method, profile)


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _report(fresh: Callable[[], Pair], name: str, seed: int, method: str, profile: str,
            reference: Callable[..., Any] | None = None, inputs: Sequence[Any] = ()) -> Report:
    """`fresh` makes the pair with new copies of its arrays: what one check finds damaged does not harm the next."""
    if method not in METHODS:
        raise ValueError(f"method {method!r}, expected one of {', '.join(METHODS)}")
    precision = Precision.of(profile)

    def rounded() -> Pair:
        made = fresh()
        if profile == "float64":
            return made
        return replace(made, arguments=tuple(map(precision.round, made.arguments)), dtype=precision.dtype)

    pair = rounded()
    if not pair.arguments:
        raise ValueError(f"{name}: no input is floating and there are no weights, so there is no gradient to check")
    # a stream of its own: inputs drawn from default_rng(seed) would otherwise equal the cotangent, number by number, and where
    # the gradient is at right angles to the input, as in a normalization, a wrong one would be compared with 0
    rng = np.random.default_rng([seed, *b"cotangent"])
    try:
        base = forward_pass(pair, pair.given)
        cotangents = random_cotangents(base.members, rng, pair.dtype)
        gradients = backward_pass(pair, base, cotangents)
        wide = [np.asarray(each, np.float64) for each in cotangents]
        exact = exact_of(pair, wide, _reference_pair(reference, inputs, pair))
    except Fault as fault:
        return Report(name, (Check(f"{pair.called[0]} and {pair.called[1]} run", False, str(fault)),))
    checks = [] if exact.loss.pair is pair else [check_output(pair, exact, base, wide, precision, rng)]
    checks += check_values(pair, exact, base, wide, gradients, rng, method, precision)
    for question, answer in properties_of(pair).items():
        checks.append(_ask(question, answer, rounded(), rng))
    return Report(name, tuple(checks))


def _reference_pair(reference: Callable[..., Any] | None, inputs: Sequence[Any], pair: Pair) -> Pair | None:
    """The user's reference as a pair, at the arguments of the one that is checked. It has no backward."""
    if reference is None:
        return None
    numpy_inputs = map_leaves(lambda leaf: to_numpy(leaf) if is_foreign(leaf) else leaf, tuple(inputs))
    return replace(pair_of_vjp(reference, _no_vjp, numpy_inputs), arguments=pair.arguments, called=("reference", "its vjp"))


def _no_vjp(*arguments: Any) -> Any:
    raise NotImplementedError("a reference is a function only")


def _ask(question: str, answer: Property, pair: Pair, rng: np.random.Generator) -> Check:
    try:
        return Check(question, True, answer(pair, rng))
    except (Fault, Unsupported) as fault:
        return Check(question, False, str(fault))
