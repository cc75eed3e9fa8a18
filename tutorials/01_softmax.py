# %% [markdown]
# # 1. Softmax: from scores to shares, and the way back
#
# A network computes scores: any numbers, one for each choice. Softmax turns them into shares: positive numbers that
# sum to 1. It sits at the end of every classifier, and in the heart of attention (tutorial 2). Its backward pass is
# two lines long, and people get it wrong all the time, because *a wrong one still trains*. This lesson shows how to
# know that yours is right.
#
# You need Python and the derivative of exp. Run it from top to bottom (`python tutorials/01_softmax.py`), step
# through it in a debugger, or open it as a notebook. It takes a few seconds.
#
# Text and exercises: CC BY 4.0. Code: MIT.

# %%
import inspect
import math

import numpy as np
from classroom import grade, require, table  # a small file beside this one: grades answers, prints tables
from scipy.special import softmax as scipy_softmax

from transformer_np import Linear, log_softmax_forward, softmax_backward, softmax_forward
from transformer_np.gradcheck import check_gradients
from transformer_np.training.optimizers import AdamW

# %% [markdown]
# ## 1.1 By hand
#
# Three scores, chosen so that you can follow with a pencil:
#
#     x = [0, log 2, log 3]
#
# Softmax is two steps. Make every score positive with exp. Then divide by the total, so that the sum is 1.
#
#     exp(x)      = [1, 2, 3]             total = 6
#     y           = [1/6, 2/6, 3/6]

# %%
x = np.log([1.0, 2.0, 3.0])                     # [N], N = 3 scores
e = np.exp(x)                                   # [N]
total = e.sum()                                 # []
y = e / total                                   # [N]
print("scores x     ", x.round(3))
print("exp(x)       ", e.round(3), "  total", total.round(3))
print("shares y     ", y.round(3))
assert np.allclose(y, [1 / 6, 2 / 6, 3 / 6])

# %% [markdown]
# Now the way back. Say the loss is minus the third share: we want the third share to grow. How should each score
# move?
#
# Give score 3 a push of 0.01 and look. Do the same with score 1, which has nothing to do with share 3, or so it
# seems.

# %%
push = 0.01
for which in (2, 0):
    pushed = x.copy()                           # [N]
    pushed[which] += push
    change = (softmax_forward(pushed)[0] - y) / push   # [N], change of each share for one unit of push
    print(f"push score {which + 1}: the shares change by {change.round(3)} for each unit of push")
    assert abs(change.sum()) < 1e-9, "shares always sum to 1, so what one gains the others lose"

# %% [markdown]
# Score 1 moves share 3. It must: the shares sum to 1, so a larger share 1 leaves less for the others. *Every score
# reaches every share through the total.* Hold on to that sentence; it is the line that most wrong versions forget.

# %% [markdown]
# ## 1.2 The derivation
#
# How does share i change when score j moves? Two cases, by the quotient rule on `y_i = e_i / total`:
#
#     i = j        dy_i/dx_i = e_i / total - e_i e_i / total^2  =  y_i - y_i y_i
#     i != j       dy_i/dx_j =             - e_i e_j / total^2  =      - y_i y_j
#
# In one line, with `[i = j]` for 1 on the diagonal and 0 elsewhere:
#
#     dy_i/dx_j = y_i ([i = j] - y_j)                         all of them: a matrix J, [N, N]

# %%
J = np.diag(y) - np.outer(y, y)                 # [N, N]: row i, how share i changes; column j, when score j moves
print("J, times 36:\n", (36 * J).round(3))
assert np.allclose(36 * J, [[5, -2, -3], [-2, 8, -6], [-3, -6, 9]])
assert np.allclose(J.sum(axis=0), 0), "each column sums to 0: what one share gains the others lose"

# %% [markdown]
# A backward pass is handed `d_y`, one number for each share: how much the *loss* changes when that share moves. It
# must return `d_x`: how much the loss changes when a score moves. Score j reaches the loss through every share, so we
# sum over i:
#
#     d_x_j = sum_i d_y_i dy_i/dx_j
#           = sum_i d_y_i y_i [i = j]  -  sum_i d_y_i y_i y_j
#           = y_j (d_y_j - sum_i d_y_i y_i)
#                          \_____________/  one number for the whole row: call it `row`
#
# That is all. Read it as a sentence: *a score's gradient is its share, times how much better than average its share's
# gradient is.* The average is weighted by the shares. And note what it saves: J has N^2 numbers, the formula needs N.
#
# By hand, for the loss -y_3, that is `d_y = [0, 0, -1]`:
#
#     row = 0 + 0 - 1 * 3/6 = -1/2
#     d_x = [1/6 (0 + 1/2), 2/6 (0 + 1/2), 3/6 (-1 + 1/2)] = [1/12, 1/6, -1/4]
#
# To lower the loss, each score moves against its gradient: score 3 up, the other two down.

# %%
d_y = np.array([0.0, 0.0, -1.0])                # [N]
row = (d_y * y).sum()                           # []
d_x = y * (d_y - row)                           # [N]
print("row", row.round(3), "  d_x", d_x.round(4))
assert np.allclose(d_x, [1 / 12, 1 / 6, -1 / 4])
assert np.allclose(d_x, d_y @ J), "the short formula is the product with the whole matrix"
assert abs(d_x.sum()) < 1e-15, "moving all scores together changes nothing, so the gradients sum to 0"

# %% [markdown]
# ## 1.3 The code
#
# This is the pair that the library runs, in full. Two things in it are new; a third, the mask, comes below.
#
# * **The peak.** `exp(1000)` is infinite, and infinite divided by infinite is not a number. But adding the same
#   number to all scores changes no share, so we may subtract the largest. Then the largest exponent is 0, and exp
#   cannot overflow.
# * **`axis=-1, keepdims=True`.** Real arrays hold many rows of scores, shape `[..., N]`. The sum is over the
#   *choices*, the last axis. `keepdims` leaves it as `[..., 1]`, so that it divides the row it came from. Without it,
#   `[B, N] / [B]` fails, or worse: where B happens to equal N, it divides *columns* by row totals, without a word.

# %%
print(inspect.getsource(softmax_forward))
print(inspect.getsource(softmax_backward))

# %% [markdown]
# It agrees with the pencil:

# %%
shares, cache = softmax_forward(x)              # [N]
print("a cache, as a debugger shows it:", cache)
assert np.allclose(shares, [1 / 6, 2 / 6, 3 / 6])
assert np.allclose(softmax_backward(d_y, cache), [1 / 12, 1 / 6, -1 / 4])

# %% [markdown]
# Why is the peak there? Because of rows like these. The first is far too large for exp. The second differs from it by
# a constant, so its shares are the same.

# %%
large = np.array([[1000.0, 1001.0, 1002.0],
                  [0.0, 1.0, 2.0]])             # [B, N] = [2, 3]
shares, _ = softmax_forward(large)              # [B, N]
print(shares.round(3))
assert np.allclose(shares[0], shares[1])
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(large[0]) / np.exp(large[0]).sum()
print("without the peak:", naive)
assert np.isnan(naive).all()

# %% [markdown]
# And the mask? Sometimes a choice is not on offer: a word that is padding, a position in the future. `mask` is True
# where an entry takes part. A common trick adds -1e9 to the others instead. Look at the second row, where *nothing*
# is on offer: the right answer is no share at all, and the trick hands out the full 100 %.

# %%
scores = np.array([[1.0, 2.0, 3.0],
                   [1.0, 2.0, 3.0]])            # [B, N]
on_offer = np.array([[True, True, False],
                     [False, False, False]])    # [B, N]
masked, _ = softmax_forward(scores, on_offer)   # [B, N]
tricked, _ = softmax_forward(scores + np.where(on_offer, 0, -1e9))
print("mask :", masked.round(3).tolist())
print("trick:", tricked.round(3).tolist())
assert np.allclose(masked.sum(axis=-1), [1, 0])
assert np.allclose(tricked.sum(axis=-1), [1, 1])

# %% [markdown]
# ## 1.4 The check
#
# Does `softmax_backward` return the derivative of `softmax_forward`? The plain way to ask is a difference:
#
#     df/dx  =  (f(x + h) - f(x)) / h         for a small h
#
# How small? Too large, and the curve bends away. Too small, and the two f are equal in almost all their 16 digits, so
# the difference has almost none left. There is a way around it. Take a step *sideways*, into the complex numbers:
#
#     f(x + ih) = f(x) + i h f'(x) + ...      so      f'(x) = Im f(x + ih) / h
#
# Nothing is subtracted, so nothing is lost, and h can be 1e-20. Watch both.

# %%
def loss_of(scores):
    """A loss for a test: the shares, weighted by fixed random numbers. scores: [N]."""
    return softmax_forward(scores)[0] @ cotangent


cotangent = np.random.default_rng(0).standard_normal(3)                        # [N], this is d_y
exact = softmax_backward(cotangent, softmax_forward(x)[1])                     # [N]
first = np.array([1.0, 0.0, 0.0])                                              # [N], move score 1
errors = {}
for h in (1e-2, 1e-5, 1e-8, 1e-11, 1e-14, 1e-20):
    difference = (loss_of(x + h * first) - loss_of(x)) / h
    sideways = loss_of(x + 1j * h * first).imag / h
    errors[h] = abs(difference / exact[0] - 1), abs(sideways / exact[0] - 1)
print(table(["h", "error of the difference", "error of the complex step"],
            [[f"{h:.0e}", f"{plain:.1e}", f"{complex_step:.1e}"] for h, (plain, complex_step) in errors.items()]))
assert min(plain for plain, _ in errors.values()) > 1e-10, "the difference never gets to ten digits"
assert errors[1e-20][1] < 1e-14, "the complex step is right to the last digits"

# %% [markdown]
# `check_gradients` does this for every element of every argument, and asks more: does backward write into something
# it was lent? Do two calls agree? Is the gradient of nothing exactly nothing?

# %%
rng = np.random.default_rng(1)
report = check_gradients(softmax_forward, softmax_backward, [rng.standard_normal((4, 5))])     # x: [B, N] = [4, 5]
print(report)
report.raise_if_failed()

# %% [markdown]
# **One trap, before we go on.** A test needs some `d_y`. Many tests use ones: they check the gradient of `y.sum()`.
# But the shares always sum to 1, so that gradient is zero, whatever the scores. Under such a test, a backward pass
# that returns zeros is *right*. `check_gradients` draws random numbers instead.

# %%
def backward_that_does_nothing(d_y, cache):
    return np.zeros_like(d_y)                                                   # [..., N]


y, cache = softmax_forward(rng.standard_normal((4, 5)))                         # [B, N]
with_ones = np.abs(softmax_backward(np.ones((4, 5)), cache)).max()
print(f"d_y of ones: the true gradient is {with_ones:.0e}, as good as zero. A backward that returns zeros passes.")
lazy = check_gradients(softmax_forward, backward_that_does_nothing, [rng.standard_normal((4, 5))])
print("random d_y:  ", str(lazy).splitlines()[0])
assert with_ones < 1e-15
assert not lazy.ok

# %% [markdown]
# ## 1.5 A gallery of wrong versions that still train
#
# Several of these were found in public code; the others are as easy to write. Each passes the test that most people
# use: *the loss goes down.*

# %%
def without_row_term(d_y, cache):
    """Forgets that every score reaches every share through the total."""
    return d_y * cache.y                                                        # [..., N]


def diagonal_only(d_y, cache):
    """Half remembered: the derivative of a sigmoid is s (1 - s). That is the diagonal of J, without the rest."""
    return d_y * cache.y * (1 - cache.y)                                        # [..., N]


def mean_in_the_row_term(d_y, cache):
    """A mean where the formula has a sum: too small by a factor of N."""
    row = (d_y * cache.y).mean(axis=-1, keepdims=True)                          # [..., 1]
    return cache.y * (d_y - row)                                                # [..., N]


def divided_by_batch(d_y, cache):
    """The loss is a mean over the batch and has divided already. This divides again."""
    return softmax_backward(d_y, cache) / len(d_y)                              # [B, N]


def forward_without_peak(x):
    """The formula as it stands in the book, without the peak."""
    e = np.exp(x)                                                               # [..., N]
    y = e / e.sum(axis=-1, keepdims=True)                                       # [..., N]
    return y, softmax_forward(x)[1]


def forward_over_the_batch(x):
    """The wrong axis: the examples of a batch compete with each other."""
    return softmax_forward(x, axis=0)


GALLERY = {
    "right":                 (softmax_forward, softmax_backward),
    "without the row term":  (softmax_forward, without_row_term),
    "diagonal only":         (softmax_forward, diagonal_only),
    "mean in the row term":  (softmax_forward, mean_in_the_row_term),
    "divided by the batch":  (softmax_forward, divided_by_batch),
    "no peak":               (forward_without_peak, softmax_backward),
    "softmax over the batch": (forward_over_the_batch, softmax_backward),
}

# %% [markdown]
# The task: points of three colours in the plane, 40 of each, in clouds that overlap a little. The model: one linear
# layer and softmax. The loss: minus the logarithm of the share of the right colour. The optimizer: AdamW, as
# everywhere today.

# %%
def draw_points(per_colour, rng):
    """Returns points [B, 2] and colours [B], B = 3 * per_colour."""
    colours = np.repeat([0, 1, 2], per_colour)                                  # [B]
    centres = np.array([[0.0, 1.5], [-1.3, -0.75], [1.3, -0.75]])               # [3, 2]
    return centres[colours] + 0.9 * rng.standard_normal((len(colours), 2)), colours


def train(forward, backward, steps):
    """Returns the loss before each step, and the share of fresh points that are coloured right."""
    points, colours = draw_points(40, np.random.default_rng(0))                 # [B, 2], [B]
    B = len(points)
    model = Linear.create(2, 3, rng=np.random.default_rng(0), dtype=np.float64)
    optimizer = AdamW()
    state = optimizer.create_state(model)
    losses = []
    for _ in range(steps + 1):
        # forward: points -> scores -> shares -> loss
        scores, linear_cache = model.forward(points)                            # [B, 3]
        y, softmax_cache = forward(scores)                                      # [B, 3]
        right = y[np.arange(B), colours]                                        # [B], the share of the right colour
        losses.append(float(-np.log(right).mean()))
        # backward: d(-log y)/dy = -1/y at the right colour, 0 elsewhere; the mean divides by B, once
        d_y = np.zeros_like(y)                                                  # [B, 3]
        d_y[np.arange(B), colours] = -1 / (B * right)
        d_scores = backward(d_y, softmax_cache)                                 # [B, 3]
        _, d_model = model.backward(d_scores, linear_cache)
        model, state = optimizer.step(model, d_model, state, learning_rate=0.03)
    fresh, fresh_colours = draw_points(1000, np.random.default_rng(1))          # [3000, 2], [3000]
    guesses = model.forward(fresh)[0].argmax(axis=-1)                           # [3000]
    return losses, float((guesses == fresh_colours).mean())


SHORT, LONG = 30, 400
trained = {name: train(forward, backward, LONG) for name, (forward, backward) in GALLERY.items()}

# %% [markdown]
# First the evidence that most people look at: some steps, and the loss.

# %%
marks = (0, 5, 10, 20, SHORT)
print(table(["version", *(f"step {step}" for step in marks)],
            [[name, *(losses[step] for step in marks)] for name, (losses, _) in trained.items()]))
for name, (losses, _) in trained.items():
    assert losses[SHORT] < losses[20] < losses[10] < losses[5] < losses[0], f"{name}: the loss goes down"

# %% [markdown]
# Every loss goes down. Would you have stopped to look? Now more than ten times as many steps, and the share of fresh
# points coloured right.

# %%
marks = (SHORT, 100, 200, LONG)
print(table(["version", *(f"step {step}" for step in marks), "fresh points right"],
            [[name, *(losses[step] for step in marks), accuracy] for name, (losses, accuracy) in trained.items()]))
right_losses, right_accuracy = trained["right"]
assert trained["without the row term"][0][LONG] > 4 * right_losses[LONG], "it turned, and climbs"
assert trained["diagonal only"][0][LONG] > 1.3 * right_losses[LONG]
assert trained["mean in the row term"][0][LONG] > 4 * right_losses[LONG]
assert trained["diagonal only"][1] > right_accuracy and trained["mean in the row term"][1] > right_accuracy
assert np.allclose(trained["divided by the batch"][0], right_losses, atol=1e-4), "Adam hides the factor"
assert np.allclose(trained["no peak"][0], right_losses, atol=1e-12), "the same numbers, until a score is large"

# %% [markdown]
# Three versions have turned and climb, after most people stopped watching. Two of those three even colour *more*
# fresh points right than the right one does, so accuracy is no evidence either. And two do not show at all.
#
# *Divided by the batch* is wrong by a factor of 120, and its curve is the right one. Adam divides each gradient by
# its own size, so a wrong factor cancels. Change the optimizer, clip the gradient, or add it to another one, and the
# factor is back.

# %%
assert len(draw_points(40, np.random.default_rng(0))[0]) == 120

# %% [markdown]
# Now the check. It needs no training.

# %%
probe = np.random.default_rng(2).standard_normal((4, 5))                        # x: [B, N] = [4, 5]


def agrees_with_scipy(forward):
    """A second opinion on forward, from someone who has not seen our code; one row is large."""
    scores = np.concatenate([probe, [[1000.0, 1001.0, 1002.0, 1003.0, 1004.0]]])    # [B, N]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.allclose(forward(scores)[0], scipy_softmax(scores, axis=-1), rtol=1e-12)


verdicts = {}
for name, (forward, backward) in GALLERY.items():
    report = check_gradients(forward, backward, [probe])
    error = report.check("gradient of x").figure                                # relative
    verdicts[name] = report.check("gradient of x").ok, agrees_with_scipy(forward)
    print(f"{name:<23} gradient check {'ok  ' if verdicts[name][0] else 'FAIL'}, relative error {error:.0e}"
          f"    second opinion on forward: {'ok' if verdicts[name][1] else 'FAIL'}")

assert verdicts["right"] == (True, True)
for name in ("without the row term", "diagonal only", "mean in the row term", "divided by the batch"):
    assert verdicts[name] == (False, True), f"{name}: a wrong backward"
for name in ("no peak", "softmax over the batch"):
    assert verdicts[name] == (True, False), f"{name}: a wrong forward"

# %% [markdown]
# Look at the last two rows. Their gradient check is *ok*, and it should be: it asks whether backward is the
# derivative of forward, and so it is. It cannot know that forward is not what you meant. **A gradient check and a
# second opinion on forward are two different legs. Stand on both.**
#
# The report says where it hurts:

# %%
report = check_gradients(softmax_forward, without_row_term, [probe])
print(report)
assert not report.ok

# %% [markdown]
# ## 1.6 Exercises
#
# Replace the line that raises, run the cell, and read the verdict. The graders are strict: plausible wrong answers
# fail them, with a hint. Solutions are in `tutorials/solutions/01_softmax.py`. Try first.
#
# ### Exercise 1: the backward pass of log-softmax
#
# The loss wants the *logarithm* of a share. Log-softmax gives it directly:
#
#     y_i = x_i - log sum_j exp(x_j)                          x, y: [..., N]
#
# Derive `d_x`. Two hints. How does `log sum_j exp(x_j)` change when x_i moves? And: how many y does each x_j reach?

# %%
def log_softmax_backward(d_y, y):
    """d_y: [..., N].   y: [..., N], the log-softmax.   Returns d_x: [..., N]."""
    raise NotImplementedError


def grade_log_softmax_backward(answer):
    x = np.random.default_rng(3).standard_normal((4, 5))                        # [B, N]
    report = check_gradients(lambda x: log_softmax_forward(x),
                             lambda d_y, cache: answer(d_y, cache.y), [x])
    d_y = np.random.default_rng(4).standard_normal((4, 5))                      # [B, N]
    d_x = answer(d_y, log_softmax_forward(x)[0])                                # [B, N]
    require(np.shape(d_x) == (4, 5), f"d_x has shape {list(np.shape(d_x))}, expected that of x, [4, 5].")
    require(np.allclose(d_x.sum(axis=-1), 0),
            "each row of d_x must sum to 0, since moving all its scores together changes nothing. Which term is missing, "
            "and over which axis do you sum?")
    require(report.check("gradient of x").ok, f"it is not the derivative yet. {report.check('gradient of x').says}")
    require(report.ok, f"the gradient is right, but a rule is broken.\n{report}")
    return "each score loses its share of what the whole row was asked for."


print(grade(grade_log_softmax_backward, log_softmax_backward))

# %% [markdown]
# ### Exercise 2: a temperature that learns
#
#     y = softmax(x / tau)                                    x, y: [B, N]     tau: one number, above 0
#
# A large tau makes the shares even, a small one makes them sharp. Say that the network learns tau. Return both
# gradients. You may call `softmax_backward`. Hint: tau serves every element of x. What happens to the gradients of a
# number that is used many times?

# %%
def temperature_backward(d_y, cache, x, tau):
    """d_y: [B, N].   cache: of softmax_forward(x / tau).   x: [B, N].   tau: a number.   Returns d_x [B, N], d_tau []."""
    raise NotImplementedError


def grade_temperature_backward(answer):
    def forward(x, tau):
        y, cache = softmax_forward(x / tau)                                     # [B, N]
        return y, (cache, x, tau)

    def backward(d_y, cache):
        return answer(d_y, *cache)

    x = np.random.default_rng(5).standard_normal((4, 5))                        # [B, N]
    report = check_gradients(forward, backward, [x, 0.7])
    _, cache = forward(x, 0.7)
    gradients = backward(np.random.default_rng(6).standard_normal((4, 5)), cache)
    require(isinstance(gradients, tuple) and len(gradients) == 2, "return two gradients: d_x, d_tau.")
    require(np.shape(gradients[1]) == (), f"tau is one number, so its gradient is one number. Yours has shape "
                                          f"{list(np.shape(gradients[1]))}. It is used for every element: sum.")
    require(report.check("gradient of x").ok, "d_x is not right yet. Name the scores z = x / tau. softmax_backward gives d_z. "
                                              "How far does z move when x moves by 1?")
    require(report.check("gradient of tau").ok, "d_x is right, d_tau is not yet. What is the derivative of x / tau by tau?")
    require(report.ok, f"both gradients are right, but a rule is broken.\n{report}")
    return "one number used B * N times gets the sum of B * N gradients."


print(grade(grade_temperature_backward, temperature_backward))

# %% [markdown]
# ### Exercise 3: be the bug
#
# `without_row_term` is wrong. But not for every `d_y`. Find one for which it gives the *right* answer, so that a test
# with your `d_y` would let it pass. Zeros do not count. Then ask yourself how likely it is that random numbers land
# there.

# %%
def blind_spot(y):
    """y: [B, N], shares.   Returns d_y: [B, N], no row of it all 0, for which the row term makes no difference."""
    raise NotImplementedError


def grade_blind_spot(answer):
    y, cache = softmax_forward(np.random.default_rng(7).standard_normal((4, 5)))    # [B, N]
    d_y = answer(y.copy())                                                      # [B, N]
    require(np.shape(d_y) == (4, 5), f"d_y has shape {list(np.shape(d_y))}, expected that of y, [4, 5].")
    require(np.isfinite(d_y).all(), "d_y must be made of ordinary numbers.")
    require(np.abs(d_y).max(axis=-1).min() > 1e-3, "a row of zeros tells nothing: every row needs some number above 0.001.")
    seen = np.abs(without_row_term(d_y, cache) - softmax_backward(d_y, cache)).max()
    require(seen < 1e-12, f"the row term still makes a difference of {seen:.1e}. It is sum_i d_y_i y_i. When is that 0?")
    return "random numbers would have to land on a line of zero width. That is why a random d_y is a good test."


print(grade(grade_blind_spot, blind_spot))

# %% [markdown]
# ## 1.7 When not to use softmax
#
# **When more than one answer can be true.** A photograph shows a cat *and* a dog. Shares sum to 1, so softmax must
# take from one what it gives to the other. Use one sigmoid for each label.

# %%
cat_and_dog = np.array([8.0, 8.0, -8.0])        # [N]: cat, dog, boat: two strong yes, one strong no
by_softmax, _ = softmax_forward(cat_and_dog)
by_sigmoid = 1 / (1 + np.exp(-cat_and_dog))
print("softmax", by_softmax.round(3), "  sigmoid", by_sigmoid.round(3))
assert by_softmax.max() < 0.51
assert by_sigmoid[:2].min() > 0.99

# %% [markdown]
# **When you want the logarithm.** A share can be too small for a float. Its logarithm is an ordinary number. Use
# `log_softmax_forward`, or `cross_entropy_forward`, which contains it. (We took `np.log` of a share above, to have a
# softmax to train. That was safe for these few points only.)

# %%
far_apart = np.array([0.0, 1000.0])             # [N]
with np.errstate(divide="ignore"):
    log_of_share = np.log(softmax_forward(far_apart)[0])
print("log(softmax):", log_of_share, "  log_softmax:", log_softmax_forward(far_apart)[0])
assert log_of_share[0] == -math.inf
assert log_softmax_forward(far_apart)[0][0] == -1000

# %% [markdown]
# **When you want to know how sure the network is.** Shares look like probabilities and are trained like them, but a
# network can be sure and wrong. Multiply the scores by ten: the order of the choices stays, and so does the accuracy,
# but the network is now "sure".

# %%
unsure = np.array([1.0, 1.2, 0.8])              # [N]
print("as it is ", softmax_forward(unsure)[0].round(3), "  times ten", softmax_forward(10 * unsure)[0].round(3))
assert softmax_forward(unsure)[0].max() < 0.41 < 0.85 < softmax_forward(10 * unsure)[0].max()

# %% [markdown]
# **When there are millions of choices.** The total runs over all of them, for each example. Hierarchical and sampled
# softmax, or a nearest-neighbour search, avoid that.
#
# Next: tutorial 2, where softmax decides where to look.
