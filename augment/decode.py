"""Encoded bytes → upright RGB pixels, in TensorFlow operations only, so that a SavedModel does the same."""

from functools import lru_cache

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

    Grey is repeated, alpha is composed over white, 16-bit is scaled to 8, EXIF orientations 1-8 are applied. The one
    colour that a GIF, or a PNG without palette (tRNS), declares transparent is not white but as TensorFlow gives it:
    black in a GIF, that colour itself in a PNG.

    Raises: tf.errors.InvalidArgumentError for bytes that are damaged or no image.
    """
    content = tf.convert_to_tensor(content)
    image = tf.cond(is_jpeg(content), lambda: _decode_jpeg(content), lambda: decode_other(content))
    image.set_shape((None, None, 3))
    return image


def decode_other(content) -> tf.Tensor:
    """`decode` for all that is not JPEG."""
    webp = tf.strings.regex_full_match(tf.strings.substr(content, 0, 12), r"RIFF\C{4}WEBP")
    branches = [
        (is_png(content), lambda: upright(decode_png(content), png_orientation(content))),
        (webp, lambda: _upright_webp(content)),
        (_starts(content, b"GIF8"), lambda: tf.io.decode_gif(content)[0]),
    ]
    return tf.case(branches, default=lambda: _decode_bmp(content), exclusive=True)


def _decode_jpeg(content):
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return upright(image, exif_orientation(content))


def decode_png(content) -> tf.Tensor:
    """uint8 RGB of PNG bytes as stored, without regard to its orientation."""
    # Asked for 4 channels, TensorFlow invents the alpha of palettes without one; 0 means as many as there are.
    deep = tf.equal(_bytes(content, 24, 1)[0], 16)
    return _three_channels(
        tf.cond(
            deep,
            lambda: tf.cast((tf.cast(tf.io.decode_png(content, 0, tf.uint16), tf.int32) + 128) // 257, tf.uint8),
            lambda: tf.io.decode_png(content, 0),
        )
    )


def _upright_webp(content):
    orientation = _orientation_after(content, r"EXIF\C{4}(?:Exif\x00\x00)?")
    return upright(_decode_webp(content), orientation)


def _decode_webp(content):
    flags = _little_endian(content, 20, 1)
    animated = _starts(tf.strings.substr(content, 12, 4), b"VP8X") & tf.equal(tf.bitwise.bitwise_and(flags, 2), 2)
    # TensorFlow 2.21 corrupts memory on animations.
    with tf.control_dependencies([tf.debugging.Assert(~animated, ["animated WebP is not supported"])]):
        return _three_channels(tf.image.decode_webp(tf.identity(content), channels=0)[0])


def _decode_bmp(content):
    with tf.control_dependencies(
        [tf.debugging.Assert(_starts(content, b"BM"), ["no JPEG, PNG, GIF, BMP or WebP image"])]
    ):
        content = tf.identity(content)
    palette = tf.equal(_little_endian(content, 28, 2), 8)
    return tf.cond(
        palette, lambda: _with_palette(content), lambda: _three_channels(tf.io.decode_bmp(content), bmp=True)
    )


def _with_palette(content):
    """TensorFlow gives the indices of 8-bit BMPs; the palette of (blue, green, red, 0) follows the header."""
    colours = tf.reshape(_bytes(content, 14 + _little_endian(content, 14, 4), 4 * 256), (256, 4))[:, 2::-1]
    return tf.gather(colours, tf.cast(tf.io.decode_bmp(content)[..., 0], tf.int32))


def _little_endian(content, at: int, count: int):
    """The unsigned integer in `count` bytes from position `at`."""
    return tf.reduce_sum(tf.cast(_bytes(content, at, count), tf.int32) * [256**i for i in range(count)])


def _bytes(content, at, count: int):
    """`count` bytes from position `at`; zeros past the end."""
    # What TensorFlow says of a position past the end quotes the content, which Python may be unable to decode.
    piece = tf.strings.substr(content, tf.clip_by_value(at, 0, tf.strings.length(content)), count)
    return tf.io.decode_raw(piece, tf.uint8, fixed_length=count)


def _three_channels(image, bmp: bool = False):
    """RGB of grey, grey and alpha, RGB or RGBA; the fourth byte of a BMP is no alpha."""
    channels = tf.shape(image)[2]
    return tf.case(
        [
            (tf.equal(channels, 1), lambda: tf.tile(image, (1, 1, 3))),
            (tf.equal(channels, 2), lambda: over_white(tf.gather(image, [0, 0, 0, 1], axis=2))),
            (tf.equal(channels, 4), lambda: image[..., :3] if bmp else over_white(image)),
        ],
        default=lambda: image,
    )


def over_white(rgba):
    """RGBA uint8 → RGB, transparent pixels white."""
    alpha = tf.cast(rgba[..., 3:], tf.int32)
    mixed = tf.cast(rgba[..., :3], tf.int32) * alpha + 255 * (255 - alpha)
    return tf.cast((mixed + 127) // 255, tf.uint8)


def rarely(function, *tensors):
    """`function(*tensors)` as one node of the graph, so that where its branch is not taken it costs nothing.

    Tracing is most of what it takes to begin a pipeline: it is done once for every function, which is therefore kept.
    """
    return function(*tensors) if tf.executing_eagerly() else _kept_node(function)(*tensors)


def as_node(function):
    """`function` as one node of the graphs that call it."""
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


_kept_node = lru_cache(maxsize=64)(as_node)


def is_jpeg(content) -> tf.Tensor:
    """Whether bytes begin as JPEG files do."""
    return _starts(content, b"\xff\xd8\xff")


def is_png(content) -> tf.Tensor:
    """Whether bytes begin as PNG files do."""
    return _starts(content, b"\x89PNG\r\n\x1a\n")


def png_size(content) -> tf.Tensor:
    """int32 (height, width) of PNG bytes as stored, read from the header."""
    digits = _bytes(content, 16, 8)
    width, height = tf.unstack(
        tf.reduce_sum(tf.reshape(tf.cast(digits, tf.int32), (2, 4)) * [2**24, 2**16, 2**8, 1], 1)
    )
    return tf.stack([height, width])


def png_orientation(content) -> tf.Tensor:
    """The orientation 1-8 in the eXIf chunk of PNG bytes as an int32 scalar; 1 where there is none."""
    return _orientation_after(content, "eXIf")


def jpeg_size(content) -> tf.Tensor:
    """int32 (height, width) of JPEG bytes as stored, read from the header."""
    return tf.image.extract_jpeg_shape(content)[:2]


def decode_jpeg_region(content, window, scale) -> tf.Tensor:
    """uint8 RGB of the window (top, left, height, width) of the stored JPEG image shrunk by `scale`.

    window: int32 (4,) in pixels of the shrunk image.
    scale:  int32 scalar, 1, 2, 4 or 8: the discrete cosine transform is inverted at that fraction of the resolution,
            which is a good antialiasing filter and costs less than the full one.
    """

    def at(ratio):
        return lambda: tf.raw_ops.DecodeAndCropJpeg(
            contents=content, crop_window=window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    return tf.switch_case(
        tf.cast(scale > 1, tf.int32) + tf.cast(scale > 2, tf.int32) + tf.cast(scale > 4, tf.int32),
        [at(1), at(2), at(4), at(8)],
    )


def exif_orientation(content) -> tf.Tensor:
    """The EXIF orientation 1-8 of JPEG bytes as an int32 scalar; 1 where there is none.

    Reads the first image file directory of the TIFF block after "Exif", within the first 32 KiB of the file, where
    cameras and Photoshop write it (CIPA DC-008, "Exchangeable image file format").
    """
    return _orientation_after(tf.strings.substr(content, 0, 32768), r"Exif\x00\x00")


def _orientation_after(content, mark: str) -> tf.Tensor:
    """The orientation in the TIFF block after the first match of a pattern; 1 where there is none."""
    mark += r"(MM\x00\*|II\*\x00)"
    # A pattern that begins with letters is searched at the speed of memchr, one that begins with \C* at a twentieth.
    without = tf.strings.regex_replace(content, mark, "", replace_global=False)
    found = tf.strings.length(without) < tf.strings.length(content)
    return tf.cond(found, lambda: rarely(_orientation_at(mark), content), lambda: tf.constant(1))


@lru_cache(maxsize=8)
def _orientation_at(mark: str):
    def read(content):
        tiff = tf.strings.regex_replace(content, rf"^\C*?{mark}", r"\1", replace_global=False)
        return _first_directory_orientation(tf.strings.substr(tiff, 0, 4096))

    return read


def _first_directory_orientation(tiff):
    data = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int32)
    data = tf.concat([data, tf.zeros(16, tf.int32)], 0)
    big = tf.equal(data[0], ord("M"))

    def number(at, count):
        """The unsigned integer in `count` bytes from every position in `at`; 0 past the end."""
        at = tf.minimum(at[..., None] + tf.range(count), tf.size(data) - 1)
        weight = tf.where(big, tf.range(count)[::-1], tf.range(count))
        return tf.reduce_sum(tf.gather(data, at) * tf.bitwise.left_shift(1, 8 * weight), -1)

    directory = tf.clip_by_value(number(tf.constant(4), 4), 0, 4096)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 340))
    value = tf.where(number(entries, 2) == 0x0112, number(entries + 8, 2), 0)
    value = tf.reduce_max(tf.concat([value, [0]], 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


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
