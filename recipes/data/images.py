"""Labelled images with random access: the form in which all data passes through `recipes`."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.core.text import counted, described
from recipes.data.class_names import classes_of, positions_of
from recipes.data.finding import Finding, Unsupported, not_supported
from recipes.data.folders.layout import Layout
from recipes.data.labels import as_labels
from recipes.data.packs.records import Records
from recipes.data.tables.names import TableReading
from recipes.errors import DataError

logger = logging.getLogger(__name__)

Images = Sequence[str] | Sequence[bytes] | Records | np.ndarray


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images and their labels in a fixed order; images are read when they are needed.

    Attributes:
        images: Paths (`str`), encoded images (`bytes`), `Records` of a pack, or one array (n, height, width, channels)
            of values in 0..255.
        labels: int64 (n,), indices into `class_names`.
        class_names: Names of the classes, sorted by name, or by value for integer labels.
        names: The name of each image in messages: its path, or `images[17]`.
    """

    images: Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        classes = counted(len(self.class_names), "class", "classes")
        return described(type(self).__name__, counted(len(self), "image"), classes)

    @property
    def in_memory_pixels(self) -> bool:
        return self.pixels is not None

    @property
    def pixels(self) -> np.ndarray | None:
        """The array of all images (n, height, width, channels); None if they are encoded."""
        return self.images if isinstance(self.images, np.ndarray) else None

    @property
    def records(self) -> Records | None:
        """The records of a pack; None if the images are in another form."""
        return self.images if isinstance(self.images, Records) else None

    @property
    def paths(self) -> list[str] | None:
        """The paths of images that are files; None if they are in another form."""
        return cast(list[str], self.images) if self.on_disk else None

    @property
    def counts(self) -> np.ndarray:
        """Number of images per class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageData":
        """Return the images at `indices`, in that order."""
        rows = np.asarray(indices, int)
        images = self.images
        images = images[rows] if isinstance(images, np.ndarray | Records) else [images[i] for i in rows]
        return replace(self, images=images, labels=self.labels[rows], names=tuple(self.names[i] for i in rows))

    def with_classes(self, class_names: Sequence[str]) -> "ImageData":
        """Return the same images with labels that are positions in `class_names`.

        Raises:
            DataError: If the class of a label is not among `class_names`.
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
        """Return the encoded bytes of one image; images in arrays have none."""
        image = self.images[index]
        if not isinstance(image, str):
            return cast(bytes, image)
        with open(image, "rb") as file:
            return file.read()

    def source(self) -> "augment.Source":
        """Return random access for `augment.pipeline`: index → (encoded bytes or RGB pixels, label)."""
        with tf.device("CPU:0"):  # otherwise images in memory would be copied to the GPU
            labels = tf.constant(self.labels, tf.int64)
            names = tf.constant([os.fsencode(name) for name in self.names], tf.string)
            content = self._reader()

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return content(index), tf.gather(labels, index)

        return augment.Source(size=len(self), read=read, name=lambda index: tf.gather(names, index))

    def _reader(self) -> Callable[[tf.Tensor], tf.Tensor]:
        if isinstance(self.images, Records):
            return self.images.reader()
        if isinstance(self.images, np.ndarray):
            table = tf.constant(self.images)
        else:
            table = tf.constant([os.fsencode(image) for image in self.images], tf.string)
        if self.on_disk:
            return lambda index: tf.io.read_file(tf.gather(table, index))
        return lambda index: tf.gather(table, index)


def joined(first: ImageData, second: ImageData) -> ImageData:
    """Return the images of both datasets, in that order; both must have the same classes."""
    a, b = first.images, second.images
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        images = np.concatenate([a, b])
    elif isinstance(a, Records) and isinstance(b, Records) and a.index.key == b.index.key:
        images = replace(a, rows=np.concatenate([a.rows, b.rows]))
    else:
        images = cast(Sequence[bytes], [*cast(Iterable[bytes], a), *cast(Iterable[bytes], b)])
    labels = np.concatenate([first.labels, second.labels])
    return replace(first, images=images, labels=labels, names=first.names + second.names)


@dataclass(frozen=True, eq=False)
class Splits:
    """The splits of a dataset, and facts about how the dataset was read.

    Attributes:
        train: The training images.
        validation: None if the dataset has no validation split.
        test: None if the dataset has no test split.
        unread: Files and folders that were not read.
        table: Description of how a table that lists the images was read; None for other forms of datasets.
        layout: Arrangement of a folder; None for other forms of datasets.
        unsupported: Pictures in class folders that belong to no split because their format is not supported.
    """

    train: ImageData
    validation: ImageData | None = None
    test: ImageData | None = None
    unread: tuple[Finding, ...] = ()
    table: TableReading | None = None
    layout: Layout | None = None
    unsupported: tuple[Unsupported, ...] = ()

    def __repr__(self) -> str:
        sizes = [f"{name} {counted(len(data), 'image')}" for name, data in self.given.items()]
        return described("Splits", *sizes, counted(len(self.train.class_names), "class", "classes"))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that report how a folder was read: its layout if it is unusual, and the files that were not read."""
        unusual = self.layout is not None and not self.layout.usual
        lost = [not_supported(self.unsupported)] if self.unsupported else []
        return (*([str(self.layout)] if unusual else []), *map(str, (*lost, *self.unread)))

    @property
    def given(self) -> dict[str, ImageData]:
        """The splits that the dataset has, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: data for name, data in parts.items() if data is not None}


def labelled(
    images: Images, labels: object, names: Sequence[str], class_names: Sequence[str] | None = None,
    *, positions: bool = False,
) -> ImageData:  # fmt: skip
    """Return ImageData from labels that are names or integers.

    Names are converted to the Unicode form NFC without blanks at their ends (see `data.labels`), then sorted. Booleans
    become the names "False" and "True". Integers must be 0..classes-1 with every class present, so that a typing error
    cannot add a class.

    Args:
        images: As in `ImageData`.
        labels: Labels in any form that `as_labels` takes.
        names: The name of each image in messages.
        class_names: The classes; None derives them from the labels.
        positions: Whether integers are always positions in `class_names`, even if these are numbers.

    Raises:
        DataError: If labels are missing, of a wrong type, out of range, not among `class_names`, or several per image.
    """
    array = as_labels(labels, names)
    if array.dtype.kind == "U":
        known = classes_of(array) if class_names is None else list(class_names)
        return ImageData(images, positions_of(array, known), tuple(known), tuple(names))
    numbers = _integers(array)
    if class_names is None:
        known = _derived_classes(numbers, str(array.dtype) if array.dtype.kind == "f" else "")
    else:
        _check_positions(numbers, class_names, positions)
        known = tuple(class_names)
    return ImageData(images, numbers, known, tuple(names))


def _integers(labels: np.ndarray) -> np.ndarray:
    """Return non-negative integers or whole floats as int64 labels (n,)."""
    if labels.dtype.kind not in "iu" and not np.all(np.isfinite(labels) & (labels == np.floor(labels))):
        raise DataError(
            f"labels are {labels.dtype} with fractions; expected integers 0, 1, 2, … or class names. Numbers are "
            "not predicted: join measurements into a few ranges, and name the ranges",
            code="labels.fractions",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= 2**31))
    if len(wrong):
        raise _out_of_range(labels, int(wrong[0]), "integer labels count from 0")
    return labels.astype(np.int64)


def _out_of_range(labels: np.ndarray, at: int, expected: str) -> DataError:
    message = f"labels out of range: {labels[at]} at index {at}; {expected}"
    return DataError(message, code="labels.out_of_range", index=at, value=labels[at].item())


def _check_positions(labels: np.ndarray, class_names: Sequence[str], positions: bool) -> None:
    """Raise DataError if integers are not, or may not be, positions in `class_names`."""
    numbers = [str(i) for i in range(len(class_names))]
    if not positions and list(class_names) != numbers and all(name.isdecimal() for name in class_names):
        raise DataError(
            f"labels are integers and so are the names of the classes, {list(class_names)[:5]}, so a number could "
            "be a name or a position; give the names as strings",
            code="labels.ambiguous_integers",
        )
    if len(labels) and labels.max() >= len(class_names):
        known = f"{len(class_names)} classes (0..{len(class_names) - 1}): {list(class_names)[:10]}"
        raise _out_of_range(labels, int(labels.argmax()), f"there are {known}")


def _derived_classes(labels: np.ndarray, measured: str) -> tuple[str, ...]:
    """Return names of the classes 0, 1, …; `measured` is the type of labels that were floats, which may be ratings."""
    present = np.unique(labels)
    classes = int(present[-1]) + 1 if len(present) else 0
    if len(present) < classes:
        missing = np.setdiff1d(np.arange(min(classes, 10**6)), present)
        raise DataError(
            f"labels out of range: the largest is {classes - 1}, but no image has label {missing[:5].tolist()}"
            f"{' and more' if len(missing) > 5 else ''}; renumber the labels 0..classes-1, or pass names",
            code="labels.gaps", missing=tuple(missing.tolist()),
        )  # fmt: skip
    if measured and 3 <= classes <= 11:
        logger.info(f"labels are {measured} from 0 to {classes - 1}: read as {classes} classes without an order")
    return tuple(str(i) for i in range(classes))
