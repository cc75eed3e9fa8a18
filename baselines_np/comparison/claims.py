"""What is claimed for the Transformer and against it, judged by the runs: *holds*, *holds in part* or *does not hold here*.

Each claim is a function of one experiment of the results file, and gives a verdict and the figures that it rests on. It reads
what was measured and nothing else. An arm that falls short did so within this budget: no claim says "cannot". While an arm that
a claim needs has no runs, the claim is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from baselines_np.comparison.wording import arm_name, is_counting, mean_text, score_text, seconds_text, series

HOLDS, IN_PART, NOT_HERE = "holds", "holds in part", "does not hold here"
RECURRENT = ("rnn", "gru", "lstm")
Document = dict[str, Any]                        # one experiment of the results file
Judgement = tuple[str, str]                      # verdict, evidence
Claim = tuple[str, tuple[str, ...], Callable[[Document], Judgement]]    # what is claimed, arms that it needs, how it is judged


def judge(experiment: str, document: Document) -> list[dict[str, str]]:
    """The claims of the experiment whose arms have runs: {"claim", "verdict", "evidence"} for each."""
    ready = {arm for arm, made in document["arms"].items() if made["runs"]}
    judged = []
    for claim, needed, judgement in CLAIMS[experiment]:
        if ready.issuperset(needed):
            verdict, evidence = judgement(document)
            judged.append({"claim": claim, "verdict": verdict, "evidence": evidence})
    return judged


def summary(experiment: str, document: Document) -> str:
    """The answer of the experiment in one sentence, with its figures."""
    arms = {arm: made for arm, made in document["arms"].items() if made["mean"] is not None}
    if not arms:
        return "No run is finished yet."
    solved = [arm for arm in arms if arms[arm]["solved"] == 1]
    missed = [arm for arm in arms if arms[arm]["solved"] != 1]
    if experiment == "language_model":
        order = sorted(arms, key=lambda arm: arms[arm]["mean"])
        sentence = f"Bits per character, the fewest first: {series([_scored(arm, document) for arm in order])}."
        if trained := [arm for arm in order if not is_counting(arms[arm])]:
            losses = [run["validation_loss"] for run in arms[trained[0]]["runs"]]
            sentence += f" Validation loss of {arm_name(trained[0])}: {sum(losses) / len(losses):.3f} nats."
        return sentence
    sentences = []
    if solved:
        sentences.append(f"Solved in every seed by {series([_scored(arm, document) for arm in solved])}.")
    if missed:
        sentences.append(f"Not in every seed within this budget: {series([_scored(arm, document) for arm in missed])}.")
    return " ".join(sentences)


def _scored(arm: str, document: Document) -> str:
    made = document["arms"][arm]
    return f"{arm_name(arm)} {mean_text(made['mean'], made['sd'], document['metric'])}"


def _each_seed(arm: str, document: Document) -> str:
    return f"{arm_name(arm)} {series([score_text(run['score'], document['metric']) for run in document['arms'][arm]['runs']])}"


def _verdict(held: Sequence[bool]) -> str:
    return HOLDS if all(held) else IN_PART if any(held) else NOT_HERE


# Associative recall


def _attention_binds(document: Document) -> Judgement:
    runs = document["arms"]["transformer"]["runs"]
    reached = [run["steps_to_threshold"] for run in runs]
    steps = series([f"step {step}" if step is not None else f"not in {run['steps']} steps"
                    for step, run in zip(reached, runs, strict=True)])
    return (_verdict([run["score"] >= 0.95 for run in runs]),
            f"Accuracy in each seed: {_each_seed('transformer', document)}; 95 % of the validation data right at {steps}.")


def _one_layer_is_not_enough(document: Document) -> Judgement:
    two, one = (document["arms"][arm] for arm in ("transformer", "transformer_1_layer"))
    evidence = (f"{_scored('transformer', document)} against {_scored('transformer_1_layer', document)} "
                f"with as many parameters ({two['parameters']:,} and {one['parameters']:,}).")
    return _ahead(two["runs"], one["runs"]), evidence


def _attention_recalls_better(document: Document) -> Judgement:
    rivals = [arm for arm in (*RECURRENT, "tcn") if arm in document["arms"] and document["arms"][arm]["runs"]]
    transformer = document["arms"]["transformer"]["runs"]
    guess = document["baselines"]["guess a value shown"]["score"]
    ahead = [_ahead(transformer, document["arms"][arm]["runs"]) for arm in rivals]
    verdict = HOLDS if set(ahead) == {HOLDS} else NOT_HERE if set(ahead) == {NOT_HERE} else IN_PART
    measured = series([_scored(arm, document) for arm in rivals])
    return verdict, (f"{_scored('transformer', document)}; within the same steps {measured}; "
                     f"guessing one of the values shown: {score_text(guess, document['metric'])}.")


def _ahead(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """Holds if the worst of ours is above the best of theirs; in part if the means are in that order."""
    our_scores, their_scores = [run["score"] for run in ours], [run["score"] for run in theirs]
    if min(our_scores) > max(their_scores):
        return HOLDS
    return IN_PART if sum(our_scores) / len(our_scores) > sum(their_scores) / len(their_scores) else NOT_HERE


# State tracking


def _at_length(run: dict[str, Any], length: int) -> float:
    return dict(map(tuple, run["by_length"]))[length]


def _recurrence_tracks_state(document: Document) -> Judgement:
    twice = 2 * document["budget"]["trained_length"]
    held, parts = [], []
    for arm in ("rnn", "lstm"):
        runs = document["arms"][arm]["runs"]
        held += [run["score"] >= 0.99 and _at_length(run, twice) >= 0.95 for run in runs]
        worst, worst_far = min(run["score"] for run in runs), min(_at_length(run, twice) for run in runs)
        parts.append(f"{arm_name(arm)} {score_text(worst, 'accuracy')} at the trained lengths and "
                     f"{score_text(worst_far, 'accuracy')} at length {twice}")
    return _verdict(held), f"In the worst seed: {'; '.join(parts)}."


def _attention_tracks_state(document: Document) -> Judgement:
    arm = document["arms"]["transformer"]
    return (_verdict([run["score"] >= 0.95 for run in arm["runs"]]),
            f"Accuracy at the trained lengths within {arm['runs'][0]['steps']} steps: {_each_seed('transformer', document)}; "
            f"a coin toss: {score_text(document['chance'], 'accuracy')}.")


def _attention_goes_beyond(document: Document) -> Judgement:
    farthest, trained = document["budget"]["farthest"], document["budget"]["trained_length"]
    runs = document["arms"]["transformer"]["runs"]
    far = [_mean_beyond(run, trained) for run in runs]
    rivals = {arm: [_mean_beyond(run, trained) for run in document["arms"][arm]["runs"]] for arm in ("rnn", "lstm")}
    measured = [f"{arm_name(arm)} {series([score_text(share, 'accuracy') for share in shares])}"
                for arm, shares in {"transformer": far, **rivals}.items()]
    return (_verdict([share >= 0.95 for share in far]),
            f"Accuracy at positions {trained + 1} to {farthest}: {'; '.join(measured)}.")


def _mean_beyond(run: dict[str, Any], trained: int) -> float:
    shares = [share for position, share in run["by_position"] if position > trained]
    return sum(shares) / len(shares)


# Language modelling


def _transformer_models_text_best(document: Document) -> Judgement:
    rivals = [arm for arm in (*RECURRENT, "tcn") if arm in document["arms"] and document["arms"][arm]["runs"]]
    ours = [run["score"] for run in document["arms"]["transformer"]["runs"]]
    behind = [arm for arm in rivals if max(ours) < min(run["score"] for run in document["arms"][arm]["runs"])]
    steps = document["arms"]["transformer"]["runs"][0]["steps"]
    return (_verdict([arm in behind for arm in rivals]),
            f"Bits per character of held-out text after {steps} steps: {_scored('transformer', document)}; "
            f"{series([_scored(arm, document) for arm in rivals])}.")


def _learning_beats_counting(document: Document) -> Judgement:
    best = min((arm for arm, made in document["arms"].items() if made["runs"] and not is_counting(made)),
               key=lambda arm: document["arms"][arm]["mean"])
    scores = [run["score"] for run in document["arms"][best]["runs"]]
    counted = document["arms"]["5-gram"]["mean"]
    return (_verdict([score < counted for score in scores]),
            f"The best trained arm, {_scored(best, document)}, against {_scored('5-gram', document)}, which needs "
            f"{seconds_text(document['arms']['5-gram']['runs'][0]['seconds'])}.")


def _steps_are_faster(document: Document) -> Judgement:
    def milliseconds(arm: str) -> float:
        runs = document["arms"][arm]["runs"]
        return 1000 * sum(run["seconds"] for run in runs) / sum(run["steps"] for run in runs)

    rivals = [arm for arm in RECURRENT if arm in document["arms"] and document["arms"][arm]["runs"]]
    ours = milliseconds("transformer")
    return (_verdict([ours < milliseconds(arm) for arm in rivals]),
            f"Milliseconds a training step on one core: Transformer {ours:.0f}; "
            f"{series([f'{arm_name(arm)} {milliseconds(arm):.0f}' for arm in rivals])}.")


CLAIMS: dict[str, tuple[Claim, ...]] = {
    "associative_recall": (
        ("A two-layer Transformer binds keys to values and finds them again, in every seed.", ("transformer",), _attention_binds),
        ("It takes two layers: one to join a key with its value, one to look it up.", ("transformer", "transformer_1_layer"),
         _one_layer_is_not_enough),
        ("Any two positions are one step apart, so attention recalls better than recurrence and convolution of its size.",
         ("transformer", "rnn", "gru", "lstm", "tcn"), _attention_recalls_better)),
    "state_tracking": (
        ("A recurrent network tracks a state, and goes on to twice the trained length, in every seed.", ("rnn", "lstm"),
         _recurrence_tracks_state),
        ("A Transformer of the same size learns it too, at the trained lengths.", ("transformer",), _attention_tracks_state),
        ("What the Transformer has learned carries on beyond the trained length.", ("transformer", "rnn", "lstm"),
         _attention_goes_beyond)),
    "language_model": (
        ("A Transformer models text better than recurrent and convolutional models of its size.",
         ("transformer", "rnn", "gru", "lstm", "tcn"), _transformer_models_text_best),
        ("Training beats counting: the best trained arm is ahead of a 5-gram model.", ("transformer", "5-gram"),
         _learning_beats_counting),
        ("Positions are computed in parallel, so a Transformer trains faster than a recurrent network.",
         ("transformer", "rnn", "gru", "lstm"), _steps_are_faster)),
}
