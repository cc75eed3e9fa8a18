"""Learning rate as a function of the step: a warm-up, then a decay.

`step` is the number of steps already taken: 0 for the first. The warm-up is linear, and its first rate is not 0, so that no
step is wasted. A warm-up lets AdamW's average of squares settle before the steps become long.
"""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """Up in a line, down along half a cosine.

        rate = peak (step + 1) / warmup                                                         step < warmup
        rate = floor + (peak - floor) (1 + cos(pi (step - warmup) / (total - warmup))) / 2      warmup <= step < total
        rate = floor                                                                            total <= step

    Raises ValueError if step, warmup or total is negative. A total within the warm-up is a run that stops during it.

    Loshchilov and Hutter 2017, "SGDR", equation (5), without restarts.
    """
    if step < 0 or warmup < 0 or total < 0:
        raise ValueError(f"warmup_cosine: step {step}, warmup {warmup}, total {total}, expected 0 or more")
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= total:
        return floor
    progress = (step - warmup) / (total - warmup)                               # from 0 to 1
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2


def warmup_inverse_square_root(step: int, *, peak: float, warmup: int) -> float:
    """Up in a line, down with the square root of the step.

        rate = peak min(t / warmup, sqrt(warmup / t))           t = step + 1

    The peak is at t = warmup. The paper's rate, D^-0.5 min(t^-0.5, t warmup^-1.5), has its peak at (D warmup)^-0.5.
    Raises ValueError if step is negative or warmup is less than 1.

    Vaswani et al. 2017, "Attention Is All You Need", section 5.3, equation (3).
    """
    if step < 0 or warmup < 1:
        raise ValueError(f"warmup_inverse_square_root: step {step}, warmup {warmup}, expected 0 or more, 1 or more")
    t = step + 1
    return peak * min(t / warmup, math.sqrt(warmup / t))
