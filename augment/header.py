"""Read single bytes and numbers of encoded images in TensorFlow operations."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .tensors import Tensor

NOT_SUPPORTED = "format not supported: "  # prefix of the errors for files that may be sound but are not supported
_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
)


def file_kind(content: bytes) -> str:
    """Return "jpeg", "png", "gif", "bmp" or "webp", found by the first bytes; empty for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), "")


def starts(content: Tensor, magic: bytes) -> Tensor:
    """Return whether encoded bytes begin with `magic`."""
    return tf.equal(tf.strings.substr(content, 0, len(magic)), magic)


def bytes_at(content: Tensor, at: Tensor, count: Tensor) -> Tensor:
    """Return `count` bytes from position `at` as uint8; zeros past the end."""
    # TensorFlow's error for a position past the end quotes the content, which Python may be unable to decode.
    piece = tf.strings.substr(content, tf.clip_by_value(at, 0, tf.strings.length(content)), count)
    return tf.io.decode_raw(piece, tf.uint8, fixed_length=count)


def file_bytes(content: Tensor) -> Tensor:
    """Return all bytes of a file as uint8, followed by 1024 zeros, so that reading past the end causes no error."""
    return tf.concat([tf.io.decode_raw(content, tf.uint8), tf.zeros(1024, tf.uint8)], 0)


def is_jpeg(content: Tensor) -> Tensor:
    """Return whether bytes begin as JPEG files do."""
    return starts(content, b"\xff\xd8\xff")


def is_png(content: Tensor) -> Tensor:
    """Return whether bytes begin as PNG files do."""
    return starts(content, b"\x89PNG\r\n\x1a\n")


def is_gif(content: Tensor) -> Tensor:
    """Return whether bytes begin as GIF files do."""
    return tf.strings.regex_full_match(tf.strings.substr(content, 0, 6), "GIF8[79]a")


def is_webp(content: Tensor) -> Tensor:
    """Return whether bytes begin as WebP files do."""
    return tf.strings.regex_full_match(tf.strings.substr(content, 0, 12), r"RIFF\C{4}WEBP")


def on_bytes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` of one encoded image as a graph node that is traced once, even for eager calls."""
    return tf.function(
        function,
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def checked(content: Tensor, is_right: Tensor, message: Any) -> Tensor:
    """Return `content` after checking a condition on it.

    Raises:
        tf.errors.InvalidArgumentError: If the condition is false; the text is `message`.
    """
    with tf.control_dependencies([tf.debugging.Assert(is_right, [message])]):
        return tf.identity(content)
