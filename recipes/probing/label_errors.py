"""Labels that are probably wrong, by classifiers that had not seen the image."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from recipes.core.output import printable
from recipes.data.images import ImageData, joined
from recipes.probing.features import Features
from recipes.probing.probe import Probe

_SURE = 0.8
_IMPROBABLE = 0.3  # of what the images with that label have on average


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubtful: what it is labelled, what it looks like, and the probability of that."""

    file: str
    label: str
    suggested: str
    probability: float

    def __str__(self) -> str:
        return printable(f"{self.file}: labelled {self.label}, looks like {self.suggested} ({self.probability:.0%})")


def find_suspects(probe: Probe, features: Features, train: ImageData, validation: ImageData) -> tuple[Suspect, ...]:
    """Suspected label errors among the images, the most probable first.

    The probabilities are those of the probe's linear classifier, out of fold for training images; no classifier here
    has seen the image that it judges.

    features: of the training and validation images, in that order.
    """
    head = probe.head
    later = head.classifier.logits(features.tapped(head.taps)[0, len(train) :])
    probabilities = np.concatenate([head.out_of_fold, softmax(later.astype(np.float64), -1)])
    data = joined(train, validation)
    return tuple(
        Suspect(
            data.names[i], data.class_names[data.labels[i]], data.class_names[other], float(probabilities[i, other])
        )
        for i, other in label_errors(probabilities, data.labels)
    )


def label_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """(position, suggested class) of suspected label errors, by confident learning (Northcutt et al. 2021).

    An image counts as an example of class j when its probability of j reaches t_j, the mean probability of j among the
    images that are labelled j, or 0.8 where that is less; of several such classes, the most probable. It is suspected
    when that is not its label i, and its probability of i is below 0.3 t_i. Ordered by the probability of the label,
    the least first.
    """
    labels = np.asarray(labels)
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = np.array([min(own[labels == c].mean(), _SURE) if (labels == c).any() else 2 for c in range(classes)])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(1)
    doubtful = (confident.max(1) > 0) & (suggested != labels) & (own < _IMPROBABLE * thresholds[labels])
    return [(int(i), int(suggested[i])) for i in np.flatnonzero(doubtful)[np.argsort(own[doubtful], kind="stable")]]
