"""What the tutorials share: a grader for exercises, and pictures made of text.

Nothing here is about Transformers. A lesson that imports it stays readable without opening this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHADES = " .:-=+*#%@"       # from 0 to 1


class NotYet(Exception):
    """An answer is not right yet. The message is a hint."""


def require(condition: Any, hint: str) -> None:
    """For graders: raises NotYet with the hint unless the condition holds."""
    if not condition:
        raise NotYet(hint)


@dataclass(frozen=True)
class Grade:
    """The verdict on one answer. `print` it."""

    exercise: str
    ok: bool
    says: str

    def __str__(self) -> str:
        return f"[{'right' if self.ok else 'not yet'}] {self.exercise}: {self.says}"


def grade(grader: Callable[[Any], str], answer: Callable[..., Any]) -> Grade:
    """Run `grader(answer)`. It returns praise, or raises NotYet. An answer that is a stub or that fails is not right either."""
    exercise = answer.__name__
    try:
        return Grade(exercise, True, grader(answer))
    except NotYet as hint:
        return Grade(exercise, False, str(hint))
    except NotImplementedError:
        return Grade(exercise, False, "the function is still empty. Replace the line that raises, and run the cell again.")
    except Exception as error:  # an answer may fail in any way
        return Grade(exercise, False, f"your function raised {type(error).__name__}: {error}")


def heat_map(weights: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """A matrix of numbers between 0 and 1 as text: each number, and a shade that the eye finds faster.

    weights: [T, S].   rows: T names.   columns: S names.
    """
    margin = max(len(name) for name in rows)
    width = max(9, *(len(name) + 1 for name in columns))
    lines = [" " * margin + "".join(f"{name:>{width}}" for name in columns)]
    for name, row in zip(rows, weights, strict=True):
        cells = "".join(f"{shade(value) * 2 + f' {value:.2f}':>{width}}" for value in row)
        lines.append(f"{name:>{margin}}{cells}")
    return "\n".join(lines)


def shade(value: float) -> str:
    """One character for a number between 0 and 1."""
    return SHADES[min(int(value * len(SHADES)), len(SHADES) - 1)]


def table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest cell; names to the left, all else to the right. Floats get three decimals."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for name, *figures in cells:
        to_the_right = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *to_the_right]))
    return "\n".join(lines)
