# %% [markdown]
# # 3. Head to head: a Transformer and an LSTM on two small tasks
#
# *Transformer or recurrent network: which should I take?* Here are two tasks. Each has a clear winner, and it is not
# the same one. We first build both winners **by hand**, with weights that fit on a napkin, so that you see why they
# win. Then we train, compare fairly, and see how easily a comparison comes out wrong.
#
# You need tutorials 1 and 2, and an idea of a recurrent network: it reads one token at a time and keeps a state, `h_t
# = f(x_t, h_{t-1})`. Run it from top to bottom (`python tutorials/03_head_to_head.py`), step through it in a
# debugger, or open it as a notebook. It trains for about half a minute on one core.
#
# Letters: B sequences in a batch, T positions, D numbers for each position, V different tokens.
#
# Text and exercises: CC BY 4.0. Code: MIT.

# %%
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from classroom import grade, heat_map, require, table  # a small file beside this one: grades answers, prints pictures

from baselines_np.comparison.associative_recall import AssociativeRecall
from baselines_np.comparison.cost import count_flops
from baselines_np.comparison.state_tracking import StateTracking
from baselines_np.lstm import LSTM
from baselines_np.models.recurrent import RecurrentLanguageModel
from baselines_np.rnn import RNN, rnn_forward, rnn_step_backward
from transformer_np import (
    GPT,
    MultiHeadAttention,
    attention_forward,
    causal_mask,
    count_parameters,
    linear_backward,
)
from transformer_np.gradcheck import check_layer
from transformer_np.training.loop import train_step
from transformer_np.training.optimizers import AdamW

# %% [markdown]
# ## 3.1 The two tasks
#
# **Parity.** Coins are tossed, 1 or 0. At each toss: has the number of ones so far been odd? One bit of state, and
# every toss may flip it.
#
# **Associative recall.** Three keys, each followed by its value. Then the three keys again, in another order: which
# value came with each? A dot means that nothing is asked there.

# %%
parity = StateTracking(trained_length=20, farthest=80, batch=32)
PAIRS = 3
recall = AssociativeRecall(pairs=PAIRS, keys=8, values=8, batch=32)

tokens, targets = parity.examples(1, 12, np.random.default_rng(0))              # [B, T] each, B = 1, T = 12
print("parity   tokens ", *tokens[0])
print("         targets", *targets[0])
assert np.array_equal(targets[0], np.cumsum(tokens[0]) % 2)

tokens, targets = recall.examples(1, np.random.default_rng(0))                  # [B, T] each, T = 3 * PAIRS
asked = targets[0] >= 0                                                         # [T]
print("recall   tokens ", *recall.names(tokens[0]))
print("         targets", *(recall.names(targets[0][t:t + 1])[0] if asked[t] else " ." for t in range(3 * PAIRS)))
assert asked.sum() == PAIRS

# %% [markdown]
# ## 3.2 By hand: parity with two neurons
#
# The parity p after a toss x is `p xor x`: one of them, but not both. A neuron cannot compute xor, but two neurons
# can share it:
#
#     either = at least one of p, x         p + x > 0.5
#     both   = p and x                      p + x > 1.5
#     new p  = either and not both
#
# tanh of a large number is a switch: nearly -1 or nearly +1. With `K = 10`:
#
#     either_t = tanh(K (p + x_t - 0.5))
#     both_t   = tanh(K (p + x_t - 1.5))                with p = (either_{t-1} - both_{t-1}) / 2
#
# Check p by hand: (-1, -1) gives 0; (+1, -1) gives 1; (+1, +1) gives 0. Now put p into the two lines, and read off
# the weights of
#
#     h_t = tanh(x_t W_x + h_{t-1} W_h + b)           h = [either, both]


# %%
K = 10.0
weight_x = np.array([[K, K]])                                                   # [D_in, D] = [1, 2]: x_t into either, both
weight_h = np.array([[K / 2, K / 2],                                            # [D, D] = [2, 2]: either adds 1/2 to p,
                     [-K / 2, -K / 2]])                                         #                  both takes it away
bias = np.array([-0.5 * K, -1.5 * K])                                           # [D]

tosses, odd = parity.examples(3, 10_000, np.random.default_rng(1))              # [B, T] each, T = 10,000
x = tosses[..., None].astype(float)                                             # [B, T, D_in]
(h, _), _ = rnn_forward(x, weight_x, weight_h, bias)                            # [B, T, D]
p = (h[..., 0] - h[..., 1]) / 2                                                 # [B, T]
print("tosses", tosses[0, :8])
print("p     ", p[0, :8].round(3))
print(f"right at {np.mean((p > 0.5) == odd):.0%} of {odd.size:,} tosses; p is never further than "
      f"{np.abs(p - odd).max():.0e} from 0 or 1")
assert np.array_equal(p > 0.5, odd == 1)
assert np.abs(p - odd).max() < 1e-3

# %% [markdown]
# Two numbers, four and two: eight in all, and it makes no mistake, ten thousand steps long. Each step repairs the
# rounding of the step before, since tanh is flat at both ends. **A recurrent network is at home where a small state
# is updated again and again.**

# %%
assert weight_x.size + weight_h.size + bias.size == 8

# %% [markdown]
# And attention? It takes a *mean* over positions. In a mean over n tosses, one toss has a part of 1/n, and yet any
# single toss flips the answer. The longer the sequence, the finer the difference that the rest of the network must
# read. It can be done (Chiang and Cholak 2022 write such weights down). Learning it from examples is another matter.
#
# ## 3.3 By hand: recall with two attentions
#
# Now the other task. Two attentions, each with one job:
#
# 1. *What stood just before me?* Every position looks one place back, and takes along the token it finds there. Now
#   the place of each value knows its key.
# 2. *Where does my key stand as the one before?* A query looks for places that took its own key along, and takes the
#   value there.
#
# Known as an induction head (Olsson et al. 2022). Write tokens and places as one-hot rows, so that a product of query
# and key is 1 where they are equal and 0 elsewhere. Times 50, softmax makes that all or nothing.

# %%
SHARP = 50.0


def recall_by_hand(tokens, vocabulary):
    """tokens: [B, T].   Returns what each position recalls, as weights over tokens [B, T, V], and the weights [B, T, T]."""
    B, T = tokens.shape
    what = np.eye(vocabulary)[tokens]                                           # [B, T, V], the token, one-hot
    where = np.broadcast_to(np.eye(T), (B, T, T))                               # [B, T, T], the place, one-hot
    one_back = np.broadcast_to(np.eye(T, k=-1), (B, T, T))                      # [B, T, T], the place before, one-hot
    # 1. query: the place before mine. key: the place. value: the token there. Position 0 has nothing before it
    earlier = np.tri(T, k=-1, dtype=bool)                                       # [T, T]
    before, _ = attention_forward(SHARP * one_back, where, what, earlier, scale=1.0)       # [B, T, V]
    # 2. query: my token. key: the token that stood before. value: the token
    recalled, cache = attention_forward(SHARP * what, before, what, causal_mask(T), scale=1.0)  # [B, T, V]
    return recalled, cache.weights


tokens, targets = recall.test()                                                 # [B, T] each
recalled, weights = recall_by_hand(tokens, recall.vocabulary)
asked = targets >= 0                                                            # [B, T]
print(f"right at {np.mean((recalled.argmax(axis=-1) == targets)[asked]):.0%} of {asked.sum():,} questions")
names = recall.names(tokens[0])
print("the second attention, where it is asked:")
print(heat_map(weights[0, 2 * PAIRS:], names[2 * PAIRS:], names))
assert np.array_equal(recalled.argmax(axis=-1)[asked], targets[asked])

# %% [markdown]
# Each key finds the place after itself, however far back. **Attention is at home where something must be found again
# by what it is.** Why two layers? A query is compared with keys made from *one* place each. The value's place must
# know its key before anyone can ask for it, and that takes a first exchange.
#
# And the recurrent network? Its state must hold all pairs at once, since it does not know which will be asked. How
# much is that? Choose 3 of 8 keys, and give each a different one of 8 values:

# %%
bits = math.log2(math.comb(8, PAIRS) * math.perm(8, PAIRS))
print(f"{bits:.1f} bits")
assert 14 < bits < 15

# %% [markdown]
# Less than 15 bits fit easily into a state of 55 numbers. So the question is not whether an LSTM *can* hold them. It
# is whether it learns to write each pair into its own corner and to find it again, within the steps we give it.
#
# ## 3.4 What each costs: the derivation
#
# Count multiplications and additions, for one sequence of n positions of width d, forward.
#
#     attention     four projections [n, d] @ [d, d]                  4 * 2 n d^2
#                   scores [n, d] @ [d, n] and mean [n, n] @ [n, d]   2 * 2 n^2 d
#     LSTM          four gates, each from x and from h                4 * 2 * 2 n d^2
#
#     attention     8 n d^2 + 4 n^2 d         path between two positions: 1 step        steps in sequence: 1
#     LSTM          16 n d^2                  path between two positions: up to n       steps in sequence: n
#
# Equal when 4 n^2 d = 8 n d^2, so at n = 2 d. (Vaswani et al. 2017, section 4 and table 1, argue with the same two
# terms.) The formulas below are checked against a count of the products that the code really does.

# %%
d = 32
rows = []
for n in (16, 64, 256):
    x = np.random.default_rng(2).standard_normal((1, n, d)).astype(np.float32)  # [B, T, D]
    attention = MultiHeadAttention.create(d, 2, rng=np.random.default_rng(3))
    lstm = LSTM.create(d, d, rng=np.random.default_rng(3))
    counted = (count_flops(attention, lambda layer, x=x, n=n: layer.forward(x, x, causal_mask(n))),
               count_flops(lstm, lambda layer, x=x: layer.forward(x)))
    rows.append([f"n = {n}, d = {d}", *(f"{count:,}" for count in counted)])
    assert counted == (8 * n * d**2 + 4 * n**2 * d, 16 * n * d**2)
    if n == 2 * d:
        assert counted[0] == counted[1], "equal at n = 2 d"
print(table(["floating point operations", "attention", "LSTM"], rows))

# %% [markdown]
# Operations are not time. Attention does its own in a few large products, all positions at once. The LSTM must wait
# for each step before it can begin the next. On a machine with many cores, that can weigh more than the count.
#
# ## 3.5 The code, and the check
#
# Both models have one interface: tokens `[B, T]` go in, scores for each token `[B, T, V]` come out. The training loop
# knows nothing else about them. Widths are chosen so that the two have nearly the same number of parameters; without
# that, a comparison of architectures is a comparison of sizes.

# %%
WIDTH, LSTM_WIDTH = 32, 55


def create_transformer(task, rng):
    # learned positions end with the longest sequence that was trained; sinusoids go on, and parity asks for that
    return GPT.create(task.vocabulary, context=task.longest, d_model=WIDTH, num_layers=2, num_heads=1, rng=rng,
                      positions="sinusoidal" if task is parity else "learned", std=1 / math.sqrt(WIDTH))


def create_lstm(task, rng):
    return RecurrentLanguageModel.create(task.vocabulary, cell="lstm", d_model=LSTM_WIDTH, rng=rng)


ARMS = {"Transformer": create_transformer, "LSTM": create_lstm}
for task in (recall, parity):
    sizes = [count_parameters(create(task, np.random.default_rng(0))) for create in ARMS.values()]
    print(f"{type(task).__name__:<18} parameters: Transformer {sizes[0]:,}, LSTM {sizes[1]:,}")
    assert abs(sizes[1] / sizes[0] - 1) < 0.05, "equal within 5 %"

# %% [markdown]
# Before a model may compete, its gradient is checked. Small sizes, the same code, every weight.

# %%
some_tokens = np.random.default_rng(4).integers(0, 5, (2, 4))                   # [B, T]
small = np.random.default_rng(5)
for model in (GPT.create(5, context=4, d_model=4, num_layers=2, num_heads=2, rng=small, std=0.5, dtype=np.float64),
              RecurrentLanguageModel.create(5, cell="lstm", d_model=3, rng=small, dtype=np.float64)):
    report = check_layer(model, [some_tokens])
    print(str(report).splitlines()[0], f" largest relative error {report.worst:.0e}")
    report.raise_if_failed()

# %% [markdown]
# ## 3.6 The head-to-head
#
# The rules, and why:
#
# * *The same batches for both.* Otherwise luck plays along.
# * *The same learning rates for both, and more than one.* A rate that suits one arm can stop the other. You will see.
# * *Choose the rate on validation data, report on test data.* Otherwise the choice has seen the answers.
# * *The same number of steps.* That is the budget. What is not reached is "not within this budget", never "cannot".
# * *Several seeds.* Here we break this one, to keep the lesson short: one seed. `baselines-np compare` does it right.

# %%
def accuracy(model, tokens, targets):
    """The share of right answers, where one is asked for."""
    logits, _ = model.forward(tokens)                                           # [B, T, V]
    return float((logits.argmax(axis=-1) == targets)[targets >= 0].mean())


@dataclass
class Run:
    model: Any
    curve: list[float]          # accuracy on validation data, every EVERY steps
    seconds: float


EVERY = 50


def train(model, task, rate, steps):
    optimizer = AdamW(betas=(0.9, 0.98))
    state = optimizer.create_state(model)
    batches = np.random.default_rng(6)                                          # the same for every arm
    validation = task.validation()                                              # [B, T] each
    curve, start = [], time.perf_counter()
    for step in range(1, steps + 1):
        tokens, targets = task.draw(batches)                                    # [B, T] each
        model, state, _ = train_step(model, optimizer, state, tokens, targets,
                                     learning_rate=rate * min(1, step / 20), clip_norm=1.0)
        if step % EVERY == 0:
            curve.append(accuracy(model, *validation))
    return Run(model, curve, time.perf_counter() - start)


RATES = (1e-3, 8e-3)
BUDGETS = {"recall": (recall, 400), "parity": (parity, 200)}
runs = {(name, arm, rate): train(create(task, np.random.default_rng(7)), task, rate, steps)
        for name, (task, steps) in BUDGETS.items() for arm, create in ARMS.items() for rate in RATES}


def show(name, steps):
    """The validation curves of one task, as a table."""
    rows = [[f"{arm}, rate {rate:g}", *(f"{point:.2f}" for point in run.curve), f"{run.seconds:.1f} s"]
            for (task_name, arm, rate), run in runs.items() if task_name == name]
    print(table([name, *range(EVERY, steps + 1, EVERY), "time"], rows))


show("parity", 200)
assert min(runs["parity", "LSTM", rate].curve[-1] for rate in RATES) > 0.99
assert max(runs["parity", "Transformer", rate].curve[-1] for rate in RATES) < 0.95

# %% [markdown]
# Parity: the LSTM has it. Choose each arm's rate on validation data, and look at lengths that nobody was trained on.
# A coin toss scores 0.5.

# %%
def best(name, arm):
    """The run whose last validation accuracy is the best of the arm's rates."""
    return max((runs[name, arm, rate] for rate in RATES), key=lambda run: run.curve[-1])


tokens, targets = parity.far()                                                  # [B, T] each, T = 80
rows, far = [], {}
for arm in ARMS:
    model = best("parity", arm).model
    logits, _ = model.forward(tokens)                                           # [B, T, V]
    right = logits.argmax(axis=-1) == targets                                   # [B, T]
    far[arm] = [float(right[:, end - 20:end].mean()) for end in (20, 40, 60, 80)]
    rows.append([arm, *far[arm]])
print(table(["accuracy at tosses", "1-20 (trained)", "21-40", "41-60", "61-80"], rows))
assert min(far["LSTM"]) > 0.99
assert far["Transformer"][0] < 0.9 and max(far["Transformer"][1:]) < 0.6

# %% [markdown]
# Inside the trained lengths, the Transformer is on its way. Beyond them, it tosses a coin: what it has learned is
# tied to the places it has seen. The LSTM goes on without a mistake: it has learned a rule for one step, and a step
# is the same at every place.
#
# Now recall. Three values have been shown, so someone who guesses one of them scores 0.33.

# %%
show("recall", 400)
test = {arm: accuracy(best("recall", arm).model, *recall.test()) for arm in ARMS}
print("on test data:", {arm: round(score, 3) for arm, score in test.items()})
assert test["Transformer"] > 0.95
assert 0.3 < test["LSTM"] < 0.85

# %% [markdown]
# The Transformer has it, and not little by little: for a while nothing happens, then within some steps everything
# does. (Olsson et al. 2022 saw the same jump in large models, and traced it to the forming of heads like the two
# above.)
#
# **Look at the rates.** At 0.001 the Transformer wins, far ahead. At 0.008 it never leaves the ground, and the LSTM
# is in front! Had we tried a single rate, that rate would have chosen the winner. A comparison with one rate is a
# comparison of rates.

# %%
by_rate = {rate: {arm: runs["recall", arm, rate].curve[-1] for arm in ARMS} for rate in RATES}
assert by_rate[1e-3]["Transformer"] > by_rate[1e-3]["LSTM"] + 0.4
assert by_rate[8e-3]["Transformer"] + 0.1 < by_rate[8e-3]["LSTM"]

# %% [markdown]
# And is it true that the LSTM *cannot* do recall? Give it four times the steps, at its better rate.

# %%
longer = train(create_lstm(recall, np.random.default_rng(7)), recall, 8e-3, 1600)
print("LSTM, steps 200 to 1600:", " ".join(f"{point:.2f}" for point in longer.curve[3::4]))
assert longer.curve[-1] > 0.85

# %% [markdown]
# It can. It needs several times as long for what the Transformer's wiring makes easy. *Not within this budget* was
# the true sentence, and *cannot* would have been a false one.
#
# ## 3.7 Reading the weights, with a control
#
# Did the trained Transformer find our construction by hand? Measure four things, where a key is asked for, and beside
# each what looking everywhere alike would give.

# %%
model = best("recall", "Transformer").model
tokens, targets = recall.test()                                                 # [B, T] each
logits, cache = model.forward(tokens)
first, second = (block.weights[:, 0] for block in cache.blocks)                 # [B, T, T], the only head of each layer
questions = np.arange(2 * PAIRS, 3 * PAIRS)                                     # [P], where keys are asked for, P = PAIRS
shown_keys = tokens[:, 0:2 * PAIRS:2]                                           # [B, P]
pair = (tokens[:, questions][:, :, None] == shown_keys[:, None, :]).argmax(axis=-1)    # [B, P], which pair each asks for
row = np.arange(len(tokens))[:, None]                                           # [B, 1]
value_places = np.arange(1, 2 * PAIRS, 2)                                       # [P]
figures = {
    "layer 1: a value looks at the key before it": (first[:, value_places, value_places - 1],
                                                    1 / (value_places + 1)),
    "layer 2: a question looks at its value": (second[row, questions, 2 * pair + 1], 1 / (questions + 1)),
    "layer 2: a question looks at another value": (second[row, questions, 2 * ((pair + 1) % PAIRS) + 1], 1 / (questions + 1)),
    "layer 2: a question looks at its key": (second[row, questions, 2 * pair], 1 / (questions + 1)),
}
print(table(["mean weight", "measured", "everywhere alike"],
            [[what, float(measured.mean()), float(alike.mean())] for what, (measured, alike) in figures.items()]))
names = recall.names(tokens[0])
print("layer 2, where it is asked:")
print(heat_map(second[0, 2 * PAIRS:], names[2 * PAIRS:], names))
measured = {what: float(weights.mean()) for what, (weights, _) in figures.items()}
assert measured["layer 1: a value looks at the key before it"] > 0.4
assert measured["layer 2: a question looks at its value"] > 0.7
assert measured["layer 2: a question looks at its key"] < 0.1

# %% [markdown]
# Much like ours: one layer looks one place back, the next looks at the value. But note the last line. The weight on
# the key itself is nearly nothing. So the key does not matter? **Weights are not reasons.** Ask the model itself:
# change one token and see whether the answer follows. As a control, change a token of *another* pair.

# %%
def answers_after(place_of):
    """How often the answer to the first question stays, when the token at `place_of` (of each sequence) becomes another one.

    The new token is of the same kind, a key or a value, and has not been shown in the sequence."""
    changed = tokens.copy()                                                     # [B, T]
    for b in range(len(tokens)):
        old = tokens[b, place_of[b]]
        kind = range(8) if old < 8 else range(8, 16)
        changed[b, place_of[b]] = next(token for token in kind if token not in tokens[b])
    before = logits[:, 2 * PAIRS].argmax(axis=-1)                                       # [B]
    after = model.forward(changed)[0][:, 2 * PAIRS].argmax(axis=-1)                     # [B]
    return float((before == after).mean())


asked_pair, other_pair = pair[:, 0], (pair[:, 0] + 1) % PAIRS                       # [B], [B]
stays = {
    "its value": answers_after(2 * asked_pair + 1),
    "its key": answers_after(2 * asked_pair),
    "the value of another pair": answers_after(2 * other_pair + 1),
    "the key of another pair": answers_after(2 * other_pair),
}
print(table(["change", "the answer stays"], [[what, share] for what, share in stays.items()]))
assert stays["its value"] < 0.1
assert stays["its key"] < 0.6
assert min(stays["the value of another pair"], stays["the key of another pair"]) > 0.9

# %% [markdown]
# Change the key, on which almost no weight lies, and the answer is lost: it stays as often as a guess among three
# values would let it. The news of the key had travelled to the value's place in layer 1. Whoever reads only the
# weights of layer 2 concludes that keys are unimportant, in a model of keys and values. (Jain and Wallace 2019 and
# Wiegreffe and Pinter 2019 have the whole argument.)
#
# ## 3.8 A gallery of wrong versions that still train
#
# **A gradient that never travels through time.** The line that carries `d_h` from step t + 1 to step t is forgotten.
# Each step learns from its own answer only.

# %%
class TimelessRNN(RNN):
    """WRONG: what step t + 1 sends back to step t is dropped."""

    def backward(self, d_output, cache):
        d_y, _ = d_output                                                       # [B, T, D]
        d_projected = np.zeros_like(d_y)                                        # [B, T, D]
        d_weight_h = np.zeros_like(self.weight_h)                               # [D, D]
        for t in range(d_y.shape[1]):
            # right: rnn_step_backward(d_y[:, t] + d_h, ...), with the d_h that step t + 1 has returned
            d_projected[:, t], _, d_weight_h_t = rnn_step_backward(d_y[:, t], cache.steps[t])
            d_weight_h += d_weight_h_t
        d_x, d_weight_x, d_bias = linear_backward(d_projected, cache.projection)
        return d_x, None, TimelessRNN(d_weight_x, d_weight_h, d_bias)


def create_rnn(task, rng, cell=RNN):
    model = RecurrentLanguageModel.create(task.vocabulary, cell="rnn", d_model=WIDTH, rng=rng)
    right = model.cells[0]
    return replace(model, cells=[cell(right.weight_x, right.weight_h, right.bias)])


rnn_runs = {cell.__name__: train(create_rnn(parity, np.random.default_rng(7), cell), parity, 4e-3, 200)
            for cell in (RNN, TimelessRNN)}
far_parity = {name: accuracy(run.model, *parity.far()) for name, run in rnn_runs.items()}
print(table(["parity", *range(EVERY, 201, EVERY), "tosses 1-80"],
            [[name, *(f"{point:.2f}" for point in run.curve), far_parity[name]] for name, run in rnn_runs.items()]))
assert min(far_parity.values()) > 0.95, "both solve it, far beyond the trained length"

# %% [markdown]
# It does not only train: it *solves the task*, four times beyond the trained length. Parity has a label at each step,
# and so one step of gradient is enough. On a task with one label at the end it would learn nothing, and you would
# blame recurrent networks. The check says it at once:

# %%
x = np.random.default_rng(8).standard_normal((2, 4, 3))                         # [B, T, D_in]
for cell in (RNN, TimelessRNN):
    right = RNN.create(3, 5, rng=np.random.default_rng(9), dtype=np.float64)
    layer = cell(right.weight_x, right.weight_h, right.bias)
    report = check_layer(layer, [x])
    print(f"{cell.__name__}:", "ok" if report.ok else "FAILED", f" largest relative error {report.worst:.0e}")
    assert report.ok == (cell is RNN)

# %% [markdown]
# **A task with a short cut.** Suppose whoever wrote the generator forgot to shuffle the questions: they come in the
# order of the pairs.

# %%
@dataclass(frozen=True)
class UnshuffledRecall(AssociativeRecall):
    """WRONG: the first question is always about the first pair, and so on."""

    def examples(self, count, rng):
        tokens, targets = super().examples(count, rng)                          # [B, T] each
        tokens[:, 2 * self.pairs:] = tokens[:, 0:2 * self.pairs:2]
        targets[:, 2 * self.pairs:] = tokens[:, 1:2 * self.pairs:2]
        return tokens, targets


unshuffled = UnshuffledRecall(pairs=PAIRS, keys=8, values=8, batch=32)
short_cut = train(create_transformer(unshuffled, np.random.default_rng(7)), unshuffled, 1e-3, 150)
honest = accuracy(short_cut.model, *recall.test())
print("Transformer on the unshuffled task, steps 50, 100, 150:", [round(point, 2) for point in short_cut.curve])
print(f"the same model on the real task: {honest:.2f}")
assert short_cut.curve[-1] > 0.99 > runs["recall", "Transformer", 1e-3].curve[2]
assert abs(honest - 1 / PAIRS) < 0.1

# %% [markdown]
# A beautiful curve, and much sooner than before. It has learned to look five, four and three places back, and has
# never looked at a key. On the real task it guesses. What catches this? Not the gradient check, for every gradient is
# right. A *trivial rule* that should fail does not:

# %%
def by_place(tokens):
    """A rule without keys: question i gets the value of pair i.   tokens: [B, T].   Returns answers: [B, T]."""
    answers = np.full_like(tokens, -1)
    answers[:, 2 * PAIRS:] = tokens[:, 1:2 * PAIRS:2]
    return answers


for task in (recall, unshuffled):
    tokens, targets = task.test()                                               # [B, T] each
    share = float((by_place(tokens) == targets)[targets >= 0].mean())
    print(f"{type(task).__name__:<17} a rule without keys scores {share:.2f}")
    assert abs(share - (1 / PAIRS if task is recall else 1.0)) < 0.03

# %% [markdown]
# **One learning rate for all**, and **"cannot" for "not yet"**: you have met these two in section 3.6. None of the
# four gives an error message. All of them give a table.
#
# ## 3.9 Exercises
#
# Replace the line that raises, run the cell, and read the verdict. Solutions are in
# `tutorials/solutions/03_head_to_head.py`.
#
# ### Exercise 1: a light switch from one neuron
#
# Three tokens: *on*, *off*, *leave it*, as one-hot rows `[1, 0, 0]`, `[0, 1, 0]`, `[0, 0, 1]`. Write down the weights
# of an RNN with a single neuron that is above 0 while the light is on and below 0 while it is off. `h_t = tanh(x_t
# W_x + h_{t-1} W_h + b)`, and h starts at 0. At the start the light is off, before anyone has touched it. And nobody
# may touch it for a long time.

# %%
def light_switch():
    """Returns weight_x [3, 1], weight_h [1, 1], bias [1]."""
    raise NotImplementedError


def grade_light_switch(answer):
    weights = answer()
    require(isinstance(weights, tuple) and len(weights) == 3, "return three arrays: weight_x, weight_h, bias.")
    weights = [np.asarray(weight, float) for weight in weights]
    for name, weight, shape in zip(("weight_x", "weight_h", "bias"), weights, ((3, 1), (1, 1), (1,)), strict=True):
        require(weight.shape == shape, f"{name} has shape {list(weight.shape)}, expected {list(shape)}.")

    def lights(touches):
        x = np.eye(3)[touches]                                                  # [B, T, 3]
        (h, _), _ = rnn_forward(x, *weights)                                    # [B, T, 1]
        return h[..., 0]                                                        # [B, T]

    ON, OFF, LEAVE = 0, 1, 2
    require(lights([[ON]])[0, -1] > 0, "a touch of on must light it.")
    require(lights([[ON, OFF]])[0, -1] < 0, "on, then off: it must be dark. Is a touch stronger than the memory?")
    require(lights([[OFF, ON]])[0, -1] > 0, "off, then on: it must be lit. Is a touch stronger than the memory?")
    require(lights([[LEAVE] * 50])[0].max() < 0, "nobody has touched it yet: it must be dark from the first step. What can tell "
                                                 "h = 0 from the lit state?")
    require(lights([[ON] + [LEAVE] * 999])[0].min() > 0, "it was lit, and went out by itself. tanh(w h) remembers only if w is "
                                                         "large enough: try tanh(w h) = h on paper, for w = 0.5 and w = 2.")
    require(lights([[OFF] + [LEAVE] * 999])[0].max() < 0, "it was dark, and lit by itself.")
    touches = np.random.default_rng(10).integers(0, 3, (50, 200))               # [B, T]
    lit = np.zeros(50, bool)                                                    # [B]
    h = lights(touches)                                                         # [B, T]
    for t in range(200):
        lit = np.where(touches[:, t] == LEAVE, lit, touches[:, t] == ON)        # [B]
        require(np.array_equal(h[:, t] > 0, lit), "after a random row of touches it is wrong.")
    return "five numbers that remember for ever. The gates of an LSTM are made of this."


print(grade(grade_light_switch, light_switch))

# %% [markdown]
# ### Exercise 2: a head that looks one place back
#
# Write queries and keys with which `attention_forward(q, k, v, causal_mask(T), scale=1.0)` gives at least 0.99 of
# each position's weight to the place before it. Position 0 has none; what it does is its own affair. E is yours to
# choose.

# %%
def previous_place(num_positions):
    """Returns q [T, E] and k [T, E], T = num_positions."""
    raise NotImplementedError


def grade_previous_place(answer):
    for T in (5, 2, 40):
        pair = answer(T)
        require(isinstance(pair, tuple) and len(pair) == 2, "return two arrays: q, k.")
        q, k = (np.asarray(part, float) for part in pair)
        require(q.ndim == 2 and q.shape == k.shape and len(q) == T, f"for {T} positions q and k must be [{T}, E]; yours are "
                                                                    f"{list(q.shape)} and {list(k.shape)}.")
        _, cache = attention_forward(q, k, np.zeros((T, 1)), causal_mask(T), scale=1.0)
        on_previous = cache.weights[np.arange(1, T), np.arange(T - 1)]          # [T - 1]
        on_itself = cache.weights[np.arange(1, T), np.arange(1, T)]             # [T - 1]
        require(on_itself.max() < 0.51, f"with {T} positions, a position looks at itself. Shift one of the two: the query of "
                                       "position t should match the key of position t - 1.")
        require(on_previous.min() >= 0.99, f"with {T} positions, the place before gets a weight of {on_previous.min():.2f} "
                                           "somewhere. Does it match best there? And is the match sharp enough?")
    return "you have built the first half of an induction head."


print(grade(grade_previous_place, previous_place))

# %% [markdown]
# ### Exercise 3: report fairly
#
# You have trained an arm with R learning rates and N seeds each. Choose the rate and report the score, so that a
# reader who repeats your experiment gets what you promise: the mean over seeds and the spread (the standard deviation
# with N - 1), on test data, at the rate that is best on *validation* data, in the mean over seeds.

# %%
def report_score(validation, test):
    """validation, test: [R, N], scores, higher is better.   Returns (index of the rate, mean, spread)."""
    raise NotImplementedError


def grade_report_score(answer):
    rng = np.random.default_rng(11)
    # rate 0 is lucky with one seed; rate 1 is steady, and best in the mean on validation data; rate 2 is best on test data
    validation = np.array([[0.99, 0.20, 0.25, 0.22], [0.80, 0.78, 0.82, 0.81], [0.79, 0.76, 0.80, 0.80]])    # [R, N]
    test = np.array([[0.98, 0.21, 0.24, 0.23], [0.70, 0.79, 0.80, 0.76], [0.80, 0.82, 0.83, 0.79]])          # [R, N]
    for shuffle in (np.arange(3), rng.permutation(3)):
        chosen, mean, spread = answer(validation[shuffle].copy(), test[shuffle].copy())
        expected = int(np.flatnonzero(shuffle == 1)[0])
        chosen_rate = int(shuffle[chosen])
        require(chosen_rate != 0, "you chose a rate that was lucky with one seed, and fails with the others.")
        require(chosen_rate != 2, "you chose the rate on test data. Then the test has been used for training.")
        require(not math.isclose(mean, test[1].max()), "that is the best of several seeds. The reader will have one "
                                                       "seed, and not your luck.")
        require(not math.isclose(mean, validation[1].mean()), "that is the validation score, and the rate was chosen to make it "
                                                              "high. Report the test score.")
        require(chosen == expected and math.isclose(mean, test[1].mean()), f"the mean of the chosen rate on test data is "
                                                                           f"{test[1].mean():.4f}; yours is {mean:.4f}.")
        require(not math.isclose(spread, test[1].std()), "divide by N - 1: the mean was taken from the same few numbers.")
        expected_spread = test[1].std(ddof=1)
        require(math.isclose(spread, expected_spread), f"the spread should be {expected_spread:.4f}, yours is {spread:.4f}.")
    return "now your table can be believed."


print(grade(grade_report_score, report_score))

# %% [markdown]
# ## 3.10 When not to use which, and when not to use this
#
# | you have                                       | take first            | because                                  |
# |------------------------------------------------|-----------------------|------------------------------------------|
# | things to find again by content, at a distance | Transformer           | one step from anywhere to anywhere (3.3) |
# | much data, many cores                          | Transformer           | all positions at once (3.4)              |
# | a small state, updated for ever                | recurrent             | eight numbers did it, at length 10,000   |
# | a stream, little memory, a token at a time     | recurrent             | the state does not grow                  |
# | sequences far longer than those trained on     | recurrent; or measure | a coin toss beyond the trained length    |
# | patterns of near neighbours                    | convolution           | it looks there, and nowhere else         |
#
# Do **not** decide by this lesson alone. It has one seed, two toy tasks, two learning rates and models of 26,000
# parameters. It shows *why* each wins something; it does not show how much that matters for your data. `baselines-np
# compare` trains six architectures with several seeds and a grid of rates. Better still, put your own data in.

# %%
assert round(count_parameters(create_transformer(recall, np.random.default_rng(0))), -3) == 26_000
assert round(max(far["Transformer"][1:]), 1) == 0.5
