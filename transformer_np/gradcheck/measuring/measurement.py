"""A gradient as backward gives it beside the same as it was measured, element by element or along random directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transformer_np.gradcheck.measuring.loss import Loss, Product
from transformer_np.layer import Array


@dataclass(frozen=True)
class Measurement:
    """What is compared, at so many places, and what is known of the rounding at each of them.

    analytic, numeric: what backward gives, what was measured.   size: what a relative error is relative to.
    error: by how much `numeric` may be wrong, as far as its method can tell.
    noise: by how much `analytic` changes when everything that it is made from moves by one rounding error.
    place: "element", "direction" or "cotangent": what an index of these arrays means.   method: for the report.
    judged: where anything was measured.   part: of the argument's elements, as many as those that are judged stand for.
    """

    analytic: Array
    numeric: Array
    size: Array
    error: Array
    noise: Array
    place: str
    method: str
    judged: Array
    part: float = 1.0


def measure_elements(loss: Loss, which: int, gradient: Array, noise: Sequence[Array], product: Product, *,
                     indices: Sequence[tuple[int, ...]] | None = None) -> Measurement:
    """Derivatives by every element of argument `which`, or by those at `indices` only.

    noise: changes of the gradient that rounding makes.
    """
    shape = gradient.shape
    numeric, error, judged = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    for index in np.ndindex(shape) if indices is None else indices:
        direction = np.zeros(shape)
        direction[index] = 1
        change, error[index] = product(loss, {which: direction})
        numeric[index], judged[index] = loss.weights @ change, True
    places = f"each of {gradient.size} elements" if indices is None else f"{len(indices)} random ones of {gradient.size} elements"
    return Measurement(gradient, numeric, np.abs(numeric), error, spread(noise, gradient), "element", f"at {places}", judged)


def measure_directions(loss: Loss, which: int, gradient: Array, noise: Sequence[Array], product: Product,
                       directions: Sequence[Array]) -> Measurement:
    """Derivatives when argument `which` moves along random directions: every element has its part in each of them."""
    analytic = np.array([(direction * gradient).sum() for direction in directions])
    measured = [product(loss, {which: direction}) for direction in directions]
    numeric = np.array([loss.weights @ change for change, _ in measured])
    error = np.array([error for _, error in measured])
    along = [np.array([(direction * change).sum() for direction in directions]) for change in noise]
    size = np.full(len(directions), np.abs(numeric).max())
    method = f"along {len(directions)} random directions (too large for each of {gradient.size} elements)"
    return Measurement(analytic, numeric, size, error, spread(along, analytic), "direction", method, size >= 0)


def random_direction(loss: Loss, which: int, rng: np.random.Generator) -> Array:
    """Each number moves up or down in proportion to its size. A derivative along it is as large as the gradient's typical
    element."""
    sizes = loss.sizes[which]
    largest = float(sizes.max(initial=0)) or 1.0
    return rng.choice([-1.0, 1.0], size=sizes.shape) * (sizes / largest) / math.sqrt(max(sizes.size, 1))


def spread(noise: Sequence[Array], gradient: Array) -> Array:
    """The largest change at each place, and no less than is usual: a place may be lucky a few times."""
    if not noise or not gradient.size:
        return np.zeros(gradient.shape)
    largest = np.max(np.abs(noise), axis=0)
    return np.maximum(largest, np.median(largest))
