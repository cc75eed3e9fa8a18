"""The commands of `transformer-np` for those who write kernels.

    transformer-np check FILE.py:forward,backward --against attention
    transformer-np vectors export DIR
    transformer-np vectors check DIR

Each returns whether all is right; what is wrong with the command line itself is an InputError.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from transformer_np.command import whole_number
from transformer_np.errors import InputError
from transformer_np.gradcheck.against import check_against
from transformer_np.gradcheck.calling.rounding import PROFILES
from transformer_np.gradcheck.check import check_gradients, check_vjp
from transformer_np.gradcheck.kernels.larger import LARGER
from transformer_np.gradcheck.report import Report
from transformer_np.gradcheck.vectors import check_vectors, export_vectors

CHECK = """Check a forward and a backward pass that are written in a Python file. With --against, hold them against the pair of
this project of that name: values, every gradient, and the edges. With --inputs, check the gradients alone, on inputs of your own:
NAME is a function of the file that takes a numpy.random.Generator and returns a list of inputs. Exit status: 0 right, 1 wrong, 2
the command line or the file cannot be used."""

EXPORT = """Write the golden vectors of our pairs: inputs, cotangents, outputs and gradients as .npz, with a manifest. An earlier
export in DIR is replaced; a DIR that holds anything else is refused."""

CHECK_VECTORS = """Check the answers that another program put into DIR/answers: one NAME.npz, or a folder NAME of .npy files, for
each file of vectors. Exit status: 0 all right, 1 an answer is wrong, missing or damaged, 2 the vectors themselves are."""


def add_commands(commands: Any) -> None:
    """commands: what `add_subparsers` of the parser of `transformer-np` returned."""
    sub = commands.add_parser("check", help="check a kernel of yours", description=CHECK)
    sub.add_argument("kernel", metavar="FILE.py:FORWARD,BACKWARD",
                     help="forward(*inputs) -> (output, cache), backward(d_output, cache) -> gradients")
    how = sub.add_mutually_exclusive_group(required=True)
    how.add_argument("--against", metavar="NAME", help="a pair of this project, such as attention")
    how.add_argument("--inputs", metavar="NAME", help="a function of the file: NAME(rng) -> inputs")
    sub.add_argument("--vjp", action="store_true",
                     help="the two are function(*inputs) -> output and vjp(d_output, *inputs) -> gradients, without a cache")
    _add_profile(sub, "float64")
    _add_seed(sub)
    _add_larger(sub)
    sub.add_argument("--json", action="store_true", help="print the report as JSON")
    sub.set_defaults(run=check_command)

    vectors = commands.add_parser("vectors", help="golden numbers for programs that cannot import Python",
                                  description="Golden numbers for programs that cannot import Python.")
    actions = vectors.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = actions.add_parser("export", help="write them", description=EXPORT)
    sub.add_argument("directory", metavar="DIR", help="a new or empty directory, or an earlier export")
    sub.add_argument("--only", metavar="NAME,...", help="these pairs only (default: all)")
    _add_profile(sub, "float32")
    _add_seed(sub)
    _add_larger(sub)
    sub.set_defaults(run=export_command)
    sub = actions.add_parser("check", help="check another program's answers", description=CHECK_VECTORS)
    sub.add_argument("directory", metavar="DIR", help="of the export")
    sub.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    sub.set_defaults(run=check_vectors_command)


def _add_profile(sub: argparse.ArgumentParser, default: str) -> None:
    sub.add_argument("--profile", choices=PROFILES, default=default, metavar="PRECISION",
                     help=f"precision of the numbers that the kernel gets: {', '.join(PROFILES)} (default {default})")


def _add_seed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of inputs and cotangents (default 0)")


def _add_larger(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--larger", type=whole_number(0), default=LARGER, metavar="N",
                     help=f"length of the longer axes, which cross the tiles of a kernel; 0 for none (default {LARGER})")


def check_command(options: argparse.Namespace) -> bool:
    file, separator, names = options.kernel.rpartition(":")
    if not separator or names.count(",") != 1:
        raise InputError(f"{options.kernel}: expected FILE.py:FORWARD,BACKWARD")
    module = load_file(file)
    forward, backward = (_function(module, file, name.strip()) for name in names.split(","))
    if options.inputs and options.larger != LARGER:
        raise InputError("--larger goes with --against: with --inputs, sizes are those of your inputs")
    report = _against(options, forward, backward) if options.against else \
        _on_inputs(options, forward, backward, _function(module, file, options.inputs))
    report = replace(report, again=_command_line(options))
    print(report.to_json() if options.json else report)
    return report.ok


def _command_line(options: argparse.Namespace) -> str:
    """The command that makes the report again."""
    words = ["transformer-np", "check", options.kernel]
    words += ["--against", options.against] if options.against else ["--inputs", options.inputs]
    words += ["--vjp"] if options.vjp else []
    words += ["--profile", options.profile, "--seed", str(options.seed)]
    words += ["--larger", str(options.larger)] if options.against and options.larger != LARGER else []
    return shlex.join(words)


def _against(options: argparse.Namespace, forward: Callable[..., Any], backward: Callable[..., Any]) -> Report:
    given: dict[str, Any] = {"vjp": backward} if options.vjp else {"backward": backward}
    try:
        return check_against(options.against, forward, **given, profile=options.profile, seed=options.seed, larger=options.larger)
    except ValueError as error:
        raise InputError(str(error)) from None


def _on_inputs(options: argparse.Namespace, forward: Callable[..., Any], backward: Callable[..., Any],
               draw: Callable[..., Any]) -> Report:
    check = check_vjp if options.vjp else check_gradients
    try:
        inputs = draw(np.random.default_rng(options.seed))
    except (Exception, SystemExit) as error:  # code of the user
        raise InputError(f"--inputs {options.inputs}: raised {type(error).__name__}: {error}") from None
    try:
        return check(forward, backward, inputs, seed=options.seed, profile=options.profile)
    except ValueError as error:
        raise InputError(f"--inputs {options.inputs}: {error}") from None
    except Exception as error:  # an input is an object of the user's, and may do anything when it is looked at
        raise InputError(f"--inputs {options.inputs}: its inputs cannot be used: {type(error).__name__}: {error}") from None


def load_file(file: str) -> ModuleType:
    """The module of a Python file; what lies beside it can be imported by it. Raises InputError."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file}: no such file")
    name = f"checked_{path.stem}"        # not to be taken for a module that is installed
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: is no Python file, expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module           # a dataclass looks for its module there
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # code of the user
        raise InputError(f"{file}: cannot be imported: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def _function(module: ModuleType, file: str, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if found is None:
        raise InputError(f"{file}: has no {name!r}")
    if not callable(found):
        raise InputError(f"{file}: {name} is a {type(found).__name__}, expected a function")
    return found


def export_command(options: argparse.Namespace) -> bool:
    only = [name.strip() for name in options.only.split(",")] if options.only is not None else []
    files = export_vectors(options.directory, only=only, profile=options.profile, seed=options.seed,
                           larger=options.larger)
    print(f"{len(files)} files of vectors in {options.directory}, in {options.profile}; put the answers into "
          f"{options.directory}/answers, then: transformer-np vectors check {options.directory}")
    return True


def check_vectors_command(options: argparse.Namespace) -> bool:
    reports = list(check_vectors(options.directory))
    ok = all(report.ok for report in reports)
    if options.json:
        print(json.dumps({"schema": 1, "ok": ok, "reports": [report.to_dict() for report in reports]}, indent=2))
        return ok
    print(f"{'verdict':<9}{'largest error':<15}file")
    for report in reports:
        figures = [check.figure for check in report.checks if check.figure is not None]
        print(f"{'ok' if report.ok else 'FAIL':<9}{f'{max(figures):.2g} units' if figures else '':<15}{report.name}")
    failed = [report for report in reports if not report.ok]
    for report in failed:
        print(f"\n{report}")
    print(f"\n{len(reports)} files, {len(failed)} wrong")
    return ok
