"""Tables as spreadsheets, pandas, fastai, Keras, Kaggle and labelling tools write them: which columns are read."""

import codecs

import pytest
from assertions import rejects
from tables import LABELS, NAMES, read, table

from recipes import DataError
from recipes.data.sources import load
from recipes.data.tables.columns import recognise
from recipes.data.tables.encodings import decoded

# The table, then its columns of images, labels and splits.

RIGHT = {
    "path,label": (table("path,label", "{name},{label}"), "path", "label", None),
    "no header": (table(None, "{name},{label}"), "column 1", "column 2", None),
    "no header, label first": (table(None, "{label},{name}"), "column 2", "column 1", None),
    "no header, names without extension": (table(None, "{stem},{label}"), "column 1", "column 2", None),
    "MXNet: number, label, path": (table(None, "{n}\t{label}\t{name}"), "column 3", "column 2", None),
    "Keras: filename, class": (table("filename,class", "{name},{label}"), "filename", "class", None),
    "capitals and blanks": (table("File Name, Class Label", "{name}, {label}"), "File Name", "Class Label", None),
    "label first": (table("label,image", "{label},{name}"), "image", "label", None),
    "fastai: fname, labels": (table("fname,labels", "{name},{label}"), "fname", "labels", None),
    "fastai: name, label": (table("name,label", "{name},{label}"), "name", "label", None),
    "Kaggle: image_id, label": (table("image_id,label", "{name},{label}"), "image_id", "label", None),
    "Kaggle: id, breed": (table("id,breed", "{stem},{label}"), "id", "breed", None),
    "Kaggle: Image, Id of a whale": (table("Image,Id", "{name},{label}"), "Image", "Id", None),
    "Kaggle: image, artist": (table("image,artist", "{name},{label}"), "image", "artist", None),
    "Kaggle: class id, filepaths, labels, scientific name": (
        table("class id,filepaths,labels,scientific name", "{0},{name},{label},Felis", "0011"),
        "filepaths", "labels", None,
    ),
    "Kaggle: ClassId and SignName": (
        table("Filename,ClassId,SignName", "{name},{0},{label}", "0011"), "Filename", "SignName", None,
    ),
    "Kaggle: boxes of whole images": (
        table("Width,Height,Roi.X1,Roi.Y1,ClassId,Path", "9,9,1,1,{label},{name}"), "Path", "ClassId", None,
    ),
    "boxes, one for each image": (
        table("filename,xmin,ymin,xmax,ymax,class", "{name},1,1,5,5,{label}"), "filename", "class", None,
    ),
    "HAM10000: image_id, dx": (
        table("lesion_id,image_id,dx,age", "{0},{stem},{label},50", "abcd"), "image_id", "dx", None,
    ),
    "Label Studio": (
        table("annotator,choice,id,image", "1,{label},{n},{name}"), "image", "choice", None,
    ),
    "Hugging Face: file_name": (table("file_name,label", "{name},{label}"), "file_name", "label", None),
    "pandas with an index": (table(",path,label", "{n},{name},{label}"), "path", "label", None),
    "pandas with an index, read and written": (
        table("Unnamed: 0,path,label", "{n},{name},{label}"), "path", "label", None,
    ),
    "image_id beside a path": (
        table("image_id,image_path,label", "{n},{name},{label}"), "image_path", "label", None,
    ),
    "a folder called path beside the file's name": (
        table("path,filename,label", "photos/cats,{name},{label}"), "filename", "label", None,
    ),
    "names that only cells explain": (table("foto,klasse", "{name},{label}"), "foto", "klasse", None),
    "semicolons": (table("path;label", "{name};{label}"), "path", "label", None),
    "semicolons, a comma in each label": (
        table("path;label", "{name};{0}", ["cat, red"] * 2 + ["dog, red"] * 2), "path", "label", None,
    ),
    "tabs": (table("path\tlabel", "{name}\t{label}"), "path", "label", None),
    "pipes": (table("path|label", "{name}|{label}"), "path", "label", None),
    "pipes without header": (table(None, "{name}|{label}"), "column 1", "column 2", None),
    "Excel's sep=": ("sep=;\r\n" + table("path;label", "{name};{label}", separator="\r\n"), "path", "label", None),
    "blanks after commas before quotation marks": (
        table('path, label', '{name}, "{0}"', ["cat, red"] * 2 + ["dog, red"] * 2), "path", "label", None,
    ),
    "blank lines and blanks": ("\n\n" + table("path , label", " {name} , {label} ") + "\n ,\n", "path", "label", None),
    "UTF-8 with mark": (codecs.BOM_UTF8 + table("path,label", "{name},{label}").encode(), "path", "label", None),
    "UTF-16 with mark": (table("path,label", "{name},{label}").encode("utf-16"), "path", "label", None),
    "UTF-16, the other order": (
        codecs.BOM_UTF16_BE + table("path\tlabel", "{name}\t{label}").encode("utf-16-be"), "path", "label", None,
    ),
    "lines end as on an old Mac": (table("path,label", "{name},{label}", separator="\r"), "path", "label", None),
    "./ and backslashes": (table("path,label", ".\\{name},{label}"), "path", "label", None),
    "an empty last column": (table("path,label,", "{name},{label},"), "path", "label", None),
    "weights": (table("path,label,weight", "{name},{label},0.5"), "path", "label", None),
    "groups of one image": (table("path,label,patient_id", "{name},{label},{n}"), "path", "label", None),
    "split": (table("path,label,split", "{name},{label},{0}", ["train", "val"] * 2), "path", "label", "split"),
    "no header, split": (table(None, "{name},{label},{0}", ["train", "val"] * 2), "column 1", "column 2", "column 3"),
    "Vertex AI: split, path, label": (
        table(None, "{0},{name},{label}", ["TRAIN", "VALIDATION"] * 2), "column 2", "column 3", "column 1",
    ),
    "fastai: is_valid": (
        table("name,label,is_valid", "{name},{label},{0}", ["False", "True"] * 2), "name", "label", "is_valid",
    ),
    "is_valid as 0 and 1": (
        table("name,label,is_valid", "{name},{label},{0}", "0101"), "name", "label", "is_valid",
    ),
    "phase": (table("img,phase,label", "{name},{0},{label}", ["train", "val"] * 2), "img", "label", "phase"),
    "data set": (
        table("filepaths,labels,data set", "{name},{label},{0}", ["train", "valid"] * 2),
        "filepaths", "labels", "data set",
    ),
    "subset": (
        table("path,label,subset", "{name},{label},{0}", ["Training", "Validation"] * 2), "path", "label", "subset",
    ),
    "fold with names of splits": (
        table("path,label,fold", "{name},{label},{0}", ["train", "val"] * 2), "path", "label", "fold",
    ),
    "source_split": (
        table("path,label,source_split", "{name},{label},{0}", ["train", "val"] * 2), "path", "label", "source_split",
    ),
    "FiftyOne: tags beside the labels": (
        table("filepath,tags,ground_truth", "{name},{0},{label}", ["train", "val"] * 2),
        "filepath", "ground_truth", "tags",
    ),
    "in_val": (table("path,label,in_val", "{name},{label},{0}", "0101"), "path", "label", "in_val"),
    "is_validation_set": (
        table("path,label,is_validation_set", "{name},{label},{0}", "0101"), "path", "label", "is_validation_set",
    ),
    "official_split": (
        table("path,label,official_split", "{name},{label},{0}", ["train set", "val set"] * 2),
        "path", "label", "official_split",
    ),
    "a number of each split beside its name": (
        table("path,label,split,split_1", "{name},{label},{0},{1}", ["train", "val"] * 2, "0122"),
        "path", "label", "split",
    ),
    "images that are valid, beside a split": (
        table("path,label,split,valid", "{name},{label},{0},{1}", ["train", "val"] * 2, "0111"),
        "path", "label", "split",
    ),
    "a status that is valid": (table("path,label,status", "{name},{label},valid"), "path", "label", None),
    "a split that is not assigned yet": (
        table("ml_use,path,label", "UNASSIGNED,{name},{label}"), "path", "label", None,
    ),
    "Vertex AI: no split is assigned yet": (
        table(None, "UNASSIGNED,{name},{label}"), "column 2", "column 3", None,
    ),
    "a grade beside one column of 0 and 1": (
        table("image,kind,flipped", "{name},{label},{0}", "0101"), "image", "kind", None,
    ),
    "two columns that say the same": (
        table("path,label,split,set", "{name},{label},{0},{0}", ["train", "val"] * 2), "path", "label", "split",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", RIGHT)
def test_forms_that_are_read(place, form):
    content, image, label, split = RIGHT[form]
    splits = read(place, content)
    named = {role: [column.name for column in splits.table.of(role)] for role in ("image", "label", "split")}
    assert named == {"image": [image], "label": [label], "split": [split] if split else []}
    images = {
        name.rsplit("/", 1)[-1]: (part.class_names[label].split(",")[0], role)
        for role, part in splits.given.items()
        for name, label in zip(part.names, part.labels, strict=True)
    }
    roles = ["train", "validation"] * 2 if split else ["train"] * 4
    assert images == dict(zip(NAMES, zip(LABELS, roles, strict=True), strict=True))


def test_what_was_read_is_printed_once(place, capsys):
    content = table("Unnamed: 0,path,label,weight,colour", "{n},{name},m\xfcll{label},2,red").encode("latin-1")
    splits = read(place, content)
    assert splits.train.class_names == ("m\xfcllcat", "m\xfclldog")
    printed = capsys.readouterr().out
    assert "4 rows; image: 'path'; label: 'label'" in printed
    assert "read as cp1252" in printed and "not used: 'weight'" in printed
    assert "ignored: 'Unnamed: 0' (row numbers), 'colour'" in printed
    assert splits.table.encoding == "cp1252" and splits.table.rows == 4
    load(splits)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("header", "cells", "hint"),
    [
        ("image,level", "0123", True),  # APTOS: grades from 0 to 4
        ("id,diagnosis", "0120", True),
        ("image,retinopathy_grade", "0120", True),
        ("image,starRating", "1231", True),
        ("image,label", ["0.0", "1.0", "2.0", "0.0"], True),  # measured, perhaps
        ("image,label", "0120", False),  # Kaggle's digits
        ("image,grade", "0101", False),
        ("image,grade", "abca", False),
    ],
)
def test_the_reason_says_that_a_scale_is_read_as_classes(place, header, cells, hint):
    (column,) = read(place, table(header, "{name},{0}", cells)).table.of("label")
    assert ("numbers, read as classes without an order" in column.reason) == hint


def test_whole_numbers_with_a_point_are_integers(place):
    """MXNet: number, label, path."""
    splits = read(place, table(None, "{n}\t{0}.000000\t{name}", "0101"))
    assert splits.train.class_names == ("0", "1") and splits.table.of("label")[0].reason == "the only other column"
    assert load(place / "list.csv", ("0.000000", "1.000000")).train.class_names == ("0.000000", "1.000000")


@pytest.mark.parametrize(
    ("encoding", "labels", "recognised"),
    [
        ("cp1252", "M\xfcller|caf\xe9|Stra\xdfe|C\xf4te d\u2019Ivoire|25 \xb0C|\u201eja\u201c|Ol\xe9!|\xd8", True),
        ("cp1251", "\u041a\u043e\u0448\u043a\u0430|\u0434\u0430", False),
        ("mac_roman", "K\xf6ln|x", False),
        ("mac_roman", "Stra\xdfe|\xc4pfel", False),
        ("shift_jis", "\u30a4\u30cc|\u732b", False),
        ("gb18030", "\u732b|\u72d7", False),
        ("cp1253", "\u03b3\u03ac\u03c4\u03b1|x", False),
        ("cp437", "caf\xe9|x", False),
    ],
)
def test_encodings(place, capsys, encoding, labels, recognised):
    words = labels.split("|")
    content = table("path,label", "{name},{0}", (words * 4)[:4]).encode(encoding)
    if not recognised:
        remedy = r"is not utf-8 .*encoding=\"NAME\".*--column encoding=NAME"
        with rejects(DataError, "table.encoding", encodings=("utf-8", "cp1252"), match=remedy):
            read(place, content)
    options = {} if recognised else {"encoding": encoding}
    splits = read(place, content, **options)
    assert set(splits.train.class_names) == set(words[:4]) and splits.table.encoding == encoding
    assert ("--column encoding=NAME" in capsys.readouterr().out) == recognised
    with rejects(DataError, "table.unknown_encoding", value="klingon"):
        read(place, content, encoding="klingon")
    with rejects(DataError, "table.encoding", encodings=("ascii",)):
        read(place, content, encoding="ascii")


def test_a_table_may_begin_with_a_brace():
    assert decoded(b"{3f2504e0}.jpg,cat\n", "list.csv") == ("{3f2504e0}.jpg,cat\n", "utf-8")


def test_rows_that_repeat_an_image(place):
    splits = read(place, "path,label\ni0.jpg,cat\n./i1.jpg,dog\ni0.jpg,cat\n")
    (note,) = splits.table.notes
    assert len(splits.train) == 3 and note.startswith("1 rows repeat an image with the same label") and "row 4" in note


@pytest.mark.parametrize(
    ("content", "options", "classes"),
    [
        (table("path,species,class", "{name},{label},{0}", "abab"), {"label": "species"}, ("cat", "dog")),
        (table("path,species,class", "{name},{label},{0}", "abab"), {"label": "CLASS"}, ("a", "b")),
        (table("path,species,class", "{name},{label},{0}", "abab"), {"ignore": "species"}, ("a", "b")),
        (table("photo,image,label", "none,{name},{label}"), {"image": "image"}, ("cat", "dog")),
        (table("filename,cat,dog", "{name},{0},1", "1100"), {"label": "cat"}, ("0", "1")),
        (table("path,label,valid", "{name},{label},{0}", "0101"), {"split": "valid"}, ("cat", "dog")),
        (table("path,label,a,b", "{name},{label},{0},train", ["train", "val"] * 2), {"split": "a"}, ("cat", "dog")),
    ],
)
def test_chosen_columns(place, content, options, classes):
    assert read(place, content, **options).train.class_names == classes


def test_a_chosen_column_that_does_not_exist(place):
    with rejects(DataError, "table.no_column", column="kind", columns=("path", "label")):
        read(place, RIGHT["path,label"][0], label="kind")
    with rejects(DataError, "table.two_roles", column="path", roles=("image", "label")):
        read(place, RIGHT["path,label"][0], image="path", label="path")


def test_columns_of_rows_from_another_reader():
    rows = [["photo", "species", "site"], ["a.jpg", "x", "1"], ["b.jpg", "y", "1"]]
    columns = recognise(rows, "sheet 1")
    assert (columns.image, columns.label, columns.split, columns.has_header) == (0, 1, None, True)
    assert [column.role for column in columns.columns] == ["image", "label", "ignored"]
