"""Read a CSV that lists images with their labels. The CSV may be hostile, so its paths must stay inside one folder."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recipes.core.output import printable, safe_output
from recipes.data.folders.layout import SPLIT_NAMES
from recipes.data.images import ImageData, Splits, labelled
from recipes.data.labels import MISSING, missing_labels, whole_numbers
from recipes.data.tables.columns import recognise
from recipes.data.tables.files import Named, locate
from recipes.data.tables.names import Chosen, Columns, TableReading, override
from recipes.data.tables.splits import check_rows_of_files, splits_of, with_groups
from recipes.data.tables.text import read_rows
from recipes.errors import DataError

logger = logging.getLogger(__name__)


@safe_output()
def from_csv(
    path: str | os.PathLike, *, within: str | os.PathLike | None = None, folder: str | os.PathLike | None = None,
    image: str | None = None, label: str | None = None, split: str | None = None, ignore: Sequence[str] = (),
    encoding: str | None = None,
) -> Splits:  # fmt: skip
    """Read a CSV that lists images with their labels, for `finetune`, `audit`, `probe` or `evaluate`.

    Columns are recognised by their names (path, filename, image_id, …; label, class, species, …; split, is_valid, …).
    Without a header, columns are recognised by their cells. The function logs how it read the table, and `Splits.table`
    describes it. The separator may be a comma, semicolon, tab or pipe. The encoding is UTF-8, UTF-16, or Windows-1252
    if that gives plausible words. File names may lack their extension.

    Args:
        path: The file of the table, which may have any name.
        within: The folder that no path may leave, whether by an absolute path, by `..` or by a symbolic link. None
            takes `folder`, or else the folder of the table. With "/" the table may name any file.
        folder: The folder to which paths are relative. None takes the folder of the table, or the only folder below it
            that has all images.
        image: Name of the column of images; None recognises it.
        label: Name of the column of labels; None recognises it.
        split: Name of the column that holds train, val or test; None recognises it.
        ignore: Names of columns that are not used, such as groups that a random split may separate.
        encoding: Encoding of the text, such as "shift_jis", "cp1251" or "mac_roman"; None recognises it.

    Raises:
        DataError: If the table is ambiguous or malformed; the message names the row or the columns and says what to do.

    Example:
        >>> recipes.finetune(recipes.from_csv("lists/birds.csv", folder="/data/birds", label="species"))
    """
    chosen = Chosen(image, label, split, (ignore,) if isinstance(ignore, str) else tuple(ignore))
    return read_table(Path(path).expanduser(), None, within, folder, chosen, encoding)


def read_table(
    path: Path, class_names: Sequence[str] | None, within: str | os.PathLike | None = None,
    folder: str | os.PathLike | None = None, chosen: Chosen | None = None, encoding: str | None = None,
) -> Splits:  # fmt: skip
    """Read a table like `from_csv`, with labels among `class_names`; None takes the classes of the training rows."""
    text = read_rows(path, encoding)
    columns = recognise(text.rows, str(path), chosen)
    rows, numbers = text.rows[columns.has_header :], text.numbers[columns.has_header :]
    where = [f"{path} row {number}" for number in numbers]
    _check_cells(columns, rows, where)
    splits = splits_of(columns, rows, where)
    if "train" not in splits:
        names = [column.name for column in columns.columns if column.role == "split"]
        raise DataError(
            f"{path} has rows of {sorted(set(splits))} but none of split train; add training rows, or, to "
            f"evaluate all rows, ignore the split: {override('ignore', *names)}",
            code="table.no_train", path=path, columns=tuple(names),
        )  # fmt: skip
    names = [row[columns.image] for row in rows]
    hint = "" if columns.has_header else "if row 1 is a header, name its columns path,label"
    located = locate(Named(names, where, path, hint), folder, within)
    labels = whole_numbers(np.array([row[columns.label] for row in rows], str), class_names)
    repeated = check_rows_of_files(located.files, splits, labels.tolist(), where)
    columns = with_groups(columns, rows, splits)
    reading = TableReading(
        str(path),
        len(rows),
        text.encoding,
        text.separator,
        columns.columns,
        located.folder,
        (*located.notes, *repeated),
    )
    logger.info(printable(str(reading)))
    parts: dict[str, ImageData] = {}
    for split in sorted(set(splits), key=SPLIT_NAMES.index):  # the training rows define the classes
        chosen_rows = [i for i, own in enumerate(splits) if own == split]
        files = [located.files[i] for i in chosen_rows]
        parts[split] = labelled(files, labels[chosen_rows], files, class_names)
        class_names = parts[split].class_names
    return Splits(parts["train"], parts.get("validation"), parts.get("test"), table=reading)


def _check_cells(columns: Columns, rows: list[list[str]], where: list[str]) -> None:
    """Check that each row has a label and a cell for every used column, and no more cells than the header."""
    width = len(columns.columns)
    least = 1 + max(columns.image, columns.label, columns.split or 0, *(i for i, _ in columns.flags))
    for row, name in zip(rows, where, strict=True):
        if len(row) < least or any(row[width:]):
            names = ", ".join(column.name for column in columns.columns)
            raise DataError(
                f"{name} has {len(row)} cell(s): {row[:10]}; expected {width}: {names} (a separator in a cell needs "
                "quotation marks)",
                code="table.cells", row=name, cells=len(row), expected=width,
            )  # fmt: skip
    missing = [i for i, row in enumerate(rows) if row[columns.label] in MISSING]
    if missing:
        labels, images = ([row[i] for row in rows] for i in (columns.label, columns.image))
        raise DataError(
            f"{where[missing[0]]} has no label; {missing_labels(labels, images, missing)}",
            code="table.missing_labels", rows=tuple(where[i] for i in missing),
        )  # fmt: skip
