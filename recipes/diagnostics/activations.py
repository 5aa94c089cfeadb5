"""Measure activations, dead units and gradients of a network on a few images during training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from recipes.core.text import described
from recipes.diagnostics.checks import FEW, activation_advice, gradient_advice, kernel_norms, layer_statistics
from recipes.networks.compiled import weight_gradient_function


@dataclass(frozen=True)
class Inspection:
    """Hold measurements of a network on a few images, each a dict from a layer's or kernel's name to a number.

    Attributes:
        spread: Standard deviation of the outputs of each layer with a kernel.
        dead: For each layer with rectified outputs, the share of units that are zero for all images; empty for fewer
            than 20 images.
        gradients: ‖∂loss/∂kernel‖ of each kernel, including penalties; empty if the model does not have a single loss.
    """

    spread: dict[str, float]
    dead: dict[str, float]
    gradients: dict[str, float]

    @property
    def advice(self) -> tuple[str, ...]:
        """Return advice for each problem."""
        norms = list(self.gradients.values())
        # zero gradients: nothing left to learn, or all units are dead, which is reported separately
        all_zero = bool(norms) and not any(norms)
        inner = list(self.spread.values())[:-1]  # the task determines the scale of the last layer
        advice = activation_advice(inner, self.dead), "" if all_zero else gradient_advice(norms)
        return tuple(filter(None, advice))

    def __repr__(self) -> str:
        return described("Inspection", str(self))

    def __str__(self) -> str:
        spreads, norms = list(self.spread.values()) or [0.0], list(self.gradients.values())
        parts = [
            f"standard deviation of the activations {min(spreads):.2g} to {max(spreads):.2g}",
            f"at most {max(self.dead.values(), default=0.0):.0%} of a layer's units dead",
        ]
        parts += [f"gradient norms {min(norms):.2g} to {max(norms):.2g}"] if norms else []
        return ", ".join(parts)


class Inspector:
    """Measure a compiled model on the same images at every call, with its current weights.

    The model runs in inference mode and is not changed. JAX compiles the gradients at the first call.
    """

    def __init__(self, model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels
        self._slopes: Callable[..., list[np.ndarray | None]] = weight_gradient_function(self._loss, model)

    def __call__(self) -> Inspection:
        spread, dead = layer_statistics(self.model, self.inputs, training=False)
        if len(self.inputs) < FEW:  # on few images, many units are zero by chance
            dead = {}
        return Inspection(spread, dead, self._gradients())

    def _gradients(self) -> dict[str, float]:
        if not has_single_loss(self.model) or not self.model.trainable_variables:
            return {}
        slopes = self._slopes(self.inputs, ops.convert_to_tensor(self.labels))
        return dict(kernel_norms(self.model, slopes))

    def _loss(self, inputs: Any, labels: Any) -> Any:  # the type is that of the backend's tensors
        outputs = self.model(inputs, training=False)
        return self.model.compute_loss(x=inputs, y=labels, y_pred=outputs, training=False)


def has_single_loss(model: keras.Model) -> bool:
    """Return whether the model was compiled with one loss: a name, a function or an object."""
    return isinstance(model.loss, str) or callable(model.loss)
