"""A recurrent language model over any of the three cells.

Mikolov et al. 2010, "Recurrent neural network based language model"; dropout between the layers only, never along the
recurrence, as in Zaremba et al. 2014, "Recurrent Neural Network Regularization", section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from baselines_np.gru import GRU, GRUCache
from baselines_np.lstm import LSTM, LSTMCache
from baselines_np.rnn import RNN, RNNCache
from transformer_np.dropout import DropoutCache, dropout_backward, dropout_forward
from transformer_np.embedding import Embedding, EmbeddingCache
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import Linear, LinearCache

CELLS: dict[str, type[RNN] | type[GRU] | type[LSTM]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


@dataclass(frozen=True, repr=False, eq=False)
class RecurrentLanguageModelCache(Cache):
    embedding: EmbeddingCache
    cells: list[RNNCache | GRUCache | LSTMCache]
    dropouts: list[DropoutCache]     # before the first cell, and after each
    output: LinearCache


@dataclass(repr=False, eq=False)
class RecurrentLanguageModel(Layer):
    """Embedding, a stack of recurrent layers, and a linear map to the logits.

        x^0 = embedding(tokens),   x^l = cell_l(x^{l-1}),   logits = x^L W + b

    Position t of the logits has seen tokens 0 to t. The state starts at 0 with every call.
    """

    embedding: Embedding                 # [V, D]
    cells: list[RNN | GRU | LSTM]        # D to D each
    output: Linear                       # [D, V]
    dropout: float = 0.0

    @classmethod
    def create(cls, vocab_size: int, *, cell: Literal["rnn", "gru", "lstm"], d_model: int, num_layers: int = 1,
               rng: np.random.Generator, dropout: float = 0.0, dtype: type = np.float32) -> RecurrentLanguageModel:
        """Embeddings of unit variance, the rest as the layers' own `create`. Raises ValueError if the cell is unknown or there
        is no layer."""
        if cell not in CELLS:
            raise ValueError(f"RecurrentLanguageModel: cell {cell!r}, expected one of {', '.join(CELLS)}")
        if num_layers < 1:
            raise ValueError(f"RecurrentLanguageModel: num_layers {num_layers}, expected at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"RecurrentLanguageModel: dropout {dropout}, expected 0 <= dropout < 1")
        embedding = Embedding.create(vocab_size, d_model, rng=rng, std=1.0, dtype=dtype)
        cells = [CELLS[cell].create(d_model, d_model, rng=rng, dtype=dtype) for _ in range(num_layers)]
        return cls(embedding, cells, Linear.create(d_model, vocab_size, rng=rng, dtype=dtype), dropout)

    def forward(self, tokens: Array, rng: np.random.Generator | None = None) -> tuple[Array, RecurrentLanguageModelCache]:
        """tokens: [B, T], integers.   rng: draws dropout; None means none.   Returns logits: [B, T, V]."""
        tokens = np.asarray(tokens)
        if tokens.ndim != 2:
            raise ValueError(f"RecurrentLanguageModel: tokens {list(tokens.shape)}, expected [B, T]")
        # 1. tokens to vectors
        x, embedding = self.embedding.forward(tokens)                           # [B, T, D]
        x, dropped = dropout_forward(x, self.dropout, rng)                      # [B, T, D]
        dropouts, cells = [dropped], []
        # 2. each layer reads what the layer below says
        for cell in self.cells:
            (x, _), read = cell.forward(x)                                      # [B, T, D]
            x, dropped = dropout_forward(x, self.dropout, rng)                  # [B, T, D]
            cells.append(read)
            dropouts.append(dropped)
        # 3. a score for each token that may come next
        logits, output = self.output.forward(x)                                 # [B, T, V]
        return logits, RecurrentLanguageModelCache(embedding, cells, dropouts, output)

    def backward(self, d_logits: Array, cache: RecurrentLanguageModelCache) -> RecurrentLanguageModel:
        """d_logits: [B, T, V].   Returns the gradient of the model."""
        # 3. logits = output(x)
        d_x, d_output = self.output.backward(d_logits, cache.output)            # [B, T, D]
        # 2. x = dropout(cell(x)), and the last state goes nowhere
        d_cells = []
        for cell, read, dropped in zip(reversed(self.cells), reversed(cache.cells), reversed(cache.dropouts[1:]), strict=True):
            d_x = dropout_backward(d_x, dropped)                                # [B, T, D]
            d_x, _, d_cell = cell.backward((d_x, None), read)  # type: ignore[arg-type]  # [B, T, D]
            d_cells.append(d_cell)
        d_cells.reverse()
        # 1. x = dropout(embedding(tokens))
        d_x = dropout_backward(d_x, cache.dropouts[0])                          # [B, T, D]
        d_embedding = self.embedding.backward(d_x, cache.embedding)
        return replace(self, embedding=d_embedding, cells=d_cells, output=d_output)
