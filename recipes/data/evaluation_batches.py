"""Make batches of images in the order of the dataset, without random changes."""

import keras
import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.data.images import ImageData


def evaluation_batches(data: ImageData, policy: augment.Policy, batch_size: int) -> tf.data.Dataset:
    """Return batches of (images, labels) in the order of `data`; the policy must be free of random changes."""
    return augment.epoch(data.source(), policy, batch_size=batch_size, shuffle=False)


def some_images(data: ImageData, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` randomly chosen images as unchanged squares of side `size`, and their labels."""
    some = data.subset(np.random.default_rng(0).permutation(len(data))[:count])
    batches = evaluation_batches(some, augment.Policy.none(size), 32)
    return np.concatenate([images.numpy() for images, _ in batches]), some.labels


def images_alone(data: ImageData, policy: augment.Policy, batch_size: int) -> tf.data.Dataset:
    """Return the images of `evaluation_batches` for a model; only its first len(data) outputs are valid.

    JAX compiles a model once for every batch size, so on JAX black images fill up the last batch.
    """
    images = evaluation_batches(data, policy, batch_size).map(lambda images, labels: images)
    if keras.backend.backend() != "jax":
        return images
    full = min(batch_size, len(data))
    padding = lambda images: [[0, full - tf.shape(images)[0]], [0, 0], [0, 0], [0, 0]]  # noqa: E731
    return images.map(lambda images: tf.pad(images, padding(images)))  # pyright: ignore[reportArgumentType]
