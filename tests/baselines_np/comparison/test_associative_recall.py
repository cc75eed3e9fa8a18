"""The generator of associative recall: every answer is right, nothing gives it away, and everything is equally likely."""

from __future__ import annotations

import numpy as np
import pytest

from baselines_np.comparison.associative_recall import AssociativeRecall
from baselines_np.comparison.task import IGNORED, stream

TASK = AssociativeRecall()


def test_labels_are_right_by_a_dictionary():
    tokens, targets = TASK.examples(50, np.random.default_rng(0))
    assert tokens.shape == targets.shape == (50, 18)
    for row, labels in zip(tokens.tolist(), targets.tolist(), strict=True):
        value_of = dict(zip(row[0:12:2], row[1:12:2], strict=True))
        assert len(value_of) == len(set(value_of.values())) == 6
        assert labels[:12] == [IGNORED] * 12
        assert labels[12:] == [value_of[key] for key in row[12:]]
        assert sorted(row[12:]) == sorted(value_of)


def test_tokens_stay_on_their_side_of_the_vocabulary():
    tokens, _ = TASK.examples(200, np.random.default_rng(1))
    keys, values = tokens[:, [0, 2, 4, 6, 8, 10, *range(12, 18)]], tokens[:, 1:12:2]
    assert keys.min() == 0 and keys.max() == 31
    assert values.min() == 32 and values.max() == 63
    assert TASK.vocabulary == 64


def test_every_answer_and_every_place_of_it_is_equally_likely():
    tokens, targets = TASK.examples(8000, np.random.default_rng(2))
    answers = targets[:, 12:]
    by_value = np.bincount(answers.ravel() - 32, minlength=32)
    assert abs(by_value / by_value.mean() - 1).max() < 0.15                  # 1,500 each, standard deviation 38
    for query in range(6):
        place = (tokens[:, 1:12:2] == answers[:, query, None]).argmax(axis=1)
        assert abs(np.bincount(place, minlength=6) / 8000 - 1 / 6).max() < 0.02


def test_a_key_does_not_tell_its_value_from_one_sequence_to_the_next():
    tokens, targets = TASK.examples(4000, np.random.default_rng(3))
    pairs = np.zeros((32, 32))
    np.add.at(pairs, (tokens[:, 12:], targets[:, 12:] - 32), 1)
    assert abs(pairs / pairs.mean() - 1).max() < 1                          # 23 each, standard deviation 4.8


def test_the_stream_depends_on_the_seed_alone():
    first, again, other = (TASK.draw(stream("training", seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_held_out_sequences_are_not_in_the_training_stream():
    held_out = {tuple(row) for tokens, _ in (TASK.validation(), TASK.test()) for row in tokens.tolist()}
    assert len(held_out) == TASK.validation_examples + TASK.test_examples
    for seed in range(3):
        data = stream("training", seed)
        assert held_out.isdisjoint(tuple(row) for _ in range(50) for row in TASK.draw(data)[0].tolist())


def test_baselines_are_what_guessing_is_worth():
    baselines = TASK.baselines()
    assert baselines["chance"].score == 1 / 32
    assert baselines["guess a value shown"].score == pytest.approx(1 / 6)   # values of a sequence differ, so exactly
    assert 0.01 < baselines["majority"].score < 0.06


def test_names_read_as_keys_and_values():
    assert TASK.names(np.array([7, 34])) == ["k7", "v2"]
