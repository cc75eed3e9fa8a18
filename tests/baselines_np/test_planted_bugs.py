"""Why bugs that were found in public NumPy implementations stayed there: the inputs at which a check passes them. And other forms
of them, which it must reject as well."""

import numpy as np
import pytest

import baselines_np.lstm
from baselines_np.convolution import convolution_1d_backward, convolution_1d_forward
from baselines_np.lstm import lstm_backward, lstm_forward, lstm_step_backward
from baselines_np.weight_norm import weight_norm_backward, weight_norm_forward
from transformer_np.gradcheck import check_gradients

B, T, D_IN, D = 3, 4, 2, 3


def lstm_inputs():
    rng = np.random.default_rng(0)
    shapes = (B, T, D_IN), (D_IN, 4 * D), (D, 4 * D), (4 * D,), (B, D), (B, D)
    return [rng.standard_normal(shape) for shape in shapes]


def convolution_inputs(steps=9):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((2, steps, 3), (3, 3, 4), (4,))]


def test_without_a_bug_nothing_is_rejected():
    check_gradients(lstm_forward, lstm_backward, lstm_inputs()).raise_if_failed()
    check_gradients(convolution_1d_forward, convolution_1d_backward, convolution_inputs()).raise_if_failed()


def test_a_bug_in_carrying_shows_only_with_more_than_one_step(monkeypatch):
    # why a check at T = 1 proves nothing about a recurrence: what is not carried is not missed
    def forgetful(d_output, cache):
        d_projected, d_h, d_c, d_weight_h = lstm_step_backward(d_output, cache)
        return d_projected, 0 * d_h, 0 * d_c, d_weight_h

    monkeypatch.setattr(baselines_np.lstm, "lstm_step_backward", forgetful)
    x, weight_x, weight_h, bias, _, _ = lstm_inputs()
    assert check_gradients(lstm_forward, lstm_backward, [x[:, :1], weight_x, weight_h, bias, None, None]).ok
    assert not check_gradients(lstm_forward, lstm_backward, [x[:, :2], weight_x, weight_h, bias, None, None]).ok


def test_an_lstm_whose_three_gates_share_one_gates_bias_is_rejected():
    def shared_in_forward(x, weight_x, weight_h, bias, h_0, c_0):
        b_i, _, b_g, _ = np.split(bias, 4)
        return lstm_forward(x, weight_x, weight_h, np.concatenate([b_i, b_i, b_g, b_i]), h_0, c_0)

    def shared_in_backward(d_output, cache):
        d_x, d_weight_x, d_weight_h, d_bias, d_h_0, d_c_0 = lstm_backward(d_output, cache)
        d_i, _, d_g, _ = np.split(d_bias, 4)
        return d_x, d_weight_x, d_weight_h, np.concatenate([d_i, d_i, d_g, d_i]), d_h_0, d_c_0

    for forward, backward in ((shared_in_forward, lstm_backward), (lstm_forward, shared_in_backward)):
        report = check_gradients(forward, backward, lstm_inputs())
        assert [check.name for check in report.checks if check.argument and not check.ok] == ["gradient of bias"]


@pytest.mark.parametrize("repair", ["none", "zero at the front", "zero at the end, stretched"])
def test_a_convolution_whose_input_gradient_is_one_short_is_rejected(repair):
    # 10 inputs, kernel 3, stride 2: the last input is in no window
    def forward(x, weight, bias):
        return convolution_1d_forward(x, weight, bias, stride=2)

    def one_short(d_y, cache):
        d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache)
        short, zero = d_x[:, :-1], np.zeros_like(d_x[:, :1])
        if repair == "zero at the front":
            short = np.concatenate([zero, short], axis=1)
        elif repair == "zero at the end, stretched":
            short = np.concatenate([short[:, :-1], zero, short[:, -1:]], axis=1)
        return short, d_weight, d_bias

    assert check_gradients(forward, convolution_1d_backward, convolution_inputs(10)).ok
    assert not check_gradients(forward, one_short, convolution_inputs(10)).ok


@pytest.mark.parametrize(("padding", "rejected"), [(0, True), (1, False)])
def test_a_padding_of_zero_cut_off_as_a_slice_up_to_minus_zero_is_rejected(padding, rejected):
    def sliced(d_y, cache):
        d_x, d_weight, d_bias = convolution_1d_backward(d_y, cache)
        d_padded = np.pad(d_x, ((0, 0), (padding, padding), (0, 0)))
        return d_padded[:, padding:-padding], d_weight, d_bias

    report = check_gradients(lambda *inputs: convolution_1d_forward(*inputs, padding=padding), sliced, convolution_inputs())
    assert report.ok != rejected


@pytest.mark.parametrize("bug", ["no gain", "no norm", "no projection"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_weight_norm_with_a_term_dropped_is_rejected_though_inputs_and_check_share_their_seed(bug, seed):
    # a cotangent equal to the direction would have a gradient of 0, which any multiple of it is too
    def wrong(d_weight, cache):
        d_direction, d_gain = weight_norm_backward(d_weight, cache)
        if bug == "no projection":
            return cache.gain / cache.norm * d_weight, d_gain
        return d_direction / cache.gain if bug == "no gain" else d_direction * cache.norm, d_gain

    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal((3, 2, 4)), rng.standard_normal(4)]
    assert check_gradients(weight_norm_forward, weight_norm_backward, inputs, seed=seed).ok
    assert not check_gradients(weight_norm_forward, wrong, inputs, seed=seed).ok
