"""The files that the rows of a table name: where they are looked for, and where never."""

import unicodedata

import pytest
from assertions import rejects
from tables import NAMES, read, table

from recipes import DataError

PATHS_AND_LABELS = table("path,label", "{name},{label}")


def move(place, folder):
    (place / folder).mkdir(parents=True)
    for name in NAMES:
        (place / name).rename(place / folder / name)


def test_images_in_the_one_folder_below(place, capsys):
    """Kaggle: labels.csv beside train_images/, or beside data/train_images/."""
    move(place, "data/train_images")
    splits = read(place, table("id,label", "{stem},{label}"))
    assert splits.train.names == tuple(str(place / "data" / "train_images" / name) for name in NAMES)
    printed = capsys.readouterr().out
    assert "names are relative to " in printed and "have no extension" in printed
    assert splits.table.folder == str(place / "data" / "train_images")


def test_images_in_several_folders_below(place):
    move(place, "train")
    for part in ("test", "other"):
        (place / part).mkdir()
        (place / part / "i0.jpg").write_bytes(b"x")
    assert len(read(place, PATHS_AND_LABELS).train) == 4  # only train/ has all of them
    for name in NAMES:
        (place / "test" / name).write_bytes(b"x")
    below = {str(place / "train"): 4, str(place / "test"): 4, str(place / "other"): 1}
    with rejects(DataError, "table.missing_files", files=tuple(NAMES), below=below, match=r"--column folder="):
        read(place, PATHS_AND_LABELS)
    assert read(place, PATHS_AND_LABELS, folder=place / "test").train.names[0] == str(place / "test" / "i0.jpg")


def test_some_images_missing_are_not_looked_for_elsewhere(place):
    (place / "more").mkdir()
    (place / "i3.jpg").rename(place / "more" / "i3.jpg")
    rows, below = (f"{place / 'list.csv'} row 5",), {str(place / "more"): 1}
    with rejects(DataError, "table.missing_files", files=("i3.jpg",), rows=rows, below=below):
        read(place, PATHS_AND_LABELS)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_names_in_another_unicode_form(tmp_path, written):
    """A Mac writes NFD into archives, and a spreadsheet NFC."""
    stored = "NFD" if written == "NFC" else "NFC"
    (tmp_path / unicodedata.normalize(stored, "caf\xe9.jpg")).write_bytes(b"x")
    name = unicodedata.normalize(written, "caf\xe9.jpg")
    splits = read(tmp_path, f"path,label\n{name},caf\xe9\n")
    assert len(splits.train) == 1 and splits.train.class_names == ("caf\xe9",) and not splits.table.notes


@pytest.mark.parametrize(
    "name",
    [
        "..\\outside\\secret.jpg",
        "..\\outside\\secret",
        "../outside/secret",
        "link",
        "folder\\secret",
        "\\\\etc\\passwd",
    ],
)
def test_no_spelling_leads_out_of_the_folder(place, name):
    inside, outside = place / "inside", place / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"x")
    (inside / "link.jpg").symlink_to(outside / "secret.jpg")
    (inside / "folder").symlink_to(outside)
    row = f"{inside / 'list.csv'} row 2"
    with rejects(DataError, "table.outside", row=row, within=str(inside), match="--within"):
        read(inside, f"path,label\n{name},x\n")
    if "etc" not in name:
        assert len(read(inside, f"path,label\n{name},x\n", within=place).train) == 1


def test_a_folder_below_that_leads_out_is_not_searched(place):
    inside, outside = place / "inside", place / "outside"
    inside.mkdir()
    move(place, "outside")
    (inside / "linked").symlink_to(outside)
    with rejects(DataError, "table.missing_files", files=tuple(NAMES), below={}):
        read(inside, PATHS_AND_LABELS)
    assert len(read(inside, PATHS_AND_LABELS, within=place).train) == 4
    assert len(read(inside, PATHS_AND_LABELS, folder=outside).train) == 4
    with rejects(DataError, "table.outside", within=str(outside)):
        read(inside, "path,label\n../inside/list.csv,x\n", folder=outside)
