"""Optimizers: AdamW, and stochastic gradient descent with momentum.

An optimizer holds settings only. What it remembers between steps is a tree like the model, passed in and handed back, so
that it is saved, loaded and averaged by the functions that save, load and average a model:

    optimizer = AdamW(weight_decay=0.1)
    state = optimizer.create_state(model)
    model, state = optimizer.step(model, gradient, state, learning_rate=1e-3)

A step returns a new model and a new state; it writes into none of its arguments. Weight decay falls on arrays with two axes
or more (the matrices, embeddings and kernels), never on biases and on the gains of norms: pulling those to 0 does not
simplify the function, and a gain is meant to stay near 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from transformer_np.layer import AnyLayer, Array, Layer, map_arrays


@dataclass(repr=False, eq=False)
class AdamWState(Layer):
    mean: Layer              # a tree like the model: moving average of the gradient
    square: Layer            # a tree like the model: moving average of the squared gradient
    step: Array              # [], steps taken so far; an array, so that it is saved with the others


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

        t      = t + 1
        mean   = beta_1 mean + (1 - beta_1) g
        square = beta_2 square + (1 - beta_2) g^2
        w      = w - rate decay w - rate (mean / (1 - beta_1^t)) / (sqrt(square / (1 - beta_2^t)) + eps)

    Both averages start at 0, so the first of them are too small; 1 - beta^t is by how much. t is 1 in the first step: with 0
    the division would be by 0, with any other t the first steps would have the wrong length. eps stands outside the root.

    Kingma and Ba 2015, "Adam", algorithm 1; Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"AdamW: betas {self.betas}, expected two numbers in [0, 1)")
        if not self.eps > 0:
            raise ValueError(f"AdamW: eps {self.eps}, expected a positive number")
        if not self.weight_decay >= 0:
            raise ValueError(f"AdamW: weight_decay {self.weight_decay}, expected 0 or more")

    def create_state(self, model: Layer) -> AdamWState:
        return AdamWState(map_arrays(np.zeros_like, model), map_arrays(np.zeros_like, model), np.array(0))

    def step(self, model: AnyLayer, gradient: AnyLayer, state: AdamWState, learning_rate: float) -> tuple[AnyLayer, AdamWState]:
        """Returns the new model and the new state. Raises ValueError if the three trees do not match."""
        rate = float(learning_rate)  # a NumPy float64 would promote float32 weights
        beta_1, beta_2 = self.betas
        t = int(state.step) + 1

        def moved_mean(mean: Array, g: Array) -> Array:
            moved = beta_1 * mean
            moved += (1 - beta_1) * g
            return moved

        def moved_square(square: Array, g: Array) -> Array:
            moved = g * g
            moved *= 1 - beta_2
            moved += beta_2 * square
            return moved

        def moved_weight(weight: Array, mean: Array, square: Array) -> Array:
            denominator = np.sqrt(square)
            denominator /= math.sqrt(1 - beta_2**t)  # sqrt(square / c) = sqrt(square) / sqrt(c): one division, by a number
            denominator += self.eps
            change = mean / denominator
            change *= rate / (1 - beta_1**t)
            moved = weight * (1 - rate * self.weight_decay) if decays(weight) else weight
            return moved - change

        mean = map_arrays(moved_mean, state.mean, gradient)
        square = map_arrays(moved_square, state.square, gradient)
        return map_arrays(moved_weight, model, mean, square), AdamWState(mean, square, np.array(t))


@dataclass(repr=False, eq=False)
class SGDState(Layer):
    velocity: Layer          # a tree like the model: decaying sum of the gradients


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum.

        velocity = momentum velocity + g + decay w
        w        = w - rate velocity

    The decay is the L2 penalty, part of the gradient: unlike AdamW's it is carried on by the momentum. This is PyTorch's SGD.

    Polyak 1964, "Some methods of speeding up the convergence of iteration methods", in the form of Sutskever et al. 2013,
    "On the importance of initialization and momentum in deep learning", section 2, with the rate outside the velocity.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"SGD: momentum {self.momentum}, expected a number in [0, 1)")
        if not self.weight_decay >= 0:
            raise ValueError(f"SGD: weight_decay {self.weight_decay}, expected 0 or more")

    def create_state(self, model: Layer) -> SGDState:
        return SGDState(map_arrays(np.zeros_like, model))

    def step(self, model: AnyLayer, gradient: AnyLayer, state: SGDState, learning_rate: float) -> tuple[AnyLayer, SGDState]:
        """Returns the new model and the new state. Raises ValueError if the three trees do not match."""
        rate = float(learning_rate)  # a NumPy float64 would promote float32 weights

        def moved_velocity(velocity: Array, g: Array, weight: Array) -> Array:
            moved = self.momentum * velocity
            moved += g
            if decays(weight):
                moved += self.weight_decay * weight
            return moved

        velocity = map_arrays(moved_velocity, state.velocity, gradient, model)
        return map_arrays(lambda weight, v: weight - rate * v, model, velocity), SGDState(velocity)


def decays(weight: Array) -> bool:
    """Whether weight decay falls on this array: a matrix, not a bias or a gain."""
    return weight.ndim >= 2
