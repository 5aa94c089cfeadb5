"""What one look at every image finds, and what becomes of it."""

from dataclasses import replace

import numpy as np
import pytest
from makers import COLOURS, folder, jpeg, picture, png

from recipes import DataError, audit
from recipes.audit import usable
from recipes.look import look
from recipes.oddities import Seen, placeholders
from recipes.sources import load


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
    assert kinds(found) == {"truncated jpeg": ["half.jpg"], "zero bytes": ["zero.png"]}
    kept, _ = usable(splits, found)
    assert len(kept.train) == 36
    assert not any("half" in name or "zero" in name for name in kept.train.names)


def test_text_named_jpg_is_an_error(tmp_path):
    folder(tmp_path)
    (tmp_path / "red" / "notes.jpg").write_text("these are my notes")
    splits = load(tmp_path)
    with pytest.raises(DataError, match=r"no images: .*notes\.jpg"):
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
    fact = look(load((np.stack([picture(COLOURS["red"], 1)] * 2), ["a", "b"])).train)[0]
    images = [Seen(f"{i}", "train", 0, replace(fact, fingerprint=f"{i}")) for i in range(790)]
    images += [Seen(f"copy {i}", split, 0, images[0].facts) for i in range(10)]
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
    with pytest.raises(DataError, match="one class only"):
        usable(splits, audit(splits))


def test_class_with_one_image(tmp_path):
    folder(tmp_path, classes=2)
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.jpg").write_bytes(jpeg(picture(COLOURS["red"], 5)))
    splits = load(tmp_path)
    with pytest.raises(DataError, match=r"red \(1\)"):
        usable(splits, audit(splits))
