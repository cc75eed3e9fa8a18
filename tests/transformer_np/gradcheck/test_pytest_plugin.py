"""The fixture `gradcheck`, in a pytest inside of pytest."""

import subprocess
import sys

import pytest

from transformer_np import gradcheck

pytest_plugins = ["pytester"]

PLUGIN = "transformer_np.gradcheck.pytest_plugin"

PAIRS = """
    import numpy as np
    from transformer_np import softmax_backward, softmax_forward
    from transformer_np.gradcheck import with_random_weights
    from transformer_np.linear import Linear

    x = np.random.default_rng(0).standard_normal((2, 3))
    layer = with_random_weights(Linear.create(3, 4, rng=np.random.default_rng(1)), np.random.default_rng(2))

    def wrong(d_y, cache):
        return d_y * cache.y

    def square(x):
        return x * x

    def square_vjp(d_y, x):
        return 2 * x * d_y
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run tests whose source comes after PAIRS, with this plugin alone: an installed one is the same."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(tests):
        pytester.makepyfile(f"{PAIRS}\n{tests}")
        # it is imported already, by this pytest
        return pytester.runpytest_inprocess("-p", PLUGIN, "-W", "error", "-W", "ignore::pytest.PytestAssertRewriteWarning")

    return run


def test_right_code_passes_by_every_way_in(run):
    result = run("""
    def test_pair(gradcheck):
        report = gradcheck(softmax_forward, softmax_backward, [x], seed=3)
        assert report.ok and report.worst < 1e-12

    def test_plain_functions(gradcheck):
        gradcheck.vjp(square, square_vjp, [x])

    def test_layer(gradcheck):
        gradcheck.layer(layer, [x])

    def test_reference(gradcheck):
        gradcheck.against("softmax", softmax_forward, softmax_backward, profile="float32")
    """)
    result.assert_outcomes(passed=4, warnings=0)


def test_wrong_code_fails_with_the_report_and_no_traceback(run):
    result = run("""
    def test_pair(gradcheck):
        gradcheck(softmax_forward, wrong, [x])

    def test_reference(gradcheck):
        gradcheck.against("softmax", softmax_forward, wrong)
    """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["softmax_forward: FAILED, * of * checks", "  FAIL  gradient of x: *",
                                 "softmax_forward against softmax in float64: FAILED, *",
                                 "  FAIL  softmax: gradient of x: off by *"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_a_bad_call_is_an_error_and_not_a_verdict(run):
    result = run("""
    def test_reference(gradcheck):
        gradcheck.against("sofmax", softmax_forward, softmax_backward)

    def test_pair(gradcheck):
        gradcheck(softmax_forward, softmax_backward, x)
    """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([
        "check_against: ValueError: no pair is called 'sofmax'*",
        "check_gradients: ValueError: inputs is float64[[]2, 3], expected a list or tuple of the arguments of forward"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")
    result.stdout.no_fnmatch_line("*FAILED, * of * checks*")


def test_the_fixture_is_listed_with_what_it_does(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest_inprocess("-p", PLUGIN, "--fixtures")
    result.stdout.fnmatch_lines(["gradcheck *", "*Check a gradient: the test fails with the report*"])


def test_the_plugin_alone_imports_no_checker_no_pytest_and_no_hypothesis():
    program = f"import sys, {PLUGIN}; print(*sorted(name for name in sys.modules if 'gradcheck' in name or name in " \
              "('pytest', 'hypothesis', 'scipy', 'torch')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["transformer_np.gradcheck", PLUGIN]


def test_every_name_that_is_offered_is_there():
    assert gradcheck.__all__ == sorted(name for names in gradcheck._HOMES.values() for name in names)
    for name in gradcheck.__all__:
        assert getattr(gradcheck, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'check_gradient'"):
        gradcheck.check_gradient  # noqa: B018
