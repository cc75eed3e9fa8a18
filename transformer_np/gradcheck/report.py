"""What a gradient check found: a report is a list of checks, each with a verdict, a figure and a sentence."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from transformer_np.gradcheck.diagnosis import Diagnosis


@dataclass(frozen=True)
class Element:
    """One element of a gradient that is wrong.

    index: in the argument.   input: what the argument is there.   analytic: as backward gives it.   numeric: as it was measured.
    absolute, relative, ulp: by how much they differ, in itself, in parts of numeric, and in steps from one number of the profile
    to the next.
    """

    index: tuple[int, ...]
    input: float
    analytic: float
    numeric: float
    absolute: float
    relative: float
    ulp: float


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    name: the question, "gradient of weight" or "two calls agree".   argument: whose gradient was measured, None for a property.
    figure: what was measured, None where the answer is yes or no.   bound: the largest figure that is right.
    says: the answer as a sentence; where it is no, it names the place and both numbers.
    method: how the gradient was measured, and why so.   elements: the worst ones.
    skipped: how many elements are not judged by the figure: they are at a kink, or could not be measured.
    diagnosis: what kind of fault it is.
    """

    name: str
    ok: bool
    says: str
    figure: float | None = None
    bound: float | None = None
    argument: str | None = None
    method: str | None = None
    elements: tuple[Element, ...] = ()
    skipped: int = 0
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True)
class Report:
    """The checks of one pair or layer.   name: of what was checked."""

    name: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def worst(self) -> float | None:
        """The largest relative error of a gradient; None if none was measured."""
        return max((check.figure for check in self.checks if check.argument and check.figure is not None), default=None)

    def check(self, name: str) -> Check:
        """The check of that name. Raises KeyError if it was not made."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"{self.name}: no check {name!r}, there are: {', '.join(check.name for check in self.checks)}")

    def __str__(self) -> str:
        failed = sum(not check.ok for check in self.checks)
        lines = [f"{self.name}: ok, {len(self.checks)} checks" if self.ok else
                 f"{self.name}: FAILED, {failed} of {len(self.checks)} checks"]
        for check in self.checks:
            lines.append(f"  {'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.says}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers. A figure that is not finite becomes None: JSON has no infinity."""
        checks = []
        for check in self.checks:
            entry = asdict(check)
            if check.figure is not None and not math.isfinite(check.figure):
                entry["figure"] = None
            checks.append(entry)
        return {"name": self.name, "ok": self.ok, "checks": checks}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def raise_if_failed(self) -> None:
        """Raises GradientError, whose message is the report, unless every check is ok."""
        if not self.ok:
            raise GradientError(str(self))


class GradientError(AssertionError):
    """A gradient is wrong, or a pair broke one of its laws. An AssertionError, so that a test that meets it has failed."""
