"""What a training says of a fault that it cannot get over, and which files are gone."""

import os
import re

import keras
import numpy as np
import tensorflow as tf

from recipes.core.output import printable
from recipes.data.images import ImageData
from recipes.data.packs.records import Records
from recipes.errors import DataError, RecipesError
from recipes.networks.compiled import weight_gradients
from recipes.training.input.workers import WorkerImages

_SHARE, _FEW = 0.01, 3  # of the training images may vanish; and that many of a small dataset
AGAIN = "put them back and give the same command again: it goes on from where it stopped"


def vanished(data: ImageData) -> tuple[str, ...]:
    """Names of the images whose files cannot be opened any more."""
    if isinstance(data.images, Records):
        return tuple(data.names[i] for i in np.flatnonzero(data.images.lost()))
    if not data.on_disk:
        return ()
    pairs = zip(data.images, data.names, strict=True)
    return tuple(name for image, name in pairs if not os.access(image, os.R_OK))


def too_many(gone: int, images: int) -> bool:
    """Whether so many vanished files are no accident to go on from."""
    return gone > _FEW and gone > _SHARE * images


def reading_failed(error: tf.errors.OpError, *parts: ImageData) -> RecipesError | None:
    """What a pipeline's error is called where it is about an image; None where it is something else."""
    for data in parts:
        if isinstance(data, WorkerImages) and data.workers.failure:
            return data.workers.failure
    gone = [name for data in parts for name in vanished(data)]
    if gone:
        shown = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
        return DataError(printable(f"{len(gone)} images are gone since the audit ({shown}); {AGAIN}"))
    told = re.search(r"cannot read .*?(?=\s*(?:\[Op:|\n|$))", error.message)
    return told and DataError(printable(f"{told[0]}, though the audit could; {AGAIN}"))


def batch_names(data: ImageData, positions, *, epoch: int, seed: int) -> list[str]:
    """What the images at these positions of an epoch are called."""
    at = data.source().index(
        tf.constant(list(positions), tf.int64), tf.constant(epoch, tf.int64), seed=seed, shuffle=True
    )
    return [data.names[int(index)] for index in at]


def gradient_norms(model: keras.Model, images, labels, count: int = 3, at_once: int | None = None) -> str:
    """The largest norms of the gradients of a batch's loss, in words.

    at_once: of the images, whose gradients are added up; default: all.
    """
    images, labels, total = np.asarray(images), np.asarray(labels), None
    for start in range(0, len(images), at_once or len(images)):
        part = slice(start, start + (at_once or len(images)))
        found, share = _slopes(model, images[part], labels[part]), len(images[part]) / len(images)
        found = [None if g is None else share * g.astype(np.float32) for g in found]
        total = found if total is None else [a if b is None else a + b for a, b in zip(total, found, strict=True)]
    pairs = zip(total, model.trainable_variables, strict=True)
    norms = [(float(np.linalg.norm(g)), v.path) for g, v in pairs if g is not None]
    norms.sort(key=lambda pair: -np.inf if np.isfinite(pair[0]) else -pair[0])
    return ", ".join(f"{path} {norm:.3g}" for norm, path in norms[:count])


def _slopes(model: keras.Model, images, labels) -> list[np.ndarray | None]:
    def loss():
        return model.compute_loss(x=images, y=labels, y_pred=model(images, training=True), training=True)

    return weight_gradients(loss, model)
