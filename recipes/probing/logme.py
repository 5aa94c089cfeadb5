"""Compute LogME, a score of how well the features of a network suit a dataset, without fitting a classifier."""

import numpy as np

_CHUNK = 4096  # number of rows that are converted to float64 at the same time


def logme(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Return the logarithm of the maximum evidence of features for labels per image, averaged over the classes.

    For each class, with targets y in {0, 1}, the score is max over α, β of log p(y | F, α, β) / n, the evidence of
    Bayesian linear regression y ~ N(F w, 1/β), w ~ N(0, 1/α). The score ranks networks on one dataset; higher is
    better. The cost is one eigendecomposition of size min(n, channels). Source: You et al., LogME, 2021.

    Args:
        features: (n, channels).
        labels: Integer labels, (n,).
        classes: Number of classes.
    """
    targets = np.eye(classes)[labels]
    n, channels = features.shape
    if n < channels:
        rows = np.asarray(features, np.float64)
        variances, axes = np.linalg.eigh(rows @ rows.T)
        nonzero = variances > 1e-10 * variances[-1]
        variances, along = variances[nonzero], axes[:, nonzero].T @ targets
    else:
        products, with_targets = np.zeros((channels, channels)), np.zeros((channels, classes))
        for at in range(0, n, _CHUNK):
            rows = np.asarray(features[at : at + _CHUNK], np.float64)
            products += rows.T @ rows
            with_targets += rows.T @ targets[at : at + _CHUNK]
        variances, axes = np.linalg.eigh(products)
        nonzero = variances > 1e-10 * variances[-1]
        variances = variances[nonzero]
        along = (axes[:, nonzero].T @ with_targets) / np.sqrt(variances)[:, None]
    square = (targets**2).sum(0)
    evidence = [_evidence(variances, along[:, c] ** 2, square[c], n, channels) for c in range(classes)]
    return float(np.mean(evidence))


def _evidence(variances: np.ndarray, along: np.ndarray, square: float, n: int, channels: int) -> float:
    """Return the evidence per image of one class at the fixed point of MacKay's updates of α and β."""
    beyond = max(square - along.sum(), 0.0)  # the part that no linear function of the features explains
    alpha, beta, residual, weights = 1.0, 1.0, 0.0, 0.0
    for _ in range(100):
        ratio = alpha / beta
        effective = (variances / (variances + ratio)).sum()
        weights = (variances * along / (variances + ratio) ** 2).sum()
        residual = (along * (ratio / (variances + ratio)) ** 2).sum() + beyond
        alpha = max(effective, 1e-12) / max(weights, 1e-12)
        beta = max(n - effective, 1e-12) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= 1e-4 * ratio:
            break
    determinant = np.log(alpha + beta * variances).sum() + (channels - len(variances)) * np.log(alpha)
    energy = beta * residual + alpha * weights
    return 0.5 * (channels * np.log(alpha) + n * np.log(beta) - determinant - energy - n * np.log(2 * np.pi)) / n
