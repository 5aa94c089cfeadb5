"""Every form a dataset may come in, and how forms that are wrong are rejected."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from assertions import Ending, rejects
from makers import arrays, folder, jpeg

from recipes import DataError
from recipes.data.folders.layout import LayoutError
from recipes.data.folders.reader import images_of
from recipes.data.sources import load, unlabelled


def test_folder_of_class_folders(tmp_path):
    train = load(folder(tmp_path)).train
    assert train.class_names == ("blue", "green", "red")
    assert train.counts.tolist() == [12, 12, 12]


def test_train_val_test_folders(tmp_path):
    for split, n in (("train", 3), ("val", 2), ("test", 1)):
        folder(tmp_path / split, per_class=n)
    splits = load(tmp_path)
    assert [len(splits.given[name]) for name in ("train", "validation", "test")] == [9, 6, 3]


def test_different_classes_in_train_and_val(tmp_path):
    folder(tmp_path / "train", 2)
    folder(tmp_path / "val", 2, classes=2)
    with rejects(DataError, "folder.different_classes", path=tmp_path / "val", missing=("red",), extra=()):
        load(tmp_path)


def test_something_beside_train(tmp_path):
    folder(tmp_path / "train", 2)
    folder(tmp_path / "extra", 2)
    with rejects(LayoutError, "layout.stranger", path=tmp_path, match="extra/"):
        load(tmp_path)


def test_csv(tmp_path):
    folder(tmp_path / "pictures", 2)
    files = images_of(tmp_path / "pictures")
    lines = [f"{file[len(str(tmp_path)) + 1 :]},{file.split('/')[-2]}" for file in files]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(lines), encoding="utf-8")
    train = load(tmp_path / "list.csv").train
    assert train.class_names == ("blue", "green", "red")
    assert list(train.images) == files


@pytest.mark.parametrize(
    ("text", "code", "attributes"),
    [
        ("", "table.empty", {}),
        (
            "path,label\nnone.jpg,a\n",
            "table.missing_files",
            dict(files=("none.jpg",), rows=(Ending("list.csv row 2"),)),
        ),
        ("only\n", "table.one_column", {}),
    ],
)
def test_wrong_csv(tmp_path, text, code, attributes):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with rejects(DataError, code, **attributes):
        load(tmp_path / "list.csv")


def test_arrays_with_names_and_with_integers():
    images, names = arrays(4)
    assert load((images, names)).train.class_names == ("blue", "green", "red")
    assert load((images, np.repeat([0, 1, 2], 4))).train.class_names == ("0", "1", "2")


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize("encoded", [False, True])
def test_tf_data(batch, encoded):
    images, names = arrays(4)
    labels = np.unique(names, return_inverse=True)[1]
    content = [jpeg(image) for image in images] if encoded else images
    dataset = tf.data.Dataset.from_tensor_slices((content, labels))
    train = load(dataset if batch is None else dataset.batch(batch)).train
    assert train.labels.tolist() == labels.tolist()
    if not encoded:
        np.testing.assert_array_equal(train.images, images)


def test_tfds_prepared_here(tmp_path, monkeypatch):
    """A dataset prepared by TFDS on this machine; its class order is not sorted, ours is."""
    import tensorflow_datasets as tfds

    class Discs(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(None, None, 3)),
                        "label": tfds.features.ClassLabel(names=["red", "blue"])}  # fmt: skip
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(3), "test": self._generate_examples(1)}

        def _generate_examples(self, n):
            images, names = arrays(n)
            for i, (image, name) in enumerate(zip(images, names, strict=True)):
                if name != "green":
                    yield i, {"image": image, "label": str(name)}

    Discs(data_dir=tmp_path).download_and_prepare()
    import os
    from unittest import mock

    with (
        mock.patch.dict(os.environ, {"TFDS_DATA_DIR": str(tmp_path)}),
        mock.patch.object(tfds.core.constants, "DATA_DIR", str(tmp_path)),
    ):
        splits = load("tfds:discs")
    assert splits.train.class_names == ("blue", "red")
    assert splits.train.counts.tolist() == [3, 3]
    assert len(splits.test) == 2


def test_tfds_unknown():
    with rejects(DataError, "tfds.unknown", name="tf_flower", match="did you mean tf_flowers"):
        load("tfds:tf_flower")


def test_tfds_without_network(monkeypatch):
    """TFDS itself tries for minutes before it gives up; here its downloader gives up at once."""
    import tensorflow_datasets as tfds

    def unreachable(self, **options):
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    with rejects(DataError, "tfds.unavailable", name="tf_flowers", match="TFDS_DATA_DIR"):
        load("tfds:tf_flowers")


@pytest.mark.parametrize(
    ("make", "code", "attributes"),
    [
        (lambda root: root / "missing", "dataset.missing", dict(path=Ending("/missing"))),
        (lambda root: root, "layout.no_class_folders", dict(match="is empty")),
        (lambda root: (root / "cats").mkdir() or root, "layout.no_class_folders", dict(match="no image in them")),
        (
            lambda root: (root / "a.jpg").write_bytes(b"x") and root,
            "layout.no_class_folders",
            dict(match="1 images"),
        ),
        (
            lambda root: (root / "a.txt").write_text("x") and root / "a.txt",
            "layout.no_folder",
            dict(path=Ending("/a.txt")),
        ),
        (lambda root: 17, "dataset.type", dict(type="int")),
        (lambda root: tf.data.Dataset.range(3), "tf_data.elements", {}),
        (lambda root: (np.zeros((0, 4, 4, 3), np.uint8), []), "dataset.empty", {}),
        (lambda root: (np.zeros((2, 4, 4, 3), np.uint8), [0]), "labels.number", dict(images=2, labels=1)),
    ],
)
def test_no_dataset(tmp_path, make, code, attributes):
    with rejects(DataError, code, **attributes):
        load(make(tmp_path))


def test_classes_of_given_data_are_matched_by_name():
    images, names = arrays(4)
    part = load((images[4:], names[4:])).train
    assert part.class_names == ("green", "red")
    again = load(part, ("blue", "green", "red")).train
    assert again.class_names == ("blue", "green", "red")
    assert set(again.labels) == {1, 2}
    with rejects(DataError, "labels.unknown", labels=("green",)):
        load(part, ("blue", "red"))


def test_names_of_image_dataset_from_directory(tmp_path):
    import keras

    folder(tmp_path, 3)
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path, class_names=["red", "green", "blue"], image_size=(40, 48), verbose=False
    )
    train = load(dataset).train
    assert train.class_names == ("blue", "green", "red")
    means = [train.images[train.labels == c].mean((0, 1, 2)).argmax() for c in range(3)]
    assert means == [2, 1, 0]


def test_names_of_image_dataset_from_directory_that_are_numbers():
    images, _ = arrays(2)
    dataset = tf.data.Dataset.from_tensor_slices((images, [0, 0, 1, 1, 2, 2]))
    dataset.class_names = ["1", "2", "10"]
    train = load(dataset).train
    assert train.class_names == ("1", "10", "2") and train.labels.tolist() == [0, 0, 2, 2, 1, 1]


def test_images_of_several_sizes_in_a_list():
    images, names = arrays(2)
    train = load(([images[0], images[1][:20], *images[2:]], names)).train
    assert len(train) == 6 and isinstance(train.images[0], bytes)


def test_other_files_are_reported(tmp_path):
    folder(tmp_path, 2)
    (tmp_path / "red" / "a.tif").write_bytes(b"II*")
    (tmp_path / "loose.jpg").write_bytes(jpeg(arrays(1)[0][0]))
    (tmp_path / ".hidden").write_text("x")
    splits = load(tmp_path)
    (finding,), (unsupported,) = splits.unread, splits.unsupported
    assert [file.rsplit("/", 1)[-1] for file in (*finding.files, unsupported.name)] == ["loose.jpg", "a.tif"]


def test_val_and_test_without_train(tmp_path):
    folder(tmp_path / "val", 2)
    folder(tmp_path / "test", 2)
    with rejects(LayoutError, "layout.no_train", path=tmp_path):
        load(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "code", "attributes"),
    [
        (
            ((np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4)), (np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2))),
            "dataset.pair_of_pairs", {},
        ),
        ((["nowhere.jpg", "neither.jpg"], ["a", "b"]), "images.missing", dict(images=("nowhere.jpg", "neither.jpg"))),
        (
            (np.array(["nowhere.jpg", "neither.jpg"]), ["a", "b"]),
            "images.missing", dict(images=("nowhere.jpg", "neither.jpg")),
        ),
        (
            (np.zeros((2, 8, 8, 3), np.uint8), np.array(["a", None], object)),
            "labels.missing", dict(images=("images[1]",)),
        ),
        ((np.zeros((2, 8, 8, 3), np.uint8), [0, np.inf]), "labels.fractions", {}),
    ],
)  # fmt: skip
def test_wrong_pairs(dataset, code, attributes):
    with rejects(DataError, code, **attributes):
        load(dataset)


def test_csv_without_label_and_in_another_encoding(tmp_path):
    folder(tmp_path / "pictures", 1)
    (tmp_path / "list.csv").write_text("pictures/red/002.jpg,\n")
    with rejects(DataError, "table.missing_labels", rows=(f"{tmp_path / 'list.csv'} row 1",)):
        load(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes("pictures/red/002.jpg,m\xfcll\n".encode("latin-1"))
    splits = load(tmp_path / "list.csv")
    assert splits.train.class_names == ("m\xfcll",) and splits.table.encoding == "cp1252"


def test_infinite_tf_data():
    images, _ = arrays(2)
    with rejects(DataError, "tf_data.infinite"):
        load(tf.data.Dataset.from_tensor_slices((images, [0, 1] * 3)).repeat())


def test_weights_of_tf_data_are_reported(capsys, rendered):
    images, _ = arrays(2)
    assert len(load(tf.data.Dataset.from_tensor_slices((images, [0, 1] * 3, np.ones(6)))).train) == 6
    assert "sample weights, are ignored" in capsys.readouterr().out


def test_unlabelled_forms(tmp_path):
    folder(tmp_path, 2, classes=2)
    files = images_of(tmp_path)
    pixels, _ = arrays(1)
    assert unlabelled(tmp_path).names == tuple(files)
    assert unlabelled(files[0]).names == (files[0],)
    assert len(unlabelled([jpeg(pixels[0])])) == 1
    assert len(unlabelled(pixels)) == 3
    assert len(unlabelled(pixels[0])) == 1
    assert unlabelled(np.array(files)).names == unlabelled(Column(files)).names == tuple(files)
    for iterable in (iter(files), (file for file in files), dict.fromkeys(files).keys()):
        assert unlabelled(iterable).names == tuple(files)
    for one in (memoryview(jpeg(pixels[0])), io.BytesIO(jpeg(pixels[0]))):
        assert unlabelled(one).images == [jpeg(pixels[0])]
    assert unlabelled(pixels[0, ..., 0]).images.shape == (1, 40, 48, 1)
    with rejects(DataError, "images.text_file"):
        unlabelled(io.StringIO("x"))
    assert load((Column(files), Column(["a", "b"] * 2))).train.names == tuple(files)
    for gaps in ([*files[:3], math.nan], [None, *files[1:]]):
        with rejects(DataError, "images.mixed", match="leave out rows"):
            load((Column(gaps), ["a", "b"] * 2))
    with rejects(DataError, "dataset.missing", path=tmp_path / "none.jpg"):
        unlabelled(tmp_path / "none.jpg")
    with rejects(DataError, "images.empty_path"):
        unlabelled("")
    with rejects(DataError, "images.web_address", path="http://x/a.jpg"):
        unlabelled("http://x/a.jpg")
    for mixed, types in (([files[0], jpeg(pixels[0])], ("bytes", "str")), ([files[0], pixels[0]], ("ndarray", "str"))):
        with rejects(DataError, "images.mixed", types=types):
            unlabelled(mixed)
    with rejects(DataError, "images.mixed", types=("bytes", "str")):
        load(([*mixed[:1], jpeg(pixels[0])], ["a", "b"]))
    with rejects(DataError, "dataset.empty"):
        load(([], []))
    with rejects(DataError, "images.shape"):
        unlabelled([(pixels[0], 1)])
    for no_images, kind in ((None, "NoneType"), ({"a": 1}, "dict")):
        with rejects(DataError, "images.type", type=kind):
            unlabelled(no_images)


class Column:
    """A column of a table, such as pandas has."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, object)


def test_dark_integer_images_in_a_list_are_checked_once():
    """As float32, which they become, their values would look like 0..1."""
    dark = [np.eye(8, dtype=np.int32)[..., None].repeat(3, -1)] * 4
    assert unlabelled(dark).images.max() == load((dark, ["a", "b"] * 2)).train.images.max() == 1
