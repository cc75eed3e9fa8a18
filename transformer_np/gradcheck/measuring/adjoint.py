"""The adjoint identity: backward is the transpose of what forward does to a small move.

    <d_y, J v> = <J^T d_y, v>           for every cotangent d_y and every direction v

One measured J v serves for every cotangent, so that a whole tensor costs one forward, and each cotangent one backward. It says
that something is wrong, and not where.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transformer_np.gradcheck.measuring.loss import Loss, Product
from transformer_np.gradcheck.measuring.measurement import Measurement
from transformer_np.layer import Array

NUM_COTANGENTS = 4


def measure_adjoint(loss: Loss, which: int, cotangents: Sequence[Sequence[Array]], gradients: Sequence[Array],
                    noise: Sequence[Array], product: Product, direction: Array) -> Measurement:
    """cotangents, gradients: of argument `which`, pair by pair.   noise: changes of the first gradient that rounding makes."""
    change, error = product(loss, {which: direction})                               # J v
    analytic = np.array([(gradient * direction).sum() for gradient in gradients])   # <J^T d_y, v>
    numeric = np.array([loss.weigh(each) @ change for each in cotangents])          # <d_y, J v>
    rounding = max((abs(float((each * direction).sum())) for each in noise), default=0.0)
    like_all = np.ones(len(cotangents))
    return Measurement(analytic, numeric, np.abs(numeric).max() * like_all, error * like_all, rounding * like_all, "cotangent",
                       f"adjoint identity for {len(cotangents)} cotangents and one random direction", like_all > 0)
