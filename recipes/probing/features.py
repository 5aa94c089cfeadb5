"""Features of the frozen backbone: one pass over the images, every stage pooled."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from rich.progress import Progress

import augment
from recipes.data.evaluation_batches import images_alone
from recipes.data.images import ImageData
from recipes.networks.backbones import Backbone
from recipes.networks.compiled import compiled
from recipes.networks.stages import feature_tensors, pooled
from recipes.probing import cache as feature_cache


@dataclass(frozen=True, eq=False)
class Features:
    """What the frozen network makes of the images at each stage, shallow to deep.

    stages:        float32 (views, n, channels) per stage: view 0 the images, view 1, if any, their mirror images.
    image_seconds: seconds per image and view of the pass that made them.
    origin:        where they come from or are kept, in words.
    """

    stages: list[np.ndarray]
    image_seconds: float
    origin: str

    def __getitem__(self, rows) -> "Features":
        """Of the images at `rows`."""
        return Features([stage[:, rows] for stage in self.stages], self.image_seconds, self.origin)

    def tapped(self, taps: Sequence[int]) -> np.ndarray:
        """(views, n, channels) of the stages at these positions, concatenated."""
        chosen = [self.stages[i] for i in taps]
        return chosen[0] if len(chosen) == 1 else np.concatenate(chosen, -1)


def stage_model(backbone: Backbone, size: int) -> tuple[keras.Model, list[str]]:
    """0..255 RGB → the pooled features (batch, channels) of every stage, and the stages' names, shallow to deep."""
    tensors = feature_tensors(backbone.network, size)
    names = [f"stage {i}" for i in range(1, len(tensors) + 1)]
    names[-1] += " (last)"
    images = keras.Input((size, size, 3), name="images")
    outputs = backbone(images, keras.Model(backbone.network.inputs, [pooled(t, f"{i}") for i, t in enumerate(tensors)]))
    return keras.Model(images, outputs), names


class Extractor:
    """The frozen network with an output at every stage, ready to look at images of one size."""

    def __init__(self, backbone: Backbone, size: int):
        self.model, self.names = stage_model(backbone, size)
        self.policy = augment.Policy.none(size)
        self._steps = {}

    def __call__(self, data: ImageData, fingerprints, *, mirrored: bool) -> Features:
        """The features of `data` (and of its mirror images: the one augmentation that costs a frozen network nothing in
        accuracy), kept on disk, whatever order the images come in."""
        order = np.argsort(np.asarray(fingerprints), kind="stable")

        def compute():
            began = time.monotonic()
            arrays = self._run(data.subset(order), mirrored)
            seconds = (time.monotonic() - began) / (len(data) * (1 + mirrored))
            return [*arrays, np.array(seconds)]

        name = feature_cache.key(self.model, [fingerprints[i] for i in order], self.policy, mirrored)
        (*arrays, seconds), origin = feature_cache.remembered(name, compute)
        back = np.argsort(order)
        return Features([array[:, back] for array in arrays], float(seconds), origin)

    def seconds_of(self, data: ImageData) -> float:
        """Per image of a pass over some images of `data`, once the step is compiled."""
        some, seen, began = data.subset(np.arange(min(len(data), 128))), 0, 0.0
        step = self._step(False)
        for images in images_alone(some, self.policy, 32).repeat().take(5):
            step(images)
            seen = seen + len(images) if began else 0
            began = began or time.monotonic()
        return (time.monotonic() - began) / seen

    def _step(self, mirrored: bool):
        """Images (batch, size, size, 3) → per stage (views, batch, channels), traced once."""

        def views(images):
            both = ops.concatenate([images, ops.flip(images, 2)], 0) if mirrored else images
            outputs = self.model(both, training=False)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            return [ops.cast(ops.reshape(x, (1 + mirrored, -1, x.shape[-1])), "float32") for x in outputs]

        if mirrored not in self._steps:
            self._steps[mirrored] = compiled(views, self.model)
        return self._steps[mirrored]

    def _run(self, data: ImageData, mirrored: bool) -> list[np.ndarray]:
        arrays, at, n, step = None, 0, len(data), self._step(mirrored)
        with Progress(transient=True, disable=n < 500) as progress:
            task = progress.add_task("features of the frozen network", total=n)
            for images in images_alone(data, self.policy, 32):
                parts = [part[:, : n - at] for part in step(images)]
                if arrays is None:
                    arrays = [np.empty((1 + mirrored, n, part.shape[-1]), np.float32) for part in parts]
                for array, part in zip(arrays, parts, strict=True):
                    array[:, at : at + part.shape[1]] = part
                at += parts[0].shape[1]
                progress.update(task, completed=at)
        return arrays
