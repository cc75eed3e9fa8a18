"""The wrapper around a kernel that takes torch tensors, in Triton or CUDA: copy it, and put your launches into the middle.

    transformer-np check torch_layer_norm.py:forward,backward --against layer_norm --profile bfloat16

It runs on the GPU if there is one, and on the CPU otherwise: the kernel in the middle is written in torch, so that it does.
"""

import numpy as np
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def to_device(array):
    """A NumPy array as a tensor. A copy, since torch knows no negative strides. It cannot read bfloat16, but its bits."""
    array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(DEVICE)
    return torch.from_numpy(array).to(DEVICE)


def to_host(tensor):
    """And back."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes  # which is there if such numbers came

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def forward(x, gain, bias, eps=1e-5):
    x, gain, bias = to_device(x), to_device(gain), to_device(bias)
    y, normalized, inverse_std = launch_forward(x, gain, bias, eps)
    return to_host(y), (gain, normalized, inverse_std)       # the cache stays on the device: nobody looks into it


def backward(d_y, cache):
    return tuple(to_host(gradient) for gradient in launch_backward(to_device(d_y), *cache))


# ---------------------------------------------------------------------------------------------------- your kernel

def launch_forward(x, gain, bias, eps):
    wide = x.double() if x.dtype == torch.float64 else x.float()
    centered = wide - wide.mean(dim=-1, keepdim=True)
    inverse_std = (centered.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    normalized = centered * inverse_std
    return (normalized * gain + bias).to(x.dtype), normalized, inverse_std


def launch_backward(d_y, gain, normalized, inverse_std):
    rows = tuple(range(d_y.ndim - 1))
    d_gain, d_bias = (d_y * normalized).sum(dim=rows), d_y.to(normalized.dtype).sum(dim=rows)
    d = d_y * gain.to(normalized.dtype)
    d_x = (d - d.mean(dim=-1, keepdim=True) - normalized * (d * normalized).mean(dim=-1, keepdim=True)) * inverse_std
    return d_x.to(d_y.dtype), d_gain.to(d_y.dtype), d_bias.to(d_y.dtype)
