"""Solutions of the exercises in `tutorials/03_head_to_head.py`.

Each function goes in the place of the empty one of the same name. Licence of this file, as of all exercises: CC BY 4.0.
"""

import numpy as np


def light_switch():
    # Memory: tanh(w h) = h has a solution other than 0 only for w > 1; with w = 3 the state rests at about +1 or -1.
    # A touch of 10 wins over a memory of at most 3. A small negative bias makes the start, h = 0, fall to the dark side.
    weight_x = np.array([[10.0], [-10.0], [0.0]])                               # [3, 1]
    weight_h = np.array([[3.0]])                                                # [1, 1]
    bias = np.array([-0.1])                                                     # [1]
    return weight_x, weight_h, bias


def previous_place(num_positions):
    # Places one-hot: the key of place s is row s of the identity. The query of place t is the key of place t - 1.
    # Against 39 other places at score 0, a score of 50 leaves them nothing.
    k = np.eye(num_positions)                                                   # [T, E], E = T
    q = 50.0 * np.eye(num_positions, k=-1)                                      # [T, E]
    return q, k


def report_score(validation, test):
    chosen = int(validation.mean(axis=1).argmax())
    return chosen, float(test[chosen].mean()), float(test[chosen].std(ddof=1))
