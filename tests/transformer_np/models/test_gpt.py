"""GPT: second opinions, theorems, traps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.embedding import embedding_backward
from transformer_np.gradcheck import check_layer, with_random_weights
from transformer_np.layer import count_parameters, map_arrays, named_arrays
from transformer_np.linear import linear_backward
from transformer_np.models.gpt import GPT

seeds = st.integers(0, 2**32 - 1)
positions_of_both_kinds = pytest.mark.parametrize("positions", ["learned", "sinusoidal"])


def random_gpt(seed, positions="learned", **settings):
    rng = np.random.default_rng(seed)
    settings = {"context": 6, "d_model": 4, "num_layers": 2, "num_heads": 2, **settings}
    return with_random_weights(GPT.create(5, positions=positions, rng=rng, **settings), rng)


def draw(seed, B=2, T=5):
    """tokens that repeat, and a cotangent of the logits."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, (B, T)), rng.standard_normal((B, T, 5))


# ---------------------------------------------------------------------------------------------------- derivatives

@pytest.mark.parametrize(("positions", "dropout"), [("learned", 0.3), ("sinusoidal", 0.0)])
def test_backward_agrees_with_the_complex_step(positions, dropout):
    check_layer(random_gpt(0, positions, dropout=dropout), [draw(0)[0]], rng_seed=3).raise_if_failed()


def test_each_block_has_its_own_settings():
    # here the number of heads: backward must meet the blocks in the order in which forward left their caches
    model = random_gpt(0)
    one_head = replace(model.blocks[0].self_attention.attention, num_heads=1)
    model.blocks[0] = replace(model.blocks[0], self_attention=replace(model.blocks[0].self_attention, attention=one_head))
    check_layer(model, [draw(0)[0]]).raise_if_failed()


# ---------------------------------------------------------------------------------------------------- theorems

@positions_of_both_kinds
@given(seeds, st.integers(0, 4))
def test_logits_do_not_depend_on_later_tokens(positions, seed, t):
    model = random_gpt(seed, positions)
    tokens, _ = draw(seed)
    changed = np.concatenate([tokens[:, :t + 1], 4 - tokens[:, t + 1:]], axis=1)
    np.testing.assert_allclose(model.forward(changed)[0][:, :t + 1], model.forward(tokens)[0][:, :t + 1], rtol=0, atol=1e-13)


@given(seeds, st.integers(1, 5))
def test_padding_after_a_sequence_does_not_change_its_logits(seed, length):
    model = random_gpt(seed)
    tokens, _ = draw(seed, T=6)
    whole, short = model.forward(tokens)[0], model.forward(tokens[:, :length])[0]
    np.testing.assert_allclose(whole[:, :length], short, rtol=0, atol=1e-12)


@given(seeds, st.integers(1, 4))
def test_ignored_padding_does_not_change_loss_or_gradient(seed, length):
    model = random_gpt(seed)
    tokens, _ = draw(seed)

    def loss_and_gradient(tokens, targets):
        logits, cache = model.forward(tokens)
        (loss, _), loss_cache = cross_entropy_forward(logits, targets)
        return loss, model.backward(cross_entropy_backward(1.0, loss_cache), cache)

    targets = 4 - tokens
    padded = np.where(np.arange(5) < length, targets, -100)
    loss, gradient = loss_and_gradient(tokens[:, :length], targets[:, :length])
    padded_loss, padded_gradient = loss_and_gradient(tokens, padded)
    assert padded_loss == pytest.approx(loss, rel=1e-12)
    for name, array in named_arrays(gradient).items():
        np.testing.assert_allclose(named_arrays(padded_gradient)[name], array, rtol=0, atol=1e-12, err_msg=name)


@given(seeds)
def test_the_gradient_of_the_tied_table_is_the_sum_of_both_uses(seed):
    model = random_gpt(seed)
    tokens, d_logits = draw(seed)
    _, cache = model.forward(tokens)
    gradient = model.backward(d_logits, cache)
    # as output table
    d_x, d_output_table, _ = linear_backward(d_logits, cache.output)
    # as input table
    d_x, _ = model.norm.backward(d_x, cache.norm)
    for block, block_cache in zip(reversed(model.blocks), reversed(cache.blocks), strict=True):
        d_x, _ = block.backward(d_x, block_cache)
    d_input_table = embedding_backward(d_x, cache.embedding)
    assert np.abs(d_input_table).max() > 0
    np.testing.assert_allclose(gradient.embedding.weight, d_input_table + d_output_table.T, rtol=0, atol=1e-12)


@given(seeds, st.permutations(range(3)))
def test_sequences_of_a_batch_are_on_their_own(seed, order):
    model = random_gpt(seed)
    tokens, _ = draw(seed, B=3)
    logits, _ = model.forward(tokens)
    np.testing.assert_allclose(model.forward(tokens[order])[0], logits[order], rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.forward(tokens[:1])[0], logits[:1], rtol=0, atol=1e-12)


@given(seeds)
def test_without_positions_the_last_logits_do_not_know_the_order_of_what_came_before(seed):
    # two layers of a causal model could tell; one layer sees a set
    model = random_gpt(seed, num_layers=1)
    model = replace(model, positions=map_arrays(np.zeros_like, model.positions))
    tokens, _ = draw(seed)
    permuted = np.concatenate([tokens[:, 3::-1], tokens[:, 4:]], axis=1)
    np.testing.assert_allclose(model.forward(permuted)[0][:, -1], model.forward(tokens)[0][:, -1], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------- traps

def test_two_forwards_then_two_backwards_in_either_order():
    model = random_gpt(0, dropout=0.2)
    rng = np.random.default_rng(0)
    batches = [draw(seed) for seed in (1, 2)]
    caches = [model.forward(tokens, rng=rng)[1] for tokens, _ in batches]
    in_order = [model.backward(d_logits, cache) for (_, d_logits), cache in zip(batches, caches, strict=True)]
    in_reverse = [model.backward(d_logits, cache) for (_, d_logits), cache in zip(batches[::-1], caches[::-1], strict=True)][::-1]
    for one, other in zip(in_order, in_reverse, strict=True):
        for name, array in named_arrays(one).items():
            np.testing.assert_array_equal(named_arrays(other)[name], array, err_msg=name)


@positions_of_both_kinds
@pytest.mark.parametrize(("B", "T"), [(0, 3), (2, 0), (0, 0), (1, 1)])
def test_small_and_empty_batches_work(positions, B, T):
    model = random_gpt(0, positions)
    logits, cache = model.forward(np.zeros((B, T), int))
    gradient = model.backward(np.ones_like(logits), cache)
    assert logits.shape == (B, T, 5)
    if B * T == 0:
        assert all((array == 0).all() for array in named_arrays(gradient).values())


def test_a_model_without_blocks_is_a_bigram_table():
    model = random_gpt(0, num_layers=0)
    tokens, d_logits = draw(0)
    logits, cache = model.forward(tokens)
    assert logits.shape == (2, 5, 5)
    assert model.backward(d_logits, cache).blocks == []


def test_sinusoidal_positions_go_beyond_the_context_and_learned_ones_do_not():
    tokens = np.zeros((1, 7), int)
    assert random_gpt(0, "sinusoidal").forward(tokens)[0].shape == (1, 7, 5)
    with pytest.raises(ValueError, match=r"^learned_positions: x has 7 positions, but there are weights for 6 only"):
        random_gpt(0).forward(tokens)


def test_a_new_model_starts_as_gpt_2_does():
    model = GPT.create(50, context=40, d_model=64, num_layers=8, num_heads=4, rng=np.random.default_rng(0))
    assert {array.dtype for array in named_arrays(model).values()} == {np.dtype(np.float32)}
    # V D + context D, and for each block 12 D^2 + 13 D, and the last norm
    assert count_parameters(model) == (50 + 40) * 64 + 8 * (12 * 64**2 + 13 * 64) + 2 * 64
    for name, array in named_arrays(model).items():
        if name.endswith("bias"):
            assert (array == 0).all()
        elif name.endswith("gain"):
            assert (array == 1).all()
        else:
            into_the_stream = "attention.output" in name or "contract" in name
            assert array.std() == pytest.approx(0.02 / 4 if into_the_stream else 0.02, rel=0.1), name
    (loss, _), _ = cross_entropy_forward(model.forward(np.zeros((1, 40), int))[0], np.ones((1, 40), int))
    assert loss == pytest.approx(np.log(50), rel=0.05)  # near the loss of a guess


def test_tokens_may_be_a_list():
    model = random_gpt(0)
    np.testing.assert_array_equal(model.forward([[0, 4, 1]])[0], model.forward(np.array([[0, 4, 1]]))[0])


def test_every_dropout_draws_with_a_generator_and_only_then(dropout_masks):
    model = random_gpt(0, dropout=0.4)
    tokens, _ = draw(0)
    drawn = dropout_masks(model.forward(tokens, rng=np.random.default_rng(1))[1])
    assert len(drawn) == 1 + 2 * 3                                              # of the input, and three in each block
    assert all((mask == 0).any() for mask in drawn)
    assert dropout_masks(model.forward(tokens)[1]) == [None] * 7


@pytest.mark.parametrize(("tokens", "message"), [
    (np.zeros(3, int), r"^GPT: tokens \[3\], expected \[B, T\]"),
    (np.zeros((1, 2, 3), int), r"^GPT: tokens \[1, 2, 3\], expected \[B, T\]"),
    (np.array([[0, 5]]), r"^embedding: ids from 0 to 5, expected 0 to 4"),
    (np.array([[-1, 2]]), r"^embedding: ids from -1 to 2, expected 0 to 4"),
    (np.zeros((1, 2)), r"^embedding: ids must be integers, got float64"),
])
def test_bad_tokens_raise(tokens, message):
    with pytest.raises(ValueError, match=message):
        random_gpt(0).forward(tokens)


def test_bad_settings_raise():
    settings = {"context": 4, "d_model": 4, "num_layers": 1, "num_heads": 2, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=r"^GPT: positions 'rotary', expected 'learned' or 'sinusoidal'"):
        GPT.create(5, **settings, positions="rotary")
    with pytest.raises(ValueError, match=r"^MultiHeadAttention: num_heads 3 does not divide d_model 4"):
        GPT.create(5, **{**settings, "num_heads": 3})
