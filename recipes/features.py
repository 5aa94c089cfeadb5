"""Features of the frozen backbone: one pass over the images, every stage pooled."""

import keras
import numpy as np
import tensorflow as tf

import augment
from recipes.backbones import Backbone, stages
from recipes.data import ImageData


def evaluation_batches(data: ImageData, policy: augment.Policy, batch_size: int) -> tf.data.Dataset:
    """(images, labels) of `data` in its own order under a policy without noise."""
    return augment.epoch(data.source(), policy, batch_size=batch_size, shuffle=False)


def stage_model(backbone: Backbone, size: int) -> tuple[keras.Model, list[str]]:
    """0..255 RGB → the pooled features (batch, channels) of every stage, and the stages' names, shallow to deep.

    Stages are named by their stride in the image; the deepest is what the network itself ends in.
    """
    network = backbone.network
    tensors = stages(network, size)
    if network.outputs[0] not in tensors:
        tensors.append(network.outputs[0])
    pooled = [keras.layers.GlobalAveragePooling2D()(t) if len(t.shape) == 4 else t for t in tensors]
    names = [f"stage {i}" for i in range(1, len(tensors) + 1)]
    names[-1] += " (last)"
    images = keras.Input((size, size, 3), name="images")
    return keras.Model(images, backbone(images, keras.Model(network.inputs, pooled))), names


def extract(model: keras.Model, batches: tf.data.Dataset) -> list[np.ndarray]:
    """Per stage the float32 features (2, n, channels) of the images and of their mirror images.

    The mirror image is the one augmentation that costs a frozen network nothing in accuracy and doubles the examples.
    """

    def both(images):
        straight, mirrored = model(images, training=False), model(images[:, :, ::-1], training=False)
        return [tf.stack(pair) for pair in zip(_listed(straight), _listed(mirrored), strict=True)]

    step = tf.function(both, reduce_retracing=True)
    parts = [step(images) for images, _ in batches]
    return [
        np.concatenate([part[i].numpy() for part in parts], axis=1).astype(np.float32) for i in range(len(parts[0]))
    ]


def _listed(outputs) -> list:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
