"""The fixture `gradcheck` for pytest. A test fails with the report as its message, and nothing else; or, where what it gives
cannot be checked, with the sentence that says so.

    def test_my_softmax(gradcheck):
        gradcheck(forward, backward, [x])                                       check_gradients
        gradcheck.vjp(function, vjp, [x])                                       check_vjp
        gradcheck.layer(layer, [x])                                             check_layer
        gradcheck.against("softmax", forward, backward, profile="float32")      check_against

Each takes what the function beside it takes, and returns the report if it is ok. pytest finds the plugin where this package is
installed; without a test that asks for the fixture, no checker is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Gradcheck:
    """What the fixture gives to a test."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        from transformer_np.gradcheck import check_gradients
        return _passed(check_gradients, *arguments, **keywords)

    def vjp(self, *arguments: Any, **keywords: Any) -> Any:
        from transformer_np.gradcheck import check_vjp
        return _passed(check_vjp, *arguments, **keywords)

    def layer(self, *arguments: Any, **keywords: Any) -> Any:
        from transformer_np.gradcheck import check_layer
        return _passed(check_layer, *arguments, **keywords)

    def against(self, *arguments: Any, **keywords: Any) -> Any:
        from transformer_np.gradcheck import check_against
        return _passed(check_against, *arguments, **keywords)


def pytest_configure(config: Any) -> None:
    import pytest  # not above: every module of this package can be imported where pytest is not installed

    class Fixtures:
        @pytest.fixture
        def gradcheck(self) -> Gradcheck:
            """Check a gradient: the test fails with the report. See transformer_np.gradcheck.pytest_plugin."""
            return Gradcheck()

    config.pluginmanager.register(Fixtures(), "transformer_np.gradcheck.fixtures")


def _passed(check: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    import pytest

    try:
        report = check(*arguments, **keywords)
    except ValueError as error:  # of the call: what the checked functions raise is in the report
        pytest.fail(f"{check.__name__}: ValueError: {error}", pytrace=False)
    if not report.ok:
        pytest.fail(str(report), pytrace=False)
    return report
