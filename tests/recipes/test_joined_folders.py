"""Folders that join a class and a split in their names, folds, and splits inside the classes: used or refused."""

import pytest
from assertions import rejects
from trees import PETS, build, counts, read, where

from recipes.data.folders.layout import (
    ANNOTATIONS,
    CLASSES,
    CLASSES_ABOVE_SPLITS,
    DERIVED,
    JOINED,
    UNSORTED,
    LayoutError,
)
from recipes.data.folders.names import role_of
from recipes.data.sources import load


def folders(*names) -> dict:
    return dict.fromkeys(names, 3)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("trainA", "trainB", "testA", "testB"), ["A", "B"]),
        (("cats_train", "dogs_train", "cats_test", "dogs_test"), ["cats", "dogs"]),
        (("Cats-Train", "Dogs-Train", "Cats-Test", "Dogs-Test"), ["Cats", "Dogs"]),
        (("traincats", "traindogs", "testcats", "testdogs"), ["cats", "dogs"]),
        (("img train cat", "img train dog", "img test cat", "img test dog"), ["img cat", "img dog"]),
    ],
)
def test_classes_and_splits_in_one_name(names, classes):
    layout = read(folders(*names))
    assert layout.kind == JOINED and not layout.usual
    found = where(layout)
    assert {split: sorted(places) for split, places in found.items()} == {"train": classes, "test": classes}
    assert sorted(place for places in found.values() for place in places.values()) == sorted(names)


def test_classes_and_splits_in_one_name_on_disk(tmp_path):
    spec = {"data": {"trainA": 3, "trainB": 2, "valA": 1, "valB": {"a": 2, "thumbs": 2}}}
    splits = load(build(tmp_path, spec))
    assert counts(splits) == {"train": {"A": 3, "B": 2}, "validation": {"A": 1, "B": 2}}
    assert "folders named after a class and a split" in splits.notes[0]


@pytest.mark.parametrize(
    "names",
    [
        ("trainA", "trainB", "testA"),
        ("trainCats", "valCats"),
        ("cats_train", "dogs_train", "cats_test"),
        ("cats_train", "cats_test", "dogs"),
        ("cats_train", "train_cats", "cats_test", "dogs_train", "dogs_test"),
        ("cats_val", "dogs_val", "cats_test", "dogs_test"),
    ],
)
def test_incomplete_names_of_classes_and_splits(names):
    remedy = r"move the images of .* to photos/(train|test)/"
    with rejects(LayoutError, "layout.class_and_split_in_one_name", match=remedy):
        read(folders(*names))


def test_a_joined_folder_of_unsupported_pictures_is_not_lost():
    spec = {"trainA": 3, "testA": 2, "trainB": ["a.heic"], "testB": 2}
    assert where(read(spec))["train"] == {"A": "trainA", "B": "trainB"}
    with rejects(LayoutError, "layout.class_and_split_in_one_name", match="trainA/"):
        read({**spec, "new": ["a.heic"]})


@pytest.mark.parametrize(
    "names",
    [
        ("test tube", "train station"), ("contest", "protest"), ("retest", "retrain"), ("bus", "train"),
        ("cats_train", "dogs_train"), ("Class 1-samples", "Class 2-samples"), ("part1", "part2"), ("0", "1", "2"),
    ],
)  # fmt: skip
def test_names_that_join_nothing(names):
    layout = read(folders(*names))
    assert layout.kind == CLASSES and sorted(layout.parts[0].classes) == sorted(names)


@pytest.mark.parametrize(
    "spec",
    [
        {"fold1": {"0": 3, "1": 3}, "fold2": {"0": 3, "1": 3}},
        {"fold1": PETS, "fold2": {"cats": 2, "birds": 3}},
        {"Fold_1": 3, "Fold_2": 3},
        {"fold_1": {"train": PETS, "val": PETS}, "fold_2": {"train": PETS, "val": PETS}},
        {"part1": {"0": 3, "1": 3}, "part2": {"0": 3, "1": 3}},
        {"train": {"fold1": PETS, "fold2": PETS}, "test": PETS},
        {"data": {"1_fold": PETS, "2_fold": PETS}},
        {"batch_1": {"cats": 3}, "batch_2": {"dogs": 3}},
    ],
)
def test_folds_are_not_classes(spec):
    with rejects(LayoutError, "layout.folds", match="parts of one dataset and not classes; merge"):
        read(spec)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"user1": {"0": 3, "1": 3}, "user2": {"0": 3, "1": 3}}, "two levels"),
        ({"casting_512": {"casting_512": PETS}, "casting": {"casting": {"train": PETS, "test": PETS}}},
         "dataset among classes"),
    ],
)  # fmt: skip
def test_folders_above_the_classes_are_not_classes(spec, problem):
    with rejects(LayoutError, f"layout.{problem.replace(' ', '_')}", problem=problem):
        read(spec)


def test_years_divide_a_class():
    assert list(read({"class 1": {"2019": 2, "2020": 2}, "class 2": {"2019": 2, "2020": 2}}).parts[0].classes) == [
        "class 1", "class 2",
    ]  # fmt: skip


def test_a_flat_test_folder_beside_classes_above_splits():
    layout = read({"ants": {"train": 3, "val": 2}, "bees": {"train": 3, "val": 2}, "test": 5})
    assert layout.kind == CLASSES_ABOVE_SPLITS and list(layout.parts[0].classes) == ["ants", "bees"]
    assert {skip.path: skip.kind for skip in layout.skipped} == {"test": UNSORTED}


def test_leftovers_below_splits_inside_the_classes():
    train = {"a": 3, "thumbs": 3, "masks": 3, "images": 3}
    layout = read({"ants": {"train": train, "val": 2}, "bees": {"train": 3, "val": 2}})
    kinds = {skip.path: skip.kind for skip in layout.skipped}
    assert kinds == {"ants/train/thumbs": DERIVED, "ants/train/masks": ANNOTATIONS}
    assert layout.nested == ("ants/train",)


def test_every_class_needs_the_validation_split():
    remedy = r"train/, val/ in ants/, but .* bees/; give every class the same"
    with rejects(LayoutError, "layout.splits_in_some_classes", match=remedy):
        read({"ants": {"train": 3, "val": 2}, "bees": {"train": 3}})
    layout = read({"ants": {"train": 3, "val": 2}, "bees": {"train": 3, "val": {}}})
    assert where(layout)["validation"] == {"ants": "ants/val", "bees": ()}


def test_evaluating_beside_a_flat_test_folder():
    layout = read({**PETS, "test": 3}, ("cats", "dogs"))
    assert where(layout) == {"train": {"cats": "cats", "dogs": "dogs"}}
    assert [(skip.path, skip.kind) for skip in layout.skipped] == [("test", UNSORTED)]


@pytest.mark.parametrize("name", ["1_train", "a. Training Set", "01-train", "2) train"])
def test_numbered_splits(name):
    assert role_of(name) == "train"
