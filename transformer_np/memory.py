"""Keep freed memory for the next array, which is of the same size more often than not."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
LARGE, LARGEST_BEFORE_2_35 = 1 << 30, 32 << 20


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed, where it is the GNU C library. Returns whether it agreed.

    A training step frees all of its intermediate arrays and the next allocates them again. Handed back to the operating
    system in between, each page of them is cleared and mapped anew: a quarter of the time of a small GPT's step. This holds
    for the whole process, so it is for a program to decide: the commands call it, importing the library does not.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool((mallopt(M_MMAP_THRESHOLD, LARGE) or mallopt(M_MMAP_THRESHOLD, LARGEST_BEFORE_2_35))
                and mallopt(M_TRIM_THRESHOLD, LARGE))
