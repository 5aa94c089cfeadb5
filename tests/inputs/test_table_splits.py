"""Columns of splits, groups and folds: which divide the rows, and which a random split would not respect."""

import pytest
from assertions import rejects
from tables import read, table

from recipes import DataError, pack
from recipes.planning.request import Request
from recipes.training.prepare import loaded


def test_one_hot_splits(place):
    splits = read(place, table("path,label,train,valid,test", "{name},cat,{0},{1},{2}", "1100", "0010", "0001"))
    assert {name: len(part) for name, part in splits.given.items()} == {"train": 2, "validation": 1, "test": 1}


def test_a_split_beside_the_chosen_one(place):
    content = table("path,label,mine,phase,is_valid", "{name},{label},{0},{0},{1}", ["train", "val"] * 2, "1010")
    splits = read(place, content, split="mine")
    reasons = {column.name: column.reason for column in splits.table.of("ignored")}
    assert reasons == {"phase": "the split is 'mine'", "is_valid": "the split is 'mine'"}
    assert len(read(place, content, split="is_valid").validation) == 2
    with rejects(DataError, "table.only_train", column="is_train"):
        read(place, table("path,label,is_train", "{name},{label},{0}", "0101"), split="is_train")


def test_groups_in_several_splits(place, capsys):
    content = table("path,label,patient_id,split", "{name},{label},{0},{1}", "aabc", ["train", "val"] * 2)
    (column,) = read(place, content).table.of("group")
    assert column.reason == "groups: 1 of 3 lie in several splits, so the accuracy on these splits will be too high"
    assert "not used: 'patient_id'" in capsys.readouterr().out
    whole = table("path,label,patient_id,split", "{name},{label},{0},{1}", "abab", ["train", "val"] * 2)
    (column,) = read(place, whole).table.of("group")
    assert column.reason == "groups: each lies in one split"


@pytest.mark.parametrize(
    "column",
    [
        "patient_id", "group", "Subject", "fold", "validation_fold", "strat_fold", "fold_5", "case_id", "slideId",
        "slide", "person", "person_id", "video", "video_id", "sequence", "sequence_id", "scene_id", "participant",
        "animal_id", "subject_id",
    ],
)  # fmt: skip
def test_groups_and_folds_are_not_split_at_random(place, column):
    content = table(f"path,label,{column}", "{name},{label},{0}", "1122")
    splits = read(place, content)  # an audit, or images to evaluate: nothing is split
    assert [column.name for column in splits.table.of("group", "fold")] == [column]
    for validation in (None, 0.5):
        remedy = rf"Add a column `split`.*--column ignore={column}"
        with rejects(DataError, "table.groups", columns=(column,), match=remedy):
            loaded(Request(splits, validation=validation))
    with rejects(DataError, "table.groups", columns=(column,)):
        pack(splits, place / "packed")
    assert not (place / "packed").exists()
    assert loaded(Request(splits, validation=read(place, content))).validation is not None
    assert loaded(Request(read(place, content, ignore=[column]))).validation is None


@pytest.mark.parametrize(
    "column",
    [
        "user_id", "author_id", "photographer_id", "source_id", "train_id", "location", "location_id", "site", "camera",
        "session", "tree_uuid",
    ],
)  # fmt: skip
def test_what_may_be_a_group_is_ignored_with_a_hint(place, capsys, column):
    """Numbers that the label determines are not mentioned."""
    content = table(f"path,label,{column},genusId", "{name},{label},{0},{1}", "1212", "1122")
    splits = loaded(Request(read(place, content)))
    assert [each.name for each in splits.table.of("perhaps group")] == [column]
    assert f"ignored: '{column}' (may group photos that belong together" in capsys.readouterr().out
    divided = table(f"path,label,{column},split", "{name},{label},{0},{1}", "1221", ["train", "val"] * 2)
    (found,) = read(place, divided).table.of("perhaps group")
    assert found.reason == "groups: 2 of 2 lie in several splits, so the accuracy on these splits may be too high"


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("valid", "0101"),
        ("is_holdout", "0101"),
        ("trainval", "0011"),
        ("evaluation set", "0101"),
        ("test", ["x", "", "x", ""]),
        ("split_0", "0122"),
        ("set_id", "1123"),
        ("partition_no", "1123"),
        ("official_split", "abab"),
        ("purpose", ["for training", "for testing"] * 2),
    ],
)
def test_what_may_be_a_split_is_not_split_at_random(place, column, cells):
    content = table(f"path,label,{column}", "{name},{label},{0}", cells)
    splits = read(place, content)
    assert [each.name for each in splits.table.of("perhaps split")] == [column]
    with rejects(DataError, "table.groups", columns=(column,), match=rf"--column '?ignore={column}"):
        loaded(Request(splits))
    assert loaded(Request(read(place, content, ignore=[column]))).validation is None


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("width", "1122"), ("url", "abcd"), ("date", "1122"), ("author", "abab"), ("license_id", "1212"),
        ("caption", ["a train", "a test", "a bus", "x"]), ("invalid", "0101"), ("valid", "1111"), ("test_date", "1122"),
        ("training_years", "1212"), ("body_part", "abab"), ("dataset", ["ISIC 2018", "ISIC 2019"] * 2),
        ("vehicle", ["train", "bus", "train", "car"]), ("val", ["0.1", "0.2", "0.3", "0.4"]), ("genus_id", "1122"),
        ("superclass_id", "1111"), ("breed_id", "1223"), ("case_id", "1234"), ("camera_model", "abab"),
        ("age_group", "abab"), ("fold", "1111"), ("scaffold", "1212"), ("manifold_no", "1212"), ("is_blurry", "0101"),
    ],
)  # fmt: skip
def test_ordinary_columns_do_not_matter(place, column, cells):
    splits = loaded(Request(read(place, table(f"path,label,{column}", "{name},{label},{0}", cells))))
    assert [each.name for each in splits.table.of("ignored")] == [column]
