"""A CSV of path,label[,split]: a list that may come from anybody, so that its paths are kept inside one folder."""

import csv
import os
from pathlib import Path

import numpy as np

from recipes.data import Splits, labelled
from recipes.errors import DataError

MAX_BYTES = 2**30
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def from_csv(path, *, within=None) -> Splits:
    """The images that a CSV of path,label[,split] lists, for `finetune`, `audit`, `probe` or `evaluate`.

    Relative paths start from the folder that the CSV lies in.

    within: the folder that no path may leave, whether by being absolute, by `..` or by a symbolic link; default: the
        folder that the CSV lies in. "/" lets it name any file.

    Raises: DataError naming the row.

    >>> recipes.finetune(recipes.from_csv("lists/birds.csv", within="/data"))
    """
    return read_table(Path(path).expanduser(), None, within)


def read_table(path: Path, class_names, within=None) -> Splits:
    """`from_csv` with labels among `class_names`; None derives them."""
    at, first, rows = _rows(path)
    within = os.path.realpath(path.parent if within is None else Path(within).expanduser())
    parts: dict[str, list] = {}
    for number, row in enumerate(rows, first):
        where = f"{path} row {number}"
        if len(row) <= max(at["path"], at["label"]):
            raise DataError(f"{where} has {len(row)} cell(s): {row}; expected path,label")
        split = row[at["split"]].strip().lower() if len(row) > at["split"] else "train"
        if split not in SPLIT_FOLDERS:
            raise DataError(f"{where} has split {split!r}; expected train, val or test")
        file, label = str(path.parent / row[at["path"]].strip()), row[at["label"]].strip()
        _check_file(file, within, where + f" names {file}", first=number == 1)
        if not label:
            raise DataError(f"{where} has no label for {file}")
        parts.setdefault(SPLIT_FOLDERS[split], []).append((file, label))
    if "train" not in parts:
        raise DataError(
            f"{path} has rows of {sorted(parts)} but none of split train; for `evaluate` leave out the column split"
        )
    names = class_names or tuple(sorted({label for _, label in parts["train"]}))
    return Splits(**{
        split: labelled([f for f, _ in pairs], np.array([x for _, x in pairs], str), [f for f, _ in pairs], names)
        for split, pairs in parts.items()
    })  # fmt: skip


def _rows(path: Path) -> tuple[dict[str, int], int, list[list[str]]]:
    """Where the columns are, the number of the first row of data, and all rows of data."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{path} is too large: {size:,} bytes are more than {MAX_BYTES:,}")
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    has_header = "path" in header and "label" in header
    columns = header if has_header else ["path", "label", "split"]
    rows = rows[1:] if has_header else rows
    if not rows:
        raise DataError(f"{path} has no rows; expected lines of path,label (a third column `split` is understood)")
    at = {name: columns.index(name) if name in columns else len(columns) for name in ("path", "label", "split")}
    return at, 1 + has_header, rows


def _check_file(file: str, within: str, row_names: str, *, first: bool) -> None:
    if "\0" in file:
        raise DataError(f"{row_names!r}, which is no path")
    if not Path(os.path.realpath(file)).is_relative_to(within):
        raise DataError(
            f"{row_names}, which lies outside {within}; if that is meant, name the folder that holds all images: "
            "recipes.from_csv(csv, within=...), or --within on the command line"
        )
    if not os.path.isfile(file):
        hint = "; is it a header? Name the columns path,label" if first else ""
        raise DataError(f"{row_names}, which does not exist; paths are relative to the CSV{hint}")
