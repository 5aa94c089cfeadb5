"""Fit linear classifiers to their exact optimum: softmax regression and the multiclass SVM, on NumPy features."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .descent import minimize_function
from .linear_objective import LOSSES, LinearObjective
from .minimum import Minimum
from .preconditioner import CURVATURE, Preconditioner, PrincipalAxes, principal_axes


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Hold a fitted linear classifier, scores = features · kernel + bias.

    Attributes:
        kernel: (channels, classes).
        bias: (classes,).
        minimum: The result of the minimisation.
    """

    kernel: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    minimum: Minimum

    def __repr__(self) -> str:
        channels, classes = self.kernel.shape
        return f"LinearFit({channels} channels, {classes} classes, {self.minimum!r})"

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return the scores (n, classes) of features (n, channels): logits of a softmax, margins of a hinge."""
        return features @ self.kernel + self.bias


def fit_linear(
    features: np.ndarray,
    targets: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    l2: float = 0.0,
    l1: float = 0.0,
    loss: str = "softmax",
    classes: int | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
) -> LinearFit:
    """Fit the linear classifier that minimises Σ wᵢ lossᵢ / Σ wᵢ + l2/2 · Σ kernel² + l1 · Σ |kernel|.

    The softmax loss is −log softmax(scores)_y. The hinge loss, for the multiclass SVM, is Σ_{j≠y} max(0, s_j − s_y +
    1). The method is L-BFGS preconditioned with the features' principal axes, or OWL-QN under an L1 penalty. Matrices
    are first multiplied in float32 and summed over chunks in float64. Once the gradient is small, float64 is used for
    both until the gradient is below the tolerance. The same input gives the same bits on one machine. The features are
    not copied and may be a memory map; other memory is about thirty times the kernel.

    Args:
        features: (n, channels), of any real type. The penalty depends on their scale: standardise them, or use l2 · s²
            for features that are s times too large.
        targets: (n,) integer classes, or for softmax (n, classes) probabilities.
        sample_weight: (n,) weights wᵢ, not negative; n / (classes · count of the example's class) balances classes.
        l2: penalty on the squared kernel.
        l1: penalty on the absolute kernel. The bias has no penalty.
        loss: "softmax" or "hinge".
        classes: number of classes; default: the largest target + 1.
        start: (kernel (channels, classes), bias (classes,)), for example the optimum under a stronger penalty. A start
            that is worse than 0 is replaced by 0.
        tolerance: largest component of the gradient at convergence. At a kink of the hinge, no gradient vanishes.
        max_iterations: largest number of steps, in both precisions together.

    Returns:
        The `LinearFit`.

    Raises:
        ValueError: If shapes, classes, weights or penalties are wrong, values are NaN or infinite, or the loss is
            unknown.

    Example:
        `fit_linear(features, labels, l2=1e-3).kernel`
    """
    options = {"l1": l1, "loss": loss, "classes": classes, "tolerance": tolerance, "max_iterations": max_iterations}
    return fit_linear_path(features, targets, [l2], sample_weight, start=start, **options)[0]


def fit_linear_path(
    features: np.ndarray,
    targets: np.ndarray,
    l2_path: Sequence[float],
    sample_weight: np.ndarray | None = None,
    *,
    l1: float = 0.0,
    loss: str = "softmax",
    classes: int | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
) -> list[LinearFit]:
    """Run `fit_linear` for each penalty of `l2_path`, starting each fit at the previous one.

    Put strong penalties first. The principal axes are computed once for all penalties, and every start provides the
    curvature for the next fit. Arguments and errors are those of `fit_linear`; `max_iterations` and `tolerance` apply
    to each fit.

    Returns:
        One `LinearFit` for each penalty.

    Example:
        `[f.minimum.loss for f in fit_linear_path(features, labels, [1.0, 0.1, 0.01])]`
    """
    for name, penalty in (("l1", l1), *(("l2", l2) for l2 in l2_path)):
        if not 0 <= penalty < np.inf:
            raise ValueError(f"{name} must be finite and not negative. Got {penalty}.")
    objective = _objective(features, targets, sample_weight, classes, loss)
    weights = _start(start, objective.shape)
    reduced, basis = (objective, None) if l1 else _in_span(objective)
    # a reduction would mix the orthants of OWL-QN
    axes = None if l1 else principal_axes(reduced.chunks, reduced.shape[0] - 1)
    problem = _Problem(objective, reduced, basis, axes, l1, tolerance, max_iterations)
    fits = []
    for l2 in l2_path:
        minimum = problem.minimum(*_usable_start(objective, weights, l2), l2)
        weights = minimum.x.reshape(objective.shape)
        fits.append(LinearFit(weights[:-1].copy(), weights[-1].copy(), minimum))
    return fits


@dataclass(frozen=True, eq=False)
class _Problem:
    """Hold what the fits of one path of penalties share.

    Attributes:
        objective: The loss over the features.
        reduced: The loss over coordinates in the span of the features' rows, or `objective` itself.
        basis: (channels, n), the orthonormal basis of the span; None if `reduced` is `objective`.
        axes: The principal axes of the reduced features; None under an L1 penalty.
    """

    objective: LinearObjective
    reduced: LinearObjective
    basis: np.ndarray | None
    axes: PrincipalAxes | None
    l1: float
    tolerance: float
    max_iterations: int

    def minimum(self, weights: np.ndarray, curvature: float, l2: float) -> Minimum:
        """Fit in float32 within the span of the rows, then in float64 on the features."""
        penalty = np.zeros(self.objective.shape)
        penalty[:-1] = self.l1
        options = {"dtype": np.float32, "l1": penalty.ravel() if self.l1 else 0.0}
        precondition = self.axes.inverse_hessian(curvature, l2, self.objective.shape[1]) if self.axes else None
        rough = minimize_function(
            self.reduced.value_and_gradient(l2, np.float32), self._into_span(weights),
            tolerance=0.9 * max(self.tolerance, 1e-5), precision=1e-7, max_iterations=self.max_iterations,
            preconditioner=precondition, **options,
        )  # fmt: skip
        exact = minimize_function(
            self.objective.value_and_gradient(l2, np.float64), self._out_of_span(rough.x), tolerance=self.tolerance,
            max_iterations=self.max_iterations - rough.iterations, preconditioner=self._on_features(precondition),
            **options,
        )  # fmt: skip
        iterations = rough.iterations + exact.iterations
        message = exact.message
        if iterations == self.max_iterations and not exact.converged:
            message = f"stopped at max_iterations={self.max_iterations}, gradient {exact.gradient_norm:.1e}"
        evaluations = rough.evaluations + exact.evaluations
        return replace(exact, message=message, iterations=iterations, evaluations=evaluations)

    def _on_features(self, precondition: Preconditioner | None) -> Preconditioner | None:
        """Return the preconditioner for weights of the original features."""
        if self.basis is None or precondition is None:
            return precondition
        return lambda v: self._out_of_span(precondition(self._into_span(v.reshape(self.objective.shape)).ravel()))

    def _into_span(self, weights: np.ndarray) -> np.ndarray:
        return weights if self.basis is None else np.concatenate([self.basis.T @ weights[:-1], weights[-1:]])

    def _out_of_span(self, flat: np.ndarray) -> np.ndarray:
        if self.basis is None:
            return flat
        weights = flat.reshape(self.reduced.shape)
        return np.concatenate([self.basis @ weights[:-1], weights[-1:]]).ravel()


def _objective(
    features: np.ndarray, targets: np.ndarray, sample_weight: Any, classes: int | None, loss: str
) -> LinearObjective:
    features, targets = np.asanyarray(features), np.asarray(targets)
    if features.ndim != 2 or targets.ndim not in (1, 2) or len(features) != len(targets) or not len(features):
        raise ValueError(
            f"features must be (n, channels) with n ≥ 1, and targets must have as many rows. Got {features.shape} and "
            f"{targets.shape}."
        )
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}. Got {loss!r}.")
    if targets.ndim == 2 and loss == "hinge":
        raise ValueError(
            "The hinge loss needs one class per example. Pass targets as integers (n,), not as probabilities."
        )
    if targets.ndim == 1:
        targets = _whole(targets)
        classes = classes or int(targets.max()) + 1
        if targets.min() < 0 or targets.max() >= classes:
            raise ValueError(f"targets must be classes 0 … {classes - 1}. Got {targets.min()} … {targets.max()}.")
    elif classes not in (None, targets.shape[1]):
        raise ValueError(
            f"classes={classes}, but targets are probabilities of {targets.shape[1]} classes. Pass the "
            f"same number, or leave classes out."
        )
    weights = _weights(sample_weight, len(features))
    return LinearObjective(features, targets, weights, classes or targets.shape[1], loss)


def _whole(targets: np.ndarray) -> np.ndarray:
    """Return class numbers as integers; 1.0 is accepted as 1, and 1.5 is an error."""
    whole = targets.astype(np.int64)
    if targets.dtype.kind not in "iub" and not (whole == targets).all():
        raise ValueError(
            f"targets (n,) must be whole class numbers. Got {targets[whole != targets][0]!r} of type "
            f"{targets.dtype}; pass probabilities as (n, classes)."
        )
    return whole


def _weights(sample_weight: Any, n: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n, np.float32)
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (n,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(
            f"sample_weight must be ({n},) finite numbers, none negative and some positive. Got shape {weights.shape}"
            + (f", {weights.min()} … {weights.max()}." if weights.size else ".")
        )
    return (weights / weights.mean()).astype(np.float32)


def _start(start: tuple[np.ndarray, np.ndarray] | None, shape: tuple[int, int]) -> np.ndarray:
    weights = np.zeros(shape)
    if start is not None:
        kernel, bias = (np.asarray(part) for part in start)
        if kernel.shape != (shape[0] - 1, shape[1]) or bias.shape != shape[1:]:
            raise ValueError(
                f"start must be (kernel {(shape[0] - 1, shape[1])}, bias {shape[1:]}). "
                f"Got {kernel.shape} and {bias.shape}."
            )
        weights[:-1], weights[-1] = kernel, bias
    return weights


def _usable_start(objective: LinearObjective, weights: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """Return the start, or 0 if that is better, and the loss's mean second derivative by the scores.

    For a fitted start, the curvature is measured at the start. For 0, the typical value of an optimum is used. One
    number is used for all classes: separate numbers would let steps leave the space of kernels with sum 0, where all
    gradients lie.
    """
    classes = objective.shape[1]
    expected = CURVATURE * (1 - 1 / classes) / classes if classes > 1 else 1.0
    if objective.loss != "softmax" or not weights.any():
        return weights, expected
    value, curvature = objective.loss_and_curvature(weights)
    if not value + l2 / 2 * np.vdot(weights[:-1], weights[:-1]) < np.log(classes):
        return np.zeros_like(weights), expected
    return weights, max(curvature, 1e-4 * expected)


def _in_span(objective: LinearObjective) -> tuple[LinearObjective, np.ndarray | None]:
    """Return the objective over coordinates in the span of the rows, and their basis (channels, n).

    If the reduction would cost more than it saves, return (objective, None). The reduction is exact, because a squared
    penalty leaves no part of the kernel outside the span.
    """
    features = objective.features
    n, channels = features.shape
    if 2 * n > channels or n > max(128, 10 * objective.shape[1]):  # the factorisation costs n · n · channels
        return objective, None
    basis, coordinates = np.linalg.qr(np.asarray(features, np.float32).T)
    rows = np.ascontiguousarray(coordinates.T)
    return LinearObjective(rows, objective.targets, objective.weights, objective.shape[1], objective.loss), basis
