"""A kernel held against the pair of this project that has a name.

    report = check_against("attention", forward, backward, profile="float32")

Every pair of the project is such a reference, with the calls that its examples make: masks with empty rows, NaN behind a mask,
ignored labels, repeated ids. To these come the edges that any call has: sizes of 0 and 1, extreme and equal numbers, axes so long
that tiles are crossed, and inputs that lie in memory in other ways. `kernels/golden.py` says how far off a kernel may be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.layouts import LAYOUTS, c_order
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.rounding import Precision, narrow
from transformer_np.gradcheck.diagnosis.case import Diagnosis
from transformer_np.gradcheck.discovery import PACKAGES, Found, discover, subject_name
from transformer_np.gradcheck.examples import Call, Example
from transformer_np.gradcheck.judging.memory import LAYOUT_WORDS
from transformer_np.gradcheck.kernels.edges import SIZES, edges_of, equal_numbers
from transformer_np.gradcheck.kernels.explain import what_is_wrong
from transformer_np.gradcheck.kernels.golden import BOUND, Answer, Golden, Verdict, work_out
from transformer_np.gradcheck.kernels.kernel import Kernel, Layout, LeftOut, run_kernel
from transformer_np.gradcheck.kernels.larger import LARGER, larger_calls
from transformer_np.gradcheck.report import Check, Element, Report
from transformer_np.gradcheck.reproducer import reproducer
from transformer_np.layer import Array

Draw = Callable[..., tuple[Array, ...]]

SHOWN = 3        # so many failures of one kind are told in full


def check_against(name: str, forward: Callable[..., Any], backward: Callable[..., Any] | None = None, *,
                  vjp: Callable[..., Any] | None = None, profile: str = "float64", seed: int = 0,
                  larger: int = LARGER) -> Report:
    """Hold a kernel against the pair of this project called `name`: values, every gradient, and the edges.

        report = check_against("softmax", forward, backward)            forward(*inputs) -> (output, cache)
                                                                        backward(d_output, cache) -> gradients
        report = check_against("softmax", function, vjp=vjp)            function(*inputs) -> output
                                                                        vjp(d_output, *inputs) -> gradients

    name: of a pair, such as attention or lstm; where only one pair is called name_..., its first word will do.
    forward takes the inputs of our forward in their order, and its settings (axis, eps, stride) as keywords. Outputs and
    gradients are in our order. A kernel need not do all that ours does: a call with an input or setting that forward has no
    parameter for, and one for which it raises NotImplementedError, is left out, and the report says so. Where forward draws,
    it gets `rng`, and must draw as ours does.
    profile: the precision of the arrays that the kernel gets: float64, float32, float16, or bfloat16 with ml_dtypes installed.
    seed: of inputs and cotangents.
    larger: the length of longer axes. The examples are small, below 10; every axis is made so long besides, one at a time and the
    last two of an input at once, these up to 300. 150 crosses tiles of 16, 32, 64 and 128, and leaves a part of one over. 0 for
    small sizes only.

    A figure of the report is an error in units of what rounding costs a right program in that precision.
    Never raises for what the kernel does. Raises ValueError for an unknown name or profile, for a seed or `larger` that is no
    whole number of at least 0, or if not just one of backward and vjp is given.
    """
    if (backward is None) == (vjp is None):
        raise ValueError("check_against: expected backward or vjp, one of them")
    require_larger(larger)
    precision = Precision.of(profile)
    name, examples = find_reference(name, seed)
    kernel = Kernel(forward, backward) if backward is not None else Kernel.from_vjp(forward, vjp)  # type: ignore[arg-type]
    who = str(getattr(forward, "__name__", type(forward).__name__))
    comparison = _Comparison(kernel, precision, seed)
    checks = [*comparison.examples(examples)]
    if comparison.answers or not comparison.runs:  # a kernel that fails at every example has nothing more to say
        checks += [*comparison.edges(examples), *comparison.larger(examples, larger), *comparison.layouts(examples)]
    checks += comparison.habits()
    given = {"forward": forward, "backward": backward} if backward is not None else {"function": forward}
    keywords = {"vjp": vjp, "profile": profile, "seed": seed, "larger": larger}
    defaults = {"vjp": None, "profile": "float64", "larger": LARGER}
    again = reproducer("check_against", given, None, {keyword: value for keyword, value in keywords.items()
                                                     if keyword not in defaults or value != defaults[keyword]}, name)
    if comparison.first_failed is None:
        return Report(f"{who} against {name} in {profile}", tuple(checks), again)
    case, golden = comparison.first_failed
    again += f"{';' if '  # ' in again else '  #'} report.inputs: those of {case}"
    return Report(f"{who} against {name} in {profile}", tuple(checks), again, narrow(golden.inputs, precision.dtype))


def require_larger(larger: int) -> None:
    if not isinstance(larger, int | np.integer) or isinstance(larger, bool) or larger < 0:
        raise ValueError(f"larger is {larger!r}, expected a length, a whole number; 0 for small sizes only")


def references(seed: int = 0) -> dict[str, list[Example]]:
    """Every pair of the project, by its name, with its examples; of those that differ in backward only, the first."""
    return _pairs(discover(PACKAGES, seed))


def find_reference(name: str, seed: int = 0) -> tuple[str, list[Example]]:
    """The full name of a pair, and its examples. Raises ValueError if there is none."""
    found = discover(PACKAGES, seed)
    pairs = _pairs(found)
    family = [known for known in pairs if known.startswith(f"{name}_")]
    if name not in pairs and len(family) == 1:
        name = family[0]
    if name not in pairs:
        broken = "".join(f"; {module} cannot be used: {reason}" for module, reason in found.broken.items())
        raise ValueError(f"no pair is called {name!r}, expected one of {', '.join(sorted(pairs))}{broken}")
    return name, pairs[name]


def _pairs(found: Found) -> dict[str, list[Example]]:
    pairs: dict[str, list[Example]] = {}
    for subject, examples in found.subjects.items():
        calls = {(tuple(map(id, example.call.inputs)), repr(example.call.settings), example.call.rng_seed): example
                 for example in reversed(examples) if example.call is not None}
        if calls:
            pairs[subject_name(subject)] = list(reversed(calls.values()))
    return pairs


@dataclass
class _Comparison:
    kernel: Kernel
    precision: Precision
    seed: int
    runs: int = 0
    answers: int = 0                                             # runs that gave what can be judged
    first_failed: tuple[str, Golden] | None = None               # the first case that is wrong
    told: dict[str, str] = field(default_factory=dict)           # what the kernel did wrong, and in which case first
    left_out: dict[str, str] = field(default_factory=dict)       # the case, and why
    looked_into: set[str] = field(default_factory=set)           # gradients that have had a Jacobian
    wrong_dtypes: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def examples(self, examples: Sequence[Example]) -> Iterator[Check]:
        """A check for each array of each example."""
        for example in examples:
            call = _call_of(example)
            golden = self.golden(call, call.inputs)
            if golden is None:
                continue
            try:
                verdicts = self.judge(example.name, call, golden)
            except Fault as fault:
                yield Check(f"{example.name}: forward and backward run", False, self.once(example.name, str(fault)))
                continue
            forward_is_right = all(verdict.ok for answer, verdict, _ in verdicts if answer in golden.outputs)
            for answer, verdict, array in verdicts:
                check = Check(f"{example.name}: {answer.name}", verdict.ok, verdict.says, verdict.figure, BOUND)
                if not verdict.ok:
                    self.told.setdefault(f"{answer.name} {verdict.says}", example.name)
                    check = replace(check, elements=answer.worst_elements(array, golden.argument_of(answer)))
                if answer in golden.gradients:
                    check = replace(check, argument=answer.name.removeprefix("gradient of "))
                    if not verdict.ok and array.shape == answer.exact.shape:
                        check = replace(check, diagnosis=self.diagnosis(call, golden, answer, array, forward_is_right))
                yield check

    def diagnosis(self, call: Call, golden: Golden, answer: Answer, array: Array, forward_is_right: bool) -> Diagnosis:
        """Of a gradient of the kernel that is wrong. The Jacobian takes a run for each number of the output: it is worked out
        once for each argument, and not for a forward that is wrong, whose derivative is another."""
        which = len(golden.outputs) + golden.gradients.index(answer)
        reference = Kernel(call.forward, call.backward)
        worth_it = forward_is_right and answer.name not in self.looked_into
        self.looked_into.add(answer.name)

        def gradients(cotangents: tuple[Array, ...]) -> tuple[Array, Array]:
            other = replace(golden, cotangents=cotangents)
            return (run_kernel(reference, call, other, Precision.of("float64")).arrays[which],
                    run_kernel(self.kernel, call, other, self.precision).arrays[which])

        return what_is_wrong(golden, answer, array, gradients if worth_it else None)

    def edges(self, examples: Sequence[Example]) -> Iterator[Check]:
        """A check for each kind of edge, over the variants of all examples."""
        kinds: dict[str, list[tuple[str, Call, Golden, Layout]]] = {}
        for example in examples:
            call = _call_of(example)
            plain = self.golden(call, call.inputs)
            for kind, variants in edges_of(call, self.precision).items():
                for says, inputs in variants:
                    golden = self.golden(call, inputs)
                    if golden is not None:
                        golden = golden.as_lenient_as(plain) if plain is not None and kind in SIZES else golden
                        kinds.setdefault(kind, []).append((f"{example.name}, {says}", call, golden, c_order))
        for kind, cases in kinds.items():
            yield from self.together(kind, cases)

    def larger(self, examples: Sequence[Example], size: int) -> Iterator[Check]:
        """One check: the calls of every example with longer axes."""
        yield from self.together("longer axes", self.larger_cases(examples, size) if size else ())

    def larger_cases(self, examples: Sequence[Example], size: int) -> Iterator[tuple[str, Call, Golden, Layout]]:
        for example in examples:
            for says, call in larger_calls(_call_of(example), size, self.seed):
                golden = self.golden(call, call.inputs)
                if golden is not None:
                    yield f"{example.name}, {says}", call, golden.for_long_sums(size), c_order

    def layouts(self, examples: Sequence[Example]) -> Iterator[Check]:
        """One check: the numbers of every example, in memory in every way. For a stride of 0 they are equal along each axis."""
        cases = []
        for example in examples:
            call = _call_of(example)
            plain, equal = self.golden(call, call.inputs), self.golden(call, equal_numbers(call), _equal_cotangents)
            for says, layout in LAYOUTS.items():
                golden = equal if says == "stride 0" else plain
                if golden is not None:
                    cases.append((f"{example.name}, {says}", call, golden, layout))
        yield from self.together("memory layouts", cases)

    def habits(self) -> Iterator[Check]:
        """What showed in all runs."""
        profile = self.precision.profile
        if self.answers:
            yield Check(f"{profile} stays {profile}", not self.wrong_dtypes,
                        _first_of(self.wrong_dtypes) or f"{profile} in and out")
            says = _first_of(self.written) or "inputs and cotangents are as they were"
            yield Check("nothing is written to", not self.written, says)
        says = f"{self.runs} runs"
        for reason in dict.fromkeys(self.left_out.values()):
            cases = [case for case in self.left_out if self.left_out[case] == reason]
            others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
            says += f"; left out: {cases[0]}{others}, since {reason}"
        yield Check("the kernel was run", self.runs > 0, says)

    def together(self, kind: str, cases: Iterable[tuple[str, Call, Golden, Layout]]) -> Iterator[Check]:
        failures: dict[str, list[str]] = {}         # what is wrong, and in which cases
        figures = [0.0]
        elements: tuple[Element, ...] = ()
        is_news = self.first_failed is None         # a table for every kind of edge would hide what is told once
        before = self.runs
        for case, call, golden, layout in cases:
            try:
                verdicts = self.judge(case, call, golden, layout)
            except Fault as fault:
                figures.append(math.inf)
                failures.setdefault(str(fault), []).append(case)
                continue
            for answer, verdict, array in verdicts:
                figures.append(verdict.figure)
                if not verdict.ok:
                    failures.setdefault(f"{answer.name} {verdict.says}", []).append(case)
                    elements = elements or is_news * answer.worst_elements(array, golden.argument_of(answer))
        run = self.runs - before
        if run:
            says = f"{run} cases, largest error {max(figures):.2g} units (bound {BOUND:g})"
            for what, where in list(failures.items())[:SHOWN]:
                others = f" and {len(where) - 1} more" if len(where) > 1 else ""
                says += f"; {where[0]}{others}: {self.once(where[0], what)}"
            says += f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else ""
            yield Check(kind, not failures, says, max(figures), BOUND, elements=elements)

    def once(self, case: str, fault: str) -> str:
        """What the kernel did wrong is told in full the first time; then, where that was."""
        first = self.told.setdefault(fault, case)
        return fault if first == case else f"as for {first}"

    def golden(self, call: Call, inputs: Sequence[Any], draw: Draw = random_cotangents) -> Golden | None:
        """None where the reference refuses the inputs: it knows which calls make sense."""
        rng = np.random.default_rng([self.seed, *b"against"])
        try:
            return work_out(call, inputs, self.precision, rng, draw)
        except Fault:
            return None

    def judge(self, case: str, call: Call, golden: Golden, layout: Layout = c_order) -> list[tuple[Answer, Verdict, Array]]:
        """Empty for a case that is left out. Raises Fault for what the kernel does wrong."""
        try:
            run = run_kernel(self.kernel, call, golden, self.precision, layout)
        except LeftOut as reason:
            self.left_out.setdefault(case, str(reason))
            return []
        except Fault as fault:
            # to refuse a layout with an error that names it is right
            if layout is not c_order and fault.__cause__ is not None and re.search(LAYOUT_WORDS, str(fault), re.IGNORECASE):
                self.left_out.setdefault(case, str(fault))
                return []
            self.runs += 1
            self.first_failed = self.first_failed or (case, golden)
            raise
        self.runs += 1
        self.answers += 1
        self.wrong_dtypes += run.wrong_dtypes
        self.written += run.written
        verdicts = [(answer, answer.judge(array), array)
                    for answer, array in zip((*golden.outputs, *golden.gradients), run.arrays, strict=True)]
        if not all(verdict.ok for _, verdict, _ in verdicts):
            self.first_failed = self.first_failed or (case, golden)
        return verdicts


def _call_of(example: Example) -> Call:
    assert example.call is not None  # of a pair
    return example.call


def _equal_cotangents(members: Sequence[Array], rng: np.random.Generator) -> tuple[Array, ...]:
    return tuple(np.full(member.shape, rng.standard_normal()) for member in members)


def _first_of(sentences: Sequence[str]) -> str:
    return f"{sentences[0]}, and {len(sentences) - 1} more times" if len(sentences) > 1 else "".join(sentences)
