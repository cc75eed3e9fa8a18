"""The results file: one JSON document, for programs, for the report, and for a resumed command to go on with.

It is put together anew from the finished runs after each of them, and written whole. So whatever ends the command, the file holds
every finished run; and a file from which the same runs are read gives the same document.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from baselines_np.comparison.claims import judge, summary
from baselines_np.comparison.run import Run, RunKey
from baselines_np.comparison.settings import Experiment
from baselines_np.comparison.task import Baseline
from transformer_np.errors import InputError
from transformer_np.files import write_whole

SCHEMA = 1
Results = dict[str, Any]
Finished = Mapping[RunKey, Run]


def assemble(suite: str, experiments: Sequence[Experiment], trivial: Mapping[str, Mapping[str, Baseline]], finished: Finished, *,
             seeds: int, command: str, seconds: float, others: Mapping[str, Any]) -> Results:
    """The whole document. trivial: the baselines of each task.   others: experiments of an earlier command that this one leaves
    as they are."""
    made = {experiment.name: _experiment(experiment, trivial[experiment.name], finished, seeds) for experiment in experiments}
    return {"schema": SCHEMA, "suite": suite, "command": command, "seconds": seconds, "machine": machine(),
            "versions": versions(), "experiments": {**others, **made}}


def _experiment(experiment: Experiment, trivial: Mapping[str, Baseline], finished: Finished, seeds: int) -> dict[str, Any]:
    baselines = {name: baseline._asdict() for name, baseline in trivial.items()}
    arms = {arm: made for arm in experiment.arms if (made := _arm(experiment, arm, finished)) is not None}
    for name, cost in (("flops", lambda run: run["flops_per_step"] * run["steps"]), ("seconds", lambda run: run["seconds"])):
        for arm, score in score_at_equal_cost(arms, cost).items():
            arms[arm][f"score_at_equal_{name}"] = score
    document = {"title": experiment.title, "question": experiment.question, "metric": experiment.metric,
                "higher_is_better": experiment.higher_is_better, "threshold": experiment.threshold,
                "threshold_is": experiment.threshold_is, "chance": baselines["chance"]["score"], "baselines": baselines,
                "budget": {"seeds": seeds, **experiment.budget()}, "arms": arms}
    maps = [{"arm": "transformer", "seed": run["seed"], **run["attention_map"]}
            for run in arms.get("transformer", {"runs": []})["runs"] if "attention_map" in run]
    if maps:
        document["attention_map"] = maps[0]
    return {**document, "summary": summary(experiment.name, document), "claims": judge(experiment.name, document)}


def _arm(experiment: Experiment, arm: str, finished: Finished) -> dict[str, Any] | None:
    """None if no run of the arm is finished yet."""
    own = {key: run for key, run in sorted(finished.items(), key=lambda item: (item[0].learning_rate or 0, item[0].seed))
           if key.experiment == experiment.name and key.arm == arm}
    if not own:
        return None
    first = next(iter(own.values()))
    tried = [run for key, run in own.items() if key.seed == 0 and key.learning_rate is not None]
    rate = chosen_rate(experiment, arm, finished)
    complete = rate is not None or first["learning_rate"] is None
    runs = [run for run in own.values() if run["learning_rate"] == rate] if complete else []
    scores = [run["score"] for run in runs]
    return {"parameters": first["parameters"], "flops_per_step": first["flops_per_step"], "config": first["config"],
            "learning_rate": rate,
            "grid": [{"learning_rate": run["learning_rate"], "seed": run["seed"], "score": run["validation_score"], "run": run}
                     for run in tried],
            "runs": runs,
            "mean": statistics.fmean(scores) if scores else None,
            "sd": statistics.stdev(scores) if len(scores) > 1 else None,
            "solved": sum(map(experiment.reached, scores)) / len(scores) if scores else None}


def score_at_equal_cost(arms: Mapping[str, Any], cost: Callable[[Run], float]) -> dict[str, float | None]:
    """The mean validation score of each trained arm at the moment when it had cost as much as the cheapest arm in all.

    Parameters and steps are equal by design; this is the same table at equal operations, or at equal time. It is read from the
    curves: the last evaluation before the moment, None if there was none. Cost grows evenly with the steps.
    """
    trained = {arm: made["runs"] for arm, made in arms.items() if made["runs"] and made["runs"][0]["steps"]}
    if not trained:
        return {}
    least = min(statistics.fmean(map(cost, runs)) for runs in trained.values())
    scores = {}
    for arm, runs in trained.items():
        share = least / statistics.fmean(map(cost, runs))
        reached = [[score for step, score in run["curve"] if step <= share * run["steps"]] for run in runs]
        scores[arm] = statistics.fmean(curve[-1] for curve in reached) if all(reached) else None
    return scores


def chosen_rate(experiment: Experiment, arm: str, finished: Finished) -> float | None:
    """The learning rate with the best validation score, then the lowest validation loss, with seed 0; None while runs of the
    grid are missing. The test score plays no part."""
    grid = [finished.get(RunKey(experiment.name, arm, rate, 0)) for rate in experiment.training.learning_rates]
    tried = [run for run in grid if run is not None]
    if len(tried) < len(grid):
        return None
    sign = -1 if experiment.higher_is_better else 1
    best = min(tried, key=lambda run: (run["diverged"], sign * run["validation_score"], run["validation_loss"]))
    return best["learning_rate"]


def write_results(results: Results, path: Path) -> None:
    with write_whole(path) as file:
        file.write(json.dumps(results, indent=1, allow_nan=False).encode())


def read_results(path: Path, suite: str, experiments: Sequence[Experiment]) -> tuple[dict[RunKey, Run], Results]:
    """The finished runs of an earlier command, and the document that they stood in: both empty if there is no file.

    Raises InputError if the file is damaged or not of this kind, or if its runs cannot stand beside those of this command:
    another schema, suite, budget, machine or version. Two halves of a table must come from one experiment.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a results file ({error})") from None
    advice = "choose another --out, or move the file away"
    try:
        results = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: is damaged, not JSON ({error}); {advice}") from None
    if not isinstance(results, dict) or "schema" not in results or "experiments" not in results:
        raise InputError(f"{path}: is not a results file of `baselines-np compare`; {advice}")
    expected = {"schema": SCHEMA, "suite": suite, "machine": json.loads(json.dumps(machine())), "versions": versions()}
    for name, value in expected.items():
        if results.get(name) != value:
            raise InputError(f"{path}: has {name} {_brief(results.get(name))}, this command {_brief(value)}; {advice}")
    try:
        return _finished_runs(results, experiments, path, advice), results
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is damaged, {type(error).__name__} at {error}; {advice}") from None


def _finished_runs(results: Results, experiments: Sequence[Experiment], path: Path, advice: str) -> dict[RunKey, Run]:
    finished = {}
    for experiment in experiments:
        stored = results["experiments"].get(experiment.name)
        if stored is None:
            continue
        budget = experiment.budget()
        for name in sorted({*stored["budget"], *budget} - {"seeds"}):
            if stored["budget"].get(name) != budget.get(name):
                raise InputError(f"{path}: {experiment.name} has {name} {_brief(stored['budget'].get(name))}, "
                                 f"this command {_brief(budget.get(name))}; {advice}")
        for arm, made in stored["arms"].items():
            for run in [*(entry["run"] for entry in made["grid"]), *made["runs"]]:
                missing = {"score", "validation_score", "validation_loss", "curve", "steps", "seconds", "config"} - set(run)
                if missing:
                    raise InputError(f"{path}: is damaged, a run of {experiment.name}, {arm} lacks {sorted(missing)}; {advice}")
                finished[RunKey(experiment.name, arm, run["learning_rate"], run["seed"])] = run
    return finished


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def machine() -> dict[str, Any]:
    return {"system": f"{platform.system()} {platform.release()}", "architecture": platform.machine(), "processor": _processor(),
            "cores": os.cpu_count()}


def _processor() -> str:
    """The name that a person knows. Linux keeps it in a file; elsewhere Python asks the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, "transformer-np": metadata.version("transformer-np")}
