"""Read single records of the TFRecord files that `recipes pack` writes."""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
import tensorflow as tf

from recipes.errors import DataError

# names of the features in a tf.train.Example
IMAGE, LABEL, CLASS, NAME, DIGEST = "image", "label", "class", "name", "blake2b"
# bytes around a record's data: its length (8), the checksum of that number (4), the checksum of the data (4)
FRAME = 16
_HEAD = 12


def broken(path: str | Path, code: str, seen: str, **facts: object) -> DataError:
    """Return the error for an altered pack; `seen` is the predicate of its message."""
    message = f"{path} {seen}; copy the pack again, or pack the images again"
    return DataError(message, code=code, path=path, **facts)


def digest(image: bytes) -> bytes:
    """Return the BLAKE2b hash of an encoded image, 16 bytes."""
    return hashlib.blake2b(image, digest_size=16).digest()


def example(image: bytes, label: int, class_name: str, name: str) -> bytes:
    """Return a serialised tf.train.Example of an encoded image, with the same bytes at every call."""
    features = {
        IMAGE: [image], CLASS: [class_name.encode("utf-8", "surrogateescape")], NAME: [os.fsencode(name)],
        DIGEST: [digest(image)],
    }  # fmt: skip
    encoded = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=value)) for key, value in features.items()}
    encoded[LABEL] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=encoded)).SerializeToString(deterministic=True)


def parsed(data: bytes) -> tuple[bytes, bytes, int]:
    """Return the encoded image, name and label of a serialised example.

    Raises:
        ValueError: If `data` is not an example, or its image differs from the packed one.
    """
    try:
        features = tf.train.Example.FromString(data).features.feature
        image, name, expected = (features[key].bytes_list.value[0] for key in (IMAGE, NAME, DIGEST))
        label = features[LABEL].int64_list.value[0]
    except Exception as error:  # a DecodeError of protocol buffers, or an IndexError
        raise ValueError(f"the record holds no image ({type(error).__name__})") from error
    if digest(image) != expected:
        raise ValueError("the image differs from the packed one")
    return image, name, label


def framed(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the data of each record of a TFRecord file, without comparing checksums.

    Raises:
        DataError: If the file ends within a record.
    """
    while head := file.read(_HEAD):
        size = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else 2**63
        left = os.fstat(file.fileno()).st_size - file.tell()
        if size + FRAME - _HEAD > left:
            raise broken(name, "pack.truncated", f"ends within a record: only {left:,} bytes follow its header")
        yield file.read(size)
        file.seek(FRAME - _HEAD, os.SEEK_CUR)


@dataclass(frozen=True, eq=False)
class Index:
    """The location of each record of a pack, in the order of its files.

    Attributes:
        folder: The pack.
        shards: Names of the pack's files.
        shard: int32 (n,), the index of the file of each record.
        offset: int64 (n,), the byte at which the record begins.
        size: int64 (n,), the number of bytes of its data.
        key: Digest that identifies the pack.
    """

    folder: Path
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    key: str


@dataclass(frozen=True, eq=False)
class Records:
    """The encoded images of the records `rows` of a pack.

    `records[3]` reads one image from the disk; `records[[3, 1]]` returns two records that are not read yet.
    """

    index: Index
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int | np.integer) -> bytes: ...

    @overload
    def __getitem__(self, at: Sequence[int] | np.ndarray | slice) -> "Records": ...

    def __getitem__(self, at: int | np.integer | Sequence[int] | np.ndarray | slice) -> "bytes | Records":
        """Return one encoded image, or several as `Records`.

        Raises:
            DataError: If a record cannot be read or differs from the packed one; the message names the file and the
                byte.
        """
        if not isinstance(at, int | np.integer):
            return replace(self, rows=self.rows[at])
        index, row = self.index, self.rows[at]
        path, offset, size = index.shards[index.shard[row]], int(index.offset[row]), int(index.size[row])
        try:
            with open(path, "rb", buffering=0) as file:
                content = os.pread(file.fileno(), size + FRAME, offset)
        except OSError as error:
            raise broken(path, "pack.unreadable", f"cannot be read: {error.strerror}") from error
        if len(content) < size + FRAME or struct.unpack("<Q", content[:8])[0] != size:
            seen = f"was altered: no record of {size:,} bytes begins at byte {offset:,}"
            raise broken(path, "pack.altered", seen, offset=offset)
        try:
            return parsed(content[_HEAD:-4])[0]
        except ValueError as error:
            seen = f"was altered: {error} (record at byte {offset:,})"
            raise broken(path, "pack.altered", seen, offset=offset) from error

    def __repr__(self) -> str:
        """Return a digest of these images without reading them."""
        return f"Records({self.index.key}, {hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()})"

    def lost(self) -> np.ndarray:
        """Return for each record, (n,), whether its file can no longer be opened."""
        closed = np.array([not os.access(path, os.R_OK) for path in self.index.shards], bool)
        return closed[self.index.shard[self.rows]]

    def reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Return a TensorFlow function that reads the encoded image at a position (int64 scalar).

        The function opens each file once and verifies the checksum of the record. It raises DataLossError if the
        checksum differs.
        """
        index, rows = self.index, self.rows
        shards = tf.constant([os.fsencode(os.path.abspath(path)) for path in index.shards])
        shard, offset = tf.constant(index.shard[rows]), tf.constant(index.offset[rows])
        string = {"output_types": [tf.string], "output_shapes": [[]]}

        def read(at: tf.Tensor) -> tf.Tensor:
            records = tf.raw_ops.TFRecordDatasetV2(
                filenames=tf.gather(shards, tf.gather(shard, at)),
                compression_type="",
                buffer_size=tf.zeros((), tf.int64),
                byte_offsets=tf.gather(offset, at),
            )
            first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.ones((), tf.int64), **string)
            (record,) = tf.raw_ops.DatasetToSingleElement(dataset=first, **string)
            return tf.io.parse_single_example(record, {IMAGE: tf.io.FixedLenFeature([], tf.string)})[IMAGE]

        return read
