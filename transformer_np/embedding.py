"""Embedding: a table with one learned row for each token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from transformer_np.layer import Array, Cache, Layer


@dataclass(frozen=True, repr=False, eq=False)
class EmbeddingCache(Cache):
    ids: Array           # [...], integers
    vocab_size: int


def embedding_forward(ids: Array, weight: Array) -> tuple[Array, EmbeddingCache]:
    """Look up rows: the product of one-hot rows with the table, without the product.

        y = weight[ids]

    ids: [...], integers 0 <= id < V.   weight: [V, D].   Returns y: [..., D].
    Raises ValueError if ids are not integers or out of range (NumPy would read a negative id from the end, silently).
    """
    ids = np.asarray(ids)
    if weight.ndim != 2:
        raise ValueError(f"embedding: weight {list(weight.shape)}, expected [V, D]")
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"embedding: ids must be integers, got {ids.dtype}")
    if ids.size and not (0 <= ids.min() and ids.max() < weight.shape[0]):
        raise ValueError(f"embedding: ids from {ids.min()} to {ids.max()}, expected 0 to {weight.shape[0] - 1}")
    y = weight[ids]                                                             # [..., D]
    return y, EmbeddingCache(ids, weight.shape[0])


def embedding_backward(d_y: Array, cache: EmbeddingCache) -> Array:
    """Gradient of `embedding_forward`.

        forward   y_n = weight[id_n]
        backward  d_weight[v] = sum of d_y_n over all n with id_n = v

    A repeated id adds every time; `d_weight[ids] += d_y` would keep only the last. Equal ids are brought together by
    sorting and added segment by segment: `embedding_backward_naive` says the same in one line, and is slower.

    d_y: [..., D].   Returns d_weight: [V, D].
    """
    d_model = d_y.shape[-1]
    d_weight = np.zeros((cache.vocab_size, d_model), d_y.dtype)                 # [V, D]
    ids = cache.ids.reshape(-1)                                                 # [N]
    order = np.argsort(ids, kind="stable")                                      # [N]
    in_order = ids[order]                                                       # [N]
    first = np.flatnonzero(np.diff(in_order, prepend=-1))                       # where each different id begins
    d_rows = d_y.reshape(ids.size, d_model)[order]                              # [N, D]
    d_weight[in_order[first]] = np.add.reduceat(d_rows, first, axis=0)          # [V, D]
    return d_weight


def embedding_backward_naive(d_y: Array, cache: EmbeddingCache) -> Array:
    """`embedding_backward`, as its equation reads."""
    d_weight = np.zeros((cache.vocab_size, d_y.shape[-1]), d_y.dtype)           # [V, D]
    np.add.at(d_weight, cache.ids, d_y)
    return d_weight


@dataclass(repr=False, eq=False)
class Embedding(Layer):
    """`embedding_forward` with its table."""

    weight: Array        # [V, D]

    @classmethod
    def create(cls, vocab_size: int, d_model: int, *, rng: np.random.Generator, std: float = 0.02,
               dtype: type = np.float32) -> Embedding:
        """Rows from a normal distribution of standard deviation `std` (0.02: Radford et al. 2018, section 4.1)."""
        return cls((std * rng.standard_normal((vocab_size, d_model))).astype(dtype))

    def forward(self, ids: Array) -> tuple[Array, EmbeddingCache]:              # ids: [...]
        return embedding_forward(ids, self.weight)

    def backward(self, d_y: Array, cache: EmbeddingCache) -> Embedding:
        return replace(self, weight=embedding_backward(d_y, cache))
