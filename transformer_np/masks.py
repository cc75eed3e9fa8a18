"""Attention masks: boolean, True = may attend, broadcastable to [B, H, T, S].

Frameworks disagree about polarity (in PyTorch a boolean `attn_mask` of `MultiheadAttention` is True where attention is
*forbidden*, and that of `scaled_dot_product_attention` True where it is *allowed*). Here True always means "may attend".
"""

from __future__ import annotations

import numpy as np

from transformer_np.layer import Array


def causal_mask(num_queries: int, num_keys: int | None = None) -> Array:
    """No look into the future: query t sees keys 0 .. S - T + t.

    The two sequences end together, so the last query sees every key, also when there are more keys than queries (a cache of
    earlier keys). With fewer keys than queries, the first T - S queries see nothing.
    num_queries: T.   num_keys: S, by default T.   Returns [T, S].
    """
    T = num_queries
    S = num_queries if num_keys is None else num_keys
    if T < 0 or S < 0:
        raise ValueError(f"causal_mask: num_queries {T} and num_keys {S}, expected at least 0")
    query = np.arange(T)[:, None]                                               # [T, 1]
    key = np.arange(S)[None, :]                                                 # [1, S]
    return key <= query + (S - T)                                               # [T, S]


def padding_mask(lengths: Array, num_keys: int) -> Array:
    """Only the first `lengths[b]` keys of sequence b are real.

    lengths: [B], integers 0 <= length <= S.   num_keys: S.   Returns [B, 1, 1, S], the same for every head and query.
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1 or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(f"padding_mask: lengths {lengths.dtype}{list(lengths.shape)}, expected integers [B]")
    if lengths.size and not (0 <= lengths.min() and lengths.max() <= num_keys):
        raise ValueError(f"padding_mask: lengths from {lengths.min()} to {lengths.max()}, expected 0 to {num_keys}")
    real = np.arange(num_keys) < lengths[:, None]                               # [B, S]
    return real[:, None, None, :]                                               # [B, 1, 1, S]


def combine_masks(*masks: Array | None) -> Array | None:
    """What every mask allows: their logical and, broadcast. None allows all; without any mask the answer is None.

    Raises ValueError if a mask is not boolean, or their shapes do not broadcast to one.
    """
    given = [np.asarray(mask) for mask in masks if mask is not None]
    for mask in given:
        if mask.dtype != np.bool_:
            raise ValueError(f"combine_masks: masks must be boolean (True = may attend), got {mask.dtype}")
    try:
        np.broadcast_shapes(*(mask.shape for mask in given))
    except ValueError:
        shapes = " and ".join(str(list(mask.shape)) for mask in given)
        raise ValueError(f"combine_masks: masks {shapes} do not broadcast to one shape") from None
    combined = None
    for mask in given:
        combined = mask if combined is None else combined & mask
    return combined
