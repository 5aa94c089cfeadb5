"""Compute a linear classifier's mean loss over weighted rows, and its gradient, in chunks for the CPU cache."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .minimum import Function

LOSSES = ("softmax", "hinge")
CHUNK = 1024  # rows


class LinearObjective:
    """Compute Σ wᵢ loss(xᵢ · kernel + bias, yᵢ) / Σ wᵢ + l2/2 · Σ kernel² over flat weights.

    The flat weights are a matrix of shape (channels + 1, classes), whose last row is the bias.

    Args:
        features: (n, channels) of any real type; read in chunks.
        targets: (n,) integer classes, or for softmax (n, classes) probabilities.
        weights: (n,) float32 of mean 1.
        classes: number of classes.
        loss: "softmax" or "hinge".
    """

    def __init__(self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray, classes: int, loss: str):
        self.features, self.targets, self.weights = features, targets, weights
        self.shape = (features.shape[1] + 1, classes)
        self.loss = loss

    def chunks(self, dtype: type = np.float32) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield contiguous (rows, weights) in `dtype`."""
        for at in range(0, len(self.features), CHUNK):
            yield np.ascontiguousarray(self.features[at : at + CHUNK], dtype), self.weights[at : at + CHUNK]

    def value_and_gradient(self, l2: float, dtype: type) -> Function:
        """Return a function from flat weights to (value, gradient).

        Matrices are multiplied in `dtype` and summed over chunks in float64.
        """
        loss = {"softmax": _softmax, "hinge": _hinge}[self.loss]

        def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(self.shape)
            kernel, bias = weights[:-1].astype(dtype), weights[-1].astype(dtype)
            total: Any = 0.0
            gradient = np.zeros(self.shape)
            for i, (x, weight) in enumerate(self.chunks(dtype)):
                scores = x @ kernel
                scores += bias
                values, error = loss(scores, self.targets[i * CHUNK : i * CHUNK + len(x)])
                total += weight @ values
                error *= weight[:, None]
                gradient[:-1] += x.T @ error
                gradient[-1] += error.sum(0, dtype=np.float64)
            gradient /= len(self.features)
            gradient[:-1] += l2 * weights[:-1]
            return total / len(self.features) + l2 / 2 * np.vdot(weights[:-1], weights[:-1]), gradient.ravel()

        return function

    def loss_and_curvature(self, weights: np.ndarray) -> tuple[float, float]:
        """Return the mean softmax loss and the mean of its second derivatives by the scores, p (1 − p)."""
        weights = weights.astype(np.float32)
        total: Any = 0.0
        curvature: Any = 0.0
        for i, (x, weight) in enumerate(self.chunks()):
            targets = self.targets[i * CHUNK : i * CHUNK + len(x)]
            values, p = _softmax(x @ weights[:-1] + weights[-1], targets)
            total += weight @ values
            if targets.ndim == 1:  # _softmax returns p − targets
                p[np.arange(len(x)), targets] += 1
            else:
                p += targets
            curvature += weight @ (p - p * p).mean(1)
        return total / len(self.features), curvature / len(self.features)


def _softmax(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return −Σ t log softmax(scores) (m,) and its gradient by the scores, which overwrites the scores.

    The exponentials are scaled so that the largest is 1. Their sum in float64 preserves the digits of a small loss,
    log(1 + rest).
    """
    rows, hard = np.arange(len(scores)), targets.ndim == 1
    scores -= scores.max(1, keepdims=True)
    picked = scores[rows, targets].astype(np.float64) if hard else (targets * scores).sum(1, dtype=np.float64)
    weight = 1.0 if hard else targets.sum(1)
    np.exp(scores, out=scores)
    totals = scores.sum(1, dtype=np.float64)
    scores *= (weight / totals).astype(scores.dtype)[:, None]
    if hard:
        scores[rows, targets] -= 1
    else:
        scores -= targets
    return weight * np.log(totals) - picked, scores


def _hinge(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Σ_{j≠y} max(0, s_j − s_y + 1) (m,) and a subgradient by the scores."""
    rows = np.arange(len(scores))
    scores -= scores[rows, targets][:, None] - 1
    scores[rows, targets] = 0
    error = (scores > 0).astype(scores.dtype)
    values = (scores * error).sum(1, dtype=np.float64)
    error[rows, targets] = -error.sum(1)
    return values, error
