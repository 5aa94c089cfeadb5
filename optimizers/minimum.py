"""Define what the minimisers of functions of a NumPy vector share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

Function: TypeAlias = Callable[[np.ndarray], tuple[float, np.ndarray]]  # x (n,) → (f, ∇f (n,))


@dataclass(frozen=True, eq=False)
class Minimum:
    """Hold the result of a minimisation.

    Attributes:
        loss: The value of the function, including penalties.
        gradient_norm: The largest absolute component of the gradient (of the pseudo-gradient, under an L1 penalty).
        iterations: The number of steps.
        evaluations: The number of evaluations of the function and its gradient.
        converged: Whether `gradient_norm` is at most the tolerance.
        message: Why the minimisation stopped.
        x: (n,), the parameters at the end.
    """

    loss: float
    gradient_norm: float
    iterations: int
    evaluations: int
    converged: bool
    message: str
    x: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Stopping:
    """Hold the conditions that end a minimisation.

    Attributes:
        tolerance: The largest component of the gradient at convergence.
        max_iterations: The largest number of steps.
        precision: The relative rounding error of the function.
    """

    tolerance: float
    max_iterations: int
    precision: float


class CurvatureModel(Protocol):
    """Propose directions by an estimate of the Hessian."""

    def reset(self) -> None:
        """Discard all steps."""
        ...

    def update(self, s: np.ndarray, y: np.ndarray) -> None:
        """Update the estimate by a step s = Δx with y = Δgradient."""
        ...

    def direction(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Return a direction of descent and the first step size to try along it."""
        ...


class CountedFunction:
    """Wrap a function so that its calls are counted and its values are float64."""

    def __init__(self, function: Function):
        self.function, self.calls = function, 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        value, gradient = self.function(x)
        return float(value), np.asarray(gradient, np.float64).ravel()
