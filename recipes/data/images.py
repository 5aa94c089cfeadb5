"""Labelled images with random access: the one form in which data travels through `recipes`."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

import augment
from augment.pixel_range import range_fault
from recipes.data.finding import Finding, Unsupported, not_supported
from recipes.data.folders.layout import Layout
from recipes.data.labels import as_labels, classes_of, positions_of
from recipes.data.packs.records import Records
from recipes.data.tables.names import TableReading
from recipes.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images and their labels, read lazily, in a fixed order.

    images: paths (`str`), encoded images (`bytes`), `Records` of a pack, or one array (n, height, width, channels) of
            values in 0..255.
    labels: int64 (n,), indices into `class_names`, which is sorted by name (integer labels: by value).
    names:  what to call each image in messages: its path, or `images[17]`.
    """

    images: Sequence[str] | Sequence[bytes] | Records | np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_memory_pixels(self) -> bool:
        return isinstance(self.images, np.ndarray)

    @property
    def counts(self) -> np.ndarray:
        """Number of images per class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def subset(self, indices) -> "ImageData":
        """The images at `indices`, in that order."""
        indices = np.asarray(indices, int)
        listed = not isinstance(self.images, np.ndarray | Records)
        images = [self.images[i] for i in indices] if listed else self.images[indices]
        return replace(self, images=images, labels=self.labels[indices], names=tuple(self.names[i] for i in indices))

    def with_classes(self, class_names: Sequence[str]) -> "ImageData":
        """The same images, labelled by name among `class_names`.

        Raises: DataError for a label that is not among them.
        """
        if tuple(class_names) == self.class_names:
            return self
        names = np.array(self.class_names)[self.labels]
        return labelled(self.images, names, self.names, class_names)

    @property
    def on_disk(self) -> bool:
        """Whether each image is a file."""
        return isinstance(self.images, Sequence) and len(self) > 0 and isinstance(self.images[0], str)

    def encoded(self, index: int) -> bytes:
        """The file's bytes as they are; not for arrays."""
        image = self.images[index]
        if isinstance(image, bytes):
            return image
        with open(image, "rb") as file:
            return file.read()

    def source(self) -> "augment.Source":
        """Random access for `augment.pipeline`: index → (encoded bytes or RGB pixels, label)."""
        with tf.device("CPU:0"):  # where they are read; images in memory would else take a GPU's
            labels = tf.constant(self.labels, tf.int64)
            names = tf.constant([os.fsencode(name) for name in self.names], tf.string)
            content = self._reader()

        def read(index):
            return content(index), tf.gather(labels, index)

        return augment.Source(size=len(self), read=read, name=lambda index: tf.gather(names, index))

    def _reader(self):
        if isinstance(self.images, Records):
            return self.images.reader()
        images = self.images if self.in_memory_pixels else [os.fsencode(image) for image in self.images]
        table = tf.constant(images, None if self.in_memory_pixels else tf.string)
        if self.on_disk:
            return lambda index: tf.io.read_file(tf.gather(table, index))
        return lambda index: tf.gather(table, index)


def joined(first: ImageData, second: ImageData) -> ImageData:
    """The images of both, in that order; they have the same classes."""
    kinds = {type(first.images), type(second.images)}
    if kinds == {np.ndarray}:
        images = np.concatenate([first.images, second.images])
    elif kinds == {Records} and first.images.index.key == second.images.index.key:
        images = first.images + second.images
    else:
        images = [*first.images, *second.images]
    labels = np.concatenate([first.labels, second.labels])
    return replace(first, images=images, labels=labels, names=first.names + second.names)


@dataclass(frozen=True, eq=False)
class Splits:
    """What a dataset came with: `validation` and `test` are None where it has none; `unread` is what was not read.

    table: how a table that lists the images was read.
    layout: what a folder was taken for; None for a dataset of another form.
    unsupported: pictures in class folders that are in none of the splits, for their format is not supported.
    """

    train: ImageData
    validation: ImageData | None = None
    test: ImageData | None = None
    unread: tuple[Finding, ...] = ()
    table: TableReading | None = None
    layout: Layout | None = None
    unsupported: tuple[Unsupported, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What to print about how a folder was read: its layout where that is unusual, and what was not read."""
        unusual = self.layout is not None and not self.layout.usual
        lost = [not_supported(self.unsupported)] if self.unsupported else []
        return (*([str(self.layout)] if unusual else []), *map(str, (*lost, *self.unread)))

    @property
    def given(self) -> dict[str, ImageData]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: data for name, data in parts.items() if data is not None}


def labelled(images, labels, names, class_names=None, *, positions: bool = False) -> ImageData:
    """ImageData from labels that are names or integers; `class_names` fixes the classes, otherwise they are derived.

    Names are sorted, without blanks at their ends, in the Unicode form NFC (see `data.labels`). Booleans are the
    names "False" and "True". Integers must be 0..classes-1 with every class present, so that a typing error cannot add
    a class.

    positions: integers are positions in `class_names`, whatever these are.

    Raises: DataError for labels that are missing, neither, out of range, not among `class_names`, or several per image.
    """
    labels = as_labels(labels, names)
    if labels.dtype.kind == "U":
        known = classes_of(labels) if class_names is None else list(class_names)
        return ImageData(images, positions_of(labels, known), tuple(known), tuple(names))
    return ImageData(images, *_integer_labels(labels, class_names, positions), tuple(names))


def _integer_labels(labels, class_names, positions: bool):
    if labels.dtype.kind not in "iu" and not np.all(np.isfinite(labels) & (labels == np.floor(labels))):
        raise DataError(
            f"labels are {labels.dtype} with fractions; expected integers 0, 1, 2, … or class names (numbers are not "
            "predicted: join measurements into a few ranges and name these)"
        )
    if len(labels) and not -(2**31) < float(labels.min()) <= float(labels.max()) < 2**31:
        raise DataError(f"labels out of range: {labels.min()} to {labels.max()}; integer labels count from 0")
    measured = str(labels.dtype) if labels.dtype.kind == "f" else ""  # grades, ratings and ages often are floats
    labels = labels.astype(np.int64)
    if len(labels) and labels.min() < 0:
        at = int(labels.argmin())
        raise DataError(f"labels out of range: {labels.min()} at index {at}; integer labels count from 0")
    if class_names is not None:
        numbers = [str(i) for i in range(len(class_names))]
        if not positions and list(class_names) != numbers and all(name.isdecimal() for name in class_names):
            raise DataError(
                f"labels are integers and so are the names of the classes, {list(class_names)[:5]}: give the names, as "
                "strings, for a number could as well be a position among them"
            )
        if len(labels) and labels.max() >= len(class_names):
            at = int(labels.argmax())
            raise DataError(
                f"labels out of range: {labels.max()} at index {at}, but there are {len(class_names)} classes "
                f"(0..{len(class_names) - 1}): {list(class_names)[:10]}"
            )
        return labels, tuple(class_names)
    present = np.unique(labels)
    classes = int(present[-1]) + 1 if len(present) else 0
    if len(present) < classes:
        missing = np.setdiff1d(np.arange(min(classes, 10**6)), present)
        raise DataError(
            f"labels out of range: the largest is {classes - 1}, but no image has label {missing[:5].tolist()}"
            f"{' and more' if len(missing) > 5 else ''}; renumber the labels 0..classes-1, or pass names"
        )
    if measured and 3 <= classes <= 11:
        logger.info(f"labels are {measured} from 0 to {classes - 1}: read as {classes} classes without an order")
    return labels, tuple(str(i) for i in range(classes))


def stacked(images, name: str = "images") -> np.ndarray | list[bytes]:
    """One array of images of one size, or, for images of several sizes, their PNG files.

    Raises: DataError as `check_pixels` does.
    """
    try:
        images = [np.asarray(image) for image in images]
    except ValueError as error:  # rows of several lengths, a pair of image and label
        raise DataError(f"{name} hold something that is no array of pixels: {error}") from None
    if len({image.shape for image in images}) == 1:
        return check_pixels(np.stack(images), name)
    brightest = max(float(image.max()) if image.size and image.dtype.kind in "fiu" else 0.0 for image in images)
    checked = [check_pixels(image[None], f"{name}[{i}]", brightest)[0] for i, image in enumerate(images)]
    return [tf.io.encode_png(np.round(image).astype(np.uint8)).numpy() for image in checked]


def check_pixels(images: np.ndarray, name: str = "images", brightest: float | None = None) -> np.ndarray:
    """An array (n, height, width, 1 | 3 | 4) of uint8 or float32 in 0..255 from what the caller has.

    brightest: the largest value of the dataset that these are a part of.

    Raises: DataError for another shape, another range (0..1 is the usual mistake), or values that are not finite.
    """
    images = np.asarray(images)
    if images.dtype == object:
        raise DataError(f"{name} are an array of objects; give one array (n, height, width, 3), a folder, or a dataset")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape[1:]:
        raise DataError(f"{name} have shape {images.shape}; expected (n, height, width, 3), channels last")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "fiu":
        raise DataError(f"{name} are {images.dtype}; expected uint8 or float in 0..255")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 255.0)
    fault = range_fault(low, high, floating=images.dtype.kind == "f" and (brightest or 0) <= 1)
    if fault:
        raise DataError(f"{name} {fault}")
    return images.astype(np.float32)
