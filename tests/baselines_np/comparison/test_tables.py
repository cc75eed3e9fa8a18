"""The table in the terminal has every arm, best first, and what guessing is worth."""

from __future__ import annotations

import pytest

from baselines_np.comparison.results import assemble
from baselines_np.comparison.run import RunKey, execute
from baselines_np.comparison.tables import COLUMNS, print_tables, rows
from baselines_np.comparison.wording import MISSING


def run(score, reached):
    return {"score": score, "seconds": 2.0, "steps": 100, "steps_to_threshold": reached, "peak_bytes": 2**20}


def arm(*runs, mean, solved):
    return {"runs": list(runs), "mean": mean, "sd": 0.1, "solved": solved, "parameters": 1234, "flops_per_step": 10**9,
            "score_at_equal_flops": 0.5, "score_at_equal_seconds": None}


EXPERIMENT = {"metric": "accuracy", "higher_is_better": True, "baselines": {"chance": {"score": 0.25, "what": "a guess"}},
              "arms": {"rnn": arm(run(0.2, None), run(0.4, None), mean=0.3, solved=0.0), "tcn": {"runs": []},
                       "gru": arm(run(0.9, 40), run(0.7, None), mean=0.8, solved=0.5),
                       "lstm": arm(run(1.0, 30), run(1.0, 50), mean=1.0, solved=1.0)}}


def test_arms_are_in_the_order_of_their_score_and_baselines_below():
    found = list(rows(EXPERIMENT))
    assert [row[0] for row in found] == ["LSTM", "GRU", "RNN (tanh)", "chance"]
    assert all(len(row) == len(COLUMNS) for row in found)
    assert found[0][1:6] == ("100.0 ± 10.0 %", "2 of 2", "30 to 50", "50.0 %", MISSING)
    assert [row[3] for row in found[1:3]] == ["40 to > 100", "> 100"]
    lower = list(rows({**EXPERIMENT, "higher_is_better": False}))
    assert [row[0] for row in lower] == ["RNN (tanh)", "GRU", "LSTM", "chance"]


def test_the_tables_of_real_runs_are_printed(tiny, capsys):
    pytest.importorskip("rich")
    key = RunKey("language_model", "bigram", None, 0)
    finished = {key: execute(tiny[2], key, lambda step, score: None)}
    trivial = {experiment.name: experiment.task.baselines() for experiment in tiny}
    print_tables(assemble("quick", tiny, trivial, finished, seeds=1, command="", seconds=1.0, others={}))
    said = capsys.readouterr().out
    assert all(experiment.title in said for experiment in tiny)
    assert "bigram" in said and "unigram" in said and "bits per character, lower is better" in said
