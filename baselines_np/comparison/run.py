"""One run: one arm of one experiment, with one learning rate and one seed, from the first weights to the score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from baselines_np.comparison.arms import configuration, create_model
from baselines_np.comparison.cost import count_flops, peak_bytes
from baselines_np.comparison.settings import Experiment
from baselines_np.comparison.task import Batch, Prediction, predict, stream
from transformer_np.layer import count_parameters
from transformer_np.training.loop import train_step
from transformer_np.training.optimizers import AdamW
from transformer_np.training.schedules import warmup_cosine

Run = dict[str, Any]
Report = Callable[[int, float], None]        # step, validation score


class RunKey(NamedTuple):
    experiment: str
    arm: str
    learning_rate: float | None              # None: nothing is trained by gradients
    seed: int

    def __str__(self) -> str:
        rate = "" if self.learning_rate is None else f", learning rate {self.learning_rate:g}"
        return f"{self.experiment}, {self.arm}{rate}, seed {self.seed}"


def execute(experiment: Experiment, key: RunKey, report: Report) -> Run:
    """The whole run. It depends on its arguments alone: not on what ran before it in the same process, nor beside it."""
    if key.learning_rate is None:
        return _count_n_grams(experiment, key, report)
    return _train(experiment, key, key.learning_rate, report)


def _train(experiment: Experiment, key: RunKey, peak_rate: float, report: Report) -> Run:
    task, training = experiment.task, experiment.training
    config = configuration(experiment, key.arm)
    model = create_model(config, np.random.default_rng([10, key.seed]))
    optimizer = AdamW(betas=training.betas, weight_decay=training.weight_decay)
    state = optimizer.create_state(model)
    validation = task.validation()
    data = stream("training", key.seed)
    flops, peak = _cost_of_a_step(experiment, model, optimizer, state)

    curve: list[list[float]] = []
    seconds, sound = 0.0, model                  # sound: the last model whose loss is known to be finite
    for step in range(training.steps):
        started = time.perf_counter()
        tokens, targets = task.draw(data)
        rate = warmup_cosine(step, peak=peak_rate, warmup=training.warmup, total=training.steps,
                             floor=peak_rate * training.final_rate)
        trained, state, taken = train_step(model, optimizer, state, tokens, targets, learning_rate=rate,
                                           clip_norm=training.clip_norm)
        seconds += time.perf_counter() - started
        if not math.isfinite(taken.loss):
            break
        sound, model = model, trained
        if (step + 1) % training.evaluate_every == 0 or step + 1 == training.steps:
            prediction = predict(model, *validation)
            if not math.isfinite(prediction.nats):
                break
            sound, score = model, score_of(experiment, prediction)
            curve.append([step + 1, score])
            report(step + 1, score)
    return {"seed": key.seed, "learning_rate": key.learning_rate, "steps": training.steps, "seconds": seconds,
            **_scores(experiment, sound, validation), "curve": curve,
            "steps_to_threshold": next((step for step, score in curve if experiment.reached(score)), None),
            "diverged": sound is not model, "parameters": count_parameters(model), "flops_per_step": flops, "peak_bytes": peak,
            "config": config}


def _count_n_grams(experiment: Experiment, key: RunKey, report: Report) -> Run:
    """Counting needs no steps, and gives the same for every seed."""
    config = configuration(experiment, key.arm)
    started = time.perf_counter()
    model = experiment.task.n_gram(config["n"])  # type: ignore[attr-defined]
    seconds = time.perf_counter() - started
    peak = peak_bytes(lambda: experiment.task.n_gram(config["n"]))  # type: ignore[attr-defined]
    scores = _scores(experiment, model, experiment.task.validation())
    report(0, scores["validation_score"])
    return {"seed": key.seed, "learning_rate": None, "steps": 0, "seconds": seconds, **scores,
            "curve": [[0, scores["validation_score"]]],
            "steps_to_threshold": 0 if experiment.reached(scores["score"]) else None,
            "diverged": False, "parameters": model.parameters, "flops_per_step": 0, "peak_bytes": peak, "config": config}


def _scores(experiment: Experiment, model: Any, validation: Batch) -> dict[str, Any]:
    """The score on test data, what chooses the learning rate, and what else the task asks of a trained model. Losses are in nats
    per target."""
    on_validation, on_test = predict(model, *validation), predict(model, *experiment.task.test())
    return {"score": score_of(experiment, on_test), "test_loss": on_test.nats,
            "validation_score": score_of(experiment, on_validation), "validation_loss": on_validation.nats,
            **experiment.task.beyond(model)}


def score_of(experiment: Experiment, prediction: Prediction) -> float:
    """Accuracy where higher is better, bits per target where lower is."""
    return prediction.accuracy if experiment.higher_is_better else prediction.nats / math.log(2)


def _cost_of_a_step(experiment: Experiment, model: Any, optimizer: AdamW, state: Any) -> tuple[int, int]:
    """FLOPs and peak memory of one step on a batch of the longest training sequences."""
    tokens, targets = experiment.task.longest_batch(stream("cost"))

    def step(model: Any) -> Any:
        return train_step(model, optimizer, state, tokens, targets, learning_rate=0.0, clip_norm=experiment.training.clip_norm)

    return count_flops(model, step), peak_bytes(lambda: step(model))
