"""The prediction for one image."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        class_name: The most probable class; None where its probability is below the threshold of `predict(abstain=…)`,
            and where the image has an `error`.
        probability: Probability of that class; NaN where the image has an `error`, like all other numbers.
        probabilities: Probabilities of all classes, in their order.
        spread: Standard deviation of `probability` over the samples; None without samples.
        mutual_information: Disagreement of the samples in nats; None without samples.
        path: The image's file; None where it came as bytes or pixels.
        error: Why the image could not be read or decoded; empty where it could.
    """

    class_name: str | None
    probability: float
    probabilities: np.ndarray = field(repr=False)
    spread: float | None = None
    mutual_information: float | None = None
    path: str | None = None
    error: str = ""
