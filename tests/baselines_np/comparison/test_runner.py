"""The runner: the same digits however many run beside each other, and nothing lost when it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from baselines_np.comparison.progress import Progress
from baselines_np.comparison.run import RunKey
from baselines_np.comparison.runner import RunFailed, compare, known_runs, make_writable, number_of_runs
from baselines_np.comparison.workers import Workers
from transformer_np.errors import InputError

ARMS = ("rnn", "bigram")
MEASURED = ("seconds", "peak_bytes", "score_at_equal_seconds")     # of the machine, not of the numbers


class Recorded(Progress):
    """What the user is told, and a hook at every run that ends."""

    def __init__(self, at_end=lambda done: None):
        super().__init__()
        self.said = []
        self.at_end = at_end

    def note(self, text):
        self.said.append(text)

    def ended(self, key, run):
        super().ended(key, run)
        self.at_end(self.done)


def go(experiments, out, *, jobs=1, seeds=2, arms=ARMS, progress=None):
    return compare("quick", experiments, arms, seeds=seeds, jobs=jobs, out=out, command="baselines-np compare",
                   progress=progress or Recorded())


def digits(results):
    """Everything but what is measured of the machine."""
    if isinstance(results, dict):
        return {name: digits(value) for name, value in results.items() if name not in MEASURED and name != "claims"}
    return [digits(value) for value in results] if isinstance(results, list) else results


def test_runs_follow_from_what_is_finished(tiny):
    recall, _, language = tiny
    grid = [RunKey(recall.name, "rnn", rate, 0) for rate in (1e-3, 1e-2)]
    assert known_runs(recall, "rnn", {}, 3) == grid
    run = {"diverged": False, "validation_score": 0.5, "learning_rate": 1e-3}
    finished = {grid[0]: {**run, "validation_loss": 1.0}, grid[1]: {**run, "learning_rate": 1e-2, "validation_loss": 2.0}}
    assert known_runs(recall, "rnn", finished, 3) == [*grid, *(RunKey(recall.name, "rnn", 1e-3, seed) for seed in (1, 2))]
    assert known_runs(language, "bigram", {}, 3) == [RunKey(language.name, "bigram", None, 0)]
    assert [number_of_runs(recall, "rnn", 3), number_of_runs(language, "bigram", 3)] == [4, 1]


def test_jobs_and_interruptions_do_not_change_a_digit(tiny, tmp_path):
    whole = go(tiny, tmp_path / "whole", jobs=1)
    beside = go(tiny, tmp_path / "beside", jobs=2)
    assert digits(beside) == digits(whole)

    def interrupt(done):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"interrupted; 4 of 10 runs are in .*results.json, and the same command goes on"):
        go(tiny, tmp_path / "parts", progress=Recorded(interrupt))
    kept = json.loads((tmp_path / "parts" / "results.json").read_text())
    assert sum(len(arm["grid"]) for experiment in kept["experiments"].values() for arm in experiment["arms"].values()) > 0
    again = Recorded()
    resumed = go(tiny, tmp_path / "parts", jobs=2, progress=again)
    assert digits(resumed) == digits(whole)
    assert "4 of 10 runs are finished; going on with the other 6" in again.said[0]
    assert sum(": score" in line for line in again.said) == 6
    assert digits(json.loads((tmp_path / "parts" / "results.json").read_text())) == digits(json.loads(json.dumps(whole)))

    finished = Recorded()
    assert digits(go(tiny, tmp_path / "parts", progress=finished)) == digits(whole)
    assert finished.said == [f"{tmp_path / 'parts' / 'results.json'}: 10 of 10 runs are finished; going on with the other 0"]
    more = go(tiny[:1], tmp_path / "parts", seeds=3)["experiments"]
    assert [run["seed"] for run in more["associative_recall"]["arms"]["rnn"]["runs"]] == [0, 1, 2]
    assert digits(more["state_tracking"]) == digits(whole["experiments"]["state_tracking"])


def test_a_worker_that_is_killed_costs_its_run_alone(tiny, tmp_path, monkeypatch):
    """The first run is killed in the middle; its arm ends there, the others go on, and the same command tries it again."""
    killed = []
    start = Workers.start

    def start_and_kill(self, experiment, key):
        start(self, experiment, key)
        if not killed:
            killed.append(key)
            os.kill(self._workers[0].process.pid, signal.SIGKILL)

    monkeypatch.setattr(Workers, "start", start_and_kill)
    progress = Recorded()
    with pytest.raises(RunFailed, match=r"run of associative_recall, rnn, learning rate 0.001, seed 0 failed: its process was "
                                        r"ended by SIGKILL; the others are in .*results.json, and the same command tries again"):
        go(tiny[:2], tmp_path, progress=progress)
    assert any("failed: its process was ended by SIGKILL" in line for line in progress.said)
    results = go(tiny[:2], tmp_path)
    assert all(len(experiment["arms"]["rnn"]["runs"]) == 2 for experiment in results["experiments"].values())


def test_an_error_in_a_run_is_told_with_its_traceback(tiny, tmp_path):
    broken = replace(tiny[0], training=replace(tiny[0].training, clip_norm=-1.0))
    progress = Recorded()
    with pytest.raises(RunFailed, match=r"failed: ValueError: clip_by_global_norm: max_norm -1.0.* \(and 1 more\)"):
        go([broken], tmp_path, progress=progress)
    assert any("Traceback" in line for line in progress.said)


SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    from conftest import tiny_experiments
    from baselines_np.comparison.progress import Progress
    from baselines_np.comparison.runner import compare

    if __name__ == "__main__":
        compare("quick", tiny_experiments()[:2], ["rnn", "gru"], seeds=3, jobs=2, out=Path({out!r}),
                command="baselines-np compare", progress=Progress())
""")


def start(tmp_path, out):
    script = tmp_path / f"{out.name}.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent), out=str(out)))
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_after_kill_9_the_same_command_comes_to_the_same_digits(tmp_path):
    killed = start(tmp_path, tmp_path / "out")
    for line in killed.stdout:
        if line.startswith("  3/16"):
            break
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert 3 <= sum(len(arm["grid"]) for arm in kept["experiments"]["associative_recall"]["arms"].values()) + len(
        kept["experiments"]["associative_recall"]["arms"]["rnn"]["runs"])
    again, whole = start(tmp_path, tmp_path / "out"), start(tmp_path, tmp_path / "whole")
    said, _ = again.communicate(timeout=120)
    assert whole.wait(timeout=120) == 0 and again.returncode == 0
    whole.communicate()
    assert "of 16 runs are finished; going on with the other" in said
    both = [digits(json.loads((tmp_path / name / "results.json").read_text())) for name in ("out", "whole")]
    assert both[0] == both[1]


def test_workers_end_with_their_parent(tmp_path):
    parent = start(tmp_path, tmp_path / "out")
    for line in parent.stdout:
        if line.startswith("  1/16"):
            break
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    if not children.exists():
        parent.kill()
        parent.communicate()
        pytest.skip("needs /proc to list the children of a process")
    pids = [int(pid) for pid in children.read_text().split()]
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file: cannot be written \(File exists\)"):
        make_writable(tmp_path / "file")
    with pytest.raises(InputError, match=r"--out .*file/below: cannot be written \(Not a directory\)"):
        make_writable(tmp_path / "file" / "below")
