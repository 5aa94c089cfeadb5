"""Tables that are rejected: the error names the row or the column, and says what to do."""

import pytest
from assertions import Ending, rejects
from tables import NAMES, read, table

from recipes import DataError

ROWS = table(None, "{name},{label}").splitlines()

# The table, then the code and the attributes of the error.
WRONG = {
    "nothing": ("", "table.empty", {}),
    "a header alone": ("path,label\n", "table.empty", {}),
    "one column": ("path\n" + "\n".join(NAMES), "table.one_column", {}),
    "separated by blanks": (table(None, "{name} {label}"), "table.one_column", {}),
    "no column of labels": (
        table("filename,width,height", "{name},9,9"), "table.no_labels",
        dict(columns=("filename", "width", "height")),
    ),
    "no column of images": (table("code,label", "{name}x,{label}"), "table.no_images", dict(columns=("code", "label"))),
    "names of columns that say nothing": (
        table("a,b", "x{stem},{label}"), "table.missing_files",
        dict(files=("a", "xi0", "xi1", "xi2", "xi3")),
    ),
    "two columns of images": (
        table("image,mask_path,photo,label", "{name},{name},{name},{label}"), "table.several_image_columns",
        dict(columns=("image", "photo")),
    ),
    "two columns of labels": (
        table("path,species,class", "{name},{label},{0}", "abab"), "table.several_label_columns",
        dict(columns=("species", "class")),
    ),
    "the same column twice": (
        table("path,label,label", "{name},{label},{label}"), "table.same_names",
        dict(column="label"),
    ),
    "two splits": (
        table("path,label,split,is_valid", "{name},{label},train,{0}", "0101"), "table.several_split_columns",
        dict(columns=("split", "is_valid")),
    ),
    "split by number": (
        table("path,label,split", "{name},{label},{0}", "0012"), "table.split",
        dict(row=Ending("list.csv row 2"), value="0"),
    ),
    "split that is none": (
        table("path,label,split", "{name},{label},holdout"), "table.split",
        dict(row=Ending("list.csv row 2"), value="holdout"),
    ),
    "split left empty": (
        table("path,label,split", "{name},{label},{0}", ["train", "", "val", "val"]), "table.split",
        dict(row=Ending("list.csv row 3"), value=""),
    ),
    "phase that is none": (
        table("path,label,phase", "{name},{label},{0}", ["train", "x", "val", "val"]), "table.split",
        dict(row=Ending("list.csv row 3"), value="x"),
    ),
    "is_valid with a gap": (
        table("path,label,is_valid", "{name},{label},{0}", ["1", "", "0", "0"]), "table.not_boolean",
        dict(column="is_valid", value=""),
    ),
    "partition by number": (
        table("image_id,partition,label", "{name},{0},{label}", "0012"), "table.split",
        dict(row=Ending("list.csv row 2"), value="0"),
    ),
    "partition alone": (
        table("image_id,partition", "{name},{0}", "0012"), "table.no_labels",
        dict(columns=("image_id", "partition")),
    ),
    "one image in two splits": (
        "path,label,grp\ni0.jpg,cat,train\ni1.jpg,cat,train\ni0.jpg,cat,test\n", "table.several_splits",
        dict(
            file=Ending("/i0.jpg"), rows=(Ending("list.csv row 2"), Ending("list.csv row 4")), values=("train", "test")
        ),
    ),
    "pixels in place of images": (
        table("emotion,pixels,Usage", "{n},1 2 3,Training"), "table.no_images",
        dict(columns=("emotion", "pixels", "Usage")),
    ),
    "boxes without labels": (table("image_id,bbox", 'i0,"[1, 2, 3, {n}]"'), "table.boxes", {}),
    "is_train": (
        table("path,label,is_train", "{name},{label},{0}", "0101"), "table.only_train",
        dict(column="is_train"),
    ),
    "validation images beside others that are held out": (
        table("path,label,is_valid,is_holdout", "{name},{label},{0},{1}", "0101", "1000"),
        "table.several_split_columns",
        dict(columns=("is_valid", "is_holdout")),
    ),
    "ImageNet: classes with boxes": (
        table("ImageId,PredictionString", "{stem},n0{0} 11{n} 49 448 294", "1122"), "labels.regions",
        dict(label="n01 110 49 448 294"),
    ),
    "a medical test": (
        table("image,patient,test", "{name},{0},{1}", "1122", "0101"), "table.no_labels",
        dict(columns=("image", "patient", "test")),
    ),
    "runs of masks": (
        table("image,EncodedPixels", "{name},{n} 3 10 5 20 7"), "labels.regions",
        dict(label="0 3 10 5 20 7"),
    ),
    "both validation and test": (
        table("path,label,is_valid,is_test", "{name},{label},{0},{1}", "0101", "0001"), "table.two_splits",
        dict(row=Ending("list.csv row 5"), splits=("validation", "test")),
    ),
    "only validation": (table("path,label,grp", "{name},{label},val"), "table.no_train", dict(columns=("grp",))),
    "a split in words of their own": (
        table("path,label,cohort", "{name},{label},{0}", ["train", "internal val"] * 2), "table.split",
        dict(row=Ending("list.csv row 3"), value="internal val"),
    ),
    "some rows are not assigned to a split": (
        table("path,label,ml_use", "{name},{label},{0}", ["training", "UNASSIGNED"] * 2), "table.split",
        dict(row=Ending("list.csv row 3"), value="UNASSIGNED"),
    ),
    "is_training_img": (
        table("path,label,is_training_img", "{name},{label},{0}", "0101"), "table.only_train",
        dict(column="is_training_img"),
    ),
    "a row without a split among columns of splits": (
        table("path,label,train,val", "{name},{label},{0},{1}", "1010", "0100"), "table.no_split",
        dict(row=Ending("list.csv row 5")),
    ),
    "CheXpert": (
        table("Path,Sex,Age,No Finding,Oedema", "{name},{0},5{n},{1},{2}", "MFMF", ["1.0", "", "0.0", ""],
              ["", "1.0", "-1.0", "0.0"]), "table.multi_label",
        dict(columns=("No Finding", "Oedema")),
    ),
    "a type beside one-hot columns": (
        table("image,type,cat,dog", "{name},x{n},{0},{1}", "1100", "0011"), "table.multi_label",
        dict(columns=("cat", "dog")),
    ),
    "coordinates beside one-hot columns": (
        table("image,x,y,healthy,rust", "{name},{n},{0},{1},{2}", "1123", "1100", "0011"), "table.multi_label",
        dict(columns=("healthy", "rust")),
    ),
    "a disease that is one of the classes": (
        table("image,disease,rust", "{name},{0},{1}", "1101", "0100"), "table.multi_label",
        dict(columns=("disease", "rust")),
    ),
    "ages beside another column": (
        table("image,age,sex", "{name},{n},{0}", "mfmf"), "table.no_labels",
        dict(columns=("image", "age", "sex")),
    ),
    "places beside another column": (
        table("image,location,width", "{name},{0},{1}", "aabb", "1234"), "table.no_labels",
        dict(columns=("image", "location", "width")),
    ),
    "boxes by their centres": (
        table("filename,x_center,y_center,w,h,class", "i0.jpg,1,1,{n},5,{label}"), "table.boxes",
        {},
    ),
    "boxes by cx and cy": (table("filename,cx,cy,class", "i0.jpg,1,{n},cat"), "table.boxes", {}),
    "one image under two labels": (
        "path,label\ni0.jpg,cat\ni1.jpg,cat\ni0.jpg,dog\n", "table.several_labels",
        dict(file=Ending("/i0.jpg"), rows=(Ending("list.csv row 2"), Ending("list.csv row 4")), values=("cat", "dog")),
    ),
    "several labels with a slash": (
        table("path,label", "{name},{0}", ["cat", "dog", "cat/dog", "cat"]), "labels.multi_label",
        dict(label="cat/dog", separator="/"),
    ),
    "third column of a table without header": (table(None, "{name},{label},9"), "table.no_header", dict(value="9")),
    "one-hot": (
        table("id,cat,dog", "{stem},{0},{1}", "1100", "0011"), "table.multi_label",
        dict(columns=("cat", "dog")),
    ),
    "multi-label columns": (
        table("filename, cat, dog", "{name}, {0}, {1}", "1101", "0011"), "table.multi_label",
        dict(columns=("cat", "dog")),
    ),
    "multi-label with gaps": (
        table("Path,Oedema,Fracture", "{name},{0},{1}", ["1.0", "", "0.0", "-1.0"], ["", "1.0", "", ""]),
        "table.multi_label",
        dict(columns=("Oedema", "Fracture")),
    ),
    "labels separated by pipes": (
        table("path,labels", "{name},{0}", ["a|b", "a", "b|c", "c"]), "labels.multi_label",
        dict(label="a|b", separator="|"),
    ),
    "labels separated by blanks": (
        table("fname,labels", "{name},{0}", ["chair car", "chair", "car chair", "car"]), "labels.multi_label",
        dict(label="car chair", separator=" "),
    ),
    "labels as lists": (
        table("path,label", "{name},\"['{label}', 'x']\""), "labels.multi_label",
        dict(label="['cat', 'x']", separator='['),
    ),
    "labels as JSON": (
        table("image,choice", '{name},"{{""choices"":[""cat"",""dog""]}}"'), "labels.multi_label",
        dict(label='{"choices":["cat","dog"]}', separator="{"),
    ),
    "boxes": (
        table("filename,width,height,class,xmin,ymin,xmax,ymax", "i0.jpg,9,9,{label},1,1,5,5"), "table.boxes",
        {},
    ),
    "an unquoted comma": (
        "path,label\n" + "\n".join([ROWS[0], "i1.jpg,cat, red"]), "table.cells",
        dict(row=Ending("list.csv row 3"), cells=3, expected=2),
    ),
    "a cell too few": (
        "path,label\n" + "\n".join([ROWS[0], "i1.jpg"]), "table.cells",
        dict(row=Ending("list.csv row 3"), cells=1, expected=2),
    ),
    "rows after a blank line": (
        "path,label\n\n" + "\n".join([ROWS[0], "i1.jpg,"]), "table.missing_labels",
        dict(rows=(Ending("list.csv row 4"),)),
    ),
    "no label": (
        "path,label\n" + "\n".join([*ROWS[:2], "i2.jpg,", "i3.jpg,nan"]), "table.missing_labels",
        dict(rows=(Ending("list.csv row 4"), Ending("list.csv row 5"))),
    ),
    "an open quotation mark": ('path,label\ni0.jpg,"cat\n' + "\n".join(ROWS[1:]), "table.csv", dict(line=5)),
    "text after a quotation mark": ('path,label\n"i0.jpg"x,cat\n', "table.csv", dict(line=2)),
    "two spellings of a number": (
        table("path,label", "{name},{0}", ["1", "01", "1.0", "2"]), "labels.spellings",
        dict(labels=("01", "1", "1.0")),
    ),
    "UTF-16 without mark": (
        table("path,label", "{name},{label}").encode("utf-16-le"), "table.encoding",
        dict(encodings=("utf-8",)),
    ),
    "blank after a quotation mark": (table(None, '"{name}" ,{label}'), "table.csv", dict(line=1)),
    "a workbook": (b"PK\x03\x04\xff", "table.format", dict(format="an Excel workbook or another ZIP archive")),
    "JSON lines": (b'{"source-ref": "a.jpg", "class": 0}\n', "table.format", dict(format="JSON")),
    "no text": (b"\x89PNG\r\n\x81\x8d", "table.encoding", dict(encodings=("utf-8", "cp1252"))),
    "a network address": (
        "path,label\nhttps://example.org/a.jpg,x\n", "table.web_address",
        dict(row=Ending("list.csv row 2"), file="https://example.org/a.jpg"),
    ),
    "a name twice, without its extension": (
        "id,label\ntwice,cat\n", "table.ambiguous_file",
        dict(row=Ending("list.csv row 2"), file="twice", candidates=("twice.jpg", "twice.png")),
    ),
    "all missing files": (
        table("path,label", "x{name},{label}"), "table.missing_files",
        dict(files=("xi0.jpg", "xi1.jpg", "xi2.jpg", "xi3.jpg")),
    ),
    "another extension": (
        table("path,label", "{stem}.png,{label}"), "table.missing_files",
        dict(files=("i0.png", "i1.png", "i2.png", "i3.png")),
    ),
    "capital letters": (
        table("path,label", "I{n}.JPG,{label}"), "table.missing_files",
        dict(files=("I0.JPG", "I1.JPG", "I2.JPG", "I3.JPG")),
    ),
    "zeros that a spreadsheet removed": (
        "id,label\n7,cat\n", "table.missing_files",
        dict(files=("7",)),
    ),
    "paths of another machine": (
        "path,label\nC:\\Users\\me\\i0.jpg,cat\n", "table.missing_files",
        dict(files=('C:\\Users\\me\\i0.jpg',)),
    ),
    "paths of another machine, with slashes": (
        table("path,label", "/home/bob/data/{name},{label}"), "table.missing_files",
        dict(files=tuple(f"/home/bob/data/{name}" for name in NAMES)),
    ),
    "paths of another machine, no header": (
        table(None, "/kaggle/input/x/{name},{label}"), "table.missing_files",
        dict(files=tuple(f"/kaggle/input/x/{name}" for name in NAMES)),
    ),
    "paths of this machine": (
        "path,label\n/kaggle/x.jpg,cat\n/etc/passwd,dog\n", "table.outside",
        dict(row=Ending("list.csv row 2"), path="/kaggle/x.jpg"),
    ),
    "zeros that a spreadsheet removed, in a folder": (
        table("id,label", "{n},{label}"), "table.missing_files",
        dict(files=("0", "1", "2", "3")),
    ),
}  # fmt: skip


REMEDIES = {
    "no column of labels": "--column label=NAME",
    "names of columns that say nothing": "if row 1 is a header, name its columns",
    "two columns of labels": "choose one",
    "split by number": "may also mean a fold",
    "is_train": "replace this column by a column `split`",
    "is_training_img": "replace this column by a column `split`",
    "only validation": 'ignore="grp"',
    "a split in words of their own": "--column ignore=cohort",
    "some rows are not assigned to a split": "assign every row to a split, or no row",
    "one-hot": "idxmax",
    "multi-label columns": "label=cat",
    "a type beside one-hot columns": "by label=",
    "an open quotation mark": "quotation mark that is not closed",
    "blank after a quotation mark": "remove the blank or the text between the quotation mark",
    "a workbook": "export the table as CSV",
    "JSON lines": "export the table as CSV",
    "UTF-16 without mark": "UTF-16 without a byte order mark",
    "a network address": "download the images",
    "a name twice, without its extension": "write the name with its extension",
    "all missing files": r"row 2 names xi0.jpg, row 3 .*folder=",
    "another extension": "i0.jpg exists, so the extension of the names may be wrong",
    "capital letters": "i0.jpg exists, so the extension of the names may be wrong",
    "zeros that a spreadsheet removed": "leading zeros",
    "zeros that a spreadsheet removed, in a folder":
        r"below/: files with the same numbers and leading zeros exist.*folder=.*below",
    "paths of another machine": "paths of another machine",
    "paths of another machine, with slashes": "absolute paths of another machine",
    "paths of another machine, no header": "absolute paths of another machine",
    "paths of this machine": "within=",
}  # fmt: skip


@pytest.fixture
def place_with_likely_files(place):
    """Files whose names resemble those in some of the tables."""
    for name in ("twice.jpg", "twice.png", "007.jpg"):
        (place / name).write_bytes(b"x")
    (place / "below").mkdir()
    for n in range(4):
        (place / "below" / f"000{n}.jpg").write_bytes(b"x")
    return place


@pytest.mark.parametrize("form", WRONG)
def test_forms_that_are_rejected(place_with_likely_files, form):
    content, code, attributes = WRONG[form]
    with rejects(DataError, code, **attributes):
        read(place_with_likely_files, content)


@pytest.mark.parametrize("form", REMEDIES)
def test_messages_say_what_to_do(place_with_likely_files, form):
    """The only test of the wording of these errors."""
    content, code, _ = WRONG[form]
    with rejects(DataError, code, match=REMEDIES[form]):
        read(place_with_likely_files, content)
