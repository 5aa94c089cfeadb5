"""Multinomial logistic regression on features, its L2 penalty chosen by cross-validation."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from optimizers import fit_linear_path
from recipes.errors import DataError

L2_PATH = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_COARSE = 3e-4  # gradient at which a classifier is good enough to compare penalties by
_CHUNK = 4096  # rows that are in float64 at once
SMALL = 8_000_000  # numbers; below it BLAS threads cost more in waiting for each other than they save
_AT_ONCE = 3  # penalties between two looks at whether the best is passed


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier: logits = features · kernel + bias; `l2` is the penalty it was fitted with."""

    kernel: np.ndarray
    bias: np.ndarray
    l2: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.kernel + self.bias


def channel_scale(features: np.ndarray) -> np.ndarray:
    """By which each channel of (views, n, channels) is divided so that one path of penalties suits every network.

    √((v + v̄ / 10) / 1.1), with the channel's variance v and the mean v̄ of all channels': the weak channels of shallow
    stages count, and those that are nearly constant are not blown up.
    """
    rows = features.reshape(-1, features.shape[-1])
    mean = rows.mean(0, dtype=np.float64)
    chunks = (rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK))  # all at once they would fill the memory
    variance = sum(np.square(chunk - mean).sum(0) for chunk in chunks) / len(rows)
    typical = variance.mean() or 1.0
    return np.sqrt((variance + 0.1 * typical) / 1.1).astype(np.float32)


def fit_path(
    features: np.ndarray, labels, classes: int, l2_path=L2_PATH, start: Linear | None = None, tolerance: float = 1e-5
) -> list[Linear]:
    """Logistic regressions from strong to weak L2 penalty, each started at the one before (the first at `start`).

    Minimises mean cross-entropy + l2/2 · Σ kernel² over the views of features (views, n, channels), each channel
    divided by its `channel_scale`. The classifiers returned are for the features as they are.
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


def held_out_logits(features: np.ndarray, asked: np.ndarray, labels, classes: int, folds) -> np.ndarray:
    """Logits (penalties, views, n, classes) for `asked` (views, n, channels), each by a classifier that saw the other
    folds.

    The path goes on from strong to weak penalties until the held-out likelihood of the first view has passed its best.
    The folds of `SMALL` features are fitted side by side, a core each.
    """
    logits, losses, last, every = [], [], {}, np.unique(folds)
    side_by_side = features.size < SMALL

    def fitted(fold, penalties) -> list[Linear]:
        inside = folds != fold
        return fit_path(features[:, inside], labels[inside], classes, penalties, last.get(fold), _COARSE)

    with (
        threadpool_limits(1 if side_by_side else None, "blas"),
        ThreadPoolExecutor(os.cpu_count() if side_by_side else 1) as pool,
    ):
        for begin in range(0, len(L2_PATH), _AT_ONCE):
            penalties = L2_PATH[begin : begin + _AT_ONCE]
            block = np.zeros((len(penalties), len(asked), len(labels), classes), np.float32)
            for fold, path in zip(every, pool.map(partial(fitted, penalties=penalties), every), strict=True):
                last[fold], outside = path[-1], folds == fold
                for i, linear in enumerate(path):
                    block[i][:, outside] = linear.logits(asked[:, outside])
            logits += list(block)
            losses += [cross_entropy(one[0], labels).mean() for one in block]
            if np.argmin(losses) < len(losses) - 1:
                break
    return np.stack(logits)


def cross_entropy(logits: np.ndarray, labels) -> np.ndarray:
    """Per image −log softmax(logits)[label], nats."""
    return -log_softmax(np.asarray(logits, np.float64), 1)[np.arange(len(labels)), labels]


def content_folds(labels, fingerprints, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Fold number of every image: stratified by class, copies of one picture in one fold.

    Raises: DataError for a class with one distinct picture.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.unique(fingerprints, return_inverse=True)[1]
    distinct = {c: len(np.unique(groups[labels == c])) for c in np.unique(labels)}
    smallest = min(distinct.values())
    if smallest < 2:
        raise DataError(f"class {min(distinct, key=distinct.get)} has one distinct training picture; two are needed")
    fold_of = np.zeros(len(labels), int)
    splitter = StratifiedGroupKFold(max(2, min(folds, smallest)), shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        fold_of[held_out] = fold
    return fold_of
