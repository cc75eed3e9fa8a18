"""Mutation testing: does a unit test fail for every small mistake in a forward or backward pass?

    make mutants                                everything
    python tests/mutants --only softmax         one module
    python tests/mutants --survivors            only what survived the last run: after writing a test for it

Mutated are the public functions `*_forward` and `*_backward`, their `_naive` twins, the methods `forward` and `backward` of
layers and models, and the functions of the packages that these call. A mutant is killed by a failing test, or by running on for
far longer than the tests do without it. One that no test notices must stand in `survivors.txt`, with the reason why it is no
mistake.

The tests are the unit tests of the pairs and layers, and the examples of the gradient checker, without PyTorch. What only a
command or a training run would notice counts as alive.

Why no tool: as of mutmut 3.8 and cosmic-ray 8.7 neither mutates @, .T, a keyword such as axis, or drops a term; both spend most
mutants on `x = None`, argument = None, and each operator by each other. mutmut ran 0.5 mutants a second on attention.py,
cosmic-ray, which starts Python for each and edits the files in place, 0.2 on softmax.py.
What makes it fast: pytest collects once, in a process that has imported everything. For each mutant, a fork of it puts the
mutated code into the live function, so that every importer sees it, and runs the tests that call this function, to the first
failure, beginning with the one that killed the function's last mutant.

It stands among the tests because it tests them; it is no part of `make test`.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: forks and threads do not mix

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import json
import resource
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mutation import Mutant, mutants
from results import SURVIVED, Results, digest, read_survivors, report

HERE = Path(__file__).parent
KILLED_STATUS = 17                # of a fork whose tests failed; 0 where they passed, and a signal where it was stopped
MEMORY_LIMIT = 4 * 2**30          # bytes: a mutated shape must not take the machine down
# modules without pairs and layers
OTHER_MODULES = {"checkpoints", "cli", "comparison", "gradcheck", "gradcheck_examples", "pytorch", "training"}
# tests of those, and tests that start processes
OTHER_TESTS = {"checkpoints", "comparison", "gradcheck", "mutants", "training", "test_cli.py", "test_import.py", "test_memory.py"}


@dataclass
class Target:
    """A function and its mutants.   tests: those that call it, as indices, the most telling first."""

    function: types.FunctionType
    mutants: list[Mutant]
    tests: list[int] = field(default_factory=list)


class Broken(Exception):
    """Nothing can be said about mutants, because of this."""


# ---------------------------------------------------------------------------------------------------- what is mutated

def find_targets(root: Path, packages: list[str], only: str | None) -> list[Target]:
    """Every pair, every layer's forward and backward, and what they call, in the order of modules and lines."""
    found: dict[types.FunctionType, None] = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if _holds_pairs(name, packages) and not path.name.startswith("_"):
                for function in _passes(importlib.import_module(name)):
                    _add_with_called(function, packages, found)
    functions = [function for function in found if only is None or f".{function.__module__}".endswith(f".{only}")]
    functions.sort(key=lambda function: (function.__module__, function.__code__.co_firstlineno))
    if not functions:
        raise Broken(f"--only {only}: no pair, layer, or function that they call is defined in a module of that name")
    return [Target(function, list(_mutants_of(function))) for function in functions]


def _holds_pairs(module: str, packages: list[str]) -> bool:
    parts = module.split(".")
    return parts[0] in packages and not OTHER_MODULES & set(parts)


def _passes(module: types.ModuleType) -> Iterator[types.FunctionType]:
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) and name.removesuffix("_naive").endswith(("_forward", "_backward")):
            yield value
        if inspect.isclass(value):
            yield from (vars(value)[method] for method in ("forward", "backward") if method in vars(value))


def _add_with_called(function: types.FunctionType, packages: list[str], found: dict[types.FunctionType, None]) -> None:
    """What a pass has put into a function of another name is a part of it all the same."""
    if function not in found:
        found[function] = None
        for name in function.__code__.co_names:
            called = function.__globals__.get(name)
            if inspect.isfunction(called) and _holds_pairs(called.__module__, packages):
                _add_with_called(called, packages, found)


def _mutants_of(function: types.FunctionType) -> Iterator[Mutant]:
    tree = ast.parse(Path(function.__code__.co_filename).read_text())
    definition = next(node for node in ast.walk(tree)
                      if isinstance(node, ast.FunctionDef) and node.lineno == function.__code__.co_firstlineno)
    return mutants(definition, f"{function.__module__}.{function.__qualname__}")


def put_in(mutant: Mutant, function: types.FunctionType) -> None:
    """Give the function the mutant's code and defaults, in place: whoever has imported it calls the mutant from now on."""
    namespace = dict(function.__globals__)
    exec(compile(ast.Module([mutant.tree], []), function.__code__.co_filename, "exec"), namespace)
    mutated = namespace[function.__name__]
    function.__code__ = mutated.__code__
    function.__defaults__ = mutated.__defaults__
    function.__kwdefaults__ = mutated.__kwdefaults__


# ---------------------------------------------------------------------------------------------------- what it is tested with

class WithoutTorch:
    """PyTorch cannot be imported, so its tests skip: the others must notice a mistake without that second opinion."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torch":
            raise ModuleNotFoundError("PyTorch is kept away from mutation testing", name=name)


class ExampleItem(pytest.Item):
    """An example of the gradient checker, as a test."""

    example: Any

    def runtest(self) -> None:
        self.example.check(0).raise_if_failed()


def find_test_files(root: Path, packages: list[str]) -> list[str]:
    return [str(path) for package in packages for path in sorted((root / "tests" / package).rglob("test_*.py"))
            if not OTHER_TESTS & set(path.relative_to(root).parts)]


class Plugin:
    """Runs the tests once for each mutant, where pytest would run them once."""

    def __init__(self, root: Path, packages: list[str], only: str | None, jobs: int, results: Results) -> None:
        self.root, self.packages, self.only, self.jobs, self.results = root, packages, only, jobs, results
        self.targets: list[Target] = []
        self.items: list[pytest.Item] = []
        self.seconds: list[float] = []
        self.failed = False
        self.problem = ""

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings  # here, because pytest must have been told to rewrite it first

        # the first failing example will do; to look for the smallest takes long, and nobody reads it
        settings.register_profile("mutants", settings.default, phases=(Phase.explicit, Phase.generate), database=None)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        from transformer_np.gradcheck.discovery import discover

        for examples in discover(tuple(self.packages), 0).subjects.values():
            for example in examples:
                item = ExampleItem.from_parent(session, name=f"gradcheck: {example.name}")
                item.example = example
                items.append(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed:
            return None  # a file cannot be imported: pytest says which, and why
        self.items = session.items
        try:
            self.targets = find_targets(self.root, self.packages, self.only)
            self._map_tests()
            self._run_mutants()
        except Broken as broken:
            self.problem = str(broken)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport | None:
        """Note a failure, and spare the picture of it, which takes longer than the test."""
        if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
            return None
        self.failed = True
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", None, call.when)

    def _passes(self, test: int, next_test: int | None) -> bool:
        following = None if next_test is None else self.items[next_test]
        self.items[test].ihook.pytest_runtest_protocol(item=self.items[test], nextitem=following)
        return not self.failed

    def _map_tests(self) -> None:
        """Find out which tests call which target, and how long each takes, from one run of all of them without a mutant."""
        code_of = {target.function.__code__: index for index, target in enumerate(self.targets)}

        def run_all() -> str:
            calls = []
            for test, item in enumerate(self.items):
                called: set[int] = set()
                # a tracer that returns None hears of calls alone, which costs far less than a profiler
                sys.settrace(lambda frame, event, _, called=called: called.add(code_of.get(frame.f_code, -1)))
                started = time.perf_counter()
                passed = self._passes(test, min(test + 1, len(self.items) - 1))
                sys.settrace(None)
                if not passed:
                    return json.dumps(item.nodeid)
                calls.append((sorted(called - {-1}), time.perf_counter() - started))
            return json.dumps(calls)

        say(f"{len(self.items)} tests, once without a mutant ...")
        fork = Fork(run_all)
        answer = fork.answer()
        _, status = os.waitpid(fork.pid, 0)
        if os.waitstatus_to_exitcode(status) != KILLED_STATUS:
            raise Broken(f"the tests cannot be run without a mutant: {answer or f'status {status}'}")
        calls = json.loads(answer)
        if isinstance(calls, str):
            raise Broken(f"a test fails without any mutant: {calls}")
        self.seconds = [seconds for _, seconds in calls]
        for index, target in enumerate(self.targets):
            callers = [test for test, (called, _) in enumerate(calls) if index in called]
            target.tests = sorted(callers, key=lambda test: self._order(test, target))

    def _order(self, test: int, target: Target) -> tuple[int, float]:
        """First the test file that mirrors the module, then the gradient checker, then other tests; the quickest first."""
        *folders, module = target.function.__module__.split(".")
        if self.items[test].path == self.root.joinpath("tests", *folders, f"test_{module}.py"):
            return 0, self.seconds[test]
        return (1 if isinstance(self.items[test], ExampleItem) else 2), self.seconds[test]

    def _run_mutants(self) -> None:
        waiting = [(target, mutant) for target in self.targets for mutant in target.mutants
                   if str(mutant) not in self.results.known]
        running: dict[int, tuple[Target, Mutant, Fork]] = {}
        total, started = len(waiting), time.monotonic()
        while waiting or running:
            while waiting and len(running) < self.jobs:
                target, mutant = waiting.pop(0)
                fork = Fork(lambda target=target, mutant=mutant: self._killer(target, mutant))
                running[fork.pid] = target, mutant, fork
            pid, status = os.wait()
            target, mutant, fork = running.pop(pid)
            self.results.write(str(mutant), self._outcome(target, mutant, fork.answer(), os.waitstatus_to_exitcode(status)))
            done = total - len(waiting) - len(running)
            alive = sum(outcome == SURVIVED for outcome in self.results.known.values())
            rate = done / (time.monotonic() - started)
            say(f"{done} of {total} mutants, {rate:.1f} a second, {alive} alive   {mutant.function}", ended=done == total)

    def _killer(self, target: Target, mutant: Mutant) -> str:
        """In a fork: the index of the first test that fails, or nothing."""
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        signal.setitimer(signal.ITIMER_REAL, 10 + 5 * sum(self.seconds[test] for test in target.tests))  # ends the process
        put_in(mutant, target.function)
        for test, next_test in zip(target.tests, [*target.tests[1:], None], strict=True):
            if not self._passes(test, next_test):
                return str(test)
        return ""

    def _outcome(self, target: Target, mutant: Mutant, killer: str, status: int) -> str:
        if status == KILLED_STATUS:
            target.tests.remove(int(killer))
            target.tests.insert(0, int(killer))
            return f"killed by {self.items[int(killer)].nodeid}"
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        if status > 0:
            raise Broken(f"a fork ended with exit status {status}, not by a test:\n{mutant}\n{killer}")
        return SURVIVED


class Fork:
    """A call of a function in a fork of this process: exit status 0 if the answer is empty, else KILLED_STATUS."""

    def __init__(self, function: Callable[[], str]) -> None:
        self.pipe, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        status, answer = 1, ""
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            answer = function()
            status = KILLED_STATUS if answer else 0
        except BaseException as error:  # whatever it is, it is the parent's to tell: pytest must not go on in here
            answer = repr(error)
        finally:
            os.write(writing, answer.encode())
            os._exit(status)

    def answer(self) -> str:
        with open(self.pipe) as pipe:
            return pipe.read()


def say(line: str, *, ended: bool = True) -> None:
    """Progress, on one line of a terminal; elsewhere only what stays."""
    if sys.__stderr__.isatty():
        print(f"\r\033[K{line[:120]}", end="\n" if ended else "", file=sys.__stderr__, flush=True)
    elif ended:
        print(line, file=sys.__stderr__, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="MODULE", help="mutate one module: the end of its dotted name")
    parser.add_argument("--survivors", action="store_true", help="run only what survived the last time, and what is new")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many mutants at once")
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help="the folder of the packages and of tests/")
    parser.add_argument("--packages", default="transformer_np,baselines_np", help="names, with commas between them")
    parser.add_argument("--results", type=Path, help="where results are kept, by default build/mutants.jsonl")
    arguments = parser.parse_args()
    root, packages = arguments.root.resolve(), arguments.packages.split(",")
    sys.path.insert(0, str(root))            # what is mutated is what lies here, whatever is installed
    sys.meta_path.insert(0, WithoutTorch())
    folders = [path for package in packages for path in (root / package, root / "tests" / package)]
    results = Results(arguments.results or root / "build" / "mutants.jsonl", digest([*folders, HERE]),
                      keep_killed=arguments.survivors)
    plugin = Plugin(root, packages, arguments.only, arguments.jobs, results)
    wording = io.StringIO()
    try:
        listed = read_survivors(root / "tests" / "mutants" / "survivors.txt")
        with contextlib.redirect_stdout(wording):
            status = pytest.main(["-s", "-p", "no:cacheprovider", *find_test_files(root, packages)], [plugin])
        if status or plugin.problem:
            raise Broken(plugin.problem or wording.getvalue())
    except (Broken, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    made = {str(mutant): target.function.__module__ for target in plugin.targets for mutant in target.mutants}
    if arguments.only is not None:
        functions = {mutant.partition("\n")[0].partition(" ")[0] for mutant in made}
        listed = {mutant for mutant in listed if mutant.partition("\n")[0].partition(" ")[0] in functions}
    table, as_it_must_be = report(made, results.known, listed)
    print(table)
    return 0 if as_it_must_be else 1


if __name__ == "__main__":
    sys.exit(main())
