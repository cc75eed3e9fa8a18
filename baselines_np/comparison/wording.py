"""Names and numbers as a person reads them: the report's pages and pictures say everything the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

EXPERIMENTS = {
    "associative_recall": "Associative recall",
    "state_tracking": "State tracking",
    "language_model": "Language modelling",
}
WORK = {
    "associative_recall": "finding again what was seen once",
    "state_tracking": "keeping a running state",
    "language_model": "predicting text",
}
ARMS = {
    "transformer": "Transformer",
    "transformer_1_layer": "1-layer Transformer",
    "rnn": "RNN (tanh)",
    "gru": "GRU",
    "lstm": "LSTM",
    "tcn": "TCN",
}
MISSING = "–"    # noqa: RUF001  a dash as wide as a figure is meant


def arm_name(arm: str) -> str:
    return ARMS.get(arm, arm.replace("_", " "))


def is_transformer(arm: str) -> bool:
    return arm.startswith("transformer")


def is_counting(arm: dict[str, Any]) -> bool:
    """n-gram models count and do not learn: what trained models are held against."""
    return (arm.get("config") or {}).get("model") == "n-gram"


def known(value: float | None) -> TypeGuard[float]:
    """Is there a number? A run that was killed or that diverged leaves None or NaN."""
    return value is not None and math.isfinite(value)


def is_share(metric: str) -> bool:
    """Accuracies are shares, and read as per cent."""
    return "accuracy" in metric.lower()


def score_text(score: float | None, metric: str) -> str:
    """0.9968 -> 99.7 % for an accuracy, 2.314 for any other metric."""
    if not known(score):
        return MISSING
    return f"{100 * score:.1f} %" if is_share(metric) else f"{score:.3f}"


def mean_text(mean: float | None, sd: float | None, metric: str) -> str:
    """mean ± sd. One seed has no spread, and shows none."""
    if not known(mean) or not known(sd):
        return score_text(mean, metric)
    if is_share(metric):
        return f"{100 * mean:.1f} ± {100 * sd:.1f} %"
    return f"{mean:.3f} ± {sd:.3f}"


def level_text(level: float, metric: str) -> str:
    """A threshold or another round number: 0.95 -> 95 %."""
    return f"{100 * level:.4g} %" if is_share(metric) else f"{level:.4g}"


def count_text(count: float | None) -> str:
    """1234567 -> 1.23 M. Three digits tell models apart."""
    if not known(count):
        return MISSING
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:    # what rounds to 1000 k is 1.00 M
            return f"{_three_digits(count / size)}{unit}"
    return f"{count:.0f}"


def bytes_text(count: float | None) -> str:
    if not known(count):
        return MISSING
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= 0.9995 * size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def seconds_text(seconds: float | None) -> str:
    """0.02 -> 20 ms; 4.26 -> 4.3 s; 75 -> 1 min 15 s; 4000 -> 1 h 7 min."""
    if not known(seconds):
        return MISSING
    if seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def series(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
