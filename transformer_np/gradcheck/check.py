"""Check a pair of functions, a function and its vjp, or a layer with all its weights: the calls that a user makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported, is_foreign, like, to_numpy
from transformer_np.gradcheck.calling.inputs import Fault, phrase, require_seed
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import (
    Pair,
    backward_pass,
    forward_pass,
    in_precision,
    pair_of_functions,
    pair_of_layer,
    pair_of_vjp,
)
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.calling.trees import map_leaves
from transformer_np.gradcheck.diagnosis.case import Diagnosis
from transformer_np.gradcheck.judging.asking import NOT_AGAIN
from transformer_np.gradcheck.judging.properties import CAUSES, COMPARISONS, Property, kind_of_fault, properties_of
from transformer_np.gradcheck.judging.values import check_output, check_values
from transformer_np.gradcheck.measuring.exact import exact_of
from transformer_np.gradcheck.measuring.methods import METHODS
from transformer_np.gradcheck.report import Check, Report
from transformer_np.gradcheck.reproducer import place_of, reproducer
from transformer_np.layer import Layer


def check_gradients(forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[Any], *, seed: int = 0,
                    method: str = "auto", profile: str = "float64", reference: Callable[..., Any] | None = None,
                    float32: bool = True, name: str | None = None) -> Report:
    """Check a pair of functions against the complex step, and for what every pair must keep.

        report = check_gradients(softmax_forward, softmax_backward, [x])
        report.raise_if_failed()

    forward: `forward(*inputs) -> (output, cache)`. The output is an array, a number, or a tuple or dict of them, nested as you
    like. It is measured best if it takes complex arrays, and rightly if not.
    backward: `backward(d_output, cache) -> gradients`, one for each floating input, in their order; bare if there is one.
    d_output is like the output, without what is not floating; a bare array if one is left. The gradient of an input that was
    None is None, or left out. None for a floating input means that the output does not depend on it, and is checked.
    inputs: arrays, numbers, None, tuples and dicts of them. Floating ones are checked in the profile, whatever they are; integers
    and booleans have no gradient: None in its place, or nothing. Arrays of torch, jax or cupy go to forward and backward as such.
    seed: of the cotangent and everything else that is drawn.
    name: of the report, by default forward's, or backward's if forward is a lambda.
    method: how gradients are measured: complex_step, differences, adjoint, taylor, or auto, which takes the complex step where
    forward takes complex numbers and keeps their imaginary part, and differences elsewhere.
    profile: the precision in which forward and backward are called: float64, float32, float16, or bfloat16 with ml_dtypes
    installed. Inputs and cotangents are rounded to it; then forward is called in float64 for what is right, or `reference` is.
    reference: `reference(*inputs) -> output` in NumPy, which gives the same output in float64. For a forward that knows one low
    precision only; what forward gives is then compared with it too.
    float32: in the profile float64, ask besides whether float32 inputs give float32 outputs and gradients, without a warning.
    False for code that is meant for float64 only, such as one that allocates with np.empty(shape).

    Never raises for what forward and backward do: that is in the report. Raises ValueError if `inputs` are no arrays, or have
    numbers too large for the profile, for an unknown method or profile, for a seed that is no whole number, for bfloat16 without
    ml_dtypes, and where another library has no arrays of the profile.
    """
    return _report("check_gradients", {"forward": forward, "backward": backward}, inputs,
                   lambda: pair_of_functions(forward, backward, inputs), name or _name_of(forward, backward),
                   _Settings(seed, method, profile, reference, float32))


def check_vjp(function: Callable[..., Any], vjp: Callable[..., Any], inputs: Sequence[Any], *, seed: int = 0,
              method: str = "auto", profile: str = "float64", reference: Callable[..., Any] | None = None,
              float32: bool = True, name: str | None = None) -> Report:
    """Check a function and its vector-Jacobian product, which work without a cache, as `check_gradients` checks a pair.

        report = check_vjp(softmax, softmax_vjp, [x])

    function: `function(*inputs) -> output`.   vjp: `vjp(d_output, *inputs) -> gradients`.
    What goes in and comes out, the settings and the errors are as for `check_gradients`.
    """
    return _report("check_vjp", {"function": function, "vjp": vjp}, inputs, lambda: pair_of_vjp(function, vjp, inputs),
                   name or _name_of(function, vjp), _Settings(seed, method, profile, reference, float32))


def check_layer(layer: Layer, inputs: Sequence[Any], *, seed: int = 0, rng_seed: int | None = None, method: str = "auto",
                profile: str = "float64", float32: bool = True, name: str | None = None, **settings: Any) -> Report:
    """Check a layer as `check_gradients` checks a pair: the gradient of every input and of every weight, by its dotted name.

        report = check_layer(MultiHeadAttention.create(6, 2, rng=rng), [x, memory, mask])

    layer: `layer.forward(*inputs) -> (output, cache)`, `layer.backward(d_output, cache) -> (d_inputs..., d_layer)`, or
    `d_layer` alone where no input is floating. Give it random weights: `create` leaves gains at 1 and biases at 0, where
    wrong gradients look right.
    rng_seed: give forward `rng=np.random.default_rng(rng_seed)`, a fresh one at each call, so that dropout repeats.
    settings: other keywords of forward.   seed, method, profile, float32, name and errors: as for `check_gradients`; ValueError
    too for a keyword that forward does not have.
    """
    _require_layer(layer, rng_seed, settings)

    def forward(layer: Any, *inputs: Any) -> Any:
        fresh = {} if rng_seed is None else {"rng": np.random.default_rng(rng_seed)}
        return layer.forward(*inputs, **fresh, **settings)

    own = settings if rng_seed is None else {"rng_seed": rng_seed, **settings}
    return _report("check_layer", {"layer": layer}, inputs, lambda: pair_of_layer(layer, inputs, forward),
                   name or type(layer).__name__, _Settings(seed, method, profile, None, float32), own)


@dataclass(frozen=True)
class _Settings:
    seed: int
    method: str
    profile: str
    reference: Callable[..., Any] | None = None
    float32: bool = True

    def keywords(self) -> dict[str, Any]:
        """As they are given in a call: the seed, and what is not as it is by default."""
        default = _Settings(self.seed, "auto", "float64")
        return {name: value for name, value in vars(self).items() if name == "seed" or value != getattr(default, name)}


def _name_of(*functions: Callable[..., Any]) -> str:
    """Of the first that has one; where it is written, if all are lambdas."""
    names = [str(getattr(function, "__name__", type(function).__name__)) for function in functions]
    return next((name for name in names if name != "<lambda>"), f"<lambda> {place_of(functions[0])}")


def _require_layer(layer: Any, rng_seed: Any, settings: Mapping[str, Any]) -> None:
    if not isinstance(layer, Layer) or not all(callable(getattr(layer, name, None)) for name in ("forward", "backward")):
        raise ValueError(f"layer is {phrase(layer)}, expected a Layer with forward and backward, which holds its weights")
    if rng_seed is not None and (not isinstance(rng_seed, int | np.integer) or isinstance(rng_seed, bool) or rng_seed < 0):
        raise ValueError(f"rng_seed is {rng_seed!r}, expected None or a whole number of at least 0")
    parameters = inspect.signature(layer.forward).parameters.values()  # type: ignore[attr-defined]
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters
             if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)]
    takes = f"{type(layer).__name__}.forward takes {', '.join(known)}"
    if rng_seed is not None and "rng" not in known:
        raise ValueError(f"rng_seed is {rng_seed}, which gives forward a generator `rng`, but {takes}")
    for keyword in settings:
        if keyword not in known:
            raise ValueError(f"{keyword} is no keyword of check_layer or of forward: {takes}")


def _report(call: str, subjects: Mapping[str, Any], inputs: Sequence[Any], fresh: Callable[[], Pair], name: str,
            settings: _Settings, own: Mapping[str, Any] | None = None) -> Report:
    """call, subjects, inputs: as the user called it, `own` with keywords of this call.   fresh: makes the pair with new copies of
    its arrays, so that what one check finds damaged does not harm the next."""
    if settings.method not in METHODS:
        raise ValueError(f"method {settings.method!r}, expected one of {', '.join(METHODS)}")
    require_seed(settings.seed)
    precision = Precision.of(settings.profile)

    by_chance: list[str] = []

    def rounded() -> Pair:
        return _watched(in_precision(fresh(), precision), by_chance)

    pair = rounded()
    if not pair.arguments:
        raise ValueError(f"{name}: no input is floating and there are no weights, so there is no gradient to check")
    # a stream of its own: inputs drawn from default_rng(seed) would otherwise equal the cotangent, number by number, and where
    # the gradient is at right angles to the input, as in a normalization, a wrong one would be compared with 0
    rng = np.random.default_rng([settings.seed, *b"cotangent"])
    kept = map_leaves(_copy, tuple(inputs))
    again = reproducer(call, subjects, kept, settings.keywords() | dict(own or {}))
    with np.errstate(all="ignore"):  # what is compared may be infinite; inside of the callables NumPy warns as ever
        checks = _checks(rounded, settings, inputs, rng)
        if by_chance and all(check.ok for check in checks):
            says = f"{by_chance[0]}; {NOT_AGAIN}"
            checks.append(Check(f"{' and '.join(pair.called)} run", False, says, diagnosis=Diagnosis("does not run", says)))
        return Report(name, tuple(checks), again, kept)


def _watched(pair: Pair, by_chance: list[str]) -> Pair:
    """A pair that says in `by_chance` when a callable raises an error and does not if it is called again with the same. Some
    calls may fail: a step of differences that is too large for the function, a number beyond its domain by a rounding error. But
    there it fails each time."""

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except (Fault, Unsupported):
                raise
            except Exception as error:
                if _runs(function, arguments):
                    by_chance.append(f"{name} raised {type(error).__name__}: {error}")
                raise
        return called

    forward, backward = pair.called
    return replace(pair, forward=watched(forward, pair.forward), backward=watched(backward, pair.backward))


def _runs(function: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    try:
        function(*arguments)
    except Exception:
        return False
    return True


def _copy(leaf: Any) -> Any:
    return like(np.array(to_numpy(leaf)), leaf) if isinstance(leaf, np.ndarray) or is_foreign(leaf) else leaf


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
        exact.loss.require_finite_output()
    except Fault as fault:
        question = f"{pair.called[0]} and {pair.called[1]} run"
        diagnosis = Diagnosis(fault.kind, str(fault))
        return [Check(question, False, str(fault), diagnosis=diagnosis)]
    checks = [] if exact.loss.pair is pair else [check_output(pair, exact, base, wide, precision, rng)]
    checks += check_values(pair, exact, base, wide, gradients, rng, settings.method, precision)
    causes: list[str] = []
    absent = tuple(gradient is None for gradient in gradients)
    for question, answer in properties_of(pair, float32=settings.float32).items():
        if causes and question in COMPARISONS:
            checks.append(Check(question, True, f"not asked, since the answer to \"{causes[0]}\" is no: mend that first"))
            continue
        checks.append(_ask(question, answer, replace(rounded(), absent=absent), rng))
        if question in CAUSES and not checks[-1].ok:
            causes.append(question)
    return checks


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
        return Check(question, False, str(fault), diagnosis=Diagnosis(kind_of_fault(question, fault), str(fault)))
