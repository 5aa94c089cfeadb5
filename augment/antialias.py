"""Shrink one image before the batch is sampled: exactly if it is only scaled, in blocks if it is rotated."""

from typing import Any

import tensorflow as tf

from .decode import rarely
from .tensors import Border, Tensor


def resize_onto(window: Tensor, grid: Tensor, size: int, border: Border) -> Tensor:
    """Return the output's pixels (size, size, 3), resized with the triangle filter of Pillow's BILINEAR.

    Args:
        window: pixels (height, width, 3), a part of an image.
        grid: float32 (4, 2) of (y, x): window pixels per output pixel; position of the output's upper left corner in
            the window; position of the window in the image; size of the image.
        size: side of the output.
        border: None if the output lies inside the image; otherwise "reflect" or the colour beyond the image's edges.
    """
    scale, offset, start, whole = tf.unstack(grid)
    kind = window.dtype
    if border is not None:
        window, offset = _extended(
            window, scale, offset, tf.cast(start, tf.int32), tf.cast(whole, tf.int32), size, border
        )
    image = tf.raw_ops.ScaleAndTranslate(
        images=window[None],
        size=(size, size),
        scale=1 / scale,
        translation=-offset / scale,
        kernel_type="triangle",
        antialias=True,
    )[0]
    return image if kind == tf.float32 else tf.cast(tf.round(image), kind)


def _extended(
    window: Tensor, scale: Tensor, offset: Tensor, start: Tensor, whole: Tensor, size: Any, border: Border
) -> tuple[Tensor, Tensor]:
    """Return the window, extended beyond the image's edges as the output needs, and the output's offset in it."""
    low = tf.cast(tf.floor(offset - scale), tf.int32)
    high = tf.cast(tf.math.ceil(offset + scale * (size + 1)), tf.int32)
    outside = []
    for axis in (0, 1):
        index = tf.range(low[axis], high[axis]) + start[axis]
        outside.append((index < 0) | (index >= whole[axis]))
        index = reflected(index, whole[axis]) - start[axis]
        window = tf.gather(window, tf.clip_by_value(index, 0, tf.shape(window)[axis] - 1), axis=axis)
    if border is not None and border != "reflect":
        beyond: Tensor = outside[0][:, None] | outside[1]
        window = tf.where(beyond[..., None], tf.constant(border, tf.float32), tf.cast(window, tf.float32))
    return window, offset - tf.cast(low, tf.float32)


def reflected(index: Tensor, count: Tensor) -> Tensor:
    """Return the indices of the pixels that a reflecting border shows at `index`, for -2 · count to 2 · count."""
    index = tf.where(index < 0, -1 - index, index)
    return tf.where(index < count, index, 2 * count - 1 - index)


def shrink(window: Tensor, factor: Tensor, size: Any) -> Tensor:
    """Return the mean of every block of `factor` pixels; there are `size` blocks."""
    return tf.cond(tf.reduce_any(factor > 1), lambda: rarely(_block_means, window, size), lambda: window)


def _block_means(window: Tensor, size: Any) -> Tensor:
    mean = tf.raw_ops.ResizeArea(images=window[None], size=size)[0]
    return mean if window.dtype == tf.float32 else tf.cast(tf.round(mean), window.dtype)
