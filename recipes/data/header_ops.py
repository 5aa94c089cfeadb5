"""Read the header of encoded images in the TensorFlow graph, before anything is decoded.

The module uses `cast` and ignores some types because TensorFlow's stubs lack some operators of tensors.
"""

import tensorflow as tf

from recipes import augment
from recipes.augment import bmp_size, gif_size, is_gif, is_jpeg, is_png, is_webp, jpeg_size, png_size, starts

NOT_SUPPORTED = "format not supported"  # beginning of the errors for files of unsupported formats
MAX_PIXELS = 50_000_000  # covers the 48 megapixels of phones; decoding 30,000 × 30,000 pixels would take 2.7 GB


def refusal(content: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Return the reason not to decode encoded bytes, as a string scalar that is empty if they are safe to decode.

    Args:
        content: Encoded bytes, a string scalar.
        max_pixels: Largest height × width that the header may declare.
    """
    size = header_size(content)
    pixels = tf.reduce_prod(size)
    height, width = (tf.strings.as_string(side) for side in tf.unstack(size))
    shown = tf.strings.join([width, " × ", height, " pixels"])
    reasons = [
        (tf.equal(content, ""), lambda: tf.constant("zero bytes")),
        (size[0] < 0, lambda: why_undecodable(content, "not an image: expected JPEG, PNG, GIF, BMP or WebP")),
        (pixels > max_pixels, lambda: tf.strings.join(["too large: ", shown, f"; at most {max_pixels:,} are decoded"])),
    ]
    return tf.case(reasons, default=lambda: tf.constant(""))


def why_undecodable(content: tf.Tensor, otherwise: str) -> tf.Tensor:
    """Return the error for encoded bytes that cannot be decoded: the unsupported format, or `otherwise`."""
    variant = augment.unsupported(content)
    named = tf.strings.join([f"{NOT_SUPPORTED}: ", variant, "; convert it to JPEG or PNG"])
    return tf.where(tf.equal(variant, ""), otherwise, named)


def header_size(content: tf.Tensor) -> tf.Tensor:
    """Return the (height, width) in the header of encoded bytes as int64; -1 for unknown formats.

    Raises:
        tf.errors.InvalidArgumentError: If a JPEG header cannot be read.
    """
    head = tf.strings.join([tf.strings.substr(content, 0, 64), bytes(64)])  # missing fields are read as zero
    kinds = [
        (is_jpeg(content), lambda: tf.cast(jpeg_size(content), tf.int64)),
        (is_png(head), lambda: _sized(png_size(head))),
        (is_gif(head), lambda: tf.cast(gif_size(content), tf.int64)),
        (starts(head, b"BM"), lambda: _sized(bmp_size(content))),
        (is_webp(head), lambda: _webp(head)),
    ]
    return tf.case(kinds, default=lambda: tf.constant([-1, -1], tf.int64))


def _sized(size: tf.Tensor) -> tf.Tensor:
    """Return the size of a PNG or BMP as int64; a side that overflows 31 bits becomes 2³¹."""
    size = tf.cast(size, tf.int64)
    return tf.where(size < 0, tf.constant(2**31, tf.int64), size)


def _fields(content: tf.Tensor, at: int, bytes_each: int) -> tf.Tensor:
    """Return the two little-endian numbers at position `at`."""
    digits = tf.io.decode_raw(tf.strings.substr(content, at, 2 * bytes_each), tf.uint8, fixed_length=2 * bytes_each)
    weights = tf.constant([256**i for i in range(bytes_each)], tf.int64)
    return tf.reduce_sum(tf.reshape(tf.cast(digits, tf.int64), (2, bytes_each)) * weights, 1)


def _webp(content: tf.Tensor) -> tf.Tensor:
    """Return the size of a WebP: the canvas of VP8X, or the frame of VP8L (14 bits per side) or VP8 (lossy)."""
    kind = tf.strings.substr(content, 12, 4)
    branches = [
        (tf.equal(kind, "VP8X"), lambda: _fields(content, 24, 3)[::-1] + 1),
        (tf.equal(kind, "VP8L"), lambda: _webp_lossless(content)),
    ]
    return tf.case(branches, default=lambda: tf.math.floormod(_fields(content, 26, 2)[::-1], 16384))


def _webp_lossless(content: tf.Tensor) -> tf.Tensor:
    low, high = tf.unstack(_fields(content, 21, 2))
    bits = low + 65536 * high
    return tf.math.floormod(tf.stack([bits // 16384, low]), 16384) + 1
