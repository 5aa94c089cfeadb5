"""Principal components of all RGB pixels of a dataset, for the colour offset of Krizhevsky, Sutskever and Hinton 2012."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True, eq=False)
class PCA:
    """Mean and principal components of RGB pixels scaled to 0..1.

    mean: (3,).  eigenvalues: (3,) variances, descending.  eigenvectors: (3, 3), component i is column i.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray

    def offsets(self, alpha) -> tf.Tensor:
        """Σ αᵢ λᵢ pᵢ in units of 0..255: (..., 3) of alpha (..., 3)."""
        directions = 255 * self.eigenvectors * self.eigenvalues
        return tf.linalg.matvec(tf.constant(directions, tf.float32), alpha)


IMAGENET_PCA = PCA(
    mean=np.array([0.485, 0.456, 0.406]),
    eigenvalues=np.array([0.2175, 0.0188, 0.0045]),
    eigenvectors=np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]),
)
