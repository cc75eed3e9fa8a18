"""What a gradient check found: a report is a list of checks, each with a verdict, a figure and a sentence."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from transformer_np.gradcheck.diagnosis.case import Diagnosis


@dataclass(frozen=True)
class Element:
    """One element of a gradient that is wrong.

    index: in the argument.   input: what the argument is there, None for an element of an output.
    analytic: as backward gives it.   numeric: as it was measured, or as the reference gives it.
    absolute, relative, ulp: by how much they differ, in itself, in parts of numeric, and in steps from one number of the profile
    to the next.
    """

    index: tuple[int, ...]
    input: float | None
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
    skipped: how many elements are not judged by the figure: they are at a kink, could not be
    measured, or are off by what forward does not show.
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
    """The checks of one pair or layer.

    name: of what was checked.   again: how to get this report again: a line of Python, which runs as it stands if what was
    checked can be imported.   inputs: copies of those that it was checked with, for that line, or for np.savez(path, *inputs).
    """

    name: str
    checks: tuple[Check, ...]
    again: str = ""
    inputs: tuple[Any, ...] = field(default=(), compare=False, repr=False)

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
            # a property's own sentence is its diagnosis
            if check.diagnosis is not None and check.diagnosis.says != check.says:
                lines.append(f"        diagnosis: {check.diagnosis.kind}: {check.diagnosis.says}")
            elif check.diagnosis is not None:
                lines.append(f"        diagnosis: {check.diagnosis.kind}")
            lines += [f"        {line}" for line in _table(check)]
        if not self.ok and self.again:
            lines.append(f"  again: {self.again}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers; the inputs are left out. A number that is not finite becomes None: JSON
        has no infinity.

            name, ok, again
            checks: of each  name, ok, says, figure, bound, argument, method, skipped
                             elements: of each  index, input, analytic, numeric, absolute, relative, ulp
                             diagnosis: None, or  kind, says

        Names of this schema are added, but not changed or taken away. figure, bound, argument and method are None for a check
        that has none, see `Check`.
        """
        checks = [_without_infinities(asdict(check)) for check in self.checks]
        return {"name": self.name, "ok": self.ok, "checks": checks, "again": self.again}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def raise_if_failed(self) -> None:
        """Raises GradientError, whose message is the report, unless every check is ok."""
        if not self.ok:
            raise GradientError(str(self))


def _table(check: Check) -> list[str]:
    """The worst elements, a line each."""
    if not check.elements:
        return []
    rows = [["element", "input", "analytic", "numeric", "absolute", "relative", "ULP"]]
    for element in check.elements:
        place = f"{check.argument or ''}{list(element.index)}"
        there = "" if element.input is None else f"{element.input:.9g}"
        rows.append([place, there, f"{element.analytic:.9g}", f"{element.numeric:.9g}",
                     f"{element.absolute:.1e}", f"{element.relative:.1e}", f"{element.ulp:.1e}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _without_infinities(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_infinities(item) for key, item in node.items()}
    if isinstance(node, list | tuple):
        return [_without_infinities(item) for item in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


class GradientError(AssertionError):
    """A gradient is wrong, or a pair broke one of its laws. An AssertionError, so that a test that meets it has failed."""
