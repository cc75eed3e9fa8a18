"""The command `baselines-np`.

    baselines-np compare [--suite quick|full] [--only NAME,...] [--arms NAME,...] [--seeds N] [--jobs N] [--out DIR] [--text FILE]
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines_np.comparison.errors import RunFailed
from transformer_np.command import Parser, run, whole_number
from transformer_np.errors import InputError

# What is imported for training is imported by the command that trains: `--help` and a mistyped option need not wait for it.


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 1 if runs have failed, else that of `run`."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        return run("baselines-np", lambda: _dispatch(arguments))
    except RunFailed as failure:
        print(f"baselines-np: error: {failure}", file=sys.stderr)
        return 1


def _dispatch(argv: list[str]) -> None:
    arguments = _parser().parse_args(argv)
    _compare(arguments, command=shlex.join(["baselines-np", *argv]))


def _parser() -> Parser:
    parser = Parser(prog="baselines-np", description="The models that the Transformer replaced, and how they compare with it.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    compare = commands.add_parser(
        "compare", help="train Transformers and their rivals side by side, and write a report",
        description="Train Transformers, recurrent and convolutional networks of equal size side by side, and write what came of "
                    "it to DIR/report.html and DIR/results.json. The same command goes on where an earlier one was interrupted.")
    option = compare.add_argument
    option("--suite", choices=("quick", "full"), default="quick", help="quick takes minutes, full hours (default: quick)")
    option("--only", type=_names, metavar="NAME,...", help="these experiments (default: all)")
    option("--arms", type=_names, metavar="NAME,...", help="these models (default: all)")
    option("--seeds", type=whole_number(1), metavar="N", help="runs of each model (default: 3 quick, 5 full)")
    option("--jobs", type=whole_number(1), metavar="N", default=os.cpu_count() or 1,
           help="runs at the same time (default: one for each core)")
    option("--out", type=Path, metavar="DIR", default=Path("comparison"), help="where the results go (default: comparison)")
    option("--text", type=Path, metavar="FILE", help="text to model (default: prose of Python's documentation)")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _compare(arguments: argparse.Namespace, command: str) -> None:
    from baselines_np.comparison.progress import progress_for_the_terminal
    from baselines_np.comparison.report import write_report
    from baselines_np.comparison.runner import check_extra, compare
    from baselines_np.comparison.settings import ARMS, EXPERIMENTS, SUITES, experiments
    from baselines_np.comparison.tables import print_tables

    only = _known("--only", "experiment", arguments.only, EXPERIMENTS)
    arms = _known("--arms", "arm", arguments.arms, ARMS)
    check_extra()
    chosen = experiments(arguments.suite, only, arguments.text)
    if not any(arm in experiment.arms for experiment in chosen for arm in arms):
        raise InputError(f"--arms: none of {', '.join(arms)} takes part in {', '.join(only)}")
    results = compare(arguments.suite, chosen, arms, seeds=arguments.seeds or SUITES[arguments.suite], jobs=arguments.jobs,
                      out=arguments.out, command=command, progress=progress_for_the_terminal())
    report = arguments.out / "report.html"
    write_report(results, report)
    print_tables(results)
    print(report)


def _known(option: str, kind: str, names: list[str] | None, known: Sequence[str]) -> Sequence[str]:
    """The names that were given, or all. Raises InputError for one that is not known."""
    for name in names or ():
        if name not in known:
            raise InputError(f"{option}: unknown {kind} {name!r}, expected one or more of {', '.join(known)}")
    return names or known
