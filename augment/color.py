"""Photometric transforms as 3×4 matrices on RGB: they multiply into one, applied once."""

import math

import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def _affine(matrix, offset=None):
    """3×4 matrix of x ↦ matrix · x + offset."""
    offset = tf.zeros(3) if offset is None else offset
    return tf.concat([matrix, tf.reshape(offset, (3, 1))], 1)


def brightness(factor):
    """x ↦ factor · x."""
    return _affine(factor * tf.eye(3))


def contrast(factor, mean):
    """x ↦ mean + factor · (x − mean), about the image's own mean luma."""
    return _affine(factor * tf.eye(3), (1 - factor) * mean * tf.ones(3))


def saturation(factor):
    """x ↦ luma(x) + factor · (x − luma(x))."""
    return _affine(factor * tf.eye(3) + (1 - factor) * tf.tile(tf.constant([LUMA]), (3, 1)))


def hue(degrees):
    """Rotation of RGB about the grey axis (1, 1, 1)."""
    angle = degrees * (math.pi / 180)
    cross = tf.constant([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return _affine(tf.cos(angle) * tf.eye(3) + tf.sin(angle) * cross + (1 - tf.cos(angle)) / 3 * tf.ones((3, 3)))


def compose(first, then):
    """The 3×4 matrix of `first` followed by `then`."""
    matrix = then[:, :3] @ first
    return tf.concat([matrix[:, :3], matrix[:, 3:] + then[:, 3:]], 1)


def apply(image, matrix):
    """`image` (height, width, 3) under a 3×4 matrix, clipped to 0..255."""
    flat = tf.reshape(image, (-1, 3))
    moved = tf.linalg.matmul(flat, matrix[:, :3], transpose_b=True) + matrix[:, 3]
    return tf.reshape(tf.clip_by_value(moved, 0.0, 255.0), tf.shape(image))
