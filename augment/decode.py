"""Decode bytes to upright RGB pixels with TensorFlow operations only, so that a SavedModel can do the same."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import tensorflow as tf

from .bmp import decode_bmp
from .gif import decode_gif
from .header import NOT_SUPPORTED, bytes_at, checked, is_gif, is_jpeg, is_png, is_webp, starts
from .signatures import foreign_format
from .tensors import Tensor
from .unsupported import webp_variant


def decode(content: Tensor) -> tf.Tensor:
    """Return uint8 RGB (height, width, 3) of JPEG, PNG, BMP, GIF (first frame) or WebP bytes.

    Grey is repeated, transparency is composed over white, 16 bits are scaled to 8, and EXIF orientations 1-8 are
    applied. The first frame of a GIF is placed on its canvas. See `unsupported` for rejected variants.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are damaged or not an image.
    """
    content = tf.convert_to_tensor(content)
    image = tf.cond(is_jpeg(content), lambda: _decode_jpeg(content), lambda: rarely(decode_other, content))
    image.set_shape((None, None, 3))
    return image


def decode_other(content) -> tf.Tensor:
    """Decode all formats except JPEG; each format is a separate graph node, so that none slows the others."""
    branches = [
        (is_png(content), lambda: rarely(_upright_png, content)),
        (is_webp(content), lambda: rarely(_upright_webp, content)),
        (is_gif(content), lambda: decode_gif(content)),
        (starts(content, b"BM"), lambda: rarely(_decode_bmp, content)),
    ]
    return tf.case(branches, default=lambda: rarely(_refused, content), exclusive=True)


def _decode_jpeg(content: Tensor) -> Tensor:
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return upright(image, exif_orientation(content))


def _upright_png(content):
    return upright(decode_png(content), png_orientation(content))


def decode_png(content) -> tf.Tensor:
    """Return uint8 RGB of PNG bytes as stored, without applying the orientation."""
    # With 4 channels, TensorFlow applies the transparent colour of grey and RGB, but invents an alpha for palettes
    # without one; 0 keeps the number of channels.
    keyed = _is_keyed(content)
    channels = lambda count: lambda dtype: lambda: tf.io.decode_png(content, count, dtype)  # noqa: E731
    read = lambda dtype: tf.cond(keyed, channels(4)(dtype), channels(0)(dtype))  # noqa: E731
    deep = tf.equal(bytes_at(content, 24, 1)[0], 16)
    to_bytes = lambda pixels: tf.cast((tf.cast(pixels, tf.int32) + 128) // 257, tf.uint8)  # noqa: E731
    return _three_channels(tf.cond(deep, lambda: to_bytes(read(tf.uint16)), lambda: read(tf.uint8)))


def _is_keyed(content: Tensor) -> Tensor:
    """Return whether grey or RGB PNG bytes declare one transparent colour, by a tRNS chunk of 2 or 6 bytes."""
    colour = bytes_at(content, 25, 1)[0]

    def by_chunk() -> Tensor:
        without = tf.strings.regex_replace(content, r"\x00\x00\x00[\x02\x06]tRNS", "", replace_global=False)
        return tf.strings.length(without) < tf.strings.length(content)

    return tf.cond(tf.equal(colour, 0) | tf.equal(colour, 2), by_chunk, lambda: tf.constant(False))


def _upright_webp(content: Tensor) -> Tensor:
    orientation = _orientation_after(content, r"EXIF\C{4}(?:Exif\x00\x00)?")
    return upright(_decode_webp(content), orientation)


def _decode_webp(content: Tensor) -> Tensor:
    return _three_channels(tf.image.decode_webp(_supported(content, webp_variant), channels=0)[0])


def _decode_bmp(content):
    return _three_channels(decode_bmp(content))


def _refused(content):
    """Raise the error for bytes of an unknown format."""
    nothing = tf.zeros((0, 0, 3), tf.uint8)
    content = checked(_supported(content, foreign_format), False, "not a JPEG, PNG, GIF, BMP or WebP image")
    with tf.control_dependencies([content]):
        return tf.identity(nothing)


def _supported(content: Tensor, variant: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `content` after checking that it is not an unsupported variant."""
    name = variant(content)
    return checked(content, tf.equal(name, ""), tf.strings.join([NOT_SUPPORTED, name]))


def _three_channels(image: Tensor) -> Tensor:
    """Return RGB of grey, grey and alpha, RGB or RGBA."""
    channels = tf.shape(image)[2]
    return tf.case(
        [
            (tf.equal(channels, 1), lambda: tf.tile(image, (1, 1, 3))),
            (tf.equal(channels, 2), lambda: over_white(tf.gather(image, [0, 0, 0, 1], axis=2))),
            (tf.equal(channels, 4), lambda: over_white(image)),
        ],
        default=lambda: image,
    )


def over_white(rgba: Tensor) -> Tensor:
    """Compose uint8 RGBA over white and return RGB."""
    alpha = tf.cast(rgba[..., 3:], tf.int32)
    mixed = tf.cast(rgba[..., :3], tf.int32) * alpha + 255 * (255 - alpha)
    return tf.cast((mixed + 127) // 255, tf.uint8)


def rarely(function: Callable[..., Any], *tensors: Tensor) -> Any:
    """Return `function(*tensors)` as one graph node, which costs nothing if its branch is not taken.

    Tracing takes most of a pipeline's start time, so every function is traced once and cached.
    """
    return function(*tensors) if tf.executing_eagerly() else _kept_node(function)(*tensors)


def as_node(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as one node of the graphs that call it."""
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


_kept_node = lru_cache(maxsize=64)(as_node)


def png_size(content: Tensor) -> tf.Tensor:
    """Return int32 (height, width) of PNG bytes as stored, read from the header."""
    digits = bytes_at(content, 16, 8)
    width, height = tf.unstack(
        tf.reduce_sum(tf.reshape(tf.cast(digits, tf.int32), (2, 4)) * [2**24, 2**16, 2**8, 1], 1)
    )
    return tf.stack([height, width])


def png_orientation(content: Tensor) -> tf.Tensor:
    """Return the orientation 1-8 in the eXIf chunk of PNG bytes as an int32 scalar; default: 1."""
    return _orientation_after(content, "eXIf")


def jpeg_size(content: Tensor) -> tf.Tensor:
    """Return int32 (height, width) of JPEG bytes as stored, read from the header."""
    return tf.image.extract_jpeg_shape(content)[:2]


def decode_jpeg_region(content: Tensor, window: Tensor, scale: Tensor) -> tf.Tensor:
    """Return uint8 RGB of the window (top, left, height, width) of the stored JPEG image shrunk by `scale`.

    window: int32 (4,) in pixels of the shrunk image.
    scale:  int32 scalar, 1, 2, 4 or 8: the discrete cosine transform is inverted at this fraction of the resolution,
            which is a good antialiasing filter and costs less than a full inversion.
    """

    def at(ratio: int) -> Callable[[], Tensor]:
        return lambda: tf.raw_ops.DecodeAndCropJpeg(
            contents=content, crop_window=window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    return tf.switch_case(
        tf.cast(scale > 1, tf.int32) + tf.cast(scale > 2, tf.int32) + tf.cast(scale > 4, tf.int32),
        [at(1), at(2), at(4), at(8)],
    )


def exif_orientation(content: Tensor) -> tf.Tensor:
    """Return the EXIF orientation 1-8 of JPEG bytes as an int32 scalar; default: 1.

    The orientation is read from the first image file directory of the TIFF block after "Exif", within the first 32 KiB
    of the file. Cameras and Photoshop write it there (CIPA DC-008, "Exchangeable image file format").
    """
    return _orientation_after(tf.strings.substr(content, 0, 32768), r"Exif\x00\x00")


def _orientation_after(content: Tensor, mark: str) -> tf.Tensor:
    """Return the orientation in the TIFF block after the first match of a pattern; default: 1."""
    mark += r"(MM\x00\*|II\*\x00)"
    # A pattern that begins with letters is searched 20 times as fast as one that begins with \C*.
    without = tf.strings.regex_replace(content, mark, "", replace_global=False)
    found = tf.strings.length(without) < tf.strings.length(content)
    return tf.cond(found, lambda: rarely(_orientation_at(mark), content), lambda: tf.constant(1))


@lru_cache(maxsize=8)
def _orientation_at(mark: str) -> Callable[[Tensor], Tensor]:
    def read(content: Tensor) -> Tensor:
        tiff = tf.strings.regex_replace(content, rf"^\C*?{mark}", r"\1", replace_global=False)
        return _first_directory_orientation(tf.strings.substr(tiff, 0, 4096))

    return read


def _first_directory_orientation(tiff: Tensor) -> Tensor:
    data = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int32)
    data = tf.concat([data, tf.zeros(16, tf.int32)], 0)
    big = tf.equal(data[0], ord("M"))

    def number(at: Tensor, count: int) -> Tensor:
        """Return the unsigned integer in `count` bytes from every position in `at`; 0 past the end."""
        at = tf.minimum(at[..., None] + tf.range(count), tf.size(data) - 1)
        weight = tf.where(big, tf.range(count)[::-1], tf.range(count))
        return tf.reduce_sum(tf.gather(data, at) * tf.bitwise.left_shift(1, 8 * weight), -1)

    directory = tf.clip_by_value(number(tf.constant(4), 4), 0, 4096)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 340))
    value = tf.where(number(entries, 2) == 0x0112, number(entries + 8, 2), 0)
    value = tf.reduce_max(tf.concat([value, [0]], 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def upright(image: Tensor, orientation: Tensor) -> tf.Tensor:
    """Undo an EXIF orientation: 2-4 mirror or turn by 180°, 5-8 are transposed versions of 1-4."""
    turned = [
        lambda: image,
        lambda: image[:, ::-1],
        lambda: image[::-1, ::-1],
        lambda: image[::-1],
        lambda: tf.transpose(image, (1, 0, 2)),
        lambda: tf.transpose(image, (1, 0, 2))[:, ::-1],
        lambda: tf.transpose(image, (1, 0, 2))[::-1, ::-1],
        lambda: tf.transpose(image, (1, 0, 2))[::-1],
    ]
    return tf.switch_case(orientation - 1, turned)
