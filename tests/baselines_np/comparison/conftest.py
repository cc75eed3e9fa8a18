"""A comparison of seconds: the three experiments with small tasks, few steps and narrow models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines_np.comparison.associative_recall import AssociativeRecall
from baselines_np.comparison.language_model import LanguageModel
from baselines_np.comparison.settings import Experiment, Size, Training, experiments
from baselines_np.comparison.state_tracking import StateTracking


def tiny_experiments() -> list[Experiment]:
    recall, tracking, language = experiments("quick")
    training = Training(steps=6, learning_rates=(1e-3, 1e-2), warmup=2, final_rate=0.5, evaluate_every=2)
    size = Size(width=16, layers=2, heads=1, positions="sinusoidal", tcn_levels=2)
    text = "the quick brown fox jumps over the lazy dog; " * 40
    return [replace(recall, task=AssociativeRecall(pairs=2, keys=4, values=4, batch=4, validation_examples=8, test_examples=8),
                    training=training, size=size),
            replace(tracking, task=StateTracking(trained_length=6, farthest=15, batch=4, validation_examples=8, test_examples=8,
                                                 far_examples=8), training=training, size=size),
            replace(language, task=LanguageModel.create(text, "a fox", context=8, batch=4), training=training, size=size)]


@pytest.fixture
def tiny() -> list[Experiment]:
    return tiny_experiments()
