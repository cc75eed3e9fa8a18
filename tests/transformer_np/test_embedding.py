"""Embedding: second opinions, theorems, traps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.checkpoints.pytorch import embedding_from_pytorch, embedding_to_pytorch
from transformer_np.embedding import Embedding, embedding_backward, embedding_backward_naive, embedding_forward
from transformer_np.gradcheck import check_gradients
from transformer_np.linear import linear_backward, linear_forward

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(0, 5), max_size=2).map(tuple)


def draw(seed, shape, V=4, D=3):
    """ids, of which some repeat and some are missing, a table, and a cotangent."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, shape), rng.standard_normal((V, D)), rng.standard_normal((*shape, D))


@given(seeds, shapes)
def test_looking_up_is_a_product_with_one_hot_rows(assert_close, seed, shape):
    ids, weight, d_y = draw(seed, shape)
    y, cache = embedding_forward(ids, weight)
    one_hot_y, one_hot_cache = linear_forward(np.eye(len(weight))[ids], weight)
    assert_close(y, one_hot_y, 0)
    assert_close(embedding_backward(d_y, cache), linear_backward(d_y, one_hot_cache)[1], 1e-14)


@given(seeds, shapes)
def test_the_sorted_sum_is_the_naive_sum(assert_close, seed, shape):
    ids, weight, d_y = draw(seed, shape)
    cache = embedding_forward(ids, weight)[1]
    assert_close(embedding_backward(d_y, cache), embedding_backward_naive(d_y, cache), 1e-14)


def test_embedding_and_its_gradient_agree_with_pytorch(torch, torch_module, assert_close):
    ids, _, d_y = draw(0, (3, 5))
    state, y, _, d_state = torch_module(torch.nn.Embedding(4, 3), d_y, ids)
    layer = embedding_from_pytorch(state)
    our_y, cache = layer.forward(ids)
    assert_close(our_y, y)
    assert_close(embedding_to_pytorch(layer.backward(d_y, cache)), d_state)


@given(seeds, st.lists(st.integers(1, 4), max_size=2).map(tuple))
def test_backward_agrees_with_the_complex_step(seed, shape):
    ids, weight, _ = draw(seed, shape)
    check_gradients(embedding_forward, embedding_backward, [ids, weight], seed=seed).raise_if_failed()


def test_repeated_ids_add():
    _, cache = embedding_forward(np.array([2, 0, 2, 2]), np.zeros((4, 1)))
    np.testing.assert_array_equal(embedding_backward(np.array([[1.0], [10], [100], [1000]]), cache), [[10], [0], [1101], [0]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_ids_of_every_integer_type_are_the_same_ids(dtype):
    ids, weight, d_y = draw(1, (6,))
    y, cache = embedding_forward(ids, weight)
    other_y, other_cache = embedding_forward(ids.astype(dtype), weight)
    np.testing.assert_array_equal(other_y, y)
    np.testing.assert_array_equal(embedding_backward(d_y, other_cache), embedding_backward(d_y, cache))


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_no_ids_give_a_zero_gradient(shape):
    y, cache = embedding_forward(np.zeros(shape, int), np.ones((4, 3)))
    assert y.shape == (*shape, 3)
    np.testing.assert_array_equal(embedding_backward(y, cache), np.zeros((4, 3)))


def test_ids_may_be_a_list():
    weight = np.arange(12.0).reshape(4, 3)
    y, cache = embedding_forward([[3, 1]], weight)
    np.testing.assert_array_equal(y, weight[[[3, 1]]])
    np.testing.assert_array_equal(embedding_backward(y, cache)[3], weight[3])


@pytest.mark.parametrize(("ids", "message"), [
    (np.array([0, -1]), r"^embedding: ids from -1 to 0, expected 0 to 3"),
    (np.array([[4, 1]]), r"^embedding: ids from 1 to 4, expected 0 to 3"),
    (np.array([1.0]), r"^embedding: ids must be integers, got float64"),
    (np.array([True]), r"^embedding: ids must be integers, got bool"),
])
def test_bad_ids_raise(ids, message):
    with pytest.raises(ValueError, match=message):
        embedding_forward(ids, np.zeros((4, 3)))


def test_a_table_that_is_no_matrix_raises():
    with pytest.raises(ValueError, match=r"^embedding: weight \[4\], expected \[V, D\]"):
        embedding_forward(np.array([0]), np.zeros(4))


def test_new_rows_have_the_standard_deviation_asked_for():
    layer = Embedding.create(200, 100, rng=np.random.default_rng(0), std=0.3)
    assert layer.weight.dtype == np.float32
    assert layer.weight.std() == pytest.approx(0.3, rel=0.02)  # 20 000 samples: the estimate is right to 0.5 %
