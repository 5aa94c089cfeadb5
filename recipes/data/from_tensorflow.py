"""Load images from a tf.data.Dataset, or from a dataset of TensorFlow Datasets.

Specs and features are annotated as `Any`, because the stubs declare their types too loosely.
"""

import difflib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from recipes.data.image_forms import stacked
from recipes.data.images import ImageData, Splits, labelled
from recipes.data.tables.names import SPLIT_FOLDERS
from recipes.errors import DataError

logger = logging.getLogger(__name__)


def from_tf_data(dataset: tf.data.Dataset, class_names: Sequence[str] | None) -> ImageData:
    """Return the elements (image or encoded bytes, label) of a tf.data.Dataset, which may be batched.

    Args:
        dataset: The dataset. If it has an attribute `class_names`, integer labels are positions in it.
        class_names: The classes to map labels to; None derives them from the data.

    Raises:
        DataError: If the dataset has other elements, is empty, or is infinite.
    """
    label_names: Sequence[object] | None = getattr(dataset, "class_names", None)
    spec: Any = dataset.element_spec
    _check_spec(spec)
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError("the tf.data.Dataset is infinite; remove its .repeat()", code="tf_data.infinite")
    encoded = spec[0].dtype == tf.string
    rank, rank_of_one = spec[0].shape.rank, 0 if encoded else 3
    if rank not in (rank_of_one, rank_of_one + 1):
        raise DataError(
            f"the tf.data.Dataset's images are {spec[0]}; expected (height, width, 3), or a batch of them",
            code="tf_data.images",
        )
    if rank > rank_of_one:
        dataset = dataset.unbatch()
    images, labels = [], []
    for image, label, *_ in dataset.as_numpy_iterator():
        images.append(image)
        labels.append(label)
    if not images:
        raise DataError("the tf.data.Dataset is empty", code="dataset.empty")
    if len(spec) > 2:
        logger.info(
            "elements of the tf.data.Dataset other than images and labels, such as sample weights, are ignored; "
            "recipes.adjusted(balanced=True) gives every class the same weight"
        )
    names = [f"dataset[{i}]" for i in range(len(images))]
    forms = images if encoded else stacked(images, "dataset")
    if label_names is None:
        return labelled(forms, np.array(labels), names, class_names)
    data = labelled(forms, np.array(labels), names, [str(name) for name in label_names], positions=True)
    return data.with_classes(class_names or sorted(map(str, label_names)))


def _check_spec(spec: Any) -> None:
    """Raise DataError unless `spec`, the element_spec of a tf.data.Dataset, is (image, label, …)."""
    if not (isinstance(spec, tuple) and len(spec) >= 2 and all(isinstance(s, tf.TensorSpec) for s in spec[:2])):
        hint = ""
        if isinstance(spec, dict):
            hint = "; choose these two entries: dataset.map(lambda example: (example['image'], example['label']))"
        elif (
            isinstance(spec, tuple) and len(spec) > 1 and isinstance(spec[1], tf.RaggedTensorSpec | tf.SparseTensorSpec)
        ):
            hint = ", one label per image: multi-label data is not supported yet"
        raise DataError(
            f"the tf.data.Dataset yields {spec}; expected (image or encoded bytes, label){hint}",
            code="tf_data.elements",
        )


def from_tfds(name: str, class_names: Sequence[str] | None) -> Splits:
    """Return a dataset of TensorFlow Datasets.

    Args:
        name: Name of the dataset, as `tfds.builder` takes it.
        class_names: The classes to map labels to; None takes the sorted classes of the dataset.

    Raises:
        DataError: If the dataset is unknown, cannot be prepared, is not for image classification, or has no labels.
    """
    builder = _tfds_builder(name)
    features: Any = builder.info.features
    keys: Any = builder.info.supervised_keys or ("image", "label")
    image, label = keys
    if not {image, label} <= set(features) or not hasattr(features[label], "names"):
        raise DataError(
            f"{name} is not an image classification dataset: its features are {list(features)}",
            code="tfds.features", name=name,
        )  # fmt: skip
    label_names: list[str] = features[label].names
    parts: dict[str, ImageData] = {}
    for split in builder.info.splits or ["train"]:
        role = SPLIT_FOLDERS.get(split.split("_")[0])
        if role is None or role in parts:
            continue
        pairs = _tfds_pairs(builder, split, image, label)
        missing = sum(not 0 <= y < len(label_names) for _, y in pairs)  # TFDS labels images without a label -1
        if missing == len(pairs) and role != "train":
            logger.info(f"{name}: the split {split} has no labels and is not used")
            continue
        if missing:
            raise DataError(
                f"{name}: {missing} of the {len(pairs)} images of the split {split} have no label",
                code="tfds.labels", name=name, split=split, missing=missing,
            )  # fmt: skip
        labels = np.array([label_names[y] for _, y in pairs], str)
        names = [f"{name}/{split}[{i}]" for i in range(len(pairs))]
        parts[role] = labelled([x for x, _ in pairs], labels, names, class_names or tuple(sorted(label_names)))
    if "train" not in parts:
        raise DataError(f"{name} has no train split, only {list(builder.info.splits)}", code="tfds.no_train", name=name)
    return Splits(parts["train"], parts.get("validation"), parts.get("test"))


def _tfds_builder(name: str) -> Any:
    """Return the builder of a dataset of TensorFlow Datasets after preparing the dataset."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
        return builder
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name.split("/")[0], tfds.list_builders())
        hint = f"did you mean {' or '.join(close)}?" if close else "tfds.list_builders() lists all names"
        raise DataError(
            f"tensorflow-datasets has no dataset {name!r}, and TFDS_DATA_DIR holds none of that name; {hint}",
            code="tfds.unknown", name=name,
        ) from error  # fmt: skip
    except Exception as error:  # the downloader raises errors of many types: network, disk, checksum
        raise DataError(
            f"tensorflow-datasets could not provide {name!r}: {type(error).__name__}: {str(error).splitlines()[0]}\n"
            "If the network failed, prepare the dataset on a machine with a network connection (`tfds build "
            f"{name}`) and set "
            "TFDS_DATA_DIR.",
            code="tfds.unavailable", name=name,
        ) from error  # fmt: skip


def _tfds_pairs(builder: Any, split: str, image: str, label: str) -> list[tuple[bytes, int]]:
    """Return (encoded image, label) for every example of a split."""
    import tensorflow_datasets as tfds

    skip: Any = tfds.decode.SkipDecoding
    examples: Any = tfds.as_numpy(builder.as_dataset(split=split, decoders={image: skip()}))
    return [(example[image], int(example[label])) for example in examples]
