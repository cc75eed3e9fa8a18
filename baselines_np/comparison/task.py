"""What the runner needs to know of a task: how a training batch is drawn, what is held out, and what guessing is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from transformer_np.cross_entropy import cross_entropy_forward
from transformer_np.layer import Array

IGNORED = -100                       # a target that does not count, as in `cross_entropy_forward`
Batch = tuple[Array, Array]          # tokens [B, T], targets [B, T]

_STREAMS = {"training": 0, "validation": 1, "test": 2, "far": 3, "cost": 4}
_TOKENS_AT_ONCE = 4096


class Baseline(NamedTuple):
    """What a rule without learning scores on the test data."""

    score: float
    what: str


class Task(ABC):
    """A frozen dataclass whose fields are the settings of the task.

    The training stream depends on the seed alone, so that every arm of a seed sees the same batches. Held-out data are the
    same for every seed: validation data choose the learning rate and draw the curves, test data give the score, once.
    """

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """How many different tokens there are. Targets are tokens too."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """The length of the longest training sequence."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Batch:
        """The next training batch."""

    def longest_batch(self, rng: np.random.Generator) -> Batch:
        """A training batch of the longest length, on which the cost of a step is measured."""
        return self.draw(rng)

    @abstractmethod
    def validation(self) -> Batch: ...

    @abstractmethod
    def test(self) -> Batch: ...

    @abstractmethod
    def baselines(self) -> dict[str, Baseline]:
        """The trivial rules that every table shows beside the arms."""

    def settings(self) -> dict[str, Any]:
        """What a reader needs to draw the same data."""
        return asdict(self)  # type: ignore[call-overload]

    def beyond(self, model: Any) -> dict[str, Any]:
        """What else is measured of a trained model, beside its score."""
        return {}


def stream(part: str, seed: int = 0) -> np.random.Generator:
    """Random numbers for one use: no seed's training data come from the stream of the validation or the test data."""
    return np.random.default_rng([_STREAMS[part], seed])


class Prediction(NamedTuple):
    nats: float          # mean cross-entropy over the targets that count
    accuracy: float      # share of them that the most probable token hits
    correct: Array       # boolean [B, T], False where the target does not count


def predict(model: Any, tokens: Array, targets: Array) -> Prediction:
    """Run the model over held-out data, a few rows at a time: attention weights need room.   tokens, targets: [B, T]."""
    rows = max(1, _TOKENS_AT_ONCE // tokens.shape[1])
    total, counted, correct = 0.0, 0, []
    for start in range(0, len(tokens), rows):
        part = targets[start:start + rows]                                                          # [b, T]
        logits, _ = model.forward(tokens[start:start + rows])                                       # [b, T, V]
        (loss, count), _ = cross_entropy_forward(logits, part, ignore_index=IGNORED)
        total += float(loss) * count
        counted += count
        correct.append(logits.argmax(axis=-1) == part)                                              # [b, T]
    hits = np.concatenate(correct)                                                                  # [B, T]
    return Prediction(total / counted, int(hits.sum()) / counted, hits)
