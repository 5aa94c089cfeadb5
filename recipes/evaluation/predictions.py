"""What a classifier says of labelled images, image by image."""

from dataclasses import dataclass

import numpy as np

BINS = 15  # as `evaluation.calibration_error` has


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions of n labelled images that the classifier was not trained on.

    labels:        int64 (n,).
    probabilities: float32 (n, classes).
    """

    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """(n,) the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """(n,) its probability."""
        return self.probabilities.max(1)

    def mistakes(self) -> np.ndarray:
        """Positions of the wrongly classified images, the most improbable true class first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(self.probabilities[wrong, self.labels[wrong]], kind="stable")]

    def reliability(self, bins: int = BINS) -> list[tuple[float, float, int]]:
        """(mean confidence, accuracy, images) of each of the equal-width bins of confidence that has images (Guo et al.
        2017); a calibrated classifier's first two are equal."""
        confidence, right = self.confidence, self.predicted == self.labels
        bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
        members = [bin_of == b for b in range(bins)]
        return [(float(confidence[m].mean()), float(right[m].mean()), int(m.sum())) for m in members if m.any()]
