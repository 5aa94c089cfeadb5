"""What goes on inside a network on a few images, while it is trained: activations, dead units, gradients by layer."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from recipes.diagnostics.checks import FEW, activation_advice, dead_share, gradient_advice, has_kernel, recorded
from recipes.networks.compiled import weight_gradient_function


@dataclass(frozen=True)
class Inside:
    """One look: name of a layer or of a kernel → number.

    spread:    standard deviation of the outputs of each layer with a kernel.
    dead:      share of the units that are zero for all images, of each layer whose outputs are rectified; of fewer than
               20 images nothing.
    gradients: ‖∂loss/∂kernel‖, penalties included; empty where the model's loss is not a single one.
    """

    spread: dict[str, float]
    dead: dict[str, float]
    gradients: dict[str, float]

    @property
    def advice(self) -> tuple[str, ...]:
        """The lecture's, for what asks for a look."""
        norms = list(self.gradients.values())
        learned = norms and not any(norms)  # nothing left to learn, or all units dead, which is told as such
        inner = list(self.spread.values())[:-1]  # the last one's scale is the task's
        told = activation_advice(inner, self.dead), "" if learned else gradient_advice(norms)
        return tuple(filter(None, told))

    def __str__(self) -> str:
        spreads, norms = list(self.spread.values()) or [0.0], list(self.gradients.values())
        told = f"activations' standard deviation {min(spreads):.2g} to {max(spreads):.2g}"
        told += f", at most {max(self.dead.values(), default=0.0):.0%} of a layer's units dead"
        return told + (f", gradient norms {min(norms):.2g} to {max(norms):.2g}" if norms else "")


class Look:
    """Looks at a compiled model's weights as they are when it is called, at the same images: what is compiled for the
    first look, on JAX, serves for the others. In inference mode and without an update: nothing of the model changes."""

    def __init__(self, model: keras.Model, inputs, labels):
        self.model, self.inputs, self.labels = model, inputs, labels
        self._slopes = weight_gradient_function(self._loss, model)

    def __call__(self) -> Inside:
        with recorded(self.model, _facts) as seen:
            self.model(self.inputs, training=False)
        spread = {name: std for name, (std, _) in seen.items() if std is not None}
        enough = len(self.inputs) >= FEW  # of fewer, many units happen to fire on none
        dead = {name: share for name, (_, share) in seen.items() if share is not None and enough}
        return Inside(spread, dead, self._gradients())

    def _gradients(self) -> dict[str, float]:
        variables = self.model.trainable_variables
        if not single_loss(self.model) or not variables:
            return {}
        slopes = self._slopes(self.inputs, ops.convert_to_tensor(self.labels))
        norms = [0.0 if g is None else float(np.linalg.norm(g.astype(np.float32))) for g in slopes]
        return {v.path: norm for v, norm in zip(variables, norms, strict=True) if len(v.shape) > 1}

    def _loss(self, inputs, labels):
        outputs = self.model(inputs, training=False)
        return self.model.compute_loss(x=inputs, y=labels, y_pred=outputs, training=False)


def _facts(layer, out: np.ndarray) -> tuple[float | None, float | None]:
    return (float(out.std(dtype=np.float32)) if has_kernel(layer) else None), dead_share(out)


def single_loss(model) -> bool:
    """Whether the model was compiled with one loss: a name, a function or an object."""
    return isinstance(model.loss, str) or callable(model.loss)
