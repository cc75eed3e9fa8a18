"""Cross-entropy: second opinions, theorems, traps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.gradcheck import check_gradients

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=0, max_size=2).map(tuple)
widths = st.integers(1, 6)
smoothings = st.sampled_from([0.0, 0.1, 0.7])


def draw(seed, shape, V, ignored=0.3):
    """Logits and targets, of which some are ignored."""
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random(shape) < ignored, -100, rng.integers(0, V, shape))
    return 3 * rng.standard_normal((*shape, V)), targets


def cross_entropy_naive(logits, targets, smoothing):
    """A loop over targets, with the logarithm of a quotient."""
    losses = []
    for index in np.ndindex(targets.shape):
        if targets[index] == -100:
            continue
        e = [math.exp(x) for x in logits[index]]
        log_p = [math.log(number / sum(e)) for number in e]
        losses.append(-(1 - smoothing) * log_p[targets[index]] - smoothing * sum(log_p) / len(log_p))
    return sum(losses) / len(losses) if losses else 0.0


# ---------------------------------------------------------------------------------------------------- second opinions

@given(seeds, shapes, widths, smoothings)
def test_the_loss_agrees_with_a_loop_over_targets(seed, shape, V, smoothing):
    logits, targets = draw(seed, shape, V)
    (loss, count), _ = cross_entropy_forward(logits, targets, label_smoothing=smoothing)
    assert loss == pytest.approx(cross_entropy_naive(logits, targets, smoothing), rel=1e-12, abs=1e-14)
    assert count == (targets != -100).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_loss_and_gradient_agree_with_pytorch(torch, torch_vjp, assert_close, smoothing, ignored):
    logits, targets = draw(3, (4, 5), 7, ignored)

    def theirs(logits):
        return torch.nn.functional.cross_entropy(logits.reshape(-1, 7), torch.tensor(targets.reshape(-1)),
                                                 ignore_index=-100, label_smoothing=smoothing)

    (loss, _), cache = cross_entropy_forward(logits, targets, label_smoothing=smoothing)
    assert_close((loss, (cross_entropy_backward(1.7, cache),)), torch_vjp(theirs, np.float64(1.7), logits))


@given(seeds, shapes, widths, smoothings)
def test_backward_agrees_with_the_complex_step(seed, shape, V, smoothing):
    logits, targets = draw(seed, shape, V)
    check_gradients(lambda logits: cross_entropy_forward(logits, targets, label_smoothing=smoothing),
                    cross_entropy_backward, [logits], seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@given(seeds, shapes, widths, smoothings)
def test_each_row_of_the_gradient_sums_to_zero(seed, shape, V, smoothing):
    logits, targets = draw(seed, shape, V)
    d_logits = cross_entropy_backward(1.0, cross_entropy_forward(logits, targets, label_smoothing=smoothing)[1])
    np.testing.assert_allclose(d_logits.sum(axis=-1), 0, atol=1e-15 * V)


@given(seeds, widths, st.floats(-100, 100))
def test_the_loss_is_invariant_to_shift_of_a_row(seed, V, shift):
    logits, targets = draw(seed, (5,), V)
    (loss, _), cache = cross_entropy_forward(logits, targets)
    (shifted_loss, _), shifted_cache = cross_entropy_forward(logits + shift, targets)
    assert shifted_loss == pytest.approx(loss, rel=1e-11, abs=1e-13)
    np.testing.assert_allclose(cross_entropy_backward(1.0, shifted_cache), cross_entropy_backward(1.0, cache), atol=1e-13)


@given(seeds, st.integers(1, 5), st.integers(1, 5), smoothings)
def test_micro_batches_weighed_by_their_counts_are_the_one_batch(seed, first, second, smoothing):
    logits, targets = draw(seed, (first + second,), 4, ignored=0.5)
    parts = [(logits[:first], targets[:first]), (logits[first:], targets[first:])]
    (loss, count), cache = cross_entropy_forward(logits, targets, label_smoothing=smoothing)
    d_logits = cross_entropy_backward(1.0, cache)

    results = [cross_entropy_forward(*part, label_smoothing=smoothing) for part in parts]
    counts = [part_count for (_, part_count), _ in results]
    assert sum(counts) == count
    if count == 0:
        assert loss == 0
        return
    mean = sum(part_loss * part_count for (part_loss, part_count), _ in results) / count
    assert mean == pytest.approx(loss, rel=1e-13, abs=1e-15)
    d_parts = [cross_entropy_backward(part_count / count, cache) for part_count, (_, cache) in zip(counts, results, strict=True)]
    np.testing.assert_allclose(np.concatenate(d_parts), d_logits, rtol=1e-13, atol=1e-16)


@given(seeds, st.integers(2, 6), st.floats(0.01, 0.99))
def test_label_smoothing_is_a_mixture_with_the_mean_over_all_labels(seed, V, smoothing):
    logits, targets = draw(seed, (5,), V, ignored=0.2)

    def loss_and_gradient(targets, smoothing=0.0):
        (loss, _), cache = cross_entropy_forward(logits, targets, label_smoothing=smoothing)
        return loss, cross_entropy_backward(1.0, cache)

    loss, d_logits = loss_and_gradient(targets, smoothing)
    own_loss, d_own = loss_and_gradient(targets)
    every = [loss_and_gradient(np.where(targets == -100, -100, label)) for label in range(V)]
    mean_loss = sum(loss for loss, _ in every) / V
    d_mean = sum(d for _, d in every) / V
    assert loss == pytest.approx((1 - smoothing) * own_loss + smoothing * mean_loss, rel=1e-12)
    np.testing.assert_allclose(d_logits, (1 - smoothing) * d_own + smoothing * d_mean, atol=1e-14)


def test_equal_logits_cost_the_logarithm_of_the_vocabulary():
    (loss, count), _ = cross_entropy_forward(np.full((2, 3, 7), 4.2), np.arange(6).reshape(2, 3))
    assert count == 6
    assert loss == pytest.approx(math.log(7), rel=1e-15)


@given(seeds, smoothings)
def test_contents_of_ignored_rows_are_irrelevant(seed, smoothing):
    logits, targets = draw(seed, (4, 3), 5, ignored=0.5)
    spoiled = np.where((targets == -100)[..., None], np.nan, logits)
    (loss, count), cache = cross_entropy_forward(logits, targets, label_smoothing=smoothing)
    (spoiled_loss, spoiled_count), spoiled_cache = cross_entropy_forward(spoiled, targets, label_smoothing=smoothing)
    assert (spoiled_loss, spoiled_count) == (loss, count)
    d_logits = cross_entropy_backward(1.0, cache)
    np.testing.assert_array_equal(cross_entropy_backward(1.0, spoiled_cache), d_logits)
    assert (d_logits[targets == -100] == 0).all()


# ---------------------------------------------------------------------------------------------------- traps

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype):
    logits = np.array([[1e4, -1e4, 0], [0, 1e4, 1e4]], dtype)
    (loss, _), cache = cross_entropy_forward(logits, np.array([1, 2]))
    assert loss == pytest.approx((2e4 + math.log(2)) / 2)
    np.testing.assert_allclose(cross_entropy_backward(1.0, cache), [[0.5, -0.5, 0], [0, 0.25, -0.25]], atol=1e-7)


def test_rows_of_very_different_size_do_not_touch_each_other():
    logits = np.array([[2000.0, 1999.0], [-2000.0, -2001.0]])
    (loss, _), _ = cross_entropy_forward(logits, np.array([0, 0]))
    assert loss == pytest.approx(math.log1p(math.exp(-1)), rel=1e-12)


def test_a_forbidden_logit_of_minus_infinity_has_no_gradient():
    (loss, _), cache = cross_entropy_forward(np.array([[-np.inf, 0.0, 0.0]]), np.array([1]))
    assert loss == pytest.approx(math.log(2))
    np.testing.assert_allclose(cross_entropy_backward(1.0, cache), [[0, -0.5, 0.5]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [np.full((2, 3), -100), np.zeros((0, 3), int), np.zeros((2, 0), int)],
                         ids=["all ignored", "no sequence", "no position"])
def test_without_targets_loss_and_gradient_are_zero(smoothing, targets):
    (loss, count), cache = cross_entropy_forward(np.ones((*targets.shape, 4)), targets, label_smoothing=smoothing)
    assert (loss, count) == (0, 0)
    np.testing.assert_array_equal(cross_entropy_backward(1.0, cache), np.zeros((*targets.shape, 4)))


def test_any_label_can_be_the_one_to_ignore():
    logits, _ = draw(0, (3,), 4)
    (loss, count), cache = cross_entropy_forward(logits, np.array([0, 2, 0]), ignore_index=0)
    assert count == 1
    assert loss == cross_entropy_forward(logits[1:2], np.array([2]))[0][0]
    assert (cross_entropy_backward(1.0, cache)[[0, 2]] == 0).all()


def test_unsigned_labels_count():
    logits, _ = draw(0, (3,), 4)
    assert cross_entropy_forward(logits, np.array([3, 1, 0], np.uint8))[0] == cross_entropy_forward(logits, [3, 1, 0])[0]


def test_a_single_target_needs_no_axis():
    (loss, count), cache = cross_entropy_forward(np.zeros(4), np.int64(2))
    assert (loss, count) == (pytest.approx(math.log(4)), 1)
    np.testing.assert_allclose(cross_entropy_backward(1.0, cache), [0.25, 0.25, -0.75, 0.25])


@pytest.mark.parametrize(("targets", "message"), [
    ([0, 4], r"^cross_entropy: targets from 0 to 4, expected 0 to 3, or -100 to ignore"),
    ([-1, 2], r"^cross_entropy: targets from -1 to 2, expected 0 to 3, or -100 to ignore"),
    ([-100, -99], r"^cross_entropy: targets from -99 to -99, expected 0 to 3, or -100 to ignore"),
    ([0.0, 1.0], r"^cross_entropy: targets must be integers, got float64"),
    ([True, False], r"^cross_entropy: targets must be integers, got bool"),
    ([0, 1, 2], r"^cross_entropy: targets \[3\] do not fit logits \[2, 4\], expected \[...\] and \[..., V\]"),
])
def test_bad_targets_raise(targets, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy_forward(np.zeros((2, 4)), np.array(targets))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_bad_label_smoothing_raises(smoothing):
    with pytest.raises(ValueError, match=r"^cross_entropy: label_smoothing .*, expected 0 <= label_smoothing < 1"):
        cross_entropy_forward(np.zeros((2, 4)), np.array([0, 1]), label_smoothing=smoothing)


def test_logits_without_an_axis_of_labels_raise():
    with pytest.raises(ValueError, match=r"^cross_entropy: targets \[\] do not fit logits \[\], expected"):
        cross_entropy_forward(np.float64(0), np.int64(0))
