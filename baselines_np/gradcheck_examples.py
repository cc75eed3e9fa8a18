"""What the gradient checker checks of this package: at least one example of every pair and of every layer.

`transformer_np.gradcheck.examples` says what an example is. All sizes differ and are above 1, the states do not start at 0, and
among the lengths are 0, 1, T and one between.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from baselines_np.convolution import Convolution1D, convolution_1d_backward, convolution_1d_forward
from baselines_np.gru import (
    GRU,
    gru_backward,
    gru_forward,
    gru_reset_before_step_backward,
    gru_reset_before_step_forward,
    gru_step_backward,
    gru_step_forward,
)
from baselines_np.lstm import LSTM, lstm_backward, lstm_forward, lstm_step_backward, lstm_step_forward
from baselines_np.models.recurrent import RecurrentLanguageModel
from baselines_np.models.tcn import (
    CausalConvolution,
    ResidualBlock,
    TemporalConvolutionalNetwork,
    spatial_dropout_backward,
    spatial_dropout_forward,
)
from baselines_np.rnn import RNN, rnn_backward, rnn_forward, rnn_step_backward, rnn_step_forward
from baselines_np.weight_norm import weight_norm_backward, weight_norm_forward
from transformer_np.gradcheck import Example, layer_example, pair_example, with_random_weights
from transformer_np.layer import Array

B, T, D_IN, D = 4, 5, 3, 2
LENGTHS = np.array([0, 1, 5, 3])


def rnn(rng: np.random.Generator) -> Iterator[Example]:
    x, h = rng.standard_normal((B, T, D_IN)), rng.standard_normal((B, D))
    layer = with_random_weights(RNN.create(D_IN, D, rng=rng), rng)
    weights = (layer.weight_x, layer.weight_h, layer.bias)
    yield pair_example(rnn_step_forward, rnn_step_backward, rng.standard_normal((B, D)), h, layer.weight_h)
    yield pair_example(rnn_forward, rnn_backward, x, *weights, h)
    yield pair_example(rnn_forward, rnn_backward, x, *weights, h, case="lengths", lengths=LENGTHS)
    yield layer_example(layer, x, h, LENGTHS)
    yield layer_example(layer, x, None, LENGTHS, case="no state")


def gru(rng: np.random.Generator) -> Iterator[Example]:
    x, h, projected = rng.standard_normal((B, T, D_IN)), rng.standard_normal((B, D)), rng.standard_normal((B, 3 * D))
    after = with_random_weights(GRU.create(D_IN, D, rng=rng), rng)
    before = with_random_weights(GRU.create(D_IN, D, rng=rng, reset_after=False), rng)
    yield pair_example(gru_step_forward, gru_step_backward, projected, h, after.weight_h, after.bias_h)
    yield pair_example(gru_reset_before_step_forward, gru_reset_before_step_backward, projected, h, before.weight_h)
    for layer, case in ((after, ""), (before, "reset before")):
        weights = (layer.weight_x, layer.weight_h, layer.bias, layer.bias_h)
        with_lengths = f"{case}, lengths" if case else "lengths"
        yield pair_example(gru_forward, gru_backward, x, *weights, h, case=case, reset_after=layer.reset_after)
        yield pair_example(gru_forward, gru_backward, x, *weights, h, case=with_lengths, reset_after=layer.reset_after,
                           lengths=LENGTHS)
        yield layer_example(layer, x, h, LENGTHS, case=case)
    yield layer_example(after, x, None, LENGTHS, case="no state")


def lstm(rng: np.random.Generator) -> Iterator[Example]:
    x, h, c = rng.standard_normal((B, T, D_IN)), rng.standard_normal((B, D)), rng.standard_normal((B, D))
    layer = with_random_weights(LSTM.create(D_IN, D, rng=rng), rng)
    weights = (layer.weight_x, layer.weight_h, layer.bias)
    yield pair_example(lstm_step_forward, lstm_step_backward, rng.standard_normal((B, 4 * D)), h, c, layer.weight_h)
    yield pair_example(lstm_forward, lstm_backward, x, *weights, h, c)
    yield pair_example(lstm_forward, lstm_backward, x, *weights, h, c, case="lengths", lengths=LENGTHS)
    yield layer_example(layer, x, (h, c), LENGTHS)
    yield layer_example(layer, x, None, LENGTHS, case="no state")


def convolution_1d(rng: np.random.Generator) -> Iterator[Example]:
    x = rng.standard_normal((2, 9, 4))
    plain, grouped, depthwise = (rng.standard_normal(shape) for shape in ((3, 4, 6), (3, 2, 6), (3, 1, 8)))
    bias = rng.standard_normal(6)
    pair = convolution_1d_forward, convolution_1d_backward
    yield pair_example(*pair, x, plain, bias)
    yield pair_example(*pair, x, plain, None, case="no bias")
    yield pair_example(*pair, x, plain, bias, case="stride does not divide", stride=4)
    yield pair_example(*pair, x, plain, bias, case="dilation, padding", dilation=2, padding=(3, 1))
    yield pair_example(*pair, x, grouped, bias, case="groups, same", groups=2, padding="same", stride=2)
    yield pair_example(*pair, x, depthwise, None, case="depthwise, causal", groups=4, padding="causal")
    yield pair_example(*pair, x, rng.standard_normal((2, 4, 3)), None, case="even kernel, same", padding="same")
    layer = with_random_weights(Convolution1D.create(4, 6, 3, rng=rng, stride=2, padding="causal", dilation=2, groups=2), rng)
    yield layer_example(layer, x)


def weight_norm(rng: np.random.Generator) -> Iterator[Example]:
    yield pair_example(weight_norm_forward, weight_norm_backward, rng.standard_normal((3, 2, 4)), rng.standard_normal(4))


def spatial_dropout(rng: np.random.Generator) -> Iterator[Example]:
    x = rng.standard_normal((2, 5, 3))
    yield pair_example(spatial_dropout_forward, spatial_dropout_backward, x, p=0.4, rng_seed=3)


def temporal_convolutional_network(rng: np.random.Generator) -> Iterator[Example]:
    x = rng.standard_normal((2, 7, 4))
    yield layer_example(with_random_weights(CausalConvolution.create(4, 3, 2, dilation=3, rng=rng), rng), x)
    yield layer_example(with_random_weights(ResidualBlock.create(4, 3, 2, dilation=2, rng=rng, dropout=0.3), rng), x, rng_seed=3)
    yield layer_example(with_random_weights(ResidualBlock.create(4, 4, 3, dilation=2, rng=rng), rng), x, case="equal widths")
    model = TemporalConvolutionalNetwork.create(6, d_model=4, num_layers=2, kernel_size=2, rng=rng, dropout=0.2)
    yield layer_example(with_random_weights(model, rng), _tokens(), rng_seed=3)


def recurrent_language_model(rng: np.random.Generator) -> Iterator[Example]:
    for cell in ("rnn", "gru", "lstm"):
        model = RecurrentLanguageModel.create(6, cell=cell, d_model=3, num_layers=2, rng=rng, dropout=0.2)
        yield layer_example(with_random_weights(model, rng), _tokens(), case=cell, rng_seed=3)


def _tokens() -> Array:
    """[2, 7]: ids repeat, and 3 is missing."""
    return np.array([[0, 5, 1, 1, 4, 0, 2], [2, 4, 4, 0, 5, 1, 1]])
