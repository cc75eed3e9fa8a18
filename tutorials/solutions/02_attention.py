"""Solutions of the exercises in `tutorials/02_attention.py`.

Each function goes in the place of the empty one of the same name. Licence of this file, as of all exercises: CC BY 4.0.
"""

import numpy as np

from transformer_np import softmax_backward


def window_mask(num_queries, num_keys, width):
    # The sequences end together, so query t stands at key t + (S - T). It sees that key and the width - 1 before it.
    place = np.arange(num_queries)[:, None] + (num_keys - num_queries)          # [T, 1]
    key = np.arange(num_keys)[None, :]                                          # [1, S]
    return (key <= place) & (key > place - width)                               # [T, S]


def biased_attention_backward(d_y, cache):
    q, k, v, weights, softmax_cache, scale = cache
    # y = weights @ v
    d_weights = d_y @ v.swapaxes(-1, -2)                                        # [B, T, S]
    d_v = weights.swapaxes(-1, -2) @ d_y                                        # [B, S, E_v]
    # weights = softmax(scores)
    d_scores = softmax_backward(d_weights, softmax_cache)                       # [B, T, S]
    # scores = scale q @ k^T + bias: one bias served every sequence of the batch, so its gradients add
    d_bias = d_scores.sum(axis=0)                                               # [T, S]
    d_q = scale * d_scores @ k                                                  # [B, T, E]
    d_k = scale * d_scores.swapaxes(-1, -2) @ q                                 # [B, S, E]
    return d_q, d_k, d_v, d_bias


def looks_ahead(forward, x):
    # Change one position at a time, in every sequence, and see whether anything before it moves.
    before = forward(x)                                                         # [B, T, D]
    for t in range(1, x.shape[1]):
        changed = x.copy()                                                      # [B, T, D]
        changed[:, t] += 1.0
        after = forward(changed)                                                # [B, T, D]
        if np.abs(after - before)[:, :t].max() > 1e-9:
            return True
    return False
