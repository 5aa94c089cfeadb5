"""Decoded images kept on disk, so that later epochs never decode again."""

import math
import shutil
import tempfile
from dataclasses import dataclass, field

import tensorflow as tf

from augment.decode import decode, decode_jpeg_region, exif_orientation, is_jpeg, jpeg_size, rarely, upright
from augment.policy import Policy
from augment.region import Opened, shrink

_FAR = 2**31  # a size is one number in a table: height · 2^31 + width


@dataclass(eq=False)
class Cache:
    """Raw pixels of every image, one file each in a temporary folder that lives as long as the pipeline.

    They are kept on disk and not in memory because the operating system's page cache is a memory cache that gives way
    when memory is short. An image is stored shrunk by the power of two at which its smallest crop still has the
    output's resolution: 12 megapixels take 0.75 MB for crops of 224 pixels from a short side of 256 to 480.

    limit:     bytes, at most 90 % of what the disk has free; the first image beyond raises an error with the figure.
    directory: where the temporary folder is made; default: the system's.
    """

    limit: int = 2**35
    directory: str | None = None
    _folder: tempfile.TemporaryDirectory = field(init=False, repr=False)

    def __post_init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="augment-", dir=self.directory)
        self.limit = min(self.limit, int(0.9 * shutil.disk_usage(self._folder.name).free))
        self._sizes = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, default_value=-1)
        with tf.device("CPU:0"):
            self._total = tf.Variable(0, dtype=tf.int64, trainable=False)

    def open(self, content, index, policy: Policy) -> Opened:
        """The image of example `index`, with the path to its pixels for content; decoded at its first use only."""
        path = tf.strings.join([self._folder.name, "/", tf.strings.as_string(index)])

        def store(content, index, path):
            image = decode_for(content, policy)
            packed, shape = tf.io.serialize_tensor(image), tf.shape(image, tf.int64)
            size = shape[0] * _FAR + shape[1]
            count = self._total.assign_add(tf.cast(tf.strings.length(packed), tf.int64))
            with tf.control_dependencies([count, tf.io.write_file(path, packed)]):
                inserted = self._sizes.insert(index, size)
            with tf.control_dependencies([inserted]):
                return tf.identity(size)

        known = tf.ensure_shape(self._sizes.lookup(index), ())
        size = tf.cond(known < 0, lambda: rarely(store, content, index, path), lambda: known)
        return Opened(tf.constant(False), path, tf.cast([size // _FAR, size % _FAR], tf.int32), tf.constant(1))

    @staticmethod
    def unpack(path) -> tf.Tensor:
        """uint8 (height, width, 3) of the content of an opened image."""
        return tf.io.parse_tensor(tf.io.read_file(path), tf.uint8)

    def check(self):
        """Raises: tf.errors.InvalidArgumentError with the figures, once the limit is exceeded."""
        tf.debugging.assert_less_equal(
            self._total.read_value(),
            tf.constant(self.limit, tf.int64),
            f"the decoded images exceed the cache's limit of {self.limit:,} bytes; raise it with "
            "cache=augment.Cache(limit=…), or leave the cache out",
        )


def coarsest(policy: Policy, height, width) -> tf.Tensor:
    """The largest power of two, at most 8, at which the smallest crop of an image still is as fine as the output."""
    short, area = tf.minimum(height, width), height * width
    if policy.area:
        narrow = min(math.sqrt(policy.aspect[0]), 1 / math.sqrt(policy.aspect[1]))
        spare = tf.sqrt(policy.area[0] * area) * narrow / policy.size
    else:
        spare = short / policy.short_side[1]
    octave = tf.floor(tf.math.log(tf.maximum(spare, 1)) / math.log(2) + 1e-4)
    return tf.pow(2, tf.cast(tf.minimum(octave, 3), tf.int32))


def decode_for(content, policy: Policy) -> tf.Tensor:
    """Upright uint8 RGB of encoded bytes, no finer than any crop of `policy` needs."""

    def jpeg(content):
        height, width = tf.unstack(jpeg_size(content))
        factor = coarsest(policy, tf.cast(height, tf.float32), tf.cast(width, tf.float32))
        window = tf.stack([0, 0, height // factor, width // factor])
        return upright(decode_jpeg_region(content, window, factor), exif_orientation(content))

    def other(content):
        image = decode(content)
        shape = tf.shape(image)
        factor = coarsest(policy, tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32))
        size = shape[:2] // factor
        return shrink(image[: size[0] * factor, : size[1] * factor], factor, size)

    return tf.cond(is_jpeg(content), lambda: jpeg(content), lambda: rarely(other, content))
