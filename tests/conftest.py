"""What the whole suite shares: how hypothesis draws, and what a second opinion is.

Hypothesis draws the same examples every time. To let it look further:  pytest --hypothesis-profile=thorough
"""

import warnings
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import settings

from transformer_np.layer import Cache

settings.register_profile("project", max_examples=25, deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def torch():
    """PyTorch on one thread. The test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        module = pytest.importorskip("torch", reason="PyTorch is the second opinion here: pip install transformer-np[oracle]")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def torch_vjp(torch):
    """A function of tensors, evaluated and differentiated by PyTorch: arrays in, arrays out.

        y, (d_a, d_b) = torch_vjp(lambda a, b: a @ b, d_y, a, b)
    """

    def vjp(function, d_y, *inputs):
        tensors = [torch.tensor(np.asarray(value), requires_grad=True) for value in inputs]
        y = function(*tensors)
        y.backward(torch.tensor(np.asarray(d_y)))
        return y.detach().numpy(), tuple(tensor.grad.numpy() for tensor in tensors)

    return vjp


@pytest.fixture(scope="session")
def torch_module(torch):
    """A PyTorch module in float64 with random weights (no gain is 1, no bias is 0), and what it does: arrays in, arrays out.

        state, y, d_inputs, d_state = torch_module(module, d_y, x, ...)
    """

    def run(module, d_y, *inputs, **settings):
        torch.manual_seed(0)
        module = module.double()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        state = {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}
        tensors = [torch.tensor(np.asarray(value)) for value in inputs]
        for tensor in tensors:
            tensor.requires_grad = tensor.is_floating_point()
        y = module(*tensors, **{name: torch.tensor(np.asarray(value)) for name, value in settings.items()})
        y = y[0] if isinstance(y, tuple) else y
        y.backward(torch.tensor(d_y))
        d_inputs = tuple(tensor.grad.numpy() for tensor in tensors if tensor.requires_grad)
        d_state = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
        return state, y.detach().numpy(), d_inputs, d_state

    return run


@pytest.fixture(scope="session")
def assert_close():
    """Two arrays, or tuples or dictionaries of arrays, of the same shapes, that agree to `relative` of the largest element.

    1e-10 in float64 leaves six digits for sums in another order, and none for a wrong formula.
    """

    def check(ours, theirs, relative=1e-10):
        if isinstance(ours, tuple):
            assert len(ours) == len(theirs)
            for our, their in zip(ours, theirs, strict=True):
                check(our, their, relative)
            return
        if isinstance(ours, dict):
            assert set(ours) == set(theirs)
            for name in ours:
                check(ours[name], theirs[name], relative)
            return
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max(initial=0))

    return check


@pytest.fixture(scope="session")
def dropout_masks():
    """The masks of every dropout that a cache holds, at any depth, in the order of the fields; None for one that drew nothing."""

    def find(node):
        if isinstance(node, list):
            return [mask for item in node for mask in find(item)]
        if not isinstance(node, Cache):
            return []
        return [mask for field in fields(node) for value in [getattr(node, field.name)]
                for mask in ([value] if field.name == "keep" else find(value))]

    return find
