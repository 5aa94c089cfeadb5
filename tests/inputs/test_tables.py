"""Tables as spreadsheets, pandas, fastai, Keras, Kaggle and labelling tools write them: read rightly, or refused."""

import codecs
import unicodedata

import pytest

from recipes import DataError, from_csv, pack
from recipes.data.sources import load
from recipes.data.tables.columns import recognise
from recipes.data.tables.encodings import decoded
from recipes.planning.request import Request
from recipes.training.prepare import loaded

NAMES = [f"i{n}.jpg" for n in range(4)]
LABELS = ["cat", "cat", "dog", "dog"]


@pytest.fixture
def place(tmp_path):
    """A folder with four files that have an image's name; loading does not look into them."""
    for name in NAMES:
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def table(header: str | None, row: str, *columns, separator="\n") -> str:
    """Lines of a table; `row` has {name}, {label}, {n} and {0}, {1}, … of the further columns."""
    lines = [] if header is None else [header]
    for n, (name, label) in enumerate(zip(NAMES, LABELS, strict=True)):
        lines.append(row.format(*(column[n] for column in columns), name=name, stem=name[:-4], label=label, n=n))
    return separator.join(lines) + separator


def read(place, content, name="list.csv", **options):
    (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return from_csv(place / name, **options)


# What is written: the table, its columns of images, labels and splits.
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
    got = {
        name.rsplit("/", 1)[-1]: (part.class_names[label].split(",")[0], role)
        for role, part in splits.given.items()
        for name, label in zip(part.names, part.labels, strict=True)
    }
    roles = ["train", "validation"] * 2 if split else ["train"] * 4
    assert got == dict(zip(NAMES, zip(LABELS, roles, strict=True), strict=True))


ROWS = table(None, "{name},{label}").splitlines()
WRONG = {
    "nothing": ("", "no rows"),
    "a header alone": ("path,label\n", "no rows"),
    "one column": ("path\n" + "\n".join(NAMES), "rows of 1 cell"),
    "separated by blanks": (table(None, "{name} {label}"), "rows of 1 cell"),
    "no column of labels": (
        table("filename,width,height", "{name},9,9"), r"no column that is known to hold labels.*--column label=NAME",
    ),
    "no column of images": (table("code,label", "{name}x,{label}"), "no column that is known to name images"),
    "names of columns that say nothing": (table("a,b", "x{stem},{label}"), "5 of 5 .*if row 1 is a header, name its"),
    "two columns of images": (
        table("image,mask_path,photo,label", "{name},{name},{name},{label}"), r"name the images, \['image', 'photo'\]",
    ),
    "two columns of labels": (
        table("path,species,class", "{name},{label},{0}", "abab"), r"labels, \['species', 'class'\]; choose one",
    ),
    "the same column twice": (table("path,label,label", "{name},{label},{label}"), "two columns 'label'"),
    "two splits": (
        table("path,label,split,is_valid", "{name},{label},train,{0}", "0101"), r"a split, \['split', 'is_valid'\]",
    ),
    "split by number": (table("path,label,split", "{name},{label},{0}", "0012"), "row 2 has split '0'.*fold"),
    "split that is none": (table("path,label,split", "{name},{label},holdout"), "row 2 has split 'holdout'"),
    "split left empty": (
        table("path,label,split", "{name},{label},{0}", ["train", "", "val", "val"]), "row 3 has split ''",
    ),
    "phase that is none": (
        table("path,label,phase", "{name},{label},{0}", ["train", "x", "val", "val"]), "row 3 has split 'x'",
    ),
    "is_valid with a gap": (
        table("path,label,is_valid", "{name},{label},{0}", ["1", "", "0", "0"]), "'is_valid'.* has ''",
    ),
    "partition by number": (table("image_id,partition,label", "{name},{0},{label}", "0012"), "row 2 has split '0'"),
    "partition alone": (table("image_id,partition", "{name},{0}", "0012"), "known to hold labels"),
    "one image in two splits": (
        "path,label,grp\ni0.jpg,cat,train\ni1.jpg,cat,train\ni0.jpg,cat,test\n",
        "row 4 has .*i0.jpg in test, .* row 2 has it in train; 1 rows",
    ),
    "pixels in place of images": (table("emotion,pixels,Usage", "{n},1 2 3,Training"), "known to name images"),
    "boxes without labels": (table("image_id,bbox", 'i0,"[1, 2, 3, {n}]"'), "object detection"),
    "is_train": (
        table("path,label,is_train", "{name},{label},{0}", "0101"), "'is_train'.*replace it by a column `split`",
    ),
    "validation images beside others that are held out": (
        table("path,label,is_valid,is_holdout", "{name},{label},{0},{1}", "0101", "1000"),
        r"a split, \['is_valid', 'is_holdout'\]",
    ),
    "ImageNet: classes with boxes": (
        table("ImageId,PredictionString", "{stem},n0{0} 11{n} 49 448 294", "1122"), "lists of numbers, as boxes",
    ),
    "a medical test": (table("image,patient,test", "{name},{0},{1}", "1122", "0101"), "known to hold labels"),
    "runs of masks": (table("image,EncodedPixels", "{name},{n} 3 10 5 20 7"), "lists of numbers, as boxes"),
    "both validation and test": (
        table("path,label,is_valid,is_test", "{name},{label},{0},{1}", "0101", "0001"), "row 5 belongs to .*",
    ),
    "only validation": (
        table("path,label,grp", "{name},{label},val"), 'none of split train.*ignore="grp"',
    ),
    "a split in words of their own": (
        table("path,label,cohort", "{name},{label},{0}", ["train", "internal val"] * 2),
        "row 3 has split 'internal val'.*--column ignore=cohort",
    ),
    "some rows are not assigned to a split": (
        table("path,label,ml_use", "{name},{label},{0}", ["training", "UNASSIGNED"] * 2),
        "split 'UNASSIGNED'.*assign every row to a split, or no row",
    ),
    "is_training_img": (
        table("path,label,is_training_img", "{name},{label},{0}", "0101"), "'is_training_img'.*replace it",
    ),
    "a row without a split among columns of splits": (
        table("path,label,train,val", "{name},{label},{0},{1}", "1010", "0100"), "row 5 belongs to no split",
    ),
    "CheXpert": (
        table("Path,Sex,Age,No Finding,Oedema", "{name},{0},5{n},{1},{2}", "MFMF", ["1.0", "", "0.0", ""],
              ["", "1.0", "-1.0", "0.0"]),
        "'No Finding', 'Oedema'.*multi-label",
    ),
    "a type beside one-hot columns": (
        table("image,type,cat,dog", "{name},x{n},{0},{1}", "1100", "0011"), "'cat', 'dog'.*multi-label.*by label=",
    ),
    "coordinates beside one-hot columns": (
        table("image,x,y,healthy,rust", "{name},{n},{0},{1},{2}", "1123", "1100", "0011"), "'healthy', 'rust'",
    ),
    "a disease that is one of the classes": (
        table("image,disease,rust", "{name},{0},{1}", "1101", "0100"), "'disease', 'rust'.*multi-label",
    ),
    "ages beside another column": (table("image,age,sex", "{name},{n},{0}", "mfmf"), "known to hold labels"),
    "places beside another column": (
        table("image,location,width", "{name},{0},{1}", "aabb", "1234"), "known to hold labels",
    ),
    "boxes by their centres": (
        table("filename,x_center,y_center,w,h,class", "i0.jpg,1,1,{n},5,{label}"), "object detection",
    ),
    "boxes by cx and cy": (table("filename,cx,cy,class", "i0.jpg,1,{n},cat"), "object detection"),
    "one image under two labels": (
        "path,label\ni0.jpg,cat\ni1.jpg,cat\ni0.jpg,dog\n", "row 4 has .*i0.jpg as dog, .* row 2 has it as cat; 1 rows",
    ),
    "several labels with a slash": (
        table("path,label", "{name},{0}", ["cat", "dog", "cat/dog", "cat"]), "'cat/dog' is several labels in one",
    ),
    "third column of a table without header": (table(None, "{name},{label},9"), "no header, and '9' .* not a split"),
    "one-hot": (table("id,cat,dog", "{stem},{0},{1}", "1100", "0011"), "'cat', 'dog'.*multi-label.*idxmax"),
    "multi-label columns": (
        table("filename, cat, dog", "{name}, {0}, {1}", "1101", "0011"), "'cat', 'dog'.*multi-label.*label=cat",
    ),
    "multi-label with gaps": (
        table("Path,Oedema,Fracture", "{name},{0},{1}", ["1.0", "", "0.0", "-1.0"], ["", "1.0", "", ""]), "multi-label",
    ),
    "labels separated by pipes": (
        table("path,labels", "{name},{0}", ["a|b", "a", "b|c", "c"]), r"'a\|b' is several labels in one.*multi-label",
    ),
    "labels separated by blanks": (
        table("fname,labels", "{name},{0}", ["chair car", "chair", "car chair", "car"]), "'car chair' is several",
    ),
    "labels as lists": (table("path,label", "{name},\"['{label}', 'x']\""), "several labels in one"),
    "labels as JSON": (
        table("image,choice", '{name},"{{""choices"":[""cat"",""dog""]}}"'), "several labels in one",
    ),
    "boxes": (
        table("filename,width,height,class,xmin,ymin,xmax,ymax", "i0.jpg,9,9,{label},1,1,5,5"), "object detection",
    ),
    "an unquoted comma": ("path,label\n" + "\n".join([ROWS[0], "i1.jpg,cat, red"]), r"row 3 has 3 cell\(s\)"),
    "a cell too few": ("path,label\n" + "\n".join([ROWS[0], "i1.jpg"]), r"row 3 has 1 cell\(s\)"),
    "rows after a blank line": ("path,label\n\n" + "\n".join([ROWS[0], "i1.jpg,"]), "row 4 has no label"),
    "no label": ("path,label\n" + "\n".join([*ROWS[:2], "i2.jpg,", "i3.jpg,nan"]), "row 4 has no label; 2 of 4"),
    "an open quotation mark": ('path,label\ni0.jpg,"cat\n' + "\n".join(ROWS[1:]), "is not a valid CSV.*quotation mark"),
    "text after a quotation mark": ('path,label\n"i0.jpg"x,cat\n', "is not a valid CSV"),
    "two spellings of a number": (
        table("path,label", "{name},{0}", ["1", "01", "1.0", "2"]), "spellings of one number",
    ),
    "UTF-16 without mark": (table("path,label", "{name},{label}").encode("utf-16-le"), "NUL characters"),
    "blank after a quotation mark": (
        table(None, '"{name}" ,{label}'),
        r"is not a valid CSV.*line 1.*remove the blank or the text between the quotation mark",
    ),
    "a workbook": (b"PK\x03\x04\xff", "is an Excel workbook.*export it as CSV"),
    "JSON lines": (b'{"source-ref": "a.jpg", "class": 0}\n', "is JSON.*export it as CSV"),
    "no text": (b"\x89PNG\r\n\x81\x8d", "is not utf-8 and not cp1252"),
    "a network address": ("path,label\nhttps://example.org/a.jpg,x\n", "a network address; download"),
    "a name twice, without its extension": ("id,label\ntwice,cat\n", r"twice.jpg or twice.png; write the full name"),
    "all missing files": (
        table("path,label", "x{name},{label}"), r"4 of 4 images do not exist: row 2 names xi0.jpg, row 3 .*folder=",
    ),
    "another extension": (
        table("path,label", "{stem}.png,{label}"), "i0.jpg exists: is the extension of",
    ),
    "capital letters": (table("path,label", "I{n}.JPG,{label}"), "4 of 4 .*i0.jpg exists: is the extension"),
    "zeros that a spreadsheet removed": ("id,label\n7,cat\n", "leading zeros"),
    "paths of another machine": (
        "path,label\nC:\\Users\\me\\i0.jpg,cat\n", "1 of 1 images does not exist.*paths of another machine",
    ),
    "paths of another machine, with slashes": (
        table("path,label", "/home/bob/data/{name},{label}"),
        "4 of 4 images do not exist: row 2 names /home/bob/data/i0.jpg, row 3 .*jpg; these are absolute paths of",
    ),
    "paths of another machine, no header": (
        table(None, "/kaggle/input/x/{name},{label}"), "4 of 4 .*jpg; these are absolute paths of another machine",
    ),
    "paths of this machine": ("path,label\n/kaggle/x.jpg,cat\n/etc/passwd,dog\n", "row 2 .* lies outside .*within="),
    "zeros that a spreadsheet removed, in a folder": (
        table("id,label", "{n},{label}"),
        r"4 of 4 images do not exist.*below/: files with the same numbers and leading zeros exist.*folder=.*below",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", WRONG)
def test_forms_that_are_refused(place, form):
    content, message = WRONG[form]
    for name in ("twice.jpg", "twice.png", "007.jpg"):
        (place / name).write_bytes(b"x")
    (place / "below").mkdir()
    for n in range(4):
        (place / "below" / f"000{n}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        read(place, content)


def test_what_was_read_is_printed_once(place, capsys):
    content = table("Unnamed: 0,path,label,weight,colour", "{n},{name},m\xfcll{label},2,red").encode("latin-1")
    splits = read(place, content)
    assert splits.train.class_names == ("m\xfcllcat", "m\xfclldog")
    said = capsys.readouterr().out
    assert "4 rows; image: 'path'; label: 'label'" in said
    assert "read as cp1252" in said and "not used: 'weight'" in said
    assert "ignored: 'Unnamed: 0' (row numbers), 'colour'" in said
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
def test_a_scale_is_said_to_be_read_as_classes(place, header, cells, hint):
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
        with pytest.raises(DataError, match=r"is not utf-8 .*encoding=\"NAME\".*--column encoding=NAME"):
            read(place, content)
    options = {} if recognised else {"encoding": encoding}
    splits = read(place, content, **options)
    assert set(splits.train.class_names) == set(words[:4]) and splits.table.encoding == encoding
    assert ("--column encoding=NAME" in capsys.readouterr().out) == recognised
    with pytest.raises(DataError) as raised:
        read(place, content, encoding="klingon")
    assert raised.value.code == "table.unknown_encoding"
    with pytest.raises(DataError, match="is not ascii"):
        read(place, content, encoding="ascii")


def test_a_table_may_begin_with_a_brace():
    assert decoded(b"{3f2504e0}.jpg,cat\n", "list.csv") == ("{3f2504e0}.jpg,cat\n", "utf-8")


def test_rows_that_repeat_an_image(place):
    splits = read(place, "path,label\ni0.jpg,cat\n./i1.jpg,dog\ni0.jpg,cat\n")
    (note,) = splits.table.notes
    assert len(splits.train) == 3 and note.startswith("1 rows repeat an image with the same label") and "row 4" in note


def test_one_hot_splits(place):
    splits = read(place, table("path,label,train,valid,test", "{name},cat,{0},{1},{2}", "1100", "0010", "0001"))
    assert {name: len(part) for name, part in splits.given.items()} == {"train": 2, "validation": 1, "test": 1}


def test_a_split_beside_the_chosen_one(place):
    content = table("path,label,mine,phase,is_valid", "{name},{label},{0},{0},{1}", ["train", "val"] * 2, "1010")
    splits = read(place, content, split="mine")
    reasons = {column.name: column.reason for column in splits.table.of("ignored")}
    assert reasons == {"phase": "the split is 'mine'", "is_valid": "the split is 'mine'"}
    assert len(read(place, content, split="is_valid").validation) == 2
    with pytest.raises(DataError) as raised:
        read(place, table("path,label,is_train", "{name},{label},{0}", "0101"), split="is_train")
    assert raised.value.code == "table.only_train" and raised.value.column == "is_train"


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


def test_a_chosen_column_that_is_not_there(place):
    with pytest.raises(DataError, match=r"no column 'kind'; its first row is \['path', 'label'\]"):
        read(place, RIGHT["path,label"][0], label="kind")
    with pytest.raises(DataError, match="cannot be both image and label"):
        read(place, RIGHT["path,label"][0], image="path", label="path")


def move(place, folder):
    (place / folder).mkdir(parents=True)
    for name in NAMES:
        (place / name).rename(place / folder / name)


def test_images_in_the_one_folder_below(place, capsys):
    """Kaggle: labels.csv beside train_images/, or beside data/train_images/."""
    move(place, "data/train_images")
    splits = read(place, table("id,label", "{stem},{label}"))
    assert splits.train.names == tuple(str(place / "data" / "train_images" / name) for name in NAMES)
    assert "the names start in " in (said := capsys.readouterr().out) and "have no extension" in said
    assert splits.table.folder == str(place / "data" / "train_images")


def test_images_in_several_folders_below(place):
    move(place, "train")
    for part in ("test", "other"):
        (place / part).mkdir()
        (place / part / "i0.jpg").write_bytes(b"x")
    assert len(read(place, RIGHT["path,label"][0]).train) == 4  # only train/ has all of them
    for name in NAMES:
        (place / "test" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"4 in .*test, 4 in .*train: give the folder.*--column folder=") as refused:
        read(place, RIGHT["path,label"][0])
    assert "other" in str(refused.value)
    assert read(place, RIGHT["path,label"][0], folder=place / "test").train.names[0] == str(place / "test" / "i0.jpg")


def test_some_images_missing_are_not_looked_for_elsewhere(place):
    (place / "more").mkdir()
    (place / "i3.jpg").rename(place / "more" / "i3.jpg")
    with pytest.raises(DataError, match=r"1 of 4 images does not exist: row 5 names i3.jpg; of them exist 1 in .*more"):
        read(place, RIGHT["path,label"][0])


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
    with pytest.raises(DataError, match=r"row 2 names .* lies outside .*--within"):
        read(inside, f"path,label\n{name},x\n")
    if "etc" not in name:
        assert len(read(inside, f"path,label\n{name},x\n", within=place).train) == 1


def test_a_folder_below_that_leads_out_is_not_searched(place):
    inside, outside = place / "inside", place / "outside"
    inside.mkdir()
    move(place, "outside")
    (inside / "linked").symlink_to(outside)
    with pytest.raises(DataError, match="4 of 4 images do not exist"):
        read(inside, RIGHT["path,label"][0])
    assert len(read(inside, RIGHT["path,label"][0], within=place).train) == 4
    assert len(read(inside, RIGHT["path,label"][0], folder=outside).train) == 4
    with pytest.raises(DataError, match="lies outside"):
        read(inside, "path,label\n../inside/list.csv,x\n", folder=outside)


def test_groups_in_several_splits(place, capsys):
    content = table("path,label,patient_id,split", "{name},{label},{0},{1}", "aabc", ["train", "val"] * 2)
    (column,) = read(place, content).table.of("group")
    assert column.reason == "groups: 1 of 3 lie in several splits, the accuracy on these will be too high"
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
        with pytest.raises(DataError, match=rf"groups or folds in '{column}'.*--column ignore={column}") as refused:
            loaded(Request(splits, validation=validation))
    assert "Add a column `split`" in str(refused.value)
    with pytest.raises(DataError, match="groups or folds"):
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
    assert found.reason == "groups: 2 of 2 lie in several splits, the accuracy on these may be too high"


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
    with pytest.raises(DataError, match=rf"may be a split in '{column}'.*--column '?ignore={column}"):
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


def test_columns_of_rows_from_another_reader():
    rows = [["photo", "species", "site"], ["a.jpg", "x", "1"], ["b.jpg", "y", "1"]]
    columns = recognise(rows, "sheet 1")
    assert (columns.image, columns.label, columns.split, columns.has_header) == (0, 1, None, True)
    assert [column.role for column in columns.columns] == ["image", "label", "ignored"]
