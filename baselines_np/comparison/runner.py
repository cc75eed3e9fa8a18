"""The comparison: which runs there are, in which order they are started, and what is kept when one ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from baselines_np.comparison.errors import RunFailed
from baselines_np.comparison.progress import Progress
from baselines_np.comparison.results import Finished, Results, assemble, chosen_rate, read_results, write_results
from baselines_np.comparison.run import RunKey
from baselines_np.comparison.settings import N_GRAM_ARMS, Experiment
from baselines_np.comparison.workers import Ended, Failed, Stepped, Workers
from transformer_np.errors import InputError


def compare(suite: str, experiments: Sequence[Experiment], arms: Sequence[str], *, seeds: int, jobs: int, out: Path,
            command: str, progress: Progress) -> Results:
    """Run what is missing in `out`/results.json, and write that file after every finished run.

    Raises InputError if `out` cannot be written or holds results of something else, RunFailed after the end if runs have failed,
    and KeyboardInterrupt with a message for the user.
    """
    path = out / "results.json"
    make_writable(out)
    finished, stored = read_results(path, suite, experiments)
    others = {name: made for name, made in stored.get("experiments", {}).items()
              if name not in {experiment.name for experiment in experiments}}
    spent, started = stored.get("seconds", 0.0), time.monotonic()
    trivial = {experiment.name: experiment.task.baselines() for experiment in experiments}

    def write() -> Results:
        results = assemble(suite, experiments, trivial, finished, seeds=seeds, command=command, others=others,
                           seconds=spent + time.monotonic() - started)
        write_results(results, path)
        return results

    chosen = [(experiment, arm) for experiment in experiments for arm in experiment.arms if arm in arms]
    total = sum(number_of_runs(experiment, arm, seeds) for experiment, arm in chosen)
    missing = [key for experiment, arm in chosen for key in known_runs(experiment, arm, finished, seeds) if key not in finished]
    done = sum(key in finished for experiment, arm in chosen for key in known_runs(experiment, arm, finished, seeds))
    if finished:
        progress.note(f"{path}: {done} of {total} runs are finished; going on with the other {total - done}")
    results = write()
    if not missing:
        return results
    progress.begin(total, done, jobs)
    failed: list[Failed] = []
    by_name = {experiment.name: experiment for experiment in experiments}
    try:
        with Workers(min(jobs, total - done)) as workers, progress:
            running: set[RunKey] = set()
            while True:
                given_up = {failure.key for failure in failed}
                ready = [key for experiment, arm in chosen for key in known_runs(experiment, arm, finished, seeds)
                         if key not in finished and key not in running and key not in given_up]
                for key in ready[:workers.idle]:
                    workers.start(by_name[key.experiment], key)
                    running.add(key)
                    progress.started(key, by_name[key.experiment].training.steps if key.arm not in N_GRAM_ARMS else 0)
                if not running:
                    break
                for event in workers.events():
                    if isinstance(event, Stepped):
                        progress.stepped(event.key, event.step, event.score)
                        continue
                    running.discard(event.key)
                    if isinstance(event, Ended):
                        finished[event.key] = event.run
                        results = write()
                        progress.ended(event.key, event.run)
                    else:
                        failed.append(event)
                        progress.failed(event.key, event.reason, event.details)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {progress.done} of {total} runs are in {path}, "
                                "and the same command goes on with the others") from None
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RunFailed(f"run of {first.key} failed: {first.reason}{more}; the others are in {path}, "
                        "and the same command tries again")
    return results


def number_of_runs(experiment: Experiment, arm: str, seeds: int) -> int:
    """The grid is run with seed 0, and the best of it is the first of the seeds."""
    return 1 if arm in N_GRAM_ARMS else len(experiment.training.learning_rates) + seeds - 1


def known_runs(experiment: Experiment, arm: str, finished: Finished, seeds: int) -> list[RunKey]:
    """The runs of an arm that can be named by now: the grid, and when it is finished the other seeds at the rate it chose."""
    if arm in N_GRAM_ARMS:
        return [RunKey(experiment.name, arm, None, 0)]
    grid = [RunKey(experiment.name, arm, rate, 0) for rate in experiment.training.learning_rates]
    rate = chosen_rate(experiment, arm, finished)
    return grid if rate is None else [*grid, *(RunKey(experiment.name, arm, rate, seed) for seed in range(1, seeds))]


def make_writable(folder: Path) -> None:
    """Create the folder if it is not there. Raises InputError if that, or a file in it, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({os.strerror(error.errno or 0)})") from None


def check_extra() -> None:
    """Raises InputError, before anything is trained, if the report could not be made afterwards."""
    missing = [name for name in ("jinja2", "matplotlib", "rich") if find_spec(name) is None]
    if missing:
        raise InputError(f"compare needs {', '.join(missing)}: pip install transformer-np[compare]")
