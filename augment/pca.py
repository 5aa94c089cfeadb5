"""Compute the principal components of a dataset's RGB pixels, for AlexNet's colour offset (Krizhevsky et al. 2012)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .decode import decode
from .guard import Order, Work, guarded
from .pixel_range import range_fault
from .policy import PolicyError
from .region import as_rgb
from .source import as_source
from .tensors import Tensor


@dataclass(frozen=True, eq=False)
class PCA:
    """Hold the mean and principal components of RGB pixels scaled to 0..1.

    Attributes:
        mean: (3,).
        eigenvalues: (3,), variances in descending order.
        eigenvectors: (3, 3); component i is column i.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    def __repr__(self) -> str:
        mean, variances = (np.array2string(np.asarray(v), precision=4, separator=", ") for v in
                           (self.mean, self.eigenvalues))  # fmt: skip
        return f"PCA(mean={mean}, eigenvalues={variances})"

    def offsets(self, alpha: Tensor) -> Tensor:
        """Return Σ αᵢ λᵢ pᵢ in units of 0..255, (..., 3), of alpha (..., 3)."""
        directions = 255 * self.eigenvectors * self.eigenvalues
        return tf.linalg.matvec(tf.constant(directions, tf.float32), alpha)


IMAGENET_PCA = PCA(
    mean=np.array([0.485, 0.456, 0.406]),
    eigenvalues=np.array([0.2175, 0.0188, 0.0045]),
    eigenvectors=np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]),
)


def fit_pca(dataset: Any) -> PCA:
    """Compute the principal components of all RGB pixels of a dataset, in one pass and constant memory.

    Args:
        dataset: as for `pipeline`.

    Raises:
        tf.errors.InvalidArgumentError: If an example cannot be decoded or is not in 0..255. The message names the
            example.
        ValueError: If there are no pixels.
        PolicyError: If the images are floats in 0..1.

    Example:
        >>> augment.pipeline(dataset, augment.Policy(pca=0.1), batch_size=64, pca=augment.fit_pca(dataset))
    """

    def moments(image: Tensor, label: Any, epoch: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = tf.convert_to_tensor(image)
        pixels = decode(image) if image.dtype == tf.string else as_rgb(image)
        pixels = tf.reshape(tf.cast(pixels, tf.float64), (-1, 3)) / 255
        count = tf.cast(tf.shape(pixels)[0], tf.float64)
        return count, tf.reduce_sum(pixels, 0), tf.matmul(pixels, pixels, transpose_a=True)

    once = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
    zero: Any = (tf.zeros((), tf.float64), tf.zeros(3, tf.float64), tf.zeros((3, 3), tf.float64))
    source = as_source(dataset)
    batches = guarded(source, Work(moments), Order(once), batch_size=16)
    sums = batches.reduce(
        zero, lambda sums, more: tuple(a + tf.reduce_sum(b, 0) for a, b in zip(sums, more, strict=True))
    )
    count, total, squares = (value.numpy() for value in sums)
    if count == 0:
        raise ValueError("the dataset has no pixels; expected at least one image")
    root_mean_square = 255 * np.sqrt(np.trace(squares) / count / 3)
    fault = range_fault(0.0, root_mean_square, floating=source.element_spec[0].dtype.is_floating)
    if fault:
        raise PolicyError(f"the dataset's images {fault}")
    mean = total / count
    eigenvalues, eigenvectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
    return PCA(mean, np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1])
