"""Make the errors for faults that end a training, and find the files that have vanished."""

import os
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes.core.output import printable
from recipes.data.images import ImageData
from recipes.data.packs.records import Records
from recipes.errors import DataError, RecipesError
from recipes.networks.compiled import weight_gradients
from recipes.training.input.workers import WorkerImages

_SHARE, _FEW = 0.01, 3  # maximum share of vanished images, and maximum number in a small dataset
_REMEDY = "restore the files and run the same command again; it resumes where it stopped"


def vanished(data: ImageData) -> tuple[str, ...]:
    """Return the names of the images whose files can no longer be opened."""
    if isinstance(data.images, Records):
        return tuple(data.names[i] for i in np.flatnonzero(data.images.lost()))
    if not data.on_disk:
        return ()
    pairs = zip(data.images, data.names, strict=True)
    return tuple(name for image, name in pairs if not os.access(str(image), os.R_OK))


def too_many(missing: int, images: int) -> bool:
    """Return whether too many files have vanished for the training to continue without them."""
    return missing > _FEW and missing > _SHARE * images


def reading_failed(error: tf.errors.OpError, *parts: ImageData) -> RecipesError | None:
    """Return the error to raise if a pipeline's error concerns an image of `parts`, else None."""
    for data in parts:
        if isinstance(data, WorkerImages) and data.workers.failure:
            return data.workers.failure
    names = [name for data in parts for name in vanished(data)]
    if names:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        message = f"{len(names)} images have vanished since the audit ({listed}); {_REMEDY}"
        return DataError(printable(message), code="data.vanished", paths=names)
    found = re.search(r"cannot read .*?(?=\s*(?:\[Op:|\n|$))", error.message)
    if found is None:
        return None
    return DataError(printable(f"{found[0]}, although the audit could read it; {_REMEDY}"), code="data.unreadable")


def batch_names(data: ImageData, positions: Sequence[int], *, epoch: int, seed: int) -> list[str]:
    """Return the names of the images at these positions of an epoch."""
    indices: Any = data.source().index(
        tf.constant(list(positions), tf.int64), tf.constant(epoch, tf.int64), seed=seed, shuffle=True
    )
    return [data.names[int(index)] for index in indices]


def gradient_norms(model: keras.Model, images: Any, labels: Any, count: int = 3, at_once: int | None = None) -> str:
    """Return the largest norms of the gradients of a batch's loss, as text: "path norm, path norm, …".

    Args:
        model: The compiled model.
        images: The images of the batch.
        labels: Their soft labels.
        count: Number of variables to list.
        at_once: Number of images in one forward pass; the gradients of all passes are summed. Default: all images.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    variables = model.trainable_variables
    total: list[np.ndarray | None] = [None] * len(variables)
    for start in range(0, len(images), at_once or len(images)):
        part = slice(start, start + (at_once or len(images)))
        share = len(images[part]) / len(images)
        for i, gradient in enumerate(_loss_gradients(model, images[part], labels[part])):
            if gradient is not None:
                scaled, before = share * gradient.astype(np.float32), total[i]
                total[i] = scaled if before is None else before + scaled
    pairs = zip(total, variables, strict=True)
    norms = [(float(np.linalg.norm(g)), v.path) for g, v in pairs if g is not None]
    norms.sort(key=lambda pair: -np.inf if np.isfinite(pair[0]) else -pair[0])
    return ", ".join(f"{path} {norm:.3g}" for norm, path in norms[:count])


def _loss_gradients(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> list[np.ndarray | None]:
    def loss() -> Any:
        return model.compute_loss(x=images, y=labels, y_pred=model(images, training=True), training=True)

    return weight_gradients(loss, model)
