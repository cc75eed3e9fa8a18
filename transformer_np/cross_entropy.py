"""Cross-entropy of a softmax: the loss of every classifier and language model here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array, Cache


@dataclass(frozen=True, repr=False, eq=False)
class CrossEntropyCache(Cache):
    probabilities: Array     # [N, V], of the targets that count
    labels: Array            # [N], integers
    kept: Array              # [...], boolean: which targets count
    label_smoothing: float


def cross_entropy_forward(logits: Array, targets: Array, *, ignore_index: int = -100,
                          label_smoothing: float = 0.0) -> tuple[tuple[Array, int], CrossEntropyCache]:
    """Mean of minus the log-probability of the target, over the targets that count.

        log p_v = x_v - log sum_u exp(x_u)
        loss    = mean over n of   -(1 - s) log p_target  -  s / V sum_v log p_v

    logits: [..., V].   targets: [...], integers 0 <= target < V, or `ignore_index`: does not count.
    label_smoothing: s, 0 <= s < 1 (Szegedy et al. 2016, section 7).
    Returns (loss, count): a number in nats per target, and over how many targets the mean runs. A mean over several batches
    must weigh each loss by its count. If nothing counts, the loss and its gradient are 0.
    What logits hold at ignored targets has no influence.
    Raises ValueError if shapes do not fit, targets are not integers, or any other label is out of range.
    """
    targets = np.asarray(targets)
    if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
        raise ValueError(f"cross_entropy: targets {list(targets.shape)} do not fit logits {list(logits.shape)}, "
                         "expected [...] and [..., V]")
    if not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(f"cross_entropy: targets must be integers, got {targets.dtype}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing {label_smoothing}, expected 0 <= label_smoothing < 1")
    V = logits.shape[-1]
    label_smoothing = float(label_smoothing)  # a NumPy float64 would promote float32
    # 1. the targets that count
    kept = targets != ignore_index                                              # [...]
    rows = logits[kept]                                                         # [N, V]
    labels = targets[kept]                                                      # [N]
    if labels.size and not (0 <= labels.min() and labels.max() < V):
        raise ValueError(f"cross_entropy: targets from {labels.min()} to {labels.max()}, "
                         f"expected 0 to {V - 1}, or {ignore_index} to ignore")
    count = labels.size
    # 2. log p, by way of shifted logits: exp cannot overflow, and no log of an underflowed 0 is taken
    shifted = rows - rows.real.max(axis=-1, keepdims=True, initial=-np.inf)     # [N, V]
    e = np.exp(shifted)                                                         # [N, V]
    total = e.sum(axis=-1, keepdims=True)                                       # [N, 1]
    log_total = np.log(total)                                                   # [N, 1]
    # 3. minus log p of the target, and of all labels for the smoothed part
    at_target = log_total[:, 0] - shifted[np.arange(count), labels]             # [N]
    losses = at_target                                                          # [N]
    if label_smoothing > 0:
        mean_of_all = log_total[:, 0] - shifted.mean(axis=-1)                   # [N]
        losses = (1 - label_smoothing) * at_target + label_smoothing * mean_of_all  # [N]
    # 4. mean
    loss = losses.sum() / max(count, 1)                                         # []
    return (loss, count), CrossEntropyCache(e / total, labels, kept, label_smoothing)


def cross_entropy_backward(d_loss: float | Array, cache: CrossEntropyCache) -> Array:
    """Gradient of `cross_entropy_forward`.

        forward   loss = mean over n of   -(1 - s) log p_target  -  s / V sum_v log p_v
        backward  d_x_v = d_loss / N (p_v - (1 - s) [v = target] - s / V)

    d_loss: a number, gradient with respect to the loss (1 if it is what is minimized; the count has no gradient).
    Returns d_logits: [..., V]; exactly 0 where the target is ignored.
    """
    probabilities, labels, kept, label_smoothing = cache.probabilities, cache.labels, cache.kept, cache.label_smoothing
    count, V = probabilities.shape
    # 2, 3. losses = -(1 - s) log p_target - s mean log p          and d log p_t / d x_v = [v = t] - p_v
    d_rows = probabilities - label_smoothing / max(V, 1)                        # [N, V]
    d_rows[np.arange(count), labels] -= 1 - label_smoothing                     # one target a row, so nothing is repeated
    # 4. loss = losses.sum() / count
    d_rows *= d_loss / max(count, 1)                                            # [N, V]
    # 1. rows = logits[kept]
    d_logits = np.zeros((*kept.shape, V), probabilities.dtype)                  # [..., V]
    d_logits[kept] = d_rows
    return d_logits
