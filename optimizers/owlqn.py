"""Minimise under an L1 penalty by OWL-QN, L-BFGS within one orthant at a time."""

from typing import Any

import numpy as np

from .lbfgs import LBFGS
from .line_search import Point
from .minimum import CountedFunction, Minimum, Stopping


def pseudo_gradient(x: np.ndarray, gradient: np.ndarray, l1: np.ndarray) -> np.ndarray:
    """Return the steepest one-sided slope of f + Σ l1ᵢ|xᵢ|; 0 if neither side descends.

    Source: Andrew and Gao, 2007, equation 4.
    """
    at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - l1, 0)
    return np.where(x == 0, at_zero, gradient + l1 * np.sign(x))


def owlqn(function: CountedFunction, at: Point, model: LBFGS, l1: np.ndarray, stopping: Stopping) -> Minimum:
    """Minimise f(x) + Σ l1ᵢ|xᵢ| from the point `at`, which has the value and gradient of f.

    A step never leaves its orthant; components that would change sign become exactly 0.
    """
    at = Point(at.step, at.value + (l1 * np.abs(at.x)).sum(), at.slope, at.x, at.gradient)
    iteration, fresh = 0, True
    while True:
        steepest = pseudo_gradient(at.x, at.gradient, l1)
        norm = float(np.abs(steepest).max(initial=0.0))
        if norm <= stopping.tolerance:
            message = f"converged: pseudo-gradient {norm:.1e} ≤ tolerance {stopping.tolerance:.1e}"
            break
        if iteration >= stopping.max_iterations:
            message = f"stopped at max_iterations={stopping.max_iterations}, pseudo-gradient {norm:.1e}"
            break
        found = _backtrack(function, at, steepest, model, l1, stopping.precision)
        if found is None and not fresh:
            model.reset()
            found = _backtrack(function, at, steepest, model, l1, stopping.precision)
        if found is None:
            message = f"no step lowers the loss by more than its rounding error (pseudo-gradient {norm:.1e})"
            break
        model.update(found.x - at.x, found.gradient - at.gradient)
        at, fresh, iteration = found, False, iteration + 1
    return Minimum(float(at.value), norm, iteration, function.calls, norm <= stopping.tolerance, message, at.x)


def _backtrack(
    function: CountedFunction, at: Point, steepest: np.ndarray, model: LBFGS, l1: np.ndarray, precision: float
) -> Point | None:
    """Return the point and its penalised value after the first step of 1, ½, ¼, … that lowers the value enough."""
    direction, step = model.direction(at.x, steepest)
    penalised = l1 > 0
    direction[penalised & (direction * steepest >= 0)] = 0.0
    orthant = np.where(at.x == 0, -np.sign(steepest), np.sign(at.x))
    for _ in range(30):
        x = at.x + step * direction
        x[penalised & (x * orthant < 0)] = 0.0
        value, gradient = function(x)
        total = value + (l1 * np.abs(x)).sum()
        expected: Any = steepest @ (x - at.x)  # NumPy's stubs type the product of two vectors as an array
        if expected < 0 and total <= at.value + 1e-4 * expected + precision * abs(at.value):
            return Point(step, total, expected / step, x, gradient)
        step *= 0.5
    return None
