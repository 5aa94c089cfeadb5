"""Select a classifier by validation images, and measure its accuracy without the bias of that selection."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp

from recipes.evaluation.intervals import wilson_interval
from recipes.evaluation.metrics import calibrated_nll

Rows = slice | np.ndarray  # selects images: all of them, or a boolean mask (n,)
ALL = slice(None)
FOLDS = 5


def random_folds(n: int) -> np.ndarray:
    """Return the fold of each of n validation images, (n,), which only depends on n."""
    return np.random.default_rng(0).permutation(n) % FOLDS


@dataclass(frozen=True, eq=False)
class Score:
    """The quality of a classifier on each of n validation images.

    Attributes:
        losses: Negative log-likelihood at the best temperature, nats, (n,). It is a finer measure than `right`.
        right: Whether the most probable class is the true one, (n,).
        weights: Weight of each image, (n,), summing to 1.
    """

    losses: np.ndarray
    right: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> "Score":
        """Return the score of logits (n, classes)."""
        return cls(calibrated_nll(logits, labels), logits.argmax(1) == labels, weights)

    @property
    def loss(self) -> float:
        """Weighted mean loss, nats."""
        return float(self.weights @ self.losses)

    @property
    def accuracy(self) -> float:
        """Weighted accuracy."""
        return min(1.0, float(self.weights @ self.right))

    def __getitem__(self, rows: Rows) -> "Score":
        """Return the score of the images at `rows`."""
        weights = self.weights[rows]
        return Score(self.losses[rows], self.right[rows], weights / weights.sum())


def averaged_logits(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean of the models' probabilities, (n, classes)."""
    return logsumexp(log_softmax(np.asarray(logits, np.float64), -1), 0) - np.log(len(logits))


@dataclass(frozen=True)
class Selection:
    """A validation accuracy without the bias of having selected the best of several classifiers; see `cross_fitted`.

    Attributes:
        candidates: Number of classifiers that were compared.
        accuracy: Accuracy by nested cross-validation of the selection.
        interval: 95 % interval of the accuracy.
    """

    candidates: int
    accuracy: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, right: np.ndarray, candidates: int) -> "Selection":
        """Return the selection among `candidates`; `right`, (n,), states whether each image is classified correctly."""
        return cls(candidates, float(right.mean()), wilson_interval(int(right.sum()), len(right)))

    def __str__(self) -> str:
        low, high = self.interval
        many = "1 candidate" if self.candidates == 1 else f"{self.candidates} candidates"
        return (
            f"this accuracy is slightly optimistic, because the same images selected the best of {many}; "
            f"cross-validation of the selection gives {self.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})"
        )


def image_weights(labels: np.ndarray, classes: int, balanced: bool) -> np.ndarray:
    """Return weights (n,) that sum to 1: equal for all images, or, if `balanced`, with equal sums for all classes."""
    counts = np.bincount(labels, minlength=classes)
    weights = 1 / counts[labels] if balanced else np.ones(len(labels))
    return weights / weights.sum()


def gain(start: Score, other: Score) -> tuple[float, float]:
    """Return the decrease in loss from `start` to `other` and its standard error over paired images, nats."""
    return _paired(start.losses - other.losses, start.weights)


def gained_accuracy(start: Score, other: Score) -> tuple[float, float]:
    """Return the increase in accuracy from `start` to `other` and its standard error (McNemar)."""
    return _paired(other.right.astype(float) - start.right, start.weights)


def _paired(difference: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    mean, squares = float(weights @ difference), float(weights @ weights)
    if squares > 1 - 1e-9:  # the spread of one image is not defined
        return mean, float("inf")
    return mean, float(np.sqrt((weights**2) @ (difference - mean) ** 2 / (1 - squares)))


def better(start: Score, other: Score) -> bool:
    """Return whether `other` gains likelihood or accuracy by more than one standard error and loses neither."""
    gains = gain(start, other), gained_accuracy(start, other)
    return all(mean >= 0 for mean, _ in gains) and any(mean > error for mean, error in gains)


def choose(start: Score, others: Sequence[Score]) -> int | None:
    """Return the position of the candidate with the lowest loss, or None if it is not `better` than the start."""
    best = int(np.argmin([other.loss for other in others]))
    return best if better(start, others[best]) else None


@dataclass(frozen=True, eq=False)
class Candidates:
    """The classifiers that a training produced, in the order in which they are selected.

    Attributes:
        epochs: Weights after each epoch, or averages of snapshots. `latest` selects the last one within the noise of
            the best.
        between: Weights between the start and the selected epoch (WiSE-FT), which are used if they are `better`.
        larger: The weights selected so far, on larger images in ascending order of size. The largest size whose loss is
            within one standard error of the lowest is used, because objects look larger in random crops than in whole
            images.
    """

    epochs: tuple[Score, ...]
    between: tuple[Score, ...] = ()
    larger: tuple[Score, ...] = ()

    def __len__(self) -> int:
        return len(self.epochs) + len(self.between) + len(self.larger)

    def best(self, rows: Rows = ALL) -> Score:
        """Return the candidate that the images at `rows` select.

        If `rows` select another epoch than all images, the candidate is that epoch, because `between` and `larger` were
        made from the epoch that all images select.
        """
        best = self._epoch(rows)
        if best is not self._epoch():
            return best
        if self.between:
            at = choose(best[rows], [score[rows] for score in self.between])
            best = best if at is None else self.between[at]
        sizes = (best, *self.larger)
        return sizes[latest(sizes, rows)]

    def select(self, start: Score | None, rows: Rows = ALL) -> Score:
        """Return the best candidate if it is `better` than the start, else a better one `between`, else the start."""
        best = self.best(rows)
        if start is None or better(start[rows], best[rows]):
            return best
        comparable = self.between and self._epoch(rows) is self._epoch()
        at = choose(start[rows], [score[rows] for score in self.between]) if comparable else None
        return start if at is None else self.between[at]

    def _epoch(self, rows: Rows = ALL) -> Score:
        return self.epochs[latest(self.epochs, rows)]


def latest(scores: Sequence[Score], rows: Rows = ALL) -> int:
    """Return the position of the last score whose loss is within one standard error of the lowest.

    A few hundred images rank two neighbouring epochs by chance. The schedule is better evidence in that case: weights
    improve as the learning rate falls and as they are averaged.
    """
    parts = [score[rows] for score in scores]
    lowest = min(parts, key=lambda score: score.loss)
    return max(i for i, score in enumerate(parts) if _within_noise(lowest, score))


def _within_noise(lowest: Score, other: Score) -> bool:
    mean, error = gain(lowest, other)
    return -mean <= error


def cross_fitted(start: Score | None, candidates: Candidates, finished: Score | None = None) -> Score:
    """Return the score of each image by the candidate that images of other folds select.

    The accuracy on the images that selected a candidate is optimistic. In this nested cross-validation of the
    selection, no image is used to select the candidate that classifies it.

    Args:
        start: The score before training, if it competes.
        candidates: The candidates.
        finished: The final score of the candidate that all images select, with mirror images and temperature. None
            takes its score at the selection.
    """
    selected = candidates.select(start)
    n = len(candidates.epochs[0].right)
    fold_of = random_folds(n)
    losses, right = np.zeros(n), np.zeros(n, bool)
    for fold in np.unique(fold_of):
        inside, outside = fold_of != fold, fold_of == fold
        used = candidates.select(start, inside) if inside.any() else start or candidates.epochs[0]
        used = finished if finished and used is selected else used
        losses[outside], right[outside] = used.losses[outside], used.right[outside]
    return Score(losses, right, candidates.epochs[0].weights)
