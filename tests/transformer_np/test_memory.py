"""Freed memory is kept for the next array."""

import ctypes
import subprocess
import sys

import pytest

from transformer_np.memory import keep_freed_memory

PROGRAM = """
import resource, sys
import numpy as np
from transformer_np.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    raise SystemExit("not the GNU C library")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(3_000_000)                                      # 24 MB
before = faults()
for _ in range(10):
    np.ones(3_000_000) + np.ones(3_000_000)
print(faults() - before)
"""


def test_arrays_of_a_size_seen_before_need_no_new_pages():
    counts = []
    for choice in ("leave", "keep"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, choice], capture_output=True, text=True)
        if "not the GNU" in done.stderr:
            pytest.skip(done.stderr)
        counts.append(int(done.stdout))
    assert counts[1] < counts[0] / 3


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
