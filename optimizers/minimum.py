"""What the minimisers of functions of a NumPy vector share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

Function: TypeAlias = Callable[[np.ndarray], tuple[float, np.ndarray]]  # x (n,) → (f, ∇f (n,))


@dataclass(frozen=True, eq=False)
class Minimum:
    """The end of a minimisation.

    Attributes:
        loss: The value of the function, penalties included.
        gradient_norm: The largest absolute component of the gradient (of the pseudo-gradient, under an L1 penalty).
        iterations: The number of steps.
        evaluations: The number of evaluations of the function and its gradient.
        converged: Whether `gradient_norm` is at most the tolerance.
        message: Why the minimisation stopped.
        x: (n,), the parameters.
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
    """When a minimisation ends.

    Attributes:
        tolerance: The largest component of the gradient at which it has converged.
        max_iterations: The largest number of steps.
        precision: The relative rounding error of the function.
    """

    tolerance: float
    max_iterations: int
    precision: float


class CurvatureModel(Protocol):
    """An estimate of the Hessian that proposes directions."""

    def reset(self) -> None:
        """Forget all steps."""
        ...

    def update(self, s: np.ndarray, y: np.ndarray) -> None:
        """Learn from a step s = Δx with y = Δgradient."""
        ...

    def direction(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Return a direction of descent, and the first step along it to try."""
        ...


class CountedFunction:
    """A function that counts its calls and returns float64."""

    def __init__(self, function: Function):
        self.function, self.calls = function, 0

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        value, gradient = self.function(x)
        return float(value), np.asarray(gradient, np.float64).ravel()
