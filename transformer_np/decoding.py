"""From a trained language model to text: one token after another, greedy or drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from transformer_np.layer import Array


def choose_token(logits: Array, *, temperature: float = 1.0, top_k: int | None = None,
                 rng: np.random.Generator | None = None) -> Array:
    """Choose a token for each row of logits.

        p = softmax(logits / temperature) over the `top_k` largest logits, 0 elsewhere
        token ~ p, drawn as argmax_v (logits_v / temperature + g_v),   g_v = -log(-log u_v),   u_v uniform in (0, 1)

    logits: [B, V].   temperature: 0 is greedy, the first of the largest logits; below 1 is bolder, above 1 wilder.
    top_k: None for all V; among equal logits the first ones are kept.   rng: needed unless temperature is 0.
    Returns ids: [B]. Raises ValueError if logits are not [B, V] with V >= 1, for a negative temperature, top_k below 1, or
    if rng is missing.

    The maximum of Gumbel noise (Gumbel 1954; Maddison, Tarlow and Minka 2014, section 2) draws from the softmax without
    computing it. Top-k: Fan, Lewis and Dauphin 2018, section 5.4.
    """
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"choose_token: logits {list(logits.shape)}, expected [B, V] with V >= 1")
    if not temperature >= 0:
        raise ValueError(f"choose_token: temperature {temperature}, expected 0 or more")
    if top_k is not None and top_k < 1:
        raise ValueError(f"choose_token: top_k {top_k}, expected 1 or more")
    if temperature == 0:
        return logits.argmax(axis=-1)                                           # [B]
    if rng is None:
        raise ValueError("choose_token: rng is None, expected a random generator unless temperature is 0")
    # 1. only the k largest stay; a stable sort keeps the first of equals
    if top_k is not None and top_k < logits.shape[1]:
        order = np.argsort(-logits, axis=-1, kind="stable")                     # [B, V]
        logits = logits.copy()
        np.put_along_axis(logits, order[:, top_k:], -np.inf, axis=-1)
    # 2. the largest becomes 0: the smallest temperature then makes -inf of the others, and never inf - inf
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)    # [B, V]
    with np.errstate(over="ignore"):
        scaled = shifted / temperature                                          # [B, V]
    # 3. draw
    return (scaled + rng.gumbel(size=scaled.shape)).argmax(axis=-1)             # [B]


def generate(model: Any, tokens: Array, length: int, *, context: int, temperature: float = 1.0, top_k: int | None = None,
             rng: np.random.Generator | None = None) -> Iterator[Array]:
    """Continue each row of `tokens` by `length` tokens, handed out one position at a time.

        token_t ~ model(token_{t - context}, ..., token_{t - 1})

    model: `forward(tokens)` to logits [B, T, V].   tokens: [B, T] with T >= 1.   context: how many tokens the model can see;
    older ones are forgotten.   temperature, top_k, rng: see `choose_token`.
    Yields ids [B], `length` times. Raises ValueError if tokens are not [B, T] with T >= 1.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"generate: tokens {list(tokens.shape)}, expected [B, T] with T >= 1")
    for _ in range(length):
        tokens = tokens[:, -context:]                                           # [B, T]
        logits, _ = model.forward(tokens)                                       # [B, T, V]
        chosen = choose_token(logits[:, -1], temperature=temperature, top_k=top_k, rng=rng)  # [B]
        yield chosen
        tokens = np.concatenate([tokens, chosen[:, None]], axis=1)              # [B, T + 1]
