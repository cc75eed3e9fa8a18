"""The line that makes a report again is Python, and makes it again."""

import contextlib
import functools
import importlib
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from transformer_np.activations import tanh_backward, tanh_forward
from transformer_np.attention import MultiHeadAttention
from transformer_np.gradcheck import check_gradients, check_layer, check_vjp, with_random_weights

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3))


MODULE = '''
def cubes(x):
    return x ** 3


def cubes_vjp(d_y, x):
    return 2 * x * x * d_y      # wrong by a factor


class Kernel:
    @staticmethod
    def step(x, state, count, skip):
        return x * state["h"][0] * count.sum()

    @staticmethod
    def step_vjp(d_y, x, state, count, skip):
        return d_y * state["h"][0] * count.sum(), {"h": (d_y * x,)}
'''


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A module of a user's, on the path."""
    (tmp_path / "kernels_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kernels_of_a_user", raising=False)
    return importlib.import_module("kernels_of_a_user")


def run(line, **names):
    """What the line prints, where nothing is known but these names."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(line, names)
    return printed.getvalue().rstrip("\n")


@pytest.mark.parametrize("keywords", [{}, {"seed": 7}, {"method": "differences", "float32": False}, {"profile": "float32"},
                                      {"profile": "float16", "reference": np.square}, {"method": "taylor", "seed": 2}], ids=str)
def test_what_can_be_imported_is_imported_and_small_inputs_are_written_out(kernels, keywords):
    report = check_vjp(kernels.cubes, kernels.cubes_vjp, [X], **keywords)
    assert not report.ok
    assert "\n" not in report.again and "report.inputs" not in report.again
    assert run(report.again) == str(report)
    assert str(report).endswith(f"  again: {report.again}")


@pytest.mark.parametrize("inputs", [
    [X.astype(np.float32)], [1.5], [np.array([1e-300, 0.1, -0.0, 1 / 3, 1e300])], [X.T[::-1]], [np.float64(0.1)],
    [RNG.standard_normal((5, 5))], [np.array(0.25)], [np.array([1.0, 2.0], np.float16)]], ids=str)
def test_inputs_of_every_sort_come_again_with_the_same_numbers(kernels, inputs):
    report = check_vjp(kernels.cubes, kernels.cubes_vjp, inputs)
    assert run(report.again, report=report) == str(report)


def test_trees_integers_and_none_are_written_out(kernels):
    inputs = [X, {"h": (X + 1,)}, np.array([1, 2]), None]
    report = check_vjp(kernels.Kernel.step, kernels.Kernel.step_vjp, inputs)
    assert "from kernels_of_a_user import Kernel;" in report.again and "check_vjp(Kernel.step, Kernel.step_vjp, [" in report.again
    assert run(report.again) == str(report)


def test_larger_inputs_are_in_the_report_as_they_were(kernels):
    x = np.array(RNG.standard_normal((4, 6)))
    report = check_vjp(kernels.cubes, kernels.cubes_vjp, (x,))
    before = x.copy()
    x[:] = 0
    assert "check_vjp(cubes, cubes_vjp, report.inputs, seed=0)" in report.again
    assert report.again.endswith("  # report.inputs: [0] float64[4, 6]")
    assert np.array_equal(report.inputs[0], before)
    assert run(report.again, report=report) == str(report)
    assert "inputs" not in report.to_dict()


def test_a_lambda_is_a_name_and_its_place_is_told(kernels):
    forward = lambda x: (kernels.cubes(x), x)  # noqa: E731
    report = check_gradients(forward, functools.partial(kernels.cubes_vjp), [X], name="cubes")
    assert "print(check_gradients(forward, backward, [np.array(" in report.again
    assert "  # forward: " in report.again and "test_reproducer.py:" in report.again
    assert report.again.endswith("; backward: partial")
    again = report.again.replace("seed=0", "seed=0, name='cubes'")
    assert run(again, forward=forward, backward=functools.partial(kernels.cubes_vjp)) == str(report)


def test_a_module_that_is_only_loaded_under_a_name_is_not_imported(kernels, monkeypatch):
    monkeypatch.setitem(sys.modules, "loaded_from_a_file", SimpleNamespace(cubes=kernels.cubes))
    monkeypatch.setattr(kernels.cubes, "__module__", "loaded_from_a_file")
    report = check_vjp(kernels.cubes, kernels.cubes_vjp, [X])
    assert "from loaded_from_a_file" not in report.again
    assert "  # cubes: " in report.again


def test_two_functions_of_one_name_stay_apart(kernels, monkeypatch):
    module = SimpleNamespace(cubes=lambda d_y, x: 2 * x * x * d_y)
    module.cubes.__qualname__ = "cubes"
    module.cubes.__module__ = "sphinx_like"
    monkeypatch.setitem(sys.modules, "sphinx_like", module)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=lambda name, path: name)])
    report = check_vjp(kernels.cubes, module.cubes, [X])
    assert "from kernels_of_a_user import cubes; from sphinx_like import cubes as vjp;" in report.again
    assert "check_vjp(cubes, vjp, " in report.again


def test_numpy_s_own_functions_are_imported_from_it(kernels):
    report = check_vjp(np.square, kernels.cubes_vjp, [X])
    assert "from numpy import square;" in report.again
    assert run(report.again) == str(report)


def test_a_layer_is_a_name_and_its_settings_come_again():
    rng = np.random.default_rng(0)
    layer = with_random_weights(MultiHeadAttention.create(4, 2, rng=rng, dropout=0.3), rng)
    report = check_layer(layer, [rng.standard_normal((2, 3, 4)), None], rng_seed=1, float32=False)
    assert "print(check_layer(layer, report.inputs, seed=0, float32=False, rng_seed=1))  # layer: MultiHead" in report.again
    assert run(report.again, report=report, layer=layer) == str(report)


def test_the_line_of_a_right_report_works_too():
    report = check_gradients(tanh_forward, tanh_backward, [X])
    assert report.ok
    assert run(report.again) == str(report)
