"""The cost of a step is counted, and equals the closed forms: forward once, backward twice."""

from __future__ import annotations

import numpy as np
import pytest

from baselines_np.comparison.cost import count_flops, peak_bytes
from baselines_np.models.recurrent import RecurrentLanguageModel
from baselines_np.models.tcn import TemporalConvolutionalNetwork
from transformer_np.linear import Linear
from transformer_np.models.gpt import GPT
from transformer_np.training.loop import train_step
from transformer_np.training.optimizers import AdamW

B, n, d, V, L, k = 3, 7, 8, 11, 2, 3
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, V, (B, n))

# For one sequence and one layer, forward, as in the literature (Vaswani et al. 2017, table 1, with its constants)
ATTENTION = 8 * n * d**2 + 4 * n**2 * d
FEED_FORWARD = 16 * n * d**2
LOGITS = 2 * n * d * V
CLOSED_FORMS = {"gpt": L * (ATTENTION + FEED_FORWARD) + LOGITS,
                "rnn": L * 4 * n * d**2 + LOGITS, "gru": L * 12 * n * d**2 + LOGITS, "lstm": L * 16 * n * d**2 + LOGITS,
                "tcn": L * 4 * k * n * d**2 + LOGITS}


def model(name):
    rng = np.random.default_rng(1)
    if name == "gpt":
        return GPT.create(V, context=n, d_model=d, num_layers=L, num_heads=2, rng=rng)
    if name == "tcn":
        return TemporalConvolutionalNetwork.create(V, d_model=d, num_layers=L, kernel_size=k, rng=rng)
    return RecurrentLanguageModel.create(V, cell=name, d_model=d, num_layers=L, rng=rng)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_forward_costs_the_closed_form(name):
    assert count_flops(model(name), lambda m: m.forward(TOKENS)) == B * CLOSED_FORMS[name]


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_a_training_step_costs_three_times_the_forward_pass(name):
    optimizer, m = AdamW(), model(name)
    state = optimizer.create_state(m)
    counted = count_flops(m, lambda m: train_step(m, optimizer, state, TOKENS, TOKENS, learning_rate=1e-3, clip_norm=1.0))
    assert counted == 3 * B * CLOSED_FORMS[name]


def test_counting_leaves_numpy_and_the_model_as_they_were():
    zeros, empty = np.zeros, np.empty
    m = model("lstm")
    before = m.cells[0].weight_h.copy()
    count_flops(m, lambda m: m.forward(TOKENS))
    assert np.zeros is zeros and np.empty is empty
    np.testing.assert_array_equal(m.cells[0].weight_h, before)
    assert type(m.cells[0].weight_h) is np.ndarray


def test_a_product_into_a_given_array_counts():
    linear = Linear.create(4, 5, rng=np.random.default_rng(0))
    assert count_flops(linear, lambda m: np.matmul(np.ones((3, 4)), m.weight, out=np.empty((3, 5)))) == 2 * 3 * 4 * 5


def test_peak_is_what_is_held_at_one_moment():
    def step():
        first = np.ones(1_000_000, np.uint8)
        del first
        both = np.ones(2_000_000, np.uint8), np.ones(500_000, np.uint8)
        return len(both)

    assert peak_bytes(step) == pytest.approx(2_500_000, abs=20_000)
