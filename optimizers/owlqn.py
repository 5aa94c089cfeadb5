"""OWL-QN: L-BFGS under an L1 penalty, one orthant at a time."""

import numpy as np

from .lbfgs import LBFGS


def pseudo_gradient(x: np.ndarray, gradient: np.ndarray, l1: np.ndarray) -> np.ndarray:
    """The steepest one-sided slope of f + Σ l1ᵢ|xᵢ|; 0 where neither side leads down (Andrew and Gao, 2007, eq. 4)."""
    at_zero = np.sign(gradient) * np.maximum(np.abs(gradient) - l1, 0)
    return np.where(x == 0, at_zero, gradient + l1 * np.sign(x))


def owlqn(function, x, value, gradient, model: LBFGS, l1, tolerance, max_iterations, precision):
    """Minimise f(x) + Σ l1ᵢ|xᵢ| from x, where f and ∇f are `value` and `gradient`.

    A step never leaves the orthant it starts in: components that would change sign become exactly 0.
    Returns (x, penalised value, largest |pseudo-gradient|, iterations, message).
    """
    total, fresh = value + (l1 * np.abs(x)).sum(), True
    for iteration in range(max_iterations + 1):
        steepest = pseudo_gradient(x, gradient, l1)
        norm = np.abs(steepest).max(initial=0.0)
        if norm <= tolerance:
            return x, total, norm, iteration, f"converged: pseudo-gradient {norm:.1e} ≤ tolerance {tolerance:.1e}"
        if iteration == max_iterations:
            break
        found = _backtrack(function, x, total, steepest, model, l1, precision)
        if found is None and not fresh:
            model.reset()
            found = _backtrack(function, x, total, steepest, model, l1, precision)
        if found is None:
            return x, total, norm, iteration, f"no step lowers the loss measurably (pseudo-gradient {norm:.1e})"
        new, total, new_gradient = found
        model.update(new - x, new_gradient - gradient)
        x, gradient, fresh = new, new_gradient, False
    return x, total, norm, max_iterations, f"stopped at max_iterations={max_iterations}, pseudo-gradient {norm:.1e}"


def _backtrack(function, x, total, steepest, model, l1, precision):
    """(x, penalised value, gradient) after the first of the steps 1, ½, ¼, … that lowers the penalised value enough."""
    direction, step = model.direction(x, steepest)
    penalised = l1 > 0
    direction[penalised & (direction * steepest >= 0)] = 0.0
    orthant = np.where(x == 0, -np.sign(steepest), np.sign(x))
    for _ in range(30):
        new = x + step * direction
        new[penalised & (new * orthant < 0)] = 0.0
        value, gradient = function(new)
        new_total = value + (l1 * np.abs(new)).sum()
        expected = steepest @ (new - x)
        if expected < 0 and new_total <= total + 1e-4 * expected + precision * abs(total):
            return new, new_total, gradient
        step *= 0.5
    return None
