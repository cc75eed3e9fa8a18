"""A kernel of another library is given arrays of that library, and its answers are read without a copy."""

import subprocess
import sys

import numpy as np
import pytest

from transformer_np.gradcheck import check_gradients, check_vjp
from transformer_np.gradcheck.calling.foreign import Unsupported, like, to_numpy

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3, 5))
W = RNG.standard_normal((5, 4))


def tensor(array, **settings):
    return torch.tensor(array, **settings)


class GeluLinear(torch.autograd.Function):
    """gelu(x) @ weight, with its own backward."""

    factor = 1.0

    @staticmethod
    def forward(ctx, x, weight):
        assert isinstance(x, torch.Tensor) and isinstance(weight, torch.Tensor)
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.gelu(x) @ weight

    @staticmethod
    def backward(ctx, d_y):
        x, weight = ctx.saved_tensors
        slope = 0.5 * (1 + torch.erf(x / 2 ** 0.5)) + x * torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
        d_weight = torch.nn.functional.gelu(x).reshape(-1, 5).T @ d_y.reshape(-1, 4)
        return d_y @ weight.T * slope, GeluLinear.factor * d_weight


def forward(x, weight):
    leaves = [each.clone().requires_grad_() for each in (x, weight)]
    y = GeluLinear.apply(*leaves)
    return y, (y, leaves)


def backward(d_y, cache):
    assert isinstance(d_y, torch.Tensor)
    y, leaves = cache
    return torch.autograd.grad(y, leaves, d_y, retain_graph=True)


def test_a_torch_kernel_from_end_to_end(monkeypatch):
    report = check_gradients(forward, backward, [tensor(X, requires_grad=True), tensor(W, dtype=torch.float32)])
    assert report.ok, str(report)
    assert "complex" in report.check("gradient of x").method
    monkeypatch.setattr(GeluLinear, "factor", 1 + 1e-7)
    report = check_gradients(forward, backward, [tensor(X), tensor(W)])
    assert [check.name for check in report.checks if not check.ok] == ["gradient of weight"]


def test_a_layout_that_torch_has_not_is_left_out():
    says = check_gradients(forward, backward, [tensor(X), tensor(W)]).check("memory layouts agree").says
    assert says.endswith("C order, Fortran order, strided, stride 0, read-only; left out: reversed")


def test_a_torch_kernel_that_writes_into_its_cotangent_is_seen():
    report = check_vjp(lambda x: x * x, lambda d_y, x: d_y.mul_(2 * x), [tensor(X)])
    assert report.check("nothing is written to").says == "vjp changed d_output.0"


def test_trees_of_tensors_and_a_tensor_of_ids():
    def take(weights, ids):
        assert ids.dtype == torch.int64
        return {"rows": weights["table"][ids], "twice": (2 * weights["table"], 3)}

    def take_vjp(d_output, weights, ids):
        d_table = 2 * d_output["twice"][0]
        return {"table": d_table.index_add(0, ids, d_output["rows"])}

    report = check_vjp(take, take_vjp, [{"table": tensor(W)}, torch.tensor([1, 1, 4])])
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("gradients", [lambda d_x: d_x, lambda d_x: (d_x, None), lambda d_x: (d_x, None, None)])
def test_a_tensor_of_integers_has_no_gradient(dtype, gradients):
    ids = torch.tensor([0, 1], dtype=getattr(torch, dtype))

    def scale(x, ids, mask):
        assert ids.dtype == getattr(torch, dtype) and mask is None
        return x * ids[:, None, None]

    report = check_vjp(scale, lambda d_y, x, ids, mask: gradients(d_y * ids[:, None, None]), [tensor(X), ids, None])
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128", "int64", "bool"])
def test_arrays_go_out_and_come_back(dtype):
    array = (3 * X).astype(dtype)
    there = like(array, tensor(X))
    assert isinstance(there, torch.Tensor) and str(there.dtype) == f"torch.{dtype}"
    back = to_numpy(there)
    assert back.dtype == array.dtype and (back == array).all()
    assert np.shares_memory(back, array)


def test_bfloat16_goes_out_and_comes_back():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = X.astype(ml_dtypes.bfloat16)
    there = like(array, tensor(X))
    assert there.dtype == torch.bfloat16
    back = to_numpy(there)
    assert back.dtype == array.dtype and (back == array).all()


def test_a_tensor_with_a_history_or_with_its_conjugate_put_off_is_read():
    there = tensor(X + 1j, requires_grad=True).conj()
    assert (to_numpy(there) == X - 1j).all()


@pytest.mark.parametrize("array", [X[::-1], X.astype(">f8")], ids=["negative stride", "other order of bytes"])
def test_what_torch_cannot_hold_is_refused_before_it_sees_it(array):
    with pytest.raises(Unsupported, match="torch cannot hold such an array"):
        like(array, tensor(X))


def test_no_library_is_imported_by_us():
    code = ("import sys, numpy as np; from transformer_np.gradcheck import check_vjp; "
            "assert check_vjp(lambda x: x * x, lambda d_y, x: 2 * x * d_y, [np.ones(3)]).ok; "
            "print([name for name in ('torch', 'jax', 'cupy', 'ml_dtypes') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
