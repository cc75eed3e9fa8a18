"""The plumbing of the console scripts: one line, one exit status, no traceback."""

import argparse
import subprocess
import sys

import pytest

from transformer_np.command import Parser, real_number, run, whole_number
from transformer_np.errors import InputError


def raiser(error):
    def command():
        raise error
    return command


@pytest.mark.parametrize(("error", "status", "line"), [
    (InputError("text: got\nnothing, expected more"), 2, "prog: error: text: got nothing, expected more\n"),
    (PermissionError(13, "Permission denied", "/x"), 2, "prog: error: [Errno 13] Permission denied: '/x'\n"),
    (MemoryError("8 TiB"), 2, "prog: error: not enough memory: 8 TiB; choose smaller sizes\n"),
    (KeyboardInterrupt(), 130, "prog: interrupted\n"),
    (KeyboardInterrupt("checkpoint written at step 7"), 130, "prog: checkpoint written at step 7\n"),
])
def test_an_error_is_one_line_and_an_exit_status(error, status, line, capsys):
    assert run("prog", raiser(error)) == status
    captured = capsys.readouterr()
    assert captured.err == line
    assert captured.out == ""


def test_a_command_that_ends_has_status_zero(capsys):
    assert run("prog", lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run("prog", raiser(ZeroDivisionError()))


def test_a_reader_that_leaves_is_not_an_error():
    program = ("import sys; from transformer_np.command import run\n"
               "sys.exit(run('prog', lambda: [print('x' * 1000) for _ in range(1000)] and None))")
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.read(10)
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 141


def test_the_parser_and_its_subparsers_raise_input_errors():
    parser = Parser(prog="prog")
    sub = parser.add_subparsers(dest="command", required=True).add_parser("train")
    sub.add_argument("--steps", type=whole_number(1))
    with pytest.raises(InputError, match="argument --steps: got 0, expected 1 or more"):
        parser.parse_args(["train", "--steps", "0"])
    with pytest.raises(InputError, match="unrecognized arguments: --nonsense"):
        parser.parse_args(["train", "--nonsense"])


@pytest.mark.parametrize(("parse", "text", "message"), [
    (whole_number(1), "0", "got 0, expected 1 or more"),
    (whole_number(0), "-1", "got -1, expected 0 or more"),
    (whole_number(1), "2.5", "got '2.5', expected a whole number"),
    (real_number(lambda x: x > 0, "a positive number"), "0", "got 0, expected a positive number"),
    (real_number(lambda x: x > 0, "a positive number"), "nan", "got nan, expected a positive number"),
    (real_number(lambda x: x > 0, "a positive number"), "inf", "got inf, expected a positive number"),
    (real_number(lambda x: x > 0, "a positive number"), "fast", "got 'fast', expected a positive number"),
])
def test_a_number_out_of_range_says_what_was_expected(parse, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{message}$"):
        parse(text)


def test_a_number_in_range_is_parsed():
    assert whole_number(1)("12") == 12
    assert real_number(lambda x: x > 0, "a positive number")("1e-3") == 1e-3
