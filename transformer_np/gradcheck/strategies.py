"""What hypothesis may draw for a test of numerical code: shapes, masks, labels, ids, windows, values, memory layouts.

    from hypothesis import given
    from transformer_np.gradcheck import strategies as draw

    @given(draw.arrays(draw.shapes(min_dims=1)))
    def test_softmax_sums_to_one(x): ...

Each says what it draws and what it never draws. What usual tests forget (a size of 0, a row that allows nothing, an id that
repeats, a number below 1e-308) comes up soon. Hypothesis is imported when a strategy is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transformer_np.errors import InputError
from transformer_np.gradcheck.calling.foreign import bfloat16, is_floating_dtype
from transformer_np.gradcheck.calling.layouts import LAYOUTS
from transformer_np.layer import Array
from transformer_np.masks import causal_mask, padding_mask

Shape = tuple[int, ...]
Strategy = Any      # hypothesis.strategies.SearchStrategy, which may not be installed

MASKS = ("none", "causal", "padding", "random")
REGIMES = ("normal", "large mean", "constant rows", "saturated", "ties", "signed zeros", "subnormal")


def shapes(*, min_dims: int = 0, max_dims: int = 4, max_size: int = 5) -> Strategy:
    """Shapes of so many axes, each of size 0 to `max_size`: 0 and 1 twice as often as any other."""
    st = _hypothesis()
    sizes = [size for size in (1, 0, 1, 0, *range(2, max_size + 1)) if size <= max_size]
    return st.lists(st.sampled_from(sizes), min_size=min_dims, max_size=max_dims).map(tuple)


def broadcastable_pairs(*, max_dims: int = 4, max_size: int = 5) -> Strategy:
    """Two shapes that broadcast to one: axes are missing at the front, or 1 in either."""
    st = _hypothesis()

    def pair(shape: Shape) -> Strategy:
        return st.tuples(*(_thinned(shape) for _ in range(2)))

    return shapes(max_dims=max_dims, max_size=max_size).flatmap(pair)


def _thinned(shape: Shape) -> Strategy:
    """Some axes 1, some at the front missing."""
    st = _hypothesis()
    axes = st.tuples(*(st.sampled_from([size, size, 1]) for size in shape))
    return st.builds(lambda sizes, missing: sizes[missing:], axes, st.integers(0, len(shape)))


def attention_masks(batch: int, num_queries: int, num_keys: int, *,
                    kinds: Sequence[str] = MASKS) -> Strategy:
    """The kind, and a boolean mask that broadcasts to [B, H, T, S], True = may attend.

    none: None.   causal: [T, S].   padding: [B, 1, 1, S], lengths from 0 to S.   random: [B, 1, T, S], where a row in four
    allows nothing.   kinds: some of them.
    """
    st = _hypothesis()
    _require_some("attention_masks: kinds", kinds, MASKS)
    lengths = st.lists(st.integers(0, num_keys), min_size=batch, max_size=batch)
    rows = st.tuples(seeds(), seeds())
    strategies = {
        "none": st.just(None),
        "causal": st.just(causal_mask(num_queries, num_keys)),
        "padding": lengths.map(lambda lengths: padding_mask(np.array(lengths, int), num_keys)),
        "random": rows.map(lambda drawn: _random_mask((batch, 1, num_queries, num_keys), np.random.default_rng(drawn))),
    }
    return st.sampled_from(kinds).flatmap(lambda kind: st.tuples(st.just(kind), strategies[kind]))


def _random_mask(shape: Shape, rng: np.random.Generator) -> Array:
    empty = rng.random((*shape[:-1], 1)) < 1 / 4
    return (rng.random(shape) < 2 / 3) & ~empty


def labels(shape: Shape, num_classes: int, *, ignore_index: int = -100) -> Strategy:
    """Integers from 0 to below `num_classes`, and `ignore_index`: some, none, or all of them. Nothing else."""
    st = _hypothesis()

    def draw(seed: int, ignored: float) -> Array:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, max(num_classes, 1), shape)
        return np.where(rng.random(shape) < ignored, ignore_index, drawn)

    # without a class nothing can count
    ignored = st.sampled_from([0.3, 0.0, 1.0] if num_classes > 0 else [1.0])
    return st.builds(draw, seeds(), ignored)


def repeated_ids(shape: Shape, vocab_size: int) -> Strategy:
    """Integers from 0 to below `vocab_size`. Where there are two or more, one is there at least twice; and where the vocabulary
    has two or more, one is missing."""
    st = _hypothesis()
    if vocab_size < 1 and int(np.prod(shape)) > 0:
        raise ValueError(f"repeated_ids: vocab_size {vocab_size}, expected at least 1 for shape {list(shape)}")

    def draw(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        some = rng.permutation(max(vocab_size, 1))[:max(vocab_size - 1, 1)]
        ids = rng.choice(some, int(np.prod(shape)))
        if ids.size > 1:
            first, second = rng.choice(ids.size, 2, replace=False)
            ids[second] = ids[first]
        return ids.reshape(shape)

    return st.builds(draw, seeds())


@dataclass(frozen=True)
class Convolution:
    """A geometry for which the kernel fits: `dilation (K - 1) + 1 <= left + T + right`, or T is 0."""

    batch: int
    num_inputs: int                      # T
    channels_in: int
    channels_out: int
    kernel_size: int                     # K
    stride: int
    dilation: int
    groups: int
    padding: int | tuple[int, int] | str

    @property
    def x_shape(self) -> Shape:
        return self.batch, self.num_inputs, self.channels_in

    @property
    def weight_shape(self) -> Shape:
        return self.kernel_size, self.channels_in // self.groups, self.channels_out

    @property
    def settings(self) -> dict[str, Any]:
        return {"stride": self.stride, "dilation": self.dilation, "groups": self.groups, "padding": self.padding}


def convolutions(*, max_length: int = 9) -> Strategy:
    """Strides that divide and that do not, even kernels, kernels of 1, dilation, groups up to depthwise, every way of padding, no
    inputs at all. Never a kernel that is larger than the padded input."""
    st = _hypothesis()

    def build(batch: int, num_inputs: int, multiples: tuple[int, int], kernel_size: int, stride: int, dilation: int, groups: int,
              padding: int | tuple[int, int] | str) -> Convolution:
        into, out = multiples
        reach = dilation * (kernel_size - 1)
        if isinstance(padding, int | tuple):
            around = 2 * padding if isinstance(padding, int) else sum(padding)
            num_inputs = 0 if num_inputs == 0 else max(num_inputs, reach + 1 - around)
        return Convolution(batch, num_inputs, into * groups, out * groups, kernel_size, stride, dilation, groups, padding)

    pads = st.one_of(st.just("same"), st.just("causal"), st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)))
    return st.builds(build, st.integers(1, 3), st.integers(0, max_length), st.tuples(st.integers(1, 3), st.integers(1, 3)),
                     st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), pads)


def values(shape: Shape, *, dtype: Any = np.float64, regimes: Sequence[str] = REGIMES) -> Strategy:
    """The regime, and finite numbers of it.

    normal: of size 1.   large mean: a spread of 1 around a number whose square has no digit left for it.   constant rows: equal
    along the last axis.   saturated: half of them +-1000 (float16: +-256), where exp overflows.   ties: few values, many times.
    signed zeros: 0.0 and -0.0, and 1.   subnormal: below the smallest normal number, 0 among them.
    dtype: floating, or bfloat16 of ml_dtypes.   regimes: some of them.
    """
    st = _hypothesis()
    _require_some("values: regimes", regimes, REGIMES)
    info = _finfo(dtype)
    saturated = min(1000.0, float(info.max) ** 0.5)

    def draw(regime: str, seed: int) -> tuple[str, Array]:
        rng = np.random.default_rng(seed)
        normal = rng.standard_normal(shape)
        numbers = {
            "normal": lambda: normal,
            "large mean": lambda: normal + float(info.eps) ** -0.5,
            "constant rows": lambda: np.broadcast_to(normal[..., :1], shape) if shape else normal,
            "saturated": lambda: np.where(rng.random(shape) < 1 / 2, normal, np.sign(normal) * saturated),
            "ties": lambda: rng.integers(-1, 2, shape).astype(np.float64),
            "signed zeros": lambda: rng.choice([0.0, -0.0, 1.0], shape),
            "subnormal": lambda: rng.integers(-9, 10, shape) * float(info.smallest_subnormal),
        }[regime]()
        return regime, np.array(numbers, info.dtype)

    return st.builds(draw, st.sampled_from(regimes), seeds())


def arrays(shapes: Shape | Strategy, *, dtype: Any = np.float64, regimes: Sequence[str] = REGIMES) -> Strategy:
    """`values`, the numbers alone, of a shape or of a strategy of shapes."""
    if not isinstance(shapes, tuple | _hypothesis().SearchStrategy):
        raise ValueError(f"arrays: shapes is {shapes!r}, expected a tuple of sizes or a strategy of such tuples")
    if isinstance(shapes, tuple):
        return values(shapes, dtype=dtype, regimes=regimes).map(lambda drawn: drawn[1])
    return shapes.flatmap(lambda shape: arrays(shape, dtype=dtype, regimes=regimes))


def layouts() -> Strategy:
    """The name of a memory layout, and a function that gives an equal array in it. For a stride of 0, give it an array that is
    equal along some axis."""
    return _hypothesis().sampled_from(list(LAYOUTS.items()))


def seeds() -> Strategy:
    """For `numpy.random.default_rng`: where the numbers matter less than their being of a kind, one seed for all draws fast."""
    return _hypothesis().integers(0, 2 ** 32 - 1)


def _require_some(what: str, given: Any, known: Sequence[str]) -> None:
    if isinstance(given, str) or not isinstance(given, Sequence) or not given or any(each not in known for each in given):
        raise ValueError(f"{what} is {given!r}, expected some of {', '.join(known)}")


def _finfo(dtype: Any) -> Any:
    """What NumPy says of a floating dtype; for bfloat16, ml_dtypes. Raises ValueError for another dtype."""
    try:
        found = bfloat16() if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not is_floating_dtype(found):
        raise ValueError(f"values: dtype is {dtype!r}, expected a floating one")
    if found.name != "bfloat16":
        return np.finfo(found)
    import ml_dtypes
    return ml_dtypes.finfo(found)


def _hypothesis() -> Any:
    """Raises InputError where hypothesis is not installed."""
    try:
        import hypothesis.strategies
    except ImportError:
        raise InputError("transformer_np.gradcheck.strategies needs hypothesis: pip install transformer-np[test]") from None
    return hypothesis.strategies
