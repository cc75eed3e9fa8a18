"""The text task: real text, split without overlap, and every held-out character predicted once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from baselines_np.comparison.language_model import LanguageModel, prose_of_the_standard_library, text_and_source
from baselines_np.comparison.task import IGNORED, stream
from transformer_np.errors import InputError

TEXT = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(2000))
TASK = LanguageModel.create(TEXT, "letters", context=16, batch=5)


def test_the_parts_are_the_text_in_order():
    ids = np.concatenate([TASK.train_ids, TASK.held_out_ids])
    assert "".join(TASK.characters[i] for i in ids) == TEXT
    assert (len(TASK.train_ids), len(TASK.held_out_ids)) == (1800, 200)


def test_targets_are_the_next_characters_of_the_training_part():
    tokens, targets = TASK.draw(stream("training", 0))
    train = TEXT[:1800]
    for row, labels in zip(tokens, targets, strict=True):
        window = "".join(TASK.characters[i] for i in [*row, labels[-1]])
        assert window in train
        np.testing.assert_array_equal(row[1:], labels[:-1])


def test_every_held_out_character_but_the_first_is_predicted_once():
    """In turn: a window to validate on, a window to test on. None is in both."""
    (seen, validation), (tried, test) = TASK.validation(), TASK.test()
    assert seen.shape == (7, 16) and tried.shape == (6, 16)
    targets = np.empty((13, 16), int)
    targets[0::2], targets[1::2] = validation, test
    np.testing.assert_array_equal(targets[targets != IGNORED], TASK.held_out_ids[1:])
    np.testing.assert_array_equal(tried.ravel()[:16], TASK.held_out_ids[16:32])


def test_chance_is_the_vocabulary_and_the_unigram_is_below_it():
    baselines = TASK.baselines()
    assert baselines["chance"].score == pytest.approx(math.log2(TASK.vocabulary))
    train = np.bincount(TASK.train_ids, minlength=TASK.vocabulary)
    p = (train + (train > 0).sum() / TASK.vocabulary) / (train.sum() + (train > 0).sum())
    assert baselines["unigram"].score == pytest.approx(-np.log2(p[TASK.test()[1]]).mean())


def test_the_prose_repeats_no_paragraph():
    text = prose_of_the_standard_library()
    paragraphs = text.split("\n\n")
    assert len(text) > 300_000 and len(paragraphs) == len(set(paragraphs))


def test_a_text_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(InputError, match=r"text letters: 100 characters leave 10 .* two windows of 16: about 330"):
        LanguageModel.create(TEXT[:100], "letters", context=16, batch=5)
    with pytest.raises(InputError, match="6001 different characters, expected at most 6000"):
        LanguageModel.create("".join(chr(0x4E00 + i) for i in range(6001)), "signs", context=16, batch=5)
    with pytest.raises(InputError, match="cannot be read"):
        text_and_source(tmp_path / "absent")
