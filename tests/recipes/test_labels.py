"""Labels as lists, arrays, columns and datasets hold them: one reading of all, or a refusal that names the image."""

import unicodedata
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

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
    ("labels", "message"),
    [
        (["a", NAN, "b", NAN], r"2 of 4 labels are missing: images\[1\] \(nan\), images\[3\]"),
        (np.array(["a", NAN, "b"]), r"1 of 3 .*images\[1\] \('nan'\)"),  # NumPy has made text of it
        (Column("a", NAN), "1 of 2 labels are missing"),
        (Column("a", None), "1 of 2 labels are missing"),
        (Column("a", NAType()), "1 of 2 labels are missing"),
        (Column(0, np.datetime64("NaT")), "1 of 2 labels are missing"),
        ([0, 1, NAN], "1 of 3 labels are missing"),
        (np.array([0, NAN]), "1 of 2 labels are missing"),
        (["a", ""], "1 of 2 labels are missing"),
        (["a", " \t"], "1 of 2 labels are missing"),
        ([b"a", b""], "1 of 2 labels are missing"),
        (["a", "<NA>"], "1 of 2 labels are missing"),
        (["1", 1], r"mix number and text: 1 \(images\[1\]\), '1' \(images\[0\]\)"),
        ([True, 1], "mix boolean and number"),
        (["1", "01"], r"\['01', '1'\] are several spellings of one number"),
        (["1.0", "1", "2"], "several spellings of one number"),
        ([b"\xff", b"a"], r"label of images\[0\] is b'\\xff', which is not UTF-8"),
        ([["a", "b"], ["c"]], "multi-label"),
        ([["a", "b"], ["c", "d"]], "multi-label"),
        ([{"a"}, {"a", "b"}], r"images\[0\] is {'a'}, several labels.*multi-label"),
        (Column(["a"], ["a", "b"]), "several labels.*multi-label"),
        (np.array([[1, 1], [0, 1]]), "multi-label"),
        ([[0.2, 0.8], [0.5, 0.5]], "probabilities; soft labels"),
        (["a|b", "a"], r"'a\|b' is several labels in one"),
        (["cat|dog", "bird"], r"'cat\|dog' is several labels in one, separated by '\|'"),
        (["bird", "No finding | Mass"], r"'No finding \| Mass' is several labels in one"),
        (["a;b", "b;c"], "'a;b' is several labels in one"),
        (["a", "b", "a,b"], "'a,b' is several labels in one"),
        (["cat", "dog", "cat/dog"], "'cat/dog' is several labels in one"),
        (["cat", "dog", "dog + cat"], r"'dog \+ cat' is several labels in one"),
        (["cat", "dog", "cat & dog"], "'cat & dog' is several labels in one"),
        (["cat", "dog", "cat and dog"], "'cat and dog' is several labels in one"),
        (["a", "b", "c", "a_b", "b_c"], "'a_b' is several labels in one"),
        (np.ma.array([0, 1, 2], mask=[False, True, False]), r"1 of 3 labels are missing: images\[1\]"),
        ([0, np.ma.masked], r"1 of 2 labels are missing: images\[1\]"),
        (["['a']", "['a', 'b']"], "several labels in one"),
        (["chair", "car", "chair car", "car chair"], "several labels in one"),
        (["clear primary", "haze primary", "clear primary water", "haze primary water", "clear", "haze",
          "clear farm primary", "haze farm"], "several labels in one"),
        ([1, 2, 3, 4, 5], r"no image has label \[0\]"),
        ([1.5, 2.0], "fractions.*join measurements into a few ranges"),
        ([1e30, 0.0], "out of range"),
        ([2**70, 0], "out of range"),
        ([1j, 0], "type complex"),
        (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), "type datetime64"),
        ({"a", "b"}, "type set; expected a list"),
        ("ab", "type str; expected a list"),
        (7, "type int; expected a list"),
    ],
)  # fmt: skip
def test_labels_that_are_refused(labels, message):
    count = len(labels) if hasattr(labels, "__len__") else 2
    with pytest.raises(DataError, match=message):
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
    ("labels", "message"),
    [
        (["a", "", "b"], r"labels are missing: dataset\[1\]"),
        (["a|b", "a", "b"], "several labels in one"),
        ([0.0, NAN, 1.0], "labels are missing"),
        ([[1, 1], [0, 1], [1, 0]], "multi-label"),
        (tf.ragged.constant([[1], [0, 1], [1]]), "multi-label"),
    ],
)
def test_a_dataset_is_refused_as_arrays_are(labels, message):
    with pytest.raises(DataError, match=message):
        load(tf.data.Dataset.from_tensor_slices((pixels(3), labels)))


def test_a_dataset_of_dicts_says_how_to_choose():
    with pytest.raises(DataError, match=r"dataset.map\(lambda example"):
        load(tf.data.Dataset.from_tensor_slices({"image": pixels(2), "label": [0, 1]}))


def test_given_classes_are_met_in_any_spelling_of_the_same_text():
    made = labelled(["x"] * 3, ["a ", NFD, "b"], ["x"] * 3, ("a", NFC, "b"))
    assert made.labels.tolist() == [0, 1, 2]
    old = labelled(["x"], [NFC], ["x"], ("b", NFD))  # a run of folders that a Mac named
    assert (old.labels.tolist(), old.class_names) == ([1], ("b", NFD))
    both = labelled(["x"] * 2, ["cat", "cat "], ["x"] * 2, ("cat", "cat "))  # two folders
    assert both.labels.tolist() == [0, 1]


@pytest.mark.parametrize(("label", "known"), [("Ant", "ant"), ("1.0", "1"), ("red_fox", "red fox")])
def test_a_label_that_is_spelled_otherwise(label, known):
    with pytest.raises(DataError, match=rf"spelled '{label}' for '{known}'"):
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
def test_floats_are_said_to_be_read_as_classes(capsys, labels, hint, rendered):
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
    with pytest.raises(DataError, match="1 of the 3 images of the split train have no label"):
        load("tfds:x")


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": ["b", "a", "b"], "other": [1, 2, 3]}, index=[7, 3, 5])
    for labels in (frame.label, frame.label.astype("category"), frame.label.astype("string")):
        assert load((pixels(3), labels)).train.labels.tolist() == [1, 0, 1]
    frame.loc[3, "label"] = None
    for labels in (frame.label, frame.label.astype("category"), frame.label.astype("string"), frame.label.astype(str)):
        with pytest.raises(DataError, match=r"1 of 3 labels are missing: images\[1\]"):
            load((pixels(3), labels))
    with pytest.raises(DataError, match="1 of 2 labels are missing"):
        load((pixels(2), pandas.Series([0, None], dtype="Int64")))
    with pytest.raises(DataError, match=r"dataset is a DataFrame: give its columns"):
        load(frame)


def test_polars():
    polars = pytest.importorskip("polars")
    assert load((pixels(2), polars.Series(["b", "a"]))).train.labels.tolist() == [1, 0]
    assert load((pixels(2), polars.Series(["b", "a"], dtype=polars.Categorical))).train.labels.tolist() == [1, 0]
    for missing in (polars.Series(["a", None]), polars.Series([0, None])):
        with pytest.raises(DataError, match="1 of 2 labels are missing"):
            load((pixels(2), missing))
