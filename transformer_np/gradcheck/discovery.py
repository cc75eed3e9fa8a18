"""Find everything that must be checked, so that nothing escapes by not being listed.

A subject is a public function `name_forward`, or a public class of layers that has a forward, wherever in a package it is
defined. Its examples come from the public functions of the package's module `gradcheck_examples`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.inputs import require_seed
from transformer_np.gradcheck.examples import Example
from transformer_np.layer import Layer

# The second is looked for by name: this package must not import it, and works without it.
PACKAGES = ("transformer_np", "baselines_np")


@dataclass
class Found:
    """subjects: each with its examples, of which there may be none.   broken: what could not be looked at, and why."""

    subjects: dict[Any, list[Example]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def discover(packages: tuple[str, ...], seed: int) -> Found:
    """Everything in the packages, of those that are installed.   seed: of the generator that each function of examples gets.

    Raises ValueError for a seed that is no whole number of at least 0.
    """
    seed = require_seed(seed)  # below, any error counts as one of the module that is looked at
    found = Found()
    for package in packages:
        if importlib.util.find_spec(package) is not None:
            _look_through(package, seed, found)
    return found


def subject_name(subject: Any) -> str:
    """`softmax` for softmax_forward, `MultiHeadAttention` for the class."""
    return subject.__name__.removesuffix("_forward")


def _look_through(package: str, seed: int, found: Found) -> None:
    names = [package]
    names += [module.name for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.",
                                                              onerror=lambda name: None)]
    examples: list[Example] = []
    for name in names:
        if name.endswith(".__main__"):  # to import it would be to run it
            continue
        try:
            module = importlib.import_module(name)
            if name == f"{package}.gradcheck_examples":
                examples = _examples(module, seed)
            else:
                found.subjects |= {subject: [] for subject in _subjects(module)}
        except Exception as error:  # whatever is wrong with one module, the others are still checked
            found.broken[name] = f"{type(error).__name__}: {error}"
    for example in examples:
        found.subjects.setdefault(example.subject, []).append(example)


def _subjects(module: ModuleType) -> list[Any]:
    return [value for value in _defined_in(module) if _is_forward(value) or _is_layer(value)]


def _is_forward(value: Any) -> bool:
    return inspect.isfunction(value) and value.__name__.endswith("_forward")


def _is_layer(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Layer) and hasattr(value, "forward")


def _examples(module: ModuleType, seed: int) -> list[Example]:
    functions = [value for value in _defined_in(module) if inspect.isfunction(value)]
    return [example for function in functions for example in function(np.random.default_rng(seed))]


def _defined_in(module: ModuleType) -> list[Any]:
    """The public functions and classes that are defined in a module, not those imported into it."""
    return [value for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__]
