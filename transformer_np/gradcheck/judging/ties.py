"""Equal numbers that move together.

Of several largest numbers each, moved alone, takes the maximum along, and a method that moves one at a time finds a gradient of 1
for each of them. Moved together they take it along once. So a backward that gives each of them all of the cotangent is right
wherever it is measured, and wrong in sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.diagnosis.case import Diagnosis
from transformer_np.gradcheck.measuring.complex_step import complex_step
from transformer_np.gradcheck.measuring.differences import differences
from transformer_np.gradcheck.measuring.exact import NUM_REFERENCES, moved_loss
from transformer_np.gradcheck.measuring.kinks import equal_numbers, is_between, one_sided
from transformer_np.gradcheck.measuring.loss import Loss, Move, Product
from transformer_np.gradcheck.measuring.measurement import Measurement
from transformer_np.gradcheck.measuring.methods import Measuring
from transformer_np.gradcheck.measuring.precision import UNCERTAIN, Bounds
from transformer_np.gradcheck.measuring.visible import is_visible
from transformer_np.gradcheck.report import Check

QUESTION = "equal numbers move together"


def equal_numbers_move_together(measuring: Measuring, everything: Sequence[Measurement], scales: Sequence[float]) -> Check | None:
    """None where no numbers are equal. Asked where every gradient by itself is right."""
    loss, bounds = measuring.loss, Bounds.of(measuring.precision)
    move = _move(loss)
    if not move:
        return None
    product = complex_step if all(each is complex_step for each in measuring.products) else differences
    try:
        change, error = product(loss, move)
    except Fault:
        return None
    analytic = sum(float((measuring.known(which) * direction).sum()) for which, direction in move.items())
    numeric = float(loss.weights @ change)
    allowed = UNCERTAIN * error
    for which, direction in move.items():
        noise = everything[which].noise if everything[which].place == "element" else np.zeros(direction.shape)
        parts = bounds.relative * np.abs(measuring.known(which)) + bounds.noise * scales[which] + bounds.rounding * noise
        allowed += float((parts * np.abs(direction)).sum())
    if abs(analytic - numeric) > allowed:
        allowed += bounds.rounding * _noise_of_forward(measuring, move, product, numeric)
    says = f"{sum(int((direction != 0).sum()) for direction in move.values())} numbers that equal others, or 0, move as one: "
    if abs(analytic - numeric) <= allowed:
        return Check(QUESTION, True, f"{says}the gradients add up to what is measured")
    slopes = one_sided(loss, move)
    if slopes is not None and is_between(loss, slopes, analytic):
        return Check(QUESTION, True, f"{says}at a kink, and the gradients add up to a slope between those on its two sides")
    if not is_visible(loss, move, product, analytic):
        return Check(QUESTION, True, f"{says}the gradients add up to what is measured, as far as forward shows it")
    says += (f"the gradients add up to {analytic:.9g}, measured {numeric:.9g}. Each alone is right: where several numbers are "
             "the largest, one of them may take the gradient, or each a share of it, but not each all of it")
    return Check(QUESTION, False, says, diagnosis=Diagnosis("ties", says))


def _move(loss: Loss) -> Move:
    """In proportion to what the numbers are, so that equal ones stay equal; zeros as the smallest numbers beside them."""
    marked = equal_numbers(loss.arguments)
    zeros = [sizes[mask & (argument == 0)] for argument, sizes, mask in zip(loss.arguments, loss.sizes, marked, strict=True)]
    least = float(np.concatenate(zeros).min(initial=np.inf))
    move = {}
    for which, (argument, mask) in enumerate(zip(loss.arguments, marked, strict=True)):
        if mask.any():
            move[which] = np.where(mask, np.where(argument == 0, least, np.abs(np.where(mask, argument, 0))), 0)
    return move


def _noise_of_forward(measuring: Measuring, move: Move, product: Product, numeric: float) -> float:
    noise = 0.0
    for _ in range(NUM_REFERENCES):
        try:
            loss = moved_loss(measuring.loss, measuring.cotangents, measuring.precision.eps, measuring.rng)
            change, _ = product(loss, move)
        except Fault:
            continue
        noise = max(noise, abs(float(loss.weights @ change) - numeric))
    return noise
