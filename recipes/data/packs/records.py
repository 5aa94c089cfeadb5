"""Encoded images in TFRecord files, each of which is read by itself: `recipes pack` writes them."""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from recipes.errors import DataError

IMAGE, LABEL, CLASS, NAME, DIGEST = "image", "label", "class", "name", "blake2b"  # of the tf.train.Example
FRAME = 16  # bytes around a record's data: its length (8) and that number's checksum (4), the data's checksum (4)
_HEAD = 12
MEND = "copy it anew, or pack the images again"


def digest(image: bytes) -> bytes:
    """BLAKE2b of an encoded image, 16 bytes."""
    return hashlib.blake2b(image, digest_size=16).digest()


def example(image: bytes, label: int, class_name: str, name: str) -> bytes:
    """A serialised tf.train.Example of an encoded image, the same bytes at every call."""
    features = {
        IMAGE: [image], CLASS: [class_name.encode("utf-8", "surrogateescape")], NAME: [os.fsencode(name)],
        DIGEST: [digest(image)],
    }  # fmt: skip
    told = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=value)) for key, value in features.items()}
    told[LABEL] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    return tf.train.Example(features=tf.train.Features(feature=told)).SerializeToString(deterministic=True)


def parsed(data: bytes) -> tuple[bytes, bytes, int]:
    """Encoded image, name and label of a serialised example.

    Raises: ValueError where it is none, or its image is not the one that was packed.
    """
    try:
        told = tf.train.Example.FromString(data).features.feature
        image, name, kept = (told[key].bytes_list.value[0] for key in (IMAGE, NAME, DIGEST))
        label = told[LABEL].int64_list.value[0]
    except Exception as error:  # of protocol buffers, and IndexError
        raise ValueError(f"it holds no image ({type(error).__name__})") from error
    if digest(image) != kept:
        raise ValueError("its image is not the one that was packed")
    return image, name, label


def framed(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The data of the records of a TFRecord file, one after the other; its checksums are not looked at.

    Raises: DataError where the file ends within a record.
    """
    while head := file.read(_HEAD):
        size = struct.unpack("<Q", head[:8])[0] if len(head) == _HEAD else 2**63
        left = os.fstat(file.fileno()).st_size - file.tell()
        if size + FRAME - _HEAD > left:
            raise DataError(f"{name} ends within a record ({left:,} bytes are left); {MEND}")
        yield file.read(size)
        file.seek(FRAME - _HEAD, os.SEEK_CUR)


@dataclass(frozen=True, eq=False)
class Index:
    """Where the records of a pack lie, in the order of its files.

    shards: the files.  shard: int32 (n,), which of them.  offset: int64 (n,), the byte at which a record begins.
    size:   int64 (n,), bytes of its data.  key: what tells this pack from others.
    """

    folder: Path
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    key: str


@dataclass(frozen=True, eq=False)
class Records:
    """The encoded images of the records `rows` of a pack: `records[3]` reads one from the disk, `records[[3, 1]]` are
    two that are not read yet."""

    index: Index
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at) -> "bytes | Records":
        """Raises: DataError, naming file and place, where the record cannot be read or is not what was packed."""
        if not isinstance(at, int | np.integer):
            return replace(self, rows=self.rows[at])
        index, row = self.index, self.rows[at]
        path, offset, size = index.shards[index.shard[row]], int(index.offset[row]), int(index.size[row])
        try:
            with open(path, "rb", buffering=0) as file:
                content = os.pread(file.fileno(), size + FRAME, offset)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; {MEND}") from error
        if len(content) < size + FRAME or struct.unpack("<Q", content[:8])[0] != size:
            raise DataError(f"{path} was altered: there is no record of {size:,} bytes at byte {offset:,}; {MEND}")
        try:
            return parsed(content[_HEAD:-4])[0]
        except ValueError as error:
            raise DataError(f"{path} was altered: {error} (record at byte {offset:,}); {MEND}") from error

    def __repr__(self) -> str:
        """What is the same for the same images only; it reads none of them."""
        return f"Records({self.index.key}, {hashlib.blake2b(self.rows.tobytes(), digest_size=8).hexdigest()})"

    def __add__(self, other: "Records") -> "Records":
        """Raises: ValueError for records of another pack."""
        if other.index.key != self.index.key:
            raise ValueError(f"records of {other.index.folder} cannot be put behind those of {self.index.folder}")
        return replace(self, rows=np.concatenate([self.rows, other.rows]))

    def lost(self) -> np.ndarray:
        """bool (n,): which of them lie in files that cannot be opened any more."""
        closed = np.array([not os.access(path, os.R_OK) for path in self.index.shards], bool)
        return closed[self.index.shard[self.rows]]

    def reader(self):
        """TensorFlow function: int64 scalar, a position here → that encoded image, by one read of its file.

        The record's checksum is compared; reading fails with DataLossError where it differs.
        """
        index, rows = self.index, self.rows
        shards = tf.constant([os.fsencode(os.path.abspath(path)) for path in index.shards])
        shard, offset = tf.constant(index.shard[rows]), tf.constant(index.offset[rows])
        string = {"output_types": [tf.string], "output_shapes": [[]]}

        def read(at):
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
