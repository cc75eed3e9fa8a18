"""The checker is checked: it measures derivatives right to the last digits, beside formulas written anew with 50 digits."""

import numpy as np
import pytest

from transformer_np.activations import gelu_forward
from transformer_np.attention import attention_forward
from transformer_np.gradcheck.calling.pair import pair_of_vjp
from transformer_np.gradcheck.measuring.complex_step import complex_step
from transformer_np.gradcheck.measuring.differences import differences
from transformer_np.gradcheck.measuring.loss import Loss
from transformer_np.gradcheck.measuring.measurement import measure_elements
from transformer_np.normalization import layer_norm_forward
from transformer_np.softmax import softmax_forward

mpmath = pytest.importorskip("mpmath")
RNG = np.random.default_rng(11)


def softmax(x):
    e = [mpmath.exp(each) for each in x]
    return [each / sum(e) for each in e]


def layer_norm(x, gain, bias):
    mean = sum(x) / len(x)
    variance = sum((each - mean) ** 2 for each in x) / len(x)
    # the eps of forward is a number of float64
    return [(each - mean) / mpmath.sqrt(variance + mpmath.mpf(1e-5)) * g + b for each, g, b in zip(x, gain, bias, strict=True)]


def gelu(x):
    return [each * (1 + mpmath.erf(each / mpmath.sqrt(2))) / 2 for each in x]


def attention(q, k, v, width=2):
    rows = [[array[i:i + width] for i in range(0, len(array), width)] for array in (q, k, v)]
    y = []
    for query in rows[0]:
        scores = [sum(a * b for a, b in zip(query, key, strict=True)) / mpmath.sqrt(width) for key in rows[1]]
        weights = softmax(scores)
        y += [sum(weight * value[column] for weight, value in zip(weights, rows[2], strict=True)) for column in range(width)]
    return y


def draw(*shape):
    return RNG.standard_normal(shape)


CASES = {
    "softmax": (softmax, lambda x: softmax_forward(x)[0], [draw(4)]),
    "softmax, large": (softmax, lambda x: softmax_forward(x)[0], [30 * draw(4)]),
    "layer norm": (layer_norm, lambda *inputs: layer_norm_forward(*inputs)[0], [draw(4), draw(4), draw(4)]),
    "layer norm, spread near eps": (layer_norm, lambda *inputs: layer_norm_forward(*inputs)[0],
                                    [3e-3 * draw(4), draw(4), draw(4)]),
    "gelu": (gelu, lambda x: gelu_forward(x)[0], [np.array([-6.0, -1.5, 0.0, 0.3, 4.0])]),
    "attention": (attention, lambda *inputs: attention_forward(*inputs)[0], [draw(2, 2), draw(3, 2), draw(3, 2)]),
}


def derivatives(formula, inputs, cotangent):
    """Of the loss, for every element of every input, to 50 digits."""
    with mpmath.workdps(50):
        exact = [[mpmath.mpf(float(element)) for element in np.ravel(array)] for array in inputs]
        weights = [mpmath.mpf(float(element)) for element in np.ravel(cotangent)]

        def loss(which, place, value):
            moved = [list(each) for each in exact]
            moved[which][place] = value
            return sum(weight * y for weight, y in zip(weights, formula(*moved), strict=True))

        return [np.array([float(mpmath.diff(lambda value, which=which, place=place: loss(which, place, value), element))
                          for place, element in enumerate(each)]) for which, each in enumerate(exact)]


@pytest.mark.parametrize("formula, function, inputs", CASES.values(), ids=CASES)
def test_what_is_measured_is_right(formula, function, inputs):
    pair = pair_of_vjp(function, lambda *_: None, inputs)
    cotangent = np.random.default_rng(1).standard_normal(function(*inputs).shape)
    loss = Loss(pair, [cotangent])
    for which, right in enumerate(derivatives(formula, inputs, cotangent)):
        zeros = np.zeros(inputs[which].shape)
        # where softmax is saturated, what is left of the loss cancels
        scale = max(np.abs(right).max(), 0.1 * np.abs(cotangent).max())
        measured = measure_elements(loss, which, zeros, [], complex_step).numeric.ravel()
        assert np.abs(measured - right).max() <= 2e-15 * scale
        by_differences = measure_elements(loss, which, zeros, [], differences)
        off = np.abs(by_differences.numeric.ravel() - right)
        assert off.max() <= 2e-11 * scale
        assert (off <= 2 * by_differences.error.ravel()).all()
