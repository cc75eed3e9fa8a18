"""A kernel held against the pair of this project that has a name.

    report = check_against("attention", forward, backward, profile="float32")

Every pair of the project is such a reference, with the calls that its examples make: masks with empty rows, NaN behind a mask,
ignored labels, repeated ids. To these come the edges that any call has: sizes of 0 and 1, extreme and equal numbers, and inputs
that lie in memory in other ways. `kernels/golden.py` says how far off a kernel may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.inputs import Fault
from transformer_np.gradcheck.calling.layouts import LAYOUTS, c_order
from transformer_np.gradcheck.calling.outputs import random_cotangents
from transformer_np.gradcheck.calling.rounding import Precision
from transformer_np.gradcheck.diagnosis.case import Diagnosis
from transformer_np.gradcheck.discovery import PACKAGES, discover, subject_name
from transformer_np.gradcheck.examples import Call, Example
from transformer_np.gradcheck.kernels.edges import SIZES, edges_of, equal_numbers
from transformer_np.gradcheck.kernels.explain import what_is_wrong
from transformer_np.gradcheck.kernels.golden import BOUND, Answer, Golden, Verdict, work_out
from transformer_np.gradcheck.kernels.kernel import Kernel, Layout, LeftOut, run_kernel
from transformer_np.gradcheck.report import Check, Report
from transformer_np.layer import Array

Draw = Callable[..., tuple[Array, ...]]

SHOWN = 3        # so many failures of one kind are told in full


def check_against(name: str, forward: Callable[..., Any], backward: Callable[..., Any] | None = None, *,
                  vjp: Callable[..., Any] | None = None, profile: str = "float64", seed: int = 0) -> Report:
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

    A figure of the report is an error in units of what rounding costs a right program in that precision.
    Never raises for what the kernel does. Raises ValueError for an unknown name or profile, or if not just one of backward
    and vjp is given.
    """
    if (backward is None) == (vjp is None):
        raise ValueError("check_against: expected backward or vjp, one of them")
    precision = Precision.of(profile)
    name, examples = find_reference(name, seed)
    kernel = Kernel(forward, backward) if backward is not None else Kernel.from_vjp(forward, vjp)  # type: ignore[arg-type]
    who = str(getattr(forward, "__name__", type(forward).__name__))
    comparison = _Comparison(kernel, precision, seed)
    checks = [*comparison.examples(examples), *comparison.edges(examples), *comparison.layouts(examples), *comparison.habits()]
    return Report(f"{who} against {name} in {profile}", tuple(checks))


def references(seed: int = 0) -> dict[str, list[Example]]:
    """Every pair of the project, by its name, with its examples; of those that differ in backward only, the first."""
    found = discover(PACKAGES, seed)
    pairs: dict[str, list[Example]] = {}
    for subject, examples in found.subjects.items():
        calls = {(tuple(map(id, example.call.inputs)), repr(example.call.settings), example.call.rng_seed): example
                 for example in reversed(examples) if example.call is not None}
        if calls:
            pairs[subject_name(subject)] = list(reversed(calls.values()))
    return pairs


def find_reference(name: str, seed: int = 0) -> tuple[str, list[Example]]:
    """The full name of a pair, and its examples. Raises ValueError if there is none."""
    pairs = references(seed)
    family = [known for known in pairs if known.startswith(f"{name}_")]
    if name not in pairs and len(family) == 1:
        name = family[0]
    if name not in pairs:
        raise ValueError(f"no pair is called {name!r}, expected one of {', '.join(sorted(pairs))}")
    return name, pairs[name]


@dataclass
class _Comparison:
    kernel: Kernel
    precision: Precision
    seed: int
    runs: int = 0
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
                yield Check(f"{example.name}: forward and backward run", False, str(fault))
                continue
            forward_is_right = all(verdict.ok for answer, verdict, _ in verdicts if answer in golden.outputs)
            for answer, verdict, array in verdicts:
                check = Check(f"{example.name}: {answer.name}", verdict.ok, verdict.says, verdict.figure, BOUND)
                if answer in golden.gradients:
                    check = replace(check, argument=answer.name)
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
        yield Check(f"{profile} stays {profile}", not self.wrong_dtypes, _first_of(self.wrong_dtypes) or f"{profile} in and out")
        says = _first_of(self.written) or "inputs and cotangents are as they were"
        yield Check("nothing is written to", not self.written, says)
        says = f"{self.runs} runs"
        for reason in dict.fromkeys(self.left_out.values()):
            cases = [case for case in self.left_out if self.left_out[case] == reason]
            others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
            says += f"; left out: {cases[0]}{others}, since {reason}"
        yield Check("the kernel was run", self.runs > 0, says)

    def together(self, kind: str, cases: Sequence[tuple[str, Call, Golden, Layout]]) -> Iterator[Check]:
        failures, figures = [], [0.0]
        before = self.runs
        for case, call, golden, layout in cases:
            try:
                verdicts = self.judge(case, call, golden, layout)
            except Fault as fault:
                figures.append(math.inf)
                failures.append(f"{case}: {fault}")
            else:
                figures += [verdict.figure for _, verdict, _ in verdicts]
                failures += [f"{case}: {answer.name} {verdict.says}" for answer, verdict, _ in verdicts if not verdict.ok]
        run = self.runs - before
        if run:
            says = f"{run} cases, largest error {max(figures):.2g} units (bound {BOUND:g})"
            says = "; ".join([says, *failures[:SHOWN]]) + (f"; and {len(failures) - SHOWN} more" if len(failures) > SHOWN else "")
            yield Check(kind, not failures, says, max(figures), BOUND)

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
        except Fault:
            self.runs += 1
            raise
        self.runs += 1
        self.wrong_dtypes += run.wrong_dtypes
        self.written += run.written
        return [(answer, answer.judge(array), array) for answer, array in zip((*golden.outputs, *golden.gradients), run.arrays,
                                                                      strict=True)]


def _call_of(example: Example) -> Call:
    assert example.call is not None  # of a pair
    return example.call


def _equal_cotangents(members: Sequence[Array], rng: np.random.Generator) -> tuple[Array, ...]:
    return tuple(np.full(member.shape, rng.standard_normal()) for member in members)


def _first_of(sentences: Sequence[str]) -> str:
    return f"{sentences[0]}, and {len(sentences) - 1} more times" if len(sentences) > 1 else "".join(sentences)
