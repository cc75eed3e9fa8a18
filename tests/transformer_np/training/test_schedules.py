"""Learning-rate schedules: endpoints, closed forms, and what they never do."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_np.training.schedules import warmup_cosine, warmup_inverse_square_root


def test_cosine_at_its_corners():
    rate = [warmup_cosine(step, peak=1.0, warmup=10, total=110, floor=0.1) for step in range(130)]
    assert rate[0] == 0.1                                       # the first step is not wasted
    assert rate[9] == rate[10] == max(rate) == 1.0
    assert rate[60] == pytest.approx(0.55)                      # half way down: the mean of peak and floor
    assert rate[35] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rate[109] > 0.1
    assert rate[110:] == [0.1] * 20


def test_inverse_square_root_is_the_rate_of_the_paper():
    d_model, warmup = 512, 4000
    for step in (0, 1, 1000, 3999, 4000, 100000):
        t = step + 1
        paper = d_model**-0.5 * min(t**-0.5, t * warmup**-1.5)
        ours = warmup_inverse_square_root(step, peak=(d_model * warmup) ** -0.5, warmup=warmup)
        assert ours == pytest.approx(paper, rel=1e-12)


@given(st.integers(0, 50), st.integers(0, 100), st.floats(1e-6, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_cosine_rises_to_the_peak_then_falls_to_the_floor(warmup, total, peak, share):
    floor = share * peak
    rates = [warmup_cosine(step, peak=peak, warmup=warmup, total=total, floor=floor) for step in range(total + warmup + 2)]
    rising, falling = rates[:warmup], rates[warmup:]
    assert rising == sorted(rising)
    assert all(later <= earlier for earlier, later in pairwise(falling))
    assert max(rates) <= peak * (1 + 1e-15)
    assert rates[-1] == floor


@given(st.integers(1, 50))
@settings(max_examples=20, deadline=None)
def test_inverse_square_root_has_its_peak_at_the_end_of_the_warm_up(warmup):
    rates = [warmup_inverse_square_root(step, peak=2.0, warmup=warmup) for step in range(4 * warmup)]
    assert rates[warmup - 1] == max(rates) == 2.0
    assert rates[4 * warmup - 1] == pytest.approx(1.0)          # four times as far, half as fast


@pytest.mark.parametrize("call", [
    lambda: warmup_cosine(-1, peak=1.0, warmup=1, total=2),
    lambda: warmup_cosine(0, peak=1.0, warmup=-1, total=2),
    lambda: warmup_cosine(0, peak=1.0, warmup=1, total=-2),
    lambda: warmup_inverse_square_root(-1, peak=1.0, warmup=1),
    lambda: warmup_inverse_square_root(0, peak=1.0, warmup=0),
])
def test_steps_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="warmup"):
        call()
