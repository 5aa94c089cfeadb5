"""The prediction for one image."""

from dataclasses import dataclass, field

import numpy as np

from recipes.core.text import described, percent

_TOP = 5  # classes in `Prediction.top`


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
        class_names: Names of the classes, in the order of the probabilities.
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
        """(class name, probability) of the five most probable classes, or of all if there are fewer, in that order.

        It is empty where the image has an `error`.
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
