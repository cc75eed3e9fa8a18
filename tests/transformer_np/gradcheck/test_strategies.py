"""What a strategy promises comes up, and what it must never give does not."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from transformer_np.gradcheck import strategies as draw
from transformer_np.gradcheck.calling.layouts import LAYOUTS

FEW = settings(max_examples=200, database=None, derandomize=True, phases=[Phase.generate])  # the first will do, not the simplest
TINY = np.finfo(np.float64).tiny


def comes_up(strategy, condition):
    """Raises NoSuchExample unless it does, in few examples."""
    return find(strategy, condition, settings=FEW)


def rows(array):
    return array.reshape(-1, array.shape[-1])


# ---------------------------------------------------------------------------------------------------- shapes

@given(draw.shapes(min_dims=1, max_dims=3, max_size=4))
def test_shapes_stay_in_their_bounds(shape):
    assert 1 <= len(shape) <= 3 and all(0 <= size <= 4 for size in shape)


@pytest.mark.parametrize("condition", [
    lambda shape: shape == (), lambda shape: 0 in shape and len(shape) > 1, lambda shape: 1 in shape and len(shape) > 1,
    lambda shape: len(shape) == 4 and min(shape) > 1 and len(set(shape)) > 2], ids=["no axis", "0", "1", "all different"])
def test_shapes_of_every_kind_come_up(condition):
    comes_up(draw.shapes(), condition)


@given(draw.broadcastable_pairs())
def test_a_pair_of_shapes_broadcasts(pair):
    np.broadcast_shapes(*pair)


@pytest.mark.parametrize("condition", [
    lambda a, b: len(a) != len(b), lambda a, b: a != b and len(a) == len(b) and 1 in a and 1 in b and max(*a, *b) > 1,
    lambda a, b: 0 in a and 1 in b, lambda a, b: a == b and len(a) > 1], ids=["axes missing", "ones in both", "0 and 1", "equal"])
def test_pairs_of_every_kind_come_up(condition):
    comes_up(draw.broadcastable_pairs(), lambda pair: condition(*pair))


# ---------------------------------------------------------------------------------------------------- masks, labels, ids

@given(draw.attention_masks(2, 3, 5))
def test_a_mask_is_boolean_and_broadcasts_to_the_scores(drawn):
    kind, mask = drawn
    assert (mask is None) == (kind == "none")
    if mask is not None:
        assert mask.dtype == np.bool_ and np.broadcast_shapes(mask.shape, (2, 4, 3, 5)) == (2, 4, 3, 5)


@pytest.mark.parametrize("kind", draw.MASKS)
def test_masks_of_every_kind_come_up(kind):
    comes_up(draw.attention_masks(2, 3, 5), lambda drawn: drawn[0] == kind)


@pytest.mark.parametrize("kind", ["padding", "random"])
def test_a_row_that_allows_nothing_comes_up_beside_one_that_allows_something(kind):
    comes_up(draw.attention_masks(2, 3, 5, kinds=[kind]), lambda drawn: len(set(rows(drawn[1]).any(axis=1))) == 2)


def test_a_causal_mask_with_more_queries_than_keys_has_rows_that_allow_nothing():
    _, mask = comes_up(draw.attention_masks(2, 5, 3, kinds=["causal"]), lambda drawn: True)
    assert mask.any(axis=1).tolist() == [False, False, True, True, True]


@given(draw.labels((3, 4), 5))
def test_labels_are_classes_or_ignored(labels):
    assert labels.shape == (3, 4) and set(labels.flat) <= {-100, *range(5)}


@pytest.mark.parametrize("share", [0, 1, None])
def test_none_some_and_all_labels_are_ignored(share):
    def condition(labels):
        ignored = (labels == 9).mean()
        return 0 < ignored < 1 if share is None else ignored == share

    comes_up(draw.labels((3, 4), 5, ignore_index=9), condition)


@given(draw.labels((3,), 0))
def test_without_a_class_every_label_is_ignored(labels):
    assert (labels == -100).all()


@given(draw.repeated_ids((3, 4), 7))
def test_an_id_repeats_and_one_is_missing(ids):
    counts = np.bincount(ids.ravel(), minlength=7)
    assert len(counts) == 7 and counts.max() > 1 and counts.min() == 0


@given(st.sampled_from([(), (1,), (2,), (0, 3)]), st.integers(1, 2), st.data())
def test_few_ids_of_a_small_vocabulary_are_in_range(shape, vocab_size, data):
    ids = data.draw(draw.repeated_ids(shape, vocab_size))
    assert ids.shape == shape and (ids.size == 0 or 0 <= ids.min() <= ids.max() < vocab_size)


def test_ids_of_no_vocabulary_are_refused():
    with pytest.raises(ValueError, match=r"vocab_size 0, expected at least 1 for shape \[2\]"):
        draw.repeated_ids((2,), 0)


# ---------------------------------------------------------------------------------------------------- windows

def around(geometry):
    reach = geometry.dilation * (geometry.kernel_size - 1)
    if isinstance(geometry.padding, str):
        return reach
    return 2 * geometry.padding if isinstance(geometry.padding, int) else sum(geometry.padding)


def left_over(geometry):
    reach = geometry.dilation * (geometry.kernel_size - 1)
    return (geometry.num_inputs + around(geometry) - reach - 1) % geometry.stride


@given(draw.convolutions())
def test_a_kernel_fits_and_groups_divide(geometry):
    reach = geometry.dilation * (geometry.kernel_size - 1)
    assert geometry.num_inputs == 0 or reach + 1 <= geometry.num_inputs + around(geometry)
    assert geometry.channels_in % geometry.groups == geometry.channels_out % geometry.groups == 0


@pytest.mark.parametrize("condition", [
    lambda g: left_over(g) != 0 and g.num_inputs > 0, lambda g: g.stride > 1 and left_over(g) == 0,
    lambda g: g.kernel_size % 2 == 0 and g.padding == "same", lambda g: g.padding == "causal" and g.dilation > 1,
    lambda g: g.kernel_size == 1, lambda g: g.groups == g.channels_in > 1, lambda g: g.groups > 1 and g.channels_in > g.groups,
    lambda g: g.num_inputs == 0, lambda g: isinstance(g.padding, tuple) and g.padding[0] != g.padding[1],
    lambda g: g.padding == 0, lambda g: g.dilation * (g.kernel_size - 1) + 1 == g.num_inputs + around(g) > 1,
    lambda g: g.stride > g.kernel_size,
], ids=["stride does not divide", "stride divides", "even, same", "causal, dilation", "kernel of 1", "depthwise", "groups",
        "no inputs", "uneven padding", "no padding", "kernel as large as the input", "stride beyond the kernel"])
def test_windows_of_every_kind_come_up(condition):
    comes_up(draw.convolutions(), condition)


# ---------------------------------------------------------------------------------------------------- values

@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@given(st.data())
def test_values_are_finite_and_of_the_dtype_and_shape(dtype, data):
    shape = data.draw(draw.shapes())
    _, array = data.draw(draw.values(shape, dtype=dtype))
    assert array.dtype == dtype and array.shape == shape and np.isfinite(array).all() and array.flags.writeable


def one_pass_variance(array):
    return (array * array).mean() - array.mean() ** 2


PROMISED = {
    "normal": lambda array: 0.3 < array.std() < 3,
    "large mean": lambda array: 0.3 < array.std() < 3 and abs(one_pass_variance(array) - array.var()) > 0.1,
    "constant rows": lambda array: (array == array[:, :1]).all() and len(set(array[:, 0])) == len(array),
    "saturated": lambda array: (np.abs(array) >= 1000).any() and (np.abs(array) < 10).any() and array.min() < 0 < array.max(),
    "ties": lambda array: (np.sort(rows(array))[:, -1] == np.sort(rows(array))[:, -2]).any(),
    "signed zeros": lambda array: len(set(np.signbit(array[array == 0]))) == 2,
    "subnormal": lambda array: (np.abs(array) < TINY).all() and (array != 0).any(),
}


@pytest.mark.parametrize("regime", draw.REGIMES)
def test_a_regime_keeps_its_promise(regime):
    name, _ = comes_up(draw.values((4, 6), regimes=[regime]), lambda drawn: PROMISED[regime](drawn[1]))
    assert name == regime
    comes_up(draw.values((4, 6)), lambda drawn: drawn[0] == regime)


def test_arrays_take_a_shape_or_a_strategy_of_shapes():
    comes_up(draw.arrays((2, 3)), lambda array: array.shape == (2, 3))
    comes_up(draw.arrays(draw.shapes(min_dims=2), regimes=["ties"]), lambda array: array.size == 0 and array.ndim > 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "a dtype of ml_dtypes"])
def test_numbers_of_bfloat16(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    of_dtype = np.dtype(ml_dtypes.bfloat16)
    for regime in draw.REGIMES:
        drawn = draw.arrays((4, 6), dtype=dtype if dtype == "bfloat16" else of_dtype, regimes=[regime])
        array = comes_up(drawn, lambda array: (array != 0).any())
        assert array.dtype == of_dtype and np.isfinite(array).all()
        if regime == "subnormal":
            assert (np.abs(array.astype(float)) < float(ml_dtypes.finfo(of_dtype).tiny)).all()


@pytest.mark.parametrize("call, message", [
    (lambda: draw.values((2,), regimes=["nope"]), "values: regimes is ['nope'], expected some of normal, large mean"),
    (lambda: draw.values((2,), regimes="ties"), "values: regimes is 'ties', expected some of"),
    (lambda: draw.values((2,), regimes=5), "values: regimes is 5, expected some of"),
    (lambda: draw.values((2,), regimes=[]), "values: regimes is [], expected some of"),
    (lambda: draw.attention_masks(1, 2, 3, kinds=["none", "x"]),
     "attention_masks: kinds is ['none', 'x'], expected some of none, causal, padding, random"),
    (lambda: draw.values((2,), dtype=int), "values: dtype is <class 'int'>, expected a floating one"),
    (lambda: draw.values((2,), dtype="float8"), "values: dtype is 'float8', expected a floating one"),
    (lambda: draw.values((2,), dtype=complex), "values: dtype is <class 'complex'>, expected a floating one"),
    (lambda: draw.arrays(5), "arrays: shapes is 5, expected a tuple of sizes or a strategy of such tuples"),
    (lambda: draw.arrays([2, 3]), "arrays: shapes is [2, 3], expected a tuple of sizes"),
])
def test_a_bad_argument_is_named_at_once(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


# ---------------------------------------------------------------------------------------------------- layouts

@given(draw.layouts(), st.data())
def test_a_layout_changes_no_number(drawn, data):
    _, layout = drawn
    array = data.draw(draw.arrays(draw.shapes(), dtype=data.draw(st.sampled_from([np.float64, np.float32]))))
    laid = layout(array)
    assert laid.dtype == array.dtype and laid.shape == array.shape
    np.testing.assert_array_equal(np.signbit(laid), np.signbit(array))
    np.testing.assert_array_equal(laid, array)
    assert not np.shares_memory(laid, array)


ARRAY = np.arange(24.0).reshape(2, 3, 4)
KEPT = {
    "C order": lambda: LAYOUTS["C order"](ARRAY).flags.c_contiguous,
    "Fortran order": lambda: LAYOUTS["Fortran order"](ARRAY).flags.f_contiguous,
    "strided": lambda: LAYOUTS["strided"](ARRAY).strides == (16 * 48, 16 * 8, 16),
    "reversed": lambda: all(stride < 0 for stride in LAYOUTS["reversed"](ARRAY).strides),
    "stride 0": lambda: LAYOUTS["stride 0"](np.broadcast_to(ARRAY[:1], (5, 3, 4))).strides == (0, 32, 8),
    "read-only": lambda: not LAYOUTS["read-only"](ARRAY).flags.writeable,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_what_it_is_called(name):
    assert KEPT[name]()
    comes_up(draw.layouts(), lambda drawn: drawn[0] == name)


@pytest.mark.parametrize("array, poison", [(ARRAY, math.nan), (np.arange(4), np.iinfo(int).max), (np.zeros(3, bool), True)])
def test_what_lies_between_strided_numbers_is_not_to_be_read(array, poison):
    base = LAYOUTS["strided"](array).base
    assert np.array_equal(base.flat[0], poison, equal_nan=True)


def test_the_strided_layout_doubles_the_last_axes_that_are_longer_than_one():
    assert LAYOUTS["strided"](np.zeros((2, 3, 1, 2, 3, 2))).base.shape == (2, 6, 1, 4, 6, 4)
    assert LAYOUTS["strided"](np.zeros((1,) * 32)).shape == (1,) * 32


# ---------------------------------------------------------------------------------------------------- without hypothesis

def test_hypothesis_is_imported_late_and_a_missing_one_is_named():
    program = ("import sys\n"
               "from transformer_np.gradcheck import strategies\n"
               "assert 'hypothesis' not in sys.modules\n"
               "sys.modules['hypothesis'] = None\n"
               "try: strategies.shapes()\n"
               "except ValueError as error: print(type(error).__name__, error)\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "InputError transformer_np.gradcheck.strategies needs hypothesis: pip install transformer-np[test]" in done.stdout
