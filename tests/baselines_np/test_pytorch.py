"""PyTorch as the second opinion, through the converters: values, every gradient, and the way back."""

import numpy as np
import pytest

from baselines_np.convolution import Convolution1D
from baselines_np.gru import GRU
from baselines_np.lstm import LSTM
from baselines_np.pytorch import (
    convolution_1d_from_pytorch,
    convolution_1d_to_pytorch,
    gru_from_pytorch,
    gru_to_pytorch,
    lstm_from_pytorch,
    lstm_to_pytorch,
    rnn_from_pytorch,
    rnn_to_pytorch,
)
from baselines_np.rnn import RNN
from transformer_np.gradcheck import with_random_weights
from transformer_np.layer import named_arrays

B, T, D_IN, D = 4, 6, 3, 5
CELLS = {"RNN": (RNN, rnn_from_pytorch, rnn_to_pytorch), "GRU": (GRU, gru_from_pytorch, gru_to_pytorch),
         "LSTM": (LSTM, lstm_from_pytorch, lstm_to_pytorch)}
cells = pytest.mark.parametrize("cell", CELLS)


def random_layer(cell, d_in=D_IN, seed=0):
    rng = np.random.default_rng(seed)
    return with_random_weights(CELLS[cell][0].create(d_in, D, rng=rng), rng)


def draw(cell):
    rng = np.random.default_rng(1)
    x, d_y = rng.standard_normal((B, T, D_IN)), rng.standard_normal((B, T, D))
    first, d_last = ([rng.standard_normal((B, D)) for _ in range(2 if cell == "LSTM" else 1)] for _ in range(2))
    return x, d_y, first, d_last


def as_state(arrays):
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def run_ours(layer, x, d_y, first, d_last, lengths=None):
    (y, last), cache = layer.forward(x, as_state(first), lengths)
    d_x, d_first, d_layer = layer.backward((d_y, as_state(d_last)), cache)
    last, d_first = (np.stack(state) if isinstance(state, tuple) else state[None] for state in (last, d_first))
    return y, last, d_x, d_first, d_layer


def run_theirs(torch, module, x, d_y, first, d_last, lengths=None):
    x = torch.tensor(x, requires_grad=True)
    state = [torch.tensor(array[None], requires_grad=True) for array in first]
    if lengths is None:
        y, last = module(x, as_state(state))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        packed, last = module(packed, as_state(state))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=T)
    last = last if isinstance(last, tuple) else (last,)
    loss = (y * torch.tensor(d_y)).sum() + sum((a[0] * torch.tensor(d)).sum() for a, d in zip(last, d_last, strict=True))
    loss.backward()
    d_weights = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    return (y.detach().numpy(), np.concatenate([array.detach().numpy() for array in last]), x.grad.numpy(),
            np.concatenate([array.grad.numpy() for array in state]), d_weights)


def pytorch_module(torch, cell, state):
    module = getattr(torch.nn, cell)(D_IN, D, batch_first=True).double()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return module


def without_twins(cell, d_state):
    """Less the gradient of what we have not: where only the sum of two biases matters, PyTorch gives it twice."""
    twin = d_state["bias_hh_l0"]
    rest = {name: array for name, array in d_state.items() if name != "bias_hh_l0"}
    return rest | ({"bias_h": twin[2 * D:]} if cell == "GRU" else {})


@cells
@pytest.mark.parametrize("lengths", [None, [6, 1, 4, 2]], ids=["full", "lengths"])
def test_cells_agree_with_pytorch_values_and_gradients(torch, assert_close, cell, lengths):
    _, _, to_pytorch = CELLS[cell]
    layer = random_layer(cell)
    module = pytorch_module(torch, cell, to_pytorch(layer))
    *ours, d_layer = run_ours(layer, *draw(cell), lengths)
    *theirs, d_weights = run_theirs(torch, module, *draw(cell), lengths)
    assert_close(tuple(ours), tuple(theirs))
    assert_close(without_twins(cell, to_pytorch(d_layer)), without_twins(cell, d_weights))


@cells
def test_cells_of_pytorch_with_two_biases_are_ours_with_one(torch, assert_close, cell):
    torch.manual_seed(0)
    module = getattr(torch.nn, cell)(D_IN, D, batch_first=True).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    _, from_pytorch, _ = CELLS[cell]
    layer = from_pytorch({name: tensor.numpy() for name, tensor in module.state_dict().items()})
    *ours, _ = run_ours(layer, *draw(cell))
    *theirs, _ = run_theirs(torch, module, *draw(cell))
    assert_close(tuple(ours), tuple(theirs))


@cells
def test_cells_of_pytorch_without_biases(torch, assert_close, cell):
    module = getattr(torch.nn, cell)(D_IN, D, batch_first=True, bias=False).double()
    _, from_pytorch, _ = CELLS[cell]
    layer = from_pytorch({name: tensor.numpy() for name, tensor in module.state_dict().items()})
    *ours, _ = run_ours(layer, *draw(cell))
    *theirs, _ = run_theirs(torch, module, *draw(cell))
    assert_close(tuple(ours), tuple(theirs))


@cells
def test_a_stack_of_pytorch_is_two_layers(torch, assert_close, cell):
    _, from_pytorch, to_pytorch = CELLS[cell]
    lower, upper = random_layer(cell), random_layer(cell, D, seed=2)
    state = to_pytorch(lower, prefix="encoder.") | to_pytorch(upper, layer=1, prefix="encoder.")
    module = torch.nn.ModuleDict({"encoder": getattr(torch.nn, cell)(D_IN, D, num_layers=2, batch_first=True).double()})
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    x = draw(cell)[0]
    theirs, _ = module["encoder"](torch.tensor(x))
    for a, b in ((lower, upper), (from_pytorch(state, prefix="encoder."), from_pytorch(state, layer=1, prefix="encoder."))):
        (between, _), _ = a.forward(x)
        (y, _), _ = b.forward(between)
        assert_close(y, theirs.detach().numpy())


@cells
def test_to_pytorch_and_back_is_the_same_layer_in_new_arrays(cell):
    _, from_pytorch, to_pytorch = CELLS[cell]
    layer = random_layer(cell)
    state = to_pytorch(layer)
    back = from_pytorch(state)
    for name, array in named_arrays(layer).items():
        np.testing.assert_array_equal(named_arrays(back)[name], array)
        assert not any(np.shares_memory(array, other) for other in state.values())
        assert not any(np.shares_memory(named_arrays(back)[name], other) for other in state.values())


@cells
def test_a_foreign_state_is_named(cell):
    _, from_pytorch, to_pytorch = CELLS[cell]
    state = to_pytorch(random_layer(cell))
    without = {name: array for name, array in state.items() if name != "weight_hh_l0"}
    with pytest.raises(ValueError, match=r"^state: missing \['weight_hh_l0'\], unexpected \[\]"):
        from_pytorch(without)
    with pytest.raises(ValueError, match=r"^state: missing \[\], unexpected \['weight_ih_l0_reverse'\]"):
        from_pytorch(state | {"weight_ih_l0_reverse": state["weight_ih_l0"]})
    with pytest.raises(ValueError, match=r"^state: missing .'weight_hh_l1', 'weight_ih_l1'., unexpected"):
        from_pytorch(state, layer=1)
    with pytest.raises(ValueError, match=r"^state: weight_hh_l0 has shape \[2, 5\], expected "):
        from_pytorch(state | {"weight_hh_l0": np.zeros((2, 5))})
    with pytest.raises(ValueError, match=r"^state: bias_hh_l0 has shape \[2\], expected "):
        from_pytorch(state | {"bias_hh_l0": np.zeros(2)})


def test_a_gru_with_the_reset_before_has_no_place_in_pytorch():
    with pytest.raises(ValueError, match=r"^gru_to_pytorch: reset_after False, expected True"):
        gru_to_pytorch(GRU.create(D_IN, D, rng=np.random.default_rng(0), reset_after=False))


# ---------------------------------------------------------------------------------------------------- convolution

SETTINGS = {
    "plain": {},
    "stride does not divide": {"stride": 3},
    "padding and dilation": {"padding": 4, "dilation": 3},
    "same": {"padding": "same"},
    "same, dilated": {"padding": "same", "dilation": 2},
    "groups": {"groups": 2, "stride": 2, "padding": 1},
    "depthwise": {"groups": 4},
}


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_convolution_agrees_with_pytorch_values_and_gradients(torch_module, torch, assert_close, case, bias, kernel_size):
    settings = SETTINGS[case]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 11, 4))
    module = torch.nn.Conv1d(4, 8, kernel_size, bias=bias, **settings)
    d_y = rng.standard_normal(module(torch.zeros(2, 4, 11)).shape)
    state, y, (d_x,), d_state = torch_module(module, d_y, x.swapaxes(1, 2))
    layer = convolution_1d_from_pytorch(state, **settings)
    our_y, cache = layer.forward(x)
    our_d_x, d_layer = layer.backward(d_y.swapaxes(1, 2), cache)
    assert_close((our_y, our_d_x), (y.swapaxes(1, 2), d_x.swapaxes(1, 2)))
    assert_close(convolution_1d_to_pytorch(d_layer), d_state)
    assert_close(convolution_1d_to_pytorch(layer, prefix="a."), {f"a.{name}": array for name, array in state.items()}, 0)


def test_a_foreign_state_of_a_convolution_is_named():
    state = convolution_1d_to_pytorch(Convolution1D.create(4, 8, 3, rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"^state: missing \['weight'\], unexpected \[\]"):
        convolution_1d_from_pytorch({"bias": state["bias"]})
    with pytest.raises(ValueError, match=r"^state: missing \[\], unexpected \['gain'\]"):
        convolution_1d_from_pytorch(state | {"gain": state["bias"]})
    with pytest.raises(ValueError, match=r"^state: weight has shape \[8, 4, 3, 3\], expected \[any, any, any\]"):
        convolution_1d_from_pytorch(state | {"weight": np.zeros((8, 4, 3, 3))})
    with pytest.raises(ValueError, match=r"^state: bias has shape \[4\], expected \[8\]"):
        convolution_1d_from_pytorch(state | {"bias": np.zeros(4)})
