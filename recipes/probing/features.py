"""Compute features of the frozen backbone in one pass over the images, with every stage pooled."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from recipes import augment
from recipes.core.progress import phase
from recipes.data.evaluation_batches import images_alone
from recipes.data.images import ImageData
from recipes.networks.backbones import Backbone
from recipes.networks.compiled import compiled
from recipes.networks.stages import feature_tensors, pooled
from recipes.probing import cache as feature_cache


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the images at each stage of the frozen network, shallow to deep.

    Attributes:
        stages: float32 (views, n, channels) per stage. View 0 holds the images, view 1, if any, their mirror images.
        image_seconds: Seconds per image and view of the pass that computed them.
        origin: Text that names the source of the features or the file in which they are saved.
    """

    stages: list[np.ndarray]
    image_seconds: float
    origin: str

    def __getitem__(self, rows: np.ndarray | slice) -> "Features":
        """Return the features of the images at `rows`."""
        return Features([stage[:, rows] for stage in self.stages], self.image_seconds, self.origin)

    def tapped(self, taps: Sequence[int]) -> np.ndarray:
        """Return the concatenated features (views, n, channels) of the stages at these positions."""
        chosen = [self.stages[i] for i in taps]
        return chosen[0] if len(chosen) == 1 else np.concatenate(chosen, -1)


def stage_model(backbone: Backbone, size: int) -> tuple[keras.Model, list[str]]:
    """Return a model of the pooled features of every stage, and the names of the stages, shallow to deep.

    Args:
        backbone: The network.
        size: Side of the images, pixels.

    Returns:
        A model from images (batch, size, size, 3) of 0..255 to features (batch, channels) per stage, and the names.
    """
    tensors = feature_tensors(backbone.network, size)
    names = [f"stage {i}" for i in range(1, len(tensors) + 1)]
    names[-1] += " (last)"
    images = keras.Input((size, size, 3), name="images")
    outputs = backbone(images, keras.Model(backbone.network.inputs, [pooled(t, f"{i}") for i, t in enumerate(tensors)]))
    return keras.Model(images, outputs), names


class Extractor:
    """The frozen network with an output at every stage, for images of one size.

    Args:
        backbone: The network.
        size: Side of the images, pixels.
    """

    def __init__(self, backbone: Backbone, size: int) -> None:
        self.model, self.names = stage_model(backbone, size)
        self.policy = augment.Policy.none(size)
        self._steps: dict[bool, Callable[[Any], list[Any]]] = {}

    def __call__(self, data: ImageData, fingerprints: Sequence[str], *, mirrored: bool) -> Features:
        """Return the features of images, from the cache on disk if it holds these images in any order.

        Args:
            data: The images.
            fingerprints: Digests of the contents of the images.
            mirrored: Whether to add the mirror images as a second view. Mirroring is the only augmentation that does
                not reduce the accuracy of a frozen network.
        """
        order = np.argsort(np.asarray(fingerprints), kind="stable")

        def compute() -> list[np.ndarray]:
            began = time.monotonic()
            arrays = self._run(data.subset(order), mirrored)
            seconds = (time.monotonic() - began) / (len(data) * (1 + mirrored))
            return [*arrays, np.array(seconds)]

        name = feature_cache.key(self.model, [fingerprints[int(i)] for i in order], self.policy, mirrored)
        (*arrays, seconds), origin = feature_cache.cached(name, compute)
        back = np.argsort(order)
        return Features([array[:, back] for array in arrays], float(seconds), origin)

    def seconds_of(self, data: ImageData) -> float:
        """Return the seconds per image of a pass over some images of `data`, without the compilation time."""
        sample, count, began = data.subset(np.arange(min(len(data), 128))), 0, 0.0
        step = self._step(False)
        for images in images_alone(sample, self.policy, 32).repeat().take(5):
            step(images)
            count = count + len(images) if began else 0
            began = began or time.monotonic()
        return (time.monotonic() - began) / count

    def _step(self, mirrored: bool) -> Callable[[Any], list[Any]]:
        """Return the traced function from images (batch, size, size, 3) to (views, batch, channels) per stage."""

        def views(images: Any) -> list[Any]:  # Any: tensors of the backend
            both = ops.concatenate([images, ops.flip(images, 2)], 0) if mirrored else images
            outputs = self.model(both, training=False)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            return [ops.cast(ops.reshape(x, (1 + mirrored, -1, x.shape[-1])), "float32") for x in outputs]

        if mirrored not in self._steps:
            self._steps[mirrored] = compiled(views, self.model)
        return self._steps[mirrored]

    def _run(self, data: ImageData, mirrored: bool) -> list[np.ndarray]:
        at, n, step = 0, len(data), self._step(mirrored)
        arrays = [np.empty((1 + mirrored, n, output.shape[-1]), np.float32) for output in self.model.outputs]
        with phase("features of the frozen network", n) as progress:
            for images in images_alone(data, self.policy, 32):
                parts = [part[:, : n - at] for part in step(images)]
                for array, part in zip(arrays, parts, strict=True):
                    array[:, at : at + part.shape[1]] = part
                at += parts[0].shape[1]
                progress.update(at)
        return arrays
