"""The arms: which model each name stands for, and the width at which it has as many parameters as the Transformer.

Every model is causal and has the interface `logits, cache = model.forward(tokens)`, `d_model = model.backward(d_logits, cache)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from baselines_np.comparison.settings import N_GRAM_ARMS, Experiment, Size
from baselines_np.models.recurrent import RecurrentLanguageModel
from baselines_np.models.tcn import TemporalConvolutionalNetwork
from transformer_np.layer import count_parameters
from transformer_np.models.gpt import GPT

TOLERANCE = 0.05         # of the number of parameters


def configuration(experiment: Experiment, arm: str) -> dict[str, Any]:
    """The settings of the arm's model. `create_model` takes these and nothing else: what is printed is what ran.

    Raises ValueError if no width brings the arm within 5 % of the Transformer's parameters.
    """
    if arm in N_GRAM_ARMS:
        return {"model": "n-gram", "n": N_GRAM_ARMS[arm], "smoothing": "interpolated Witten-Bell"}
    reference = _parameters_by_units("transformer", experiment)(experiment.size.width // experiment.size.heads)
    parameters = _parameters_by_units(arm, experiment)
    units = closest_width(parameters, reference)
    if abs(parameters(units) - reference) > TOLERANCE * reference:
        raise ValueError(f"{experiment.name}: {arm} has {parameters(units)} parameters at the nearest width, "
                         f"{units * _unit(arm, experiment.size)}, expected {reference} within {TOLERANCE:.0%}")
    return _at_units(arm, units, experiment)


def _parameters_by_units(arm: str, experiment: Experiment) -> Callable[[int], int]:
    """The number of parameters as a function of the width. It is a polynomial of degree 2, so three narrow models tell it."""
    models = (create_model(_at_units(arm, units, experiment), np.random.default_rng(0)) for units in (1, 2, 3))
    return quadratic(*map(count_parameters, models))


def quadratic(first: int, second: int, third: int) -> Callable[[int], int]:
    """The polynomial of degree 2 with these values at 1, 2 and 3 (Newton's form)."""
    step, bend = second - first, third - 2 * second + first
    return lambda width: first + (width - 1) * step + (width - 1) * (width - 2) // 2 * bend


def closest_width(parameters: Callable[[int], int], target: int) -> int:
    """The width w >= 1 whose `parameters(w)`, which grow with w, are nearest to `target`."""
    width = 1
    while parameters(width + 1) <= target:
        width += 1
    return width if target - parameters(width) <= parameters(width + 1) - target else width + 1


def _unit(arm: str, size: Size) -> int:
    """Widths are multiples of it: heads have to divide the width of a Transformer."""
    return size.heads if arm.startswith("transformer") else 1


def _at_units(arm: str, units: int, experiment: Experiment) -> dict[str, Any]:
    vocabulary, longest, size = experiment.task.vocabulary, experiment.task.longest, experiment.size
    width = units * _unit(arm, size)
    if arm.startswith("transformer"):
        return {"model": "GPT", "vocabulary": vocabulary, "context": longest, "width": width,
                "layers": size.layers if arm == "transformer" else 1, "heads": size.heads, "positions": size.positions,
                "std": round(1 / math.sqrt(width), 4)}
    if arm == "tcn":
        return {"model": "TCN", "vocabulary": vocabulary, "width": width, "layers": size.tcn_levels, "kernel": size.kernel}
    return {"model": "recurrent", "cell": arm, "vocabulary": vocabulary, "width": width, "layers": size.recurrent_layers}


def create_model(config: dict[str, Any], rng: np.random.Generator) -> Any:
    """The model of a configuration, its first weights drawn from `rng`, in float32."""
    vocabulary, width, layers = config["vocabulary"], config["width"], config["layers"]
    if config["model"] == "GPT":
        return GPT.create(vocabulary, context=config["context"], d_model=width, num_layers=layers, num_heads=config["heads"],
                          positions=config["positions"], std=config["std"], rng=rng)
    if config["model"] == "TCN":
        return TemporalConvolutionalNetwork.create(vocabulary, d_model=width, num_layers=layers, kernel_size=config["kernel"],
                                                   rng=rng)
    return RecurrentLanguageModel.create(vocabulary, cell=config["cell"], d_model=width, num_layers=layers, rng=rng)
