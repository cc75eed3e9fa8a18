"""Are the numbers right? Every gradient against a derivative that is measured from forward alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transformer_np.gradcheck.complex_step import Measurement, measure_directions, measure_elements
from transformer_np.gradcheck.inputs import Fault
from transformer_np.gradcheck.pair import Outcome, Pair
from transformer_np.gradcheck.precision import RELATIVE_BOUND, gradient_scale, relative_error
from transformer_np.gradcheck.report import Check
from transformer_np.layer import Array

# Up to so many forwards, every element is measured; beyond, each argument is measured along random directions.
MAX_FORWARDS = 4000


def check_values(pair: Pair, base: Outcome, cotangents: Sequence[Array], gradients: Sequence[Array | None],
                 rng: np.random.Generator) -> list[Check]:
    """One check for each argument.   gradients: what backward gave for the cotangents; None stands for 0."""
    by_elements = sum(argument.size for argument in pair.arguments) <= MAX_FORWARDS
    measured: list[Measurement] = []
    try:
        for which, (argument, gradient) in enumerate(zip(pair.arguments, gradients, strict=True)):
            known = np.zeros(argument.shape) if gradient is None else gradient
            measured.append(measure_elements(pair, which, known, cotangents, base) if by_elements else
                            measure_directions(pair, which, known, cotangents, base, rng))
    except Fault as fault:
        return [Check(f"gradient of {name}", False, str(fault), argument=name) for name in pair.names]
    scale = gradient_scale([each.numeric for each in measured], base.members, cotangents, pair.arguments)
    return [_verdict(name, pair.called[1], gradient is None, each, scale)
            for name, gradient, each in zip(pair.names, gradients, measured, strict=True)]


def _verdict(name: str, who: str, absent: bool, measured: Measurement, scale: float) -> Check:
    analytic, numeric = measured.analytic, measured.numeric
    if numeric.size == 0:
        return Check(f"gradient of {name}", True, "it has no elements", 0.0, RELATIVE_BOUND, name)
    error = relative_error(analytic, numeric, measured.size, scale)
    index = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
    figure = float(error[index])
    says = f"relative error {figure:.1e}, bound {RELATIVE_BOUND:.0e}; {measured.method}"
    if figure > RELATIVE_BOUND:
        given = f"{who} gives None, which stands for 0" if absent else f"analytic {analytic[index]:.17g}"
        says += (f"; worst at {measured.place} {list(index)}: {given}, numeric {numeric[index]:.17g}; "
                 f"wrong: {(error > RELATIVE_BOUND).sum()} of {error.size}")
    return Check(f"gradient of {name}", figure <= RELATIVE_BOUND, says, figure, RELATIVE_BOUND, name)
