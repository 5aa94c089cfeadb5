"""Encoded bytes → upright RGB pixels, in TensorFlow operations only, so that a SavedModel does the same."""

import tensorflow as tf

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
)


def file_kind(content: bytes) -> str:
    """ "jpeg", "png", "gif", "bmp" or "webp" by the first bytes; empty for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if content.startswith(magic)), "")


def _starts(content, magic: bytes):
    return tf.equal(tf.strings.substr(content, 0, len(magic)), magic)


def decode(content) -> tf.Tensor:
    """uint8 RGB (height, width, 3) of JPEG, PNG, BMP, GIF (first frame) or WebP bytes.

    Grey is repeated, alpha is composed over white, 16-bit is scaled to 8, EXIF orientations 1-8 are applied.

    Raises: tf.errors.InvalidArgumentError for bytes that are damaged or no image.
    """
    content = tf.convert_to_tensor(content)
    webp = tf.strings.regex_full_match(tf.strings.substr(content, 0, 12), r"(?s)RIFF....WEBP")
    branches = [
        (_starts(content, b"\xff\xd8\xff"), lambda: _decode_jpeg(content)),
        (_starts(content, b"\x89PNG\r\n\x1a\n"), lambda: _decode_png(content)),
        (webp, lambda: _over_white(tf.image.decode_webp(content, channels=4)[0])),
        (_starts(content, b"GIF8"), lambda: tf.io.decode_gif(content)[0]),
    ]
    image = tf.case(branches, default=lambda: _decode_bmp(content), exclusive=True)
    image.set_shape((None, None, 3))
    return image


def _decode_jpeg(content):
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return upright(image, exif_orientation(content))


def _decode_png(content):
    deep = tf.equal(tf.strings.substr(content, 24, 1), b"\x10")
    return _over_white(
        tf.cond(
            deep,
            lambda: tf.cast((tf.cast(tf.io.decode_png(content, 4, tf.uint16), tf.int32) + 128) // 257, tf.uint8),
            lambda: tf.io.decode_png(content, 4),
        )
    )


def _decode_bmp(content):
    image = tf.io.decode_bmp(content)
    return tf.case(
        [
            (tf.equal(tf.shape(image)[2], 1), lambda: tf.image.grayscale_to_rgb(image)),
            (tf.equal(tf.shape(image)[2], 4), lambda: image[..., :3]),
        ],
        default=lambda: image,
    )


def _over_white(rgba):
    """RGBA uint8 → RGB, transparent pixels white."""
    alpha = tf.cast(rgba[..., 3:], tf.int32)
    mixed = tf.cast(rgba[..., :3], tf.int32) * alpha + 255 * (255 - alpha)
    return tf.cast((mixed + 127) // 255, tf.uint8)


def exif_orientation(content) -> tf.Tensor:
    """The EXIF orientation 1-8 of JPEG bytes as an int32 scalar; 1 where there is none.

    Looks in the first 4 KiB, where cameras write IFD0, for "Exif" and then for a TIFF entry of tag 0x0112, type
    SHORT, count 1, in either byte order; a thumbnail's own entry comes later and is not the first.
    """
    data = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, 4096), tf.uint8), tf.int32)
    windows = tf.signal.frame(data, 10, 1)
    exif = tf.reduce_any(tf.reduce_all(windows[:, :6] == [0x45, 0x78, 0x69, 0x66, 0, 0], 1))
    little = tf.reduce_all(windows[:, :8] == [0x12, 0x01, 0x03, 0, 0x01, 0, 0, 0], 1)
    big = tf.reduce_all(windows[:, :8] == [0x01, 0x12, 0, 0x03, 0, 0, 0, 0x01], 1)
    value = tf.where(little, windows[:, 8], tf.where(big, windows[:, 9], 0))
    value = tf.concat([tf.boolean_mask(value, (value >= 1) & (value <= 8)), [1]], 0)
    return tf.where(exif, value[0], 1)


def upright(image, orientation) -> tf.Tensor:
    """Undo an EXIF orientation: 2-4 mirror and turn by 180°, 5-8 are those transposed."""
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
