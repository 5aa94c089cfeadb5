"""Implement Newton's method by conjugate gradients on Hessian-vector products, and BFGS, which stores a matrix."""

from collections.abc import Callable

import numpy as np

from .minimum import Function

LARGEST_MATRIX = 5_000
"""Maximum number of parameters, beyond which BFGS would need more than 200 MB."""


class NewtonCG:
    """Solve ∇²f d = −∇f by conjugate gradients, more exactly for smaller gradients (truncated Newton).

    The inner iteration stops at ‖residual‖ ≤ min(½, √‖∇f‖) ‖∇f‖, which makes convergence superlinear. It also stops at
    a direction of negative curvature (Nocedal and Wright, 2006, algorithm 7.1). One product costs one call of
    `hessian_product`, or two gradients.

    Args:
        function: x → (f, ∇f).
        hessian_product: (x, v) → ∇²f(x) v; default: central differences of the gradient.
        max_products: largest number of products per step.
        relative_step: relative step of the differences; best is the cube root of the gradient's rounding error.
    """

    def __init__(
        self,
        function: Function,
        hessian_product: Callable | None = None,
        max_products: int = 200,
        relative_step: float = 6e-6,
    ):
        self.product = hessian_product or (lambda x, v: _differences(function, x, v, relative_step))
        self.max_products = max_products

    def reset(self) -> None:
        """Do nothing: this model has no memory."""

    def update(self, s: np.ndarray, y: np.ndarray) -> None:
        """Do nothing: this model has no memory."""

    def direction(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        residual, solution = gradient.copy(), np.zeros_like(x)
        conjugate, square = -residual, gradient @ gradient
        enough = min(0.25, np.sqrt(square)) * square
        for _ in range(min(self.max_products, 2 * x.size)):
            product = self.product(x, conjugate)
            curvature = conjugate @ product
            if curvature <= 1e-14 * (conjugate @ conjugate):
                return (solution if solution.any() else conjugate), 1.0
            step = square / curvature
            solution = solution + step * conjugate
            residual = residual + step * product
            square, before = residual @ residual, square
            if square <= enough:
                break
            conjugate = -residual + square / before * conjugate
        return solution, 1.0


def _differences(function: Function, x: np.ndarray, v: np.ndarray, relative_step: float) -> np.ndarray:
    """Return ∇²f(x) v by central differences; the step balances truncation and rounding."""
    h = relative_step * (1 + np.linalg.norm(x)) / np.linalg.norm(v)
    return (function(x + h * v)[1] - function(x - h * v)[1]) / (2 * h)


class BFGS:
    """Estimate the inverse Hessian by an n × n matrix (Broyden, Fletcher, Goldfarb, Shanno, 1970)."""

    def __init__(self, size: int):
        if size > LARGEST_MATRIX:
            raise ValueError(
                f"method='bfgs' needs a {size:,} × {size:,} matrix; up to {LARGEST_MATRIX:,} parameters are allowed. "
                "Use method='lbfgs'."
            )
        self.size = size
        self.inverse: np.ndarray | None = None

    def reset(self) -> None:
        self.inverse = None

    def update(self, s: np.ndarray, y: np.ndarray) -> None:
        curvature = s @ y
        if curvature <= 1e-12 * np.linalg.norm(s) * np.linalg.norm(y):
            return
        if self.inverse is None:
            self.inverse = np.eye(self.size) * (curvature / (y @ y))
        hy = self.inverse @ y
        self.inverse += np.outer(s, s) * ((1 + y @ hy / curvature) / curvature)
        self.inverse -= (np.outer(hy, s) + np.outer(s, hy)) / curvature

    def direction(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        if self.inverse is None:
            return -gradient, min(1.0, 1 / max(np.abs(gradient).sum(), 1e-300))
        return -self.inverse @ gradient, 1.0
