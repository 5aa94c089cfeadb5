"""Apply RandAugment's operations on pixels, with the same results as keras-cv's layers.

Auto contrast, colour, contrast, brightness and the addition of solarize are 3×4 matrices on RGB, as in `color`. One
kernel applies these matrices to a batch and does the inversion of solarize. Only equalized images need a lookup table.
"""

import tensorflow as tf

from . import color
from .policy import Policy
from .rand_augment import OPERATIONS, Operation, operations
from .tensors import Tensor

_LEVELS = 256


def operate(images: Tensor, policy: Policy, uniform: Tensor, compiled: bool = False) -> Tensor:
    """Apply the pixel operations of RandAugment to images (batch, size, size, 3) with the draws (batch, slots)."""
    for drawn in operations(policy, uniform):
        images = operated(images, drawn, compiled)
    return images


def operated(images: Tensor, drawn: Operation, compiled: bool = False) -> Tensor:
    """Apply one operation to each image (batch, height, width, 3) of 0..255, float32.

    compiled: compile the kernel with XLA, because the function is slow otherwise.
    """

    def kernel(images: Tensor, matrix: Tensor, threshold: Tensor) -> Tensor:
        images = color.apply(images, matrix)
        return tf.where(images < threshold[:, None, None, None], images, 255 - images)

    kernel = tf.function(kernel, jit_compile=True, autograph=False) if compiled else kernel
    solarized = drawn.kind == OPERATIONS.index("solarize")
    images = kernel(images, _matrices(images, drawn), tf.where(solarized, drawn.threshold, 256.0))
    chosen = tf.where(drawn.kind == OPERATIONS.index("equalize"))
    return tf.tensor_scatter_nd_update(images, chosen, equalize(tf.gather_nd(images, chosen)))


def _matrices(images: Tensor, drawn: Operation) -> Tensor:
    """Return the matrix (batch, 3, 4) of each image's operation; the identity if the operation has no matrix."""
    low, high = (reduce(reduce(images, 1), 1) for reduce in (tf.reduce_min, tf.reduce_max))
    added = tf.broadcast_to(drawn.amount[:, None], tf.shape(low))
    same = color.shift(tf.zeros_like(low))
    matrices = {
        "auto contrast": auto_contrast(low, high),
        "solarize": color.shift(added),
        "colour": color.saturation(1 - drawn.amount),
        "contrast": color.contrast(drawn.amount, color.mean(images)),
        "brightness": color.shift(added),
    }
    each = tf.stack([matrices.get(name, same) for name in OPERATIONS], 1)
    return tf.gather(each, drawn.kind, axis=1, batch_dims=1)


def auto_contrast(low: Tensor, high: Tensor) -> Tensor:
    """Return the matrix that stretches channels from low..high (..., 3) to 0..255; constant ones do not change."""
    flat = high <= low
    scale = tf.where(flat, 1.0, 255 / tf.where(flat, 1.0, high - low))
    offset: Tensor = tf.where(flat, 0.0, -low * scale)
    return tf.concat([tf.linalg.diag(scale), offset[..., None]], -1)


def equalize(images: Tensor) -> Tensor:
    """Equalize the histogram of every channel of images (batch, height, width, 3).

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
