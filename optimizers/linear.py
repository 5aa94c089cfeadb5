"""Linear classifiers at their exact optimum: softmax regression and the multiclass SVM, on NumPy features."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.linalg import inv

from optimizers.descent import Minimum, minimize_function

LOSSES = ("softmax", "hinge")
CHUNK = 1024  # rows at a time: the scores of a chunk stay in the cache
CURVATURE = 0.1  # of Böhning's bound with equal probabilities: what fitted probabilities, far from equal, leave of it
RIDGE = 1e-4  # of the mean second moment: keeps the inverse positive definite after rounding to float32
LARGEST_PRECONDITIONER = 4096  # features: beyond it the channels × channels matrix costs more than it saves


@dataclass(frozen=True, eq=False)
class LinearFit:
    """scores = features · kernel + bias, and the `Minimum` that they were found at."""

    kernel: np.ndarray = field(repr=False)
    bias: np.ndarray = field(repr=False)
    minimum: Minimum


def fit_linear(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    classes: int | None = None,
    loss: str = "softmax",
    l2: float = 0.0,
    l1: float = 0.0,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
) -> LinearFit:
    """The linear classifier of least mean loss + l2/2 · Σ kernel² + l1 · Σ |kernel|, by preconditioned L-BFGS or
    OWL-QN.

    Softmax: −log softmax(scores)_y. Hinge, the lecture's multiclass SVM: Σ_{j≠y} max(0, s_j − s_y + 1). The Hessian is
    at most a multiple of the features' second moments (Böhning, 1992), hence (c · Σ xxᵀ/n + l2 · I)⁻¹ is a good first
    guess of its inverse in every iteration: about a third of the iterations of plain L-BFGS. Matrices are multiplied in
    float32 and summed over chunks in float64 until the gradient is small, then in float64 until it is below the
    tolerance. Memory: the features, as they are given (a memory map too), and a channels × channels matrix.

    Args:
        features: (n, channels), of any real type.
        targets: (n,) integer classes, or for softmax (n, classes) probabilities.
        classes: number of classes; by default the largest target + 1.
        l2, l1: penalties; the bias is free.
        start: (kernel (channels, classes), bias (classes,)), for instance the optimum under a stronger penalty.
        tolerance: of the largest component of the gradient. The hinge has kinks, where no gradient vanishes.
        max_iterations: in both precisions together.

    Raises: ValueError for wrong shapes, classes or an unknown loss.

    Example: `fit_linear(features, labels, l2=1e-3).kernel`
    """
    problem = _Problem(features, targets, classes, loss, l2)
    shape = (problem.channels + 1, problem.classes)
    weights = np.zeros(shape)
    if start is not None:
        weights[:-1], weights[-1] = start
    penalty = np.zeros(shape)
    penalty[:-1] = l1
    options = {"dtype": np.float32, "l1": penalty.ravel() if l1 else 0.0}
    options["preconditioner"] = None if l1 else problem.preconditioner()  # it would mix orthants
    rough = minimize_function(
        problem.in_precision(np.float32), weights, tolerance=0.9 * max(tolerance, 1e-5), precision=3e-8,
        max_iterations=max_iterations, **options,
    )  # fmt: skip
    left = max_iterations - rough.iterations
    exact = minimize_function(
        problem.in_precision(np.float64), rough.x, tolerance=tolerance, max_iterations=left, **options
    )
    weights = exact.x.reshape(shape)
    minimum = replace(
        exact,
        message=exact.message if left else rough.message,
        iterations=rough.iterations + exact.iterations,
        evaluations=rough.evaluations + exact.evaluations,
    )
    return LinearFit(weights[:-1].copy(), weights[-1].copy(), minimum)


class _Problem:
    """The objective over (channels + 1, classes) weights whose last row is the bias."""

    def __init__(self, features, targets, classes, loss, l2):
        features, targets = np.asanyarray(features), np.asarray(targets)
        if features.ndim != 2 or len(features) != len(targets) or not len(features):
            raise ValueError(
                f"features must be (n, channels) and targets as many, n ≥ 1. Got {features.shape} and {targets.shape}."
            )
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}. Got {loss!r}.")
        if targets.ndim == 2 and loss == "hinge":
            raise ValueError("The hinge loss needs one class per example: targets (n,) integers, not probabilities.")
        if l2 < 0:
            raise ValueError(f"l2 must not be negative. Got {l2}.")
        self.features, self.targets, self.loss, self.l2 = features, targets, loss, l2
        self.channels = features.shape[1]
        self.classes = classes or (targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1)
        if targets.ndim == 1 and not (targets.min() >= 0 and targets.max() < self.classes):
            raise ValueError(f"targets must be classes 0 … {self.classes - 1}. Got {targets.min()} … {targets.max()}.")

    def in_precision(self, dtype):
        """value_and_gradient of flat weights, matrices multiplied in `dtype`."""

        def value_and_gradient(flat):
            weights = flat.reshape(self.channels + 1, self.classes)
            kernel, bias = weights[:-1].astype(dtype), weights[-1].astype(dtype)
            total, gradient = 0.0, np.zeros_like(weights)
            for at in range(0, len(self.features), CHUNK):
                x = np.ascontiguousarray(self.features[at : at + CHUNK], dtype)
                scores = x @ kernel
                scores += bias
                value, error = _LOSS[self.loss](scores, self.targets[at : at + CHUNK])
                total += value
                gradient[:-1] += x.T @ error
                gradient[-1] += error.sum(0, dtype=np.float64)
            gradient /= len(self.features)
            gradient[:-1] += self.l2 * weights[:-1]
            return total / len(self.features) + self.l2 / 2 * np.vdot(weights[:-1], weights[:-1]), gradient.ravel()

        return value_and_gradient

    def preconditioner(self):
        """A function v → (c · second moments + l2 · I)⁻¹ v; the bias is one more feature, always 1, and unpenalised."""
        if self.channels > LARGEST_PRECONDITIONER:
            return None
        size = self.channels + 1
        moments = np.zeros((size, size))
        for at in range(0, len(self.features), CHUNK):
            x = np.ones((len(self.features[at : at + CHUNK]), size), np.float32)
            x[:, :-1] = self.features[at : at + CHUNK]
            moments += x.T @ x
        variance = CURVATURE * (1 - 1 / self.classes) / self.classes
        moments *= variance / len(self.features)
        penalty = np.full(size, self.l2)
        penalty[-1] = 0.0
        moments[np.diag_indices(size)] += penalty + RIDGE * np.trace(moments) / size
        inverse = inv(moments.T, overwrite_a=True).astype(np.float32)  # symmetric; in place as Fortran stores it
        return lambda v: (inverse @ v.reshape(size, self.classes).astype(np.float32)).ravel()


def _softmax(scores, targets):
    """Sum of −Σ t log softmax(scores), and its gradient by the scores, written over them."""
    scores -= scores.max(1, keepdims=True)
    rows = np.arange(len(scores))
    picked = scores[rows, targets].sum(dtype=np.float64) if targets.ndim == 1 else np.vdot(targets, scores)
    weight = 1.0 if targets.ndim == 1 else targets.sum(1)
    np.exp(scores, out=scores)
    totals = scores.sum(1)
    value = (weight * np.log(totals)).sum(dtype=np.float64) - picked
    scores *= (weight / totals)[:, None]
    if targets.ndim == 1:
        scores[rows, targets] -= 1
    else:
        scores -= targets
    return float(value), scores


def _hinge(scores, targets):
    """Sum of Σ_{j≠y} max(0, s_j − s_y + 1), and a subgradient by the scores."""
    rows = np.arange(len(scores))
    scores -= scores[rows, targets][:, None] - 1
    scores[rows, targets] = 0
    error = (scores > 0).astype(scores.dtype)
    value = (scores * error).sum(dtype=np.float64)
    error[rows, targets] = -error.sum(1)
    return float(value), error


_LOSS = {"softmax": _softmax, "hinge": _hinge}
