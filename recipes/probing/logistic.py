"""Fit multinomial logistic regressions on features, with the L2 penalty chosen by cross-validation."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from recipes.core.text import counted, described
from recipes.errors import DataError
from recipes.optimizers import fit_linear_path

L2_PATH = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_COARSE = 3e-4  # a fit that stops at this gradient is precise enough to compare penalties
_CHUNK = 4096  # number of rows that are converted to float64 at the same time
SMALL = 8_000_000  # for fewer values, BLAS threads cost more than they save
_AT_ONCE = 3  # number of penalties that are fitted before the next check for the end of the search


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier: logits = features · kernel + bias.

    Attributes:
        kernel: (channels, classes).
        bias: (classes,).
        l2: The penalty of the fit.
    """

    kernel: np.ndarray
    bias: np.ndarray
    l2: float

    def __repr__(self) -> str:
        channels, classes = self.kernel.shape
        return described("Linear", counted(channels, "channel"), counted(classes, "class", "classes"), f"l2={self.l2}")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits (…, classes) of features (…, channels)."""
        return features @ self.kernel + self.bias


def channel_scale(features: np.ndarray) -> np.ndarray:
    """Return the divisor of each channel that makes one path of penalties suit every network, (channels,).

    The divisor is √((v + v̄ / 10) / 1.1), with the variance v of the channel and the mean v̄ of all variances. It gives
    weight to the weak channels of shallow stages without amplifying nearly constant channels.

    Args:
        features: (views, n, channels).
    """
    rows = features.reshape(-1, features.shape[-1])
    mean = rows.mean(0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for at in range(0, len(rows), _CHUNK):  # computed in chunks to save memory
        squares += np.square(rows[at : at + _CHUNK] - mean).sum(0)
    variance = squares / len(rows)
    typical = variance.mean() or 1.0
    return np.sqrt((variance + 0.1 * typical) / 1.1).astype(np.float32)


def fit_path(
    features: np.ndarray, labels: np.ndarray, classes: int, l2_path: Sequence[float] = L2_PATH,
    start: Linear | None = None, tolerance: float = 1e-5,
) -> list[Linear]:  # fmt: skip
    """Fit logistic regressions from strong to weak L2 penalty, each starting from the previous solution.

    Each fit minimises mean cross-entropy + l2/2 · Σ kernel² over all views, with each channel divided by its
    `channel_scale`.

    Args:
        features: (views, n, channels).
        labels: Integer labels, (n,).
        classes: Number of classes.
        l2_path: The penalties.
        start: Classifier from which the first fit starts.
        tolerance: Size of the gradient at which a fit stops.

    Returns:
        One classifier per penalty, for unscaled features.
    """
    scale = channel_scale(features)
    rows = features.reshape(-1, features.shape[-1]) / scale
    mean = rows.mean(0, dtype=np.float64)
    rows -= mean.astype(np.float32)
    begin = start and (start.kernel * scale[:, None], start.bias + mean @ (start.kernel * scale[:, None]))
    fits = fit_linear_path(
        rows, np.tile(labels, len(features)), l2_path, classes=classes, start=begin, tolerance=tolerance
    )
    path = []
    for l2, fit in zip(l2_path, fits, strict=True):
        kernel = fit.kernel / scale[:, None]
        path.append(Linear(kernel, fit.bias - mean @ fit.kernel, l2))
    return path


def held_out_logits(
    features: np.ndarray, inputs: np.ndarray, labels: np.ndarray, classes: int, folds: np.ndarray
) -> np.ndarray:
    """Return logits of `inputs` by classifiers that were fitted to the other folds of `features`.

    Weaker and weaker penalties are fitted until the held-out likelihood of the first view declines. The folds of small
    features are fitted in parallel, with one core for each fold.

    Args:
        features: Features that the classifiers are fitted to, (views, n, channels).
        inputs: Features of the same images that are classified, (views, n, channels).
        labels: Integer labels, (n,).
        classes: Number of classes.
        folds: Fold of each image, (n,).

    Returns:
        Logits (penalties, views, n, classes).
    """
    logits, losses, every = [], [], np.unique(folds)
    last: dict[int, Linear] = {}
    parallel = features.size < SMALL

    def fit_fold(fold: int, penalties: Sequence[float]) -> list[Linear]:
        inside = folds != fold
        return fit_path(features[:, inside], labels[inside], classes, penalties, last.get(fold), _COARSE)

    with (
        threadpool_limits(1 if parallel else None, "blas"),
        ThreadPoolExecutor(os.cpu_count() if parallel else 1) as pool,
    ):
        for begin in range(0, len(L2_PATH), _AT_ONCE):
            penalties = L2_PATH[begin : begin + _AT_ONCE]
            block = np.zeros((len(penalties), len(inputs), len(labels), classes), np.float32)
            for fold, path in zip(every, pool.map(partial(fit_fold, penalties=penalties), every), strict=True):
                last[fold], outside = path[-1], folds == fold
                for i, linear in enumerate(path):
                    block[i][:, outside] = linear.logits(inputs[:, outside])
            logits += list(block)
            losses += [cross_entropy(one[0], labels).mean() for one in block]
            if np.argmin(losses) < len(losses) - 1:
                break
    return np.stack(logits)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return −log softmax(logits)[label] of each image, nats, (n,)."""
    return -log_softmax(np.asarray(logits, np.float64), 1)[np.arange(len(labels)), labels]


def content_folds(
    labels: np.ndarray, fingerprints: Sequence[str] | np.ndarray, *, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Return the fold of every image, (n,), stratified by class, with copies of one picture in one fold.

    Args:
        labels: Integer labels, (n,).
        fingerprints: Digest of each picture, equal for copies, (n,).
        folds: Largest number of folds; it is reduced to the number of distinct pictures in the smallest class.
        seed: Seed of the shuffling.

    Raises:
        DataError: If a class has only one distinct picture.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.unique(fingerprints, return_inverse=True)[1]
    distinct = {c: len(np.unique(groups[labels == c])) for c in np.unique(labels)}
    rarest = min(distinct, key=distinct.__getitem__)
    if distinct[rarest] < 2:
        raise DataError(
            f"class {rarest} has one distinct training picture, but at least two are needed; add images of this "
            "class, or remove the class",
            code="data.one_picture",
            label=int(rarest),
        )
    fold_of = np.zeros(len(labels), int)
    splitter = StratifiedGroupKFold(max(2, min(folds, distinct[rarest])), shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        fold_of[held_out] = fold
    return fold_of
