"""The suites: which experiments there are, and how much each arm is given. What is printed of a run is taken from here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any

from baselines_np.comparison.associative_recall import AssociativeRecall
from baselines_np.comparison.language_model import LanguageModel, text_and_source
from baselines_np.comparison.state_tracking import StateTracking
from baselines_np.comparison.task import Task, predict

EXPERIMENTS = ("associative_recall", "state_tracking", "language_model")
NEURAL_ARMS = ("transformer", "transformer_1_layer", "rnn", "gru", "lstm", "tcn")
N_GRAM_ARMS = {"bigram": 2, "5-gram": 5}
ARMS = (*NEURAL_ARMS, *N_GRAM_ARMS)
SUITES = {"quick": 3, "full": 5}     # and the seeds of each


@dataclass(frozen=True)
class Training:
    """The same for every arm of an experiment."""

    steps: int
    learning_rates: tuple[float, ...]    # the grid; each arm gets the one whose validation score is best with seed 0
    warmup: int
    final_rate: float                    # the learning rate at the end, as a share of the highest
    evaluate_every: int
    clip_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Size:
    """The two-layer (or deeper) Transformer. The widths of the other arms follow from its number of parameters."""

    width: int
    layers: int
    heads: int
    positions: str               # "learned", or "sinusoidal" where longer sequences than the trained ones are asked about
    recurrent_layers: int = 1
    kernel: int = 3
    tcn_levels: int = 4          # a TCN sees 1 + 2 (kernel - 1) (2^levels - 1) positions: 61


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    question: str
    metric: str
    higher_is_better: bool
    threshold: float             # from here on a run counts as solved
    threshold_is: str
    task: Task
    training: Training
    size: Size

    @property
    def arms(self) -> tuple[str, ...]:
        """Counting characters is a rival for text only."""
        return ARMS if isinstance(self.task, LanguageModel) else NEURAL_ARMS

    def budget(self) -> dict[str, Any]:
        """Everything that the runs of this experiment share. Two results may stand in one file only if this is equal."""
        budget = {**self.task.settings(), **asdict(self.training), "optimizer": "AdamW",
                  "schedule": "linear warm-up, then half a cosine", "reference": asdict(self.size)}
        return json.loads(json.dumps(budget))  # as it is read back from the file: a tuple is a list there

    def reached(self, score: float) -> bool:
        return score >= self.threshold if self.higher_is_better else score <= self.threshold


def experiments(suite: str, names: Sequence[str] = EXPERIMENTS, text: str | PathLike[str] | None = None) -> list[Experiment]:
    """The experiments of a suite, in the order of EXPERIMENTS. Raises InputError if the text cannot be used."""
    full = suite == "full"
    builders = {"associative_recall": lambda: _associative_recall(full), "state_tracking": lambda: _state_tracking(full),
                "language_model": lambda: _language_model(full, text)}
    return [builders[name]() for name in EXPERIMENTS if name in names]


def _associative_recall(full: bool) -> Experiment:
    # Two layers start to work together suddenly, and in some seeds late: so the rate does not fall. A strong weight decay brings
    # that moment forward by a quarter; RNN, LSTM and TCN come out the same with and without it.
    training = Training(steps=360, learning_rates=(1e-3, 2e-3), warmup=50, final_rate=1.0, weight_decay=1.0, evaluate_every=25)
    if full:
        training = replace(training, steps=1200, learning_rates=(5e-4, 1e-3, 2e-3, 4e-3), evaluate_every=50)
    return Experiment(
        "associative_recall", "Associative recall",
        "Six keys with their values, then the keys again: which value came with each?",
        metric="accuracy", higher_is_better=True, threshold=0.95, threshold_is="95 % of the answers right",
        task=AssociativeRecall(batch=64), training=training,
        size=Size(width=64, layers=2, heads=1, positions="learned"))


def _state_tracking(full: bool) -> Experiment:
    training = Training(steps=250, learning_rates=(1e-3, 3e-3), warmup=20, final_rate=0.1, evaluate_every=25)
    if full:
        training = replace(training, steps=1000, learning_rates=(3e-4, 1e-3, 3e-3, 1e-2), evaluate_every=50)
    return Experiment(
        "state_tracking", "State tracking",
        "Coin tosses: has the number of ones so far been odd? Trained on 1 to 40 tosses, asked about up to 256.",
        metric="accuracy", higher_is_better=True, threshold=0.95, threshold_is="95 % of the labels right",
        task=StateTracking(batch=64), training=training,
        size=Size(width=64 if full else 32, layers=2, heads=2, positions="sinusoidal"))


def _language_model(full: bool, text: str | PathLike[str] | None) -> Experiment:
    content, source = text_and_source(text)
    task = LanguageModel.create(content, source, context=64, batch=12)
    bigram = predict(task.n_gram(2), *task.test()).nats / math.log(2)
    training = Training(steps=300, learning_rates=(5e-3, 1e-2), warmup=20, final_rate=0.1, weight_decay=0.1, evaluate_every=60)
    size = Size(width=64, layers=2, heads=4, positions="learned")
    if full:
        # nanoGPT's recipe for a CPU: 4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps, no dropout
        training = replace(training, steps=2000, learning_rates=(1e-3, 2e-3, 4e-3), warmup=100, evaluate_every=100,
                           betas=(0.9, 0.99))
        size = replace(size, width=128, layers=4, recurrent_layers=2)
    return Experiment(
        "language_model", "Language modelling",
        f"The next character of a real text ({source}): how many bits does each cost?",
        metric="bits per character", higher_is_better=False, threshold=bigram, threshold_is="fewer bits than the bigram model",
        task=task, training=training, size=size)
