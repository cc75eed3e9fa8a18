"""`baselines-np compare`, from the arguments to the report; every mistake is one line and exit status 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from baselines_np import cli
from baselines_np.comparison import runner, settings
from baselines_np.comparison.associative_recall import AssociativeRecall
from baselines_np.comparison.settings import Size, Training


@pytest.fixture
def small(monkeypatch):
    """Both suites have the first experiment, made small."""
    recall, = settings.experiments("quick", ["associative_recall"])
    small = replace(recall, size=Size(width=16, layers=2, heads=1, positions="learned", tcn_levels=2),
                    task=AssociativeRecall(pairs=2, keys=4, values=4, batch=4, validation_examples=8, test_examples=8),
                    training=Training(steps=4, learning_rates=(1e-3, 1e-2), warmup=2, final_rate=0.5, evaluate_every=2))
    monkeypatch.setattr(settings, "experiments", lambda suite, names, text: [small])


def test_compare_writes_both_files_and_prints_tables_and_the_report_last(small, tmp_path, capsys):
    for module in ("jinja2", "matplotlib", "rich"):
        pytest.importorskip(module)
    out = tmp_path / "out"
    assert cli.main(["compare", "--arms", "transformer,rnn", "--seeds", "2", "--jobs", "2", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(out / "report.html") and (out / "report.html").stat().st_size > 1000
    text = "\n".join(said)
    assert "  6/6 associative_recall" in text and "Associative recall. Six keys" in text
    assert "RNN (tanh)" in text and "guess a value shown" in text and "at equal" in text
    results = json.loads((out / "results.json").read_text())
    assert results["command"] == f"baselines-np compare --arms transformer,rnn --seeds 2 --jobs 2 --out {out}"
    assert set(results["experiments"]["associative_recall"]["arms"]) == {"transformer", "rnn"}
    # once more: nothing is left to do, and the report is made again
    (out / "report.html").unlink()
    assert cli.main(["compare", "--arms", "transformer,rnn", "--seeds", "2", "--out", str(out)]) == 0
    assert "6 of 6 runs are finished; going on with the other 0" in capsys.readouterr().out
    assert (out / "report.html").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--only", "cooking"], "--only: unknown experiment 'cooking', expected one or more of associative_recall, state_tracking, "
                            "language_model"),
    (["--only", ""], "--only: unknown experiment '', expected"),
    (["--arms", "rnn,perceptron"],
     "--arms: unknown arm 'perceptron', expected one or more of transformer, transformer_1_layer, rnn"),
    (["--only", "state_tracking", "--arms", "bigram"], "--arms: none of bigram takes part in state_tracking"),
    (["--seeds", "0"], "--seeds: got 0, expected 1 or more"),
    (["--seeds", "three"], "--seeds: got 'three', expected a whole number"),
    (["--jobs", "0"], "--jobs: got 0, expected 1 or more"),
    (["--suite", "slow"], "invalid choice: 'slow'"),
    (["--text", "{folder}/absent.txt"], "absent.txt: cannot be read (No such file or directory)"),
    (["--text", "{folder}/empty.txt"], "empty.txt: is empty, expected some text"),
    (["--text", "{folder}/latin.txt"], "latin.txt: not UTF-8 at byte 1"),
    (["--text", "{folder}/short.txt"], "short.txt: 5 characters leave 1 to validate and test on"),
    (["--out", "{folder}/empty.txt"], "empty.txt: cannot be written (File exists)"),
    (["--out", "{folder}/damaged"], "results.json: is damaged, not JSON"),
    (["--out", "{folder}/foreign"], "results.json: is not a results file"),
])
def test_a_mistake_is_one_line_and_changes_nothing(arguments, message, tmp_path, capsys):
    contents = {"empty.txt": b"", "latin.txt": b"a\xe9b", "short.txt": b"hello",
                "damaged/results.json": b'{"schema": 1,', "foreign/results.json": b'{"name": "package"}'}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    given = [argument.replace("{folder}", str(tmp_path)) for argument in arguments]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    assert cli.main(["compare", *given]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("baselines-np: error: ") and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    for name, content in contents.items():
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(["compare", "--out", str(tmp_path / "out")]) == 2
    assert "cannot be written (Permission denied)" in capsys.readouterr().err


def test_a_missing_extra_is_said_before_anything_is_trained(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "find_spec", lambda name: None if name == "matplotlib" else object())
    assert cli.main(["compare", "--out", str(tmp_path / "out")]) == 2
    assert "compare needs matplotlib: pip install transformer-np[compare]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_one_line_and_exit_status_1(small, monkeypatch, tmp_path, capsys):
    def fail(*args, **kwargs):
        raise runner.RunFailed("run of associative_recall, rnn, seed 0 failed: its process was ended by SIGKILL")

    monkeypatch.setattr(runner, "compare", fail)
    assert cli.main(["compare", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == ("baselines-np: error: run of associative_recall, rnn, seed 0 failed: "
                                       "its process was ended by SIGKILL\n")


def test_ctrl_c_is_one_line_and_exit_status_130(tmp_path):
    command = [sys.executable, "-c", "import sys; from baselines_np.cli import main; sys.exit(main())",
               "compare", "--only", "state_tracking", "--arms", "rnn", "--out", str(tmp_path)]
    # a group of its own, as a terminal gives it: Ctrl-C reaches the workers too
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not Path(tmp_path, "results.json").exists() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == (f"baselines-np: interrupted; 0 of 4 runs are in {tmp_path / 'results.json'}, "
                   "and the same command goes on with the others\n")


def test_arguments_are_read_before_anything_heavy_is_imported():
    code = ("import sys; from baselines_np.cli import _parser; _parser().parse_args(['compare']); "
            "heavy = ('scipy', 'rich', 'jinja2', 'matplotlib', 'baselines_np.lstm', 'baselines_np.comparison.runner'); "
            "print([name for name in heavy if name in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
