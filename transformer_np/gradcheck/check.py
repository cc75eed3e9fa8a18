"""Check a pair of functions, a function and its vjp, or a layer with all its weights: the calls that a user makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported, is_foreign, to_numpy
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Pair, backward_pass, forward_pass, pair_of_functions, pair_of_layer, pair_of_vjp
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.calling.trees import map_leaves
from transformer_np.gradcheck.diagnosis.case import Diagnosis
from transformer_np.gradcheck.judging.properties import CAUSES, COMPARISONS, Property, kind_of_fault, properties_of
from transformer_np.gradcheck.judging.values import check_output, check_values
from transformer_np.gradcheck.measuring.exact import exact_of
from transformer_np.gradcheck.measuring.methods import METHODS
from transformer_np.gradcheck.report import Check, Report
from transformer_np.layer import Layer, describe


def check_gradients(forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any], *, seed: int = 0,
                    method: str = "auto", profile: str = "float64", reference: Callable[..., Any] | None = None,
                    name: str | None = None) -> Report:
    """Check a pair of functions against the complex step, and for what every pair must keep.

        report = check_gradients(softmax_forward, softmax_backward, [x])
        report.raise_if_failed()

    forward: `forward(*inputs) -> (output, cache)`. The output is an array, a number, or a tuple or dict of them, nested as you
    like. It is measured best if it takes complex arrays, and rightly if not.
    backward: `backward(d_output, cache) -> gradients`, one for each floating input, in their order; bare if there is one.
    d_output is like the output, without what is not floating; a bare array if one is left. The gradient of an input that was
    None is None, or left out. None for a floating input means that the output does not depend on it, and is checked.
    inputs: arrays, numbers, None, tuples and dicts of them. Floating ones are checked in the profile, whatever they are; integers
    and booleans get no gradient. Arrays of torch, jax or cupy go to forward and backward as such.
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
    return _report("check_gradients", (forward, backward), inputs, lambda: pair_of_functions(forward, backward, inputs),
                   name or _name_of(forward), _Settings(seed, method, profile, reference))


def check_vjp(function: Callable[..., Any], vjp: Callable[..., Any], inputs: Sequence[Any], *, seed: int = 0,
              method: str = "auto", profile: str = "float64", reference: Callable[..., Any] | None = None,
              name: str | None = None) -> Report:
    """Check a function and its vector-Jacobian product, which work without a cache, as `check_gradients` checks a pair.

        report = check_vjp(softmax, softmax_vjp, [x])

    function: `function(*inputs) -> output`.   vjp: `vjp(d_output, *inputs) -> gradients`.
    What goes in and comes out, the settings and the errors are as for `check_gradients`.
    """
    return _report("check_vjp", (function, vjp), inputs, lambda: pair_of_vjp(function, vjp, inputs),
                   name or _name_of(function), _Settings(seed, method, profile, reference))


def check_layer(layer: Layer, inputs: Sequence[Any], *, seed: int = 0, rng_seed: int | None = None, method: str = "auto",
                profile: str = "float64", name: str | None = None, **settings: Any) -> Report:
    """Check a layer as `check_gradients` checks a pair: the gradient of every input and of every weight, by its dotted name.

        report = check_layer(MultiHeadAttention.create(6, 2, rng=rng), [x, memory, mask])

    layer: `layer.forward(*inputs) -> (output, cache)`, `layer.backward(d_output, cache) -> (d_inputs..., d_layer)`, or
    `d_layer` alone where no input is floating. Give it random weights: `create` leaves gains at 1 and biases at 0, where
    wrong gradients look right.
    rng_seed: give forward `rng=np.random.default_rng(rng_seed)`, a fresh one at each call, so that dropout repeats.
    settings: other keywords of forward.   seed, method, profile, name and errors: as for `check_gradients`.
    """

    def forward(layer: Any, *inputs: Any) -> Any:
        fresh = {} if rng_seed is None else {"rng": np.random.default_rng(rng_seed)}
        return layer.forward(*inputs, **fresh, **settings)

    return _report("check_layer", (type(layer),), inputs, lambda: pair_of_layer(layer, inputs, forward),
                   name or type(layer).__name__, _Settings(seed, method, profile))


@dataclass(frozen=True)
class _Settings:
    seed: int
    method: str
    profile: str
    reference: Callable[..., Any] | None = None


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _report(call: str, callables: Sequence[Callable[..., Any]], inputs: Sequence[Any], fresh: Callable[[], Pair], name: str,
            settings: _Settings) -> Report:
    """call, callables, inputs: as the user called it.   fresh: makes the pair with new copies of its arrays, so that what one
    check finds damaged does not harm the next."""
    if settings.method not in METHODS:
        raise ValueError(f"method {settings.method!r}, expected one of {', '.join(METHODS)}")
    precision = Precision.of(settings.profile)

    def rounded() -> Pair:
        made = fresh()
        if settings.profile == "float64":
            return made
        return replace(made, arguments=tuple(map(precision.round, made.arguments)), dtype=precision.dtype)

    pair = rounded()
    if not pair.arguments:
        raise ValueError(f"{name}: no input is floating and there are no weights, so there is no gradient to check")
    # a stream of its own: inputs drawn from default_rng(seed) would otherwise equal the cotangent, number by number, and where
    # the gradient is at right angles to the input, as in a normalization, a wrong one would be compared with 0
    rng = np.random.default_rng([settings.seed, *b"cotangent"])
    again = _one_line(call, callables, inputs, pair, settings)
    with np.errstate(all="ignore"):  # what is compared may be infinite; inside of the callables NumPy warns as ever
        return Report(name, tuple(_checks(rounded, settings, inputs, rng)), again)


def _checks(rounded: Callable[[], Pair], settings: _Settings, inputs: Sequence[Any], rng: np.random.Generator) -> list[Check]:
    """rounded: makes the pair anew, in the precision of the profile."""
    precision, pair = Precision.of(settings.profile), rounded()
    try:
        base = forward_pass(pair, pair.given)
        cotangents = random_cotangents(base.members, rng, pair.dtype)
        wide = [each.astype(np.float64) for each in cotangents]  # copies: what is written into them must not hide anything
        gradients = backward_pass(pair, base, cotangents)
        pair = rounded()
        exact = exact_of(pair, wide, _reference_pair(settings.reference, inputs, pair))
    except Fault as fault:
        question = f"{pair.called[0]} and {pair.called[1]} run"
        diagnosis = Diagnosis(fault.kind, str(fault))
        return [Check(question, False, str(fault), diagnosis=diagnosis)]
    checks = [] if exact.loss.pair is pair else [check_output(pair, exact, base, wide, precision, rng)]
    checks += check_values(pair, exact, base, wide, gradients, rng, settings.method, precision)
    causes: list[str] = []
    for question, answer in properties_of(pair).items():
        if causes and question in COMPARISONS:
            checks.append(Check(question, True, f"not asked, since the answer to \"{causes[0]}\" is no: mend that first"))
            continue
        checks.append(_ask(question, answer, rounded(), rng))
        if question in CAUSES and not checks[-1].ok:
            causes.append(question)
    return checks


def _one_line(call: str, callables: Sequence[Callable[..., Any]], inputs: Sequence[Any], pair: Pair, settings: _Settings) -> str:
    """The call that gives this report again, in one line of Python, and the shapes that it was made with."""
    given = ", ".join(f"{name} {describe(argument.astype(pair.dtype))}"
                      for name, argument in zip(pair.names[:pair.num_inputs], pair.arguments, strict=False))
    names = ", ".join(_name_of(each) if call != "check_layer" else f"layer of class {each.__name__}" for each in callables)
    return (f'{call}({names}, inputs, seed={settings.seed}, method="{settings.method}", profile="{settings.profile}")'
            f" with {len(inputs)} inputs" + (f": {given}" if given else ""))


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
        return Check(question, False, str(fault), diagnosis=Diagnosis(kind_of_fault(question), str(fault)))
