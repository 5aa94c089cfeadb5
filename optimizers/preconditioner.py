"""Approximate the inverse Hessian of linear classifiers from the leading principal axes of their features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

# v (n,) → P v, where P is an approximate inverse Hessian
Preconditioner: TypeAlias = Callable[[np.ndarray], np.ndarray]

RANK = 32  # number of axes; 16 to 128 give similar results on features of networks
OVERSAMPLING = 8
RIDGE = 1e-4  # minimum variance, as a share of the mean; bounds the inverse for constant features without a penalty
CURVATURE = 0.1  # typical curvature of a fitted softmax, as a share of the curvature for equal probabilities


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """Hold the leading principal axes of features.

    Attributes:
        mean: (d,).
        axes: (d, r), orthonormal.
        variances: (r,), variances along the axes.
        rest: The mean variance along all other axes.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: float

    def inverse_hessian(self, curvature: float, l2: float, classes: int) -> Preconditioner:
        """Return v → P v, where P is the inverse of c · second moments + l2.

        v is a flat (d + 1, classes), and its last row is the bias. The covariance of x with the bias is eliminated
        exactly, because it is 0 for (kernel, bias + mean · kernel).
        """
        mean_variance = (self.variances.sum() + self.rest * (len(self.mean) - len(self.variances))) / len(self.mean)
        floor = l2 + curvature * RIDGE * mean_variance + 1e-30
        isotropic = np.float32(1 / (curvature * self.rest + floor))
        along = (1 / (curvature * self.variances + floor) - isotropic).astype(np.float32)[:, None]
        bias = np.float32(1 / curvature)

        def apply(flat: np.ndarray) -> np.ndarray:
            v = flat.reshape(-1, classes).astype(np.float32)
            kernel = v[:-1] - np.outer(self.mean, v[-1])
            kernel = self.axes @ (along * (self.axes.T @ kernel)) + isotropic * kernel
            return np.concatenate([kernel, (bias * v[-1] - self.mean @ kernel)[None]]).ravel()

        return apply


def principal_axes(chunks: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]], channels: int) -> PrincipalAxes:
    """Return the leading axes of weighted rows by a randomised range finder with a fixed seed.

    Args:
        chunks: a function that returns the chunks (rows (m, channels) float32, weights (m,) of mean 1 over all rows).
        channels: d.

    Source: Halko, Martinsson and Tropp, Finding structure with randomness, 2011, algorithm 5.3 on the covariance.
    """
    mean, total, squares = np.zeros(channels), 0.0, 0.0
    for x, weight in chunks():
        mean += weight @ x
        total += weight.sum(dtype=np.float64)
    mean = (mean / total).astype(np.float32)
    size = min(RANK + OVERSAMPLING, channels)
    axes = np.random.default_rng(0).normal(size=(channels, size)).astype(np.float32)
    image = np.zeros_like(axes)
    for x, weight in chunks():
        y = x @ axes - mean @ axes
        y *= weight[:, None]
        image += x.T @ y
        image -= np.outer(mean, y.sum(0))
    axes = np.linalg.qr(image)[0]
    gram = np.zeros((size, size))
    for x, weight in chunks():
        y = x @ axes - mean @ axes
        gram += y.T @ (weight[:, None] * y)
        centred = x - mean
        squares += float(np.einsum("ij,ij,i->", centred, centred, weight, dtype=np.float64))
    variances, turn = np.linalg.eigh(gram / total)
    variances, turn = np.maximum(variances[::-1][:RANK], 0), turn[:, ::-1][:, :RANK]
    rest = max(squares / total - variances.sum(), 0.0) / max(channels - len(variances), 1)
    return PrincipalAxes(mean, axes @ turn.astype(np.float32), variances, rest)
