"""Calls grow so that they stay calls: masks, labels, lengths and gates with their axes; and tiles are crossed."""

import numpy as np
import pytest

from transformer_np.gradcheck import check_against
from transformer_np.gradcheck.against import references
from transformer_np.gradcheck.kernels.larger import larger_calls

REFERENCES = references()


def grown(pair, case="", size=150, seed=0):
    """The larger calls of an example, by what has grown."""
    (example,) = [example for example in REFERENCES[pair] if example.name == (f"{pair} ({case})" if case else pair)]
    return dict(larger_calls(example.call, size, seed))


@pytest.mark.parametrize("pair", REFERENCES)
def test_every_pair_grows_along_several_axes(pair):
    calls = grown(pair)
    assert len(calls) >= 2
    for call in calls.values():
        assert max(max(np.shape(value), default=0) for value in call.inputs) >= 137


def test_every_length_of_attention_grows_alone_and_queries_grow_with_keys():
    alone = {f"{axis} = 150" for axis in ("q.shape[0]", "q.shape[1]", "q.shape[2]", "q.shape[3]", "k.shape[2]", "v.shape[3]")}
    assert alone < set(grown("attention"))
    q, k, v, mask = grown("attention", "mask")["q.shape[2] = 150, k.shape[2] = 137"].inputs
    assert (q.shape, k.shape, v.shape, mask.shape) == ((2, 3, 150, 5), (2, 3, 137, 5), (2, 3, 137, 7), (2, 3, 150, 137))


def test_a_causal_mask_stays_causal():
    mask = grown("attention", "causal")["q.shape[2] = 150, k.shape[2] = 137"].inputs[3]
    np.testing.assert_array_equal(mask, np.tri(150, 137, 137 - 150, dtype=bool))


def test_a_mask_keeps_empty_rows_and_hides_whole_tiles_and_single_keys():
    mask = grown("attention", "mask")["q.shape[2] = 150, k.shape[2] = 137"].inputs[3]
    assert not mask[0, 0, :37].any()
    tiles = mask[..., :112].reshape(-1, 7, 16).sum(axis=-1)
    assert (tiles == 0).any() and ((tiles > 0) & (tiles < 16)).any()


def test_nan_stays_behind_its_mask():
    _, k, v, mask = grown("attention", "NaN behind the mask")["k.shape[2] = 150"].inputs
    hidden = np.isnan(k[0, 0]).any(axis=-1)
    assert hidden.sum() == 25 and not mask[:, hidden].any() and np.isnan(v[0, 0, hidden]).all()


def test_numbers_are_drawn_anew_with_their_mean_and_spread():
    (small,) = [example for example in REFERENCES["softmax"] if example.name == "softmax (large mean)"]
    x = grown("softmax", "large mean")["x.shape[2] = 150"].inputs[0]
    assert len(np.unique(x)) == x.size
    assert x.mean() == pytest.approx(small.call.inputs[0].mean(), abs=1) and 0.5 < x.std() / small.call.inputs[0].std() < 2
    np.testing.assert_array_equal(x, grown("softmax", "large mean")["x.shape[2] = 150"].inputs[0])
    assert not np.array_equal(x, grown("softmax", "large mean", seed=1)["x.shape[2] = 150"].inputs[0])


def test_ids_reach_into_every_tile_and_still_repeat():
    ids, weight = grown("embedding")["weight.shape[0] = 150"].inputs
    assert len(weight) == 150 and ids.max() > 6
    ids, _ = grown("embedding")["ids.shape[0] = 150, ids.shape[1] = 137"].inputs
    assert ids.shape == (150, 137) and set(np.unique(ids)) <= set(range(7))


def test_labels_keep_those_that_are_ignored():
    logits, targets = grown("cross_entropy")["logits.shape[1] = 150, logits.shape[2] = 137"].inputs
    assert logits.shape == (2, 150, 137) and targets.shape == (2, 150)
    assert (targets == -100).any() and 120 < targets.max() < 137 and targets[targets != -100].min() >= 0


def test_lengths_grow_with_the_time_and_with_the_batch():
    call = grown("lstm", "lengths")["x.shape[1] = 150"]
    assert call.settings["lengths"].tolist() == [0, 30, 150, 90]
    call = grown("lstm", "lengths")["x.shape[0] = 150"]
    assert call.settings["lengths"].shape == (150,) and set(call.settings["lengths"]) == {0, 1, 3, 5}


def test_what_cannot_grow_alone_grows_with_another_in_proportion():
    assert grown("lstm")["weight_h.shape[0] = 150, weight_x.shape[1] = 600"].inputs[2].shape == (150, 600)
    assert grown("learned_positions")["x.shape[1] = 150, weight.shape[0] = 200"].inputs[1].shape == (200, 5)
    assert grown("convolution_1d")["weight.shape[0] = 150, x.shape[1] = 450"].inputs[0].shape == (2, 450, 4)


def test_two_axes_at_once_stay_small_enough_for_memory():
    assert {"x.shape[2] = 1000", "x.shape[1] = 300, x.shape[2] = 273"} < set(grown("softmax", size=1000))


def test_a_size_that_is_no_larger_gives_no_calls():
    assert grown("softmax", size=2) == {}
    assert {check.name for check in check_against("relu", relu, relu_gradient, larger=0).checks}.isdisjoint({"longer axes"})


def relu(x):
    return np.maximum(x, 0), x > 0


def relu_gradient(d_y, positive):
    return d_y * positive


def only_whole_tiles(d_y, positive):
    d_x = relu_gradient(d_y, positive)
    whole = d_x.shape[-1] // 128 * 128
    d_x[..., whole:] *= whole == 0
    return d_x


@pytest.mark.parametrize("larger, ok", [(0, True), (100, True), (150, False)])
def test_a_last_tile_that_is_forgotten_shows_where_a_tile_is_full(larger, ok):
    assert check_against("relu", relu, only_whole_tiles, larger=larger).ok is ok


def plain_loop_sum(x, weight, bias=None):
    """A product whose sums are added up one after another, in float32."""
    y = np.zeros((*x.shape[:-1], weight.shape[-1]), x.dtype)
    for index in range(x.shape[-1]):
        y += x[..., index, None] * weight[index]
    return (y if bias is None else y + bias), (x, weight, bias)


def plain_gradients(d_y, cache):
    x, weight, bias = cache
    d_weight = np.tensordot(x, d_y, (range(x.ndim - 1), range(x.ndim - 1)))
    return d_y @ weight.T, d_weight, None if bias is None else d_y.sum(axis=tuple(range(x.ndim - 1)))


@pytest.mark.parametrize("larger", [150, 3000])
def test_a_plain_loop_is_no_fault_in_a_long_sum(larger):
    report = check_against("linear", plain_loop_sum, plain_gradients, profile="float32", larger=larger)
    assert report.ok, str(report)
