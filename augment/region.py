"""Decode, cut out and shrink the part of an image that its output needs."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import tensorflow as tf

from .antialias import resize_onto, shrink
from .decode import (
    decode_jpeg_region,
    decode_other,
    decode_png,
    exif_orientation,
    jpeg_size,
    over_white,
    png_orientation,
    png_size,
    rarely,
)
from .geometry import crop_box, folded, output_to_image, upright_to_stored
from .header import is_jpeg, is_png
from .pixel_range import checked
from .policy import Policy, PolicyError
from .tensors import Border, Tensor


class Opened(NamedTuple):
    """Hold an image of known size, decoded only as far as reading the size required.

    Attributes:
        jpeg: Whether `content` is JPEG bytes. Otherwise it is PNG bytes or a serialised tensor of RGB pixels, because
            strings of images of any size can be batched.
        content: The bytes.
        size: (..., 2) int32 (height, width) as stored.
        orientation: EXIF's 1-8, int32.
        shrunk: int32 factor by which the pixels of `content` are already shrunk.
    """

    jpeg: Tensor
    content: Tensor
    size: Tensor
    orientation: Tensor
    shrunk: Tensor


class Cut(NamedTuple):
    """Describe the part of an image to read, and how to read it.

    Attributes:
        content: The content of `Opened`.
        plain: Whether the image is a JPEG that needs no shrinking or transposing, a common case with a fast path.
        box: (..., 4) int32 (top, left, height, width) in the image shrunk by the scale.
        steps: (..., 5) int32: whether the image is a JPEG; the scale (1, 2, 4 or 8) at which a JPEG is decoded or other
            pixels are available; the factors (y, x) to shrink by afterwards; whether to transpose, so that rows of the
            image lie along rows of the output.
        grid: (..., 4, 2) float32, the positions of the output's pixels in the transposed window, see `resize_onto`; all
            zeros if the window is not resized to these positions.
    """

    content: Tensor
    plain: Tensor
    box: Tensor
    steps: Tensor
    grid: Tensor


class Region(NamedTuple):
    """Hold a rectangle of an image shrunk by whole factors, with the positions of the output's pixels in it.

    Attributes:
        pixels: (height, 3 · width) uint8 or float32, rows of RGB; batches have padding at the right and below.
        frame: (3, 2) int32: (height, width) of the rectangle, its (top, left) in the shrunk image, and the shrunk
            image's (height, width).
        matrix: (2, 3) float32, output pixel (y, x, 1) → point of the rectangle. Coordinates relative to the rectangle
            are small, which limits rounding errors.
    """

    pixels: Tensor
    frame: Tensor
    matrix: Tensor


def capacity(policy: Policy) -> tuple[int, int]:
    """Return the largest shape that `Region.pixels` can have."""
    side = 2 * policy.size + 6
    return side, 3 * side


def fetch(image: Tensor, policy: Policy, uniform: Tensor) -> Region:
    """Return the Region of bytes or pixels (height, width, 1 | 3 | 4) that `policy` needs for the image's draws."""
    image = tf.convert_to_tensor(image)
    one = tf.nest.map_structure(lambda t: t[None], open_image(image))
    cut, frame, matrix = tf.nest.map_structure(lambda t: t[0], plan(policy, uniform[None], one))
    return Region(cut_out(cut, policy, pixel_type(image.dtype)), frame, matrix)


def pixel_type(image_type: tf.DType) -> tf.DType:
    """Return the type, uint8 or float32, of the RGB pixels of images that are bytes or pixels of a given type."""
    return tf.uint8 if image_type in (tf.string, tf.uint8) else tf.float32


def open_image(image: Tensor) -> Opened:
    """Read the header of JPEG and PNG bytes; decode other bytes; convert pixels (height, width, 1 | 3 | 4) to RGB."""
    image = tf.convert_to_tensor(image)

    if image.dtype != tf.string:
        return Opened(tf.constant(False), *_serialised(as_rgb(image)), tf.constant(1))
    jpeg = is_jpeg(image)
    read_header = lambda: (image, jpeg_size(image), exif_orientation(image))  # noqa: E731
    content, size, orientation = tf.cond(jpeg, read_header, lambda: rarely(_open_other, image))
    return Opened(jpeg, content, size, orientation, tf.constant(1))


def _open_other(content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    png = lambda: (content, png_size(content), png_orientation(content))  # noqa: E731
    return tf.cond(is_png(content), png, lambda: _serialised(decode_other(content)))


def _serialised(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return tf.io.serialize_tensor(pixels), tf.shape(pixels)[:2], tf.constant(1)


def unpack(content: Tensor, dtype: tf.DType) -> Tensor:
    """Return the pixels of an opened image that is not a JPEG."""
    if dtype != tf.uint8:
        return tf.io.parse_tensor(content, dtype)
    return tf.cond(is_png(content), lambda: decode_png(content), lambda: tf.io.parse_tensor(content, dtype))


def cut_out(
    cut: Cut, policy: Policy, dtype: tf.DType, unpack_cached: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the pixels (height, 3 · width) that `cut` describes; one black pixel if `cut` has no content.

    Args:
        cut: the part of the image to read.
        policy: the augmentation.
        dtype: type of the pixels.
        unpack_cached: content → pixels; default: `unpack`.
    """

    def simply() -> Tensor:
        return tf.image.decode_and_crop_jpeg(cut.content, cut.box, channels=3, dct_method="INTEGER_ACCURATE")

    fully = _cut_fully(dtype, unpack_cached, policy.size, policy.border)
    slowly = lambda: rarely(fully, cut.content, cut.box, cut.steps, cut.grid)  # noqa: E731
    window = tf.cond(cut.plain, simply, slowly) if dtype == tf.uint8 else slowly()
    return tf.reshape(window, (tf.shape(window)[0], -1))


@lru_cache(maxsize=16)
def _cut_fully(
    dtype: tf.DType, unpack_cached: Callable[[Tensor], Tensor] | None, size: Any, border: Border
) -> Callable[..., Tensor]:
    image = unpack_cached or (lambda content: unpack(content, dtype))

    def read(content: Tensor, box: Tensor, jpeg: Tensor, scale: Tensor) -> Tensor:
        pixels = lambda: _slice(image(content), box)  # noqa: E731
        if dtype != tf.uint8:
            return pixels()
        return tf.cond(jpeg, lambda: decode_jpeg_region(content, box, scale), pixels)

    def fully(content: Tensor, box: Tensor, steps: Tensor, grid: Tensor) -> Tensor:
        rest, turned = steps[2:4], steps[4] > 0

        def shrunk() -> Tensor:
            window = shrink(read(content, box, steps[0] > 0, steps[1]), rest, box[2:] // rest)
            window = tf.cond(turned, lambda: tf.transpose(window, (1, 0, 2)), lambda: window)
            onto_grid = lambda: resize_onto(window, grid, size, border)  # noqa: E731
            return tf.cond(grid[0, 0] > 0, onto_grid, lambda: window)

        return tf.cond(tf.equal(content, ""), lambda: tf.zeros((1, 1, 3), dtype), shrunk)

    return fully


def as_rgb(image: Tensor) -> Tensor:
    """Convert decoded pixels to uint8 or float32 RGB in 0..255: repeat grey, compose alpha over white, scale 16 bits.

    Raises:
        PolicyError: If the shape is wrong. A wrong range raises the errors of `pixel_range.checked`.
    """
    if image.shape.rank != 3 or image.shape[-1] not in (1, 3, 4):
        raise PolicyError(f"an image has shape {image.shape}; expected (height, width, 1 | 3 | 4), or encoded bytes")
    image = checked(image)
    if image.dtype == tf.uint16:
        image = tf.cast(image, tf.float32) / 257
    elif image.dtype != tf.uint8:
        image = tf.cast(image, tf.float32)
    if image.shape[-1] == 4:
        return over_white(image) if image.dtype == tf.uint8 else _float_over_white(image)
    return tf.tile(image, (1, 1, 3)) if image.shape[-1] == 1 else image


def _float_over_white(rgba: Tensor) -> Tensor:
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def plan(policy: Policy, uniform: Tensor, opened: Opened) -> tuple[Cut, tf.Tensor, tf.Tensor]:
    """Return the cuts of n opened images with draws (n, slots), and `frame` and `matrix` of their regions.

    Images that are only scaled, by a factor of more than 2, are resized to the output's pixels at once. JPEGs are
    decoded at a scale that leaves at least a factor of 2 for this step. Rotated images are shrunk by the largest powers
    of two that leave at least the output's resolution.
    """
    jpeg, content, orientation = opened.jpeg, opened.content, opened.orientation
    frame, matrix, factor, scale = _frames(policy, uniform, opened)
    rest = factor // scale[:, None]
    box = tf.reshape(frame[:, 1::-1] * rest[:, None], (-1, 4))
    turned = orientation > 4
    frame = tf.where(turned[:, None, None], frame[:, :, ::-1], frame)
    matrix = tf.where(turned[:, None, None], matrix[:, ::-1], matrix)
    grid, frame, matrix = _resized(policy, frame, matrix)
    plain = jpeg & (scale == 1) & tf.reduce_all(rest == 1, 1) & ~turned & (content != "") & (grid[:, 0, 0] == 0)
    steps = tf.stack([tf.cast(jpeg, tf.int32), scale, rest[:, 0], rest[:, 1], tf.cast(turned, tf.int32)], 1)
    return Cut(content, plain, box, steps, grid), frame, matrix


def _resized(policy: Policy, frame: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the grid of each image, and frame and matrix after resizing to this grid."""
    scale = tf.linalg.diag_part(matrix[:, :, :2])
    exactly = policy.axis_aligned & tf.reduce_any(tf.abs(scale) > 2.001, 1, keepdims=True)
    mirrored, size = scale < 0, float(policy.size)
    corner = matrix[:, :, 2] + tf.where(mirrored, scale * size, 0.0)
    _, start, whole = tf.unstack(tf.cast(frame, tf.float32), axis=1)
    grid = tf.where(exactly[:, :, None], tf.stack([tf.abs(scale), corner, start, whole], 1), 0.0)
    unit = tf.where(mirrored, -1.0, 1.0)
    to_output = tf.concat([tf.linalg.diag(unit), tf.where(mirrored, size, 0.0)[:, :, None]], 2)
    output = tf.constant([[policy.size] * 2, [0] * 2, [policy.size] * 2])
    exactly = exactly[:, :, None]
    return grid, tf.where(exactly, output, frame), tf.where(exactly, to_output, matrix)


def _frames(policy: Policy, uniform: Tensor, opened: Opened) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return frame and matrix of stored images, the factors (n, 2) to shrink by, and the factors (n,) of decoding."""
    size, orientation = tf.cast(opened.size, tf.float32), opened.orientation
    upright = tf.where(orientation[:, None] > 4, size[:, ::-1], size)
    matrix = output_to_image(policy, uniform, crop_box(policy, uniform, upright[:, 0], upright[:, 1]))
    matrix = tf.matmul(upright_to_stored(orientation, size[:, 0], size[:, 1]), matrix)[:, :2]
    half = policy.size / 2
    middle = half * tf.reduce_sum(matrix[:, :, :2], 2) + matrix[:, :, 2]
    # several shifts and shears may move the output far beyond the image
    if policy.rand_operations and policy.fill is None:
        matrix = folded(matrix, middle, size)
        middle = half * tf.reduce_sum(matrix[:, :, :2], 2) + matrix[:, :, 2]
    turn = matrix[:, :, :2]
    reach = half * (1 + max(policy.range("lens")[1], 0)) * tf.reduce_sum(tf.abs(turn), 2)
    step = tf.norm(turn, axis=2)
    if policy.axis_aligned:
        octave = tf.minimum(tf.floor(_log2(tf.reduce_min(step, 1) / 2) + 1e-4), 3)
        scale = tf.where(opened.jpeg, tf.pow(2, tf.cast(octave, tf.int32)), opened.shrunk)
        factor = tf.stack([scale, scale], 1)
        # Half a triangle, plus one pixel, which a JPEG needs for correct colours at the edge.
        margin = tf.maximum(step / 2, tf.cast(factor, tf.float32)) + tf.cast(factor, tf.float32)
    else:
        octave = tf.floor(_log2(step) + 1e-4)
        # Bounded memory is more important than maximum sharpness.
        octave = tf.maximum(octave, tf.math.ceil(_log2(tf.minimum(2 * reach, size) / (2 * policy.size))))
        factor = tf.maximum(tf.pow(2, tf.cast(octave, tf.int32)), opened.shrunk[:, None])
        scale = tf.where(opened.jpeg, tf.minimum(tf.reduce_min(factor, 1), 8), opened.shrunk)
        margin = 2 * tf.cast(factor, tf.float32)
    by = tf.cast(factor, tf.float32)
    low, high = middle - reach - margin, middle + reach + margin
    if not policy.rand_operations:
        low, high = (  # a reflecting border repeats pixels from inside
            tf.where(high > size, tf.minimum(low, 2 * size - high), low),
            tf.where(low < 0, tf.maximum(high, -low), high),
        )
    shrunk = opened.size // factor
    start = tf.clip_by_value(tf.cast(tf.floor(low / by), tf.int32), 0, shrunk - 1)
    stop = tf.clip_by_value(tf.cast(tf.math.ceil(high / by), tf.int32), start + 1, shrunk)
    offset = matrix[:, :, 2] / by - tf.cast(start, tf.float32)
    matrix = tf.concat([turn / by[:, :, None], offset[:, :, None]], 2)
    return tf.stack([stop - start, start, shrunk], 1), matrix, factor, scale


def _log2(ratio: Tensor) -> Tensor:
    """Return the base-2 logarithm of a ratio, and 0 for ratios below 1."""
    return tf.math.log(tf.maximum(ratio, 1.0)) / math.log(2.0)


def _slice(image: Tensor, box: Tensor) -> Tensor:
    top, left, height, width = tf.unstack(box)
    return image[top : top + height, left : left + width]
