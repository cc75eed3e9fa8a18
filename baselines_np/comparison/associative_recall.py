"""Associative recall: which value came with this key?

Multi-query associative recall (MQAR), Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models",
section 3. A sequence shows pairs of a key and a value, then asks for the keys again in another order:

    k7 v2  k0 v9  k4 v5   k0  k4  k7         tokens
     .  .   .  .   .  .   v9  v5  v2         targets (. does not count)

To answer, a model has to bind what stood side by side, and to find it again by its content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from baselines_np.comparison.task import IGNORED, Baseline, Batch, Task, stream
from transformer_np.layer import Array
from transformer_np.models.gpt import GPT


@dataclass(frozen=True)
class AssociativeRecall(Task):
    """Keys are the tokens 0 ... keys - 1, values the tokens keys ... keys + values - 1."""

    pairs: int = 6
    keys: int = 32
    values: int = 32
    batch: int = 64
    validation_examples: int = 256
    test_examples: int = 1024

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values

    @property
    def longest(self) -> int:
        return 3 * self.pairs

    def draw(self, rng: np.random.Generator) -> Batch:
        """One training batch: tokens and targets, both [batch, 3 * pairs]."""
        return self.examples(self.batch, rng)

    def examples(self, count: int, rng: np.random.Generator) -> Batch:
        """`count` independent sequences. In each, keys differ from each other, and so do values; every key is asked for once."""
        # 1. which keys and which values: the first few of a random order, so that none comes twice
        keys = _random_orders(count, self.keys, rng)[:, :self.pairs]                                # [B, pairs]
        values = self.keys + _random_orders(count, self.values, rng)[:, :self.pairs]                # [B, pairs]
        # 2. in which order they are asked for
        order = _random_orders(count, self.pairs, rng)                                              # [B, pairs]
        # 3. pairs, then queries
        tokens = np.empty((count, self.longest), np.int64)                                          # [B, T]
        tokens[:, 0:2 * self.pairs:2] = keys
        tokens[:, 1:2 * self.pairs:2] = values
        tokens[:, 2 * self.pairs:] = np.take_along_axis(keys, order, axis=1)
        # 4. an answer is expected at the queries only
        targets = np.full((count, self.longest), IGNORED)                                           # [B, T]
        targets[:, 2 * self.pairs:] = np.take_along_axis(values, order, axis=1)
        return tokens, targets

    def validation(self) -> Batch:
        return self.examples(self.validation_examples, stream("validation"))

    def test(self) -> Batch:
        return self.examples(self.test_examples, stream("test"))

    def baselines(self) -> dict[str, Baseline]:
        tokens, targets = self.test()
        answers = targets[:, 2 * self.pairs:]                                                       # [B, pairs]
        shown = tokens[:, 1:2 * self.pairs:2]                                                       # [B, pairs]
        train_answers = self.draw(stream("training"))[1][:, 2 * self.pairs:]
        majority = np.bincount(train_answers.ravel()).argmax()
        among_shown = (answers[:, :, None] == shown[:, None, :]).mean()
        return {"chance": Baseline(1 / self.values, "any of the values, at random"),
                "majority": Baseline(float((answers == majority).mean()), "the most frequent answer of a training batch, always"),
                "guess a value shown": Baseline(float(among_shown), "one of the values of this sequence, at random")}

    def beyond(self, model: Any) -> dict[str, Any]:
        """What each head of a Transformer looks at, in the first test sequence: rows are queries, columns keys."""
        if not isinstance(model, GPT):
            return {}
        tokens = self.test()[0][:1]                                                                 # [1, T]
        _, cache = model.forward(tokens)
        layers = [[head.round(4).tolist() for head in block.weights[0].astype(float)] for block in cache.blocks]
        return {"attention_map": {"tokens": self.names(tokens[0]), "layers": layers}}

    def names(self, tokens: Array) -> list[str]:
        """How a person reads the tokens of one sequence: k7 v2 ..."""
        return [f"k{token}" if token < self.keys else f"v{token - self.keys}" for token in tokens.tolist()]


def _random_orders(count: int, size: int, rng: np.random.Generator) -> Array:
    """`count` independent random orders of 0 ... size - 1: [count, size]."""
    return rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
