"""Stepping through attention in a debugger: how many functions of ours are entered."""

import sys
from pathlib import Path

import numpy as np

import transformer_np
from transformer_np.attention import MultiHeadAttention, attention_forward
from transformer_np.masks import causal_mask

PACKAGE = Path(transformer_np.__file__).parent


def functions_entered(call):
    """The names of the functions of the package that `call` enters, in order."""
    entered = []

    def profile(frame, event, _):
        if event == "call" and PACKAGE in Path(frame.f_code.co_filename).parents:
            entered.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


def test_attention_is_one_frame():
    q = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    mask = causal_mask(4)
    rng = np.random.default_rng(0)
    assert functions_entered(lambda: attention_forward(q, q, q)) == ["attention_forward"]
    assert functions_entered(lambda: attention_forward(q, q, q, mask, dropout=0.1, rng=rng)) == ["attention_forward"]


def test_multi_head_attention_is_at_most_six_frames():
    layer = MultiHeadAttention.create(6, 2, rng=np.random.default_rng(0))
    x = np.ones((2, 3, 6), np.float32)
    mask = causal_mask(3)
    entered = functions_entered(lambda: layer.forward(x, x, mask))
    assert len(entered) <= 6
    assert entered == ["forward", "linear_forward", "linear_forward", "linear_forward", "attention_forward", "linear_forward"]
