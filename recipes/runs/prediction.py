"""The prediction for one image."""

from dataclasses import dataclass, field

import numpy as np

from recipes.core.text import described, percent

_TOP = 5  # number of classes in `Prediction.top`


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        class_name: The most probable class; None if its probability is below `predict(abstain=…)` or the image has an
            `error`.
        probability: Probability of the most probable class. If the image has an `error`, this and all other numbers are
            NaN.
        probabilities: Probabilities of all classes, in the order of `class_names`.
        spread: Standard deviation of `probability` over the samples; None without samples.
        mutual_information: Disagreement of the samples in nats; None without samples.
        path: The image's file; None for bytes or pixels.
        error: Why the image could not be read or decoded; empty if it could.
        class_names: Names of all classes.
    """

    class_name: str | None
    probability: float
    probabilities: np.ndarray = field(repr=False)
    spread: float | None = None
    mutual_information: float | None = None
    path: str | None = None
    error: str = ""
    class_names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Return (class name, probability) of the five most probable classes, or of all if there are fewer.

        The result is sorted by decreasing probability, and empty if the image has an `error`.
        """
        if self.error:
            return ()
        best = np.argsort(-self.probabilities, kind="stable")[:_TOP]
        return tuple((self.class_names[i], float(self.probabilities[i])) for i in best)

    def __repr__(self) -> str:
        path = None if self.path is None else f"path={self.path!r}"
        if self.error:
            return described("Prediction", path, f"error={self.error!r}")
        return described("Prediction", repr(self.class_name), percent(self.probability), path)
