"""Second copies, thumbnails and output of programs among the classes; files without a known ending; prediction."""

import os
from collections import Counter

import pytest
from assertions import rejects
from makers import jpeg, picture
from trees import PETS, build, counts, found, read, where

import recipes
from recipes import DataError, audit
from recipes.auditing.rules import LOSES_FILES
from recipes.data.folders.layout import ANNOTATIONS, COPY, DERIVED, OWN_OUTPUT, LayoutError
from recipes.data.header_ops import NOT_SUPPORTED
from recipes.data.sources import load, unlabelled

RUN = ["result.json", "model.keras"]
HEIC = b"\x00\x00\x00\x18ftypheic" + bytes(40)


@pytest.mark.parametrize(
    ("spec", "skipped"),
    [
        ({**PETS, "pets": PETS}, {"pets": COPY}),
        ({"pets": {**PETS, "pets": PETS}}, {"pets/pets": COPY}),
        ({**PETS, "old": {"data": PETS}}, {"old": COPY}),
        ({**PETS, "resized": PETS}, {"resized": COPY}),
        ({**PETS, "cats - Copy": 4}, {"cats - Copy": COPY}),
        ({**PETS, "Copy of cats": 4}, {"Copy of cats": COPY}),
        ({**PETS, "dogs (1)": 5}, {"dogs (1)": COPY}),
        ({"train": {**PETS, "train": PETS}, "val": PETS}, {"train/train": COPY}),
        ({"cats": {"a": 3, "thumbs": 3}, "dogs": 3}, {"cats/thumbs": DERIVED}),
        ({"cats": {"original": 3, "cats_augmented": 3}, "dogs": 3}, {"cats/cats_augmented": DERIVED}),
        ({"cats": {"raw": {"x": 3, "cache": 2}}, "dogs": 3}, {"cats/raw/cache": DERIVED}),
        ({**PETS, "dogs": {"a": 3, "run": RUN}}, {"dogs/run": OWN_OUTPUT}),
        ({**PETS, "runs": {"a": RUN, "b": RUN}}, {"runs": OWN_OUTPUT}),
        ({**PETS, "runs": {"a": RUN, "b": [*RUN, "x.png"], "chart.png": ""}}, {"runs": OWN_OUTPUT}),
    ],
)
def test_leftovers_are_skipped(spec, skipped):
    layout = read(spec)
    assert {skip.path: skip.kind for skip in layout.skipped} == skipped
    assert all(list(part.classes) == ["cats", "dogs"] for part in layout.parts)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({**PETS, "old": {"cats": 9, "dogs": 9}}, "second copy"),
        ({**PETS, "old": {**PETS, "birds": 3}}, "second copy"),
        ({**PETS, "cats (1)": 9}, "second copy"),
        ({**PETS, "thumbnails": 9}, "derived images"),
        ({**PETS, "cats_augmented": 9, "dogs_augmented": 9}, "derived images"),
        ({"Original Images": {"a": 3, "b": 3}, "Augmented Images": {"a2": 3, "b2": 3}}, "derived images"),
        ({**PETS, "runs": {"detect": {"weights": ["best.pt"], "plots": 9}}}, "output or class"),
        ({"data": PETS, "docs": 1, "results": 1}, "project"),
        ({"data": {"train": PETS, "val": PETS}, "docs": 1}, "project"),
        ({"photos": {"raw": PETS}, "notebooks": {"images": 2}, "src": ["a.py"]}, "project"),
    ],
)
def test_leftovers_that_may_be_classes_are_rejected(spec, problem):
    code = f"layout.{problem.replace(' ', '_')}"
    with rejects(LayoutError, code, problem=problem, match=r"; (move|remove|give) "):
        read(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"original": 3, "augmented": 3},
        {"augmented reality": 3, "virtual reality": 3, "real": 3},
        {"thumb": 3, "index": 3, "middle": 3},
        {"cats (1)": 3, "cats (2)": 3},
        {"cats": {"augmented": 3}, "dogs": {"augmented": 3}},
        {"cats": {"cats": 3}, "dogs": {"dogs": 3}},
        {"cats": [*(f"{i}.jpg" for i in range(60)), "model.h5"], "dogs": 3},
    ],
)
def test_classes_that_are_no_leftovers(spec):
    layout = read(spec)
    assert list(layout.parts[0].classes) == sorted(spec) and layout.skipped == ()


def test_folders_of_tools_on_disk(tmp_path):
    spec = {**PETS, "node_modules": {"icons": 3}, "cats": {"a": 4, "thumbs": 4}}
    splits = load(build(tmp_path, spec))
    assert counts(splits) == {"train": PETS}
    assert found(splits.unread) == {"system folder": ["node_modules"], DERIVED: ["thumbs"]}


def photos(folder, names, seed: int = 0):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        (folder / name).write_bytes(jpeg(picture((40, 90, 160), 500 + seed + i, (16, 16))))


def test_files_without_a_known_ending_are_known_by_their_first_bytes(tmp_path):
    build(tmp_path, {"dogs": 5})
    photos(tmp_path / "cats", ["a1", "a2.jpg_large", "a3.jpg!d", "a4.tif", "a5.JFIF", "a6.part"])
    (tmp_path / "cats" / "BMW").write_bytes(b"BM is no image")
    os.mkfifo(tmp_path / "cats" / "pipe")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a1").write_text("nothing")
    splits = load(tmp_path)
    assert counts(splits) == {"train": {"cats": 6, "dogs": 5}}
    assert found(splits.unread) == {"folder without images": ["notes"], "not read": ["BMW", "pipe"]}
    assert not audit(tmp_path).excluded


def test_unsupported_pictures_are_counted_by_class(tmp_path):
    build(tmp_path, {"cats": 6, "dogs": 30})
    for i in range(60):
        (tmp_path / "cats" / f"{i}.{'heic' if i % 2 else 'tif'}").write_bytes(HEIC if i % 2 else b"II*\x00" + bytes(40))
    (tmp_path / "dogs" / "without_ending").write_bytes(HEIC)
    with pytest.warns(UserWarning, match=r"class loses files .*cats \(60 of 66\)"):
        facts = audit(tmp_path)
    findings = {finding.kind: finding for finding in facts.findings}
    assert findings[LOSES_FILES].files == ("cats (60 of 66)",)
    assert Counter(findings[NOT_SUPPORTED].details) == {
        "format not supported: HEIC; convert it to JPEG or PNG": 31,
        "format not supported: TIFF; convert it to JPEG or PNG": 30,
    }
    assert "classes: cats (60), dogs (1)" in findings[NOT_SUPPORTED].action
    facts.to_csv(tmp_path / "findings.csv")
    assert (tmp_path / "findings.csv").read_text().count("format not supported,") == 61
    assert any("cats (60), dogs (1)" in note for note in load(tmp_path).notes)


@pytest.mark.parametrize("ending", ["pcx", "ppm", "tga", "xpm", "eps", "qoi"])
def test_pictures_are_counted_by_their_endings(tmp_path, ending):
    build(tmp_path, {"cats": [*(f"{i}.jpg" for i in range(4)), f"p.{ending}"], "dogs": 4})
    (file,) = load(tmp_path).unsupported
    assert (file.class_name, os.path.basename(file.name)) == ("cats", f"p.{ending}")


def test_unsupported_pictures_of_the_splits(tmp_path):
    build(tmp_path, {"train": PETS, "val": PETS})
    for split in ("train", "val"):
        for i in range(2):
            (tmp_path / split / "dogs" / f"{i}.heic").write_bytes(HEIC)
    unsupported = load(tmp_path).unsupported
    assert Counter((file.split, file.class_name) for file in unsupported) == {
        ("train", "dogs"): 2, ("validation", "dogs"): 2,
    }  # fmt: skip


def test_unsupported_pictures_of_a_validation_folder(tmp_path):
    from recipes.training.prepare import with_validation

    for folder in ("own/train", "own/val", "other"):
        build(tmp_path / folder, PETS, seed=len(folder))
        (tmp_path / folder / "dogs" / f"{len(folder)}.heic").write_bytes(HEIC)
    splits = with_validation(load(tmp_path / "own"), tmp_path / "other")
    lost = [(file.split, os.path.relpath(file.name, tmp_path)) for file in splits.unsupported]
    assert lost == [("train", "own/train/dogs/9.heic"), ("validation", "other/dogs/5.heic")]


def test_a_class_of_unsupported_pictures_alone_stops_the_training(tmp_path):
    build(tmp_path, PETS)
    (tmp_path / "birds").mkdir()
    for i in range(3):
        (tmp_path / "birds" / f"{i}.heic").write_bytes(HEIC)
    with (
        pytest.warns(UserWarning, match=r"birds \(3 of 3\)"),
        rejects(DataError, "audit.small_class", classes=("birds (0)",)),
    ):
        recipes.finetune(tmp_path, backbone="glyphs")
    for name in PETS:
        for file in (tmp_path / name).iterdir():
            file.write_bytes(HEIC)
            file.rename(file.with_suffix(".heic"))
    with rejects(LayoutError, "layout.no_class_folders", path=tmp_path, match="HEIC; convert them to JPEG or PNG"):
        load(tmp_path)


@pytest.mark.parametrize("spec", [{"masks": 4, "cats": 4}, {"masks": 4, "images": 4}, {"masks": PETS, **PETS}])
def test_prediction_leaves_out_masks(tmp_path, capsys, spec, rendered):
    names = unlabelled(build(tmp_path, spec)).names
    assert names and not any("masks" in name for name in names)
    assert f"{ANNOTATIONS} (1)" in capsys.readouterr().out


def test_prediction_says_what_it_leaves_out(tmp_path, capsys, rendered):
    build(tmp_path, {"new": {"a": 2, "thumbs": 2, "run": [*RUN, "x.png"]}, "readme.txt": "", "mask": 2, "no_mask": 2})
    photos(tmp_path / "new", ["b", "c.jpg_large"])
    (tmp_path / "new" / "d.heic").write_bytes(HEIC)
    names = [os.path.relpath(name, tmp_path) for name in unlabelled(tmp_path).names]
    assert Counter(os.path.dirname(name) for name in names) == {"mask": 2, "new": 2, "new/a": 2, "no_mask": 2}
    printed = capsys.readouterr().out
    for part in (f"{NOT_SUPPORTED} (1)", "not read (1)", f"{DERIVED} (1)", f"{OWN_OUTPUT} (1)"):
        assert part in printed


def test_prediction_rejects_a_table(tmp_path):
    (tmp_path / "table.csv").write_text("path,label\na.jpg,x\n")
    with rejects(DataError, "images.table", path=tmp_path / "table.csv"):
        unlabelled(tmp_path / "table.csv")


def test_where_a_copy_lies_does_not_matter_for_known_classes():
    assert where(read({**PETS, "pets": PETS}, ("cats", "dogs"))) == {"train": {"cats": "cats", "dogs": "dogs"}}
