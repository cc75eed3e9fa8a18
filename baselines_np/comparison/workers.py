"""Worker processes: each takes one run at a time, and says how far it is.

Processes are spawned, never forked: a fork with threads in a BLAS can hang. Each has one BLAS thread, whatever their number, so
that the digits of a run do not depend on what runs beside it. That has to be in the environment before NumPy is imported.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from baselines_np.comparison.run import Run, RunKey, execute
from baselines_np.comparison.settings import Experiment

ENVIRONMENT = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS",
                     "VECLIB_MAXIMUM_THREADS"), "1"),
    # glibc hands large arrays back to the system when they are freed, and the system clears them for the next: keeping them
    # takes a third off the time of a step
    "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_TOP_PAD_": str(2**26),
}


@dataclass(frozen=True)
class Stepped:
    """A run has got as far as `step`."""

    key: RunKey
    step: int
    score: float


@dataclass(frozen=True)
class Ended:
    key: RunKey
    run: Run


@dataclass(frozen=True)
class Failed:
    """A run has raised an error, or its process has gone. `reason` is one line, `details` a traceback or nothing."""

    key: RunKey
    reason: str
    details: str = ""


class Workers:
    """`count` processes. `start` gives a run to an idle one; `events` waits for what comes next from any of them.

        with Workers(2) as workers:
            workers.start(experiment, key)
            for event in workers.events():
                ...

    A process that is gone is replaced. On leaving the block all are ended.
    """

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._spawn() for _ in range(count)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()

    @property
    def idle(self) -> int:
        return sum(worker.key is None for worker in self._workers)

    def start(self, experiment: Experiment, key: RunKey) -> None:
        worker = next(worker for worker in self._workers if worker.key is None)
        worker.key = key
        try:
            worker.connection.send((experiment, key))
        except OSError:
            pass  # the process is gone, and `events` will find out

    def events(self) -> Iterator[Stepped | Ended | Failed]:
        """What has happened since the last call; waits until something has."""
        busy = {worker.connection: worker for worker in self._workers if worker.key is not None}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            try:
                event = worker.connection.recv()
            except (EOFError, OSError):
                event = self._replace(worker)
            if not isinstance(event, Stepped):
                worker.key = None
            yield event

    def _replace(self, worker: _Worker) -> Failed:
        worker.process.join()
        code = worker.process.exitcode or 0
        reason = f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with status {code}"
        failed = Failed(worker.key, reason)  # type: ignore[arg-type]
        worker.connection.close()
        fresh = self._spawn()
        worker.process, worker.connection = fresh.process, fresh.connection
        return failed

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        with _surroundings():
            process.start()
        theirs.close()
        return _Worker(process, ours)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    key: RunKey | None = None


@contextmanager
def _surroundings() -> Iterator[None]:
    """What a process inherits when it is spawned: one BLAS thread, and Ctrl-C held back, which is for the parent to handle. One
    that comes in this moment reaches the parent at its end."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(connection: Connection) -> None:
    """The life of a worker. When the parent is gone there is nobody to send to, and it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while True:
            experiment, key = connection.recv()
            try:
                run = execute(experiment, key, partial(_tell, connection, key))
            except (EOFError, BrokenPipeError, ConnectionError):
                raise
            except Exception as error:
                connection.send(Failed(key, f"{type(error).__name__}: {error}", traceback.format_exc()))
            else:
                connection.send(Ended(key, run))
    except (EOFError, BrokenPipeError, ConnectionError):
        pass


def _tell(connection: Connection, key: RunKey, step: int, score: float) -> None:
    connection.send(Stepped(key, step, score))
