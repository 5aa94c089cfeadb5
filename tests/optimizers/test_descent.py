"""Minimisers of NumPy functions against SciPy, on Rosenbrock, an ill-conditioned quadratic, and under an L1 penalty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import minimize_function
from optimizers.lbfgs import LBFGS
from optimizers.line_search import Point, strong_wolfe

scipy_optimize = pytest.importorskip("scipy.optimize")


def rosenbrock(x):
    return scipy_optimize.rosen(x), scipy_optimize.rosen_der(x)


@pytest.mark.parametrize("method", ["lbfgs", "newton-cg", "bfgs"])
def test_rosenbrock(method):
    found = minimize_function(rosenbrock, np.tile([-1.2, 1.0], 2), method=method, tolerance=1e-8)
    reference = scipy_optimize.minimize(
        rosenbrock, np.tile([-1.2, 1.0], 2), jac=True, method="L-BFGS-B", options={"gtol": 1e-8}
    )
    assert found.converged and found.gradient_norm <= 1e-8
    assert found.loss <= reference.fun + 1e-12
    assert found.gradient_norm == pytest.approx(np.abs(rosenbrock(found.x)[1]).max())


@pytest.mark.parametrize("method, limit", [("lbfgs", 20_000), ("newton-cg", 100), ("bfgs", 600)])
def test_ill_conditioned_quadratic(method, limit):
    """Condition number 1e6 in a rotated basis."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    hessian = basis * np.geomspace(1, 1e6, 20) @ basis.T
    minimum = rng.normal(size=20)
    found = minimize_function(
        lambda x: ((x - minimum) @ hessian @ (x - minimum) / 2, hessian @ (x - minimum)),
        np.zeros(20), method=method, tolerance=1e-4, max_iterations=limit,
    )  # fmt: skip
    assert found.converged
    np.testing.assert_allclose(found.x, minimum, atol=2e-4)


def test_preconditioner_makes_the_quadratic_easy():
    scales = np.geomspace(1, 1e6, 50)
    found = minimize_function(
        lambda x: ((scales * x * x).sum() / 2, scales * x),
        np.ones(50),
        preconditioner=lambda v: v / scales,
        tolerance=1e-8,
    )
    assert found.converged and found.iterations <= 60
    plain = minimize_function(lambda x: ((scales * x * x).sum() / 2, scales * x), np.ones(50), max_iterations=60)
    assert not plain.converged and "max_iterations=60" in plain.message


def test_exact_hessian_products_equal_differences():
    options = {"method": "newton-cg", "tolerance": 1e-6}
    start = np.tile([-1.2, 1.0], 3)
    exact = minimize_function(rosenbrock, start, hessian_product=scipy_optimize.rosen_hess_prod, **options)
    differences = minimize_function(rosenbrock, start, **options)
    np.testing.assert_allclose(exact.x, differences.x, atol=1e-5)
    assert exact.evaluations < differences.evaluations


def test_two_loop_recursion_is_the_bfgs_matrix():
    """With memory for all pairs, H is the product form of BFGS from s·y / y·y · I."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    a = a @ a.T + np.eye(6)
    model, pairs = LBFGS(memory=5), [(s, a @ s) for s in rng.normal(size=(5, 6))]
    for s, y in pairs:
        model.update(s, y)
    s, y = pairs[-1]
    h = np.eye(6) * (s @ y) / (y @ y)
    for s, y in pairs:
        v = np.eye(6) - np.outer(s, y) / (s @ y)
        h = v @ h @ v.T + np.outer(s, s) / (s @ y)
    g = rng.normal(size=6)
    np.testing.assert_allclose(model.direction(g, g)[0], -h @ g, rtol=1e-10)


@settings(max_examples=100, deadline=None)
@given(st.floats(-3, 3), st.floats(0.05, 20), st.floats(1e-3, 1e3), st.integers(0, 2))
def test_line_search_satisfies_strong_wolfe(shift, curvature, step, kind):
    """On a quadratic, a quartic and log cosh along a line, from any first step."""
    functions = [
        lambda z: (curvature * z * z / 2, curvature * z),
        lambda z: (curvature * z**4, 4 * curvature * z**3),
        lambda z: (curvature * np.logaddexp(z, -z), curvature * np.tanh(z)),
    ]

    def evaluate(at):
        value, slope = functions[kind](at - abs(shift) - 0.1)
        return Point(at, value, slope, np.array([at]), np.array([slope]))

    start = evaluate(0.0)
    point = strong_wolfe(evaluate, start, step, max_evaluations=60)
    assert point.value <= start.value + 1e-4 * point.step * start.slope + 1e-12
    assert abs(point.slope) <= 0.9 * abs(start.slope)


def test_line_search_survives_nan_and_refuses_ascent():
    def evaluate(at):
        with np.errstate(invalid="ignore", divide="ignore"):
            return Point(
                at,
                at - np.log(2 - at) * -0.0 + np.log(1.5 - at) * -1 - 2 * at,
                np.nan if at >= 1.5 else -1 + 1 / (1.5 - at),
                None,
                None,
            )

    start = evaluate(0.0)
    point = strong_wolfe(evaluate, start, 100.0, max_evaluations=60)
    assert 0 < point.step < 1.5 and abs(point.slope) <= 0.9 * abs(start.slope)
    with pytest.raises(ValueError, match="descent"):
        strong_wolfe(evaluate, Point(0.0, 0.0, 1.0, None, None), 1.0)


def test_l1_on_a_quadratic_is_soft_thresholding():
    rng = np.random.default_rng(0)
    target, scales = rng.normal(size=30), np.geomspace(0.1, 10, 30)
    found = minimize_function(
        lambda x: ((scales * (x - target) ** 2).sum() / 2, scales * (x - target)), np.ones(30), l1=0.5, tolerance=1e-10
    )
    exact = np.sign(target) * np.maximum(np.abs(target) - 0.5 / scales, 0)
    assert found.converged
    np.testing.assert_allclose(found.x, exact, atol=1e-8)
    np.testing.assert_array_equal(found.x == 0, exact == 0)


def test_kinks_are_reported_and_not_hidden():
    found = minimize_function(lambda x: (np.abs(x).sum(), np.sign(x)), np.array([1.0, 0.3]))
    assert not found.converged and "kink" in found.message


def test_mistakes_are_named():
    def bowl(x):
        return x @ x, 2 * x

    with pytest.raises(ValueError, match="5,000 parameters"):
        minimize_function(bowl, np.ones(6000), method="bfgs")
    with pytest.raises(ValueError, match="l1 must not be negative"):
        minimize_function(bowl, np.ones(3), l1=-1.0)
    with pytest.raises(ValueError, match="OWL-QN"):
        minimize_function(bowl, np.ones(3), method="bfgs", l1=1.0)
    with pytest.raises(ValueError, match="Start at another point"):
        minimize_function(lambda x: (np.nan, x), np.ones(3))
