"""python -m transformer_np.gradcheck [--only NAME] [--json] [--seed N]

Checks every pair and layer of this project, and of baselines_np where it is installed, and prints a row for each argument.
Exit status: 0 all right, 1 something is wrong or has no example, 2 the command line is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from transformer_np.command import Parser, run, whole_number
from transformer_np.gradcheck.report import Report
from transformer_np.gradcheck.suite import check_everything

PROGRAM = "python -m transformer_np.gradcheck"


def main(argv: Sequence[str] | None = None) -> int:
    reports: list[Report] = []
    status = run(PROGRAM, lambda: reports.extend(_check(argv)))
    return status or int(not all(report.ok for report in reports))


def _check(argv: Sequence[str] | None) -> list[Report]:
    parser = Parser(prog=PROGRAM, description="Check every pair and layer of this project against the complex step.")
    parser.add_argument("--only", metavar="NAME", help="one pair or layer: softmax, or MultiHeadAttention")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the inputs and cotangents (default 0)")
    arguments = parser.parse_args(argv)
    reports = check_everything(only=arguments.only, seed=arguments.seed)
    return _print_json(list(reports)) if arguments.json else _print_table(reports)


def _print_json(reports: list[Report]) -> list[Report]:
    document = {"schema": 1, "ok": all(report.ok for report in reports), "reports": [report.to_dict() for report in reports]}
    print(json.dumps(document, indent=2))
    return reports


def _print_table(reports: Iterable[Report]) -> list[Report]:
    """A row as soon as it is known; then what is wrong, in full; then one line that counts."""
    done = []
    print(f"{'verdict':<9}{'relative error':<16}{'pair or layer':<44}argument")
    for report in reports:
        done.append(report)
        for check in report.checks:
            if check.argument is not None or not check.ok:
                figure = "" if check.figure is None else f"{check.figure:.1e}"
                print(f"{'ok' if check.ok else 'FAIL':<9}{figure:<16}{report.name:<43} {check.argument or check.name}")
        sys.stdout.flush()
    failed = [report for report in done if not report.ok]
    for report in failed:
        print(f"\n{report}")
    gradients = [check for report in done for check in report.checks if check.argument is not None]
    worst = max((check.figure for check in gradients if check.figure is not None), default=0.0)
    print(f"\n{len(done)} examples, {len(gradients)} gradients, {len(failed)} examples failed; worst relative error {worst:.1e}")
    return done


if __name__ == "__main__":
    sys.exit(main())
