"""The temporal convolutional network: residual blocks of causal, dilated convolutions.

Bai, Kolter and Koltun 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling",
section 3. What position t has seen is exactly its receptive field: the tokens t - R + 1 to t, and nothing before them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from baselines_np.convolution import Convolution1DCache, convolution_1d_backward, convolution_1d_forward
from baselines_np.weight_norm import WeightNormCache, weight_norm_backward, weight_norm_forward
from transformer_np.activations import ReluCache, relu_backward, relu_forward
from transformer_np.dropout import DropoutCache, dropout_backward, dropout_forward
from transformer_np.embedding import Embedding, EmbeddingCache
from transformer_np.layer import Array, Cache, Layer
from transformer_np.linear import Linear, LinearCache


def spatial_dropout_forward(x: Array, p: float, rng: np.random.Generator | None = None) -> tuple[Array, DropoutCache]:
    """Dropout of whole channels: neighbouring places say much the same, so dropping single numbers would hide little.

        y_btc = x_btc keep_bc           keep = 0 with probability p, else 1 / (1 - p)

    x: [B, T, C].   p: 0 <= p < 1.   rng: draws `keep`; None means evaluation: y = x.   Returns y: [B, T, C].
    Tompson et al. 2015, "Efficient Object Localization Using Convolutional Networks", section 3.2.
    """
    ones = np.ones((x.shape[0], 1, x.shape[2]), x.real.dtype)                   # [B, 1, C]
    _, cache = dropout_forward(ones, p, rng)
    y = x if cache.keep is None else x * cache.keep                             # [B, T, C]
    return y, cache


def spatial_dropout_backward(d_y: Array, cache: DropoutCache) -> Array:
    """Gradient of `spatial_dropout_forward`.   d_x = d_y * keep, one number for all places of a channel.

    d_y: [B, T, C].   Returns d_x: [B, T, C].
    """
    # y = x * keep
    return dropout_backward(d_y, cache)                                         # [B, T, C]


@dataclass(frozen=True, repr=False, eq=False)
class CausalConvolutionCache(Cache):
    weight_norm: WeightNormCache
    convolution: Convolution1DCache


@dataclass(repr=False, eq=False)
class CausalConvolution(Layer):
    """A causal, dilated convolution whose weights are normalized: y_t sees x_t, x_{t - dilation}, x_{t - 2 dilation}, ..."""

    direction: Array         # [K, C_in, C_out]
    gain: Array              # [C_out]
    bias: Array              # [C_out]
    dilation: int

    @classmethod
    def create(cls, d_in: int, d_out: int, kernel_size: int, *, dilation: int, rng: np.random.Generator, gain: float = 1.0,
               dtype: type = np.float32) -> CausalConvolution:
        """Random directions, gains `gain`, biases 0: inputs of unit variance give outputs of standard deviation `gain`."""
        std = 1 / math.sqrt(kernel_size * d_in)
        direction: Array = (std * rng.standard_normal((kernel_size, d_in, d_out))).astype(dtype)
        return cls(direction, np.full(d_out, gain, dtype), np.zeros(d_out, dtype), dilation)

    def forward(self, x: Array) -> tuple[Array, CausalConvolutionCache]:        # x: [B, T, C_in]
        weight, weight_norm = weight_norm_forward(self.direction, self.gain)    # [K, C_in, C_out]
        y, convolution = convolution_1d_forward(x, weight, self.bias, padding="causal", dilation=self.dilation)
        return y, CausalConvolutionCache(weight_norm, convolution)              # [B, T, C_out]

    def backward(self, d_y: Array, cache: CausalConvolutionCache) -> tuple[Array, CausalConvolution]:
        # y = convolution(x, weight, bias)
        d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache.convolution)
        # weight = weight_norm(direction, gain)
        d_direction, d_gain = weight_norm_backward(d_weight, cache.weight_norm)
        return d_x, replace(self, direction=d_direction, gain=d_gain, bias=d_bias)  # type: ignore[arg-type]  # it has a bias


@dataclass(frozen=True, repr=False, eq=False)
class ResidualBlockCache(Cache):
    first: CausalConvolutionCache
    first_relu: ReluCache
    first_dropout: DropoutCache
    second: CausalConvolutionCache
    second_relu: ReluCache
    second_dropout: DropoutCache
    skip: LinearCache | None
    relu: ReluCache


@dataclass(repr=False, eq=False)
class ResidualBlock(Layer):
    """Two convolutions beside a connection that skips them.

        a = dropout(relu(conv_1(x))),   b = dropout(relu(conv_2(a))),   y = relu(b + skip(x))

    skip is the identity, or a 1x1 convolution, which is a linear map, where the widths differ. Bai et al. 2018, figure 1 (b).
    """

    first: CausalConvolution     # [K, D_in, D_out]
    second: CausalConvolution    # [K, D_out, D_out]
    skip: Linear | None          # [D_in, D_out]
    dropout: float = 0.0

    @classmethod
    def create(cls, d_in: int, d_out: int, kernel_size: int, *, dilation: int, rng: np.random.Generator, gain: float = 1.0,
               dropout: float = 0.0, dtype: type = np.float32) -> ResidualBlock:
        """gain: of the second convolution at the start, so of what the block adds to its input."""
        first = CausalConvolution.create(d_in, d_out, kernel_size, dilation=dilation, rng=rng, dtype=dtype)
        second = CausalConvolution.create(d_out, d_out, kernel_size, dilation=dilation, rng=rng, gain=gain, dtype=dtype)
        skip = None if d_in == d_out else Linear.create(d_in, d_out, rng=rng, dtype=dtype)
        return cls(first, second, skip, dropout)

    def forward(self, x: Array, *, rng: np.random.Generator | None = None) -> tuple[Array, ResidualBlockCache]:
        """x: [B, T, D_in].   rng: draws dropout; None means none.   Returns y: [B, T, D_out]."""
        # 1. the first convolution
        a, first = self.first.forward(x)                                        # [B, T, D_out]
        a, first_relu = relu_forward(a)                                         # [B, T, D_out]
        a, first_dropout = spatial_dropout_forward(a, self.dropout, rng)        # [B, T, D_out]
        # 2. the second
        b, second = self.second.forward(a)                                      # [B, T, D_out]
        b, second_relu = relu_forward(b)                                        # [B, T, D_out]
        b, second_dropout = spatial_dropout_forward(b, self.dropout, rng)       # [B, T, D_out]
        # 3. past both of them
        kept, skip = (x, None) if self.skip is None else self.skip.forward(x)   # [B, T, D_out]
        # 4. together
        y, relu = relu_forward(b + kept)                                        # [B, T, D_out]
        return y, ResidualBlockCache(first, first_relu, first_dropout, second, second_relu, second_dropout, skip, relu)

    def backward(self, d_y: Array, cache: ResidualBlockCache) -> tuple[Array, ResidualBlock]:
        """d_y: [B, T, D_out].   Returns d_x [B, T, D_in] and the gradient of the weights."""
        # 4. y = relu(b + kept)
        d_sum = relu_backward(d_y, cache.relu)                                  # [B, T, D_out]
        # 3. kept = skip(x)
        if self.skip is None:
            d_x, d_skip = d_sum, None                                           # [B, T, D_in]
        else:
            d_x, d_skip = self.skip.backward(d_sum, cache.skip)  # type: ignore[arg-type]  # [B, T, D_in]
        # 2. b = dropout(relu(conv(a)))
        d_b = spatial_dropout_backward(d_sum, cache.second_dropout)             # [B, T, D_out]
        d_b = relu_backward(d_b, cache.second_relu)                             # [B, T, D_out]
        d_a, d_second = self.second.backward(d_b, cache.second)                 # [B, T, D_out]
        # 1. a = dropout(relu(conv(x)))        x is used twice, so its gradients add
        d_a = spatial_dropout_backward(d_a, cache.first_dropout)                # [B, T, D_out]
        d_a = relu_backward(d_a, cache.first_relu)                              # [B, T, D_out]
        d_x_through, d_first = self.first.backward(d_a, cache.first)            # [B, T, D_in]
        return d_x + d_x_through, replace(self, first=d_first, second=d_second, skip=d_skip)


@dataclass(frozen=True, repr=False, eq=False)
class TemporalConvolutionalNetworkCache(Cache):
    embedding: EmbeddingCache
    blocks: list[ResidualBlockCache]
    output: LinearCache


@dataclass(repr=False, eq=False)
class TemporalConvolutionalNetwork(Layer):
    """Embedding, L residual blocks of dilation 1, 2, 4, ..., and a linear map to the logits.

        x^0 = embedding(tokens),   x^l = block_l(x^{l-1}) with dilation 2^{l-1},   logits = x^L W + b
    """

    embedding: Embedding             # [V, D]
    blocks: list[ResidualBlock]      # D to D each
    output: Linear                   # [D, V]

    @classmethod
    def create(cls, vocab_size: int, *, d_model: int, num_layers: int, kernel_size: int, rng: np.random.Generator,
               dropout: float = 0.0, dtype: type = np.float32) -> TemporalConvolutionalNetwork:
        """Embeddings of unit variance, and blocks whose gain is 1 / sqrt(L) at the start, since L of them add up (Bai et al.
        start them near 0). Raises ValueError if there is no layer, the kernel is empty, or dropout is not in [0, 1)."""
        if num_layers < 1:
            raise ValueError(f"TemporalConvolutionalNetwork: num_layers {num_layers}, expected at least 1")
        if kernel_size < 1:
            raise ValueError(f"TemporalConvolutionalNetwork: kernel_size {kernel_size}, expected at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"TemporalConvolutionalNetwork: dropout {dropout}, expected 0 <= dropout < 1")
        embedding = Embedding.create(vocab_size, d_model, rng=rng, std=1.0, dtype=dtype)
        gain = 1 / math.sqrt(num_layers)
        blocks = [ResidualBlock.create(d_model, d_model, kernel_size, dilation=2 ** level, rng=rng, gain=gain, dropout=dropout,
                                       dtype=dtype) for level in range(num_layers)]
        return cls(embedding, blocks, Linear.create(d_model, vocab_size, rng=rng, dtype=dtype))

    @property
    def receptive_field(self) -> int:
        """How many tokens a position sees, itself included: 1 + 2 (K - 1) (2^L - 1), two convolutions in each block."""
        kernel_size = self.blocks[0].first.direction.shape[0]
        return 1 + 2 * (kernel_size - 1) * (2 ** len(self.blocks) - 1)

    def forward(self, tokens: Array, rng: np.random.Generator | None = None) -> tuple[Array, TemporalConvolutionalNetworkCache]:
        """tokens: [B, T], integers.   rng: draws dropout; None means none.   Returns logits: [B, T, V]."""
        tokens = np.asarray(tokens)
        if tokens.ndim != 2:
            raise ValueError(f"TemporalConvolutionalNetwork: tokens {list(tokens.shape)}, expected [B, T]")
        # 1. tokens to vectors
        x, embedding = self.embedding.forward(tokens)                           # [B, T, D]
        # 2. each block sees twice as far as the one below
        blocks = []
        for block in self.blocks:
            x, seen = block.forward(x, rng=rng)                                 # [B, T, D]
            blocks.append(seen)
        # 3. a score for each token that may come next
        logits, output = self.output.forward(x)                                 # [B, T, V]
        return logits, TemporalConvolutionalNetworkCache(embedding, blocks, output)

    def backward(self, d_logits: Array, cache: TemporalConvolutionalNetworkCache) -> TemporalConvolutionalNetwork:
        """d_logits: [B, T, V].   Returns the gradient of the model."""
        # 3. logits = output(x)
        d_x, d_output = self.output.backward(d_logits, cache.output)            # [B, T, D]
        # 2. x = block(x)
        d_blocks = []
        for block, seen in zip(reversed(self.blocks), reversed(cache.blocks), strict=True):
            d_x, d_block = block.backward(d_x, seen)                            # [B, T, D]
            d_blocks.append(d_block)
        d_blocks.reverse()
        # 1. x = embedding(tokens)
        d_embedding = self.embedding.backward(d_x, cache.embedding)
        return replace(self, embedding=d_embedding, blocks=d_blocks, output=d_output)
