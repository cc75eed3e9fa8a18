"""A step of training, and the loop: what it computes, and that stopping changes nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest

from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.errors import InputError
from transformer_np.layer import map_arrays, named_arrays
from transformer_np.models.gpt import GPT
from transformer_np.training.loop import TrainingState, loss_and_gradient, mean_loss, train, train_step
from transformer_np.training.optimizers import SGD, AdamW
from transformer_np.training.progress import Progress

OPTIMIZER = AdamW(weight_decay=0.1)


def small_gpt(dropout=0.0, dtype=np.float64):
    rng = np.random.default_rng(0)
    return GPT.create(7, context=6, d_model=8, num_layers=2, num_heads=2, dropout=dropout, rng=rng, dtype=dtype)


def batch_with_ignored_targets(rows=5):
    rng = np.random.default_rng(1)
    tokens, targets = rng.integers(0, 7, (rows, 6)), rng.integers(0, 7, (rows, 6))
    targets[0, 1:] = -100                                       # one row counts 1 target, one none, the others 6
    targets[1] = -100
    return tokens, targets


def assert_trees_equal(a, b, **tolerance):
    for name, array in named_arrays(a).items():
        if tolerance:
            np.testing.assert_allclose(named_arrays(b)[name], array, err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(named_arrays(b)[name], array, err_msg=name)


def test_a_step_is_forward_backward_clip_and_step_written_out():
    model, optimizer = small_gpt(), SGD()
    tokens, targets = batch_with_ignored_targets()
    moved, _, report = train_step(model, optimizer, optimizer.create_state(model), tokens, targets,
                                  learning_rate=0.5, clip_norm=0.01)
    logits, cache = model.forward(tokens)
    (loss, count), loss_cache = cross_entropy_forward(logits, targets)
    gradient = model.backward(cross_entropy_backward(1.0, loss_cache), cache)
    norm = math.sqrt(sum((g**2).sum() for g in named_arrays(gradient).values()))
    assert (report.loss, report.count) == (loss, count)
    assert report.gradient_norm == pytest.approx(norm, rel=1e-12) and norm > 0.01
    assert_trees_equal(moved, map_arrays(lambda w, g: w - 0.5 * 0.01 / norm * g, model, gradient), rtol=1e-12)


def test_dropout_is_drawn_from_the_generator_and_only_from_it():
    model = small_gpt(dropout=0.5)
    tokens, targets = batch_with_ignored_targets()
    state = OPTIMIZER.create_state(model)
    losses = [train_step(model, OPTIMIZER, state, tokens, targets, learning_rate=0.1, rng=rng)[2].loss
              for rng in (None, None, np.random.default_rng(3), np.random.default_rng(3), np.random.default_rng(4))]
    assert losses[0] == losses[1] and losses[2] == losses[3]
    assert len(set(losses)) == 3


def test_micro_batches_of_unequal_token_counts_give_the_mean_over_all_targets():
    model = small_gpt()
    tokens, targets = batch_with_ignored_targets()
    whole_loss, whole_count, whole = loss_and_gradient(model, [(tokens, targets)])
    parts = [(tokens[:1], targets[:1]), (tokens[1:2], targets[1:2]), (tokens[2:], targets[2:])]  # 1, 0 and 18 targets
    loss, count, gradient = loss_and_gradient(model, iter(parts))
    assert count == whole_count == 19
    assert loss == pytest.approx(whole_loss, rel=1e-12)
    assert_trees_equal(gradient, whole, rtol=1e-10, atol=1e-15)


def test_a_plain_mean_over_micro_batches_is_told_apart():
    model = small_gpt()
    tokens, targets = batch_with_ignored_targets()
    right, _, _ = loss_and_gradient(model, [(tokens, targets)])
    losses = [loss_and_gradient(model, [(tokens[rows], targets[rows])])[0] for rows in (slice(0, 1), slice(2, None))]
    assert abs(sum(losses) / 2 - right) > 1e-4


def test_micro_batches_without_targets_give_zero_and_no_micro_batches_are_refused():
    model = small_gpt()
    tokens, targets = batch_with_ignored_targets()
    loss, count, gradient = loss_and_gradient(model, [(tokens[1:2], targets[1:2])] * 2)
    assert (loss, count) == (0.0, 0)
    assert all((array == 0).all() for array in named_arrays(gradient).values())
    with pytest.raises(ValueError, match="no micro-batches"):
        loss_and_gradient(model, [])


@pytest.mark.parametrize("batch", [1, 2, 5, 9])
def test_mean_loss_is_the_same_for_every_batch_size(batch):
    model = small_gpt(dropout=0.5)
    tokens, targets = batch_with_ignored_targets()
    (expected, _), _ = cross_entropy_forward(model.forward(tokens)[0], targets)
    assert mean_loss(model, tokens, targets, batch=batch) == pytest.approx(float(expected), rel=1e-12)


class Silent(Progress):
    def note(self, text):
        pass


def first_state(dtype=np.float32):
    model = small_gpt(dropout=0.1, dtype=dtype)
    return TrainingState(model, OPTIMIZER.create_state(model), np.random.default_rng(5).bit_generator.state)


def draw(rng):
    tokens = rng.integers(0, 7, (3, 6))
    return tokens, (tokens + 1) % 7


def train_on(state, steps, *, draw=draw, evaluate=lambda model: float(model.norm.gain.sum()), save=lambda state: None, rate=1e-2):
    return train(state, OPTIMIZER, steps=steps, draw=draw, learning_rate=lambda step: rate * (1 + step) / 10, clip_norm=1.0,
                 evaluate=evaluate, every=4, save=save, progress=Silent(steps, state.step))


def assert_states_equal(a, b):
    assert_trees_equal(a, b)
    assert (a.step, a.rng, a.summed_loss, a.history) == (b.step, b.rng, b.summed_loss, b.history)


def test_the_loop_learns_and_keeps_a_history():
    saved = []
    state = train_on(first_state(), 30, save=saved.append)
    assert [step for step, _, _ in state.history] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert [s.step for s in saved] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert saved[-1] is state
    assert state.history[-1][1] < state.history[0][1] - 0.2


def test_the_training_loss_of_the_history_is_the_mean_since_the_evaluation_before():
    state, losses = first_state(), []
    rng = np.random.default_rng()
    rng.bit_generator.state = state.rng
    model, optimizer_state = state.model, state.optimizer
    for step in range(6):
        model, optimizer_state, report = train_step(model, OPTIMIZER, optimizer_state, *draw(rng), rng=rng, clip_norm=1.0,
                                                    learning_rate=1e-2 * (1 + step) / 10)
        losses.append(report.loss)
    history = train_on(state, 6).history
    assert [row[1] for row in history] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-12)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stopping_and_going_on_is_not_stopping_bit_for_bit(stop):
    saved = []
    with pytest.raises(KeyboardInterrupt, match=f"step {stop} is saved"):
        train_on(first_state(), 10, save=saved.append, draw=interrupted_after(stop))
    assert saved[-1].step == stop
    assert_states_equal(train_on(saved[-1], 10), train_on(first_state(), 10))


def interrupted_after(steps):
    left = iter(range(steps))

    def draw_or_stop(rng):
        batch = draw(rng)                                       # the generator moves on, as it does in a step cut short
        if next(left, None) is None:
            raise KeyboardInterrupt
        return batch

    return draw_or_stop


def test_an_interruption_during_evaluation_saves_the_step_before():
    def evaluate(model):
        raise KeyboardInterrupt

    saved = []
    with pytest.raises(KeyboardInterrupt, match="step 3 is saved"):
        train_on(first_state(), 10, save=saved.append, evaluate=evaluate)
    assert_states_equal(train_on(saved[-1], 10), train_on(first_state(), 10))


def test_a_state_is_not_changed_by_training():
    state = first_state()
    before = {name: array.copy() for name, array in named_arrays(state).items()}, state.rng.copy()
    for array in named_arrays(state).values():
        array.setflags(write=False)
    train_on(state, 3)
    assert state.step == 0 and state.rng == before[1]
    for name, array in named_arrays(state).items():
        np.testing.assert_array_equal(array, before[0][name])


def test_a_finished_state_is_handed_back():
    state = replace(first_state(), step=10)
    assert train_on(state, 10) is state


def test_training_that_diverges_is_an_error_and_saves_nothing():
    saved = []
    with pytest.raises(InputError, match=r"training diverged at step \d: .* choose a smaller learning rate"):
        train_on(first_state(), 8, rate=1e38, save=saved.append)
    assert all(np.isfinite(array).all() for state in saved for array in named_arrays(state.model).values())
