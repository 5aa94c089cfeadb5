"""Define the usual names of columns in tables of images, and describe how a table was read."""

import json
import mimetypes
import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import splitext

from recipes.core.output import shortened
from recipes.core.text import counted, described

TABLE_SUFFIXES = (".csv", ".tsv")
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
UNASSIGNED = "unassigned"  # Google Vertex AI writes this for rows without a split
PARTS = SPLIT_FOLDERS | {"trn": "train", "validate": "validation"}
FILLERS = r"((set|split|data|dataset|subset|sample|example|image|img|photo|row|flag|only)s?)*"
_CELL = re.compile(rf"({'|'.join(PARTS)}){FILLERS}")


def words_in(text: str) -> frozenset[str]:
    return frozenset(text.split())


TRUE, FALSE = frozenset({"true", "1", "1.0", "yes", "y", "t"}), frozenset({"false", "0", "0.0", "no", "n", "f"})

_PATH = "path paths filepath filepaths fpath imagepath imagepaths imgpath imagefilepath relativepath relpath fullpath"
_FILE = "file files filename filenames fname fnames imagefile imagefilename imgfile imgname imagename imagenames"
_IMAGE = "image images img imgs photo photos picture pictures pic"
_IMAGE_ID = "imageid imgid imageindex photoid pictureid"
_ID = "id idcode name names uuid key"
IMAGE_RANKS = {name: i for i, names in enumerate((_PATH, _FILE, _IMAGE, _IMAGE_ID, _ID)) for name in names.split()}
WEAK_RANK = IMAGE_RANKS["id"]  # names that other columns may also have
LABELS = words_in(
    "label labels class classes classname classnames classlabel classid classidx classindex category categories "
    "categoryname categoryid target targets labelname labelid labelidx labelindex groundtruth gt truth choice "
    "species breed diagnosis dx disease finding findings findinglabels variety cultivar defect emotion"
)
HEADER_WORDS = words_in("label labels class classname classlabel classid category target") | IMAGE_RANKS.keys()
WEAK_LABELS = words_in("grade level rating ratings score scores stars severity stage tag tags y type kind annotation")
SPLITS = words_in("split splits datasplit datasetsplit traintest trainvaltest trainvalidtest mluse partition")
PERHAPS_SPLITS = words_in("set sets subset dataset phase usage part cohort")
FOLD = re.compile(r"(k|cv|strat|stratified|validation|val|test)?folds?(id|no|number|idx|index)?|crossvalidation|cv")
GROUP = re.compile(
    r"(group|patient|subject|session|participant)s?(id|no|number|name|idx|index|code)?|"
    r"(case|slide|user|lesion|study|series|individual|animal|specimen|sequence|seq|video|clip|burst|person|driver|scene)"
    r"(id|no|number|code)"
)  # names that never mean a column of labels
WEIGHTS = frozenset({"weight", "weights", "sampleweight", "sampleweights", "instanceweight"})
_KNOWN = LABELS | WEAK_LABELS | SPLITS | PERHAPS_SPLITS | WEIGHTS | HEADER_WORDS
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}


def key(name: str) -> str:
    """Return the case-folded letters and digits of a name, equal for "Image ID", "image_id" and "imageId"."""
    return "".join(words_of(name))


def words_of(name: str) -> tuple[str, ...]:
    """Return the case-folded words of a name, such as the three words of "isValidationSet" or "is_validation_set"."""
    parts = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)", " ", unicodedata.normalize("NFKC", name))
    return tuple(re.sub(r"[\W_]+", " ", parts.casefold()).split())


@lru_cache(2**12)
def split_of(cell: str) -> str | None:
    """Return "train", "validation" or "test" for a cell such as "Training" or "val_set"; None for other cells."""
    found = _CELL.fullmatch(key(cell))
    return PARTS[found[1]] if found else None


def is_image_name(cell: str) -> bool:
    """Return whether a name has the extension of an image."""
    ending = splitext(cell)[1]
    return bool(ending) and (mimetypes.guess_type("x" + ending, strict=False)[0] or "").startswith("image/")


def looks_like_header(row: Sequence[str]) -> bool:
    """Return whether a row names a column of images or labels, or two known columns of any kind, and no file."""
    keys = [key(cell) for cell in row]
    known = [k for k in keys if k in _KNOWN or GROUP.fullmatch(k) or FOLD.fullmatch(k)]
    return (len(known) > 1 or any(k in HEADER_WORDS for k in keys)) and not any(map(is_image_name, row))


def override(role: str, *names: str) -> str:
    """Return a hint that shows how to choose columns or set another option of `from_csv`."""
    value = f'"{names[0]}"' if len(names) == 1 else json.dumps(names, ensure_ascii=False)
    columns = " ".join(f"--column {shlex.quote(f'{role}={name}')}" for name in names)
    return f"recipes.from_csv(..., {role}={value}), or {columns} on the command line"


@dataclass(frozen=True)
class Chosen:
    """The columns that the user has chosen. None recognises a column; columns in `ignore` are not used."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """The role of one column of a table.

    Attributes:
        name: Name of the column.
        role: "image", "label" and "split" are used; "perhaps split", "group", "perhaps group", "fold", "weight",
            "index" and "ignored" are not.
        reason: The meaning of the column, or the way in which it was recognised, if its name does not show that.
    """

    name: str
    role: str = "ignored"
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.reason})" if self.reason else repr(self.name)


@dataclass(frozen=True)
class Columns:
    """The columns of one table in their order, and the positions of the columns that are used.

    Attributes:
        columns: All columns.
        has_header: Whether the first row names them.
        image: Position of the column that names the images.
        label: Position of the column of labels.
        split: Position of the column whose cells name the split of a row; None if there is none.
        flags: Used if `split` is None: (position, split) of each column that is true for the rows of one split.
    """

    columns: tuple[Column, ...]
    has_header: bool
    image: int
    label: int
    split: int | None = None
    flags: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class TableReading:
    """Facts about how a table was read: its rows, encoding, separator, columns, and the folder of its images."""

    path: str
    rows: int
    encoding: str
    separator: str
    columns: tuple[Column, ...]
    folder: str
    notes: tuple[str, ...] = ()

    def of(self, *roles: str) -> tuple[Column, ...]:
        """Return the columns with these roles."""
        return tuple(column for column in self.columns if column.role in roles)

    def __repr__(self) -> str:
        return described("TableReading", repr(self.path), f"{self.rows:,} rows", counted(len(self.columns), "column"))

    def __str__(self) -> str:
        used = {role: ", ".join(map(str, self.of(role))) for role in ("image", "label", "split")}
        lines = ["; ".join([f"{self.rows:,} rows", *(f"{role}: {names}" for role, names in used.items() if names)])]
        if self.encoding != "utf-8" or self.separator != ",":
            lines.append(f"read as {self.encoding}, separated by {_SEPARATORS[self.separator]}")
        if self.encoding == "cp1252":
            lines.append(f"if letters look wrong, name the encoding: {override('encoding', 'NAME')}")
        lines += [f"not used: {column}" for column in self.of("perhaps split", "group", "fold", "weight")]
        lines += [f"ignored: {column}" for column in self.of("perhaps group")]
        ignored = [str(column) for column in self.of("ignored", "index")]
        if ignored:
            lines.append(f"ignored: {shortened(ignored, 10)}")
        return "\n".join(f"{self.path}: {line}" for line in (*lines, *self.notes))
