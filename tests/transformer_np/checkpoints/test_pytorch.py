"""Weights from and to PyTorch: round trips, GPT-2, and what is refused. That values and gradients agree through the
converters is tested where the layers are."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from transformer_np.attention import MultiHeadAttention
from transformer_np.blocks import DecoderBlock, EncoderBlock
from transformer_np.checkpoints import pytorch
from transformer_np.embedding import Embedding
from transformer_np.gradcheck import with_random_weights
from transformer_np.layer import named_arrays
from transformer_np.linear import Linear
from transformer_np.models.gpt import GPT
from transformer_np.normalization import LayerNorm


def random(create, *args, **settings):
    rng = np.random.default_rng(0)
    return with_random_weights(create(*args, rng=rng, **settings), rng)


def gpt(**settings):
    return random(GPT.create, 7, **{"context": 5, "d_model": 4, "num_layers": 2, "num_heads": 2, **settings})


LAYERS = {
    "linear": (random(Linear.create, 3, 4), {}),
    "linear without bias": (random(Linear.create, 3, 4, bias=False), {}),
    "layer_norm": (with_random_weights(LayerNorm.create(3, eps=0.1), np.random.default_rng(0)), {"eps": 0.1}),
    "embedding": (random(Embedding.create, 5, 3), {}),
    "multi_head_attention": (random(MultiHeadAttention.create, 4, 2, dropout=0.1), {"num_heads": 2, "dropout": 0.1}),
    "multi_head_attention without bias": (random(MultiHeadAttention.create, 4, 2, bias=False), {"num_heads": 2}),
    "encoder_block": (random(EncoderBlock.create, 4, 2, 5, pre_norm=False), {"num_heads": 2}),
    "decoder_block": (random(DecoderBlock.create, 4, 2, 5, activation="gelu"),
                      {"num_heads": 2, "norm_first": True, "activation": "gelu"}),
    "gpt": (gpt(dropout=0.1), {"num_heads": 2, "dropout": 0.1}),
}


def converters(kind):
    name = kind.split()[0]
    return getattr(pytorch, f"{name}_from_pytorch"), getattr(pytorch, f"{name}_to_pytorch")


def assert_same_layer(one, other):
    assert repr(one) == repr(other)  # classes, shapes, dtypes and settings
    for name, array in named_arrays(one).items():
        np.testing.assert_array_equal(named_arrays(other)[name], array, err_msg=name)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("prefix", ["", "model.layers.0."])
def test_there_and_back_is_the_same_layer(kind, prefix):
    layer, settings = LAYERS[kind]
    from_pytorch, to_pytorch = converters(kind)
    state = to_pytorch(layer, prefix=prefix)
    assert all(name.startswith(prefix) for name in state)
    if prefix:
        state["model.layers.1.weight"] = np.zeros(3)  # another part of the same file
    assert_same_layer(from_pytorch(state, prefix=prefix, **settings), layer)


@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_is_shared_between_the_two(kind):
    layer, settings = LAYERS[kind]
    from_pytorch, to_pytorch = converters(kind)
    state = to_pytorch(layer)
    for converted in (named_arrays(layer), named_arrays(from_pytorch(state, **settings))):
        for array in converted.values():
            assert not any(np.shares_memory(array, other) for other in state.values())


@pytest.mark.parametrize("kind", LAYERS)
def test_the_dtype_stays(kind):
    layer, settings = LAYERS[kind]
    from_pytorch, to_pytorch = converters(kind)
    state = {name: array.astype(np.float32) for name, array in to_pytorch(layer).items()}
    assert {array.dtype for array in named_arrays(from_pytorch(state, **settings)).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_missing_and_an_unexpected_name_are_refused(kind):
    layer, settings = LAYERS[kind]
    from_pytorch, to_pytorch = converters(kind)
    state = to_pytorch(layer)
    needed = [name for name in state if not name.endswith("bias")]
    for name in needed:
        with pytest.raises(ValueError, match=r"^state: missing .*" + name.split(".")[0]):
            from_pytorch({other: array for other, array in state.items() if other != name}, **settings)
    with pytest.raises(ValueError, match=r"^state: missing \[\], unexpected \['bias_k'\]"):
        from_pytorch({**state, "bias_k": np.zeros(3)}, **settings)


@pytest.mark.parametrize("kind", LAYERS)
def test_an_array_with_another_number_of_axes_is_refused(kind):
    layer, settings = LAYERS[kind]
    from_pytorch, to_pytorch = converters(kind)
    state = to_pytorch(layer)
    for name, array in state.items():
        with pytest.raises(ValueError, match=rf"^state: {name} has shape \[1, .*\], expected \["):
            from_pytorch({**state, name: array[None]}, **settings)


@pytest.mark.parametrize(("kind", "name", "shape", "message"), [
    ("linear", "bias", (3,), r"^state: bias has shape \[3\], expected \[4\]"),
    ("layer_norm", "bias", (4,), r"^state: bias has shape \[4\], expected \[3\]"),
    ("multi_head_attention", "in_proj_weight", (4, 4), r"^state: in_proj_weight has shape \[4, 4\], expected \[12, 4\]"),
    ("multi_head_attention", "in_proj_bias", (4,), r"^state: in_proj_bias has shape \[4\], expected \[12\]"),
    ("gpt", "wpe.weight", (5, 3), r"^state: wpe.weight has shape \[5, 3\], expected \[any, 4\]"),
    ("gpt", "h.1.attn.c_attn.weight", (12, 4), r"^state: h.1.attn.c_attn.weight has shape \[12, 4\], expected \[4, 12\]"),
])
def test_a_shape_that_does_not_fit_is_refused(kind, name, shape, message):
    layer, settings = LAYERS[kind]
    from_pytorch, to_pytorch = converters(kind)
    with pytest.raises(ValueError, match=message):
        from_pytorch({**to_pytorch(layer), name: np.zeros(shape)}, **settings)


@pytest.mark.parametrize("kind", ["multi_head_attention", "encoder_block", "decoder_block", "gpt"])
@pytest.mark.parametrize("num_heads", [0, 3])
def test_heads_that_do_not_divide_the_width_are_refused(kind, num_heads):
    from_pytorch, to_pytorch = converters(kind)
    with pytest.raises(ValueError, match=rf"^num_heads {num_heads} does not divide the width 4 of .*weight"):
        from_pytorch(to_pytorch(LAYERS[kind][0]), num_heads=num_heads)


def test_an_untied_output_table_is_refused():
    state = pytorch.gpt_to_pytorch(gpt(), prefix="transformer.")
    tied = {**state, "lm_head.weight": state["transformer.wte.weight"]}
    assert_same_layer(pytorch.gpt_from_pytorch(tied, num_heads=2, prefix="transformer."), gpt())
    with pytest.raises(ValueError, match=r"^lm_head.weight differs from transformer.wte.weight"):
        pytorch.gpt_from_pytorch({**state, "lm_head.weight": np.zeros((7, 4))}, num_heads=2, prefix="transformer.")


def test_a_gpt_without_learned_positions_has_no_place_in_gpt_2():
    with pytest.raises(ValueError, match=r"^positions are SinusoidalPositions, expected LearnedPositions"):
        pytorch.gpt_to_pytorch(gpt(positions="sinusoidal"))


def gpt_2(torch, tokens, weights, num_heads):
    """GPT-2 as its published TensorFlow code reads, in PyTorch; `weights` has its published names."""
    functional = torch.nn.functional
    B, T = tokens.shape
    x = weights["wte.weight"][tokens] + weights["wpe.weight"][:T]
    D = x.shape[-1]

    def norm(x, name):
        return functional.layer_norm(x, (D,), weights[name + ".weight"], weights[name + ".bias"])

    def convolution(x, name):
        return x @ weights[name + ".weight"] + weights[name + ".bias"]

    for layer in range(2):
        qkv = convolution(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")
        q, k, v = (part.reshape(B, T, num_heads, -1).transpose(1, 2) for part in qkv.split(D, dim=-1))
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        x = x + convolution(attended, f"h.{layer}.attn.c_proj")
        hidden = functional.gelu(convolution(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc"), approximate="tanh")
        x = x + convolution(hidden, f"h.{layer}.mlp.c_proj")
    return norm(x, "ln_f") @ weights["wte.weight"].T


def test_gpt_and_its_gradients_agree_with_gpt_2_in_pytorch(torch, assert_close):
    rng = np.random.default_rng(0)
    state = {name: 0.5 * rng.standard_normal(array.shape) for name, array in pytorch.gpt_to_pytorch(gpt()).items()}
    tokens, d_logits = rng.integers(0, 7, (2, 5)), rng.standard_normal((2, 5, 7))
    weights = {name: torch.tensor(array, requires_grad=True) for name, array in state.items()}
    logits = gpt_2(torch, torch.tensor(tokens), weights, num_heads=2)
    logits.backward(torch.tensor(d_logits))
    with_stored_masks = {**state, "h.0.attn.bias": np.ones((1, 1, 5, 5)), "h.1.attn.masked_bias": np.array(-1e4)}
    model = pytorch.gpt_from_pytorch(with_stored_masks, num_heads=2)
    our_logits, cache = model.forward(tokens)
    assert_close(our_logits, logits.detach().numpy())
    d_state = {name: weight.grad.numpy() for name, weight in weights.items()}
    assert_close(pytorch.gpt_to_pytorch(model.backward(d_logits, cache)), d_state)


def test_pytorch_takes_what_is_converted(torch):
    for module, kind in ((torch.nn.Linear(3, 4), "linear"), (torch.nn.LayerNorm(3), "layer_norm"),
                         (torch.nn.Embedding(5, 3), "embedding"), (torch.nn.MultiheadAttention(4, 2), "multi_head_attention"),
                         (torch.nn.TransformerEncoderLayer(4, 2, 5), "encoder_block"),
                         (torch.nn.TransformerDecoderLayer(4, 2, 5), "decoder_block")):
        state = converters(kind)[1](LAYERS[kind][0])
        result = module.double().load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        assert not result.missing_keys
        assert not result.unexpected_keys


def test_biases_of_some_projections_only_have_no_place_in_pytorch():
    layer = LAYERS["multi_head_attention"][0]
    with pytest.raises(ValueError, match=r"^2 of query, key and value have a bias, and output has one, expected one for all"):
        pytorch.multi_head_attention_to_pytorch(replace(layer, key=replace(layer.key, bias=None)))
    with pytest.raises(ValueError, match=r"^3 of query, key and value have a bias, and output has none, expected one for all"):
        pytorch.multi_head_attention_to_pytorch(replace(layer, output=replace(layer.output, bias=None)))


def test_pytorch_is_not_imported():
    program = "import sys, transformer_np.checkpoints.pytorch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
