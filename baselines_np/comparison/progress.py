"""Show how far the comparison is: a bar for each run in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from datetime import timedelta
from statistics import fmean
from typing import Any

from baselines_np.comparison.run import Run, RunKey

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Plain lines: one for every run that ends, and every ten seconds one for a run that is under way."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.jobs = 1
        self.shown = time.monotonic()
        self._started: dict[RunKey, float] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)        # of the runs that ended, by experiment
        self._steps: dict[RunKey, int] = {}

    def begin(self, total: int, done: int, jobs: int) -> None:
        self.total, self.done, self.jobs = total, done, jobs

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None: ...

    def note(self, text: str) -> None:
        print(text, flush=True)

    def started(self, key: RunKey, steps: int) -> None:
        self._started[key] = time.monotonic()
        self._steps[key] = steps

    def stepped(self, key: RunKey, step: int, score: float) -> None:
        if time.monotonic() - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = time.monotonic()
            self.note(f"  ... {key}, step {step} of {self._steps[key]}: score {score:.3f}")

    def ended(self, key: RunKey, run: Run) -> None:
        self.done += 1
        seconds = time.monotonic() - self._started.pop(key)
        self._seconds[key.experiment].append(seconds)
        self.shown = time.monotonic()
        self.note(f"{self.done:3d}/{self.total} {key}: score {run['score']:.3f} after {run['steps']} steps, {seconds:.1f} s"
                  f"{' (diverged)' if run['diverged'] else ''}; {self.time_left()}")

    def failed(self, key: RunKey, reason: str, details: str) -> None:
        del self._started[key]
        self.note(f"{key} failed: {reason}\n{details}".rstrip())

    def time_left(self) -> str:
        """As if the runs to come took as long as those that have ended."""
        ended = [seconds for runs in self._seconds.values() for seconds in runs]
        if not ended:
            return "time left not known yet"
        left = (self.total - self.done) * fmean(ended) / self.jobs
        return f"about {timedelta(seconds=round(left))} left"


class BarProgress(Progress):
    """A line for each run under way, with a bar, the step, the score; below them the whole."""

    def __init__(self) -> None:
        super().__init__()
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"),
                          transient=True)
        self._tasks: dict[RunKey, Any] = {}

    def begin(self, total: int, done: int, jobs: int) -> None:
        super().begin(total, done, jobs)
        self._whole = self._bars.add_task("all runs", total=total, completed=done, state="")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def started(self, key: RunKey, steps: int) -> None:
        super().started(key, steps)
        self._tasks[key] = self._bars.add_task(str(key), total=steps, state="starting")

    def stepped(self, key: RunKey, step: int, score: float) -> None:
        self._bars.update(self._tasks[key], completed=step, state=f"step {step}, score {score:.3f}")

    def ended(self, key: RunKey, run: Run) -> None:
        super().ended(key, run)
        self._remove(key)

    def failed(self, key: RunKey, reason: str, details: str) -> None:
        super().failed(key, reason, details)
        self._remove(key)

    def _remove(self, key: RunKey) -> None:
        self._bars.remove_task(self._tasks.pop(key))
        self._bars.update(self._whole, completed=self.done, state=f"{self.done} of {self.total}, {self.time_left()}")


def progress_for_the_terminal() -> Progress:
    return BarProgress() if sys.stdout.isatty() else Progress()
