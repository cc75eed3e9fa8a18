"""Check every pair and layer of the project with its examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from transformer_np.errors import InputError
from transformer_np.gradcheck.discovery import PACKAGES, discover, subject_name
from transformer_np.gradcheck.examples import Example
from transformer_np.gradcheck.report import Check, Report

COMMAND = "python -m transformer_np.gradcheck"


def check_everything(*, only: str | None = None, seed: int = 0, packages: tuple[str, ...] = PACKAGES) -> Iterator[Report]:
    """One report for each example, as soon as it is there, and a failed one for what has no example or cannot be imported.

    only: the name of one pair or layer.   packages: where to look; those that are not installed are left out.
    Raises InputError if nothing has the name `only`.
    """
    found = discover(packages, seed)
    subjects = {subject: examples for subject, examples in found.subjects.items() if only in (None, subject_name(subject))}
    if only is not None and not subjects:
        known = ", ".join(sorted({subject_name(subject) for subject in found.subjects}))
        broken = f" (could not import {', '.join(found.broken)})" if found.broken else ""
        raise InputError(f"--only {only}: no pair or layer has that name{broken}; expected one of {known}")
    return _reports(subjects, found.broken if only is None else {}, seed)


def _reports(subjects: dict[Any, list[Example]], broken: dict[str, str], seed: int) -> Iterator[Report]:
    for module, reason in broken.items():
        yield Report(module, (Check("can be imported", False, reason),))
    for subject, examples in subjects.items():
        if not examples:
            package, _, module = subject.__module__.partition(".")
            says = f"{package}/gradcheck_examples.py has none for {subject_name(subject)} of {module}.py: write one"
            yield Report(subject_name(subject), (Check("has an example", False, says),))
        for example in examples:
            again = f"{COMMAND} --only {subject_name(subject)} --seed {seed}"
            yield replace(example.check(seed), again=again)
