"""What every right pair does besides giving the right numbers. Each property is one function, and one check of the report.

A property raises `Broken` with a sentence where it does not hold. Any other `Fault` is of a callable, which raised an error or
gave what is no gradient: it has a kind of its own, and the property is then not what is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import is_inexact
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Pair, forward_pass
from transformer_np.gradcheck.calling.rounding import Precision, eps_of
from transformer_np.gradcheck.calling.trees import leaves
from transformer_np.gradcheck.judging.asking import Broken, ask_backward, ask_backward_again, copies, refuses
from transformer_np.gradcheck.judging.memory import memory_layouts_agree
from transformer_np.gradcheck.judging.state import (
    caches_stand_alone,
    gradients_follow_the_inputs,
    nothing_is_written_to,
    two_calls_agree,
)
from transformer_np.gradcheck.measuring.measurement import spread
from transformer_np.gradcheck.measuring.noise import rounding_changes
from transformer_np.gradcheck.measuring.precision import (
    NOTHING,
    Bounds,
    gradient_scales,
    loss_over_arguments,
    relative_error,
)
from transformer_np.layer import describe

# An error with one of these words refuses a dtype, which is no fault.
DTYPES = "float|double|dtype|precision"

# In float32 the square of the square of such a number is still one.
FAR = 1e9
TOO_LARGE = "not asked: float32 has no room for the squares of these numbers"

Property = Callable[[Pair, np.random.Generator], str]


def profile_stays(pair: Pair, rng: np.random.Generator) -> str:
    return _dtype_stays(pair, pair.dtype, rng)


def float32_stays_float32(pair: Pair, rng: np.random.Generator) -> str:
    if not _fits_float32(pair):
        return TOO_LARGE
    try:
        return _dtype_stays(pair, np.dtype(np.float32), rng)
    except Fault as fault:
        if refuses(fault, DTYPES):
            return f"not asked: {fault}"
        raise type(fault)(f"{fault}; float32=False if it is meant for float64 only", fault.kind) from fault


def float32_is_not_asked(pair: Pair, rng: np.random.Generator) -> str:
    return "not asked: float32=False"


def _dtype_stays(pair: Pair, dtype: np.dtype, rng: np.random.Generator) -> str:
    """With every argument in one dtype, the output and every gradient have it too."""
    expected = dtype
    base = forward_pass(pair, [argument.astype(dtype) for argument in pair.arguments])
    numbers = [leaf for _, leaf in leaves(base.output, "") if is_inexact(leaf)]
    for index, (member, leaf) in enumerate(zip(base.members, numbers, strict=True)):
        if member.dtype != expected and type(leaf) is not float:  # a number of Python, such as a loss, has no dtype to keep
            name = "the output" if len(base.members) == 1 else f"floating output {index}"
            raise Broken(f"for {expected} inputs, {name} is {describe(member)}, expected {expected}")
    gradients = ask_backward(pair, base, random_cotangents(base.members, rng, dtype))
    for name, gradient in zip(pair.names, gradients, strict=True):
        if gradient is not None and gradient.dtype != expected:
            raise Broken(f"for {expected} inputs, the gradient of {name} is {describe(gradient)}, expected {expected}")
    return f"{expected} in, {expected} out, and each gradient has the shape of its argument"


def _fits_float32(pair: Pair) -> bool:
    largest = [float(np.abs(argument[np.isfinite(argument)]).max(initial=0)) for argument in pair.arguments]
    return all(size == 0 or 1 / FAR < size < FAR for size in largest)


def no_warning(pair: Pair, rng: np.random.Generator) -> str:
    """Neither pass warns, in float64 or float32, or in the profile that is asked for."""
    return _no_warning_in((np.float64, np.float32) if pair.dtype == np.float64 and _fits_float32(pair) else (pair.dtype,),
                          pair, rng)


def no_warning_in_the_profile(pair: Pair, rng: np.random.Generator) -> str:
    return _no_warning_in((pair.dtype,), pair, rng)


def _no_warning_in(dtypes: Sequence[Any], pair: Pair, rng: np.random.Generator) -> str:
    warned: list[str] = []
    for dtype in dtypes:
        try:
            base = forward_pass(pair, [argument.astype(dtype) for argument in pair.arguments], warned=warned)
            ask_backward(pair, base, random_cotangents(base.members, rng, dtype), warned=warned)
        except Fault as fault:
            if dtype == pair.dtype or not refuses(fault, DTYPES):
                raise
    if warned:
        raise Broken(warned[0])
    return "none in " + " or ".join(np.dtype(dtype).name for dtype in dtypes)


def zero_cotangent_gives_zero(pair: Pair, rng: np.random.Generator) -> str:
    """A loss that does not depend on the output has a gradient of exactly 0."""
    base = forward_pass(pair, pair.given)
    zeros = tuple(np.zeros(member.shape, pair.dtype) for member in base.members)
    for name, gradient in zip(pair.names, ask_backward(pair, base, zeros), strict=True):
        if gradient is not None and not (gradient == 0).all():
            index = np.argwhere(gradient != 0)[0].tolist()
            raise Broken(f"for a cotangent of 0, the gradient of {name} at {index} is {gradient[tuple(index)]:.17g}, expected 0")
    return "exactly 0 in, exactly 0 out"


def linear_in_the_cotangent(pair: Pair, rng: np.random.Generator) -> str:
    """backward(c + 2 c') = backward(c) + 2 backward(c')."""
    _, backward = pair.called
    base = forward_pass(pair, pair.given)
    first, second = (random_cotangents(base.members, rng, pair.dtype) for _ in range(2))
    by_first = copies(ask_backward(pair, base, first))
    by_second = copies(ask_backward_again(pair, base, second))
    both = [a + 2 * b for a, b in zip(first, second, strict=True)]
    by_both = ask_backward_again(pair, base, both)
    bounds = Bounds.of(Precision.of(pair.dtype.name))
    scales = gradient_scales(by_both, base.members, both, pair.arguments)
    worst = 0.0
    for name, a, b, c, scale in zip(pair.names, by_first, by_second, by_both, scales, strict=True):
        if a is None or b is None or c is None:
            continue
        a, b, c = (np.asarray(each, np.float64) for each in (a, b, c))
        size = np.abs(a) + np.abs(2 * b)
        error = float(relative_error(c, a + 2 * b, size, bounds.noise * scale, bounds.relative).max(initial=0))
        if error > bounds.relative:  # a second look, as for the gradients: what does rounding change?
            which, rounding = pair.names.index(name), np.zeros(c.shape)
            for cotangents, gradients, share in ((both, by_both, 1), (first, by_first, 1), (second, by_second, 2)):
                changes = spread(rounding_changes(pair, cotangents, gradients, eps_of(pair.dtype), rng)[which], c)
                rounding += share * changes
            hidden = NOTHING * loss_over_arguments(base.members, both, pair.arguments)[which]
            allowed = bounds.noise * scale + bounds.rounding * rounding + hidden
            error = float(relative_error(c, a + 2 * b, size, allowed, bounds.relative).max(initial=0))
        if error > bounds.relative:
            raise Broken(f"{backward}(c + 2 c') is not {backward}(c) + 2 {backward}(c') for {name}: "
                        f"relative error {error:.1e}, bound {bounds.relative:.0e}")
        worst = max(worst, error)
    return (f"{backward}(c + 2 c') = {backward}(c) + 2 {backward}(c'), relative error {worst:.1e}, "
            f"bound {bounds.relative:.0e}")


# What kind of fault it is when the answer is no.
KINDS = {"nothing is written to": "mutated input", "no warning": "warning",
         "zero cotangent gives zero": "not zero for a zero cotangent", "linear in the cotangent": "not linear in the cotangent",
         "memory layouts agree": "stride-dependent", "two calls agree": "nondeterministic", "caches stand alone": "stale cache",
         "gradients follow the inputs": "stale cache"}

# When one of these fails, those after it that compare one call with another would fail for the same reason.
CAUSES = ("nothing is written to", "two calls agree")
COMPARISONS = {"two calls agree", "zero cotangent gives zero", "linear in the cotangent", "memory layouts agree",
               "caches stand alone", "gradients follow the inputs"}


def kind_of_fault(question: str, fault: Exception) -> str:
    """What a property finds broken is of its kind. A callable that raises, or gives what is no gradient, has its own."""
    if isinstance(fault, Fault) and fault.kind:
        return fault.kind
    return KINDS.get(question, "wrong dtype")


def properties_of(pair: Pair, *, float32: bool = True) -> dict[str, Property]:
    """The questions that a pair is asked in its profile.   float32: in float64, it is asked about float32 besides."""
    profile = pair.dtype.name
    dtypes: dict[str, Property] = {f"{profile} stays {profile}": profile_stays}
    if profile == "float64":
        dtypes["float32 stays float32"] = float32_stays_float32 if float32 else float32_is_not_asked
    return dtypes | {
        "no warning": no_warning if float32 else no_warning_in_the_profile,
        "nothing is written to": nothing_is_written_to,
        "two calls agree": two_calls_agree,
        "zero cotangent gives zero": zero_cotangent_gives_zero,
        "linear in the cotangent": linear_in_the_cotangent,
        "memory layouts agree": memory_layouts_agree,
        "caches stand alone": caches_stand_alone,
        "gradients follow the inputs": gradients_follow_the_inputs,
    }
