"""The results in the terminal: for each experiment the arms, what guessing is worth, and the claims."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from baselines_np.comparison.wording import MISSING, arm_name, bytes_text, count_text, mean_text, score_text, seconds_text

COLUMNS = ("", "score", "solved", "steps\nto it", "at equal\nFLOPs", "at equal\ntime", "parameters", "FLOPs\na step", "time",
           "memory")
WIDE = 132           # characters, for all columns; a narrower terminal gets the first four


def print_tables(results: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    shown = len(COLUMNS) if console.width >= WIDE else 4
    for experiment in results["experiments"].values():
        better = "higher" if experiment["higher_is_better"] else "lower"
        console.print(f"{experiment['title']}. {experiment['question']}", style="bold")
        caption = f"{experiment['metric']}, {better} is better; solved: {experiment['threshold_is']}"
        table = Table(box=SIMPLE_HEAD, caption=caption, caption_justify="left")
        for index, column in enumerate(COLUMNS[:shown]):
            table.add_column(column, justify="right" if index else "left", no_wrap=not index)
        for row in rows(experiment):
            table.add_row(*row[:shown])
        console.print(table)
        for claim in experiment["claims"]:
            console.print(f"  {claim['verdict'].upper()}: {claim['claim']} {claim['evidence']}")
        console.print()


def rows(experiment: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The cells under COLUMNS: the arms in the order of their score, then the trivial baselines."""
    metric = experiment["metric"]
    sign = -1 if experiment["higher_is_better"] else 1
    finished = {arm: made for arm, made in experiment["arms"].items() if made["runs"]}
    for arm, made in sorted(finished.items(), key=lambda item: sign * item[1]["mean"]):
        runs = made["runs"]
        solved = f"{round(made['solved'] * len(runs))} of {len(runs)}"
        mean_seconds = sum(run["seconds"] for run in runs) / len(runs)
        yield (arm_name(arm), mean_text(made["mean"], made["sd"], metric), solved, _steps_to_threshold(runs),
               score_text(made.get("score_at_equal_flops"), metric), score_text(made.get("score_at_equal_seconds"), metric),
               count_text(made["parameters"]), count_text(made["flops_per_step"]), seconds_text(mean_seconds),
               bytes_text(max(run["peak_bytes"] for run in runs)))
    for name, baseline in experiment["baselines"].items():
        yield (name, score_text(baseline["score"], metric), *[MISSING] * (len(COLUMNS) - 2))


def _steps_to_threshold(runs: list[dict[str, Any]]) -> str:
    """The range over the seeds that got there; a seed that did not is censored at the length of its run."""
    steps = sorted(run["steps_to_threshold"] for run in runs if run["steps_to_threshold"] is not None)
    if len(steps) < len(runs):
        return f"{steps[0]} to > {runs[0]['steps']}" if steps else f"> {runs[0]['steps']}"
    return str(steps[0]) if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]}"
