"""The command, and that nothing escapes it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from transformer_np.gradcheck import layer_example, random_mask, with_random_weights
from transformer_np.gradcheck.__main__ import main
from transformer_np.gradcheck.discovery import discover, subject_name
from transformer_np.gradcheck.suite import check_everything
from transformer_np.normalization import LayerNorm


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of the given files, importable by the returned name for one test."""
    def write(**files):
        name = f"package_{tmp_path.name.replace('-', '_')}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").touch()
        for module, text in files.items():
            (folder / f"{module}.py").write_text(text.replace("PACKAGE", name))
        monkeypatch.syspath_prepend(tmp_path)
        return name

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name.startswith("package_"):
            del sys.modules[name]


SQUARE = """
def square_forward(x):
    return x * x, x

def square_backward(d_y, x):
    return 2 * x * d_y

def _private_forward(x):
    return x, None

def square_forward_naive(x):
    return x ** 2, x
"""

SQUARE_EXAMPLES = """
from transformer_np.gradcheck import pair_example
from PACKAGE.square import square_backward, square_forward

def square(rng):
    yield pair_example(square_forward, square_backward, rng.standard_normal((2, 3)))
    yield pair_example(square_forward, square_backward, rng.standard_normal(()), case="number")
"""

LAYER = """
from dataclasses import dataclass
from transformer_np.layer import Layer

@dataclass
class Scale(Layer):
    weight: object

    def forward(self, x):
        return x * self.weight, x

@dataclass
class State(Layer):
    mean: object
"""


def test_everything_of_this_project_is_right(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    rows = [line.split() for line in out.splitlines() if line.startswith("ok ")]
    assert all(float(row[1]) <= 1e-11 for row in rows)
    assert {"attention", "softmax", "cross_entropy", "layer_norm", "GPT", "lstm"} <= {row[2] for row in rows}


def test_every_pair_and_layer_is_found():
    found = {subject_name(subject) for subject in discover(("transformer_np",), seed=0).subjects}
    assert {"softmax", "log_softmax", "linear", "Linear", "attention", "MultiHeadAttention", "dropout", "gelu", "GPT"} <= found


def test_a_subject_is_public_and_defined_here_and_has_a_forward(package):
    imported = "from PACKAGE.square import square_forward"
    name = package(square=SQUARE, layer=LAYER, imported=imported, gradcheck_examples=SQUARE_EXAMPLES)
    found = discover((name,), seed=0)
    assert [subject_name(subject) for subject in found.subjects] == ["Scale", "square"]
    assert found.broken == {}


def test_a_subject_without_an_example_fails(package):
    name = package(square=SQUARE)
    (report,) = check_everything(packages=(name,))
    assert not report.ok
    assert report.check("has an example").says == f"{name}/gradcheck_examples.py has none for square of square.py: write one"


def test_each_example_is_checked_under_its_case(package):
    name = package(square=SQUARE, gradcheck_examples=SQUARE_EXAMPLES)
    reports = list(check_everything(packages=(name,)))
    assert [report.name for report in reports] == ["square", "square (number)"]
    assert all(report.ok for report in reports)


def test_a_wrong_pair_fails(package):
    name = package(square=SQUARE.replace("2 * x * d_y", "x * d_y"), gradcheck_examples=SQUARE_EXAMPLES)
    assert not any(report.ok for report in check_everything(packages=(name,)))


@pytest.mark.parametrize("broken", ["square", "gradcheck_examples"])
def test_a_module_that_cannot_be_imported_fails(package, broken):
    files = {"square": SQUARE, "gradcheck_examples": "", broken: "import no_such_module"}
    name = package(**files)
    reports = {report.name: report for report in check_everything(packages=(name,))}
    assert "No module named 'no_such_module'" in reports[f"{name}.{broken}"].check("can be imported").says


def test_an_example_that_raises_fails(package):
    examples = SQUARE_EXAMPLES.replace("yield", "raise ZeroDivisionError('no')\n    yield", 1)
    name = package(square=SQUARE, gradcheck_examples=examples)
    reports = list(check_everything(packages=(name,)))
    assert [report.ok for report in reports] == [False, False]
    assert "ZeroDivisionError: no" in str(reports[0])


def test_a_package_that_is_not_installed_is_left_out():
    assert list(check_everything(packages=("no_such_package",))) == []


def test_only_one(capsys):
    assert main(["--only", "softmax"]) == 0
    rows = [line.split()[2] for line in capsys.readouterr().out.splitlines() if line.startswith("ok ")]
    assert set(rows) == {"softmax"}


def test_json(capsys):
    assert main(["--only", "layer_norm", "--seed", "7", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1 and document["ok"] is True
    first = document["reports"][0]
    assert first["name"] == "layer_norm"
    assert [check["argument"] for check in first["checks"] if check["argument"]] == ["x", "gain", "bias"]
    assert all(check["figure"] <= check["bound"] == 1e-11 for check in first["checks"] if check["argument"])


def test_a_failure_is_in_the_table_in_the_text_and_in_the_exit_status(monkeypatch, capsys):
    monkeypatch.setattr("transformer_np.gradcheck_examples.softmax_backward", lambda d_y, cache: d_y * cache.y)
    assert main(["--only", "softmax"]) == 1
    out = capsys.readouterr().out
    assert "FAIL     " in out
    assert "worst at element " in out
    assert "4 examples, 4 gradients, 4 examples failed" in out
    assert main(["--only", "softmax", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize("arguments, message", [
    (["--only", "sofmax"], "--only sofmax: no pair or layer has that name; expected one of "),
    (["--seed", "-1"], "argument --seed: got -1, expected 0 or more"),
    (["softmax"], "unrecognized arguments: softmax"),
])
def test_a_bad_command_line_is_one_line_and_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "transformer_np.gradcheck", "--only", "relu"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1 examples, 1 gradients, 0 examples failed" in done.stdout


def test_an_example_that_flatters_is_refused():
    """With gain 1 and bias 0, wrong gradients look right."""
    with pytest.raises(ValueError, match=r"LayerNorm \(fresh\): gain is 1.0 everywhere, expected random weights"):
        layer_example(LayerNorm.create(5), np.ones((2, 3, 5)), case="fresh")
    layer_example(with_random_weights(LayerNorm.create(5), np.random.default_rng(0)), np.ones((2, 3, 5)))


def test_a_random_mask_has_a_row_that_allows_nothing_and_one_that_allows_all():
    mask = random_mask(np.random.default_rng(0), (2, 3, 5))
    assert not mask[0, 0].any() and mask[0, 1].all() and 0 < mask[1].sum() < 15
