"""The pictures of the report: every seed of every arm, labelled where it ends, in one colour per arm throughout.

A picture is an SVG element for the page, and the sentence that says what it shows to someone who does not see it. Its text is
real text in the font of the page. Its colours are CSS variables, so that the page can be light, dark or printed.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines_np.comparison.wording import (
    ARMS,
    arm_name,
    is_share,
    known,
    level_text,
    plural,
    score_text,
    series,
)
from transformer_np.errors import InputError
from transformer_np.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Apart in lightness as well as in hue, so that no common colour blindness merges two: Transformers are warm, recurrent networks
# blue to green, the convolutional one purple. `report.css` has the same names with lighter colours for dark screens.
COLOURS = {
    "transformer": "#c8400a",
    "transformer_1_layer": "#e8960c",
    "rnn": "#4aa3df",
    "gru": "#0a8f6c",
    "lstm": "#1f4fa3",
    "tcn": "#a8479a",
    "bigram": "#9a8a72",
    "5-gram": "#6b5a40",
}
OTHER = "#7a6a58"      # an arm that this file has not heard of
INK = "#1c1c21"
MUTED = "#66666f"
GRID = "#dedee4"
BAND = "#eef4ea"
PAPER = "#fffffe"      # what a dot is cut out of the lines with

_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band", PAPER: "paper", OTHER: "arm-other"} | {
    colour: f"arm-{arm}" for arm, colour in COLOURS.items()
}
_WIDTH, _HEIGHT = 410, 290     # of a chart, in CSS pixels before the page scales it
_LABEL, _REFERENCE = 12.5, 11.5    # font sizes, in the same pixels
_LABEL_GAP = 15                # between two labels
_LEAD = 24                     # from the end of a line to its label
_NOTE = "A dot is a seed, on data that it was not trained on. Dashed line: chance. Shaded band: solved."


@dataclass(frozen=True)
class Picture:
    svg: str
    alt: str


# ---------------------------------------------------------------------------------------------------------------- the charts


@dataclass(frozen=True)
class _Label:
    """What is written right of a chart: the name of an arm at the end of its lines, or of a level to compare with."""

    level: float
    text: str
    colour: str

    @property
    def reference(self) -> bool:
        return self.colour == MUTED

    @property
    def size(self) -> float:
        return _REFERENCE if self.reference else _LABEL


def curve_picture(name: str, experiment: dict[str, Any]) -> Picture | None:
    """Score against training step. None when no run has a curve."""
    return _chart(name, experiment, "curve", "training step", limit=None)


def along_picture(name: str, experiment: dict[str, Any], key: str) -> Picture | None:
    """Score `by_position` or `by_length`, with the trained length marked where the data go beyond it. None without data."""
    limit = experiment.get("budget", {}).get("trained_length")
    return _chart(name, experiment, key, "position" if key == "by_position" else "length of the sequence", limit=limit)


def _chart(name: str, experiment: dict[str, Any], key: str, x_label: str, *, limit: float | None) -> Picture | None:
    """Each arm's lines, one a seed, and a label at the mean of their ends; the levels to compare with as dashed lines."""
    metric = experiment["metric"]
    lines = {arm: found for arm, data in ordered(experiment["arms"]) if (found := _lines(data, key))}
    if not lines:
        return None
    if key == "by_position" and limit is not None:
        lines = {arm: [_stretches(x, y, limit) for x, y in found] for arm, found in lines.items()}
    with _style():
        figure, axes = _new_figure(_WIDTH, _HEIGHT)
        labels = []
        for arm, arm_lines in lines.items():
            for x, y in arm_lines:
                axes.plot(x, y, color=_colour(arm), linewidth=1.4, marker="o" if len(x) <= 16 else "", markersize=3.5)
            labels.append(_Label(float(np.mean([y[-1] for _, y in arm_lines])), arm_name(arm), _colour(arm)))
        if key == "curve":
            # what is not trained has no curve, and stands at one level from the first step to the last
            for arm, level in _untrained(experiment, lines).items():
                axes.axhline(level, color=_colour(arm), linewidth=1.6, dashes=(4, 2))
                labels.append(_Label(level, arm_name(arm), _colour(arm)))
        labels += [_Label(level, label, MUTED) for label, level in _levels(experiment).items()]
        figure.subplots_adjust(left=44 / _WIDTH, right=1 - (_LEAD + _widest(labels) + 2) / _WIDTH,
                               bottom=42 / _HEIGHT, top=1 - 10 / _HEIGHT)
        drawn = [line for arm_lines in lines.values() for line in arm_lines]
        start, end = min(x[0] for x, _ in drawn), max(x[-1] for x, _ in drawn)
        axes.set_xlim(start, end)
        axes.set_ylim(*_score_range(experiment, [y for _, y in drawn], labels))
        axes.set_xlabel(x_label)
        if limit is not None and 0 < start < limit < end:    # what lies beyond is many times as long as what was trained
            axes.set_xscale("log")
            axes.set_xlabel(f"{x_label}, logarithmic")
            ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if start <= tick <= end]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
        _score_axis(axes.yaxis, metric)
        for label in labels:
            if label.reference:
                axes.axhline(label.level, color=MUTED, linewidth=1, dashes=(3, 3), zorder=1)
        if limit is not None and start < limit < end:
            axes.axvspan(start, limit, color=BAND, zorder=0)
            axes.axvline(limit, color=MUTED, linewidth=1, zorder=1)
            axes.annotate(f"trained to {limit}", (limit, 0), (4, 5), xycoords=("data", "axes fraction"),
                          textcoords="offset points", color=MUTED, fontsize=_REFERENCE)
        _label_ends(axes, labels)
        return _picture(figure, f"{name}-{key}", _alt(experiment, lines, key, x_label, limit))


def _lines(arm: dict[str, Any], key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """x and y of each run that has two points or more; a point without a score is left out."""
    found = []
    for run in arm["runs"]:
        points = [(x, y) for x, y in run.get(key) or [] if known(y)]
        if len(points) >= 2:
            x, y = np.array(points, float).T
            found.append((x, y))
    return found


def _stretches(x: np.ndarray, y: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Means over neighbouring positions, because one position alone is noise. Stretches are a quarter of an octave, and one of
    them ends at `limit`: none mixes what was trained with what was not."""
    stretch = np.ceil(4 * np.log2(x / limit) - 1e-9)
    groups = [stretch == number for number in np.unique(stretch)]
    return np.array([x[group].mean() for group in groups]), np.array([y[group].mean() for group in groups])


def _untrained(experiment: dict[str, Any], lines: dict[str, Any]) -> dict[str, float]:
    """The scores of the arms that have one and no curve."""
    return {arm: data["mean"] for arm, data in ordered(experiment["arms"]) if arm not in lines and known(data.get("mean"))}


def _levels(experiment: dict[str, Any]) -> dict[str, float]:
    """The lines to compare with: what counts as solved, chance, and the baselines that are not all but chance."""
    metric = experiment["metric"]
    levels = {}
    if is_share(metric) and known(threshold := experiment.get("threshold")):
        levels[f"solved: {level_text(threshold, metric)}"] = threshold
    chance = experiment.get("chance")
    if known(chance):
        levels["chance"] = chance
    for label, baseline in experiment.get("baselines", {}).items():
        score = baseline["score"]
        if label != "chance" and known(score) and not (known(chance) and abs(score - chance) < 0.02):
            levels[label] = score
    return levels


def _score_range(experiment: dict[str, Any], curves: Sequence[np.ndarray], labels: Sequence[_Label]) -> tuple[float, float]:
    """All of 0 to 100 % for an accuracy. For a loss, what tells the arms apart: the ends, and a third of their distance to where
    the curves begin; the steep beginning is cut off, and so is a rule that does worse."""
    if is_share(experiment["metric"]):
        return -0.02, 1.02
    begin = float(np.median([y[0] for y in curves]))
    ends = [label.level for label in labels if not label.reference]
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or 0.5
    if experiment.get("higher_is_better", True):
        return low - max(margin, (low - begin) / 3), high + margin
    return low - margin, high + max(margin, (begin - high) / 3)


def _label_ends(axes: Axes, labels: Sequence[_Label]) -> None:
    """Write each label right of the chart at its height, moved as little as keeps them apart, and lead a thin line to it."""
    from scipy.optimize import isotonic_regression  # scipy.optimize takes long to import: only who draws pays for it

    low, high = axes.get_ylim()
    width, height = axes.bbox.width, axes.bbox.height
    # from the bottom up; of equal ones the first on top
    labels = sorted((label for label in reversed(labels) if low <= label.level <= high), key=lambda label: label.level)
    if not labels:
        return
    wanted = np.array([(label.level - low) / (high - low) * height for label in labels])
    # labels in order and a gap apart, with the least squared displacement: subtract the gaps, and the order is all that is left
    gap = min(_LABEL_GAP, height / len(labels))
    gaps = gap * np.arange(len(labels))
    placed = isotonic_regression(np.clip(wanted - gaps, 0, height - gaps[-1])).x + gaps
    for label, start, y in zip(labels, wanted / height, placed / height, strict=True):
        axes.plot(1 + np.array([0, 0.5, 0.8]) * _LEAD / width, [start, y, y], transform=axes.transAxes, clip_on=False,
                  color=label.colour, linewidth=1, solid_capstyle="butt")
        axes.text(1 + _LEAD / width, y, label.text, transform=axes.transAxes, va="center_baseline", fontsize=label.size,
                  color=MUTED if label.reference else INK)


def _widest(labels: Sequence[_Label]) -> float:
    """The width of the longest label in pixels, in Matplotlib's own font, which is wider than those of most pages."""
    from matplotlib.textpath import TextPath

    return max(TextPath((0, 0), label.text, size=label.size).get_extents().width for label in labels)


def _alt(experiment: dict[str, Any], lines: dict[str, Any], key: str, x_label: str, limit: float | None) -> str:
    metric = experiment["metric"]
    what = "held-out data" if key == "curve" else "longer sequences than in training" if limit else "test data"
    parts = [f"Line chart of {metric} against {x_label}, {what}, one line a seed."]
    if key == "by_position" and limit is not None:
        parts.append("Neighbouring positions are averaged.")
    for arm, arm_lines in lines.items():
        ends = [y[-1] for _, y in arm_lines]
        text = f"{arm_name(arm)} ({plural(len(ends), 'seed')})"
        if key != "curve" and limit is not None:
            inside = [y[x <= limit][-1] for x, y in arm_lines if (x <= limit).any()]
            if inside:
                text += f" has {score_text(float(np.mean(inside)), metric)} at {limit:g} and"
        parts.append(f"{text} ends at {_range_text(ends, metric)}.")
    levels = _levels(experiment)
    if key == "curve":
        levels = {arm_name(arm): level for arm, level in _untrained(experiment, lines).items()} | levels
    if levels:
        parts.append("Dashed lines: " + series([f"{label} {score_text(level, metric)}" if not label.startswith("solved")
                                                 else label for label, level in levels.items()]) + ".")
    return " ".join(parts)


def _range_text(scores: Sequence[float], metric: str) -> str:
    low, high = score_text(min(scores), metric), score_text(max(scores), metric)
    return low if low == high else f"{low} to {high}"


# ------------------------------------------------------------------------------------------------------- the opening figure


def opening_picture(results: dict[str, Any], *, width: int = 880) -> Picture | None:
    """Recall beside parity, every seed a dot. None when neither has a finished run."""
    panels = _opening_panels(results)
    if not panels:
        return None
    with _style():
        figure = _opening_figure(panels, width)
        return _picture(figure, f"opening-{width}", _opening_alt(panels))


def write_opening_figure(results: dict[str, Any], path: str | PathLike[str]) -> None:
    """The opening figure as a PNG file, for a README. Raises InputError when there is nothing to show."""
    panels = _opening_panels(results)
    if not panels:
        raise InputError("the opening figure shows associative_recall and state_tracking: got results without a finished run of "
                         "either, expected at least one")
    with _style():
        data = io.BytesIO()
        _opening_figure(panels, 880, note=_NOTE).savefig(data, format="png", dpi=144, facecolor="white",
                                                           metadata={"Software": None})
    with write_whole(path) as file:
        file.write(data.getvalue())


@dataclass(frozen=True)
class _Panel:
    title: str
    subtitle: str
    metric: str
    chance: float | None
    threshold: float | None
    scores: dict[str, list[float]]    # of each arm, one a seed


def _opening_panels(results: dict[str, Any]) -> list[_Panel]:
    """Recall; parity at the trained lengths; parity at the farthest length. Those that have a score."""
    panels = []
    for name in ("associative_recall", "state_tracking"):
        experiment = results["experiments"].get(name, {"arms": {}})
        runs = {arm: data["runs"] for arm, data in ordered(experiment["arms"])}
        scores = {arm: [run["score"] for run in own if known(run["score"])] for arm, own in runs.items()}
        farthest = {arm: [run["by_length"][-1] for run in own if run.get("by_length")] for arm, own in runs.items()}
        lengths = {length for ends in farthest.values() for length, _ in ends}
        if any(scores.values()):
            panels.append(_panel(experiment, "trained lengths" if lengths else "held-out data", scores))
        if lengths:
            beyond = {arm: [score for length, score in ends if length == max(lengths)] for arm, ends in farthest.items()}
            panels.append(_panel(experiment, f"length {max(lengths)}", beyond))
    return panels


def _panel(experiment: dict[str, Any], subtitle: str, scores: dict[str, list[float]]) -> _Panel:
    return _Panel(experiment["title"], subtitle, experiment["metric"], experiment.get("chance"), experiment.get("threshold"),
                  scores)


def _opening_figure(panels: Sequence[_Panel], width: int, *, note: str = "") -> Figure:
    arms = [arm for arm in _order(panel.scores for panel in panels) if any(panel.scores.get(arm) for panel in panels)]
    small = width < 600
    left, right, top, bottom, row, between = (126, 8, 56, 30, 30, 12) if small else (176, 24, 52, 36, 34, 32)
    font = 11 if small else 14
    bottom += 30 if note else 0
    height = top + row * len(arms) + bottom
    figure, axes = _new_figure(width, height, columns=len(panels))
    figure.subplots_adjust(left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height,
                           wspace=between * len(panels) / (width - left - right - between * (len(panels) - 1)))
    for place, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
        ax.set_ylim(len(arms) - 0.5, -0.5)
        ax.set_yticks(range(len(arms)), [arm_name(arm) for arm in arms] if place == 0 else [])
        ax.tick_params(axis="y", length=0, labelsize=font, labelcolor=INK, pad=8)
        ax.set_xlim(-0.04, 1.04)
        _score_axis(ax.xaxis, panel.metric, ticks=(0, 1) if small else (0, 0.5, 1))
        ax.tick_params(axis="x", labelsize=font - 1.5)
        ax.get_xticklabels()[0].set_horizontalalignment("left")
        ax.get_xticklabels()[-1].set_horizontalalignment("right")
        ax.grid(False)
        ax.hlines(range(len(arms)), -0.04, 1.04, color=GRID, linewidth=1, zorder=0)
        ax.spines["left"].set_visible(False)
        if known(panel.threshold):
            ax.axvspan(panel.threshold, 1.04, color=BAND, zorder=-1)
            ax.axvline(panel.threshold, color=MUTED, linewidth=0.8, zorder=1)
        if known(panel.chance):
            ax.axvline(panel.chance, color=MUTED, linewidth=1, dashes=(3, 3), zorder=1)
        for place_of_arm, arm in enumerate(arms):
            scores = sorted(panel.scores.get(arm, []))
            # a little apart, so that equal scores are still several dots
            offsets = (np.arange(len(scores)) - (len(scores) - 1) / 2) * min(0.17, 0.6 / max(len(scores), 1))
            ax.plot(scores, place_of_arm + offsets, linestyle="", marker="o", markersize=6 if small else 8, color=_colour(arm),
                    markeredgecolor=PAPER, markeredgewidth=0.8, clip_on=False, zorder=3)
        title = panel.title.replace(" ", "\n") if small else panel.title
        for text, above, size, colour, weight in ((title, 10 + font, font, INK, "bold"),
                                                  (panel.subtitle, 7, font - 1.5, MUTED, "normal")):
            ax.text(0, 1 + above / (row * len(arms)), text, transform=ax.transAxes, fontsize=size, color=colour, weight=weight)
    if note:
        figure.text(left / width, 12 / height, note, fontsize=font - 1.5, color=MUTED)
    return figure


def _opening_alt(panels: Sequence[_Panel]) -> str:
    parts = ["Dot plot, a row for each model and a dot for each seed."]
    for panel in panels:
        scores = [f"{arm_name(arm)} {_range_text(values, panel.metric)}" for arm, values in panel.scores.items() if values]
        chance = f", chance {score_text(panel.chance, panel.metric)}" if known(panel.chance) else ""
        parts.append(f"{panel.title}, {panel.subtitle}{chance}: {series(scores)}.")
    return " ".join(parts)


# ------------------------------------------------------------------------------------------------------------- attention


@dataclass(frozen=True)
class AttentionReading:
    """How much of the weight of the queries stands on the value that answers them."""

    layer: int            # counted from 1, as people count
    head: int
    on_answer: float
    even: float           # what a head that looks at everything alike would put there
    example: str          # the query of the last row
    answer: str


def answers(tokens: Sequence[str]) -> dict[int, int]:
    """Where each query finds its answer: a token that was there before is a query, and what followed it then is the answer."""
    first: dict[str, int] = {}
    found = {}
    for place, token in enumerate(tokens):
        if token in first:
            found[place] = first[token] + 1
        else:
            first[token] = place
    return found


def read_attention(attention: dict[str, Any]) -> AttentionReading | None:
    """The head that puts most weight on the answers. None when no token comes twice, so that nothing is asked."""
    tokens = attention["tokens"]
    found = answers(tokens)
    if not found:
        return None
    rows, columns = np.array(list(found.items())).T
    on_answer = [(float(np.asarray(head)[rows, columns].mean()), layer, head_number)
                 for layer, heads in enumerate(attention["layers"], start=1) for head_number, head in enumerate(heads, start=1)]
    best, layer, head_number = max(on_answer, key=lambda entry: entry[0])
    query = max(found)
    return AttentionReading(layer, head_number, best, float((1 / (rows + 1)).mean()), tokens[query], tokens[found[query]])


def attention_pictures(name: str, attention: dict[str, Any]) -> list[tuple[str, Picture]]:
    """One panel a head, with its title."""
    return [(f"Layer {layer}, head {number}", _attention_picture(f"{name}-{layer}-{number}", attention, layer, number))
            for layer, heads in enumerate(attention["layers"], start=1) for number in range(1, len(heads) + 1)]


def _attention_picture(name: str, attention: dict[str, Any], layer: int, number: int) -> Picture:
    """A row is a token that looks, a column one that is looked at; opacity is the weight, so no weight shows the page itself."""
    tokens = attention["tokens"]
    weights = np.clip(np.asarray(attention["layers"][layer - 1][number - 1], float), 0, 1)           # [T, T]
    size = len(tokens)
    with _style():
        from matplotlib.patches import Rectangle

        figure, axes = _new_figure(400, 400)
        figure.subplots_adjust(left=0.1, right=0.995, bottom=0.005, top=0.9)
        shade = np.empty((size, size, 4))                                                           # [T, T, RGBA]
        shade[..., :3] = _rgb(_colour(attention["arm"]))
        shade[..., 3] = weights
        axes.imshow(shade, interpolation="none", aspect="auto")
        axes.set_xticks(range(size), tokens, rotation=90)
        axes.set_yticks(range(size), tokens)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=min(12, 230 / size), labelcolor=INK, pad=3)
        axes.grid(False)
        axes.set_frame_on(False)
        first, last = -0.5, size - 0.5
        axes.vlines(np.arange(size + 1) - 0.5, first, last, color=GRID, linewidth=0.5)
        axes.hlines(np.arange(size + 1) - 0.5, first, last, color=GRID, linewidth=0.5)
        axes.set_xlim(first - 0.05, last + 0.05)
        axes.set_ylim(last + 0.05, first - 0.05)
        for query, answer in answers(tokens).items():
            axes.add_patch(Rectangle((answer - 0.5, query - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.4, zorder=3))
        return _picture(figure, f"attention-{name}", _attention_alt(f"layer {layer}, head {number}", weights, tokens))


def _attention_alt(title: str, weights: np.ndarray, tokens: Sequence[str]) -> str:
    alt = f"Attention map, {title}, {len(tokens)} by {len(tokens)} tokens: {' '.join(tokens)}."
    looks = []
    for query, answer in answers(tokens).items():
        most = int(weights[query].argmax())
        looks.append(f"{tokens[query]} looks most at {tokens[most]} ({weights[query, most]:.2f}; its answer is {tokens[answer]})")
    return f"{alt} {'; '.join(looks)}." if looks else alt


# -------------------------------------------------------------------------------------------------------------- the workshop


def ordered(arms: dict[str, Any]) -> list[tuple[str, Any]]:
    """The arms in the order of `ARMS`, then any other as it comes."""
    return [(arm, arms[arm]) for arm in _order([arms])]


def _order(groups: Any) -> list[str]:
    names = list(dict.fromkeys(arm for group in groups for arm in group))
    places = {arm: place for place, arm in enumerate(ARMS)}
    return sorted(names, key=lambda arm: places.get(arm, len(places)))


def _colour(arm: str) -> str:
    return COLOURS.get(arm, OTHER)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5))


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's own settings and ours, whatever the user's matplotlibrc says: the same results give the same bytes."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("the report's figures need matplotlib: pip install transformer-np[compare]") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "svg.fonttype": "none", "svg.hashsalt": "transformer-np", "text.parse_math": False, "axes.unicode_minus": True,
            "font.family": "DejaVu Sans", "font.size": 12, "axes.labelsize": 12, "xtick.labelsize": 11, "ytick.labelsize": 11,
            "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.linewidth": 0.8,
            "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.major.size": 3, "ytick.major.size": 0,
            "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
            "axes.facecolor": "none", "figure.facecolor": "none", "lines.solid_joinstyle": "round",
        })
        yield


def _new_figure(width: float, height: float, *, columns: int | None = None) -> tuple[Figure, Any]:
    """A figure of width x height CSS pixels. At 72 dots an inch a point is a pixel, so font sizes are pixels too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    return figure, figure.add_subplot() if columns is None else figure.subplots(1, columns, squeeze=False)[0]


def _score_axis(axis: Any, metric: str, ticks: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)) -> None:
    if is_share(metric):
        axis.set_ticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    else:
        from matplotlib.ticker import MaxNLocator

        axis.set_major_locator(MaxNLocator(5))


def _picture(figure: Figure, name: str, alt: str) -> Picture:
    """The figure as an element of an HTML page: only the ids that are referred to, made unique by `name`; colours and font are
    left to the page."""
    data = io.StringIO()
    figure.savefig(data, format="svg", metadata={"Date": None})
    svg = data.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r" transform=\"rotate\(-0 [^)]*\)\"", "", svg)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(r" id=\"([^\"]*)\"", lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r"(url\(|href=\")#", rf"\g<1>#{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><").replace("base64, ", "base64,")
    svg = re.sub(r"^<svg [^>]*(viewBox=\"[^\"]*\")[^>]*>",
                 lambda match: f'<svg class="picture" role="img" aria-label="{html.escape(alt)}" {match[1]}>', svg)
    return Picture(svg.strip(), alt)
