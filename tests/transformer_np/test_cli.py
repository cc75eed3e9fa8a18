"""`transformer-np`: it trains, stops, goes on and writes; and what a user gets wrong is one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import transformer_np
from transformer_np import cli

TEXT = "the quick brown fox jumps over the lazy dog\n" * 40
SMALL = ["--width", "8", "--layers", "1", "--heads", "2", "--context", "8", "--batch", "4", "--dropout", "0.1"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "fox.txt"
    path.write_text(TEXT)
    return path


def train(text, out, *options, steps=20, every=5):
    often = ["--steps", str(steps), "--every", str(every)]
    return cli.main(["train", "--text", str(text), "--out", str(out), *SMALL, *often, *options])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a trained model. Tests only read it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "fox.txt").write_text(TEXT)
    assert train(folder / "fox.txt", folder / "model", "--lr", "0.03", "--dropout", "0", "--warmup", "10",
                 steps=150, every=150) == 0
    return folder / "model"


def content(out):
    """What a checkpoint holds; the bytes of the file itself also hold the time at which they were zipped."""
    with np.load(Path(out) / "checkpoint.npz") as file:
        return {name: file[name].tobytes() for name in file.files}


def validation_loss(output):
    return float(output.split("validation loss ")[-1].split(",")[0])


def test_training_says_what_it_does_and_learns(text, tmp_path, capsys):
    assert train(text, tmp_path / "out", "--lr", "0.03", "--warmup", "10", steps=100, every=50) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("parameters, 1,584 characters to train on, 176 to validate on, 28 different")
    assert [line.split(":")[0] for line in lines[1:3]] == ["step 50", "step 100"]
    assert "over all 176 characters, after 100 steps" in lines[3]
    counts = np.unique(list(TEXT), return_counts=True)[1] / len(TEXT)
    unigram_entropy = -(counts * np.log(counts)).sum()
    assert validation_loss(lines[3]) < unigram_entropy


def test_the_same_command_on_a_finished_run_says_so_and_trains_nothing(text, tmp_path, capsys):
    train(text, tmp_path / "out")
    before = (tmp_path / "out" / "checkpoint.npz").read_bytes()
    first = capsys.readouterr().out
    assert train(text, tmp_path / "out") == 0
    again = capsys.readouterr().out
    assert "all 20 steps are taken" in again
    assert validation_loss(again) == validation_loss(first)
    assert (tmp_path / "out" / "checkpoint.npz").read_bytes() == before


def test_a_run_stopped_with_control_c_goes_on_to_the_same_numbers(text, tmp_path, monkeypatch, capsys):
    train(text, tmp_path / "whole")
    sample_windows, calls = cli.sample_windows, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return sample_windows(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "sample_windows", interrupted)
        capsys.readouterr()
        assert train(text, tmp_path / "stopped") == 130
    assert capsys.readouterr().err == "transformer-np: interrupted; step 12 is saved, and the same command goes on from there\n"
    assert train(text, tmp_path / "stopped") == 0
    assert "going on after step 12 of 20" in capsys.readouterr().out
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_that_is_killed_goes_on_to_the_same_numbers(text, tmp_path):
    command = [sys.executable, "-m", "transformer_np.cli", "train", "--text", str(text), "--out", str(tmp_path / "killed"),
               *SMALL, "--steps", "400", "--every", "40"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}    # a sum over threads is in another order
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process.stdout:
        for line in process.stdout:
            if line.startswith("step 80:"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL
    with np.load(tmp_path / "killed" / "checkpoint.npz") as file:
        killed_at = int(file["optimizer.step"])
    assert 80 <= killed_at < 400
    subprocess.run(command, env=environment, check=True, capture_output=True)
    command[command.index(str(tmp_path / "killed"))] = str(tmp_path / "whole")
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_model_writes_what_it_has_learnt(model, capsys):
    assert cli.main(["generate", str(model), "--prompt", "the quick", "--length", "30", "--temperature", "0"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("the quick") and len(written) == len("the quick") + 30 + 1
    words = written[9:].split()[1:-1]
    assert words and sum(word in TEXT.split() for word in words) >= len(words) / 2


def test_the_seed_decides_what_is_drawn(model, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert cli.main(["generate", str(model), "--length", "40", "--seed", seed, "--top-k", "5"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 41                                  # an empty prompt adds nothing to the text


def test_version_and_help(capsys):
    for arguments, expected in [(["--version"], f"transformer-np {transformer_np.__version__}"), (["--help"], "train"),
                                (["train", "--help"], "--context N"), (["generate", "--help"], "--top-k N")]:
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out


TRAIN_ERRORS = [
    (["--steps", "0"], "argument --steps: got 0, expected 1 or more"),
    (["--steps", "many"], "argument --steps: got 'many', expected a whole number"),
    (["--heads", "3"], "--heads 3 does not divide --width 8"),
    (["--lr", "0"], "argument --lr: got 0, expected a positive number"),
    (["--lr", "nan"], "argument --lr: got nan, expected a positive number"),
    (["--dropout", "1"], "argument --dropout: got 1, expected a number from 0 to below 1"),
    (["--seed", "-1"], "argument --seed: got -1, expected 0 or more"),
    (["--context", "2000"], "1584 characters to train on and 176 to validate on, expected more than --context 2000"),
    (["--text", "{tmp}/none.txt"], "none.txt: cannot be read (No such file or directory)"),
    (["--text", "{tmp}/empty.txt"], "empty.txt: is empty, expected some text"),
    (["--text", "{tmp}/latin.txt"], "latin.txt: not UTF-8 at byte 3"),
    (["--text", "{tmp}/short.txt"], "short.txt: 9 characters to train on and 1 to validate on"),
    (["--out", "{tmp}/fox.txt"], "fox.txt"),
    (["--out", "{tmp}/fox.txt/below"], "below"),
    (["--out", "{tmp}/foreign"], "foreign/checkpoint.npz: damaged, or not an .npz file"),
    (["--out", "{tmp}/folder"], "folder/checkpoint.npz: damaged, or not an .npz file"),
    (["--out", "{tmp}/other"], "other settings: text was 1,760 characters"),
    (["--out", "{tmp}/same", "--width", "4", "--steps", "3"], "other settings: steps was 2, now 3; width was 8, now 4"),
    (["--lr", "1e38"], "training diverged at step"),
    (["--colour", "red"], "unrecognized arguments: --colour red"),
]


@pytest.mark.parametrize(("options", "message"), TRAIN_ERRORS, ids=[" ".join(options) for options, _ in TRAIN_ERRORS])
def test_what_cannot_be_trained_is_one_line_and_changes_nothing(options, message, text, tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "short.txt").write_text("0123456789")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "checkpoint.npz").write_text("mine")
    (tmp_path / "folder" / "checkpoint.npz").mkdir(parents=True)
    (tmp_path / "other.txt").write_text(TEXT.upper())
    for name, source in (("other", tmp_path / "other.txt"), ("same", text)):
        if str(tmp_path / name) in [option.format(tmp=tmp_path) for option in options]:
            assert train(source, tmp_path / name, steps=2) == 0
    before = files(tmp_path)
    capsys.readouterr()
    assert train(text, tmp_path / "out", *[option.format(tmp=tmp_path) for option in options], steps=2) == 2
    error = capsys.readouterr().err
    assert error.startswith("transformer-np: error: ") and error.count("\n") == 1
    assert message in error
    after = files(tmp_path)
    assert {path: content for path, content in after.items() if "/out/" not in path} == before


def files(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(text, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert train(text, tmp_path / "locked") == 2
    assert "locked: cannot be written to" in capsys.readouterr().err


GENERATE_ERRORS = [
    (["--prompt", "Äx!"], "--prompt: text has characters that are not in the vocabulary of 28: '!', 'Ä'"),
    (["--length", "-1"], "argument --length: got -1, expected 0 or more"),
    (["--temperature", "-1"], "argument --temperature: got -1, expected a number that is 0 or more"),
    (["--top-k", "0"], "argument --top-k: got 0, expected 1 or more"),
]


@pytest.mark.parametrize(("options", "message"), GENERATE_ERRORS, ids=[" ".join(options) for options, _ in GENERATE_ERRORS])
def test_what_cannot_be_generated_is_one_line(options, message, model, capsys):
    assert cli.main(["generate", str(model), *options]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"transformer-np: error: {message}\n"
    assert captured.out == ""


def test_a_folder_without_a_model_is_named(tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path)]) == 2
    assert "checkpoint.npz: there is no such file" in capsys.readouterr().err


def test_no_command_is_an_error(capsys):
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "transformer-np: error: the following arguments are required: COMMAND\n"
