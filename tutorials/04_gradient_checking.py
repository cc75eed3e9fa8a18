# %% [markdown]
# # 4. Gradient checking: why a check passes wrong code
#
# Public implementations of softmax, layer norm and attention have been wrong for years, *with passing gradient
# checks*. The checks were not missing. They looked away: at a cotangent of ones, at a sequence of length 1, at inputs
# so small that every weight was the same. This lesson shows 22 such bugs, the check that lets each one through, and
# the check that does not.
#
# You need tutorial 1; tutorial 2 helps. Run it from top to bottom (`python tutorials/04_gradient_checking.py`), step
# through it in a debugger, or open it as a notebook. It takes some seconds.
#
# Text and exercises: CC BY 4.0. Code: MIT.

# %%
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from classroom import grade, require, table  # a small file beside this one: grades answers, prints tables

from baselines_np.convolution import convolution_1d_backward, convolution_1d_forward
from baselines_np.lstm import lstm_step_backward, lstm_step_forward
from transformer_np import (
    GPT,
    Linear,
    MultiHeadAttention,
    attention_backward,
    attention_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_forward,
    gelu_forward,
    gelu_tanh_backward,
    gelu_tanh_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
    map_arrays,
    named_arrays,
    softmax_backward,
    softmax_forward,
)
from transformer_np.gradcheck import check_against, check_gradients, check_layer, check_vjp, with_random_weights
from transformer_np.training.optimizers import AdamW

# %% [markdown]
# ## 4.1 By hand: one number
#
# Take `f(x) = x^3` at x = 1.5. With a pencil, f'(x) = 3 x^2 = 6.75. Three ways to *measure* it:
#
#     forward      (f(x + h) - f(x)) / h              = 3 x^2 + 3 x h + h^2        bends away like h
#     central      (f(x + h) - f(x - h)) / (2 h)      = 3 x^2 + h^2                bends away like h^2
#     sideways     Im f(x + i h) / h                  = 3 x^2 - h^2                bends away like h^2
#
# On paper, a smaller h is always better. A computer has 16 digits. The first two subtract numbers that agree in
# almost all of them, and divide what is left by h: their rounding error *grows* like 1e-16 / h. The third subtracts
# nothing. Expand it and look:
#
#     (x + i h)^3  =  (x^3 - 3 x h^2)  +  i (3 x^2 h - h^3)
#                      \_____________/       \____________/
#                      real: f, untouched    imaginary: h f', alone in its own float
#
# The derivative travels in a float of its own, next to no large number. A float is as exact at 1e-20 as at 1. That is
# why h = 1e-20 works: h^2 = 1e-40 is gone, and nothing else is lost.

# %%
def forward_difference(f, x, h):
    return (f(x + h) - f(x)) / h


def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def complex_step(f, x, h):
    return f(x + 1j * h).imag / h


def wavy(x):
    """x: a number, real or complex."""
    return np.exp(x) * np.sin(3 * x)


assert abs(complex_step(lambda x: x**3, 1.5, 1e-20) - 6.75) < 1e-14
at = 0.7
slope = math.exp(at) * (math.sin(3 * at) + 3 * math.cos(3 * at))                # with a pencil: the product rule
errors = {}
for h in (1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-16, 1e-20):
    errors[h] = [abs(measure(wavy, at, h) / slope - 1) for measure in (forward_difference, central_difference, complex_step)]
print("f(x) = exp(x) sin(3 x). Relative error of its slope:")
print(table(["h", "forward", "central", "complex step"],
            [[f"{h:.0e}", *(f"{error:.0e}" for error in row)] for h, row in errors.items()]))
best = [min(row[i] for row in errors.values()) for i in range(3)]
print("best of each:", ", ".join(f"{error:.0e}" for error in best))
assert 1e-10 < best[0] < 1e-6, "about 8 digits"
assert 1e-13 < best[1] < 1e-8, "about 10 digits"
assert errors[1e-20][2] < 1e-15, "all of them"
assert errors[1e-16][0] > 0.1 and errors[1e-20][1] == 1, "the step is lost in x: the difference is 0 / h"

# %% [markdown]
# Why so many digits? Because a bug can be small. A layer norm that forgets eps in backward is off by 1e-5 or less. A
# check that is itself good to eight digits can be asked for seven. Most are asked for three.

# %% [markdown]
# ## 4.2 The cotangent: ones see nothing
#
# A backward pass takes `d_y`, the *cotangent*, and gives `d_x`: one row vector times the matrix of all derivatives. A
# check must choose a row. Most choose ones, that is, they check the gradient of `y.sum()`. Here is that ordinary check,
# with the step and the tolerances that PyTorch's gradient checker has by default. We keep it for the whole lesson.

# %%
def ordinary_check(forward, backward, inputs):
    """Central differences, a cotangent of ones, three digits. Returns whether it passes."""
    y, cache = forward(*inputs)
    gradients = backward(np.ones_like(y), cache)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    floating = [i for i, given in enumerate(inputs) if given.dtype.kind == "f"]
    return all(np.allclose(gradient, differences(forward, inputs, which), rtol=1e-3, atol=1e-5)
               for which, gradient in zip(floating, gradients, strict=True))


def differences(forward, inputs, which, h=1e-6):
    """The gradient of the sum of the output by input number `which`. Returns an array like that input."""
    measured = np.zeros_like(inputs[which])
    for index in np.ndindex(measured.shape):
        sums = []
        for step in (h, -h):
            moved = [given.copy() for given in inputs]
            moved[which][index] += step
            sums.append(forward(*moved)[0].sum())
        measured[index] = (sums[0] - sums[1]) / (2 * h)
    return measured


def zeros(d_y, cache):
    """A backward pass that does nothing at all."""
    return np.zeros_like(d_y)                                                   # [..., N]


def layer_norm_without_parameters(x):
    return layer_norm_forward(x, np.ones(x.shape[-1]), np.zeros(x.shape[-1]))  # gain 1, bias 0: a fresh layer


x = np.random.default_rng(0).standard_normal((4, 5))                            # [B, N]
for name, forward in (("softmax", softmax_forward), ("layer norm", layer_norm_without_parameters)):
    passes = ordinary_check(forward, zeros, [x])
    caught = not check_gradients(forward, zeros, [x]).ok
    print(f"{name:<10}  a backward of zeros: ordinary check {'passes' if passes else 'fails'} it, "
          f"random cotangent {'rejects' if caught else 'passes'} it")
    assert passes and caught

# %% [markdown]
# The shares of a softmax sum to 1. The row of a layer norm sums to 0. So `y.sum()` is a *constant*, its gradient is
# zero, and zeros are right. A random cotangent asks for a weighted sum that no layer keeps constant. Draw it, with a
# seed; that is all.

# %% [markdown]
# ## 4.3 Sizes, and inputs that are too kind
#
# A size of 1 makes sums into nothing. With *one key*, attention gives it the weight 1 whatever the scores are: the true
# gradients of q and k are zero. With one position there is nothing to mix up. A gain of 1 multiplies without a trace.
# Tiny inputs make every weight 1 / S.

# %%
def zeros_for_q_and_k(d_y, cache):
    """Right for v. Nothing for q and k."""
    d_q, d_k, d_v = attention_backward(d_y, cache)
    return np.zeros_like(d_q), np.zeros_like(d_k), d_v


rng = np.random.default_rng(1)
verdicts = {}
for S in (1, 6):
    qkv = [rng.standard_normal((2, length, 3)) for length in (4, S, S)]         # [B, T, E], [B, S, E], [B, S, E]
    verdicts[S] = check_gradients(attention_forward, zeros_for_q_and_k, qkv).ok
    print(f"{S} key{'s' if S > 1 else ' '}: no gradient for q and k", "passes" if verdicts[S] else "is rejected")
assert verdicts == {1: True, 6: False}

# %% [markdown]
# This time even the good checker passed: with one key the answer *is* right. **No checker can see what your inputs do
# not show.** Give each axis a size of its own, none of them 1, and numbers near 1 in size.

# %% [markdown]
# ## 4.4 How wrong is wrong? Relative error and true zeros
#
# A relative error, `|a - n| / |n|`, is fair to small and large gradients. But some gradients are *exactly* zero. In
# attention, the bias of the keys adds the same number to all scores of a query; softmax does not care; so its gradient
# is zero. Rounding leaves a little of it on both sides, and 2e-15 beside 9e-10 is an error of 100 %.

# %%
heads = with_random_weights(MultiHeadAttention.create(6, 2, rng=rng, dtype=np.float64), rng)
rows, memory = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6))   # [B, T, D], [B, S, D]
y, cache = heads.forward(rows, memory)
d_y = rng.standard_normal(y.shape)
_, _, d_heads = heads.backward(d_y, cache)


def loss_with_key_bias(bias):
    moved = MultiHeadAttention(heads.query, Linear(heads.key.weight, bias), heads.value, heads.output, heads.num_heads)
    return (moved.forward(rows, memory)[0] * d_y).sum()


analytic = d_heads.key.bias                                                     # [D]
numeric = np.array([central_difference(lambda step, row=row: loss_with_key_bias(heads.key.bias + step * row), 0.0, 1e-6)
                    for row in np.eye(6)])                                      # [D]
naive = (np.abs(analytic - numeric) / np.maximum(np.abs(analytic) + np.abs(numeric), 1e-300)).max()
fair = check_layer(heads, [rows, memory])
print(f"key bias: analytic {np.abs(analytic).max():.0e}, measured {np.abs(numeric).max():.0e}, naive relative error {naive:.1f}")
print(fair.check("gradient of key.bias").name + ":", "ok" if fair.check("gradient of key.bias").ok else "FAIL")
assert np.abs(analytic).max() < 1e-13
assert naive > 0.5, "a false alarm"
assert fair.ok

# %% [markdown]
# Then people loosen the tolerance until the alarm stops, and bugs walk in. A fair verdict has two parts, *relative* and
# *absolute*, and takes the absolute one from the size of what was summed, not from a constant like 1e-5.

# %% [markdown]
# ## 4.5 A whole GPT, one number
#
# Element by element costs one forward for each weight. There is a way to ask all at once. Let v be a random direction
# for a weight, and c the cotangent. Forward moves by J v; backward gives J^T c. For any matrix at all:
#
#     c . (J v)  =  (J^T c) . v                the adjoint identity
#
# The left side is one complex step. The right side is one backward. Here every weight of a GPT moves at once, sideways:
# two forwards and one backward, and one number to compare. `method="adjoint"` does it for each weight array, so that a
# failure has a name.

# %%
gpt = with_random_weights(GPT.create(7, context=4, d_model=4, num_layers=1, num_heads=2, rng=rng, dtype=np.float64), rng)
tokens = np.array([[3, 0, 3], [6, 3, 1]])                                       # [B, T]
direction = map_arrays(lambda weight: rng.standard_normal(weight.shape), gpt)    # v, shaped like the model
logits, cache = gpt.forward(tokens)                                             # [B, T, V]
c = rng.standard_normal(logits.shape)                                           # [B, T, V]
moved = map_arrays(lambda weight, v: weight + 1e-20j * v, gpt, direction)
by_forward = (c * moved.forward(tokens)[0].imag).sum() / 1e-20                  # c . (J v)
products = map_arrays(lambda d, v: (d * v).sum(), gpt.backward(c, cache), direction)
by_backward = sum(float(product) for product in named_arrays(products).values())  # (J^T c) . v
print(f"all weights at once: {by_forward:.12f} by forward, {by_backward:.12f} by backward")
assert abs(by_forward / by_backward - 1) < 1e-11
adjoint = check_layer(gpt, [tokens], method="adjoint")
measured = [check for check in adjoint.checks if check.argument]
print(f"GPT: {len(measured)} arrays of weights, largest relative error {adjoint.worst:.0e}")
print(measured[0].name + ":", measured[0].method)
assert adjoint.ok
assert adjoint.worst < 1e-12

# %% [markdown]
# A third way needs neither complex numbers nor a good step. Move by h along v, take away what the gradient promised,
# and look at how fast the rest falls (Taylor):
#
#     rest(h) = |f(x + h v) - f(x) - h (g . v)|        like h^2 if g is right: halve h, a quarter is left, slope 2
#                                                      like h   if g is wrong: slope 1

# %%
def taylor_slope(factor):
    """How fast the rest falls for a gradient that is too large by `factor`."""
    x, v = np.random.default_rng(2).standard_normal((2, 4, 5))                  # [B, N] each
    c = np.random.default_rng(3).standard_normal((4, 5))                        # [B, N]
    y, cache = softmax_forward(x)
    promised = factor * (softmax_backward(c, cache) * v).sum()
    rests = [abs(((softmax_forward(x + h * v)[0] - y) * c).sum() - h * promised) for h in (1e-3, 5e-4)]
    return math.log2(rests[0] / rests[1])


slopes = {factor: taylor_slope(factor) for factor in (1.0, 1.01, 2.0, 1 + 1e-7)}
print(table(["gradient times", "slope"], [[f"{factor:.7f}", slope] for factor, slope in slopes.items()]))
assert abs(slopes[1.0] - 2) < 0.02
assert slopes[1.01] < 1.3 and slopes[2.0] < 1.1
assert slopes[1 + 1e-7] > 1.9, "a small error hides below the bend: a second opinion, not the first"

# %% [markdown]
# ## 4.6 What no derivative check can see
#
# Scale the scores by the wrong width, in forward *and* in backward. Backward is the derivative of forward, perfectly.
# Forward is not attention. Only someone who computes attention *in another way* can tell: an oracle. Here it is, as its
# sums read; no axis is moved, so none can be moved wrongly.

# %%
def attention_by_loops(x, memory, num_heads, mask=None):
    """x: [B, T, D], queries.   memory: [B, S, D], keys and values.   mask: [T, S].   Returns y: [B, T, D]."""
    (B, T, D), S = x.shape, memory.shape[1]
    E = D // num_heads
    y = np.zeros((B, T, D))
    for b, h, t in np.ndindex(B, num_heads, T):
        head = slice(h * E, (h + 1) * E)
        seen = [s for s in range(S) if mask is None or mask[t, s]]
        e = [math.exp(x[b, t, head] @ memory[b, s, head] / math.sqrt(E)) for s in seen]
        for weight, s in zip(e, seen, strict=True):
            y[b, t, head] += weight / sum(e) * memory[b, s, head]
    return y


def heads_of(array, num_heads):
    """[B, T, D] -> [B, H, T, E]."""
    B, T, D = array.shape
    return array.reshape(B, T, num_heads, D // num_heads).swapaxes(1, 2)


def attention_by_width(x, memory, scale):
    """Attention with 2 heads; scores times `scale`."""
    y, cache = attention_forward(heads_of(x, 2), heads_of(memory, 2), heads_of(memory, 2), scale=scale)
    return y.swapaxes(1, 2).reshape(x.shape), cache


def attention_by_width_backward(d_y, cache):
    d_q, d_k, d_v = attention_backward(heads_of(d_y, 2), cache)
    joined = [d.swapaxes(1, 2).reshape(d.shape[0], d.shape[2], -1) for d in (d_q, d_k + d_v)]
    return tuple(joined)                                                        # d_x, d_memory


x, memory = rng.standard_normal((2, 3, 6)), rng.standard_normal((2, 5, 6))      # [B, T, D], [B, S, D]
for name, scale in (("head width ", 1 / math.sqrt(3)), ("model width", 1 / math.sqrt(6))):
    derivative = check_gradients(lambda x, m, scale=scale: attention_by_width(x, m, scale), attention_by_width_backward,
                                 [x, memory])
    off = np.abs(attention_by_width(x, memory, scale)[0] - attention_by_loops(x, memory, 2)).max()
    print(f"scaled by the {name}: gradient check {'ok' if derivative.ok else 'FAIL'}, off the oracle by {off:.0e}")
    assert derivative.ok
    assert (off > 1e-2) == (name == "model width")

# %% [markdown]
# ## 4.7 Four calls, and how to read the answer
#
#     check_gradients(forward, backward, inputs)       a pair with a cache
#     check_vjp(function, vjp, inputs)                 plain functions, no cache: vjp(d_output, *inputs)
#     check_layer(layer, inputs)                       a layer, and every weight in it
#     check_against("softmax", forward, backward)      beside this project's pair: forward too, and the edges

# %%
probe = np.random.default_rng(4).standard_normal((4, 5))                        # [B, N]


def transposed_vjp(d_y, x, weight):
    """The vjp of x @ weight, with one transpose forgotten. It runs, since the weight is square."""
    return d_y @ weight, x.T @ d_y


square = check_vjp(lambda x, weight: x @ weight, transposed_vjp, [probe, rng.standard_normal((5, 5))],
                   name="product")
kernel = check_against("softmax", softmax_forward, lambda d_y, cache: d_y * cache.y)
print(square)
print()
print("\n".join(str(kernel).split("\n")[:4]))
assert not square.check("gradient of x").ok and square.check("gradient of weight").ok
assert not kernel.ok
assert kernel.checks[0].ok, "its forward is right"

# %% [markdown]
# Read a report from the top. **Which gradient?** One bad argument among good ones is a slip in one line; all bad, a
# term that they share. **How large?** 1e-5 is a forgotten eps; 0.4 is a term. **How many elements?** All, or one row.
# Then the *diagnosis*, which tries the usual suspects: a constant factor, a sign, a transpose, a missing sum.

# %%
SUSPECTS = {
    "twice too large":  lambda d_y, cache: 2 * softmax_backward(d_y, cache),
    "a mean too many":  lambda d_y, cache: softmax_backward(d_y, cache) / len(d_y),
    "wrong sign":       lambda d_y, cache: -softmax_backward(d_y, cache),
    "nothing":          zeros,
    "no row term":      lambda d_y, cache: d_y * cache.y,
}
diagnoses = {name: check_gradients(softmax_forward, wrong, [probe]).check("gradient of x").diagnosis
             for name, wrong in SUSPECTS.items()}
for name, diagnosis in diagnoses.items():
    print(f"{name:<16} {diagnosis.kind}: {diagnosis.says}")
assert len({diagnosis.kind for diagnosis in diagnoses.values()}) >= 4
assert diagnoses["no row term"].kind == "missing row term"

# %% [markdown]
# **Low precision.** A kernel in float16 has three digits. Is 2e-4 an error, or is it float16? `profile="float16"` rounds
# the *inputs* first, calls the kernel in float16, and asks float64 what is right *for the rounded inputs*. What is left
# is the kernel's own error. A factor of 1.05 stays visible.

# %%
low = {}
for profile in ("float64", "float32", "float16"):
    right = check_gradients(softmax_forward, softmax_backward, [probe], profile=profile)
    wrong = check_gradients(softmax_forward, lambda d_y, cache: softmax_backward(d_y, cache) * d_y.dtype.type(1.05), [probe],
                            profile=profile)
    low[profile] = right.check("gradient of x"), wrong.check("gradient of x")
print(table(["profile", "bound", "softmax", "softmax times 1.05"],
            [[profile, f"{a.bound:.0e}", f"{a.figure:.0e}", f"{b.figure:.0e}"] for profile, (a, b) in low.items()]))
for right, wrong in low.values():
    assert right.ok and not wrong.ok

# %% [markdown]
# ## 4.8 A gallery of wrong versions that still train
#
# All 22 were seen in public code. First the bugs in a backward pass. Each has a pair, *kind* inputs, for which the
# ordinary check of 4.2 passes it, and *telling* inputs.

# %%
def layer_norm_variant(*, mean=True, variance=True, gain_inside=True, eps=1e-5, minus=0):
    """`layer_norm_backward` with one thing wrong."""

    def backward(d_y, cache):
        n, N = cache.normalized, d_y.shape[-1]                                  # [B, N]
        d_n = d_y * cache.gain if gain_inside else d_y                          # [B, N]
        through_mean = d_n.mean(axis=-1, keepdims=True) if mean else 0          # [B, 1]
        through_variance = (d_n * n).sum(axis=-1, keepdims=True) / (N - minus) if variance else 0
        inverse_std = 1 / np.sqrt(1 / cache.inverse_std**2 - 1e-5 + eps)        # [B, 1]
        d_x = (d_n - through_mean - n * through_variance) * inverse_std         # [B, N]
        return d_x if gain_inside else d_x * cache.gain, (d_y * n).sum(axis=0), d_y.sum(axis=0)

    return backward


def diagonal_only(d_y, cache):
    return d_y * cache.y * (1 - cache.y)                                        # [B, N]


def mean_loss(logits, targets):
    (loss, _), cache = cross_entropy_forward(logits, targets)
    return loss, cache


def loss_divided_twice(d_loss, cache):
    return cross_entropy_backward(d_loss, cache) / len(cache.labels)            # [B, V]


def target_by_value(d_loss, cache):
    p = cache.probabilities                                                     # [B, V]
    found = p == p[np.arange(len(p)), cache.labels][:, None]                    # [B, V], two of them in a tie
    return d_loss * (p - found) / len(p)


def with_dropout(q, k, v, percent):
    return attention_forward(q, k, v, dropout=int(percent) / 100, rng=np.random.default_rng(1))


def weights_before_dropout(d_y, cache):
    d_q, d_k, _ = attention_backward(d_y, cache)
    return d_q, d_k, cache.weights.swapaxes(-1, -2) @ d_y                       # d_v


def slope_of_the_tanh_form(d_y, cache):
    return gelu_tanh_backward(d_y, gelu_tanh_forward(cache.x)[1])


def last_repeat_only(d_y, cache):
    d_weight = np.zeros((cache.vocab_size, d_y.shape[-1]))                      # [V, D]
    d_weight[cache.ids] += d_y                                                  # once for each *different* id
    return d_weight


def tied_forward(ids, weight):
    """One table at both ends: logits = weight[ids] weight^T. Position 1 looks its row up; all rows answer."""
    return weight[ids] @ weight.T, (ids, weight)                                # [B, V]


def tied_once(d_y, cache):
    ids, weight = cache
    return d_y.T @ weight[ids]                                                  # [V, D], of the output end only


def bias_over_one_axis(d_y, cache):
    d_x, d_weight, _ = linear_backward(d_y, cache)
    return d_x, d_weight, d_y.sum(axis=0).reshape(-1, d_y.shape[-1])[-1]        # the last position is left


def lstm_chain(projected, weight_h):
    """projected: [B, T, 4 D].   weight_h: [D, 4 D].   Returns y: [B, T, D]."""
    h = c = np.zeros((len(projected), len(weight_h)))                           # [B, D]
    y, steps = [], []
    for t in range(projected.shape[1]):
        (h, c), step = lstm_step_forward(projected[:, t], h, c, weight_h)
        y.append(h)
        steps.append(step)
    return np.stack(y, axis=1), steps


def cell_not_carried(d_y, steps):
    d_projected, d_weight_h, d_h = [], 0, np.zeros_like(d_y[:, 0])
    for t in reversed(range(len(steps))):
        d_p, d_h, _, d_w = lstm_step_backward((d_y[:, t] + d_h, np.zeros_like(d_h)), steps[t])   # d_c of step t + 1 is dropped
        d_projected.insert(0, d_p)
        d_weight_h = d_weight_h + d_w
    return np.stack(d_projected, axis=1), d_weight_h


def strided(x, weight, bias):
    y, cache = convolution_1d_forward(x, weight, bias, stride=2)
    return y, (cache, x.shape[1])


def one_short(d_y, cache):
    cache, T = cache
    d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache)
    left_over = (T - 3) % 2                                                     # inputs that no window of width 3 reaches
    return (np.roll(d_x, 1, axis=1) if left_over else d_x), d_weight, d_bias    # set down from the wrong end


def padded(x, weight, bias, padding):
    p = int(padding)
    y, cache = convolution_1d_forward(x, weight, bias, padding=p)
    return y, (cache, p)


def cut_by_minus_p(d_y, cache):
    cache, p = cache
    d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache)
    d_padded = np.pad(d_x, ((0, 0), (p, p), (0, 0)))                            # as a loop over windows leaves it
    return d_padded[:, p:-p], d_weight, d_bias                                  # p = 0: [0:-0] is empty


def blockwise(scores, mask):
    """Softmax over blocks of two keys, with a running peak. -inf - -inf is not a number."""
    masked = np.where(mask, scores, -np.inf)                                    # [T, S]
    peak, total = np.full(len(scores), -np.inf), np.zeros(len(scores), scores.dtype)     # [T]
    with np.errstate(invalid="ignore"):
        for block in np.split(masked, masked.shape[1] // 2, axis=1):
            new_peak = np.maximum(peak, block.real.max(axis=1))
            total = total * np.exp(peak - new_peak) + np.exp(block - new_peak[:, None]).sum(axis=1)
            peak = new_peak
        return np.exp(masked - peak[:, None]) / total[:, None], softmax_forward(scores, mask)[1]


def mask_reversed(d_y, cache):
    cache, mask = cache
    return softmax_backward(np.where(mask, 0, d_y), cache)


def masked_softmax(scores, mask):
    y, cache = softmax_forward(scores, mask)
    return y, (cache, mask)


@dataclass(frozen=True)
class Bug:
    number: int
    what: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    kind: list[Any]             # inputs for which the ordinary check passes it
    telling: list[Any]          # inputs that show it


def draw(*shapes):
    """Fresh random arrays, the same for the same shapes."""
    rng = np.random.default_rng(5)
    return [rng.standard_normal(shape) for shape in shapes]


# %% [markdown]
# `kind` says why a check was blind. Read the groups as a list of rules for your own inputs.

# %%
X, GAIN, BIAS = draw((4, 5), 5, 5)
TIE = X.copy()
TIE[0, 1] = TIE[0, 4]
LABELS, IDS = np.array([4, 0, 2, 1]), np.array([3, 0, 3, 6])
ATTENDED = np.array([[True] * 6, [False, False, True, True, True, False]])      # row 1: its first block of two is masked
FRESH = [X, np.ones(5), np.zeros(5)]
GROUPS = {
    "a cotangent of ones: the true gradient is 0": [
        Bug(2, "softmax divided by the batch", softmax_forward, SUSPECTS["a mean too many"], [X], [X]),
        Bug(3, "layer norm without the variance term", layer_norm_forward, layer_norm_variant(variance=False), FRESH,
            [X, GAIN, BIAS]),
        Bug(5, "layer norm with N - 1 for N", layer_norm_forward, layer_norm_variant(minus=1), FRESH, [X, GAIN, BIAS]),
        Bug(21, "mask reversed in backward", masked_softmax, mask_reversed, [*draw((2, 6)), ATTENDED], [*draw((2, 6)), ATTENDED]),
    ],
    "degenerate sizes: one choice, one example, one step": [
        Bug(1, "softmax without the row term", softmax_forward, diagonal_only, [X[:, :1]], [X]),
        Bug(6, "cross-entropy divided twice", mean_loss, loss_divided_twice, [X[:1], LABELS[:1]], [X, LABELS]),
        Bug(14, "bias summed over one axis", linear_forward, bias_over_one_axis, draw((4, 5), (5, 3), 3),
            draw((2, 3, 5), (5, 3), 3)),
        Bug(15, "LSTM that does not carry d_c", lstm_chain, cell_not_carried, draw((2, 1, 12), (3, 12)),
            draw((2, 4, 12), (3, 12))),
    ],
    "kind inputs: fresh weights, no tie, no repeat, no mask": [
        Bug(4, "layer norm, gain outside the sums", layer_norm_forward, layer_norm_variant(gain_inside=False), FRESH,
            [X, GAIN, BIAS]),
        Bug(6, "target found by its value", mean_loss, target_by_value, [X, LABELS], [TIE, LABELS]),
        Bug(12, "repeated ids dropped", embedding_forward, last_repeat_only, [np.array([3, 0, 6]), *draw((7, 5))],
            [IDS, *draw((7, 5))]),
        Bug(20, "blockwise softmax, empty first block", blockwise, softmax_backward, [*draw((2, 6)), np.full((2, 6), True)],
            [*draw((2, 6)), ATTENDED]),
    ],
    "one setting only: no dropout, stride that divides, padding 1": [
        Bug(10, "weights before dropout in backward", with_dropout, weights_before_dropout,
            [*draw((2, 4, 5), (2, 6, 5), (2, 6, 3)), np.array(0)], [*draw((2, 4, 5), (2, 6, 5), (2, 6, 3)), np.array(50)]),
        Bug(16, "convolution, input gradient one short", strided, one_short, draw((2, 9, 3), (3, 3, 4), 4),
            draw((2, 10, 3), (3, 3, 4), 4)),
        Bug(17, "padding 0 cut off as [p:-p]", padded, cut_by_minus_p, [*draw((2, 9, 3), (3, 3, 4), 4), np.array(1)],
            [*draw((2, 9, 3), (3, 3, 4), 4), np.array(0)]),
    ],
    "loose tolerances, small inputs": [
        Bug(5, "layer norm that forgets eps", layer_norm_forward, layer_norm_variant(eps=0), [X, GAIN, BIAS], [X, GAIN, BIAS]),
        Bug(11, "slope of tanh-GELU for erf-GELU", gelu_forward, slope_of_the_tanh_form, [0.1 * X], [X]),
    ],
}

caught = {}
for why, bugs in GROUPS.items():
    print(why)
    for bug in bugs:
        passed = ordinary_check(bug.forward, bug.backward, bug.kind)
        failed = [check for check in check_gradients(bug.forward, bug.backward, bug.telling).checks if not check.ok]
        caught.setdefault(bug.number, []).append(passed and bool(failed))
        print(f"  {bug.number:>2} {bug.what:<38} ordinary: {'passes' if passed else 'FAILS '}   ours: {failed[0].diagnosis.kind}")
        assert passed, f"{bug.what}: the ordinary check passes it"
        assert failed, f"{bug.what}: rejected"
        assert bug.number != 20 or "NaN" in failed[0].says

# %% [markdown]
# **The op is right, the composition is not.** Bug 13: one table at both ends of a model. Lookup and product each have
# a right backward, each with a test. The model uses the table *twice*, and its gradients must add. No test of an op can
# see that. Check the whole model.

# %%
tied = check_gradients(tied_forward, tied_once, [IDS, *draw((7, 5))])
parts = check_gradients(linear_forward, linear_backward, draw((4, 5), (5, 7), 7))
print("13 tied table counted once: the product alone", "ok," if parts.ok else "FAIL,", "the composition:",
      tied.check("gradient of weight").diagnosis.kind)
caught[13] = [parts.ok and not tied.ok]
assert caught[13] == [True]

# %% [markdown]
# **Backward is right, forward is not.** Each of these is a perfect derivative of the wrong function. An oracle rejects
# them, at telling inputs; at kind ones even the oracle agrees.
#
# Bug 18 is no derivative at all. Adam divides its averages by `1 - beta^t`, with t = 1 in the first step, so the first
# step has exactly the length of the learning rate. Bug 22 takes the mean of the means of two micro-batches; that is the
# mean of all only where both have the same number of targets.

# %%
def reshaped_only(x, memory):
    """Heads split by a reshape alone. It runs, and it mixes positions."""
    split = [array.reshape(len(array), 2, array.shape[1], 3) for array in (x, memory, memory)]   # [B, H, T, E]
    return attention_forward(*split)[0].reshape(x.shape)


def values_of_the_query(x, memory):
    """Cross-attention that takes V from x."""
    return attention_forward(heads_of(x, 2), heads_of(memory, 2), heads_of(x, 2))[0].swapaxes(1, 2).reshape(x.shape)


def first_adam_steps(gradients, late=0):
    """How far Adam moves a weight in each step, with t too large by `late`. gradients: [T]."""
    mean = square = 0.0
    moves = []
    for t, g in enumerate(gradients, start=1 + late):
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        moves.append(mean / (1 - 0.9**t) / (math.sqrt(square / (1 - 0.999**t)) + 1e-8))
    return np.array(moves)                                                      # [T]


def library_adam(gradients):
    """The same by the library, an implementation that knows nothing of ours."""
    weight, optimizer = Linear(np.zeros((1, 1)), np.zeros(1)), AdamW()
    state, places = optimizer.create_state(weight), [0.0]
    for g in gradients:
        weight, state = optimizer.step(weight, Linear(np.full((1, 1), g), np.zeros(1)), state, learning_rate=1.0)
        places.append(weight.weight[0, 0])
    return -np.diff(places)                                                     # [T]


def mean_of_means(logits, targets):
    return np.mean([mean_loss(logits[part], targets[part])[0] for part in (slice(0, 2), slice(2, 4))])


def mean_of_all(logits, targets):
    return mean_loss(logits, targets)[0]


def by_loops(x, memory):
    return attention_by_loops(x, memory, 2)


CROSS = draw((2, 3, 6), (2, 5, 6))
SAME_LENGTH = draw((2, 3, 6), (2, 3, 6))
PARTLY = np.random.default_rng(0).permuted(np.tile([True, True, True, False, False], (3, 1)), axis=1)   # [T, S]
IGNORED = np.array([4, -100, 2, 1])
FORWARDS = [    # number, what, why it passes, wrong, oracle, kind inputs, telling inputs
    (7, "scores scaled by the model width", "tiny inputs", lambda x, m: attention_by_width(x, m, 1 / math.sqrt(6))[0], by_loops,
     [1e-4 * each for each in CROSS], CROSS),
    (8, "heads split without a transpose", "one position", reshaped_only, by_loops, [each[:, :1] for each in CROSS], CROSS),
    (9, "V from the wrong side", "x = memory", values_of_the_query, by_loops, [CROSS[0], CROSS[0]], SAME_LENGTH),
    (18, "Adam with t one too large", "late steps", lambda g: first_adam_steps(g, late=1)[-1:], lambda g: library_adam(g)[-1:],
     [np.full(20000, 0.3)], [np.full(1, 0.3)]),
    (21, "mask reversed in forward", "keys all alike", lambda x, m: attention_by_loops(x, m, 2, ~PARTLY),
     lambda x, m: attention_by_loops(x, m, 2, PARTLY), [CROSS[0], np.ones((2, 5, 6))], CROSS),
    (22, "mean of unequal micro-batches", "equal counts", mean_of_means, mean_of_all, [X, LABELS], [X, IGNORED]),
]
for number, what, why, wrong, oracle, kind, telling in FORWARDS:
    agrees = np.allclose(wrong(*kind), oracle(*kind), rtol=1e-3, atol=1e-5)
    off = np.abs(wrong(*telling) - oracle(*telling)).max()
    caught.setdefault(number, []).append(agrees and off > 1e-2)
    print(f"  {number:>2} {what:<34} passes with: {why:<20} off the oracle by {off:.0e}")
    assert agrees and off > 1e-2, what

# %% [markdown]
# **The alarm is false.** Number 19 is the key bias of 4.4: no bug, and not to be called one. That makes 22.

# %%
caught[19] = [fair.ok and naive > 0.5]
print("shown:", sorted(caught))
assert sorted(caught) == list(range(1, 23))
assert all(all(shown) for shown in caught.values())

# %% [markdown]
# And do they train? Two linear layers with a layer norm between them, and some of the bugs above. The loss is the
# evidence that most people look at.

# %%
def train(norm_backward, loss_backward, steps=60):
    """Three clouds of points. Returns the loss before each step."""
    rng = np.random.default_rng(0)
    colours = np.repeat([0, 1, 2], 20)                                          # [B]
    points = 2 * np.eye(3)[colours] + rng.standard_normal((60, 3))              # [B, 3]
    first, last = (Linear.create(*sizes, rng=rng, dtype=np.float64) for sizes in ((3, 8), (8, 3)))
    optimizer = AdamW()
    states = [optimizer.create_state(layer) for layer in (first, last)]
    losses = []
    for _ in range(steps + 1):
        hidden, first_cache = first.forward(points)                             # [B, 8]
        normal, norm_cache = layer_norm_forward(hidden, np.ones(8), np.zeros(8))
        logits, last_cache = last.forward(normal)                               # [B, 3]
        loss, loss_cache = mean_loss(logits, colours)
        losses.append(float(loss))
        d_normal, d_last = last.backward(loss_backward(1.0, loss_cache), last_cache)
        _, d_first = first.backward(norm_backward(d_normal, norm_cache)[0], first_cache)
        first, states[0] = optimizer.step(first, d_first, states[0], learning_rate=0.01)
        last, states[1] = optimizer.step(last, d_last, states[1], learning_rate=0.01)
    return losses


TRAINED = {
    "right": (layer_norm_backward, cross_entropy_backward),
    "3 no variance term": (layer_norm_variant(variance=False), cross_entropy_backward),
    "3 no mean term": (layer_norm_variant(mean=False), cross_entropy_backward),
    "5 eps forgotten": (layer_norm_variant(eps=0), cross_entropy_backward),
    "6 divided twice": (layer_norm_backward, loss_divided_twice),
}
marks = (0, 20, 40, 60)
curves = {name: train(*pair) for name, pair in TRAINED.items()}
print(table(["version", *(f"step {mark}" for mark in marks)],
            [[name, *(curve[mark] for mark in marks)] for name, curve in curves.items()]))
for name, curve in curves.items():
    assert curve[60] < curve[40] < curve[20] < curve[0], f"{name}: the loss goes down"

# %% [markdown]
# ## 4.9 Exercises
#
# Replace the line that raises, run the cell, and read the verdict. The graders are strict: plausible wrong answers
# fail them, with a hint. Solutions are in `tutorials/solutions/04_gradient_checking.py`. Try first.
#
# ### Exercise 1: a gradient by complex step
#
# `f` takes an array [N], real or complex, and returns one number. Return its gradient to the last digits.

# %%
def measured_gradient(f, x):
    """f: [N] -> a number.   x: [N], real.   Returns the gradient: [N], real."""
    raise NotImplementedError


def grade_measured_gradient(answer):
    x = np.random.default_rng(6).standard_normal(5)                             # [N]
    exact = 3 * x**2 * np.exp(x[::-1]) + (x**3 * np.exp(x[::-1]))[::-1]         # [N]
    lent = x.copy()
    gradient = answer(lambda x: (x**3 * np.exp(x[::-1])).sum(), lent)
    require(np.shape(gradient) == (5,), f"the gradient has shape {list(np.shape(gradient))}, expected that of x, [5].")
    require(not np.iscomplexobj(gradient), "the gradient is real: take the imaginary part of f.")
    require(np.array_equal(lent, x), "you wrote into x, which was lent to you. Step on a copy.")
    error = np.abs(gradient - exact).max() / np.abs(exact).max()
    require(error < 1e-3, f"the relative error is {error:.0e}. Is each element moved alone, and divided by h?")
    require(error < 1e-13, f"the relative error is {error:.0e}: close, but digits are lost. Does something get subtracted, "
                           "or is h too large?")
    return "sixteen digits, and no step size to choose."


print(grade(grade_measured_gradient, measured_gradient))

# %% [markdown]
# ### Exercise 2: a fair verdict
#
# `scale` is the size of the numbers that were summed to get the gradient. An error of 1e-9 of it is rounding; more is a
# bug. Neither may a true zero alarm, nor a wrong shape or a NaN pass.

# %%
def is_right(analytic, numeric, scale):
    """analytic, numeric: arrays that should be equal.   scale: a number, above 0.   Returns True or False."""
    raise NotImplementedError


def grade_is_right(answer):
    g = np.random.default_rng(7).standard_normal((3, 4))                        # [B, N]
    one_wrong, with_nan = g.copy(), g.copy()
    one_wrong[1, 2] += 1e-6
    with_nan[0, 0] = np.nan
    require(answer(g, g * (1 + 1e-15), 1.0), "these two differ by rounding only, and are right.")
    require(answer(np.full(3, 1e-17), np.full(3, -3e-17), 1.0),
            "a true zero: 1e-17 and -3e-17 are both rounding of 0 at scale 1. That is a false alarm.")
    require(not answer(2 * g, g, 1.0), "a factor of 2 must fail.")
    require(not answer(one_wrong, g, 1.0), "one element is off by 1e-6, and that is no rounding: look at the largest error.")
    require(not answer(2e-12 * g, 1e-12 * g, 1e-12),
            "a small gradient is wrong by a factor of 2. Your bound does not know the scale.")
    require(answer(1e12 * g, 1e12 * g + 1e-3, 1e12), "1e-3 beside 1e12 is rounding. Your bound does not know the scale.")
    require(not answer(with_nan, g, 1.0), "NaN must fail. Every comparison with NaN is False: which way round do you ask?")
    require(not answer(np.ones(4), np.ones((3, 4)), 1.0),
            "shapes [4] and [3, 4] broadcast, and are not equal. It is a missing sum.")
    return "relative to what was summed: neither deaf nor nervous."


print(grade(grade_is_right, is_right))

# %% [markdown]
# ### Exercise 3: inputs that tell
#
# You may not change the checker: it is `ordinary_check`, with its ones and its three digits. Choose the *inputs* of a
# layer norm such that even this check rejects the four bugs: no mean term, no variance term, gain outside the sums, eps
# forgotten (eps is 1e-5). And it must still pass the right one.

# %%
def telling_inputs():
    """Returns x: [B, N], gain: [N], bias: [N]."""
    raise NotImplementedError


def grade_telling_inputs(answer):
    inputs = answer()
    require(isinstance(inputs, tuple) and len(inputs) == 3, "return three arrays: x, gain, bias.")
    x, gain, bias = (np.asarray(each, float) for each in inputs)
    require(x.ndim == 2 and gain.shape == bias.shape == x.shape[1:], "x must be [B, N], and gain and bias [N].")
    require(ordinary_check(layer_norm_forward, layer_norm_backward, [x, gain, bias]),
            "the right backward fails the check with these inputs: the curve bends too much for a step of 1e-6.")
    with np.errstate(divide="ignore", invalid="ignore"):
        for bug, settings in {"without the mean term": {"mean": False}, "without the variance term": {"variance": False},
                              "with the gain outside": {"gain_inside": False}, "that forgets eps": {"eps": 0.0}}.items():
            require(not ordinary_check(layer_norm_forward, layer_norm_variant(**settings), [x, gain, bias]),
                    f"a layer norm {bug} still passes. Which numbers make that term large?")
    return "a good input is worth more than a good tolerance."


print(grade(grade_telling_inputs, telling_inputs))

# %% [markdown]
# ## 4.10 When not to use a gradient check
#
# **As the only leg.** It compares backward with forward. It cannot know what forward should be (4.6). Keep an oracle.
#
# **At a kink.** ReLU has no derivative at 0: from the left it is 0, from the right 1, a central difference says 1/2.
# None is wrong. Keep inputs off the kink, or ask that the answer lies between the two.

# %%
def relu(x):
    return np.maximum(x, 0.0)


left, right = (forward_difference(relu, 0.0, h) for h in (-1e-6, 1e-6))
middle = central_difference(relu, 0.0, 1e-6)
print(f"relu at 0: from the left {abs(left):.1f}, from the right {right:.1f}, central {middle:.1f}")
assert (left, right, middle) == (0.0, 1.0, 0.5)

# %% [markdown]
# **Where complex numbers do not pass.** `abs`, a comparison, a cast to float or a conjugate stop the imaginary part, and
# the complex step then says 0 with great precision. `check_gradients` notices, and takes differences.

# %%
def cast(x):
    return np.exp(np.asarray(x.real)), np.exp(x.real)                           # the imaginary part is dropped


report = check_gradients(cast, lambda d_y, e: d_y * e, [probe])
print(report.checks[0].method)
assert complex_step(lambda x: x.real, 1.0, 1e-20) == 0
assert report.checks[0].ok and "differences" in report.checks[0].method

# %% [markdown]
# **At every step of a training.** It is a test. Run it on small shapes, in seconds, when the code changes.
#
# Where to go on: `kernel_writers.md` beside this file, for code in C, Triton or Rust; `gradient_checking_table.md`, for what
# this checker, PyTorch's and SciPy's find of the bugs that one can plant.
