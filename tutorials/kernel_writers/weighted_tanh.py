"""A function that is none of ours, with inputs of its own.

    transformer-np check weighted_tanh.py:forward,backward --inputs draw
"""

import numpy as np


def forward(x, weight):
    return np.tanh(x) * weight, (x, weight)


def backward(d_y, cache):
    x, weight = cache
    return d_y * weight * (1 - np.tanh(x) ** 2), (d_y * np.tanh(x)).sum(axis=0)


def draw(rng):
    """rng: a numpy.random.Generator.   Returns a list with what forward is called with."""
    return [rng.standard_normal((4, 3)), rng.standard_normal(3)]
