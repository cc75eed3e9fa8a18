"""What kind of fault is it? A wrong gradient is compared with the right one as a person would do it.

Each way of going wrong that is known leaves a trace: a factor that is the same everywhere, a transposed array, a row that was not
added. The candidates are tried in turn, from the plainest on, and the first that explains the error is named: what would be left
of the error, if that were the fault, is less than a thousandth of it.

Where the whole Jacobian is small, backward is also asked for it, with one cotangent for each number of the output. That tells
which outputs it forgets: the rows of a sum over a batch, all uses of a repeated index but the last, the diagonal of a mask.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transformer_np.layer import Array

LEFT = 1e-3                 # a diagnosis may leave so much of the error
MAX_AXES = 4                # arrays of more axes are not tried in every order
SMALL = 1e-4                # a relative error below this is no missing term


# What a factor may be, of a size of the arrays, and otherwise.
OF_A_SIZE: dict[str, Callable[[int], float]] = {
    "": float, "1 over ": lambda n: 1 / n, "the root of ": math.sqrt, "1 over the root of ": lambda n: 1 / math.sqrt(n),
    "(N - 1) / N for N = ": lambda n: (n - 1) / n, "N / (N - 1) for N = ": lambda n: n / (n - 1),
    "the square of ": lambda n: n * n, "1 over the square of ": lambda n: 1 / (n * n)}
CONSTANTS = {"2": 2.0, "1/2": 0.5, "3": 3.0, "1/3": 1 / 3, "4": 4.0, "1/4": 0.25, "the root of 2": math.sqrt(2),
             "1 over the root of 2": math.sqrt(0.5), "pi": math.pi, "log 2": math.log(2), "1 / log 2": 1 / math.log(2)}


@dataclass(frozen=True)
class Diagnosis:
    """kind: a word or two, for programs.   says: a sentence."""

    kind: str
    says: str


@dataclass(frozen=True)
class Jacobian:
    """measured, given: [M, n], by every number of the output and every element of the argument, from forward and from backward.
    outputs: for each of the M, in which output it is, and at which index.   shapes: of the outputs.   argument_shape: of the
    argument."""

    measured: Array
    given: Array
    outputs: Sequence[tuple[int, tuple[int, ...]]]
    shapes: Sequence[tuple[int, ...]]
    argument_shape: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A gradient that is wrong.

    analytic, numeric: what backward gives and what was measured.   judged: where.   wrong: where they differ.
    allowed: by how much a right gradient may be off at each element.   argument: the array that the gradient is of.
    others: every other argument with its measured gradient.   outputs: with the cotangent of each.
    jacobian: makes it, or gives None where it is too large.
    """

    name: str
    analytic: Array
    numeric: Array
    judged: Array
    wrong: Array
    allowed: Array
    argument: Array
    others: Mapping[str, tuple[Array, Array]]
    outputs: Sequence[tuple[Array, Array]]
    jacobian: Callable[[], Jacobian | None]

    @property
    def error(self) -> Array:
        return np.where(self.judged, self.analytic - self.numeric, 0)

    def explained_by(self, candidate: Array) -> bool:
        """Whether backward gives just this, in place of what was measured."""
        left = np.where(self.judged, np.abs(self.analytic - candidate), 0)
        return bool((left <= LEFT * np.abs(self.error).max() + 4 * self.allowed).all())

    def is_right(self, corrected: Array) -> bool:
        """Whether backward would be right if it gave this."""
        left = np.where(self.judged, np.abs(corrected - self.numeric), 0)
        return bool((left <= LEFT * np.abs(self.error).max() + 4 * self.allowed).all())

    def sizes(self) -> Iterator[tuple[int, str]]:
        """Every size that a factor may come from, with its name."""
        arrays = [(self.name, self.argument), *((name, array) for name, (array, _) in self.others.items())]
        names = ["the output"] if len(self.outputs) == 1 else [f"output[{index}]" for index in range(len(self.outputs))]
        arrays += [(name, array) for name, (array, _) in zip(names, self.outputs, strict=True)]
        for name, array in arrays:
            for axis, size in enumerate(array.shape):
                yield size, f"the size of axis {axis} of {name}"
        for name, array in arrays:
            if array.ndim > 1:
                yield array.size, f"the number of elements of {name}"
                yield array.size // max(array.shape[-1], 1), f"the number of rows of {name}"


def diagnose(case: Case) -> Diagnosis:
    """The first candidate that explains the error; that there is none is said too."""
    with np.errstate(all="ignore"):
        for candidate in (_not_finite, _all_zero, _factor, _narrow, _of_another, _rearranged, _signs, _missing_factor, _jacobian,
                          _cotangent, _places, _along_an_axis, _small):
            found = candidate(case)
            if found is not None:
                return found
    error, size = np.abs(case.error).max(), np.abs(np.where(case.judged, case.numeric, 0)).max()
    return Diagnosis("wrong or missing term", "no factor, sign, order of axes or missing row explains it: a term is wrong or "
                     f"missing; the largest error is {error / size:.1e} of the largest gradient")


# ---------------------------------------------------------------------------------------------------- element by element

def _not_finite(case: Case) -> Diagnosis | None:
    bad = ~np.isfinite(case.analytic)
    if not bad.any():
        return None
    kind = "NaN" if np.isnan(case.analytic).any() else "infinity"
    return Diagnosis("not finite", f"{kind} at {bad.sum()} of {bad.size} elements, the first at {_first(bad)}"
                     + (", where the input is 0" if (case.argument[bad] == 0).all() else ""))


def _all_zero(case: Case) -> Diagnosis | None:
    if (case.analytic == 0).all():
        return Diagnosis("all zero", "backward gives 0 everywhere")
    if (np.abs(np.where(case.judged, case.numeric, 0)) <= 4 * case.allowed).all():
        return Diagnosis("not zero", "the output does not depend on this argument, but backward gives it a gradient")
    return None


def _factor(case: Case) -> Diagnosis | None:
    numeric = np.where(case.judged, case.numeric, 0)
    factor = float((case.analytic * numeric).sum() / (numeric * numeric).sum())
    if not case.explained_by(factor * case.numeric) or factor == 0:
        return None
    # as well known as what is left is small
    digits = float(np.abs(np.where(case.judged, case.analytic - factor * numeric, 0)).max() / np.abs(numeric).max()) + 1e-12
    if abs(factor + 1) < digits:
        return Diagnosis("sign", "the sign is wrong everywhere")
    named = _name_factor(case, factor, digits)
    if named is None and abs(factor - 1) < SMALL:
        word = "large" if factor > 1 else "small"
        return Diagnosis("small factor", f"too {word} by {abs(factor - 1):.2e}, relative, everywhere: as if an eps were "
                         "forgotten, or a constant had too few digits")
    return Diagnosis("constant factor", f"{factor:.9g} times what is right, everywhere{named or ''}")


def _name_factor(case: Case, factor: float, digits: float) -> str | None:
    """Where a factor may come from: ", which is ..."."""
    sign, size = ("minus " if factor < 0 else ""), abs(factor)

    def is_near(value: float) -> bool:
        return abs(size - value) <= 2 * digits

    for words, function in OF_A_SIZE.items():
        for n, name in case.sizes():
            if n > 1 and is_near(function(n)):
                plain = f" (or just {size:g})" if size in (2, 0.5) else ""
                return f", which is {sign}{words}{n}, {name}{plain}"
    for words, value in CONSTANTS.items():
        if is_near(value):
            return f", which is {sign}{words}"
    return None


def _narrow(case: Case) -> Diagnosis | None:
    """A gradient that was stored in another dtype consists of its numbers."""
    for dtype in (np.float16, np.float32):
        narrow = case.analytic.astype(dtype)
        if (narrow == case.analytic).all() and case.explained_by(np.where(case.judged, case.numeric, 0).astype(dtype)):
            return Diagnosis("low precision", f"every element is a number of {np.dtype(dtype).name}: something on the way is "
                             "stored so")
    return None


def _of_another(case: Case) -> Diagnosis | None:
    for name, (array, gradient) in case.others.items():
        if array.shape == case.argument.shape and case.explained_by(gradient):
            return Diagnosis("swapped", f"it is the gradient of {name}")
        if array.shape == case.argument.shape[::-1] and array.ndim > 1 and case.explained_by(gradient.T):
            return Diagnosis("swapped", f"it is the gradient of {name}, transposed")
    return None


def _rearranged(case: Case) -> Diagnosis | None:
    """The right numbers in other places. Backward's array is put in order, because all of it is known."""
    given = case.analytic
    for corrected, says in _arrangements(given):
        if not np.array_equal(corrected, given) and case.is_right(corrected):
            kind = "transposed" if "axes" in says else "shifted" if "shifted" in says else "reversed"
            return Diagnosis(kind, f"right numbers in wrong places: {says}")
    return None


def _arrangements(array: Array) -> Iterator[tuple[Array, str]]:
    """An array as it was before someone put it in another order."""
    shape, axes = array.shape, range(array.ndim)
    for axis in axes:
        yield np.flip(array, axis), f"reversed along axis {axis}"
        for by in (1, -1):
            yield np.roll(array, by, axis), f"shifted by {-by} along axis {axis}"
    if 1 < array.ndim <= MAX_AXES:
        for order in itertools.permutations(axes):
            if list(order) == sorted(order):
                continue
            moved = tuple(shape[axis] for axis in order)
            if moved == shape:
                yield array.transpose(order), f"axes in the order {list(order)}"
            # someone read memory as if the axes lay there in this order
            yield array.reshape(moved).transpose(np.argsort(order)), f"a reshape where axes {list(order)} want a transpose"
            yield array.transpose(order).reshape(shape), f"a transpose of axes {list(order)} where there is none"


def _signs(case: Case) -> Diagnosis | None:
    if not case.is_right(np.where(case.analytic * case.numeric < 0, -case.analytic, case.analytic)):
        return None
    flipped = case.judged & (case.analytic * case.numeric < 0)
    return Diagnosis("sign", f"the sign is wrong at {flipped.sum()} of {case.judged.sum()} elements{_location(flipped, case)}")


def _missing_factor(case: Case) -> Diagnosis | None:
    """Backward gives the gradient times or over something that is at hand: a gain that is missing, or used twice."""
    at_hand = [(name, array) for name, (array, _) in case.others.items()] + [(case.name, case.argument)]
    at_hand += [(f"the output{'' if len(self_index) == 0 else self_index}", array) for self_index, array in _outputs(case)]
    at_hand += [(f"the cotangent{'' if len(self_index) == 0 else self_index}", array) for self_index, array in _cotangents(case)]
    for name, array in at_hand:
        if array.ndim > case.argument.ndim or not _broadcasts(array, case.argument) or array.size < 2:
            continue
        for factor, words in ((array, ""), (1 - array, "1 - "), (1 + array, "1 + "), (array * array, "the square of ")):
            if case.is_right(case.analytic * factor):
                kind = "cotangent not used" if name.startswith("the cotangent") else "missing factor"
                return Diagnosis(kind, f"{words}{name} is missing, a factor")
            if case.is_right(case.analytic / factor):
                return Diagnosis("missing factor", f"{words}{name} is a factor too many")
    return None


def _outputs(case: Case) -> list[tuple[str, Array]]:
    several = len(case.outputs) > 1
    return [(f"[{index}]" if several else "", array) for index, (array, _) in enumerate(case.outputs)]


def _cotangents(case: Case) -> list[tuple[str, Array]]:
    several = len(case.outputs) > 1
    return [(f"[{index}]" if several else "", array) for index, (_, array) in enumerate(case.outputs)]


def _cotangent(case: Case) -> Diagnosis | None:
    """Bases for an error where the output is like the argument: a whole term of the product rule."""
    for (index, output), (_, cotangent) in zip(_outputs(case), _cotangents(case), strict=True):
        if output.shape != case.argument.shape:
            continue
        x = case.argument
        for term, says in ((cotangent, "d"), (cotangent * x, "d x"), (cotangent * output, "d y"), (cotangent * x * x, "d x^2"),
                           (cotangent * output * output, "d y^2"), (cotangent * x * output, "d x y"),
                           (cotangent * output / x, "d y / x")):
            size = float((term * term).sum())
            share = float((case.error * term).sum() / size) if size > 0 else 0.0
            if share != 0 and case.is_right(case.analytic - share * term):
                word = "too much" if share > 0 else "missing"
                return Diagnosis("wrong or missing term", f"{abs(share):.6g} {says} is {word}, where d is the cotangent{index}, "
                                 "x this argument and y the output")
    return None


def _places(case: Case) -> Diagnosis | None:
    """Wrong at some places, right at the others."""
    wrong = case.wrong
    if wrong.sum() == case.judged.sum():
        return None
    where = _location(wrong, case)
    count = f"{wrong.sum()} of {case.judged.sum()}"
    if (case.analytic[wrong] == 0).all():
        kind = _edge_kind(where) or "dropped elements"
        return Diagnosis(kind, f"0 at {count} elements that have a gradient{where}")
    if (np.abs(case.numeric[wrong]) <= 4 * case.allowed[wrong]).all():
        kind = "mask off by one" if "diagonal" in where else "leak"
        return Diagnosis(kind, f"a gradient at {count} elements on which the output does not depend{where}: is a mask missing?")
    if where:
        return Diagnosis(_edge_kind(where) or "some places", f"wrong at {count} elements{where}")
    return None


def _edge_kind(where: str) -> str | None:
    return "mask off by one" if "diagonal" in where else "first row only" if "but the first" in where else \
        "last row only" if "but the last" in where else "off by one" if "only" in where else None


def _location(marked: Array, case: Case) -> str:
    """Where the marked elements lie, if that can be said in a few words, else nothing."""
    if marked.sum() < 2:  # one element lies somewhere in any case
        return ""
    for axis, size in enumerate(marked.shape):
        if size < 2:
            continue
        slab = case.judged.sum() / size
        found = np.flatnonzero(marked.any(axis=tuple(other for other in range(marked.ndim) if other != axis)))
        for index, word in ((0, "first"), (size - 1, "last")):
            if len(found) == 1 and found[0] == index and marked.sum() > slab / 2:
                return f", only at the {word} index of axis {axis}"
            if size > 2 and len(found) == size - 1 and index not in found:
                return f", at all but the {word} index of axis {axis}"
    for a, b in itertools.combinations(range(marked.ndim), 2):
        offsets = np.unique(np.argwhere(marked)[:, b] - np.argwhere(marked)[:, a])
        possible = marked.shape[a] + marked.shape[b] - 1
        if len(offsets) == 1 and possible > 2:
            return f", only on one diagonal: index of axis {b} = index of axis {a} {offsets[0]:+d}"
    return ""


def _along_an_axis(case: Case) -> Diagnosis | None:
    """A term that is the same along an axis, or the same multiple of the input or output: a sum over that axis is in it."""
    if not case.judged.all():
        return None
    x, error = case.argument, case.error
    ways = [(np.ones_like(x), "the same"), (x, "a multiple of the input")]
    ways += [(output, "a multiple of the output") for _, output in _outputs(case) if output.shape == x.shape]
    for axis, size in enumerate(x.shape):
        if size < 3:
            continue
        centred = x - x.mean(axis=axis, keepdims=True)
        for basis, says in (*ways, (centred, "a multiple of the input without its mean")):
            share = (error * basis).sum(axis=axis, keepdims=True) / (basis * basis).sum(axis=axis, keepdims=True)
            if case.is_right(case.analytic - share * basis):
                return Diagnosis("missing row term", f"the error is {says} along axis {axis}: a term with a sum or mean over "
                                 "that axis is missing or wrong")
    return None


def _small(case: Case) -> Diagnosis | None:
    error, size = float(np.abs(case.error).max()), float(np.abs(np.where(case.judged, case.numeric, 0)).max())
    if error > SMALL * size:
        return None
    return Diagnosis("small error", f"at most {error / size:.1e} of the largest gradient: an approximation, a forgotten eps, a "
                     "constant with few digits, or lower precision on the way")


# ---------------------------------------------------------------------------------------------------- output by output

def _jacobian(case: Case) -> Diagnosis | None:
    jacobian = case.jacobian()
    if jacobian is None:
        return None
    measured, given = jacobian.measured, jacobian.given
    slack = LEFT * np.abs(given - measured).max()
    wrong = np.abs(given - measured) > slack                                         # [M, n]
    dropped = wrong & (np.abs(given) <= slack)                                       # [M, n]
    if (np.ptp(given, axis=0) <= slack).all() and len(given) > 1 and np.abs(given).max() > slack:
        return Diagnosis("cotangent not used", "backward gives the same whatever the cotangent is")
    if (wrong == dropped).all():
        found = _forgotten(case, jacobian, dropped)
        if found is not None:
            return found
    return _rearranged_outputs(jacobian, slack) or _band(jacobian, wrong) or _identity(jacobian, slack)


def _forgotten(case: Case, jacobian: Jacobian, dropped: Array) -> Diagnosis | None:
    """Some uses of the argument are left out of a sum."""
    used = np.abs(jacobian.measured) > 0                                             # [M, n]
    reached = used.any(axis=1)
    lost = dropped.any(axis=1)                                                       # [M]
    whole = bool((dropped == used)[lost].all())
    members = np.array([member for member, _ in jacobian.outputs])
    if whole:
        for member in np.unique(members):
            if (lost == (reached & (members == member))).all() and len(jacobian.shapes) > 1:
                return Diagnosis("output forgotten", f"the cotangent of output[{member}] is not used")
        for member, shape in enumerate(jacobian.shapes):
            for axis, size in enumerate(shape):
                if size < 2:
                    continue
                at = np.array([index[axis] if which == member else -1 for which, index in jacobian.outputs])
                of = f"axis {axis} of the output" if len(jacobian.shapes) == 1 else f"axis {axis} of output[{member}]"
                here = reached & (at >= 0)
                # is an element used at several indices of that axis, or each index by elements of its own?
                is_sum = (sum((used & (at == index)[:, None]).any(axis=0).astype(int) for index in range(size)) > 1).any()
                for kept, word in ((0, "first"), (size - 1, "last")):
                    if (lost == (here & (at != kept))).all():
                        because = ": the sum over that axis is missing" if is_sum else ""
                        return Diagnosis("missing sum" if is_sum else f"{word} row only", f"only the {word} index of {of} "
                                         f"counts{because}")
                    if (lost == (here & (at == kept))).all():
                        return Diagnosis("off by one", f"the {word} index of {of} is left out")
    kept = used & ~dropped
    several = used.sum(axis=0) > 1
    columns = np.flatnonzero(several & dropped.any(axis=0))
    if columns.size and (kept[:, columns].sum(axis=0) == 1).all():
        first, last = used[:, columns].argmax(axis=0), len(used) - 1 - used[::-1, columns].argmax(axis=0)
        only = kept[:, columns].argmax(axis=0)
        for place, word in ((last, "last"), (first, "first")):
            if (only == place).all():
                return Diagnosis("repeated index", f"of several uses of an element only the {word} counts: a repeated index is "
                                 "assigned where it should be added (np.add.at)")
    return _band(jacobian, dropped)


def _rearranged_outputs(jacobian: Jacobian, slack: float) -> Diagnosis | None:
    if len(jacobian.shapes) != 1 or len(jacobian.outputs) != math.prod(jacobian.shapes[0]):
        return None
    shape = jacobian.shapes[0]
    numbers = np.arange(len(jacobian.outputs)).reshape(shape)
    for order, says in _arrangements(numbers):
        if (np.abs(jacobian.given[order.ravel()] - jacobian.measured) <= slack).all():
            return Diagnosis("transposed" if "axes" in says else "shifted", f"the cotangent is read in wrong places: {says}")
    return None


def _band(jacobian: Jacobian, wrong: Array) -> Diagnosis | None:
    """The error lies where an index of the output is a fixed step from an index of the argument: a mask, or a shift in time."""
    shape = jacobian.argument_shape
    used = np.abs(jacobian.measured) > 0
    for member, output in enumerate(jacobian.shapes):
        for a, b in itertools.product(range(len(output)), range(len(shape))):
            if output[a] < 3 or shape[b] < 3:
                continue
            at = np.array([index[a] if which == member else -1 for which, index in jacobian.outputs])[:, None]
            places = np.indices(shape)[b].ravel()[None]
            offsets = np.unique((at - places)[wrong & (at >= 0)])
            usual = np.unique((at - places)[used & (at >= 0)])
            if len(offsets) != 1 or len(usual) < 2 or (wrong & (at < 0)).any():
                continue
            if usual.min() < offsets[0] < usual.max():  # not at the edge of what a mask lets through
                return Diagnosis("use forgotten", f"wrong only where index of axis {a} of the output = index of axis {b} of the "
                                 f"argument {offsets[0]:+d}: one of the uses of the argument is missing or wrong")
            return Diagnosis("mask off by one", f"wrong only where index of axis {a} of the output = index of axis {b} of the "
                             f"argument {offsets[0]:+d}: a mask, or a loop over time, is off by one")
    return None


def _identity(jacobian: Jacobian, slack: float) -> Diagnosis | None:
    """The argument is added to the output, and backward forgets it, or it adds it though it is not."""
    error = jacobian.given - jacobian.measured                                       # [M, n]
    if error.shape[0] != error.shape[1] or len(error) < 2:
        return None
    share = float(np.diag(error).mean())
    if share == 0 or (np.abs(error - share * np.eye(len(error))) > slack).any():
        return None
    word = "too much" if share > 0 else "missing"
    return Diagnosis("wrong or missing term", f"{abs(share):.6g} times the cotangent is {word}: a path past the function, as "
                     "that of a residual")


# ---------------------------------------------------------------------------------------------------- helpers

def _first(marked: Array) -> list[int]:
    return [int(i) for i in np.argwhere(marked)[0]]


def _broadcasts(array: Array, to: Array) -> bool:
    try:
        return np.broadcast_shapes(array.shape, to.shape) == to.shape
    except ValueError:
        return False
