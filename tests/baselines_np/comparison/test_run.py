"""One run depends on its arguments alone, and says what it measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from baselines_np.comparison.run import RunKey, execute

MEASURED = {"seconds", "peak_bytes"}     # of the machine, not of the numbers


def run(experiment, arm, rate=1e-3, seed=0, report=lambda step, score: None):
    return execute(experiment, RunKey(experiment.name, arm, rate, seed), report)


def without_measurements(run):
    return {name: value for name, value in run.items() if name not in MEASURED}


def test_the_same_run_gives_the_same_digits(tiny):
    for experiment in tiny:
        assert without_measurements(run(experiment, "gru")) == without_measurements(run(experiment, "gru"))
    assert run(tiny[0], "gru", seed=1)["curve"] != run(tiny[0], "gru")["curve"]


def test_a_run_has_what_the_results_file_promises(tiny):
    seen = []
    for experiment in tiny:
        made = run(experiment, "transformer", report=lambda step, score: seen.append((step, score)))
        assert {"seed", "score", "steps", "seconds", "steps_to_threshold", "peak_bytes", "curve"} <= set(made)
        assert [step for step, _ in made["curve"]] == [2, 4, 6]
        assert [list(pair) for pair in seen[-3:]] == made["curve"]
        assert made["curve"][-1][1] == made["validation_score"]
        assert made["flops_per_step"] > 0 and made["peak_bytes"] > 0 and made["seconds"] > 0


def test_what_lies_beyond_the_score_stands_beside_it(tiny):
    recall, tracking, language = (run(experiment, "transformer") for experiment in tiny)
    attention = recall["attention_map"]
    assert len(attention["tokens"]) == 6 and np.shape(attention["layers"]) == (2, 1, 6, 6)
    np.testing.assert_allclose(np.sum(attention["layers"], axis=-1), 1, atol=1e-3)
    assert [position for position, _ in tracking["by_position"]] == list(range(1, 16))
    assert [length for length, _ in tracking["by_length"]] == [3, 6, 12, 15]
    assert language["test_loss"] == pytest.approx(language["score"] * math.log(2))
    assert language["validation_loss"] == pytest.approx(language["validation_score"] * math.log(2))


def test_counting_needs_no_steps(tiny):
    made = run(tiny[2], "bigram", rate=None)
    assert made["steps"] == 0 and made["flops_per_step"] == 0 and made["learning_rate"] is None
    assert made["score"] == pytest.approx(tiny[2].threshold, rel=1) and made["parameters"] > 0


def test_the_threshold_is_reached_at_the_first_evaluation_beyond_it(tiny):
    curve = run(tiny[2], "lstm", rate=1e-2)["curve"]
    between = (curve[0][1] + curve[1][1]) / 2
    assert curve[1][1] < between < curve[0][1]
    assert run(replace(tiny[2], threshold=between), "lstm", rate=1e-2)["steps_to_threshold"] == 4
    assert run(replace(tiny[2], threshold=0.0), "lstm", rate=1e-2)["steps_to_threshold"] is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_is_scored_before_it_does(tiny):
    made = run(tiny[0], "rnn", rate=1e38)
    assert made["diverged"] and math.isfinite(made["score"]) and math.isfinite(made["validation_loss"])
    assert made["steps"] == 6 and made["steps_to_threshold"] is None
