"""Find labels that are probably wrong, by classifiers that were not trained on the image."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from recipes.core.output import printable
from recipes.core.text import described, percent
from recipes.data.images import ImageData, joined
from recipes.probing.features import Features
from recipes.probing.probe import Probe

_SURE = 0.8  # a probability of at least this value always counts as confident
_IMPROBABLE = 0.3  # factor on the mean probability of the images with that label


@dataclass(frozen=True)
class Suspect:
    """An image with a suspicious label.

    Attributes:
        file: Name of the image.
        label: Its class name.
        suggested: The class that the image resembles.
        probability: Probability of the suggested class.
    """

    file: str
    label: str
    suggested: str
    probability: float

    def __repr__(self) -> str:
        suggested = f"looks like {self.suggested!r} ({percent(self.probability)})"
        return described("Suspect", repr(self.file), f"labelled {self.label!r}", suggested)

    def __str__(self) -> str:
        return printable(f"{self.file}: labelled {self.label}, looks like {self.suggested} ({self.probability:.0%})")


def find_suspects(probe: Probe, features: Features, train: ImageData, validation: ImageData) -> tuple[Suspect, ...]:
    """Return the suspected label errors among the images, the most probable first.

    The probabilities come from the linear classifiers of the probe. For training images they are out of fold, so no
    classifier was trained on the image that it classifies.

    Args:
        probe: The probe of the training images.
        features: Features of the training and validation images, in that order.
        train: The training images.
        validation: The validation images.
    """
    head = probe.head
    logits = head.classifier.logits(features.tapped(head.taps)[0, len(train) :])
    probabilities = np.concatenate([head.out_of_fold, softmax(logits.astype(np.float64), -1)])
    data = joined(train, validation)
    return tuple(
        Suspect(
            data.names[i], data.class_names[data.labels[i]], data.class_names[other], float(probabilities[i, other])
        )
        for i, other in label_errors(probabilities, data.labels)
    )


def label_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Return suspected label errors by confident learning (Northcutt et al. 2021).

    An image counts as an example of class j if its probability of j reaches t_j. The threshold t_j is the mean
    probability of j among the images with label j, but at most 0.8. If several classes qualify, the most probable one
    counts. The image is suspected if that class is not its label i, and its probability of i is below 0.3 t_i.

    Args:
        probabilities: (n, classes).
        labels: Integer labels, (n,).

    Returns:
        (position, suggested class) of each suspect, in ascending order of the probability of the label.
    """
    labels = np.asarray(labels)
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = np.array([min(own[labels == c].mean(), _SURE) if (labels == c).any() else 2 for c in range(classes)])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(1)
    doubtful = (confident.max(1) > 0) & (suggested != labels) & (own < _IMPROBABLE * thresholds[labels])
    return [(int(i), int(suggested[i])) for i in np.flatnonzero(doubtful)[np.argsort(own[doubtful], kind="stable")]]
