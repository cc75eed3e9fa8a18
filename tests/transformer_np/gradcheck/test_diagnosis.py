"""Each fault is named for what it is; in large arrays too, where only some elements are looked at."""

import numpy as np
import pytest

from transformer_np.activations import gelu_forward, gelu_tanh_backward, gelu_tanh_forward
from transformer_np.gradcheck import check_vjp
from transformer_np.gradcheck.measuring import methods
from transformer_np.softmax import softmax_forward

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3, 5))
SQUARE = RNG.standard_normal((5, 5))
GAIN, BIAS, W = 1 + RNG.standard_normal(5), RNG.standard_normal(5), RNG.standard_normal((5, 4))
IDS = np.array([1, 3, 1, 0, 3, 3])
TILES = np.random.default_rng(6).standard_normal((10, 5))
CAUSAL = np.tril(np.ones((6, 6), bool))
SCORES = RNG.standard_normal((6, 6))
KEPT = RNG.random((6, 6)) < 0.6
TIED = X[0].copy()
TIED[1, 2] = TIED[1, 4]
Q, K, V = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 4)), RNG.standard_normal((6, 4))


def affine(x, gain, bias):
    return x * gain + bias


def affine_vjp(d_y, x, gain, bias):
    return d_y * gain, (d_y * x).sum((0, 1)), d_y.sum((0, 1))


def linear(x, weight):
    return x @ weight


def linear_vjp(d_y, x, weight):
    return d_y @ weight.T, x.reshape(-1, x.shape[-1]).T @ d_y.reshape(-1, d_y.shape[-1])


def changed(vjp, which, change):
    """A vjp of which one gradient is changed."""
    def wrong(d_y, *inputs):
        gradients = list(vjp(d_y, *inputs))
        gradients[which] = change(gradients[which], d_y, *inputs)
        return tuple(gradients)
    return wrong


def attend(q, k, v):
    scores = np.where(CAUSAL, q @ k.T, -np.inf)
    weights = np.exp(scores - scores.real.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def attend_vjp(mask, d_y, q, k, v):
    scores = np.where(CAUSAL, q @ k.T, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    d_weights = d_y @ v.T
    d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True)) * mask
    return d_scores @ k, d_scores.T @ q, (weights * mask).T @ d_y


def normed_gain(x, gain):
    return norm(x)[0] * gain


def decaying(x):
    """h_t = tanh(x_t + h_{t-1}) along the second axis, and the derivative of each step by its own input."""
    h, steps = 0 * x[:, 0], []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] + h)
        steps.append(h)
    y = np.stack(steps, axis=1)
    return y, 1 - y * y


def looked_up(d_rows, table, ids):
    d_table = np.zeros_like(table)
    np.add.at(d_table, ids, 2 * d_rows * table[ids])
    return d_table


def looked_up_linear(d_rows, table, ids):
    d_table = np.zeros_like(table)
    np.add.at(d_table, ids, d_rows)
    return d_table


def changed_rows(d_table):
    """As with a padding index of 0."""
    return d_table * (np.arange(len(d_table)) > 0)[:, None]


def take(table, ids):
    return table[ids]


def take_vjp(d_y, table, ids):
    d_table = np.zeros_like(table)
    d_table[ids] += d_y
    return (d_table,)


def two(x):
    return np.sin(x), x * x


def layer_norm_variant(d_y, cache, *, mean=True, variance=True, rows=None):
    x_hat, rstd = cache
    g = d_y
    d = g
    if mean:
        d = d - g.mean(-1, keepdims=True)
    if variance:
        d = d - x_hat * (g * x_hat).mean(-1, keepdims=True)
    return d * rstd


def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred * rstd, (centred * rstd, rstd)


def to_bfloat16(array):
    """Cut off, as a cast of bits does."""
    return (array.astype(np.float32).view(np.uint32) & np.uint32(0xffff0000)).view(np.float32).astype(np.float64)


def by_tiles(d_y, rows, *, overlapping=False, size=4):
    """The gradient of a weight, in tiles of rows: the last, if it is not whole, is dropped, or moved back over the one before."""
    starts = range(0, len(rows), size) if overlapping else range(0, len(rows) - size + 1, size)
    starts = [min(start, len(rows) - size) for start in starts]
    return sum(rows[start:start + size].T @ d_y[start:start + size] for start in starts)


# in each row but the last some, and on no one diagonal
FEW = np.zeros((6, 6), bool)
FEW[[0, 1, 1, 2, 3, 4], [0, 4, 5, 1, 5, 2]] = True


def relu(x):
    return np.where(x.real > 0, x, 0)


# argument, kind, words, function, vjp, inputs
FAULTS = {
    "sign": ("x", "sign", "wrong everywhere", affine, changed(affine_vjp, 0, lambda g, *_: -g), [X, GAIN, BIAS]),
    "twice": ("x", "constant factor", "which is 2 (or 2, the size of axis 0 of x)", affine,
              changed(affine_vjp, 0, lambda g, *_: 2 * g), [X, GAIN, BIAS]),
    "half": ("x", "constant factor", "1/2", np.square, lambda d, x: d * x, [X[0]]),
    "1/N": ("bias", "constant factor", "1 over 6, the number of rows", affine, changed(affine_vjp, 2, lambda g, *_: g / 6),
            [X, GAIN, BIAS]),
    "N": ("bias", "constant factor", "5, the size of axis 0 of bias", affine, changed(affine_vjp, 2, lambda g, *_: g * 5),
          [X, GAIN, BIAS]),
    "root": ("x", "constant factor", "1 over the root of 5", linear, changed(linear_vjp, 0, lambda g, *_: g / 5 ** 0.5), [X, W]),
    "N-1": ("x", "constant factor", "N / (N - 1) for N = 5", linear, changed(linear_vjp, 0, lambda g, *_: g * 1.25), [X, W]),
    "odd factor": ("x", "constant factor", "0.77 times", linear, changed(linear_vjp, 0, lambda g, *_: g * 0.77), [X, W]),
    "1e-6": ("x", "small factor", "1.00e-06", linear, changed(linear_vjp, 0, lambda g, *_: g * (1 + 1e-6)), [X, W]),
    "1e-9": ("x", "small factor", "1.00e-09", linear, changed(linear_vjp, 0, lambda g, *_: g * (1 - 1e-9)), [X, W]),
    "zero": ("x", "all zero", "0 everywhere", linear, changed(linear_vjp, 0, lambda g, *_: 0 * g), [X, W]),
    "none": ("weight", "absent", "vjp gives None", linear, changed(linear_vjp, 1, lambda g, *_: None), [X, W]),
    "nan": ("x", "not finite", "NaN at 1 of 30", linear,
            changed(linear_vjp, 0, lambda g, *_: np.where(g == g.max(), np.nan, g)), [X, W]),
    "transposed": ("weight", "transposed", "axes in the order [1, 0]", linear, changed(linear_vjp, 1, lambda g, *_: g.T),
                   [X, SQUARE]),
    "reshape for transpose": ("weight", "transposed", "a reshape where axes [1, 0] want a transpose", linear,
                              changed(linear_vjp, 1, lambda g, *_: g.T.copy().reshape(g.shape)), [X, W]),
    "swapped": ("gain", "swapped", "gradient of bias", affine, changed(affine_vjp, 1, lambda g, d_y, *_: d_y.sum((0, 1))),
                [X, GAIN, BIAS]),
    "reversed": ("x", "reversed", "along axis 1", linear, changed(linear_vjp, 0, lambda g, *_: g[:, ::-1]), [X, W]),
    "shifted": ("x", "shifted", "along axis 1", linear, changed(linear_vjp, 0, lambda g, *_: np.roll(g, 1, 1)), [X, W]),
    "missing gain": ("x", "missing factor", "gain is missing", affine, changed(affine_vjp, 0, lambda g, d_y, *_: d_y),
                     [X, GAIN, BIAS]),
    "gain twice": ("x", "missing factor", "gain is a factor too many", affine,
                   changed(affine_vjp, 0, lambda g, d_y, x, gain, bias: g * gain), [X, GAIN, BIAS]),
    "sum over one axis": ("bias", "missing sum", "only the first index of axis 0 of the output counts", affine,
                          changed(affine_vjp, 2, lambda g, d_y, *_: d_y[0].sum(0)), [X, GAIN, BIAS]),
    "last row": ("bias", "missing sum", "only the last index of axis 1 of the output counts", affine,
                 changed(affine_vjp, 2, lambda g, d_y, *_: d_y[:, -1].sum(0)), [X, GAIN, BIAS]),
    "all but the last row": ("bias", "off by one", "the last index of axis 1 of the output is left out", affine,
                             changed(affine_vjp, 2, lambda g, d_y, *_: d_y[:, :-1].sum((0, 1))), [X, GAIN, BIAS]),
    "first row only": ("x", "first row only", "only the first index of axis 1 of the output counts", linear,
                       changed(linear_vjp, 0, lambda g, *_: np.where(np.arange(3)[:, None] == 0, g, 0)), [X, W]),
    "one short": ("x", "off by one", "the last index of axis 1 of the output is left out", linear,
                  changed(linear_vjp, 0, lambda g, *_: np.where(np.arange(3)[:, None] == 2, 0, g)), [X, W]),
    "repeated index": ("table", "repeated index", "only the last counts", take, take_vjp, [SQUARE, IDS]),
    "forgotten output": ("x", "output forgotten", "cotangent of output[1] is not used", two, lambda d, x: d[0] * np.cos(x), [X]),
    "cotangent of ones": ("x", "cotangent not used", "the cotangent is missing, a factor", np.square, lambda d, x: 2 * x, [X]),
    "row term": ("x", "missing row term", "a multiple of the output along axis 2", lambda x: softmax_forward(x)[0],
                 lambda d, x: d * softmax_forward(x)[0], [X]),
    "mean term": ("x", "missing row term", "the error is the same along axis 2", lambda x: norm(x)[0],
                  lambda d, x: layer_norm_variant(d, norm(x)[1], mean=False), [X]),
    "variance term": ("x", "missing row term", "along axis 2", lambda x: norm(x)[0],
                      lambda d, x: layer_norm_variant(d, norm(x)[1], variance=False), [X]),
    "mask strict": ("k", "mask off by one", "index of axis 0 of the output = index of axis 0 of the argument +0", attend,
                    lambda d_y, *qkv: attend_vjp(np.tril(CAUSAL, -1), d_y, *qkv), [Q, K, V]),
    "residual": ("x", "residual path", "1 times the cotangent is missing", lambda x: x + np.sin(x),
                 lambda d, x: d * np.cos(x), [X]),
    "product rule": ("x", "missing term", "d y / x is missing", lambda x: x * np.sin(x), lambda d, x: d * x * np.cos(x), [X]),
    "float32": ("x", "low precision", "a number of float32", linear,
                changed(linear_vjp, 0, lambda g, *_: g.astype(np.float32).astype(np.float64)), [X, W]),
    "leak": ("x", "leak", "is a mask missing", lambda x: np.where(CAUSAL, x * x, 0), lambda d, x: 2 * d * x, [SCORES]),
    "leak on a diagonal": ("x", "mask off by one", "is off by one", lambda x: np.where(CAUSAL, x * x, 0),
                           lambda d, x: 2 * d * x * np.tri(6, 6, 1), [SCORES]),
    "signs of some": ("x", "sign", "wrong at ", lambda x: x * np.where(x.real > 0, 1, -1), lambda d, x: d, [X]),
    "tanh for erf": ("x", "wrong derivative", "by another derivative", lambda x: gelu_forward(x)[0],
                     lambda d, x: gelu_tanh_backward(d, gelu_tanh_forward(x)[1]), [X]),
    "clipped": ("x", "not linear in the cotangent", "a clip", linear,
                changed(linear_vjp, 0, lambda g, *_: np.clip(g, -1, 1)), [X, W]),
    "scan": ("x", "transposed", "does what forward does", lambda x: x.cumsum(-1), lambda d, x: d.cumsum(-1), [X]),
    "diagonal": ("x", "diagonal only", "by its own element", lambda x: softmax_forward(x)[0],
                 lambda d, x: d * softmax_forward(x)[0] * (1 - softmax_forward(x)[0]), [X]),
    "gain outside": ("x", "misplaced factor", "gain multiplies after a sum", normed_gain,
                     lambda d, x, gain: (layer_norm_variant(d, norm(x)[1]) * gain, (d * norm(x)[0]).sum((0, 1))), [X, GAIN]),
    "gates exchanged": ("bias", "swapped", "axis 0 has 5 parts, and the gradient in them is that of the parts [1, 0, 2, 3, 4]",
                        affine, changed(affine_vjp, 2, lambda g, *_: g[[1, 0, 2, 3, 4]]), [X, GAIN, BIAS]),
    "not carried": ("x", "not carried across steps", "all that comes after", lambda x: decaying(x)[0],
                    lambda d, x: d * decaying(x)[1], [X]),
    "dropout": ("x", "leak", "2.5 times what is right", lambda x: 0.4 * KEPT @ x, lambda d, x: np.ones((6, 6)).T @ d, [SCORES]),
    "ties": ("x", "ties", "only where the same number is elsewhere", np.square,
             lambda d, x: np.where((x[:, :, None] == x[:, None]).sum(-1) > 1, 3, 2) * d * x, [TIED]),
    "part of the range": ("x", "part of the range", "those above 0", np.square,
                          lambda d, x: d * x * np.where(x > 0, 3, 2), [SCORES]),
    "float32 in a sum": ("weight", "low precision", "a number of float32", linear, changed(
        linear_vjp, 1, lambda g, d, x, w: linear_vjp(d.astype(np.float32), x.astype(np.float32), w)[1].astype(float)), [X, W]),
    "float32 before a product": ("weight", "low precision", "it seems that float32 is on the way", linear, changed(
        linear_vjp, 1, lambda g, d, x, w: np.tensordot(x, d.astype(np.float32).astype(float), ((0, 1), (0, 1)))), [X, W]),
    "bfloat16 before a product": ("weight", "low precision", "float16 or bfloat16 is on the way", linear, changed(
        linear_vjp, 1, lambda g, d, x, w: np.tensordot(x, to_bfloat16(d), ((0, 1), (0, 1)))), [X, W]),
    "bfloat16": ("x", "low precision", "a number of bfloat16", linear, changed(linear_vjp, 0, lambda g, *_: to_bfloat16(g)),
                 [X, W]),
    "float16": ("x", "low precision", "a number of float16", linear,
                changed(linear_vjp, 0, lambda g, *_: g.astype(np.float16).astype(float)), [X, W]),
    "whole numbers": ("x", "low precision", "all its numbers are whole", linear,
                      changed(linear_vjp, 0, lambda g, *_: g.astype(int)), [X, W]),
    "a product of two in bfloat16": ("weight", "low precision", "float16 or bfloat16 is on the way", linear, changed(
        linear_vjp, 1, lambda g, d, x, w: np.tensordot(to_bfloat16(x), to_bfloat16(d), ((0, 1), (0, 1)))), [X, W]),
    "a small term in the gradient of a loss": ("weight", "not linear in the cotangent", "without the cotangent",
                                               lambda x, weight: (x @ weight).sum(), lambda d, x, weight: (
                                                   d * np.broadcast_to(weight.sum(1), x.shape),
                                                   d * x.sum((0, 1))[:, None] + 1e-9 * weight), [X, W]),
    "a small term without the cotangent": ("weight", "not linear in the cotangent", "without the cotangent", linear,
                                           changed(linear_vjp, 1, lambda g, d, x, w: g + 1e-9 * w), [X, W]),
    "last tile dropped": ("weight", "partial sum", "in the sum over axis 0 of the output, index 8, 9 does not count", linear,
                          changed(linear_vjp, 1, lambda g, d, x, w: by_tiles(d, x)), [TILES, W]),
    "last tile twice": ("weight", "counted twice", "in the sum over axis 0 of the output, index 6, 7 counts twice", linear,
                        changed(linear_vjp, 1, lambda g, d, x, w: by_tiles(d, x, overlapping=True)), [TILES, W]),
    "last program only": ("v", "partial sum", "index 0 to 3 does not count", attend,
                          lambda d, q, k, v: (*attend_vjp(CAUSAL, d, q, k, v)[:2],
                                              attend_vjp(CAUSAL, d * (np.arange(6) > 3)[:, None], q, k, v)[2]), [Q, K, V]),
    "summed over heads": ("x", "sum too much", "summed over axis 0", linear, changed(
        linear_vjp, 0, lambda g, *_: np.broadcast_to(g.sum(0, keepdims=True), g.shape)), [X, W]),
    "averaged over heads": ("x", "sum too much", "averaged over axis 0", linear, changed(
        linear_vjp, 0, lambda g, *_: np.broadcast_to(g.mean(0, keepdims=True), g.shape)), [X, W]),
    "a subgradient": ("x", "at zero", "where the argument is 0, only at the first index of axis 0: if forward has a kink", relu,
                      lambda d, x: d * np.where(x == 0, 2, x > 0), [SCORES * (np.arange(6) > 0)[:, None]]),
    "a subgradient of nothing but zeros": ("x", "at zero", "if forward has a kink there", relu,
                                           lambda d, x: d * np.where(x == 0, 2, x > 0), [0 * SCORES]),
    "a padding row dropped": ("table", "off by one", "first index", take,
                              lambda d, table, ids: (changed_rows(looked_up_linear(d, table, ids)),), [SQUARE, IDS]),
    "some elements of all rows but one": ("x", "dropped elements", "0 at 6 of 36 elements", lambda x: x ** 2 + x.mean(),
                                          lambda d, x: np.where(FEW, 0, 2 * d * x + d.mean()), [SCORES]),
    "at zero": ("x", "at zero", "where the argument is 0", lambda x: np.sin(x) + 2 * x,
                lambda d, x: d * (np.cos(x) + 2 + (x == 0)), [SCORES * (np.arange(6) > 1)]),
    "rows looked up": ("table", "use forgotten", "what is looked up there", lambda table, ids: (table ** 3, table[ids] ** 2),
                       lambda d, table, ids: (3 * table * table * d[0] + 1e-3 * looked_up(d[1], table, ids),), [SQUARE, IDS]),
    "weighed by row": ("x", "factor by row", "0.5, 1.5 times", linear,
                       changed(linear_vjp, 0, lambda g, *_: g * np.array([0.5, 1.5])[:, None, None]), [X, W]),
    "last block": ("x", "last block", "from index 4 of axis 1 on", lambda x: x ** 2 + x.mean(-1, keepdims=True),
                   lambda d, x: np.where(np.arange(6) < 4, 2 * d * x, d * x) + d.mean(-1, keepdims=True), [SCORES]),
    "gradient of another added": ("q", "swapped", "the gradient of k is added to it", lambda q, k: q * np.sin(k),
                                  lambda d, q, k: (d * (np.sin(k) + q * np.cos(k)), d * q * np.cos(k)), [Q, K]),
}


@pytest.mark.parametrize("argument, kind, words, function, vjp, inputs", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(argument, kind, words, function, vjp, inputs):
    failed = check_vjp(function, vjp, inputs).check(f"gradient of {argument}")
    assert not failed.ok
    assert failed.diagnosis.kind == kind, failed.diagnosis
    assert words in failed.diagnosis.says, failed.diagnosis


@pytest.mark.parametrize("fault", ["sign", "1/N", "transposed", "zero", "missing gain", "repeated index"])
def test_a_fault_is_named_in_a_large_array_too(monkeypatch, fault):
    monkeypatch.setitem(methods.MAX_ELEMENTS, methods.complex_step, 1)
    argument, kind, _, function, vjp, inputs = FAULTS[fault]
    failed = check_vjp(function, vjp, inputs).check(f"gradient of {argument}")
    assert "along 8 random directions" in failed.method
    assert failed.elements
    if fault != "missing gain":  # to know what is missing takes the other gradients, element by element
        assert failed.diagnosis.kind == kind, failed.diagnosis


def test_the_report_shows_the_worst_elements_the_diagnosis_and_how_to_get_it_again():
    text = str(check_vjp(affine, changed(affine_vjp, 0, lambda g, *_: 2 * g), [X, GAIN, BIAS], seed=3))
    assert "        diagnosis: constant factor: 2 times what is right, everywhere" in text
    assert "        element     input " in text and text.count("        x[") == 5
    assert "from transformer_np.gradcheck import check_vjp; print(check_vjp(affine, wrong, report.inputs, seed=3))  # " in text
    assert text.endswith("; report.inputs: [0] float64[2, 3, 5], [1] float64[5], [2] float64[5]")


@pytest.mark.parametrize("method", ["auto", "adjoint"])
def test_a_large_array_in_which_few_elements_are_wrong(method):
    """Random directions see it, and the elements that are then looked at do not."""
    x = np.random.default_rng(0).standard_normal((1000, 20))

    def last_row_dropped(d_y, x):
        return 2 * d_y * x * (np.arange(len(x)) < len(x) - 1)[:, None]

    failed = check_vjp(np.square, last_row_dropped, [x], method=method).check("gradient of x")
    assert not failed.ok
    assert failed.diagnosis.kind == "few wrong elements", failed.diagnosis
    assert "none of the 200 elements that were looked at, of 20000" in failed.diagnosis.says


def test_in_a_low_profile_its_own_numbers_are_no_fault():
    """All gradients there are numbers of it; this one is too large by a factor."""
    failed = check_vjp(np.tanh, lambda d_y, x: (d_y * np.float32(1.0001) * (1 - np.tanh(x) ** 2)).astype(x.dtype), [X],
                       profile="float32").check("gradient of x")
    assert failed.diagnosis.kind in ("constant factor", "small factor"), failed.diagnosis
    failed = check_vjp(np.tanh, lambda d_y, x: (d_y * (1.0001 - np.tanh(x) ** 2)).astype(x.dtype), [X],
                       profile="float32").check("gradient of x")
    assert failed.diagnosis.kind != "low precision", failed.diagnosis
