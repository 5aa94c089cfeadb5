"""RandAugment's operations on pixels: functions of float32 images (batch, height, width, 3) of 0..255.

Each gives the pixels of keras-cv's layer of that name. Every image of a batch passes only through its own operations.
"""

import tensorflow as tf

from . import color
from .policy import Policy
from .rand_augment import PIXEL_OPERATIONS, Operation, operations
from .tensors import Tensor

_LEVELS = 256


def auto_contrast(images: Tensor) -> Tensor:
    """Stretch every channel to 0..255; a channel of one value does not change."""
    low, high = (reduce(reduce(images, 1), 1)[:, None, None] for reduce in (tf.reduce_min, tf.reduce_max))
    flat = high <= low
    scale = 255 / tf.where(flat, 255.0, high - low)
    return tf.clip_by_value((images - tf.where(flat, 0.0, low)) * scale, 0.0, 255.0)


def equalize(images: Tensor) -> Tensor:
    """Make the histogram of every channel about even.

    Pixels are rounded to whole numbers first. With n(v) pixels of value v, and s = (Σ n − smallest n > 0) // 255, the
    value v becomes (n(0) + … + n(v − 1) + s // 2) // s, at most 255; a channel with s = 0 does not change. Pillow's s
    leaves out the count of the largest value instead of the smallest count.
    """
    count = 3 * tf.shape(images)[0]
    entry = tf.cast(tf.round(images), tf.int32) + _LEVELS * tf.reshape(tf.range(count), (-1, 1, 1, 3))
    size = _LEVELS * count
    histogram = tf.math.bincount(tf.reshape(entry, [-1]), minlength=size, maxlength=size)
    histogram = tf.reshape(histogram, (-1, _LEVELS))
    least = tf.reduce_min(tf.where(histogram > 0, histogram, tf.int32.max), 1, keepdims=True)
    step = (tf.reduce_sum(histogram, 1, keepdims=True) - least) // (_LEVELS - 1)
    divisor = tf.maximum(step, 1)
    table = tf.minimum((tf.cumsum(histogram, axis=1, exclusive=True) + divisor // 2) // divisor, _LEVELS - 1)
    table = tf.where(step > 0, table, tf.range(_LEVELS))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), entry), tf.float32)


def solarize(images: Tensor, addition: Tensor, threshold: Tensor) -> Tensor:
    """Add to the pixels, then invert values from a threshold on; addition and threshold are (batch,)."""
    images = tf.clip_by_value(images + addition[:, None, None, None], 0.0, 255.0)
    return tf.where(images < threshold[:, None, None, None], images, 255 - images)


def colour(images: Tensor, grey: Tensor) -> Tensor:
    """Blend with the grey image, whose share `grey` is (batch,)."""
    return color.apply(images, color.saturation(1 - grey))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the difference from the mean colour by `factor` (batch,)."""
    return color.apply(images, color.contrast(factor, color.mean(images)))


def brightness(images: Tensor, addition: Tensor) -> Tensor:
    """Add (batch,) grey levels."""
    return tf.clip_by_value(images + addition[:, None, None, None], 0.0, 255.0)


def operate(images: Tensor, policy: Policy, uniform: Tensor) -> Tensor:
    """Apply the pixel operations of RandAugment to images (batch, size, size, 3) with the draws (batch, slots)."""
    for drawn in operations(policy, uniform):
        images = _one_each(images, drawn)
    return images


def _one_each(images: Tensor, drawn: Operation) -> Tensor:
    """Apply one operation to each image: the batch is parted by operation, and put together again."""
    shape, count = images.shape, len(PIXEL_OPERATIONS)
    kind = tf.where(drawn.kind < count, drawn.kind, 0)
    place = tf.dynamic_partition(tf.range(tf.shape(images)[0]), kind, count)
    same, stretched, equal, sun, grey, steep, bright = tf.dynamic_partition(images, kind, count)
    amount = tf.dynamic_partition(drawn.amount, kind, count)
    threshold = tf.dynamic_partition(drawn.threshold, kind, count)
    parts = [
        same,
        auto_contrast(stretched),
        equalize(equal),
        solarize(sun, amount[3], threshold[3]),
        colour(grey, amount[4]),
        contrast(steep, amount[5]),
        brightness(bright, amount[6]),
    ]
    return tf.ensure_shape(tf.dynamic_stitch(place, parts), shape)
