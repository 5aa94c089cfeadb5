"""Which of several classifiers to keep, by validation images, and what that choice is honestly worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp

from recipes.evaluation.metrics import calibrated_nll, wilson_interval


@dataclass(frozen=True, eq=False)
class Score:
    """What a classifier says of the true classes of n validation images.

    losses:  (n,) negative log-likelihood at the best temperature, nats: a finer measure than whether the most probable
             class is right.
    right:   (n,) whether it is.
    weights: (n,), summing to 1.
    """

    losses: np.ndarray
    right: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, labels, weights: np.ndarray) -> "Score":
        return cls(calibrated_nll(logits, labels), logits.argmax(1) == labels, weights)

    @property
    def loss(self) -> float:
        return float(self.weights @ self.losses)

    @property
    def accuracy(self) -> float:
        return min(1.0, float(self.weights @ self.right))

    def __getitem__(self, rows) -> "Score":
        weights = self.weights[rows]
        return Score(self.losses[rows], self.right[rows], weights / weights.sum())


def averaged_logits(logits: Sequence[np.ndarray]) -> np.ndarray:
    """(n, classes) log of the mean of the models' probabilities."""
    return logsumexp(log_softmax(np.asarray(logits, np.float64), -1), 0) - np.log(len(logits))


@dataclass(frozen=True)
class Selection:
    """What a validation accuracy is worth that `candidates` classifiers were compared by: the accuracy, with its 95 %
    interval, on images none of which judges a choice that it took part in (see `cross_fitted`)."""

    candidates: int
    accuracy: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, right: np.ndarray, candidates: int) -> "Selection":
        return cls(candidates, float(right.mean()), wilson_interval(int(right.sum()), len(right)))

    def __str__(self) -> str:
        low, high = self.interval
        many = "1 candidate" if self.candidates == 1 else f"{self.candidates} candidates"
        return (
            f"these images chose among {many}; where no image judges a choice that it took part "
            f"in, the accuracy is {self.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})"
        )


def image_weights(labels, classes: int, balanced: bool) -> np.ndarray:
    """(n,) summing to 1: every image counts alike, or `balanced` every class."""
    counts = np.bincount(labels, minlength=classes)
    weights = 1 / counts[labels] if balanced else np.ones(len(labels))
    return weights / weights.sum()


def gain(start: Score, other: Score) -> tuple[float, float]:
    """What `other` takes off the loss of `start`, and the standard error of that: the images are the same."""
    return _paired(start.losses - other.losses, start.weights)


def gained_accuracy(start: Score, other: Score) -> tuple[float, float]:
    """What `other` adds to the accuracy of `start`, and the standard error of that (McNemar: of the images that one
    alone has right)."""
    return _paired(other.right.astype(float) - start.right, start.weights)


def _paired(difference: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    mean, squares = float(weights @ difference), float(weights @ weights)
    if squares > 1 - 1e-9:  # one image tells no spread
        return mean, float("inf")
    return mean, float(np.sqrt((weights**2) @ (difference - mean) ** 2 / (1 - squares)))


def better(start: Score, other: Score) -> bool:
    """Whether `other` gains likelihood or accuracy beyond the noise, which is one standard error, and loses neither."""
    gains = gain(start, other), gained_accuracy(start, other)
    return all(mean >= 0 for mean, _ in gains) and any(mean > error for mean, error in gains)


def choose(start: Score, others: Sequence[Score]) -> int | None:
    """Position of the candidate of the lowest loss, None where it is not `better` than the start."""
    best = int(np.argmin([other.loss for other in others]))
    return best if better(start, others[best]) else None


ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a training leaves to choose from, in the order in which that is done.

    epochs:  its weights after each epoch (or its averaged snapshots): the last that is as good as any, see `latest`.
    between: weights between its start's and those (WiSE-FT), which are taken where they are `better`.
    larger:  the weights taken so far on larger images, in ascending order: the largest whose loss is within one
             standard error of the lowest, for random crops show things larger than whole images do.
    """

    epochs: tuple[Score, ...]
    between: tuple[Score, ...] = ()
    larger: tuple[Score, ...] = ()

    def __len__(self) -> int:
        return len(self.epochs) + len(self.between) + len(self.larger)

    def taken(self, rows=ALL) -> Score:
        """The candidate that the images at `rows` choose: one of the epochs, where that is another than all choose, of
        whose best epoch the others were made."""
        found = self._epoch(rows)
        if found is not self._epoch():
            return found
        if self.between:
            at = choose(found[rows], [score[rows] for score in self.between])
            found = found if at is None else self.between[at]
        sizes = (found, *self.larger)
        return sizes[latest(sizes, rows)]

    def kept(self, start: Score | None, rows=ALL) -> Score:
        """That candidate where it is `better` than the start, else the one between them that is, else the start."""
        found = self.taken(rows)
        if start is None or better(start[rows], found[rows]):
            return found
        made_of_it = self.between and self._epoch(rows) is self._epoch()
        at = choose(start[rows], [score[rows] for score in self.between]) if made_of_it else None
        return start if at is None else self.between[at]

    def _epoch(self, rows=ALL) -> Score:
        return self.epochs[latest(self.epochs, rows)]


def latest(scores: Sequence[Score], rows=ALL) -> int:
    """Position of the last score whose loss is within one standard error of the lowest.

    A few hundred images tell two neighbouring epochs apart by luck alone; where they cannot, the schedule is the better
    witness: weights gain as the learning rate falls, and by being averaged.
    """
    seen = [score[rows] for score in scores]
    lowest = min(seen, key=lambda score: score.loss)
    return max(i for i, score in enumerate(seen) if _within_noise(lowest, score))


def _within_noise(lowest: Score, other: Score) -> bool:
    mean, error = gain(lowest, other)
    return -mean <= error


def cross_fitted(start: Score | None, candidates: Candidates, finished: Score | None = None, folds: int = 5) -> Score:
    """How each image is classified by the candidate that the other images keep.

    Validation images that choose among candidates flatter the one that they choose; no image here judges a choice that
    it took part in (nested cross-validation of the choice).

    finished: how the candidate that all images keep classifies in the end, with mirror images and at its temperature;
              None: as it did when it was chosen.
    """
    kept = candidates.kept(start)
    n = len(candidates.epochs[0].right)
    fold_of = np.random.default_rng(0).permutation(n) % folds
    losses, right = np.zeros(n), np.zeros(n, bool)
    for fold in range(min(folds, n)):
        inside, outside = fold_of != fold, fold_of == fold
        found = candidates.kept(start, inside) if inside.any() else start or candidates.epochs[0]
        found = finished if finished and found is kept else found
        losses[outside], right[outside] = found.losses[outside], found.right[outside]
    return Score(losses, right, candidates.epochs[0].weights)
