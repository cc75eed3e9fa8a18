"""The generator of state tracking: labels by an independent oracle, fair coins, lengths as they are said to be."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest

from baselines_np.comparison.state_tracking import StateTracking
from baselines_np.comparison.task import IGNORED, stream

TASK = StateTracking()


class Oracle:
    """A model that tracks the state for as long as it remembers, and then says 0."""

    def __init__(self, memory: int) -> None:
        self.memory = memory

    def forward(self, tokens: np.ndarray, rng: None = None) -> tuple[np.ndarray, None]:
        parity = np.bitwise_xor.accumulate(tokens, axis=1)
        parity[:, self.memory:] = 0
        return np.eye(2)[parity], None


def test_labels_are_right_by_folding_xor():
    tokens, targets = TASK.examples(20, 33, np.random.default_rng(0))
    for row, labels in zip(tokens.tolist(), targets.tolist(), strict=True):
        assert labels == [functools.reduce(operator.xor, row[:end]) for end in range(1, 34)]


def test_training_lengths_are_uniform_from_1_to_40_and_one_a_batch():
    data = stream("training", 0)
    lengths = np.bincount([TASK.draw(data)[0].shape[1] for _ in range(4000)], minlength=41)
    assert lengths[0] == 0 and len(lengths) == 41
    assert abs(lengths[1:] - 100).max() < 45                                # standard deviation 10


def test_coins_are_fair_and_labels_balanced():
    tokens, targets = TASK.examples(2000, 40, np.random.default_rng(1))
    assert abs(tokens.mean(axis=0) - 0.5).max() < 0.05
    assert abs(targets.mean(axis=0) - 0.5).max() < 0.05


def test_held_out_lengths_are_those_of_training_and_padding_does_not_count():
    for tokens, targets in (TASK.validation(), TASK.test()):
        lengths = (targets != IGNORED).sum(axis=1)
        assert lengths.min() == 1 and lengths.max() == 40
        for row, labels, length in zip(tokens, targets, lengths, strict=True):
            np.testing.assert_array_equal(labels[:length], np.bitwise_xor.accumulate(row[:length]))
            assert (labels[length:] == IGNORED).all()


def test_streams_differ():
    batches = [TASK.validation()[0], TASK.test()[0][:256], TASK.examples(256, 40, stream("training", 0))[0]]
    longest = [{tuple(row) for row in tokens.tolist()} for tokens in batches]
    # short sequences are few, and come in every stream: with one symbol there are two
    assert len(longest[0] & longest[1]) < 40 and len(longest[0] & longest[2]) < 40


def test_accuracy_beyond_the_trained_length_is_that_of_the_oracle():
    measured = TASK.beyond(Oracle(memory=40))
    by_position, by_length = dict(measured["by_position"]), dict(measured["by_length"])
    assert list(by_position) == list(range(1, 257))
    assert list(by_length) == [20, 40, 80, 120, 160, 200, 240, 256]
    assert all(by_position[position] == 1 for position in range(1, 41))
    assert np.mean([by_position[position] for position in range(41, 257)]) == pytest.approx(0.5, abs=0.02)
    assert by_length[40] == 1
    assert by_length[80] == pytest.approx(0.75, abs=0.02)


def test_baselines_are_near_a_coin_toss():
    baselines = TASK.baselines()
    assert baselines["chance"].score == 0.5
    assert baselines["majority"].score == pytest.approx(0.5, abs=0.02)
    # the last symbol is the parity when those before it are even: always at position 1, which one label in 20.5 is at
    assert baselines["copy the input"].score == pytest.approx(0.5 + 0.5 / 20.5, abs=0.02)


def test_the_batch_that_costs_are_measured_on_is_the_longest():
    assert TASK.longest_batch(stream("cost"))[0].shape == (64, 40)
