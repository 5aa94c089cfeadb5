"""The predictions of a classifier for labelled images."""

from dataclasses import dataclass

import numpy as np

from recipes.core.text import counted, described
from recipes.evaluation.metrics import BINS, bin_of


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions for n labelled images that were not used to train the classifier.

    Attributes:
        labels: int64 (n,).
        probabilities: float32 (n, classes).
    """

    labels: np.ndarray
    probabilities: np.ndarray

    def __repr__(self) -> str:
        images, classes = self.probabilities.shape
        return described("Judged", counted(images, "image"), counted(classes, "class", "classes"))

    @property
    def predicted(self) -> np.ndarray:
        """Most probable class of each image, (n,)."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the most probable class of each image, (n,)."""
        return self.probabilities.max(1)

    def mistakes(self) -> np.ndarray:
        """Return the positions of misclassified images, sorted by the probability of the true class, lowest first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(self.probabilities[wrong, self.labels[wrong]], kind="stable")]

    def reliability(self, bins: int = BINS) -> list[tuple[float, float, int]]:
        """Return (mean confidence, accuracy, number of images) of each equal-width bin of confidence with images.

        Mean confidence and accuracy are equal for a calibrated classifier (Guo et al. 2017).
        """
        confidence, right = self.confidence, self.predicted == self.labels
        members = [bin_of(confidence, bins) == b for b in range(bins)]
        return [(float(confidence[m].mean()), float(right[m].mean()), int(m.sum())) for m in members if m.any()]
