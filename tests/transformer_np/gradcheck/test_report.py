"""The report says what was found, to a person, to a program and to a test."""

import json
import math

import pytest

from transformer_np.gradcheck import Check, GradientError, Report

RIGHT = Check("gradient of x", True, "relative error 2.0e-16", 2e-16, 1e-11, "x")
WRONG = Check("gradient of gain", False, "worst at element [3]: analytic nan, numeric 1", math.inf, 1e-11, "gain")
PROPERTY = Check("two calls agree", True, "to the last bit")


def test_a_report_is_ok_when_every_check_is():
    assert Report("norm", (RIGHT, PROPERTY)).ok
    assert not Report("norm", (RIGHT, WRONG, PROPERTY)).ok


def test_text():
    assert str(Report("norm", (RIGHT, PROPERTY))).startswith("norm: ok, 2 checks\n")
    assert str(Report("norm", (RIGHT, WRONG, PROPERTY))) == (
        "norm: FAILED, 1 of 3 checks\n"
        "  ok    gradient of x: relative error 2.0e-16\n"
        "  FAIL  gradient of gain: worst at element [3]: analytic nan, numeric 1\n"
        "  ok    two calls agree: to the last bit")


def test_json_has_every_field_and_no_infinity():
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    parsed = json.loads(Report("norm", (RIGHT, WRONG, PROPERTY)).to_json(), parse_constant=refuse)
    assert parsed["name"] == "norm" and parsed["ok"] is False
    assert parsed["checks"][0] == {"name": "gradient of x", "ok": True, "says": "relative error 2.0e-16", "figure": 2e-16,
                                   "bound": 1e-11, "argument": "x", "method": None, "elements": [], "skipped": 0,
                                   "diagnosis": None}
    assert parsed["checks"][1]["figure"] is None and parsed["checks"][2]["figure"] is None


def test_the_worst_figure_is_that_of_a_gradient():
    assert Report("norm", (RIGHT, PROPERTY)).worst == 2e-16
    assert Report("norm", (PROPERTY,)).worst is None


def test_a_failed_report_raises_with_its_text():
    Report("norm", (RIGHT,)).raise_if_failed()
    with pytest.raises(GradientError, match=r"analytic nan") as raised:
        Report("norm", (RIGHT, WRONG)).raise_if_failed()
    assert isinstance(raised.value, AssertionError)


def test_a_check_is_found_by_name():
    assert Report("norm", (RIGHT, PROPERTY)).check("two calls agree") is PROPERTY
    with pytest.raises(KeyError, match="no check 'zero', there are: gradient of x, two calls agree"):
        Report("norm", (RIGHT, PROPERTY)).check("zero")
