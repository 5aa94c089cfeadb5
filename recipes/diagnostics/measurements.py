"""Hold what the babysitter measures during a training, and the time that this takes."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from recipes.diagnostics.activations import Inspector
from recipes.errors import RecipeError

SAMPLE_IMAGES = 32  # number of examples of the sample that are used
_ENOUGH = 5  # number of weight measurements before advice is given, because the first ones fall into the warm-up


@dataclass
class Progress:
    """Hold the state of one training.

    Attributes:
        kernels: The trainable weights with more than one dimension.
        began: Time at which the training began; all times are in seconds.
        step: Number of steps so far.
        first_step: Time of the first step.
        before: Copies of the kernels before the current step, if the step is measured.
        weights_time: Time spent on copies, comparisons and histograms of the weights.
        comparison_time: Estimated time of the next comparison.
        inspections_time: Time spent on inspections.
        inspection_time: Estimated time of the next inspection; None before the first inspection that compiled nothing.
        inspector: The inspector, which is created at the first inspection.
        overfit_reported: Whether the gap between the accuracies was reported.
    """

    kernels: list[keras.Variable] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    step: int = 0
    first_step: float = 0.0
    before: list[np.ndarray] | None = None
    weights_time: float = 0.0
    comparison_time: float = 0.0
    inspections_time: float = 0.0
    inspection_time: float | None = None
    inspector: Inspector | None = None
    overfit_reported: bool = False

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.began


def checked_sample(sample: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the first inputs and labels of a sample as arrays."""
    if not isinstance(sample, tuple | list) or len(sample) != 2 or any(not hasattr(part, "__len__") for part in sample):
        raise RecipeError(
            f"sample is a {type(sample).__name__}; expected (inputs, labels), as model.fit takes them",
            code="recipe.sample",
            field="sample",
        )
    inputs, labels = sample
    if len(inputs) != len(labels) or not len(inputs):
        raise RecipeError(
            f"sample has {len(inputs)} inputs and {len(labels)} labels; expected the same number of both",
            code="recipe.sample",
            field="sample",
        )
    return np.asarray(ops.convert_to_numpy(inputs[:SAMPLE_IMAGES])), np.asarray(labels[:SAMPLE_IMAGES])


TOO_FEW = ", too few for advice"


def ratio_advice(median: float, ratios: Sequence[np.ndarray]) -> str:
    if not math.isfinite(median):
        return ": lower the learning rate"
    if len(ratios) < _ENOUGH:
        return TOO_FEW
    if 1e-4 <= median <= 1e-2:
        return ""
    return f": about 1e-3 is good; {'lower' if median > 1e-2 else 'raise'} the learning rate"


def histogram_seconds(kernels: Sequence[keras.Variable]) -> float:
    """Estimate the time of histograms: TensorFlow sorts some ten million weights a second into buckets."""
    return 1e-7 * sum(int(np.prod(v.shape)) for v in kernels) + 1e-3 * len(kernels)


def loss_name(loss: Any) -> str:
    """Return the name of a loss given as text, function or object."""
    return str(loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", "")))
