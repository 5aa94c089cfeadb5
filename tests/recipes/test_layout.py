"""How folders are recognised: what is a class, what a split, what is skipped with a note, and what is rejected."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from assertions import rejects
from makers import small_network
from trees import PETS, build, counts, found, read, tree, where

import recipes
from recipes import DataError, audit
from recipes.data.folders.layout import (
    ANNOTATIONS,
    CLASSES,
    CLASSES_ABOVE_SPLITS,
    COPY,
    OWN_OUTPUT,
    SPLITS,
    UNRELATED,
    UNSORTED,
    LayoutError,
)
from recipes.data.folders.names import mask_files, role_of, roles_of
from recipes.data.folders.reader import images_of
from recipes.data.folders.tree import SYSTEM, scan
from recipes.data.sources import load, unlabelled

RUN = ["result.json", "model.keras", "report.html"]


def at(*folders, names=("cats", "dogs")) -> dict:
    """{split: {class: its folder}} for split folders of these paths; the split is what the name begins with."""
    split = {"tr": "train", "va": "validation", "te": "test"}
    found = {}
    for folder in folders:
        role = next(role for role in split.values() if role_of(folder.split("/")[0].removeprefix("seg_")) == role)
        found[role] = {name: f"{folder}/{name}" for name in names}
    return found


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"train": PETS, "val": PETS, "test": PETS}, at("train", "val", "test")),
        ({"Train": PETS, "VALID": PETS, "Testing": PETS}, at("Train", "VALID", "Testing")),
        ({"training_set": {"training_set": PETS}, "test_set": {"test_set": PETS}},
         at("training_set/training_set", "test_set/test_set")),
        ({"seg_train": {"seg_train": PETS}, "seg_test": {"seg_test": PETS}},
         at("seg_train/seg_train", "seg_test/seg_test")),
        ({"train": {"images": PETS}, "val": {"images": PETS}}, at("train/images", "val/images")),
        ({"train": PETS, "dev": PETS, "holdout": PETS}, at("train", "dev", "holdout")),
        ({"train": PETS, "eval": PETS}, at("train", "eval")),
    ],
)  # fmt: skip
def test_split_folders(spec, expected):
    layout = read(spec)
    assert layout.kind == SPLITS and layout.usual and layout.skipped == ()
    assert where(layout) == expected


@pytest.mark.parametrize("wrapper", ["photos", "archive/dataset", "images", "a/b/c/d"])
@pytest.mark.parametrize("spec", [PETS, {"train": PETS, "val": PETS}])
def test_wrapper_folders(wrapper, spec):
    wrapped = spec
    for name in reversed(wrapper.split("/")):
        wrapped = {name: wrapped, "README.md": ""}
    layout = read(wrapped)
    assert (layout.folder, layout.usual, layout.skipped) == (wrapper, False, ())
    flat = where(read(spec))
    assert where(layout) == {s: {c: f"{wrapper}/{p}" for c, p in places.items()} for s, places in flat.items()}
    assert f"below {wrapper}/" in str(layout) and "cats, dogs" in str(layout)


def test_splits_inside_the_classes():
    layout = read({"ants": {"train": 3, "val": 2, "test": 1}, "bees": {"Training": 3, "valid": 2}})
    assert layout.kind == CLASSES_ABOVE_SPLITS and not layout.usual
    assert where(layout) == {
        "train": {"ants": "ants/train", "bees": "bees/Training"},
        "validation": {"ants": "ants/val", "bees": "bees/valid"},
        "test": {"ants": "ants/test", "bees": ()},
    }


@pytest.mark.parametrize(
    ("spec", "skipped"),
    [
        ({**PETS, "__MACOSX": 3, "@eaDir": 2}, {"__MACOSX": SYSTEM, "@eaDir": SYSTEM}),
        ({**PETS, "run": RUN}, {"run": OWN_OUTPUT}),
        ({**PETS, "serving": {"1": ["saved_model.pb"], "2": ["saved_model.pb"]}}, {"serving": OWN_OUTPUT}),
        ({**PETS, "onnx": {"model.onnx": "", "assets.extra": ["model_card.md"]}}, {"onnx": OWN_OUTPUT}),
        ({**PETS, "search": ["recipe.json", "trials.csv", "search.svg"]}, {"search": OWN_OUTPUT}),
        ({**PETS, "cache": [f"{'0a' * 16}.npz"]}, {"cache": OWN_OUTPUT}),
        ({**PETS, "packed": ["pack.json", "index.npz"]}, {"packed": OWN_OUTPUT}),
        ({**PETS, "venv": {"pyvenv.cfg": "", "lib": 3}}, {"venv": OWN_OUTPUT}),
        ({**PETS, "notes": ["a.txt"]}, {"notes": UNRELATED}),
        ({**PETS, "test": {}}, {"test": UNRELATED}),
        ({**PETS, "masks": PETS}, {"masks": ANNOTATIONS}),
        ({"cats": {"images": 3, "masks": 3}, "dogs": {"images": 3, "masks": 3}},
         {"cats/masks": ANNOTATIONS, "dogs/masks": ANNOTATIONS}),
        ({"Images": PETS, "Annotation": {"cats": ["a.xml"], "dogs": ["b.xml"]}}, {"Annotation": ANNOTATIONS}),
        ({"images": {"train": PETS, "val": PETS}, "masks": {"train": 3, "val": 3}}, {"masks": ANNOTATIONS}),
        ({"train": PETS, "masks": PETS}, {"masks": ANNOTATIONS}),
        ({"train": PETS, "test": 7}, {"test": UNSORTED}),
        ({"train": PETS, "valid": 7, "test": {"test": 7}}, {"test": UNSORTED, "valid": UNSORTED}),
        ({"train": PETS, "test": {"unknown": 7}}, {"test": UNSORTED}),
        ({"train": PETS, "test1": 7}, {"test1": UNSORTED}),
        ({"train": PETS, "my_test_photos": 7}, {"my_test_photos": UNSORTED}),
        ({"train": PETS, "unlabeled": 7}, {"unlabeled": UNSORTED}),
        ({"train": PETS, "test": ["a.heic"]}, {"test": UNSORTED}),
        ({**PETS, "test": ["a.heic"]}, {"test": UNSORTED}),
        ({"seg_train": PETS, "seg_test": PETS, "seg_pred": {"seg_pred": 7}}, {"seg_pred": UNSORTED}),
        ({"train": PETS, "val": {}}, {"val": UNRELATED}),
        ({"train": PETS, "val": PETS, "pets": {"train": PETS, "val": PETS}}, {"pets": COPY}),
        ({"ILSVRC": {"Data": {"CLS-LOC": {"train": PETS, "val": 5}}, "ImageSets": ["a.txt"]}},
         {"ILSVRC/ImageSets": UNRELATED, "ILSVRC/Data/CLS-LOC/val": UNSORTED}),
    ],
)  # fmt: skip
def test_what_is_skipped(spec, skipped):
    layout = read(spec)
    assert {skip.path: skip.kind for skip in layout.skipped} == skipped
    assert [list(part.classes) for part in layout.parts] == [["cats", "dogs"]] * len(layout.parts)
    assert not any(place.startswith(tuple(skipped)) for part in layout.parts for [place] in part.classes.values())


def test_tiny_imagenet():
    spec = {
        "train": {"n01": {"images": 3, "n01_boxes.txt": ""}, "n02": {"images": 3, "n02_boxes.txt": ""}},
        "val": {"images": 4, "val_annotations.txt": ""}, "test": {"images": 4}, "wnids.txt": "",
    }  # fmt: skip
    layout = read(spec)
    assert where(layout) == {"train": {"n01": "train/n01", "n02": "train/n02"}}
    assert {skip.path: skip.detail for skip in layout.skipped} == {
        "test": "", "val": "the labels may be in val_annotations.txt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "problem", "message"),
    [
        ({"ants": {"train": 3, "val": 2}, "bees": 3}, "splits in some classes", "train/, val/ in ants/, but .*bees/"),
        ({"images": 3, "masks": 3}, "annotations", "images/, masks/.*do not give the class"),
        ({"JPEGImages": 3, "Annotations": ["a.xml"], "ImageSets": ["a.txt"]}, "annotations", "JPEGImages/, Annot"),
        ({"images": {"train": 3, "val": 3}, "labels": {"train": ["a.txt"]}}, "annotations", "images/, labels/"),
        ({"train": {"images": 3, "labels": ["a.txt"]}, "valid": {"images": 3, "labels": ["a.txt"]}}, "annotations",
         "photos/train holds images/, labels/"),
        ({"train2017": 3, "val2017": 3, "annotations": ["a.json"]}, "unsorted splits", "beside annotations/"),
        ({"train": 9, "test": 9}, "unsorted splits", "test/, train/ without class folders"),
        ({"train": 9, "test1": 9}, "unsorted splits", "test1/, train/ without class folders"),
        ({"train": 9, "val": 9, "train.csv": ""}, "unsorted splits", "if train.csv lists the class of each image"),
        ({"train": [f"{pet}.{i}.jpg" for pet in PETS for i in range(9)]}, "unsorted splits", "begin with cats, dogs"),
        ({"train": 9}, "unsorted splits", "train/ without class folders"),
        ({"images": 9}, "no class folders", "its images in images/"),
        ({"photos": {"photos": 9}}, "no class folders", "its images in photos/"),
        ({**PETS, "test": 3}, "ambiguous split", "if test/ is a class, .*another name; if it is a split"),
        ({**PETS, "train": 3, "Validation": 3}, "ambiguous split", "beside them Validation/"),
        ({**PETS, "unlabeled": 3}, "ambiguous split", "unlabeled/"),
        ({"hospital": PETS, "clinic": PETS}, "two levels", "clinic/, hospital/ and in each of them cats/, dogs/"),
        ({"amazon": {"images": PETS}, "webcam": {"images": {**PETS, "birds": 2}}}, "two levels", "amazon/, webcam/"),
        ({"train": PETS, "extra": PETS}, "stranger", "beside it extra/"),
        ({"train": PETS, "val": PETS, "valid": PETS}, "split twice", "val/ and valid/"),
        ({"val": PETS, "test": PETS}, "no train", "class folders in test/, val/ but no train/"),
        ({"train": 3, "val": PETS}, "no train", "val/ but no train/ with class folders"),
        ({"train": PETS, "val": {"cats": ["a.heic"]}}, "no class folders", "photos/val has folders cats/ .*HEIC"),
        ({"train": {"cats": ["a.heic"]}, "val": PETS}, "no class folders", "photos/train has folders cats/ .*HEIC"),
        (["train.zip", "test.zip"], "archive", "unpack"),
        (["a.tfrecord"], "not a pack", "copied completely"),
        ([*"abc", "a.jpg", "labels.csv"], "no class folders", "1 images but no class folders.*labels.csv"),
        (RUN, OWN_OUTPUT, "photos is a saved run"),
        ({"1": ["saved_model.pb"]}, OWN_OUTPUT, "photos is an exported model"),
        ({"__MACOSX": 3}, "no class folders", "it holds __MACOSX/"),
        ({}, "no class folders", "is empty"),
    ],
)  # fmt: skip
def test_rejected_folders(spec, problem, message):
    """The message names the folders at fault."""
    with rejects(LayoutError, f"layout.{problem.replace(' ', '_')}", problem=problem, match=message) as caught:
        read(spec)
    assert caught.value.path.startswith("photos")


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"bus": 3, "car": 3, "train": 3}, ["bus", "car", "train"]),
        ({"mask": 3, "no_mask": 3}, ["mask", "no_mask"]),
        ({**PETS, "unknown": 3}, ["cats", "dogs", "unknown"]),
        ({**PETS, "birds": {}}, ["birds", "cats", "dogs"]),
        ({**PETS, "birds": ["a.heic"]}, ["birds", "cats", "dogs"]),
        ({"cats": {"2019": 2, "2020": 2}, "dogs": {"2019": 2, "2020": 2}}, ["cats", "dogs"]),
        ({"test_tube": 3, "train_station": 3}, ["test_tube", "train_station"]),
        ({"Cats": 3, "cats": 3}, ["Cats", "cats"]),
        ({"cats": 3}, ["cats"]),
        ({"cats": {"images": 3}, "dogs": {"images": 3}}, ["cats", "dogs"]),
    ],
)
def test_class_folders(spec, names):
    layout = read(spec)
    assert (layout.kind, layout.folder, layout.skipped) == (CLASSES, "", ())
    assert where(layout) == {"train": {name: name for name in names}}


@pytest.mark.parametrize(
    ("spec", "nested"),
    [
        ({"dogs": {"poodle": 3, "pug": 3}, "cats": 3}, ("dogs",)),
        ({"benign": {"SOB": {"a": 2, "b": 2}}, "malignant": {"SOB": {"c": 2, "d": 2}}}, ("benign", "malignant")),
        ({"cats": {"one": 3}, "dogs": {"images": 3}}, ()),
    ],
)
def test_nested_folders(spec, nested):
    assert read(spec).nested == nested


def test_a_class_called_test_in_every_split():
    """Nothing is ambiguous about it there, nor where the classes are known."""
    classes = {**PETS, "test": 3}
    assert list(read({"train": classes, "val": classes}).parts[0].classes) == ["cats", "dogs", "test"]
    with rejects(LayoutError, "layout.ambiguous_split", match="beside them test/"):
        read({"train": classes})
    assert list(read(classes, ("cats", "dogs", "test")).parts[0].classes) == ["cats", "dogs", "test"]


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"cats": 3}, "cats"),
        ({"cats": {"one": 3, "two": 3}}, "cats"),
        ({"test": {"cats": 3}}, "test/cats"),
        ({"photos": {"test": {"cats": 3}}}, "photos/test/cats"),
    ],
)
def test_folders_to_evaluate_on(spec, place):
    """The classes are known: fewer of them will do, and a split alone is a dataset."""
    assert where(read(spec, ("cats", "dogs"))) == {"train": {"cats": place}}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"), ("TRAINING", "train"), ("Training Data", "train"), ("trainset", "train"),
        ("train2017", "train"), ("val", "validation"), ("valid", "validation"),
        ("Validation-Images", "validation"), ("dev_set", "validation"),
        ("eval", "validation"), ("images_val", "validation"), ("test", "test"), ("Testing", "test"),
        ("testset", "test"), ("hold-out", "test"), ("test_images", "test"), ("test1", "test"),
        ("unlabelled", "unlabelled"),
        ("trains", None), ("train_station", None), ("contest", None), ("data", None), ("retest", None), ("", None),
    ],
)  # fmt: skip
def test_roles(name, role):
    assert role_of(name) == role


def test_roles_without_what_the_names_share():
    assert roles_of(["flowers-train", "flowers-test"]) == {"flowers-train": "train", "flowers-test": "test"}
    assert roles_of(["train_pets", "val_pets"]) == {"train_pets": "train", "val_pets": "validation"}
    assert set(roles_of(["blood_test", "eye_test"]).values()) == {None}


def test_masks_beside_their_images():
    names = ["a.png", "a_mask.png", "a_mask_1.png", "a_gt.png", "b_mask.png", "mask.png"]
    assert list(mask_files(names)) == ["a_mask.png", "a_mask_1.png", "a_gt.png"]


# On disk: what is read, what is noted, and who says so.


def test_the_tree_on_disk_is_the_tree_of_the_names(tmp_path):
    spec = {"train": {**PETS, "notes": ["a.txt"]}, "__MACOSX": 2, "README.md": "", "test": {"unknown": 3}}
    assert scan(build(tmp_path / "photos", spec)) == tree(spec)


def test_classes_and_files_as_keras_lists_them(tmp_path):
    import keras

    build(tmp_path, {"b": ["2.jpg", "10.jpg", "B.jpg"], "a": {"z": ["1.jpg"], "y": ["1.jpg"]}, "C": ["0.jpg"], "10": 2})
    dataset = keras.utils.image_dataset_from_directory(tmp_path, shuffle=False, verbose=False)
    train = load(tmp_path).train
    assert train.class_names == tuple(dataset.class_names)
    assert sorted(zip(train.names, train.labels, strict=True)) == sorted(
        (path, train.class_names.index(Path(path).relative_to(tmp_path).parts[0])) for path in dataset.file_paths
    )
    assert list(train.names) == [file for name in train.class_names for file in images_of(tmp_path / name)]


def test_paths_are_as_they_were_given(tmp_path, monkeypatch):
    build(tmp_path / "photos", {**PETS, "notes.txt": ""})
    monkeypatch.chdir(tmp_path / "photos")
    splits = load(".")
    assert splits.train.names[0] == "cats/0.jpg" and splits.unread[0].files == ("notes.txt",)
    assert load(f"{tmp_path}/photos/").train.names[0] == f"{tmp_path}/photos/cats/0.jpg"


def test_splits_inside_the_classes_on_disk(tmp_path):
    splits = load(build(tmp_path, {"ants": {"train": 3, "val": 2}, "bees": {"train": 4, "val": 1}}))
    assert counts(splits) == {"train": {"ants": 3, "bees": 4}, "validation": {"ants": 2, "bees": 1}}
    assert splits.unread == () and "class folders with split folders" in splits.notes[0]


def test_what_is_skipped_is_noted_once_and_not_read(tmp_path):
    spec = {
        "cats": {"images": 3, "masks": 3, "@eaDir": 2, ".ipynb_checkpoints": 2},
        "dogs": {"a": 2, "b": 2, "Thumbs.db": ""}, "__MACOSX": ["a.txt"], "run": RUN, "extra.jpg": "", ".Trash": 3,
    }  # fmt: skip
    splits = load(build(tmp_path, spec))
    assert counts(splits) == {"train": {"cats": 3, "dogs": 4}}
    assert found(splits.unread) == {
        "system folder": ["@eaDir", "__MACOSX"], OWN_OUTPUT: ["run"], ANNOTATIONS: ["masks"],
        "nested folders": ["dogs"], "not read": ["extra.jpg"],
    }  # fmt: skip


def test_masks_among_the_images_are_noted(tmp_path):
    spec = {"benign": ["1.jpg", "1_mask.jpg", "3.jpg"], "normal": {"inner": ["2.jpg", "2-mask.jpg", "4.jpg"]}}
    splits = load(build(tmp_path, spec))
    assert found(splits.unread) == {"masks among the images": ["1_mask.jpg", "2-mask.jpg"]} and len(splits.train) == 6


@pytest.mark.parametrize("ending", ["mask", "segmentation", "gt"])
def test_masks_of_all_images_of_a_class_are_skipped(tmp_path, ending):
    images = [f"{n}.png" for n in range(10)]
    masks = [f"{n}_{ending}.png" for n in range(1, 10)]
    splits = load(build(tmp_path, {"cats": {"inner": [*images, *masks]}, "dogs": images}))
    assert found(splits.unread) == {ANNOTATIONS: masks}
    assert counts(splits) == {"train": {"cats": 10, "dogs": 10}}


def test_a_class_without_images_in_a_split_may_hold_a_note(tmp_path):
    splits = load(build(tmp_path, {"train": PETS, "val": {"cats": 2, "dogs": ["none_yet.txt"]}}))
    assert counts(splits)["validation"] == {"cats": 2, "dogs": 0}


def test_class_names_that_differ_in_the_encoding_of_an_accent(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    build(tmp_path, {"train": {composed: 3, "tea": 3}, "val": {apart: 2, "tea": 1}})
    assert counts(load(tmp_path)) == {"train": {composed: 3, "tea": 3}, "validation": {composed: 2, "tea": 1}}
    assert counts(load(tmp_path / "val")) == {"train": {apart: 2, "tea": 1}}
    assert load(tmp_path / "val", (composed, "tea")).train.counts.tolist() == [2, 1]
    build(tmp_path / "val" / composed, 1, seed=5)
    assert counts(load(tmp_path))["validation"] == {composed: 3, "tea": 1}


def test_class_names_that_differ_in_case(tmp_path):
    build(tmp_path, {"train": PETS, "val": {"cats": 2, "Dogs": 2}})
    with rejects(
        DataError, "folder.different_classes", missing=("dogs",), extra=("Dogs",), match="upper and lower case"
    ):
        load(tmp_path)
    with rejects(DataError, "folder.unknown_classes", classes=("Dogs",), match="upper and lower case"):
        load(tmp_path / "val", ("cats", "dogs"))


def test_linked_class_folders(tmp_path):
    build(tmp_path / "store", PETS)
    (tmp_path / "data").mkdir()
    for link, name in (("felines", "cats"), ("canines", "dogs"), ("again", "dogs")):
        (tmp_path / "data" / link).symlink_to(tmp_path / "store" / name, target_is_directory=True)
    assert counts(load(tmp_path / "data")) == {"train": {"again": 5, "canines": 5, "felines": 4}}
    (tmp_path / "data" / "root").symlink_to(tmp_path / "data", target_is_directory=True)
    splits = load(tmp_path / "data")
    assert splits.train.class_names == ("again", "canines", "felines")
    assert found(splits.unread) == {"symbolic link loop": ["root"]}


def test_many_links_to_one_folder_take_no_time(tmp_path):
    """Each of 25 folders holds two links to the next one: 2^25 ways to the last."""
    build(tmp_path / "data", PETS)
    for i in range(25):
        (tmp_path / f"{i}").mkdir()
        for name in "ab":
            (tmp_path / f"{i}" / name).symlink_to(tmp_path / f"{i + 1}", target_is_directory=True)
    build(tmp_path / "25", 1)
    (tmp_path / "data" / "cats" / "more").symlink_to(tmp_path / "0", target_is_directory=True)
    assert counts(load(tmp_path / "data")) == {"train": {"cats": 5, "dogs": 5}}
    assert len(unlabelled(tmp_path / "data").names) == 10


def test_folders_without_end(tmp_path):
    deep = build(tmp_path, PETS) / "cats"
    for _ in range(150):
        deep = deep / "x"
    build(deep, 1)
    splits = load(tmp_path)
    assert len(splits.train) == 9 and list(found(splits.unread)) == ["folder too deep"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("a.zip", "archive"), ("a.tar.gz", "archive"), ("a.jpg", "one image"), ("a.docx", "no folder")],
)
def test_a_file_in_place_of_a_folder(tmp_path, name, problem):
    (tmp_path / name).write_bytes(b"x")
    code = f"layout.{problem.replace(' ', '_')}"
    with rejects(LayoutError, code, problem=problem, path=tmp_path / name):
        load(tmp_path / name)
    if problem == "archive":
        with rejects(LayoutError, code, path=tmp_path / name, match="unpack"):
            unlabelled(tmp_path / name)


def test_prediction_skips_system_folders_and_says_so(tmp_path, capsys, rendered):
    build(tmp_path, {"new": {"a": 2, "@eaDir": 2}, "__MACOSX": 3})
    data = unlabelled(tmp_path)
    assert data.names == tuple(f"{tmp_path}/new/a/{i}.jpg" for i in range(2))
    assert "system folder (2)" in capsys.readouterr().out
    with rejects(DataError, "folder.no_images", path=tmp_path / "run", match="is a saved run"):
        unlabelled(build(tmp_path / "run", RUN))


def test_the_audit_reports_the_layout_first(tmp_path):
    report = audit(build(tmp_path, {"photos": {"train": PETS, "test": 3}, "__MACOSX": 1}))
    first, *rest = str(report).splitlines()
    assert first == (
        "layout: split folders with class folders in them, below photos/; 2 classes: cats, dogs; splits: train"
    )
    assert report.layout.folder == "photos" and found(report.findings) == {SYSTEM: ["__MACOSX"], UNSORTED: ["test"]}
    assert len(rest) == 2 and "recipes predict" in str(report)
    with rejects(DataError, "audit.findings", findings=report.findings):
        audit(tmp_path, strict=True)
    plain = audit(build(tmp_path / "plain", PETS))
    assert str(plain) == "layout: class folders; 2 classes: cats, dogs\nnothing odd"


def test_a_pack_of_an_unusual_folder(tmp_path, capsys):
    photos = build(
        tmp_path / "photos", {"archive": {"ants": {"train": 3, "val": 2}, "bees": {"train": 3, "val": 2}}, "run": RUN}
    )
    recipes.pack(photos, tmp_path / "packed")
    printed = capsys.readouterr().out
    assert "class folders with split folders in them, below archive/" in printed and "a saved run" in printed
    assert counts(load(tmp_path / "packed")) == counts(load(photos))


@pytest.mark.slow
def test_training_and_evaluating_on_unusual_folders(tmp_path, capsys):
    spec = {"photos": {"ants": {"train": 5, "val": 3}, "bees": {"train": 5, "val": 3}}, "__MACOSX": 1}
    recipe = recipes.adjusted("probe", size=32)
    result = recipes.finetune(build(tmp_path / "data", spec), backbone=small_network(), recipe=recipe)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("split folders in them, below photos/; 2 classes: ants, bees; splits: train, validation")
    assert result.class_names == ["ants", "bees"] and result.judged.labels.size == 6
    assert "system folder (1)" in str(result)
    more = build(tmp_path / "more", {"new": {"test": {"ants": 2, "bees": {"a": 1, "b": 1}}}, "__MACOSX": 1}, seed=7)
    assert result.evaluate(more).n == 4
    printed = capsys.readouterr().out
    assert "below new/test/" in printed and "system folder (1)" in printed and "nested folders (1)" in printed
    with rejects(DataError, "folder.unknown_classes", classes=("cats",)):
        result.evaluate(build(tmp_path / "others", {"ants": 2, "cats": 2}))
    assert len(result.predict(more)) == 4


def test_notes_of_a_validation_folder_are_kept(tmp_path):
    from recipes.planning.request import Request
    from recipes.training.prepare import loaded

    build(tmp_path / "train", PETS)
    build(tmp_path / "val", {**PETS, "__MACOSX": 1}, seed=9)
    splits = loaded(Request(tmp_path / "train", validation=tmp_path / "val"))
    assert np.array_equal(splits.validation.counts, [4, 5]) and found(splits.unread) == {SYSTEM: ["__MACOSX"]}
