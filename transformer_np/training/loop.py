"""One step of training, and the loop around it.

    model, state, report = train_step(model, optimizer, state, tokens, targets, learning_rate=1e-3, clip_norm=1.0)

The loop goes from one `TrainingState` to the next. A state is never changed, and holds everything that the steps after it
depend on: when it is saved and loaded, training goes on to the same numbers, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.errors import InputError
from transformer_np.layer import Array, Layer, add
from transformer_np.training.clipping import clip_by_global_norm
from transformer_np.training.optimizers import SGD, AdamW
from transformer_np.training.progress import Progress


@dataclass(frozen=True)
class StepReport:
    loss: float              # mean over the targets that count, before the step
    count: int               # how many targets that is
    gradient_norm: float     # before clipping


def train_step(model: Any, optimizer: AdamW | SGD, state: Any, tokens: Array, targets: Array, *, learning_rate: float,
               clip_norm: float | None = None, rng: np.random.Generator | None = None) -> tuple[Any, Any, StepReport]:
    """Forward, backward, clip, step.

    model: anything with `forward(tokens, rng=)` to logits [B, T, V] and `backward(d_logits, cache)`.   tokens, targets: [B, T].
    clip_norm: longest gradient; None for no limit.   rng: draws dropout; None means none.
    Returns the new model, the new state of the optimizer, and a report.
    """
    loss, count, gradient = loss_and_gradient(model, [(tokens, targets)], rng=rng)
    gradient, norm = clip_by_global_norm(gradient, math.inf if clip_norm is None else clip_norm)
    model, state = optimizer.step(model, gradient, state, learning_rate)
    return model, state, StepReport(loss, count, norm)


def loss_and_gradient(model: Any, micro_batches: Iterable[tuple[Array, Array]], *, ignore_index: int = -100,
                      rng: np.random.Generator | None = None) -> tuple[float, int, Any]:
    """Mean loss over every target that counts in a batch, and its gradient, one part of the batch in memory at a time.

        loss = sum_m n_m loss_m / sum_m n_m         n_m: targets that count in micro-batch m

    A plain mean over micro-batches would give a target more weight the fewer targets there are beside it.
    micro_batches: pairs of tokens [B, T] and targets [B, T], each of its own B and T.   Returns loss, count and gradient.
    Raises ValueError if there are none.
    """
    micro_batches = list(micro_batches)
    if not micro_batches:
        raise ValueError("loss_and_gradient: no micro-batches, expected one or more pairs of tokens and targets")
    total = sum(int(np.count_nonzero(np.asarray(targets) != ignore_index)) for _, targets in micro_batches)
    mean, gradient = 0.0, None
    for tokens, targets in micro_batches:
        logits, cache = model.forward(tokens, rng=rng)
        (loss, count), loss_cache = cross_entropy_forward(logits, targets, ignore_index=ignore_index)
        share = count / max(total, 1)
        mean += share * float(loss)
        part = model.backward(cross_entropy_backward(share, loss_cache), cache)
        gradient = part if gradient is None else add(gradient, part)
    return mean, total, gradient


def mean_loss(model: Any, tokens: Array, targets: Array, *, batch: int) -> float:
    """Mean loss over the targets that count, without dropout, `batch` rows at a time.   tokens, targets: [N, T]."""
    total, counted = 0.0, 0
    for start in range(0, len(tokens), batch):
        logits, _ = model.forward(tokens[start:start + batch])
        (loss, count), _ = cross_entropy_forward(logits, targets[start:start + batch])
        total += count * float(loss)
        counted += count
    return total / max(counted, 1)


@dataclass(frozen=True, repr=False, eq=False)
class TrainingState(Layer):
    """Where a training run stands after a step. A tree of arrays (the model's, the optimizer's) and of plain values."""

    model: Layer
    optimizer: Layer                 # the state of the optimizer
    rng: Mapping[str, Any]           # the state of the random generator: the data and dropout still to be drawn
    step: int = 0
    summed_loss: float = 0.0         # over the steps since the last evaluation
    history: tuple[tuple[int, float, float], ...] = ()  # step, mean training loss since the one before, validation loss


def train(state: TrainingState, optimizer: AdamW | SGD, *, steps: int, draw: Callable[[np.random.Generator], tuple[Array, Array]],
          learning_rate: Callable[[int], float], clip_norm: float | None, evaluate: Callable[[Any], float], every: int,
          save: Callable[[TrainingState], None], progress: Progress) -> TrainingState:
    """Train until `steps` steps are taken, those before `state` included. Returns the last state.

    draw: from a random generator to tokens and targets, [B, T].   learning_rate: from the steps taken to the rate of the next.
    evaluate: from a model to its validation loss; it and `save` are called every `every` steps, and after the last.
    Ctrl-C saves the state after the last complete step, then raises KeyboardInterrupt again, saying so. Raises InputError
    when loss or gradient are not finite any more; the state saved last is from before that.
    """
    rng = np.random.default_rng()
    rng.bit_generator.state = state.rng
    evaluated = state.history[-1][0] if state.history else 0
    try:
        while state.step < steps:
            tokens, targets = draw(rng)
            with np.errstate(over="ignore", invalid="ignore"):  # when training diverges, the next lines say so
                model, optimizer_state, report = train_step(
                    state.model, optimizer, state.optimizer, tokens, targets,
                    learning_rate=learning_rate(state.step), clip_norm=clip_norm, rng=rng)
            step, summed_loss, history = state.step + 1, state.summed_loss + report.loss, state.history
            if not (math.isfinite(report.loss) and math.isfinite(report.gradient_norm)):
                raise InputError(f"training diverged at step {step}: loss {report.loss}, gradient norm {report.gradient_norm}; "
                                 "choose a smaller learning rate")
            training_loss = summed_loss / (step - evaluated)
            due = step % every == 0 or step == steps
            if due:
                validation_loss = evaluate(model)
                summed_loss, history, evaluated = 0.0, (*history, (step, training_loss, validation_loss)), step
            # one assignment: an interruption finds the state before the step or the state after it
            state = TrainingState(model, optimizer_state, rng.bit_generator.state, step, summed_loss, history)
            progress.advance(tokens.size, training_loss)
            if due:
                save(state)
                progress.note(f"step {step}: training loss {training_loss:.4f}, validation loss {validation_loss:.4f}, "
                              f"{validation_loss / math.log(2):.3f} bits per character")
    except KeyboardInterrupt:
        save(state)
        raise KeyboardInterrupt(f"interrupted; step {state.step} is saved, and the same command goes on from there") from None
    return state
