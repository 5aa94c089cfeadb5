"""Decode BMP files of 1 to 32 bits per pixel, with palettes, bit masks, and rows in both directions.

`tf.io.decode_bmp` reads three variants and ignores compression, masks and profiles. Run-length encoded
files are not supported. Sources: Microsoft, "Bitmap Storage", and IBM, "OS/2 Bitmap File Format".
"""

from typing import Any, NamedTuple

import tensorflow as tf

from .header import NOT_SUPPORTED, bytes_at, checked, on_bytes
from .tensors import Tensor

_OS2, _OS2_2 = 12, (16, 64)  # lengths of the headers of OS/2 versions 1 and 2
_INFO = (40, 52, 56, 108, 124)  # lengths of the headers of Windows; versions 2 and later contain the masks
_PLAIN, _MASKED, _MASKED_WITH_ALPHA = 0, 3, 6  # values of the compression field that mean uncompressed pixels
_DEPTHS = (1, 2, 4, 8, 16, 24, 32)
# default masks of red, green, blue, alpha; 24 bits use those of 32
_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


class _Header(NamedTuple):
    """Hold the fields of the header, as int32 scalars.

    rows:    the height, negative if rows go from top to bottom.
    colours: number of entries of the palette, if there is one.
    offset:  position of the pixels.
    masks:   (4,), the masks of red, green, blue and alpha, if there are any.
    """

    length: tf.Tensor
    width: tf.Tensor
    rows: tf.Tensor
    bits: tf.Tensor
    compression: tf.Tensor
    colours: tf.Tensor
    offset: tf.Tensor
    masks: tf.Tensor


def _is_in(value: Any, choices: Any) -> Tensor:
    return tf.reduce_any(tf.equal(value, choices))


def _fields(content):
    """Return int32 (15,) from position 10 on; zeros past the end."""
    piece = tf.strings.substr(content, tf.minimum(10, tf.strings.length(content)), 60)
    return tf.io.decode_raw(piece, tf.int32, fixed_length=60)


def _header(content) -> _Header:
    fields = tf.unstack(_fields(content))
    offset, length, width, rows, shape, compression, *_, colours, _, _, _, _, _ = fields
    old, short = tf.equal(length, _OS2), length < 40  # a short header ends before compression and colours
    shape = tf.where(old, rows, shape)  # planes, and bits per pixel above them
    width, rows = tf.where(old, width % 2**16, width), tf.where(old, _upper(width), rows)
    bits, compression = _upper(shape), tf.where(short, 0, compression)
    most = tf.bitwise.left_shift(1, tf.minimum(bits, 8))
    colours = tf.where(short | (colours <= 0) | (colours > most), most, colours)
    offset += tf.where((bits <= 8) & tf.equal(offset, 14 + length), 4 * colours, 0)  # `decode_bmp` skipped the palette
    return _Header(length, width, rows, bits, compression, colours, offset, tf.stack(fields[-4:]))


def _upper(number: Tensor) -> Tensor:
    """Return the upper 16 of 32 bits."""
    return tf.bitwise.right_shift(number, 16) % 2**16


@on_bytes
def bmp_size(content: Tensor) -> tf.Tensor:
    """Return int32 (height, width) of BMP bytes, read from the header."""
    header = _header(content)
    return tf.stack([tf.abs(header.rows), header.width])


def bmp_variant(content: Tensor) -> tf.Tensor:
    """Return the name of a BMP variant that `decode_bmp` does not read, as a string scalar; empty for others."""
    header = _header(content)
    plain = tf.equal(header.compression, _PLAIN) | ~_is_in(header.length, (*_INFO, *_OS2_2))
    return tf.cond(plain & (header.bits <= 32), lambda: tf.constant(""), lambda: _strange_variant(header))


def _strange_variant(header: _Header):
    """Return the variant's name if it has compression, unusual masks or more than 8 bits per channel."""
    deep = _is_in(header.bits, [48, 64])
    masked = _is_in(header.compression, [_MASKED, _MASKED_WITH_ALPHA]) & ~_is_in(header.length, _OS2_2)
    compressed = tf.not_equal(header.compression, _PLAIN) & ~masked & ~deep
    name = tf.where(deep, "BMP of 16 bits per channel", tf.where(compressed, "compressed BMP", ""))
    return tf.where(masked & ~deep & ~_are_sound(header), "BMP of unusual bit masks", name)


def _are_sound(header: _Header):
    """Return whether each colour has a mask of adjacent bits that no other channel shares."""
    masks = _declared(header)
    lowest = tf.bitwise.bitwise_and(masks, -masks)
    adjacent = tf.reduce_all(tf.equal(tf.bitwise.bitwise_and(masks + lowest, masks), 0))
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(masks, tf.range(32, dtype=tf.int64)[:, None]), 1)
    apart = tf.reduce_all(tf.reduce_sum(bits, 1) <= 1)
    inside = tf.reduce_all(masks < tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.cast(header.bits, tf.int64)))
    return (header.bits > 8) & tf.reduce_all(masks[:3] > 0) & adjacent & apart & inside


@on_bytes
def decode_bmp(content: Tensor) -> tf.Tensor:
    """Return uint8 (height, width, channels) of BMP bytes: RGB, or RGBA if masks are declared.

    Raises:
        tf.errors.InvalidArgumentError: If the variant is not supported, the bytes are cut short, or the header is
            invalid.
    """
    offset, length, width, rows, shape, compression = tf.unstack(_fields(content)[:6])
    bits = tf.bitwise.right_shift(shape, 16)
    usual = _is_in(length, _INFO) & tf.equal(compression, _PLAIN) & _is_in(bits, [24, 32])
    sound = (width > 0) & tf.not_equal(rows, 0) & (offset >= 0)
    end, whole = _end(offset, width, rows, bits, padded=True), tf.strings.length(content)

    def quickly():  # takes half the time; TensorFlow allows no bytes after the pixels
        last = tf.cast(end, tf.int32)
        exact = tf.cond(last < whole, lambda: tf.strings.substr(content, 0, last), lambda: content)
        return tf.io.decode_bmp(exact)[..., :3]

    return tf.cond(usual & sound & (end <= tf.cast(whole, tf.int64)), quickly, lambda: _decode_unusual(content))


def _end(offset, width, rows, bits, *, padded: bool):
    """Return the position after the pixels, int64; the last row may lack its padding to four bytes."""
    offset, width, rows, bits = (tf.cast(number, tf.int64) for number in (offset, width, rows, bits))
    stride = (width * bits + 31) // 32 * 4
    return offset + (tf.abs(rows) - 1) * stride + (stride if padded else (width * bits + 7) // 8)


@on_bytes
def _decode_unusual(content):
    """Decode files that `tf.io.decode_bmp` does not read: other depths, masks, OS/2, a last row without padding."""
    header, name = _header(content), bmp_variant(content)
    content = checked(content, tf.equal(name, ""), tf.strings.join([NOT_SUPPORTED, name]))
    known = _is_in(header.length, (_OS2, *_OS2_2, *_INFO)) & _is_in(header.bits, _DEPTHS)
    end = _end(header.offset, header.width, header.rows, header.bits, padded=False)
    whole = end <= tf.cast(tf.strings.length(content), tf.int64)
    sized = (header.width > 0) & tf.not_equal(header.rows, 0) & (header.offset >= 0) & whole
    content = checked(content, known & sized, "the BMP is cut short, or its header is invalid")
    height, stride = tf.abs(header.rows), (header.width * header.bits + 31) // 32 * 4
    rows = tf.reshape(bytes_at(content, header.offset, height * stride), (height, stride))
    image = tf.cond(header.bits <= 8, lambda: _with_palette(content, header, rows), lambda: _masked(header, rows))
    return tf.cond(header.rows > 0, lambda: tf.reverse(image, [0]), lambda: image)


def _with_palette(content: Tensor, header: _Header, rows: Any) -> Tensor:
    """Decode indices of 1 to 8 bits, highest first, into a palette of blue, green, red and, except in OS/2 1, 0."""
    shifts = tf.cast(8 - header.bits * tf.range(1, 8 // header.bits + 1), tf.uint8)
    largest = tf.cast(tf.bitwise.left_shift(1, header.bits) - 1, tf.uint8)
    indices = tf.bitwise.bitwise_and(tf.bitwise.right_shift(rows[..., None], shifts), largest)
    indices = tf.reshape(indices, (tf.shape(rows)[0], -1))[:, : header.width]
    count, entry = header.colours, tf.where(tf.equal(header.length, _OS2), 3, 4)
    colours = tf.reshape(bytes_at(content, 14 + header.length, count * entry), (count, entry))[:, 2::-1]
    palette = tf.concat([colours, tf.zeros((256 - count, 3), tf.uint8)], 0)  # an index beyond the palette is black
    return tf.gather(palette, tf.cast(indices, tf.int32))


def _masked(header: _Header, rows: Any) -> Tensor:
    """Decode pixels of 16, 24 or 32 bits, from which masks select the channels."""
    count = header.bits // 8
    pixels = tf.reshape(rows[:, : header.width * count], (tf.shape(rows)[0], header.width, count))
    default = tf.where(tf.equal(header.bits, 16), tf.constant(_MASKS[16], tf.int64), tf.constant(_MASKS[32], tf.int64))
    return _channels(pixels, count, tf.where(tf.equal(header.compression, _PLAIN), default, _declared(header)))


def _declared(header: _Header) -> Tensor:
    """Return the header's masks as unsigned numbers, int64 (4,); alpha's mask is 0 if there is none."""
    masks = tf.cast(header.masks, tf.int64) % 2**32  # pyright: ignore[reportOperatorIssue]  (the stubs lack %)
    alpha = (header.length >= 56) | tf.equal(header.compression, _MASKED_WITH_ALPHA)
    alpha &= tf.bitwise.bitwise_and(masks[3], masks[3] - 1) > 0  # Pillow ignores an alpha of one bit, which is often 0
    return tf.where(alpha, masks, masks * [1, 1, 1, 0])


def _channels(pixels: Tensor, count: Tensor, masks: Tensor) -> Tensor:
    """Return uint8 RGBA of pixels (height, width, bytes): the bits of each mask, scaled to 0..255."""
    number = tf.bitcast(tf.pad(pixels, [(0, 0), (0, 0), (0, 4 - count)]), tf.uint32)
    lowest = tf.cast(tf.maximum(tf.bitwise.bitwise_and(masks, -masks), 1), tf.uint32)
    selected = tf.bitwise.bitwise_and(number[..., None], tf.cast(masks, tf.uint32)) // lowest
    largest = tf.cast(masks, tf.float64) / tf.cast(lowest, tf.float64)
    scaled = tf.round(tf.cast(selected, tf.float64) * 255 / tf.maximum(largest, 1))
    missing = tf.constant([0, 0, 0, 255], tf.uint8)  # a colour without a mask is 0, and alpha without a mask is opaque
    return tf.where(masks > 0, tf.cast(scaled, tf.uint8), missing)
