"""Masks: what they allow, said in loops, and traps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.masks import causal_mask, combine_masks, padding_mask

sizes = st.integers(0, 6)


@given(sizes, sizes)
def test_query_t_sees_keys_up_to_s_minus_t_plus_its_own_place(T, S):
    mask = causal_mask(T, S)
    assert mask.shape == (T, S)
    assert mask.dtype == np.bool_
    for t in range(T):
        for s in range(S):
            assert mask[t, s] == (s <= S - T + t)


@given(st.integers(1, 6), st.integers(1, 6))
def test_the_last_query_sees_every_key(T, S):
    assert causal_mask(T, S)[-1].all()


@given(sizes, sizes)
def test_the_mask_of_late_queries_is_the_end_of_the_whole_mask(T, earlier):
    np.testing.assert_array_equal(causal_mask(T, earlier + T), causal_mask(earlier + T)[earlier:])


def test_a_causal_mask_agrees_with_pytorch_where_both_align(torch):
    # PyTorch's mask of Transformer is -inf where attention is forbidden
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4).numpy()
    np.testing.assert_array_equal(causal_mask(4), theirs == 0)


@given(st.lists(sizes, max_size=4))
def test_only_the_first_keys_of_a_sequence_are_real(lengths):
    mask = padding_mask(np.array(lengths, int), 6)
    assert mask.shape == (len(lengths), 1, 1, 6)
    for b, length in enumerate(lengths):
        assert mask[b, 0, 0].tolist() == [True] * length + [False] * (6 - length)


def test_combined_masks_allow_what_each_allows():
    causal, padding = causal_mask(3), padding_mask([1, 3], 3)
    both = combine_masks(causal, None, padding)
    assert both.shape == (2, 1, 3, 3)
    for b, t, s in np.ndindex(2, 3, 3):
        assert both[b, 0, t, s] == (causal[t, s] and padding[b, 0, 0, s])


def test_none_allows_all():
    assert combine_masks() is None
    assert combine_masks(None, None) is None
    np.testing.assert_array_equal(combine_masks(None, causal_mask(2)), causal_mask(2))
    np.testing.assert_array_equal(combine_masks([[True, False]], [[True], [False]]), [[True, False], [False, False]])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: causal_mask(-1), r"^causal_mask: num_queries -1 and num_keys -1, expected at least 0"),
    (lambda: causal_mask(2, -3), r"^causal_mask: num_queries 2 and num_keys -3, expected at least 0"),
    (lambda: causal_mask(-1, 3), r"^causal_mask: num_queries -1 and num_keys 3, expected at least 0"),
    (lambda: padding_mask([2, 5], 4), r"^padding_mask: lengths from 2 to 5, expected 0 to 4"),
    (lambda: padding_mask([-1, 2], 4), r"^padding_mask: lengths from -1 to 2, expected 0 to 4"),
    (lambda: padding_mask([1.0], 4), r"^padding_mask: lengths float64\[1\], expected integers \[B\]"),
    (lambda: padding_mask(3, 4), r"^padding_mask: lengths int64\[\], expected integers \[B\]"),
    (lambda: combine_masks(causal_mask(2), np.zeros((2, 2))),
     r"^combine_masks: masks must be boolean \(True = may attend\), got float64"),
    (lambda: combine_masks(causal_mask(2), causal_mask(3)),
     r"^combine_masks: masks \[2, 2\] and \[3, 3\] do not broadcast to one shape"),
])
def test_bad_input_raises(call, message):
    with pytest.raises(ValueError, match=message):
        call()
