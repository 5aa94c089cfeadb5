"""fit_linear against scikit-learn at the same objective, a linear program for the hinge loss, and its own gradient."""

import numpy as np
import pytest

from optimizers import fit_linear, fit_linear_path
from optimizers.linear_objective import LinearObjective

sklearn = pytest.importorskip("sklearn.linear_model")


@pytest.fixture(autouse=True)
def one_thread():
    """For matrices this small, threads cost more in waiting for each other than they save."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


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
    weights = np.linspace(0.5, 1.5, 60).astype("float32")
    function = LinearObjective(x, y, weights, 3, loss).value_and_gradient(0.1, np.float64)
    w = np.random.default_rng(1).normal(size=15)
    numeric = [(function(w + h)[0] - function(w - h)[0]) / 2e-6 for h in 1e-6 * np.eye(15)]
    np.testing.assert_allclose(function(w)[1], numeric, rtol=1e-5, atol=1e-6)


def test_soft_targets_equal_repeated_examples():
    x, y = data(80, 4, 3)
    soft = fit_linear(x, 0.75 * np.eye(3)[y] + 0.25 * np.eye(3)[(y + 1) % 3], l2=0.1, tolerance=1e-8)
    hard = fit_linear(np.tile(x, (4, 1)), np.concatenate([y, y, y, (y + 1) % 3]), l2=0.1, tolerance=1e-8)
    np.testing.assert_allclose(soft.kernel, hard.kernel, atol=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_sample_weights_equal_repeated_examples(loss):
    x, y = data(80, 4, 3)
    counts = np.arange(80) % 4
    repeated = LinearObjective(np.repeat(x, counts, 0), np.repeat(y, counts), np.ones(120, "f4"), 3, loss)
    weighted = LinearObjective(x, y, (counts * 80 / 120).astype("f4"), 3, loss)
    w = np.random.default_rng(1).normal(size=15)
    one, other = (o.value_and_gradient(0.1, np.float64)(w) for o in (weighted, repeated))
    assert one[0] == pytest.approx(other[0], rel=1e-7)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-6, atol=1e-7)
    if loss == "softmax":  # of the hinge's kinks the path taken decides which one ends it
        fits = [
            fit_linear(x, y, 0.3 * counts, l2=0.1, tolerance=1e-8),
            fit_linear(np.repeat(x, counts, 0), np.repeat(y, counts), l2=0.1, tolerance=1e-8),
        ]
        np.testing.assert_allclose(fits[0].kernel, fits[1].kernel, atol=1e-6)


def test_path_equals_single_fits_and_saves_evaluations():
    x, y = data()
    strengths = [1.0, 0.1, 0.01]
    path = fit_linear_path(x, y, strengths, tolerance=1e-6)
    alone = [fit_linear(x, y, l2=l2, tolerance=1e-6) for l2 in strengths]
    for one, other in zip(path, alone, strict=True):
        assert one.minimum.converged
        assert one.minimum.loss == pytest.approx(other.minimum.loss, rel=1e-8)
    assert sum(f.minimum.evaluations for f in path) < sum(f.minimum.evaluations for f in alone)


@pytest.mark.parametrize("classes, l2", [(2, 1e-2), (8, 1e-3)])
def test_fewer_examples_than_features(classes, l2):
    """The optimum lies in the span of the rows; with 8 classes the fit works in it. A useless start does no harm."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 120)) + 3).astype("float32")
    y = np.arange(40) % classes
    start = rng.normal(size=(120, classes)), rng.normal(size=classes)
    fit = fit_linear(x, y, l2=l2, tolerance=1e-7, start=start)
    # Of two classes scikit-learn's sigmoid has one vector, the softmax two opposite halves.
    c = (2 if classes == 2 else 1) / (l2 * 40)
    reference = sklearn.LogisticRegression(C=c, tol=1e-6, max_iter=5000).fit(x.astype(float), y)
    if classes == 2:
        reference.kernel = np.concatenate([-reference.coef_.T, reference.coef_.T], 1) / 2
        reference.bias = np.array([-reference.intercept_[0], reference.intercept_[0]]) / 2
    else:
        reference.kernel, reference.bias = reference.coef_.T, reference.intercept_
    assert fit.minimum.converged
    assert fit.minimum.evaluations < 150
    best = objective(reference, x, y, l2)
    assert best * (1 - 1e-5) < objective(fit, x, y, l2) < best * (1 + 1e-7)
    np.testing.assert_allclose(fit.kernel, reference.kernel, atol=3e-3)


def test_degenerate_features_do_no_harm():
    """Constant, duplicated and collinear columns, perfectly separable classes, a weak penalty."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    y = (x[:, 0] > 0).astype(int) + 2 * (x[:, 1] > 0)
    plain = fit_linear(x, y, l2=1e-5, tolerance=1e-7)
    degenerate = np.concatenate([x, x[:, :2], x @ rng.normal(size=(6, 4)), np.full((200, 1), 7.0)], 1)
    fit = fit_linear(degenerate.astype("float32"), y, l2=1e-5, tolerance=1e-7)
    assert plain.minimum.converged and fit.minimum.converged
    assert (fit.scores(degenerate).argmax(1) == y).mean() > 0.99
    np.testing.assert_allclose(fit.kernel[-1], 0, atol=2e-2)
    assert fit.minimum.loss < plain.minimum.loss  # more columns share the same scores at a lower penalty


def test_no_features_that_vary_and_one_class():
    fit = fit_linear(np.ones((9, 3)), np.array([0] * 6 + [1] * 3), l2=0.1, tolerance=1e-7)
    assert fit.minimum.converged and np.abs(fit.kernel).max() < 1e-3
    p = np.exp(fit.scores(np.ones((1, 3))))[0]
    np.testing.assert_allclose(p / p.sum(), [2 / 3, 1 / 3], atol=1e-6)
    only = fit_linear(np.ones((4, 3)), np.zeros(4, int), l2=0.1)
    assert only.minimum.converged and only.minimum.loss == 0


def test_separable_without_a_penalty_says_so():
    x = np.linspace(-1, 1, 40)[:, None]
    fit = fit_linear(x, (x[:, 0] > 0).astype(int), tolerance=1e-12, max_iterations=20)
    assert not fit.minimum.converged and "max_iterations=20" in fit.minimum.message


def test_same_input_same_bits():
    x, y = data(600, 80, 7)
    fits = [fit_linear(x.copy(), y, np.linspace(1, 2, 600), l2=1e-3) for _ in range(2)]
    np.testing.assert_array_equal(fits[0].kernel, fits[1].kernel)
    assert fits[0].minimum.evaluations == fits[1].minimum.evaluations


def test_preconditioner_is_the_inverse_hessian_of_few_features():
    """c Σ w x̃ x̃ᵀ / Σ w + l2 with x̃ = (x, 1), of correlated features whose mean is not 0; up to the ridge."""
    from optimizers.preconditioner import principal_axes

    x = data(500, 20, 2)[0]
    weights = np.linspace(0.5, 1.5, 500).astype("float32")
    axes = principal_axes(lambda: [(x[:300], weights[:300]), (x[300:], weights[300:])], 20)
    rows = np.concatenate([x, np.ones((500, 1))], 1).astype(float)
    hessian = 0.2 * rows.T @ (weights[:, None] * rows) / weights.sum() + np.diag([0.1] * 20 + [0.0])
    v = np.random.default_rng(0).normal(size=(21, 1))
    applied = axes.inverse_hessian(0.2, 0.1, 1)((hessian @ v).ravel())
    np.testing.assert_allclose(applied, v[:, 0], atol=1e-2)


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
        ((np.ones((3, 2)), np.array([0, 1, 1.5])), "whole class numbers. Got 1.5|whole class numbers. Got np.float64"),
        ((np.ones((3, 2)), np.zeros(3, int), np.ones(2)), "sample_weight must be"),
        ((np.ones((3, 2)), np.zeros(3, int), np.array([1, -1, 1])), "sample_weight must be"),
        ((np.full((3, 2), np.nan), np.zeros(3, int)), "NaN or infinite"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_linear(*arguments)
    with pytest.raises(ValueError, match="loss must be one of"):
        fit_linear(np.ones((3, 2)), np.zeros(3, int), loss="l2")
    for penalty in ({"l2": -1.0}, {"l1": -1.0}, {"l2": np.nan}):
        with pytest.raises(ValueError, match="finite and not negative"):
            fit_linear(np.ones((3, 2)), np.zeros(3, int), **penalty)
    with pytest.raises(ValueError, match=r"start must be \(kernel \(2, 1\)"):
        fit_linear(np.ones((3, 2)), np.zeros(3, int), start=(np.zeros((2, 2)), np.zeros(2)))
