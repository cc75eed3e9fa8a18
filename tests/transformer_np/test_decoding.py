"""Choosing tokens: greedy, temperature, top-k; and writing on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_np.decoding import choose_token, generate
from transformer_np.models.gpt import GPT

LOGITS = np.array([0.0, 2.0, 1.0, -1.0])


def frequencies(logits, draws=20_000, **options):
    rows = np.broadcast_to(logits, (draws, len(logits)))
    chosen = choose_token(rows, rng=np.random.default_rng(0), **options)
    return np.bincount(chosen, minlength=len(logits)) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_the_softmax_says(temperature):
    expected = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    np.testing.assert_allclose(frequencies(LOGITS, temperature=temperature), expected, atol=0.015)  # 4 standard deviations


def test_top_k_draws_among_the_k_largest_in_their_proportions():
    found = frequencies(LOGITS, top_k=2)
    assert found[0] == found[3] == 0
    np.testing.assert_allclose(found[1] / found[2], np.e, rtol=0.1)


def test_top_k_keeps_the_first_of_equal_logits():
    found = frequencies(np.array([1.0, 3.0, 1.0, 1.0]), top_k=2)
    assert found[0] > 0 and found[2] == found[3] == 0


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6), st.integers(0, 10), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_greedy_is_top_1_is_a_temperature_near_zero(logits, seed, extra):
    logits = np.array([logits], dtype=np.float32)
    greedy = choose_token(logits, temperature=0)
    assert greedy == np.flatnonzero(logits[0] == logits[0].max())[0]
    np.testing.assert_array_equal(choose_token(logits, top_k=1, rng=np.random.default_rng(seed)), greedy)
    cold = choose_token(logits, temperature=1e-300, rng=np.random.default_rng(seed))
    assert logits[0, cold[0]] == logits[0].max()
    all_kept = choose_token(logits, top_k=logits.size + extra, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(all_kept, choose_token(logits, rng=np.random.default_rng(seed)))


def test_rows_are_drawn_apart_and_nothing_is_written_to():
    logits = np.array([[0.0, 9e9], [9e9, 0.0]])
    logits.setflags(write=False)
    np.testing.assert_array_equal(choose_token(logits, top_k=1, rng=np.random.default_rng(0)), [1, 0])
    assert choose_token(np.zeros((0, 3)), rng=np.random.default_rng(0)).shape == (0,)


@pytest.mark.parametrize(("options", "message"), [
    ({"temperature": -1.0}, "temperature -1.0"), ({"temperature": float("nan")}, "temperature nan"),
    ({"top_k": 0}, "top_k 0"), ({"rng": None}, "rng is None"), ({"logits": LOGITS}, r"logits \[4\]"),
    ({"logits": np.zeros((2, 0))}, r"logits \[2, 0\]"),
])
def test_what_cannot_be_chosen_from_is_refused(options, message):
    arguments = {"logits": LOGITS[None], "rng": np.random.default_rng(0)} | options
    with pytest.raises(ValueError, match=message):
        choose_token(**arguments)


class Counting:
    """A model for which the next token is always the last one plus one, and which notes how much it was shown."""

    def __init__(self):
        self.shown = []

    def forward(self, tokens):
        self.shown.append(tokens.shape[1])
        return np.eye(10)[(tokens + 1) % 10] * 100, None


def test_each_token_is_chosen_from_those_before_it():
    chosen = list(generate(Counting(), np.array([[3, 4], [8, 0]]), 4, context=5, temperature=0))
    np.testing.assert_array_equal(np.stack(chosen, axis=1), [[5, 6, 7, 8], [1, 2, 3, 4]])


def test_no_more_than_the_context_is_shown():
    model = Counting()
    list(generate(model, np.zeros((1, 2), int), 5, context=4, temperature=0))
    assert model.shown == [2, 3, 4, 4, 4]
    list(generate(model, np.zeros((1, 9), int), 1, context=4, temperature=0))
    assert model.shown[-1] == 4


def test_a_gpt_writes_beyond_its_context_and_the_same_seed_writes_the_same():
    model = GPT.create(5, context=3, d_model=4, num_layers=1, num_heads=1, rng=np.random.default_rng(0))
    texts = [np.stack(list(generate(model, np.array([[1]]), 8, context=3, rng=np.random.default_rng(seed))), axis=1)
             for seed in (1, 1, 2)]
    assert texts[0].shape == (1, 8)
    np.testing.assert_array_equal(texts[0], texts[1])
    assert (texts[0] != texts[2]).any()


@pytest.mark.parametrize("tokens", [np.zeros((1, 0), int), np.zeros(3, int)])
def test_nothing_to_go_on_from_is_refused(tokens):
    with pytest.raises(ValueError, match="T >= 1"):
        next(generate(Counting(), tokens, 1, context=4))


def test_a_length_of_zero_writes_nothing():
    assert list(generate(Counting(), np.array([[1]]), 0, context=4)) == []
