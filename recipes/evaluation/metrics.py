"""Accuracy with its uncertainty, from probabilities and labels."""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax, logsumexp

from recipes.errors import DataError, RecipesError

BINS = 15  # of confidence, in calibration errors and reliability diagrams


@dataclass(frozen=True)
class Evaluation:
    """The quality of a classifier on `n` labelled images.

    Attributes:
        accuracy: Share of images whose most probable class is right.
        interval: 95 % Wilson score interval of the accuracy.
        macro_accuracy: Mean over the classes that have images of the accuracy within the class.
        nll: Mean negative log-likelihood of the true class, nats.
        ece: Expected calibration error: Σ_b n_b / n · |accuracy_b − confidence_b| over 15 equal-width bins.
        n: Number of images.
        ece_floor: Mean `ece` of a perfectly calibrated classifier on as many images, which is the part that chance
            explains. None for a run saved by a version that did not measure it.
        confusion: `confusion[i][j]` images of class i were classified as class j.
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


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of the proportion right / n, reliable near 0 and 1 and for small n."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(right, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error over equal-width bins (Guo et al. 2017).

    Args:
        confidence: Probability of the most probable class, (n,).
        right: Whether that class is the true one, (n,).
    """
    gaps = np.bincount(bin_of(confidence), right - confidence.astype(float))
    return float(np.abs(gaps).sum() / len(right))


def calibration_floor(confidence: np.ndarray, draws: int = 200) -> float:
    """Return the mean `calibration_error` of these confidences if they are true, over seeded draws of right answers.

    A mean of absolute values is positive by chance: a perfectly calibrated classifier with 70 % accuracy shows about
    3 % on 1,000 images and 7 % on 200.

    Args:
        confidence: Probability of the most probable class, (n,).
        draws: Number of draws.
    """
    random = np.random.default_rng(0)
    drawn = [calibration_error(confidence, random.random(len(confidence)) < confidence) for _ in range(draws)]
    return float(np.mean(drawn))


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the index of the equal-width bin of each confidence (n,)."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


def with_floor(error: float, floor: float | None) -> str:
    """Return a calibration error as text, with the part that chance explains."""
    return f"{error:.1%}" if floor is None else f"{error:.1%} (perfect calibration: {floor:.1%} by chance)"


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T > 0 that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    One average image is added for which every class is the true one with equal probability. Without it, images that are
    all classified correctly would give T = 0, a certainty that no number of images supports (after Platt 1999).

    Args:
        logits: (n, classes), or (views, n, classes), whose probabilities are averaged over the views.
        labels: Integer labels, (n,).
    """
    from scipy.optimize import minimize_scalar

    logits, n = np.asarray(logits, np.float64), np.shape(logits)[-2]

    def loss(log_t: float) -> float:
        log_p = _log_probabilities(logits / np.exp(log_t))
        return -log_p[np.arange(n), labels].sum() - log_p.mean()

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return float(np.exp(best.x))  # pyright: ignore[reportAttributeAccessIssue]  # SciPy does not declare its result


def calibrated_nll(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of each image at the best temperature of the logits, nats, (n,).

    It compares classifiers of different confidence, for example trained with label smoothing or without.

    Args:
        logits: (n, classes).
        labels: Integer labels, (n,).
    """
    logits = np.asarray(logits, np.float64)
    return -_log_probabilities(logits / temperature(logits, labels))[np.arange(len(labels)), labels]


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities (n, classes), averaged over the views if there are several."""
    log_p = log_softmax(logits, -1)
    return log_p if log_p.ndim == 2 else logsumexp(log_p, 0) - np.log(len(log_p))


def score(probabilities: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Return the `Evaluation` of probabilities against labels.

    Args:
        probabilities: (n, classes).
        labels: Integer labels, (n,).

    Raises:
        DataError: If there are no images.
        RecipesError: If a probability is infinite or NaN.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if len(labels) == 0:
        raise DataError("The dataset has no images, so nothing can be evaluated.", code="evaluation.no_images")
    if not np.isfinite(probabilities).all():
        raise RecipesError(
            "The probabilities are not finite: the network overflows. Check its weights and the dtype policy.",
            code="evaluation.not_finite",
        )
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
