"""Decoded images kept on disk, so that later epochs never decode again."""

import math
import shutil
import tempfile
from dataclasses import dataclass, field

import tensorflow as tf

from .antialias import shrink
from .decode import as_node, decode_jpeg_region, rarely, upright
from .policy import Policy
from .region import Opened, open_image, unpack

_COLUMNS = 5  # of the table: file number, height, width, EXIF orientation, factor by which it is shrunk


@dataclass(eq=False)
class Cache:
    """Raw pixels of every image, one file each in a temporary folder that lives as long as the pipeline.

    They are kept on disk and not in memory because the operating system's page cache is a memory cache that gives way
    when memory is short. An image is stored shrunk by the power of two at which its smallest crop still has twice the
    output's resolution: 12 megapixels take 3 MB for crops of 224 pixels from a short side of 256 to 480.

    What is known of an image is found by a 64-bit hash of its encoded bytes, not by its place in the dataset: a stream
    may reshuffle itself, and several pipelines may share one cache. Images that are not shrunk give the very pixels
    that they give without a cache. Crops that are coarser than what is stored differ a little: their pixels are
    averaged in two steps.

    limit:     bytes, at most 90 % of what the disk has free; the first image beyond raises an error with the figure.
    directory: where the temporary folder is made; default: the system's.
    """

    limit: int = 2**35
    directory: str | None = None
    _folder: tempfile.TemporaryDirectory = field(init=False, repr=False)

    def __post_init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="augment-", dir=self.directory)
        room = int(0.9 * shutil.disk_usage(self._folder.name).free)
        self._by_disk = room < self.limit
        self.limit = min(self.limit, room)
        self._known = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, default_value=[-1] * _COLUMNS)
        with tf.device("CPU:0"):
            self._total = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._numbers = tf.random.Generator.from_non_deterministic_state()

    def open(self, content, policy: Policy) -> Opened:
        """The image of encoded bytes, with the path to its pixels for content; decoded at its first use only."""
        length = tf.strings.as_string(tf.strings.length(content))
        hashed = tf.strings.as_string(tf.strings.to_hash_bucket_fast(content, 2**63 - 1))
        image = tf.strings.join([hashed, length], "-")
        key = tf.strings.join([image, _fineness(policy)])
        entry = tf.ensure_shape(self._known.lookup(key), (_COLUMNS,))

        def store(content, image, key):
            entry = self._stored(content, image, policy)
            with tf.control_dependencies([self._known.insert(key, entry)]):
                return tf.identity(entry)

        entry = tf.cond(entry[0] < 0, lambda: as_node(store)(content, image, key), lambda: entry)
        number, facts = entry[0], tf.cast(entry[1:], tf.int32)
        return Opened(tf.constant(False), self._path(number), facts[:2], facts[2], facts[3])

    def _stored(self, content, image, policy):
        """The entry of an image that another policy may have stored at the same fineness already."""
        pixels, opened, factor = _as_fine_as_needed(content, policy)
        key = tf.strings.join([image, tf.strings.as_string(factor)], " 1/")
        entry = tf.ensure_shape(self._known.lookup(key), (_COLUMNS,))

        def write():
            packed = tf.io.serialize_tensor(pixels)
            total = self._total.assign_add(tf.cast(tf.strings.length(packed), tf.int64))
            # Every file has a number of its own, for two threads may store one picture at once.
            number = self._numbers.uniform((), maxval=2**63 - 1, dtype=tf.int64)
            with tf.control_dependencies([tf.debugging.Assert(total <= self.limit, [self._refusal()])]):
                written = tf.io.write_file(self._path(number), packed)
            fresh = tf.concat(
                [number[None], tf.cast([*tf.unstack(opened.size), opened.orientation, factor], tf.int64)], 0
            )
            with tf.control_dependencies([written]):
                inserted = self._known.insert(key, fresh)
            with tf.control_dependencies([inserted]):
                return tf.identity(fresh)

        return tf.cond(entry[0] < 0, write, lambda: entry)

    def _path(self, number):
        return tf.strings.join([self._folder.name, "/", tf.strings.as_string(number)])

    def _refusal(self) -> str:
        disk = f", 90 % of what the disk of {self._folder.name} had free" if self._by_disk else ""
        mend = (
            "choose another disk with cache=augment.Cache(directory=…)"
            if disk
            else "raise it with cache=augment.Cache(limit=…)"
        )
        return (
            f"the decoded images exceed the cache's limit of {self.limit:,} bytes{disk}; {mend}, or leave the cache out"
        )

    @staticmethod
    def unpack(path) -> tf.Tensor:
        """uint8 (height, width, 3) of the content of an opened image."""
        return tf.io.parse_tensor(tf.io.read_file(path), tf.uint8)


def _fineness(policy: Policy) -> str:
    """All that `coarsest` depends on beside the image."""
    crop = (policy.short_side[1],) if policy.short_side else (policy.area[0], *policy.aspect)
    return f" {(policy.size, *crop, *policy.range('stretch'))}"


def coarsest(policy: Policy, height, width) -> tf.Tensor:
    """Return the largest power of two, at most 8, at which an image's smallest crop is twice as fine as the output.

    Half of that shrinking would show: what is left to the sampler would be too little to filter.
    """
    short, area = tf.minimum(height, width), height * width
    if policy.area:
        narrow = min(math.sqrt(policy.aspect[0]), 1 / math.sqrt(policy.aspect[1]))
        spare = tf.minimum(tf.sqrt(policy.area[0] * area) * narrow, short) / policy.size
    else:
        spare = short / policy.short_side[1]
    spare /= 2 * 2 ** (max(map(abs, policy.range("stretch"))) / 2)
    octave = tf.floor(tf.math.log(tf.maximum(spare, 1)) / math.log(2) + 1e-4)
    return tf.pow(2, tf.cast(tf.minimum(octave, 3), tf.int32))


def _as_fine_as_needed(content, policy):
    """uint8 RGB as stored, shrunk by a factor; the opened image; the factor."""
    opened = open_image(content)
    height, width = tf.unstack(tf.cast(opened.size, tf.float32))
    factor = coarsest(policy, height, width)
    size = opened.size // factor

    def jpeg():
        return decode_jpeg_region(opened.content, tf.concat([[0, 0], size], 0), factor)

    return tf.cond(opened.jpeg, jpeg, lambda: rarely(_shrunk, opened.content, factor, size)), opened, factor


def _shrunk(content, factor, size):
    image = unpack(content, tf.uint8)
    return shrink(image[: size[0] * factor, : size[1] * factor], factor, size)


def decode_for(content, policy: Policy) -> tf.Tensor:
    """Upright uint8 RGB of encoded bytes, no finer than any crop of `policy` needs."""
    pixels, opened, _ = _as_fine_as_needed(content, policy)
    pixels.set_shape((None, None, 3))
    return upright(pixels, opened.orientation)
