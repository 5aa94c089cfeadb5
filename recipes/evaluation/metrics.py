"""Compute accuracy with its uncertainty from probabilities and labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from scipy.special import log_softmax, logsumexp

from recipes.core.card import CardTable, card
from recipes.core.files import write_csv
from recipes.core.text import counted, described, percent
from recipes.errors import DataError, RecipesError
from recipes.evaluation.figure import figure
from recipes.evaluation.intervals import wilson_interval
from recipes.evaluation.per_class import (
    CSV_HEADER,
    HEADER,
    MOST_SHOWN,
    ClassScore,
    class_rows,
    class_scores,
    class_table,
    left_out,
    worst,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 15  # number of confidence bins in calibration errors and reliability diagrams


@dataclass(frozen=True)
class Evaluation:
    """The quality of a classifier on `n` labelled images.

    Attributes:
        accuracy: Share of images whose most probable class is right.
        interval: 95 % Wilson score interval of the accuracy.
        macro_accuracy: Mean of the accuracies within each class that has images.
        nll: Mean negative log-likelihood of the true class, nats.
        ece: Expected calibration error: Σ_b n_b / n · |accuracy_b − confidence_b| over 15 equal-width bins.
        n: Number of images.
        ece_floor: Mean `ece` of a perfectly calibrated classifier on as many images, which is the part explained by
            chance. None if the run was saved by a version that did not measure it.
        confusion: `confusion[i][j]` images of class i were classified as class j.
        class_names: Names of the classes; unknown names are replaced by numbers.
    """

    accuracy: float
    interval: tuple[float, float]
    macro_accuracy: float
    nll: float
    ece: float
    n: int
    ece_floor: float | None = None
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    class_names: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @cached_property
    def per_class(self) -> tuple[ClassScore, ...]:
        """The accuracy, precision, F1 and most frequent mistake of each class, in the order of the classes.

        Raises:
            RecipesError: If the evaluation was saved by a version that did not count mistakes per class.
        """
        if not self.confusion:
            raise RecipesError(
                "This evaluation was saved by an earlier version and lacks the mistakes of each class. Call "
                "result.evaluate(dataset) to compute them.",
                code="evaluation.no_confusion",
            )
        names = self.class_names or tuple(map(str, range(len(self.confusion))))
        return class_scores(self.confusion, names)

    def named(self, class_names: Sequence[str]) -> "Evaluation":
        """Return the evaluation with these class names."""
        return replace(self, class_names=tuple(class_names))

    def table(self, most: int = MOST_SHOWN) -> Table:
        """Return a text table of the classes; with more than `most` classes, only those with the lowest accuracies.

        Raises:
            RecipesError: As `per_class`.
        """
        return class_table(self.per_class, most)

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write a CSV file with one row per class and the fields of `per_class`.

        Raises:
            OutputError: If the file cannot be written, or exists and begins with another header.
            RecipesError: As `per_class`.
        """
        rows = class_rows(self.per_class)
        write_csv(path, CSV_HEADER, rows, contents="classes of an evaluation", code="evaluation")

    def plot(self) -> "Figure":
        """Return a matplotlib Figure: the accuracy of each class with its interval, beside the confusion matrix.

        With more than 30 classes, only those with the lowest accuracies are drawn.

        Raises:
            RecipesError: As `per_class`.
        """
        return figure(self.per_class, self.confusion, self.accuracy)

    def __repr__(self) -> str:
        accuracy, macro = percent(self.accuracy, self.interval), f"macro {percent(self.macro_accuracy)}"
        errors = f"nll {self.nll:.3f}", f"calibration error {percent(self.ece)}"
        return described("Evaluation", accuracy, counted(self.n, "image"), macro, *errors)

    def _repr_html_(self) -> str:
        """Return the card that a notebook shows."""
        facts = (
            ("mean over the classes", percent(self.macro_accuracy)),
            ("negative log-likelihood", f"{self.nll:.3f} nats"),
            ("calibration error", with_floor(self.ece, self.ece_floor)),
        )
        scores = self.per_class if self.confusion else ()
        rows = [(scores[i].class_name, *scores[i].cells) for i in worst(scores)]
        title = f"accuracy on {counted(self.n, 'image')}, with its 95 % interval"
        table = CardTable(HEADER, rows, left_out(scores))
        return card(percent(self.accuracy, self.interval), title, facts, table)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}, {self.n} images), "
            f"macro {self.macro_accuracy:.1%}, negative log-likelihood {self.nll:.3f}, "
            f"calibration error {with_floor(self.ece, self.ece_floor)}"
        )


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error over equal-width bins (Guo et al. 2017).

    Args:
        confidence: Probability of the most probable class, (n,).
        right: Whether that class is the true one, (n,).
    """
    gaps = np.bincount(bin_of(confidence), right - confidence.astype(float))
    return float(np.abs(gaps).sum() / len(right))


def calibration_floor(confidence: np.ndarray, draws: int = 200) -> float:
    """Return the mean `calibration_error` that a perfectly calibrated classifier with these confidences has by chance.

    The mean is over seeded random draws of right answers. A mean of absolute values is positive by chance: for 70 %
    accuracy it is about 3 % on 1,000 images and 7 % on 200 images.

    Args:
        confidence: Probability of the most probable class, (n,).
        draws: Number of draws.
    """
    random = np.random.default_rng(0)
    drawn = [calibration_error(confidence, random.random(len(confidence)) < confidence) for _ in range(draws)]
    return float(np.mean(drawn))


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the index of the equal-width bin of each confidence, (n,)."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


def with_floor(error: float, floor: float | None) -> str:
    """Return a calibration error as text, with the part that is explained by chance."""
    return f"{error:.1%}" if floor is None else f"{error:.1%} (perfect calibration: {floor:.1%} by chance)"


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T > 0 that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    One average image is added, for which all classes are true with equal probability (after Platt 1999). Without it, T
    would be 0 if all images are classified correctly, and no number of images supports that certainty.

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

    The best temperature makes classifiers of different confidence comparable, for example with and without label
    smoothing.

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


def score(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str] = ()) -> Evaluation:
    """Return the `Evaluation` of probabilities against labels.

    Args:
        probabilities: (n, classes).
        labels: Integer labels, (n,).
        class_names: Names of the classes; () if unknown.

    Raises:
        DataError: If there are no images.
        RecipesError: If a probability is infinite or NaN.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if len(labels) == 0:
        raise DataError(
            "The dataset has no images; expected at least one labelled image to evaluate.", code="evaluation.no_images"
        )
    if not np.isfinite(probabilities).all():
        raise RecipesError(
            "The probabilities are not finite, because the network overflows. Check its weights and the dtype policy.",
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
        class_names=tuple(class_names),
    )
