"""What holds for every recurrent cell: RNN, GRU with the reset after and before the product, LSTM."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines_np import gradcheck_examples
from baselines_np.gru import (
    GRU,
    gru_reset_before_step_backward,
    gru_reset_before_step_forward,
    gru_step_backward,
    gru_step_forward,
)
from baselines_np.lstm import LSTM, lstm_step_backward, lstm_step_forward
from baselines_np.recurrence import orthogonal
from baselines_np.rnn import RNN, rnn_step_backward, rnn_step_forward
from transformer_np.gradcheck import check_layer, with_random_weights
from transformer_np.layer import add, named_arrays

seeds = st.integers(0, 2**32 - 1)
CELLS = {
    "rnn": RNN.create,
    "gru": GRU.create,
    "gru_reset_before": lambda *sizes, **settings: GRU.create(*sizes, reset_after=False, **settings),
    "lstm": LSTM.create,
}
cells = pytest.mark.parametrize("cell", CELLS)

B, T, D_IN, D = 4, 5, 3, 2
LENGTHS = np.array([0, 1, 5, 3])


def create(cell, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    layer = with_random_weights(CELLS[cell](D_IN, D, rng=rng), rng)
    return layer if dtype == np.float64 else type(layer)(*(
        value.astype(dtype) if isinstance(value, np.ndarray) else value for value in vars(layer).values()))


def random_state(cell, rng, batch=B, dtype=np.float64):
    """As the layer takes it: an array, or h and c."""
    arrays = tuple(rng.standard_normal((batch, D)).astype(dtype) for _ in range(2 if cell == "lstm" else 1))
    return arrays if cell == "lstm" else arrays[0]


def flat(state):
    return state if isinstance(state, tuple) else (state,)


def draw(cell, seed, steps=T, batch=B):
    """x, the first state, and the cotangents of y and of the last state."""
    rng = np.random.default_rng(seed)
    x, d_y = rng.standard_normal((batch, steps, D_IN)), rng.standard_normal((batch, steps, D))
    return x, random_state(cell, rng, batch), d_y, random_state(cell, rng, batch)


def run(layer, x, state, d_y, d_state, lengths=None):
    """Values and gradients in one dictionary."""
    (y, last), cache = layer.forward(x, state, lengths)
    d_x, d_first, d_layer = layer.backward((d_y, d_state), cache)
    return {"y": y, "last": flat(last), "d_x": d_x, "d_first": flat(d_first), **named_arrays(d_layer)}


# ---------------------------------------------------------------------------------------------------- the complex step

EXAMPLES = [example for subject in (gradcheck_examples.rnn, gradcheck_examples.gru, gradcheck_examples.lstm)
            for example in subject(np.random.default_rng(1))]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_every_backward_agrees_with_the_complex_step(example):
    example.check(1).raise_if_failed()


@cells
@given(seeds, st.integers(1, 3), st.integers(1, 4), st.data())
def test_backward_agrees_with_the_complex_step_for_every_shape_and_length(cell, seed, batch, steps, data):
    x, state, _, _ = draw(cell, seed, steps, batch)
    lengths = np.array(data.draw(st.lists(st.integers(0, steps), min_size=batch, max_size=batch)))
    check_layer(create(cell, seed), [x, state, lengths], seed=seed).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

def step_pair(cell, layer):
    """The step of a cell as (projected, state) -> (state, cache), and its backward, with the weights left out."""
    if cell == "lstm":
        return (lambda projected, state: lstm_step_forward(projected, *state, layer.weight_h),
                lambda d_state, cache: _regroup(lstm_step_backward(d_state, cache)))
    if cell == "rnn":
        return lambda projected, state: rnn_step_forward(projected, state, layer.weight_h), rnn_step_backward
    if cell == "gru":
        return lambda projected, state: gru_step_forward(projected, state, layer.weight_h, layer.bias_h), gru_step_backward
    return (lambda projected, state: gru_reset_before_step_forward(projected, state, layer.weight_h),
            gru_reset_before_step_backward)


def _regroup(gradients):
    d_projected, d_h, d_c, d_weight_h = gradients
    return d_projected, (d_h, d_c), d_weight_h


@cells
@given(seeds)
def test_sequence_of_steps_equals_one_call(assert_close, cell, seed):
    layer = create(cell, seed)
    x, first, d_y, d_last = draw(cell, seed)
    step_forward, step_backward = step_pair(cell, layer)
    state, y, caches = first, [], []
    for t in range(T):
        state, cache = step_forward(x[:, t] @ layer.weight_x + layer.bias, state)
        y.append(flat(state)[0])
        caches.append(cache)
    d_x, d_state = np.zeros_like(x), d_last
    d_weights = {name: np.zeros_like(weight) for name, weight in named_arrays(layer).items()}
    for t in reversed(range(T)):
        d_h, *rest = flat(d_state)
        d_h = d_h + d_y[:, t]
        d_projected, d_state, *d_own = step_backward((d_h, *rest) if rest else d_h, caches[t])
        d_x[:, t] = d_projected @ layer.weight_x.T
        d_weights["weight_x"] += x[:, t].T @ d_projected
        d_weights["bias"] += d_projected.sum(axis=0)
        for name, d_weight in zip(("weight_h", "bias_h"), d_own, strict=False):
            d_weights[name] += d_weight
    by_steps = {"y": np.stack(y, axis=1), "last": flat(state), "d_x": d_x, "d_first": flat(d_state), **d_weights}
    assert_close(run(layer, x, first, d_y, d_last), by_steps, 1e-13)


@cells
@given(seeds, st.integers(0, T))
def test_splitting_a_sequence_in_two_calls_equals_one_call(assert_close, cell, seed, cut):
    layer = create(cell, seed)
    x, first, d_y, d_last = draw(cell, seed)
    (early, between), early_cache = layer.forward(x[:, :cut], first)
    (late, last), late_cache = layer.forward(x[:, cut:], between)
    d_x_late, d_between, d_layer_late = layer.backward((d_y[:, cut:], d_last), late_cache)
    d_x_early, d_first, d_layer_early = layer.backward((d_y[:, :cut], d_between), early_cache)
    in_two = {"y": np.concatenate([early, late], axis=1), "last": flat(last),
              "d_x": np.concatenate([d_x_early, d_x_late], axis=1), "d_first": flat(d_first),
              **named_arrays(add(d_layer_early, d_layer_late))}
    assert_close(run(layer, x, first, d_y, d_last), in_two, 1e-13)


@cells
@given(seeds, st.lists(st.integers(0, T), min_size=B, max_size=B))
def test_a_padded_batch_equals_its_sequences_one_by_one(assert_close, cell, seed, lengths):
    layer = create(cell, seed)
    x, first, d_y, d_last = draw(cell, seed)
    together = run(layer, x, first, d_y, d_last, lengths)
    alone = [run(layer, x[[b], :length], pick(first, b), d_y[[b], :length], pick(d_last, b)) for b, length in enumerate(lengths)]
    for b, (length, own) in enumerate(zip(lengths, alone, strict=True)):
        assert_close(together["y"][[b], :length], own["y"], 1e-13)
        assert_close(together["d_x"][[b], :length], own["d_x"], 1e-13)
        assert_close(tuple(array[[b]] for array in together["last"]), own["last"], 1e-13)
        assert_close(tuple(array[[b]] for array in together["d_first"]), own["d_first"], 1e-13)
        assert (together["y"][b, length:] == 0).all()
        assert (together["d_x"][b, length:] == 0).all()
    for name in named_arrays(layer):
        assert_close(together[name], sum(own[name] for own in alone), 1e-12)


def pick(state, b):
    return tuple(array[[b]] for array in state) if isinstance(state, tuple) else state[[b]]


@cells
@given(seeds)
def test_contents_of_padded_steps_are_irrelevant(cell, seed):
    layer = create(cell, seed)
    x, first, d_y, d_last = draw(cell, seed)
    padded = np.arange(T) >= LENGTHS[:, None]
    rubbish = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 1e300], (B, T, 1))
    spoiled_x, spoiled_d_y = (np.where(padded[..., None], rubbish, array) for array in (x, d_y))
    clean = run(layer, x, first, d_y, d_last, LENGTHS)
    spoiled = run(layer, spoiled_x, first, spoiled_d_y, d_last, LENGTHS)
    for name in clean:
        np.testing.assert_array_equal(spoiled[name], clean[name])


@cells
def test_the_state_of_a_sequence_of_length_zero_and_its_gradient_pass_untouched(cell):
    x, first, d_y, d_last = draw(cell, 0)
    got = run(create(cell), x, first, d_y, d_last, LENGTHS)
    for before, after in zip(flat(first) + flat(d_last), got["last"] + got["d_first"], strict=True):
        np.testing.assert_array_equal(after[0], before[0])


@cells
@given(seeds, st.integers(0, T - 1))
def test_gradient_to_the_future_is_zero(cell, seed, t):
    layer = create(cell, seed)
    x, first, d_y, _ = draw(cell, seed)
    d_y = np.where(np.arange(T)[:, None] == t, d_y, 0)
    d_x = run(layer, x, first, d_y, None)["d_x"]
    assert (d_x[:, t + 1:] == 0).all()
    assert (d_x[:, :t + 1] != 0).all()


@cells
def test_no_state_is_a_state_of_zeros_without_a_gradient(cell):
    layer = create(cell)
    x, first, d_y, d_last = draw(cell, 0)
    zeros = tuple(np.zeros_like(array) for array in first) if cell == "lstm" else np.zeros_like(first)
    (y, last), cache = layer.forward(x)
    d_x, d_first, d_layer = layer.backward((d_y, d_last), cache)
    got = {"y": y, "last": flat(last), "d_x": d_x, **named_arrays(d_layer)}
    assert d_first is None
    expected = run(layer, x, zeros, d_y, d_last)
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name])


@cells
def test_no_gradient_of_the_last_state_is_a_gradient_of_zero(cell):
    layer = create(cell)
    x, first, d_y, d_last = draw(cell, 0)
    zeros = tuple(np.zeros_like(array) for array in d_last) if cell == "lstm" else np.zeros_like(d_last)
    got, expected = run(layer, x, first, d_y, None), run(layer, x, first, d_y, zeros)
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name])


# ---------------------------------------------------------------------------------------------------- traps

@cells
def test_an_empty_sequence_gives_back_the_state(cell):
    x, first, d_y, d_last = draw(cell, 0, steps=0)
    got = run(create(cell), x, first, d_y, d_last, np.zeros(B, int))
    assert got["y"].shape == (B, 0, D)
    assert got["d_x"].shape == (B, 0, D_IN)
    for before, after in zip(flat(first) + flat(d_last), got["last"] + got["d_first"], strict=True):
        np.testing.assert_array_equal(after, before)
    assert all((got[name] == 0).all() for name in named_arrays(create(cell)))


@cells
def test_an_empty_batch_gives_an_empty_result(cell):
    x, first, d_y, d_last = draw(cell, 0, batch=0)
    got = run(create(cell), x, first, d_y, d_last, np.zeros(0, int))
    assert got["y"].shape == (0, T, D)
    assert got["d_x"].shape == (0, T, D_IN)
    assert all((got[name] == 0).all() for name in named_arrays(create(cell)))


@cells
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_gates_neither_overflow_nor_warn(cell, dtype):
    layer = create(cell, dtype=dtype)
    x, first, d_y, _ = draw(cell, 0)
    x = 800 * np.sign(x).astype(dtype)
    state = tuple(array.astype(dtype) for array in first) if cell == "lstm" else first.astype(dtype)
    got = run(layer, x, state, d_y.astype(dtype), None, LENGTHS)
    for name in got:
        for array in flat(got[name]):
            assert np.isfinite(array).all()
            assert array.dtype == dtype
    # what a saturated gate lets through is 0 or 1, and a tanh is at most 1
    assert (np.abs(got["y"]) <= (T if cell == "lstm" else 1) + np.abs(first).max()).all()


@cells
def test_y_has_the_dtype_that_inputs_and_weights_promote_to(cell):
    x, first, _, _ = (tuple(array.astype(np.float32) for array in flat(part)) for part in draw(cell, 0))
    weights = {name: weight.astype(np.float32) for name, weight in named_arrays(create(cell)).items()}

    def dtype_of_y(x, first, weights):
        (y, _), _ = replace(create(cell), **weights).forward(x, first if cell == "lstm" else first[0])
        return y.dtype

    assert dtype_of_y(x[0], first, weights) == np.float32
    assert dtype_of_y(x[0].astype(np.float64), first, weights) == np.float64
    for index, array in enumerate(first):
        assert dtype_of_y(x[0], (*first[:index], array.astype(np.float64), *first[index + 1:]), weights) == np.float64
    for name, weight in weights.items():
        assert dtype_of_y(x[0], first, weights | {name: weight.astype(np.float64)}) == np.float64, name


@cells
def test_layout_and_writability_do_not_matter(cell):
    layer = create(cell)
    x, first, d_y, d_last = draw(cell, 0)
    expected = run(layer, x, first, d_y, d_last, LENGTHS)
    reversed_view = np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    fortran = np.asfortranarray(d_y)
    for array in (reversed_view, fortran, *flat(first), *flat(d_last)):
        array.flags.writeable = False
    got = run(layer, reversed_view, first, fortran, d_last, LENGTHS)
    for name in got:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-12, atol=1e-14)


@cells
def test_the_repr_of_a_cache_shows_shapes(cell):
    x, first, _, _ = draw(cell, 0, steps=1)
    _, cache = create(cell).forward(x, first, [0, 1, 1, 0])
    assert "real=bool[4, 1, 1]" in repr(cache)


# ---------------------------------------------------------------------------------------------------- first weights

@given(st.integers(1, 6), seeds)
def test_orthogonal_keeps_lengths(size, seed):
    q = orthogonal(size, rng=np.random.default_rng(seed))
    np.testing.assert_allclose(q @ q.T, np.eye(size), atol=1e-13)


def test_orthogonal_is_uniform():
    # of a uniform rotation of the plane every entry is the cosine of a uniform angle: mean 0, variance 1/2. QR as it comes from
    # the library has a first column with one sign only.
    rng = np.random.default_rng(0)
    entries = np.array([orthogonal(2, rng=rng) for _ in range(2000)])           # [2000, 2, 2]
    assert (np.abs(entries.mean(axis=0)) < 0.08).all()                          # 5 standard errors
    assert (np.abs((entries ** 2).mean(axis=0) - 0.5) < 0.04).all()


@cells
def test_create_gives_orthogonal_recurrent_weights_and_the_dtype_asked_for(cell):
    layer = CELLS[cell](3, 8, rng=np.random.default_rng(0))
    assert {array.dtype for array in named_arrays(layer).values()} == {np.dtype(np.float32)}
    for block in np.split(layer.weight_h, layer.weight_h.shape[1] // 8, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-6)
    double = CELLS[cell](3, 8, rng=np.random.default_rng(0), dtype=np.float64)
    np.testing.assert_allclose(double.weight_x, layer.weight_x, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- bad input

@cells
def test_wrong_shapes_are_named(cell):
    layer = create(cell)
    name = cell.split("_")[0]
    columns = {"rnn": "D", "gru": "3 D", "lstm": "4 D"}[name]
    x, first, _, _ = draw(cell, 0)
    for bad, message in [(x[0], rf"^{name}: x \[5, 3\], expected \[B, T, D_in\]"),
                         (x[..., :2], rf"^{name}: weight_x \[3, .*\], expected \[2, \d\]: \[D_in, {columns}\]$")]:
        with pytest.raises(ValueError, match=message):
            layer.forward(bad)
    with pytest.raises(ValueError, match=rf"^{name}: h_0 \[3, 2\], expected \[4, 2\]: \[B, D\]"):
        layer.forward(x, (first[0][:3], first[1]) if cell == "lstm" else first[:3])
    for bad in (layer.weight_h[:, 1:], layer.weight_h[..., None], layer.weight_h[0]):
        with pytest.raises(ValueError, match=rf"^{name}: weight_h \[\d.*\], expected \[D, {columns}\]$"):
            replace(layer, weight_h=bad).forward(x)
    layer.bias = layer.bias[1:]
    with pytest.raises(ValueError, match=rf"^{name}: bias \[\d\], expected \[\d\]: \[{columns}\]$"):
        layer.forward(x)


@cells
@pytest.mark.parametrize(("lengths", "message"), [
    ([1, 2, 3], r"^{name}: lengths \[3\], expected \[4\]: one for each sequence of x"),
    ([[1], [2], [3], [4]], r"^{name}: lengths \[4, 1\], expected \[4\]"),
    ([1, 2, 3, 6], "lengths.*expected 0 to 5"),
    ([1, 2, -1, 3], "lengths.*expected 0 to 5"),
    ([1.0, 2.0, 3.0, 4.0], "lengths float64"),
])
def test_bad_lengths_are_named(cell, lengths, message):
    with pytest.raises(ValueError, match=message.replace("{name}", cell.split("_")[0])):
        create(cell).forward(np.zeros((B, T, D_IN)), None, lengths)


@pytest.mark.parametrize(("forward", "blocks", "states"), [
    (rnn_step_forward, 1, ["h"]), (gru_reset_before_step_forward, 3, ["h"]), (lstm_step_forward, 4, ["h", "c"]),
])
def test_wrong_shapes_of_a_step_are_named(forward, blocks, states):
    name = forward.__name__.removesuffix("_forward")
    projected, weight_h, good = np.zeros((B, blocks * D)), np.zeros((D, blocks * D)), [np.zeros((B, D)) for _ in states]
    columns = "D" if blocks == 1 else f"{blocks} D"
    for bad in (projected[:, 0], projected[:, 1:], projected[..., None]):
        with pytest.raises(ValueError, match=rf"^{name}: projected \[4.*\], expected \[B, {blocks * D}\]: \[B, {columns}\]$"):
            forward(bad, *good, weight_h)
    for bad in (weight_h[0], weight_h[:, 1:], weight_h[..., None]):
        with pytest.raises(ValueError, match=rf"^{name}: weight_h \[\d.*\], expected \[D, {columns}\]$"):
            forward(projected, *good, bad)
    for index, state in enumerate(states):
        bad = [np.zeros((B, D + 1)) if other == index else array for other, array in enumerate(good)]
        with pytest.raises(ValueError, match=rf"^{name}: {state} \[4, 3\], expected \[4, 2\]: \[B, D\]"):
            forward(projected, *bad, weight_h)
