"""The report: what it says is what the results say, whatever is missing from them; and a browser shows it without a network."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from baselines_np.comparison.claims import judge
from baselines_np.comparison.figures import (
    COLOURS,
    _stretches,
    along_picture,
    answers,
    attention_pictures,
    curve_picture,
    opening_picture,
    read_attention,
    write_opening_figure,
)
from baselines_np.comparison.report import _answer, _finding, _leaders, _section, render_report, write_report
from baselines_np.comparison.results import assemble
from baselines_np.comparison.run import RunKey, execute
from baselines_np.comparison.wording import (
    MISSING,
    arm_name,
    bytes_text,
    count_text,
    level_text,
    mean_text,
    score_text,
    seconds_text,
    series,
)
from transformer_np.errors import InputError

PARAMETERS = {"transformer": 104_512, "transformer_1_layer": 103_980, "rnn": 105_088, "gru": 104_160, "lstm": 104_900,
              "tcn": 106_304, "bigram": 1_204, "5-gram": 88_310}
TOKENS = "k7 v2 k0 v9 k31 v5 k12 v17 k4 v30 k9 v11 k4 k0 k9 k31 k7 k12".split()


# ------------------------------------------------------------------------------------------- results that look like real ones


def synthetic_results(seeds: int = 3) -> dict:
    rng = np.random.default_rng(0)
    return {
        "schema": 1, "suite": "quick", "command": "baselines-np compare --suite quick --out comparison", "seconds": 281.4,
        "machine": {"processor": "x86_64", "cores": 2, "memory": "7.8 GiB", "system": "Linux 6.1", "BLAS": "OpenBLAS, 1 thread"},
        "versions": {"python": "3.11.9", "numpy": "2.4.0", "scipy": "1.16.1", "transformer-np": "0.1.0"},
        "experiments": {"associative_recall": recall(rng, seeds), "state_tracking": parity(rng, seeds),
                        "language_model": language(rng, seeds)},
    }


def recall(rng, seeds):
    final = {"transformer": 0.997, "transformer_1_layer": 0.221, "rnn": 0.169, "gru": 0.214, "lstm": 0.243, "tcn": 0.192}

    def by_position(score):
        return {"by_position": [[place, share(score + rng.normal(0, 0.01))] for place in range(13, 19)]}

    arms = {arm: arm_data(rng, arm, score, 1 / 32, seeds, steps=600, threshold=0.95, beside=by_position)
            for arm, score in final.items()}
    size = len(TOKENS)
    layers = np.tril(rng.gamma(0.5, 0.15, (2, 2, size, size)))
    layers[0, 1, np.arange(1, size), np.arange(size - 1)] += 6                  # the previous token
    for query, answer in answers(TOKENS).items():
        layers[1, 0, query, answer] += 12                                        # the value of the same key
    layers[..., 0] += 0.05
    layers /= layers.sum(axis=-1, keepdims=True)
    return {
        "title": "Associative recall", "question": "Can the model find again, by its key, a value that it has seen once?",
        "summary": "Six pairs of a key and a value are shown once, then each key is asked for.",
        "metric": "accuracy", "higher_is_better": True, "threshold": 0.95, "chance": 1 / 32,
        "threshold_is": "95 % of the answers right",
        "budget": {"steps": 600, "seeds": seeds, "batch": 64, "learning_rates": [0.0005, 0.002, 0.008], "trained_length": 18,
                   "task": {"pairs": 6, "keys": 32, "values": 32}},
        "baselines": {"chance": {"score": 1 / 32, "what": "any of the values, at random"},
                      "majority": {"score": 0.034, "what": "the most frequent answer of a training batch, always"},
                      "guess a value shown": {"score": 1 / 6, "what": "one of the values of this sequence, at random"}},
        "arms": arms,
        "attention_map": {"arm": "transformer", "seed": 0, "tokens": TOKENS, "layers": layers.round(4).tolist()},
        "claims": [{"claim": "Any two positions are one step apart, so a Transformer finds what a recurrent network forgets.",
                    "verdict": "holds",
                    "evidence": "Two layers of attention reach 99.7 % in 3 of 3 seeds; the LSTM, of as many parameters, 24.3 %."},
                   {"claim": "One layer of attention is enough.", "verdict": "does not hold here",
                    "evidence": "One layer reaches 22.1 % within 600 steps: another layer has to bind a value to its key."}],
    }


def parity(rng, seeds):
    final = {"transformer": 0.642, "transformer_1_layer": 0.587, "rnn": 1.0, "gru": 1.0, "lstm": 1.0, "tcn": 0.811}

    def beside(score):
        def at(place):
            return 1.0 if score > 0.99 else 0.5 + (score - 0.5) * 1.6 * math.exp(-place / 40)

        noise = np.zeros(257) if score > 0.99 else rng.normal(0, 0.02, 257)
        return {"by_position": [[place, share(at(place) + noise[place])] for place in range(1, 257)],
                "by_length": [[length, share(float(np.mean([at(place) for place in range(1, length + 1)])))]
                              for length in (20, 40, 80, 120, 160, 200, 240, 256)]}

    return {
        "title": "State tracking", "question": "Can the model keep one bit of state, and for longer than it was trained to?",
        "summary": "Running parity of coin tosses, with a label at each position; trained on 1 to 40, tested to 256.",
        "metric": "accuracy", "higher_is_better": True, "threshold": 0.95, "chance": 0.5,
        "threshold_is": "95 % of the labels right",
        "budget": {"steps": 500, "seeds": seeds, "batch": 64, "learning_rates": [0.0005, 0.002, 0.008], "trained_length": 40},
        "baselines": {"chance": {"score": 0.5, "what": "a coin toss"},
                      "majority": {"score": 0.503, "what": "the most frequent label of a training batch, always"},
                      "copy the input": {"score": 0.552, "what": "the last symbol alone"}},
        "arms": {arm: arm_data(rng, arm, score, 0.5, seeds, steps=500, threshold=0.95, beside=beside)
                 for arm, score in final.items()},
        "claims": [{"claim": "Attention replaces recurrence.", "verdict": "does not hold here",
                    "evidence": "RNN, GRU and LSTM keep the parity at 100.0 % to length 256; the Transformer has 64.2 % at the "
                                "trained lengths and 53.1 % at 256, where a coin toss has 50.0 %."}],
    }


def language(rng, seeds):
    final = {"transformer": 2.871, "transformer_1_layer": 2.902, "rnn": 2.958, "gru": 2.844, "lstm": 2.861, "tcn": 2.893}
    arms = {arm: arm_data(rng, arm, score, 6.629, seeds, steps=400, threshold=3.612, spread=0.012)
            for arm, score in final.items()}
    arms |= {arm: counted(arm, score) for arm, score in (("bigram", 3.612), ("5-gram", 2.613))}
    return {
        "title": "Language modelling", "question": "Which model predicts the next character of a real text best?",
        "summary": "Characters of the prose in the standard library's pydoc_data.topics.",
        "metric": "bits per character", "higher_is_better": False, "threshold": 3.612, "chance": 6.629,
        "threshold_is": "fewer bits than the bigram model",
        "budget": {"steps": 400, "seeds": seeds, "batch": 16, "context": 64, "text": "pydoc_data.topics",
                   "learning_rates": [0.0005, 0.002, 0.008]},
        "baselines": {"chance": {"score": 6.629, "what": "every character of the vocabulary alike"},
                      "unigram": {"score": 4.712, "what": "how often each character comes in the training part"}},
        "arms": arms,
        "claims": [{"claim": "A Transformer is the better language model.", "verdict": "holds in part",
                    "evidence": "2.871 bits against 2.844 for the GRU; the 5-gram model, which only counts, has 2.613."}],
    }


def arm_data(rng, arm, final, start, seeds, *, steps, threshold, beside=None, spread=0.006):
    rising = final > start

    def reached(score):
        return score >= threshold if rising else score <= threshold

    runs = []
    for seed in range(seeds):
        score = final if final == 1 else final + rng.normal(0, spread) * (0.2 if 0.99 < final < 1 else 1)
        middle, width = (steps * rng.uniform(0.3, 0.4), steps / 22) if rising else (0, steps / 9)
        curve = []
        for step in range(20, steps + 1, 20):
            learnt = 1 / (1 + math.exp(-(step - middle) / width)) if rising else 1 - math.exp(-step / width)
            curve.append([step, round(start + (score - start) * learnt, 4)])
        run = {"seed": seed, "learning_rate": 0.002, "score": round(min(score, 1) if rising else score, 4), "steps": steps,
               "seconds": round(PARAMETERS[arm] / 17_000 * (2.2 if arm in ("gru", "lstm") else 1) + rng.uniform(0, 0.4), 2),
               "steps_to_threshold": next((step for step, value in curve if reached(value)), None), "diverged": False,
               "peak_bytes": PARAMETERS[arm] * 420, "curve": curve, "by_position": [], "by_length": []}
        runs.append(run | (beside(score) if beside else {}))
    scores = [run["score"] for run in runs]
    grid = [{"learning_rate": rate, "seed": 0, "score": round(start + (final - start) * part, 4)}
            for rate, part in ((0.0005, 0.7), (0.002, 1.0), (0.008, 0.4))]
    return {"parameters": PARAMETERS[arm], "flops_per_step": PARAMETERS[arm] * 6 * 64 * 18, "learning_rate": 0.002,
            "config": {"model": "GPT", "width": 64, "layers": 2}, "grid": grid, "runs": runs, "mean": float(np.mean(scores)),
            "sd": float(np.std(scores, ddof=1)) if seeds > 1 else None, "solved": sum(map(reached, scores)) / seeds,
            "score_at_equal_flops": round(final, 4), "score_at_equal_seconds": round(start + 0.9 * (final - start), 4)}


def counted(arm, score):
    """Counting characters takes no steps, and gives the same for every seed."""
    run = {"seed": 0, "learning_rate": None, "score": score, "steps": 0, "seconds": 0.42, "steps_to_threshold": 0,
           "diverged": False, "peak_bytes": 12_000_000, "curve": [[0, score]]}
    return {"parameters": PARAMETERS[arm], "flops_per_step": 0, "learning_rate": None, "config": {"model": "n-gram", "n": 2},
            "grid": [], "runs": [run], "mean": score, "sd": None, "solved": 1.0}


def share(value):
    return round(min(max(value, 0.0), 1.0), 4)


@pytest.fixture(scope="module")
def results() -> dict:
    return synthetic_results()


@pytest.fixture
def words(results) -> dict:
    """The same without what pictures are made of, for tests of what is said: drawing takes time. Theirs to change."""
    words = copy.deepcopy(results)
    for experiment in words["experiments"].values():
        experiment.pop("attention_map", None)
        for arm in experiment["arms"].values():
            for run in arm["runs"]:
                run.update(curve=[], by_position=[])
    return words


@pytest.fixture(scope="module")
def page(results) -> str:
    return render_report(results)


# ------------------------------------------------------------------------------------------------------------ what it says


def test_every_score_claim_and_fact_of_the_results_is_on_the_page(results, page):
    text = plain_text(page)
    assert "Transformer or traditional model: which should I choose, and what is the evidence?" in text
    for experiment in results["experiments"].values():
        assert experiment["title"] in text and experiment["question"] in text and experiment["summary"] in text
        for arm, data in experiment["arms"].items():
            sd = data["sd"] if len(data["runs"]) > 1 else None
            assert f"{arm_name(arm)}" in text and mean_text(data["mean"], sd, experiment["metric"]) in text
            assert count_text(data["parameters"]) in text and count_text(data["flops_per_step"]) in text
            assert all(score_text(entry["score"], experiment["metric"]) in text for entry in data["grid"])
        for label, baseline in experiment["baselines"].items():
            assert label in text and baseline["what"] in text and score_text(baseline["score"], experiment["metric"]) in text
        for claim in experiment["claims"]:
            assert all(claim[part] in text for part in ("claim", "verdict", "evidence"))
    assert results["command"] in text and "OpenBLAS, 1 thread" in text and "3.11.9" in text and "4 min 41 s" in text
    assert "Not everything has been run" not in text


def test_the_short_answer_names_the_kind_that_leads_at_each_work(page, words):
    assert ("It depends on the work. A Transformer leads at finding again what was seen once; a traditional model leads at "
            "keeping a running state and at predicting text, where counting (5-gram) is still ahead of both.") in plain_text(page)
    assert "A Transformer leads at finding again what was seen once." in plain_text(only("associative_recall", words))


def small(arms: dict[str, tuple[float | None, float | None]], *, metric="accuracy", threshold=0.95, baselines=None, seeds=3,
          counting=None) -> dict:
    """An experiment of arms with a mean and a spread. An accuracy is solved at the threshold."""
    rising = metric == "accuracy"
    run = {"steps": 100, "steps_to_threshold": None}
    made = {arm: {"config": {"model": "GPT"}, "runs": [run] * seeds, "grid": [], "mean": mean, "sd": sd,
                  "solved": None if mean is None or threshold is None else float((mean >= threshold) == rising)}
            for arm, (mean, sd) in arms.items()}
    made |= {arm: {"config": {"model": "n-gram"}, "runs": [run | {"steps": 0}], "grid": [], "mean": mean, "sd": None,
                   "solved": 1.0} for arm, mean in (counting or {}).items()}
    return {"title": "A test", "question": "?", "metric": metric, "higher_is_better": rising, "threshold": threshold,
            "arms": made, "baselines": {label: {"score": score} for label, score in (baselines or {}).items()}}


@pytest.mark.parametrize(("arms", "expected"), [
    ({}, []),
    ({"rnn": (None, None)}, []),
    ({"rnn": (math.nan, None), "gru": (0.2, 0.01)}, ["gru"]),
    ({"transformer": (0.999, 0.0), "lstm": (0.96, 0.0), "rnn": (0.94, 0.03)}, ["transformer", "lstm"]),    # solved is solved
    ({"transformer": (0.50, 0.01), "lstm": (0.47, 0.01)}, ["transformer"]),
    ({"transformer": (0.50, 0.01), "lstm": (0.475, 0.03)}, ["transformer", "lstm"]),    # the larger spread is the follower's
    ({"transformer": (0.50, 0.03), "lstm": (0.475, 0.01)}, ["transformer", "lstm"]),    # or the leader's
    ({"transformer": (0.50, None), "lstm": (0.49, math.nan)}, ["transformer"]),         # an unknown spread makes nothing level
    ({"transformer": (0.50, math.nan), "lstm": (0.485, 0.02)}, ["transformer", "lstm"]),
    ({"transformer": (0.50, None), "lstm": (0.50, None)}, ["transformer", "lstm"])])
def test_the_leaders_are_those_that_nothing_tells_from_the_best(arms, expected):
    assert _leaders(small(arms)) == expected


def test_a_loss_has_no_ceiling_so_passing_its_threshold_is_not_leading():
    bits = small({"transformer": (3.0, 0.05), "gru": (2.32, 0.01), "rnn": (2.33, 0.02)}, metric="bits per character",
                 threshold=3.4, counting={"bigram": 3.4, "5-gram": 2.1})
    assert _leaders(bits) == ["rnn", "gru"]
    assert "solve" not in _finding(bits, _leaders(bits)).lower()
    bits["arms"]["transformer"]["solved"] = 0.0
    assert "No model reaches" not in _finding(bits, _leaders(bits))


@pytest.mark.parametrize(("counted", "place", "ahead"), [
    (2.10, "ahead of all of them", "5-gram"), (2.2995, "level with the best of them", None),
    (2.305, "level with the best of them", None), (2.40, "behind the best of them", None)])
def test_counting_never_leads_and_is_always_named(counted, place, ahead):
    bits = small({"transformer": (3.0, 0.05), "gru": (2.30, 0.01)}, metric="bits per character", threshold=3.4,
                 counting={"bigram": 3.4, "5-gram": counted})
    assert _leaders(bits) == ["gru"]
    assert _finding(bits, ["gru"]) == (
        "The best: GRU with 2.300 ± 0.010; the best of the others: Transformer with 3.000 ± 0.050. "
        f"Counting is {place}: 5-gram with {counted:.3f}.")
    assert _section("language_model", bits).counting == ahead


@pytest.mark.parametrize(("experiment", "expected"), [
    (small({"transformer": (0.99, 0.001), "lstm": (0.97, 0.002), "tcn": (0.3, 0.1)}),
     "Solved in each of 3 seeds by Transformer with 99.0 ± 0.1 % and LSTM with 97.0 ± 0.2 %; the best of the others: TCN with "
     "30.0 ± 10.0 %."),
    (small({"lstm": (0.97, None)}, seeds=1), "Solved in the only seed by LSTM with 97.0 %."),
    (small({"lstm": (0.16, 0.01), "gru": (0.155, 0.01)}, baselines={"guess": 1 / 6, "chance": 0.03, "the same": 0.16}),
     "Level at the top: LSTM with 16.0 ± 1.0 % and GRU with 15.5 ± 1.0 %. No model reaches 95 % in every seed within this "
     "budget. The baseline “guess” (16.7 %) is not beaten. The baseline “the same” (16.0 %) is not beaten."),
    (small({"lstm": (0.5, 0.01)}, threshold=None), "The best: LSTM with 50.0 ± 1.0 %."),
    (small({"lstm": (None, None)}, counting={"5-gram": 0.5}), "No trained model has finished a run yet.")])
def test_the_finding_says_who_leads_who_follows_and_what_is_not_beaten(experiment, expected):
    assert _finding(experiment, _leaders(experiment)) == expected


NEURAL, RECURRENT, LEVEL = ({"transformer": (a, 0.0), "lstm": (b, 0.0)} for a, b in ((0.9, 0.5), (0.5, 0.9), (0.9, 0.9)))


@pytest.mark.parametrize(("experiments", "expected"), [
    ({}, "There is no answer yet: no trained model has finished a run."),
    ({"state_tracking": small({"lstm": (None, None)})}, "There is no answer yet: no trained model has finished a run."),
    ({"state_tracking": small(RECURRENT)}, "A traditional model leads at keeping a running state."),
    ({"associative_recall": small(NEURAL), "state_tracking": small(NEURAL)},
     "A Transformer leads at finding again what was seen once and at keeping a running state."),
    ({"associative_recall": small(NEURAL), "state_tracking": small(LEVEL)},
     "It depends on the work. A Transformer leads at finding again what was seen once; the two kinds are level at keeping a "
     "running state."),
    ({"associative_recall": small(NEURAL, baselines={"guess": 0.9}), "state_tracking": small(RECURRENT)},
     "A traditional model leads at keeping a running state; no model beats the simplest rule at finding again what was seen "
     "once."),
    ({"language_model": small(NEURAL, counting={"5-gram": 0.95}), "state_tracking": small(NEURAL), "vision": small(RECURRENT)},
     "It depends on the work. A Transformer leads at keeping a running state and at predicting text, where counting (5-gram) is "
     "still ahead of both; a traditional model leads at A test."),
    ({"language_model": small({"transformer": (0.9, 0.0)}, counting={"5-gram": 0.95}), "state_tracking": small(RECURRENT)},
     "A traditional model leads at keeping a running state; only one of the two kinds has been run at predicting text, where "
     "counting (5-gram) is still ahead.")])
def test_the_answer_is_right_in_every_combination(experiments, expected):
    assert _answer([_section(name, experiment) for name, experiment in experiments.items()]) == expected


def test_a_rule_that_is_not_beaten_is_named_on_the_page(words):
    experiment = words["experiments"]["associative_recall"]
    experiment["arms"] = {"lstm": experiment["arms"]["lstm"] | {"mean": 0.16}}
    text = plain_text(only("associative_recall", words))
    assert "No model reaches 95 % in every seed within this budget." in text and "No model beats the simplest rule" in text
    assert "The baseline “guess a value shown” (16.7 %) is not beaten." in text


def test_steps_to_the_threshold_are_those_of_every_seed_and_censored_at_the_budget(words):
    arms = words["experiments"]["associative_recall"]["arms"]
    for run, steps in zip(arms["gru"]["runs"], (320, None, 240), strict=True):
        run["steps_to_threshold"] = steps
    arms["rnn"]["runs"][1]["diverged"] = True
    rows = table_rows(only("associative_recall", words))
    heading = next(place for place, row in enumerate(rows) if "Steps to the goal" in row)
    second = {row[0]: row for row in rows[heading + 1:heading + 7]}
    assert second["Transformer ★"][2:4] == ["3 of 3", "280, 300, 320"]
    assert second["GRU"][2:4] == ["0 of 3", "240, 320, > 600"]
    assert second["LSTM"][2:4] == ["0 of 3", "> 600"]
    assert second["RNN (tanh)"][2:4] == ["0 of 3, 1 diverged", "> 600"]


def test_the_scores_at_equal_cost_and_the_losses_in_nats_stand_beside_the_score(words):
    arms = words["experiments"]["language_model"]["arms"]
    for run, nats in zip(arms["gru"]["runs"], (1.5, 1.6, 1.7), strict=True):
        run["validation_loss"] = nats
    arms["gru"] |= {"score_at_equal_flops": 3.125, "score_at_equal_seconds": None}
    rows = table_rows(only("language_model", words))
    heading = next(row for row in rows if "At equal FLOPs" in row)
    place = heading.index("At equal FLOPs")
    assert heading[place:place + 3] == ["At equal FLOPs", "At equal time", "Validation loss, nats"]
    gru, counted = (next(row for row in rows[rows.index(heading):] if row[0] == name) for name in ("GRU ★", "5-gram"))
    assert gru[place:place + 3] == ["3.125", MISSING, "1.600"]
    assert counted[2:6] == [MISSING] * 4      # nothing that counts takes steps to anything
    assert all(len(row) == len(heading) for row in rows[rows.index(heading):rows.index(heading) + 9])
    assert "Validation loss, nats" not in only("state_tracking", words)    # where the score is not a loss


# ------------------------------------------------------------------------------------------------------------- what is missing


def no_experiments(results):
    results["experiments"] = {}


def one_experiment(results, name="state_tracking"):
    results["experiments"] = {name: results["experiments"][name]}


def no_arms(results):
    for experiment in results["experiments"].values():
        experiment.update(arms={}, claims=[], summary="No run is finished yet.")
        experiment.pop("attention_map", None)


def arms_without_finished_runs(results):
    one_experiment(results, "associative_recall")
    for arm in results["experiments"]["associative_recall"]["arms"].values():
        arm.update(runs=[], mean=None, sd=None, solved=None)


def killed_in_the_second_seed(results):
    one_experiment(results)
    arm = results["experiments"]["state_tracking"]["arms"]["lstm"]
    arm.update(runs=arm["runs"][:1], sd=None)


def no_threshold(results):
    results["experiments"].pop("associative_recall")
    for experiment in results["experiments"].values():
        experiment["threshold"] = None
        for arm in experiment["arms"].values():
            arm["solved"] = None
            for run in arm["runs"]:
                run["steps_to_threshold"] = None


def nothing_beside_the_score(results):
    for experiment in results["experiments"].values():
        for arm in experiment["arms"].values():
            for run in arm["runs"]:
                run.pop("by_position", None), run.pop("by_length", None), run.pop("peak_bytes")
                run["curve"] = []
        experiment.update(baselines={}, chance=None, claims=[])
        experiment.pop("attention_map", None)


def a_score_that_is_no_number(results):
    one_experiment(results)
    results["experiments"]["state_tracking"]["arms"]["rnn"].update(mean=math.nan, sd=math.nan, solved=math.nan)


def a_run_that_diverged(results):
    results["experiments"].pop("state_tracking")
    run = results["experiments"]["associative_recall"]["arms"]["rnn"]["runs"][0]
    run["curve"] = [[step, None if step > 100 else score] for step, score in run["curve"]]


def heads_that_answer_nothing(results):
    one_experiment(results, "associative_recall")
    results["experiments"]["associative_recall"]["attention_map"]["tokens"] = [f"t{place}" for place in range(len(TOKENS))]


@pytest.mark.parametrize(("spoil", "said"), [
    (no_experiments, "There is no answer yet: no trained model has finished a run."),
    (one_experiment, "Language modelling: not part of this run."),
    (no_arms, "State tracking: no finished run of Transformer, 1-layer Transformer, RNN (tanh), GRU, LSTM and TCN."),
    (arms_without_finished_runs, "No trained model has finished a run yet."),
    (a_score_that_is_no_number, f"RNN (tanh){MISSING}{MISSING}"),
    (killed_in_the_second_seed, "State tracking: LSTM has 1 of 3 seeds."),
    (no_threshold, "RNN (tanh) with 100.0 ± 0.0 %"),
    (nothing_beside_the_score, "99.7 ± 0.1 %"),
    (a_run_that_diverged, "RNN (tanh)"),
    (heads_that_answer_nothing, "each row sums to one.")], ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_missing_leaves_a_right_page(results, words, spoil, said):
    spoiled = copy.deepcopy(results) if spoil in (a_run_that_diverged, heads_that_answer_nothing) else words
    spoil(spoiled)
    page = render_report(spoiled)
    assert said in plain_text(page)
    check_html(page)
    assert "None" not in plain_text(page).split() and "nan" not in plain_text(page).lower().split()


def test_results_of_real_runs_make_a_right_page(tiny):
    keys = [RunKey("associative_recall", "transformer", rate, 0) for rate in (1e-3, 1e-2)]
    keys += [RunKey("state_tracking", "lstm", rate, 0) for rate in (1e-3, 1e-2)] + [RunKey("language_model", "5-gram", None, 0)]
    experiments = {experiment.name: experiment for experiment in tiny}
    finished = {key: execute(experiments[key.experiment], key, lambda step, score: None) for key in keys}
    trivial = {experiment.name: experiment.task.baselines() for experiment in tiny}
    page = render_report(json.loads(json.dumps(assemble("quick", tiny, trivial, finished, seeds=2, command="baselines-np compare",
                                                        seconds=1.0, others={}))))
    check_html(page)
    assert "Layer 2, head 1" in page and "trained to 6" in page and "Associative recall: Transformer has 1 of 2 seeds." in page
    assert judge("state_tracking", {"arms": {"lstm": {"runs": []}}}) == []


# ---------------------------------------------------------------------------------------------------------------- the file


PROGRAM = """
import json, sys, matplotlib
from baselines_np.comparison.figures import write_opening_figure
from baselines_np.comparison.report import write_report
matplotlib.rcParams.update({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path", "axes.grid": True})
results = json.load(open("results.json", encoding="utf-8"))
write_report(results, "report.html")
write_opening_figure(results, "opening.png")
"""


def test_the_same_results_give_the_same_bytes_whatever_matplotlib_is_set_to_and_however_strings_hash(results, page, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    hashing = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": hashing}, check=True)
    write_opening_figure(results, tmp_path / "again.png")
    assert (tmp_path / "report.html").read_bytes() == page.encode()
    assert (tmp_path / "opening.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    assert len(page) < 1_000_000


def test_everything_is_in_the_page_and_the_html_is_sound(page):
    check_html(page)
    parsed = Parsed(page)
    assert parsed.counts["h1"] == parsed.counts["main"] == parsed.counts["title"] == 1
    assert "script" not in parsed.counts and "link" not in parsed.counts
    assert not re.search(r"@import|url\((?!#)|https?://(?!www.w3.org/)", page)
    policy = [found["content"] for tag, found in parsed.attributes if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_text_of_the_results_is_escaped(results):
    hostile = "<script>alert('1 & 2')</script>$x_1$"
    spoiled = copy.deepcopy(results)
    one_experiment(spoiled, "language_model")
    spoiled["command"] = f"baselines-np compare --text '{hostile}'"
    spoiled["machine"]["processor"] = hostile
    experiment = spoiled["experiments"]["language_model"]
    experiment.update(question=hostile, title=hostile, threshold_is=hostile)
    experiment["baselines"][hostile] = {"score": 3.1, "what": hostile}
    experiment["arms"][hostile] = experiment["arms"]["gru"]
    experiment["claims"][0]["evidence"] = hostile
    page = render_report(spoiled)
    check_html(page)
    assert "script" not in Parsed(page).counts and plain_text(page).count("alert('1 & 2')") >= 9


def test_a_missing_extra_is_named(results, monkeypatch, tmp_path):
    for module in ("jinja2", "matplotlib"):
        with monkeypatch.context() as patch, pytest.raises(InputError, match=r"pip install transformer-np\[compare\]"):
            patch.setitem(sys.modules, module, None)
            write_report(results, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_imported_without_its_extras():
    program = "import sys, baselines_np.comparison.report; print({'jinja2', 'matplotlib', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -------------------------------------------------------------------------------------------------------------- the pictures


def test_every_seed_of_every_arm_is_drawn_in_the_colour_of_the_arm(results):
    experiment = results["experiments"]["associative_recall"]
    svg = curve_picture("associative_recall", experiment).svg
    for arm in experiment["arms"]:
        # a line for each of three seeds, and the one that leads to the label
        assert len(re.findall(rf"<path [^>]*stroke: var\(--arm-{arm}\)", svg)) == 4
        assert f">{arm_name(arm)}</text>" in svg
    assert "guess a value shown</text>" in svg and "solved: 95 %</text>" in svg


def test_positions_are_averaged_in_stretches_that_do_not_cross_the_trained_length():
    x = np.arange(1.0, 257.0)
    places, means = _stretches(x, np.where(x <= 40, 1.0, 0.0), 40)
    assert set(means) == {0.0, 1.0}                       # no stretch has both
    assert places[means == 1].max() <= 40 < places[means == 0].min()
    assert places[0] == 1 and 20 <= len(places) <= 33 and np.all(np.diff(places) > 0)
    noisy = np.where(x % 2 == 1, 0.4, 0.6)
    assert np.ptp(_stretches(x, noisy, 40)[1][-8:]) < 0.02 < np.ptp(noisy)


def test_positions_and_lengths_beyond_the_trained_ones_are_on_a_logarithmic_axis(results):
    experiment = results["experiments"]["state_tracking"]
    picture = along_picture("state_tracking", experiment, "by_position")
    places = {int(tick): float(x) for x, tick in re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>(\d+)</text>', picture.svg)}
    assert list(places) == [1, 2, 5, 10, 20, 50, 100, 200]
    assert places[10] - places[1] == pytest.approx(places[100] - places[10]) == pytest.approx(places[200] - places[20])
    assert "position, logarithmic</text>" in picture.svg and "trained to 40</text>" in picture.svg
    assert "Neighbouring positions are averaged." in picture.alt
    assert "GRU (3 seeds) has 100.0 % at 40 and ends at 100.0 %." in picture.alt
    recall = along_picture("associative_recall", results["experiments"]["associative_recall"], "by_position")
    assert "logarithmic" not in recall.svg                # nothing lies beyond


def test_what_counts_is_a_level_and_not_a_curve(results):
    experiment = results["experiments"]["language_model"]
    picture = curve_picture("language_model", experiment)
    assert ">5-gram</text>" in picture.svg and ">bigram</text>" in picture.svg and "solved" not in picture.alt
    assert "Dashed lines: bigram 3.612, 5-gram 2.613" in picture.alt and "5-gram (" not in picture.alt


def test_labels_do_not_cover_each_other(results):
    for name, experiment in results["experiments"].items():
        svg = curve_picture(name, experiment).svg
        heights = sorted(float(y) for y in re.findall(r'<text style="font-size: 1[12].5px;[^>]*y="([\d.]+)"', svg))
        assert len(heights) >= 8 and min(np.diff(heights)) > 12


def test_the_alternative_text_has_the_figures(results):
    alt = curve_picture("associative_recall", results["experiments"]["associative_recall"]).alt
    assert alt.startswith("Line chart of accuracy against training step") and "LSTM (3 seeds) ends at 2" in alt
    assert "chance 3.1 %" in alt and "solved: 95 %" in alt
    opening = opening_picture(results).alt
    assert "State tracking, length 256, chance 50.0 %" in opening and "RNN (tanh) 100.0 %" in opening


def test_an_attention_map_is_read_by_its_answers():
    tokens = ["k1", "v5", "k2", "v6", "k2", "k1"]
    assert answers(tokens) == {4: 3, 5: 1}
    wrong, right = np.tril(np.ones((6, 6))), np.zeros((6, 6))
    wrong /= wrong.sum(axis=1, keepdims=True)
    right[:, 0] = 1
    right[4], right[5] = np.eye(6)[3], 0.5 * np.eye(6)[1] + 0.5 * np.eye(6)[0]
    attention = {"arm": "transformer", "seed": 0, "tokens": tokens, "layers": [[wrong.tolist()], [right.tolist()]]}
    reading = read_attention(attention)
    assert (reading.layer, reading.head, reading.example, reading.answer) == (2, 1, "k1", "v5")
    assert reading.on_answer == pytest.approx(0.75) and reading.even == pytest.approx((1 / 5 + 1 / 6) / 2)
    (first, _), (second, picture) = attention_pictures("recall", attention)
    assert (first, second) == ("Layer 1, head 1", "Layer 2, head 1")
    assert "k2 looks most at v6 (1.00; its answer is v6)" in picture.alt
    assert [picture.svg.count(f">{token}</text>") for token in ("k1", "v5")] == [4, 2]
    assert read_attention({**attention, "tokens": list("abcdef")}) is None


def test_the_opening_figure_is_a_png_file_and_needs_a_finished_run(results, tmp_path):
    write_opening_figure(results, tmp_path / "opening.png")
    data = (tmp_path / "opening.png").read_bytes()
    assert data.startswith(b"\x89PNG") and int.from_bytes(data[16:20]) == 1760
    with pytest.raises(InputError, match="without a finished run"):
        write_opening_figure({"experiments": {}}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_page_has_a_colour_of_its_own_for_every_arm_of_the_pictures(page):
    css = page[:page.index("</style>")]
    for arm, colour in COLOURS.items():
        assert f"--arm-{arm}: {colour};" in css and css.count(f"--arm-{arm}:") == 2
    assert len(set(COLOURS.values())) == len(COLOURS)


# --------------------------------------------------------------------------------------------------------------- the wording


@pytest.mark.parametrize(("said", "expected"), [
    (score_text(0.9968, "accuracy"), "99.7 %"), (score_text(2.3141, "bits per character"), "2.314"),
    (score_text(None, "accuracy"), MISSING), (score_text(math.nan, "accuracy"), MISSING),
    (mean_text(0.5, 0.012, "accuracy"), "50.0 ± 1.2 %"), (mean_text(0.5, None, "accuracy"), "50.0 %"),
    (mean_text(2.5, 0.012, "bits"), "2.500 ± 0.012"), (mean_text(None, None, "bits"), MISSING),
    (level_text(0.95, "accuracy"), "95 %"), (level_text(3.6123, "bits"), "3.612"),
    (count_text(0), "0"), (count_text(999), "999"), (count_text(104_512), "105 k"), (count_text(7.2e8), "720 M"),
    (count_text(999_999), "1.00 M"), (count_text(9_996), "10.0 k"), (count_text(None), MISSING),
    (bytes_text(512), "512 B"), (bytes_text(43_900_000), "41.9 MiB"), (bytes_text(2**20 - 1), "1.00 MiB"),
    (bytes_text(None), MISSING),
    (seconds_text(0.02), "20 ms"), (seconds_text(0.0997), "0.1 s"),
    (seconds_text(4.26), "4.3 s"), (seconds_text(59.96), "1 min 0 s"), (seconds_text(4000), "1 h 7 min"),
    (seconds_text(None), MISSING), (series(["a"]), "a"), (series(["a", "b", "c"]), "a, b and c"), (series([]), "")])
def test_numbers_read_as_a_person_writes_them(said, expected):
    assert said == expected


# --------------------------------------------------------------------------------------------------------------- a browser


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Chromium's window is never narrower than 500 pixels, so the page stands in frames of the widths in question
MEASURING = """<!doctype html><title>measuring</title>
FRAMES
<script>
const measure = (frame) => {
  const page = frame.contentWindow, root = page.document.documentElement;
  const seen = (element) => element.getClientRects().length > 0;
  const pictures = [...page.document.querySelectorAll("svg")].filter(seen);
  const words = pictures.flatMap((svg) => [...svg.querySelectorAll("text")]);
  return {
    width: page.innerWidth, scroll: root.scrollWidth, height: root.scrollHeight, font: page.getComputedStyle(root).fontFamily,
    requests: page.performance.getEntriesByType("resource").map((entry) => entry.name),
    pictures: pictures.length,
    colours: [page.getComputedStyle(page.document.body).backgroundColor, page.getComputedStyle(page.document.body).color],
    opening: [...page.document.querySelectorAll(".opening > div")].filter(seen).map((div) => div.className),
    wide: pictures.filter((svg) => svg.getBoundingClientRect().right > page.innerWidth).length,
    cut: words.filter((word) => word.getBoundingClientRect().right > word.ownerSVGElement.getBoundingClientRect().right + 1)
              .map((word) => word.textContent),
  };
};
window.onload = () => { document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(measure)); };
</script>"""


def in_chromium(folder: Path, *pages: tuple[str, int]) -> tuple[list[dict], str]:
    """What each page measures in a frame of its width, and what the browser's console says."""
    frames = folder / "frames.html"
    frames.write_text(MEASURING.replace("FRAMES", "".join(
        f'<iframe src="{name}" style="width: {width}px; height: 900px; border: 0"></iframe>' for name, width in pages)))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-component-update", "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage",
         "--allow-file-access-from-files",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--window-size=1800,1000",
         "--virtual-time-budget=3000",
         f"--user-data-dir={folder / 'profile'}", "--dump-dom", frames.as_uri()],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(folder)})
    title = Parsed(done.stdout).title
    assert title != "measuring" and title, done.stderr
    return json.loads(title), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_it_from_disk_at_both_widths_light_and_dark_without_a_request_or_an_error(page, tmp_path):
    assert page.count("@media screen and (prefers-color-scheme: dark)") == 1
    (tmp_path / "light.html").write_text(page, encoding="utf-8")
    (tmp_path / "dark.html").write_text(page.replace("@media screen and (prefers-color-scheme: dark)", "@media screen"), "utf-8")
    frames = [("light.html", 1280), ("light.html", 390), ("dark.html", 1280), ("dark.html", 390)]
    measured, console = in_chromium(tmp_path, *frames)
    assert console == ""
    for (name, width), seen in zip(frames, measured, strict=True):
        assert seen["width"] == width >= seen["scroll"]
        assert seen["opening"] == ["wide" if width == 1280 else "narrow"]
        assert seen["requests"] == [] and seen["wide"] == 0 and seen["cut"] == []
        assert seen["pictures"] == 1 + 2 + 3 + 1 + 4     # opening; curves, positions and lengths; heads
        paper, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in seen["colours"])
        assert paper > 740 and ink < 100 if name == "light.html" else paper < 100 and ink > 650


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_browser_test_sees_a_request_an_error_and_an_overflow(tmp_path):
    (tmp_path / "bad.html").write_text('<img src="http://nowhere.invalid/x.png"><p style="width: 900px">x</p>'
                                       "<script>nonsense()</script>")
    (wide, narrow), console = in_chromium(tmp_path, ("bad.html", 1280), ("bad.html", 390))
    assert narrow["scroll"] > narrow["width"] and wide["scroll"] <= wide["width"]
    assert wide["requests"] and "nonsense is not defined" in console


# -------------------------------------------------------------------------------------------------------------- reading a page


VOID = {"meta", "br", "img", "hr", "link", "input"}


class Parsed(HTMLParser):
    """The elements of a page, and whether each is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.title = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"{tag} has an attribute twice"
        self.counts[tag] += 1
        self.attributes.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.references += [found[name] for name in ("href", "src") if name in found]
        self.references += [f"#{name}" for name in (found.get("aria-labelledby") or "").split()]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(filter(None, found.values())))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title += data
        if "style" not in self.open:
            self.text.append(data)


def check_html(page: str) -> None:
    """Sound: tags match, ids are unique, references stay in the page, tables have heads, pictures say what they show."""
    parsed = Parsed(page)
    assert page.startswith("<!doctype html>") and parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    for reference in parsed.references:
        assert reference.startswith("data:") or reference[1:] in parsed.ids, reference
    for tag, attributes in parsed.attributes:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row", "rowgroup")
        if tag == "svg":
            assert attributes["role"] == "img" and len(attributes["aria-label"]) > 50
    assert parsed.counts["caption"] == parsed.counts["table"]
    levels = [int(tag[1]) for tag, _ in parsed.attributes if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def plain_text(page: str) -> str:
    return " ".join("".join(Parsed(page).text).replace("\N{NO-BREAK SPACE}", " ").split())


def table_rows(page: str) -> list[list[str]]:
    """The text of the cells of each row of each table."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    return [[plain_text(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def only(name: str, results: dict) -> str:
    """The page of results that have one experiment."""
    return render_report({**results, "experiments": {name: results["experiments"][name]}})
