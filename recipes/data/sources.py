"""Load images from any supported source: a folder, a CSV, TensorFlow Datasets, arrays, or a tf.data.Dataset."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recipes.data.digits import digits
from recipes.data.folders.reader import images_of, not_a_folder, read_folder
from recipes.data.from_tensorflow import from_tf_data, from_tfds
from recipes.data.image_forms import check_pixels, listed, plain, stacked
from recipes.data.images import ImageData, Splits, labelled
from recipes.data.labels import as_labels
from recipes.data.packs.manifest import is_pack, read_pack
from recipes.data.tables.names import TABLE_SUFFIXES
from recipes.data.tables.reader import read_table
from recipes.errors import DataError


def load(dataset: Any, class_names: Sequence[str] | None = None) -> Splits:
    """Return any supported dataset as `Splits`.

    Args:
        dataset: A folder of class folders, optionally inside train/, val/ and test/, a pack (see `recipes.pack`), a CSV
            (see `recipes.from_csv`), "tfds:NAME", "digits", (images, labels), a tf.data.Dataset of (image | encoded
            bytes, label), ImageData or Splits.
        class_names: The classes to map the labels of evaluation data to; None derives the classes from the data.

    Raises:
        DataError: If `dataset` has none of these forms, or cannot be read.
    """
    if isinstance(dataset, ImageData):
        dataset = Splits(dataset)
    if isinstance(dataset, Splits):
        if class_names is None:
            return dataset
        return replace(dataset, **{name: data.with_classes(class_names) for name, data in dataset.given.items()})
    if isinstance(dataset, tf.data.Dataset):
        return Splits(from_tf_data(dataset, class_names))
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        images, labels = dataset
        return Splits(_from_arrays(images, labels, class_names))
    if not isinstance(dataset, str | os.PathLike):
        table = ", whose columns can be given as (table['path'], table['label'])" if hasattr(dataset, "columns") else ""
        raise DataError(
            f"dataset is a {type(dataset).__name__}{table}; expected a folder, a CSV file, 'tfds:NAME', 'digits', "
            "(images, labels), or a tf.data.Dataset of (image, label)",
            code="dataset.type", type=type(dataset).__name__,
        )  # fmt: skip
    if str(dataset).startswith("tfds:"):
        return from_tfds(str(dataset).removeprefix("tfds:"), class_names)
    if str(dataset) == "digits":
        return digits()
    path = Path(dataset).expanduser()
    if path.is_dir() and is_pack(path):
        return load(read_pack(path), class_names)
    if path.is_dir():
        return read_folder(path, class_names)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return read_table(path, class_names)
    if path.exists():
        raise not_a_folder(path)
    raise _missing(path)


def _missing(path: Path) -> DataError:
    return DataError(
        f"{path} does not exist (in {path.absolute().parent}); check the spelling", code="dataset.missing", path=path
    )


def unlabelled(images: Any) -> ImageData:
    """Return images without labels as ImageData, in their order.

    Args:
        images: One image, an iterable of images (all paths, all encoded, or all arrays), a folder, or a batch in one
            array. An image is a path, encoded bytes, an open binary file, a Pillow image, or an array (height, width)
            or (height, width, channels) of 0..255.

    Raises:
        DataError: If `images` has another form, is a single path that does not exist, or is a folder without images.
            Files in a list are not checked for existence.
    """
    images = plain(images)
    if isinstance(images, bytes):
        images = [images]
    if isinstance(images, str | os.PathLike):
        images = _files(images)
    forms = _forms(images)
    if isinstance(forms, np.ndarray):
        if forms.ndim == 2:
            forms = forms[None, ..., None]
        forms = forms[None] if forms.ndim == 3 and forms.shape[-1] in (1, 3, 4) else forms
    forms = _checked(forms)
    return ImageData(forms, np.zeros(len(forms), np.int64), ("",), _names(forms))


def _forms(images: Any) -> list[Any] | np.ndarray:
    """Return images as a list of paths, encoded bytes or arrays, or as one array."""
    given = listed(images)
    if not isinstance(given, list):
        array = np.asarray(given)
        if array.dtype.kind not in "SUO":
            return array
        if not array.ndim:
            raise DataError(
                f"images are a {type(images).__name__}; expected a path, a folder, a list of paths or of encoded "
                "bytes, or an array (n, height, width, 3)",
                code="images.type", type=type(images).__name__,
            )  # fmt: skip
        given = array.tolist()
        if array.ndim > 1:
            return np.asarray(given)
    if all(isinstance(x, str | os.PathLike) for x in given):
        return [os.fspath(x) for x in given]
    if all(isinstance(x, bytes) for x in given):
        return given
    if any(isinstance(x, str | os.PathLike | bytes) for x in given):
        types = Counter(type(x).__name__ for x in given)
        shown = ", ".join(f"{count} of {len(given)} are of the type {name}" for name, count in types.most_common())
        raise DataError(
            f"images are a mixture: {shown}; expected only paths, only encoded images, or only arrays. Read the "
            "files first, or leave out rows without an image",
            code="images.mixed", types=tuple(sorted(types)),
        )  # fmt: skip
    return given


def _checked(forms: list[Any] | np.ndarray) -> list[str] | list[bytes] | np.ndarray:
    """Return paths and encoded bytes unchanged; convert and check pixels by `stacked` and `check_pixels`."""
    if isinstance(forms, np.ndarray):
        return check_pixels(forms)
    return stacked(forms) if forms and not isinstance(forms[0], str | bytes) else forms


def _names(forms: list[str] | list[bytes] | np.ndarray) -> tuple[str, ...]:
    return tuple(form if isinstance(form, str) else f"images[{i}]" for i, form in enumerate(forms))


def _files(given: str | os.PathLike[str]) -> list[str]:
    """Return the image files of a folder, or the given file itself."""
    if not os.fspath(given):
        raise DataError(
            "the path of the images is empty; expected an image or a folder ('.' is the current folder)",
            code="images.empty_path",
        )
    if "://" in os.fspath(given):
        raise DataError(
            f"{given} is a web address; expected a file: download the image and give its path or its bytes",
            code="images.web_address", path=given,
        )  # fmt: skip
    path = Path(given).expanduser()
    if not path.exists():
        raise _missing(path)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        raise DataError(
            f"{path} is a table; expected an image or a folder of images: give the folder of its images, or in "
            "Python a list of their paths. `recipes evaluate` takes a table with labels",
            code="images.table", path=path,
        )  # fmt: skip
    return images_of(path)


def _check_exist(files: list[str]) -> None:
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        hint = "check the paths" if any(map(os.path.isabs, missing)) else f"relative paths start in {os.getcwd()}"
        raise DataError(
            f"{len(missing)} of {len(files)} images do not exist: {', '.join(missing[:5])}; {hint}",
            code="images.missing", images=tuple(missing),
        )  # fmt: skip


def _from_arrays(images: Any, labels: Any, class_names: Sequence[str] | None) -> ImageData:
    if isinstance(images, list | tuple) and len(images) == 2 and np.ndim(images[1]) == 1:
        raise DataError(
            "dataset is a pair of pairs; expected (images, labels): give the first pair as the dataset and the "
            "second as validation=",
            code="dataset.pair_of_pairs",
        )
    forms = _forms(images)
    empty = not forms if isinstance(forms, list) else forms.shape[:1] == (0,)
    if empty and not len(labels):
        raise DataError("images and labels are empty; give at least one image and its label", code="dataset.empty")
    forms = _checked(forms)
    names = _names(forms)
    _check_exist([form for form in forms if isinstance(form, str)])
    labels = as_labels(labels, names)
    if len(forms) != len(labels):
        raise DataError(
            f"{len(forms)} images but {len(labels)} labels; expected one label per image",
            code="labels.number", images=len(forms), labels=len(labels),
        )  # fmt: skip
    return labelled(forms, labels, names, class_names)
