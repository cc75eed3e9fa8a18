"""What holds for every input that the strategies of the gradient checker draw: edges of shape, value, mask, label and memory."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import transformer_np as t
from transformer_np.embedding import embedding_backward_naive
from transformer_np.gradcheck import strategies as draw


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings(), np.errstate(divide="warn", over="warn", invalid="warn"):
        warnings.simplefilter("error")
        yield


@given(draw.arrays(draw.shapes(min_dims=1)), draw.layouts())
def test_softmax_of_any_finite_numbers_in_any_layout_sums_to_one_and_its_gradient_to_zero(x, drawn):
    _, layout = drawn
    y, cache = t.softmax_forward(layout(x))
    d_x = t.softmax_backward(layout(np.where(np.abs(x) < 10, x, 1)), cache)
    if x.shape[-1] > 0:
        np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-14)
    np.testing.assert_allclose(d_x.sum(axis=-1), 0, atol=1e-13)


@given(draw.arrays(draw.shapes(min_dims=1)), draw.layouts())
def test_layer_norm_of_any_finite_numbers_has_mean_0_and_at_most_variance_1(x, drawn):
    _, layout = drawn
    D = x.shape[-1]
    if D == 0:
        return  # the mean of nothing
    y, _ = t.layer_norm_forward(layout(x), np.ones(D), np.zeros(D))
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-12)
    assert (y.var(axis=-1) <= 1 + 1e-12).all()


@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4), draw.seeds(), st.data())
def test_attention_gives_a_mean_of_allowed_values_or_0_whatever_lies_behind_the_mask(B, T, S, seed, data):
    rng = np.random.default_rng(seed)
    _, mask = data.draw(draw.attention_masks(B, T, S))
    q, k = (data.draw(draw.arrays((B, 2, length, 3))) for length in (T, S))
    v = rng.standard_normal((B, 2, S, 3))
    allowed = np.broadcast_to(np.True_ if mask is None else mask, (B, 2, T, S))
    hidden = ~allowed.any(axis=2)[..., None]                                    # [B, H, S, 1]
    nan_k, nan_v = (np.where(hidden, np.nan, array) for array in (k, v))
    y, cache = t.attention_forward(q, nan_k, nan_v, mask)
    assert (y[~allowed.any(axis=-1)] == 0).all()
    assert (cache.weights[~allowed] == 0).all()
    if S > 0:
        assert (y <= np.where(allowed.any(axis=-1), v.max(axis=(2, 3), initial=0)[..., None], 0)[..., None] + 1e-12).all()
    d_q, d_k, d_v = t.attention_backward(rng.standard_normal(y.shape), cache)
    assert np.isfinite(d_q).all() and np.isfinite(d_k).all() and np.isfinite(d_v).all()
    assert (np.where(hidden, d_k, 0) == 0).all() and (np.where(hidden, d_v, 0) == 0).all()


@given(draw.shapes(max_dims=2), st.integers(0, 4), st.data())
def test_the_loss_is_the_mean_over_the_labels_that_count_and_0_if_none_does(shape, V, data):
    labels = data.draw(draw.labels(shape, V))
    logits = data.draw(draw.arrays((*shape, V)))
    (loss, count), cache = t.cross_entropy_forward(logits, labels)
    d_logits = t.cross_entropy_backward(1.0, cache)
    kept = labels != -100
    assert count == kept.sum() and (d_logits[~kept] == 0).all()
    y, _ = t.log_softmax_forward(logits)
    losses = [-y[index][labels[index]] for index in np.argwhere(kept).tolist() for index in [tuple(index)]]
    np.testing.assert_allclose(loss, np.mean(losses) if losses else 0, rtol=1e-12, atol=1e-12)


@given(draw.shapes(max_dims=3), st.integers(1, 5), draw.seeds(), st.data())
def test_a_repeated_id_adds_every_time(shape, vocab_size, seed, data):
    ids = data.draw(draw.repeated_ids(shape, vocab_size))
    y, cache = t.embedding_forward(ids, np.zeros((vocab_size, 3)))
    d_y = np.random.default_rng(seed).standard_normal(y.shape)
    np.testing.assert_allclose(t.embedding_backward(d_y, cache), embedding_backward_naive(d_y, cache), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh", "sigmoid", "tanh"])
@given(st.data())
def test_an_activation_of_any_finite_numbers_is_finite_and_so_is_its_gradient(name, data):
    regime, x = data.draw(draw.values(data.draw(draw.shapes()), dtype=data.draw(st.sampled_from([np.float64, np.float32]))))
    y, cache = getattr(t, f"{name}_forward")(x)
    d_x = getattr(t, f"{name}_backward")(np.ones_like(y), cache)
    assert np.isfinite(y).all() and np.isfinite(d_x).all(), regime
    assert y.dtype == x.dtype == d_x.dtype


@given(draw.broadcastable_pairs(max_dims=4), draw.seeds())
def test_combined_masks_allow_what_all_allow_whatever_their_shapes(pair, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.random(shape) < 0.5 for shape in pair)
    combined = t.combine_masks(a, b)
    assert combined.shape == np.broadcast_shapes(*pair)
    np.testing.assert_array_equal(combined, np.logical_and(a, b))
