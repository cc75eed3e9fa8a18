"""GPT: a language model made of causal self-attention blocks.

Radford et al. 2018 (GPT) and 2019 (GPT-2): pre-norm, gelu_tanh, learned positions, an output table tied to the input's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from transformer_np.blocks import EncoderBlock, EncoderBlockCache
from transformer_np.dropout import DropoutCache, dropout_backward, dropout_forward
from transformer_np.embedding import Embedding, EmbeddingCache
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import LinearCache, linear_backward, linear_forward
from transformer_np.masks import causal_mask
from transformer_np.normalization import LayerNorm, LayerNormCache
from transformer_np.positional_encoding import (
    LearnedPositions,
    LearnedPositionsCache,
    SinusoidalPositions,
    SinusoidalPositionsCache,
)


@dataclass(frozen=True, repr=False, eq=False)
class GPTCache(Cache):
    embedding: EmbeddingCache
    positions: LearnedPositionsCache | SinusoidalPositionsCache
    dropout: DropoutCache
    blocks: list[EncoderBlockCache]
    norm: LayerNormCache
    output: LinearCache


@dataclass(repr=False, eq=False)
class GPT(Layer):
    """Tokens in, logits of the next token out, at every position; a position sees itself and those before it.

        x      = dropout(embedding[tokens] + positions)
        x      = block_L( ... block_1(x))
        logits = norm(x) embedding^T
    """

    embedding: Embedding                                 # [V, D], also the output table
    positions: LearnedPositions | SinusoidalPositions
    blocks: list[EncoderBlock]
    norm: LayerNorm
    dropout: float = 0.0

    @classmethod
    def create(cls, vocab_size: int, *, context: int, d_model: int, num_layers: int, num_heads: int, rng: np.random.Generator,
               dropout: float = 0.0, positions: str = "learned", std: float = 0.02, dtype: type = np.float32) -> GPT:
        """positions: "learned" goes up to `context`; "sinusoidal" (Vaswani et al. 2017) goes beyond it, if not always well.

        std: standard deviation of the weights at the start. Those that write into the residual stream have std / sqrt(2 L),
        since 2 L of them add up there (Radford et al. 2019, section 2.3). 0.02 (Radford et al. 2018, section 4.1) is meant for
        widths near 1000; a narrow model starts sooner from 1 / sqrt(d_model), which keeps the variance of a row.
        Raises ValueError for unknown positions, or a width that the heads do not divide.
        """
        if positions not in ("learned", "sinusoidal"):
            raise ValueError(f"GPT: positions {positions!r}, expected 'learned' or 'sinusoidal'")
        embedding = Embedding.create(vocab_size, d_model, rng=rng, std=std, dtype=dtype)
        code: LearnedPositions | SinusoidalPositions
        if positions == "learned":
            code = LearnedPositions.create(context, d_model, rng=rng, std=std, dtype=dtype)
        else:
            code = SinusoidalPositions(scale=std)
        output_std = std / math.sqrt(2 * max(num_layers, 1))
        blocks = [EncoderBlock.create(d_model, num_heads, 4 * d_model, rng=rng, pre_norm=True, activation="gelu_tanh",
                                      dropout=dropout, std=std, output_std=output_std, dtype=dtype)
                  for _ in range(num_layers)]
        return cls(embedding, code, blocks, LayerNorm.create(d_model, dtype=dtype), dropout)

    def forward(self, tokens: Array, *, rng: np.random.Generator | None = None) -> tuple[Array, GPTCache]:
        """tokens: [B, T], integers.   rng: draws dropout; None means none.   Returns logits: [B, T, V].

        `cache.blocks[l].weights` is [B, H, T, T].
        Raises ValueError if tokens are not [B, T], out of range, or longer than the learned positions.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 2:
            raise ValueError(f"GPT: tokens {list(tokens.shape)}, expected [B, T]")
        # 1. what, and where
        embedded, embedding = self.embedding.forward(tokens)                    # [B, T, D]
        placed, positions = self.positions.forward(embedded)                    # [B, T, D]
        x, dropout = dropout_forward(placed, self.dropout, rng)                 # [B, T, D]
        # 2. the blocks
        mask = causal_mask(tokens.shape[1])                                     # [T, T]
        blocks = []
        for block in self.blocks:
            x, block_cache = block.forward(x, mask, rng=rng)                    # [B, T, D]
            blocks.append(block_cache)
        # 3. compare with every token
        normed, norm = self.norm.forward(x)                                     # [B, T, D]
        logits, output = linear_forward(normed, self.embedding.weight.T)        # [B, T, V]
        return logits, GPTCache(embedding, positions, dropout, blocks, norm, output)

    def backward(self, d_logits: Array, cache: GPTCache) -> GPT:
        """d_logits: [B, T, V].   Returns the gradient of the weights: a GPT."""
        # 3. logits = normed @ embedding^T
        d_normed, d_table, _ = linear_backward(d_logits, cache.output)          # [B, T, D], [D, V]
        d_x, d_norm = self.norm.backward(d_normed, cache.norm)                  # [B, T, D]
        # 2. x = block(x)
        d_blocks = []
        for block, block_cache in zip(reversed(self.blocks), reversed(cache.blocks), strict=True):
            d_x, d_block = block.backward(d_x, block_cache)                     # [B, T, D]
            d_blocks.append(d_block)
        d_blocks.reverse()
        # 1. x = dropout(embedded + positions)
        d_placed = dropout_backward(d_x, cache.dropout)                         # [B, T, D]
        d_embedded, d_positions = self.positions.backward(d_placed, cache.positions)  # type: ignore[arg-type]  # [B, T, D]
        d_embedding = self.embedding.backward(d_embedded, cache.embedding)      # [V, D]
        # the table is used twice, at the input and at the output, so its gradients add
        d_embedding = replace(d_embedding, weight=d_embedding.weight + d_table.T)
        return replace(self, embedding=d_embedding, positions=d_positions, blocks=d_blocks, norm=d_norm)
