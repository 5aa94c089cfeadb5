"""Hold the classifier and the images of a diagnosis, and the result of one check."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from recipes import optimizers
from recipes.core.text import described
from recipes.networks.classifier import copied, fresh

BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """Hold the result of one check.

    Attributes:
        check: Name of the check.
        well: Whether the check passed; None where it does not apply or could not be measured.
        measured: The measurement, in words and numbers.
        advice: What to do; empty if the check passed.
        curves: Curves to draw, name → values; the learning rates, if they are the horizontal axis, are the curve
            "rate".
        axis: Label of the horizontal axis.
    """

    check: str
    well: bool | None
    measured: str
    advice: str = ""
    curves: dict[str, list[float]] = field(default_factory=dict, repr=False)
    axis: str = "layer"

    def __repr__(self) -> str:
        return described("Verdict", repr(self.check), f"well={self.well}", repr(self.measured), repr(self.advice))

    def __str__(self) -> str:
        mark = {True: "ok", False: "CHECK", None: "-"}[self.well]
        return f"{mark:5} {self.check}: {self.measured}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True, eq=False)
class Subject:
    """Hold a classifier and a sample of its training images.

    Attributes:
        model: 0..255 RGB → probabilities, or logits.
        images: float32 (n, height, width, 3).
        labels: Integers (n,).
        classes: Number of classes.
        logits: Whether the model returns logits.
        rate: Learning rate of the training; None without a training by gradient steps.
        optimizer: Function from a learning rate to the training's optimizer.
        warm: Whether the training began at a linear classifier instead of a new head.
    """

    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    classes: int
    logits: bool
    rate: float | None
    optimizer: Callable[[float], keras.optimizers.Optimizer] = optimizers.Adam
    warm: bool = False

    def loss(self, model: keras.Model, images: np.ndarray, labels: np.ndarray, training: bool = False) -> Any:
        """Return the mean cross-entropy in nats as a tensor, without the model's own penalties."""
        return self.cross_entropy(labels, model(images, training=training))

    def cross_entropy(self, labels: Any, outputs: Any) -> Any:
        """Return the mean cross-entropy of the model's outputs in nats, as a tensor."""
        outputs = ops.cast(outputs, "float32")
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=self.logits))

    def batches(self, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `steps` batches of (images, labels), drawn at random."""
        random = np.random.default_rng(0)
        for _ in range(steps):
            rows = random.integers(0, len(self.labels), min(BATCH, len(self.labels)))
            yield self.images[rows], self.labels[rows]

    def with_new_head(self) -> keras.Model:
        """Return a copy with random heads; a head is a Dense layer with one unit per class."""
        model = copied(self.model)
        dense = [layer for layer in model._flatten_layers() if type(layer) is keras.layers.Dense and layer.trainable]
        for head in (layer for layer in dense if layer.units == self.classes):
            kernel: Any = head.kernel  # always a variable; Keras's stubs also allow a tensor or None
            kernel.assign(keras.initializers.GlorotUniform(seed=0)(kernel.shape))
            if head.bias is not None:
                head.bias.assign(keras.ops.zeros(head.bias.shape))
        return model


def redrawn(model: keras.Model) -> keras.Model:
    """Return the architecture with random weights and unchanged preprocessing of the pixels.

    The batch normalisation of the returned model uses the statistics of the batch.
    """
    new = fresh(model)
    for layer in new._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True  # a frozen layer would use means and variances that do not fit the random weights
    _keep_preprocessing(model, new)
    return new


def _keep_preprocessing(model: keras.Model, new: keras.Model) -> None:
    for layer in model.layers:
        twin = new.get_layer(layer.name)
        if isinstance(layer, keras.Model):
            _keep_preprocessing(layer, twin)
        elif isinstance(layer, keras.layers.Normalization) or layer.name == "preprocessing":
            twin.set_weights(layer.get_weights())
