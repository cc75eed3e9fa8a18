"""Attention as a GPU kernel computes it: programs over tiles, an online softmax, nothing of size [T, S] in memory.

    transformer-np check tiled_attention.py:forward,backward --against attention --profile float32

It has the shape of a Triton kernel, written in NumPy so that it runs anywhere: a grid of programs, each of which loads tiles,
with a bounds mask, and stores its own. Accumulators are float32 where the inputs are narrower, as on the tensor cores.

Dao 2023, "FlashAttention-2", algorithms 1 and 2.
"""

import math

import numpy as np

BLOCK = 16       # rows of a tile; a real kernel takes 64 or 128


def forward(q, k, v, mask=None, scale=None):
    """q: [..., T, E].   k: [..., S, E].   v: [..., S, E_v].   mask: boolean, broadcastable to [..., T, S]."""
    *lead, T, E = q.shape
    S, E_v = v.shape[-2:]
    scale = (1 / math.sqrt(E) if E else 1.0) if scale is None else scale
    N = math.prod(lead)
    allowed = np.broadcast_to(np.True_ if mask is None else mask, (*lead, T, S)).reshape(N, T, S)
    Q, K, V = (array.reshape(N, *array.shape[-2:]) for array in (q, k, v))
    y = np.zeros((N, T, E_v), q.dtype)
    log_total = np.zeros((N, T), accumulator(q.dtype))                          # of each row, for backward
    for n in range(N):                                                          # the grid
        for start in range(0, T, BLOCK):
            forward_program(n, start, Q, K, V, allowed, scale, y, log_total)
    return y.reshape(*lead, T, E_v), (Q, K, V, allowed, scale, y, log_total, q.shape, k.shape, v.shape)


def forward_program(n, start, Q, K, V, allowed, scale, y, log_total):
    """One tile of queries against all keys."""
    q = load(Q, n, start)                                                       # [BLOCK, E]
    peak = np.full(BLOCK, -np.inf, q.dtype)                                     # [BLOCK]
    total = np.zeros(BLOCK, q.dtype)                                            # [BLOCK]
    sums = np.zeros((BLOCK, V.shape[-1]), q.dtype)                              # [BLOCK, E_v]
    for key in range(0, K.shape[1], BLOCK):
        shown = load_mask(allowed, n, start, key)                               # [BLOCK, BLOCK]
        k, v = load(K, n, key, shown.any(axis=0)), load(V, n, key, shown.any(axis=0))
        scores = np.where(shown, q @ k.T * q.dtype.type(scale), -np.inf)        # [BLOCK, BLOCK]
        new_peak = np.maximum(peak, scores.max(axis=1))                         # [BLOCK]
        # the first tiles may allow nothing: -inf - -inf would be NaN, for ever after
        finite = np.where(new_peak == -np.inf, 0, new_peak)                     # [BLOCK]
        shrink = np.exp(peak - finite)                                          # [BLOCK]
        e = np.exp(scores - finite[:, None])                                    # [BLOCK, BLOCK]
        total = total * shrink + e.sum(axis=1)
        sums = sums * shrink[:, None] + e @ v
        peak = new_peak
    empty = total == 0
    store(y, n, start, sums / np.where(empty, 1, total)[:, None])
    # an empty row: +inf, so that every weight comes out as exp(-inf) = 0 in backward
    store(log_total, n, start, np.where(empty, np.inf, np.where(empty, 0, peak) + np.log(np.where(empty, 1, total))))


def backward(d_y, cache):
    Q, K, V, allowed, scale, y, log_total, *shapes = cache
    d_y = d_y.reshape(y.shape)
    d_q, d_k, d_v = np.zeros_like(Q), np.zeros_like(K), np.zeros_like(V)
    wide = accumulator(y.dtype)
    row = (d_y.astype(wide) * y.astype(wide)).sum(axis=-1)                      # [N, T], sum_s weights d_weights
    for n in range(len(Q)):
        for start in range(0, K.shape[1], BLOCK):
            key_program(n, start, Q, K, V, allowed, scale, d_y, row, log_total, d_k, d_v)
        for start in range(0, Q.shape[1], BLOCK):
            query_program(n, start, Q, K, V, allowed, scale, d_y, row, log_total, d_q)
    return tuple(d.reshape(shape) for d, shape in zip((d_q, d_k, d_v), shapes, strict=True))


def key_program(n, start, Q, K, V, allowed, scale, d_y, row, log_total, d_k, d_v):
    """One tile of keys and values against all queries."""
    sum_k = np.zeros((BLOCK, K.shape[-1]), accumulator(K.dtype))
    sum_v = np.zeros((BLOCK, V.shape[-1]), accumulator(V.dtype))
    for query in range(0, Q.shape[1], BLOCK):
        weights, d_scores, q, _, d_rows = again(n, query, start, Q, K, V, allowed, scale, d_y, row, log_total)
        sum_v += weights.T @ d_rows
        sum_k += d_scores.T @ q
    store(d_k, n, start, sum_k)
    store(d_v, n, start, sum_v)


def query_program(n, start, Q, K, V, allowed, scale, d_y, row, log_total, d_q):
    """One tile of queries against all keys."""
    sum_q = np.zeros((BLOCK, Q.shape[-1]), accumulator(Q.dtype))
    for key in range(0, K.shape[1], BLOCK):
        _, d_scores, _, k, _ = again(n, start, key, Q, K, V, allowed, scale, d_y, row, log_total)
        sum_q += d_scores @ k
    store(d_q, n, start, sum_q)


def again(n, query, key, Q, K, V, allowed, scale, d_y, row, log_total):
    """The weights of one tile, computed again from the logarithm of each row's total, and the gradient of its scores."""
    shown = load_mask(allowed, n, query, key)                                   # [BLOCK, BLOCK]
    q, d_rows = load(Q, n, query), load(d_y, n, query)
    k, v = load(K, n, key, shown.any(axis=0)), load(V, n, key, shown.any(axis=0))
    scale = q.dtype.type(scale)
    scores = np.where(shown, q @ k.T * scale, -np.inf)
    weights = np.exp(scores - load(log_total, n, query)[:, None])
    d_scores = weights * (d_rows @ v.T - load(row, n, query)[:, None]) * scale
    return weights, d_scores, q, k, d_rows


# ---------------------------------------------------------------------------------------------------- tl.load, tl.store

def accumulator(dtype):
    return np.float64 if dtype == np.float64 else np.float32


def load(array, n, start, keep=None):
    """BLOCK rows of array[n], wide enough to add up in; 0 beyond the last, and where `keep` is False, whatever lies there."""
    rows = start + np.arange(BLOCK)
    there = rows < array.shape[1]
    there = there if keep is None else there & keep
    tile = np.zeros((BLOCK, *array.shape[2:]), accumulator(array.dtype))
    tile[there] = array[n, rows[there]]
    return tile


def load_mask(allowed, n, query, key):
    """[BLOCK, BLOCK]; nothing is allowed beyond the last query or key."""
    tile = np.zeros((BLOCK, BLOCK), bool)
    inside = allowed[n, query:query + BLOCK, key:key + BLOCK]
    tile[:inside.shape[0], :inside.shape[1]] = inside
    return tile


def store(array, n, start, tile):
    """The rows that exist, in the array's own precision."""
    inside = array[n, start:start + BLOCK]
    inside[...] = tile[:len(inside)]
