"""`transformer-np check` and `transformer-np vectors`, as a user meets them."""

import json
import re
import shlex
import shutil
import textwrap

import numpy as np
import pytest

from transformer_np import cli
from transformer_np.gradcheck.against import references
from transformer_np.layer import read_arrays

SOFTMAX = """
    from dataclasses import dataclass
    import numpy as np

    @dataclass
    class Cache:
        y: np.ndarray
        axis: int

    def softmax(x, mask=None, axis=-1):
        shown = x if mask is None else np.where(mask, x, x.dtype.type(-np.inf))
        peak = shown.max(axis=axis, keepdims=True, initial=-np.inf)
        e = np.exp(shown - np.where(np.isfinite(peak), peak, 0))
        total = e.sum(axis=axis, keepdims=True)
        y = e / np.where(total == 0, 1, total)
        return y, Cache(y, axis)

    def backward(d_y, cache):
        return cache.y * (d_y - (d_y * cache.y).sum(axis=cache.axis, keepdims=True))

    def wrong(d_y, cache):
        return d_y * cache.y

    def function(x, mask=None, axis=-1):
        return softmax(x, mask, axis)[0]

    def vjp(d_y, x, mask=None, axis=-1):
        return backward(d_y, softmax(x, mask, axis)[1])

    def square(x):
        return x * x, x

    def square_backward(d_y, x):
        return 2 * x * d_y

    def only_square(x):
        return x * x

    def square_vjp(d_y, x):
        return 2 * x * d_y

    def draw(rng):
        return [rng.standard_normal((2, 3))]

    def raises(rng):
        raise ZeroDivisionError("division by zero")

    def draws_text(rng):
        return ["x"]

    def exits(rng):
        raise SystemExit(3)

    def draws_nothing(rng):
        pass

    class Ill:
        def __dlpack__(self):
            return None

        def __getattr__(self, name):
            raise KeyError(name)

    def draws_ill(rng):
        return [Ill()]

    number = 7
"""


@pytest.fixture
def kernels(tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text(textwrap.dedent(SOFTMAX))
    return path


def check(kernels, names, *options):
    return cli.main(["check", f"{kernels}:{names}", *options])


# ---------------------------------------------------------------------------------------------------- check

@pytest.mark.parametrize("options", [("softmax,backward",), ("softmax, backward", "--profile", "float32", "--seed", "3"),
                                     ("function,vjp", "--vjp", "--profile", "float16")])
def test_a_right_kernel_is_status_0(kernels, options, capsys):
    assert check(kernels, options[0], "--against", "softmax", *options[1:]) == 0
    out = capsys.readouterr().out
    assert "ok, 17 checks" in out and "ok    softmax (mask): gradient of x: off by" in out


def test_a_wrong_kernel_is_status_1_and_the_report_says_where(kernels, capsys):
    assert check(kernels, "softmax,wrong", "--against", "softmax") == 1
    assert "FAIL  softmax: gradient of x: off by" in capsys.readouterr().out
    assert check(kernels, "softmax,wrong", "--against", "softmax", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False and document["name"] == "softmax against softmax in float64"


def test_a_pair_with_inputs_of_its_own(kernels, capsys):
    assert check(kernels, "square,square_backward", "--inputs", "draw") == 0
    assert "gradient of x" in capsys.readouterr().out
    assert check(kernels, "square,wrong", "--inputs", "draw") == 1
    assert check(kernels, "square,square_backward", "--inputs", "draw", "--profile", "float32") == 0
    assert check(kernels, "only_square,square_vjp", "--inputs", "draw", "--vjp") == 0
    assert check(kernels, "only_square,vjp", "--inputs", "draw", "--vjp") == 1


def test_the_command_line_of_a_failed_check_is_in_its_report(kernels, capsys):
    check(kernels, "softmax,wrong", "--against", "softmax", "--larger", "0", "--seed", "4")
    out = capsys.readouterr().out
    again = re.search(r"^  again: transformer-np (.*)$", out, re.MULTILINE)[1]
    assert cli.main(shlex.split(again)) == 1
    assert capsys.readouterr().out == out and "longer axes" not in out
    assert check(kernels, "only_square,vjp", "--inputs", "draw", "--vjp", "--profile", "float32") == 1
    assert ":only_square,vjp --inputs draw --vjp --profile float32 --seed 0\n" in capsys.readouterr().out


CHECK_ERRORS = [
    (["{kernels}:softmax,backward"], "one of the arguments --against --inputs is required"),
    (["{kernels}:softmax,backward", "--against", "softmax", "--inputs", "draw"], "not allowed with argument"),
    (["{kernels}:softmax,backward", "--against", "sofmax"], "no pair is called 'sofmax', expected one of attention, "),
    (["{kernels}:softmax,backward", "--against", "softmax", "--profile", "float8"], "invalid choice: 'float8'"),
    (["{kernels}:softmax", "--against", "softmax"], "kernels.py:softmax: expected FILE.py:FORWARD,BACKWARD"),
    (["{kernels}", "--against", "softmax"], "expected FILE.py:FORWARD,BACKWARD"),
    (["{kernels}:softmax,gradient", "--against", "softmax"], "kernels.py: has no 'gradient'"),
    (["{kernels}:softmax,number", "--against", "softmax"], "kernels.py: number is a int, expected a function"),
    (["{kernels}:softmax,backward", "--inputs", "none"], "kernels.py: has no 'none'"),
    (["{kernels}:softmax,backward", "--inputs", "raises"], "--inputs raises: raised ZeroDivisionError: division by zero"),
    (["{kernels}:softmax,backward", "--inputs", "draws_text"], "--inputs draws_text: input x is a str"),
    (["{kernels}:softmax,backward", "--inputs", "exits"], "--inputs exits: raised SystemExit: 3"),
    (["{kernels}:softmax,backward", "--inputs", "draws_nothing"], "--inputs draws_nothing: inputs is None, expected a list or "),
    (["{kernels}:softmax,backward", "--inputs", "draws_ill"], "--inputs draws_ill: its inputs cannot be used: KeyError: "),
    (["{kernels}:softmax,backward", "--inputs", "draw", "--larger", "9"], "--larger goes with --against: with --inputs, sizes"),
    (["{kernels}:softmax,backward", "--against", "softmax", "--larger", "-1"], "got -1, expected 0 or more"),
    (["{tmp}/none.py:f,b", "--against", "softmax"], "none.py: no such file"),
    (["{tmp}/broken.py:f,b", "--against", "softmax"], "broken.py: cannot be imported: ModuleNotFoundError: No module named"),
    (["{tmp}/syntax.py:f,b", "--against", "softmax"], "syntax.py: cannot be imported: SyntaxError"),
    (["{tmp}/exits.py:f,b", "--against", "softmax"], "exits.py: cannot be imported: SystemExit: 3"),
    (["{tmp}/text.txt:f,b", "--against", "softmax"], "text.txt: is no Python file"),
]


@pytest.mark.parametrize(("arguments", "message"), CHECK_ERRORS, ids=[" ".join(arguments) for arguments, _ in CHECK_ERRORS])
def test_a_file_that_cannot_be_used_is_one_line_and_status_2(arguments, message, kernels, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "syntax.py").write_text("def f(:")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    (tmp_path / "text.txt").write_text("f = b = 1")
    assert cli.main(["check", *(argument.format(kernels=kernels, tmp=tmp_path) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_a_file_may_import_what_lies_beside_it(tmp_path, capsys):
    (tmp_path / "beside_it.py").write_text(textwrap.dedent(SOFTMAX))
    (tmp_path / "kernel.py").write_text("from beside_it import *")
    assert check(tmp_path / "kernel.py", "softmax,backward", "--against", "softmax") == 0


# ---------------------------------------------------------------------------------------------------- vectors

@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of two pairs. Tests copy it."""
    folder = tmp_path_factory.mktemp("vectors") / "golden"
    assert cli.main(["vectors", "export", str(folder), "--only", "softmax,dropout,embedding", "--seed", "2"]) == 0
    return folder


def answer(folder, form="npz"):
    """Another program: it computes in float32 what the files ask for."""
    manifest = json.loads((folder / "manifest.json").read_text())
    pairs = {name: examples[0].call for name, examples in references().items()}
    (folder / "answers").mkdir()
    for entry in manifest["vectors"]:
        arrays = read_arrays(folder / entry["file"])
        call = pairs[entry["pair"]]
        inputs = [about["dtype"] and arrays[about["name"]] for about in entry["arrays"] if about["kind"] == "input"]
        if "random.0" in arrays:
            keep = (arrays["random.0"] >= entry["settings"]["p"]) / np.float32(1 - entry["settings"]["p"])
            results = {"output.0": inputs[0] * keep, "gradient.x": arrays["cotangent.0"] * keep}
        else:
            output, cache = call.forward(*inputs, **entry["settings"])
            gradient = call.backward(arrays["cotangent.0"], cache)
            name = next(about["name"] for about in entry["arrays"] if about["kind"] == "gradient")
            results = {"output.0": output, name: gradient}
        write(folder, entry["name"], form, **results)


def write(folder, name, form="npz", **results):
    if form == "npz":
        np.savez(folder / "answers" / f"{name}.npz", **results)
    else:
        (folder / "answers" / name).mkdir(exist_ok=True)
        for each, array in results.items():
            np.save(folder / "answers" / name / f"{each}.npy", array)


@pytest.fixture
def folder(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "golden")
    return tmp_path / "golden"


def test_the_manifest_says_what_the_files_hold(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert (manifest["schema"], manifest["seed"], manifest["precision"]) == (1, 2, "float32")
    assert {entry["pair"] for entry in manifest["vectors"]} == {"softmax", "dropout", "embedding"}
    assert {"softmax", "softmax_mask", "softmax_x_axis_0_size_0", "softmax_x_axis_2_size_1", "embedding"} <= {
        entry["name"] for entry in manifest["vectors"]}
    for entry in manifest["vectors"]:
        arrays = read_arrays(exported / entry["file"])
        for about in entry["arrays"]:
            if about["dtype"] is not None:
                array = arrays.pop(about["name"])
                assert (str(array.dtype), list(array.shape)) == (about["dtype"], about["shape"])
                assert list(array.strides) == about["strides"] or array.size == 0
        assert arrays == {}
    by_name = {entry["name"]: entry for entry in manifest["vectors"]}
    kinds = [(about["name"], about["dtype"]) for about in by_name["softmax_mask"]["arrays"]]
    assert kinds == [("input.x", "float32"), ("input.mask", "bool"), ("cotangent.0", "float32"), ("output.0", "float64"),
                     ("gradient.x", "float64")]
    assert by_name["softmax_mask_broadcast_first_axis"]["settings"] == {"axis": 0}
    assert "random.0" in {about["name"] for about in by_name["dropout"]["arrays"]}


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_right_answers_are_status_0(folder, form, capsys):
    answer(folder, form)
    capsys.readouterr()
    assert cli.main(["vectors", "check", str(folder)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].startswith("ok ") and "FAIL" not in "".join(rows)
    assert rows[-1].endswith(" files, 0 wrong")


def test_each_wrong_answer_is_named_and_the_status_is_1(folder, capsys):
    answer(folder)
    answers = folder / "answers"
    right = read_arrays(answers / "softmax.npz")
    write(folder, "softmax", **{**right, "gradient.x": right["gradient.x"] * np.float32(1.001)})
    write(folder, "softmax_mask", **{"output.0": right["output.0"]})
    write(folder, "softmax_large_mean", **right, extra=np.ones(2))
    write(folder, "embedding", **{"output.0": np.ones((2, 3, 5), int), "gradient.weight": np.ones(3)})
    (answers / "dropout.npz").write_bytes(b"PK damaged")
    (answers / "dropout_evaluation.npz").unlink()
    write(folder, "softmax_x_axis_0_size_0", "npy", **right)
    np.savez(answers / "sofmax.npz", **right)
    capsys.readouterr()
    assert cli.main(["vectors", "check", str(folder)]) == 1
    out = capsys.readouterr().out
    for message in ("FAIL  gradient.x: off by", "; worst at [", "FAIL  gradient.x: missing; there are: output.0",
                    "unexpected extra; expected output.0, gradient.x", "output.0: is int64, expected a floating dtype",
                    "gradient.weight has shape [3], expected [7, 5]", "dropout.npz: damaged, or not an .npz file",
                    "missing: neither", "there are both", "no vector is called sofmax"):
        assert message in out, message
    assert cli.main(["vectors", "check", str(folder), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert not document["ok"] and sum(not report["ok"] for report in document["reports"]) == 8


def test_a_damaged_npy_is_named(folder, capsys):
    answer(folder, "npy")
    (folder / "answers" / "softmax" / "output.0.npy").write_bytes(b"\x93NUMPY damaged")
    assert cli.main(["vectors", "check", str(folder)]) == 1
    assert "output.0.npy: damaged, or not an .npy file" in capsys.readouterr().out


def change(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new, 1))


DAMAGES = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: is missing"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: damaged"),
    "a list": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: schema None, expected 1"),
    "later schema": (lambda folder: change(folder / "manifest.json", b'"schema": 1', b'"schema": 2'), "schema 2, expected 1"),
    "other tolerance": (lambda folder: change(folder / "manifest.json", b'"allowed": ', b'"allowed": 9'), "was changed after"),
    "no answers": (lambda folder: shutil.rmtree(folder / "answers"), "answers: is missing"),
    "no vectors": (lambda folder: (folder / "vectors" / "softmax.npz").unlink(), "softmax.npz: is missing; export"),
    "other vectors": (lambda folder: (folder / "vectors" / "softmax.npz").write_bytes(b"PK"), "its SHA-256 is not the one of"),
    "no folder": (shutil.rmtree, "manifest.json: is missing"),
}


@pytest.mark.parametrize("damage, message", DAMAGES.values(), ids=DAMAGES)
def test_vectors_that_are_not_as_they_were_written_are_one_line_and_status_2(folder, damage, message, capsys):
    (folder / "answers").mkdir()
    damage(folder)
    assert cli.main(["vectors", "check", str(folder)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_an_export_repeats_to_the_byte_and_replaces_the_one_before(folder, exported, capsys):
    (folder / "answers").mkdir()
    (folder / "answers" / "mine.npz").touch()
    (folder / "vectors" / "softmax.npz").unlink()  # as after an interruption
    assert cli.main(["vectors", "export", str(folder), "--only", "softmax,dropout,embedding", "--seed", "2"]) == 0
    for path in exported.rglob("*.*"):
        assert (folder / path.relative_to(exported)).read_bytes() == path.read_bytes()
    assert cli.main(["vectors", "export", str(folder), "--only", "relu", "--profile", "float64"]) == 0
    assert all(path.name.startswith("relu") for path in (folder / "vectors").iterdir())
    assert (folder / "answers" / "mine.npz").exists()


def test_every_pair_can_be_exported_with_longer_axes_into_few_megabytes(tmp_path, capsys):
    assert cli.main(["vectors", "export", str(tmp_path / "all")]) == 0
    manifest = json.loads((tmp_path / "all" / "manifest.json").read_text())
    assert {entry["pair"] for entry in manifest["vectors"]} == set(references())
    assert {entry["pair"] for entry in manifest["vectors"] if entry["name"].endswith("_size_150")} == set(references())
    assert "attention_mask_q_axis_2_size_150_k_axis_2_size_137" in {entry["name"] for entry in manifest["vectors"]}
    assert 4e6 < sum(path.stat().st_size for path in (tmp_path / "all" / "vectors").iterdir()) < 2e7


def test_an_export_is_of_the_sizes_that_are_asked_for(tmp_path, capsys):
    for larger, sizes in ((0, set()), (40, {"40"})):
        assert cli.main(["vectors", "export", str(tmp_path), "--only", "softmax", "--larger", str(larger)]) == 0
        names = [path.stem for path in (tmp_path / "vectors").iterdir()]
        assert set(re.findall(r"size_(\d\d+)$", " ".join(names), re.MULTILINE)) <= sizes | {"37"}
        assert any(name.endswith("size_40") for name in names) == bool(larger)


@pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"manifest.json": "{}"}, {"manifest.json": '{"program": 7}'},
                                     {"manifest.json": '{"program": "transformer-np 1", "vectors": [{"file": "../x"}]}'}])
def test_a_folder_of_someone_else_is_left_alone(tmp_path, content, capsys):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    assert cli.main(["vectors", "export", str(tmp_path)]) == 2
    assert "is not empty, and what is in it is no earlier export" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content


@pytest.mark.parametrize(("options", "message"), [
    (["{tmp}/file"], "file: is a file, expected a directory"),
    (["{tmp}/new", "--only", "sofmax"], "no pair is called 'sofmax'"),
    (["{tmp}/new", "--only", ""], "no pair is called ''"),
    (["{tmp}/new", "--profile", "float8"], "invalid choice"),
])
def test_an_export_that_cannot_be_is_one_line_and_writes_nothing(options, message, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["vectors", "export", *(option.format(tmp=tmp_path) for option in options)]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
