"""What every right pair does besides giving the right numbers. Each property is one function, and one check of the report.

A property raises `Broken` with a sentence where it does not hold. Any other `Fault` is of a callable, which raised an error or
gave what is no gradient: it has a kind of its own, and the property is then not what is broken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import Unsupported, is_inexact
from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.layouts import LAYOUTS, c_order
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Outcome, Pair, backward_pass, forward_pass
from transformer_np.gradcheck.calling.rounding import Precision, eps_of
from transformer_np.gradcheck.calling.trees import leaves
from transformer_np.gradcheck.measuring.loss import Loss, Move
from transformer_np.gradcheck.measuring.measurement import random_direction, spread
from transformer_np.gradcheck.measuring.methods import choose
from transformer_np.gradcheck.measuring.noise import rounding_changes
from transformer_np.gradcheck.measuring.precision import UNCERTAIN, Bounds, gradient_scales, relative_error
from transformer_np.gradcheck.measuring.wider import next_to_nothing
from transformer_np.layer import Array, describe

# An error with one of these words refuses what it was given, which is no fault: a layout, or a dtype.
LAYOUT_WORDS = "contiguous|stride|layout"
DTYPES = "float|double|dtype|precision"

# What is chance.
NOT_AGAIN = "and it did not when it was called again with the same"

# Slopes at other inputs are other slopes if they differ by more, relative.
SAME_SLOPE = 1e-5

# In float32 the square of the square of such a number is still one.
FAR = 1e9
TOO_LARGE = "not asked: float32 has no room for the squares of these numbers"

Gradients = Sequence[Array | None]
Property = Callable[[Pair, np.random.Generator], str]


class Broken(Fault):
    """A property does not hold. Without a kind, it is that of the property."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message, kind)


def nothing_is_written_to(pair: Pair, rng: np.random.Generator) -> str:
    """Forward leaves its inputs and weights as they were; backward leaves those, the cotangent, the output and the cache."""
    arguments = pair.given
    given = {f"{'input' if index < pair.num_inputs else 'weight'} {name}": argument
             for index, (name, argument) in enumerate(zip(pair.names, arguments, strict=True))}
    given |= {f"constant input {index}": constant for index, constant in enumerate(pair.constants)}
    before = _snapshot(given)
    base = forward_pass(pair, arguments)
    _require_unchanged(before, given, pair.called[0])
    cotangents = random_cotangents(base.members, rng, pair.dtype)
    left = {**given, "d_output": list(cotangents), "output": base.output, "cache": base.cache}
    before = _snapshot(left)
    backward_pass(pair, base, cotangents)
    _require_unchanged(before, left, pair.called[1])
    return "inputs, weights, cotangent, output and cache are as they were"


def profile_stays(pair: Pair, rng: np.random.Generator) -> str:
    return _dtype_stays(pair, pair.dtype, rng)


def float32_stays_float32(pair: Pair, rng: np.random.Generator) -> str:
    if not _fits_float32(pair):
        return TOO_LARGE
    try:
        return _dtype_stays(pair, np.dtype(np.float32), rng)
    except Fault as fault:
        if _refuses(fault, DTYPES):
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
    gradients = _backward(pair, base, random_cotangents(base.members, rng, dtype))
    for name, gradient in zip(pair.names, gradients, strict=True):
        if gradient is not None and gradient.dtype != expected:
            raise Broken(f"for {expected} inputs, the gradient of {name} is {describe(gradient)}, expected {expected}")
    return f"{expected} in, {expected} out, and each gradient has the shape of its argument"


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
            _backward(pair, base, random_cotangents(base.members, rng, dtype), warned=warned)
        except Fault as fault:
            if dtype == pair.dtype or not _refuses(fault, DTYPES):
                raise
    if warned:
        raise Broken(warned[0])
    return "none in " + " or ".join(np.dtype(dtype).name for dtype in dtypes)


def zero_cotangent_gives_zero(pair: Pair, rng: np.random.Generator) -> str:
    """A loss that does not depend on the output has a gradient of exactly 0."""
    base = forward_pass(pair, pair.given)
    zeros = tuple(np.zeros(member.shape, pair.dtype) for member in base.members)
    for name, gradient in zip(pair.names, _backward(pair, base, zeros), strict=True):
        if gradient is not None and not (gradient == 0).all():
            index = np.argwhere(gradient != 0)[0].tolist()
            raise Broken(f"for a cotangent of 0, the gradient of {name} at {index} is {gradient[tuple(index)]:.17g}, expected 0")
    return "exactly 0 in, exactly 0 out"


def linear_in_the_cotangent(pair: Pair, rng: np.random.Generator) -> str:
    """backward(c + 2 c') = backward(c) + 2 backward(c')."""
    _, backward = pair.called
    base = forward_pass(pair, pair.given)
    first, second = (random_cotangents(base.members, rng, pair.dtype) for _ in range(2))
    by_first = _copies(_backward(pair, base, first))
    by_second = _copies(_backward_again(pair, base, second))
    both = [a + 2 * b for a, b in zip(first, second, strict=True)]
    by_both = _backward_again(pair, base, both)
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
                rounding += share * np.maximum(changes, next_to_nothing(pair, base.members, cotangents, gradients)[which])
            allowed = bounds.noise * scale + bounds.rounding * rounding
            error = float(relative_error(c, a + 2 * b, size, allowed, bounds.relative).max(initial=0))
        if error > bounds.relative:
            raise Broken(f"{backward}(c + 2 c') is not {backward}(c) + 2 {backward}(c') for {name}: "
                        f"relative error {error:.1e}, bound {bounds.relative:.0e}")
        worst = max(worst, error)
    return (f"{backward}(c + 2 c') = {backward}(c) + 2 {backward}(c'), relative error {worst:.1e}, "
            f"bound {bounds.relative:.0e}")


def memory_layouts_agree(pair: Pair, rng: np.random.Generator) -> str:
    """The same numbers lie in memory in another way, in the inputs and weights first, then in the cotangents: the output and the
    gradients are the same, but for the order of sums. Equal numbers along the first axis may lie there once, with a stride of 0.

    To refuse a layout with an error that names it is right; to read other numbers is not.
    """
    left_out: dict[str, None] = {}
    for layout, lay_out in LAYOUTS.items():
        arguments, constants, asked = pair.given, pair.constants, pair
        if layout == "stride 0":
            arguments, asked = tuple(_equal_rows(argument) for argument in arguments), _elsewhere(pair)
        drawn = int(rng.integers(2 ** 32))
        try:
            base, cotangents, expected = _in_c_order(asked, arguments, constants, layout, drawn)
        except Fault as fault:
            if layout != "stride 0":
                raise
            try:  # equal rows may be outside of what the two take, but then they are at every call
                _in_c_order(asked, arguments, constants, layout, drawn)
            except Fault:
                left_out[layout] = None
                continue
            raise Fault(f"{fault}; {NOT_AGAIN}", fault.kind) from fault
        members = _copies(base.members)
        laid_constants = [lay_out(constant) if isinstance(constant, np.ndarray) else constant for constant in constants]
        for whose, used, others, weights in (
                ("inputs", [lay_out(argument) for argument in arguments], laid_constants,
                 [cotangent.copy() for cotangent in cotangents]),
                ("cotangents", arguments, constants, [lay_out(cotangent) for cotangent in cotangents])):
            try:
                outcome, gradients = _both_passes(pair, used, others, weights)
            except Unsupported:  # torch has no negative strides
                left_out[layout] = None
                continue
            except Fault as fault:
                if _refuses(fault, LAYOUT_WORDS):
                    left_out[layout] = None
                    continue
                try:  # an error that does not come again is not the layout's
                    _both_passes(pair, used, others, weights)
                except Fault:
                    raise Broken(f"with {whose} in memory in another way ({layout}): {fault}") from None
                raise Fault(f"{fault}; {NOT_AGAIN}", fault.kind) from fault
            when = f"with {whose} in memory in another way ({layout})"
            try:
                _require_both_close(pair, outcome, gradients, members, expected, when)
            except Broken as broken:
                _require_both_close(pair, *_both_passes(pair, used, others, weights), members, expected, when)
                raise Broken(f"{broken}; {NOT_AGAIN}", "nondeterministic") from None
    says = "the same for inputs and cotangents in " + ", ".join(layout for layout in LAYOUTS if layout not in left_out)
    return says + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _in_c_order(pair: Pair, arguments: Sequence[Array], constants: Sequence[Any], layout: str,
                seed: int) -> tuple[Outcome, Sequence[Array], Gradients]:
    base = forward_pass(pair, arguments, constants)
    cotangents = random_cotangents(base.members, np.random.default_rng(seed), pair.dtype)
    if layout == "stride 0":
        cotangents = tuple(_equal_rows(cotangent) for cotangent in cotangents)
    return base, cotangents, _copies(_backward(pair, base, cotangents))


def two_calls_agree(pair: Pair, rng: np.random.Generator) -> str:
    """The same inputs give the same output, and the same cache and cotangent the same gradients, to the last bit."""
    first = forward_pass(pair, pair.given)
    cotangents = random_cotangents(first.members, rng, pair.dtype)
    gradients = _copies(_backward(pair, first, cotangents))
    _require_same(pair, _backward_again(pair, first, cotangents), gradients, "in a second backward on the same cache")
    outputs = [member.copy() for member in first.members]
    second = forward_pass(pair, pair.given)
    if len(outputs) != len(second.members) or not all(map(np.array_equal, outputs, second.members)):
        raise Broken("a second forward on the same inputs gives another output: is it random, or is something left behind?")
    _require_same(pair, _backward(pair, second, cotangents), gradients, "after a second forward on the same inputs")
    return "forward and backward repeat to the last bit"


def caches_stand_alone(pair: Pair, rng: np.random.Generator) -> str:
    """Two forwards on different inputs, then the two backwards in either order, give what each gives alone."""
    inputs = ((pair.given, pair.constants), _other_inputs(pair, rng))
    pairs = (pair, _elsewhere(pair))
    cotangents, alone = [], []
    for each, (arguments, constants) in zip(pairs, inputs, strict=True):
        outcome = forward_pass(each, arguments, constants)
        cotangents.append(random_cotangents(outcome.members, rng, pair.dtype))
        alone.append(_copies(_backward(each, outcome, cotangents[-1])))
    for order in ((0, 1), (1, 0)):
        outcomes = [forward_pass(pair, arguments, constants) for arguments, constants in inputs]
        together = {which: _backward(pairs[which], outcomes[which], cotangents[which]) for which in order}
        for which in order:
            _require_same(pair, together[which], alone[which], "when two forwards run before their two backwards: what backward "
                          "needs belongs into the cache, and what it returns into new arrays")
    return "two forwards, then two backwards in either order, give what each gives alone"


def gradients_follow_the_inputs(pair: Pair, rng: np.random.Generator) -> str:
    """A backward that keeps what it computed from the first inputs, for all of their shape, is right where it was measured, and
    two of its caches never get into each other's way: to see it, one must measure at other inputs too.

    It gives the same gradient at both, to the last bit. A function that is linear in an argument has such a gradient and is right
    to; so it is asked only whether, along one direction, the slopes at the two differ, and the gradient is that of the first.
    """
    arguments, constants = _other_inputs(pair, rng)
    here, there = forward_pass(pair, pair.given), forward_pass(pair, arguments, constants)
    cotangents = random_cotangents(here.members, rng, pair.dtype)
    if [member.shape for member in there.members] != [cotangent.shape for cotangent in cotangents]:
        return "not asked: other inputs give outputs of another shape"
    before, after = _copies(_backward(pair, here, cotangents)), _copies(_backward(_elsewhere(pair), there, cotangents))
    wide = [np.asarray(cotangent, np.float64) for cotangent in cotangents]
    moved = tuple(np.asarray(argument, np.float64) for argument in arguments)
    elsewhere = replace(pair, arguments=moved, constants=tuple(constants))
    for which, (name, first, second) in enumerate(zip(pair.names, before, after, strict=True)):
        if first is None or second is None or not first.any() or not np.array_equal(first, second):
            continue
        loss, other_loss = Loss(pair, wide), Loss(elsewhere, wide)
        move = {which: random_direction(loss, which, rng)}
        slope, at_most = _slope(loss, move, which, rng)
        other_slope, other_at_most = _slope(other_loss, move, which, rng)
        given = float((np.asarray(second, np.float64) * move[which]).sum())
        if abs(slope - other_slope) > at_most + other_at_most and abs(given - other_slope) > other_at_most >= abs(given - slope):
            raise Broken(f"at other inputs of the same shape, the gradient of {name} is the same to the last bit, where its "
                         f"slope along a random direction goes from {slope:.9g} to {other_slope:.9g}: backward keeps something "
                         "of earlier inputs")
    return "no gradient is still that of earlier inputs"


def _slope(loss: Loss, move: Move, which: int, rng: np.random.Generator) -> tuple[float, float]:
    """Of the loss along a move of one argument, and by how much it may be wrong."""
    products, _ = choose(loss, "auto", rng)
    change, error = products[which](loss, move)
    rounding = max(SAME_SLOPE, math.sqrt(loss.eps))
    return float(loss.weights @ change), UNCERTAIN * error + rounding * float(np.abs(loss.weights * change).sum())


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


def _refuses(fault: Fault, words: str) -> bool:
    """Whether a callable raised an error of its own that says what it does not take."""
    error = fault.__cause__
    return error is not None and (isinstance(error, NotImplementedError) or
                                  re.search(words, str(error), re.IGNORECASE) is not None)


def _fits_float32(pair: Pair) -> bool:
    largest = [float(np.abs(argument[np.isfinite(argument)]).max(initial=0)) for argument in pair.arguments]
    return all(size == 0 or 1 / FAR < size < FAR for size in largest)


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


# ---------------------------------------------------------------------------------------------------- helpers

def _other_inputs(pair: Pair, rng: np.random.Generator) -> tuple[Sequence[Array], Sequence[Any]]:
    """Other inputs of the same shapes, and the same weights: floating inputs move by some 10 %. Where there are none, as for
    token ids, the integers change places, so that they stay in their range."""
    arguments, constants = list(pair.given), list(pair.constants)
    for index in range(pair.num_inputs):
        changed = pair.arguments[index] * (1 + 0.1 * rng.standard_normal(arguments[index].shape))
        arguments[index] = changed.astype(pair.dtype)
    if pair.num_inputs == 0:
        constants = [np.roll(value, 1) if isinstance(value, np.ndarray) else value for value in constants]
    return arguments, constants


def _elsewhere(pair: Pair) -> Pair:
    """At other inputs the output may not depend on an argument that it depends on here."""
    return replace(pair, absent=None)


def _both_passes(pair: Pair, arguments: Sequence[Array], constants: Sequence[Any],
                 cotangents: Sequence[Array]) -> tuple[Outcome, Gradients]:
    outcome = forward_pass(pair, arguments, constants)
    return outcome, backward_pass(pair, outcome, cotangents)


def _backward(pair: Pair, outcome: Outcome, cotangents: Sequence[Array], *, warned: list[str] | None = None) -> Gradients:
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


def _backward_again(pair: Pair, outcome: Outcome, cotangents: Sequence[Array]) -> Gradients:
    """On a cache that backward had before. One that cannot do that, as torch without retain_graph, uses its cache up."""
    try:
        return _backward(pair, outcome, cotangents)
    except Broken:
        raise
    except Fault as fault:
        fresh = forward_pass(pair, pair.given)
        _backward(pair, fresh, cotangents)
        try:
            _backward(pair, fresh, cotangents)
        except Fault:
            raise Fault(f"{fault}; it did so at its second call on one cache, and not at the first: backward may be called "
                        "several times on one cache, so that nothing may be freed or used up there (in torch: retain_graph=True)",
                        "cache used up") from fault
        raise


def _equal_rows(array: Array) -> Array:
    """As it is at the first index, everywhere."""
    return c_order(np.broadcast_to(array[:1], array.shape)) if array.ndim and array.size else array


def _require_both_close(pair: Pair, outcome: Outcome, gradients: Gradients, members: Gradients, expected: Gradients,
                        when: str) -> None:
    names = ["the output" if len(members) == 1 else f"floating output {index}" for index in range(len(members))]
    _require_close(pair, names, outcome.members, members, when)
    _require_close(pair, [f"the gradient of {name}" for name in pair.names], gradients, expected, when)


def _require_close(pair: Pair, names: Sequence[str], got: Gradients, expected: Gradients, when: str) -> None:
    """The same numbers but for the order of sums."""
    bounds = Bounds.of(Precision.of(pair.dtype.name))
    # the rounding of all of them, since a gradient that is zero in truth (the bias of keys) is left with that of the others
    finite = [np.abs(array[np.isfinite(array)]).max(initial=0) for array in expected if array is not None]
    noise = bounds.noise * float(max(finite, default=0))
    for name, a, b in zip(names, got, expected, strict=True):
        if a is None or b is None:
            continue
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise Broken(f"{when}, {name} has shape {list(a.shape)}, expected {list(b.shape)}")
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(same, 0, relative_error(a, b, np.abs(b), noise, bounds.relative))
        if error.size and error.max() > bounds.rounding * bounds.relative:
            index = np.unravel_index(error.argmax(), error.shape)
            raise Broken(f"{when}, {name} is {a[index]:.9g} at {[int(i) for i in index]}, expected {b[index]:.9g}; "
                        f"other: {int((error > bounds.rounding * bounds.relative).sum())} of {error.size}")


def _copies(arrays: Gradients) -> Gradients:
    """A buffer that is returned again and again must not look like equal results."""
    return [None if array is None else array.copy() for array in arrays]


def _require_same(pair: Pair, got: Gradients, expected: Gradients, when: str) -> None:
    for name, a, b in zip(pair.names, got, expected, strict=True):
        same = a is b if a is None or b is None else np.array_equal(a, b, equal_nan=True)
        if not same:
            raise Broken(f"the gradient of {name} differs {when}")


def _require_unchanged(before: dict[str, bytes], value: Any, culprit: str) -> None:
    after = _snapshot(value)
    for name, content in before.items():
        if after.get(name) != content:
            raise Broken(f"{culprit} changed {name}")


def _snapshot(value: Any) -> dict[str, bytes]:
    """The bytes of every array and number that can be reached from a value, under its name."""
    return {name: np.asarray(leaf).tobytes() for name, leaf in _leaves(value)}


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """A loop and no recursion: a cache may be nested as deep as it likes."""
    seen: dict[int, Any] = {}   # by their ids, which are theirs as long as they are kept here
    waiting = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, np.ndarray | np.generic | int | float | complex):
            yield name, value
            continue
        if id(value) in seen or isinstance(value, type | ModuleType):
            continue
        seen[id(value)] = value
        if isinstance(value, tuple | list):
            children = {str(index): item for index, item in enumerate(value)}
        elif isinstance(value, dict):
            children = {str(key): item for key, item in value.items()}
        else:
            children = _attributes(value)
        waiting += [(f"{name}.{key}" if name else key, child) for key, child in reversed(children.items())]


def _attributes(value: Any) -> dict[str, Any]:
    try:
        slots = {field.name: getattr(value, field.name, None) for field in fields(value)} if is_dataclass(value) else {}
        return slots | getattr(value, "__dict__", {})
    except Exception:  # an object that does not let itself be looked at
        return {}
