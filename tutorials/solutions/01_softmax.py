"""Solutions of the exercises in `tutorials/01_softmax.py`.

Each function goes in the place of the empty one of the same name. Licence of this file, as of all exercises: CC BY 4.0.
"""

import numpy as np

from transformer_np import softmax_backward


def log_softmax_backward(d_y, y):
    # y_i = x_i - log sum_j exp(x_j). The first term hands d_y on. The second is one number for the row, used by every y_i,
    # so its gradient is the sum over the row; and its derivative by x_i is the share exp(y_i).
    row = d_y.sum(axis=-1, keepdims=True)                                       # [..., 1]
    return d_y - np.exp(y) * row                                                # [..., N]


def temperature_backward(d_y, cache, x, tau):
    # y = softmax(z)
    d_z = softmax_backward(d_y, cache)                                          # [B, N]
    # z = x / tau: dz/dx = 1 / tau, and dz/dtau = -x / tau^2 at every one of the B * N places that use tau
    d_x = d_z / tau                                                             # [B, N]
    d_tau = -(d_z * x).sum() / tau**2                                           # []
    return d_x, d_tau


def blind_spot(y):
    # The row term is sum_i d_y_i y_i. Let two terms cancel: +1/y_1 gives +1, -1/y_2 gives -1.
    d_y = np.zeros_like(y)                                                      # [B, N]
    d_y[:, 0] = 1 / y[:, 0]
    d_y[:, 1] = -1 / y[:, 1]
    return d_y
