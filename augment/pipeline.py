"""From encoded bytes or pixels to augmented batches; every draw is a function of (seed, epoch, example index)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from augment import color
from augment.decode import decode
from augment.policy import Policy
from augment.resample import resample


@dataclass(frozen=True)
class Source:
    """A dataset with random access.

    size: number of examples.
    read: TensorFlow function from an int64 scalar index to (encoded bytes | image (height, width, 1|3|4), label).
    name: TensorFlow function from the index to what the example is called in errors.
    """

    size: int
    read: Callable
    name: Callable | None = None


def pixels(image) -> tf.Tensor:
    """RGB (height, width, 3) of encoded bytes, or of grey, RGB or RGBA pixels."""
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.string:
        return decode(image)
    channels = image.shape[-1]
    return tf.tile(image, (1, 1, 3)) if channels == 1 else image[..., :3]


def _uniform(seed, bounds):
    """One draw from (low, high); no draw where they are equal."""
    low, high = bounds
    return tf.constant(low, tf.float32) if low == high else tf.random.stateless_uniform((), seed, low, high)


def draw_box(policy: Policy, seed, height, width) -> tf.Tensor:
    """(top, left, height, width) of the patch in an image of that size; a negative width mirrors it."""
    seeds = tf.random.split(seed, 5)
    if policy.area:
        root_area = tf.sqrt(_uniform(seeds[0], policy.area) * height * width)
        low, high = policy.aspect
        root_aspect = tf.exp(0.5 * _uniform(seeds[1], (math.log(low), math.log(high))))
        patch_height = tf.minimum(root_area / root_aspect, height)
        patch_width = tf.minimum(root_area * root_aspect, width)
    else:
        patch_height = patch_width = policy.size * tf.minimum(height, width) / _uniform(seeds[0], policy.short_side)
    at = tf.constant([0.5, 0.5]) if policy.centre else tf.random.stateless_uniform((2,), seeds[2])
    top, left = at[0] * (height - patch_height), at[1] * (width - patch_width)
    if not policy.flip:
        return tf.stack([top, left, patch_height, patch_width])
    mirrored = tf.random.stateless_uniform((), seeds[3]) < policy.flip
    return tf.where(
        mirrored,
        tf.stack([top, left + patch_width, patch_height, -patch_width]),
        tf.stack([top, left, patch_height, patch_width]),
    )


def draw_color(policy: Policy, seed, image) -> tf.Tensor:
    """The 3×4 matrix of brightness, contrast, saturation and hue, in this order."""
    seeds = tf.random.split(seed, 4)
    gain = _uniform(seeds[0], policy.brightness)
    mean = gain * tf.reduce_mean(tf.tensordot(image, tf.constant(color.LUMA), 1))
    matrix = color.brightness(gain)
    matrix = color.compose(matrix, color.contrast(_uniform(seeds[1], policy.contrast), mean))
    matrix = color.compose(matrix, color.saturation(_uniform(seeds[2], policy.saturation)))
    return color.compose(matrix, color.hue(_uniform(seeds[3], policy.hue)))


def augment_one(image, policy: Policy, seed) -> tf.Tensor:
    """float32 (size, size, 3) of 0..255 from encoded bytes or pixels; `seed` is an int tensor (2,)."""
    image = pixels(image)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    seeds = tf.random.split(seed, 2)
    patch = resample(image, draw_box(policy, seeds[0], height, width), policy.size)
    return color.apply(patch, draw_color(policy, seeds[1], patch)) if policy.colours else patch


def centre_crop(image, policy: Policy) -> tf.Tensor:
    """What `policy` makes of one image without noise; needs a policy such as `Policy.none()`."""
    return augment_one(image, policy, tf.zeros(2, tf.int32))


def example_seed(seed: int, epoch, index) -> tf.Tensor:
    """The int64 pair from which every draw of one example in one epoch comes."""
    return tf.stack([tf.cast(seed, tf.int64) * 1_000_003 + tf.cast(epoch, tf.int64), tf.cast(index, tf.int64)])


def epoch(source, policy: Policy, *, batch_size: int, seed: int = 0, epoch=0, shuffle: bool = True, first_batch=0):
    """One pass over `source` as a tf.data.Dataset of (float32 images 0..255, labels).

    epoch and first_batch may be tensors: a resumed run begins at any batch of any epoch without decoding what
    comes before it.
    """
    epoch_number = tf.cast(epoch, tf.int64)
    positions = tf.data.Dataset.range(tf.cast(first_batch, tf.int64) * batch_size, source.size)

    def example(position):
        index = position
        if shuffle and source.size > 1:
            seeds = tf.cast(tf.stack([seed, epoch_number % 2**31]), tf.int32)
            index = tf.random.experimental.index_shuffle(position, seeds, max_index=source.size - 1)
        image, label = source.read(index)
        return augment_one(image, policy, example_seed(seed, epoch_number, index)), label

    return positions.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(2)
