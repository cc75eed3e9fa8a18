"""The arms have as many parameters as the Transformer, and run as they are printed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from baselines_np.comparison.arms import closest_width, configuration, create_model, quadratic
from baselines_np.comparison.settings import ARMS, EXPERIMENTS, NEURAL_ARMS, experiments
from transformer_np.layer import count_parameters


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_parameters_match_within_5_percent(name):
    experiment, = experiments("quick", [name])
    models = {arm: create_model(configuration(experiment, arm), np.random.default_rng(0)) for arm in NEURAL_ARMS}
    counts = {arm: count_parameters(model) for arm, model in models.items()}
    assert configuration(experiment, "transformer")["width"] == experiment.size.width
    for arm, count in counts.items():
        assert abs(count / counts["transformer"] - 1) <= 0.05, (arm, counts)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_full_suite_has_a_matching_width_for_every_arm(name):
    experiment, = experiments("full", [name])
    assert configuration(experiment, "transformer")["width"] == experiment.size.width
    assert all(configuration(experiment, arm) for arm in experiment.arms)       # raises if there is none


def test_the_model_is_the_one_of_the_configuration(tiny):
    recall, _, language = tiny
    config = configuration(recall, "lstm")
    model = create_model(config, np.random.default_rng(0))
    assert type(model.cells[0]).__name__ == "LSTM" and model.cells[0].weight_h.shape == (config["width"], 4 * config["width"])
    assert len(create_model(configuration(recall, "transformer_1_layer"), np.random.default_rng(0)).blocks) == 1
    assert configuration(language, "5-gram") == {"model": "n-gram", "n": 5, "smoothing": "interpolated Witten-Bell"}


def test_counting_characters_is_a_rival_for_text_only(tiny):
    assert [experiment.arms for experiment in tiny] == [NEURAL_ARMS, NEURAL_ARMS, ARMS]


def test_every_model_is_causal(tiny):
    """The accuracy by length relies on it: the first L answers do not depend on what comes after."""
    tokens = np.random.default_rng(0).integers(0, 2, (2, 15))
    for arm in NEURAL_ARMS:
        model = create_model(configuration(tiny[1], arm), np.random.default_rng(0))
        whole, part = model.forward(tokens)[0], model.forward(tokens[:, :9])[0]
        np.testing.assert_allclose(whole[:, :9], part, rtol=1e-4, atol=1e-5)


def test_quadratic_goes_through_its_points_and_on():
    found = quadratic(*(7 * w * w - 3 * w + 5 for w in (1, 2, 3)))
    assert [found(w) for w in range(1, 50)] == [7 * w * w - 3 * w + 5 for w in range(1, 50)]


@pytest.mark.parametrize("target", [1, 2, 3, 99, 100, 101, 109, 110, 111, 120, 12345])
def test_closest_width_is_the_nearest_of_all(target):
    def parameters(width):
        return width * width + width

    distance = [abs(parameters(width) - target) for width in range(1, 200)]
    assert abs(parameters(closest_width(parameters, target)) - target) == min(distance)


def test_a_width_that_is_too_coarse_is_an_error(tiny):
    coarse = replace(tiny[0], size=replace(tiny[0].size, heads=16))
    with pytest.raises(ValueError, match=r"transformer_1_layer has .* parameters at the nearest width, 16, expected"):
        configuration(coarse, "transformer_1_layer")
