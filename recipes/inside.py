"""What goes on inside a network on a few images, while it is trained: activations, dead units, gradients by layer."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from recipes.checks import FEW, activation_advice, dead_share, gradient_advice, has_kernel, recorded
from recipes.compiled import weight_gradients


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


def look_inside(model: keras.Model, inputs, labels) -> Inside:
    """In inference mode and without an update: nothing of the model changes."""
    with recorded(model, _facts) as seen:
        model(inputs, training=False)
    spread = {name: std for name, (std, _) in seen.items() if std is not None}
    enough = len(inputs) >= FEW  # of fewer, many units happen to fire on none
    dead = {name: share for name, (_, share) in seen.items() if share is not None and enough}
    return Inside(spread, dead, _gradients(model, inputs, labels))


def _facts(layer, out: np.ndarray) -> tuple[float | None, float | None]:
    return (float(out.std(dtype=np.float32)) if has_kernel(layer) else None), dead_share(out)


def _gradients(model, inputs, labels) -> dict[str, float]:
    if not single_loss(model) or not model.trainable_variables:
        return {}
    labels = ops.convert_to_tensor(labels)

    def loss():
        return model.compute_loss(x=inputs, y=labels, y_pred=model(inputs, training=False), training=False)

    slopes = weight_gradients(loss, model)
    pairs = zip(slopes, model.trainable_variables, strict=True)
    norms = {v.path: 0.0 if g is None else float(np.linalg.norm(g.astype(np.float32))) for g, v in pairs}
    return {v.path: norms[v.path] for v in model.trainable_variables if len(v.shape) > 1}


def single_loss(model) -> bool:
    """Whether the model was compiled with one loss: a name, a function or an object."""
    return isinstance(model.loss, str) or callable(model.loss)
