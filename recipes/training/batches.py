"""The batches of a training: every epoch of augmented images in one stream, whole or a slice of each for a worker."""

import math

import numpy as np
import tensorflow as tf

import augment
from recipes.data.evaluation_batches import images_alone
from recipes.data.images import ImageData
from recipes.planning.recipe import Recipe
from recipes.training.input.workers import WorkerImages


def soft(labels, classes: int):
    """One-hot of integer labels; labels that mixing has made soft already, as they are."""
    return tf.one_hot(labels, classes) if labels.dtype.is_integer else labels


def training_batches(
    train: ImageData, recipe: Recipe, *, seed: int, start: int = 0, first_batch: int = 0, shard=(0, 1)
) -> tf.data.Dataset:
    """All epochs of augmented (images, labels) from batch `first_batch` of epoch `start` on, one stream without a stall
    between epochs; the batches are those that are on the device at once.

    shard: (index, count) of several: slices of the batches, an empty one where nothing of a last batch is left, and as
        a third how many images the whole batch has.
    """
    part = recipe.batch_size // recipe.accumulate
    if isinstance(train, WorkerImages):
        batches = train.workers.batches(
            train, recipe.policy, batch_size=part, seed=seed, start=start, stop=recipe.epochs, first_batch=first_batch
        )  # fmt: skip
        return batches.prefetch(tf.data.AUTOTUNE)
    source, classes = train.source(), len(train.class_names)

    def one_epoch(epoch):
        begin = tf.where(epoch == start, tf.constant(first_batch, tf.int64), 0)
        batches = augment.epoch(
            source, recipe.policy, batch_size=part, seed=seed, epoch=epoch, first_batch=begin, classes=classes,
            shard=shard,
        )  # fmt: skip
        return batches if shard == (0, 1) else _counted(batches, len(train), part, begin)

    return tf.data.Dataset.range(start, recipe.epochs).flat_map(one_epoch).prefetch(tf.data.AUTOTUNE)


def _counted(slices: tf.data.Dataset, images: int, part: int, begin) -> tf.data.Dataset:
    """(images, labels, size of the whole batch) for every batch of an epoch, also where there is no slice of it."""
    empty = tf.nest.map_structure(lambda spec: tf.zeros([n or 0 for n in spec.shape], spec.dtype), slices.element_spec)
    sizes = tf.data.Dataset.range(begin, math.ceil(images / part)).map(lambda k: tf.minimum(images - k * part, part))
    slices = slices.concatenate(tf.data.Dataset.from_tensors(empty))  # one too many, where all have a slice
    return tf.data.Dataset.zip(slices, sizes).map(lambda slice, size: (*slice, size))


def shown(data: ImageData, recipe: Recipe) -> tf.data.Dataset:
    """Batches of the images as they are shown to the classifier, kept in memory where they fit."""
    policy = recipe.evaluation_policy
    images = images_alone(data, policy, recipe.batch_size)
    return images.cache() if _fits_memory(data, policy.size) else images


def _fits_memory(data: ImageData, size: int, limit: int = 2**30) -> bool:
    return len(data) * size * size * 3 * np.dtype("float32").itemsize <= limit
