"""Linear classifiers at their exact optimum: softmax regression and the multiclass SVM, on NumPy features."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .descent import Minimum, minimize_function
from .linear_objective import LOSSES, LinearObjective
from .preconditioner import CURVATURE, principal_axes


@dataclass(frozen=True, eq=False)
class LinearFit:
    """scores = features · kernel + bias, and the `Minimum` that they were found at."""

    kernel: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    minimum: Minimum

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n, classes) of features (n, channels): logits of a softmax, margins of a hinge."""
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
    """The linear classifier of least Σ wᵢ lossᵢ / Σ wᵢ + l2/2 · Σ kernel² + l1 · Σ |kernel|.

    Softmax: −log softmax(scores)_y. Hinge, the lecture's multiclass SVM: Σ_{j≠y} max(0, s_j − s_y + 1). By L-BFGS
    preconditioned with the features' principal axes (or OWL-QN, under an L1 penalty). Matrices are multiplied in
    float32 and summed over chunks in float64 until the gradient is small, then in float64 until it is below the
    tolerance. The same input gives the same bits on one machine. Memory: the features as they are given (a memory map
    too), and some thirty times the kernel.

    Args:
        features: (n, channels), of any real type. The penalty sees their scale: standardise them, or give l2 · s² for
            features that are s times too large.
        targets: (n,) integer classes, or for softmax (n, classes) probabilities.
        sample_weight: (n,), not negative; for balanced classes n / (classes · count of the example's class).
        l2, l1: penalties; the bias is free.
        loss: "softmax" or "hinge".
        classes: number of classes; by default the largest target + 1.
        start: (kernel (channels, classes), bias (classes,)), for instance the optimum under a stronger penalty. One
            that is worse than 0 is not used.
        tolerance: of the largest component of the gradient. The hinge has kinks, where no gradient vanishes.
        max_iterations: in both precisions together.

    Raises: ValueError for wrong shapes, classes, weights or penalties, values that are not finite, an unknown loss.

    Example: `fit_linear(features, labels, l2=1e-3).kernel`
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
    """One `fit_linear` per penalty of `l2_path`, each started at the one before: give strong penalties first.

    The features are looked at once for all penalties, and every start tells the next fit its curvature. Arguments and
    errors are those of `fit_linear`; `max_iterations` and `tolerance` hold for each fit.

    Example: `[f.minimum.loss for f in fit_linear_path(features, labels, [1.0, 0.1, 0.01])]`
    """
    for name, penalty in (("l1", l1), *(("l2", l2) for l2 in l2_path)):
        if not 0 <= penalty < np.inf:
            raise ValueError(f"{name} must not be negative, and finite. Got {penalty}.")
    objective = _objective(features, targets, sample_weight, classes, loss)
    weights = _start(start, objective.shape)
    reduced, basis = (objective, None) if l1 else _in_span(objective)
    axes = None if l1 else principal_axes(reduced.chunks, reduced.shape[0] - 1)  # would mix the orthants of OWL-QN
    fits = []
    for l2 in l2_path:
        weights, curvature = _judged(objective, weights, l2)
        minimum = _minimum(objective, reduced, basis, weights, l2, l1, axes, curvature, tolerance, max_iterations)
        weights = minimum.x.reshape(objective.shape)
        fits.append(LinearFit(weights[:-1].copy(), weights[-1].copy(), minimum))
    return fits


def _minimum(objective, reduced, basis, weights, l2, l1, axes, curvature, tolerance, max_iterations) -> Minimum:
    """In float32 within the span of the rows, then in float64 on the features themselves."""
    penalty = np.zeros(objective.shape)
    penalty[:-1] = l1
    options = {"dtype": np.float32, "l1": penalty.ravel() if l1 else 0.0}
    precondition = axes.inverse_hessian(curvature, l2, objective.shape[1]) if axes else None
    rough = minimize_function(
        reduced.value_and_gradient(l2, np.float32), _into(basis, weights), tolerance=0.9 * max(tolerance, 1e-5),
        precision=1e-7, max_iterations=max_iterations, preconditioner=precondition, **options,
    )  # fmt: skip
    if basis is not None:
        classes, within = objective.shape[1], precondition
        precondition = lambda v: _out(basis, within(_into(basis, v.reshape(-1, classes)).ravel()), classes)  # noqa: E731
    left = max_iterations - rough.iterations
    exact = minimize_function(
        objective.value_and_gradient(l2, np.float64), _out(basis, rough.x, objective.shape[1]), tolerance=tolerance,
        max_iterations=left, preconditioner=precondition, **options,
    )  # fmt: skip
    iterations = rough.iterations + exact.iterations
    out = iterations == max_iterations and not exact.converged
    return replace(
        exact,
        message=f"stopped at max_iterations={max_iterations}, gradient {exact.gradient_norm:.1e}"
        if out
        else exact.message,
        iterations=iterations,
        evaluations=rough.evaluations + exact.evaluations,
    )


def _objective(features, targets, sample_weight, classes, loss) -> LinearObjective:
    features, targets = np.asanyarray(features), np.asarray(targets)
    if features.ndim != 2 or targets.ndim not in (1, 2) or len(features) != len(targets) or not len(features):
        raise ValueError(
            f"features must be (n, channels) and targets as many, n ≥ 1. Got {features.shape} and {targets.shape}."
        )
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}. Got {loss!r}.")
    if targets.ndim == 2 and loss == "hinge":
        raise ValueError("The hinge loss needs one class per example: targets (n,) integers, not probabilities.")
    if targets.ndim == 1:
        targets = _whole(targets)
        classes = classes or int(targets.max()) + 1
        if targets.min() < 0 or targets.max() >= classes:
            raise ValueError(f"targets must be classes 0 … {classes - 1}. Got {targets.min()} … {targets.max()}.")
    elif classes not in (None, targets.shape[1]):
        raise ValueError(f"classes={classes}, but targets are probabilities of {targets.shape[1]} classes.")
    weights = _weights(sample_weight, len(features))
    return LinearObjective(features, targets, weights, classes or targets.shape[1], loss)


def _whole(targets) -> np.ndarray:
    """Class numbers as integers; 1.0 counts as 1, 1.5 as a mistake."""
    whole = targets.astype(np.int64)
    if targets.dtype.kind not in "iub" and not (whole == targets).all():
        raise ValueError(
            f"targets (n,) must be whole class numbers. Got {targets[whole != targets][0]!r} among {targets.dtype}; "
            "give probabilities as (n, classes)."
        )
    return whole


def _weights(sample_weight, n) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n, np.float32)
    weights = np.asarray(sample_weight, np.float64)
    if weights.shape != (n,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(
            f"sample_weight must be ({n},) finite numbers, none negative and some positive. Got shape {weights.shape}"
            + (f", {weights.min()} … {weights.max()}." if weights.size else ".")
        )
    return (weights / weights.mean()).astype(np.float32)


def _start(start, shape) -> np.ndarray:
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


def _judged(objective, weights, l2):
    """(weights, or 0 where they are worse than that; the mean second derivative of the loss by the scores).

    The curvature at a fitted start is its own, at 0 what experience expects of the optimum, and of a bad start useless.
    One number for all classes: with one for each, steps would leave the kernels of sum 0, where all gradients lie.
    """
    classes = objective.shape[1]
    expected = CURVATURE * (1 - 1 / classes) / classes if classes > 1 else 1.0
    if objective.loss != "softmax" or not weights.any():
        return weights, expected
    value, curvature = objective.loss_and_curvature(weights)
    if not value + l2 / 2 * np.vdot(weights[:-1], weights[:-1]) < np.log(classes):
        return np.zeros_like(weights), expected
    return weights, max(curvature, 1e-4 * expected)


def _in_span(objective):
    """(the objective over the coordinates of the rows in an orthonormal basis (channels, n) of their span, the basis)
    where that costs less than it saves; otherwise (objective, None).

    A squared penalty leaves no part of the kernel outside of the span, so nothing is lost.
    """
    features = objective.features
    n, channels = features.shape
    if 2 * n > channels or n > max(128, 10 * objective.shape[1]):  # the factorisation costs n · n · channels
        return objective, None
    basis, coordinates = np.linalg.qr(np.asarray(features, np.float32).T)
    rows = np.ascontiguousarray(coordinates.T)
    return LinearObjective(rows, objective.targets, objective.weights, objective.shape[1], objective.loss), basis


def _into(basis, weights):
    return weights if basis is None else np.concatenate([basis.T @ weights[:-1], weights[-1:]])


def _out(basis, flat, classes):
    if basis is None:
        return flat
    weights = flat.reshape(-1, classes)
    return np.concatenate([basis @ weights[:-1], weights[-1:]]).ravel()
