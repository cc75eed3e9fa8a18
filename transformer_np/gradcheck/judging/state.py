"""What a pair leaves behind: in the arrays that it was given, in a cache, or in itself, from one call to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.pair import Pair, backward_pass, forward_pass
from transformer_np.gradcheck.judging.asking import Broken, Gradients, ask_backward, ask_backward_again, copies, elsewhere
from transformer_np.gradcheck.measuring.loss import Loss, Move, Product
from transformer_np.gradcheck.measuring.measurement import random_direction
from transformer_np.gradcheck.measuring.methods import choose
from transformer_np.gradcheck.measuring.precision import UNCERTAIN
from transformer_np.gradcheck.measuring.visible import is_visible
from transformer_np.layer import Array

# Slopes at other inputs are other slopes if they differ by more, relative.
SAME_SLOPE = 1e-5


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


def two_calls_agree(pair: Pair, rng: np.random.Generator) -> str:
    """The same inputs give the same output, and the same cache and cotangent the same gradients, to the last bit."""
    first = forward_pass(pair, pair.given)
    cotangents = random_cotangents(first.members, rng, pair.dtype)
    gradients = copies(ask_backward(pair, first, cotangents))
    _require_same(pair, ask_backward_again(pair, first, cotangents), gradients, "in a second backward on the same cache")
    outputs = [member.copy() for member in first.members]
    second = forward_pass(pair, pair.given)
    if len(outputs) != len(second.members) or not all(map(np.array_equal, outputs, second.members)):
        raise Broken("a second forward on the same inputs gives another output: is it random, or is something left behind?")
    _require_same(pair, ask_backward(pair, second, cotangents), gradients, "after a second forward on the same inputs")
    return "forward and backward repeat to the last bit"


def caches_stand_alone(pair: Pair, rng: np.random.Generator) -> str:
    """Two forwards on different inputs, then the two backwards in either order, give what each gives alone."""
    inputs = ((pair.given, pair.constants), _other_inputs(pair, rng))
    pairs = (pair, elsewhere(pair))
    cotangents, alone = [], []
    for each, (arguments, constants) in zip(pairs, inputs, strict=True):
        outcome = forward_pass(each, arguments, constants)
        cotangents.append(random_cotangents(outcome.members, rng, pair.dtype))
        alone.append(copies(ask_backward(each, outcome, cotangents[-1])))
    for order in ((0, 1), (1, 0)):
        outcomes = [forward_pass(pair, arguments, constants) for arguments, constants in inputs]
        together = {which: ask_backward(pairs[which], outcomes[which], cotangents[which]) for which in order}
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
    before, after = copies(ask_backward(pair, here, cotangents)), copies(ask_backward(elsewhere(pair), there, cotangents))
    wide = [np.asarray(cotangent, np.float64) for cotangent in cotangents]
    moved = tuple(np.asarray(argument, np.float64) for argument in arguments)
    other_pair = replace(pair, arguments=moved, constants=tuple(constants))
    for which, (name, first, second) in enumerate(zip(pair.names, before, after, strict=True)):
        if first is None or second is None or not first.any() or not np.array_equal(first, second):
            continue
        loss, other_loss = Loss(pair, wide), Loss(other_pair, wide)
        product, other_product = (choose(each, "auto", rng)[0][which] for each in (loss, other_loss))
        move = {which: random_direction(loss, which, rng)}
        slope, at_most = _slope(loss, move, product)
        other_slope, other_at_most = _slope(other_loss, move, other_product)
        given = float((np.asarray(second, np.float64) * move[which]).sum())
        differ = abs(slope - other_slope) > at_most + other_at_most
        is_the_first = abs(given - slope) <= other_at_most < abs(given - other_slope)
        if differ and is_the_first and is_visible(other_loss, move, other_product, given):
            raise Broken(f"at other inputs of the same shape, the gradient of {name} is the same to the last bit, where its "
                         f"slope along a random direction goes from {slope:.9g} to {other_slope:.9g}: backward keeps something "
                         "of earlier inputs")
    return "no gradient is still that of earlier inputs"


def _slope(loss: Loss, move: Move, product: Product) -> tuple[float, float]:
    """Of the loss along a move, and by how much it may be wrong."""
    change, error = product(loss, move)
    rounding = max(SAME_SLOPE, math.sqrt(loss.eps))
    return float(loss.weights @ change), UNCERTAIN * error + rounding * float(np.abs(loss.weights * change).sum())


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
