"""The recurrent language model over each of its cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines_np import gradcheck_examples
from baselines_np.models.recurrent import RecurrentLanguageModel
from transformer_np.gradcheck import check_layer, with_random_weights
from transformer_np.layer import count_parameters, load, named_arrays, save

V, D, T = 7, 4, 6
cells = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])


def create(cell, *, num_layers=2, dropout=0.0, dtype=np.float64, seed=0):
    return RecurrentLanguageModel.create(V, cell=cell, d_model=D, num_layers=num_layers, rng=np.random.default_rng(seed),
                                         dropout=dropout, dtype=dtype)


def draw(seed, batch=2, steps=T):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (batch, steps)), rng.standard_normal((batch, steps, V))


def test_backward_agrees_with_the_complex_step():
    for example in gradcheck_examples.recurrent_language_model(np.random.default_rng(1)):
        example.check(1).raise_if_failed()


@cells
def test_logits_agree_with_the_layers_one_after_the_other(cell):
    model = create(cell)
    tokens, _ = draw(0)
    x = model.embedding.weight[tokens]
    for layer in model.cells:
        (x, _), _ = layer.forward(x)
    logits, _ = model.forward(tokens)
    np.testing.assert_allclose(logits, x @ model.output.weight + model.output.bias, rtol=1e-13)


@cells
@given(st.integers(0, 2**32 - 1), st.integers(1, T - 1))
def test_logits_do_not_depend_on_later_tokens(cell, seed, t):
    model = create(cell)
    tokens, _ = draw(seed)
    changed = tokens.copy()
    changed[:, t:] = (changed[:, t:] + 1) % V
    logits, changed_logits = model.forward(tokens)[0], model.forward(changed)[0]
    np.testing.assert_array_equal(changed_logits[:, :t], logits[:, :t])
    assert (changed_logits[:, t] != logits[:, t]).any()


def test_cells_of_different_kinds_may_be_stacked():
    rng = np.random.default_rng(0)
    model = create("rnn")
    model.cells[1] = create("lstm").cells[1]
    check_layer(with_random_weights(model, rng), [draw(0)[0]]).raise_if_failed()


def test_tokens_may_be_a_list():
    model = create("gru")
    np.testing.assert_array_equal(model.forward([[0, 6, 1]])[0], model.forward(np.array([[0, 6, 1]]))[0])


@cells
def test_parameters_are_counted(cell):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    own = 2 * (gates * (2 * D * D + D) + (D if cell == "gru" else 0))
    assert count_parameters(create(cell)) == V * D + own + D * V + V


@cells
def test_dropout_is_drawn_between_layers_only_while_training(dropout_masks, cell):
    model = create(cell, dropout=0.5)
    tokens, _ = draw(0)
    logits, cache = model.forward(tokens, rng=np.random.default_rng(3))
    again, _ = model.forward(tokens, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(again, logits)
    assert (logits != model.forward(tokens)[0]).any()
    np.testing.assert_array_equal(model.forward(tokens)[0], create(cell).forward(tokens)[0])
    assert len(cache.dropouts) == 3                                             # below, between and above two layers
    assert all((mask == 0).any() for mask in dropout_masks(cache))


@cells
@pytest.mark.parametrize(("batch", "steps"), [(0, T), (2, 0), (1, 1)])
def test_empty_and_single_sequences_work(cell, batch, steps):
    model = create(cell, dtype=np.float32)
    tokens, d_logits = draw(0, batch, steps)
    logits, cache = model.forward(tokens)
    gradient = model.backward(d_logits.astype(np.float32), cache)
    assert logits.shape == (batch, steps, V)
    assert logits.dtype == np.float32
    for name, array in named_arrays(gradient).items():
        assert array.dtype == np.float32
        assert array.shape == named_arrays(model)[name].shape
        assert batch * steps or not array.any()


@cells
def test_a_saved_model_is_loaded_with_the_same_logits(cell, tmp_path):
    model, other = create(cell), create(cell, seed=1)
    save(model, tmp_path / "model.npz")
    tokens, _ = draw(0)
    np.testing.assert_array_equal(load(other, tmp_path / "model.npz").forward(tokens)[0], model.forward(tokens)[0])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"^RecurrentLanguageModel: cell 'elman', expected one of rnn, gru, lstm"):
        create("elman")
    with pytest.raises(ValueError, match=r"^RecurrentLanguageModel: num_layers 0, expected at least 1"):
        create("rnn", num_layers=0)
    with pytest.raises(ValueError, match=r"^RecurrentLanguageModel: dropout 1.0, expected 0 <= dropout < 1"):
        create("rnn", dropout=1.0)
    with pytest.raises(ValueError, match=r"^RecurrentLanguageModel: tokens \[3\], expected \[B, T\]"):
        create("rnn").forward(np.zeros(3, int))
    with pytest.raises(ValueError, match=r"ids from 0 to 7, expected 0 to 6"):
        create("rnn").forward(np.array([[0, 7]]))
