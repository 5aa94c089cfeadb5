"""Name image formats and variants that `decode` does not read, although the file may be sound."""

import tensorflow as tf

from .bmp import bmp_variant
from .gif import gif_variant
from .header import bytes_at, file_bytes, is_gif, is_jpeg, is_webp, on_bytes, starts
from .signatures import foreign_format
from .tensors import Tensor

_NO_SEGMENT = (0x00, 0x01, *range(0xD0, 0xD8))  # markers without a length
_SCAN = 0xDA
_JPEG_LS = 0xF7  # frame marker of JPEG-LS (ITU T.87)
_TABLES = (0xC4, 0xC8, 0xCC)  # markers in the range of frame markers that do not begin a frame
# markers of the frames that libjpeg-turbo reads: baseline, progressive, arithmetic coding
_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)


@on_bytes
def unsupported(content: Tensor) -> tf.Tensor:
    """Return the name of an unsupported format or variant as a string scalar; empty if the bytes can be read.

    Unsupported are animated WebP, compressed BMP, lossless, hierarchical and 12-bit JPEG, JPEG-LS, and the formats of
    `signatures.SIGNATURES`, such as TIFF and HEIC. Damaged files of a supported format return an empty name.

    >>> augment.unsupported(animation)
    <tf.Tensor: shape=(), dtype=string, numpy=b'animated WebP'>
    """
    branches = [
        (is_jpeg(content), lambda: _jpeg_variant(content)),
        (is_webp(content), lambda: webp_variant(content)),
        (is_gif(content), lambda: gif_variant(content)),
        (starts(content, b"BM"), lambda: bmp_variant(content)),
    ]
    return tf.case(branches, default=lambda: foreign_format(content))


def webp_variant(content: Tensor) -> tf.Tensor:
    """Return the name of an unsupported WebP variant: TensorFlow 2.21 corrupts memory on animations.

    Animations set bit 1 of the flags of the extended format (Google, "WebP Container Specification").
    """
    head = bytes_at(content, 12, 9)
    animated = tf.reduce_all(tf.equal(head[:4], list(b"VP8X"))) & tf.equal(head[8] // 2 % 2, 1)
    return tf.where(animated, "animated WebP", "")


def _jpeg_variant(content):
    """Return the name of an unsupported JPEG variant, found in the frame's header (ITU T.81, annex B)."""
    data = file_bytes(content)
    end = tf.strings.length(content)

    def is_frame(marker):
        return (marker >= 0xC0) & (marker <= 0xCF) & ~_is_in(marker, _TABLES) | tf.equal(marker, _JPEG_LS)

    def goes_on(at: Tensor) -> Tensor:
        found = tf.equal(data[at], 0xFF) & (is_frame(data[at + 1]) | tf.equal(data[at + 1], _SCAN))
        return (at < end) & ~found

    def step(at: Tensor) -> tuple[Tensor]:
        begin, marker, high, low = (tf.cast(data[at + i], tf.int32) for i in range(4))
        length = tf.where(_is_in(marker, _NO_SEGMENT), 2, 2 + 256 * high + low)
        forward = tf.where(tf.not_equal(begin, 0xFF) | tf.equal(marker, 0xFF), 1, length)
        return (tf.minimum(at + forward, end),)

    at = tf.while_loop(goes_on, step, (tf.constant(2),))[0]
    frame = is_frame(data[at + 1]) & (at < end)
    strange = frame & ~_is_in(data[at + 1], _READ)
    deep = frame & tf.not_equal(data[at + 4], 8)
    name = tf.where(strange, "lossless or hierarchical JPEG", tf.where(deep, "JPEG of 12 bits", ""))
    return tf.where(frame & tf.equal(data[at + 1], _JPEG_LS), "JPEG-LS", name)


def _is_in(marker: Tensor, markers: tuple[int, ...]) -> Tensor:
    return tf.reduce_any(tf.equal(marker, tf.constant(markers, marker.dtype)))
