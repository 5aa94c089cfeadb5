"""Decode the first frame of a GIF on its canvas, with white for transparent pixels, as browsers show it.

`tf.io.decode_gif` paints transparent pixels black and decodes all frames. This module cuts the first frame out into a
separate GIF, in whose palette the transparent colour is white (CompuServe, "GIF89a Specification", 1990).
"""

from typing import NamedTuple, cast

import tensorflow as tf

from .header import checked, file_bytes, on_bytes
from .tensors import Tensor

_LARGEST = 2**29  # maximum number of values of a decoded image, which is TensorFlow's bound
_EXTENSION, _FRAME, _END, _CONTROL = 0x21, 0x2C, 0x3B, 0xF9


class _Frame(NamedTuple):
    """Describe the first frame.

    Attributes:
        data: All bytes of the file, uint8, followed by zeros.
        at: Position of the frame's descriptor.
        transparent: Index of the transparent colour; -1 if there is none.
        box: (left, top, width, height) of the frame on the canvas.
        canvas: (height, width), large enough for the frame.
    """

    data: tf.Tensor
    at: tf.Tensor
    transparent: tf.Tensor
    box: tf.Tensor
    canvas: tf.Tensor


def _first_frame(content: Tensor) -> _Frame:
    """Skip the extension blocks, and return the description of the first frame."""
    data, end = file_bytes(content), tf.strings.length(content)

    def goes_on(at: Tensor, in_extension: Tensor, transparent: Tensor) -> Tensor:
        return (at < end) & (in_extension | ((data[at] != _FRAME) & (data[at] != _END)))

    def step(at: Tensor, in_extension: Tensor, transparent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        byte, label, flags, index = tf.unstack(tf.cast(tf.gather(data, tf.constant([0, 1, 3, 6]) + at), tf.int32))
        begins = ~in_extension & tf.equal(byte, _EXTENSION)
        # Other bytes between blocks are skipped, as Pillow does.
        forward = tf.where(in_extension, 1 + byte, tf.where(begins, 2, 1))
        declared = begins & tf.equal(label, _CONTROL)
        transparent = tf.where(declared, tf.where(tf.equal(flags % 2, 1), index, -1), transparent)
        return tf.minimum(at + forward, end), begins | (in_extension & (byte > 0)), transparent

    start = tf.minimum(13 + _palette_bytes(data[10]), end)
    at, _, transparent = tf.while_loop(goes_on, step, (start, tf.constant(False), tf.constant(-1)))
    box = tf.where(tf.equal(data[at], _FRAME), _numbers(data, at + 1, 4), 0)
    canvas = tf.maximum(_numbers(data, 6, 2), box[:2] + box[2:])[::-1]
    return _Frame(data, at, transparent, box, canvas)


def _numbers(data: Tensor, at: Tensor, count: int) -> Tensor:
    """Return `count` unsigned 16-bit numbers from position `at`."""
    pairs = tf.cast(tf.reshape(data[at : at + 2 * count], (count, 2)), tf.int32)
    return pairs[:, 0] + 256 * pairs[:, 1]


def _palette_bytes(flags: Tensor) -> Tensor:
    """Return the length of the palette that a flags byte declares."""
    flags = tf.cast(flags, tf.int32)
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)


@on_bytes
def gif_size(content: Tensor) -> tf.Tensor:
    """Return int32 (height, width) of GIF bytes: the canvas, enlarged if the first frame extends beyond it."""
    return _first_frame(content).canvas


def gif_variant(content: Tensor) -> tf.Tensor:
    """Return the name of the variant of GIF bytes that `decode_gif` does not read; empty for others."""
    data, at, *_ = _first_frame(content)
    bits = tf.cast(data[at + 10 + _palette_bytes(data[at + 9])], tf.int32)
    strange = tf.equal(data[at], _FRAME) & (bits > 8) & (bits <= 12)
    return tf.where(strange, "GIF with codes of more than 8 bits", "")


@on_bytes
def decode_gif(content: Tensor) -> tf.Tensor:
    """Return uint8 RGB (height, width, 3) of the first frame of GIF bytes.

    The rest of the canvas is white if the frame has a transparent colour, otherwise the first colour of its palette, as
    in Pillow.
    """
    frame = _first_frame(content)
    values = 3 * tf.reduce_prod(tf.cast(frame.canvas, tf.int64))
    sound = tf.reduce_all(frame.box[2:] > 0) & (values <= _LARGEST)
    content = checked(content, sound, "the GIF has no frame, or its frame is too large")
    picture, colour = _alone(content, frame)
    left, top, width, height = tf.unstack(frame.box)
    around = [[top, frame.canvas[0] - top - height], [left, frame.canvas[1] - left - width], [0, 0]]
    return tf.pad(picture - colour, around) + colour  # uint8 adds modulo 256


def _alone(content: Tensor, frame: _Frame) -> tuple[Tensor, Tensor]:
    """Return the pixels of the frame alone, and the colour of the rest of the canvas."""
    data, at = frame.data, frame.at
    own, common = _palette_bytes(data[at + 9]), _palette_bytes(data[10])
    place, length = tf.where(own > 0, at + 10, 13), tf.where(own > 0, own, common)
    grey = tf.repeat(tf.cast(tf.range(256), tf.uint8), 3)
    colours = tf.cond(length > 0, lambda: data[place : place + length], lambda: grey)
    palette = tf.reshape(tf.concat([colours, tf.zeros(768 - tf.size(colours), tf.uint8)], 0), (256, 3))
    clear = tf.equal(tf.range(256), frame.transparent)
    palette = tf.where(clear[:, None], tf.constant(255, tf.uint8), palette)
    sides = tf.strings.substr(content, at + 5, 4)
    flags = cast(Tensor, tf.cast(data[at + 9], tf.int32))  # TensorFlow's stubs lack %
    interlaced = tf.gather([b"\x87", b"\xc7"], flags // 64 % 2)
    pieces = [
        "GIF89a", sides, bytes(3), ",", bytes(4), sides, interlaced, _joined(palette),
        _blocks(content, data, at + 10 + own), b"\x00;",
    ]  # fmt: skip
    picture = tf.io.decode_gif(tf.strings.join(pieces))[0]
    return picture, tf.where(frame.transparent >= 0, tf.constant(255, tf.uint8), palette[0])


def _blocks(content: Tensor, data: Tensor, begin: Tensor) -> Tensor:
    """Return the compressed pixels from position `begin` without the empty block that ends them.

    A last block that is shorter than declared gets its true length, because it may still contain all pixels.
    """
    end = tf.strings.length(content)

    def is_whole(at: Tensor) -> Tensor:
        length = tf.cast(data[tf.minimum(at, end)], tf.int32)
        return (length > 0) & (at + 1 + length <= end)

    # Nearly all blocks have the length of the first one, and are skipped together.
    step = tf.cast(data[begin + 1], tf.int32) + 1
    alike = tf.equal(data[begin + 1 : end : step], data[begin + 1])
    count = tf.reduce_sum(tf.math.cumprod(tf.cast(alike, tf.int32)))
    start = begin + 1 + step * tf.maximum(count - 1, 0)
    stop = tf.while_loop(is_whole, lambda at: (at + 1 + tf.cast(data[at], tf.int32),), (start,))[0]
    rest = tf.where(data[tf.minimum(stop, end)] > 0, end - stop - 1, 0)
    last = tf.strings.join([_joined(tf.cast(rest[None], tf.uint8)), tf.strings.substr(content, end - rest, rest)])
    return tf.strings.join([_part(content, begin, stop - begin), tf.where(rest > 0, last, "")])


def _part(content: Tensor, at: Tensor, length: Tensor) -> Tensor:
    """Return `length` bytes from position `at`, or fewer at the end of the file."""
    return tf.strings.substr(content, tf.minimum(at, tf.strings.length(content)), tf.maximum(length, 0))


_CHARACTERS = [bytes([i]) for i in range(256)]


def _joined(values: Tensor) -> Tensor:
    """Return uint8 numbers as a string of bytes."""
    return tf.strings.reduce_join(tf.gather(_CHARACTERS, tf.cast(tf.reshape(values, (-1,)), tf.int32)))
