"""The parts of images that their outputs need, no larger and no finer than that: decoded, cut out, shrunk."""

import math
from functools import lru_cache
from typing import NamedTuple

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
from .geometry import crop_box, output_to_image, upright_to_stored
from .header import is_jpeg, is_png
from .pixel_range import checked
from .policy import Policy, PolicyError


class Opened(NamedTuple):
    """An image of which the size is known, and of which no more has been decoded than that took.

    jpeg:    whether `content` are JPEG bytes; otherwise they are PNG bytes or a serialised tensor of RGB pixels:
             strings can be batched whatever the images' sizes.
    size:    (..., 2) int32 (height, width) as stored.  orientation: EXIF's 1-8, int32.
    shrunk:  int32 factor by which the pixels of `content` have been shrunk already.
    """

    jpeg: tf.Tensor
    content: tf.Tensor
    size: tf.Tensor
    orientation: tf.Tensor
    shrunk: tf.Tensor


class Cut(NamedTuple):
    """What to read of an image.

    content: that of `Opened`.
    plain:   whether it is a JPEG with nothing to shrink or transpose, which is common and made quick.
    box:     (..., 4) int32 (top, left, height, width), in the image shrunk by the scale.
    steps:   (..., 5) int32: whether it is a JPEG, the scale (1, 2, 4 or 8) at which that is decoded, or at which other
             pixels are at hand, the factors (y, x) to shrink by afterwards, and whether to transpose, for the sampler
             wants rows of the image along rows of the output.
    grid:    (..., 4, 2) float32, where the output's pixels lie in the transposed window, see `resize_onto`; all zeros
             where the window is not resized onto them.
    """

    content: tf.Tensor
    plain: tf.Tensor
    box: tf.Tensor
    steps: tf.Tensor
    grid: tf.Tensor


class Region(NamedTuple):
    """A rectangle of an image that was shrunk by whole factors, and where the output's pixels lie in it.

    pixels: (height, 3 · width) uint8 or float32, rows of RGB; after batching with padding at the right and below.
    frame:  (3, 2) int32: (height, width) of the rectangle, its (top, left) in the shrunk image, the shrunk image's
            (height, width).
    matrix: (2, 3) float32, output pixel (y, x, 1) → point of the rectangle; small numbers, for they are rounded.
    """

    pixels: tf.Tensor
    frame: tf.Tensor
    matrix: tf.Tensor


def capacity(policy: Policy) -> tuple[int, int]:
    """The largest shape that `Region.pixels` can have."""
    side = 2 * policy.size + 6
    return side, 3 * side


def fetch(image, policy: Policy, uniform) -> Region:
    """The Region that `policy` needs of encoded bytes or pixels (height, width, 1 | 3 | 4), given the image's draws."""
    image = tf.convert_to_tensor(image)
    one = tf.nest.map_structure(lambda t: t[None], open_image(image))
    cut, frame, matrix = tf.nest.map_structure(lambda t: t[0], plan(policy, uniform[None], one))
    return Region(cut_out(cut, policy, pixel_type(image.dtype)), frame, matrix)


def pixel_type(image_type: tf.DType) -> tf.DType:
    """uint8 or float32: the type of RGB pixels of images of that type, which are bytes or pixels."""
    return tf.uint8 if image_type in (tf.string, tf.uint8) else tf.float32


def open_image(image) -> Opened:
    """JPEG and PNG are looked at, other encoded bytes decoded; pixels (height, width, 1 | 3 | 4) become RGB."""
    image = tf.convert_to_tensor(image)

    if image.dtype != tf.string:
        return Opened(tf.constant(False), *_kept(as_rgb(image)), tf.constant(1))
    jpeg = is_jpeg(image)
    look = lambda: (image, jpeg_size(image), exif_orientation(image))  # noqa: E731
    return Opened(jpeg, *tf.cond(jpeg, look, lambda: rarely(_look_at_other, image)), tf.constant(1))


def _look_at_other(content):
    png = lambda: (content, png_size(content), png_orientation(content))  # noqa: E731
    return tf.cond(is_png(content), png, lambda: _kept(decode_other(content)))


def _kept(pixels):
    return tf.io.serialize_tensor(pixels), tf.shape(pixels)[:2], tf.constant(1)


def unpack(content, dtype) -> tf.Tensor:
    """The pixels of an opened image that is no JPEG."""
    if dtype != tf.uint8:
        return tf.io.parse_tensor(content, dtype)
    return tf.cond(is_png(content), lambda: decode_png(content), lambda: tf.io.parse_tensor(content, dtype))


def cut_out(cut: Cut, policy: Policy, dtype: tf.DType, unpack_cached=None) -> tf.Tensor:
    """Return the pixels (height, 3 · width) of one image that `cut` describes; one black pixel if it has no content.

    unpack_cached: from content to pixels; default: `unpack`.
    """

    def simply():
        return tf.image.decode_and_crop_jpeg(cut.content, cut.box, channels=3, dct_method="INTEGER_ACCURATE")

    fully = _cut_fully(dtype, unpack_cached, policy.size, policy.border)
    slowly = lambda: rarely(fully, cut.content, cut.box, cut.steps, cut.grid)  # noqa: E731
    window = tf.cond(cut.plain, simply, slowly) if dtype == tf.uint8 else slowly()
    return tf.reshape(window, (tf.shape(window)[0], -1))


@lru_cache(maxsize=16)
def _cut_fully(dtype: tf.DType, unpack_cached, size, border):
    image = unpack_cached or (lambda content: unpack(content, dtype))

    def read(content, box, jpeg, scale):
        pixels = lambda: _slice(image(content), box)  # noqa: E731
        if dtype != tf.uint8:
            return pixels()
        return tf.cond(jpeg, lambda: decode_jpeg_region(content, box, scale), pixels)

    def fully(content, box, steps, grid):
        rest, turned = steps[2:4], steps[4] > 0

        def shrunk():
            window = shrink(read(content, box, steps[0] > 0, steps[1]), rest, box[2:] // rest)
            window = tf.cond(turned, lambda: tf.transpose(window, (1, 0, 2)), lambda: window)
            onto_grid = lambda: resize_onto(window, grid, size, border)  # noqa: E731
            return tf.cond(grid[0, 0] > 0, onto_grid, lambda: window)

        return tf.cond(tf.equal(content, ""), lambda: tf.zeros((1, 1, 3), dtype), shrunk)

    return fully


def as_rgb(image) -> tf.Tensor:
    """Return uint8 or float32 RGB of 0..255 of decoded pixels: grey repeated, alpha over white, 16 bits scaled to 255.

    Raises: PolicyError for another shape; as `pixel_range.checked` does for another range.
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


def _float_over_white(rgba):
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


def plan(policy: Policy, uniform, opened: Opened) -> tuple[Cut, tf.Tensor, tf.Tensor]:
    """What to read of n opened images, and `frame` and `matrix` of their regions, given their draws (n, slots).

    Images that only scale and shrink by more than 2 are resized onto the output's pixels beforehand; JPEGs are decoded
    at a scale that leaves at least a factor of 2 to that. Where they are turned, images are shrunk by the largest
    powers of two at which they still are at least as fine as the output.
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


def _resized(policy, frame, matrix):
    """The grid of each image, and frame and matrix after resizing onto it."""
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


def _frames(policy, uniform, opened):
    """frame and matrix of images as they are stored, the factors (n, 2) to shrink by, and the part of them (n,) that
    decoding does.
    """
    size, orientation = tf.cast(opened.size, tf.float32), opened.orientation
    upright = tf.where(orientation[:, None] > 4, size[:, ::-1], size)
    matrix = output_to_image(policy, uniform, crop_box(policy, uniform, upright[:, 0], upright[:, 1]))
    matrix = tf.matmul(upright_to_stored(orientation, size[:, 0], size[:, 1]), matrix)[:, :2]
    turn, half = matrix[:, :, :2], policy.size / 2
    middle = half * tf.reduce_sum(turn, 2) + matrix[:, :, 2]
    reach = half * (1 + max(policy.range("lens")[1], 0)) * tf.reduce_sum(tf.abs(turn), 2)
    step = tf.norm(turn, axis=2)
    if policy.axis_aligned:
        octave = tf.minimum(tf.floor(_log2(tf.reduce_min(step, 1) / 2) + 1e-4), 3)
        scale = tf.where(opened.jpeg, tf.pow(2, tf.cast(octave, tf.int32)), opened.shrunk)
        factor = tf.stack([scale, scale], 1)
        # Half a triangle, and the pixel beyond, without which a JPEG's colours at the edge are others.
        margin = tf.maximum(step / 2, tf.cast(factor, tf.float32)) + tf.cast(factor, tf.float32)
    else:
        octave = tf.floor(_log2(step) + 1e-4)
        # Bounded memory goes before the last bit of sharpness.
        octave = tf.maximum(octave, tf.math.ceil(_log2(tf.minimum(2 * reach, size) / (2 * policy.size))))
        factor = tf.maximum(tf.pow(2, tf.cast(octave, tf.int32)), opened.shrunk[:, None])
        scale = tf.where(opened.jpeg, tf.minimum(tf.reduce_min(factor, 1), 8), opened.shrunk)
        margin = 2 * tf.cast(factor, tf.float32)
    by = tf.cast(factor, tf.float32)
    low, high = middle - reach - margin, middle + reach + margin
    low, high = (  # what a reflecting border shows again from inside
        tf.where(high > size, tf.minimum(low, 2 * size - high), low),
        tf.where(low < 0, tf.maximum(high, -low), high),
    )
    shrunk = opened.size // factor
    start = tf.clip_by_value(tf.cast(tf.floor(low / by), tf.int32), 0, shrunk - 1)
    stop = tf.clip_by_value(tf.cast(tf.math.ceil(high / by), tf.int32), start + 1, shrunk)
    offset = matrix[:, :, 2] / by - tf.cast(start, tf.float32)
    matrix = tf.concat([turn / by[:, :, None], offset[:, :, None]], 2)
    return tf.stack([stop - start, start, shrunk], 1), matrix, factor, scale


def _log2(ratio):
    """The logarithm of a ratio, 0 below 1."""
    return tf.math.log(tf.maximum(ratio, 1.0)) / math.log(2.0)


def _slice(image, box):
    top, left, height, width = tf.unstack(box)
    return image[top : top + height, left : left + width]
