"""Stream the augmented batches of all epochs of a training, whole or as one process's slice of each."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.data.evaluation_batches import images_alone
from recipes.data.images import ImageData
from recipes.planning.recipe import Recipe
from recipes.training.input.workers import WorkerImages


def soft(labels: Any, classes: int) -> Any:
    """Return integer labels as one-hot vectors; soft labels, which mixing makes, are returned unchanged."""
    return tf.one_hot(labels, classes) if labels.dtype.is_integer else labels


def training_batches(
    train: ImageData, recipe: Recipe, *, seed: int, start: int = 0, first_batch: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:  # fmt: skip
    """Return the augmented (images, labels) of all epochs as one stream, without a pause between epochs.

    Args:
        train: The training images.
        recipe: How to train; one batch of the stream is one of the recipe's `accumulate` parts of a batch.
        seed: Seed of the shuffling and the augmentation.
        start: Index of the first epoch.
        first_batch: Index of the first batch in that epoch.
        shard: (index, count) of one of several processes. The stream then holds this process's slice of each batch,
            which may be empty. Its third element is the number of images in the whole batch.
    """
    part = recipe.batch_size // recipe.accumulate
    if isinstance(train, WorkerImages):
        batches = train.workers.batches(
            train, recipe.policy, batch_size=part, seed=seed, start=start, stop=recipe.epochs, first_batch=first_batch
        )  # fmt: skip
        return batches.prefetch(tf.data.AUTOTUNE)
    source, classes = train.source(), len(train.class_names)

    def one_epoch(epoch: Any) -> tf.data.Dataset:
        begin = tf.where(epoch == start, tf.constant(first_batch, tf.int64), 0)
        batches = augment.epoch(
            source, recipe.policy, batch_size=part, seed=seed, epoch=epoch, classes=classes, shard=shard,
            first_batch=begin,  # pyright: ignore[reportArgumentType]  a tensor is allowed
        )  # fmt: skip
        return batches if shard == (0, 1) else _counted(batches, len(train), part, begin)

    return tf.data.Dataset.range(start, recipe.epochs).flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def _counted(slices: tf.data.Dataset, images: int, part: int, begin: Any) -> tf.data.Dataset:
    """Return (images, labels, size of the whole batch) for every batch of an epoch, even if the slice is empty."""
    empty = tf.nest.map_structure(lambda spec: tf.zeros([n or 0 for n in spec.shape], spec.dtype), slices.element_spec)
    sizes = tf.data.Dataset.range(begin, math.ceil(images / part)).map(lambda k: tf.minimum(images - k * part, part))
    slices = slices.concatenate(tf.data.Dataset.from_tensors(empty))  # unused if no slice is empty
    return tf.data.Dataset.zip(slices, sizes).map(lambda slice, size: (*slice, size))


def shown(data: ImageData, recipe: Recipe) -> tf.data.Dataset:
    """Return batches of the images as the classifier sees them, cached in memory if they fit."""
    policy = recipe.evaluation_policy
    images = images_alone(data, policy, recipe.batch_size)
    return images.cache() if _fits_memory(data, policy.size) else images


def _fits_memory(data: ImageData, size: int, limit: int = 2**30) -> bool:
    return len(data) * size * size * 3 * np.dtype("float32").itemsize <= limit
