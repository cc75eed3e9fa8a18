"""Progress: lines where nobody watches, a bar where somebody does."""

import re
import sys

import pytest

from transformer_np.training import progress as module
from transformer_np.training.progress import Progress, show_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_line_has_step_loss_tokens_a_second_and_time_left(clock):
    progress = Progress(200, done=100)
    clock.now += 4
    progress.done, progress.tokens = 140, 40_000
    assert progress.standing(2.34567) == "step 140/200   loss 2.3457   10,000 tokens/s   0:00:06 left"


def test_plain_lines_come_every_ten_seconds_and_notes_at_once(clock, capsys):
    with show_progress(100) as progress:
        for _ in range(100):
            clock.now += 0.5
            progress.advance(10, 1.0)
        progress.note("done")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["20/100", "40/100", "60/100", "80/100", "100/100"]
    assert lines[-1] == "done"


def test_a_terminal_gets_a_bar_and_notes_above_it(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with show_progress(10, done=4) as progress:
        progress.advance(10, 1.5)
        progress.note("saved [4]")
        assert type(progress) is not Progress
    output = capsys.readouterr().out
    assert "saved [4]" in output
    assert re.search(r"step 5/10 +loss 1\.5000", output)


def test_a_terminal_without_rich_gets_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with show_progress(10) as progress:
        progress.note("saved")
    assert type(progress) is Progress
    assert capsys.readouterr().out == "saved\n"
