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
from collections.abc import Callable

import numpy as np

from transformer_np.gradcheck.diagnosis.case import Case, Diagnosis, arrangements, broadcasts
from transformer_np.gradcheck.diagnosis.jacobian import other_derivative, told_by_outputs
from transformer_np.layer import Array

MAX_PARTS = 8               # an axis may hold the parts of so many gates
SMALL = 1e-4                # a relative error below this is no missing term
MOST = 2 / 3                # so many of the elements of the other rows are wrong, where one row only is right


# What a factor may be, of a size of the arrays, and otherwise.
OF_A_SIZE: dict[str, Callable[[int], float]] = {
    "": float, "1 over ": lambda n: 1 / n, "the root of ": math.sqrt, "1 over the root of ": lambda n: 1 / math.sqrt(n),
    "(N - 1) / N for N = ": lambda n: (n - 1) / n, "N / (N - 1) for N = ": lambda n: n / (n - 1),
    "the square of ": lambda n: n * n, "1 over the square of ": lambda n: 1 / (n * n)}
PLAIN = {"2": 2.0, "1/2": 0.5}
CONSTANTS = {"3": 3.0, "1/3": 1 / 3, "4": 4.0, "1/4": 0.25, "the root of 2": math.sqrt(2),
             "1 over the root of 2": math.sqrt(0.5), "pi": math.pi, "log 2": math.log(2), "1 / log 2": 1 / math.log(2)}


def diagnose(case: Case) -> Diagnosis:
    """The first candidate that explains the error; that there is none is said too."""
    with np.errstate(all="ignore"):
        for candidate in (_not_finite, _few, _at_zero, _all_zero, _factor, _narrow, _of_another, _summed, _rearranged,
                          _parts_exchanged, _signs, _missing_factor, told_by_outputs, _missing_term, _places, _factors,
                          _along_an_axis, _small, other_derivative):
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


def _few(case: Case) -> Diagnosis | None:
    """Random directions, or the whole, tell of an error; of the elements that were then looked at none has one."""
    if case.wrong.any() or not case.analytic.any():
        return None
    count, size = int(case.judged.sum()), case.judged.size
    if count == size:
        return Diagnosis("small error", "no element is wrong by itself, and all of them together are: each is off by a little")
    return Diagnosis("few wrong elements", f"the gradient as a whole is wrong, and none of the {count} elements that were looked "
                     f"at, of {size}, is: few elements are wrong, such as a last row or tile, or a single one")


def _at_zero(case: Case) -> Diagnosis | None:
    """Wrong where the argument is 0, and right elsewhere. Where it is 0 everywhere, only forward's slope of 0 tells of a kink."""
    if not np.array_equal(case.wrong, case.judged & (case.argument == 0)):
        return None
    if case.wrong.sum() == case.judged.sum() and (np.abs(case.numeric[case.judged]) > 4 * case.allowed[case.judged]).any():
        return None
    return Diagnosis("at zero", f"wrong at {case.wrong.sum()} elements, all those where the argument is 0"
                     f"{_location(case.wrong, case)[1]}: if forward has a kink there, the gradient must be between the slopes on "
                     "its two sides")


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
    if len(case.outputs) == 1 and case.outputs[0][1].size == 1 and case.explained_by(case.numeric / case.outputs[0][1]):
        return Diagnosis("cotangent not used", "it is the gradient for a cotangent of 1")
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

    found = [words for words, value in PLAIN.items() if is_near(value)]
    found += [f"{words}{n}, {name}" for words, function in OF_A_SIZE.items() for n, name in case.sizes()
              if n > 1 and is_near(function(n))][:1]
    found += [words for words, value in CONSTANTS.items() if is_near(value)]
    return f", which is {sign}{found[0]}" + (f" (or {sign}{found[1]})" if len(found) > 1 else "") if found else None


def _narrow(case: Case) -> Diagnosis | None:
    """A gradient that was stored in another dtype consists of its numbers."""
    given, size = case.analytic, float(np.abs(np.where(case.judged, case.numeric, 0)).max())
    for rounded in (np.trunc, np.rint, np.floor):
        if (given == np.rint(given)).all() and (given == rounded(case.numeric))[case.judged].all():
            return Diagnosis("low precision", "all its numbers are whole: an array of integers is on the way")
    for name, to_grid, eps in GRIDS:
        # in a low profile all that comes is of its numbers, as the cotangents are
        of_the_profile = all((to_grid(cotangent) == cotangent).all() for _, cotangent in case.outputs)
        if not of_the_profile and (to_grid(given) == given).all() and np.abs(case.error).max() <= max(8 * eps, SMALL) * size:
            return Diagnosis("low precision", f"every element is a number of {name}: something on the way is stored so")
    return None


def _to_bfloat16(array: Array) -> Array:
    """Cut off to a float32 of which the lower half is 0."""
    return (np.asarray(array, np.float32).view(np.uint32) & np.uint32(0xffff0000)).view(np.float32)


# Each holds fewer numbers than those after it.   name, the number of it that is next to a number, and its eps
GRIDS: tuple[tuple[str, Callable[[Array], Array], float], ...] = (
    ("bfloat16", _to_bfloat16, 2.0**-7), ("float16", lambda array: array.astype(np.float16), 2.0**-10),
    ("float32", lambda array: array.astype(np.float32), 2.0**-23))


def _of_another(case: Case) -> Diagnosis | None:
    for name, (array, gradient) in case.others.items():
        if array.shape == case.argument.shape and case.explained_by(gradient):
            return Diagnosis("swapped", f"it is the gradient of {name}")
        if array.shape == case.argument.shape[::-1] and array.ndim > 1 and case.explained_by(gradient.T):
            return Diagnosis("swapped", f"it is the gradient of {name}, transposed")
        if array.shape == case.argument.shape and case.explained_by(case.numeric + gradient):
            return Diagnosis("swapped", f"the gradient of {name} is added to it")
    return None


def _summed(case: Case) -> Diagnosis | None:
    """Each index of an axis has what all of them should have together, as of heads that share what is theirs by mistake."""
    for axis, size in enumerate(case.argument.shape):
        if size < 2 or not case.judged.all():
            continue
        for function, word in ((np.sum, "summed"), (np.mean, "averaged")):
            if case.explained_by(np.broadcast_to(function(case.numeric, axis=axis, keepdims=True), case.numeric.shape)):
                return Diagnosis("sum too much", f"the gradient is {word} over axis {axis}, where each index has its own")
    return None


def _rearranged(case: Case) -> Diagnosis | None:
    """The right numbers in other places. Backward's array is put in order, because all of it is known."""
    given = case.analytic
    for corrected, says in arrangements(given):
        if not np.array_equal(corrected, given) and case.is_right(corrected):
            kind = "transposed" if "axes" in says else "shifted" if "shifted" in says else "reversed"
            return Diagnosis(kind, f"right numbers in wrong places: {says}")
    return None


def _parts_exchanged(case: Case) -> Diagnosis | None:
    """An axis holds several parts, such as the gates of an LSTM, and one part has what is another's."""
    for axis, size in enumerate(case.argument.shape):
        for count in range(2, min(size, MAX_PARTS) + 1):
            if size % count:
                continue
            given, right, slack = (np.split(each, count, axis) for each in (case.analytic, case.numeric, case.slack))
            sources = [next((other for other, part in enumerate(right) if (np.abs(mine - part) <= slack[0].max()).all()), None)
                       if mine.any() else None for mine in given]     # what is 0 was dropped, and comes from no other part
            if case.judged.all() and None not in sources and sources != list(range(count)):
                return Diagnosis("swapped", f"axis {axis} has {count} parts, and the gradient in them is that of the parts "
                                 f"{sources}")
    return None


def _signs(case: Case) -> Diagnosis | None:
    if not case.is_right(np.where(case.analytic * case.numeric < 0, -case.analytic, case.analytic)):
        return None
    flipped = case.judged & (case.analytic * case.numeric < 0)
    return Diagnosis("sign", f"the sign is wrong at {flipped.sum()} of {case.judged.sum()} elements{_location(flipped, case)[1]}")


def _missing_factor(case: Case) -> Diagnosis | None:
    """Backward gives the gradient times or over something that is at hand: a gain that is missing, or used twice."""
    at_hand = [(name, array) for name, (array, _) in case.others.items()] + [(case.name, case.argument)]
    at_hand += [(f"the output{index}", array) for index, array in _outputs(case)]
    at_hand += [(f"the cotangent{index}", array) for index, array in _cotangents(case)]
    for name, array in at_hand:
        if array.ndim > case.argument.ndim or not broadcasts(array, case.argument.shape) or array.size < 2:
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


def _missing_term(case: Case) -> Diagnosis | None:
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
                kind, word = ("term too much", "too much") if share > 0 else ("missing term", "missing")
                return Diagnosis(kind, f"{abs(share):.6g} {says} is {word}, where d is the cotangent{index}, x this argument and "
                                 "y the output")
    return None


def _places(case: Case) -> Diagnosis | None:
    """Wrong at some places, right at the others."""
    wrong = case.wrong
    if wrong.sum() == case.judged.sum():
        return None
    kind, where = _location(wrong, case)
    count = f"{wrong.sum()} of {case.judged.sum()}"
    if (case.analytic[wrong] == 0).all():
        return Diagnosis(kind or "dropped elements", f"0 at {count} elements that have a gradient{where}")
    if (np.abs(case.numeric[wrong]) <= 4 * case.allowed[wrong]).all():
        kind = kind if kind == "mask off by one" else "leak"
        return Diagnosis(kind, f"a gradient at {count} elements on which the output does not depend{where}: is a mask missing?")
    if kind:
        return Diagnosis(kind, f"wrong at {count} elements{where}")
    return _looked_up(case) or _by_value(case)


def _looked_up(case: Case) -> Diagnosis | None:
    """Wrong in the rows that an integer input names."""
    rows = np.unique(np.nonzero(case.wrong)[0])
    for ids in case.integers:
        if len(rows) < len(case.argument) and np.array_equal(rows, np.intersect1d(ids, np.arange(len(case.argument)))):
            return Diagnosis("use forgotten", "wrong only in the rows that an integer input names: what is looked up there does "
                             "not count")
    return None


def _by_value(case: Case) -> Diagnosis | None:
    """Wrong where the numbers of the argument are of one sort, and right where they are not."""
    wrong, x = case.wrong, case.argument
    right = case.judged & ~wrong
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    tied = (counts > 1)[which.reshape(x.shape)]
    if not (wrong & ~tied).any() and tied.sum() <= x.size / 2:
        return Diagnosis("ties", f"wrong at {wrong.sum()} elements, only where the same number is elsewhere in the argument: at "
                         "a tie")
    if wrong.sum() > 2 and right.sum() > 2:
        for above, below, word in ((wrong, right, "above"), (right, wrong, "below")):
            if x[above].min() > x[below].max():
                return Diagnosis("part of the range", f"wrong at {wrong.sum()} of {case.judged.sum()} elements, those {word} "
                                 f"{(x[above].min() + x[below].max()) / 2:.6g}")
    return None


def _location(marked: Array, case: Case) -> tuple[str, str]:
    """Where the marked elements lie, if that can be said in a few words: what kind of fault it looks like, and the words."""
    if marked.sum() < 2:  # one element lies somewhere in any case
        return "", ""
    for axis, size in enumerate(marked.shape):
        if size < 2:
            continue
        slab = case.judged.sum() / size
        found = np.flatnonzero(marked.any(axis=tuple(other for other in range(marked.ndim) if other != axis)))
        first = int(found[0])
        if 1 < len(found) < size - 1 and first + len(found) == size and marked.sum() > slab * len(found) / 2:
            return "last block", f", from index {first} of axis {axis} on"
        for index, word in ((0, "first"), (size - 1, "last")):
            if len(found) == 1 and found[0] == index and marked.sum() > slab / 2:
                return "off by one", f", only at the {word} index of axis {axis}"
            others = case.judged.sum() - np.take(case.judged, index, axis).sum()
            if size > 2 and len(found) == size - 1 and index not in found and marked.sum() >= MOST * others:
                return f"{word} row only", f", at all but the {word} index of axis {axis}"
    for a, b in itertools.combinations(range(marked.ndim), 2):
        offsets = np.unique(np.argwhere(marked)[:, b] - np.argwhere(marked)[:, a])
        possible = marked.shape[a] + marked.shape[b] - 1
        if len(offsets) == 1 and possible > 2:
            return "mask off by one", f", only on one diagonal: index of axis {b} = index of axis {a} {offsets[0]:+d}"
    return "", ""


def _factors(case: Case) -> Diagnosis | None:
    """A factor of its own for each index of an axis: parts of a mean that are weighed wrongly."""
    for axis, size in enumerate(case.argument.shape):
        rest = tuple(other for other in range(case.argument.ndim) if other != axis)
        if size < 2 or case.argument.size < 2 * size or not case.judged.all():
            continue
        square = (case.numeric * case.numeric).sum(axis=rest, keepdims=True)
        factors = np.where(square > 0, (case.analytic * case.numeric).sum(axis=rest, keepdims=True) / square, 0)
        if case.explained_by(factors * case.numeric):
            shown = ", ".join(f"{factor:.6g}" for factor in factors.ravel()[:4]) + (", ..." if size > 4 else "")
            return Diagnosis("factor by row", f"{shown} times what is right, along axis {axis}: are parts of a mean weighed "
                             "wrongly?")
    return None


def _along_an_axis(case: Case) -> Diagnosis | None:
    """A term that is the same along an axis, or the same multiple of the input or output: a sum over that axis is in it."""
    if not case.judged.all():
        return None
    x, error = case.argument, case.error
    ways = [(np.ones_like(x), "the same"), (x, "a multiple of the input")]
    ways += [way for _, output in _outputs(case) if output.shape == x.shape
             for way in ((output, "a multiple of the output"), (np.exp(output), "a multiple of the exponential of the output"))]
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


# ---------------------------------------------------------------------------------------------------- helpers

def _first(marked: Array) -> list[int]:
    return [int(i) for i in np.argwhere(marked)[0]]
