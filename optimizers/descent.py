"""Minimise a smooth function of a NumPy vector, by L-BFGS, BFGS or truncated Newton."""

from typing import Any

import numpy as np

from .lbfgs import LBFGS
from .line_search import Point, strong_wolfe
from .minimum import CountedFunction, CurvatureModel, Function, Minimum, Stopping
from .newton import BFGS, NewtonCG
from .owlqn import owlqn

METHODS = ("lbfgs", "newton-cg", "bfgs")


def minimize_function(
    value_and_gradient: Function,
    start: np.ndarray,
    *,
    method: str = "lbfgs",
    l1: float | np.ndarray = 0.0,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
    precision: float = 1e-15,
    **model_options: Any,
) -> Minimum:
    """Find a local minimum of f(x) + Σ l1ᵢ|xᵢ| over a flat vector x.

    The minimisation has converged when no component of the gradient exceeds `tolerance`. With `l1`, the method is
    OWL-QN (Andrew and Gao, 2007); otherwise every step satisfies the strong Wolfe conditions.

    Args:
        value_and_gradient: x (n,) → (f, ∇f (n,)).
        start: (n,), float64.
        method: "lbfgs", "newton-cg" or "bfgs", which stores n × n numbers.
        l1: one penalty, or one for each component; 0 means no penalty.
        tolerance: largest component of the gradient at convergence.
        max_iterations: largest number of steps.
        precision: relative rounding error of f: 1e-15, or about 1e-7 if it is computed in float32.
        **model_options: "lbfgs" takes `memory=10` and `preconditioner`, a function v (n,) → (n,) that multiplies by an
            approximate inverse Hessian. "newton-cg" takes `hessian_product`, a function (x, v) → ∇²f(x) v; the default
            is central differences of the gradient with `relative_step`, the cube root of the gradient's rounding error.

    Returns:
        The `Minimum`; `.converged` and `.message` say whether and why it stopped.

    Raises:
        ValueError: If `method` is unknown, `l1` is negative or used with another method than lbfgs, or f is NaN or
            infinite at the start.

    Example:
        `minimize_function(lambda x: (x @ x / 2, x), np.ones(3)).x`
    """
    if not np.all(np.asarray(l1) >= 0):
        raise ValueError(f"l1 must not be negative. Got {np.min(l1)}.")
    x = np.array(start, np.float64).ravel()
    function, stopping = CountedFunction(value_and_gradient), Stopping(tolerance, max_iterations, precision)
    model = _model(method, function, x.size, model_options)
    value, gradient = function(x)
    if not np.isfinite(value) or not np.isfinite(gradient).all():
        raise ValueError(
            f"At the start, the function is {value}, and {np.sum(~np.isfinite(gradient))} components of its gradient "
            f"are NaN or infinite. Start at another point, or scale the inputs."
        )
    at = Point(0.0, value, 0.0, x, gradient)
    if not np.any(l1):
        return _descend(function, at, model, stopping)
    if not isinstance(model, LBFGS):
        raise ValueError(f"An L1 penalty needs method='lbfgs' (OWL-QN). Got method={method!r}.")
    return owlqn(function, at, model, np.broadcast_to(l1, x.shape), stopping)


def _model(method: str, function: Function, size: int, options: dict[str, Any]) -> CurvatureModel:
    if method == "lbfgs":
        return LBFGS(**options)
    if method == "bfgs":
        return BFGS(size, **options)
    if method == "newton-cg":
        return NewtonCG(function, **options)
    raise ValueError(f"method must be one of {', '.join(METHODS)}. Got {method!r}.")


def _descend(function: CountedFunction, at: Point, model: CurvatureModel, stopping: Stopping) -> Minimum:
    iteration, fresh = 0, True  # fresh: the model has had no update since its last reset
    while True:
        norm = float(np.abs(at.gradient).max(initial=0.0))
        if norm <= stopping.tolerance:
            message = f"converged: gradient {norm:.1e} ≤ tolerance {stopping.tolerance:.1e}"
            break
        if iteration >= stopping.max_iterations:
            message = f"stopped at max_iterations={stopping.max_iterations}, gradient {norm:.1e}"
            break
        found = _search(function, at, model, stopping.precision)
        if found is None and not fresh:
            model.reset()
            found = _search(function, at, model, stopping.precision)
        if found is None:
            message = (
                f"no step lowers the loss by more than its rounding error (gradient {norm:.1e}); the minimum or a "
                f"kink is reached"
            )
            break
        model.update(found.x - at.x, found.gradient - at.gradient)
        at, fresh, iteration = found, False, iteration + 1
    return Minimum(at.value, norm, iteration, function.calls, norm <= stopping.tolerance, message, at.x)


def _search(function: Function, at: Point, model: CurvatureModel, precision: float) -> Point | None:
    direction, step = model.direction(at.x, at.gradient)
    slope: Any = direction @ at.gradient  # NumPy's stubs type the product of two vectors as an array
    if not slope < 0:
        return None

    def evaluate(step: float) -> Point:
        x = at.x + step * direction
        value, gradient = function(x)
        slope: Any = gradient @ direction
        return Point(step, value, slope, x, gradient)

    start = Point(0.0, at.value, slope, at.x, at.gradient)
    return strong_wolfe(evaluate, start, step, noise=precision * max(abs(at.value), 1e-300))
