"""The report that a person reads: one HTML file with everything in it, made of `results.json` and nothing else.

What the page says is worked out here, from the figures; `report.html` says where it stands and `report.css` how it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from baselines_np.comparison.figures import (
    COLOURS,
    Picture,
    along_picture,
    attention_pictures,
    curve_picture,
    opening_picture,
    ordered,
    read_attention,
)
from baselines_np.comparison.wording import (
    ARMS,
    EXPERIMENTS,
    MISSING,
    WORK,
    arm_name,
    bytes_text,
    count_text,
    is_counting,
    is_share,
    is_transformer,
    known,
    level_text,
    mean_text,
    score_text,
    seconds_text,
    series,
)
from transformer_np.errors import InputError
from transformer_np.files import write_whole


def write_report(results: dict[str, Any], path: str | PathLike[str]) -> None:
    """Write the page to `path`. The same results give the same bytes. Raises InputError when jinja2 or matplotlib is missing."""
    page = render_report(results).encode()
    with write_whole(path) as file:
        file.write(page)


def render_report(results: dict[str, Any]) -> str:
    """The page as text."""
    try:
        import jinja2
    except ImportError:
        raise InputError("the report needs jinja2: pip install transformer-np[compare]") from None
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["unbroken"] = _unbroken
    sections = [_section(name, experiment) for name, experiment in results["experiments"].items()]
    return environment.get_template("report.html").render(
        suite=results.get("suite", "unnamed"),
        answer=_answer(sections),
        openings=[picture for width in (880, 400) if (picture := opening_picture(results, width=width))],
        sections=sections,
        not_run=[title for name, title in EXPERIMENTS.items() if name not in results["experiments"]],
        unfinished=[line for section in sections for line in section.unfinished],
        machine=_facts(results.get("machine", {})),
        versions=_facts(results.get("versions", {})),
        command=results.get("command", ""),
        seconds=seconds_text(results.get("seconds")),
        missing=MISSING,
    )


# ------------------------------------------------------------------------------------------------ what the template is given


@dataclass(frozen=True)
class _Row:
    """An arm, or a baseline, as the tables show it."""

    arm: str
    name: str
    score: str
    solved: str = MISSING
    seconds: str = MISSING
    parameters: str = MISSING
    flops: str = MISSING
    memory: str = MISSING
    steps: str = MISSING
    at_equal_flops: str = MISSING
    at_equal_seconds: str = MISSING
    beyond: str = MISSING
    nats: str = MISSING
    learning_rate: str = MISSING
    leads: bool = False
    note: str = ""


@dataclass(frozen=True)
class _Grid:
    """The learning rates that were tried: a row for each arm, a cell for each rate."""

    rates: list[str]
    rows: list[tuple[str, list[tuple[str, bool]]]]    # name, (score, was it chosen?)


@dataclass(frozen=True)
class _Section:
    name: str
    title: str
    question: str
    summary: str
    metric: str
    better: str
    goal: str | None          # what a run has to reach to count as solved
    budget: list[tuple[str, str]]
    finding: str
    leaders: list[str]
    kinds: set[bool]          # of the trained arms: is it a Transformer?
    unbeaten: list[str]       # baselines that no trained arm beats
    counting: str | None      # the counting arm that is ahead of all trained ones
    pictures: list[tuple[str, Picture]]
    attention: list[tuple[str, Picture]]
    attention_reading: str
    columns: int              # of attention maps: the heads of a layer, or two layers of one head
    rows: list[_Row]          # arms, the best first
    baselines: list[_Row]
    beyond: str | None        # heading of the column
    nats: bool                # is there a column of losses?
    grid: _Grid | None
    configurations: list[tuple[str, list[tuple[str, str]]]]
    claims: list[dict[str, str]]
    unfinished: list[str]


def _section(name: str, experiment: dict[str, Any]) -> _Section:
    metric = experiment["metric"]
    threshold = experiment.get("threshold")
    leaders = _leaders(experiment)
    beyond = max((run["by_length"][-1][0] for arm in experiment["arms"].values() for run in arm["runs"] if run.get("by_length")),
                 default=None)
    limit = experiment.get("budget", {}).get("trained_length")
    rows = [_arm_row(arm, data, experiment, arm in leaders, beyond)
            for arm, data in sorted(ordered(experiment["arms"]), key=lambda item: _rank(experiment, item[1].get("mean")))]
    averaged = "" if limit is None else ", mean of neighbouring positions"
    pictures = [
        (f"{_capital(metric)} while training", curve_picture(name, experiment)),
        (f"{_capital(metric)} by position{averaged}", along_picture(name, experiment, "by_position")),
        (f"{_capital(metric)} by length", along_picture(name, experiment, "by_length")),
    ]
    attention = experiment.get("attention_map")
    return _Section(
        name=name,
        title=experiment.get("title") or EXPERIMENTS.get(name, name),
        question=experiment["question"],
        summary=experiment.get("summary", ""),
        metric=metric,
        better="higher is better" if experiment.get("higher_is_better", True) else "lower is better",
        goal=experiment.get("threshold_is") or level_text(threshold, metric) if known(threshold) else None,
        budget=_facts(experiment.get("budget", {})),
        finding=_finding(experiment, leaders),
        leaders=leaders,
        kinds={is_transformer(arm) for arm in _trained(experiment)},
        unbeaten=_unbeaten(experiment, leaders),
        counting=_counting_ahead(experiment, leaders),
        pictures=[(caption, picture) for caption, picture in pictures if picture],
        attention=attention_pictures(name, attention) if attention else [],
        attention_reading=_attention_reading(attention) if attention else "",
        columns=max(2, *map(len, attention["layers"])) if attention else 0,
        rows=rows,
        baselines=[_Row(label, label, score_text(baseline["score"], metric), note=baseline.get("what", ""))
                   for label, baseline in experiment.get("baselines", {}).items()],
        beyond=None if beyond is None else f"At length {beyond:g}" + (f", trained to {limit:g}" if known(limit) else ""),
        nats=any(row.nats != MISSING for row in rows),
        grid=_grid(experiment),
        configurations=[(arm_name(arm), _facts(data.get("config") or {})) for arm, data in ordered(experiment["arms"])],
        claims=experiment.get("claims", []),
        unfinished=_unfinished(experiment),
    )


def _arm_row(arm: str, data: dict[str, Any], experiment: dict[str, Any], leads: bool, beyond: float | None) -> _Row:
    metric, runs, solved = experiment["metric"], data["runs"], data.get("solved")
    diverged = sum(bool(run.get("diverged")) for run in runs)
    farthest = [value for run in runs if known(value := dict(run.get("by_length") or []).get(beyond))]
    return _Row(
        arm=arm if arm in COLOURS else "other",
        name=arm_name(arm),
        score=mean_text(data.get("mean"), data.get("sd") if len(runs) > 1 else None, metric),
        solved=f"{round(solved * len(runs))} of {len(runs)}{f', {diverged} diverged' if diverged else ''}"
               if known(solved) and known(experiment.get("threshold")) and not is_counting(data) else MISSING,
        seconds=seconds_text(_mean(runs, "seconds")),
        parameters=count_text(data.get("parameters")),
        flops=count_text(data.get("flops_per_step")),
        memory=bytes_text(_mean(runs, "peak_bytes")),
        steps=_steps_text(runs, experiment),
        at_equal_flops=score_text(data.get("score_at_equal_flops"), metric),
        at_equal_seconds=score_text(data.get("score_at_equal_seconds"), metric),
        beyond=score_text(sum(farthest) / len(farthest), metric) if farthest else MISSING,
        nats=f"{loss:.3f}" if not is_share(metric) and known(loss := _mean(runs, "validation_loss")) else MISSING,
        learning_rate=", ".join(dict.fromkeys(f"{run['learning_rate']:g}" for run in runs if known(run.get("learning_rate")))),
        leads=leads,
    )


def _steps_text(runs: Sequence[dict[str, Any]], experiment: dict[str, Any]) -> str:
    """Every seed's steps to the threshold; one that was not reached is censored at the budget: > 2000."""
    runs = [run for run in runs if run["steps"]]    # counting takes none
    if not runs or not known(experiment.get("threshold")):
        return MISSING
    reached = sorted(run["steps_to_threshold"] for run in runs if known(run.get("steps_to_threshold")))
    censored = [run["steps"] for run in runs if not known(run.get("steps_to_threshold"))]
    if not reached:
        return f"> {max(censored)}"
    return ", ".join([str(step) for step in reached] + [f"> {steps}" for steps in censored])


def _grid(experiment: dict[str, Any]) -> _Grid | None:
    arms = [(arm, data) for arm, data in ordered(experiment["arms"]) if data.get("grid")]
    if not arms:
        return None
    metric = experiment["metric"]
    rates = sorted({entry["learning_rate"] for _, data in arms for entry in data["grid"]})
    rows = []
    for arm, data in arms:
        chosen = {run.get("learning_rate") for run in data["runs"]}
        cells = []
        for rate in rates:
            scores = [score_text(entry["score"], metric) for entry in data["grid"] if entry["learning_rate"] == rate]
            cells.append((", ".join(scores) or MISSING, rate in chosen))
        rows.append((arm_name(arm), cells))
    return _Grid([f"{rate:g}" for rate in rates], rows)


# --------------------------------------------------------------------------------------------------------- who wins, in words


def _trained(experiment: dict[str, Any]) -> dict[str, Any]:
    """The arms that learned what they know, and have a score."""
    return {arm: data for arm, data in ordered(experiment["arms"]) if known(data.get("mean")) and not is_counting(data)}


def _leaders(experiment: dict[str, Any]) -> list[str]:
    """The trained arms that nothing here tells from the best. An accuracy has a ceiling: those that solve the task with every
    seed, where one does. Otherwise those whose mean is as near to the best mean as the larger of the two spreads."""
    arms = _trained(experiment)
    if not arms:
        return []
    if _can_be_solved(experiment) and (solved := [arm for arm, data in arms.items() if data.get("solved") == 1]):
        return solved
    best = min(arms.values(), key=lambda data: _rank(experiment, data["mean"]))
    return [arm for arm, data in arms.items() if abs(data["mean"] - best["mean"]) <= max(_spread(data), _spread(best))]


def _spread(data: dict[str, Any]) -> float:
    return data["sd"] if known(data.get("sd")) else 0.0


def _can_be_solved(experiment: dict[str, Any]) -> bool:
    """The threshold of a loss is only a landmark on a way that goes on."""
    return known(experiment.get("threshold")) and is_share(experiment["metric"])


def _rank(experiment: dict[str, Any], score: float | None) -> float:
    """Sorts the best first, and what has no score last."""
    if not known(score):
        return float("inf")
    return -score if experiment.get("higher_is_better", True) else score


def _finding(experiment: dict[str, Any], leaders: Sequence[str]) -> str:
    """A few words with the figures: who leads, who comes next, and what a rule without learning scores."""
    arms, metric = experiment["arms"], experiment["metric"]
    if not leaders:
        return "No trained model has finished a run yet."

    def named(arm: str) -> str:
        score = mean_text(arms[arm]["mean"], arms[arm].get("sd") if len(arms[arm]["runs"]) > 1 else None, metric)
        return f"{arm_name(arm)} with {score}"

    by_score = sorted(leaders, key=lambda arm: _rank(experiment, arms[arm]["mean"]))
    seeds = min(len(arms[arm]["runs"]) for arm in leaders)
    solved = _can_be_solved(experiment) and all(arms[arm].get("solved") == 1 for arm in leaders)
    # 1. who leads
    if solved:
        in_seeds = f"in each of {seeds} seeds" if seeds > 1 else "in the only seed"
        sentence = f"Solved {in_seeds} by {series([named(arm) for arm in by_score])}"
    else:
        sentence = f"{'Level at the top' if len(leaders) > 1 else 'The best'}: {series([named(arm) for arm in by_score])}"
    # 2. who comes next
    rest = [arm for arm in _trained(experiment) if arm not in leaders]
    if rest:
        sentence += f"; the best of the others: {named(min(rest, key=lambda arm: _rank(experiment, arms[arm]['mean'])))}"
    sentence += "."
    # 3. what keeps the lead from being a success
    if _can_be_solved(experiment) and not solved:
        sentence += f" No model reaches {level_text(experiment['threshold'], metric)} in every seed within this budget."
    if counting := _best_counting(experiment):
        lead = _counting_lead(experiment, counting, leaders)
        place = "ahead of all of them" if lead > 0 else "behind the best of them" if lead < 0 else "level with the best of them"
        sentence += f" Counting is {place}: {named(counting)}."
    for label in _unbeaten(experiment, leaders):
        score = score_text(experiment["baselines"][label]["score"], metric)
        sentence += f" The baseline “{label}” ({score}) is not beaten."
    return sentence


def _unbeaten(experiment: dict[str, Any], leaders: Sequence[str]) -> list[str]:
    """The baselines that score as well as the best trained arm, or better."""
    if not leaders:
        return []
    best = min(_rank(experiment, experiment["arms"][arm]["mean"]) for arm in leaders)
    return [label for label, baseline in experiment.get("baselines", {}).items() if _rank(experiment, baseline["score"]) <= best]


def _best_counting(experiment: dict[str, Any]) -> str | None:
    arms = [arm for arm, data in experiment["arms"].items() if is_counting(data) and known(data.get("mean"))]
    return min(arms, key=lambda arm: _rank(experiment, experiment["arms"][arm]["mean"]), default=None)


def _counting_lead(experiment: dict[str, Any], counting: str, leaders: Sequence[str]) -> float:
    """By how much counting is ahead of the best trained arm: below zero when behind, zero within the spread of that arm."""
    best = min((experiment["arms"][arm] for arm in leaders), key=lambda data: _rank(experiment, data["mean"]))
    lead = _rank(experiment, best["mean"]) - _rank(experiment, experiment["arms"][counting]["mean"])
    return lead if abs(lead) > _spread(best) else 0.0


def _counting_ahead(experiment: dict[str, Any], leaders: Sequence[str]) -> str | None:
    counting = _best_counting(experiment)
    return counting if counting and leaders and _counting_lead(experiment, counting, leaders) > 0 else None


def _answer(sections: Sequence[_Section]) -> str:
    """The short answer: on which work which kind leads."""
    openings = {
        "transformer": "a Transformer leads",
        "traditional": "a traditional model leads",
        "level": "the two kinds are level",
        "unbeaten": "no model beats the simplest rule",
        "alone": "only one of the two kinds has been run",
    }
    sides: dict[str, list[tuple[bool, str]]] = {side: [] for side in openings}    # has it a remark?, the work
    for section in sections:
        if not section.leaders:
            continue
        leading = {is_transformer(arm) for arm in section.leaders}
        side = ("unbeaten" if section.unbeaten else "alone" if len(section.kinds) == 1 else "level" if len(leading) == 2 else
                "transformer" if True in leading else "traditional")
        work = f"at {WORK.get(section.name, section.title)}"
        if section.counting:
            of_whom = " of both" if len(section.kinds) == 2 else ""
            work += f", where counting ({arm_name(section.counting)}) is still ahead{of_whom}"
        sides[side].append((section.counting is not None, work))
    # a work with a remark comes last, so that the remark belongs to no other
    clauses = [f"{openings[side]} {series([work for _, work in sorted(works, key=lambda item: item[0])])}"
               for side, works in sides.items() if works]
    if not clauses:
        return "There is no answer yet: no trained model has finished a run."
    depends = sum(bool(sides[side]) for side in ("transformer", "traditional", "level")) > 1
    return ("It depends on the work. " if depends else "") + _capital("; ".join(clauses)) + "."


def _unfinished(experiment: dict[str, Any]) -> list[str]:
    """What is not there: models without a finished run, and those with fewer seeds than were asked for."""
    title, arms = experiment["title"], experiment["arms"]
    lines = []
    if absent := [arm_name(arm) for arm in ARMS if not arms.get(arm, {"runs": []})["runs"]]:
        lines.append(f"{title}: no finished run of {series(absent)}.")
    seeds = experiment.get("budget", {}).get("seeds", 0)
    # what is not trained is the same in every seed, and is run once
    lines += [f"{title}: {arm_name(arm)} has {len(data['runs'])} of {seeds} seeds." for arm, data in ordered(arms)
              if data["runs"] and data["grid"] and len(data["runs"]) < seeds]
    return lines


def _attention_reading(attention: dict[str, Any]) -> str:
    sentences = [
        "Read a row as a question: the token on the left looks back at the tokens above. The stronger the colour of a cell, the",
        "more of its attention it spends there; each row sums to one."]
    if reading := read_attention(attention):
        sentences += [
            "An outlined cell is where the answer stands: the value that followed the same key the first time.",
            f"In the last row the query {reading.example} should find {reading.answer}.",
            f"Head {reading.head} of layer {reading.layer} puts {100 * reading.on_answer:.0f} % of the queries' weight on the",
            f"outlined cells; spread evenly, it would be {100 * reading.even:.0f} %.",
            "That is what the model looks at, which makes an explanation plausible and does not prove it."]
    return " ".join(sentences)


# ------------------------------------------------------------------------------------------------------------------- helpers


def _mean(runs: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [run[key] for run in runs if known(run.get(key))]
    return sum(values) / len(values) if values else None


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What was set, as a person reads it; a setting inside a setting keeps the outer name."""
    pairs: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            pairs += [(f"{key}: {inner}", text) for inner, text in _facts(value)]
        elif isinstance(value, list):
            pairs.append((key, ", ".join(_fact(item) for item in value)))
        else:
            pairs.append((key, _fact(value)))
    return [(key.replace("_", " "), text) for key, text in pairs]


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: MISSING}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unbroken(text: str) -> str:
    """A figure stays on one line with its spread and its unit."""
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
