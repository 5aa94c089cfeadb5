"""Cache decoded images on disk, so that later epochs decode nothing."""

import math
import shutil
import tempfile
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from .antialias import shrink
from .decode import as_node, decode_jpeg_region, rarely, upright
from .policy import Policy
from .region import Opened, open_image, unpack
from .tensors import Tensor

_COLUMNS = 5  # columns of the table: file number, height, width, EXIF orientation, factor by which the image is shrunk


@dataclass(eq=False)
class Cache:
    """Store each image's raw pixels in a file of a temporary folder that exists as long as the pipeline.

    The pixels are on disk, because the operating system's page cache already is a memory cache that shrinks when memory
    is short. An image is shrunk by a power of two before it is stored, so that its smallest crop still has twice the
    output's resolution. For example, 12 megapixels take 3 MB for crops of 224 pixels from a short side of 256 to 480.

    An image is identified by a 64-bit hash of its encoded bytes, not by its position in the dataset. So a stream may be
    reshuffled, and several pipelines may share one cache. Images that are not shrunk have exactly the same pixels as
    without a cache. Crops that are coarser than the stored image differ a little, because their pixels are averaged in
    two steps.

    Args:
        limit: maximum bytes, at most 90 % of the free disk space; the first image beyond this limit raises an error.
        directory: parent of the temporary folder; default: the system's.
    """

    limit: int = 2**35
    directory: str | None = None
    _folder: tempfile.TemporaryDirectory = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="augment-", dir=self.directory)
        room = int(0.9 * shutil.disk_usage(self._folder.name).free)
        self._by_disk = room < self.limit
        self.limit = min(self.limit, room)
        self._known = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, default_value=[-1] * _COLUMNS)
        with tf.device("CPU:0"):
            zero: Any = 0  # TensorFlow's stubs only take tensors
            self._total = tf.Variable(zero, dtype=tf.int64, trainable=False)
            self._numbers = tf.random.Generator.from_non_deterministic_state()

    def open(self, content: Tensor, policy: Policy) -> Opened:
        """Return the opened image of encoded bytes, whose content is the path of its pixels; decode it at first use."""
        length = tf.strings.as_string(tf.strings.length(content))
        hashed = tf.strings.as_string(tf.strings.to_hash_bucket_fast(content, 2**63 - 1))
        image = tf.strings.join([hashed, length], "-")
        key = tf.strings.join([image, _fineness(policy)])
        entry = tf.ensure_shape(self._known.lookup(key), (_COLUMNS,))

        def store(content: Tensor, image: Tensor, key: Tensor) -> Tensor:
            entry = self._stored(content, image, policy)
            with tf.control_dependencies([self._known.insert(key, entry)]):
                return tf.identity(entry)

        entry = tf.cond(entry[0] < 0, lambda: as_node(store)(content, image, key), lambda: entry)
        number, facts = entry[0], tf.cast(entry[1:], tf.int32)
        return Opened(tf.constant(False), self._path(number), facts[:2], facts[2], facts[3])

    def _stored(self, content: Tensor, image: Tensor, policy: Policy) -> Tensor:
        """Return the entry of an image, which another policy may already have stored at the same resolution."""
        pixels, opened, factor = _as_fine_as_needed(content, policy)
        key = tf.strings.join([image, tf.strings.as_string(factor)], " 1/")
        entry = tf.ensure_shape(self._known.lookup(key), (_COLUMNS,))

        def write() -> Tensor:
            packed = tf.io.serialize_tensor(pixels)
            total = self._total.assign_add(tf.cast(tf.strings.length(packed), tf.int64))
            # Every file has a separate number, because two threads may store the same picture at the same time.
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

    def _path(self, number: Tensor) -> Tensor:
        return tf.strings.join([self._folder.name, "/", tf.strings.as_string(number)])

    def _refusal(self) -> str:
        disk = f", 90 % of the free space on the disk of {self._folder.name}" if self._by_disk else ""
        remedy = "choose another disk with `directory=`" if disk else "raise it with `limit=`"
        return (
            f"the decoded images exceed the cache's limit of {self.limit:,} bytes{disk}; {remedy} of augment.Cache, or "
            "use no cache"
        )

    @staticmethod
    def unpack(path: Tensor) -> Tensor:
        """Return the pixels uint8 (height, width, 3) from the content of an opened image."""
        return tf.io.parse_tensor(tf.io.read_file(path), tf.uint8)


def _fineness(policy: Policy) -> str:
    """Return, as text, everything except the image on which `coarsest` depends."""
    crop = (policy.area[0], *policy.aspect) if policy.area else (_largest_side(policy),)
    return f" {(policy.size, *crop, *policy.range('stretch'))}"


def coarsest(policy: Policy, height: Tensor, width: Tensor) -> Tensor:
    """Return the largest power of two, at most 8, at which an image's smallest crop is twice as fine as the output.

    With half of this resolution, a difference would be visible, because too few pixels would be left to filter.
    """
    short, area = tf.minimum(height, width), height * width
    if policy.area:
        narrow = min(math.sqrt(policy.aspect[0]), 1 / math.sqrt(policy.aspect[1]))
        spare = tf.minimum(tf.sqrt(policy.area[0] * area) * narrow, short) / policy.size
    else:
        spare = short / _largest_side(policy)
    spare /= 2 * 2 ** (max(map(abs, policy.range("stretch"))) / 2)
    octave = tf.floor(tf.math.log(tf.maximum(spare, 1)) / math.log(2) + 1e-4)
    return tf.pow(2, tf.cast(tf.minimum(octave, 3), tf.int32))


def _largest_side(policy: Policy) -> float:
    assert policy.short_side is not None  # every policy has a short side or an area
    return policy.short_side[1]


def _as_fine_as_needed(content: Tensor, policy: Policy) -> tuple[Tensor, Opened, Tensor]:
    """Return uint8 RGB in the stored orientation, shrunk by a factor; also return the opened image and the factor."""
    opened = open_image(content)
    height, width = tf.unstack(tf.cast(opened.size, tf.float32))
    factor = coarsest(policy, height, width)
    size = opened.size // factor

    def jpeg() -> Tensor:
        return decode_jpeg_region(opened.content, tf.concat([[0, 0], size], 0), factor)

    return tf.cond(opened.jpeg, jpeg, lambda: rarely(_shrunk, opened.content, factor, size)), opened, factor


def _shrunk(content: Tensor, factor: Tensor, size: Any) -> Tensor:
    image = unpack(content, tf.uint8)
    return shrink(image[: size[0] * factor, : size[1] * factor], factor, size)


def decode_for(content: Tensor, policy: Policy) -> Tensor:
    """Return upright uint8 RGB of encoded bytes, at most as fine as the crops of `policy` need."""
    pixels, opened, _ = _as_fine_as_needed(content, policy)
    pixels.set_shape((None, None, 3))
    return upright(pixels, opened.orientation)
