"""How often is a right pair called wrong?

    python benchmarks/gradcheck_false_alarms.py             10000 checks: some 12 minutes of one core; --processes takes more

Every pair of both packages is checked in full, with the calls of its examples, again and again with other numbers. In turn,
these are taken as they are; scaled, each input by a power of ten of its own from 1e-30 to 1e30; made large, by 10 to 300, so
that what can saturate does; made degenerate, each input left alone, all 0, or one number, so that true gradients are 0; or
rounded to halves, so that there are ties, and zeros at kinks. With every eighth seed the layers are checked too, as their
examples are. A call that forward refuses with a ValueError is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from transformer_np.gradcheck import Report, check_gradients
from transformer_np.gradcheck.discovery import PACKAGES, discover
from transformer_np.gradcheck.examples import Call, Example
from transformer_np.layer import Array

LAYERS_EVERY = 8


def scaled(array: Array, rng: np.random.Generator) -> Array:
    return array * 10.0 ** rng.uniform(-30, 30)


def large(array: Array, rng: np.random.Generator) -> Array:
    return array * 10.0 ** rng.uniform(1, 2.5)


def rounded_to_halves(array: Array, rng: np.random.Generator) -> Array:
    return np.round(2 * array) / 2


def degenerate(array: Array, rng: np.random.Generator) -> Array:
    kind = rng.integers(3)
    value = 0.0 if kind == 0 else float(rng.standard_normal())
    return np.full_like(array, value) if kind < 2 and array.size else array


REGIMES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "as it is": lambda array, rng: array, "scaled": scaled, "large": large, "degenerate": degenerate,
    "halves": rounded_to_halves}


def check_all(seed: int) -> list[Report]:
    """Every pair once, in the regime whose turn it is."""
    rng = np.random.default_rng([seed, *b"regime"])
    regime = list(REGIMES)[seed % len(REGIMES)]
    examples = itertools.chain.from_iterable(discover(PACKAGES, seed).subjects.values())
    return list(_reports(examples, regime, seed, rng))


def _reports(examples: Iterable[Example], regime: str, seed: int, rng: np.random.Generator) -> Iterator[Report]:
    for example in examples:
        if example.call is None:
            if seed % LAYERS_EVERY == 0:
                yield example.check(seed)
            continue
        inputs = [REGIMES[regime](value, rng) if _is_floating(value) else value for value in example.call.inputs]
        if _is_taken(example.call, inputs):
            name = f"{example.name}, {regime}, seed {seed}"
            yield check_gradients(example.call.bind(example.call.forward), example.call.backward, inputs, seed=seed, name=name)


def _is_floating(value: object) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _is_taken(call: Call, inputs: list[object]) -> bool:
    try:
        call.bind(call.forward)(*inputs)
    except ValueError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Check right pairs again and again, and count the alarms.")
    parser.add_argument("--runs", type=int, default=10_000, help="how many checks (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    runs = gradients = 0
    alarms = []
    with multiprocessing.Pool(arguments.processes) as pool:
        # a seed gives more than one run: the last ones are never begun
        for reports in pool.imap(check_all, range(arguments.seed, arguments.seed + arguments.runs)):
            for report in reports[:arguments.runs - runs]:
                runs += 1
                gradients += sum(check.argument is not None for check in report.checks)
                if not report.ok:
                    alarms.append(report)
                    print(report, flush=True)
            print(f"{runs} checks, {len(alarms)} alarms", end="\r", file=sys.stderr, flush=True)
            if runs == arguments.runs:
                break
    print(f"{len(alarms)} false alarms in {runs} checks, of {gradients} gradients")
    return int(bool(alarms))


if __name__ == "__main__":
    sys.exit(main())
