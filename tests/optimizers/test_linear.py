"""fit_linear against scikit-learn at the same objective, a linear program for the hinge loss, and its own gradient."""

import numpy as np
import pytest

from optimizers import fit_linear
from optimizers.linear import _Problem

sklearn = pytest.importorskip("sklearn.linear_model")


def data(n=1300, channels=20, classes=5, seed=0):
    """Correlated, shifted features of very different scales, more than one chunk."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, channels)) @ rng.normal(size=(channels, channels)) * np.geomspace(0.05, 3, channels) + 2
    scores = x @ rng.normal(size=(channels, classes)) / 5 + 2 * rng.gumbel(size=(n, classes))
    return x.astype("float32"), scores.argmax(1)


def objective(fit, x, y, l2=0.0, l1=0.0):
    scores = x.astype(float) @ fit.kernel + fit.bias
    nll = np.logaddexp.reduce(scores, 1) - scores[np.arange(len(y)), y]
    return nll.mean() + l2 / 2 * (fit.kernel**2).sum() + l1 * np.abs(fit.kernel).sum()


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_softmax_reaches_scikit_learns_optimum(l2):
    x, y = data()
    fit = fit_linear(x, y, l2=l2, tolerance=1e-6)
    reference = sklearn.LogisticRegression(C=1 / (l2 * len(x)), tol=1e-7, max_iter=5000).fit(x.astype(float), y)
    reference.kernel, reference.bias = reference.coef_.T, reference.intercept_
    assert fit.minimum.converged and fit.minimum.gradient_norm <= 1e-6
    assert fit.minimum.loss == pytest.approx(objective(reference, x, y, l2), rel=1e-7)
    assert fit.minimum.loss == pytest.approx(objective(fit, x, y, l2), rel=1e-12)


def test_elastic_net_reaches_scikit_learns_optimum():
    x, y = data(400, 8, 3)
    fit = fit_linear(x, y, l2=0.01, l1=0.02, tolerance=1e-7, max_iterations=5000)
    weight, ratio = 0.03, 0.02 / 0.03
    reference = sklearn.LogisticRegression(
        penalty="elasticnet", solver="saga", l1_ratio=ratio, C=1 / (weight * len(x)), tol=1e-8, max_iter=20_000
    ).fit(x.astype(float), y)
    reference.kernel, reference.bias = reference.coef_.T, reference.intercept_
    assert fit.minimum.converged
    assert objective(fit, x, y, 0.01, 0.02) == pytest.approx(objective(reference, x, y, 0.01, 0.02), rel=1e-5)
    np.testing.assert_array_equal(fit.kernel == 0, np.abs(reference.kernel) < 1e-6)


def test_hinge_reaches_the_linear_programs_optimum():
    """min mean Σ ξ_ij + l1 Σ|w|, ξ_ij ≥ s_j − s_y + 1: with an L1 penalty the SVM is a linear program."""
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    n, d, k, l1 = 40, 3, 3, 0.05
    x, y = rng.normal(size=(n, d)).astype("float32"), rng.integers(k, size=n)
    pairs = [(i, j) for i in range(n) for j in range(k) if j != y[i]]
    weights = 2 * d * k + k  # positive and negative parts of the kernel, the bias
    rows = np.zeros((len(pairs), weights + len(pairs)))
    for row, (i, j) in enumerate(pairs):
        difference = np.zeros((d + 1, k))
        difference[:, j], difference[:, y[i]] = np.append(x[i], 1), -np.append(x[i], 1)
        kernel = difference[:-1].ravel()
        rows[row, :weights] = np.concatenate([kernel, -kernel, difference[-1]])
        rows[row, weights + row] = -1
    cost = np.concatenate([np.full(2 * d * k, l1), np.zeros(k), np.full(len(pairs), 1 / n)])
    bounds = [(0, None)] * (2 * d * k) + [(None, None)] * k + [(0, None)] * len(pairs)
    best = optimize.linprog(cost, rows, -np.ones(len(pairs)), bounds=bounds).fun
    fit = fit_linear(x, y, loss="hinge", l1=l1, max_iterations=2000)
    assert best * (1 - 1e-9) <= fit.minimum.loss <= best * 1.02


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_gradient_is_the_functions(loss):
    x, y = data(60, 4, 3)
    function = _Problem(x, y, 3, loss, 0.1).in_precision(np.float64)
    w = np.random.default_rng(1).normal(size=15)
    numeric = [(function(w + h)[0] - function(w - h)[0]) / 2e-6 for h in 1e-6 * np.eye(15)]
    np.testing.assert_allclose(function(w)[1], numeric, rtol=1e-5, atol=1e-6)


def test_soft_targets_equal_repeated_examples():
    x, y = data(80, 4, 3)
    soft = fit_linear(x, 0.75 * np.eye(3)[y] + 0.25 * np.eye(3)[(y + 1) % 3], l2=0.1, tolerance=1e-8)
    hard = fit_linear(np.tile(x, (4, 1)), np.concatenate([y, y, y, (y + 1) % 3]), l2=0.1, tolerance=1e-8)
    np.testing.assert_allclose(soft.kernel, hard.kernel, atol=1e-6)


def test_warm_start_saves_iterations():
    x, y = data()
    strong = fit_linear(x, y, l2=1e-2)
    cold, warm = fit_linear(x, y, l2=5e-3), fit_linear(x, y, l2=5e-3, start=(strong.kernel, strong.bias))
    assert warm.minimum.evaluations < cold.minimum.evaluations
    assert warm.minimum.loss == pytest.approx(cold.minimum.loss, rel=1e-7)


def test_memory_is_at_most_twice_the_features():
    """NumPy's allocations beyond the features themselves, at 5,000 × 320 and 25 classes."""
    import tracemalloc

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5000, 320)).astype("float32"), rng.integers(25, size=5000)
    tracemalloc.start()
    fit_linear(x, y, l2=0.01, max_iterations=15)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * x.nbytes


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ones((3, 2)), np.zeros(4, int)), "features must be"),
        ((np.ones((3, 2)), np.array([0, 1, -1])), "targets must be classes"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_linear(*arguments)
    with pytest.raises(ValueError, match="loss must be one of"):
        fit_linear(np.ones((3, 2)), np.zeros(3, int), loss="l2")
