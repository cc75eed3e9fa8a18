"""The results file is put together from the runs, and only its own kind is read back."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import pytest

from baselines_np.comparison.results import assemble, chosen_rate, read_results, score_at_equal_cost, write_results
from baselines_np.comparison.run import RunKey
from transformer_np.errors import InputError


def made_up_run(rate, seed, *, score, validation_score, loss=1.0):
    return {"seed": seed, "learning_rate": rate, "steps": 6, "seconds": 1.0, "score": score, "validation_score": validation_score,
            "validation_loss": loss, "curve": [[6, validation_score]], "steps_to_threshold": None, "diverged": False,
            "parameters": 100, "flops_per_step": 10, "peak_bytes": 1000, "config": {"model": "recurrent"}}


def finished_gru():
    """At 1e-2 validation is better and the test score worse."""
    return {RunKey("associative_recall", "gru", rate, seed): made_up_run(rate, seed, score=score, validation_score=validation)
            for rate, seed, score, validation in [(1e-3, 0, 0.99, 0.2), (1e-2, 0, 0.6, 0.7), (1e-2, 1, 0.96, 0.7),
                                                  (1e-2, 2, 1.0, 0.8)]}


def document(experiments, finished, **others):
    trivial = {experiment.name: experiment.task.baselines() for experiment in experiments}
    return assemble("quick", experiments, trivial, finished, seeds=3, command="baselines-np compare", seconds=1.5, others=others)


def test_the_document_has_the_schema(tiny):
    results = document(tiny, finished_gru())
    assert results["schema"] == 1 and results["suite"] == "quick" and list(results["experiments"]) == [e.name for e in tiny]
    assert {"machine", "versions", "command", "seconds"} <= set(results)
    experiment = results["experiments"]["associative_recall"]
    assert {"question", "metric", "chance", "budget", "arms", "claims", "title", "summary", "higher_is_better", "threshold",
            "baselines"} <= set(experiment)
    arm = experiment["arms"]["gru"]
    assert {"parameters", "flops_per_step", "config", "grid", "runs", "mean", "sd", "solved"} <= set(arm)
    assert json.loads(json.dumps(results, allow_nan=False))


def test_the_rate_is_chosen_on_validation_data_and_never_by_the_test_score(tiny):
    arm = document(tiny, finished_gru())["experiments"]["associative_recall"]["arms"]["gru"]
    assert arm["learning_rate"] == 1e-2
    assert [(entry["learning_rate"], entry["score"]) for entry in arm["grid"]] == [(1e-3, 0.2), (1e-2, 0.7)]


def test_every_seed_is_kept_and_the_spread_is_of_the_sample(tiny):
    arm = document(tiny, finished_gru())["experiments"]["associative_recall"]["arms"]["gru"]
    scores = [run["score"] for run in arm["runs"]]
    assert scores == [0.6, 0.96, 1.0]
    assert arm["mean"] == pytest.approx(statistics.fmean(scores)) and arm["sd"] == pytest.approx(statistics.stdev(scores))
    assert arm["solved"] == pytest.approx(2 / 3)


def test_a_tie_is_broken_by_the_validation_loss_and_a_diverged_run_comes_last(tiny):
    recall = tiny[0]
    tied = {RunKey(recall.name, "gru", rate, 0): made_up_run(rate, 0, score=0, validation_score=1.0, loss=loss)
            for rate, loss in ((1e-3, 0.2), (1e-2, 0.1))}
    assert chosen_rate(recall, "gru", tied) == 1e-2
    tied[RunKey(recall.name, "gru", 1e-2, 0)]["diverged"] = True
    assert chosen_rate(recall, "gru", tied) == 1e-3


def test_fewer_bits_are_better(tiny):
    language = tiny[2]
    tried = {RunKey(language.name, "gru", rate, 0): made_up_run(rate, 0, score=0, validation_score=bits)
             for rate, bits in ((1e-3, 2.0), (1e-2, 3.0))}
    assert chosen_rate(language, "gru", tried) == 1e-3


def test_while_the_grid_is_unfinished_nothing_is_chosen(tiny):
    finished = finished_gru()
    del finished[RunKey("associative_recall", "gru", 1e-3, 0)]
    arm = document(tiny, finished)["experiments"]["associative_recall"]["arms"]["gru"]
    assert arm["runs"] == [] and arm["mean"] is None and arm["solved"] is None and len(arm["grid"]) == 1


def test_equal_cost_is_read_from_the_curves():
    def arm(cost, *curves):
        return {"runs": [{"steps": 4, "cost": cost, "curve": [[step, score] for step, score in enumerate(curve, start=1)]}
                         for curve in curves]}

    arms = {"cheap": arm(1.0, [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6]), "twice": arm(2.0, [0.5, 0.6, 0.7, 0.8]),
            "dear": arm(9.0, [0.9, 0.9, 0.9, 0.9]), "unfinished": {"runs": []},
            "counted": {"runs": [{"steps": 0, "cost": 0.0, "curve": [[0, 0.5]]}]}}
    scores = score_at_equal_cost(arms, lambda run: run["cost"])
    assert scores == {"cheap": pytest.approx(0.5), "twice": 0.6, "dear": None}


def test_one_seed_has_no_spread(tiny):
    finished = {key: run for key, run in finished_gru().items() if key.seed == 0}
    arm = document(tiny, finished)["experiments"]["associative_recall"]["arms"]["gru"]
    assert arm["sd"] is None and arm["mean"] == 0.6


def test_the_runs_that_were_written_are_the_runs_that_are_read(tiny, tmp_path):
    path = tmp_path / "results.json"
    write_results(document(tiny, finished_gru()), path)
    finished, stored = read_results(path, "quick", tiny)
    assert finished == finished_gru()
    assert stored["seconds"] == 1.5
    assert document(tiny, finished) == document(tiny, finished_gru())
    assert read_results(tmp_path / "absent.json", "quick", tiny) == ({}, {})


def test_an_experiment_that_is_not_asked_for_stays_in_the_file(tiny):
    earlier = document(tiny, finished_gru())["experiments"]["associative_recall"]
    results = document(tiny[1:], {}, associative_recall=earlier)
    assert results["experiments"]["associative_recall"] == earlier and len(results["experiments"]) == 3


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda text: text[:200], "is damaged, not JSON"),
    (lambda text: "", "is damaged, not JSON"),
    (lambda text: "[1, 2]", "is not a results file"),
    (lambda text: '{"name": "something else"}', "is not a results file"),
    (lambda text: text.replace('"schema": 1', '"schema": 2'), "has schema 2, this command 1"),
    (lambda text: text.replace('"suite": "quick"', '"suite": "full"'), 'has suite "full", this command "quick"'),
    (lambda text: text.replace('"steps": 6,\n    "learning_rates"', '"steps": 7,\n    "learning_rates"'),
     "has steps 7, this command 6"),
    (lambda text: text.replace('"numpy": "', '"numpy": "0.'), "has versions"),
    (lambda text: text.replace('"cores": ', '"cores": 99'), "has machine"),
    (lambda text: text.replace('"grid"', '"gird"'), "is damaged, KeyError at 'grid'"),
    (lambda text: text.replace('"validation_loss"', '"los"'),
     r"is damaged, a run of associative_recall, gru lacks \['validation_loss'\]"),
    (lambda text: text.replace('"arms": {', '"arms": [], "legs": {'), "is damaged"),
])
def test_what_cannot_be_gone_on_with_is_named_and_not_touched(tiny, tmp_path, spoil, message):
    path = tmp_path / "results.json"
    write_results(document(tiny, finished_gru()), path)
    spoiled = spoil(path.read_text())
    assert spoiled != path.read_text()
    path.write_text(spoiled)
    with pytest.raises(InputError, match=message) as caught:
        read_results(path, "quick", tiny)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_text() == spoiled


def test_bytes_that_are_not_text_are_named(tiny, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as a results file"):
        read_results(path, "quick", tiny)


def test_runs_on_another_text_do_not_mix(tiny, tmp_path):
    path = tmp_path / "results.json"
    write_results(document(tiny, finished_gru()), path)
    language = tiny[2]
    other = replace(language, task=type(language.task).create("another text, just as long " * 70, "b", context=8, batch=4))
    with pytest.raises(InputError, match="language_model has characters"):
        read_results(path, "quick", [*tiny[:2], other])
