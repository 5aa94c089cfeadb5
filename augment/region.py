"""The part of one image that one output needs, no larger and no finer than that: decoded, cut out, shrunk."""

from typing import NamedTuple

import tensorflow as tf

from augment.decode import decode_jpeg_region, decode_other, exif_orientation, is_jpeg, jpeg_size, over_white, rarely
from augment.geometry import crop_box, output_to_image, upright_to_stored
from augment.policy import Policy, PolicyError


class Region(NamedTuple):
    """A rectangle of an image that was shrunk by whole factors, and where the output's pixels lie in it.

    pixels: (n,) uint8 or float32, the rectangle's rows of RGB, flat; after batching with padding at the end.
    frame:  (3, 2) int32: (height, width) of the rectangle, its (top, left) in the shrunk image, the shrunk image's
            (height, width).
    matrix: (2, 3) float32, output pixel (y, x, 1) → point of the shrunk image.
    """

    pixels: tf.Tensor
    frame: tf.Tensor
    matrix: tf.Tensor


class Plan(NamedTuple):
    """What to read of an image: the Region's `frame` and `matrix`, and the factors (2,) to shrink by, powers of two."""

    factor: tf.Tensor
    frame: tf.Tensor
    matrix: tf.Tensor


def capacity(policy: Policy) -> int:
    """The most values that `Region.pixels` can have."""
    return 3 * (2 * policy.size + 6) ** 2


def fetch(image, policy: Policy, uniform) -> Region:
    """The Region that `policy` needs of encoded bytes or pixels (height, width, 1 | 3 | 4), given the image's draws."""
    image = tf.convert_to_tensor(image)
    return _from_bytes(image, policy, uniform) if image.dtype == tf.string else _from_pixels(image, policy, uniform)


def as_rgb(image) -> tf.Tensor:
    """uint8 or float32 RGB of 0..255 of decoded pixels: grey is repeated, alpha over white, 16 bits scaled to 255."""
    if image.shape.rank != 3 or image.shape[-1] not in (1, 3, 4):
        raise PolicyError(f"an image has shape {image.shape}; expected (height, width, 1 | 3 | 4), or encoded bytes")
    if image.dtype == tf.uint16:
        image = tf.cast(image, tf.float32) / 257
    elif image.dtype != tf.uint8:
        image = tf.cast(image, tf.float32)
    if image.shape[-1] == 4:
        return over_white(image) if image.dtype == tf.uint8 else _float_over_white(image)
    return tf.tile(image, (1, 1, 3)) if image.shape[-1] == 1 else image


def _float_over_white(rgba):
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def plan(policy: Policy, uniform, height, width, orientation=None) -> Plan:
    """Where the output lies in a stored image of that size (int32), and by how much it can be shrunk beforehand.

    The factors are the largest powers of two at which the shrunk image still is at least as fine as the output.
    """
    whole = tf.stack([height, width])
    size = tf.cast(whole, tf.float32)
    upright = size if orientation is None else tf.where(orientation > 4, size[::-1], size)
    matrix = output_to_image(policy, uniform, crop_box(policy, uniform, upright[0], upright[1]))
    if orientation is not None:
        matrix = tf.matmul(upright_to_stored(orientation, size[0], size[1]), matrix)
    matrix = matrix[:2]
    turn, half = matrix[:, :2], policy.size / 2
    middle = half * tf.reduce_sum(turn, 1) + matrix[:, 2]
    reach = half * (1 + max(policy.range("lens")[1], 0)) * tf.reduce_sum(tf.abs(turn), 1)
    octave = tf.floor(_log2(tf.maximum(tf.norm(turn, axis=1), 1)) + 1e-4)
    if not policy.axis_aligned or policy.moves("translate"):  # bounded memory goes before the last bit of sharpness
        octave = tf.maximum(octave, tf.math.ceil(_log2(tf.minimum(2 * reach, size) / (2 * policy.size))))
    factor = tf.pow(2.0, octave)
    low, high = middle - reach - 2 * factor, middle + reach + 2 * factor
    low, high = (  # what a reflecting border shows again from inside
        tf.where(high > size, tf.minimum(low, 2 * size - high), low),
        tf.where(low < 0, tf.maximum(high, -low), high),
    )
    shrunk = whole // tf.cast(factor, tf.int32)
    start = tf.clip_by_value(tf.cast(tf.floor(low / factor), tf.int32), 0, shrunk - 1)
    stop = tf.clip_by_value(tf.cast(tf.math.ceil(high / factor), tf.int32), start + 1, shrunk)
    return Plan(tf.cast(factor, tf.int32), tf.stack([stop - start, start, shrunk]), matrix / factor[:, None])


def _log2(x):
    return tf.math.log(x) / tf.math.log(2.0)


def _from_pixels(image, policy, uniform) -> Region:
    image = as_rgb(image)
    shape = tf.shape(image)
    factor, frame, matrix = plan(policy, uniform, shape[0], shape[1])
    window = _cut(image, tf.reshape(frame[1::-1] * factor, (4,)))
    return Region(tf.reshape(shrink(window, factor, frame[0]), (-1,)), frame, matrix)


def _from_bytes(content, policy, uniform) -> Region:
    """JPEG is looked at, then decoded as far as needed; anything else is decoded, then cut."""
    jpeg = is_jpeg(content)

    def look():
        return tf.zeros((0, 0, 3), tf.uint8), *jpeg_size(content), exif_orientation(content)

    def load(content):
        image = decode_other(content)
        shape = tf.shape(image)
        return image, shape[0], shape[1], tf.constant(1)

    image, height, width, orientation = tf.cond(jpeg, look, lambda: rarely(load, content))
    factor, frame, matrix = plan(policy, uniform, height, width, orientation)
    scale = tf.where(jpeg, tf.minimum(tf.reduce_min(factor), 8), 1)
    rest = factor // scale
    box = tf.reshape(frame[1::-1] * rest, (4,))
    window = tf.cond(jpeg, lambda: decode_jpeg_region(content, box, scale), lambda: rarely(_cut, image, box))
    window = shrink(window, rest, frame[0])
    window, frame, matrix = tf.cond(  # the sampler wants rows of the image along rows of the output
        orientation > 4,
        lambda: (tf.transpose(window, (1, 0, 2)), frame[:, ::-1], matrix[::-1]),
        lambda: (window, frame, matrix),
    )
    return Region(tf.reshape(window, (-1,)), frame, matrix)


def _cut(image, box):
    top, left, height, width = tf.unstack(box)
    return image[top : top + height, left : left + width]


def shrink(window, factor, size):
    """The mean of every block of `factor` pixels, of which there are `size`."""

    def area(window, size):
        mean = tf.raw_ops.ResizeArea(images=window[None], size=size)[0]
        return mean if window.dtype == tf.float32 else tf.cast(tf.round(mean), window.dtype)

    return tf.cond(tf.reduce_any(factor > 1), lambda: rarely(area, window, size), lambda: window)
