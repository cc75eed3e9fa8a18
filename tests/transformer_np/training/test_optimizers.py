"""AdamW and SGD: PyTorch's numbers, closed forms, and the wrong versions that must be told apart."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_np.layer import Array, Layer, load, map_arrays, named_arrays, save
from transformer_np.linear import Linear
from transformer_np.training.optimizers import SGD, AdamW


@dataclass(repr=False, eq=False)
class Two(Layer):
    first: Linear
    gain: Array
    second: Linear
    name: str = "two"


def two_linears(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return Two(Linear.create(3, 5, rng=rng, dtype=dtype), rng.standard_normal(5).astype(dtype),
               Linear.create(5, 2, rng=rng, bias=False, dtype=dtype))


def gradients(count, seed=1):
    """Gradients of very different sizes, one of them zero."""
    return [two_linears(seed + i) if i != 2 else two_linears_times(0.0) for i in range(count)]


def two_linears_times(factor):
    return map_arrays(lambda x: factor * x, two_linears())


def run(optimizer, model, gradients, rates):
    state = optimizer.create_state(model)
    for gradient, rate in zip(gradients, rates, strict=True):
        model, state = optimizer.step(model, gradient, state, rate)
    return model, state


def run_in_torch(make, model, gradients, rates):
    torch = pytest.importorskip("torch")
    weights = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in named_arrays(model).items()}
    decayed = [w for w in weights.values() if w.ndim >= 2]
    others = [w for w in weights.values() if w.ndim < 2]
    theirs = make(torch, decayed, others)
    for gradient, rate in zip(gradients, rates, strict=True):
        for name, array in named_arrays(gradient).items():
            weights[name].grad = torch.tensor(array)
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
    return {name: weight.detach().numpy() for name, weight in weights.items()}


RATES = [1e-2, 3e-2, 5e-2, 2e-2, 1e-2, 1e-3, 1e-2]


@pytest.mark.parametrize(("betas", "eps", "decay"), [
    ((0.9, 0.999), 1e-8, 0.0), ((0.9, 0.99), 1e-2, 0.1), ((0.0, 0.5), 1e-8, 0.3),
])
def test_adamw_is_pytorchs(betas, eps, decay):
    ours, _ = run(AdamW(betas, eps, decay), two_linears(), gradients(7), RATES)
    theirs = run_in_torch(lambda torch, decayed, others: torch.optim.AdamW(
        [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], betas=betas, eps=eps),
        two_linears(), gradients(7), RATES)
    for name, array in named_arrays(ours).items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.1), (0.0, 0.1)])
def test_sgd_is_pytorchs(momentum, decay):
    ours, _ = run(SGD(momentum, decay), two_linears(), gradients(7), RATES)
    theirs = run_in_torch(lambda torch, decayed, others: torch.optim.SGD(
        [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=1.0, momentum=momentum),
        two_linears(), gradients(7), RATES)
    for name, array in named_arrays(ours).items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-12, atol=1e-13, err_msg=name)


def adamw_by_definition(weight, gradients, rate, betas, eps, decay, first_t=1):
    """The sums written out, without moving averages: mean_t = (1 - beta_1) sum_s beta_1^(t - s) g_s."""
    for t in range(1, len(gradients) + 1):
        mean = (1 - betas[0]) * sum(betas[0] ** (t - s) * g for s, g in enumerate(gradients[:t], start=1))
        square = (1 - betas[1]) * sum(betas[1] ** (t - s) * g**2 for s, g in enumerate(gradients[:t], start=1))
        corrected = t - 1 + first_t
        mean, square = mean / (1 - betas[0] ** corrected), square / (1 - betas[1] ** corrected)
        weight = weight - rate * decay * weight - rate * mean / (np.sqrt(square) + eps)
    return weight


def adamw_on_one_matrix(steps):
    layers = [Linear(np.random.default_rng(seed).standard_normal((2, 3)), None) for seed in range(steps + 1)]
    ours, _ = run(AdamW((0.9, 0.99), 1e-3, 0.1), layers[0], layers[1:], [1e-2] * steps)
    return ours.weight, (layers[0].weight, [layer.weight for layer in layers[1:]], 1e-2, (0.9, 0.99), 1e-3, 0.1)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_adamw_is_its_definition(steps):
    ours, arguments = adamw_on_one_matrix(steps)
    np.testing.assert_allclose(ours, adamw_by_definition(*arguments), rtol=1e-12)


def test_a_bias_correction_with_the_wrong_t_is_told_apart():
    ours, arguments = adamw_on_one_matrix(1)
    assert np.abs(ours - adamw_by_definition(*arguments, first_t=2)).max() > 1e-3


@given(st.floats(-100, 100).filter(lambda g: abs(g) > 1e-3), st.floats(0, 0.999), st.floats(0, 0.999))
@settings(max_examples=25, deadline=None)
def test_the_first_step_of_adamw_has_the_length_of_the_rate(g, beta_1, beta_2):
    model, gradient = Linear(np.zeros((1, 1)), None), Linear(np.full((1, 1), g), None)
    moved, _ = run(AdamW((beta_1, beta_2), 1e-12), model, [gradient], [0.5])
    np.testing.assert_allclose(moved.weight, -0.5 * np.sign(g), rtol=1e-6)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.5), SGD(0.9, weight_decay=0.5)])
def test_decay_falls_on_matrices_and_not_on_biases_and_gains(optimizer):
    model = two_linears()
    moved, _ = run(optimizer, model, [two_linears_times(0.0)], [0.1])
    np.testing.assert_allclose(moved.first.weight, 0.95 * model.first.weight, rtol=1e-15)
    np.testing.assert_allclose(moved.second.weight, 0.95 * model.second.weight, rtol=1e-15)
    np.testing.assert_array_equal(moved.first.bias, model.first.bias)
    np.testing.assert_array_equal(moved.gain, model.gain)
    assert moved.second.bias is None


def test_decay_of_adamw_is_not_scaled_by_the_gradient():
    """Decoupled: Adam with the decay inside the gradient would make a step of length `rate`, whatever the decay."""
    moved, _ = run(AdamW(weight_decay=1e-3), two_linears(), [two_linears_times(0.0)], [0.1])
    np.testing.assert_allclose(moved.first.weight, (1 - 1e-4) * two_linears().first.weight, rtol=1e-15)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.1), SGD(0.9, 0.1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_dtype_stays_even_with_a_numpy_learning_rate(optimizer, dtype):
    model, state = run(optimizer, two_linears(dtype=dtype), [two_linears(1, dtype)] * 2, [np.float64(0.1)] * 2)
    assert {array.dtype for array in named_arrays(model).values()} == {np.dtype(dtype)}
    assert {array.dtype for name, array in named_arrays(state).items() if name != "step"} == {np.dtype(dtype)}


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.1), SGD(0.9, 0.1)])
def test_a_step_writes_into_none_of_its_arguments(optimizer):
    model, gradient = two_linears(), two_linears(1)
    state = optimizer.create_state(model)
    for tree in (model, gradient, state):
        for array in named_arrays(tree).values():
            array.setflags(write=False)
    new_model, new_state = optimizer.step(model, gradient, state, 0.1)
    optimizer.step(new_model, gradient, new_state, 0.1)
    for new, old in ((new_model, model), (new_state, state)):
        for name, array in named_arrays(new).items():
            assert not np.shares_memory(array, named_arrays(old)[name]), name


@pytest.mark.parametrize("optimizer", [AdamW(), SGD(0.9)])
def test_the_state_is_saved_and_loaded_like_a_model(optimizer, tmp_path):
    _, state = run(optimizer, two_linears(), gradients(3), RATES[:3])
    save(state, tmp_path / "state.npz")
    loaded = load(optimizer.create_state(two_linears()), tmp_path / "state.npz")
    for name, array in named_arrays(state).items():
        np.testing.assert_array_equal(named_arrays(loaded)[name], array)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.1), SGD(0.9, 0.1)])
def test_a_weight_without_axes_and_an_empty_one_take_steps(optimizer):
    model = Linear(np.zeros((0, 3)), np.array(1.0))
    moved, _ = run(optimizer, model, [Linear(np.zeros((0, 3)), np.array(2.0))] * 2, [0.1] * 2)
    assert moved.weight.shape == (0, 3)
    assert moved.bias.shape == () and moved.bias < 1


def test_a_gradient_of_another_model_is_refused():
    model, optimizer = two_linears(), AdamW()
    with pytest.raises(ValueError, match=r"first\.weight"):
        wrong = Two(Linear(np.zeros((3, 4)), np.zeros(4)), model.gain, model.second)
        optimizer.step(model, wrong, optimizer.create_state(model), 0.1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: AdamW(betas=(0.9, 1.0)), r"betas \(0.9, 1.0\)"), (lambda: AdamW(betas=(-0.1, 0.9)), "betas"),
    (lambda: AdamW(eps=0.0), "eps 0.0"), (lambda: AdamW(eps=float("nan")), "eps nan"),
    (lambda: AdamW(weight_decay=-1.0), "weight_decay -1.0"),
    (lambda: SGD(momentum=1.0), "momentum 1.0"), (lambda: SGD(weight_decay=-1.0), "weight_decay -1.0"),
])
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
