"""Weights from PyTorch's layers into ours, and back.

A state dict is a plain dictionary here, from PyTorch's names to NumPy arrays. PyTorch itself is not imported:

    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    block = encoder_block_from_pytorch(state, num_heads=8)

    state = encoder_block_to_pytorch(block)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})

A gradient is a layer too, so `linear_to_pytorch(d_layer)` is what PyTorch has in `.grad`, under the same names.

    here                                            PyTorch
    ----------------------------------------------  ---------------------------------------------------------------------
    Linear.weight [in, out], y = x W                nn.Linear.weight [out, in], y = x W^T
    LayerNorm.gain, .bias                           nn.LayerNorm.weight, .bias
    MultiHeadAttention.query, .key, .value          in_proj_weight [3 D, D]: three [out, in] weights, one below the other
    MultiHeadAttention.output                       out_proj
    EncoderBlock, DecoderBlock                      nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
    pre_norm, activation "gelu"                     norm_first, activation "gelu" (the erf form in both)
    mask: True = may attend                         attn_mask, key_padding_mask: True = may not attend
    GPT                                             GPT-2 as published: wte, wpe, h.0.attn.c_attn, ...; weights are [in, out]

What the state dict does not hold (number of heads, activation, order of the norm, eps, dropout) is an argument. Arrays are
copies, of the same dtype. `prefix` selects a part of a larger state dict, and begins its names: "encoder.layers.0.".
Every function `..._from_pytorch` raises ValueError for a missing name, a name it has no place for, or a shape that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from transformer_np.attention import MultiHeadAttention
from transformer_np.blocks import (
    CrossAttentionSublayer,
    DecoderBlock,
    EncoderBlock,
    FeedForwardSublayer,
    SelfAttentionSublayer,
)
from transformer_np.embedding import Embedding
from transformer_np.feed_forward import FeedForward
from transformer_np.layer import Array
from transformer_np.linear import Linear
from transformer_np.models.gpt import GPT
from transformer_np.normalization import LayerNorm
from transformer_np.positional_encoding import LearnedPositions

State = Mapping[str, Array]


# ---------------------------------------------------------------------------------------------------- layers

def linear_from_pytorch(state: State, *, prefix: str = "") -> Linear:
    """From `nn.Linear`.   state: weight [D_out, D_in], and bias [D_out] if it has one."""
    _check_names(state, prefix, required=["weight"], optional=["bias"])
    weight = take(state, prefix + "weight", None, None)                        # [D_out, D_in]
    bias = take(state, prefix + "bias", weight.shape[0]) if prefix + "bias" in state else None
    return Linear(weight.T.copy(), bias)


def linear_to_pytorch(layer: Linear, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.Linear`."""
    state = {prefix + "weight": layer.weight.T.copy()}                          # [D_out, D_in]
    if layer.bias is not None:
        state[prefix + "bias"] = layer.bias.copy()                              # [D_out]
    return state


def layer_norm_from_pytorch(state: State, *, eps: float = 1e-5, prefix: str = "") -> LayerNorm:
    """From `nn.LayerNorm` over the last axis.   state: weight [D], bias [D]."""
    _check_names(state, prefix, required=["weight", "bias"])
    gain = take(state, prefix + "weight", None)                                # [D]
    bias = take(state, prefix + "bias", *gain.shape)                           # [D]
    return LayerNorm(gain, bias, eps)


def layer_norm_to_pytorch(layer: LayerNorm, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.LayerNorm`."""
    return {prefix + "weight": layer.gain.copy(), prefix + "bias": layer.bias.copy()}


def embedding_from_pytorch(state: State, *, prefix: str = "") -> Embedding:
    """From `nn.Embedding`.   state: weight [V, D]."""
    _check_names(state, prefix, required=["weight"])
    return Embedding(take(state, prefix + "weight", None, None))


def embedding_to_pytorch(layer: Embedding, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.Embedding`."""
    return {prefix + "weight": layer.weight.copy()}


def multi_head_attention_from_pytorch(state: State, *, num_heads: int, dropout: float = 0.0,
                                      prefix: str = "") -> MultiHeadAttention:
    """From `nn.MultiheadAttention` with queries, keys and values of one width.

    state: in_proj_weight [3 D, D], out_proj.weight [D, D], and in_proj_bias [3 D], out_proj.bias [D] if it has biases.
    """
    _check_names(state, prefix, required=["in_proj_weight", "out_proj"], optional=["in_proj_bias"])
    output = linear_from_pytorch(state, prefix=prefix + "out_proj.")
    D = output.weight.shape[1]
    if num_heads < 1 or D % num_heads:
        raise ValueError(f"num_heads {num_heads} does not divide the width {D} of {prefix}out_proj.weight")
    weights = np.split(take(state, prefix + "in_proj_weight", 3 * D, D), 3)    # 3 of [D, D]
    biases: list[Array | None] = [None, None, None]
    if prefix + "in_proj_bias" in state:
        biases = [*np.split(take(state, prefix + "in_proj_bias", 3 * D), 3)]   # 3 of [D]
    query, key, value = (Linear(weight.T.copy(), bias) for weight, bias in zip(weights, biases, strict=True))
    return MultiHeadAttention(query, key, value, output, num_heads, dropout)


def multi_head_attention_to_pytorch(layer: MultiHeadAttention, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.MultiheadAttention`. Raises ValueError if some projections have a bias and some have not."""
    parts = [layer.query, layer.key, layer.value]
    biases = [part.bias for part in parts if part.bias is not None]
    if len(biases) not in (0, 3) or bool(biases) != (layer.output.bias is not None):
        raise ValueError(f"{len(biases)} of query, key and value have a bias, and output has "
                         f"{'none' if layer.output.bias is None else 'one'}, expected one for all or for none")
    state = {prefix + "in_proj_weight": np.concatenate([part.weight.T for part in parts])}  # [3 D, D]
    if biases:
        state[prefix + "in_proj_bias"] = np.concatenate(biases)                 # [3 D]
    return {**state, **linear_to_pytorch(layer.output, prefix=prefix + "out_proj.")}


# ---------------------------------------------------------------------------------------------------- blocks

def encoder_block_from_pytorch(state: State, *, num_heads: int, norm_first: bool = False, activation: str = "relu",
                               dropout: float = 0.0, eps: float = 1e-5, prefix: str = "") -> EncoderBlock:
    """From `nn.TransformerEncoderLayer`, whose defaults these are, but for dropout.

    state: self_attn (see `multi_head_attention_from_pytorch`), linear1, linear2, norm1, norm2.
    PyTorch drops inside the feed-forward network as well; here, as in Vaswani et al., only what a sublayer adds is dropped.
    """
    _check_names(state, prefix, required=["self_attn", "linear1", "linear2", "norm1", "norm2"])
    attention_norm = layer_norm_from_pytorch(state, eps=eps, prefix=prefix + "norm1.")
    attention = multi_head_attention_from_pytorch(state, num_heads=num_heads, dropout=dropout, prefix=prefix + "self_attn.")
    feed_forward_norm = layer_norm_from_pytorch(state, eps=eps, prefix=prefix + "norm2.")
    feed_forward = _feed_forward_from_pytorch(state, activation, prefix)
    return EncoderBlock(SelfAttentionSublayer(attention_norm, attention, norm_first, dropout),
                        FeedForwardSublayer(feed_forward_norm, feed_forward, norm_first, dropout))


def encoder_block_to_pytorch(block: EncoderBlock, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.TransformerEncoderLayer`."""
    return {**multi_head_attention_to_pytorch(block.self_attention.attention, prefix=prefix + "self_attn."),
            **_feed_forward_to_pytorch(block.feed_forward.feed_forward, prefix),
            **layer_norm_to_pytorch(block.self_attention.norm, prefix=prefix + "norm1."),
            **layer_norm_to_pytorch(block.feed_forward.norm, prefix=prefix + "norm2.")}


def decoder_block_from_pytorch(state: State, *, num_heads: int, norm_first: bool = False, activation: str = "relu",
                               dropout: float = 0.0, eps: float = 1e-5, prefix: str = "") -> DecoderBlock:
    """From `nn.TransformerDecoderLayer`; see `encoder_block_from_pytorch`.

    state: self_attn, multihead_attn (the cross-attention), linear1, linear2, norm1, norm2, norm3.
    """
    _check_names(state, prefix, required=["self_attn", "multihead_attn", "linear1", "linear2", "norm1", "norm2", "norm3"])
    self_norm = layer_norm_from_pytorch(state, eps=eps, prefix=prefix + "norm1.")
    self_attention = multi_head_attention_from_pytorch(state, num_heads=num_heads, dropout=dropout, prefix=prefix + "self_attn.")
    cross_norm = layer_norm_from_pytorch(state, eps=eps, prefix=prefix + "norm2.")
    cross_attention = multi_head_attention_from_pytorch(state, num_heads=num_heads, dropout=dropout,
                                                        prefix=prefix + "multihead_attn.")
    feed_forward_norm = layer_norm_from_pytorch(state, eps=eps, prefix=prefix + "norm3.")
    feed_forward = _feed_forward_from_pytorch(state, activation, prefix)
    return DecoderBlock(SelfAttentionSublayer(self_norm, self_attention, norm_first, dropout),
                        CrossAttentionSublayer(cross_norm, cross_attention, norm_first, dropout),
                        FeedForwardSublayer(feed_forward_norm, feed_forward, norm_first, dropout))


def decoder_block_to_pytorch(block: DecoderBlock, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.TransformerDecoderLayer`."""
    return {**multi_head_attention_to_pytorch(block.self_attention.attention, prefix=prefix + "self_attn."),
            **multi_head_attention_to_pytorch(block.cross_attention.attention, prefix=prefix + "multihead_attn."),
            **_feed_forward_to_pytorch(block.feed_forward.feed_forward, prefix),
            **layer_norm_to_pytorch(block.self_attention.norm, prefix=prefix + "norm1."),
            **layer_norm_to_pytorch(block.cross_attention.norm, prefix=prefix + "norm2."),
            **layer_norm_to_pytorch(block.feed_forward.norm, prefix=prefix + "norm3.")}


def _feed_forward_from_pytorch(state: State, activation: str, prefix: str) -> FeedForward:
    expand = linear_from_pytorch(state, prefix=prefix + "linear1.")
    contract = linear_from_pytorch(state, prefix=prefix + "linear2.")
    return FeedForward(expand, contract, activation)


def _feed_forward_to_pytorch(layer: FeedForward, prefix: str) -> dict[str, Array]:
    return {**linear_to_pytorch(layer.expand, prefix=prefix + "linear1."),
            **linear_to_pytorch(layer.contract, prefix=prefix + "linear2.")}


# ---------------------------------------------------------------------------------------------------- GPT-2

def gpt_from_pytorch(state: State, *, num_heads: int, dropout: float = 0.0, eps: float = 1e-5, prefix: str = "") -> GPT:
    """From GPT-2 under its published names (Radford et al. 2019; Hugging Face's `GPT2Model`).

    prefix: "transformer." for `GPT2LMHeadModel`. Its lm_head.weight must be wte.weight: our output table is tied.
    state: wte.weight [V, D], wpe.weight [context, D], ln_f, and for each layer h.0, h.1, ...: ln_1, attn.c_attn [D, 3 D],
    attn.c_proj [D, D], ln_2, mlp.c_fc [D, 4 D], mlp.c_proj [4 D, D]. The stored masks attn.bias and attn.masked_bias hold
    no weights, and are passed over.
    """
    _check_names(state, prefix, required=["wte", "wpe", "ln_f"], optional=["h", "lm_head"])
    embedding = embedding_from_pytorch(state, prefix=prefix + "wte.")
    D = embedding.weight.shape[1]
    if "lm_head.weight" in state and not np.array_equal(state["lm_head.weight"], embedding.weight):
        raise ValueError(f"lm_head.weight differs from {prefix}wte.weight, expected the same table: the output is tied")
    positions = LearnedPositions(take(state, prefix + "wpe.weight", None, D))
    indices = {name[len(prefix):].split(".")[1] for name in state if name.startswith(prefix + "h.")}
    blocks = []
    for index in range(len(indices)):
        layer = f"{prefix}h.{index}."
        _check_names(state, layer, required=["ln_1", "attn", "ln_2", "mlp"])
        _check_names(state, layer + "attn.", required=["c_attn", "c_proj"], optional=["bias", "masked_bias"])
        _check_names(state, layer + "mlp.", required=["c_fc", "c_proj"])
        weights = np.split(take(state, layer + "attn.c_attn.weight", D, 3 * D), 3, axis=1)     # 3 of [D, D]
        biases = np.split(take(state, layer + "attn.c_attn.bias", 3 * D), 3)                   # 3 of [D]
        query, key, value = (Linear(weight.copy(), bias) for weight, bias in zip(weights, biases, strict=True))
        if num_heads < 1 or D % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide the width {D} of {prefix}wte.weight")
        attention = MultiHeadAttention(query, key, value, _convolution(state, layer + "attn.c_proj."), num_heads, dropout)
        feed_forward = FeedForward(_convolution(state, layer + "mlp.c_fc."), _convolution(state, layer + "mlp.c_proj."),
                                   "gelu_tanh")
        blocks.append(EncoderBlock(
            SelfAttentionSublayer(layer_norm_from_pytorch(state, eps=eps, prefix=layer + "ln_1."), attention, True, dropout),
            FeedForwardSublayer(layer_norm_from_pytorch(state, eps=eps, prefix=layer + "ln_2."), feed_forward, True, dropout)))
    return GPT(embedding, positions, blocks, layer_norm_from_pytorch(state, eps=eps, prefix=prefix + "ln_f."), dropout)


def gpt_to_pytorch(model: GPT, *, prefix: str = "") -> dict[str, Array]:
    """To GPT-2's names. Raises ValueError for a model without learned positions or without biases: GPT-2 has them."""
    if not isinstance(model.positions, LearnedPositions):
        raise ValueError(f"positions are {type(model.positions).__name__}, expected LearnedPositions, which GPT-2 has")
    state = embedding_to_pytorch(model.embedding, prefix=prefix + "wte.")       # [V, D]
    state[prefix + "wpe.weight"] = model.positions.weight.copy()                # [context, D]
    for index, block in enumerate(model.blocks):
        layer = f"{prefix}h.{index}."
        attention, feed_forward = block.self_attention.attention, block.feed_forward.feed_forward
        parts = [attention.query, attention.key, attention.value]
        state |= layer_norm_to_pytorch(block.self_attention.norm, prefix=layer + "ln_1.")
        state[layer + "attn.c_attn.weight"] = np.concatenate([part.weight for part in parts], axis=1)   # [D, 3 D]
        state[layer + "attn.c_attn.bias"] = np.concatenate([part.bias for part in parts])       # type: ignore[misc]  # [3 D]
        for name, linear in (("attn.c_proj.", attention.output), ("mlp.c_fc.", feed_forward.expand),
                             ("mlp.c_proj.", feed_forward.contract)):
            state[layer + name + "weight"] = linear.weight.copy()
            state[layer + name + "bias"] = linear.bias.copy()                                   # type: ignore[union-attr]
        state |= layer_norm_to_pytorch(block.feed_forward.norm, prefix=layer + "ln_2.")
    return state | layer_norm_to_pytorch(model.norm, prefix=prefix + "ln_f.")


def _convolution(state: State, prefix: str) -> Linear:
    """GPT-2's linear maps are convolutions of width 1, whose weights are [in, out] as ours."""
    _check_names(state, prefix, required=["weight", "bias"])
    weight = take(state, prefix + "weight", None, None)                        # [D_in, D_out]
    return Linear(weight, take(state, prefix + "bias", weight.shape[1]))


# ---------------------------------------------------------------------------------------------------- names and shapes

def _check_names(state: State, prefix: str, *, required: list[str], optional: list[str] | None = None) -> None:
    """Raise ValueError unless what follows `prefix`, up to the next dot, is each of `required` and nothing else."""
    found = {name[len(prefix):].split(".")[0] for name in state if name.startswith(prefix)}
    missing = [prefix + name for name in required if name not in found]
    unexpected = sorted(prefix + name for name in found.difference(required, optional or []))
    if missing or unexpected:
        raise ValueError(f"state: missing {missing}, unexpected {unexpected}")


def take(state: State, name: str, *shape: int | None) -> Array:
    """A copy of the array of that name. Raises ValueError if its shape is not `shape`, where None is any size."""
    if name not in state:
        raise ValueError(f"state: missing {name}")
    array = np.array(state[name])
    if len(shape) != array.ndim or any(size not in (None, came) for size, came in zip(shape, array.shape, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"state: {name} has shape {list(array.shape)}, expected [{expected}]")
    return array
