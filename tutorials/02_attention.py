# %% [markdown]
# # 2. Attention: who looks where, and how it learns to
#
# A sequence of vectors comes in. Each of them may need something from another one: a verb its subject, a bracket its
# partner. Attention lets each position ask a question, compare it with what every position offers, and take a mean of
# the answers. It is one equation (Vaswani et al. 2017, section 3.2.1), and this lesson walks through it in both
# directions.
#
# You need tutorial 1. Run it from top to bottom (`python tutorials/02_attention.py`), step through it in a debugger,
# or open it as a notebook. It takes five to ten seconds, nearly all of them for training the gallery of wrong
# versions.
#
# Letters: B sequences in a batch, T positions that ask (queries), S positions that answer (keys and values), D
# numbers for each position, H heads, E = D / H numbers for each position in one head.
#
# Text and exercises: CC BY 4.0. Code: MIT.

# %%
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from classroom import grade, heat_map, require, table  # a small file beside this one: grades answers, prints pictures

from transformer_np import (
    Embedding,
    Layer,
    LearnedPositions,
    Linear,
    MultiHeadAttention,
    attention_backward,
    attention_forward,
    causal_mask,
    cross_entropy_backward,
    cross_entropy_forward,
    named_arrays,
    softmax_backward,
    softmax_forward,
)
from transformer_np.gradcheck import check_gradients, check_layer
from transformer_np.training.optimizers import AdamW

# %% [markdown]
# ## 2.1 By hand
#
# One query, three keys, three values. The numbers are chosen so that a pencil is enough.
#
#     q   = [0, 2 log 2, 2 log 3, 0]            [E], E = 4: what is asked
#     k_1 = [1, 0, 0, 0]     v_1 = [6, 0]       what each position can be found by, and what it answers
#     k_2 = [0, 1, 0, 0]     v_2 = [0, 6]
#     k_3 = [0, 0, 1, 0]     v_3 = [6, 6]
#
# How well does each key match the query? Multiply and add: `q . k_s`. Divide by sqrt(E) = 2; section 2.3 says why.
#
#     scores  = [0, log 2, log 3]
#     weights = softmax(scores) = [1/6, 2/6, 3/6]            the same as in tutorial 1
#     y       = 1/6 v_1 + 2/6 v_2 + 3/6 v_3 = [1 + 0 + 3, 0 + 2 + 3] = [4, 5]

# %%
q = np.array([[0.0, 2 * math.log(2), 2 * math.log(3), 0.0]])                    # [T, E] = [1, 4]
k = np.array([[1.0, 0.0, 0.0, 0.0],
              [0.0, 1.0, 0.0, 0.0],
              [0.0, 0.0, 1.0, 0.0]])                                            # [S, E] = [3, 4]
v = np.array([[6.0, 0.0],
              [0.0, 6.0],
              [6.0, 6.0]])                                                      # [S, E_v] = [3, 2]
scores = q @ k.T / math.sqrt(4)                                                 # [T, S]
weights, _ = softmax_forward(scores)                                            # [T, S]
y = weights @ v                                                                 # [T, E_v]
print("scores ", scores.round(3))
print("weights", weights.round(3))
print("y      ", y.round(3))
assert np.allclose(weights, [[1 / 6, 2 / 6, 3 / 6]])
assert np.allclose(y, [[4, 5]])

# %% [markdown]
# Now the way back. Say the loss is the first number of y, so `d_y = [1, 0]`.
#
#     y = weights v             a weight of s brings v_s in:   d_weights_s = d_y . v_s = [6, 0, 6]
#     weights = softmax(scores) row = 1/6 * 6 + 2/6 * 0 + 3/6 * 6 = 4
#                               d_scores = [1/6 (6 - 4), 2/6 (0 - 4), 3/6 (6 - 4)] = [1/3, -4/3, 1]
#     scores = q k^T / 2        d_q = (1/3 k_1 - 4/3 k_2 + 1 k_3) / 2 = [1/6, -2/3, 1/2, 0]
#
# Read d_scores. The mean answer is 4 (the first number of y). Keys 1 and 3 answer 6, more than the mean: to raise the
# loss, look there more. Key 2 answers 0: look there less. *That is all the learning in attention: look more where the
# answer beats the mean.*

# %%
y, cache = attention_forward(q, k, v)                                           # [T, E_v]
d_y = np.array([[1.0, 0.0]])                                                    # [T, E_v]
d_q, d_k, d_v = attention_backward(d_y, cache)                                  # [T, E], [S, E], [S, E_v]
print("d_q", d_q.round(3))
print("d_v, first column:", d_v[:, 0].round(3))
assert np.allclose(y, [[4, 5]]), "the library agrees with the pencil"
assert np.allclose(d_q, [[1 / 6, -2 / 3, 1 / 2, 0]])
assert np.allclose(d_v[:, 0], [1 / 6, 2 / 6, 3 / 6]), "a value gets the gradient back by the weight with which it went in"

# %% [markdown]
# ## 2.2 The derivation
#
# Many queries at once: put them in the rows of a matrix. Three products and one softmax.
#
#     scores  = scale q k^T             [T, E] @ [E, S] -> [T, S]        row t: query t against every key
#     weights = softmax(scores)         [T, S]                           each row sums to 1
#     y       = weights v               [T, S] @ [S, E_v] -> [T, E_v]    row t: the mean that query t takes
#
# Backward, last line first. One rule does three of the four steps. For `c = a @ b`:
#
#     d_a = d_c @ b^T          d_b = a^T @ d_c
#
# There is no need to learn it: the shapes leave no other choice. `d_a` must have the shape of `a`. With `y = weights
# v`:
#
#     d_weights = d_y v^T               [T, E_v] @ [E_v, S] -> [T, S]
#     d_v       = weights^T d_y         [S, T] @ [T, E_v] -> [S, E_v]    a value serves many queries: their gradients add
#
# Softmax is tutorial 1, row by row:
#
#     d_scores  = weights * (d_weights - rowsum(d_weights * weights))    [T, S]
#
# And `scores = scale q k^T`:
#
#     d_q       = scale d_scores k      [T, S] @ [S, E] -> [T, E]
#     d_k       = scale d_scores^T q    [S, T] @ [T, E] -> [S, E]
#
# The scale stands in both, since both q and k are multiplied by it on the way to a score.
#
# Here is the code that the library runs. Each step of backward quotes the line of forward that it undoes. To see it
# move, set a breakpoint in `attention_forward` and run this file in a debugger: the whole equation is one frame.

# %%
print(inspect.getsource(attention_forward))
print(inspect.getsource(attention_backward))

# %% [markdown]
# ## 2.3 Why divide by sqrt(E)?
#
# A score is a sum of E products. If the numbers in q and k are random and of size 1, each product is of size 1, and a
# sum of E of them is of size sqrt(E). Wide heads then have large scores, softmax of large scores is nearly all or
# nothing, and its gradient, `y (d_y - row)`, is nearly nothing: a network that has decided before it has learned, and
# cannot change its mind. (Vaswani et al. 2017, section 3.2.1, the paragraph below equation 1.)
#
# Measure it. 1000 random queries, 10 keys each.

# %%
rng = np.random.default_rng(0)
rows = []
measured = {}
for E in (4, 64, 1024):
    queries = rng.standard_normal((1000, 1, E))                                 # [B, 1, E]
    keys = rng.standard_normal((1000, 10, E))                                   # [B, S, E]
    raw = queries @ keys.swapaxes(-1, -2)                                       # [B, 1, S]
    for name, scale in (("raw", 1.0), ("scaled", 1 / math.sqrt(E))):
        w, w_cache = softmax_forward(scale * raw)                               # [B, 1, S]
        d_w = rng.standard_normal(w.shape)                                      # [B, 1, S]
        gradient = np.abs(softmax_backward(d_w, w_cache)).mean()
        measured[E, name] = (scale * raw).std(), w.max(axis=-1).mean(), gradient
        rows.append([f"E = {E}, {name}", *(float(figure) for figure in measured[E, name])])
print(table(["", "spread of scores", "largest weight, mean", "gradient, mean size"], rows))
for E in (4, 64, 1024):
    assert abs(measured[E, "raw"][0] / math.sqrt(E) - 1) < 0.05, "the spread grows with the root of E"
    assert abs(measured[E, "scaled"][0] - 1) < 0.05, "scaled, it stays at 1"
assert measured[1024, "raw"][1] > 0.95, "unscaled and wide: all or nothing"
assert measured[1024, "raw"][2] < measured[1024, "scaled"][2] / 5, "and the gradient is nearly gone"

# %% [markdown]
# ## 2.4 Masks: what a query may not see
#
# A language model predicts the next token. While it learns, the next token is there, in the input. A query must not
# see it. The mask is boolean, and **True means: may attend**. Say that sentence aloud whenever you use another
# library; half of them mean the opposite.

# %%
T = 5
mask = causal_mask(T)                                                           # [T, T]
print(mask.astype(int))
x = np.random.default_rng(1).standard_normal((T, 4))                            # [T, E]
_, cache = attention_forward(x, x, x, mask)
names = [f"position {t}" for t in range(T)]
print(heat_map(cache.weights, names, [f"{t}" for t in range(T)]))
assert np.array_equal(cache.weights[~mask], np.zeros(10)), "what is masked has weight 0, exactly"
assert np.allclose(cache.weights.sum(axis=-1), 1)

# %% [markdown]
# Changing the future must not change the past. That is a theorem about the code, and a theorem can be a test.
# Remember it. It will catch the most tempting of the wrong versions below.

# %%
changed = x.copy()
changed[3] += 100.0                                                             # position 3 becomes something else
before, _ = attention_forward(x, x, x, mask)                                    # [T, E]
after, _ = attention_forward(changed, changed, changed, mask)                   # [T, E]
moved = np.abs(after - before).max(axis=-1) > 1e-12                             # [T]
print("moved:", dict(zip(names, moved.tolist(), strict=True)))
assert moved.tolist() == [False, False, False, True, True]

# %% [markdown]
# ## 2.5 Heads: why a transpose and not a reshape
#
# One attention takes one mean. A word may need two things from two places. So the D columns are cut into H groups of
# E, and each group attends on its own (section 3.2.2 of the paper). Cutting is where code goes wrong, because two
# ways of cutting give the same shape.
#
# Take T = 3 positions and D = 4 columns, H = 2 heads of E = 2. Number tn is column n of position t.

# %%
numbers = np.array([[10 * t + n for n in range(4)] for t in range(3)])          # [T, D]
print("x, [T, D]:\n", numbers)


def split_heads(x, num_heads):
    """[B, T, D] -> [B, H, T, E]: cut each row into H pieces, then bring the heads to the front."""
    B, T, D = x.shape
    pieces = x.reshape(B, T, num_heads, D // num_heads)                         # [B, T, H, E]
    return pieces.swapaxes(1, 2)                                                # [B, H, T, E]


def merge_heads(x):
    """[B, H, T, E] -> [B, T, D]: the way back."""
    B, H, T, E = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * E)                                # [B, T, D]


def split_by_reshape(x, num_heads):
    """WRONG. The same shape, [B, H, T, E], but other numbers in it."""
    B, T, D = x.shape
    return x.reshape(B, num_heads, T, D // num_heads)                           # [B, H, T, E]


def merge_by_reshape(x):
    """WRONG, and the exact inverse of `split_by_reshape`: together they look innocent."""
    B, H, T, E = x.shape
    return x.reshape(B, T, H * E)                                               # [B, T, D]


right = split_heads(numbers[None], 2)[0]                                        # [H, T, E]
wrong = split_by_reshape(numbers[None], 2)[0]                                   # [H, T, E]
print("\nhead 0 by reshape and transpose: columns 0 and 1 of every position\n", right[0])
print("head 0 by reshape alone: position 0, and half of position 1, pretending to be three positions\n", wrong[0])
assert right.shape == wrong.shape == (2, 3, 2)
assert np.array_equal(right[0], numbers[:, :2])
assert np.array_equal(wrong[0], [[0, 1], [2, 3], [10, 11]])

# %% [markdown]
# A reshape never moves a number in memory: it reads the same row of numbers and breaks it at other places. The
# numbers lie position by position, so `[H, T, E]` by reshape gives the first *positions* to the first head. We want
# the first *columns* of every position. That is an exchange of two axes, and only a transpose exchanges axes.
#
# The library's layer does it right, and hands out the weights of every head:

# %%
layer = MultiHeadAttention.create(8, 2, rng=np.random.default_rng(2), dtype=np.float64)
x = np.random.default_rng(3).standard_normal((1, T, 8))                         # [B, T, D]
y, cache = layer.forward(x, x, mask)                                            # [B, T, D]
for head in range(2):
    print(f"head {head}")
    print(heat_map(cache.weights[0, head], names, [f"{t}" for t in range(T)]))
assert y.shape == (1, T, 8)
assert cache.weights.shape == (1, 2, T, T)                                      # [B, H, T, S]

# %% [markdown]
# ## 2.6 The check
#
# `check_gradients` compares backward with the complex step of forward (tutorial 1, section 1.4). Three things make it
# a hard test:
#
# * Sizes that are all different: T = 3, S = 4, E = 5, E_v = 2. With one key, softmax gives 1 whatever the score, and
#   the true d_q and d_k are zero: a backward that returns zeros would pass.
# * A mask with an empty row: a query that may see nothing.
# * Dropout switched on. The same random numbers must be drawn in each call, so forward makes its own generator.

# %%
rng = np.random.default_rng(4)
q = rng.standard_normal((2, 3, 5))                                              # [B, T, E]
k = rng.standard_normal((2, 4, 5))                                              # [B, S, E]
v = rng.standard_normal((2, 4, 2))                                              # [B, S, E_v]
mask = np.array([[True, True, False, True],
                 [False, False, False, False],
                 [True, False, False, True]])                                   # [T, S]


def masked_with_dropout(q, k, v):
    return attention_forward(q, k, v, mask, dropout=0.3, rng=np.random.default_rng(5))


report = check_gradients(masked_with_dropout, attention_backward, [q, k, v])
print(report)
report.raise_if_failed()

# %% [markdown]
# The layer, with its eight arrays of weights and biases, in one call. One of them is worth a look: `key.bias`. Its
# gradient is not small, it is *zero*. Adding the same vector b to every key adds `q . b` to every score of a query,
# and softmax does not notice a common shift.

# %%
report = check_layer(layer, [x, x])
report.raise_if_failed()
assert len(named_arrays(layer)) == 8
y, cache = layer.forward(x, x)
_, _, d_layer = layer.backward(rng.standard_normal(y.shape), cache)
print(str(report).splitlines()[0])
print("size of the gradient: key.bias", f"{np.abs(d_layer.key.bias).max():.0e}",
      "  query.bias", f"{np.abs(d_layer.query.bias).max():.2f}")
assert np.abs(d_layer.key.bias).max() < 1e-14 < 1e-3 < np.abs(d_layer.query.bias).max()

# %% [markdown]
# ## 2.7 A gallery of wrong versions that still train
#
# A task that needs attention: three random letters, repeated. `c a f c a f c a f ...` The next letter is the one that
# came two places before the current one. The first letter is given, the second and the third cannot be known: of the
# 9 predictions, 2 are pure guessing, among 6 letters. The best possible loss is
#
#     2 / 9 * log 6
#
# nats per letter. Nothing that plays by the rules can go below it.

# %%
VOCABULARY, LENGTH, D, H = 6, 9, 16, 2
FLOOR = 2 / 9 * math.log(VOCABULARY)
print(f"the floor: {FLOOR:.3f}")


def draw_letters(batch, rng):
    """Returns tokens [B, T] and the letters that follow them, [B, T]."""
    pattern = rng.integers(0, VOCABULARY, (batch, 3))                           # [B, 3]
    letters = np.tile(pattern, (1, 4))[:, :LENGTH + 1]                          # [B, T + 1]
    return letters[:, :-1], letters[:, 1:]


tokens, targets = draw_letters(1, np.random.default_rng(0))                     # [B, T] each, B = 1
print("tokens ", tokens[0])
print("targets", targets[0])
assert np.array_equal(targets[0, 2:], tokens[0, :-2]), "from the third on, the target is the token two places back"

# %% [markdown]
# What can go wrong lies between the projections: the split, the mask, the attention, the merge. So that each of them
# can be swapped for a wrong one, here they are as parts of a `Version`. With the right parts, it is what
# `MultiHeadAttention` does.

# %%
@dataclass(frozen=True)
class Version:
    """Multi-head attention between the projections. q, k, v: [B, T, D]; out comes [B, T, D]."""

    attend: Callable = attention_forward
    attend_backward: Callable = attention_backward
    split: Callable = split_heads
    merge: Callable = merge_heads
    may_attend: Callable = causal_mask
    dropout: float = 0.0

    def forward(self, q, k, v, rng=None):
        q, k, v = (self.split(part, H) for part in (q, k, v))                   # [B, H, T, E]
        mask = self.may_attend(q.shape[2])                                      # [T, T]
        y, cache = self.attend(q, k, v, mask, dropout=self.dropout, rng=rng)    # [B, H, T, E]
        return self.merge(y), cache                                             # [B, T, D]

    def backward(self, d_y, cache):
        # the way back of a split is a merge, and of a merge a split
        d_q, d_k, d_v = self.attend_backward(self.split(d_y, H), cache)         # [B, H, T, E]
        return self.merge(d_q), self.merge(d_k), self.merge(d_v)                # [B, T, D]


@dataclass(repr=False, eq=False)
class LetterModel(Layer):
    """Letters in, scores for the next letter out: embedding, one attention beside a residual connection, a readout."""

    embedding: Embedding                                                        # [V, D]
    positions: LearnedPositions                                                 # [T, D]
    query: Linear
    key: Linear
    value: Linear
    output: Linear                                                              # [D, D], all four
    readout: Linear                                                             # [D, V]

    @classmethod
    def create(cls, rng):
        projections = [Linear.create(D, D, rng=rng, dtype=np.float64) for _ in range(4)]
        return cls(Embedding.create(VOCABULARY, D, rng=rng, std=1.0, dtype=np.float64),
                   LearnedPositions.create(LENGTH, D, rng=rng, std=1.0, dtype=np.float64),
                   *projections, Linear.create(D, VOCABULARY, rng=rng, dtype=np.float64))

    def forward(self, tokens, version, rng=None):
        embedded, embedding = self.embedding.forward(tokens)                    # [B, T, D]
        x, positions = self.positions.forward(embedded)                         # [B, T, D]
        q, query = self.query.forward(x)                                        # [B, T, D]
        k, key = self.key.forward(x)                                            # [B, T, D]
        v, value = self.value.forward(x)                                        # [B, T, D]
        mean, attention = version.forward(q, k, v, rng)                         # [B, T, D]
        taken, output = self.output.forward(mean)                               # [B, T, D]
        logits, readout = self.readout.forward(x + taken)                       # [B, T, V]
        return logits, (embedding, positions, query, key, value, attention, output, readout)

    def backward(self, d_logits, cache, version):
        embedding, positions, query, key, value, attention, output, readout = cache
        d_sum, d_readout = self.readout.backward(d_logits, readout)             # [B, T, D]
        d_mean, d_output = self.output.backward(d_sum, output)                  # [B, T, D]
        d_q, d_k, d_v = version.backward(d_mean, attention)                     # [B, T, D]
        by_query, d_query = self.query.backward(d_q, query)                     # [B, T, D]
        by_key, d_key = self.key.backward(d_k, key)                             # [B, T, D]
        by_value, d_value = self.value.backward(d_v, value)                     # [B, T, D]
        # x is used four times: for the query, the key, the value, and by the residual connection
        d_x = by_query + by_key + by_value + d_sum                              # [B, T, D]
        d_embedded, d_positions = self.positions.backward(d_x, positions)       # [B, T, D]
        d_embedding = self.embedding.backward(d_embedded, embedding)
        return LetterModel(d_embedding, d_positions, d_query, d_key, d_value, d_output, d_readout)


model = LetterModel.create(np.random.default_rng(6))
x = np.random.default_rng(7).standard_normal((2, LENGTH, D))                    # [B, T, D]
same = MultiHeadAttention(model.query, model.key, model.value, model.output, H)
ours, _ = Version().forward(model.query.forward(x)[0], model.key.forward(x)[0], model.value.forward(x)[0])
assert np.allclose(model.output.forward(ours)[0], same.forward(x, x, causal_mask(LENGTH))[0], atol=1e-12)

# %% [markdown]
# Now the wrong parts. The first four have a wrong *backward*.

# %%
def backward_without_row_term(d_y, cache):
    """Softmax without the row term, as in tutorial 1."""
    d_weights = d_y @ cache.v.swapaxes(-1, -2)                                  # [B, H, T, S]
    d_scores = cache.weights * d_weights                                        # [B, H, T, S]
    d_q = cache.scale * d_scores @ cache.k                                      # [B, H, T, E]
    d_k = cache.scale * d_scores.swapaxes(-1, -2) @ cache.q                     # [B, H, S, E]
    return d_q, d_k, attention_backward(d_y, cache)[2]


def backward_without_scale(d_y, cache):
    """The scale is in forward, and forgotten on the way back."""
    d_q, d_k, d_v = attention_backward(d_y, cache)
    return d_q / cache.scale, d_k / cache.scale, d_v


def backward_without_keys(d_y, cache):
    """The keys get no gradient at all: a forgotten line."""
    d_q, d_k, d_v = attention_backward(d_y, cache)
    return d_q, np.zeros_like(d_k), d_v


def backward_before_dropout(d_y, cache):
    """d_v from the weights as they were before dropout. Forward used those after it."""
    d_q, d_k, _ = attention_backward(d_y, cache)
    return d_q, d_k, cache.weights.swapaxes(-1, -2) @ d_y                       # [B, H, S, E_v]


# %% [markdown]
# The last three have a wrong *forward*, and a backward that is its perfect derivative.

# %%
def scaled_by_model_width(q, k, v, mask, **dropout):
    """1 / sqrt(D), where the paper has 1 / sqrt(E), E = D / H."""
    return attention_forward(q, k, v, mask, scale=1 / math.sqrt(D), **dropout)


def reversed_polarity(num_queries):
    """A mask from a library in which True means: may NOT attend."""
    return ~causal_mask(num_queries)


GALLERY = {
    "right":                     Version(),
    "no row term":               Version(attend_backward=backward_without_row_term),
    "no scale in backward":      Version(attend_backward=backward_without_scale),
    "no gradient for the keys":  Version(attend_backward=backward_without_keys),
    "right, with dropout":       Version(dropout=0.2),
    "weights before dropout":    Version(attend_backward=backward_before_dropout, dropout=0.2),
    "scaled by the model width": Version(attend=scaled_by_model_width),
    "heads by reshape alone":    Version(split=split_by_reshape, merge=merge_by_reshape),
    "mask polarity reversed":    Version(may_attend=reversed_polarity),
}

# %% [markdown]
# Train them all: the same start, the same letters. The loss is measured on fresh letters, without dropout.

# %%
def train(version, steps, every):
    """Returns the trained model, and the loss on fresh letters at each `every` steps."""
    model = LetterModel.create(np.random.default_rng(8))
    optimizer = AdamW()
    state = optimizer.create_state(model)
    letters, drops = np.random.default_rng(9), np.random.default_rng(10)
    fresh, fresh_targets = draw_letters(512, np.random.default_rng(11))         # [B, T]
    losses = []
    for step in range(steps + 1):
        if step % every == 0:
            (loss, _), _ = cross_entropy_forward(model.forward(fresh, version)[0], fresh_targets)
            losses.append(float(loss))
        tokens, targets = draw_letters(32, letters)                             # [B, T]
        logits, cache = model.forward(tokens, version, drops)                   # [B, T, V]
        _, loss_cache = cross_entropy_forward(logits, targets)
        d_model = model.backward(cross_entropy_backward(1.0, loss_cache), cache, version)
        model, state = optimizer.step(model, d_model, state, learning_rate=5e-3)
    return model, losses


STEPS, EVERY = 250, 50
trained = {name: train(version, STEPS, EVERY) for name, version in GALLERY.items()}
print(table(["version", *(f"step {step}" for step in range(0, STEPS + 1, EVERY))],
            [[name, *losses] for name, (_, losses) in trained.items()]))
print(f"guessing every letter: {math.log(VOCABULARY):.3f}    the floor: {FLOOR:.3f}")
for name, (_, losses) in trained.items():
    assert losses[-1] < 0.6 * losses[0] and losses[-1] < 0.85 * math.log(VOCABULARY), f"{name} trains"

# %% [markdown]
# Read the column on the right as if you did not know. The version without gradient for its keys ends beside the right
# one. So does the one scaled by the model width, and dropout with the wrong weights beside dropout with the right
# ones. Two rows stand out. Without the row term, the loss halves and then creeps up: who would not try a smaller
# learning rate first? And the reversed mask stands out by being *best*. It lets each query see the future and nothing
# else, so the answer is on the table. It went below the floor, and no honest model can. **Too good is a symptom.**

# %%
last = {name: losses[-1] for name, (_, losses) in trained.items()}
assert last["no row term"] > trained["no row term"][1][2], "it creeps up"
assert abs(last["no gradient for the keys"] - last["right"]) < 0.05
assert abs(last["scaled by the model width"] - last["right"]) < 0.05
assert abs(last["weights before dropout"] - last["right, with dropout"]) < 0.05
assert last["mask polarity reversed"] < FLOOR < min(loss for name, loss in last.items() if name != "mask polarity reversed")

# %% [markdown]
# ### How each is caught
#
# Three tests, and none of them trains anything.
#
# 1. *Is backward the derivative of forward?* The complex step.
# 2. *Is forward attention?* A second opinion: loops over single numbers, written from the equation, slow and hard to
#   get wrong.
# 3. *Is the past safe from the future?* The theorem of section 2.4.

# %%
def attention_by_loops(q, k, v):
    """Causal multi-head attention, from the equation: one query of one head of one sequence at a time. [B, T, D] -> [B, T, D]."""
    B, T, D = q.shape
    E = D // H
    y = np.zeros_like(q)                                                        # [B, T, D]
    for b in range(B):
        for h in range(H):
            columns = slice(h * E, (h + 1) * E)
            for t in range(T):
                scores = [q[b, t, columns] @ k[b, s, columns] / math.sqrt(E) for s in range(t + 1)]
                total = sum(math.exp(score) for score in scores)
                for s, score in enumerate(scores):
                    y[b, t, columns] += math.exp(score) / total * v[b, s, columns]
    return y


rng = np.random.default_rng(12)
q, k, v = rng.standard_normal((3, 2, 5, D))                                     # [B, T, D] each, B = 2, T = 5


def backward_is_the_derivative(version):
    def forward(q, k, v):
        return version.forward(q, k, v, np.random.default_rng(13))              # the same dropout in each call

    # a short sequence keeps the complex step quick
    return check_gradients(forward, version.backward, [q[:, :3], k[:, :3], v[:, :3]])


def forward_is_attention(version):
    return np.allclose(version.forward(q, k, v)[0], attention_by_loops(q, k, v), atol=1e-12)


def past_is_safe(version):
    for t in range(5):
        changed = [part.copy() for part in (q, k, v)]                           # [B, T, D] each
        for part in changed:
            part[:, t] += 1.0
        before, after = version.forward(q, k, v)[0], version.forward(*changed)[0]   # [B, T, D]
        if np.abs(after - before)[:, :t].max(initial=0) > 1e-12:
            return False
    return True


verdicts = {}
for name, version in GALLERY.items():
    report = backward_is_the_derivative(version)
    verdicts[name] = report.ok, forward_is_attention(version), past_is_safe(version)
print(table(["version", "final loss", "derivative?", "attention?", "past safe?"],
            [[name, last[name], *("ok" if ok else "FAIL" for ok in row)] for name, row in verdicts.items()]))

assert verdicts["right"] == verdicts["right, with dropout"] == (True, True, True)
for name in ("no row term", "no scale in backward", "no gradient for the keys", "weights before dropout"):
    assert verdicts[name] == (False, True, True), name
assert verdicts["scaled by the model width"] == (True, False, True)
assert verdicts["heads by reshape alone"] == (True, False, True)
assert verdicts["mask polarity reversed"] == (True, False, False)

# %% [markdown]
# Each wrong version fails at least one test, and no single test catches them all. The two in the middle pass two of
# three: their numbers are those of *some* function, with its right derivative, that is safe and trains. It is just
# not attention. Only the second opinion knows. That is how such versions got into published code, and stayed.
#
# What a failure looks like:

# %%
report = backward_is_the_derivative(GALLERY["no gradient for the keys"])
print("\n".join(line for line in str(report).splitlines() if "ok  " not in line))
assert not report.check("gradient of k").ok and report.check("gradient of q").ok

# %% [markdown]
# ### And what did the right one learn?
#
# Look at its weights on one sequence, `c a f c a f c a f`. After c comes a, so a query at c should look at places
# where an a stood. Two places back is one of them. Guess, before you look at the picture: will it be that one?

# %%
model, _ = trained["right"]
tokens = np.array([[2, 0, 5, 2, 0, 5, 2, 0, 5]])                                # [B, T]
_, cache = model.forward(tokens, Version())
weights = cache[5].weights[0]                                                   # [H, T, S]
letters = [f"{'abcdef'[token]}{t}" for t, token in enumerate(tokens[0])]
place = np.arange(LENGTH)
holds_answer = causal_mask(LENGTH) & (place[None, :] % 3 == (place[:, None] + 1) % 3)    # [T, S]
alike = causal_mask(LENGTH) / (place[:, None] + 1)                              # [T, S], every place alike
on_answer = [float((weights[h] * holds_answer)[2:].sum(axis=-1).mean()) for h in range(H)]
by_chance = float((alike * holds_answer)[2:].sum(axis=-1).mean())
best = int(np.argmax(on_answer))
print(f"weight on places that hold the answer: head 0 {on_answer[0]:.2f}, head 1 {on_answer[1]:.2f}; "
      f"looking everywhere alike would give {by_chance:.2f}")
print(heat_map(weights[best], letters, letters))
assert on_answer[best] > 0.8 > 0.4 > by_chance

# %% [markdown]
# It looks two places back, or five, or eight: wherever the answer stood. Nobody told it which. All of them give the
# same loss, so which of them it takes is an accident of the start. (The first two rows cannot know the answer, and
# look anywhere.)

# %% [markdown]
# ## 2.8 Exercises
#
# Replace the line that raises, run the cell, and read the verdict. Solutions are in
# `tutorials/solutions/02_attention.py`.
#
# ### Exercise 1: a window
#
# Long texts are costly, so some models let each query see only the last few keys: itself and the `width - 1` before
# it. Write that mask. As in `causal_mask`, the two sequences end together: with more keys than queries, the last
# query is still the one at the last key.

# %%
def window_mask(num_queries, num_keys, width):
    """Returns [T, S], boolean, True = may attend. T <= S."""
    raise NotImplementedError


def grade_window_mask(answer):
    mask = answer(5, 5, 2)                                                      # [T, S]
    require(isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (5, 5),
            f"window_mask(5, 5, 2) must be a boolean array [5, 5], got {getattr(mask, 'dtype', type(mask).__name__)} "
            f"{list(np.shape(mask))}.")
    require(mask.diagonal().all(), "every query may see itself: the diagonal is True. Is your polarity reversed?")
    require(not np.triu(mask, 1).any(), "a query sees the future.")
    require(mask[4].sum() == 2, f"with width 2, the last query sees 2 keys, itself and one more. Yours sees {mask[4].sum()}.")
    require(mask[0].sum() == 1, "the first query has nothing before it: it sees itself only.")
    require(np.array_equal(answer(4, 4, 10), causal_mask(4)), "a window wider than the text is the causal mask.")
    later = answer(2, 5, 3)                                                     # [T, S], two new queries, five keys
    require(np.array_equal(later, [[False, True, True, True, False], [False, False, True, True, True]]),
            f"two queries and five keys end together: query 0 is at key 3, query 1 at key 4. Yours is\\n{later.astype(int)}")
    return "the cost per query no longer grows with the length of the text."


print(grade(grade_window_mask, window_mask))

# %% [markdown]
# ### Exercise 2: attention with a bias
#
# Some models add a learned number to each score, one for each pair of positions, the same for every sequence of the
# batch:
#
#     y = softmax(scale q k^T + bias) v           q: [B, T, E]   k: [B, S, E]   v: [B, S, E_v]   bias: [T, S]
#
# Forward is given. Write the whole backward. Take section 2.2 as your map, and `softmax_backward` as your tool. What
# is new is `d_bias`: mind its shape.

# %%
def biased_attention_forward(q, k, v, bias):
    scale = 1 / math.sqrt(q.shape[-1])
    scores = scale * q @ k.swapaxes(-1, -2) + bias                              # [B, T, S]
    weights, softmax_cache = softmax_forward(scores)                            # [B, T, S]
    y = weights @ v                                                             # [B, T, E_v]
    return y, (q, k, v, weights, softmax_cache, scale)


def biased_attention_backward(d_y, cache):
    """d_y: [B, T, E_v].   Returns d_q [B, T, E], d_k [B, S, E], d_v [B, S, E_v], d_bias [T, S]."""
    raise NotImplementedError


def grade_biased_attention_backward(answer):
    rng = np.random.default_rng(14)
    shapes = (2, 3, 5), (2, 4, 5), (2, 4, 6), (3, 4)
    inputs = [rng.standard_normal(shape) for shape in shapes]
    y, cache = biased_attention_forward(*inputs)
    gradients = answer(rng.standard_normal(y.shape), cache)
    require(isinstance(gradients, tuple) and len(gradients) == 4, "return four gradients: d_q, d_k, d_v, d_bias.")
    for name, gradient, shape in zip(("d_q", "d_k", "d_v", "d_bias"), gradients, shapes, strict=True):
        hint = " One bias serves every sequence of the batch, so its gradients add." if name == "d_bias" else ""
        require(np.shape(gradient) == shape, f"{name} has shape {list(np.shape(gradient))}, expected {list(shape)}.{hint}")
    report = check_gradients(biased_attention_forward, answer, inputs)
    hints = {
        "v": "y = weights @ v. Each value gets the gradient back by the weights with which it went in.",
        "bias": "scores = ... + bias. What is d_scores? And over which axis did one bias serve many?",
        "q": "the path is y, weights, scores, q. Does d_scores come out of softmax_backward? Is the scale there?",
        "k": "if d_q is right, d_k has the same parts, with d_scores transposed. Is the scale there?",
    }
    for argument, hint in hints.items():
        require(report.check(f"gradient of {argument}").ok, f"d_{argument} is not right yet: {hint}")
    require(report.ok, f"all gradients are right, but a rule is broken.\\n{report}")
    return "that is the backward pass of T5 and of Swin Transformers."


print(grade(grade_biased_attention_backward, biased_attention_backward))

# %% [markdown]
# ### Exercise 3: write the test
#
# The best way to know a theorem is to guard it. Write a function that is handed a model, `forward(x) -> y`, both `[B,
# T, D]`, and says whether it looks ahead: whether any output depends on any *later* input. The grader gives it honest
# models and cheats. One cheat lets a single early position see its neighbour, so look everywhere.

# %%
def looks_ahead(forward, x):
    """forward: takes [B, T, D], returns [B, T, D].   x: [B, T, D], an input to start from.   Returns True or False."""
    raise NotImplementedError


def grade_looks_ahead(answer):
    def with_mask(mask, split=split_heads, merge=merge_heads):
        version = Version(split=split, merge=merge, may_attend=lambda T: mask)
        return lambda x: version.forward(x, x, x)[0]

    causal = causal_mask(6)                                                     # [T, T]
    early_leak, last_leak, far_leak = causal.copy(), causal.copy(), causal.copy()
    early_leak[0, 1] = True
    last_leak[4, 5] = True
    far_leak[0, 5] = True
    honest = {
        "causal attention": with_mask(causal),
        "a window of two": with_mask(causal & np.triu(np.ones((6, 6), bool), -1)),
        "heads by reshape, wrong as it is,": with_mask(causal, split_by_reshape, merge_by_reshape),
        "each position on its own": lambda x: x * x,
        "a constant": np.zeros_like,
    }
    cheats = {
        "attention without a mask": with_mask(np.ones((6, 6), bool)),
        "a reversed mask": with_mask(~causal),
        "a model whose heads are split by reshape and merged by transpose": with_mask(causal, split_by_reshape),
        "a model in which only position 0 sees position 1": with_mask(early_leak),
        "a model in which only position 4 sees position 5": with_mask(last_leak),
        "a model in which only position 0 sees position 5": with_mask(far_leak),
        "a mean over all positions": lambda x: x + x.mean(axis=1, keepdims=True),
        "a model that leaks in the second sequence of the batch only":
            lambda x: np.concatenate([x[:1], x[1:2, ::-1], x[2:]]),
    }
    x = np.random.default_rng(15).standard_normal((3, 6, D))                    # [B, T, D]
    for name, forward in honest.items():
        require(answer(forward, x.copy()) in (False, np.False_), f"{name} is honest, and you say that it looks ahead.")
    for name, forward in cheats.items():
        require(answer(forward, x.copy()) in (True, np.True_), f"{name} looks ahead, and you did not see it.")
    return "you will never ship a model that reads the answer from the future."


print(grade(grade_looks_ahead, looks_ahead))

# %% [markdown]
# ## 2.9 When not to use attention
#
# **When the sequence is very long.** Every query meets every key: T = S = n costs about 4 n^2 D multiplications and
# additions, beside 8 n D^2 for the four projections. From n = 2 D on, the square is the larger part. And the weights
# must lie somewhere:

# %%
heads, bytes_each = 16, 4
for n in (1_000, 10_000, 100_000):
    print(f"n = {n:>7,}: the weights of one layer of {heads} heads take {heads * n * n * bytes_each / 1e9:>8.3f} GB in float32")
assert heads * 100_000**2 * bytes_each == 640e9
D_model = 512
assert 4 * (2 * D_model)**2 * D_model == 8 * (2 * D_model) * D_model**2, "equal at n = 2 D"

# %% [markdown]
# (Blockwise forms never store all the weights. They save the memory, not the multiplications.)
#
# **When order is all that counts, or near is all that counts.** Attention by itself has no order: shuffle the keys
# together with their values, and nothing changes. Order comes in through position codes, and must be learned from
# data. A convolution knows what is near, a recurrent network knows what came before, for nothing. With little data
# that is worth much.

# %%
rng = np.random.default_rng(16)
q, k, v = rng.standard_normal((3, 4, 8))                                        # [T, E] each
order = rng.permutation(4)                                                      # [S]
assert np.allclose(attention_forward(q, k, v)[0], attention_forward(q, k[order], v[order])[0])

# %% [markdown]
# **When a state must be carried through every step.** Has the number of ones so far been odd? A recurrent network
# keeps one bit, and goes on for ever. Attention takes a *mean*, in which each of n positions has a part of size 1/n.
# Tutorial 3 measures it.
#
# **When memory must not grow.** To write token n, attention needs the keys and values of all n before it. A recurrent
# network needs its state, of one size, always.
#
# **And do not read the weights as reasons.** In this gallery, a model whose keys never learned predicts nearly as
# well as the right one. Weights say where a mean was taken. Whether it mattered is another question; tutorial 3 asks
# it.
