"""Attention and multi-head attention: second opinions, theorems, traps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.attention import MultiHeadAttention, attention_backward, attention_forward
from transformer_np.checkpoints.pytorch import multi_head_attention_from_pytorch, multi_head_attention_to_pytorch
from transformer_np.gradcheck import check_gradients, check_layer, with_random_weights
from transformer_np.layer import named_arrays
from transformer_np.linear import linear_forward
from transformer_np.masks import causal_mask, padding_mask

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)
leading = st.lists(st.integers(1, 3), max_size=2).map(tuple)
dropouts = st.sampled_from([0.0, 0.3])


def draw(seed, leading, T, S, E=4, E_v=3):
    """q, k, v, a cotangent, and a mask in which some rows and some columns may be empty."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((*leading, T, E)), rng.standard_normal((*leading, S, E)),
            rng.standard_normal((*leading, S, E_v)), rng.standard_normal((*leading, T, E_v)),
            rng.random((*leading, T, S)) < 0.6)


def run(q, k, v, d_y, mask=None, **settings):
    """y, and the gradients of q, k and v."""
    y, cache = attention_forward(q, k, v, mask, **settings)
    return y, *attention_backward(d_y, cache)


def attention_naive(q, k, v, mask):
    """Query by query, over the keys that it may attend to; the softmax is SciPy's."""
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for index in np.ndindex(q.shape[:-1]):
        sequence, allowed = index[:-1], mask[index]
        if allowed.any():
            scores = k[sequence][allowed] @ q[index] / math.sqrt(q.shape[-1])
            y[index] = scipy.special.softmax(scores) @ v[sequence][allowed]
    return y


def random_attention(seed, d_model, num_heads, **settings):
    rng = np.random.default_rng(seed)
    return with_random_weights(MultiHeadAttention.create(d_model, num_heads, rng=rng, **settings), rng)


# ---------------------------------------------------------------------------------------------------- second opinions

@given(seeds, leading, sizes, sizes, st.booleans())
def test_attention_agrees_with_a_loop_over_queries(seed, leading, T, S, masked):
    q, k, v, _, mask = draw(seed, leading, T, S)
    y, _ = attention_forward(q, k, v, mask if masked else None)
    np.testing.assert_allclose(y, attention_naive(q, k, v, mask if masked else np.ones_like(mask)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_and_its_gradients_agree_with_pytorch(torch, torch_vjp, assert_close, masked, scale):
    q, k, v, d_y, mask = draw(0, (2, 3), 4, 5)
    mask[..., 0] = True  # PyTorch has no answer for a query without keys
    allowed = torch.tensor(mask) if masked else None
    theirs = torch_vjp(lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, allowed, scale=scale),
                       d_y, q, k, v)
    y, *gradients = run(q, k, v, d_y, mask if masked else None, scale=scale)
    assert_close((y, tuple(gradients)), theirs)


@given(seeds, leading, sizes, sizes, dropouts)
def test_backward_agrees_with_the_complex_step(seed, leading, T, S, dropout):
    q, k, v, _, mask = draw(seed, leading, T, S)

    def forward(q, k, v, mask):
        return attention_forward(q, k, v, mask, dropout=dropout, rng=np.random.default_rng(seed))

    check_gradients(forward, attention_backward, [q, k, v, mask], seed=seed).raise_if_failed()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_and_its_gradients_agree_with_pytorch(torch, torch_module, assert_close, bias, masked):
    rng = np.random.default_rng(0)
    x, memory, d_y = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6)), rng.standard_normal((2, 3, 6))
    mask = padding_mask([5, 2], 5) & (rng.random((3, 5)) < 0.6)                             # [B, 1, T, S]
    mask[..., 0] = True
    settings = {"attn_mask": np.repeat(~mask[:, 0], 2, axis=0)} if masked else {}           # [B * H, T, S]
    module = torch.nn.MultiheadAttention(6, 2, bias=bias, batch_first=True)
    state, y, (d_query, d_key, d_value), d_state = torch_module(module, d_y, x, memory, memory, **settings)
    layer = multi_head_attention_from_pytorch(state, num_heads=2)
    our_y, cache = layer.forward(x, memory, mask if masked else None)
    d_x, d_memory, d_layer = layer.backward(d_y, cache)
    assert_close((our_y, d_x, d_memory), (y, d_query, d_key + d_value))
    d_ours = multi_head_attention_to_pytorch(d_layer)
    assert_close(d_ours, d_state)
    if bias:  # among the three biases that are packed, that of the keys has no gradient: an absolute comparison
        np.testing.assert_allclose(d_ours["in_proj_bias"][6:12], d_state["in_proj_bias"][6:12], rtol=0, atol=1e-14)


@given(seeds, st.integers(1, 3), sizes, sizes, st.integers(1, 3), dropouts)
def test_the_backward_of_the_layer_agrees_with_the_complex_step(seed, B, T, S, H, dropout):
    rng = np.random.default_rng(seed)
    layer = random_attention(seed, 2 * H, H, dropout=dropout)
    x, memory = rng.standard_normal((B, T, 2 * H)), rng.standard_normal((B, S, 2 * H))
    mask = rng.random((B, 1, T, S)) < 0.6
    check_layer(layer, [x, memory, mask], seed=seed, rng_seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems: the weights

@given(seeds, leading, sizes, sizes)
def test_weights_are_a_distribution_over_allowed_keys(seed, leading, T, S):
    q, k, v, _, mask = draw(seed, leading, T, S)
    weights = attention_forward(q, k, v, mask)[1].weights
    assert (weights >= 0).all()
    assert (weights[~mask] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), mask.any(axis=-1), rtol=0, atol=1e-14)


@given(seeds, sizes, sizes)
def test_each_output_lies_between_the_values(seed, T, S):
    q, k, v, _, _ = draw(seed, (), T, S)
    y, _ = attention_forward(q, k, v)
    assert (y >= v.min(axis=0) - 1e-14).all()
    assert (y <= v.max(axis=0) + 1e-14).all()


@given(seeds, sizes, sizes)
def test_queries_of_zero_give_the_mean_of_the_values(seed, T, S):
    q, k, v, _, _ = draw(seed, (), T, S)
    y, _ = attention_forward(0 * q, k, v)
    np.testing.assert_allclose(y, np.broadcast_to(v.mean(axis=0), y.shape), rtol=0, atol=1e-14)


@given(seeds, sizes)
def test_one_key_leaves_queries_and_keys_without_gradient(seed, T):
    _, d_q, d_k, _ = run(*draw(seed, (2,), T, 1)[:4])
    np.testing.assert_allclose(d_q, 0, atol=1e-15)
    np.testing.assert_allclose(d_k, 0, atol=1e-15)


# ---------------------------------------------------------------------------------------------------- theorems: permutations

@given(seeds, sizes, sizes, st.randoms())
def test_queries_permuted_permute_the_outputs(seed, T, S, random):
    q, k, v, d_y, mask = draw(seed, (2,), T, S)
    order = random.sample(range(T), T)
    y, d_q, d_k, d_v = run(q, k, v, d_y, mask)
    permuted_y, permuted_d_q, permuted_d_k, permuted_d_v = run(q[:, order], k, v, d_y[:, order], mask[:, order])
    np.testing.assert_allclose(permuted_y, y[:, order], rtol=0, atol=1e-14)
    np.testing.assert_allclose(permuted_d_q, d_q[:, order], rtol=0, atol=1e-14)
    np.testing.assert_allclose(permuted_d_k, d_k, rtol=0, atol=1e-14)
    np.testing.assert_allclose(permuted_d_v, d_v, rtol=0, atol=1e-14)


@given(seeds, sizes, sizes, st.randoms())
def test_keys_and_values_permuted_together_change_nothing(seed, T, S, random):
    q, k, v, d_y, mask = draw(seed, (2,), T, S)
    order = random.sample(range(S), S)
    y, d_q, d_k, d_v = run(q, k, v, d_y, mask)
    permuted_y, permuted_d_q, permuted_d_k, permuted_d_v = run(q, k[:, order], v[:, order], d_y, mask[..., order])
    np.testing.assert_allclose(permuted_y, y, rtol=0, atol=1e-14)
    np.testing.assert_allclose(permuted_d_q, d_q, rtol=0, atol=1e-14)
    np.testing.assert_allclose(permuted_d_k, d_k[:, order], rtol=0, atol=1e-14)
    np.testing.assert_allclose(permuted_d_v, d_v[:, order], rtol=0, atol=1e-14)


# ---------------------------------------------------------------------------------------------------- theorems: masks

@given(seeds, sizes, sizes, st.data())
def test_what_comes_later_does_not_change_an_output(seed, T, S, data):
    q, k, v, _, _ = draw(seed, (2,), T, S)
    t = data.draw(st.integers(0, T - 1))
    last = S - T + t                                          # the last key that query t may see; below 0 it sees none
    y, _ = attention_forward(q, k, v, causal_mask(T, S))
    k[:, max(last + 1, 0):] = 7.0
    v[:, max(last + 1, 0):] = -7.0
    changed_y, _ = attention_forward(q, k, v, causal_mask(T, S))
    np.testing.assert_allclose(changed_y[:, :t + 1], y[:, :t + 1], rtol=0, atol=1e-14)
    if last < 0:
        assert (y[:, t] == 0).all()


@given(seeds, sizes, sizes, st.data())
def test_gradient_to_the_future_is_zero(seed, T, S, data):
    q, k, v, d_y, _ = draw(seed, (2,), T, S)
    t = data.draw(st.integers(0, T - 1))
    d_y[:, :t] = 0
    d_y[:, t + 1:] = 0
    _, d_q, d_k, d_v = run(q, k, v, d_y, causal_mask(T, S))
    future = max(S - T + t + 1, 0)
    assert (d_k[:, future:] == 0).all()
    assert (d_v[:, future:] == 0).all()
    assert (np.delete(d_q, t, axis=1) == 0).all()


@given(seeds, sizes, sizes)
def test_late_queries_see_what_they_saw_in_the_whole_sequence(seed, T, earlier):
    S = T + earlier
    q, k, v, _, _ = draw(seed, (2,), S, S)
    whole, _ = attention_forward(q, k, v, causal_mask(S))
    late, _ = attention_forward(q[:, earlier:], k, v, causal_mask(T, S))
    np.testing.assert_allclose(late, whole[:, earlier:], rtol=0, atol=1e-14)


@given(seeds, sizes, sizes, st.data())
def test_a_fully_masked_row_is_zero_and_touches_no_other_row(seed, T, S, data):
    q, k, v, d_y, mask = draw(seed, (2,), T + 1, S)
    row = data.draw(st.integers(0, T))
    mask[:, row] = False
    y, d_q, d_k, d_v = run(q, k, v, d_y, mask)
    assert (y[:, row] == 0).all()
    assert (d_q[:, row] == 0).all()
    without = [np.delete(array, row, axis=1) for array in (q, d_y, mask)]
    other_y, other_d_q, other_d_k, other_d_v = run(without[0], k, v, without[1], without[2])
    np.testing.assert_allclose(np.delete(y, row, axis=1), other_y, rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.delete(d_q, row, axis=1), other_d_q, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d_k, other_d_k, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d_v, other_d_v, rtol=0, atol=1e-14)


@given(seeds, leading, sizes, sizes, st.sampled_from([np.nan, np.inf, -np.inf, 1e300]))
def test_contents_of_keys_and_values_that_nobody_sees_are_irrelevant(seed, leading, T, S, content):
    q, k, v, d_y, mask = draw(seed, leading, T, S)
    unseen = ~mask.any(axis=-2)
    expected = run(q, k, v, d_y, mask)
    k[unseen] = content
    v[unseen] = content
    spoiled = run(q, k, v, d_y, mask)
    for ours, theirs in zip(spoiled, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (spoiled[2][unseen] == 0).all()
    assert (spoiled[3][unseen] == 0).all()


@given(seeds, st.integers(1, 4), st.integers(1, 4))
def test_padding_gives_what_the_shorter_sequence_gives(seed, S, padding):
    q, k, v, d_y, _ = draw(seed, (1,), 3, S + padding)
    y, d_q, d_k, d_v = run(q, k, v, d_y, padding_mask([S], S + padding)[0])
    short_y, short_d_q, short_d_k, short_d_v = run(q, k[:, :S], v[:, :S], d_y)
    np.testing.assert_allclose(y, short_y, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d_q, short_d_q, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d_k[:, :S], short_d_k, rtol=0, atol=1e-14)
    np.testing.assert_allclose(d_v[:, :S], short_d_v, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1), (4,), (1,), (), (2, 1, 1), (2, 3, 4)])
def test_a_mask_is_broadcast(shape):
    q, k, v, d_y, _ = draw(0, (2,), 3, 4)
    mask = np.random.default_rng(0).random(shape) < 0.6
    for narrow, wide in zip(run(q, k, v, d_y, mask), run(q, k, v, d_y, np.broadcast_to(mask, (2, 3, 4))), strict=True):
        np.testing.assert_array_equal(narrow, wide)


# ---------------------------------------------------------------------------------------------------- theorems: many heads

def test_a_mask_may_be_a_list():
    q, k, v, _, _ = draw(0, (), 2, 3)
    mask = [[True, False, True], [False, True, True]]
    np.testing.assert_array_equal(attention_forward(q, k, v, mask)[0], attention_forward(q, k, v, np.array(mask))[0])


@given(seeds, sizes, sizes)
def test_one_head_is_attention_between_projections(seed, T, S):
    rng = np.random.default_rng(seed)
    layer = random_attention(seed, 4, 1)
    x, memory = rng.standard_normal((2, T, 4)), rng.standard_normal((2, S, 4))
    mask = rng.random((2, T, S)) < 0.6
    y, _ = layer.forward(x, memory, mask[:, None])
    attended, _ = attention_forward(layer.query.forward(x)[0], layer.key.forward(memory)[0], layer.value.forward(memory)[0], mask)
    np.testing.assert_allclose(y, layer.output.forward(attended)[0], rtol=0, atol=1e-13)


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(2, 5), sizes)
def test_heads_are_the_columns_and_their_outputs_add(seed, H, E, T, S):
    rng = np.random.default_rng(seed)
    layer = random_attention(seed, H * E, H)
    x, memory = rng.standard_normal((2, T, H * E)), rng.standard_normal((2, S, H * E))
    y = np.zeros_like(x) + layer.output.bias
    for h in range(H):
        own = slice(h * E, (h + 1) * E)
        q, k, v = (linear_forward(source, part.weight[:, own], part.bias[own])[0]
                   for source, part in ((x, layer.query), (memory, layer.key), (memory, layer.value)))
        y += attention_forward(q, k, v)[0] @ layer.output.weight[own]
    np.testing.assert_allclose(layer.forward(x, memory)[0], y, rtol=0, atol=1e-12)


def test_the_head_split_needs_the_transpose():
    layer = random_attention(0, 6, 2)
    x = np.random.default_rng(0).standard_normal((2, 4, 6))

    def without_transpose(x):
        q, k, v = (part.forward(x)[0].reshape(2, 2, x.shape[1], 3) for part in (layer.query, layer.key, layer.value))
        return layer.output.forward(attention_forward(q, k, v)[0].reshape(x.shape))[0]

    one = x[:, :1]  # a sequence of one position hides it
    np.testing.assert_allclose(without_transpose(one), layer.forward(one, one)[0], rtol=0, atol=1e-13)
    assert np.abs(without_transpose(x) - layer.forward(x, x)[0]).max() > 0.1


@given(seeds, sizes, sizes, st.booleans())
def test_key_bias_has_no_gradient(seed, T, S, masked):
    rng = np.random.default_rng(seed)
    layer = random_attention(seed, 4, 2)
    x, memory, d_y = rng.standard_normal((2, T, 4)), rng.standard_normal((2, S, 4)), rng.standard_normal((2, T, 4))
    mask = rng.random((2, 1, T, S)) < 0.6 if masked else None
    y, cache = layer.forward(x, memory, mask)
    d_layer = layer.backward(d_y, cache)[-1]
    # it adds the same number to every score of a query: true value 0, what is seen is rounding of d_key's elements
    size = max(1, np.abs(d_layer.query.bias).max())
    np.testing.assert_allclose(d_layer.key.bias, 0, atol=2e-14 * size)
    shifted = replace(layer, key=replace(layer.key, bias=layer.key.bias + rng.standard_normal(4)))
    np.testing.assert_allclose(shifted.forward(x, memory, mask)[0], y, rtol=0, atol=1e-12)


@given(seeds, st.integers(1, 4))
def test_padded_memory_has_no_influence_on_any_gradient(seed, length):
    rng = np.random.default_rng(seed)
    layer = random_attention(seed, 4, 2)
    x, memory, d_y = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 3, 4))
    mask = padding_mask([length, 5], 5)

    def gradients(memory):
        y, cache = layer.forward(x, memory, mask)
        d_x, d_memory, d_layer = layer.backward(d_y, cache)
        return [y, d_x, d_memory, *named_arrays(d_layer).values()]

    expected = gradients(memory)
    memory[0, length:] = 1e3
    for ours, theirs in zip(gradients(memory), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_layer_shows_its_weights():
    layer = random_attention(0, 6, 3)
    x = np.random.default_rng(0).standard_normal((2, 4, 6))
    _, cache = layer.forward(x, x, causal_mask(4))
    assert cache.weights.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(cache.weights.sum(axis=-1), 1)
    assert (np.triu(cache.weights, 1) == 0).all()


# ---------------------------------------------------------------------------------------------------- dropout

def test_dropout_of_weights_keeps_the_mean_of_the_output():
    q, k, v, _, _ = draw(0, (), 2, 5)
    n = 20_000
    many = [np.broadcast_to(array, (n, *array.shape)) for array in (q, k, v)]
    y, cache = attention_forward(*many, dropout=0.3, rng=np.random.default_rng(0))
    # y = sum_s w_s keep_s v_s, where keep has variance p / (1 - p)
    variance = 0.3 / 0.7 * (cache.weights[0] ** 2 @ v**2) / n
    assert (np.abs(y.mean(axis=0) - attention_forward(q, k, v)[0]) < 4 * np.sqrt(variance)).all()
    np.testing.assert_allclose(cache.weights.sum(axis=-1), 1)  # the cache has the weights before dropout


def test_a_draw_of_exactly_the_probability_is_kept():
    """Draws are multiples of 2^-53 in [0, 1), and just p of them are below p."""
    class Always:
        def random(self, shape):
            return np.full(shape, 0.5)

    q, k, v = np.ones((3, 2)), np.ones((4, 2)), np.ones((4, 2))
    np.testing.assert_allclose(attention_forward(q, k, v, dropout=0.5, rng=Always())[0], 2)


def test_dropout_needs_a_generator_and_a_probability():
    q, k, v, _, _ = draw(0, (2,), 3, 4)
    plain, _ = attention_forward(q, k, v)
    np.testing.assert_array_equal(attention_forward(q, k, v, dropout=0.5)[0], plain)
    np.testing.assert_array_equal(attention_forward(q, k, v, rng=np.random.default_rng(0))[0], plain)
    assert np.abs(attention_forward(q, k, v, dropout=0.5, rng=np.random.default_rng(0))[0] - plain).max() > 0.1
    # probability 0 draws nothing, so what is drawn after it does not depend on it
    rng = np.random.default_rng(0)
    assert attention_forward(q, k, v, rng=rng)[1].keep is None
    assert rng.random() == np.random.default_rng(0).random()


def test_the_layer_drops_weights_as_its_attention_does():
    layer = random_attention(0, 4, 2, dropout=0.5)
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    y, cache = layer.forward(x, x, rng=np.random.default_rng(2))
    assert cache.attention.keep.shape == (2, 2, 3, 3)
    assert (cache.attention.keep == 0).any()
    assert np.abs(y - layer.forward(x, x)[0]).max() > 0.1
    assert layer.forward(x, x)[1].attention.keep is None


# ---------------------------------------------------------------------------------------------------- traps

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_do_not_overflow(dtype):
    q = np.array([[1e4, 0], [0, -1e4]], dtype)
    k = np.array([[1e4, 1e4], [-1e4, 0]], dtype)
    v = np.eye(2, dtype=dtype)
    y, *gradients = run(q, k, v, v)
    np.testing.assert_array_equal(y, [[1, 0], [0, 1]])
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_masked_key_does_not_win_over_a_score_far_below_zero():
    # with -1e9 in place of a mask, this query, whose one score is -3e9, would attend to what is masked
    q, k = np.array([[-1e5, 0.0]]), np.array([[4e4, 0.0], [0.0, 1.0]])
    y, _ = attention_forward(q, k, np.array([[1.0], [2.0]]), np.array([[True, False]]))
    np.testing.assert_array_equal(y, [[1]])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("B", "T", "S"), [(0, 2, 3), (2, 0, 3), (2, 3, 0), (2, 0, 0), (0, 0, 0)])
def test_empty_axes_give_empty_or_zero_results(masked, B, T, S):
    q, k, v, d_y, mask = draw(0, (B,), T, S)
    results = run(q, k, v, d_y, mask if masked else None)
    assert [result.shape for result in results] == [d_y.shape, q.shape, k.shape, v.shape]
    assert all((result == 0).all() for result in results)

    layer = random_attention(0, 4, 2)
    x, memory = np.ones((B, T, 4)), np.ones((B, S, 4))
    y, cache = layer.forward(x, memory, np.ones((B, 1, T, S), bool) if masked else None)
    d_x, d_memory, d_layer = layer.backward(np.ones_like(y), cache)
    assert (y.shape, d_x.shape, d_memory.shape) == (x.shape, x.shape, memory.shape)
    np.testing.assert_array_equal(y, np.broadcast_to(layer.output.bias, y.shape))  # nothing was attended to
    assert (d_layer.key.weight == 0).all()


def test_a_scale_from_numpy_keeps_float32():
    q, k, v, _, _ = (array.astype(np.float32) for array in draw(0, (), 2, 3))
    y, _ = attention_forward(q, k, v, scale=1 / np.sqrt(4))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, attention_forward(q, k, v)[0])


@pytest.mark.parametrize(("q", "k", "v", "settings", "message"), [
    ((2, 3), (4, 5), (4, 3), {}, r"^attention: q \[2, 3\] and k \[4, 5\] do not fit \[..., T, E\] and \[..., S, E\]"),
    ((3,), (4, 3), (4, 3), {}, r"^attention: q \[3\] and k \[4, 3\] do not fit"),
    ((2, 3), (3,), (4, 3), {}, r"^attention: q \[2, 3\] and k \[3\] do not fit"),
    ((5, 2, 3), (6, 4, 3), (6, 4, 3), {}, r"^attention: q \[5, 2, 3\] and k \[6, 4, 3\] do not fit"),
    ((2, 3), (4, 3), (5, 3), {}, r"^attention: v \[5, 3\] does not fit \[..., S, E_v\] beside k \[4, 3\]"),
    ((2, 3), (4, 3), (4,), {}, r"^attention: v \[4\] does not fit"),
    ((2, 3), (4, 3), (4, 3), {"mask": np.ones((2, 4))}, r"^attention: mask must be boolean \(True = may attend\), got float64"),
    ((2, 3), (4, 3), (4, 3), {"mask": np.ones((3, 4), bool)}, r"^attention: mask \[3, 4\] does not broadcast to \[2, 4\]"),
    ((2, 3), (4, 3), (4, 3), {"dropout": 1.0}, r"^attention: dropout 1.0, expected 0 <= dropout < 1"),
    ((2, 3), (4, 3), (4, 3), {"dropout": -0.1}, r"^attention: dropout -0.1, expected 0 <= dropout < 1"),
])
def test_bad_input_raises(q, k, v, settings, message):
    with pytest.raises(ValueError, match=message):
        attention_forward(np.zeros(q), np.zeros(k), np.zeros(v), **settings)


@pytest.mark.parametrize(("x", "memory", "message"), [
    ((3, 4), (2, 5, 4), r"^MultiHeadAttention: x \[3, 4\], memory \[2, 5, 4\], expected \[B, T, D\], \[B, S, D\]"),
    ((2, 3, 4), (1, 5, 4), r"^MultiHeadAttention: x \[2, 3, 4\], memory \[1, 5, 4\], expected"),
    ((2, 4), (2, 5, 4), r"^MultiHeadAttention: x \[2, 4\], memory \[2, 5, 4\], expected"),
    ((2, 3, 4), (2, 4), r"^MultiHeadAttention: x \[2, 3, 4\], memory \[2, 4\], expected"),
    ((2, 3, 5), (2, 5, 4), r"^linear: x \[2, 3, 5\] and weight \[4, 4\] do not fit"),
    ((2, 3, 4), (2, 5, 3), r"^linear: x \[2, 5, 3\] and weight \[4, 4\] do not fit"),
])
def test_sequences_that_do_not_fit_the_layer_raise(x, memory, message):
    with pytest.raises(ValueError, match=message):
        random_attention(0, 4, 2).forward(np.zeros(x), np.zeros(memory))


@pytest.mark.parametrize("num_heads", [0, 3, 5, -2])
def test_heads_that_do_not_divide_the_width_raise(num_heads):
    with pytest.raises(ValueError, match=rf"^MultiHeadAttention: num_heads {num_heads} does not divide d_model 4"):
        MultiHeadAttention.create(4, num_heads, rng=np.random.default_rng(0))
