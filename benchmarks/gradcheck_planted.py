"""Planted bugs: right pairs with one thing wrong, as data for `gradcheck_detection.py`.

Each is a line or two round a right pair, with the kind of fault that the gradient checker must name. The numbered ones were found
in public NumPy implementations; the others are what one gets wrong by hand, or in a kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from baselines_np.convolution import convolution_1d_backward, convolution_1d_forward
from baselines_np.lstm import LSTMCache, lstm_backward, lstm_forward, lstm_step_backward
from baselines_np.rnn import RNNCache, rnn_backward, rnn_forward, rnn_step_backward
from baselines_np.weight_norm import weight_norm_backward, weight_norm_forward
from transformer_np.activations import (
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from transformer_np.attention import attention_backward, attention_forward
from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.dropout import dropout_backward, dropout_forward
from transformer_np.embedding import embedding_backward, embedding_forward
from transformer_np.gradcheck import random_mask
from transformer_np.layer import Array
from transformer_np.linear import linear_backward, linear_forward
from transformer_np.normalization import layer_norm_backward, layer_norm_forward
from transformer_np.softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward


@dataclass(frozen=True)
class Pair:
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    inputs: Sequence[Any]


@dataclass(frozen=True)
class Bug:
    """name: what is wrong, in a few words.   kind: of fault, one of the diagnoses must be it.   wrong: the pair with the bug.
    right: the same without it.   number: in the list of bugs found in public code."""

    name: str
    kind: str
    wrong: Pair
    right: Pair
    number: int | None = None


# ---------------------------------------------------------------------------------------------------- right pairs

RNG = np.random.default_rng(11)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


def plain(function: Callable[..., Any], vjp: Callable[..., Any], *inputs: Any) -> Pair:
    """A pair of a function and its `vjp(d, *inputs)`: the inputs are the cache."""
    return Pair(lambda *inputs: (function(*inputs), inputs), lambda d, cache: vjp(d, *cache), inputs)


X, CAUSAL = normal(2, 3, 5), np.tril(np.ones((6, 6), bool))
MASK, IDS, TARGETS = random_mask(RNG, (2, 4, 6)), np.array([[3, 0, 3], [6, 3, 1]]), np.array([[4, 0, 2], [1, 4, -100]])
TIES = X.copy()
TIES[0, 0, 1] = TIES[0, 0, TARGETS[0, 0]]

SOFTMAX = Pair(softmax_forward, softmax_backward, [X])
LOG_SOFTMAX = Pair(log_softmax_forward, log_softmax_backward, [X])
LAYER_NORM = Pair(layer_norm_forward, layer_norm_backward, [X, 1 + normal(5), normal(5)])
WIDE_GAIN, WIDE_BIAS = 1 + normal(2048), normal(2048)
WIDE_LAYER_NORM = Pair(lambda x: layer_norm_forward(x, WIDE_GAIN.astype(x.dtype), WIDE_BIAS.astype(x.dtype)),
                       lambda d, cache: layer_norm_backward(d, cache)[0], [normal(1, 2048)])
CROSS_ENTROPY = Pair(lambda logits: cross_entropy_forward(logits, TARGETS), cross_entropy_backward, [X])
CROSS_ENTROPY_TIES = replace(CROSS_ENTROPY, inputs=[TIES])
LINEAR = Pair(linear_forward, linear_backward, [X, normal(5, 4), normal(4)])
SQUARE_LINEAR = replace(LINEAR, inputs=[X, normal(5, 5), normal(5)])
ATTENTION = Pair(attention_forward, attention_backward, [normal(2, 4, 5), normal(2, 6, 5), normal(2, 6, 3), MASK])
SELF_ATTENTION = replace(ATTENTION, inputs=[normal(2, 4, 5), normal(2, 4, 5), normal(2, 4, 5)])
CAUSAL_SOFTMAX = Pair(lambda x: softmax_forward(x, CAUSAL), softmax_backward, [normal(6, 6)])
MASKED_SOFTMAX = Pair(lambda x: softmax_forward(x, MASK), softmax_backward, [normal(2, 4, 6)])
DROPPED_ATTENTION = Pair(lambda q, k, v: attention_forward(q, k, v, dropout=0.5, rng=np.random.default_rng(1)),
                         attention_backward, ATTENTION.inputs[:3])
EMBEDDING = Pair(embedding_forward, embedding_backward, [IDS, normal(7, 5)])
GELU, GELU_TANH = Pair(gelu_forward, gelu_backward, [X]), Pair(gelu_tanh_forward, gelu_tanh_backward, [X])
RELU, TANH = Pair(relu_forward, relu_backward, [X]), Pair(tanh_forward, tanh_backward, [X])
SIGMOID = Pair(sigmoid_forward, sigmoid_backward, [X])
SATURATED = plain(lambda x: sigmoid_forward(x)[0], lambda d, x: sigmoid_backward(d, sigmoid_forward(x)[1]),
                  np.array([[-800.0, -3, 0.5], [2, 30, 800]]))
DROPOUT = Pair(lambda x: dropout_forward(x, 0.5, rng=np.random.default_rng(1)), dropout_backward, [X])
RNN = Pair(rnn_forward, rnn_backward, [normal(3, 4, 2), normal(2, 5), normal(5, 5), normal(5), None])
LSTM = Pair(lstm_forward, lstm_backward, [normal(2, 3, 2), normal(2, 8), normal(2, 8), normal(8), normal(2, 2), normal(2, 2)])
CONVOLUTION = Pair(convolution_1d_forward, convolution_1d_backward, [normal(2, 9, 3), normal(3, 3, 4), normal(4)])
STRIDED = Pair(lambda x, weight, bias: convolution_1d_forward(x, weight, bias, stride=2), convolution_1d_backward,
               [normal(2, 10, 3), normal(3, 3, 4), normal(4)])
WEIGHT_NORM = Pair(weight_norm_forward, weight_norm_backward, [normal(3, 2, 4), normal(4)])

SQUARES = plain(lambda x: x * x, lambda d, x: 2 * d * x, X)
PRODUCT = plain(lambda x: x * np.sin(x), lambda d, x: d * (np.sin(x) + x * np.cos(x)), X)
RESIDUAL = plain(lambda x: x + np.sin(x), lambda d, x: d + d * np.cos(x), X)
TWO_OUTPUTS = plain(lambda x: (np.sin(x), x * x), lambda d, x: d[0] * np.cos(x) + 2 * d[1] * x, X)
BITS = plain(lambda p: -np.log2(p), lambda d, p: -d / (p * math.log(2)), 0.1 + RNG.random((3, 4)))
WAVES = plain(lambda x: np.sin(math.pi * x), lambda d, x: math.pi * d * np.cos(math.pi * x), X)
RUNNING_SUM = plain(lambda x: x.cumsum(axis=-1), lambda d, x: d[..., ::-1].cumsum(axis=-1)[..., ::-1], X)
MASKED_SQUARES = plain(lambda x: np.where(CAUSAL, x * x, 0), lambda d, x: np.where(CAUSAL, 2 * d * x, 0), normal(6, 6))
POWER = plain(lambda x: x * x * x, lambda d, x: 3 * d * x * x, np.array([[0.0, 1.5, -2.0], [0.7, 0.0, 3.0]]))
PIECES = plain(lambda x: x[:, 1:] * x[:, :-1], lambda d, x: np.pad(d * x[:, :-1], ((0, 0), (1, 0)))
               + np.pad(d * x[:, 1:], ((0, 0), (0, 1))), normal(3, 6))
MERGE = plain(lambda y: y.swapaxes(1, 2).reshape(2, 4, 6), lambda d, y: d.reshape(2, 4, 3, 2).swapaxes(1, 2), normal(2, 3, 4, 2))
TIED = plain(lambda ids, table: np.tanh(table[ids]) @ table.T, lambda d, ids, table: sum(tied_gradients(d, ids, table)), IDS,
             normal(7, 5))
TILED = replace(LINEAR, inputs=[normal(10, 5), normal(5, 4), normal(4)])
LARGE = plain(lambda x: (x * x).sum(axis=0), lambda d, x: 2 * d * x, 0.1 * normal(2500, 4))
MAXIMUM = plain(lambda x: x.max(axis=-1), lambda d, x: d[..., None] * (np.arange(5) == x.argmax(axis=-1)[..., None]),
                np.round(normal(2, 3, 5)))
RELU_AT_ZERO = replace(RELU, inputs=[np.where(np.arange(5) > 1, X, 0)])


def tied_gradients(d: Array, ids: Array, table: Array) -> tuple[Array, Array]:
    """Of the table where it is looked up, and of the table where it gives the logits."""
    h = np.tanh(table[ids])                                                     # [B, T, D]
    looked_up = np.zeros_like(table)                                            # [V, D]
    np.add.at(looked_up, ids, d @ table * (1 - h * h))
    return looked_up, np.einsum("btv,btd->vd", d, h)


def micro_batches(x: Array) -> list[tuple[Any, int]]:
    """A batch in two parts, 3 tokens and 2 that count: cache and count of each."""
    parts = [cross_entropy_forward(x[row], TARGETS[row]) for row in range(2)]
    return [(cache, int(count)) for (_, count), cache in parts]


BATCHES = Pair(lambda x: (cross_entropy_forward(x, TARGETS)[0][0], micro_batches(x)), lambda d, parts: np.stack(
    [cross_entropy_backward(d * count / 5, cache) for cache, count in parts]), [X])


# ---------------------------------------------------------------------------------------------------- ways of being wrong

def backward(right: Pair, wrong: Callable[..., Any]) -> Pair:
    """With another backward."""
    return replace(right, backward=wrong)


def forward(right: Pair, wrong: Callable[..., Any]) -> Pair:
    """With another forward."""
    return replace(right, forward=wrong)


def gradient(right: Pair, change: Callable[..., Any], which: int = 0) -> Pair:
    """`change(gradient, d, cache)` is given in place of one gradient."""
    def wrong(d: Any, cache: Any) -> Any:
        gradients = right.backward(d, cache)
        if not isinstance(gradients, tuple):
            return change(gradients, d, cache)
        return *gradients[:which], change(gradients[which], d, cache), *gradients[which + 1:]

    return replace(right, backward=wrong)


def times(right: Pair, factor: float, which: int = 0) -> Pair:
    return gradient(right, lambda g, *_: g * factor, which)


def by_tiles(d_y: Array, rows: Array, overlapping: bool) -> Array:
    """The gradient of a weight, added up over tiles of 4 rows. What is left at the end is dropped, or is a tile that overlaps."""
    whole = len(rows) // 4 * 4
    starts = [*range(0, whole, 4), *([len(rows) - 4] if overlapping else [])]
    return sum((rows[start:start + 4].T @ d_y[start:start + 4] for start in starts), np.zeros_like(rows, shape=(5, 4)))


def to_bfloat16(array: Array) -> Array:
    bits = array.astype(np.float32).view(np.uint32) & np.uint32(0xffff0000)
    return bits.view(np.float32).astype(array.dtype)


def in_memory_order(array: Array) -> Array:
    """Its numbers as they lie in memory, taken for an array in C order: what a kernel reads that does not look at strides."""
    lowest = array
    for axis, stride in enumerate(array.strides):
        if stride < 0:
            lowest = np.flip(lowest, axis)
    count = min(array.size, 1 + sum((n - 1) * abs(s) // array.itemsize for n, s in zip(array.shape, array.strides, strict=True)))
    memory = np.lib.stride_tricks.as_strided(lowest, (count,), (array.itemsize,))
    return np.resize(memory, array.shape)


def layer_norm_variant(*, mean: bool = True, variance: bool = True, gain_inside: bool = True, eps: float = 1e-5,
                       rows_minus: int = 0) -> Callable[..., Any]:
    """`layer_norm_backward` with one thing wrong."""
    def wrong(d_y: Array, cache: Any) -> Any:
        n, gain, N = cache.normalized, cache.gain, d_y.shape[-1]
        d_n = d_y * gain if gain_inside else d_y
        through_variance = (d_n * n).sum(axis=-1, keepdims=True) / (N - rows_minus) if variance else 0
        through_mean = d_n.sum(axis=-1, keepdims=True) / N if mean else 0
        inverse_std = 1 / np.sqrt(1 / cache.inverse_std**2 - 1e-5 + eps)
        d_x = (d_n - through_mean - n * through_variance) * inverse_std
        rows = tuple(range(d_y.ndim - 1))
        return d_x if gain_inside else d_x * gain, (d_y * n).sum(axis=rows), d_y.sum(axis=rows)

    return wrong


def lstm_that_forgets(lost: str) -> Callable[..., Any]:
    """`lstm_backward` that does not carry d_h or d_c from a step to the one before."""
    def wrong(d_output: Any, cache: LSTMCache) -> Any:
        d_y, d_h, d_c = d_output
        d_projected, d_weight_h = np.zeros((*d_y.shape[:2], cache.weight_h.shape[1]), d_y.dtype), np.zeros_like(cache.weight_h)
        for t in reversed(range(len(cache.steps))):
            d_projected[:, t], d_h, d_c, d_step = lstm_step_backward((d_y[:, t] + d_h, d_c), cache.steps[t])
            d_h, d_c = (0 * d_h, d_c) if lost == "h" else (d_h, 0 * d_c)
            d_weight_h += d_step
        d_x, d_weight_x, d_bias = linear_backward(d_projected, cache.projection)
        return d_x, d_weight_x, d_weight_h, d_bias, d_h, d_c

    return wrong


def rnn_that_stops_early(d_output: Any, cache: RNNCache) -> Any:
    """`rnn_backward` whose loop over time is `range(T - 1, 0, -1)`."""
    d_y, d_h = d_output
    d_projected, d_weight_h = np.zeros_like(d_y), np.zeros_like(cache.weight_h)
    for t in range(len(cache.steps) - 1, 0, -1):
        d_projected[:, t], d_h, d_step = rnn_step_backward(d_y[:, t] + d_h, cache.steps[t])
        d_weight_h += d_step
    d_x, d_weight_x, d_bias = linear_backward(d_projected, cache.projection)
    return d_x, d_weight_x, d_weight_h, d_bias, None


def gelu_tanh_of_few_digits(d_y: Array, cache: Any) -> Array:
    """`gelu_tanh_backward` with 0.79788 for sqrt(2 / pi)."""
    x, t = cache.x, cache.t
    return d_y * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788 * (1 + 3 * 0.044715 * x * x))


def shared_gate(d_bias: Array, *_: Any) -> Array:
    d_i, _, d_g, _ = np.split(d_bias, 4)
    return np.concatenate([d_i, d_i, d_g, d_i])


def by_value(d_loss: Array, cache: Any) -> Array:
    """The target is where the probability is that of the target: also where another logit equals its logit."""
    p = cache.probabilities
    at_target = p == p[np.arange(len(p)), cache.labels][:, None]
    d_logits = np.zeros((*cache.kept.shape, p.shape[-1]), p.dtype)
    d_logits[cache.kept] = d_loss * (p - at_target) / len(p)
    return d_logits


def added_once(ids: Array, d_y: Array, size: int, *, first: bool = False) -> Array:
    """`d_table[ids] = d_y`: of several rows of one id, one is kept."""
    d_table = np.zeros((size, d_y.shape[-1]), d_y.dtype)
    order = slice(None, None, -1 if first else 1)
    d_table[ids.ravel()[order]] = d_y.reshape(-1, d_y.shape[-1])[order]
    return d_table


def blockwise_softmax(x: Array) -> tuple[Array, Any]:
    """Subtracts the running maximum of nothing from itself, where the first block is masked: -inf - -inf."""
    scores = np.where(MASK, x, -np.inf)
    peak, total = np.full(x.shape[:-1], -np.inf), np.zeros(x.shape[:-1], x.dtype)
    for block in np.split(scores, 3, axis=-1):
        new_peak = np.maximum(peak, block.real.max(axis=-1))
        total = total * np.exp(peak - new_peak) + np.exp(block - new_peak[..., None]).sum(axis=-1)
        peak = new_peak
    return np.exp(scores - peak[..., None]) / total[..., None], None


def tied_bug(keep: int) -> Pair:
    return backward(TIED, lambda d, cache: tied_gradients(d, *cache)[keep])


def causal_backward(allowed: Array) -> Callable[..., Any]:
    """A softmax backward that masks the gradient by another mask than forward's."""
    return lambda d_y, cache: np.where(allowed, softmax_backward(d_y, cache), 0)


def scaled_scores(factor: float) -> Pair:
    return backward(ATTENTION, lambda d_y, cache: tuple(
        g * f for g, f in zip(attention_backward(d_y, cache), (factor, factor, 1), strict=True)))


# ---------------------------------------------------------------------------------------------------- state left behind

def one_global_cache(right: Pair) -> Pair:
    """Forward keeps what backward needs in one place for all calls."""
    kept: dict[str, Any] = {}

    def keeping(*inputs: Any) -> Any:
        output, kept["cache"] = right.forward(*inputs)
        return output, None

    return replace(right, forward=keeping, backward=lambda d, _: right.backward(d, kept["cache"]))


def first_cache_for_ever(right: Pair) -> Pair:
    """Backward keeps what it computed from the first cache that it saw, for all caches of that shape."""
    kept: dict[Any, Any] = {}
    return backward(right, lambda d, cache: right.backward(d, kept.setdefault((d.shape, d.dtype), cache)))


def one_buffer(right: Pair) -> Pair:
    """Each call hands out the same array."""
    buffers: dict[Any, Array] = {}

    def reused(g: Array, *_: Any) -> Array:
        buffer = buffers.setdefault((g.shape, g.dtype), np.empty_like(g))
        buffer[...] = g
        return buffer

    return gradient(right, reused)


def adds_up(right: Pair) -> Pair:
    """A gradient that is never set to zero."""
    totals: dict[Any, Array] = {}

    def added(g: Array, *_: Any) -> Array:
        totals[g.shape, g.dtype] = totals.get((g.shape, g.dtype), np.zeros_like(g)) + g
        return totals[g.shape, g.dtype].copy()

    return gradient(right, added)


def another_each_time(right: Pair, size: float) -> Pair:
    """Noise in the gradient, as of sums in whatever order threads end."""
    noise = np.random.default_rng(0)
    return gradient(right, lambda g, *_: g * (1 + size * noise.standard_normal(g.shape)).astype(g.dtype))


def new_mask_each_time(right: Pair) -> Pair:
    """Dropout that draws its mask again in backward."""
    drawn = np.random.default_rng(0)
    return backward(right, lambda d, _: np.where(drawn.random(d.shape) < 0.5, 2 * d, 0))


def later(right: Pair, number: int, change: Callable[[], Any]) -> Pair:
    """Backward is right until the call of that number, and there gives `change()`."""
    count = itertools.count(1)
    return backward(right, lambda d, cache: change() if next(count) >= number else right.backward(d, cache))


def out_of_memory() -> Any:
    raise MemoryError("no memory left on the device")


def used_up(right: Pair) -> Pair:
    """What backward needs is freed when it was used, as torch does without retain_graph."""
    kept: dict[Any, Any] = {}

    def keeping(*inputs: Any) -> Any:
        key = object()
        output, kept[key] = right.forward(*inputs)
        return output, key

    return replace(right, forward=keeping, backward=lambda d, key: right.backward(d, kept.pop(key)))


def written(array: Array, value: Any) -> Array:
    array[...] = value
    return array


# ---------------------------------------------------------------------------------------------------- the bugs

ROW, FACTOR = "missing row term", "constant factor"
RAISES_LATER = "an error from the eighth call on"


def found_in_public_code() -> Iterator[Bug]:
    def bug(number: int, name: str, kind: str, right: Pair, wrong: Pair) -> Bug:
        return Bug(name, kind, wrong, right, number)

    def norm(**wrong: Any) -> Pair:
        return backward(LAYER_NORM, layer_norm_variant(**wrong))

    yield bug(1, "softmax without the row term: d y", ROW, SOFTMAX, backward(SOFTMAX, lambda d, cache: d * cache.y))
    yield bug(1, "softmax by its diagonal: d y (1 - y)", "diagonal only", SOFTMAX,
              backward(SOFTMAX, lambda d, cache: d * cache.y * (1 - cache.y)))
    yield bug(2, "softmax divided by the batch size", FACTOR, SOFTMAX, times(SOFTMAX, 1 / 2))
    yield bug(3, "layer norm without the mean term", ROW, LAYER_NORM, norm(mean=False))
    yield bug(3, "layer norm without the variance term", ROW, LAYER_NORM, norm(variance=False))
    yield bug(4, "layer norm with the gain outside the reductions", "misplaced factor", LAYER_NORM, norm(gain_inside=False))
    yield bug(5, "layer norm that forgets eps in backward", "small error", LAYER_NORM, norm(eps=0))
    yield bug(5, "layer norm with N - 1 for N = 2048", ROW, WIDE_LAYER_NORM,
              backward(WIDE_LAYER_NORM, lambda d, cache: layer_norm_variant(rows_minus=1)(d, cache)[0]))
    yield bug(6, "cross-entropy divided twice by the count", FACTOR, CROSS_ENTROPY, times(CROSS_ENTROPY, 1 / 5))
    yield bug(6, "cross-entropy that finds the target by value, at a tie", "ties",
              CROSS_ENTROPY_TIES, backward(CROSS_ENTROPY_TIES, by_value))
    yield bug(7, "scores scaled by the model width", FACTOR, ATTENTION, scaled_scores(1 / math.sqrt(2)))
    yield bug(7, "scores scaled twice", FACTOR, ATTENTION, scaled_scores(1 / math.sqrt(5)))
    yield bug(8, "heads split by a reshape without a transpose", "transposed", MERGE,
              gradient(MERGE, lambda g, d, cache: d.reshape(g.shape)))
    yield bug(9, "gradient of the values sent to the wrong side", "swapped", SELF_ATTENTION,
              backward(SELF_ATTENTION, lambda d, cache: (lambda q, k, v: (q + v, k, 0 * v))(*attention_backward(d, cache))))
    yield bug(10, "attention dropout whose backward takes the weights before it", "leak",
              DROPPED_ATTENTION, gradient(DROPPED_ATTENTION, lambda g, d, cache: cache.weights.swapaxes(-1, -2) @ d, 2))
    yield bug(11, "derivative of tanh-GELU for erf-GELU", "wrong derivative", GELU, backward(
        GELU, lambda d, cache: gelu_tanh_backward(d, gelu_tanh_forward(cache.x)[1])))
    yield bug(12, "d_table[ids] += d_y drops repeated ids", "repeated index", EMBEDDING, backward(
        EMBEDDING, lambda d, cache: added_once(cache.ids, d, cache.vocab_size)))
    yield bug(13, "tied weights counted once: the output is lost", "use forgotten", TIED, tied_bug(0))
    yield bug(13, "tied weights counted once: the input is lost", "use forgotten", TIED, tied_bug(1))
    yield bug(14, "bias gradient summed over one axis, wrong shape", "wrong shape", LINEAR,
              gradient(LINEAR, lambda g, d, _: d.sum(axis=0), 2))
    yield bug(14, "bias gradient summed over one axis, last row of the other", "missing sum", LINEAR,
              gradient(LINEAR, lambda g, d, _: d.sum(axis=0)[-1], 2))
    yield bug(15, "LSTM that does not carry d_h across steps", "not carried across steps", LSTM,
              backward(LSTM, lstm_that_forgets("h")))
    yield bug(15, "LSTM that does not carry d_c across steps", "not carried across steps", LSTM,
              backward(LSTM, lstm_that_forgets("c")))
    yield bug(15, "LSTM whose three gates share one gate's bias", "swapped", LSTM,
              gradient(LSTM, shared_gate, 3))
    yield bug(16, "convolution gradient one short, where the stride does not divide", "shifted", STRIDED,
              gradient(STRIDED, lambda g, *_: np.concatenate([0 * g[:, :1], g[:, :-1]], axis=1)))
    yield bug(17, "padding 0 cut off as x[:, p:-p]", "wrong shape", CONVOLUTION,
              gradient(CONVOLUTION, lambda g, *_: g[:, 0:-0]))
    yield bug(20, "blockwise softmax, NaN after a masked block", "not finite", MASKED_SOFTMAX,
              forward(MASKED_SOFTMAX, blockwise_softmax))
    yield bug(21, "mask of reversed polarity", "all zero", MASKED_SOFTMAX,
              backward(MASKED_SOFTMAX, causal_backward(~MASK)))
    yield bug(22, "mean over micro-batches of unequal token counts", "factor by row",
              BATCHES, backward(BATCHES, lambda d, parts: np.stack([cross_entropy_backward(d / 2, cache) for cache, _ in parts])))


def made_up() -> Iterator[Bug]:
    def bug(name: str, kind: str, right: Pair, wrong: Pair) -> Bug:
        return Bug(name, kind, wrong, right)

    # sign
    yield bug("sign of the whole gradient", "sign", TANH, times(TANH, -1))
    yield bug("sign of one argument's gradient", "sign", LINEAR, times(LINEAR, -1, 1))
    yield bug("sign of the row term", "missing row term", SOFTMAX,
              backward(SOFTMAX, lambda d, cache: cache.y * (d + (d * cache.y).sum(-1, keepdims=True))))
    yield bug("absolute value of the gradient", "sign", LINEAR, gradient(LINEAR, lambda g, *_: np.abs(g)))
    # dropped and wrong terms
    yield bug("residual path forgotten", "residual path", RESIDUAL, gradient(RESIDUAL, lambda g, d, _: g - d))
    yield bug("residual path counted twice", "residual path", RESIDUAL, gradient(RESIDUAL, lambda g, d, _: g + d))
    yield bug("half of the product rule", "missing term", PRODUCT,
              gradient(PRODUCT, lambda g, d, cache: d * cache[0] * np.cos(cache[0])))
    yield bug("sigmoid without 1 - y", "missing factor", SIGMOID, backward(SIGMOID, lambda d, cache: d * cache.y))
    yield bug("tanh with 1 - y for 1 - y^2", "missing factor", TANH, backward(TANH, lambda d, cache: d * (1 - cache.y)))
    yield bug("log-softmax without the row term", "missing row term", LOG_SOFTMAX,
              backward(LOG_SOFTMAX, lambda d, cache: 1 * d))
    yield bug("weight norm without the projection", "missing row term", WEIGHT_NORM,
              gradient(WEIGHT_NORM, lambda g, d, cache: cache.gain / cache.norm * d))
    yield bug("weight norm without the gain", "missing factor", WEIGHT_NORM,
              gradient(WEIGHT_NORM, lambda g, d, cache: g / cache.gain))
    yield bug("gain used twice", "missing factor", LAYER_NORM, gradient(LAYER_NORM, lambda g, d, cache: g * cache.gain, 2))
    yield bug("ReLU that looks at the sign of the cotangent", "not linear in the cotangent", RELU,
              backward(RELU, lambda d, cache: np.where(d > 0, d, 0)))
    yield bug("ReLU that lets everything through", "leak", RELU, backward(RELU, lambda d, cache: 1 * d))
    yield bug("running sum not reversed", "transposed", RUNNING_SUM,
              gradient(RUNNING_SUM, lambda g, d, _: d.cumsum(axis=-1)))
    # factors
    yield bug("factor 2 forgotten", "constant factor", SQUARES, backward(SQUARES, lambda d, cache: d * cache[0]))
    yield bug("factor 2 too many", "constant factor", LINEAR, times(LINEAR, 2, 1))
    yield bug("1/N: a mean where forward has a sum", "constant factor", LINEAR,
              gradient(LINEAR, lambda g, d, _: d.mean((0, 1)), 2))
    yield bug("N: a sum where forward has a mean", "constant factor", CROSS_ENTROPY, times(CROSS_ENTROPY, 5))
    yield bug("1/N over all targets, the ignored ones too", "constant factor", CROSS_ENTROPY, times(CROSS_ENTROPY, 5 / 6))
    yield bug("sqrt d forgotten", "constant factor", ATTENTION, times(ATTENTION, math.sqrt(5)))
    yield bug("sqrt d for d", "constant factor", ATTENTION, times(ATTENTION, 1 / math.sqrt(5), 1))
    yield bug("log 2 forgotten", "constant factor", BITS, times(BITS, math.log(2)))
    yield bug("pi forgotten", "constant factor", WAVES, times(WAVES, 1 / math.pi))
    # places
    yield bug("weight gradient transposed", "transposed", SQUARE_LINEAR, gradient(SQUARE_LINEAR, lambda g, *_: g.T, 1))
    yield bug("weight gradient by a reshape for a transpose", "transposed", LINEAR,
              gradient(LINEAR, lambda g, *_: g.T.copy().reshape(g.shape), 1))
    yield bug("multiplied by W where W^T is meant", "transposed", SQUARE_LINEAR,
              gradient(SQUARE_LINEAR, lambda g, d, cache: d @ cache.weight.T.T))
    yield bug("gradients of queries and keys swapped", "swapped", SELF_ATTENTION, backward(
        SELF_ATTENTION, lambda d, cache: (lambda q, k, v: (k, q, v))(*attention_backward(d, cache))))
    yield bug("time runs backwards", "reversed", RNN, gradient(RNN, lambda g, *_: g[:, ::-1]))
    yield bug("shifted by one position", "shifted", CONVOLUTION, gradient(CONVOLUTION, lambda g, *_: np.roll(g, 1, 1)))
    yield bug("kernel of a convolution flipped", "reversed", CONVOLUTION, gradient(CONVOLUTION, lambda g, *_: g[::-1], 1))
    # sums
    yield bug("broadcast sum missing: last row", "missing sum", LINEAR, gradient(LINEAR, lambda g, d, _: d[:, -1].sum(axis=0), 2))
    yield bug("broadcast sum missing: first row", "missing sum", LAYER_NORM,
              gradient(LAYER_NORM, lambda g, d, cache: (d * cache.normalized)[:, 0].sum(axis=0), 1))
    yield bug("last repeat only", "repeated index", EMBEDDING, backward(
        EMBEDDING, lambda d, cache: added_once(cache.ids, d, cache.vocab_size)))
    yield bug("first repeat only", "repeated index", EMBEDDING, backward(
        EMBEDDING, lambda d, cache: added_once(cache.ids, d, cache.vocab_size, first=True)))
    yield bug("first row only", "first row only", LINEAR,
              gradient(LINEAR, lambda g, *_: np.where(np.arange(3)[:, None] == 0, g, 0)))
    yield bug("last row left out", "off by one", LINEAR,
              gradient(LINEAR, lambda g, *_: np.where(np.arange(3)[:, None] == 2, 0, g)))
    yield bug("last block of a sum left out", "off by one", LINEAR, gradient(LINEAR, lambda g, d, _: d[:, :-1].sum((0, 1)), 2))
    yield bug("one of two neighbours forgotten", "repeated index", PIECES,
              gradient(PIECES, lambda g, d, cache: np.pad(d * cache[0][:, :-1], ((0, 0), (1, 0)))))
    yield bug("loop over time that stops one early", "off by one", RNN,
              backward(RNN, rnn_that_stops_early))
    yield bug("cotangent of the second output not used", "output forgotten", TWO_OUTPUTS,
              backward(TWO_OUTPUTS, lambda d, cache: d[0] * np.cos(cache[0])))
    yield bug("tile at the end of a sum dropped", "partial sum", TILED,
              gradient(TILED, lambda g, d, cache: by_tiles(d, cache.x, overlapping=False), 1))
    yield bug("tile at the end of a sum overlaps the one before", "counted twice", TILED,
              gradient(TILED, lambda g, d, cache: by_tiles(d, cache.x, overlapping=True), 1))
    yield bug("of the parts of a sum only that of the last program", "partial sum", TILED,
              gradient(TILED, lambda g, d, cache: cache.x[6:].T @ d[6:], 1))
    yield bug("gradient of all heads summed for each", "sum too much", SELF_ATTENTION,
              gradient(SELF_ATTENTION, lambda g, *_: np.broadcast_to(g.sum(axis=0), g.shape).copy(), 1))
    # few of many
    yield bug("one of 10,000 elements wrong by 1 %", "few wrong elements", LARGE,
              gradient(LARGE, lambda g, *_: g * np.where(np.arange(g.size).reshape(g.shape) == 4321, 1.01, 1).astype(g.dtype)))
    yield bug("last of 2,500 rows dropped", "few wrong elements", LARGE,
              gradient(LARGE, lambda g, *_: g * (np.arange(2500)[:, None] < 2499)))
    # kinks
    yield bug("all of several largest numbers get all of the gradient", "ties", MAXIMUM,
              gradient(MAXIMUM, lambda g, d, cache: d[..., None] * (cache[0] == cache[0].max(axis=-1, keepdims=True))))
    yield bug("slope of 2 at the kink of ReLU", "at zero", RELU_AT_ZERO,
              gradient(RELU_AT_ZERO, lambda g, d, cache: np.where(RELU_AT_ZERO.inputs[0] == 0, 2 * d, g)))
    # masks
    yield bug("causal mask off by one: the diagonal is lost", "mask off by one", MASKED_SQUARES,
              gradient(MASKED_SQUARES, lambda g, *_: np.tril(g, -1)))
    yield bug("causal mask off by one: the next is seen", "mask off by one", MASKED_SQUARES,
              gradient(MASKED_SQUARES, lambda g, d, cache: 2 * d * cache[0] * np.tri(6, 6, 1).astype(g.dtype)))
    yield bug("causal mask of the softmax off by one", "mask off by one", CAUSAL_SOFTMAX,
              backward(CAUSAL_SOFTMAX, causal_backward(np.tril(CAUSAL, -1))))
    yield bug("no mask in backward", "leak", MASKED_SQUARES, gradient(MASKED_SQUARES, lambda g, d, cache: 2 * d * cache[0]))
    # the cotangent
    yield bug("cotangent taken for ones", "cotangent not used", SQUARES, backward(SQUARES, lambda d, cache: 2 * cache[0]))
    yield bug("gradient of the loss not used", "cotangent not used", CROSS_ENTROPY,
              backward(CROSS_ENTROPY, lambda d, cache: cross_entropy_backward(np.ones_like(d), cache)))
    yield bug("gradient clipped at 1", "not linear in the cotangent", LINEAR, gradient(LINEAR, lambda g, *_: np.clip(g, -1, 1)))
    yield bug("weight decay in the gradient", "not zero for a zero cotangent", LINEAR,
              gradient(LINEAR, lambda g, d, cache: g + 1e-2 * cache.weight, 1))
    yield bug("weight decay of 1e-9 in the gradient", "not zero for a zero cotangent", LINEAR,
              gradient(LINEAR, lambda g, d, cache: g + 1e-9 * cache.weight, 1))
    # nothing, or no number
    yield bug("all zero", "all zero", SOFTMAX, times(SOFTMAX, 0))
    yield bug("None for an argument that counts", "absent", LINEAR, gradient(LINEAR, lambda g, *_: None, 2))
    yield bug("one gradient too few", "wrong number", LINEAR, backward(LINEAR, lambda d, cache: linear_backward(d, cache)[:2]))
    yield bug("0 / 0 where an input is 0", "not finite", POWER, backward(
        POWER, lambda d, cache: 3 * d * np.divide(cache[0] ** 3, cache[0], out=np.full_like(d, np.nan), where=cache[0] != 0)))
    yield bug("overflow in backward at a large input", "warning", SATURATED, backward(
        SATURATED, lambda d, cache: d / (1 + np.exp(-cache[0])) * (1 - 1 / (1 + np.exp(-cache[0])))))
    # memory
    yield bug("strides of the cotangent ignored", "stride-dependent", TANH,
              backward(TANH, lambda d, cache: tanh_backward(in_memory_order(d), cache)))
    yield bug("strides of an input ignored", "stride-dependent", SQUARES, plain(
        lambda x: x * x, lambda d, x: 2 * d * in_memory_order(x), X))
    yield bug("Fortran order taken for C order", "stride-dependent", LINEAR,
              gradient(LINEAR, lambda g, d, cache: d.ravel(order="K").reshape(d.shape) @ cache.weight.T))
    yield bug("one cache for all calls", "stale cache", TANH, one_global_cache(TANH))
    yield bug("a cache looked up by shape", "stale cache", TANH, first_cache_for_ever(TANH))
    yield bug("one buffer for all results", "stale cache", TANH, one_buffer(TANH))
    yield bug("a gradient that is never set to zero", "nondeterministic", TANH, adds_up(TANH))
    yield bug("cotangent written to", "mutated input", TANH,
              backward(TANH, lambda d, cache: written(d, tanh_backward(d, cache))))
    yield bug("input written to by forward", "mutated input", RELU, forward(
        RELU, lambda x: (lambda y, cache: (written(x, y), cache))(*relu_forward(x.copy()))))
    yield bug("cache written to by backward", "mutated input", SQUARES, backward(
        SQUARES, lambda d, cache: d * written(cache[0], 2 * cache[0])))
    # dtype
    yield bug("float64 for float32", "wrong dtype", LINEAR, gradient(LINEAR, lambda g, *_: g.astype(np.float64), 1))
    yield bug("float32 for float64", "wrong dtype", LINEAR, gradient(LINEAR, lambda g, *_: g.astype(np.float32)))
    yield bug("float32 on the way", "low precision", LINEAR, gradient(LINEAR, lambda g, *_: g.astype(np.float32).astype(g.dtype)))
    yield bug("bfloat16 on the way", "low precision", LINEAR, gradient(LINEAR, lambda g, *_: to_bfloat16(g)))
    yield bug("a cotangent in bfloat16", "low precision", LINEAR,
              backward(LINEAR, lambda d, cache: linear_backward(to_bfloat16(d), cache)))
    yield bug("a sum in float32", "low precision", LINEAR, gradient(LINEAR, lambda g, d, cache: np.tensordot(
        cache.x.astype(np.float32), d.astype(np.float32), ((0, 1), (0, 1))).astype(g.dtype), 1))
    yield bug("float16 on the way", "low precision", LINEAR, gradient(LINEAR, lambda g, *_: g.astype(np.float16).astype(g.dtype)))
    # chance
    yield bug("dropout mask drawn again in backward", "nondeterministic", DROPOUT, new_mask_each_time(DROPOUT))
    yield bug("noise of 1e-3 in backward", "nondeterministic", LINEAR, another_each_time(LINEAR, 1e-3))
    yield bug("noise of 1e-12 in backward", "nondeterministic", LINEAR, another_each_time(LINEAR, 1e-12))
    # later
    yield bug("None from the third call on", "nondeterministic", TANH, later(TANH, 3, lambda: None))
    yield bug(RAISES_LATER, "does not run", TANH, later(TANH, 8, out_of_memory))
    yield bug("a cache that is used up by one backward", "cache used up", TANH, used_up(TANH))
    # tiny
    for exponent in (6, 7, 8, 9):
        yield bug(f"too large by 1e-{exponent}, relative", "small factor", LINEAR, times(LINEAR, 1 + 10.0**-exponent))
    yield bug("row term too large by 1e-6", "missing row term", SOFTMAX, backward(
        SOFTMAX, lambda d, cache: cache.y * (d - (1 + 1e-6) * (d * cache.y).sum(-1, keepdims=True))))
    yield bug("pi as 3.14159", "small factor", WAVES, times(WAVES, 3.14159 / math.pi))
    yield bug("sqrt(2 / pi) as 0.79788 in tanh-GELU", "small error", GELU_TANH,
              backward(GELU_TANH, gelu_tanh_of_few_digits))
    yield bug("eps of 1e-9 in a denominator", "small error", BITS,
              backward(BITS, lambda d, cache: -d / ((cache[0] + 1e-9) * math.log(2))))


@dataclass(frozen=True)
class WrongForward:
    """A forward that is wrong, with the backward that belongs to it: the gradient is right, of the wrong function. No gradient
    check can see that. reference: the pair of this project that it claims to be."""

    name: str
    reference: str
    pair: Pair
    number: int | None = None


def wrong_forwards() -> Iterator[WrongForward]:
    def attend(scale: Callable[[int], float], turned: bool = False) -> Pair:
        return forward(ATTENTION, lambda q, k, v, mask=None: attention_forward(
            q, k, v, mask if mask is None or not turned else ~mask, scale=scale(q.shape[-1])))

    def norm(x: Array, gain: Array, bias: Array) -> Any:
        return layer_norm_forward(x, gain, bias, eps=1e-6)

    yield WrongForward("scores scaled by a model width of two heads", "attention", attend(lambda n: 1 / math.sqrt(2 * n)), 7)
    yield WrongForward("scores scaled twice", "attention", attend(lambda n: 1 / n), 7)
    yield WrongForward("mask of reversed polarity", "attention", attend(lambda n: 1 / math.sqrt(n), turned=True), 21)
    yield WrongForward("tanh-GELU for erf-GELU", "gelu", GELU_TANH)
    yield WrongForward("layer norm with eps 1e-6 for 1e-5", "layer_norm", forward(LAYER_NORM, norm))
