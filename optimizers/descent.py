"""Minimise a smooth function of a NumPy vector, by L-BFGS, BFGS or truncated Newton."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .lbfgs import LBFGS
from .line_search import Point, strong_wolfe
from .newton import BFGS, NewtonCG
from .owlqn import owlqn

METHODS = ("lbfgs", "newton-cg", "bfgs")


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a minimisation stopped and why; `x` is the flat vector of parameters.

    `gradient_norm` is the largest absolute component of the gradient (of the pseudo-gradient, under an L1 penalty).
    """

    loss: float
    gradient_norm: float
    iterations: int
    evaluations: int
    converged: bool
    message: str
    x: np.ndarray = field(repr=False)


def minimize_function(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    method: str = "lbfgs",
    l1: float | np.ndarray = 0.0,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
    precision: float = 1e-15,
    **model_options,
) -> Minimum:
    """A local minimum of f(x) + Σ l1ᵢ|xᵢ|, x a flat vector.

    Converged means that no component of the gradient exceeds `tolerance`. With `l1`, OWL-QN (Andrew and Gao, 2007);
    otherwise every step satisfies the strong Wolfe conditions.

    Args:
        value_and_gradient: x (n,) → (f, ∇f (n,)).
        start: (n,), float64.
        method: "lbfgs", "newton-cg" or "bfgs" (n × n numbers).
        l1: a penalty, or one for each component; 0 spares it.
        precision: relative rounding error of f: 1e-15, or about 1e-7 where it is computed in float32.
        **model_options: of lbfgs `memory=10` and `preconditioner`, a function v (n,) → (n,) that multiplies by an
            approximate inverse Hessian; of newton-cg `hessian_product`, a function (x, v) → ∇²f(x) v, by default
            central differences of the gradient with `relative_step`, the cube root of its rounding error.

    Raises: ValueError for an unknown method, a negative l1, l1 with another method than lbfgs, or a start where f is
        not finite.

    Example: `minimize_function(lambda x: (x @ x / 2, x), np.ones(3)).x`
    """
    if not np.all(np.asarray(l1) >= 0):
        raise ValueError(f"l1 must not be negative. Got {np.min(l1)}.")
    x = np.array(start, np.float64).ravel()
    counted = _Counted(value_and_gradient)
    model = _model(method, counted, x.size, model_options)
    value, gradient = counted(x)
    if not np.isfinite(value) or not np.isfinite(gradient).all():
        raise ValueError(
            f"At the start the function is {value} and {np.sum(~np.isfinite(gradient))} components of its gradient are "
            "not finite. Start elsewhere, or scale the inputs."
        )
    if np.any(l1):
        if method != "lbfgs":
            raise ValueError(f"An L1 penalty needs method='lbfgs' (OWL-QN). Got method={method!r}.")
        result = owlqn(
            counted, x, value, gradient, model, np.broadcast_to(l1, x.shape), tolerance, max_iterations, precision
        )
    else:
        result = _descend(counted, Point(0.0, value, 0.0, x, gradient), model, tolerance, max_iterations, precision)
    x, value, norm, iterations, message = result
    return Minimum(float(value), float(norm), iterations, counted.calls, bool(norm <= tolerance), message, x)


class _Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, x):
        self.calls += 1
        value, gradient = self.function(x)
        return float(value), np.asarray(gradient, np.float64).ravel()


def _model(method, function, size, options):
    if method == "lbfgs":
        return LBFGS(**options)
    if method == "bfgs":
        return BFGS(size, **options)
    if method == "newton-cg":
        return NewtonCG(function, **options)
    raise ValueError(f"method must be one of {', '.join(METHODS)}. Got {method!r}.")


def _descend(function, at: Point, model, tolerance, max_iterations, precision):
    fresh = True  # whether the model has learnt nothing since its last reset
    for iteration in range(max_iterations + 1):
        norm = np.abs(at.gradient).max(initial=0.0)
        if norm <= tolerance:
            return at.x, at.value, norm, iteration, f"converged: gradient {norm:.1e} ≤ tolerance {tolerance:.1e}"
        if iteration == max_iterations:
            break
        found = _search(function, at, model, precision)
        if found is None and not fresh:
            model.reset()
            found = _search(function, at, model, precision)
        if found is None:
            message = (
                f"no step lowers the loss measurably (gradient {norm:.1e}): its rounding error, or a kink, is reached"
            )
            return at.x, at.value, norm, iteration, message
        model.update(found.x - at.x, found.gradient - at.gradient)
        at, fresh = found, False
    return at.x, at.value, norm, max_iterations, f"stopped at max_iterations={max_iterations}, gradient {norm:.1e}"


def _search(function, at: Point, model, precision) -> Point | None:
    direction, step = model.direction(at.x, at.gradient)
    slope = direction @ at.gradient
    if not slope < 0:
        return None

    def evaluate(step):
        x = at.x + step * direction
        value, gradient = function(x)
        return Point(step, value, gradient @ direction, x, gradient)

    start = Point(0.0, at.value, slope, at.x, at.gradient)
    return strong_wolfe(evaluate, start, step, noise=precision * max(abs(at.value), 1e-300))
