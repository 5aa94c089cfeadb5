"""Labels as lists, arrays, columns and datasets hold them: one reading of all, or an error that names the image."""

import unicodedata
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects

from recipes import DataError
from recipes.data.class_names import class_name_findings
from recipes.data.images import labelled
from recipes.data.labels import alike, clean
from recipes.data.sources import load

NAN = float("nan")
NFC, NFD = "caf\xe9", unicodedata.normalize("NFD", "caf\xe9")


class Column:
    """A column of a table, such as pandas and polars have: an array of objects is all that it promises."""

    def __init__(self, *values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, object)


class Pet(str, Enum):  # noqa: UP042 (its text is its value, but str() gives Pet.CAT)
    CAT, DOG = "cat", "dog"


class NAType:
    """As pandas.NA: to compare it with itself gives neither True nor False."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None


def pixels(count: int) -> np.ndarray:
    return np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "positions"),
    [
        (["b", "a ", " a", "a\n"], ("a", "b"), [1, 0, 0, 0]),
        ([NFC, NFD, "x"], (NFC, "x"), [0, 0, 1]),
        (["a\u200b", "\ufeffa", "b\xa0", "b"], ("a", "b"), [0, 0, 1, 1]),
        ([b"a", b"b"], ("a", "b"), [0, 1]),
        (np.array([b"b", b"a"]), ("a", "b"), [1, 0]),
        ([np.str_("b"), "a"], ("a", "b"), [1, 0]),
        (Column("b", "a"), ("a", "b"), [1, 0]),
        (Column(1, 0), ("0", "1"), [1, 0]),
        ([True, False], ("False", "True"), [1, 0]),
        (np.array([True, False]), ("False", "True"), [1, 0]),
        (Column(True, False), ("False", "True"), [1, 0]),
        (["True", "False"], ("False", "True"), [1, 0]),
        ([1.0, 0.0], ("0", "1"), [1, 0]),
        ([np.int64(1), 0], ("0", "1"), [1, 0]),
        (np.array([[1], [0]]), ("0", "1"), [1, 0]),
        (np.array([["b"], ["a"]]), ("a", "b"), [1, 0]),
        ([[0, 1], [1, 0]], ("0", "1"), [1, 0]),
        (np.eye(2, dtype=bool)[[1, 0]], ("0", "1"), [1, 0]),
        (["1", "2"], ("1", "2"), [0, 1]),
        (["red", "panda", "red panda"], ("panda", "red", "red panda"), [1, 0, 2]),
        (["Pepper, bell", "Pepper, hot"], ("Pepper, bell", "Pepper, hot"), [0, 1]),
        (["[UNK]", "a"], ("[UNK]", "a"), [0, 1]),
        ([Pet.DOG, Pet.CAT], ("cat", "dog"), [1, 0]),
        (np.array([Pet.DOG, Pet.CAT], object), ("cat", "dog"), [1, 0]),
        (np.ma.array([1, 0]), ("0", "1"), [1, 0]),
        (["salt & pepper", "salt", "1/2"], ("1/2", "salt", "salt & pepper"), [2, 1, 0]),
        (["cat_dog", "cat", "dog"], ("cat", "cat_dog", "dog"), [1, 0, 2]),
        (["None", "none of these"], ("None", "none of these"), [0, 1]),
        (["Ant", "ant"], ("Ant", "ant"), [0, 1]),  # letters may be classes; the audit reports that they are alike
    ],
)
def test_labels_that_are_read(labels, classes, positions):
    data = load((pixels(len(positions)), labels)).train
    assert (data.class_names, data.labels.tolist()) == (classes, positions)


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        (["a", NAN, "b", NAN], (1, 3)),
        (np.array(["a", NAN, "b"]), (1,)),  # NumPy has made text of it
        (Column("a", NAN), (1,)),
        (Column("a", None), (1,)),
        (Column("a", NAType()), (1,)),
        (Column(0, np.datetime64("NaT")), (1,)),
        ([0, 1, NAN], (2,)),
        (np.array([0, NAN]), (1,)),
        (["a", ""], (1,)),
        (["a", " \t"], (1,)),
        ([b"a", b""], (1,)),
        (["a", "<NA>"], (1,)),
        (np.ma.array([0, 1, 2], mask=[False, True, False]), (1,)),
        ([0, np.ma.masked], (1,)),
    ],
)
def test_missing_labels_are_rejected(labels, images):
    with rejects(DataError, "labels.missing", images=tuple(f"images[{i}]" for i in images)):
        load((pixels(len(labels)), labels))


@pytest.mark.parametrize(
    ("labels", "label", "separator"),
    [
        (["a|b", "a"], "a|b", "|"),
        (["cat|dog", "bird"], "cat|dog", "|"),
        (["bird", "No finding | Mass"], "No finding | Mass", "|"),
        (["a;b", "b;c"], "a;b", ";"),
        (["a", "b", "a,b"], "a,b", ","),
        (["cat", "dog", "cat/dog"], "cat/dog", "/"),
        (["cat", "dog", "dog + cat"], "dog + cat", "+"),
        (["cat", "dog", "cat & dog"], "cat & dog", "&"),
        (["cat", "dog", "cat and dog"], "cat and dog", "and"),
        (["a", "b", "c", "a_b", "b_c"], "a_b", "_"),
        (["['a']", "['a', 'b']"], "['a', 'b']", "["),
        (["chair", "car", "chair car", "car chair"], "car chair", " "),
        (["clear primary", "haze primary", "clear primary water", "haze primary water", "clear", "haze",
          "clear farm primary", "haze farm"], "clear farm primary", " "),
    ],
)  # fmt: skip
def test_several_labels_in_one_are_rejected(labels, label, separator):
    with rejects(DataError, "labels.multi_label", label=label, separator=separator):
        load((pixels(len(labels)), labels))


@pytest.mark.parametrize(
    ("labels", "code", "attributes"),
    [
        (["1", 1], "labels.mixed", dict(kinds=("number", "text"), match=r"1 \(images\[1\]\), '1' \(images\[0\]\)")),
        ([True, 1], "labels.mixed", dict(kinds=("boolean", "number"))),
        (["1", "01"], "labels.spellings", dict(labels=("01", "1"))),
        (["1.0", "1", "2"], "labels.spellings", dict(labels=("1", "1.0"))),
        ([b"\xff", b"a"], "labels.encoding", dict(image="images[0]")),
        ([["a", "b"], ["c"]], "labels.multi_label", {}),
        ([["a", "b"], ["c", "d"]], "labels.multi_label", {}),
        ([{"a"}, {"a", "b"}], "labels.multi_label", dict(image="images[0]")),
        (Column(["a"], ["a", "b"]), "labels.multi_label", dict(image="images[0]")),
        (np.array([[1, 1], [0, 1]]), "labels.multi_label", {}),
        ([[0.2, 0.8], [0.5, 0.5]], "labels.probabilities", {}),
        ([1, 2, 3, 4, 5], "labels.gaps", dict(missing=(0,))),
        ([1.5, 2.0], "labels.fractions", dict(match="join measurements into a few ranges")),
        ([1e30, 0.0], "labels.out_of_range", dict(value=1e30)),
        ([2**70, 0], "labels.out_of_range", dict(value=2**70)),
        ([1j, 0], "labels.type", dict(type="complex", image="images[0]")),
        (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "labels.type", dict(type="datetime64[D]")),
        ({"a", "b"}, "labels.type", dict(type="set")),
        ("ab", "labels.type", dict(type="str")),
        (7, "labels.type", dict(type="int")),
    ],
)
def test_labels_that_are_rejected(labels, code, attributes):
    count = len(labels) if hasattr(labels, "__len__") else 2
    with rejects(DataError, code, **attributes):
        load((pixels(count), labels))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["cat ", "dog", "cat"], ("cat", "dog")),
        ([NFD, NFC, "x"], (NFC, "x")),
        ([True, False, True], ("False", "True")),
        ([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]], ("0", "1")),
    ],
)
def test_a_dataset_is_read_as_arrays_are(labels, classes):
    data = load(tf.data.Dataset.from_tensor_slices((pixels(3), labels))).train
    arrays = load((pixels(3), labels)).train
    assert data.class_names == arrays.class_names == classes
    np.testing.assert_array_equal(data.labels, arrays.labels)


@pytest.mark.parametrize(
    ("labels", "code", "attributes"),
    [
        (["a", "", "b"], "labels.missing", dict(images=("dataset[1]",))),
        (["a|b", "a", "b"], "labels.multi_label", dict(label="a|b")),
        ([0.0, NAN, 1.0], "labels.missing", dict(images=("dataset[1]",))),
        ([[1, 1], [0, 1], [1, 0]], "labels.multi_label", {}),
        (tf.ragged.constant([[1], [0, 1], [1]]), "tf_data.elements", dict(match="multi-label")),
    ],
)
def test_a_dataset_is_rejected_as_arrays_are(labels, code, attributes):
    with rejects(DataError, code, **attributes):
        load(tf.data.Dataset.from_tensor_slices((pixels(3), labels)))


def test_a_dataset_of_dicts_says_how_to_choose():
    with rejects(DataError, "tf_data.elements", match=r"dataset.map\(lambda example"):
        load(tf.data.Dataset.from_tensor_slices({"image": pixels(2), "label": [0, 1]}))


def test_given_classes_are_found_in_any_spelling_of_the_same_text():
    made = labelled(["x"] * 3, ["a ", NFD, "b"], ["x"] * 3, ("a", NFC, "b"))
    assert made.labels.tolist() == [0, 1, 2]
    old = labelled(["x"], [NFC], ["x"], ("b", NFD))  # a run of folders that a Mac named
    assert (old.labels.tolist(), old.class_names) == ([1], ("b", NFD))
    both = labelled(["x"] * 2, ["cat", "cat "], ["x"] * 2, ("cat", "cat "))  # two folders
    assert both.labels.tolist() == [0, 1]


@pytest.mark.parametrize(("label", "known"), [("Ant", "ant"), ("1.0", "1"), ("red_fox", "red fox")])
def test_a_label_that_is_spelled_otherwise(label, known):
    with rejects(DataError, "labels.unknown", labels=(label,), match=rf"spelled '{label}' for '{known}'"):
        labelled(["x"], [label], ["x"], (known, "b"))


def test_clean_and_alike():
    assert clean(f" \u200b{NFD}\xa0") == NFC
    assert clean("a b") == "a b" and clean("\u200b") == ""
    assert clean("\u0915\u094d\u200d\u0937") == "\u0915\u094d\u200d\u0937"  # a joiner within a word is a part of it
    assert alike("Red_Fox") == alike("red fox ") and alike("01") == alike("1.0")
    assert len({alike("10"), alike("1.0"), alike("-1"), alike("+"), alike("-")}) == 5


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("a", "b"), []),
        (("0", "1", "2", "3"), []),
        (("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"), []),
        (("0", "2"), []),
        (("1", "2", "3", "4", "5"), ["numbers as class names"]),
        (("18", "19", "21"), ["numbers as class names"]),
        (("0.5", "1.0", "1.5"), ["numbers as class names"]),
        (("Ant", "ant"), ["alike class names"]),
        (("None", "a"), ["name of a missing value"]),
    ],
)
def test_findings(names, kinds):
    assert [finding.kind for finding in class_name_findings(names)] == kinds


@pytest.mark.parametrize(("labels", "hint"), [([0.0, 1, 2], True), ([0, 1, 2], False), ([0.0, 1, 0], False)])
def test_floats_that_are_read_as_classes_are_reported(capsys, labels, hint, rendered):
    assert load((pixels(3), labels)).train.labels.tolist() == labels
    assert ("classes without an order" in capsys.readouterr().out) == hint


def test_ratings_are_reported():
    from recipes import audit

    noise = np.random.default_rng(0).integers(0, 255, (15, 16, 16, 3)).astype(np.uint8)
    found = {finding.kind: finding for finding in audit((noise, [f"{1 + i % 5}" for i in range(15)])).findings}
    finding = found["numbers as class names"]
    assert finding.files == ("1", "2", "3", "4", "5") and "5 classes without an order" in finding.action


def test_tfds_images_without_a_label(monkeypatch, capsys, rendered):
    """TFDS gives them the label -1, which Python would take for the last class."""
    tfds = pytest.importorskip("tensorflow_datasets")
    labels = {"train": [0, 1, 1], "test": [-1, -1]}

    class Builder:
        info = SimpleNamespace(
            supervised_keys=("image", "label"),
            features={"image": None, "label": SimpleNamespace(names=["b", "a"])},
            splits=labels,
        )

        def download_and_prepare(self):
            pass

        def as_dataset(self, split, decoders):
            return [{"image": b"x", "label": label} for label in labels[split]]

    monkeypatch.setattr(tfds, "builder", lambda name: Builder())
    monkeypatch.setattr(tfds, "as_numpy", lambda dataset: dataset)
    splits = load("tfds:x")
    assert splits.train.class_names == ("a", "b") and splits.train.labels.tolist() == [1, 0, 0]
    assert splits.test is None and "the split test has no labels" in capsys.readouterr().out
    labels["train"] = [0, 1, -1]
    with rejects(DataError, "tfds.labels", name="x", split="train", missing=1):
        load("tfds:x")


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": ["b", "a", "b"], "other": [1, 2, 3]}, index=[7, 3, 5])
    for labels in (frame.label, frame.label.astype("category"), frame.label.astype("string")):
        assert load((pixels(3), labels)).train.labels.tolist() == [1, 0, 1]
    frame.loc[3, "label"] = None
    for labels in (frame.label, frame.label.astype("category"), frame.label.astype("string"), frame.label.astype(str)):
        with rejects(DataError, "labels.missing", images=("images[1]",)):
            load((pixels(3), labels))
    with rejects(DataError, "labels.missing", images=("images[1]",)):
        load((pixels(2), pandas.Series([0, None], dtype="Int64")))
    with rejects(DataError, "dataset.type", type="DataFrame", match="whose columns can be given as"):
        load(frame)


def test_polars():
    polars = pytest.importorskip("polars")
    assert load((pixels(2), polars.Series(["b", "a"]))).train.labels.tolist() == [1, 0]
    assert load((pixels(2), polars.Series(["b", "a"], dtype=polars.Categorical))).train.labels.tolist() == [1, 0]
    for missing in (polars.Series(["a", None]), polars.Series([0, None])):
        with rejects(DataError, "labels.missing", images=("images[1]",)):
            load((pixels(2), missing))
