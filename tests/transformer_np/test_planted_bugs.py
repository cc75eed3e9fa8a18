"""Why bugs that were found in public NumPy implementations stayed there: the inputs at which a check passes them.

That each wrong backward is rejected is in `gradcheck/test_detection_table.py`. A wrong forward whose backward agrees with it
cannot be seen by a gradient check: it is rejected by an oracle, here loops over scalars (`multi_head_by_loops`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from gradcheck_planted import by_value, layer_norm_variant

from transformer_np.activations import gelu_backward, gelu_forward, gelu_tanh_backward, gelu_tanh_forward
from transformer_np.attention import MultiHeadAttention, attention_forward
from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.embedding import embedding_forward
from transformer_np.gradcheck import check_gradients, check_layer, random_mask, with_random_weights
from transformer_np.linear import linear_backward, linear_forward
from transformer_np.models.gpt import GPT
from transformer_np.normalization import layer_norm_backward, layer_norm_forward
from transformer_np.softmax import softmax_backward, softmax_forward

RNG = np.random.default_rng(11)
X = RNG.standard_normal((2, 3, 5))
GAIN, BIAS = 1 + RNG.standard_normal(5), RNG.standard_normal(5)


def rejected(forward, backward, inputs, argument):
    """Require that the check of the gradient of that argument fails. Returns it."""
    failed = check_gradients(forward, backward, inputs).check(f"gradient of {argument}")
    assert not failed.ok
    return failed


# ---------------------------------------------------------------------------------------------------- softmax

def test_1_is_not_seen_by_a_cotangent_of_ones():
    """Why the cotangent is random: the gradient of sum(softmax(x)) is 0, and so is that of a backward that returns zeros."""
    _, cache = softmax_forward(X)
    np.testing.assert_allclose(softmax_backward(np.ones(X.shape), cache), 0, atol=1e-15)
    rejected(softmax_forward, lambda d_y, cache: np.zeros_like(d_y), [X], "x")


# ---------------------------------------------------------------------------------------------------- layer norm

def test_the_layer_norm_of_these_bugs_is_right_without_one():
    assert check_gradients(layer_norm_forward, layer_norm_variant(), [X, GAIN, BIAS]).ok


def test_4_layer_norm_with_the_gain_outside_the_reductions():
    """Right at gain 1, where every fresh layer is: a check there would pass it."""
    wrong = layer_norm_variant(gain_inside=False)
    rejected(layer_norm_forward, wrong, [X, GAIN, BIAS], "x")
    assert check_gradients(layer_norm_forward, wrong, [X, np.ones(5), BIAS]).ok


def test_5_layer_norm_that_forgets_eps_in_backward():
    """An error of 1e-5, which tolerances of 1e-4 miss."""
    failed = rejected(layer_norm_forward, layer_norm_variant(eps=0), [X, GAIN, BIAS], "x")
    assert failed.figure < 1e-4


def test_5_layer_norm_with_n_minus_1_in_a_wide_row():
    """An error of one in 2048, in arrays so large that only random directions are measured."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, 2048)), 1 + rng.standard_normal(2048), rng.standard_normal(2048)]
    assert "random directions" in rejected(layer_norm_forward, layer_norm_variant(rows_minus=1), inputs, "x").says
    assert check_gradients(layer_norm_forward, layer_norm_backward, inputs).ok


# ---------------------------------------------------------------------------------------------------- cross-entropy

TARGETS = np.array([[4, 0, 2], [1, 4, -100]])


def test_6_cross_entropy_that_finds_the_target_by_value():
    """Right until two logits of a row are equal."""
    ties = X.copy()
    ties[0, 0, 1] = ties[0, 0, TARGETS[0, 0]]
    assert check_gradients(cross_entropy_forward, by_value, [X, TARGETS]).check("gradient of logits").ok
    rejected(cross_entropy_forward, by_value, [ties, TARGETS], "logits")
    assert check_gradients(cross_entropy_forward, cross_entropy_backward, [ties, TARGETS]).ok


# ---------------------------------------------------------------------------------------------------- attention

def multi_head_by_loops(layer, x, memory, mask=None):
    """Multi-head attention as its sums read: no axis is moved, no array is reshaped."""
    (B, T, D), S, H = x.shape, memory.shape[1], layer.num_heads
    E = D // H
    q, k, v = (rows @ part.weight + part.bias
               for rows, part in ((x, layer.query), (memory, layer.key), (memory, layer.value)))
    joined = np.zeros((B, T, D))
    for b, h, t in np.ndindex(B, H, T):
        head = slice(h * E, (h + 1) * E)
        seen = [s for s in range(S) if mask is None or mask[b, h, t, s]]
        e = [math.exp(sum(q[b, t, head] * k[b, s, head]) / math.sqrt(E)) for s in seen]
        for weight, s in zip(e, seen, strict=True):
            joined[b, t, head] += weight / sum(e) * v[b, s, head]
    return joined @ layer.output.weight + layer.output.bias


HEADS = with_random_weights(MultiHeadAttention.create(6, 2, rng=RNG), RNG)
ROWS, MEMORY, HEADS_MASK = RNG.standard_normal((2, 3, 6)), RNG.standard_normal((2, 5, 6)), random_mask(RNG, (2, 2, 3, 5))


def multi_head(layer, x, memory, mask=None, *, scale=None, mix_positions=False, value_from_query=False):
    """`MultiHeadAttention.forward` with one thing wrong."""
    (B, T, D), S, H = x.shape, memory.shape[1], layer.num_heads

    def split(rows, length):
        return rows.reshape(B, H, length, D // H) if mix_positions else rows.reshape(B, length, H, D // H).swapaxes(1, 2)

    q, _ = linear_forward(x, layer.query.weight, layer.query.bias)
    k, _ = linear_forward(memory, layer.key.weight, layer.key.bias)
    v, _ = linear_forward(x if value_from_query else memory, layer.value.weight, layer.value.bias)
    y, _ = attention_forward(split(q, T), split(k, S), split(v, S), mask, scale=scale)
    joined = y.reshape(B, T, D) if mix_positions else y.swapaxes(1, 2).reshape(B, T, D)
    return joined @ layer.output.weight + layer.output.bias


@pytest.mark.parametrize("mask", [None, HEADS_MASK], ids=["no mask", "mask"])
def test_the_oracle_and_the_attention_of_these_bugs_agree_without_one(mask):
    y, _ = HEADS.forward(ROWS, MEMORY, mask)
    np.testing.assert_allclose(multi_head_by_loops(HEADS, ROWS, MEMORY, mask), y, atol=1e-13)
    np.testing.assert_allclose(multi_head(HEADS, ROWS, MEMORY, mask), y, atol=1e-13)


def rejected_by_loops(wrong, x, memory, mask=None):
    return np.abs(wrong - multi_head_by_loops(HEADS, x, memory, mask)).max() > 1e-3


@pytest.mark.parametrize("scale", [1 / math.sqrt(6), 1 / 3], ids=["model width", "twice"])
def test_7_scores_scaled_by_the_model_width_or_twice_in_forward(scale):
    """The width of a head is meant, once."""
    assert rejected_by_loops(multi_head(HEADS, ROWS, MEMORY, scale=scale), ROWS, MEMORY)


def test_7_is_not_seen_where_all_weights_are_alike():
    """Tiny inputs make every weight 1 / S whatever the scale: numpitron's test against torch passes for that reason."""
    assert not rejected_by_loops(multi_head(HEADS, ROWS * 1e-6, MEMORY * 1e-6, scale=1 / 6), ROWS * 1e-6, MEMORY * 1e-6)


def test_8_heads_split_by_a_reshape_without_a_transpose():
    """It mixes positions; with one query and one key there are none to mix, and a test of that size passes."""
    assert rejected_by_loops(multi_head(HEADS, ROWS, MEMORY, mix_positions=True), ROWS, MEMORY)
    one_row, one_key = ROWS[:, :1], MEMORY[:, :1]
    assert not rejected_by_loops(multi_head(HEADS, one_row, one_key, mix_positions=True), one_row, one_key)


def test_9_cross_attention_with_the_value_from_the_wrong_side():
    """Self-attention never shows it; sequences of one length run through."""
    memory = MEMORY[:, :3]
    assert rejected_by_loops(multi_head(HEADS, ROWS, memory, value_from_query=True), ROWS, memory)
    assert not rejected_by_loops(multi_head(HEADS, ROWS, ROWS, value_from_query=True), ROWS, ROWS)


def test_9_cross_attention_that_sends_the_gradient_of_the_value_to_the_wrong_side():
    class Wrong(MultiHeadAttention):
        def backward(self, d_y, cache):
            d_x, d_memory, d = super().backward(d_y, cache)
            d_value = d_memory - self._without_value(d_y, cache)
            return d_x + d_value, d_memory - d_value, d

        def _without_value(self, d_y, cache):
            silent = replace(cache, value=replace(cache.value, weight=np.zeros_like(cache.value.weight)))
            return super().backward(d_y, silent)[1]

    wrong = Wrong(HEADS.query, HEADS.key, HEADS.value, HEADS.output, 2)
    report = check_layer(wrong, [ROWS, MEMORY[:, :3]])
    assert not report.check("gradient of x").ok
    assert not report.check("gradient of memory").ok
    assert report.check("gradient of value.weight").ok


def test_19_the_gradient_of_the_key_bias_is_no_false_alarm():
    """Its true value is 0, so its relative error means nothing. This one is no bug, and must not be called one."""
    report = check_layer(HEADS, [ROWS, MEMORY])
    y, cache = HEADS.forward(ROWS, MEMORY)
    _, _, d = HEADS.backward(np.ones(y.shape), cache)
    assert np.abs(d.key.bias).max() < 1e-13 * np.abs(d.key.weight).max()
    assert report.ok, str(report)


def test_21_a_mask_of_reversed_polarity_in_forward():
    """True means "may attend"; in some frameworks it means the opposite."""
    assert rejected_by_loops(multi_head(HEADS, ROWS, MEMORY, ~HEADS_MASK), ROWS, MEMORY, HEADS_MASK)


# ---------------------------------------------------------------------------------------------------- the others

def test_11_the_derivative_of_the_tanh_form_for_the_erf_form_of_gelu():
    """The two forms differ by 5e-4, so do their derivatives: tolerances of 1e-3 pass it."""
    def wrong(d_y, cache):
        _, of_tanh_form = gelu_tanh_forward(cache.x)
        return gelu_tanh_backward(d_y, of_tanh_form)

    rejected(gelu_forward, wrong, [X], "x")
    _, cache = gelu_forward(X)
    ones = np.ones(X.shape)
    assert np.abs(wrong(ones, cache) - gelu_backward(ones, cache)).max() < 1e-3


def test_12_an_embedding_gradient_that_drops_repeated_ids():
    """`d_weight[ids] += d_y` adds once for each different id. Without a repeated id it is right."""
    def wrong(d_y, cache):
        d_weight = np.zeros((cache.vocab_size, d_y.shape[-1]), d_y.dtype)
        d_weight[cache.ids] += d_y
        return d_weight

    table = RNG.standard_normal((7, 5))
    failed = rejected(embedding_forward, wrong, [np.array([[3, 0, 3], [6, 3, 1]]), table], "weight")
    assert "element [3, " in failed.says
    assert check_gradients(embedding_forward, wrong, [np.array([3, 0, 6, 1]), table]).ok


@pytest.mark.parametrize("lost", ["input", "output"])
def test_13_a_tied_weight_counted_once(lost):
    """The table is used at the input and at the output, so its two gradients add."""
    @dataclass(repr=False, eq=False)
    class Wrong(GPT):
        def backward(self, d_logits, cache):
            d = super().backward(d_logits, cache)
            _, d_table, _ = linear_backward(d_logits, cache.output)
            kept = d.embedding.weight - d_table.T if lost == "output" else d_table.T
            return replace(d, embedding=replace(d.embedding, weight=kept))

    right = with_random_weights(GPT.create(7, context=4, d_model=4, num_layers=1, num_heads=2, rng=RNG), RNG)
    wrong = Wrong(right.embedding, right.positions, right.blocks, right.norm)
    report = check_layer(wrong, [np.array([[3, 0, 3], [6, 3, 1]])])
    assert [check.argument for check in report.checks if not check.ok] == ["embedding.weight"]
