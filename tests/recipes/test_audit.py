"""What one look at every image finds, and what becomes of it."""

import csv
import warnings
from dataclasses import replace

import numpy as np
import pytest
from assertions import rejects
from makers import COLOURS, folder, jpeg, picture, png
from odd_images import bmp

from recipes import DataError, OutputError, audit
from recipes.auditing.audit import usable
from recipes.auditing.facts import inspect_images
from recipes.auditing.rules import AuditedImage, placeholders
from recipes.data.sources import load


def kinds(found):
    return {finding.kind: [file.split("/")[-1] for file in finding.files] for finding in found.findings}


def test_clean_folder_has_no_findings(tmp_path):
    assert audit(folder(tmp_path)).findings == ()


def test_damaged_and_empty_files_are_excluded(tmp_path):
    folder(tmp_path)
    whole = (tmp_path / "red" / "024.jpg").read_bytes()
    (tmp_path / "red" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "red" / "zero.png").write_bytes(b"")
    splits = load(tmp_path)
    found = audit(splits)
    assert kinds(found) == {
        "truncated jpeg": ["half.jpg"], "zero bytes": ["zero.png"], "class loses files": ["red (2 of 14)"],
    }  # fmt: skip
    usable_splits, _ = usable(splits, found)
    assert len(usable_splits.train) == 36
    assert not any("half" in name or "zero" in name for name in usable_splits.train.names)


def test_text_named_jpg_is_an_error(tmp_path):
    folder(tmp_path)
    (tmp_path / "red" / "notes.jpg").write_text("these are my notes")
    splits = load(tmp_path)
    with rejects(DataError, "audit.not_an_image", files=(str(tmp_path / "red" / "notes.jpg"),)):
        usable(splits, audit(splits))


def test_placeholder_among_photos(tmp_path):
    folder(tmp_path)
    flat = np.full((40, 48, 3), 230, np.uint8)
    flat[15:18, 10:30] = 0
    (tmp_path / "blue" / "missing.png").write_bytes(png(flat))
    found = audit(tmp_path)
    assert kinds(found) == {"placeholder": ["missing.png"]}
    assert found.excluded == {str(tmp_path / "blue" / "missing.png")}


@pytest.mark.parametrize(("split", "excluded"), [("train", 11), ("test", 0)])
def test_copies_in_the_test_split_exclude_nothing_from_training(split, excluded):
    """Eleven copies of one picture among 800: accidents where they are in the training part."""
    fact = inspect_images(load((np.stack([picture(COLOURS["red"], 1)] * 2), ["a", "b"])).train)[0]
    images = [AuditedImage(f"{i}", "train", 0, replace(fact, fingerprint=f"{i}")) for i in range(790)]
    images += [AuditedImage(f"copy {i}", split, 0, images[0].facts) for i in range(10)]
    assert sum(len(finding.files) for finding in placeholders(images) if finding.excluded) == excluded


def test_duplicates_by_content(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "val", 2, seed=1)
    content = (tmp_path / "train" / "red" / "024.jpg").read_bytes()
    (tmp_path / "train" / "blue" / "copy.jpg").write_bytes(content)
    again = (tmp_path / "train" / "green" / "012.jpg").read_bytes()
    (tmp_path / "val" / "green" / "copy.jpg").write_bytes(again)
    assert kinds(audit(tmp_path)) == {
        "duplicate across classes": ["copy.jpg", "024.jpg"],
        "duplicate across splits": ["012.jpg", "copy.jpg"],
    }


def test_one_class(tmp_path):
    splits = load(folder(tmp_path, classes=1))
    with rejects(DataError, "audit.one_class", class_names=("blue",)):
        usable(splits, audit(splits))


def test_class_with_one_image(tmp_path):
    folder(tmp_path, classes=2)
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.jpg").write_bytes(jpeg(picture(COLOURS["red"], 5)))
    splits = load(tmp_path)
    with rejects(DataError, "audit.small_class", classes=("red (1)",)):
        usable(splits, audit(splits))


RUNS = bmp(8, 8, 8, bytes(64), compression=1)


def test_unsupported_files_are_counted_by_variant_and_class(tmp_path):
    folder(tmp_path)
    (tmp_path / "red" / "runs.bmp").write_bytes(RUNS)
    (tmp_path / "blue" / "scan.jpg").write_bytes(b"II*\0" + bytes(99))
    (tmp_path / "blue" / "other.jpg").write_bytes(b"II*\0" + bytes(98))
    (finding, _) = audit(tmp_path).findings
    assert finding.kind == "format not supported" and finding.excluded and len(finding.files) == 3
    assert "TIFF (2), compressed BMP (1); classes: blue (2), red (1)" in finding.action
    assert all("format not supported: " in detail for detail in finding.details)


@pytest.mark.parametrize(("bad", "warned"), [(1, False), (2, True)])
def test_a_class_that_loses_a_tenth_of_its_files_is_warned_of(tmp_path, bad, warned):
    """One of 13 files is below a tenth, two of 14 are above."""
    folder(tmp_path)
    for i in range(bad):
        (tmp_path / "red" / f"runs{i}.bmp").write_bytes(RUNS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = audit(tmp_path)
    texts = [str(warning.message) for warning in caught if "class loses files" in str(warning.message)]
    assert len(texts) == warned
    lost = [finding.files for finding in found.findings if finding.kind == "class loses files"]
    assert lost == ([("red (2 of 14)",)] if warned else [])
    assert all("red (2 of 14)" in text for text in texts)


def test_csv_of_all_findings(tmp_path):
    photos = folder(tmp_path / "photos")
    for i in range(5):
        (photos / "red" / f"runs{i}.bmp").write_bytes(RUNS)
    (photos / "red" / "copy.jpg").write_bytes((photos / "red" / "024.jpg").read_bytes())
    found = audit(photos)
    found.to_csv(tmp_path / "findings.csv")
    found.to_csv(tmp_path / "findings.csv")  # its own file again
    (tmp_path / "labels.csv").write_text("path,label\n")
    with rejects(OutputError, "audit.output_exists", path=tmp_path / "labels.csv"):
        found.to_csv(tmp_path / "labels.csv")
    with open(tmp_path / "findings.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [name for finding in found.findings for name in finding.files]
    by_file = {row["file"]: row for row in rows}
    runs, copy = by_file[str(photos / "red" / "runs4.bmp")], by_file[str(photos / "red" / "copy.jpg")]
    assert runs["finding"] == "format not supported" and runs["excluded"] == "yes" and "BMP" in runs["detail"]
    assert copy["detail"] == f"like {photos / 'red' / '024.jpg'}" and copy["excluded"] == "no"
    with rejects(OutputError, "audit.output_unwritable"):
        found.to_csv(tmp_path / "missing" / "findings.csv")
