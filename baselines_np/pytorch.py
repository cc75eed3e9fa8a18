"""Weights from PyTorch's recurrent and convolutional layers into ours, and back.

A state dict is a plain dictionary here, from PyTorch's names to NumPy arrays, and PyTorch itself is not imported;
`transformer_np.checkpoints.pytorch` says how to come by one, and has the layers of the Transformer.

    here                                            PyTorch
    ----------------------------------------------  ---------------------------------------------------------------------
    [B, T, D]                                       [B, T, D] with batch_first=True; nn.Conv1d has [B, C, T]
    weight_x [D_in, n D], weight_h [D, n D]         weight_ih_l0 [n D, D_in], weight_hh_l0 [n D, D]
    gates i, f, g, o (LSTM); r, z, n (GRU)          the same, in the same order
    bias [n D]                                      bias_ih_l0 + bias_hh_l0: two, of which only the sum matters
    GRU.bias_h [D], of the candidate                the last third of bias_hh_l0: the reset gate scales it
    Convolution1D.weight [K, C_in / G, C_out]       nn.Conv1d.weight [C_out, C_in / G, K]

Into PyTorch, `bias` becomes bias_ih_l0, and bias_hh_l0 is 0 wherever only the sum matters. Its gradient there is that of
bias_ih_l0, so from the gradient of a layer, `..._to_pytorch` gives what PyTorch has in `.grad`, under all names but bias_hh_l0.
A GRU with the reset before the product has no counterpart in PyTorch.

`layer` is the layer of a stack, the number at the end of the names. `prefix` selects a part of a larger state dict, and begins
its names: "encoder.rnn.". Arrays are copies, of the same dtype. Every function `..._from_pytorch` raises ValueError for a
missing name, a name it has no place for, or a shape that does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from baselines_np.convolution import Convolution1D, Padding
from baselines_np.gru import GRU
from baselines_np.lstm import LSTM
from baselines_np.rnn import RNN
from transformer_np.checkpoints.pytorch import State, take
from transformer_np.layer import Array


def rnn_from_pytorch(state: State, *, layer: int = 0, prefix: str = "") -> RNN:
    """From one layer of `nn.RNN` with tanh.   state: weight_ih [D, D_in], weight_hh [D, D], and bias_ih [D], bias_hh [D] if it
    has biases, each with _l and the number of the layer behind it."""
    weight_x, weight_h, bias_x, bias_h = _recurrent_arrays(state, 1, layer, prefix)
    return RNN(weight_x, weight_h, bias_x + bias_h)


def rnn_to_pytorch(rnn: RNN, *, layer: int = 0, prefix: str = "") -> dict[str, Array]:
    """To one layer of `nn.RNN` with tanh."""
    return _recurrent_state(rnn.weight_x, rnn.weight_h, rnn.bias, np.zeros_like(rnn.bias), layer, prefix)


def lstm_from_pytorch(state: State, *, layer: int = 0, prefix: str = "") -> LSTM:
    """From one layer of `nn.LSTM`.   state: weight_ih [4 D, D_in], weight_hh [4 D, D], and bias_ih [4 D], bias_hh [4 D] if it
    has biases, each with _l and the number of the layer behind it."""
    weight_x, weight_h, bias_x, bias_h = _recurrent_arrays(state, 4, layer, prefix)
    return LSTM(weight_x, weight_h, bias_x + bias_h)


def lstm_to_pytorch(lstm: LSTM, *, layer: int = 0, prefix: str = "") -> dict[str, Array]:
    """To one layer of `nn.LSTM`."""
    return _recurrent_state(lstm.weight_x, lstm.weight_h, lstm.bias, np.zeros_like(lstm.bias), layer, prefix)


def gru_from_pytorch(state: State, *, layer: int = 0, prefix: str = "") -> GRU:
    """From one layer of `nn.GRU`.   state: weight_ih [3 D, D_in], weight_hh [3 D, D], and bias_ih [3 D], bias_hh [3 D] if it
    has biases, each with _l and the number of the layer behind it."""
    weight_x, weight_h, bias_x, bias_h = _recurrent_arrays(state, 3, layer, prefix)
    D = weight_h.shape[0]
    bias = bias_x.copy()                                                        # [3 D]
    bias[:2 * D] += bias_h[:2 * D]
    return GRU(weight_x, weight_h, bias, bias_h[2 * D:].copy())


def gru_to_pytorch(gru: GRU, *, layer: int = 0, prefix: str = "") -> dict[str, Array]:
    """To one layer of `nn.GRU`. Raises ValueError for the reset before the product, which PyTorch has not."""
    if gru.bias_h is None:
        raise ValueError("gru_to_pytorch: reset_after False, expected True: PyTorch has the reset after the product only")
    bias_h = np.concatenate([np.zeros(2 * gru.weight_h.shape[0], gru.bias_h.dtype), gru.bias_h])  # [3 D]
    return _recurrent_state(gru.weight_x, gru.weight_h, gru.bias, bias_h, layer, prefix)


def convolution_1d_from_pytorch(state: State, *, stride: int = 1, padding: Padding = 0, dilation: int = 1, groups: int = 1,
                                prefix: str = "") -> Convolution1D:
    """From `nn.Conv1d`.   state: weight [C_out, C_in / G, K], and bias [C_out] if it has one. The settings are not in a state
    dict, so they are given again."""
    names = [prefix + name for name in ("weight", "bias") if name == "weight" or prefix + name in state]
    _check_names([name for name in state if name.startswith(prefix)], names)
    weight = take(state, prefix + "weight", None, None, None)                  # [C_out, C_in / G, K]
    bias = take(state, prefix + "bias", weight.shape[0]) if prefix + "bias" in state else None  # [C_out]
    return Convolution1D(weight.transpose(2, 1, 0).copy(), bias, stride, padding, dilation, groups)


def convolution_1d_to_pytorch(convolution: Convolution1D, *, prefix: str = "") -> dict[str, Array]:
    """To `nn.Conv1d`. Causal padding, which that has not, is for the caller to add to its input."""
    state = {prefix + "weight": convolution.weight.transpose(2, 1, 0).copy()}   # [C_out, C_in / G, K]
    if convolution.bias is not None:
        state[prefix + "bias"] = convolution.bias.copy()                        # [C_out]
    return state


# ---------------------------------------------------------------------------------------------------- helpers

def _recurrent_state(weight_x: Array, weight_h: Array, bias_x: Array, bias_h: Array, layer: int, prefix: str) -> dict[str, Array]:
    arrays = {"weight_ih": weight_x.T, "weight_hh": weight_h.T, "bias_ih": bias_x, "bias_hh": bias_h}
    return {f"{prefix}{name}_l{layer}": array.copy() for name, array in arrays.items()}


def _recurrent_arrays(state: State, blocks: int, layer: int, prefix: str) -> tuple[Array, Array, Array, Array]:
    """weight_x [D_in, blocks D], weight_h [D, blocks D], and two biases [blocks D], which are 0 if there are none."""
    kinds = ["weight_ih", "weight_hh"]
    if any(f"{prefix}{name}_l{layer}" in state for name in ("bias_ih", "bias_hh")):
        kinds += ["bias_ih", "bias_hh"]
    # other layers may stand beside this one; a second direction or a projection of it has no place here
    of_layer = [name for name in state if name.startswith(prefix) and re.search(rf"_l{layer}(_reverse)?$", name)]
    _check_names(of_layer, [f"{prefix}{kind}_l{layer}" for kind in kinds])
    weight_h = take(state, f"{prefix}weight_hh_l{layer}", None, None)          # [blocks D, D]
    D = weight_h.shape[1]
    if weight_h.shape[0] != blocks * D:
        raise ValueError(f"state: {prefix}weight_hh_l{layer} has shape {list(weight_h.shape)}, expected {[blocks * D, D]}")
    weight_x = take(state, f"{prefix}weight_ih_l{layer}", blocks * D, None)    # [blocks D, D_in]
    if len(kinds) == 2:
        zeros = np.zeros(blocks * D, weight_x.dtype)                            # [blocks D]
        return weight_x.T.copy(), weight_h.T.copy(), zeros, zeros
    bias_x = take(state, f"{prefix}bias_ih_l{layer}", blocks * D)              # [blocks D]
    bias_h = take(state, f"{prefix}bias_hh_l{layer}", blocks * D)              # [blocks D]
    return weight_x.T.copy(), weight_h.T.copy(), bias_x, bias_h


def _check_names(found: Iterable[str], expected: Iterable[str]) -> None:
    """Raise ValueError unless the names found are those expected."""
    missing, unexpected = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    if missing or unexpected:
        raise ValueError(f"state: missing {missing}, unexpected {unexpected}")
