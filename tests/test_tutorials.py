"""The tutorials run, have the parts that a lesson needs, and their graders tell right answers from wrong ones."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from transformer_np import softmax_backward

TUTORIALS = Path(__file__).parents[1] / "tutorials"
LESSONS = sorted(path.stem for path in TUTORIALS.glob("[0-9][0-9]_*.py"))


def test_there_are_four_lessons():
    assert LESSONS == ["01_softmax", "02_attention", "03_head_to_head", "04_gradient_checking"]


# ---------------------------------------------------------------------------------------------------- they run

@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_runs_from_top_to_bottom_without_a_warning(lesson, tmp_path):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "error", TUTORIALS / f"{lesson}.py"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("[not yet]") == len(stubs(lesson)), "every exercise is printed as waiting"
    assert "[right]" not in done.stdout
    assert done.stdout.isascii(), "a terminal of any encoding can print it"
    assert list(tmp_path.iterdir()) == [], "nothing is written"


# ---------------------------------------------------------------------------------------------------- they are lessons

def cells(lesson: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each cell: "markdown" or "code"."""
    text = (TUTORIALS / f"{lesson}.py").read_text(encoding="utf-8")
    before, *parts = ("\n" + text).split("\n# %%")
    assert before == "", "a lesson begins with a cell"
    for part in parts:
        head, _, body = part.partition("\n")
        assert head in ("", " [markdown]"), f"# %%{head}"
        yield ("markdown" if head else "code"), body


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_opens_as_a_notebook(lesson):
    for kind, body in cells(lesson):
        if kind == "markdown":
            assert all(line.startswith("#") or not line for line in body.split("\n")), body
        else:
            ast.parse(body)  # each cell is whole


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_has_its_parts(lesson):
    headings = [line for kind, body in cells(lesson) if kind == "markdown"
                for line in body.split("\n") if line.startswith("# ## ")]
    number = int(lesson[:2])
    assert [heading.split()[2] for heading in headings] == [f"{number}.{i}" for i in range(1, len(headings) + 1)]
    for part in ("By hand", "gallery of wrong versions that still train", "Exercises", "When not to use"):
        assert any(part in heading for heading in headings), part


@pytest.mark.parametrize("lesson", LESSONS)
def test_what_a_cell_prints_it_also_asserts(lesson):
    for kind, body in cells(lesson):
        if kind == "code" and "print(" in body and "inspect.getsource" not in body:
            assert any(proof in body for proof in ("assert ", "raise_if_failed()", "print(grade(")), body


# ---------------------------------------------------------------------------------------------------- exercises

def is_stub(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and ast.unparse(node.body[-1]) == "raise NotImplementedError"


def stubs(lesson: str) -> list[str]:
    tree = ast.parse((TUTORIALS / f"{lesson}.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if is_stub(node)]  # type: ignore[attr-defined]


def is_definition(node: ast.stmt) -> bool:
    """An import, a function, a class or a plain number: what a lesson is made of, without its runs."""
    if isinstance(node, ast.Assign):
        return all(isinstance(part, ast.Constant | ast.Tuple | ast.Load) for part in ast.walk(node.value))
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


@cache
def definitions(path: Path) -> types.ModuleType:
    """The module without its training: graders and what they need."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if is_definition(node)]
    module = types.ModuleType(path.stem)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(TUTORIALS))
    try:
        exec(compile(tree, path, "exec"), module.__dict__)
    finally:
        sys.path.remove(str(TUTORIALS))
    return module


def verdict(lesson: str, exercise: str, answer):
    module = definitions(TUTORIALS / f"{lesson}.py")
    return module.grade(getattr(module, f"grade_{exercise}"), answer)


EXERCISES = [(lesson, exercise) for lesson in LESSONS for exercise in stubs(lesson)]


def test_each_lesson_has_three_exercises():
    assert [lesson for lesson, _ in EXERCISES] == sorted(LESSONS * 3)


@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_grader_sends_the_empty_stub_back(lesson, exercise):
    stub = getattr(definitions(TUTORIALS / f"{lesson}.py"), exercise)
    graded = verdict(lesson, exercise, stub)
    assert not graded.ok
    assert "still empty" in graded.says


@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_grader_accepts_the_model_solution(lesson, exercise):
    stub = getattr(definitions(TUTORIALS / f"{lesson}.py"), exercise)
    solution = getattr(definitions(TUTORIALS / "solutions" / f"{lesson}.py"), exercise)
    assert inspect.signature(solution) == inspect.signature(stub)
    graded = verdict(lesson, exercise, solution)
    assert graded.ok, graded.says
    assert graded.exercise == exercise


def solved(lesson: str, exercise: str):
    return getattr(definitions(TUTORIALS / "solutions" / f"{lesson}.py"), exercise)


def biased(change):
    """The model solution of the biased attention with its gradients changed."""
    def answer(d_y, cache):
        return change(*solved("02_attention", "biased_attention_backward")(d_y, cache), d_y, cache)
    return answer


def biased_without_row_term(d_y, cache):
    q, k, v, weights, _, scale = cache
    d_scores = weights * (d_y @ v.swapaxes(-1, -2))
    return (scale * d_scores @ k, scale * d_scores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ d_y, d_scores.sum(axis=0))


def only_the_last_position(forward, x):
    changed = x.copy()
    changed[:, -1] += 1
    return bool(np.abs(forward(changed) - forward(x))[:, :-1].max() > 1e-9)


def only_the_first_sequence(forward, x):
    return solved("02_attention", "looks_ahead")(lambda x: forward(x)[:1], x)


def only_the_neighbour(forward, x):
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] += 1
        if np.abs(forward(changed) - forward(x))[:, t - 1].max() > 1e-9:
            return True
    return False


def the_position_itself_too(forward, x):
    for t in range(1, x.shape[1]):
        changed = x.copy()
        changed[:, t] += 1
        if np.abs(forward(changed) - forward(x))[:, :t + 1].max() > 1e-9:
            return True
    return False


def window(rule):
    def answer(num_queries, num_keys, width):
        t, s = np.arange(num_queries)[:, None], np.arange(num_keys)[None, :]
        return rule(t, s, num_keys - num_queries, width)
    return answer


def switch(on, off, leave, memory, bias):
    return lambda: (np.array([[on], [off], [leave]]), np.array([[memory]]), np.array([bias]))


def one_hot_head(shift, sharp):
    return lambda num_positions: (sharp * np.eye(num_positions, k=shift), np.eye(num_positions))


def report_of(choose, mean, spread):
    def answer(validation, test):
        chosen = choose(validation, test)
        return int(chosen), float(mean(validation[chosen], test[chosen])), float(spread(test[chosen]))
    return answer


def best_mean_validation(validation, test):
    return validation.mean(axis=1).argmax()


def by_steps(step):
    """A gradient whose element i is `step(f, x, row i of the identity)`."""
    return lambda f, x: np.array([step(f, x, row) for row in np.eye(len(x))])


def step_in_place(f, x):
    gradient = []
    for i in range(len(x)):
        moved = x + 0j
        moved[i] += 1e-20j
        gradient.append(f(moved).imag / 1e-20)
        x[i] += 1e-20 + 1.0
    return np.array(gradient)


def ordinary_inputs(scale=1.0, gain=(0.5, -1.0, 2.0, 1.5, 3.0), width=5):
    return lambda: (scale * np.random.default_rng(0).standard_normal((4, width)), np.array(gain), np.zeros(width))


# exercise: name of the mistake: (answer, a word of the hint that it gets)
WRONG = {
    "log_softmax_backward": {
        "only its own term": (lambda d_y, y: d_y, "sum to 0"),
        "zeros": (lambda d_y, y: np.zeros_like(d_y), "derivative"),
        "softmax backward": (lambda d_y, y: np.exp(y) * (d_y - (d_y * np.exp(y)).sum(axis=-1, keepdims=True)), "derivative"),
        "sum over the batch": (lambda d_y, y: d_y - np.exp(y) * d_y.sum(axis=0, keepdims=True), "sum to 0"),
        "the log where the share belongs": (lambda d_y, y: d_y - y * d_y.sum(axis=-1, keepdims=True), "sum to 0"),
        "the sum without keepdims": (lambda d_y, y: d_y - np.exp(y) * d_y.sum(axis=-1), "ValueError"),
        "writes into what it was lent": (lambda d_y, y: np.subtract(d_y, np.exp(y) * d_y.sum(axis=-1, keepdims=True), out=d_y),
                                         "nothing is written to"),
        "of the shape of a row": (lambda d_y, y: d_y.sum(axis=-1), "shape"),
    },
    "temperature_backward": {
        "tau forgotten": (lambda d_y, cache, x, tau: (softmax_backward(d_y, cache), 0.0), "z = x / tau"),
        "sign": (lambda d_y, cache, x, tau: (softmax_backward(d_y, cache) / tau,
                                             (softmax_backward(d_y, cache) * x).sum() / tau**2), "d_tau"),
        "not squared": (lambda d_y, cache, x, tau: (softmax_backward(d_y, cache) / tau,
                                                    -(softmax_backward(d_y, cache) * x).sum() / tau), "d_tau"),
        "mean for sum": (lambda d_y, cache, x, tau: (softmax_backward(d_y, cache) / tau,
                                                     -(softmax_backward(d_y, cache) * x).mean() / tau**2), "d_tau"),
        "one tau for each row": (lambda d_y, cache, x, tau: (softmax_backward(d_y, cache) / tau,
                                                             -(softmax_backward(d_y, cache) * x).sum(axis=-1) / tau**2), "sum"),
        "d_x alone": (lambda d_y, cache, x, tau: softmax_backward(d_y, cache) / tau, "two gradients"),
    },
    "blind_spot": {
        "zeros": (np.zeros_like, "zeros"),
        "ones": (np.ones_like, "row term"),
        "random": (lambda y: np.random.default_rng(0).standard_normal(y.shape), "row term"),
        "sums to zero, unweighted": (lambda y: np.broadcast_to([1.0, -1.0, 0.0, 0.0, 0.0], y.shape), "row term"),
        "very small": (lambda y: np.full_like(y, 1e-9), "zeros"),
        "infinite": (lambda y: np.full_like(y, np.inf), "ordinary"),
        "one row": (lambda y: np.array([1 / y[0, 0], -1 / y[0, 1], 0, 0, 0]), "shape"),
    },
    "window_mask": {
        "reversed": (window(lambda t, s, ahead, width: ~((s <= t + ahead) & (s > t + ahead - width))), "polarity"),
        "one too wide": (window(lambda t, s, ahead, width: (s <= t + ahead) & (s >= t + ahead - width)), "2 keys"),
        "without the past": (window(lambda t, s, ahead, width: (s == t + ahead) & (width > 0)), "2 keys"),
        "to both sides": (window(lambda t, s, ahead, width: abs(s - t - ahead) < width), "future"),
        "aligned at the start": (window(lambda t, s, ahead, width: (s <= t) & (s > t - width)), "end together"),
        "numbers": (window(lambda t, s, ahead, width: 1.0 * ((s <= t + ahead) & (s > t + ahead - width))), "boolean"),
        "a list": (lambda num_queries, num_keys, width: [[True] * num_keys] * num_queries, "boolean"),
    },
    "biased_attention_backward": {
        "no row term": (biased_without_row_term, "not right yet"),
        "d_bias for each sequence": (biased(lambda q, k, v, bias, d_y, cache:
                                            (q, k, v, np.broadcast_to(bias, (2, 3, 4)))), "gradients add"),
        "d_bias as a mean": (biased(lambda q, k, v, bias, d_y, cache: (q, k, v, bias / 2)), "d_bias is not right"),
        "no scale in d_q": (biased(lambda q, k, v, bias, d_y, cache: (q / cache[5], k, v, bias)), "d_q is not right"),
        "no scale in d_k": (biased(lambda q, k, v, bias, d_y, cache: (q, k / cache[5], v, bias)), "d_k is not right"),
        "d_bias zero": (biased(lambda q, k, v, bias, d_y, cache: (q, k, v, 0 * bias)), "d_bias is not right"),
        "d_v not weighted": (biased(lambda q, k, v, bias, d_y, cache:
                                    (q, k, v * 0 + d_y.sum(axis=1, keepdims=True), bias)), "d_v is not right"),
        "three gradients": (biased(lambda q, k, v, bias, d_y, cache: (q, k, v)), "four"),
    },
    "looks_ahead": {
        "never": (lambda forward, x: False, "did not see"),
        "always": (lambda forward, x: True, "honest"),
        "tries the last position only": (only_the_last_position, "position 0 sees position 1"),
        "looks at the first sequence only": (only_the_first_sequence, "second sequence"),
        "looks at the neighbour only": (only_the_neighbour, "position 0 sees position 5"),
        "forbids a position to see itself": (the_position_itself_too, "honest"),
    },
    "light_switch": {
        "too weak a memory": (switch(10.0, -10.0, 0.0, 0.5, -0.1), "went out by itself"),
        "too strong a memory": (switch(2.0, -2.0, 0.0, 10.0, -0.1), "stronger than the memory"),
        "lit at the start": (switch(10.0, -10.0, 0.0, 3.0, 0.1), "nobody has touched it"),
        "undecided at the start": (switch(10.0, -10.0, 0.0, 3.0, 0.0), "nobody has touched it"),
        "a bias that wins over the memory": (switch(20.0, -20.0, 0.0, 3.0, -5.0), "went out by itself"),
        "leaving it is off": (switch(10.0, -10.0, -10.0, 3.0, 0.0), "went out by itself"),
        "on and off exchanged": (switch(-10.0, 10.0, 0.0, 3.0, -0.1), "must light"),
        "zeros": (switch(0.0, 0.0, 0.0, 0.0, 0.0), "must light"),
        "of another shape": (lambda: (np.zeros((1, 3)), np.zeros((1, 1)), np.zeros(1)), "shape"),
    },
    "previous_place": {
        "itself": (one_hot_head(0, 50.0), "looks at itself"),
        "shifted the wrong way": (one_hot_head(1, 50.0), "weight of"),
        "not sharp": (one_hot_head(-1, 1.0), "weight of"),
        "two back": (one_hot_head(-2, 50.0), "weight of"),
        "zeros": (one_hot_head(-1, 0.0), "weight of"),
        "sharp for short sequences only": (one_hot_head(-1, 7.0), "40 positions"),
        "weights for queries and keys": (lambda num_positions: np.eye(num_positions, k=-1), "two arrays"),
        "one position short": (lambda num_positions: (np.eye(num_positions - 1), np.eye(num_positions - 1)), "must be"),
    },
    "report_score": {
        "best of all seeds": (report_of(lambda v, t: np.unravel_index(v.argmax(), v.shape)[0], lambda v, t: t.max(),
                                        lambda t: t.std(ddof=1)), "lucky"),
        "rate chosen on test data": (report_of(lambda v, t: t.mean(axis=1).argmax(), lambda v, t: t.mean(),
                                               lambda t: t.std(ddof=1)), "on test data"),
        "best seed of the right rate": (report_of(best_mean_validation, lambda v, t: t.max(), lambda t: t.std(ddof=1)),
                                        "best of several"),
        "validation score": (report_of(best_mean_validation, lambda v, t: v.mean(), lambda t: t.std(ddof=1)), "validation"),
        "median": (report_of(best_mean_validation, lambda v, t: np.median(t), lambda t: t.std(ddof=1)), "mean of the chosen"),
        "divided by N": (report_of(best_mean_validation, lambda v, t: t.mean(), lambda t: t.std()), "N - 1"),
        "range for spread": (report_of(best_mean_validation, lambda v, t: t.mean(), np.ptp), "spread should be"),
        "always the middle rate": (lambda v, t: (1, t[1].mean(), t[1].std(ddof=1)), "rate"),
    },
    "measured_gradient": {
        "forward difference": (by_steps(lambda f, x, row: (f(x + 1e-8 * row) - f(x)) / 1e-8), "digits are lost"),
        "central difference": (by_steps(lambda f, x, row: (f(x + 1e-6 * row) - f(x - 1e-6 * row)) / 2e-6), "digits are lost"),
        "h too large": (by_steps(lambda f, x, row: f(x + 1e-4j * row).imag / 1e-4), "h too large"),
        "not divided": (by_steps(lambda f, x, row: f(x + 1e-20j * row).imag), "divided by h"),
        "all elements moved at once": (by_steps(lambda f, x, row: f(x + 1e-20j).imag / 1e-20), "moved alone"),
        "the whole number": (by_steps(lambda f, x, row: f(x + 1e-20j * row) / 1e-20), "imaginary part"),
        "one number": (lambda f, x: f(x + 1e-20j).imag / 1e-20, "shape"),
        "writes into x": (step_in_place, "lent to you"),
    },
    "is_right": {
        "equal to the bit": (lambda a, n, scale: np.array_equal(a, n), "rounding only"),
        "naive relative error": (lambda a, n, scale: bool((np.abs(a - n) <= 1e-9 * np.abs(n)).all()), "false alarm"),
        "allclose, loose": (lambda a, n, scale: np.allclose(a, n, rtol=1e-3, atol=1e-5), "off by 1e-6"),
        "absolute": (lambda a, n, scale: bool(np.abs(a - n).max() <= 1e-9), "does not know the scale"),
        "mean error": (lambda a, n, scale: bool(np.abs(a - n).mean() <= 1e-7 * scale), "largest error"),
        "no error is large": (lambda a, n, scale: not (np.abs(a - n) > 1e-9 * scale).any(), "NaN"),
        "broadcasts": (lambda a, n, scale: bool((np.abs(a - n) <= 1e-9 * scale).all()), "missing sum"),
        "always": (lambda a, n, scale: True, "factor of 2"),
    },
    "telling_inputs": {
        "fresh weights": (ordinary_inputs(0.05, np.ones(5)), "without the variance term"),
        "numbers near 1": (ordinary_inputs(), "forgets eps"),
        "a gain of 0": (ordinary_inputs(0.05, np.zeros(5)), "still passes"),
        "a gain that sums to 0": (ordinary_inputs(0.05, [0.5, -1.0, 2.0, -1.5, 0.0]), "without the mean term"),
        "one column": (ordinary_inputs(0.05, [2.0], 1), "still passes"),
        "two arrays": (lambda: ordinary_inputs()()[:2], "three arrays"),
    },
}


def test_every_exercise_has_wrong_answers():
    assert set(WRONG) == {exercise for _, exercise in EXERCISES}
    assert min(len(answers) for answers in WRONG.values()) >= 5


@pytest.mark.parametrize(("exercise", "mistake"), [(exercise, mistake) for exercise in WRONG for mistake in WRONG[exercise]])
def test_grader_sends_a_wrong_answer_back_with_a_hint(exercise, mistake):
    lesson = next(lesson for lesson, name in EXERCISES if name == exercise)
    answer, hint = WRONG[exercise][mistake]
    graded = verdict(lesson, exercise, answer)
    assert not graded.ok
    assert hint in graded.says
