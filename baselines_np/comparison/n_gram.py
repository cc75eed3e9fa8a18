"""The n-gram model: the next character from the last n - 1, by counting.

Interpolated Witten-Bell smoothing (Witten and Bell 1991, "The zero-frequency problem"; Chen and Goodman 1999, section 2.5). A
context that was followed by many different characters leaves more room for others:

    p_n(c | h) = (count(h c) + types(h) p_{n-1}(c | h')) / (count(h) + types(h))          p_0(c) = 1 / V

types(h) is the number of different characters seen after h, and h' is h without its first character. The base is uniform over the
vocabulary, so every probability is positive and a row sums to 1. Nothing is tuned, so nothing can be tuned on held-out text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array


@dataclass(frozen=True)
class _Counts:
    """What followed each context of one length. A context is read as a number in base V."""

    codes: Array     # [N], sorted: context * V + next character
    counts: Array    # [N]


@dataclass(frozen=True)
class NGram:
    """`NGram.fit(ids, n, V)` counts; `forward` has the interface of every sequence model, with log-probabilities as logits."""

    n: int
    vocabulary: int
    orders: list[_Counts]    # orders[k]: after contexts of k characters

    @classmethod
    def fit(cls, ids: Array, n: int, vocabulary: int) -> NGram:
        """ids: int [N].   Raises ValueError if n < 1, the text is shorter than n, or contexts do not fit into 63 bits."""
        if n < 1 or len(ids) < n:
            raise ValueError(f"NGram: n {n}, expected 1 <= n <= {len(ids)}, the length of the text")
        if vocabulary ** n >= 2 ** 63:
            raise ValueError(f"NGram: vocabulary {vocabulary}, expected fewer than {int(2 ** (63 / n))} for n = {n}")
        orders = []
        for length in range(n):
            windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)                     # [N - length, length + 1]
            codes, counts = np.unique(_as_numbers(windows, vocabulary), return_counts=True)
            orders.append(_Counts(codes, counts))
        return cls(n, vocabulary, orders)

    @property
    def parameters(self) -> int:
        """How many counts are kept."""
        return sum(len(order.codes) for order in self.orders)

    def forward(self, tokens: Array, rng: None = None) -> tuple[Array, None]:
        """log p(c | the last n - 1 characters), fewer at the beginning of a row.

        tokens: int [B, T].   Returns logits [B, T, V], and no cache: there is nothing to differentiate."""
        B, T = tokens.shape
        logits = np.empty((B, T, self.vocabulary))                                                  # [B, T, V]
        for position in range(T):
            length = min(self.n - 1, position + 1)
            context = tokens[:, position + 1 - length:position + 1]                                 # [B, length]
            logits[:, position] = np.log(self._probabilities(context))
        return logits, None

    def _probabilities(self, context: Array) -> Array:
        """context: int [B, K].   Returns p(c | context): [B, V]."""
        B, K = context.shape
        V = self.vocabulary
        p = np.full((B, V), 1 / V)                                                                  # [B, V]
        for length in range(K + 1):
            order = self.orders[length]
            first = _as_numbers(context[:, K - length:], V) * V                                     # [B]
            start = np.searchsorted(order.codes, first)                                             # [B]
            types = np.searchsorted(order.codes, first + V) - start                                 # [B]
            # every (row, next character) that was seen: row b has types[b] of them
            row = np.repeat(np.arange(B), types)                                                    # [sum types]
            entry = np.arange(types.sum()) + np.repeat(start - (types.cumsum() - types), types)     # [sum types]
            counts = np.zeros((B, V))                                                               # [B, V]
            counts[row, order.codes[entry] % V] = order.counts[entry]
            total = counts.sum(axis=1) + types                                                      # [B]
            # a context that was never seen has no counts and no types, and leaves p as it is
            seen = total > 0                                                                        # [B]
            p[seen] = (counts[seen] + types[seen, None] * p[seen]) / total[seen, None]
        return p


def _as_numbers(digits: Array, base: int) -> Array:
    """digits: int [..., K].   Returns the numbers that they write in `base`: [...]."""
    numbers = np.zeros(digits.shape[:-1], np.int64)
    for place in range(digits.shape[-1]):
        numbers = numbers * base + digits[..., place]
    return numbers
