"""What encoded bytes declare themselves to be, read in the graph before anything is decoded."""

import tensorflow as tf

import augment
from augment.bmp import bmp_size
from augment.decode import jpeg_size, png_size
from augment.gif import gif_size
from augment.header import is_gif, is_jpeg, is_png, is_webp, starts

NOT_SUPPORTED = "format not supported"  # how the errors of such files begin
MAX_PIXELS = 50_000_000  # the 48 megapixels of telephones pass; 30,000 × 30,000 would take 2.7 GB to decode


def refusal(content, max_pixels: int) -> tf.Tensor:
    """Why encoded bytes are not even tried to decode, as a string scalar; empty where they are.

    max_pixels: height × width by the header.
    """
    size = header_size(content)
    pixels = tf.reduce_prod(size)
    height, width = (tf.strings.as_string(side) for side in tf.unstack(size))
    told = tf.strings.join([width, " × ", height, " pixels"])
    reasons = [
        (tf.equal(content, ""), lambda: tf.constant("zero bytes")),
        (size[0] < 0, lambda: why_undecodable(content, "not an image: JPEG, PNG, GIF, BMP and WebP are read")),
        (pixels > max_pixels, lambda: tf.strings.join(["too large: ", told, f"; at most {max_pixels:,} are decoded"])),
    ]
    return tf.case(reasons, default=lambda: tf.constant(""))


def why_undecodable(content, otherwise: str) -> tf.Tensor:
    """The error for encoded bytes that cannot be decoded: the name of an unsupported format, or `otherwise`."""
    variant = augment.unsupported(content)
    named = tf.strings.join([f"{NOT_SUPPORTED}: ", variant, "; convert it to JPEG or PNG"])
    return tf.where(tf.equal(variant, ""), otherwise, named)


def header_size(content) -> tf.Tensor:
    """int64 (height, width) that encoded bytes declare; -1 where they are no image of a known format.

    Raises: tf.errors.InvalidArgumentError for a JPEG header that cannot be read.
    """
    head = tf.strings.join([tf.strings.substr(content, 0, 64), bytes(64)])  # fields may be missing: they are zero
    kinds = [
        (is_jpeg(content), lambda: tf.cast(jpeg_size(content), tf.int64)),
        (is_png(head), lambda: _png(head)),
        (is_gif(head), lambda: tf.cast(gif_size(content), tf.int64)),
        (starts(head, b"BM"), lambda: _bmp(content)),
        (is_webp(head), lambda: _webp(head)),
    ]
    return tf.case(kinds, default=lambda: tf.constant([-1, -1], tf.int64))


def _png(content):
    """The sides are 32 bits without sign, of which PNG allows 31: an overflow is larger than anything."""
    size = tf.cast(png_size(content), tf.int64)
    return tf.where(size < 0, tf.constant(2**31, tf.int64), size)


def _fields(content, at: int, bytes_each: int):
    """The two little-endian numbers from position `at`."""
    digits = tf.io.decode_raw(tf.strings.substr(content, at, 2 * bytes_each), tf.uint8, fixed_length=2 * bytes_each)
    weights = tf.constant([256**i for i in range(bytes_each)], tf.int64)
    return tf.reduce_sum(tf.reshape(tf.cast(digits, tf.int64), (2, bytes_each)) * weights, 1)


def _bmp(content):
    """Sides that overflow 31 bits are larger than anything."""
    size = tf.cast(bmp_size(content), tf.int64)
    return tf.where(size < 0, tf.constant(2**31, tf.int64), size)


def _webp(content):
    """The canvas of VP8X, or the frame of VP8L (14 bits a side) or VP8 (lossy)."""
    kind = tf.strings.substr(content, 12, 4)
    bits = lambda: _fields(content, 21, 2)  # noqa: E731
    lossless = lambda: tf.stack([  # noqa: E731
        (bits()[0] + 65536 * bits()[1]) // 16384 % 16384 + 1, bits()[0] % 16384 + 1,
    ])  # fmt: skip
    branches = [
        (tf.equal(kind, "VP8X"), lambda: _fields(content, 24, 3)[::-1] + 1),
        (tf.equal(kind, "VP8L"), lossless),
    ]
    return tf.case(branches, default=lambda: _fields(content, 26, 2)[::-1] % 16384)
