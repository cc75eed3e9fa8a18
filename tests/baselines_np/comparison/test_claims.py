"""Claims are judged by the figures in the results, and the evidence quotes them."""

from __future__ import annotations

import statistics

import pytest

from baselines_np.comparison.claims import HOLDS, IN_PART, NOT_HERE, judge, summary


def arm(scores, *, beyond=None, model="recurrent", steps=100, seconds=1.0, threshold=0.95):
    runs = [{"seed": seed, "score": score, "steps": steps, "seconds": seconds,
             "validation_loss": 1.25, "steps_to_threshold": 50 if score >= threshold else None}
            for seed, score in enumerate(scores)]
    for run, far in zip(runs, beyond or [], strict=False):
        run["by_length"] = [[40, run["score"]], [80, far]]
        run["by_position"] = [[position, run["score"] if position <= 40 else far] for position in range(1, 81)]
    return {"runs": runs, "parameters": 1000, "config": {"model": model}, "mean": statistics.fmean(scores) if scores else None,
            "sd": statistics.stdev(scores) if len(scores) > 1 else None,
            "solved": sum(score >= threshold for score in scores) / len(scores) if scores else None}


def recall(**arms):
    rivals = {name: arm([0.16, 0.17, 0.18]) for name in ("transformer_1_layer", "rnn", "gru", "lstm", "tcn")}
    return {"metric": "accuracy", "arms": {"transformer": arm([0.99, 0.98, 0.97]), **rivals, **arms},
            "baselines": {"guess a value shown": {"score": 1 / 6}}}


def tracking(**arms):
    solved = {name: arm([1.0, 1.0, 1.0], beyond=[1.0, 1.0, 1.0]) for name in ("rnn", "lstm")}
    return {"metric": "accuracy", "chance": 0.5, "budget": {"trained_length": 40, "farthest": 80},
            "arms": {"transformer": arm([0.7, 0.7, 0.7], beyond=[0.5, 0.5, 0.5]), **solved, **arms}}


def language(**arms):
    rivals = {name: arm([2.4, 2.5, 2.4], seconds=2.0) for name in ("rnn", "gru", "lstm", "tcn")}
    return {"metric": "bits per character",
            "arms": {"transformer": arm([2.0, 2.1, 2.05]), **rivals, "5-gram": arm([1.9], model="n-gram", steps=0), **arms}}


def verdicts(name, document):
    return [judged["verdict"] for judged in judge(name, document)]


def test_recall_as_the_literature_has_it():
    document = recall()
    assert verdicts("associative_recall", document) == [HOLDS, HOLDS, HOLDS]
    evidence = " ".join(judged["evidence"] for judged in judge("associative_recall", document))
    assert "99.0 %, 98.0 % and 97.0 %" in evidence and "98.0 ± 1.0 %" in evidence and "16.7 %" in evidence


def test_one_seed_short_holds_in_part():
    document = recall(transformer=arm([0.99, 0.98, 0.5]))
    assert verdicts("associative_recall", document)[0] == IN_PART
    assert "step 50, step 50 and not in 100 steps" in judge("associative_recall", document)[0]["evidence"]


def test_a_rival_that_is_ahead_is_seen():
    assert verdicts("associative_recall", recall(lstm=arm([1.0, 1.0, 1.0])))[2] == IN_PART
    ahead = {name: arm([1.0, 1.0, 1.0]) for name in ("rnn", "gru", "lstm", "tcn", "transformer_1_layer")}
    assert verdicts("associative_recall", recall(**ahead)) == [HOLDS, NOT_HERE, NOT_HERE]


def test_seeds_that_overlap_hold_in_part():
    assert verdicts("associative_recall", recall(transformer_1_layer=arm([0.2, 0.2, 0.98])))[1] == IN_PART


def test_tracking_as_the_literature_has_it():
    document = tracking()
    assert verdicts("state_tracking", document) == [HOLDS, NOT_HERE, NOT_HERE]
    first, _, third = (judged["evidence"] for judged in judge("state_tracking", document))
    assert "RNN (tanh) 100.0 % at the trained lengths and 100.0 % at length 80" in first
    assert "positions 41 to 80: Transformer 50.0 %, 50.0 % and 50.0 %" in third


def test_a_recurrent_network_that_fails_beyond_holds_in_part():
    assert verdicts("state_tracking", tracking(rnn=arm([1.0, 1.0, 1.0], beyond=[1.0, 0.9, 1.0])))[0] == IN_PART
    assert verdicts("state_tracking", tracking(lstm=arm([1.0, 0.98, 1.0], beyond=[1.0, 1.0, 1.0])))[0] == IN_PART


def test_a_transformer_that_goes_on_is_seen():
    document = tracking(transformer=arm([1.0, 1.0, 1.0], beyond=[1.0, 1.0, 0.6]))
    assert verdicts("state_tracking", document) == [HOLDS, HOLDS, IN_PART]


def test_text_is_better_with_fewer_bits():
    document = language()
    assert verdicts("language_model", document) == [HOLDS, NOT_HERE, HOLDS]
    assert "Transformer 10; RNN (tanh) 20" in judge("language_model", document)[2]["evidence"]
    assert verdicts("language_model", language(lstm=arm([2.02, 2.0, 2.0], seconds=0.5))) == [IN_PART, NOT_HERE, IN_PART]
    assert verdicts("language_model", language(transformer=arm([1.8, 1.8, 1.8])))[1] == HOLDS


def test_what_counting_costs_is_in_milliseconds_and_its_loss_is_not_that_of_the_best_trained_arm():
    document = language(**{"5-gram": arm([1.9], model="n-gram", steps=0, seconds=0.02)})
    assert judge("language_model", document)[1]["evidence"].endswith("against 5-gram 1.900, which needs 20 ms.")
    assert summary("language_model", document).endswith(" Validation loss of Transformer: 1.250 nats.")
    only_counted = {"metric": "bits per character", "arms": {"5-gram": document["arms"]["5-gram"]}}
    assert summary("language_model", only_counted) == "Bits per character, the fewest first: 5-gram 1.900."


def test_a_claim_waits_for_the_arms_that_it_needs():
    document = recall(transformer_1_layer=arm([]))
    assert len(judge("associative_recall", document)) == 2
    del document["arms"]["transformer"]
    assert judge("associative_recall", document) == []


@pytest.mark.parametrize(("name", "document", "expected"), [
    ("associative_recall", recall(), "Solved in every seed by Transformer 98.0 ± 1.0 %. Not in every seed within this budget: "),
    ("language_model", language(), "Bits per character, the fewest first: 5-gram 1.900, Transformer 2.050 ± 0.050, "),
    ("state_tracking", {"arms": {"rnn": arm([])}}, "No run is finished yet."),
])
def test_the_summary_has_the_figures(name, document, expected):
    assert summary(name, document).startswith(expected)
