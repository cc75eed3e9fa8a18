"""Show how far a training run is: a bar in a terminal (with rich installed), plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Plain lines: a note as soon as it comes, and where the run stands at most every ten seconds."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total = total
        self.start = self.done = done
        self.tokens = 0
        self.started = self.shown = time.monotonic()

    def advance(self, tokens: int, loss: float) -> None:
        """One step more, over this many tokens."""
        self.done += 1
        self.tokens += tokens
        self.show(loss)

    def standing(self, loss: float) -> str:
        """`step 250/2000   loss 2.4512   38,210 tokens/s   0:00:41 left`"""
        seconds = max(time.monotonic() - self.started, 1e-9)
        left = round(seconds / (self.done - self.start) * (self.total - self.done))
        return (f"step {self.done}/{self.total}   loss {loss:.4f}   {self.tokens / seconds:,.0f} tokens/s   "
                f"{timedelta(seconds=left)} left")

    def show(self, loss: float) -> None:
        if time.monotonic() - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = time.monotonic()
            self.note(self.standing(loss))

    def note(self, text: str) -> None:
        print(text, flush=True)


@contextmanager
def show_progress(total: int, done: int = 0) -> Iterator[Progress]:
    """Progress of a run of `total` steps, `done` of which were taken before."""
    try:
        import rich.progress as rich_progress
    except ImportError:
        rich_progress = None  # type: ignore[assignment]
    if rich_progress is None or not sys.stdout.isatty():
        yield Progress(total, done)
        return

    bar = rich_progress.Progress(rich_progress.BarColumn(bar_width=24), rich_progress.TextColumn("{task.description}"))
    task = bar.add_task("", total=total, completed=done)

    class Bar(Progress):
        def show(self, loss: float) -> None:
            bar.update(task, completed=self.done, description=self.standing(loss))

        def note(self, text: str) -> None:
            bar.console.print(text, markup=False, highlight=False)

    with bar:
        yield Bar(total, done)
