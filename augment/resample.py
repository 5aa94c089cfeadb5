"""The only sampler: one box of an image → a square patch, antialiased when it shrinks, mirrored on the way."""

import tensorflow as tf


def resample(image, box, size: int) -> tf.Tensor:
    """The patch of `image` (height, width, 3) inside `box`, as float32 (size, size, 3) of the image's values.

    box: (top, left, height, width) in pixels of the image, edges and not centres; a negative width mirrors. Bilinear
    (triangle) interpolation whose kernel widens when shrinking. Pixel centres lie at half-integers:
    output pixel i samples top + (i + ½) · height / size.
    """
    top, left, height, width = tf.unstack(tf.cast(box, tf.float32))
    mirrored = width < 0
    left, width = tf.where(mirrored, left + width, left), tf.abs(width)
    scale = tf.cast(size, tf.float32) / tf.stack([height, width])
    patch = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[size, size],
        scale=scale,
        translation=-tf.stack([top, left]) * scale,
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.reshape(tf.cond(mirrored, lambda: patch[:, ::-1], lambda: patch), (size, size, 3))
