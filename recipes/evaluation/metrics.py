"""Accuracy with its uncertainty, from probabilities and labels."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """What a classifier is worth on `n` labelled images.

    accuracy:       share of images whose most probable class is right.
    interval:       its 95 % Wilson score interval.
    macro_accuracy: mean over the classes (those with images) of the accuracy within the class.
    nll:            mean negative log-likelihood of the true class, in nats.
    ece:            expected calibration error: Σ_b n_b / n · |accuracy_b − confidence_b| over 15 equal-width bins.
    ece_floor:      what `ece` would be, on average, on as many images if every confidence were true: what chance makes
                    of it, below which no difference is told. None: a run saved before this was measured.
    confusion:      `confusion[i][j]` images of class i were taken for class j.
    """

    accuracy: float
    interval: tuple[float, float]
    macro_accuracy: float
    nll: float
    ece: float
    n: int
    ece_floor: float | None = None
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, {self.n} images), "
            f"macro {self.macro_accuracy:.1%}, negative log-likelihood {self.nll:.3f}, "
            f"calibration error {with_floor(self.ece, self.ece_floor)}"
        )


def wilson_interval(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion: honest near 0 and 1 and for small n (Wilson 1927).

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    """
    if n == 0:
        return 0.0, 1.0
    p = right / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017)."""
    gaps = np.bincount(_bin_of(confidence, bins), right - confidence.astype(float))
    return float(np.abs(gaps).sum() / len(right))


def calibration_floor(confidence: np.ndarray, bins: int = 15, draws: int = 200) -> float:
    """The mean `calibration_error` of these confidences where they are true: of `draws` seeded draws of what is right.

    An absolute value has no mean of 0: a perfectly calibrated classifier with 70 % right shows about 3 % on 1,000
    images, 7 % on 200.
    """
    random = np.random.default_rng(0)
    drawn = [calibration_error(confidence, random.random(len(confidence)) < confidence, bins) for _ in range(draws)]
    return float(np.mean(drawn))


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((confidence * bins).astype(int), bins - 1)


def with_floor(error: float, floor: float | None) -> str:
    """A calibration error beside what chance alone makes of it."""
    return f"{error:.1%}" if floor is None else f"{error:.1%} (perfect calibration: {floor:.1%} by chance)"


def temperature(logits: np.ndarray, labels) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    logits: (n, classes), or (views, n, classes), of whose softmax the mean over the views is taken.

    One more image counts, an average one of which every class is the true one with equal probability: images that are
    all classified rightly would ask for T = 0, a certainty that no number of images can vouch for (after Platt 1999).
    """
    from scipy.optimize import minimize_scalar

    logits, n = np.asarray(logits, np.float64), np.shape(logits)[-2]

    def loss(log_t: float) -> float:
        log_p = _log_probabilities(logits / np.exp(log_t))
        return -log_p[np.arange(n), labels].sum() - log_p.mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def calibrated_nll(logits: np.ndarray, labels) -> np.ndarray:
    """Per image, nats: what a classifier's logits (n, classes) say of the true class, at their best temperature.

    Classifiers of different confidence, trained with label smoothing or not, can be compared by it.
    """
    logits = np.asarray(logits, np.float64)
    return -_log_probabilities(logits / temperature(logits, labels))[np.arange(len(labels)), labels]


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """(n, classes), of the mean over the views where there are several."""
    from scipy.special import log_softmax, logsumexp

    log_p = log_softmax(logits, -1)
    return log_p if log_p.ndim == 2 else logsumexp(log_p, 0) - np.log(len(log_p))


def score(probabilities: np.ndarray, labels: np.ndarray) -> Evaluation:
    """`Evaluation` of probabilities (n, classes) against integer labels (n,)."""
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if len(labels) == 0:
        raise ValueError("nothing to evaluate: the dataset has no images")
    if not np.isfinite(probabilities).all():
        raise ValueError("the probabilities are not finite: does the network overflow? Its weights, or its precision")
    guesses = probabilities.argmax(1)
    right, confidence = guesses == labels, probabilities.max(1)
    confusion = np.zeros(probabilities.shape[1:] * 2, int)
    np.add.at(confusion, (labels, guesses), 1)
    true_class = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1.0)
    return Evaluation(
        accuracy=float(right.mean()),
        interval=wilson_interval(int(right.sum()), len(labels)),
        macro_accuracy=float(np.mean([right[labels == c].mean() for c in np.unique(labels)])),
        nll=float(-np.log(true_class).mean()),
        ece=calibration_error(confidence, right),
        n=len(labels),
        ece_floor=calibration_floor(confidence),
        confusion=tuple(map(tuple, confusion.tolist())),
    )
