"""State tracking: running parity.

    1 0 1 1 0 1 ...         tokens
    1 1 0 1 1 0 ...         targets: has the number of ones so far been odd?

One bit of state, changed by every one. Trained on short sequences and asked about longer ones (Deletang et al. 2023, "Neural
Networks and the Chomsky Hierarchy": training lengths 1 to 40, one length a batch), it shows whether a model has learned the rule
or the lengths. Every position has a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from baselines_np.comparison.task import IGNORED, Baseline, Batch, Task, predict, stream
from transformer_np.layer import Array


@dataclass(frozen=True)
class StateTracking(Task):
    """Training lengths are uniform on 1 ... trained_length. `far` sequences of length `farthest` show what lies beyond."""

    trained_length: int = 40
    farthest: int = 256
    batch: int = 64
    validation_examples: int = 256
    test_examples: int = 1024
    far_examples: int = 256

    @property
    def vocabulary(self) -> int:
        return 2

    @property
    def longest(self) -> int:
        return self.trained_length

    def draw(self, rng: np.random.Generator) -> Batch:
        """One training batch: sequences of one length, drawn anew for each batch. tokens and targets: [batch, T]."""
        length = int(rng.integers(1, self.trained_length + 1))
        return self.examples(self.batch, length, rng)

    def longest_batch(self, rng: np.random.Generator) -> Batch:
        return self.examples(self.batch, self.trained_length, rng)

    def examples(self, count: int, length: int, rng: np.random.Generator) -> Batch:
        """`count` sequences of fair coin tosses, and the parity of each of their beginnings."""
        tokens = rng.integers(0, 2, (count, length))                                                # [B, T]
        targets = tokens.cumsum(axis=1) % 2                                                         # [B, T]
        return tokens, targets

    def validation(self) -> Batch:
        return self._mixed_lengths(self.validation_examples, stream("validation"))

    def test(self) -> Batch:
        return self._mixed_lengths(self.test_examples, stream("test"))

    def far(self) -> Batch:
        """Sequences of the farthest length. The models are causal, so the first L symbols of each are a test at length L."""
        return self.examples(self.far_examples, self.farthest, stream("far"))

    def _mixed_lengths(self, count: int, rng: np.random.Generator) -> Batch:
        """Lengths as in training, in one batch: what is beyond the length of a sequence does not count."""
        tokens, targets = self.examples(count, self.trained_length, rng)                            # [B, T]
        lengths = rng.integers(1, self.trained_length + 1, (count, 1))                              # [B, 1]
        inside = np.arange(self.trained_length) < lengths                                           # [B, T]
        return tokens * inside, np.where(inside, targets, IGNORED)

    def baselines(self) -> dict[str, Baseline]:
        tokens, targets = self.test()
        counts = targets != IGNORED                                                                 # [B, T]
        majority = self.examples(self.batch, self.trained_length, stream("training"))[1].mean() > 0.5
        return {"chance": Baseline(0.5, "a coin toss"),
                "majority": Baseline(_share(targets == majority, counts), "the most frequent label of a training batch, always"),
                "copy the input": Baseline(_share(targets == tokens, counts), "the last symbol alone")}

    def beyond(self, model: Any) -> dict[str, Any]:
        """Accuracy at each position of the farthest sequences, and over all labels of their first `length` symbols."""
        correct = predict(model, *self.far()).correct                                               # [B, T]
        by_position = correct.mean(axis=0)                                                          # [T]
        return {"by_position": [[position, float(share)] for position, share in enumerate(by_position, start=1)],
                "by_length": [[length, float(by_position[:length].mean())] for length in self.lengths]}

    @property
    def lengths(self) -> list[int]:
        """The trained length and its multiples, and the farthest."""
        half = self.trained_length // 2
        return sorted({half, *range(self.trained_length, self.farthest, self.trained_length), self.farthest})


def _share(right: Array, counts: Array) -> float:
    return float(right[counts].mean())
