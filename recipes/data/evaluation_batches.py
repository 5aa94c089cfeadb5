"""Batches of images in their own order and without random changes."""

import keras
import numpy as np
import tensorflow as tf

import augment
from recipes.data.images import ImageData


def evaluation_batches(data: ImageData, policy: augment.Policy, batch_size: int) -> tf.data.Dataset:
    """(images, labels) of `data` in its own order under a policy without noise."""
    return augment.epoch(data.source(), policy, batch_size=batch_size, shuffle=False)


def some_images(data: ImageData, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` of them, drawn at random, as squares of that side without noise, and their labels."""
    some = data.subset(np.random.default_rng(0).permutation(len(data))[:count])
    batches = evaluation_batches(some, augment.Policy.none(size), 32)
    return np.concatenate([images.numpy() for images, _ in batches]), some.labels


def images_alone(data: ImageData, policy: augment.Policy, batch_size: int) -> tf.data.Dataset:
    """The images of `evaluation_batches`, for a model to predict: of what it says the first len(data) count.

    JAX compiles for every length of batch, so there the last one is filled up with black images.
    """
    images = evaluation_batches(data, policy, batch_size).map(lambda images, labels: images)
    if keras.backend.backend() != "jax":
        return images
    full = min(batch_size, len(data))
    return images.map(lambda images: tf.pad(images, [[0, full - tf.shape(images)[0]], [0, 0], [0, 0], [0, 0]]))
