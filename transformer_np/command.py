"""What the console scripts share: an error is one line on stderr and an exit status, never a traceback.

    def main(argv=None) -> int:
        return run("transformer-np", lambda: dispatch(build_parser().parse_args(argv)))

Exit status: 0 done; 2 what the user gave cannot be used; 130 interrupted with Ctrl-C and 141 nobody reads on, as shells
report them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from transformer_np.errors import InputError
from transformer_np.memory import keep_freed_memory


def run(program: str, command: Callable[[], None]) -> int:
    """Run `command` and return the exit status of the program. Parse the arguments inside `command`, so that a bad one is
    reported here too. `--help` and `--version` raise SystemExit(0), which passes through."""
    keep_freed_memory()
    try:
        command()
        sys.stdout.flush()
    except InputError as error:
        one_line = " ".join(str(error).split())
        print(f"{program}: error: {one_line}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # the reader has left (`... | head`): what Python still holds for stdout goes nowhere, instead of failing at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"{program}: error: not enough memory: {error}; choose smaller sizes", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        print(f"{program}: {interruption}" if str(interruption) else f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0


class Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError where argparse prints its usage and exits. Its subparsers do the same."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def whole_number(minimum: int) -> Callable[[str], int]:
    """For `add_argument(type=...)`: an integer that is `minimum` or more."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"got {value}, expected {minimum} or more")
        return value

    return parse


def real_number(accept: Callable[[float], bool], expected: str) -> Callable[[str], float]:
    """For `add_argument(type=...)`: a finite number for which `accept` is true; `expected` says which those are."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}") from None
        if not math.isfinite(value) or not accept(value):
            raise argparse.ArgumentTypeError(f"got {text}, expected {expected}")
        return value

    return parse
