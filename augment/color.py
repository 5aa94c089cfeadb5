"""Express photometric transforms as 3×4 matrices on RGB, whose product is applied once.

Every function takes a number or a tensor (...) and returns matrices (..., 3, 4) of x ↦ matrix · (x, 1), x in 0..255.
"""

import math

import tensorflow as tf

from .draws import between, normal
from .pca import PCA
from .policy import Policy
from .tensors import Tensor

LUMA = (0.299, 0.587, 0.114)  # luma weights of ITU-R BT.601


def _affine(matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return the 3×4 matrix of x ↦ matrix · x + offset."""
    column: Tensor = tf.zeros_like(matrix[..., 0]) if offset is None else offset
    return tf.concat([matrix, column[..., None]], -1)


def _times(factor: Tensor, matrix: Tensor) -> Tensor:
    return tf.cast(factor, tf.float32)[..., None, None] * matrix


def brightness(factor: Tensor) -> Tensor:
    """Return the matrix of x ↦ factor · x."""
    return _affine(_times(factor, tf.eye(3)))


def shift(offset: Tensor) -> Tensor:
    """Return the matrix of x ↦ x + offset, for an offset (..., 3)."""
    return _affine(_times(tf.ones_like(offset[..., 0]), tf.eye(3)), offset)


def contrast(factor: Tensor, mean: Tensor) -> Tensor:
    """Return the matrix of x ↦ mean + factor · (x − mean), with the image's mean colour (..., 3)."""
    factor = tf.cast(factor, tf.float32)
    return _affine(_times(factor, tf.eye(3)), (1 - factor[..., None]) * mean)


def saturation(factor: Tensor) -> Tensor:
    """Return the matrix of x ↦ luma(x) + factor · (x − luma(x))."""
    factor = tf.cast(factor, tf.float32)
    return _affine(_times(factor, tf.eye(3)) + _times(1 - factor, tf.tile(tf.constant([LUMA]), (3, 1))))


def hue(degrees: Tensor) -> Tensor:
    """Return the matrix of the rotation of RGB about the grey axis (1, 1, 1)."""
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    cross = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _affine(_times(cos, tf.eye(3)) + _times(sin, cross) + _times((1 - cos) / 3, tf.ones((3, 3))))


def compose(first: Tensor, then: Tensor) -> Tensor:
    """Return the 3×4 matrix of `first` followed by `then`."""
    matrix = then[..., :3] @ first
    return tf.concat([matrix[..., :3], matrix[..., 3:] + then[..., 3:]], -1)


def draw_matrix(policy: Policy, uniform: Tensor, mean: Tensor, pca: PCA) -> Tensor:
    """Return the matrices (batch, 3, 4) of brightness, contrast, saturation, hue and PCA offset, in this order.

    Args:
        policy: the ranges.
        uniform: (batch, slots), see `draws.uniforms`.
        mean: (batch, 3), the images' mean colours, 0..255.
        pca: the principal components of the colour offset.
    """
    gain = between(uniform, "brightness", policy.brightness)
    matrix = brightness(gain)
    matrix = compose(matrix, contrast(between(uniform, "contrast", policy.contrast), gain[:, None] * mean))
    matrix = compose(matrix, saturation(between(uniform, "saturation", policy.saturation)))
    matrix = compose(matrix, hue(between(uniform, "hue", policy.hue)))
    if not policy.pca:
        return matrix
    shift = pca.offsets(policy.pca * normal(uniform, "pca_1", "pca_2", "pca_3"))
    return tf.concat([matrix[..., :3], matrix[..., 3:] + shift[..., None]], -1)


def mean(images: Tensor) -> Tensor:
    """Return the mean colours (batch, 3) of images (batch, height, width, 3)."""
    batch, height, width = (n or tf.shape(images)[i] for i, n in enumerate(images.shape[:3]))
    # A matrix product has a fast kernel; XLA's sum would add one number after another.
    columns = tf.matmul(tf.ones((batch, 1, height)), tf.reshape(images, (batch, height, 3 * width)))
    return tf.reduce_sum(tf.reshape(columns, (batch, width, 3)), 1) / tf.cast(height * width, tf.float32)


def apply(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply matrices (batch, 3, 4) to `images` (batch, height, width, 3), and clip the result to 0..255."""
    entry = matrix[:, None, None]
    moved = entry[..., 3]
    for i in range(3):
        moved += images[..., i : i + 1] * entry[..., i]
    return tf.clip_by_value(moved, 0.0, 255.0)
