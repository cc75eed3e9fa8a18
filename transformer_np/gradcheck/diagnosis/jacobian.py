"""What a Jacobian tells of a fault: backward asked for one number of the output at a time.

It tells which outputs backward forgets: the rows of a sum over a batch, all uses of a repeated index but the last, the diagonal
of a mask, what one step in time hands to the next.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from transformer_np.gradcheck.diagnosis.case import LEFT, Case, Diagnosis, Jacobian, arrangements, broadcasts
from transformer_np.layer import Array

ROUNDED = 2.5e-2            # rounding two factors to bfloat16 leaves an error that is no larger part of the gradient,
ROUNDED_TO_FLOAT32 = 1e-5   # one to float32 no larger,
LEAST_ROUNDED = 1.5e-8      # and no smaller


def told_by_outputs(case: Case) -> Diagnosis | None:
    jacobian = case.jacobian()
    if jacobian is None:
        return None
    for candidate in (_cotangent_not_used, _rounded, _not_linear, _misplaced_factor, _transposed, _not_carried, _forgotten,
                      _counted, _rearranged, _diagonal_only, _band, _not_masked, _residual):
        found = candidate(case, jacobian)
        if found is not None:
            return found
    return None


def other_derivative(case: Case) -> Diagnosis | None:
    """Each number of the output depends on its own element alone, backward knows that, and has another derivative."""
    jacobian = case.jacobian()
    if jacobian is None or not _is_square(jacobian):
        return None
    diagonal = np.eye(len(jacobian.given), dtype=bool)
    if (np.abs(jacobian.given[~diagonal]) > jacobian.slack).any() or jacobian.used[~diagonal].any():
        return None
    given, measured = np.diag(jacobian.given), np.diag(jacobian.measured)
    worst = int(np.abs(given - measured).argmax())
    return Diagnosis("wrong derivative", "each output depends on its own element alone, by another derivative: at "
                     f"{case.argument.flat[worst]:.6g} it is {measured[worst]:.6g}, and backward takes {given[worst]:.6g}")


# ---------------------------------------------------------------------------------------------------- the cotangent

def _cotangent_not_used(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    given = jacobian.given
    if len(given) > 1 and (np.ptp(given, axis=0) <= jacobian.slack).all() and np.abs(given).max() > jacobian.slack:
        return Diagnosis("cotangent not used", "backward gives the same whatever the cotangent is")
    return None


def _rounded(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """Off by little, and not linear, as all that is rounded. A term without the cotangent is there too where the output does not
    depend on the element; what is rounded is 0 there."""
    if _is_linear(case, jacobian) or jacobian.given[~jacobian.used].any():
        return None
    error, size = float(np.abs(case.error).max()), float(np.abs(np.where(case.judged, case.numeric, 0)).max())
    small = np.abs(jacobian.given - jacobian.measured).max() <= ROUNDED * np.abs(jacobian.measured).max()
    if not LEAST_ROUNDED * size < error < ROUNDED * size or not small or case.wrong.sum() < case.judged.sum() / 2:
        return None
    what = "float32" if error <= ROUNDED_TO_FLOAT32 * size else "float16 or bfloat16"
    return Diagnosis("low precision", f"off by at most {error / size:.1e} of the largest gradient, and not linear in the "
                     f"cotangent, as what is rounded: it seems that {what} is on the way")


def _is_linear(case: Case, jacobian: Jacobian) -> bool:
    together = (jacobian.weights @ jacobian.given).reshape(case.analytic.shape)
    return bool((np.where(case.judged, np.abs(together - case.analytic), 0) <= case.slack).all())


def _not_linear(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """Then no other way to go wrong can be told from what it gives for single numbers."""
    if _is_linear(case, jacobian):
        return None
    return Diagnosis("not linear in the cotangent", "what backward gives for the whole cotangent is not the sum of what it gives "
                     "for the parts of it: a clip, a sign, or a term without the cotangent")


def _misplaced_factor(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """A gain that multiplies the gradient after a sum, and should multiply the cotangent before it, or the other way round."""
    if len(jacobian.shapes) != 1:
        return None
    for name, (array, _) in case.others.items():
        if array.size < 2 or not broadcasts(array, jacobian.shapes[0]) or not broadcasts(array, jacobian.argument_shape):
            continue
        everywhere = np.broadcast_to(array, jacobian.shapes[0])
        outside = np.array([everywhere[index] for _, index in jacobian.outputs])[:, None]        # [M, 1]
        inside = np.ravel(np.broadcast_to(array, jacobian.argument_shape))[None]                 # [1, n]
        slack = jacobian.slack * np.abs(array).max()
        for by_backward, by_right, words in ((outside, inside, "after a sum what it should multiply before it"),
                                             (inside, outside, "before a sum what it should multiply after it")):
            if (np.abs(jacobian.given * by_backward - jacobian.measured * by_right) <= slack).all():
                return Diagnosis("misplaced factor", f"{name} multiplies {words}")
    return None


def _transposed(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    given, measured = jacobian.given, jacobian.measured
    if given.T.shape == given.shape and (np.abs(given.T - measured) <= jacobian.slack).all():
        return Diagnosis("transposed", "backward does what forward does, and not its transpose: W where W^T is meant, or a scan "
                         "in the same direction")
    return None


def _rearranged(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    if len(jacobian.shapes) != 1 or len(jacobian.outputs) != math.prod(jacobian.shapes[0]):
        return None
    numbers = np.arange(len(jacobian.outputs)).reshape(jacobian.shapes[0])
    for order, says in arrangements(numbers):
        if (np.abs(jacobian.given[order.ravel()] - jacobian.measured) <= jacobian.slack).all():
            return Diagnosis("transposed" if "axes" in says else "shifted", f"the cotangent is read in wrong places: {says}")
    return None


# ---------------------------------------------------------------------------------------------------- what is forgotten

def _not_carried(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """Right where an output belongs to the same step as the element, and wrong at every later one (or earlier, if time runs
    backwards)."""
    shape, wrong = jacobian.argument_shape, jacobian.wrong
    for member, output in enumerate(jacobian.shapes):
        for a, b in itertools.product(range(len(output)), range(len(shape))):
            if output[a] != shape[b] or shape[b] < 3:
                continue
            at, places = jacobian.along(member, a), np.indices(shape)[b].ravel()[None]
            used, missed = (set(np.unique((at - places)[each & (at >= 0)])) for each in (jacobian.used, wrong))
            if len(used) > 2 and 0 in used and missed == used - {0} and (min(used) == 0 or max(used) == 0):
                return Diagnosis("not carried across steps", f"right within a step of {jacobian.axis_name(member, a)}, and wrong "
                                 "for all that comes after: something that one step hands to the next is not carried back")
    return None


def _forgotten(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """Some uses of the argument are left out of a sum, and nothing else is wrong."""
    if not np.array_equal(jacobian.wrong, jacobian.dropped):
        return None
    candidates = (_repeated_index, _output_forgotten) if _is_looked_up(case, jacobian) else (_output_forgotten, _repeated_index)
    return candidates[0](jacobian) or candidates[1](jacobian)


def _is_looked_up(case: Case, jacobian: Jacobian) -> bool:
    """Whether each output depends on the rows of the argument that an integer input names, and on no others."""
    rows = np.indices(jacobian.argument_shape)[0].ravel() if jacobian.argument_shape else np.zeros(1, int)
    for ids, shape in itertools.product(case.integers, jacobian.shapes):
        if ids.ndim and ids.shape == shape[:ids.ndim] and len(jacobian.shapes) == 1:
            named = np.array([ids[index[:ids.ndim]] for _, index in jacobian.outputs])
            if not (jacobian.used & (rows[None] != named[:, None])).any():
                return True
    return False


def _repeated_index(jacobian: Jacobian) -> Diagnosis | None:
    used = jacobian.used
    kept = used & ~jacobian.dropped
    columns = np.flatnonzero((used.sum(axis=0) > 1) & jacobian.dropped.any(axis=0))
    if columns.size and (kept[:, columns].sum(axis=0) == 1).all():
        first, last = used[:, columns].argmax(axis=0), len(used) - 1 - used[::-1, columns].argmax(axis=0)
        only = kept[:, columns].argmax(axis=0)
        for place, word in ((last, "last"), (first, "first")):
            if (only == place).all():
                return Diagnosis("repeated index", f"of several uses of an element only the {word} counts: a repeated index is "
                                 "assigned where it should be added (np.add.at)")
    return None


def _output_forgotten(jacobian: Jacobian) -> Diagnosis | None:
    """Whole outputs, or all of an output but one index of an axis."""
    used = jacobian.used
    reached, lost = used.any(axis=1), jacobian.dropped.any(axis=1)                   # [M]
    if (jacobian.dropped != used)[lost].any():
        return None
    members = np.array([member for member, _ in jacobian.outputs])
    for member in np.unique(members):
        if len(jacobian.shapes) > 1 and (lost == (reached & (members == member))).all():
            return Diagnosis("output forgotten", f"the cotangent of output[{member}] is not used")
    for member, shape in enumerate(jacobian.shapes):
        for axis, size in enumerate(shape):
            if size < 2:
                continue
            at, of = jacobian.along(member, axis)[:, 0], jacobian.axis_name(member, axis)
            here = reached & (at >= 0)
            is_sum = _is_sum(jacobian, at, size)
            for kept, word in ((0, "first"), (size - 1, "last")):
                if (lost == (here & (at != kept))).all():
                    because = ": the sum over that axis is missing" if is_sum else ""
                    return Diagnosis("missing sum" if is_sum else f"{word} row only", f"only the {word} index of {of} "
                                     f"counts{because}")
                if (lost == (here & (at == kept))).all():
                    return Diagnosis("off by one", f"the {word} index of {of} is left out")
    return None


def _is_sum(jacobian: Jacobian, at: Array, size: int) -> bool:
    """Whether an element is used at several indices of an axis, and not each index by elements of its own.   at: [M]"""
    return bool((sum((jacobian.used & (at == index)[:, None]).any(axis=0).astype(int) for index in range(size)) > 1).any())


def _counted(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """A sum over an axis of the output in which some indices do not count, or count twice: a tile that is dropped, or that
    overlaps the one before, or of which only the last program's part is kept."""
    measured, given = jacobian.measured, jacobian.given
    if _is_looked_up(case, jacobian):  # where the rows of the argument tell better what is lost
        return None
    for member, shape in enumerate(jacobian.shapes):
        for axis, size in enumerate(shape):
            at = jacobian.along(member, axis)[:, 0]
            if size < 2 or not _is_sum(jacobian, at, size):
                continue
            products, squares = (np.bincount(at[at >= 0], each[at >= 0].sum(axis=1), size) for each in
                                 (given * measured, measured * measured))
            counts = np.where(squares > 0, np.rint(products / squares), 1)
            expected = measured * np.where(at >= 0, counts[at], 1)[:, None]
            if counts.min() < 0 or (np.abs(given - expected) > jacobian.slack).any():
                continue
            lost, more = np.flatnonzero(counts == 0), np.flatnonzero(counts > 1)
            says = [f"index {_span(lost)} does not count"] if lost.size else []
            says += [f"index {_span(more)} counts {'twice' if counts.max() == 2 else f'up to {counts.max():.0f} times'}"] \
                if more.size else []
            return Diagnosis("counted twice" if more.size else "partial sum",
                             f"in the sum over {jacobian.axis_name(member, axis)}, {' and '.join(says)}")
    return None


def _span(indices: Array) -> str:
    first, last = int(indices[0]), int(indices[-1])
    if len(indices) > 2 and last - first == len(indices) - 1:
        return f"{first} to {last}"
    return ", ".join(map(str, indices))


def _diagonal_only(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """As of a softmax by y (1 - y), which is how a sigmoid goes."""
    if not _is_square(jacobian) or not np.array_equal(jacobian.wrong, jacobian.dropped):
        return None
    diagonal = np.eye(len(jacobian.given), dtype=bool)
    if np.array_equal(jacobian.dropped, jacobian.used & ~diagonal):
        return Diagnosis("diagonal only", "only the derivative of each output by its own element counts; it depends on the other "
                         "elements too, by a sum over them")
    return None


def _band(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """The error lies where an index of the output is a fixed step from an index of the argument: a mask, or a shift in time."""
    shape, wrong = jacobian.argument_shape, jacobian.wrong
    for member, output in enumerate(jacobian.shapes):
        for a, b in itertools.product(range(len(output)), range(len(shape))):
            if output[a] < 3 or shape[b] < 3:
                continue
            at, places = jacobian.along(member, a), np.indices(shape)[b].ravel()[None]
            offsets = np.unique((at - places)[wrong & (at >= 0)])
            usual = np.unique((at - places)[jacobian.used & (at >= 0)])
            if len(offsets) != 1 or len(usual) < 2 or (wrong & (at < 0)).any():
                continue
            if len(np.unique(at[wrong.any(axis=1)])) < 2:  # one index alone is on some diagonal in any case
                continue
            here = jacobian.used & (at >= 0) & (at - places == offsets[0])
            if (here & wrong).sum() < here.sum() / 2:  # something else tells better which they are
                continue
            output_axis = jacobian.axis_name(member, a)
            where = f"wrong only where index of {output_axis} = index of axis {b} of the argument {offsets[0]:+d}"
            if usual.min() < offsets[0] < usual.max():  # not at the edge of what a mask lets through
                return Diagnosis("use forgotten", f"{where}: one of the uses of the argument is missing or wrong")
            return Diagnosis("mask off by one", f"{where}: a mask, or a loop over time, is off by one")
    return None


# ---------------------------------------------------------------------------------------------------- what is too much

def _not_masked(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """More than what the output depends on, and nothing else but a factor: a mask that forward has and backward has not."""
    used = jacobian.used
    measured, given = jacobian.measured[used], jacobian.given[used]
    if not measured.size or not (jacobian.wrong & ~used).any():
        return None
    factor = float((given * measured).sum() / (measured * measured).sum())
    if factor == 0 or (np.abs(given - factor * measured) > jacobian.slack).any():
        return None
    says = "a gradient from outputs that do not depend on the element"
    if abs(factor - 1) > LEFT:
        says += f", and {factor:.6g} times what is right from those that do"
    return Diagnosis("leak", f"{says}: is a mask missing, such as that of dropout?")


def _residual(case: Case, jacobian: Jacobian) -> Diagnosis | None:
    """The argument is added to the output, and backward forgets it, or it adds it though it is not."""
    error = jacobian.given - jacobian.measured                                       # [M, n]
    if error.shape[0] != error.shape[1] or len(error) < 2:
        return None
    share = float(np.diag(error).mean())
    if share == 0 or (np.abs(error - share * np.eye(len(error))) > jacobian.slack).any():
        return None
    word = "too much" if share > 0 else "missing"
    return Diagnosis("residual path", f"{abs(share):.6g} times the cotangent is {word}: a path past the function, as that of a "
                     "residual")


def _is_square(jacobian: Jacobian) -> bool:
    """Whether each element has an output of its own."""
    return len(jacobian.shapes) == 1 and jacobian.shapes[0] == jacobian.argument_shape and jacobian.given.shape[0] == \
        jacobian.given.shape[1] > 1
