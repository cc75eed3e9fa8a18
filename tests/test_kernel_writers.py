"""The page for kernel writers: its commands run and say what it says; its examples are right, and fail when they are broken."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from transformer_np import cli
from transformer_np.gradcheck import check_against
from transformer_np.gradcheck.vectors import check_vectors, export_vectors

TUTORIALS = Path(__file__).parents[1] / "tutorials"
PAGE = (TUTORIALS / "kernel_writers.md").read_text(encoding="utf-8")
EXAMPLES = TUTORIALS / "kernel_writers"
COMMANDS = [block.split("\n") for block in re.findall(r"```console\n\$ (.*?)\n```", PAGE, re.DOTALL)]

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler called cc")


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("lines", COMMANDS, ids=[command for command, *_ in COMMANDS])
def test_a_command_of_the_page_says_what_the_page_says(lines, tmp_path, monkeypatch, capsys):
    command, *expected = lines
    if "in_c.py" in command and shutil.which("cc") is None:
        pytest.skip("there is no C compiler called cc")
    if "torch" in command:
        pytest.importorskip("torch")
    shutil.copytree(EXAMPLES, tmp_path / "kernel_writers")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command)
    assert program == "transformer-np" and cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[:len(expected)] == expected


def test_what_the_page_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if not link.startswith("http")]
    assert len(links) == 7 and all((TUTORIALS / link).is_file() for link in links)


@pytest.mark.parametrize("block, profile", [(16, "float16"), (64, "float32"), (64, "bfloat16"), (128, "float64")])
def test_tiles_of_every_size_are_right(block, profile, monkeypatch):
    if profile == "bfloat16":
        pytest.importorskip("ml_dtypes")
    tiled = load("tiled_attention")
    monkeypatch.setattr(tiled, "BLOCK", block)
    report = check_against("attention", tiled.forward, tiled.backward, profile=profile)
    assert report.ok, str(report)


@pytest.mark.parametrize("profile", ["float64", "float32", "float16", "bfloat16"])
def test_the_wrapper_of_torch_is_right_in_every_precision(torch, profile):
    if profile == "bfloat16":
        pytest.importorskip("ml_dtypes")
    wrapper = load("torch_layer_norm")
    report = check_against("layer_norm", wrapper.forward, wrapper.backward, profile=profile)
    assert report.ok and "left out" not in str(report), str(report)


def test_the_bits_of_bfloat16_go_to_torch_and_back_as_the_page_says(torch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    there, back = re.search(r"```python\n(tensor = .*)\n(a = .*)\n```", PAGE).groups()
    names = {"torch": torch, "np": np, "ml_dtypes": ml_dtypes, "a": np.array([1.5, -3, 1e30], ml_dtypes.bfloat16)[::-1]}
    exec(there, names)
    assert names["tensor"].dtype == torch.bfloat16 and names["tensor"].tolist() == names["a"].astype(float).tolist()
    before = names["a"].copy()
    exec(back, names)
    assert names["a"].dtype == before.dtype and (names["a"] == before).all()


TILE_BUGS = {
    "sums not rescaled": ("sums = sums * shrink[:, None] + e @ v", "sums = sums + e @ v"),
    "d_q overwritten": ("sum_q += d_scores @ k", "sum_q = d_scores @ k"),
    "d_k overwritten": ("sum_k += d_scores.T @ q", "sum_k = d_scores.T @ q"),
}


@pytest.mark.parametrize("bug, block", [("sums not rescaled", 16), ("sums not rescaled", 64), ("d_q overwritten", 16),
                                        ("d_q overwritten", 64), ("d_k overwritten", 128)])
def test_what_is_lost_between_two_tiles_is_seen_only_where_tiles_are_crossed(bug, block):
    old, new = TILE_BUGS[bug]
    source = (EXAMPLES / "tiled_attention.py").read_text(encoding="utf-8")
    broken = {}
    assert source.count(old) == source.count("BLOCK = 16 ") == 1
    exec(source.replace(old, new).replace("BLOCK = 16 ", f"BLOCK = {block} "), broken)
    forward, backward = broken["forward"], broken["backward"]
    failed = [check.name for check in check_against("attention", forward, backward, profile="float32").checks if not check.ok]
    assert failed == ["longer axes"]
    assert check_against("attention", forward, backward, profile="float32", larger=0).ok


BREAKS = {
    "running sum not shrunk": ("total = total * shrink + e.sum(axis=1)", "total = total + e.sum(axis=1)"),
    "first tile allows nothing": ("np.where(new_peak == -np.inf, 0, new_peak)", "new_peak"),
    "last tile not masked": ("tile = np.zeros((BLOCK, BLOCK), bool)", "tile = np.ones((BLOCK, BLOCK), bool)"),
    "NaN behind the mask": ("there = there if keep is None else there & keep", "pass"),
}


@pytest.mark.parametrize("old, new", BREAKS.values(), ids=BREAKS)
def test_a_kernel_broken_as_kernels_are_is_rejected(old, new, tmp_path, capsys):
    source = (EXAMPLES / "tiled_attention.py").read_text(encoding="utf-8")
    assert source.count(old) == 1
    (tmp_path / "broken.py").write_text(source.replace(old, new), encoding="utf-8")
    assert cli.main(["check", f"{tmp_path}/broken.py:forward,backward", "--against", "attention", "--profile", "float32"]) == 1
    assert "FAIL" in capsys.readouterr().out


@needs_cc
def test_a_c_kernel_broken_in_one_term_is_rejected(tmp_path, capsys):
    source = (EXAMPLES / "layer_norm.c").read_text(encoding="utf-8")
    (tmp_path / "layer_norm.c").write_text(source.replace(" - through_mean", ""), encoding="utf-8")
    shutil.copy(EXAMPLES / "layer_norm_in_c.py", tmp_path)
    assert cli.main(["check", f"{tmp_path}/layer_norm_in_c.py:forward,backward", "--against", "layer_norm", "--profile",
                     "float32"]) == 1
    shown = re.search(r"    FAIL  layer_norm: gradient of x: off by .*?\n\n", PAGE, re.DOTALL)[0]
    out = " ".join(capsys.readouterr().out.split())
    # the figures of the last digits, units and ULP, are those of one machine
    for part in ("off by 5.3e-01,", "worst at [0, 0, 2]:", "wrong: 30 of 30", "x[0, 0, 2] 2.92126799", "diagnosis: missing row "
                 "term: the error is the same along axis 2: a term with a sum or mean over that axis is missing or wrong"):
        assert part in out and part in " ".join(shown.split())


@needs_cc
def test_a_c_program_answers_vectors_without_python(tmp_path):
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-O2", "-o", tmp_path / "program", EXAMPLES / "relu.c"], check=True)
    root = tmp_path / "vectors"
    export_vectors(root, only=["relu"])
    for path in (root / "vectors").iterdir():
        zipfile.ZipFile(path).extractall(tmp_path / path.stem)
        (root / "answers" / path.stem).mkdir(parents=True)
        subprocess.run([tmp_path / "program", tmp_path / path.stem, root / "answers" / path.stem], check=True)
    reports = list(check_vectors(root))
    assert len(reports) == 10 and all(report.ok for report in reports), "\n".join(map(str, reports))
    wrong = root / "answers" / "relu" / "gradient.x.npy"
    np.save(wrong, np.load(wrong) * 1.01)
    assert [report.name for report in check_vectors(root) if not report.ok] == ["relu"]


def test_the_schema_on_the_page_is_that_of_the_files(tmp_path):
    export_vectors(tmp_path / "golden", only=["dropout", "lstm"])
    manifest = json.loads((tmp_path / "golden" / "manifest.json").read_text())
    schema = re.search(r"version 1 of the schema:\n\n```\n(.*?)```", PAGE, re.DOTALL)[1]
    entry = manifest["vectors"][0]
    for key in {*manifest, *entry, *(key for about in entry["arrays"] for key in about)}:
        assert re.search(rf"\b{key}\b", schema), key
    kinds = {about["kind"] for entry in manifest["vectors"] for about in entry["arrays"]}
    assert kinds == {"input", "setting", "random", "cotangent", "output", "gradient"}
    assert all(f"`{kind}." in PAGE for kind in kinds)


def test_the_examples_print_nothing_and_need_nothing_but_numpy():
    for path in EXAMPLES.glob("*.py"):
        if path.stem == "layer_norm_in_c" and shutil.which("cc") is None:
            continue
        if path.stem == "torch_layer_norm":
            continue
        done = subprocess.run([sys.executable, "-W", "error", path], capture_output=True, text=True, check=True)
        assert done.stdout == done.stderr == ""
        imported = set(re.findall(r"^(?:import|from) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert imported <= {*sys.stdlib_module_names, "numpy"}
