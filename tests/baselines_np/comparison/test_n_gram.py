"""The n-gram model against its recursion, written out with dictionaries."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines_np.comparison.n_gram import NGram


def p_naive(text: list[int], context: list[int], c: int, V: int) -> float:
    """p_n(c | h) = (count(h c) + types(h) p_{n-1}(c | h')) / (count(h) + types(h))"""
    lower = p_naive(text, context[1:], c, V) if context else 1 / V
    k = len(context)
    followers = Counter(text[i + k] for i in range(len(text) - k) if text[i:i + k] == context)
    types = len(followers)
    return (followers[c] + types * lower) / (followers.total() + types) if types else lower


@settings(max_examples=30, deadline=None)
@given(text=st.lists(st.integers(0, 3), min_size=5, max_size=40), n=st.integers(1, 5),
       row=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_equals_the_recursion_written_out(text, n, row):
    logits, _ = NGram.fit(np.array(text), n, 4).forward(np.array([row, row[::-1]]))
    for b, tokens in enumerate((row, row[::-1])):
        for t in range(len(row)):
            context = tokens[max(0, t + 1 - (n - 1)):t + 1] if n > 1 else []
            for c in range(4):
                assert math.exp(logits[b, t, c]) == pytest.approx(p_naive(text, context, c, 4), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(text=st.lists(st.integers(0, 6), min_size=6, max_size=60), n=st.integers(1, 6), seed=st.integers(0, 99))
def test_probabilities_are_positive_and_sum_to_1(text, n, seed):
    tokens = np.random.default_rng(seed).integers(0, 9, (3, 7))              # 7 and 8 were never seen
    p = np.exp(NGram.fit(np.array(text), n, 9).forward(tokens)[0])
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)


def test_learns_a_text_that_repeats():
    ids = np.tile([0, 1, 2, 0, 3], 50)
    logits, _ = NGram.fit(ids, 3, 4).forward(ids[None, :20])
    assert (logits[0, 1:].argmax(axis=-1) == ids[2:21]).all()


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="n 0, expected 1 <= n <= 4"):
        NGram.fit(np.arange(4), 0, 4)
    with pytest.raises(ValueError, match="n 5, expected 1 <= n <= 4"):
        NGram.fit(np.arange(4), 5, 4)
    with pytest.raises(ValueError, match="vocabulary 100000, expected fewer than 6208 for n = 5"):
        NGram.fit(np.arange(9), 5, 100_000)
