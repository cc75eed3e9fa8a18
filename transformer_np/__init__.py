"""The Transformer in NumPy, every backward pass written by hand.

One concept is one file, and the files have an order to be read in:

    layer                   a layer is a tree of arrays, and its gradient is a layer
    softmax, cross_entropy, linear, embedding, normalization, activations, dropout
    masks, positional_encoding, attention, feed_forward
    blocks, models.gpt      sublayers and blocks; a whole language model
    training                optimizers, schedules, clipping, the loop, checkpoints
    decoding                from a trained model to text
    gradcheck               is a backward pass right? For this library's pairs, and for yours

The unit is a pair of functions:

    y, cache = layer_norm_forward(x, gain, bias)
    d_x, d_gain, d_bias = layer_norm_backward(d_y, cache)
"""

from transformer_np.activations import (
    gelu_backward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    relu_backward,
    relu_forward,
    sigmoid_backward,
    sigmoid_forward,
    tanh_backward,
    tanh_forward,
)
from transformer_np.attention import MultiHeadAttention, attention_backward, attention_forward
from transformer_np.blocks import DecoderBlock, EncoderBlock
from transformer_np.cross_entropy import cross_entropy_backward, cross_entropy_forward
from transformer_np.dropout import dropout_backward, dropout_forward
from transformer_np.embedding import Embedding, embedding_backward, embedding_forward
from transformer_np.feed_forward import FeedForward
from transformer_np.layer import Layer, add, count_parameters, load, map_arrays, named_arrays, save
from transformer_np.linear import Linear, linear_backward, linear_forward
from transformer_np.masks import causal_mask, combine_masks, padding_mask
from transformer_np.models.gpt import GPT
from transformer_np.normalization import LayerNorm, layer_norm_backward, layer_norm_forward
from transformer_np.positional_encoding import (
    LearnedPositions,
    SinusoidalPositions,
    learned_positions_backward,
    learned_positions_forward,
    sinusoidal_positions_backward,
    sinusoidal_positions_forward,
    sinusoidal_table,
)
from transformer_np.softmax import log_softmax_backward, log_softmax_forward, softmax_backward, softmax_forward

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "DecoderBlock",
    "Embedding",
    "EncoderBlock",
    "FeedForward",
    "Layer",
    "LayerNorm",
    "LearnedPositions",
    "Linear",
    "MultiHeadAttention",
    "SinusoidalPositions",
    "add",
    "attention_backward",
    "attention_forward",
    "causal_mask",
    "combine_masks",
    "count_parameters",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "gelu_backward",
    "gelu_forward",
    "gelu_tanh_backward",
    "gelu_tanh_forward",
    "layer_norm_backward",
    "layer_norm_forward",
    "learned_positions_backward",
    "learned_positions_forward",
    "linear_backward",
    "linear_forward",
    "load",
    "log_softmax_backward",
    "log_softmax_forward",
    "map_arrays",
    "named_arrays",
    "padding_mask",
    "relu_backward",
    "relu_forward",
    "save",
    "sigmoid_backward",
    "sigmoid_forward",
    "sinusoidal_positions_backward",
    "sinusoidal_positions_forward",
    "sinusoidal_table",
    "softmax_backward",
    "softmax_forward",
    "tanh_backward",
    "tanh_forward",
]
