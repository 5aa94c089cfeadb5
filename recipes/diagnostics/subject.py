"""What a diagnosis looks at, and what a check of it says."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
from keras import ops

import optimizers
from recipes.networks.classifier import copied, fresh

_BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """What one check found.

    well:     None where there was nothing to judge, or it could not be measured.
    measured: in words and numbers.
    advice:   the lecture's; empty where all is well.
    curves, axis: what to draw: name → values, along what; those along a learning rate carry a curve "rate".
    """

    check: str
    well: bool | None
    measured: str
    advice: str = ""
    curves: dict[str, list[float]] = field(default_factory=dict, repr=False)
    axis: str = "layer"

    def __str__(self) -> str:
        mark = {True: "well", False: "LOOK", None: "-"}[self.well]
        return f"{mark:5} {self.check}: {self.measured}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier and a sample of its training images.

    model:  0..255 RGB → probabilities, or logits.
    images: float32 (n, height, width, 3).  labels: integers (n,).
    logits: whether the model gives logits.
    warm:   whether its training began at a linear classifier, and not at a new head.
    rate:   the learning rate that it is, or will be, trained at; None: it is not trained by gradient steps.
    optimizer: learning rate → the optimizer that trains it.
    """

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    classes: int
    logits: bool
    rate: float | None
    optimizer: Callable[[float], keras.optimizers.Optimizer] = optimizers.Adam
    warm: bool = False

    def loss(self, model, images, labels, training: bool = False):
        """Mean cross-entropy in nats; without the model's own penalties."""
        return self.cross_entropy(labels, model(images, training=training))

    def cross_entropy(self, labels, outputs):
        outputs = ops.cast(outputs, "float32")
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=self.logits))

    def batches(self, steps: int):
        """(images, labels) of _BATCH, drawn again and again."""
        random = np.random.default_rng(0)
        for _ in range(steps):
            rows = random.integers(0, len(self.labels), min(_BATCH, len(self.labels)))
            yield self.images[rows], self.labels[rows]

    def with_new_head(self) -> keras.Model:
        """A copy whose heads, the Dense layers with a unit for each class, are drawn anew: where training begins."""
        model = copied(self.model)
        dense = [layer for layer in model._flatten_layers() if type(layer) is keras.layers.Dense and layer.trainable]
        for head in (layer for layer in dense if layer.units == self.classes):
            head.kernel.assign(keras.initializers.GlorotUniform(seed=0)(head.kernel.shape))
            if head.use_bias:
                head.bias.assign(keras.ops.zeros(head.bias.shape))
        return model


def redrawn(model: keras.Model) -> keras.Model:
    """The architecture with random weights, whose batch statistics are those of the batch; what prepares the pixels
    stays."""
    new = fresh(model)
    for layer in new._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True  # frozen, it would run on means and variances that are of no weights
    _keep_preprocessing(model, new)
    return new


def _keep_preprocessing(model, new) -> None:
    for layer in model.layers:
        twin = new.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            _keep_preprocessing(layer, twin)
        elif isinstance(layer, keras.layers.Normalization) or layer.name == "preprocessing":
            twin.set_weights(layer.get_weights())
