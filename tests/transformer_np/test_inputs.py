"""What every pair and layer keeps, whatever it computes: the dtype, the memory layout, the arrays of others.

A case is a forward and a backward on a flat list of floating arrays: the inputs of a pair, or the inputs and weights of a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pytest

import transformer_np as t
from transformer_np.blocks import DecoderBlock, EncoderBlock
from transformer_np.gradcheck import with_random_weights
from transformer_np.layer import Layer, named_arrays, with_arrays
from transformer_np.models.gpt import GPT

B, T, S, D = 2, 3, 5, 4
MASK = t.causal_mask(T, S) & t.padding_mask([2, 5], S)                          # [B, 1, T, S], with rows that allow nothing
IDS = np.array([[1, 3, 1], [0, 3, 3]])                                          # some repeat, one is missing


@dataclass
class Case:
    forward: Callable[..., Any]      # arrays -> y, cache
    backward: Callable[..., Any]     # d_y, cache -> a gradient for each of the arrays
    arrays: list[np.ndarray]         # float64

    def cotangent(self):
        y, _ = self.forward(*self.arrays)
        return np.asarray(np.random.default_rng(1).standard_normal(np.shape(y)))

    def run(self, arrays, d_y):
        """[y, and the gradients]"""
        y, cache = self.forward(*arrays)
        return [y, *self.backward(d_y, cache)]


def pair_case(name, *arrays, **settings):
    forward, backward = getattr(t, f"{name}_forward"), getattr(t, f"{name}_backward")
    return Case(lambda *arrays: forward(*arrays, **settings), lambda d_y, cache: as_list(backward(d_y, cache)), list(arrays))


def layer_case(layer, *inputs, constants=(), rng_seed=None):
    layer = with_random_weights(layer, np.random.default_rng(2))
    names, count = list(named_arrays(layer)), len(inputs)

    def forward(*arrays):
        own = with_arrays(layer, dict(zip(names, arrays[count:], strict=True)))
        dropout = {} if rng_seed is None else {"rng": np.random.default_rng(rng_seed)}
        y, cache = own.forward(*arrays[:count], *constants, **dropout)
        return y, (own, cache)

    def backward(d_y, own_and_cache):
        own, cache = own_and_cache
        *d_inputs, d_layer = as_list(own.backward(d_y, cache))
        return [*d_inputs, *named_arrays(d_layer).values()]

    return Case(forward, backward, [*inputs, *named_arrays(layer).values()])


def as_list(gradients):
    return list(gradients) if isinstance(gradients, tuple) else [gradients]


def cross_entropy_case(x):
    def forward(logits):
        (loss, _), cache = t.cross_entropy_forward(logits, np.array([[1, -100, 0], [3, 2, 3]]), label_smoothing=0.1)
        return loss, cache
    return Case(forward, lambda d_loss, cache: [t.cross_entropy_backward(d_loss, cache)], [x])


def cases():
    rng = np.random.default_rng(0)
    draw = rng.standard_normal
    x, memory = draw((B, T, D)), draw((B, S, D))
    q, k, v = draw((B, 2, T, D)), draw((B, 2, S, D)), draw((B, 2, S, 3))
    found = {name: pair_case(name, x) for name in ("softmax", "log_softmax", "relu", "gelu", "gelu_tanh", "sigmoid", "tanh",
                                                   "sinusoidal_positions")}
    found |= {
        "softmax with a mask": pair_case("softmax", x, mask=IDS[..., None] != 1, axis=1),
        "cross_entropy": cross_entropy_case(x),
        "linear": pair_case("linear", x, draw((D, 6)), draw(6)),
        "layer_norm": pair_case("layer_norm", x, draw(D), draw(D)),
        "embedding": Case(lambda weight: t.embedding_forward(IDS, weight),
                          lambda d_y, cache: [t.embedding_backward(d_y, cache)], [draw((5, D))]),
        "learned_positions": pair_case("learned_positions", x, draw((6, D))),
        "dropout": Case(lambda x: t.dropout_forward(x, 0.3, np.random.default_rng(3)),
                        lambda d_y, cache: [t.dropout_backward(d_y, cache)], [x]),
        "dropout without a generator": pair_case("dropout", x, p=0.3),
        "attention": pair_case("attention", q, k, v),
        "attention with a mask": pair_case("attention", q, k, v, mask=MASK),
        "attention with dropout": Case(lambda *qkv: t.attention_forward(*qkv, MASK, dropout=0.3, rng=np.random.default_rng(3)),
                                       lambda d_y, cache: as_list(t.attention_backward(d_y, cache)), [q, k, v]),
        "MultiHeadAttention": layer_case(t.MultiHeadAttention.create(D, 2, rng=rng), x, memory, constants=[MASK]),
        "FeedForward": layer_case(t.FeedForward.create(D, 6, rng=rng), x),
        "EncoderBlock": layer_case(EncoderBlock.create(D, 2, 6, rng=rng, dropout=0.2), x, rng_seed=3),
        "EncoderBlock post-norm": layer_case(EncoderBlock.create(D, 2, 6, rng=rng, pre_norm=False, dropout=0.2), x, rng_seed=3),
        "DecoderBlock": layer_case(DecoderBlock.create(D, 2, 6, rng=rng, activation="gelu_tanh"), x, memory,
                                   constants=[t.causal_mask(T), MASK]),
        "DecoderBlock post-norm": layer_case(DecoderBlock.create(D, 2, 6, rng=rng, pre_norm=False), x, memory),
    }
    for positions in ("learned", "sinusoidal"):
        model = GPT.create(5, context=4, d_model=D, num_layers=2, num_heads=2, positions=positions, dropout=0.2, rng=rng)
        found[f"GPT {positions}"] = layer_case(model, constants=[IDS], rng_seed=3)
    return found


CASES = cases()
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_public_pair_and_layer_has_a_case():
    words = " ".join(CASES)
    pairs = [name.removesuffix("_forward") for name in t.__all__ if name.endswith("_forward")]
    layers = [name for name in t.__all__ if isinstance(getattr(t, name), type) and issubclass(getattr(t, name), Layer)]
    # these four hold the weights of one pair, and are parts of the GPTs here
    covered_by_gpt = {"Layer", "Embedding", "LayerNorm", "LearnedPositions", "Linear", "SinusoidalPositions"}
    assert not [name for name in pairs + layers if name not in words and name not in covered_by_gpt]


# ---------------------------------------------------------------------------------------------------- dtypes

def assert_agree(results, expected, relative):
    """To a part of the largest number of all: the gradient of a key bias is zero but for rounding, and has no size of its own."""
    largest = max(np.abs(array).max() for array in expected)
    for ours, theirs in zip(results, expected, strict=True):
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * largest)


def assert_dtype_stays(case, dtype, relative):
    results = case.run([array.astype(dtype) for array in case.arrays], case.cotangent().astype(dtype))
    assert {result.dtype for result in results} == {np.dtype(dtype)}
    assert_agree(results, case.run(case.arrays, case.cotangent()), relative)


@every_case
def test_float32_stays_float32_and_agrees_with_float64(case):
    assert_dtype_stays(case, np.float32, 1e-5)  # 100 roundings of 6e-8, in two blocks and back


@pytest.mark.parametrize("case", [
    pair_case("layer_norm", np.ones((2, D)), np.ones(D), np.ones(D), eps=np.float64(1e-5)),
    pair_case("sinusoidal_positions", np.ones((T, D)), scale=np.float64(0.5)),
    pair_case("attention", np.ones((T, D)), np.ones((S, D)), np.ones((S, D)), scale=np.float64(0.5)),
], ids=["layer_norm", "sinusoidal_positions", "attention"])
def test_a_setting_that_is_a_numpy_float64_keeps_float32(case):
    """1 / np.sqrt(d) is one. Python's own numbers promote nothing, NumPy's do."""
    assert_dtype_stays(case, np.float32, 1e-6)


def test_a_label_smoothing_that_is_a_numpy_float64_keeps_float32():
    (loss, _), cache = t.cross_entropy_forward(np.ones((T, D), np.float32), np.zeros(T, int), label_smoothing=np.float64(0.1))
    assert loss.dtype == np.float32
    assert t.cross_entropy_backward(np.float32(1), cache).dtype == np.float32


@every_case
def test_float64_stays_float64(case):
    assert_dtype_stays(case, np.float64, 0)


@pytest.mark.skipif(np.finfo(np.longdouble).eps == np.finfo(np.float64).eps, reason="longdouble is float64 on this platform")
@pytest.mark.parametrize("name", [name for name in CASES if name != "gelu"])
def test_longdouble_stays_longdouble_and_agrees_with_float64(name):
    assert_dtype_stays(CASES[name], np.longdouble, 1e-13)


def test_gelu_has_no_longdouble():
    with pytest.raises(TypeError, match="erfc"):
        t.gelu_forward(np.zeros(2, np.longdouble))


# ---------------------------------------------------------------------------------------------------- memory layouts

def strided(array):
    wide = np.full([2 * size for size in array.shape], np.nan)
    view = wide[(..., *(slice(1, None, 2) for _ in array.shape))]
    view[...] = array
    return view


def reversed_in_memory(array):
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    return array[backwards].copy()[backwards]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


LAYOUTS = {
    "Fortran order": np.asfortranarray, "strided": strided, "negative strides": reversed_in_memory, "read-only": read_only,
    "unaligned": unaligned, "other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
}


@every_case
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_memory_layout_of_inputs_and_cotangents_does_not_matter(case, layout):
    d_y = case.cotangent()
    results = case.run([layout(array) for array in case.arrays], layout(d_y))
    assert_agree(results, case.run(case.arrays, d_y), 1e-13)  # products of other layouts add in other orders


@every_case
def test_broadcast_inputs_and_cotangents_are_as_good_as_copies(case):
    stretched = [np.broadcast_to(array[:1], array.shape) for array in case.arrays]
    d_y = np.broadcast_to(case.cotangent()[..., :1], case.cotangent().shape) if case.cotangent().ndim else case.cotangent()
    expected = case.run([array.copy() for array in stretched], d_y.copy())
    assert_agree(case.run(stretched, d_y), expected, 1e-13)


# ---------------------------------------------------------------------------------------------------- the arrays of others

def arrays_within(value):
    """Every array of a cache, however deep."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays_within(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from arrays_within(getattr(value, field.name))


@every_case
def test_nothing_is_written_but_what_was_allocated(case):
    arrays, d_y = [read_only(array) for array in case.arrays], read_only(case.cotangent())
    _, cache = case.forward(*arrays)
    for array in arrays_within(cache):
        array.flags.writeable = False  # from here on, writing into the cache raises
    once, again = case.backward(d_y, cache), case.backward(d_y, cache)
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first, second)


@every_case
def test_two_forwards_then_two_backwards_in_either_order(case):
    other = [array + 0.5 * np.random.default_rng(4).standard_normal(array.shape) for array in case.arrays]
    d_y, d_other = case.cotangent(), -2 * case.cotangent()
    expected, expected_other = case.run(case.arrays, d_y)[1:], case.run(other, d_other)[1:]
    _, cache = case.forward(*case.arrays)
    _, other_cache = case.forward(*other)
    for first, second in (((d_y, cache, expected), (d_other, other_cache, expected_other)),
                          ((d_other, other_cache, expected_other), (d_y, cache, expected))):
        for d, c, gradients in (first, second):
            for ours, theirs in zip(case.backward(d, c), gradients, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@every_case
def test_a_zero_cotangent_gives_a_zero_gradient(case):
    _, *gradients = case.run(case.arrays, np.zeros_like(case.cotangent()))
    assert all((gradient == 0).all() for gradient in gradients)


@every_case
def test_backward_is_linear_in_the_cotangent(case):
    _, cache = case.forward(*case.arrays)
    one = case.cotangent()
    two = np.asarray(np.random.default_rng(5).standard_normal(one.shape))
    parts = zip(case.backward(one, cache), case.backward(two, cache), case.backward(3 * one - 2 * two, cache), strict=True)
    for of_one, of_two, of_both in parts:
        np.testing.assert_allclose(of_both, 3 * of_one - 2 * of_two, rtol=0, atol=1e-12 * max(np.abs(of_one).max(initial=0), 1))


@every_case
def test_subnormal_numbers_are_numbers(case):
    tiny = [np.full_like(array, 5e-324) for array in case.arrays]
    for result in case.run(tiny, np.full_like(case.cotangent(), 5e-324)):
        assert np.isfinite(result).all()
