"""Where images come from: a folder, a CSV, TensorFlow Datasets, arrays, a tf.data.Dataset."""

import difflib
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from recipes.data.digits import digits
from recipes.data.folders import reader as image_folder
from recipes.data.image_forms import listed, plain
from recipes.data.images import ImageData, Splits, check_pixels, labelled, stacked
from recipes.data.labels import as_labels
from recipes.data.packs.manifest import is_pack, read_pack
from recipes.data.tables.reader import SPLIT_FOLDERS, TABLE_SUFFIXES, read_table
from recipes.errors import DataError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"})


def load(dataset, class_names: tuple[str, ...] | None = None) -> Splits:
    """Any supported dataset as `Splits`.

    dataset: a folder of class folders (or of train/, val/, test/ above them), a pack (see `recipes.pack`), a CSV (see
    `recipes.from_csv`), "tfds:NAME", "digits", (images, labels), a tf.data.Dataset of (image | encoded bytes, label),
    ImageData or Splits.
    class_names: the classes to map to (for evaluation data); derived from the data when None.

    Raises: DataError, in the first second, when it is none of these.
    """
    if isinstance(dataset, ImageData):
        dataset = Splits(dataset)
    if isinstance(dataset, Splits):
        if class_names is None:
            return dataset
        return replace(dataset, **{name: data.with_classes(class_names) for name, data in dataset.given.items()})
    if isinstance(dataset, tf.data.Dataset):
        return Splits(_from_tf_data(dataset, class_names))
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        return Splits(_from_arrays(*dataset, class_names))
    if not isinstance(dataset, str | os.PathLike):
        table = ": give its columns, (table['path'], table['label'])" if hasattr(dataset, "columns") else ""
        raise DataError(
            f"dataset is a {type(dataset).__name__}{table}; expected a folder, a CSV file, 'tfds:NAME', 'digits', "
            "(images, labels), or a tf.data.Dataset of (image, label)"
        )
    if str(dataset).startswith("tfds:"):
        return _from_tfds(str(dataset).removeprefix("tfds:"), class_names)
    if str(dataset) == "digits":
        return digits()
    path = Path(dataset).expanduser()
    if path.is_dir() and is_pack(path):
        return load(read_pack(path), class_names)
    if path.is_dir():
        return image_folder.read_folder(path, IMAGE_SUFFIXES, class_names)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return read_table(path, class_names)
    if path.exists():
        raise image_folder.not_a_folder(path, IMAGE_SUFFIXES)
    raise DataError(f"{path} does not exist (looked in {path.absolute().parent}); check the spelling")


def unlabelled(images) -> ImageData:
    """Return images without labels as ImageData, in the order in which they are given.

    Args:
        images: One image, an iterable of images (all paths, all encoded, or all arrays), a folder, or a batch as one
            array. An image is a path, encoded bytes, an open binary file, a Pillow image, or an array (height, width)
            or (height, width, channels) of 0..255.

    Raises:
        DataError: `images` is anything else, a single path that does not exist, or a folder without images. Files of a
            list are not looked at here.
    """
    images = listed(plain(images))
    if isinstance(images, bytes):
        images = [images]
    if isinstance(images, str | os.PathLike):
        images = _files(images)
    if isinstance(images, list) and all(isinstance(x, str | os.PathLike) for x in images):
        images = names = [os.fspath(x) for x in images]
    elif isinstance(images, list) and all(isinstance(x, bytes) for x in images):
        names = [f"images[{i}]" for i in range(len(images))]
    elif isinstance(images, list) and any(isinstance(x, str | os.PathLike | bytes) for x in images):
        kinds = sorted({type(x).__name__ for x in images})
        raise DataError(f"images are a list of {kinds}; expected only paths, only encoded images, or only arrays")
    elif isinstance(images, list):
        images = stacked(images)
        names = [f"images[{i}]" for i in range(len(images))]
    else:
        kind, images = type(images).__name__, np.asarray(images)
        if images.dtype.kind in "SUO" and images.ndim == 1:
            return unlabelled(images.tolist())
        if images.dtype == object:
            raise DataError(
                f"images are a {kind}; expected a path, a folder, a list of paths or of encoded bytes, or an array "
                "(n, height, width, 3)"
            )
        if images.ndim == 2:
            images = images[None, ..., None]
        images = check_pixels(images[None] if images.ndim == 3 and images.shape[-1] in (1, 3, 4) else images)
        names = [f"images[{i}]" for i in range(len(images))]
    return ImageData(images, np.zeros(len(images), np.int64), ("",), tuple(names))


def _files(path) -> list[str]:
    """The image files of a folder, or the one file that `path` is."""
    if not os.fspath(path):
        raise DataError("the path of the images is empty; expected an image or a folder ('.' is this one)")
    if "://" in os.fspath(path):
        raise DataError(f"{path} is a web address; download the image and give its path or its bytes")
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist (looked in {path.absolute().parent}); check the spelling")
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        raise DataError(
            f"{path} is a table; expected an image or a folder of images: give the folder that its images are in, or "
            "in Python a list of their paths; `recipes evaluate` takes a table with labels"
        )
    return image_folder.images_of(path, IMAGE_SUFFIXES)


def _check_exist(files: list[str]) -> None:
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        hint = "" if any(map(os.path.isabs, missing)) else f"; relative paths start in {os.getcwd()}"
        raise DataError(f"{len(missing)} of {len(files)} images do not exist: {', '.join(missing[:5])}{hint}")


def image_files(folder: Path) -> list[str]:
    """Return all image files below `folder`, sorted; see `image_folder.image_files`."""
    return image_folder.image_files(folder, IMAGE_SUFFIXES)


def _from_tfds(name: str, class_names) -> Splits:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name.split("/")[0], tfds.list_builders())
        hint = f"did you mean {' or '.join(close)}?" if close else "tfds.list_builders() shows all"
        raise DataError(f"tensorflow-datasets has no dataset {name!r}, and none is in TFDS_DATA_DIR; {hint}") from error
    except Exception as error:  # TFDS raises whatever its downloader met: network, disk, checksum
        raise DataError(
            f"tensorflow-datasets could not provide {name!r}: {type(error).__name__}: {str(error).splitlines()[0]}\n"
            f"If it is a network failure, prepare it where there is one (`tfds build {name}`) and set TFDS_DATA_DIR."
        ) from error
    features = builder.info.features
    image, label = builder.info.supervised_keys or ("image", "label")
    if not {image, label} <= set(features) or not hasattr(features[label], "names"):
        raise DataError(f"{name} is no image classification dataset: its features are {list(features)}")
    own_names = features[label].names
    parts = {}
    for split in builder.info.splits or ["train"]:
        role = SPLIT_FOLDERS.get(split.split("_")[0])
        if role is None or role in parts:
            continue
        examples = builder.as_dataset(split=split, decoders={image: tfds.decode.SkipDecoding()})
        pairs = [(example[image], int(example[label])) for example in tfds.as_numpy(examples)]
        shown = [f"{name}/{split}[{i}]" for i in range(len(pairs))]
        without = sum(not 0 <= y < len(own_names) for _, y in pairs)  # TFDS gives -1 to images without a label
        if without == len(pairs) and role != "train":
            logger.info(f"{name}: the split {split} has no labels and is not used")
            continue
        if without:
            raise DataError(f"{name}: {without} of the {len(pairs)} images of the split {split} have no label")
        labels = np.array([own_names[y] for _, y in pairs], str)
        parts[role] = labelled([x for x, _ in pairs], labels, shown, class_names or tuple(sorted(own_names)))
    if "train" not in parts:
        raise DataError(f"{name} has no train split, only {list(builder.info.splits)}")
    return Splits(**parts)


def _from_arrays(images, labels, class_names) -> ImageData:
    if isinstance(images, list | tuple) and len(images) == 2 and np.ndim(images[1]) == 1:
        raise DataError("dataset is a pair of pairs; pass the first as the dataset and the second as validation=")
    images = listed(images)
    if not isinstance(images, list):
        images = np.asarray(images)
        images = images.tolist() if images.dtype.kind in "SUO" else images
    if not len(images) and not len(labels):
        raise DataError("images and labels are empty; give at least one image and its label")
    if isinstance(images, list) and any(isinstance(x, str | os.PathLike | bytes) for x in images):
        strange = [x for x in images if not isinstance(x, str | os.PathLike | bytes)]
        if strange:
            raise DataError(
                f"images are paths or encoded bytes, but {len(strange)} of {len(images)} are of the type "
                f"{type(strange[0]).__name__}; leave out the rows that have no image"
            )
        if len({isinstance(x, bytes) for x in images}) > 1:
            raise DataError("images are paths and encoded bytes; expected only one of these: read the files first")
        images = [image if isinstance(image, bytes) else os.fspath(image) for image in images]
        names = [f"images[{i}]" if isinstance(image, bytes) else image for i, image in enumerate(images)]
        _check_exist([image for image in images if isinstance(image, str)])
    else:
        images = stacked(images) if isinstance(images, list) else check_pixels(images)
        names = [f"images[{i}]" for i in range(len(images))]
    labels = as_labels(labels, names)
    if len(images) != len(labels):
        raise DataError(f"{len(images)} images but {len(labels)} labels; expected one label per image")
    return labelled(images, labels, names, class_names)


def _from_tf_data(dataset: tf.data.Dataset, class_names) -> ImageData:
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) >= 2 and all(isinstance(s, tf.TensorSpec) for s in spec[:2])):
        hint = ""
        if isinstance(spec, dict):
            hint = "; choose two: dataset.map(lambda example: (example['image'], example['label']))"
        elif (
            isinstance(spec, tuple) and len(spec) > 1 and isinstance(spec[1], tf.RaggedTensorSpec | tf.SparseTensorSpec)
        ):
            hint = ", one label per image: multi-label data is not supported yet"
        raise DataError(f"the tf.data.Dataset yields {spec}; expected (image or encoded bytes, label){hint}")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError("the tf.data.Dataset is infinite; remove its .repeat()")
    own_names = getattr(dataset, "class_names", None)
    encoded = spec[0].dtype == tf.string
    rank = spec[0].shape.rank
    if rank not in ((0, 1) if encoded else (3, 4)):
        raise DataError(f"the tf.data.Dataset's images are {spec[0]}; expected (height, width, 3), or a batch of them")
    if rank == (1 if encoded else 4):
        dataset = dataset.unbatch()
    images, labels = [], []
    for image, label, *_ in dataset.as_numpy_iterator():
        images.append(image)
        labels.append(label)
    if not images:
        raise DataError("the tf.data.Dataset is empty")
    if len(spec) > 2:
        logger.info(
            "what the tf.data.Dataset yields beside images and labels, such as weights, is not used; "
            "recipes.adjusted(balanced=True) lets every class count alike"
        )
    shown = [f"dataset[{i}]" for i in range(len(images))]
    if not encoded:
        images = stacked(images, "dataset")
    if own_names is None:
        return labelled(images, np.array(labels), shown, class_names)
    data = labelled(images, np.array(labels), shown, [str(name) for name in own_names], positions=True)
    return data.with_classes(class_names or sorted(own_names))
