"""The tool that tests the tests: a weak test leaves survivors that it reports, a strong one kills them all."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PAIR = """
def slope(x):
    return 3 * x

def line_forward(x, offset=2.0):
    y = slope(x) + offset
    return y, x

def line_backward(d_y, cache):
    d_x = d_y * 3
    return d_x
"""
WEAK = """
from planted.line import line_forward, line_backward

def test_shapes():
    y, cache = line_forward(1.0)
    assert isinstance(y, float)
    assert isinstance(line_backward(1.0, cache), float)
"""
STRONG = WEAK + """
def test_values():
    assert line_forward(5.0) == (17.0, 5.0)
    assert line_forward(5.0, 1.0) == (16.0, 5.0)
    assert line_backward(7.0, 5.0) == 21.0
"""


@pytest.fixture
def modules(monkeypatch):
    """The tool's own modules, which are imported by the names that they have beside it."""
    monkeypatch.syspath_prepend(str(HERE))
    import mutation
    import results

    yield mutation, results
    for name in ("mutation", "results"):
        del sys.modules[name]


def run_tool(root, test, *arguments):
    for path, text in {"planted/__init__.py": "", "planted/line.py": PAIR, "tests/planted/test_line.py": test}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return subprocess.run([sys.executable, HERE, "--root", root, "--packages", "planted", "--jobs", "2", *arguments],
                          capture_output=True, text=True)


def test_a_weak_test_leaves_survivors_that_are_reported_and_a_strong_one_kills_them(tmp_path):
    weak = run_tool(tmp_path, WEAK)
    assert weak.returncode == 1, weak.stderr
    assert "planted.line.line_backward\n- d_x = d_y * 3\n+ d_x = d_y / 3\n" in weak.stdout
    assert "planted.line.line_forward\n- def line_forward(x, offset=2.0):\n+ def line_forward(x, offset=0.0):\n" in weak.stdout
    assert "planted.line.slope\n- return 3 * x\n+ return x\n" in weak.stdout   # a pass calls it, so it is a part of the pass
    strong = run_tool(tmp_path, STRONG, "--survivors")                          # only the survivors are run again
    assert (strong.returncode, strong.stdout.splitlines()[-1].split()) == (0, ["all", "17", "100.0%", "0"]), strong.stderr
    assert "16 of 16 mutants" in strong.stderr
    stopped = run_tool(tmp_path, STRONG)                                        # all is known
    assert (stopped.returncode, stopped.stdout) == (0, strong.stdout)
    assert "mutants" not in stopped.stderr


@pytest.mark.parametrize(("test", "arguments", "message"), [
    (STRONG.replace("17.0", "18.0"), [], "a test fails without any mutant: .*test_values"),
    ("import nothing_of_that_name", [], "No module named 'nothing_of_that_name'"),
    (STRONG, ["--only", "curve"], "--only curve: no pair, layer, or function that they call"),
])
def test_what_cannot_judge_mutants_is_said(tmp_path, test, arguments, message):
    told = run_tool(tmp_path, test, *arguments)
    assert told.returncode == 2
    assert re.search(message, told.stderr)


def test_every_kind_of_mistake_is_made(modules):
    source = """
        def f_backward(d_y, cache, axis=-1):
            if axis < 0 or cache.mask is None:
                raise ValueError("a message")
            d_x = -(d_y @ cache.weight.T) / 2
            d_x += np.where(cache.mask, 0.5, d_y[1:]).sum(axis=axis, keepdims=True)
            return d_x, d_y
    """
    mutation, _ = modules
    function = ast.parse(textwrap.dedent(source)).body[0]
    made = {mutant.new for mutant in mutation.mutants(function, "f")}
    assert made >= {
        "def f_backward(d_y, cache, axis=0):", "def f_backward(d_y, cache, axis=-2):",
        "if axis <= 0 or cache.mask is None:", "if axis < 0 and cache.mask is None:", "if cache.mask is None:",
        "if axis < 0 or cache.mask is not None:", "if not (axis < 0 or cache.mask is None):", "pass",
        "d_x = d_y @ cache.weight.T / 2", "d_x = -(d_y @ cache.weight.T) * 2", "d_x = -(d_y @ cache.weight.T)",
        "d_x = -(d_y * cache.weight.T) / 2", "d_x = -(cache.weight.T @ d_y) / 2", "d_x = -(d_y @ cache.weight) / 2",
        "d_x = -d_y / 2", "d_x = -(d_y @ cache.weight.T) / 1",
        "d_x -= np.where(cache.mask, 0.5, d_y[1:]).sum(axis=axis, keepdims=True)",
        "d_x = np.where(cache.mask, 0.5, d_y[1:]).sum(axis=axis, keepdims=True)",
        "d_x += np.where(cache.mask, 0.5, d_y[1:]).sum(axis=axis, keepdims=False)",
        "d_x += np.where(cache.mask, 0.5, d_y[1:]).sum(keepdims=True)",
        "d_x += np.where(cache.mask, 0.5, d_y[1:]).mean(axis=axis, keepdims=True)",
        "d_x += np.where(cache.mask, 0.5, d_y[1:])",
        "d_x += np.where(cache.mask, d_y[1:], 0.5).sum(axis=axis, keepdims=True)",
        "d_x += np.where(cache.mask, 0.5, d_y[:]).sum(axis=axis, keepdims=True)",
        "d_x += np.where(cache.mask, 1.0, d_y[1:]).sum(axis=axis, keepdims=True)",
        "return (d_y, d_x)", "return (-d_x, d_y)", "return (d_x, -d_y)",
    }
    assert not any("message" in line for line in made)                          # the wording of an error is left alone
    assert all(compile(ast.Module([mutant.tree], []), "f", "exec") for mutant in mutation.mutants(function, "f"))


def test_survivors_must_be_listed_with_a_reason_and_the_list_must_be_of_survivors(modules, tmp_path):
    _, results = modules
    alive, killed = "m.f\n- a\n+ b", "m.f #2\n- a\n+ b"
    path = tmp_path / "survivors.txt"
    path.write_text(f"# It makes no difference.\n{alive}\n")
    listed = results.read_survivors(path)
    assert listed == {alive}
    mutants = {alive: "m", killed: "m"} | {f"m.g #{n}\n- a\n+ b": "m" for n in range(100)}
    outcomes = dict.fromkeys(mutants, "killed by a test") | {alive: "survived"}
    assert results.report(mutants, outcomes, listed)[1]
    for other in (set(), {alive, killed}, {alive, "m.gone\n- a\n+ b"}):
        text, as_it_must_be = results.report(mutants, outcomes, other)
        assert not as_it_must_be
        assert (alive if not other else max(other - {alive})) in text
    assert not results.report({alive: "m", killed: "m"}, outcomes, listed)[1]   # half of them are not enough
    for wrong in (alive, f"# A reason.\n{alive}\n- a", "# A reason.\nm.f\n+ b\n- a"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="expected a line '# reason'"):
            results.read_survivors(path)
